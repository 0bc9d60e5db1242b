"""The paper's numbers, as printed in its tables and read off its figures, one CSV each."""

from __future__ import annotations

import csv
from importlib import resources
from typing import NamedTuple

from rethinking.config import ExperimentConfig


class Table1Row(NamedTuple):
    """One row of Table 1: accuracies 0-1 on CIFAR-10."""

    train_accuracy: float
    test_accuracy: float


def read_table(name: str) -> list[dict[str, str]]:
    """The rows of `<name>.csv`, such as `table1` or `figure2b`."""
    text = (resources.files(__package__) / f"{name}.csv").read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))


def curve(name: str, x: str, y: str, **where: str) -> dict[float, float]:
    """Column `y` by column `x`, of the rows of `<name>.csv` that hold the values `where`, such as a model's."""
    return {float(row[x]): float(row[y]) for row in read_table(name) if where.items() <= row.items()}


def table1_row(config: ExperimentConfig) -> Table1Row | None:
    """The row of Table 1 with this model, labels and regularizers; None where the table has none."""
    labels = {"none": "true", "random_labels": "random"}.get(config.randomization)
    if config.corruption_prob == 1.0:
        labels = "random"
    decay = config.resolved().weight_decay
    if config.augment_flip_rotate or labels is None or decay not in (0, config.network.weight_decay):
        return None
    wanted = {
        "model": config.model_name,
        "labels": labels,
        "random_crop": "yes" if config.random_crop else "no",
        "weight_decay": "no" if decay == 0 else "yes",
    }
    for row in read_table("table1"):
        if wanted.items() <= row.items():
            return Table1Row(float(row["train_accuracy"]) / 100, float(row["test_accuracy"]) / 100)
    return None
