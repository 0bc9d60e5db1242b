"""Training epochs of several runs stacked against those of one alone: what stacking itself gains.

`many_at_once.py` has whole runs, with their start, evaluation and checkpoints. Here, in images a second over all runs,
is the faster of two epochs on random images, after one that is not counted.

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

IMAGES = {"small_inception": 6_400, "small_inception_no_bn": 6_400, "small_alexnet": 12_800}  # of an epoch
IMAGES_OF_AN_MLP = 25_600


@dataclass(frozen=True)
class Arguments:
    models: tuple[str, ...] = catalogue.PAPER
    runs: tuple[int, ...] = (4, 11)
    device: str = "auto"
    out: Path | None = None


def main(arguments: Arguments) -> None:
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
