"""The options of a search for wrong labels (`label_errors`). This module does not import PyTorch."""

from __future__ import annotations

import math
from dataclasses import dataclass

from rethinking.config import ExperimentConfig
from rethinking.errors import InputError
from rethinking.options import option

EPOCHS, STEPS = 10, 500  # the least number of each, where no number of epochs is given
BASE = ExperimentConfig(model_name="small_alexnet", record_examples=True)
DECIDED = (  # fields of `ExperimentConfig` that the search sets itself
    *("record_examples", "record_evaluated_examples", "record_test_examples", "keep_test_losses"),
    *("left_out", "subset_share", "subset_seed", "replaced_example", "eval_test_every", "corrupt_test_labels"),
    *("num_epochs", "stop_when_fit"),
)


@dataclass(frozen=True)
class Searching:
    """The options of a search for wrong labels that are not options of a run. Raises `InputError`."""

    folds: int = option(5, "train this many networks, each without another part of the images", metavar="N")
    num_epochs: int | None = option(
        None,
        "epochs of each network",
        metavar="N",
        default_text=f"{EPOCHS}; more on few images, for {STEPS} steps",
    )
    score: tuple[str, ...] = option(
        (), "further scores of your own (docs/extending.md)", metavar="FILE.py:FUNCTION ...", default_text="none"
    )
    out: str = option(
        "label_errors", "write examples.csv and the page examples.html here", metavar="FOLDER", changes_numbers=False
    )

    def __post_init__(self) -> None:
        if not isinstance(self.folds, int) or not 2 <= self.folds <= 9999:
            raise InputError(f"folds must be a whole number from 2 on, not {self.folds}")
        if self.num_epochs is not None and (not isinstance(self.num_epochs, int) or self.num_epochs < 1):
            raise InputError(f"num_epochs must be a whole number from 1 on, not {self.num_epochs}")

    def epochs(self, config: ExperimentConfig, images: int) -> int:
        """Returns the epochs of each network for data with `images` training images."""
        if self.num_epochs is not None:
            return self.num_epochs
        used = (config.train_subset or images) * (self.folds - 1) / self.folds
        return max(EPOCHS, math.ceil(STEPS / math.ceil(used / config.batch_size)))
