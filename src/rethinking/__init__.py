"""Randomization tests of neural networks, and the experiments of Zhang et al. 2017.

The paper is "Understanding deep learning requires rethinking generalization". A test of your network on your images,
one run, a table of the paper, and a grid of runs:

    import rethinking

    rethinking.randomization_test(network, images, test_images)

    config = rethinking.ExperimentConfig(model_name="mlp_1x512", dataset="digits", randomization="random_labels")
    result = rethinking.train(config)
    result.final["exact_train_accuracy"], result.final["test_accuracy"]

    rethinking.reproduce("table1", scale="demo")

    rethinking.sweep(model="mlp_1x512", dataset="digits", corruption_prob=[0, 0.5, 1], seed=range(3)).frame()

The command `rethinking` does the same from a shell: `rethinking --help` lists what it can do.
"""

import importlib
from typing import TYPE_CHECKING, Any

from rethinking.config import ExperimentConfig, get_baseline_config, get_random_labels_config
from rethinking.errors import InputError, RunError
from rethinking.runtime import set_defaults

if TYPE_CHECKING:
    from rethinking.calls import reproduce, sweep
    from rethinking.data.operators import Operator
    from rethinking.data.randomized import RandomizationRecord, randomize
    from rethinking.engines.many import train_many
    from rethinking.instrument.run import randomization_test
    from rethinking.measures.examples import ScoredExamples, score_examples
    from rethinking.measures.label_errors import find_label_errors
    from rethinking.models.construction import build_model
    from rethinking.runs import load_run
    from rethinking.training import RunResult, train
    from rethinking.training.loggers import Observer
    from rethinking.verification import verify

LAZY = {  # these names need PyTorch; each is imported on first use, so that `--help` does not wait for PyTorch
    "Observer": "training.loggers",
    "Operator": "data.operators",
    "RandomizationRecord": "data.randomized",
    "RunResult": "training",
    "ScoredExamples": "measures.examples",
    "build_model": "models.construction",
    "find_label_errors": "measures.label_errors",
    "load_run": "runs",
    "randomization_test": "instrument.run",
    "randomize": "data.randomized",
    "reproduce": "calls",
    "score_examples": "measures.examples",
    "sweep": "calls",
    "train": "training",
    "train_many": "engines.many",
    "verify": "verification",
}

__all__ = [
    "ExperimentConfig",
    "InputError",
    "Observer",
    "Operator",
    "RandomizationRecord",
    "RunError",
    "RunResult",
    "ScoredExamples",
    "__version__",
    "build_model",
    "find_label_errors",
    "get_baseline_config",
    "get_random_labels_config",
    "load_run",
    "randomization_test",
    "randomize",
    "reproduce",
    "score_examples",
    "sweep",
    "train",
    "train_many",
    "verify",
]


set_defaults()  # before any import of PyTorch


def __getattr__(name: str) -> Any:
    if name in LAZY:
        return getattr(importlib.import_module(f"rethinking.{LAZY[name]}"), name)
    if name == "__version__":
        from importlib.metadata import version

        return version("rethinking-generalization")
    raise AttributeError(f"module 'rethinking' has no attribute '{name}'")


def __dir__() -> list[str]:
    return __all__
