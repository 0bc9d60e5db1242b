"""Measures loss and accuracy in evaluation mode, and accuracies of a training epoch's predictions."""

from __future__ import annotations

from contextlib import closing
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rethinking.data.batches import Batches
from rethinking.training.examples import Examples

BATCH_SIZE = 500  # images; large enough to be fast, small enough for the activations of the convolutional networks


class Evaluation(NamedTuple):
    """Loss and accuracy of a network on a whole split."""

    loss: float  # mean cross-entropy, nats
    accuracy: float  # 0-1
    losses: Tensor  # float32 (n,), of each image in the stored order, on the CPU
    examples: Examples | None = None  # where they are asked for


@torch.no_grad()
def evaluate(
    model: nn.Module, batches: Batches, autocast: torch.autocast, *, with_examples: bool = False
) -> Evaluation:
    """Evaluates the network on the whole split, in evaluation mode and without augmentation."""
    model.eval()
    losses, measured = [], []
    correct = torch.zeros((), device=batches.labels.device)
    with autocast, closing(batches.in_order(BATCH_SIZE)) as all_in_order:
        for images, labels in all_in_order:
            logits = model(images).float()
            losses.append(F.cross_entropy(logits, labels, reduction="none"))
            correct += (logits.argmax(dim=1) == labels).sum()
            if with_examples:
                measured.append(Examples.of(logits, labels))
    each = torch.cat(losses).cpu()
    examples = Examples(*map(torch.cat, zip(*measured, strict=True))) if measured else None
    return Evaluation(each.double().mean().item(), correct.item() / len(batches), each, examples)


@torch.no_grad()
def fits(model: nn.Module, batches: Batches, rows: Tensor, autocast: torch.autocast) -> bool:
    """Returns whether the network in evaluation mode predicts the labels of all images at `rows`, int64 (n,).

    It stops at the first batch with a wrong prediction.
    """
    model.eval()
    with autocast:
        parts = rows.split(BATCH_SIZE) if len(rows) else ()
        return all(torch.equal(model(batches.images(part)).argmax(dim=1), batches.labels[part]) for part in parts)


def fraction(true: Tensor) -> float:
    """Returns the share of true elements in a boolean tensor, 0-1."""
    return true.sum().item() / true.numel()


def label_metrics(predictions: Tensor, labels: Tensor, true_labels: Tensor) -> dict[str, float | None]:
    """Returns accuracy on corrupted labels, accuracy on untouched labels, and agreement with the true labels, all 0-1.

    `predictions`, `labels` and `true_labels` are int64 (n,). A label counts as corrupted where it differs from the true
    label. An accuracy over no images is None.
    """
    changed = labels != true_labels
    correct = predictions == labels

    def mean_over(part: Tensor) -> float | None:
        return fraction(correct[part]) if part.any() else None

    return {
        "train_accuracy_corrupted": mean_over(changed),
        "train_accuracy_untouched": mean_over(~changed),
        "true_label_agreement": fraction(predictions == true_labels),
    }
