"""The numbers of a finished or unfinished run that a sweep can show. This module does not import PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from rethinking.errors import InputError, nearest
from rethinking.experiments.quantities import (
    EPOCHS,
    GAP,
    SECONDS,
    TEST_ACCURACY,
    TRAIN_ACCURACY,
    TRAINING_LOSS,
    count,
    decimals,
    declare,
)

Record = Mapping[str, Any]  # the metrics of one epoch
NO_TEST_SET = "no test set"

TEST_LOSS = declare("test loss", decimals(3), "nats", "mean cross-entropy on the test set after an epoch")
EPOCHS_TO_FIT = declare("epochs to fit", count, "epochs", "first epoch with an exact train accuracy of 100%")


class Value(NamedTuple):
    """A number; None where the run lacks it. note: why it lacks it, or another remark; empty where there is none"""

    number: float | None
    note: str = ""


class Metric(NamedTuple):
    """A number of a run. of: returns it from the records of all epochs and the facts of the run"""

    quantity: str
    of: Callable[[Sequence[Record], Mapping[str, Any]], Value]


def _train_accuracy(records: Sequence[Record], facts: Mapping[str, Any]) -> Value:
    """The exact accuracy where the last epoch has it, else the online one."""
    exact = records[-1]["exact_train_accuracy"]
    return Value(records[-1]["train_accuracy"], "online") if exact is None else Value(exact)


def _test_accuracy(records: Sequence[Record], facts: Mapping[str, Any]) -> Value:
    return _tested(records[-1]["test_accuracy"])


def _gap(records: Sequence[Record], facts: Mapping[str, Any]) -> Value:
    train, test = _train_accuracy(records, facts), records[-1]["test_accuracy"]
    return _tested(None) if test is None or train.number is None else Value(train.number - test, train.note)


def _tested(value: float | None) -> Value:
    return Value(value, NO_TEST_SET if value is None else "")


def _epochs_to_fit(records: Sequence[Record], facts: Mapping[str, Any]) -> Value:
    fitted = (record["epoch"] for record in records if record["exact_train_accuracy"] == 1)
    first = next(fitted, None)
    return Value(first, "" if first else f"not in {len(records)} epochs")


METRICS = {
    "train_accuracy": Metric(TRAIN_ACCURACY, _train_accuracy),
    "test_accuracy": Metric(TEST_ACCURACY, _test_accuracy),
    "generalization_gap": Metric(GAP, _gap),
    "train_loss": Metric(TRAINING_LOSS, lambda records, facts: Value(records[-1]["train_loss"])),
    "test_loss": Metric(TEST_LOSS, lambda records, facts: _tested(records[-1]["test_loss"])),
    "epochs_to_fit": Metric(EPOCHS_TO_FIT, _epochs_to_fit),
    "epochs": Metric(EPOCHS, lambda records, facts: Value(len(records))),
    "seconds": Metric(SECONDS, lambda records, facts: Value(facts["seconds"])),
}


def find(name: str) -> str:
    """Returns the name of a metric, written with '_', '-' or ' '. Raises `InputError` for an unknown one."""
    plain = str(name).replace("-", "_").replace(" ", "_")
    plain = next((other for other, metric in METRICS.items() if metric.quantity == str(name)), plain)
    if plain not in METRICS:
        raise InputError(f"y must be one of {', '.join(METRICS)}, not '{name}'{nearest(plain, METRICS)}")
    return plain
