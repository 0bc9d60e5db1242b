"""Eleven runs at once against the same runs one after the other, as Figure 1b needs them.

For each model, one epoch of each of the runs, in images a second over all of them:
  one after the other   each alone, as `train` trains it
  stacked               as one computation (`train_many` on CUDA)
  side by side          each in a thread with its share of the processor's cores (`train_many` on a CPU)
All are timed in turn; the ratio to the first is the median over the rounds.

    python benchmarks/many_at_once.py [--runs 11] [--models mlp_1x512 small_alexnet] [--out results/performance.csv]
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch
import tyro
from rich import print
from workload import Machine, keep, runs_at_work, seconds, step_of

from rethinking.config import MODEL_DEFAULTS, ExperimentConfig
from rethinking.training.loop import train_epoch

IMAGES = {"mlp_1x512": 12_800, "mlp_3x512": 6_400, "small_alexnet": 1_280, "small_inception": 256,
          "small_inception_no_bn": 256}  # fmt: skip


@dataclass(frozen=True)
class Arguments:
    runs: int = 11
    rounds: int = 3
    models: tuple[str, ...] = tuple(MODEL_DEFAULTS)
    device: str = "auto"
    out: Path | None = None


def main(arguments: Arguments) -> None:
    machine = Machine.here(arguments.device)
    rows = []
    for model in arguments.models:
        ways = ways_to_train(model, arguments.runs, machine)
        for work in ways.values():
            work()
        speeds: dict[str, list[float]] = {way: [] for way in ways}
        images = IMAGES[model] * arguments.runs
        for _ in range(arguments.rounds):
            for way, work in ways.items():
                speeds[way].append(images / seconds(work, machine.device))
        first = speeds["one after the other"]
        for way, measured in speeds.items():
            ratio = median(speed / base for speed, base in zip(measured, first, strict=True))
            row = {"benchmark": "many_at_once", "model": model, "setting": way, "runs": arguments.runs}
            row |= {"images": IMAGES[model], "images_per_second": median(measured), "ratio": ratio}
            rows.append(row | machine.columns())
            print(f"{model}, {arguments.runs} runs {way}: {median(measured):,.0f} images/s, {ratio:.2f}")
        keep(rows, arguments.out)


def ways_to_train(model: str, count: int, machine: Machine) -> dict[str, Callable[[], object]]:
    config = ExperimentConfig(model_name=model)
    alone = runs_at_work(config, machine, count, IMAGES[model])
    steps = [step_of([run]) for run in alone]
    together = runs_at_work(config, machine, count, IMAGES[model])
    stacked = step_of(together)

    def one_after_the_other() -> None:
        for step, run in zip(steps, alone, strict=True):
            train_epoch(step, [run])

    def side_by_side() -> None:
        threads = torch.get_num_threads()
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            list(pool.map(lambda step, run: train_epoch(step, [run]), steps, alone))
        torch.set_num_threads(threads)

    ways: dict[str, Callable[[], object]] = {
        "one after the other": one_after_the_other,
        "stacked": lambda: train_epoch(stacked, together),
    }
    return ways | ({"side by side": side_by_side} if machine.device.type == "cpu" else {})


if __name__ == "__main__":
    main(tyro.cli(Arguments))
