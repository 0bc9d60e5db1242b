"""Batches of one split: indices in, tensors out, nothing per image and no worker processes.

`Batches` has the images in the device's memory. `StreamedBatches` reads them from the disk, a few batches ahead.
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

CHUNK = 256  # images prepared at a time: the temporaries then stay in the processor's caches
AHEAD = 3  # batches that are read before they are needed

Made = TypeVar("Made")


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
        self._permutation: Tensor | None = None
        self._images = self._kept(split)

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

    def _kept(self, split: RandomizedSplit) -> Tensor:
        """What stays in memory: bytes where they are augmented later, else what the pipeline makes of them.

        That goes a chunk at a time, and is stored so that a row is one run of memory.
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
        """For the pipeline's results on so many images."""
        cropped = (*shape[:2], *sides(self._preprocessing.crop_size))
        return torch.empty(cropped, dtype=self._dtype, device=self._device, memory_format=self._layout)

    def images(self, rows: Tensor, draws: AugmentationDraws | None = None) -> Tensor:
        """Images of these rows, (len(rows), channels, crop, crop) of `dtype`; augmented where `draws` are given."""
        if not self._preprocessing.augments:
            gathered = self._images.index_select(0, rows)
            return gathered.permute(0, 3, 1, 2) if self._channels_last else gathered
        permutation = permutation_of(rows, self._permutation)
        return self._shown(self._images.index_select(0, rows), permutation, None if draws is None else draws[rows])

    def _shown(self, raw: Tensor, permutation: Tensor | None, draws: AugmentationDraws | None) -> Tensor:
        """What the pipeline makes of a batch of bytes on the device."""
        if draws is None:
            images = self._preprocessing.plain(raw, permutation)
        else:
            images = self._preprocessing.augmented(raw, draws, permutation)
        return images.to(self._dtype, memory_format=self._layout)

    def training_epoch(
        self, seed: int, epoch: int, batch_size: int
    ) -> Generator[tuple[Tensor, Tensor, Tensor], None, None]:
        """(rows, images, labels) of every batch of `epoch`, in its own order, the last partial batch kept."""
        order = torch.randperm(len(self), generator=generator(seed, "order", epoch))
        augments = self._preprocessing.augments
        draws = AugmentationDraws.of_epoch(len(self), seed, epoch, self._device) if augments else None
        with closing(self._batches(order, batch_size, draws)) as batches:
            for rows, images in batches:
                yield rows, images, self.labels.index_select(0, rows)

    def in_order(self, batch_size: int) -> Generator[tuple[Tensor, Tensor], None, None]:
        """(images, labels) of every batch in the stored order, without augmentation."""
        with closing(self._batches(torch.arange(len(self)), batch_size)) as batches:
            for rows, images in batches:
                yield images, self.labels[rows]

    def _batches(
        self, order: Tensor, batch_size: int, draws: AugmentationDraws | None = None
    ) -> Generator[tuple[Tensor, Tensor], None, None]:
        """Rows on the device, and images, of every batch of `order`, which is on the CPU."""
        for rows in order.to(self._device).split(batch_size):
            yield rows, self.images(rows, draws)


class StreamedBatches(Batches):
    """One split whose images stay on disk, in a mapped file: a thread reads the next batches while the device works.

    The thread gathers bytes and does nothing else, in NumPy, which takes no further threads for it. The pipeline runs
    on the batch, on the device, in the thread that trains: with as many threads, or on the same stream, as for images
    in memory. Batches are those of `Batches`, on a CPU bit for bit; of a sum over an image, CUDA may round the last bit
    otherwise where nothing is augmented.

    Bytes go to CUDA from pinned memory without waiting, on the stream of the steps, so that a step never sees less
    than all of its batch. PyTorch gives pinned memory away again only when what was copied from it is copied.
    """

    def _kept(self, split: RandomizedSplit) -> Tensor:
        self._split = split
        if split.permutation is not None and split.permutation.dim() == 1:
            self._permutation = split.permutation.to(self._device)
        return split.images

    def images(self, rows: Tensor, draws: AugmentationDraws | None = None) -> Tensor:
        return self._sent(self._read(rows.cpu()), rows, draws)

    def _batches(
        self, order: Tensor, batch_size: int, draws: AugmentationDraws | None = None
    ) -> Generator[tuple[Tensor, Tensor], None, None]:
        parts = order.split(batch_size)
        sent: deque[torch.cuda.Event] = deque()
        with closing(read_ahead(self._read, parts)) as read:
            for rows, raw in zip(order.to(self._device).split(batch_size), read, strict=True):
                yield rows, self._sent(raw, rows, draws)
                if self._device.type == "cuda":  # which is not to fall behind by more batches than memory is pinned for
                    sent.append(torch.cuda.current_stream(self._device).record_event())
                    if len(sent) > AHEAD:
                        sent.popleft().synchronize()

    def _read(self, rows: Tensor) -> tuple[Tensor, Tensor | None]:
        """The bytes of these images, in memory, and the permutation of each where each has its own."""
        own = self._split.permutation if self._permutation is None else None
        raw = self._gathered(self._images, self._split.places(rows))
        return raw, None if own is None else self._gathered(own, rows)

    def _gathered(self, mapped: Tensor, rows: Tensor) -> Tensor:
        gathered = torch.from_numpy(mapped.numpy()[rows.numpy()])
        return gathered.pin_memory() if self._device.type == "cuda" else gathered

    def _sent(self, read: tuple[Tensor, Tensor | None], rows: Tensor, draws: AugmentationDraws | None) -> Tensor:
        """The batch on the device, of what `_read` read of it."""
        pinned = self._device.type == "cuda"
        raw, own = read
        raw = raw.to(self._device, non_blocking=pinned)
        permutation = self._permutation if own is None else own.to(self._device, non_blocking=pinned)
        if self._preprocessing.augments:
            return self._shown(raw, permutation, None if draws is None else draws[rows])
        return self._empty(raw.shape).copy_(self._preprocessing.plain(raw, permutation))


def read_ahead(read: Callable[[Tensor], Made], parts: Sequence[Tensor]) -> Generator[Made, None, None]:
    """What `read` makes of each of `parts`, in their order, made by a thread up to `AHEAD` parts before it is needed.

    An error in the thread is raised here, where its part is due. The thread ends with this generator, which is to be
    closed.
    """
    reader = ThreadPoolExecutor(1, "read-ahead")
    ahead: deque[Future[Made]] = deque()
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
    """The training batches of several runs, step by step, each in the order of its own seed and epoch.

    The splits have the same number of images.
    """
    first = splits[0]
    alike = len({*zip(seeds, epochs, strict=True)}) == 1 and all(split.shows_images_of(first) for split in splits)
    if alike:
        labels = torch.stack([split.labels for split in splits])
        with closing(first.training_epoch(seeds[0], epochs[0], batch_size)) as batches_of_all:
            for rows, images, _ in batches_of_all:
                yield Batch(rows.expand(len(splits), -1), images[None], labels.index_select(1, rows))
    else:
        asked = zip(splits, seeds, epochs, strict=True)
        with ExitStack() as held:
            each = [
                held.enter_context(closing(split.training_epoch(seed, epoch, batch_size)))
                for split, seed, epoch in asked
            ]
            for batches in zip(*each, strict=True):
                yield Batch(*(torch.stack(part) for part in zip(*batches, strict=True)))


def permutation_of(rows: Tensor | slice, permutation: Tensor | None) -> Tensor | None:
    """What permutes these images' pixels: their own rows where each image has its own, else what all share."""
    if permutation is None or permutation.dim() == 1:
        return permutation
    return permutation[rows]
