"""Trains MLP 1x512 with batches in the order of a shuffling queue, or without the last partial batch.

    python trials/order_of_batches.py --data_root ../shared/data [--out results/differences/order_of_batches.csv]

TensorFlow's input of 2016 read the images in their stored order into a queue, and drew each batch from the queue at
random. So a pass of 391 steps sees some images twice and others not at all, and no batch is smaller. This file has a
loop of its own, in plain PyTorch. So the order of the package, a new permutation each epoch, is also a check of the
package's loop. A run takes about three minutes on one core.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from torch import Tensor, nn
from torch.nn import functional as F

from rethinking.data import sources
from rethinking.data.draws import corrupt_labels
from rethinking.data.preprocessing import Preprocessing
from rethinking.models import build_model, initialize
from rethinking.seeding import generator
from rethinking.training.hardware import provenance

BATCH, EPOCHS, RATE, DECAY, MOMENTUM = 128, 70, 0.01, 0.95, 0.9
STEPS = 391  # of an epoch: 50,000 / 128, rounded up
QUEUED = 20_000  # images; the tutorial keeps at least four tenths of the training set in the queue
ONLINE = 0.985  # the accuracy that counts as overfitted, as in Figure 1b

Order = Callable[[int, int], Iterator[Tensor]]  # (images, seed) -> the row indices of one batch after another


def permutation(images: int, seed: int) -> Iterator[Tensor]:
    """Yields the batches of the package: a permutation for each epoch, whose last batch is smaller."""
    epoch = 0
    while True:
        epoch += 1
        yield from torch.randperm(images, generator=generator(seed, "order", epoch)).split(BATCH)


def whole_batches(images: int, seed: int) -> Iterator[Tensor]:
    """Yields the same batches without the last of each epoch, which is smaller."""
    return (rows for rows in permutation(images, seed) if len(rows) == BATCH)


def queue(images: int, seed: int) -> Iterator[Tensor]:
    """Yields batches of a shuffling queue that images enter in their stored order."""
    draws = generator(seed, "queue")
    queued, entering = torch.arange(QUEUED), QUEUED
    while True:
        drawn = []
        for place in torch.randint(QUEUED, (BATCH,), generator=draws).tolist():
            drawn.append(int(queued[place]))
            queued[place] = entering % images
            entering += 1
        yield torch.tensor(drawn)


ORDERS: dict[str, Order] = {"permutation": permutation, "whole batches": whole_batches, "shuffling queue": queue}


@dataclass(frozen=True)
class Arguments:
    """The options of this trial."""

    data_root: Path | None = None
    seeds: tuple[int, ...] = (0,)
    out: Path | None = None


def main(arguments: Arguments) -> None:
    """Trains each order on true and on random labels, prints a row for each run, and writes them."""
    data = sources.load("cifar10", arguments.data_root)
    assert data.test is not None, "CIFAR-10 has test images"
    whiten = Preprocessing(28).plain
    train, test = (
        torch.cat([whiten(images, None) for images in torch.from_numpy(split.images.copy()).split(500)])
        for split in (data.train, data.test)
    )
    labels, test_labels = (torch.from_numpy(split.labels.copy()) for split in (data.train, data.test))
    made_on = provenance(torch.device("cpu"), "bf16")
    made: list[dict[str, Any]] = []
    for seed in arguments.seeds:
        for named, fitted in (("true", labels), ("random", corrupt_labels(labels, 10, 1.0, seed))):
            for name, order in ORDERS.items():
                row = {"order": name, "labels": named, "seed": seed}
                row |= trained(train, fitted, test, test_labels, order, seed)
                row |= {column: made_on[column] for column in ("hardware", "precision", "cpu_threads", "commit")}
                made.append(row | {"torch": made_on["versions"]["torch"], "fingerprint": data.fingerprint})
                print(made[-1], flush=True)
                if arguments.out is not None:
                    write(arguments.out, made)


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    """Writes the rows so far as CSV."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def trained(
    train: Tensor, labels: Tensor, test: Tensor, test_labels: Tensor, order: Order, seed: int
) -> dict[str, float | int | None]:
    """Trains one network. Returns its time to overfit, in epochs of 391 steps, and its accuracies after the last.

    Images are float32 (n, 3, 28, 28), labels int64 (n,).
    """
    network = build_model("mlp_1x512")
    initialize(network, "he", generator(seed, "init"))
    optimizer = torch.optim.SGD(network.parameters(), RATE, MOMENTUM)
    batches, overfitted = order(len(train), seed), None
    for epoch in range(1, EPOCHS + 1):
        optimizer.param_groups[0]["lr"] = RATE * DECAY ** (epoch - 1)
        right = seen = 0
        for _ in range(STEPS):
            rows = next(batches)
            with torch.autocast("cpu", torch.bfloat16):
                logits = network(train[rows])
                loss = F.cross_entropy(logits, labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            right += int((logits.argmax(dim=1) == labels[rows]).sum())
            seen += len(rows)
        if overfitted is None and right / seen >= ONLINE:
            overfitted = epoch
    return {
        "epochs_to_overfit": overfitted,
        "train_accuracy": accuracy(network, train, labels),
        "test_accuracy": accuracy(network, test, test_labels),
    }


@torch.no_grad()
def accuracy(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Returns the share of images, float32 (n, 3, 28, 28), that get their label, int64 (n,)."""
    with torch.autocast("cpu", torch.bfloat16):
        return float((network(images).argmax(dim=1) == labels).double().mean())


if __name__ == "__main__":
    main(tyro.cli(Arguments))
