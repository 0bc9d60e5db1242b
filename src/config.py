"""The import path `src.config`, kept for `from src.config import ...`; the code is in `rethinking.config`."""

from rethinking.config import ExperimentConfig, get_baseline_config, get_random_labels_config

__all__ = ["ExperimentConfig", "get_baseline_config", "get_random_labels_config"]
