"""How well scores of examples find the labels that an operator made wrong, after every epoch of a network's training.

`measures.scores` defines the scores, `measures.detection` how they are judged.

    runs/<id>/config.yaml   the resolved `DetectionConfig`, with the network's inside
              result.json   written last: it marks the run as finished
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from rethinking import registry
from rethinking.data import sources
from rethinking.errors import InputError
from rethinking.measures.detection import Wrong, auroc, precision_at
from rethinking.measures.scores import SCORES
from rethinking.steps import Steps, unwatched
from rethinking.theory.run import Columns, TheoryResult
from rethinking.theory.trained import MeasurementConfig, carry_out
from rethinking.training.examples import Recorded
from rethinking.training.memory import LIBRARIES
from rethinking.training.run_dir import RunDir, RunResult


@dataclass(frozen=True, kw_only=True)
class DetectionConfig(MeasurementConfig):
    """The scores of one network's training images. The network keeps its examples.

    Raises `InputError` where no label of the network is known to be wrong.

    scored: the pass over the training images that is scored: 'online', in their batches
    """

    task: ClassVar[str] = "scored_examples"
    columns: ClassVar[Columns] = Columns(
        ("model_name", "randomization", "corruption_prob", "num_epochs", "seed"),
        ("wrong_labels", "test_accuracy", "seconds", "train_images"),
    )

    scored: str = "online"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.scored != "online":
            raise InputError(f"scored must be online, not '{self.scored}'")
        if not self.network.corrupts_labels:
            raise InputError(f"randomization {self.network.randomization} makes no label wrong")
        object.__setattr__(self, "network", replace(self.network, record_examples=True))

    @property
    def name(self) -> str:
        """The network's name behind "detection", as the folder's name has them."""
        return f"detection-{registry.plain(self.network.model_name)}"

    @property
    def words(self) -> list[str]:
        """The word "detection", which sets the run apart from the network's."""
        return ["detection"]


def found_by_epoch(
    kept: Recorded, wrong: Wrong, advanced: Callable[[float], None]
) -> dict[str, dict[str, list[float]]]:
    """Judges each score on the first epoch, the first two, and so on: how well it would find wrong labels if it ended.

    wrong: bool (n,), which labels are wrong; at least one, and not all
    advanced: receives the finished share of the work, 0-1

    Returns "auroc" and "precision" by score, each with a number for each epoch. Precision is the share of wrong labels
    among as many suspects as there are wrong labels.
    """
    epochs, count = len(kept.loss), int(wrong.sum())
    measured: dict[str, dict[str, list[float]]] = {"auroc": {}, "precision": {}}
    for epoch in range(1, epochs + 1):
        until = kept.until(epoch)
        for name, score in SCORES.items():
            suspicion = score.suspicion(score.measured(until))
            found = {"auroc": auroc(suspicion, wrong), "precision": precision_at(suspicion, wrong, count)}
            for judge, value in found.items():
                measured[judge].setdefault(name, []).append(float(f"{value:.6g}"))
        advanced(epoch / epochs)
    return measured


def estimate_cost(config: DetectionConfig) -> tuple[float, float]:
    """Returns the bytes of memory and the operations of `measure`. Raises `InputError` as `measure` does."""
    data = sources.load_for(config)
    network = config.resolved(data).network
    numbers = float(network.num_epochs * (network.train_subset or len(data.train)))
    return LIBRARIES + 50 * numbers, 0.0


def measure(config: DetectionConfig, begin: Steps = unwatched) -> TheoryResult:
    """Judges the scores of the network's examples, or returns the finished run. An untrained network is trained first.

    Raises `InputError` where no label is wrong, or all are, and the errors of `train`.
    """
    return carry_out(config, "fp64", begin, lambda config, data, runs: _facts(config, runs[0], begin))


def _facts(config: DetectionConfig, run: RunResult, begin: Steps) -> dict[str, Any]:
    advanced, of_run = begin("scores of examples"), RunDir(run.path)
    wrong = np.asarray(of_run.labels() != of_run.true_labels())
    if not wrong.any() or wrong.all():
        raise InputError(f"{run.path} has {wrong.sum():,} wrong labels of {len(wrong):,}; scores need both kinds")
    return {
        "network": run.path.name,
        "wrong_labels": int(wrong.sum()),
        "test_accuracy": run.final["test_accuracy"],
        **found_by_epoch(run.examples()[config.scored], wrong, advanced),
    }
