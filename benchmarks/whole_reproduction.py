"""Compares the time of a whole reproduction with runs at once and with runs one after the other.

It times `rethinking reproduce`, each time in a process and in folders of its own, with the data set prepared before.
The ratio is to `--at_once 1` in the same round, as the median over the rounds.

    python benchmarks/whole_reproduction.py [--scale demo] [--seeds 0 1 2] [--out results/performance.csv]
"""

from __future__ import annotations

import csv
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import tyro
from rich import print
from workload import Machine, keep

from rethinking.data import sources
from rethinking.experiments.scale import SCALES


@dataclass(frozen=True)
class Arguments:
    """The options of this benchmark."""

    experiment: str = "all"
    scale: str = "demo"
    dataset: str | None = None
    seeds: tuple[int, ...] = (0,)
    at_once: tuple[str, ...] = ("auto", "1")
    rounds: int = 1
    device: str = "auto"
    out: Path | None = None


def main(arguments: Arguments) -> None:
    """Times all ways, prints their seconds, and writes the rows."""
    machine = Machine.here(arguments.device)
    sources.load(arguments.dataset or SCALES[arguments.scale].dataset)  # prepares the data before the first round
    rounds = [{way: reproduction(arguments, way) for way in arguments.at_once} for _ in range(arguments.rounds)]
    rows: list[dict[str, Any]] = []
    for way in arguments.at_once:
        took = median(one[way][0] for one in rounds)
        row: dict[str, Any] = {"benchmark": "whole_reproduction", "seconds": took, "runs": rounds[0][way][1]}
        row["setting"] = f"{arguments.experiment}, {arguments.scale} scale, --at_once {way}"
        if "1" in arguments.at_once:
            row["ratio"] = median(one["1"][0] / one[way][0] for one in rounds)
        rows.append(row | machine.columns())
        print(f"{row['setting']}: {row['runs']} runs in {took:.0f} s")
    keep(rows, arguments.out)


def reproduction(arguments: Arguments, at_once: str) -> tuple[float, int]:
    """Returns the seconds of the command, and the number of runs that it trained."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "rethinking", "reproduce", arguments.experiment, "--scale", arguments.scale]
        command += ["--seeds", *map(str, arguments.seeds), "--at_once", at_once, "--device", arguments.device]
        command += ["--runs_dir", f"{folder}/runs", "--out", f"{folder}/results"]
        if arguments.dataset:
            command += ["--dataset", arguments.dataset]
        started = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        took = time.perf_counter() - started
        with open(f"{folder}/results/runs.csv", newline="", encoding="utf-8") as file:
            return took, len(list(csv.DictReader(file)))


if __name__ == "__main__":
    main(tyro.cli(Arguments))
