"""The documents' tables of measurements, written from `results/`: `python -m rethinking.report.documents`.

A line `<!-- results: bench -->` begins a table and `<!-- end -->` ends it; what stands between is replaced.
"""

from __future__ import annotations

import csv
import json
import re
import statistics
from collections.abc import Callable
from pathlib import Path

from rethinking.experiments import archive
from rethinking.experiments.catalogue import EXPERIMENTS
from rethinking.experiments.paper import read_table
from rethinking.experiments.time_to_overfit import time_to_overfit
from rethinking.report import tables

ROOT = Path(__file__).parents[3]
DOCUMENTS = (ROOT / "README.md", ROOT / "docs" / "differences.md")
Row = dict[str, str]


def bench(results: Path) -> str:
    """An epoch against its bare steps and against a stock pipeline."""
    columns = ["model", "augmentation", "bare step, images/s", "epoch, images/s", "epoch / step", "epoch / stock"]

    def line(row: Row) -> list[str]:
        return [
            f"`{row['model']}`",
            row["augmentation"],
            f"{float(row['step_images_per_second']):,.0f}",
            f"{float(row['epoch_images_per_second']):,.0f}",
            f"{float(row['epoch_over_step']):.2f}",
            f"{float(row['epoch_over_stock']):.2f}" if row["epoch_over_stock"] else "",
        ]

    return _machine_by_machine(_rows(results / "bench.csv"), columns, line)


def startup_and_memory(results: Path) -> str:
    columns = ["model", "command to first step", "peak memory of an epoch"]

    def line(row: Row) -> list[str]:
        return [f"`{row['model']}`", f"{float(row['startup_seconds']):.1f} s", f"{float(row['peak_gib']):.2f} GiB"]

    return _machine_by_machine(_rows(results / "startup_and_memory.csv"), columns, line)


def differences(results: Path) -> str:
    """The single runs behind docs/differences.md, but for those of `noise_levels`; mean and deviation over seeds."""
    columns = [
        "data",
        "images",
        "model",
        "labels",
        "pixel noise",
        "initial weights",
        "weight decay",
        "epochs",
        "seeds",
        "training",
        "test",
    ]
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in _rows(results / "differences" / "runs.csv"):
        config = json.loads(row["configuration"])
        if row["randomization"] == "partial_corrupt":
            continue
        decay = f"{config['weight_decay']:g}"
        if config.get("weight_decay_on", "all") != "all" and config["weight_decay"]:
            decay += ", hidden linear layers"
        name = (
            row["dataset"],
            f"{int(row['train_images']):,}",
            f"`{row['model_name']}`",
            {"none": "true", "random_labels": "random"}.get(row["randomization"], row["randomization"]),
            f"{config.get('pixel_noise', 0):g}",
            config["init"],
            decay,
            row["num_epochs"] if row["status"] == "finished" else _in_brief(row["status"]),
        )
        groups.setdefault(name, []).append(row)
    body = [
        [*name, str(len(rows)), _mean(rows, "final_exact_train_accuracy"), _mean(rows, "final_test_accuracy")]
        for name, rows in sorted(groups.items())
    ]
    return _table(columns, body)


def _in_brief(status: str) -> str:
    """Of 'after 25 of 70 epochs', '25 of 70'."""
    return status.removeprefix("after ").removesuffix(" epochs")


def _mean(rows: list[Row], column: str) -> str:
    """Of an accuracy over seeds, with the sample standard deviation; empty where there is none."""
    values = [100 * float(row[column]) for row in rows if row[column]]
    if len(values) < 2:
        return f"{values[0]:.2f}%" if values else ""
    return f"{statistics.mean(values):.2f} ± {statistics.stdev(values):.2f}%"


def noise_levels(results: Path) -> str:
    """Epochs to overfit and test error at each level of corruption: the paper's, the copy's, the copy's with noise.

    The error on corrupted test labels is the copy's as it would be had they been replaced like the training labels.
    """
    copy = {level: (epochs, error) for level, epochs, error in _levels(results)}
    noisy = {level: (epochs, error) for level, epochs, error in _levels(results / "differences", 5.0)}
    corrupted = {level: ("", error_on_corrupted_labels(error, level)) for level, (_, error) in copy.items()}
    paper = {
        float(epochs["label_corruption"]): (epochs["epochs_to_overfit"], float(error["test_error"]))
        for epochs, error in zip(read_table("figure1b"), read_table("figure1c"), strict=True)
        if epochs["model"] == "mlp_1x512"
    }
    heads = ("the paper", "cifar10_jpeg", "cifar10_jpeg with noise")
    columns = ["label corruption", *(f"epochs, {head}" for head in heads), *(f"test error, {head}" for head in heads)]
    columns.append("test error, cifar10_jpeg, on corrupted test labels")
    body = []
    for level in sorted(paper):
        found = [source.get(level, ("", None)) for source in (paper, copy, noisy, corrupted)]
        errors = ["" if error is None else f"{error:.2%}" for _, error in found]
        body.append([f"{level:g}", *(str(epochs) for epochs, _ in found[:3]), *errors])
    return _table(columns, body)


def error_on_corrupted_labels(error: float, level: float, classes: int = 10) -> float:
    """Expected, where a test label is replaced by a uniform draw of `classes` with probability `level`."""
    return (1 - level) * error + level * (1 - 1 / classes)


def _levels(folder: Path, noise: float = 0.0) -> list[tuple[float, int | str, float]]:
    """(label corruption, epochs to overfit, test error) of MLP 1x512's unregularized runs of seed 0 on the copy."""
    found = []
    for run in archive.read(folder).values():
        asked = run.configuration
        wanted = {"model_name": "mlp_1x512", "seed": 0, "weight_decay": 0.0, "num_epochs": 70}
        if run.facts["dataset"] != "cifar10_jpeg" or not run.finished or not wanted.items() <= asked.items():
            continue
        if asked.get("pixel_noise", 0.0) == noise:
            level = asked["corruption_prob"] or float(asked["randomization"] == "random_labels")
            epochs = time_to_overfit(run.metrics) or f"over {len(run.metrics)}"
            found.append((level, epochs, 1 - run.metrics[-1]["test_accuracy"]))
    return found


TABLES: dict[str, Callable[[Path], str]] = {
    "bench": bench,
    "startup_and_memory": startup_and_memory,
    "differences": differences,
    "noise_levels": noise_levels,
}


def table(name: str, results: Path) -> str:
    """The table of a marker: one of `TABLES`, or a table or figure of the paper from what `reproduce.py` wrote."""
    if name in TABLES:
        return TABLES[name](results)
    cells, dataset, scale = tables.read_csv(results / f"{name}.csv")
    numbers = tables.markdown(tables.grid(EXPERIMENTS[name], cells))
    return f"Ours on {dataset}, {scale} scale, {tables.seeds(cells)}; the paper's on CIFAR-10.\n\n{numbers}"


def with_tables(text: str, results: Path) -> str:
    """`text` with every table written anew from the files in `results`."""

    def replace(match: re.Match[str]) -> str:
        return f"<!-- results: {match[1]} -->\n{table(match[1], results)}\n<!-- end -->"

    return re.sub(r"<!-- results: (\w+) -->\n.*?<!-- end -->", replace, text, flags=re.DOTALL)


def _rows(path: Path) -> list[Row]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _machine_by_machine(rows: list[Row], columns: list[str], line: Callable[[Row], list[str]]) -> str:
    """A table for each machine that was measured on, under its name."""
    machines: dict[str, list[list[str]]] = {}
    for row in rows:
        name = f"{row['hardware']}, {row['threads']} threads, {row['precision']}, PyTorch {row['torch']}"
        on = f", on {row['dataset']}" if "dataset" in row else ""
        machines.setdefault(name + on, []).append(line(row))
    return "\n\n".join(f"{name}\n\n{_table(columns, body)}" for name, body in machines.items())


def _table(columns: list[str], body: list[list[str]]) -> str:
    alignment = ["---" if index == 0 else "---:" for index in range(len(columns))]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [columns, alignment, *body])


if __name__ == "__main__":
    for document in DOCUMENTS:
        document.write_text(with_tables(document.read_text(encoding="utf-8"), ROOT / "results"), encoding="utf-8")
