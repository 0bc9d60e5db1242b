"""How much a network memorizes of right and of wrong labels: memorization from many runs on random subsets.

`measures.memorization` defines it, after Feldman & Zhang 2020 (arXiv:2008.03703).

    runs/<id>/config.yaml   the resolved `MemorizedConfig`, with the network's inside
              result.json   written last: it marks the run as finished
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from rethinking import registry
from rethinking.config import ExperimentConfig
from rethinking.data import sources
from rethinking.errors import InputError
from rethinking.measures.memorization import Mask
from rethinking.measures.subsets import Memorized, measure_memorization
from rethinking.steps import Steps, unwatched
from rethinking.theory.run import Columns, TheoryResult
from rethinking.theory.trained import MeasurementConfig, carry_out
from rethinking.training.memory import LIBRARIES, footprint
from rethinking.training.run_dir import RunResult

MEMORIZED = 0.25  # from which an example counts as memorized, as in Feldman & Zhang 2020
LISTED = 50  # most memorized examples of each kind of labels
SHARE = 0.7  # of the images in each run's training set, as in Feldman & Zhang 2020


@dataclass(frozen=True, kw_only=True)
class MemorizedConfig(MeasurementConfig):
    """The memorization of one network's training images. Raises `InputError` for fewer than four subsets.

    subsets: number of runs, each on a random share of the images
    share: of the images in each training set
    """

    task: ClassVar[str] = "memorized_examples"
    columns: ClassVar[Columns] = Columns(
        ("model_name", "randomization", "corruption_prob", "subsets", "share", "num_epochs", "seed"),
        ("test_accuracy", "seconds", "train_images"),
    )

    subsets: int
    share: float = SHARE

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.subsets < 4:
            raise InputError(f"memorization needs at least 4 subsets, not {self.subsets}")
        network = replace(self.network, subset_share=self.share, subset_seed=self.seed * self.subsets)
        object.__setattr__(self, "network", network)

    @property
    def name(self) -> str:
        """The network's name behind "memorized", as the folder's name has them."""
        return f"memorized-{registry.plain(self.network.model_name)}"

    @property
    def words(self) -> list[str]:
        """The number of runs, which sets the measurement apart from its networks."""
        return [f"memorization in {self.subsets} runs"]

    def networks(self) -> Iterator[ExperimentConfig]:
        """The networks: each with a subset, initial weights and an order of its own."""
        for seed in range(self.seed * self.subsets, (self.seed + 1) * self.subsets):
            yield replace(self.network, subset_seed=seed, seed=seed)


def of_labels(measured: Memorized, members: Mask) -> dict[str, Any]:
    """Summarizes the memorization of a group of training images, whose labels are right or wrong.

    members: bool (n,)

    "mean" is over the group, and "standard_error" its standard error over the runs. "share" counts the images with at
    least `MEMORIZED`. "most" lists the most memorized images: place in the data, memorization, standard error. They
    are ordered by memorization less its error.
    """
    value, error = measured.memorization
    known = members & np.isfinite(value)
    inside, right = measured.inside[:, known], measured.right[:, known]
    by_run = [right[run][inside[run]].mean() - right[run][~inside[run]].mean() for run in range(len(inside))]
    most = measured.memorization.largest(LISTED, members)
    return {
        "images": int(known.sum()),
        "mean": float(value[known].mean()),
        "standard_error": float(np.std(by_run, ddof=1) / np.sqrt(len(by_run))),
        "share": float((value[known] >= MEMORIZED).mean()),
        "most": [[int(measured.index[i]), round(float(value[i]), 4), round(float(error[i]), 4)] for i in most],
    }


def estimate_cost(config: MemorizedConfig) -> tuple[float, float]:
    """Returns the bytes of memory, and 0 operations: their number is unknown. Raises `InputError` as `measure` does."""
    data = sources.load_for(config)
    network = config.resolved(data).network
    images, run = footprint(replace(network, subset_share=None, subset_seed=0), data)
    answers = config.subsets * (network.train_subset or len(data.train)) * 10.0
    return LIBRARIES + images + run + answers, 0.0


def measure(config: MemorizedConfig, begin: Steps = unwatched) -> TheoryResult:
    """Measures memorization, or returns the finished measurement. Untrained networks are trained first.

    Raises `InputError` where the network does not fit the data, and the errors of `train`.
    """
    return carry_out(config, "fp64", begin, lambda config, data, runs: _facts(runs, begin))


def _facts(runs: Sequence[RunResult], begin: Steps) -> dict[str, Any]:
    measured = measure_memorization([run.path for run in runs], begin=begin)
    wrong = np.zeros(len(measured.labels), bool) if measured.wrong is None else measured.wrong
    groups = {"right": ~wrong, "wrong": wrong}
    tested = [run.final["test_accuracy"] for run in runs if run.final["test_accuracy"] is not None]
    return {
        "test_accuracy": float(np.mean(tested)) if tested else None,
        "labels": {name: of_labels(measured, members) for name, members in groups.items() if members.any()},
        "standard_errors": measured.standard_errors(),
    }
