"""Changes a split of the data (Section 2.1): applies an operator, replaces an example, or adds noise.

Label operators change the training set only. Pixel operators change the test images too.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from rethinking.data import operators
from rethinking.data.draws import CHUNK, RandomizedSplit
from rethinking.data.operators import Operator
from rethinking.errors import InputError, RunError, in_one_line
from rethinking.seeding import Streams, generator, global_streams
from rethinking.source import place_of


def replace_example(
    train: RandomizedSplit, test: RandomizedSplit, index: int, operator: Operator, *, num_classes: int, seed: int
) -> RandomizedSplit:
    """Returns `train` with the image and label at `index` replaced by those of `test`.

    Both training sets are neighbours, as uniform stability compares them (Section 2.2). The new label is changed by the
    same operator, with a draw of its own.
    """
    labels = operator.change_labels(test.true_labels.clone(), num_classes, Streams(seed, ("replacements",)))

    def replaced(old: Tensor, new: Tensor) -> Tensor:
        copy = old.clone()
        copy[index] = new[index]
        return copy

    neighbour = train.copied()
    neighbour.images[index] = test.images[index]
    return replace(
        neighbour,
        labels=replaced(train.labels, labels),
        true_labels=replaced(train.true_labels, test.true_labels),
    )


def with_changed_labels(
    split: RandomizedSplit, operator: Operator, *, num_classes: int, seed: int, of: str
) -> RandomizedSplit:
    """Returns `split` with labels that the operator changes, by draws of their own.

    of: the word that tells its draws from those of the training set

    Raises `InputError` if the operator fails, or returns invalid labels.
    """
    with _failing_in_one_line(operator, seed):
        labels = operator.change_labels(split.true_labels.clone(), num_classes, Streams(seed, (of,)))
    _check_labels(operator, labels, len(split), operator.num_outputs(num_classes))
    return replace(split, labels=labels)


def add_noise(split: RandomizedSplit, std: float, seed: int, name: str) -> RandomizedSplit:
    """Returns `split` with white noise added to its images once: float32, unclipped.

    std: standard deviation of the noise on the 0-255 scale
    name: word of the split, so that each split has its own draws

    This is no operator of the paper. It restores some of the fine detail that JPEG compression removes from images.
    """
    noisy = split.copied(torch.float32)
    draws = generator(seed, "pixels", "noise", name)
    for rows in noisy.images.split(CHUNK):
        rows.add_(torch.empty(rows.shape).normal_(0.0, std, generator=draws))
    return noisy


def apply(
    operator: Operator,
    train: RandomizedSplit,
    test: RandomizedSplit | None,
    *,
    num_classes: int,
    positions: int,
    seed: int,
) -> tuple[RandomizedSplit, RandomizedSplit | None]:
    """Returns both splits after `operator`.

    positions: number of positions of the cropped image

    Raises `InputError` if the operator fails, or returns invalid labels or images.
    """
    random = Streams(seed)
    if operator.changes_labels:
        with _failing_in_one_line(operator, seed):
            labels = operator.change_labels(train.true_labels.clone(), num_classes, random)
        _check_labels(operator, labels, len(train), operator.num_outputs(num_classes))
        if operator.own_classes is not None:
            train, test = replace(train, labels=labels, true_labels=labels), None
        else:
            train = replace(train, labels=labels)
    if operator.changes_pixels:
        with _failing_in_one_line(operator, seed):
            given = train, test
            if operators.is_own(operator):  # a user's operator may write into the images
                given = train.copied(), test.copied() if test else None
            changed_train, changed_test = operator.change_pixels(*given, positions, random)
        train = _checked(operator, train, changed_train, positions)
        test = _checked(operator, test, changed_test, positions) if test else None
    return train, test


@contextlib.contextmanager
def _failing_in_one_line(operator: Operator, seed: int) -> Iterator[None]:
    """Turns what a user's operator raises into an `InputError`. Its draws from global generators follow the seed."""
    try:
        with global_streams(seed, "operator") if operators.is_own(operator) else contextlib.nullcontext():
            yield
    except (InputError, RunError):
        raise
    except Exception as error:  # a user's operator may raise any type
        if not operators.is_own(operator):
            raise
        raise InputError(f"{type(operator).__name__} fails: {in_one_line(error)}{place_of(error)}") from error


def _check_labels(operator: Operator, labels: Tensor, count: int, classes: int) -> None:
    name = type(operator).__name__
    if not isinstance(labels, Tensor):
        raise InputError(f"{name} must return a tensor of labels, not {type(labels).__name__}")
    if labels.dtype != torch.int64 or labels.shape != (count,):
        raise InputError(
            f"{name} must return int64 labels of shape ({count},), not {labels.dtype} of {tuple(labels.shape)}"
        )
    if count and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise InputError(f"{name} must return labels from 0 to {classes - 1}, not {labels.min()} to {labels.max()}")


def _checked(operator: Operator, old: RandomizedSplit, new: RandomizedSplit | None, positions: int) -> RandomizedSplit:
    """Returns `new`, which records whether its images are new. Raises `InputError` if it is no valid split."""
    name = type(operator).__name__
    if not isinstance(new, RandomizedSplit) or not torch.equal(new.labels, old.labels):
        raise InputError(f"{name} changes pixels, so it must leave the labels of both splits as they are")
    shape = tuple(new.images.shape) if new.rows is None else tuple(new.shape)
    if shape != tuple(old.shape) or new.images.dtype not in (torch.uint8, torch.float32):
        raise InputError(
            f"{name} must return uint8 or float32 images of shape {tuple(old.shape)}, not {new.images.dtype} of {shape}"
        )
    permutation = new.permutation
    if permutation is not None and permutation.shape not in ((positions,), (len(new), positions)):
        raise InputError(
            f"{name} must return a permutation of shape ({positions},) or ({len(new)}, {positions}), not"
            f" {tuple(permutation.shape)}"
        )
    if new.images is old.images or _show_the_same(old, new):
        return replace(new, images=old.images, rows=old.rows, redrawn=False)
    return replace(new, redrawn=True)


def _show_the_same(old: RandomizedSplit, new: RandomizedSplit) -> bool:
    if new.images.dtype != old.images.dtype:
        return False
    pairs = zip(old.chunks(), new.chunks(), strict=True)
    return all(torch.equal(before, after) for (_, before), (_, after) in pairs)
