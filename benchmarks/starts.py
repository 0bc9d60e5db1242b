"""Compares the waiting times before training starts, and the whole demo, with another commit.

    git worktree add ../old 9d224da
    python benchmarks/starts.py ../old --data_root FOLDER [--out results/performance.csv]

The times are seconds from the command, as medians over the rounds, of: `import rethinking`; `--help`; the first epoch
of an MLP on the built-in digits, with a filled and with an empty cache; the first epoch on CIFAR-10 with a filled
cache; and the whole of `rethinking demo`.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import tyro
from rich import print as show
from workload import Machine, keep

ROOT = Path(__file__).resolve().parents[1]
OPENS = r": \S+ on \S+, [\d,]+ training images$"  # the line before the first step
EPOCH = r"^epoch 1/"
EMPTY = ", empty cache"


@dataclass(frozen=True)
class Arguments:
    """The options of this benchmark."""

    other: Annotated[Path, tyro.conf.Positional]
    data_root: Path
    rounds: int = 5
    demos: int = 1
    out: Path | None = None


def main(arguments: Arguments) -> None:
    """Times all commands at both commits, prints the ratios, and writes the rows."""
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        sides = {"before": arguments.other.resolve(), "now": ROOT}
        environments = {name: environment(checkout, Path(folder) / name) for name, checkout in sides.items()}
        for what in commands(ROOT, arguments):
            rounds = []
            for number in range(1 + (arguments.demos if what == "demo" else arguments.rounds)):
                one = {}
                for name, checkout in sides.items():
                    with tempfile.TemporaryDirectory(dir=folder) as place:
                        command, line = commands(checkout, arguments)[what]
                        cache = {"RETHINKING_CACHE": place} if what.endswith(EMPTY) else {}
                        one[name] = seconds_until(command, line, environments[name] | cache, place)
                if number or what == "demo":  # the first round fills caches
                    rounds.append(one)
            for name in sides:
                ratio = median(one["before"] / one[name] for one in rounds)
                took = median(one[name] for one in rounds)
                row = {"benchmark": "starts", "model": what, "setting": name} | Machine.here("cpu").columns()
                rows.append(row | {"seconds": took, "ratio": ratio})
                show(f"{what}, {name}: {took:.2f} s, {ratio:.2f}")
    keep(rows, arguments.out)


def environment(checkout: Path, cache: Path) -> dict[str, str]:
    """Returns the environment variables that select a checkout and a cache."""
    return os.environ | {"PYTHONPATH": str(checkout / "src"), "RETHINKING_CACHE": str(cache)}


def commands(checkout: Path, arguments: Arguments) -> dict[str, tuple[Sequence[str], str | None]]:
    """Returns, by name, each command and the pattern of the line to wait for; None waits for the end."""
    train = [sys.executable, str(checkout / "train.py")]
    first = [*train, "--model", "mlp_1x512", "--num_epochs", "1", "--device", "cpu", "--dataset"]
    return {
        "import": ([sys.executable, "-c", "import rethinking"], None),
        "--help": ([*train, "--help"], None),
        "first epoch, digits": ([*first, "digits"], EPOCH),
        f"first epoch, digits{EMPTY}": ([*first, "digits"], EPOCH),
        "first epoch, cifar10": ([*first, "cifar10", "--data_root", str(arguments.data_root.resolve())], EPOCH),
        "demo": ([sys.executable, "-m", "rethinking", "demo"], None),
    }


def seconds_until(
    command: Sequence[str], pattern: str | None, environment: dict[str, str] | None, folder: str
) -> float:
    """Times `command` in `folder` from its start to a line with `pattern`, or to its end."""
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=folder, env=environment)
    assert process.stdout is not None
    if pattern is None:
        process.stdout.read()
        assert process.wait() == 0, f"{' '.join(command)} did not end well"
        return time.perf_counter() - started
    reached = any(re.search(pattern, line) for line in process.stdout)
    seconds = time.perf_counter() - started
    process.kill()
    process.wait()
    assert reached, f"{' '.join(command)} ended before a line with {pattern}"
    return seconds


if __name__ == "__main__":
    main(tyro.cli(Arguments))
