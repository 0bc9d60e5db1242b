"""How much of the paper's set-up is run: all of it, 5,000 images, or the built-in digits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rethinking.config import MODEL_DEFAULTS, ExperimentConfig

MLPS_AND_ALEXNET = ("small_alexnet", "mlp_3x512", "mlp_1x512")


@dataclass(frozen=True)
class Scale:
    """Where an experiment's runs differ from the paper's.

    dataset, models: what is trained where the user names none
    epochs: of a run; the paper does not state them, but its Figure 1a ends after 63 and its slowest run to overfit
        (Figure 1b) takes 56
    longer: of Table 4's augmented runs, whose rate hardly falls, "and the run made longer"
    decay, longer_decay: factors of the learning rate an epoch; the paper's at full scale
    levels: of label corruption, in tenths, in Figures 1b and 1c
    """

    about: str
    dataset: str
    models: tuple[str, ...]
    epochs: int
    longer: int
    decay: float
    longer_decay: float
    levels: tuple[int, ...] = tuple(range(11))
    options: Mapping[str, Any] = field(default_factory=dict)


SCALES = {
    "full": Scale("the paper's", "cifar10", tuple(MODEL_DEFAULTS), 70, 300, 0.95, 0.999),
    # A tenth of the images is a tenth of the steps an epoch, so the rate falls more slowly.
    "small": Scale(
        "5,000 training images", "cifar10", MLPS_AND_ALEXNET, 70, 150, 0.98, 0.999, options={"train_subset": 5000}
    ),
    "demo": Scale(
        "the built-in digits, each run ending at 100% training accuracy",
        "digits",
        MLPS_AND_ALEXNET,
        150,
        150,
        1.0,
        1.0,
        (0, 5, 10),
        {"stop_when_fit": True},
    ),
}


@dataclass(frozen=True)
class Study:
    """What one reproduction runs: a scale, the models wanted, and the options all its runs share."""

    scale: Scale
    models: tuple[str, ...]
    options: Mapping[str, Any]

    def config(self, model: str, *, longer: bool = False, **options: Any) -> ExperimentConfig:
        """A run of `model` at this scale; `longer` with Table 4's slower decay and more epochs."""
        scale = self.scale
        schedule = {
            "num_epochs": scale.longer if longer else scale.epochs,
            "lr_decay": scale.longer_decay if longer else scale.decay,
        }
        shared = {"dataset": scale.dataset, **schedule, **scale.options, **self.options}
        return ExperimentConfig(model_name=model, **{**shared, **options})
