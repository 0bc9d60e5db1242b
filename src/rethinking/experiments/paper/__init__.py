"""The paper's numbers, one CSV file per table or figure, and the data sets that they belong to.

The tables are copied from the text. The figures' numbers are read from the paper's vector graphics.
"""

from __future__ import annotations

import csv
import re
from importlib import resources
from typing import NamedTuple

from rethinking.config import ExperimentConfig
from rethinking.data.known import folder_of

FINGERPRINTS = {  # the paper's data sets by fingerprint (`data.images.fingerprint`)
    "cbbda461ed01520fa349a10aef8752c12204528f34698b97ef646482e175bcc8": "cifar10",
    "c4f1e91e17a5698a49b3a0bb7d98973e04cf2b66e9d5d8546a97281a76233e59": "mnist",
}
# Endings of the names of copies and parts. Resized or recoloured images do not count as the paper's.
SAME_IMAGES = re.compile(r"(_jpeg)?(_first\d+)?(-labelled)?(-holdout[\d.e-]+)?(-[0-9a-f]{8})?$")


class Table1Row(NamedTuple):
    """One row of Table 1: accuracies on CIFAR-10, 0-1."""

    train_accuracy: float
    test_accuracy: float


def read_table(name: str) -> list[dict[str, str]]:
    """Read the rows of `<name>.csv`, for example `table1` or `figure2b`."""
    text = (resources.files(__package__) / f"{name}.csv").read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))


def curve(name: str, x: str, y: str, **where: str) -> dict[float, float]:
    """Column `y` by column `x` of `<name>.csv`, from the rows with the values `where`, for example one model's."""
    return {float(row[x]): float(row[y]) for row in read_table(name) if where.items() <= row.items()}


def data_set(name: str, fingerprint: str) -> str | None:
    """The paper's data set that images belong to, "cifar10" or "mnist", or None. Copies and parts count too.

    name, fingerprint: of the `ImageData`; the name includes the suffix of its `ReadOptions`
    """
    found = FINGERPRINTS.get(fingerprint) or folder_of(SAME_IMAGES.sub("", name))
    return found if found in FINGERPRINTS.values() else None


def table1_row(config: ExperimentConfig) -> Table1Row | None:
    """Table 1's row with this model, labels and regularizers, or None where the table has no such row."""
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
