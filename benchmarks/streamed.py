"""Compares training on images that stay on disk with training on images in memory, in images a second.

For each model, the same run trains on a subset of a data set:
  in memory             as with `--images_in_memory always`
  on disk               as with `never`; the file is in the system's page cache, which keeps it while memory is free
  on disk, not cached   the same, but the system forgets the file before every epoch
The images of the subset lie anywhere in the file. The ratio is to the first way in the same round; its median and
quartiles are kept.

    python benchmarks/streamed.py [--models small_inception] [--data_root FOLDER] [--out results/performance.csv]
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import numpy as np
import torch
import tyro
from rich import print
from workload import Machine, epoch_seconds, keep, runs_at_work, steps_of_an_epoch

from rethinking import ExperimentConfig
from rethinking.data import cache, sources
from rethinking.data.batches import Batches, StreamedBatches
from rethinking.data.draws import RandomizedSplit, subset_rows
from rethinking.training.loop import step_of

KINDS = {"in memory": Batches, "on disk": StreamedBatches, "on disk, not cached": StreamedBatches}


@dataclass(frozen=True)
class Arguments:
    """The options of this benchmark."""

    models: tuple[str, ...] = ("small_inception", "small_alexnet", "mlp_1x512")
    rounds: int = 40
    dataset: str = "cifar10"
    data_root: Path | None = None
    device: str = "auto"
    out: Path | None = None


def main(arguments: Arguments) -> None:
    """Times all models and ways, prints the ratios, and writes the rows."""
    machine = Machine.here(arguments.device)
    data = sources.load(arguments.dataset, arguments.data_root)
    for model in arguments.models:
        steps = max(
            2, steps_of_an_epoch(model, machine.device) // 8
        )  # short, so that other work on the machine meets all ways
        images = min(len(data.train), 128 * steps)
        timed = {way: epoch_on(data, images, model, way, machine) for way in KINDS}
        ways = [*timed]
        speeds: dict[str, list[float]] = {way: [] for way in ways}
        for number in range(arguments.rounds + 1):
            for way in ways[number % 3 :] + ways[: number % 3]:
                if way.endswith("not cached"):
                    forget(data.train.images)
                speed = images / timed[way]()
                if number:  # the first warms up
                    speeds[way].append(speed)
        rows: list[dict[str, Any]] = []
        for way, measured in speeds.items():
            ratios = [one / other for one, other in zip(measured, speeds["in memory"], strict=True)]
            low, _, high = quantiles(ratios)
            row = {"benchmark": "streamed", "model": model, "runs": 1, "images": images, "epochs": arguments.rounds}
            row |= machine.columns()
            rows.append(row | {"setting": way, "images_per_second": median(measured), "ratio": median(ratios)})
            rows += [
                row | {"setting": f"{way}: {name} quartile", "ratio": at}
                for name, at in (("lower", low), ("upper", high))
            ]
            print(f"{model}, {way}: {median(measured):,.0f} images/s, {median(ratios):.3f} ({low:.3f} to {high:.3f})")
        keep(rows, arguments.out)


def epoch_on(data: sources.ImageData, images: int, model: str, way: str, machine: Machine) -> Callable[[], float]:
    """Returns a function that trains an epoch and returns its seconds."""
    rows, labels = subset_rows(len(data.train), images), torch.from_numpy(data.train.labels)
    split = RandomizedSplit(torch.from_numpy(data.train.images), labels[rows], labels[rows], rows=rows, on_disk=True)
    runs = runs_at_work(ExperimentConfig(model_name=model), machine, split=split, kind=KINDS[way])
    return partial(epoch_seconds, step_of(runs), runs)


def forget(images: np.ndarray) -> None:
    """Makes the system forget the file of these mapped images, except for pages that other processes map."""
    mapped = images.base
    assert isinstance(mapped, mmap.mmap)
    mapped.madvise(mmap.MADV_DONTNEED)
    for path in cache.folder().glob("*/*_images.npy"):
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


if __name__ == "__main__":
    main(tyro.cli(Arguments))
