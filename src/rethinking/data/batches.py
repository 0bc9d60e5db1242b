"""Batches from memory on the device: indices in, tensors out, nothing per image and no worker processes."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from rethinking.data.preprocessing import AugmentationDraws, Preprocessing
from rethinking.data.randomization import RandomizedSplit
from rethinking.seeding import generator

CHUNK = 256  # images prepared at a time: the temporaries then stay in the processor's caches


class Batches:
    """One split, resident on the device: its labels and true labels, int64 (n,), and its images.

    Without augmentation the pipeline runs once, here, and a batch only gathers rows of the result. With it the uint8
    images stay resident and every batch is cropped, turned, whitened and permuted as it is asked for.
    """

    def __init__(
        self, split: RandomizedSplit, preprocessing: Preprocessing, device: torch.device, channels_last: bool
    ) -> None:
        self._preprocessing = preprocessing
        self._device = device
        self._channels_last = channels_last
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

    def _prepare(self, split: RandomizedSplit) -> Tensor:
        """The whole split through the pipeline, a chunk at a time, stored so that a row is one run of memory."""
        size = self._preprocessing.crop_size
        shape = (len(split), split.images.shape[1], size, size)
        layout = torch.channels_last if self._channels_last else torch.contiguous_format
        prepared = torch.empty(shape, device=self._device, memory_format=layout)
        for start in range(0, len(split), CHUNK):
            rows = slice(start, start + CHUNK)
            permutation = split.permutation
            if permutation is not None:
                permutation = (permutation[rows] if permutation.dim() == 2 else permutation).to(self._device)
            prepared[rows] = self._preprocessing.plain(split.images[rows].to(self._device), permutation)
        return prepared.permute(0, 2, 3, 1) if self._channels_last else prepared

    def images(self, rows: Tensor, draws: AugmentationDraws | None = None) -> Tensor:
        """Images of these rows, float32 (len(rows), channels, crop, crop); augmented where `draws` are given."""
        if not self._preprocessing.augments:
            gathered = self._images.index_select(0, rows)
            return gathered.permute(0, 3, 1, 2) if self._channels_last else gathered
        permutation = self._permutation
        if permutation is not None and permutation.dim() == 2:
            permutation = permutation[rows]
        raw = self._images.index_select(0, rows)
        if draws is None:
            images = self._preprocessing.plain(raw, permutation)
        else:
            images = self._preprocessing.augmented(raw, draws[rows], permutation)
        return images.contiguous(memory_format=torch.channels_last) if self._channels_last else images

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
