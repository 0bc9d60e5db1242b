"""Batches from memory on the device: indices in, tensors out, nothing per image and no worker processes."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from rethinking.data.draws import RandomizedSplit
from rethinking.data.preprocessing import AugmentationDraws, Preprocessing, sides
from rethinking.seeding import generator

CHUNK = 256  # images prepared at a time: the temporaries then stay in the processor's caches


class Batch(NamedTuple):
    """What several runs see in one step, a row a run.

    rows, labels: int64 (runs, batch)
    images: (runs, batch, channels, crop, crop), or (1, ...) where every run sees the same
    """

    rows: Tensor
    images: Tensor
    labels: Tensor


class Batches:
    """One split, resident on the device: its labels and true labels, int64 (n,), and its images.

    Without augmentation the pipeline runs once, here, and a batch only gathers rows of the result. With it the uint8
    images stay resident and every batch is cropped, turned, whitened and permuted as it is asked for.

    `dtype` is that of the images handed out: bfloat16 where autocast would round them to it anyway, in the first
    layer, spares it that and halves what is gathered.
    """

    def __init__(
        self,
        split: RandomizedSplit,
        preprocessing: Preprocessing,
        device: torch.device,
        channels_last: bool,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self._preprocessing = preprocessing
        self._device = device
        self._channels_last = channels_last
        self._layout = torch.channels_last if channels_last else torch.contiguous_format
        self._dtype = dtype
        self.labels = split.labels.to(device)
        self.true_labels = split.true_labels.to(device)
        self._permutation = None
        if preprocessing.augments:
            self._images = split.images.to(device)
            self._permutation = None if split.permutation is None else split.permutation.to(device)
        else:
            self._images = self._prepare(split)

    def __len__(self) -> int:
        return len(self.labels)

    def relabelled(self, split: RandomizedSplit) -> Batches:
        """The labels of `split` to these images, which lie in memory once for both."""
        other = copy.copy(self)
        other.labels, other.true_labels = split.labels.to(self._device), split.true_labels.to(self._device)
        return other

    def shows_images_of(self, other: Batches) -> bool:
        """Whether both take their images from the same memory."""
        return self._images is other._images

    def _prepare(self, split: RandomizedSplit) -> Tensor:
        """The whole split through the pipeline, a chunk at a time, stored so that a row is one run of memory."""
        shape = (len(split), split.images.shape[1], *sides(self._preprocessing.crop_size))
        prepared = torch.empty(shape, dtype=self._dtype, device=self._device, memory_format=self._layout)
        for start in range(0, len(split), CHUNK):
            rows = slice(start, start + CHUNK)
            permutation = permutation_of(rows, split.permutation)
            permutation = None if permutation is None else permutation.to(self._device)
            prepared[rows] = self._preprocessing.plain(split.images[rows].to(self._device), permutation)
        return prepared.permute(0, 2, 3, 1) if self._channels_last else prepared

    def images(self, rows: Tensor, draws: AugmentationDraws | None = None) -> Tensor:
        """Images of these rows, (len(rows), channels, crop, crop) of `dtype`; augmented where `draws` are given."""
        if not self._preprocessing.augments:
            gathered = self._images.index_select(0, rows)
            return gathered.permute(0, 3, 1, 2) if self._channels_last else gathered
        permutation = permutation_of(rows, self._permutation)
        raw = self._images.index_select(0, rows)
        if draws is None:
            images = self._preprocessing.plain(raw, permutation)
        else:
            images = self._preprocessing.augmented(raw, draws[rows], permutation)
        return images.to(self._dtype, memory_format=self._layout)

    def training_epoch(self, seed: int, epoch: int, batch_size: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """(rows, images, labels) of every batch of `epoch`, in its own order, the last partial batch kept."""
        order = torch.randperm(len(self), generator=generator(seed, "order", epoch)).to(self._device)
        augments = self._preprocessing.augments
        draws = AugmentationDraws.of_epoch(len(self), seed, epoch, self._device) if augments else None
        for rows in order.split(batch_size):
            yield rows, self.images(rows, draws), self.labels.index_select(0, rows)

    def in_order(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """(images, labels) of every batch in the stored order, without augmentation."""
        for rows in torch.arange(len(self), device=self._device).split(batch_size):
            yield self.images(rows), self.labels[rows]


def lockstep(
    splits: Sequence[Batches], seeds: Sequence[int], epochs: Sequence[int], batch_size: int
) -> Iterator[Batch]:
    """The training batches of several runs, step by step, each in the order of its own seed and epoch.

    The splits have the same number of images.
    """
    first = splits[0]
    alike = len({*zip(seeds, epochs, strict=True)}) == 1 and all(split.shows_images_of(first) for split in splits)
    if alike:
        labels = torch.stack([split.labels for split in splits])
        for rows, images, _ in first.training_epoch(seeds[0], epochs[0], batch_size):
            yield Batch(rows.expand(len(splits), -1), images[None], labels.index_select(1, rows))
    else:
        asked = zip(splits, seeds, epochs, strict=True)
        each = [split.training_epoch(seed, epoch, batch_size) for split, seed, epoch in asked]
        for batches in zip(*each, strict=True):
            yield Batch(*(torch.stack(part) for part in zip(*batches, strict=True)))


def permutation_of(rows: Tensor | slice, permutation: Tensor | None) -> Tensor | None:
    """What permutes these images' pixels: their own rows where each image has its own, else what all share."""
    if permutation is None or permutation.dim() == 1:
        return permutation
    return permutation[rows]
