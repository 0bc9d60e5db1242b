"""Shows a finished run on the terminal, and the log's lines."""

from __future__ import annotations

import logging
from typing import Any

from rich.console import Console
from rich.table import Table

from rethinking.experiments.paper import data_set, table1_row
from rethinking.progress import duration, say
from rethinking.training.run_dir import RunResult


def summary(result: RunResult) -> Table:
    """Returns a table of a run's final numbers, beside the paper's row of Table 1 where both can be compared.

    They can be where Table 1 has a row for the configuration and the run used all 50,000 training images of CIFAR-10,
    cropped to 28 pixels.
    """
    final, facts, config = result.final, result.result, result.config
    ours = facts["dataset"]
    is_cifar10 = data_set(ours, facts["provenance"]["fingerprint"]) == "cifar10"
    comparable = is_cifar10 and config.crop_size == 28 and facts["train_images"] == 50_000
    paper = table1_row(config) if comparable else None

    table = Table()
    table.add_column("")
    table.add_column(f"this run,\n{ours}", justify="right")
    if paper:
        table.add_column("Table 1,\nCIFAR-10", justify="right")

    def add(name: str, value: str, reference: str = "") -> None:
        table.add_row(name, value, *([reference] if paper else []))

    exact = final["exact_train_accuracy"]
    add("training accuracy", _percent(exact if exact is not None else final["train_accuracy"]),
        _percent(paper.train_accuracy) if paper else "")  # fmt: skip
    add("test accuracy", _percent(final["test_accuracy"]), _percent(paper.test_accuracy) if paper else "")
    add("generalization gap", _percent(final["generalization_gap"]),
        _percent(paper.train_accuracy - paper.test_accuracy) if paper else "")  # fmt: skip
    for name, label in (
        ("train_accuracy_corrupted", "online, corrupted labels"),
        ("train_accuracy_untouched", "online, untouched labels"),
        ("true_label_agreement", "online, agreement with true labels"),
    ):
        if name in final:
            add(label, _percent(final[name]))
    for threshold, epoch in facts["epochs_to_fit"].items():
        add(f"epochs to fit {float(threshold):.1%}", "not reached" if epoch is None else str(epoch))
    add("epochs", str(final["epoch"]))
    add("time", duration(facts["seconds"]))
    return table


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.2%}"


class LogLines(logging.Handler):
    """Prints each log record as one plain line, above the live line."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def emit(self, record: Any) -> None:
        """Prints the record's message."""
        say(self._console, [record.getMessage()])
