"""Compares an epoch of this project with its bare training step, and with a stock pipeline.

For each model, in images a second on random images of CIFAR-10's size:
  step   forward, backward and update on one fixed batch in memory
  epoch  `training.loop.train_epoch` with the same step, with its order, gathering and metrics
  stock  the same model with `torch.utils.data.DataLoader`, transforms of single images and 2 workers, in float32; it
         runs in a process of its own, without this project's settings
A round times each once, and the ratio is the median over the rounds.

    python benchmarks/epoch_against_step.py [--rounds 3] [--models small_alexnet mlp_1x512] [--out results/bench.csv]
"""

from __future__ import annotations

import contextlib
import multiprocessing
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
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
from torch.nn import functional as F
from workload import (
    Machine,
    bare_steps,
    epoch_seconds,
    random_split,
    runs_at_work,
    seconds,
    steps_of_an_epoch,
    write_csv,
)

from rethinking.config import ExperimentConfig
from rethinking.models import build_model, catalogue
from rethinking.training.loop import step_of

AUGMENTATIONS: dict[str, dict[str, Any]] = {
    "none": {},
    "random_crop": {"random_crop": True},
    "flip_rotate": {"augment_flip_rotate": True},
}
Timed = Callable[[], float]  # does the work once and returns images a second


@dataclass(frozen=True)
class Arguments:
    """The options of this benchmark."""

    rounds: int = 3
    models: tuple[str, ...] = catalogue.PAPER
    device: str = "auto"
    out: Path | None = None


def main(arguments: Arguments) -> None:
    """Times all models and augmentations, prints a table, and writes the rows."""
    console = Console()
    machine = Machine.here(arguments.device)
    console.print(f"{machine.hardware}, {machine.threads} threads, {machine.precision}, PyTorch {machine.torch}")
    rows = []
    for name in arguments.models:
        for augmentation, options in AUGMENTATIONS.items():
            if augmentation != "none" and name.startswith("mlp"):
                continue
            step, epoch = step_and_epoch(ExperimentConfig(model_name=name, **options), machine)
            rounds = arguments.rounds * (3 if name.startswith("mlp") else 1)  # an MLP's rounds are short
            alone = stock_epoch(name, machine.device) if augmentation == "none" else contextlib.nullcontext()
            with alone as stock:
                compared = [step, epoch, stock] if stock else [step, epoch]
                speeds = [[run() for run in compared] for _ in range(rounds)]
            row: dict[str, Any] = {"model": name, "augmentation": augmentation, "precision": machine.precision}
            row["step_images_per_second"] = median(speed[0] for speed in speeds)
            row["epoch_images_per_second"] = median(speed[1] for speed in speeds)
            row["epoch_over_step"] = median(speed[1] / speed[0] for speed in speeds)
            if stock:
                row["stock_images_per_second"] = median(speed[2] for speed in speeds)
                row["epoch_over_stock"] = median(speed[1] / speed[2] for speed in speeds)
            rows.append(row | machine.columns())
            console.print(f"{name}, augmentation {augmentation}: epoch over step {row['epoch_over_step']:.3f}")
    console.print(as_table(rows))
    if arguments.out:
        write_csv(rows, arguments.out)


def step_and_epoch(config: ExperimentConfig, machine: Machine) -> tuple[Timed, Timed]:
    """Returns two timers: of the bare step on one batch in memory, as often as an epoch has it, and of the epoch."""
    runs = runs_at_work(config, machine)
    step = step_of(runs)
    steps = bare_steps(step, runs)
    count = len(runs[0].train_batches)

    def timed(measure: Callable[[], float]) -> Timed:
        measure()
        return lambda: count / measure()

    return timed(lambda: seconds(steps, machine.device)), timed(lambda: epoch_seconds(step, runs))


class StockDataset(torch.utils.data.Dataset[tuple[torch.Tensor, int]]):
    """Reads one image at a time with PIL, as torchvision's `CIFAR10` with `CenterCrop` and `ToTensor` does."""

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
def stock_epoch(name: str, device: torch.device, bf16: bool = False) -> Iterator[Timed]:
    """Starts the stock pipeline in a process of its own, and yields what times its epoch; `bf16` uses autocast."""
    here, there = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(target=serve_stock_epochs, args=(name, device, bf16, there))
    process.start()

    def run() -> float:
        here.send("run")
        return float(here.recv())

    run()
    yield run
    here.send("end")
    process.join()


def serve_stock_epochs(name: str, device: torch.device, bf16: bool, orders: Connection) -> None:
    """Trains an epoch for each order, and sends its images a second; the loader's workers persist between epochs."""
    count = 128 * steps_of_an_epoch(name, device)
    model = build_model(name).to(device).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9)
    loader = torch.utils.data.DataLoader(
        StockDataset(count), batch_size=128, shuffle=True, num_workers=2, persistent_workers=True
    )
    while orders.recv() == "run":
        started = time.perf_counter()
        for images, labels in loader:
            optimizer.zero_grad()
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                loss = F.cross_entropy(model(images.to(device)), labels.to(device))
            loss.backward()
            optimizer.step()
        loss.item()
        orders.send(count / (time.perf_counter() - started))


def as_table(rows: list[dict[str, Any]]) -> Table:
    """Returns the rows as a table for the terminal."""
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


if __name__ == "__main__":
    main(tyro.cli(Arguments))
