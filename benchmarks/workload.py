"""What the benchmarks time: runs at work on CIFAR-sized random images, and where their figures are kept."""

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
    device: torch.device
    precision: str
    threads: int
    hardware: str
    torch: str

    @classmethod
    def here(cls, device: str = "auto") -> Machine:
        """This one, set up as `train` does."""
        keep_freed_memory()
        found = resolve_device(device)
        precision = resolve_precision("auto", found)
        made_on = provenance(found, precision)
        return cls(found, precision, made_on["cpu_threads"], made_on["hardware"], made_on["versions"]["torch"])

    def columns(self) -> dict[str, Any]:
        return {
            "precision": self.precision,
            "threads": self.threads,
            "hardware": self.hardware,
            "torch": self.torch,
        }


def steps_of_an_epoch(model: str, device: torch.device) -> int:
    """A whole one would take minutes on a CPU."""
    return CPU_STEPS[model] if device.type == "cpu" else CUDA_STEPS


def random_split(images: int) -> RandomizedSplit:
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
    """`runs` of them, of different seeds, on the same images with random labels of their own.

    The learning rate is next to nothing, since random data diverge. `build` makes another network than the
    configuration's. `split` stands in place of `images` random ones.
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
    """As many steps as an epoch has, all on one batch in memory, done once: what to time."""
    _, images, labels = next(batches_of(runs))
    step.begin([1e-12] * len(runs))

    def steps() -> None:
        for _ in range(math.ceil(len(runs[0].train_batches) / labels.shape[1])):
            losses, _ = step(images, labels)
        losses.tolist()

    steps()
    return steps


def seconds(work: Callable[[], Any], device: torch.device) -> float:
    """What `work` takes until the device is done with it."""
    started = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def epoch_seconds(step: Step | CapturedStep, runs: Sequence[Training]) -> float:
    return seconds(lambda: train_epoch(step, runs), runs[0].train_batches.labels.device)


def write_csv(rows: list[dict[str, Any]], path: Path, same: Sequence[str] = ("hardware",)) -> None:
    """In place of the rows there that are the `same`; what was measured on other machines stays."""
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
    """Rows of one benchmark into the file of all, in place of its earlier ones of these models on this hardware."""
    if path is not None:
        whole = [dict.fromkeys(COLUMNS, "") | row for row in rows]
        write_csv(whole, path, same=("benchmark", "model", "hardware"))
