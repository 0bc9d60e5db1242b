"""The meaning, unit and format of the numbers in tables and figures.

A quantity is declared once, next to the code that measures it. Tables, figures and CSV files then refer to it by its
name. This file declares the quantities that several experiments show.

    SHARPNESS = declare("sharpness", significant(3), "nats", "largest rise of the training loss within a small ball")
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

Form = Callable[[float], str]


class Quantity(NamedTuple):
    """One quantity.

    written: the function that writes a value as text
    unit: of the value in CSV files
    source: what the value is or where it comes from
    """

    name: str
    written: Form
    unit: str = ""
    source: str = ""

    def difference(self, value: float) -> str:
        """Write the difference of two values with its sign. Percentages differ in points."""
        if self.written is percent:
            return f"{100 * value:+.2f}"
        return ("-" if value < 0 else "+") + self.written(abs(value))


def percent(value: float) -> str:
    """Write a share, 0-1, as a percentage with two decimals."""
    return f"{value:.2%}"


def whole(value: float) -> str:
    """Write a whole number with separated thousands."""
    return f"{value:,.0f}"


def count(value: float) -> str:
    """Write a mean of counts: whole from 100 on, below with three significant digits."""
    return whole(value) if value >= 100 else f"{value:.3g}"


def decimals(places: int) -> Form:
    """A format with this number of decimal places."""
    return lambda value: f"{value:.{places}f}"


def significant(digits: int) -> Form:
    """A format with this number of significant digits, or a whole number from 100 to a million."""
    return lambda value: whole(value) if 100 <= value < 1e6 else f"{value:.{digits}g}"


_declared: dict[str, Quantity] = {}


def declare(name: str, written: Form, unit: str = "", source: str = "") -> str:
    """Declare a quantity and return its name. Raises `ValueError` where the name has another unit or source."""
    quantity = Quantity(name, written, unit, source)
    there = _declared.setdefault(name, quantity)
    if (there.unit, there.source) != (unit, source):
        raise ValueError(f"the quantity '{name}' is declared already: {there.source or there.unit}")
    return name


def quantity(name: str) -> Quantity:
    """The quantity with this name. An undeclared one, as in another version's table, is a plain number."""
    return _declared.get(name, Quantity(name, significant(4)))


TRAIN_ACCURACY = declare(
    "train accuracy",
    percent,
    "share",
    "share of right labels on the training set after an epoch, or (online) during it",
)
TEST_ACCURACY = declare("test accuracy", percent, "share", "share of right labels on the test set after an epoch")
TRAINING_LOSS = declare("training loss", decimals(3), "nats", "mean cross-entropy over the batches of an epoch")
TRAIN_ERROR = declare("train error", percent, "share", "share of wrong labels on the training set")
TEST_ERROR = declare("test error", percent, "share", "share of wrong labels on the test set")
NORM = declare(
    "norm", significant(3), "", "norm of the solution in the space of its kernel, over all outputs (Section 5)"
)
RESIDUAL = declare("residual", significant(2), "", "largest relative difference between an output and its target")
LARGEST_DIFFERENCE = declare(
    "largest difference", significant(2), "", "largest difference between an output and its label"
)
LARGEST_WEIGHT = declare("largest weight", significant(2), "", "largest absolute weight")
WEIGHTS = declare("weights", whole, "", "number of weights")
EPOCHS = declare("epochs", count, "", "number of trained epochs")
GAP = declare("gap", percent, "share", "training accuracy minus test accuracy, after the last epoch")
SECONDS = declare("seconds", count, "s", "time of training and evaluation")
