"""The paper's numbers, as printed in its tables and read off its figures, one CSV each, and the images they are of."""

from __future__ import annotations

import csv
import re
from importlib import resources
from typing import NamedTuple

from rethinking.config import ExperimentConfig
from rethinking.data.known import folder_of

FINGERPRINTS = {  # of the paper's data sets, see `data.images.fingerprint`
    "cbbda461ed01520fa349a10aef8752c12204528f34698b97ef646482e175bcc8": "cifar10",
    "c4f1e91e17a5698a49b3a0bb7d98973e04cf2b66e9d5d8546a97281a76233e59": "mnist",
}
# What follows the name of a copy or a part. Resized images, and those in other colours, are others.
SAME_IMAGES = re.compile(r"(_jpeg)?(_first\d+)?(-labelled)?(-holdout[\d.e-]+)?(-[0-9a-f]{8})?$")


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


def data_set(name: str, fingerprint: str) -> str | None:
    """Which of the paper's data sets images are, 'cifar10' or 'mnist', a copy or a part of it included; else None.

    name, fingerprint: of `ImageData`, the name with what `ReadOptions` add to it
    """
    found = FINGERPRINTS.get(fingerprint) or folder_of(SAME_IMAGES.sub("", name))
    return found if found in FINGERPRINTS.values() else None


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
