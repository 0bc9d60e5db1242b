"""What the randomization operators draw (Section 2.1), and a split of the data after it; `operators` has the operators.

Labels are replaced in the training set only. Pixel operators act on the test images too. Every draw comes from
`randomization_seed` on the CPU, so it depends neither on the order of batches nor on the device.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from rethinking.data.operators import Operator
from rethinking.errors import InputError
from rethinking.seeding import Streams, generator

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


def replace_example(
    train: RandomizedSplit, test: RandomizedSplit, index: int, operator: Operator, *, num_classes: int, seed: int
) -> RandomizedSplit:
    """`train` with its image and label at `index` replaced by those of `test`: neighbours in Section 2.2's stability.

    The new label is changed as the others were, by a draw of its own.
    """
    labels = operator.change_labels(test.true_labels, num_classes, Streams(seed, ("replacements",)))

    def replaced(old: Tensor, new: Tensor) -> Tensor:
        made = old.clone()
        made[index] = new[index]
        return made

    return replace(
        train,
        images=replaced(train.images, test.images),
        labels=replaced(train.labels, labels),
        true_labels=replaced(train.true_labels, test.true_labels),
    )


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


def add_noise(split: RandomizedSplit, std: float, seed: int, name: str) -> RandomizedSplit:
    """`split` with white noise of `std`, on the 0-255 scale, added to its images once and unclipped: float32.

    Not an operator of the paper: it gives back some of the fine detail that JPEG compression takes from images.
    """
    images = split.images.float()
    draws = generator(seed, "pixels", "noise", name)
    for rows in images.split(CHUNK):
        rows.add_(torch.empty(rows.shape).normal_(0.0, std, generator=draws))
    return replace(split, images=images)


def pixel_moments(images: Tensor) -> tuple[float, float]:
    """Mean and standard deviation over all values of uint8 images, on the 0-255 scale."""
    counts = torch.zeros(256, dtype=torch.float64)
    for chunk in images.split(CHUNK):
        counts += torch.bincount(chunk.flatten(), minlength=256)
    values = torch.arange(256, dtype=torch.float64)
    mean = (counts * values).sum() / counts.sum()
    variance = (counts * (values - mean).square()).sum() / counts.sum()
    return mean.item(), variance.sqrt().item()


def apply(
    operator: Operator,
    train: RandomizedSplit,
    test: RandomizedSplit | None,
    *,
    num_classes: int,
    positions: int,
    seed: int,
) -> tuple[RandomizedSplit, RandomizedSplit | None]:
    """Returns both splits after `operator`; `positions` are those of the cropped image.

    Raises `InputError` where the operator makes labels or images that are none.
    """
    random = Streams(seed)
    if operator.changes_labels:
        labels = operator.change_labels(train.true_labels, num_classes, random)
        _check_labels(operator, labels, len(train), operator.num_outputs(num_classes))
        if operator.own_classes is not None:
            train, test = replace(train, labels=labels, true_labels=labels), None
        else:
            train = replace(train, labels=labels)
    if operator.changes_pixels:
        changed = operator.change_pixels(_copy(train), _copy(test) if test else None, positions, random)
        train = _checked(operator, train, changed[0], positions)
        test = _checked(operator, test, changed[1], positions) if test else None
    return train, test


def _copy(split: RandomizedSplit) -> RandomizedSplit:
    """With images that can be written to, as those in the cache cannot."""
    return replace(split, images=split.images.clone())


def _check_labels(operator: Operator, labels: Tensor, count: int, classes: int) -> None:
    name = type(operator).__name__
    if labels.dtype != torch.int64 or labels.shape != (count,):
        raise InputError(
            f"{name} must make int64 labels of shape ({count},), not {labels.dtype} of {tuple(labels.shape)}"
        )
    if count and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise InputError(f"{name} must make labels from 0 to {classes - 1}, not {labels.min()} to {labels.max()}")


def _checked(operator: Operator, old: RandomizedSplit, new: RandomizedSplit | None, positions: int) -> RandomizedSplit:
    """Returns `new` with what is known of its images. Raises `InputError` where they are none."""
    name = type(operator).__name__
    if new is None or not torch.equal(new.labels, old.labels):
        raise InputError(f"{name} changes pixels and must leave the labels of both splits")
    if new.images.shape != old.images.shape or new.images.dtype not in (torch.uint8, torch.float32):
        raise InputError(
            f"{name} must make uint8 or float32 images of shape {tuple(old.images.shape)}, not {new.images.dtype} of"
            f" {tuple(new.images.shape)}"
        )
    permutation = new.permutation
    if permutation is not None and permutation.shape not in ((positions,), (len(new), positions)):
        raise InputError(
            f"{name} must permute {positions} positions, for all images or each, not {tuple(permutation.shape)}"
        )
    same = new.images.dtype == old.images.dtype and torch.equal(new.images, old.images)
    return replace(new, images=old.images if same else new.images, redrawn=not same)
