"""What the randomization operators draw (Section 2.1), and a split of the data with what was drawn for it.

Every draw comes from `randomization_seed` on the CPU, so it depends neither on the order of batches nor on the device.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from rethinking.data import cache, mapped
from rethinking.seeding import generator

CHUNK = 1024  # images at a time, which bounds the memory of the temporaries

Empty = Callable[[Sequence[int], torch.dtype], Tensor]  # makes a tensor to be filled


@dataclass(frozen=True)
class RandomizedSplit:
    """One split after randomization.

    images: uint8 (n, channels, height, width), or float32 on the same 0-255 scale for Gaussian noise
    labels, true_labels: int64 (n,)
    permutation: int32 (positions,) for all images or (n, positions) for each its own, over the positions of the
        cropped image in row-major order, applied last; None where pixels stay in place
    redrawn: whether the images are an operator's own
    rows: int64 (n,), places in `images` of the images that are meant; None for all, in order. An operator sees None
    on_disk: whether the images stay in mapped files, since memory does not hold them: what is as large as they are is
        then made by `empty`
    """

    images: Tensor
    labels: Tensor
    true_labels: Tensor
    permutation: Tensor | None = None
    redrawn: bool = False
    rows: Tensor | None = None
    on_disk: bool = False

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def shape(self) -> torch.Size:
        """Number of images, channels, height, width."""
        return torch.Size((len(self), *self.images.shape[1:]))

    def places(self, rows: Tensor) -> Tensor:
        """Where in `images` the images at `rows` are, both int64."""
        return rows if self.rows is None else self.rows[rows]

    def chunks(self, size: int = CHUNK) -> Iterator[tuple[slice, Tensor]]:
        """All images in order, `size` at a time, and which these are."""
        for start in range(0, len(self), size):
            part = slice(start, start + size)
            yield part, self.images[part if self.rows is None else self.rows[part]]

    def empty(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """A tensor to be filled. Where the images stay on disk so does it; raises `RunError` for a full one."""
        return mapped.empty(shape, dtype, cache.folder()) if self.on_disk else in_memory(shape, dtype)

    def copied(self, dtype: torch.dtype | None = None) -> RandomizedSplit:
        """With images of its own, which can be written to; those in the cache are not to be."""
        images = self.empty(self.shape, dtype or self.images.dtype)
        for part, chunk in self.chunks():
            images[part] = chunk
        return replace(self, images=images, rows=None)

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
            for part in self.permutation.split(CHUNK):
                digest.update(part.contiguous().numpy().data)
        if self.redrawn or self.images.is_floating_point():
            for _, chunk in self.chunks():
                digest.update(chunk.contiguous().numpy().data)
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


def in_memory(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    return torch.empty(tuple(shape), dtype=dtype)


def random_pixels(images: int, positions: int, seed: int, split: str, empty: Empty = in_memory) -> Tensor:
    """A permutation of positions for each image: int32 (images, positions)."""
    draws = generator(seed, "pixels", "random", split)
    permutation = empty((images, positions), torch.int32)
    for rows in permutation.split(CHUNK):
        rows.copy_(torch.rand(len(rows), positions, generator=draws, dtype=torch.float64).argsort(dim=1))
    return permutation


def gaussian_pixels(
    shape: torch.Size, mean: float, std: float, seed: int, split: str, empty: Empty = in_memory
) -> Tensor:
    """Noise in place of images, every value from N(mean, std^2) on the 0-255 scale, unclipped: float32 `shape`."""
    draws = generator(seed, "pixels", "gaussian", split)
    return empty(shape, torch.float32).normal_(mean, std, generator=draws)


def pixel_moments(chunks: Iterable[Tensor]) -> tuple[float, float]:
    """Mean and standard deviation over all values of uint8 images, some at a time, on the 0-255 scale."""
    counts = torch.zeros(256, dtype=torch.float64)
    for chunk in chunks:
        counts += torch.bincount(chunk.flatten(), minlength=256)
    values = torch.arange(256, dtype=torch.float64)
    mean = (counts * values).sum() / counts.sum()
    variance = (counts * (values - mean).square()).sum() / counts.sum()
    return mean.item(), variance.sqrt().item()
