"""The random draws of the randomization operators (Section 2.1), and the split of the data that holds them.

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

CHUNK = 1024  # images that are processed at once, which bounds the memory of the temporaries

Empty = Callable[[Sequence[int], torch.dtype], Tensor]  # returns an uninitialized tensor


@dataclass(frozen=True)
class RandomizedSplit:
    """One split after randomization.

    images: uint8 (n, channels, height, width), or float32 on the same 0-255 scale for Gaussian noise
    labels, true_labels: int64 (n,)
    permutation: int32 (positions,) if all images share it, or (n, positions) if each image has its own. It permutes the
        positions of the cropped image, in row-major order, after all other steps. None if pixels keep their places
    redrawn: whether an operator made the images
    rows: int64 (n,), the rows of `images` that belong to the split; None for all, in order. An operator always sees
        None
    on_disk: whether the images stay in memory-mapped files, because memory cannot hold them. Then `empty` also makes
        tensors of their size in files
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
        """The number of images, channels, height and width."""
        return torch.Size((len(self), *self.images.shape[1:]))

    def places(self, rows: Tensor) -> Tensor:
        """Returns the rows of `images` that hold the images at `rows`; both int64."""
        return rows if self.rows is None else self.rows[rows]

    def chunks(self, size: int = CHUNK) -> Iterator[tuple[slice, Tensor]]:
        """Yields (slice, images) for all images in order, `size` at a time."""
        for start in range(0, len(self), size):
            part = slice(start, start + size)
            yield part, self.images[part if self.rows is None else self.rows[part]]

    def empty(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """Returns an uninitialized tensor: in a file if the images stay on disk, else in memory.

        Raises `RunError` if the disk is full.
        """
        return mapped.empty(shape, dtype, cache.folder()) if self.on_disk else in_memory(shape, dtype)

    def copied(self, dtype: torch.dtype | None = None) -> RandomizedSplit:
        """Returns the split with its own copy of the images, which may be written to.

        Images in the cache must not be.
        """
        images = self.empty(self.shape, dtype or self.images.dtype)
        for part, chunk in self.chunks():
            images[part] = chunk
        return replace(self, images=images, rows=None)

    @property
    def changed(self) -> Tensor:
        """Which labels differ from the true ones, bool (n,)."""
        return self.labels != self.true_labels

    def taken(self, rows: Tensor) -> RandomizedSplit:
        """Returns the images at `rows`, int64, in their order. They are copied unless images stay on disk."""
        permutation = self.permutation
        if permutation is not None and permutation.dim() == 2:
            permutation = permutation[rows]
        places = self.places(rows)
        part = replace(
            self, labels=self.labels[rows], true_labels=self.true_labels[rows], permutation=permutation, rows=places
        )
        return part if self.on_disk else part.copied()

    def permuted(self, permutation: Tensor) -> RandomizedSplit:
        """Returns the same images with `permutation`, which is applied after all other steps."""
        return replace(self, permutation=permutation)

    def fingerprint(self) -> str:
        """Returns the SHA-256 of what was drawn: labels, permutation and images."""
        digest = hashlib.sha256(self.labels.numpy().tobytes())
        if self.permutation is not None:
            for part in self.permutation.split(CHUNK):
                digest.update(part.contiguous().numpy().data)
        if self.redrawn or self.images.is_floating_point():
            for _, chunk in self.chunks():
                digest.update(chunk.contiguous().numpy().data)
        return digest.hexdigest()


def subset_rows(images: int, subset: int | None) -> Tensor:
    """Returns the rows of the first `subset` of `images` images in a fixed shuffle, int64.

    No seed changes them, so runs of all seeds have the same images. Without `subset` it returns all rows, in order.
    """
    if subset is None:
        return torch.arange(images)
    return torch.randperm(images, generator=generator(0, "train_subset"))[:subset]


def random_rows(images: int, count: int, seed: int) -> Tensor:
    """Returns the rows of `count` of `images` images, drawn from a seed, int64, in order."""
    return torch.randperm(images, generator=generator(seed, "subset"))[:count].sort().values


def rows_without_part(images: int, part: int, parts: int) -> Tensor:
    """Returns the rows of `images` images without one of `parts` equal parts of a fixed shuffle, int64, in order.

    part: from 1 to `parts`. The parts of an image set are disjoint, and their sizes differ by one at most
    """
    shuffle = torch.randperm(images, generator=generator(0, "parts"))
    kept = torch.ones(images, dtype=torch.bool)
    kept[shuffle[part - 1 :: parts]] = False
    return kept.nonzero()[:, 0]


def corrupt_labels(labels: Tensor, num_classes: int, probability: float, seed: int, *of: str) -> Tensor:
    """Replaces each label, independently with `probability`, by a uniform draw over all classes (Section 2.1).

    labels: int64 (n,), class indices; the result has the same shape
    of: words that give other labels than the training set's their own draws

    The draw may give the true class, so an expected fraction probability * (1 - 1/num_classes) of the labels changes.
    Each image has the same draws at every probability. So a higher probability replaces more labels, and those that a
    lower one replaces stay the same.
    """
    which, value = generator(seed, "labels", "which", *of), generator(seed, "labels", "value", *of)
    chosen = torch.rand(len(labels), generator=which, dtype=torch.float64) < probability
    drawn = torch.randint(num_classes, (len(labels),), generator=value)
    return torch.where(chosen, drawn, labels)


def draw_by_class(labels: Tensor, transition: Tensor, seed: int, *of: str) -> Tensor:
    """Draws each label anew, independently, from the row of its class in a transition matrix.

    labels: int64 (n,), class indices; the result has the same shape
    transition: float64 (classes, classes), the probability of each new class (columns) by the true one (rows)
    of: words that give other labels than the training set's their own draws

    Each image has the same draw for every matrix. So a matrix that keeps less of a class changes more of its labels,
    and those that the other matrix changes are among them.
    """
    draws = torch.rand(len(labels), generator=generator(seed, "labels", "by class", *of), dtype=torch.float64)
    others = transition.clone().fill_diagonal_(0).cumsum(dim=1)[labels]
    changed = draws < others[:, -1]
    drawn = (draws[:, None] >= others).sum(dim=1)
    return torch.where(changed, drawn, labels)


def random_signs(count: int, seed: int) -> Tensor:
    """Draws the signs of Equation 1 as two equally likely classes, 0 for -1 and 1 for +1: int64 (count,)."""
    return torch.randint(2, (count,), generator=generator(seed, "labels", "sign"))


def shuffled_pixels(positions: int, seed: int) -> Tensor:
    """Draws one permutation of positions for all training and test images (Section 2.1): int32 (positions,)."""
    return torch.randperm(positions, generator=generator(seed, "pixels", "shuffled")).to(torch.int32)


def in_memory(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Returns an uninitialized tensor in memory."""
    return torch.empty(tuple(shape), dtype=dtype)


def random_pixels(images: int, positions: int, seed: int, split: str, empty: Empty = in_memory) -> Tensor:
    """Draws a permutation of positions for each image (Section 2.1): int32 (images, positions)."""
    draws = generator(seed, "pixels", "random", split)
    permutation = empty((images, positions), torch.int32)
    for rows in permutation.split(CHUNK):
        rows.copy_(torch.rand(len(rows), positions, generator=draws, dtype=torch.float64).argsort(dim=1))
    return permutation


def gaussian_pixels(
    shape: torch.Size, mean: float, std: float, seed: int, split: str, empty: Empty = in_memory
) -> Tensor:
    """Draws noise in place of images: each value from N(mean, std^2) on the 0-255 scale, unclipped; float32 `shape`."""
    draws = generator(seed, "pixels", "gaussian", split)
    return empty(shape, torch.float32).normal_(mean, std, generator=draws)


def pixel_moments(chunks: Iterable[Tensor]) -> tuple[float, float]:
    """Returns the mean and standard deviation over all values of uint8 images, given in chunks, on the 0-255 scale."""
    counts = torch.zeros(256, dtype=torch.float64)
    for chunk in chunks:
        counts += torch.bincount(chunk.flatten(), minlength=256)
    values = torch.arange(256, dtype=torch.float64)
    mean = (counts * values).sum() / counts.sum()
    variance = (counts * (values - mean).square()).sum() / counts.sum()
    return mean.item(), variance.sqrt().item()
