"""The brief's import path, `from src.config import ...`: all of it lives in `rethinking.config`."""

from rethinking.config import ExperimentConfig, get_baseline_config, get_random_labels_config

__all__ = ["ExperimentConfig", "get_baseline_config", "get_random_labels_config"]
