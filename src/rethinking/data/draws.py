"""What the randomization operators draw (Section 2.1), and a split of the data with what was drawn for it.

Every draw comes from `randomization_seed` on the CPU, so it depends neither on the order of batches nor on the device.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from rethinking.seeding import generator

CHUNK = 1024  # images at a time, which bounds the memory of the temporaries


@dataclass(frozen=True)
class RandomizedSplit:
    """One split after randomization.

    images: uint8 (n, channels, height, width), or float32 on the same 0-255 scale for Gaussian noise
    labels, true_labels: int64 (n,)
    permutation: int32 (positions,) for all images or (n, positions) for each its own, over the positions of the
        cropped image in row-major order, applied last; None where pixels stay in place
    redrawn: whether the images are an operator's own
    """

    images: Tensor
    labels: Tensor
    true_labels: Tensor
    permutation: Tensor | None = None
    redrawn: bool = False

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def changed(self) -> Tensor:
        """Which labels differ from the true ones, bool (n,)."""
        return self.labels != self.true_labels

    def permuted(self, permutation: Tensor) -> RandomizedSplit:
        """The same images with their pixels permuted, last."""
        return replace(self, permutation=permutation)

    def fingerprint(self) -> str:
        """SHA-256 of what the draws made: labels, permutation, images."""
        digest = hashlib.sha256(self.labels.numpy().tobytes())
        if self.permutation is not None:
            digest.update(self.permutation.contiguous().numpy().data)
        if self.redrawn or self.images.is_floating_point():
            digest.update(self.images.numpy().data)
        return digest.hexdigest()


def subset_rows(images: int, subset: int | None) -> Tensor:
    """Places of the first `subset` of so many images in a shuffle that is the same for every seed: int64, in its order.

    Without `subset` all places, in order.
    """
    if subset is None:
        return torch.arange(images)
    return torch.randperm(images, generator=generator(0, "train_subset"))[:subset]


def corrupt_labels(labels: Tensor, num_classes: int, probability: float, seed: int, *of: str) -> Tensor:
    """Each label, independently with `probability`, replaced by a uniform draw over all classes (Section 2.1).

    The true class is among the draws, so a fraction probability * (1 - 1/num_classes) really changes. An image keeps
    its draws at every probability: raising it replaces more labels and leaves those already replaced as they were.
    `of` names labels that are not the training set's and have draws of their own.
    """
    which, value = generator(seed, "labels", "which", *of), generator(seed, "labels", "value", *of)
    chosen = torch.rand(len(labels), generator=which, dtype=torch.float64) < probability
    drawn = torch.randint(num_classes, (len(labels),), generator=value)
    return torch.where(chosen, drawn, labels)


def random_signs(count: int, seed: int) -> Tensor:
    """The signs of Equation 1 as two classes, 0 for -1 and 1 for +1, equally likely: int64 (count,)."""
    return torch.randint(2, (count,), generator=generator(seed, "labels", "sign"))


def shuffled_pixels(positions: int, seed: int) -> Tensor:
    """One permutation of positions for all images, training and test: int32 (positions,)."""
    return torch.randperm(positions, generator=generator(seed, "pixels", "shuffled")).to(torch.int32)


def random_pixels(images: int, positions: int, seed: int, split: str) -> Tensor:
    """A permutation of positions for each image: int32 (images, positions)."""
    draws = generator(seed, "pixels", "random", split)
    permutation = torch.empty(images, positions, dtype=torch.int32)
    for rows in permutation.split(CHUNK):
        rows.copy_(torch.rand(len(rows), positions, generator=draws, dtype=torch.float64).argsort(dim=1))
    return permutation


def gaussian_pixels(shape: torch.Size, mean: float, std: float, seed: int, split: str) -> Tensor:
    """Noise in place of images, every value from N(mean, std^2) on the 0-255 scale, unclipped: float32 `shape`."""
    draws = generator(seed, "pixels", "gaussian", split)
    return torch.empty(shape).normal_(mean, std, generator=draws)


def pixel_moments(images: Tensor) -> tuple[float, float]:
    """Mean and standard deviation over all values of uint8 images, on the 0-255 scale."""
    counts = torch.zeros(256, dtype=torch.float64)
    for chunk in images.split(CHUNK):
        counts += torch.bincount(chunk.flatten(), minlength=256)
    values = torch.arange(256, dtype=torch.float64)
    mean = (counts * values).sum() / counts.sum()
    variance = (counts * (values - mean).square()).sum() / counts.sum()
    return mean.item(), variance.sqrt().item()
