"""Section 5's random convolutional features: the network of Coates & Ng 2012, with filters drawn from the data.

Patches of 6x6 pixels are normalized for contrast and whitened (ZCA). A filter is a random whitened patch of the
training images, scaled to length 1; Coates & Ng learned their filters by k-means. A filter's responses z at all places
of an image pass a two-sided soft threshold, max(0, z - 0.25) and max(0, -z - 0.25). They are summed over the four
quadrants, which gives eight features for each filter. Each feature gets mean 0 and standard deviation 1 over the
training images. A constant feature is added, because features of mean 0 alone cannot fit labels with another mean.

Sources of the constants: patch size, whitening and pooling are from Coates & Ng 2012 ("Learning feature
representations with k-means", sections 2 to 4). They add 10 to the variance of pixels from 0 to 255, and 0.1 to the
eigenvalues. The two-sided threshold 0.25 is from Coates & Ng 2011 ("The importance of encoding versus training with
sparse coding and vector quantization"), who chose it on held-out data.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from rethinking.errors import ImpossibleError, InputError
from rethinking.linear import linear
from rethinking.seeding import generator
from rethinking.theory.blocks import Blocks, nbytes, spans, triangle

PATCH = 6  # pixels a side
CONTRAST = 10.0 / 255**2  # added to a patch's variance, for pixels from 0 to 1
WHITENING = 0.1  # added to the eigenvalues of the patches' covariance
THRESHOLD = 0.25
BIAS = 0.1  # square of the constant feature; the squares of the others add up to 1 on average
WHITENING_PATCHES = 100_000
CHUNK = 500  # filters whose features are in memory at a time
COLUMNS = 4096  # columns of a block row whose products are added at a time
KEEP_EVERY = 600.0  # seconds of work between two writes of the sums
FEATURES = 8  # of a filter: two sides in four quadrants
IMAGES = 2  # images at a time on a CPU, so that their responses stay in its caches
DEVICE_IMAGES = 128  # images at a time on a GPU


@dataclass(frozen=True)
class RandomFilters:
    """A bank of filters in a fixed order: filter i is the same, however many filters are used.

    images: uint8 (n, channels, height, width), from which patches are drawn
    """

    mean: Tensor  # (patch values,), of normalized patches
    whitening: Tensor  # (patch values, patch values), symmetric
    images: Tensor
    seed: int

    @classmethod
    def of(cls, images: Tensor, seed: int) -> RandomFilters:
        """The bank whose whitening is measured on patches of `images`, uint8 (n, channels, height, width)."""
        patches = normalize(_draw(images, WHITENING_PATCHES, generator(seed, "whitening patches"))).double()
        mean = patches.mean(dim=0)
        centred = patches - mean
        values, vectors = torch.linalg.eigh(centred.T @ centred / len(patches))
        whitening = (vectors * (values + WHITENING).rsqrt()) @ vectors.T
        return cls(mean.float(), whitening.float(), images, seed)

    def filters(self, first: int, end: int) -> Tensor:
        """Filters `first` to `end` - 1, float32 (end - first, patch values), each of length 1."""
        chunks = range(first // CHUNK, (end - 1) // CHUNK + 1)
        drawn = [_draw(self.images, CHUNK, generator(self.seed, "filters", chunk)) for chunk in chunks]
        whitened = (normalize(torch.cat(drawn)) - self.mean) @ self.whitening
        before = chunks[0] * CHUNK
        return F.normalize(whitened[first - before : end - before], dim=1)


def check_filters(image_shape: tuple[int, int, int], images: int, filters: int) -> None:
    """Check that `images` images have enough patches for `filters` filters.

    Raises `InputError` for more filters than patches, and `ImpossibleError` for images that are too small.
    """
    _, height, width = image_shape
    places = (height - PATCH + 1) * (width - PATCH + 1)
    if min(height, width) < PATCH + 1:
        raise ImpossibleError(
            f"images of {height}x{width} are too small for patches of {PATCH}x{PATCH} in four quadrants"
        )
    if filters > images * places:
        raise InputError(
            f"{filters:,} filters are more than the {images * places:,} patches of {images:,} images; take fewer"
        )


def normalize(patches: Tensor) -> Tensor:
    """Patches, float32 (n, values), minus their mean and divided by their standard deviation.

    `CONTRAST` is added to the variance before the root is taken.
    """
    centred = patches - patches.mean(dim=1, keepdim=True)
    variance = centred.square().sum(dim=1, keepdim=True) / (patches.shape[1] - 1)
    return centred.mul_((variance + CONTRAST).rsqrt_())


def features(images: Tensor, bank: RandomFilters, filters: Tensor, advanced: Callable[[int], None]) -> Tensor:
    """The features of images, uint8 (n, channels, height, width), before they are standardized.

    Returns float32 (n, 8 * filters). `advanced` receives the number of images in each finished batch.
    """
    device, count, channels = filters.device, len(filters), images.shape[1]
    height, width = images.shape[2] - PATCH + 1, images.shape[3] - PATCH + 1  # places of patches
    weight = (bank.whitening.to(device) @ filters.T).contiguous()
    bias = -(bank.mean.to(device) @ weight)
    quadrants = _quadrants(height, width, device)
    made = torch.empty(len(images), 2, len(quadrants), count, device=device)
    step = IMAGES if device.type == "cpu" else DEVICE_IMAGES
    all_responses, all_clamped = torch.empty(2, step, height * width, count, device=device)  # allocated once
    for start in range(0, len(images), step):
        some = images[start : start + step].to(device).float() / 255
        responses, clamped, pooled = all_responses[: len(some)], all_clamped[: len(some)], made[start : start + step]
        patches = some.unfold(2, PATCH, 1).unfold(3, PATCH, 1).permute(0, 2, 3, 1, 4, 5)
        flat = normalize(patches.reshape(-1, channels * PATCH**2))
        torch.addmm(bias, flat, weight, out=responses.view(-1, count))
        # max(0, z - t) = max(z, t) - t, and t is subtracted at the end. Pooling is a product with zeros and ones.
        pooled[:, 0] = quadrants @ torch.clamp(responses, min=THRESHOLD, out=clamped)
        pooled[:, 1] = quadrants @ responses.clamp_(max=-THRESHOLD)
        advanced(len(some))
    made[:, 1].neg_()
    return made.sub_(quadrants.sum(dim=1)[:, None] * THRESHOLD).flatten(1)


def standardize(train: Tensor, *others: Tensor) -> None:
    """Give each feature mean 0 and standard deviation 1 over `train`, in place. A constant feature becomes 0."""
    variance, mean = torch.var_mean(train, dim=0, correction=0)  # without a copy of `train`
    scale = torch.where(variance > 1e-12, variance.rsqrt(), torch.zeros_like(variance))
    for features in (train, *others):
        features.sub_(mean).mul_(scale)


def standardized_features(
    train: Tensor, test: Tensor, filters: int, seed: int, advanced: Callable[[float], None] = lambda share: None
) -> tuple[Tensor, Tensor]:
    """Standardized features with the constant feature, for uint8 training and test images.

    Each is float32 (n, 8 * filters + 1). They are divided by the root of their number, so that their products are the
    entries of `FeatureGram`.
    """
    bank = RandomFilters.of(train.cpu(), seed)
    drawn = bank.filters(0, filters).to(train.device)
    counted = _counter(len(train) + len(test), advanced)
    made = [features(images, bank, drawn, counted) for images in (train, test)]
    standardize(*made)
    scaled = [one / math.sqrt(one.shape[1]) for one in made]
    with_bias = [torch.cat([one, torch.full_like(one[:, :1], math.sqrt(BIAS))], dim=1) for one in scaled]
    return with_bias[0], with_bias[1]


def summed(folder: Path) -> int:
    """The number of filters in the sums that `folder` keeps."""
    return max((int(kept.name) for kept in folder.glob("*") if kept.name.isdecimal()), default=0)


class FeatureGram:
    """The Gram matrices of the standardized features, summed over chunks of filters.

    train, test: uint8 (n, channels, height, width)
    folder: where the sums are written every ten minutes, or after every chunk where memory does not hold them; a later
        process continues from them
    held: bytes of the sums that stay in memory
    """

    def __init__(
        self,
        train: Tensor,
        test: Tensor,
        seed: int,
        folder: Path | None = None,
        held: float = math.inf,
        device: torch.device | str = "cpu",
    ) -> None:
        self._train, self._test, self._folder, self._held = train, test, folder, held
        self._device = torch.device(device)
        self._bank: RandomFilters | None = None
        self._seed = seed
        self.size = len(train)
        self.filters = 0
        if folder is not None:
            self.filters = summed(folder)
            for other in folder.glob("*"):  # an unfinished chunk, or the sums before the last finished one
                if other.name != str(self.filters):
                    shutil.rmtree(other)
        self._shapes = triangle(self.size) + [(end - start, self.size) for start, end in spans(len(self._test))]
        self._on_disk = self.filters
        self._sums = self._blocks(self._kept(self.filters)) if self.filters else None

    def _kept(self, filters: int) -> Path | None:
        return None if self._folder is None else self._folder / str(filters)

    def _blocks(self, folder: Path | None) -> Blocks:
        return Blocks(self._shapes, folder, self._held, self._device)

    def extend(
        self,
        filters: int,
        advanced: Callable[[float], None] = lambda share: None,
        kept: Callable[[int], None] = lambda filters: None,
    ) -> None:
        """Add filters until the sums are over `filters` of them.

        `advanced` receives the finished share of the work, 0-1. `kept` receives the number of filters at each write.
        """
        assert filters >= self.filters, "sums never lose filters"
        first, last_kept, lasts = self.filters, time.monotonic(), math.inf
        all_held = nbytes(self._shapes) <= self._held
        while self.filters < filters:
            end = min(filters, (self.filters // CHUNK + 1) * CHUNK)
            share = _part(advanced, (self.filters - first) / (filters - first), (end - first) / (filters - first))
            began = time.monotonic()
            keep = end == filters or not all_held or began + lasts - last_kept >= KEEP_EVERY
            self._add(end, keep, share)
            lasts = time.monotonic() - began
            if keep:
                last_kept = time.monotonic()
                kept(end)

    def _add(self, end: int, keep: bool, advanced: Callable[[float], None]) -> None:
        self._bank = self._bank or RandomFilters.of(self._train, self._seed)
        filters = self._bank.filters(self.filters, end).to(self._device)
        counted = _counter(len(self._train) + len(self._test), _part(advanced, 0.0, 0.5))
        train = features(self._train, self._bank, filters, counted)
        test = features(self._test, self._bank, filters, counted)
        standardize(train, test)
        folder = self._kept(end) if keep else None
        sums = self._blocks(folder.with_suffix(".unfinished") if folder else None)
        products = [(train[start:stop], train[:stop]) for start, stop in spans(self.size)]
        products += [(test[start:stop], train) for start, stop in spans(len(self._test))]
        for index, (left, right) in enumerate(products):
            if self._sums is None:
                sums[index] = linear(left, right)
            else:
                so_far = self._sums[index]
                for part, others in zip(so_far.split(COLUMNS, dim=1), right.split(COLUMNS), strict=True):
                    part.add_(linear(left, others))
                sums[index] = so_far
            advanced(0.5 + 0.5 * (index + 1) / len(products))
        if folder is not None:
            sums.rename(folder)
            shutil.rmtree(folder.with_name(str(self._on_disk)), ignore_errors=True)
            self._on_disk = end
        self._sums, self.filters = sums, end

    def rows(self, index: int) -> Tensor:
        """A copy of block row `index` of K, float32, up to the last column of its diagonal block."""
        assert self._sums is not None, "extend() comes first"
        return (self._sums[index] / (FEATURES * self.filters)).add_(BIAS)

    def test_rows(self, start: int, end: int) -> Tensor:
        """A copy of K between a block of test images, one of `spans`, and all training images, float32."""
        return self.rows(len(spans(self.size)) + spans(len(self._test)).index((start, end)))


def _counter(images: int, advanced: Callable[[float], None]) -> Callable[[int], None]:
    """A function that receives numbers of images and passes on their share of all."""
    done = 0

    def counted(some: int) -> None:
        nonlocal done
        done += some
        advanced(done / images)

    return counted


def _part(advanced: Callable[[float], None], start: float, end: float) -> Callable[[float], None]:
    """A function that receives the share of one part and passes on the share of the whole work."""
    return lambda share: advanced(start + share * (end - start))


def _draw(images: Tensor, count: int, stream: torch.Generator) -> Tensor:
    """Patches from random places of random images, float32 (count, channels * PATCH * PATCH), 0-1."""
    total, channels, height, width = images.shape
    which = torch.randint(total, (count,), generator=stream)
    top = torch.randint(height - PATCH + 1, (count,), generator=stream)
    left = torch.randint(width - PATCH + 1, (count,), generator=stream)
    offsets = torch.arange(PATCH)
    rows = (top[:, None] + offsets)[:, None, :, None]
    columns = (left[:, None] + offsets)[:, None, None, :]
    chosen = images[which[:, None, None, None], torch.arange(channels)[None, :, None, None], rows, columns]
    return chosen.reshape(count, -1).float() / 255


def _quadrants(height: int, width: int, device: torch.device) -> Tensor:
    """Membership of places in the four quadrants, float32 (4, places) of 0 and 1. An odd side's middle is in both."""

    def halves(size: int) -> Tensor:
        index, half = torch.arange(size), math.ceil(size / 2)
        return torch.stack([index < half, index >= size - half])

    return torch.einsum("ap,bq->abpq", halves(height).float(), halves(width).float()).reshape(4, -1).to(device)
