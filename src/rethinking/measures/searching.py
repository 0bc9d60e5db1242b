"""The options of a search for wrong labels (`label_errors`). This module does not import PyTorch."""

from __future__ import annotations

from dataclasses import dataclass

from rethinking.config import ExperimentConfig
from rethinking.errors import InputError
from rethinking.options import option

BASE = ExperimentConfig(model_name="small_alexnet", num_epochs=10, record_examples=True)
DECIDED = (  # fields of `ExperimentConfig` that the search sets itself
    *("record_examples", "record_evaluated_examples", "record_test_examples", "keep_test_losses"),
    *("left_out", "subset_share", "subset_seed", "replaced_example", "eval_test_every", "corrupt_test_labels"),
)


@dataclass(frozen=True)
class Searching:
    """The options of a search for wrong labels that are not options of a run. Raises `InputError`."""

    folds: int = option(5, "train this many networks, each without another part of the images", metavar="N")
    out: str = option(
        "label_errors", "write examples.csv and the page examples.html here", metavar="FOLDER", changes_numbers=False
    )

    def __post_init__(self) -> None:
        if not 2 <= self.folds <= 9999:
            raise InputError(f"folds must be a whole number from 2 on, not {self.folds}")
