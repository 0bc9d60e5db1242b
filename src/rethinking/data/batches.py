"""Batches of one split: row indices go in, tensors come out. No step works image by image or in worker processes.

`Batches` keeps the images in the device's memory. `StreamedBatches` reads them from the disk, a few batches ahead.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from rethinking.data.draws import RandomizedSplit
from rethinking.data.preprocessing import AugmentationDraws, Preprocessing, sides
from rethinking.seeding import generator

CHUNK = 256  # images that are prepared at once: the temporaries then stay in the processor's caches
AHEAD = 3  # batches that are read before a step needs them

Part = TypeVar("Part")


class Batch(NamedTuple):
    """One step's data of several runs, one row per run.

    rows, labels: int64 (runs, batch)
    images: (runs, batch, channels, crop, crop), or (1, ...) if all runs see the same images
    """

    rows: Tensor
    images: Tensor
    labels: Tensor


class Batches:
    """One split in the device's memory: its images, its labels and its true labels, both int64 (n,).

    Without augmentation the constructor runs the preprocessing once, and a batch only gathers rows of the result. With
    augmentation the uint8 images stay in memory, and each batch is cropped, rotated, whitened and permuted when it is
    made.

    dtype: type of the images in a batch. Under autocast the first layer rounds them to bfloat16 anyway. Images in
        bfloat16 skip that rounding, and a batch gathers half as many bytes
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
        self._permutation: Tensor | None = None
        self._images = self._resident(split)

    def __len__(self) -> int:
        return len(self.labels)

    def relabelled(self, split: RandomizedSplit) -> Batches:
        """Returns the same images with the labels of `split`. Both share one copy of the images in memory."""
        other = copy.copy(self)
        other.labels, other.true_labels = split.labels.to(self._device), split.true_labels.to(self._device)
        return other

    def shows_images_of(self, other: Batches) -> bool:
        """Whether both take their images from the same memory."""
        return self._images is other._images

    def _resident(self, split: RandomizedSplit) -> Tensor:
        """Returns the images to keep in memory: bytes if batches are augmented, else preprocessed images.

        Preprocessing runs chunk by chunk. Each row of the result is contiguous in memory.
        """
        if self._preprocessing.augments:
            self._permutation = None if split.permutation is None else split.permutation.to(self._device)
            return (split.images if split.rows is None else split.images[split.rows]).to(self._device)
        prepared = self._empty(split.shape)
        for rows, raw in split.chunks(CHUNK):
            permutation = permutation_of(rows, split.permutation)
            permutation = None if permutation is None else permutation.to(self._device)
            prepared[rows] = self._preprocessing.plain(raw.to(self._device), permutation)
        return prepared.permute(0, 2, 3, 1) if self._channels_last else prepared

    def _empty(self, shape: Sequence[int]) -> Tensor:
        """Returns an uninitialized tensor for preprocessed images; `shape` is that of the images before the crop."""
        cropped = (*shape[:2], *sides(self._preprocessing.crop_size))
        return torch.empty(cropped, dtype=self._dtype, device=self._device, memory_format=self._layout)

    def images(self, rows: Tensor, draws: AugmentationDraws | None = None) -> Tensor:
        """Returns the images at `rows`: `dtype` (len(rows), channels, crop, crop); augmented if `draws` are given."""
        if not self._preprocessing.augments:
            gathered = self._images.index_select(0, rows)
            return gathered.permute(0, 3, 1, 2) if self._channels_last else gathered
        permutation = permutation_of(rows, self._permutation)
        return self._preprocessed(
            self._images.index_select(0, rows), permutation, None if draws is None else draws[rows]
        )

    def _preprocessed(self, raw: Tensor, permutation: Tensor | None, draws: AugmentationDraws | None) -> Tensor:
        """Preprocesses a batch of bytes that is on the device."""
        if draws is None:
            images = self._preprocessing.plain(raw, permutation)
        else:
            images = self._preprocessing.augmented(raw, draws, permutation)
        return images.to(self._dtype, memory_format=self._layout)

    def training_epoch(
        self, seed: int, epoch: int, batch_size: int
    ) -> Generator[tuple[Tensor, Tensor, Tensor], None, None]:
        """Yields (rows, images, labels) of every batch of `epoch`, in the epoch's own order.

        A partial last batch is kept.
        """
        order = torch.randperm(len(self), generator=generator(seed, "order", epoch))
        augments = self._preprocessing.augments
        draws = AugmentationDraws.of_epoch(len(self), seed, epoch, self._device) if augments else None
        with closing(self._batches(order, batch_size, draws)) as batches:
            for rows, images in batches:
                yield rows, images, self.labels.index_select(0, rows)

    def in_order(self, batch_size: int) -> Generator[tuple[Tensor, Tensor], None, None]:
        """Yields (images, labels) of every batch in the stored order, without augmentation."""
        with closing(self._batches(torch.arange(len(self)), batch_size)) as batches:
            for rows, images in batches:
                yield images, self.labels[rows]

    def _batches(
        self, order: Tensor, batch_size: int, draws: AugmentationDraws | None = None
    ) -> Generator[tuple[Tensor, Tensor], None, None]:
        """Yields (rows, images) of every batch of `order`, on the device. `order` itself is on the CPU."""
        for rows in order.to(self._device).split(batch_size):
            yield rows, self.images(rows, draws)


class StreamedBatches(Batches):
    """One split whose images stay on disk, in a memory-mapped file.

    A thread reads the next batches while the device works.

    The thread only gathers bytes, with NumPy, which starts no further threads for it. The training thread preprocesses
    the batch on the device. So preprocessing has as many threads, or the same CUDA stream, as for images in memory.

    On a CPU the batches equal those of `Batches` bit for bit. On CUDA, without augmentation, a sum over an image may
    differ in its last bit.

    On CUDA the bytes are copied from pinned memory without waiting, on the stream of the training steps. So a step
    always sees its whole batch, and PyTorch reuses pinned memory only after the copy.
    """

    def _resident(self, split: RandomizedSplit) -> Tensor:
        """Returns the mapped images as they are; a permutation that all images share goes to the device."""
        self._split = split
        if split.permutation is not None and split.permutation.dim() == 1:
            self._permutation = split.permutation.to(self._device)
        return split.images

    def images(self, rows: Tensor, draws: AugmentationDraws | None = None) -> Tensor:
        """Reads and returns the images at `rows`; see `Batches.images`."""
        return self._sent(self._read(rows.cpu()), rows, draws)

    def _batches(
        self, order: Tensor, batch_size: int, draws: AugmentationDraws | None = None
    ) -> Generator[tuple[Tensor, Tensor], None, None]:
        parts = order.split(batch_size)
        unfinished: deque[torch.cuda.Event] = deque()
        with closing(read_ahead(self._read, parts)) as read:
            for rows, raw in zip(order.to(self._device).split(batch_size), read, strict=True):
                yield rows, self._sent(raw, rows, draws)
                if self._device.type == "cuda":  # at most `AHEAD` steps are queued, which bounds the pinned memory
                    unfinished.append(torch.cuda.current_stream(self._device).record_event())
                    if len(unfinished) > AHEAD:
                        unfinished.popleft().synchronize()

    def _read(self, rows: Tensor) -> tuple[Tensor, Tensor | None]:
        """Returns the bytes of the images at `rows`, in memory.

        If each image has its own permutation, also returns these.
        """
        own = self._split.permutation if self._permutation is None else None
        raw = self._gathered(self._images, self._split.places(rows))
        return raw, None if own is None else self._gathered(own, rows)

    def _gathered(self, mapped: Tensor, rows: Tensor) -> Tensor:
        gathered = torch.from_numpy(mapped.numpy()[rows.numpy()])
        return gathered.pin_memory() if self._device.type == "cuda" else gathered

    def _sent(self, read: tuple[Tensor, Tensor | None], rows: Tensor, draws: AugmentationDraws | None) -> Tensor:
        """Copies what `_read` returned to the device, and returns the preprocessed batch."""
        pinned = self._device.type == "cuda"
        raw, own = read
        raw = raw.to(self._device, non_blocking=pinned)
        permutation = self._permutation if own is None else own.to(self._device, non_blocking=pinned)
        if self._preprocessing.augments:
            return self._preprocessed(raw, permutation, None if draws is None else draws[rows])
        return self._empty(raw.shape).copy_(self._preprocessing.plain(raw, permutation))


def read_ahead(read: Callable[[Tensor], Part], parts: Sequence[Tensor]) -> Generator[Part, None, None]:
    """Yields `read(part)` for each of `parts`, in order. A thread calls `read` up to `AHEAD` parts ahead.

    An error in the thread is raised here, when its part is due. The thread ends with this generator, so close it.
    """
    reader = ThreadPoolExecutor(1, "read-ahead")
    ahead: deque[Future[Part]] = deque()
    try:
        for part in parts:
            ahead.append(reader.submit(read, part))
            if len(ahead) > AHEAD:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    finally:
        reader.shutdown(cancel_futures=True)


def lockstep(
    splits: Sequence[Batches], seeds: Sequence[int], epochs: Sequence[int], batch_size: int
) -> Generator[Batch, None, None]:
    """Yields the training batches of several runs, step by step. Each run has the order of its own seed and epoch.

    All splits must have the same number of images.
    """
    first = splits[0]
    alike = len({*zip(seeds, epochs, strict=True)}) == 1 and all(split.shows_images_of(first) for split in splits)
    if alike:
        labels = torch.stack([split.labels for split in splits])
        with closing(first.training_epoch(seeds[0], epochs[0], batch_size)) as batches_of_all:
            for rows, images, _ in batches_of_all:
                yield Batch(rows.expand(len(splits), -1), images[None], labels.index_select(1, rows))
    else:
        with ExitStack() as stack:
            runs = [
                stack.enter_context(closing(split.training_epoch(seed, epoch, batch_size)))
                for split, seed, epoch in zip(splits, seeds, epochs, strict=True)
            ]
            for batches in zip(*runs, strict=True):
                yield Batch(*(torch.stack(part) for part in zip(*batches, strict=True)))


def permutation_of(rows: Tensor | slice, permutation: Tensor | None) -> Tensor | None:
    """Returns the permutation of the pixels at `rows`: their rows if each image has its own, else the shared one."""
    if permutation is None or permutation.dim() == 1:
        return permutation
    return permutation[rows]
