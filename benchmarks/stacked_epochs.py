"""Compares training epochs of several stacked runs with those of one run.

`many_at_once.py` times whole runs, with their start, evaluation and checkpoints. This benchmark times epochs on random
images, in images a second over all runs. The faster of two epochs counts, after one for warming up.

    python benchmarks/stacked_epochs.py [--models mlp_1x512 small_alexnet] [--runs 4 11] [--out results/performance.csv]
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from rich import print
from workload import Machine, epoch_seconds, keep, runs_at_work, steps_of_an_epoch

from rethinking.config import ExperimentConfig
from rethinking.models import catalogue
from rethinking.training.loop import step_of

IMAGES = {"small_inception": 6_400, "small_inception_no_bn": 6_400, "small_alexnet": 12_800}  # images of an epoch
IMAGES_OF_AN_MLP = 25_600


@dataclass(frozen=True)
class Arguments:
    """The options of this benchmark."""

    models: tuple[str, ...] = catalogue.PAPER
    runs: tuple[int, ...] = (4, 11)
    device: str = "auto"
    out: Path | None = None


def main(arguments: Arguments) -> None:
    """Times all models and numbers of runs, prints the ratios, and writes the rows."""
    machine = Machine.here(arguments.device)
    rows: list[dict[str, Any]] = []
    for model in arguments.models:
        images = IMAGES.get(model, IMAGES_OF_AN_MLP)
        if machine.device.type == "cpu":
            images = min(images, 128 * steps_of_an_epoch(model, machine.device))
        speeds: dict[int, float] = {}
        for number in (1, *arguments.runs):
            runs = runs_at_work(ExperimentConfig(model_name=model), machine, number, images)
            step = step_of(runs)
            epoch_seconds(step, runs)
            speeds[number] = number * images / min(epoch_seconds(step, runs) for _ in range(2))
            row: dict[str, Any] = {
                "benchmark": "stacked_epochs",
                "model": model,
                "setting": "stacked" if number > 1 else "alone",
            }
            row |= {"runs": number, "images": images, "images_per_second": speeds[number]}
            rows.append(row | {"ratio": speeds[number] / speeds[1]} | machine.columns())
            print(f"{model}, {number} runs: {speeds[number]:,.0f} images/s, {rows[-1]['ratio']:.2f}")
        keep(rows, arguments.out)


if __name__ == "__main__":
    main(tyro.cli(Arguments))
