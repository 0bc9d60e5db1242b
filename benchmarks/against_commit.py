"""Compares the speed of this checkout with the speed of another commit.

    git worktree add ../old 9d224da
    python benchmarks/against_commit.py ../old --beside 0 1 2 [--models small_alexnet] [--out results/performance.csv]

Each side is a process of its own (`serve_epochs.py`) that trains epochs on random images and evaluates them. A round
times each side once, and the ratio is the median over the rounds. With no other process, the times of whole runs of 70
epochs on CIFAR-10 are computed from these speeds. Each epoch trains and evaluates the test set. Where the commit
measures the exact training accuracy, it also passes over the training set; the runs in `results/` say in which epochs.

With `--beside N`, N other processes keep a core busy each. Then the other commit runs twice, with all threads and with
one, and the ratio is to the better of the two.
"""

from __future__ import annotations

import contextlib
import csv
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import torch
import tyro
from rich import print as show
from sides import Side
from workload import keep

from rethinking.models import catalogue
from rethinking.training.loop import ONLINE_ACCURACY_NEAR_FIT
from rethinking.training.run_dir import FIT_THRESHOLDS

ROOT = Path(__file__).parents[1]
EPOCHS, TRAIN, TEST = 70, 50_000, 10_000  # of a run on CIFAR-10
ADAPTING = 15.0  # seconds of epochs in a round beside other processes; about 5 choose the number of threads
LABELS = {"none": "true labels", "random_labels": "random labels"}


@dataclass(frozen=True)
class Arguments:
    """The options of this benchmark."""

    other: Annotated[Path, tyro.conf.Positional]
    models: tuple[str, ...] = catalogue.PAPER
    beside: tuple[int, ...] = (0,)
    precision: str = "auto"
    rounds: int = 7
    out: Path | None = None


def main(arguments: Arguments) -> None:
    """Times all models, and writes their rows."""
    alone: list[dict[str, Any]] = []
    shared: list[dict[str, Any]] = []
    for model in arguments.models:
        for others in arguments.beside:
            if others:
                shared += beside(arguments, model, others)
            else:
                alone += compared(arguments, model)
        for rows in (alone, shared):
            if rows:
                keep(rows, arguments.out)


def compared(arguments: Arguments, model: str) -> Iterator[dict[str, Any]]:
    """Times training, evaluation and whole runs without other processes, and yields a row for each."""
    with sides(arguments, model) as (other, ours):
        rounds = [
            [(side.images_per_second("epoch"), side.images_per_second("evaluate")) for side in (other, ours)]
            for _ in range(arguments.rounds)
        ]
        row = {"benchmark": "against_commit", "model": model} | ours.machine
        for part, name in enumerate(("training", "evaluation")):
            ratio = median(now[part] / then[part] for then, now in rounds)
            yield printed(
                row | {"setting": name, "ratio": ratio, "images_per_second": median(r[1][part] for r in rounds)}
            )
        for randomization, labels in LABELS.items():
            accuracies = accuracies_of(model, randomization)
            if accuracies is None:
                show(f"{model}, {labels}: results/ has no run of {EPOCHS} epochs")
                continue
            seconds = [
                [seconds_of_run(side, accuracies, *speeds) for side, speeds in zip((other, ours), one, strict=True)]
                for one in rounds
            ]
            ratio = median(then / now for then, now in seconds)
            setting = f"run of {EPOCHS} epochs, {labels}"
            yield printed(row | {"setting": setting, "ratio": ratio, "seconds": median(now for _, now in seconds)})


def beside(arguments: Arguments, model: str, others: int) -> Iterator[dict[str, Any]]:
    """Times training beside `others` processes, and yields a row for each side."""
    with sides(arguments, model, with_one_thread=True) as (all_threads, one_thread, ours), busy(others):
        rounds = [
            [side.images_per_second("epoch", ADAPTING) for side in (all_threads, one_thread, ours)]
            for _ in range(arguments.rounds)
        ]
        better = max((0, 1), key=lambda side: median(one[side] for one in rounds))
        for side, name in enumerate(("all threads before", "one thread before", "now")):
            yield printed(
                {"benchmark": "beside_others", "model": model, "setting": f"beside {others}: {name}"}
                | ours.machine
                | {
                    "images_per_second": median(one[side] for one in rounds),
                    "ratio": median(one[side] / one[better] for one in rounds),
                }
            )


@contextlib.contextmanager
def sides(arguments: Arguments, model: str, with_one_thread: bool = False) -> Iterator[list[Side]]:
    """Starts the processes of the other commit, of one thread if asked, and of this checkout; ends them on exit."""
    checkouts: list[tuple[Path, dict[str, str]]] = [(arguments.other, {}), (ROOT, {})]
    if with_one_thread:
        checkouts.insert(1, (arguments.other, {"OMP_NUM_THREADS": "1"}))
    with contextlib.ExitStack() as ends:
        made = []
        for checkout, environment in checkouts:
            path = os.pathsep.join(str(checkout.resolve() / part) for part in ("src", "benchmarks"))
            command = [sys.executable, str(Path(__file__).with_name("serve_epochs.py")), model, arguments.precision]
            made.append(Side(command, PYTHONPATH=path, **environment))
            ends.callback(made[-1].end)
        yield made


@contextlib.contextmanager
def busy(processes: int) -> Iterator[None]:
    """Keeps `processes` cores busy, one by each of as many processes."""
    at_work = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)]
    try:
        yield
    finally:
        for process in at_work:
            process.kill()
            process.wait()


def accuracies_of(model: str, randomization: str) -> list[tuple[float, float | None]] | None:
    """Returns the online and the exact training accuracy of each epoch of a run in `results/`.

    The run has no explicit regularization. None where there is no run like this.
    """
    for folder in (ROOT / "results" / "cifar10", ROOT / "results" / "cifar10_jpeg"):
        with (folder / "runs.csv").open(newline="", encoding="utf-8") as file:
            plain = {
                "model_name": model,
                "randomization": randomization,
                "num_epochs": str(EPOCHS),
                "weight_decay": "0.0",
            }
            plain |= {"random_crop": "False", "augment_flip_rotate": "False", "status": "finished", "seed": "0"}
            found = [row["run"] for row in csv.DictReader(file) if all(row[key] == plain[key] for key in plain)]
        if found:
            with (folder / "epochs.csv").open(newline="", encoding="utf-8") as file:
                rows = [row for row in csv.DictReader(file) if row["run"] == found[0]]
            exact = [float(row["exact_train_accuracy"]) if row["exact_train_accuracy"] else None for row in rows]
            return list(zip((float(row["train_accuracy"]) for row in rows), exact, strict=True))
    return None


def seconds_of_run(
    side: Side, accuracies: list[tuple[float, float | None]], training: float, evaluation: float
) -> float:
    """Returns the seconds of a run with these accuracies, without saving its files.

    training, evaluation: images a second

    A commit that measures until the fit stops a pass at the first wrong image. Between 99.9% and 100%, it finds one in
    nearly every epoch, so no whole pass is counted there.
    """
    passes, best = 0, 0.0
    for epoch, (online, exact) in enumerate(accuracies, start=1):
        measures = online >= ONLINE_ACCURACY_NEAR_FIT
        if side.facts["measures_until_fit"]:
            measures = measures and (best < FIT_THRESHOLDS[0] or (best < 1.0 and exact == 1.0))
        passes += measures or epoch == EPOCHS
        best = max(best, exact or 0.0)
    return EPOCHS * (TRAIN / training + TEST / evaluation) + passes * TRAIN / evaluation


def printed(row: dict[str, Any]) -> dict[str, Any]:
    """Prints the ratio of a row, and returns the row."""
    show(f"{row['model']}, {row['setting']}: {row['ratio']:.2f}")
    return row


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(tyro.cli(Arguments))
