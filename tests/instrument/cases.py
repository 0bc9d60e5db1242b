"""Small images and networks for which the right verdict of a randomization test is known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rethinking.instrument.report import Report
from rethinking.instrument.run import randomization_test

CLASSES = 4
Pair = tuple[np.ndarray, np.ndarray]


def pictures(number: int, side: int = 8, seed: int = 0) -> Pair:
    """Returns noise with a bright quarter that shows the class, uint8 (number, side, side), and int64 labels."""
    random = np.random.default_rng(seed)
    labels = np.arange(number) % CLASSES
    images = random.integers(0, 128, (number, side, side), dtype=np.uint8)
    half = side // 2
    for image, label in zip(images, labels, strict=True):
        row, column = divmod(int(label), 2)
        image[row * half : (row + 1) * half, column * half : (column + 1) * half] += 96
    return images, labels


def linear(num_classes: int, input_shape: Sequence[int]) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(int(np.prod(input_shape)), num_classes))


def wide(num_classes: int, input_shape: Sequence[int], width: int = 128, dropout: float = 0.0) -> nn.Module:
    """Builds a network of two layers, which fits any labels of few images."""
    layers: list[nn.Module] = [nn.Flatten(), nn.Linear(int(np.prod(input_shape)), width), nn.ReLU()]
    layers += [nn.Dropout(dropout)] if dropout else []
    return nn.Sequential(*layers, nn.Linear(width, num_classes))


def with_dropout(num_classes: int, input_shape: Sequence[int]) -> nn.Module:
    """Builds `wide` with dropout that is no parameter of this function."""
    return wide(num_classes, input_shape, dropout=0.9)


class Constant(nn.Module):
    """Trainable logits that do not depend on the image."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(num_classes))

    def forward(self, images: Tensor) -> Tensor:
        return self.logits.expand(len(images), -1)


def constant(num_classes: int) -> nn.Module:
    return Constant(num_classes)


def report_of(folder: Any, network: Any, images: Pair, test: Pair | None = None, **options: Any) -> Report:
    """Runs a test with its runs in `folder`, and returns its report; by default runs end when they fit."""
    fixed: dict[str, Any] = {"budget": "none", "runs_dir": str(folder), "use_tensorboard": False, "device": "cpu"}
    fixed |= {"precision": "fp32", "batch_size": 32, "lr": "0.1"}
    return randomization_test(network, images, test, **fixed | options)


def causes_of(report: Report, words: str = "random labels") -> list[str]:
    return [finding.sentence for finding in report.findings if finding.about == f"{words}: cause"]


def commands_of(report: Report, words: str = "random labels") -> list[str]:
    return [finding.command for finding in report.findings if finding.about == f"{words}: cause"]
