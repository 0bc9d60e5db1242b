"""Measures the time to a run's first training step, and the peak memory of an epoch.

Both are measured outside the process, on `python train.py`. The time is from the command to the line before the
training loop, with a filled cache, as the median of `--repeats`. The memory is the peak resident memory of the process
over a whole epoch with its evaluation.

    python benchmarks/startup_and_memory.py --dataset cifar10 --models mlp_1x512 small_alexnet
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from rich import print
from starts import OPENS, seconds_until
from workload import write_csv

from rethinking.data import sources
from rethinking.models import catalogue
from rethinking.training.hardware import provenance, resolve_precision

TRAIN = Path(__file__).parents[1] / "train.py"


@dataclass(frozen=True)
class Arguments:
    """The options of this benchmark."""

    dataset: str = "cifar10"
    models: tuple[str, ...] = catalogue.PAPER
    repeats: int = 5
    out: Path | None = None


def main(arguments: Arguments) -> None:
    """Measures all models, prints their numbers, and writes the rows."""
    data = sources.load(arguments.dataset)  # fills the cache
    device = torch.device("cpu")
    precision = resolve_precision("auto", device)
    made_on = provenance(device, precision)
    rows: list[dict[str, Any]] = []
    for model in arguments.models:
        seconds = statistics.median(startup(model, arguments.dataset) for _ in range(arguments.repeats))
        rows.append({"model": model, "dataset": data.name, "startup_seconds": seconds})
        print(f"{model}: first step after {seconds:.2f} s")
    for row in rows:
        row |= {"peak_gib": peak_memory(row["model"], arguments.dataset), "precision": precision}
        row |= {"threads": made_on["cpu_threads"], "hardware": made_on["hardware"]}
        row["torch"] = made_on["versions"]["torch"]
        print(f"{row['model']}: peak {row['peak_gib']:.2f} GiB")
        if arguments.out:
            write_csv(rows[: rows.index(row) + 1], arguments.out)


def command(model: str, dataset: str, runs_dir: str) -> list[str]:
    """Returns the command that trains a model for one epoch on the CPU."""
    options = {"--model": model, "--dataset": dataset, "--num_epochs": "1", "--device": "cpu", "--runs_dir": runs_dir}
    return [sys.executable, str(TRAIN), *(part for option in options.items() for part in option)]


def startup(model: str, dataset: str) -> float:
    """Measures the seconds from the command to the first step."""
    with tempfile.TemporaryDirectory() as folder:
        return seconds_until(command(model, dataset, folder), OPENS, None, folder)


def peak_memory(model: str, dataset: str) -> float:
    """Measures the peak resident memory over one epoch, in GiB."""
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen(command(model, dataset, folder), stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        assert status == 0, f"{model} did not end well"
    return usage.ru_maxrss / 2**20  # from KiB


if __name__ == "__main__":
    main(tyro.cli(Arguments))
