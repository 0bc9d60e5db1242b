"""Section 5's random convolutional features: the network of Coates & Ng 2012, with filters drawn from the data.

Patches are normalized for contrast and whitened (ZCA). A filter is a random whitened patch of the training images,
scaled to length 1; Coates & Ng learned their filters by k-means. A filter's responses z at all places of an image pass
a two-sided soft threshold, max(0, z - t) and max(0, -z - t). They are summed over pools of neighbouring places. Each
feature gets mean 0 and standard deviation 1 over the training images. A constant feature is added, because features of
mean 0 alone cannot fit labels with another mean.

`FilterOptions` has every constant with its source.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from rethinking.config import arguments, as_text
from rethinking.errors import ImpossibleError, InputError, nearest
from rethinking.linear import linear
from rethinking.seeding import generator
from rethinking.theory.blocks import Blocks, nbytes, spans, triangle

BIAS = 0.1  # square of the constant feature; the squares of the others add up to 1 on average
WHITENING_PATCHES = 100_000
CHUNK = 500  # filters whose features are in memory at a time
COLUMNS = 4096  # columns of a block row whose products are added at a time
KEEP_EVERY = 600.0  # seconds of work between two writes of the sums
IMAGES = 2  # images at a time on a CPU, so that their responses stay in its caches
DEVICE_IMAGES = 128  # images at a time on a GPU
SMALLEST, LARGEST = 1e-6, 1e6  # of a filter option; float32 is too coarse beyond them


@dataclass(frozen=True)
class FilterOptions:
    """What the paper leaves open about its random convolutional features. Raises `InputError` for wrong values.

    patch_size: pixels a side of a filter. 6 is from Coates & Ng 2012 ("Learning feature representations with k-means")
    pool_size, pool_stride: places a side of a pool, and places from one pool to the next; the last pool ends with the
        image. Without them an image has four pools, its quadrants, as in Coates & Ng 2012. Recht et al. 2018 ("Do
        CIFAR-10 classifiers generalize to CIFAR-10?") publish code with 15 and 6, which are nine pools that overlap
    contrast: is added to the variance of a patch's pixels, from 0 to 255. 10 is from Coates & Ng 2012
    whitening: is added to the eigenvalues of the patches' covariance. 0.1 is from Coates & Ng 2012
    threshold: t above. 0.25 is from Coates & Ng 2011 ("The importance of encoding versus training with sparse coding
        and vector quantization"), who chose it on held-out data
    mirror: whether a feature is the mean over an image and its mirror image. With many filters, and pools that mirror
        onto themselves, this comes close to training on both images with an l2 term twice as large
    """

    patch_size: int = 6
    pool_size: int | None = None
    pool_stride: int | None = None
    contrast: float = 10.0
    whitening: float = 0.1
    threshold: float = 0.25
    mirror: bool = False

    def __post_init__(self) -> None:
        for spec in fields(self):
            value = getattr(self, spec.name)
            if value != spec.default and (expected := _expected(spec.name, value)):
                raise InputError(f"the filter option {spec.name} must be {expected}, not {value!r}")
            if isinstance(spec.default, float):
                object.__setattr__(self, spec.name, float(value))  # 1 and 1.0 are the same option
        if (self.pool_size is None) != (self.pool_stride is None):
            raise InputError("pool_size and pool_stride go together; give both or none")
        if self.pool_size is not None and self.pool_stride is not None and self.pool_stride > self.pool_size:
            raise InputError(
                f"pools of {self.pool_size} places would leave some out with a pool_stride of {self.pool_stride}; take"
                f" at most {self.pool_size}"
            )

    @classmethod
    def parsed(cls, text: str | None) -> FilterOptions:
        """Returns the options in a text such as "pool_size=15, pool_stride=6, mirror=True"."""
        known, values = [spec.name for spec in fields(cls)], arguments(text)
        for name in values:
            if name not in known:
                raise InputError(f"filter_options has no '{name}'{nearest(name, known)}; it has {', '.join(known)}")
        return cls(**values)

    @property
    def text(self) -> str | None:
        """The options that are not at their defaults, as `parsed` reads them; None if all are."""
        values = {spec.name: (getattr(self, spec.name), spec.default) for spec in fields(self)}
        return as_text({name: value for name, (value, default) in values.items() if value != default})

    def pools(self, places: int) -> list[tuple[int, int]]:
        """The first place and the end of each pool along a side of `places` places."""
        if self.pool_size is None or self.pool_stride is None:
            half = math.ceil(places / 2)  # an odd side's middle is in both halves
            return [(0, half), (places - half, places)]
        starts = range(0, max(1, places - self.pool_size + self.pool_stride), self.pool_stride)
        return [(start, min(start + self.pool_size, places)) for start in starts]

    def features(self, image_shape: tuple[int, ...]) -> int:
        """The number of features of one filter on images of shape (channels, height, width)."""
        _, height, width = image_shape
        return 2 * math.prod(len(self.pools(side - self.patch_size + 1)) for side in (height, width))


def _expected(name: str, value: Any) -> str | None:
    """What the filter option `name` takes, where `value` is something else."""
    if name == "mirror":
        return None if isinstance(value, bool) else "True or False"
    if name in ("patch_size", "pool_size", "pool_stride"):
        return None if type(value) is int and value >= 1 else "a whole number from 1 on"
    low = 0.0 if name == "threshold" else SMALLEST
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return None if number and low <= value <= LARGEST else f"a number from {low:g} to {LARGEST:g}"


@dataclass(frozen=True)
class RandomFilters:
    """A bank of filters in a fixed order: filter i is the same, however many filters are used.

    images: uint8 (n, channels, height, width), from which patches are drawn
    """

    mean: Tensor  # (patch values,), of normalized patches
    whitening: Tensor  # (patch values, patch values), symmetric
    images: Tensor
    seed: int
    options: FilterOptions

    @classmethod
    def of(cls, images: Tensor, seed: int, options: FilterOptions = FilterOptions()) -> RandomFilters:
        """The bank whose whitening is measured on patches of `images`, uint8 (n, channels, height, width)."""
        stream = generator(seed, "whitening patches")
        patches = normalize(_draw(images, WHITENING_PATCHES, options.patch_size, stream), options.contrast).double()
        mean = patches.mean(dim=0)
        centred = patches - mean
        values, vectors = torch.linalg.eigh(centred.T @ centred / len(patches))
        whitening = (vectors * (values + options.whitening).rsqrt()) @ vectors.T
        return cls(mean.float(), whitening.float(), images, seed, options)

    def filters(self, first: int, end: int) -> Tensor:
        """Filters `first` to `end` - 1, float32 (end - first, patch values), each of length 1."""
        chunks = range(first // CHUNK, (end - 1) // CHUNK + 1)
        size = self.options.patch_size
        drawn = [_draw(self.images, CHUNK, size, generator(self.seed, "filters", chunk)) for chunk in chunks]
        whitened = (normalize(torch.cat(drawn), self.options.contrast) - self.mean) @ self.whitening
        before = chunks[0] * CHUNK
        return F.normalize(whitened[first - before : end - before], dim=1)


def check_filters(image_shape: tuple[int, int, int], images: int, filters: int, options: FilterOptions) -> None:
    """Check that `images` images have enough patches for `filters` filters.

    Raises `InputError` for more filters than patches, and `ImpossibleError` for images that are too small.
    """
    channels, height, width = image_shape
    size, side = options.patch_size, min(height, width)
    places = (height - size + 1) * (width - size + 1)
    if size == FilterOptions.patch_size and side < size + 1:
        raise ImpossibleError(
            f"images of {height}x{width} are too small for patches of {size}x{size} in four quadrants"
        )
    most = side if options.pool_size else side - 1  # quadrants need two places a side
    if size > most:
        raise InputError(f"patch_size must be at most {most} for images of {height}x{width}, not {size}")
    if channels * size**2 < 2:
        raise InputError("a patch of one grey pixel has no contrast; take a patch_size from 2 on")
    if options.pool_size is not None and options.pool_size > side - size + 1:
        raise InputError(
            f"pools of {options.pool_size} places a side are too large: a side of these images has {side - size + 1}"
            f" places of {size}x{size} patches"
        )
    if filters > images * places:
        raise InputError(
            f"{filters:,} filters are more than the {images * places:,} patches of {images:,} images; take fewer"
        )


def normalize(patches: Tensor, contrast: float) -> Tensor:
    """Patches of pixels from 0 to 1, float32 (n, values), minus their mean and divided by their standard deviation.

    `contrast`, for pixels from 0 to 255, is added to the variance before the root is taken.
    """
    centred = patches - patches.mean(dim=1, keepdim=True)
    variance = centred.square().sum(dim=1, keepdim=True) / (patches.shape[1] - 1)
    return centred.mul_((variance + contrast / 255**2).rsqrt_())


def features(images: Tensor, bank: RandomFilters, filters: Tensor, advanced: Callable[[int], None]) -> Tensor:
    """The features of images, uint8 (n, channels, height, width), before they are standardized.

    Returns float32 (n, features of a filter * filters). `advanced` receives the number of images in each finished
    batch.
    """
    options, device, count, channels = bank.options, filters.device, len(filters), images.shape[1]
    size, threshold = options.patch_size, options.threshold
    height, width = images.shape[2] - size + 1, images.shape[3] - size + 1  # places of patches
    weight = (bank.whitening.to(device) @ filters.T).contiguous()
    bias = -(bank.mean.to(device) @ weight)
    pools = _pools(options, height, width, device)
    made = torch.empty(len(images), 2, len(pools), count, device=device)
    step = IMAGES if device.type == "cpu" else DEVICE_IMAGES
    all_responses, all_clamped = torch.empty(2, step, height * width, count, device=device)  # allocated once

    def pool(some: Tensor, pooled: Tensor) -> None:
        responses, clamped = all_responses[: len(some)], all_clamped[: len(some)]
        patches = some.unfold(2, size, 1).unfold(3, size, 1).permute(0, 2, 3, 1, 4, 5)
        flat = normalize(patches.reshape(-1, channels * size**2), options.contrast)
        torch.addmm(bias, flat, weight, out=responses.view(-1, count))
        # max(0, z - t) = max(z, t) - t, and t is subtracted at the end. Pooling is a product with zeros and ones.
        pooled[:, 0] = pools @ torch.clamp(responses, min=threshold, out=clamped)
        pooled[:, 1] = pools @ responses.clamp_(max=-threshold)

    mirrored = torch.empty_like(made[:step]) if options.mirror else None
    for start in range(0, len(images), step):
        some, pooled = images[start : start + step].to(device).float() / 255, made[start : start + step]
        pool(some, pooled)
        if mirrored is not None:
            pool(some.flip(3), mirrored[: len(some)])
            pooled.add_(mirrored[: len(some)]).div_(2)
        advanced(len(some))
    made[:, 1].neg_()
    return made.sub_(pools.sum(dim=1)[:, None] * threshold).flatten(1)


def standardize(train: Tensor, *others: Tensor) -> None:
    """Give each feature mean 0 and standard deviation 1 over `train`, in place. A constant feature becomes 0."""
    variance, mean = torch.var_mean(train, dim=0, correction=0)  # without a copy of `train`
    scale = torch.where(variance > 1e-12, variance.rsqrt(), torch.zeros_like(variance))
    for features in (train, *others):
        features.sub_(mean).mul_(scale)


def standardized_features(
    train: Tensor,
    test: Tensor,
    filters: int,
    seed: int,
    options: FilterOptions = FilterOptions(),
    advanced: Callable[[float], None] = lambda share: None,
) -> tuple[Tensor, Tensor]:
    """Standardized features with the constant feature, for uint8 training and test images.

    Each is float32 (n, features of a filter * filters + 1). They are divided by the root of their number, so that their
    products are the entries of `FeatureGram`.
    """
    bank = RandomFilters.of(train.cpu(), seed, options)
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
        options: FilterOptions = FilterOptions(),
    ) -> None:
        self._train, self._test, self._folder, self._held = train, test, folder, held
        self._device = torch.device(device)
        self._bank: RandomFilters | None = None
        self._seed, self._options = seed, options
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
        self._bank = self._bank or RandomFilters.of(self._train, self._seed, self._options)
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
        features = self._options.features(tuple(self._train.shape[1:])) * self.filters
        return (self._sums[index] / features).add_(BIAS)

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


def _draw(images: Tensor, count: int, size: int, stream: torch.Generator) -> Tensor:
    """Patches from random places of random images, float32 (count, channels * size * size), 0-1."""
    total, channels, height, width = images.shape
    which = torch.randint(total, (count,), generator=stream)
    top = torch.randint(height - size + 1, (count,), generator=stream)
    left = torch.randint(width - size + 1, (count,), generator=stream)
    offsets = torch.arange(size)
    rows = (top[:, None] + offsets)[:, None, :, None]
    columns = (left[:, None] + offsets)[:, None, None, :]
    chosen = images[which[:, None, None, None], torch.arange(channels)[None, :, None, None], rows, columns]
    return chosen.reshape(count, -1).float() / 255


def _pools(options: FilterOptions, height: int, width: int, device: torch.device) -> Tensor:
    """Membership of height * width places in the pools, float32 (pools, places) of 0 and 1."""

    def along(size: int) -> Tensor:
        index = torch.arange(size)
        return torch.stack([(start <= index) & (index < end) for start, end in options.pools(size)])

    return torch.einsum("ap,bq->abpq", along(height).float(), along(width).float()).flatten(2).flatten(0, 1).to(device)
