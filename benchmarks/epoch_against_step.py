"""How much of the bare training step an epoch of this project reaches, and how a stock pipeline compares.

For each model, on CIFAR-sized random images, in images a second:
  step   forward, backward and update on one fixed batch in memory
  epoch  `training.loop.train_epoch`, in the same precision and memory format: order, gathering, metrics and all
  stock  the same model behind `torch.utils.data.DataLoader` with per-image transforms and 2 workers, fp32, in a process
         of its own that knows nothing of this project's settings
All are timed in turn, and the ratio is the median over the rounds.

    python benchmarks/epoch_against_step.py [--rounds 3] [--models small_alexnet mlp_1x512] [--out results/bench.csv]
"""

from __future__ import annotations

import contextlib
import csv
import multiprocessing
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
import tyro
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.nn import functional as F

from rethinking.config import MODEL_DEFAULTS, ExperimentConfig
from rethinking.data.batches import Batches
from rethinking.data.preprocessing import Preprocessing
from rethinking.data.randomization import RandomizedSplit
from rethinking.models import build_model, initialize, is_convolutional, to_device
from rethinking.seeding import generator
from rethinking.training.hardware import keep_freed_memory, provenance, resolve_device, resolve_precision
from rethinking.training.loop import Training, train_epoch
from rethinking.training.optimizers import Optimizer
from rethinking.training.run_dir import RunDir
from rethinking.training.step import Step

STEPS = {"small_inception": 4, "small_inception_no_bn": 4, "small_alexnet": 24, "mlp_1x512": 200, "mlp_3x512": 200}
AUGMENTATIONS: dict[str, dict[str, Any]] = {
    "none": {},
    "random_crop": {"random_crop": True},
    "flip_rotate": {"augment_flip_rotate": True},
}
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
Timed = Callable[[], float]  # does the work once and returns images a second


@dataclass(frozen=True)
class Arguments:
    rounds: int = 3
    models: tuple[str, ...] = tuple(MODEL_DEFAULTS)
    device: str = "auto"
    out: Path | None = None


def main(arguments: Arguments) -> None:
    console = Console()
    device = resolve_device(arguments.device)
    precision = resolve_precision("auto", device)
    made_on = provenance(device, precision)
    console.print(f"{made_on['hardware']}, {made_on['cpu_threads']} threads, {precision}, {made_on['versions']}")
    keep_freed_memory()  # as `train` does
    rows = []
    for name in arguments.models:
        for augmentation, options in AUGMENTATIONS.items():
            if augmentation != "none" and name.startswith("mlp"):
                continue
            config = ExperimentConfig(model_name=name, **options).resolved()
            step, epoch = bare_step(config, device, precision), our_epoch(config, device, precision)
            rounds = arguments.rounds * (3 if name.startswith("mlp") else 1)  # their rounds are short
            with stock_epoch(name, device) if augmentation == "none" else contextlib.nullcontext() as stock:
                compared = [step, epoch, stock] if stock else [step, epoch]
                speeds = [[run() for run in compared] for _ in range(rounds)]
            row: dict[str, Any] = {"model": name, "augmentation": augmentation, "precision": precision}
            row["step_images_per_second"] = median(speed[0] for speed in speeds)
            row["epoch_images_per_second"] = median(speed[1] for speed in speeds)
            row["epoch_over_step"] = median(speed[1] / speed[0] for speed in speeds)
            if stock:
                row["stock_images_per_second"] = median(speed[2] for speed in speeds)
                row["epoch_over_stock"] = median(speed[1] / speed[2] for speed in speeds)
            row |= {"threads": made_on["cpu_threads"], "hardware": made_on["hardware"]}
            rows.append(row | {"torch": made_on["versions"]["torch"]})
            console.print(f"{name}, augmentation {augmentation}: epoch over step {row['epoch_over_step']:.3f}")
    console.print(as_table(rows))
    if arguments.out:
        write_csv(rows, arguments.out)


def bare_step(config: ExperimentConfig, device: torch.device, precision: str) -> Timed:
    model, optimizer = model_and_optimizer(config, device)
    split = random_split(config.batch_size)
    batches = Batches(split, Preprocessing(28), device, is_convolutional(model), DTYPES[precision])
    images, labels = next(iter(batches.in_order(config.batch_size)))
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")
    steps = STEPS[config.model_name]

    def run() -> float:
        started = time.perf_counter()
        for _ in range(steps):
            with autocast:
                loss = F.cross_entropy(model(images).float(), labels)
            loss.backward()
            optimizer.step(1e-4)
        loss.item()
        return steps * config.batch_size / (time.perf_counter() - started)

    run()
    return run


def our_epoch(config: ExperimentConfig, device: torch.device, precision: str) -> Timed:
    model, _ = model_and_optimizer(config, device)
    preprocessing = Preprocessing(28, 1e-8, config.random_crop, config.augment_flip_rotate)
    split = random_split(config.batch_size * STEPS[config.model_name])
    batches = Batches(split, preprocessing, device, is_convolutional(model), DTYPES[precision])
    tiny = replace(config, learning_rate=1e-12, precision=precision)  # random data cannot diverge
    run_at_work = Training(tiny, model, batches, None, RunDir(Path()), {}, observe=tuple)
    run_at_work.metrics = []
    step = Step([model], [run_at_work.optimizer], run_at_work.autocast)

    def run() -> float:
        started = time.perf_counter()
        train_epoch(step, [run_at_work])
        return len(batches) / (time.perf_counter() - started)

    run()
    return run


class StockDataset(torch.utils.data.Dataset[tuple[torch.Tensor, int]]):
    """One image at a time through PIL, as torchvision's `CIFAR10` with `CenterCrop`, `ToTensor` and a function does."""

    def __init__(self, images: int) -> None:
        split = random_split(images)
        self._images = split.images.permute(0, 2, 3, 1).contiguous().numpy()
        self._labels = split.labels.tolist()

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        cropped = Image.fromarray(self._images[index]).crop((2, 2, 30, 30))
        image = torch.from_numpy(np.array(cropped)).permute(2, 0, 1).contiguous().float().div(255)
        return (image - image.mean()) / image.std(correction=0).clamp_min(1e-8), self._labels[index]


@contextlib.contextmanager
def stock_epoch(name: str, device: torch.device) -> Iterator[Timed]:
    """The stock pipeline, waiting in its own process to be timed."""
    here, there = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(target=serve_stock_epochs, args=(name, device, there))
    process.start()

    def run() -> float:
        here.send("run")
        return float(here.recv())

    run()
    yield run
    here.send("end")
    process.join()


def serve_stock_epochs(name: str, device: torch.device, orders: Connection) -> None:
    """The loader's workers persist between epochs, so that their start costs nothing here."""
    model = build_model(name).to(device).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9)
    loader = torch.utils.data.DataLoader(
        StockDataset(128 * STEPS[name]), batch_size=128, shuffle=True, num_workers=2, persistent_workers=True
    )
    while orders.recv() == "run":
        started = time.perf_counter()
        for images, labels in loader:
            optimizer.zero_grad()
            loss = F.cross_entropy(model(images.to(device)), labels.to(device))
            loss.backward()
            optimizer.step()
        loss.item()
        orders.send(128 * STEPS[name] / (time.perf_counter() - started))


def model_and_optimizer(config: ExperimentConfig, device: torch.device) -> tuple[nn.Module, Optimizer]:
    model = build_model(config.model_name)
    assert config.init is not None, "a resolved configuration"
    initialize(model, config.init, generator(0, "init"))
    to_device(model, device)
    return model.train(), Optimizer(model, config)


def random_split(images: int) -> RandomizedSplit:
    draws = generator(0, "benchmark")
    labels = torch.randint(10, (images,), generator=draws)
    pixels = torch.randint(256, (images, 3, 32, 32), generator=draws, dtype=torch.uint8)
    return RandomizedSplit(pixels, labels, labels)


def as_table(rows: list[dict[str, Any]]) -> Table:
    table = Table("model", "augmentation", "step img/s", "epoch img/s", "epoch/step", "stock img/s", "epoch/stock")
    for row in rows:
        stock: tuple[str, ...] = ()
        if "epoch_over_stock" in row:
            stock = (f"{row['stock_images_per_second']:,.0f}", f"{row['epoch_over_stock']:.2f}")
        table.add_row(
            row["model"],
            row["augmentation"],
            f"{row['step_images_per_second']:,.0f}",
            f"{row['epoch_images_per_second']:,.0f}",
            f"{row['epoch_over_step']:.3f}",
            *stock,
        )
    return table


def write_csv(rows: list[dict[str, Any]], path: Path) -> None:
    """In place of what the file holds of this hardware; what was measured on other machines stays."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kept: list[dict[str, Any]] = []
    if path.exists():
        with path.open(newline="", encoding="utf-8") as file:
            kept = [row for row in csv.DictReader(file) if row["hardware"] != rows[0]["hardware"]]
    made = [{key: f"{value:.4g}" if isinstance(value, float) else value for key, value in row.items()} for row in rows]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(kept + made)


if __name__ == "__main__":
    main(tyro.cli(Arguments))
