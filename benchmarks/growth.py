"""Measures how the time of an epoch grows with the images, with the runs at once, and with the width of a network.

The time of a point is the median over the rounds. The exponent of a series is the slope of a line through the
logarithms: 1 means in proportion, and less means that the device had room. Runs at once are stacked.

    python benchmarks/growth.py [--models mlp_1x512 small_alexnet] [--out results/performance.csv]
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import linear_regression, median
from typing import Any

import tyro
from rich import print
from torch import nn
from workload import Machine, epoch_seconds, keep, runs_at_work

from rethinking.config import ExperimentConfig
from rethinking.models.mlp import mlp
from rethinking.training.loop import step_of

INPUT = (3, 28, 28)
Point = tuple[int, int, int, Callable[[], nn.Module] | None]  # size, runs, images, and the network if not the model


@dataclass(frozen=True)
class Arguments:
    """The options of this benchmark."""

    models: tuple[str, ...] = ("mlp_1x512", "mlp_3x512", "small_alexnet")
    images: tuple[int, ...] = (5_000, 10_000, 20_000, 50_000)
    runs: tuple[int, ...] = (1, 3, 11, 33)
    widths: tuple[int, ...] = (128, 256, 512, 1024, 2048)
    images_of_the_others: int = 2_560  # images of an epoch where the runs or the width vary
    rounds: int = 3
    device: str = "auto"
    out: Path | None = None


def main(arguments: Arguments) -> None:
    """Times all models and series, prints the exponents, and writes the rows."""
    machine = Machine.here(arguments.device)
    rows: list[dict[str, Any]] = []
    fixed = arguments.images_of_the_others
    for model in arguments.models:
        config = ExperimentConfig(model_name=model)
        series: dict[str, list[Point]] = {"images": [(count, 1, count, None) for count in arguments.images]}
        series["runs"] = [(count, count, fixed, None) for count in arguments.runs]
        if model.startswith("mlp"):
            build = partial(mlp, int(model[4]), 10, INPUT)
            series["width"] = [(width, 1, fixed, partial(build, width)) for width in arguments.widths]
        for what, points in series.items():
            measured = []
            for size, runs, images, network in points:
                at_work = runs_at_work(config, machine, runs, images, network)
                step = step_of(at_work)
                epoch_seconds(step, at_work)
                took = median(epoch_seconds(step, at_work) for _ in range(arguments.rounds))
                measured.append((size, took))
                row = {"benchmark": "growth", "model": model, "setting": f"{what} {size}", "runs": runs}
                rows.append(row | {"images": images, "images_per_second": runs * images / took} | machine.columns())
                print(f"{model}, {what} {size}: {took:.3f} s")
            slope = exponent(measured)
            rows.append({"benchmark": "growth", "model": model, "setting": f"exponent of {what}", "ratio": slope}
                        | machine.columns())  # fmt: skip
            print(f"{model}: time grows as {what}^{slope:.2f}")
            keep(rows, arguments.out)


def exponent(points: list[tuple[int, float]]) -> float:
    """Returns the slope of a line through the logarithms of (size, seconds)."""
    sizes, times = zip(*points, strict=True)
    return linear_regression([math.log(size) for size in sizes], [math.log(time) for time in times]).slope


if __name__ == "__main__":
    main(tyro.cli(Arguments))
