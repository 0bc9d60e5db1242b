"""Time to overfit, which Figure 1b compares and the paper does not define.

Here: the first epoch whose online training accuracy is at least 98.5%. Of the thresholds on accuracy or loss it is
the one that the paper's own numbers agree on: its Figure 2b has small Inception at 98.34% after 9 epochs and 98.58%
after 10, and Figure 1b's baseline is 10. `SENSITIVITY` holds the alternatives that `reproduce.py figure1b` reports
beside it. docs/differences.md has the evidence.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple


class Threshold(NamedTuple):
    """Reached when `metric` is at least `value`, or at most for a loss."""

    metric: str
    value: float

    def __str__(self) -> str:
        if self.metric == "train_loss":
            return f"training loss <= {self.value:g}"
        kind = "exact" if self.metric == "exact_train_accuracy" else "online"
        return f"{kind} training accuracy >= {self.value:.4g}"


DEFINITION = Threshold("train_accuracy", 0.985)
SENSITIVITY = (
    Threshold("train_accuracy", 0.98),
    DEFINITION,
    Threshold("train_accuracy", 0.99),
    Threshold("train_accuracy", 0.995),
    Threshold("train_accuracy", 0.999),
    Threshold("exact_train_accuracy", 0.999),
    Threshold("exact_train_accuracy", 1.0),
    Threshold("train_loss", 0.1),
    Threshold("train_loss", 0.05),
    Threshold("train_loss", 0.01),
)


def time_to_overfit(metrics: Iterable[Mapping[str, Any]], threshold: Threshold = DEFINITION) -> int | None:
    """The first epoch, from 1, that reaches `threshold`; None where none does."""
    sign = -1 if threshold.metric == "train_loss" else 1
    for record in metrics:
        value = record[threshold.metric]
        if value is not None and sign * value >= sign * threshold.value:
            return int(record["epoch"])
    return None
