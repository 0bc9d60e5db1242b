"""Turns stored labels into class indices. Splits are matched by class name; missing labels are found."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rethinking.data.readers.contents import Labels, Split
from rethinking.errors import InputError

Value = int | str | None  # a label; None is "no label"


@dataclass(frozen=True)
class Classes:
    """The labelled images of a split: their rows, int64 ascending, and their class indices, int64."""

    rows: np.ndarray
    labels: np.ndarray


def classify(splits: dict[str, Split], skip_unlabelled: bool) -> tuple[list[str], dict[str, Classes], list[str]]:
    """Returns the class names, the labelled rows of each split, and notes on what was left out, one sentence each.

    Class names are those that the training set declares, else its sorted labels. Labels of other splits are matched by
    name. A split without any label has no rows.

    Raises `InputError` for images without a label unless `skip_unlabelled`, for labels that are no classes, and for a
    class that the training set lacks.
    """
    train = splits["train"]
    values = {name: _values(split) for name, split in splits.items()}
    names = _class_names(train, values["train"])
    index = {name: position for position, name in enumerate(names)}
    if len(index) < len(names):
        raise InputError(f"two classes of {train.where} have the same name: {_listed(sorted(names))}")
    classes, notes = {}, []
    for name, split in splits.items():
        rows = np.array([row for row, value in enumerate(values[name]) if value is not None], dtype=np.int64)
        missing = len(values[name]) - len(rows)
        if missing and (name == "train" or len(rows)):
            if not skip_unlabelled:
                raise InputError(
                    f"{missing:,} of the {len(values[name]):,} images of {split.where} have no label (missing, or -1):"
                    " --skip_unlabelled leaves them out"
                )
            notes.append(f"left out: {missing:,} images of {split.where} without a label")
        if name == "train" and not len(rows):
            raise InputError(f"no image of {split.where} has a label")
        present = [str(values[name][row]) for row in rows]
        unknown = next((value for value in present if value not in index), None)
        if unknown is not None:
            raise InputError(
                f"the class '{unknown}' of {split.where} is not among the training classes: {_listed(names)}"
            )
        classes[name] = Classes(rows, np.array([index[value] for value in present], dtype=np.int64))
        if untrained := sorted({*present} - {names[label] for label in classes["train"].labels}):
            notes.append(f"classes of {split.where} without training images: {_listed(untrained)}")
    if len(names) < 2:
        raise InputError(f"{train.where} has only one class, '{names[0]}'; at least two are needed")
    return names, classes, notes


def has_labels(split: Split) -> bool:
    """Whether any image of the split has a label."""
    return any(value is not None for value in _values(split))


def _class_names(split: Split, values: Sequence[Value]) -> list[str]:
    if split.labels is not None and split.labels.names is not None:
        return list(split.labels.names)
    present = {value for value in values if value is not None}
    if any(isinstance(value, str) for value in present):
        return sorted({str(value) for value in present})
    return [str(value) for value in sorted(present)]


def _values(split: Split) -> list[Value]:
    """Returns every label as the number or name that it stands for."""
    labels = split.labels
    if labels is None:
        return [None] * len(split.images)
    if len(labels) != len(split.images):
        raise InputError(f"{split.where} has {len(split.images):,} images, but {len(labels):,} labels")
    stored = labels.values.tolist() if isinstance(labels.values, np.ndarray) else labels.values
    values = [_value(value, split.where, row) for row, value in enumerate(stored)]
    if labels.names is None:
        return values
    return [_named(value, labels, split.where, row) for row, value in enumerate(values)]


def _value(value: Any, where: str, row: int) -> Value:
    """Returns a stored label as a number or a text; None if it is missing or -1."""
    if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, float):
        if not value.is_integer():
            raise InputError(
                f"the label {value!r} of image {row} of {where} is no class; labels must be whole numbers or texts"
            )
        value = int(value)
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if not isinstance(value, int | str):
        raise InputError(f"the label of image {row} of {where} is of type {type(value).__name__}, not a number or text")
    return None if value == -1 else value


def _named(value: Value, labels: Labels, where: str, row: int) -> Value:
    """Returns the name of the class whose index `value` is."""
    assert labels.names is not None, "checked by the caller"
    if value is None or isinstance(value, str):
        return value
    if not 0 <= value < len(labels.names):
        raise InputError(f"the label {value} of image {row} of {where} is none of its {len(labels.names)} class names")
    return labels.names[value]


def _listed(names: Sequence[str], most: int = 12) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
