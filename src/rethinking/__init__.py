"""The experiments of Zhang et al. 2017, "Understanding deep learning requires rethinking generalization".

    from rethinking import ExperimentConfig, train
    result = train(ExperimentConfig(model_name="mlp_1x512", dataset="digits", randomization="random_labels"))
    result.final["exact_train_accuracy"], result.final["test_accuracy"]

The command line is `rethinking train`.
"""

from typing import TYPE_CHECKING, Any

from rethinking.config import ExperimentConfig, get_baseline_config, get_random_labels_config
from rethinking.errors import InputError, RunError
from rethinking.runtime import set_defaults

if TYPE_CHECKING:
    from rethinking.models import build_model
    from rethinking.training import RunResult, train, train_many

__all__ = [
    "ExperimentConfig",
    "InputError",
    "RunError",
    "RunResult",
    "build_model",
    "get_baseline_config",
    "get_random_labels_config",
    "train",
    "train_many",
]


set_defaults()  # before anything here imports PyTorch


def __getattr__(name: str) -> Any:
    """What needs PyTorch is imported when first asked for, so that `--help` need not wait for it."""
    if name in ("RunResult", "train", "train_many"):
        from rethinking import training

        return getattr(training, name)
    if name == "build_model":
        from rethinking.models import build_model

        return build_model
    raise AttributeError(f"module 'rethinking' has no attribute '{name}'")
