"""Compares eleven runs at once with the same runs one after the other, as Figure 1b needs them.

For each model, `train_many` trains the same runs, with evaluation and checkpoints. In images a second of training over
all runs:
  one after the other   as with `--at_once 1`
  stacked               as one computation, as `--at_once auto` does on CUDA for all models but the Inceptions
  side by side          a thread for each core of the processor, as `--at_once auto` does for MLPs on a CPU
  stock pipeline        one run of the stock pipeline of `epoch_against_step.py`, without evaluation and saving
A round times each once, and the ratio to the first is the median over the rounds.

    python benchmarks/many_at_once.py [--runs 11] [--models mlp_1x512 small_alexnet] [--out results/performance.csv]
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
import tyro
from epoch_against_step import stock_epoch
from rich import print
from workload import Machine, keep, seconds

from rethinking import ExperimentConfig, train_many
from rethinking.models import catalogue


@dataclass(frozen=True)
class Arguments:
    """The options of this benchmark."""

    runs: int = 11
    epochs: int = 2
    rounds: int = 3
    models: tuple[str, ...] = catalogue.PAPER
    dataset: str = "cifar10"
    images: int | None = None
    device: str = "auto"
    out: Path | None = None


def main(arguments: Arguments) -> None:
    """Times all models and ways, prints the ratios, and writes the rows."""
    machine = Machine.here(arguments.device)
    ways: dict[str, dict[str, Any]] = {
        "one after the other": {"at_once": 1},
        "stacked": {"at_once": arguments.runs, "stacked": True},
    }
    if machine.device.type == "cpu":
        ways["side by side"] = {"at_once": torch.get_num_threads(), "stacked": False}
    rows: list[dict[str, Any]] = []
    for model in arguments.models:
        with stock_epoch(model, machine.device) as stock:
            timed: dict[str, Callable[[], float]] = {
                way: partial(speed, model, arguments, options, machine) for way, options in ways.items()
            }
            timed["stock pipeline"] = stock
            rounds = [{way: run() for way, run in timed.items()} for _ in range(arguments.rounds)]
        speeds = {way: [one[way] for one in rounds] for way in timed}
        for way, measured in speeds.items():
            pairs = zip(measured, speeds["one after the other"], strict=True)
            ratio = median(one / other for one, other in pairs)
            runs = arguments.runs if way in ways else 1
            row = {"benchmark": "many_at_once", "model": model, "setting": way, "runs": runs}
            row |= {"images": arguments.images or "all", "epochs": arguments.epochs if way in ways else ""}
            rows.append(row | {"images_per_second": median(measured), "ratio": ratio} | machine.columns())
            print(f"{model}, {runs} runs, {way}: {median(measured):,.0f} images/s, {ratio:.2f}")
        keep(rows, arguments.out)


def speed(model: str, arguments: Arguments, options: dict[str, Any], machine: Machine) -> float:
    """Trains all runs from the start, and returns their images a second."""
    trained = 0
    with tempfile.TemporaryDirectory() as folder:
        configs = [
            ExperimentConfig(
                model_name=model,
                dataset=arguments.dataset,
                train_subset=arguments.images,
                num_epochs=arguments.epochs,
                randomization="partial_corrupt",
                corruption_prob=level / max(arguments.runs - 1, 1),
                device=machine.device.type,
                runs_dir=folder,
                use_tensorboard=False,
            )
            for level in range(arguments.runs)
        ]

        def work() -> None:
            nonlocal trained
            for _, outcome in train_many(configs, **options):
                if isinstance(outcome, Exception):
                    raise outcome
                trained += outcome.result["train_images"] * len(outcome.metrics)

        took = seconds(work, machine.device)
    return trained / took


if __name__ == "__main__":
    main(tyro.cli(Arguments))
