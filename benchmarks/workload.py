"""Runs on random images of CIFAR-10's size, which the benchmarks time, and the files of their results."""

from __future__ import annotations

import csv
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rethinking.config import ExperimentConfig
from rethinking.data.batches import Batches
from rethinking.data.draws import RandomizedSplit
from rethinking.data.preprocessing import Preprocessing
from rethinking.models import build_model, initialize, is_convolutional, to_device
from rethinking.seeding import generator
from rethinking.training.hardware import keep_freed_memory, provenance, resolve_device, resolve_precision
from rethinking.training.loop import Training, batches_of, train_epoch
from rethinking.training.run_dir import RunDir
from rethinking.training.step import CapturedStep, Step

CPU_STEPS = {"small_inception": 4, "small_inception_no_bn": 4, "small_alexnet": 24, "mlp_1x512": 200, "mlp_3x512": 200}
CUDA_STEPS = 391  # an epoch of CIFAR-10
COLUMNS = ("benchmark", "model", "setting", "runs", "images", "epochs", "images_per_second", "ratio", "seconds",
           "precision", "threads", "hardware", "torch")  # fmt: skip


@dataclass(frozen=True)
class Machine:
    """A device and its settings, as the columns of the result files describe them."""

    device: torch.device
    precision: str
    threads: int
    hardware: str
    torch: str

    @classmethod
    def here(cls, device: str = "auto") -> Machine:
        """Returns this machine, set up as `train` does."""
        keep_freed_memory()
        found = resolve_device(device)
        precision = resolve_precision("auto", found)
        made_on = provenance(found, precision)
        return cls(found, precision, made_on["cpu_threads"], made_on["hardware"], made_on["versions"]["torch"])

    def columns(self) -> dict[str, Any]:
        """Returns the columns that describe this machine."""
        return {
            "precision": self.precision,
            "threads": self.threads,
            "hardware": self.hardware,
            "torch": self.torch,
        }


def steps_of_an_epoch(model: str, device: torch.device) -> int:
    """Returns the number of steps of a timed epoch; on a CPU a whole epoch would take minutes."""
    return CPU_STEPS[model] if device.type == "cpu" else CUDA_STEPS


def random_split(images: int) -> RandomizedSplit:
    """Draws uniform random images and labels, the same at every call."""
    draws = generator(0, "benchmark")
    labels = torch.randint(10, (images,), generator=draws)
    pixels = torch.randint(256, (images, 3, 32, 32), generator=draws, dtype=torch.uint8)
    return RandomizedSplit(pixels, labels, labels)


def runs_at_work(
    config: ExperimentConfig,
    machine: Machine,
    runs: int = 1,
    images: int | None = None,
    build: Callable[[], nn.Module] | None = None,
    split: RandomizedSplit | None = None,
    kind: type[Batches] = Batches,
) -> list[Training]:
    """Returns `runs` runs with different seeds on the same images.

    images: number of random images, by default those of a timed epoch
    build: builds another network than the configuration's
    split: the images to train on, instead of random images
    kind: the class of the batches

    The learning rate is close to 0, because training on random images diverges.
    """
    config = replace(config.resolved(), learning_rate=1e-12, precision=machine.precision)
    if split is None:
        split = random_split(images or config.batch_size * steps_of_an_epoch(config.model_name, machine.device))
    prepared = Preprocessing(28, 1e-8, config.random_crop, config.augment_flip_rotate)
    dtype = torch.bfloat16 if machine.precision == "bf16" else torch.float32
    made: list[Training] = []
    for seed in range(runs):
        model = build() if build else build_model(config.model_name)
        initialize(model, str(config.init), generator(seed, "init"))
        to_device(model, machine.device)
        batches = (
            made[0].train_batches.relabelled(split)
            if made
            else kind(split, prepared, machine.device, is_convolutional(model), dtype)
        )
        run = Training(replace(config, seed=seed), model, batches, None, RunDir(Path()), {}, observe=tuple)
        run.metrics = []
        made.append(run)
    return made


def bare_steps(step: Step | CapturedStep, runs: Sequence[Training]) -> Callable[[], None]:
    """Returns a function that does as many steps as an epoch has, all on one batch in memory."""
    _, images, labels = next(batches_of(runs))
    step.begin([1e-12] * len(runs))

    def steps() -> None:
        for _ in range(math.ceil(len(runs[0].train_batches) / labels.shape[1])):
            losses, _ = step(images, labels)
        losses.tolist()

    steps()
    return steps


def seconds(work: Callable[[], Any], device: torch.device) -> float:
    """Returns the seconds of `work`, until the device has finished it."""
    started = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def epoch_seconds(step: Step | CapturedStep, runs: Sequence[Training]) -> float:
    """Trains one epoch, and returns its seconds."""
    return seconds(lambda: train_epoch(step, runs), runs[0].train_batches.labels.device)


def write_csv(rows: list[dict[str, Any]], path: Path, same: Sequence[str] = ("hardware",)) -> None:
    """Writes the rows into a CSV file, in place of earlier rows with equal values in the columns `same`.

    Other rows, as those measured on other machines, stay.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    new = {tuple(str(row[name]) for name in same) for row in rows}
    kept: list[dict[str, Any]] = []
    if path.exists():
        with path.open(newline="", encoding="utf-8") as file:
            kept = [row for row in csv.DictReader(file) if tuple(row[name] for name in same) not in new]
    made = [{key: f"{value:.4g}" if isinstance(value, float) else value for key, value in row.items()} for row in rows]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(kept + made)


def keep(rows: list[dict[str, Any]], path: Path | None) -> None:
    """Writes rows of a benchmark into the file of all benchmarks, in place of its earlier rows.

    Only rows of the same models on the same hardware are replaced. Without a path, nothing is written.
    """
    if path is not None:
        whole = [dict.fromkeys(COLUMNS, "") | row for row in rows]
        write_csv(whole, path, same=("benchmark", "model", "hardware"))
