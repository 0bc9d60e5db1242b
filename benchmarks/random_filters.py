"""Compares a chunk of 500 random filters on all images of CIFAR-10's size with another commit.

    git worktree add ../old 9d224da
    python benchmarks/random_filters.py ../old [--out results/performance.csv]

Each side is a process that sums chunks as a fit does, on random images. It reports the seconds of its second chunk and
its peak memory. The time includes writing, for a commit that writes the sums after every chunk. The benchmark needs
13 GB of memory and 8 GB of disk in `--folder`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import tyro
from rich import print as show
from workload import Machine, keep

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Arguments:
    """The options of this benchmark."""

    other: Annotated[Path, tyro.conf.Positional]
    rounds: int = 3
    train: int = 50_000
    test: int = 10_000
    folder: Path | None = None
    out: Path | None = None


def main(arguments: Arguments) -> None:
    """Measures both sides in turn, prints the ratios, and writes the rows."""
    sides = {"before": arguments.other.resolve(), "now": ROOT}
    rounds: list[dict[str, dict[str, float]]] = []
    for _ in range(arguments.rounds):
        rounds.append({name: measured(arguments, checkout) for name, checkout in sides.items()})
        show(rounds[-1])
    rows: list[dict[str, Any]] = []
    for name in sides:
        ratio = median(one["before"]["seconds"] / one[name]["seconds"] for one in rounds)
        seconds, memory = (median(one[name][what] for one in rounds) for what in ("seconds", "memory"))
        row = {"benchmark": "random_filters", "model": "500 filters", "setting": name}
        rows.append(row | Machine.here("cpu").columns() | {"precision": "fp32", "seconds": seconds, "ratio": ratio})
        show(f"{name}: {seconds:.0f} s, {memory / 2**30:.1f} GiB, {ratio:.2f}")
    keep(rows, arguments.out)


def measured(arguments: Arguments, checkout: Path) -> dict[str, float]:
    """Runs one side, and returns the seconds of a chunk and the peak memory in bytes."""
    serve = Path(__file__).with_name("serve_filters.py")
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        command = [sys.executable, str(serve), str(arguments.train), str(arguments.test), str(Path(folder) / "sums")]
        environment = os.environ | {"PYTHONPATH": str(checkout / "src")}
        done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    result: dict[str, float] = json.loads(done.stdout)
    return result


if __name__ == "__main__":
    main(tyro.cli(Arguments))
