"""Quantities: what a number of a table or figure is, in which unit, and how it is written.

A quantity is declared once, beside what measures it, and found by its name from then on: in tables, in figures, and in
the CSV files that keep them. Those that several experiments show are declared here.

    SHARPNESS = declare("sharpness", significant(3), "nats", "the rise of the training loss within a small ball")
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

Form = Callable[[float], str]


class Quantity(NamedTuple):
    """written: a value in words; unit: of the value as it is kept; source: where it comes from"""

    name: str
    written: Form
    unit: str = ""
    source: str = ""

    def difference(self, value: float) -> str:
        """The difference of two values, with its sign; of percentages in points."""
        if self.written is percent:
            return f"{100 * value:+.2f}"
        return ("-" if value < 0 else "+") + self.written(abs(value))


def percent(value: float) -> str:
    """A share of one as a percentage."""
    return f"{value:.2%}"


def whole(value: float) -> str:
    return f"{value:,.0f}"


def count(value: float) -> str:
    """A mean of counts: whole from 100 on."""
    return whole(value) if value >= 100 else f"{value:.3g}"


def decimals(places: int) -> Form:
    return lambda value: f"{value:.{places}f}"


def significant(digits: int) -> Form:
    """Of values that may be small or large: so many digits, or a whole number where that is shorter."""
    return lambda value: whole(value) if 100 <= value < 1e6 else f"{value:.{digits}g}"


_declared: dict[str, Quantity] = {}


def declare(name: str, written: Form, unit: str = "", source: str = "") -> str:
    """Makes a quantity known; returns its name. Raises `ValueError` where another one has that name."""
    quantity = Quantity(name, written, unit, source)
    there = _declared.setdefault(name, quantity)
    if (there.unit, there.source) != (unit, source):
        raise ValueError(f"the quantity '{name}' is declared already: {there.source or there.unit}")
    return name


def quantity(name: str) -> Quantity:
    """The quantity of that name. One that is not declared here, as in a table of another version, is a plain number."""
    return _declared.get(name, Quantity(name, significant(4)))


TRAIN_ACCURACY = declare("train accuracy", percent, "share", "the training set after an epoch, or online within it")
TEST_ACCURACY = declare("test accuracy", percent, "share", "the test set after an epoch")
TRAINING_LOSS = declare("training loss", decimals(3), "nats", "mean cross-entropy over an epoch's batches")
TRAIN_ERROR = declare("train error", percent, "share", "wrong labels of the training set")
TEST_ERROR = declare("test error", percent, "share", "wrong labels of the test set")
NORM = declare("norm", significant(3), "", "of a solution in its kernel's space, over all outputs (Section 5)")
RESIDUAL = declare("residual", significant(2), "", "the largest difference of an output from its target, relative")
LARGEST_DIFFERENCE = declare("largest difference", significant(2), "", "of an output from its label")
LARGEST_WEIGHT = declare("largest weight", significant(2), "", "the largest absolute weight")
WEIGHTS = declare("weights", whole, "", "number of weights")
EPOCHS = declare("epochs", count, "", "trained")
