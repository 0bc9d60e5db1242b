"""A split of the data after its randomization (Section 2.1): an operator, a replaced example, noise.

Labels are replaced in the training set only. Pixel operators act on the test images too.
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


def replace_example(
    train: RandomizedSplit, test: RandomizedSplit, index: int, operator: Operator, *, num_classes: int, seed: int
) -> RandomizedSplit:
    """`train` with its image and label at `index` replaced by those of `test`: neighbours in Section 2.2's stability.

    The new label is changed as the others were, by a draw of its own.
    """
    labels = operator.change_labels(test.true_labels.clone(), num_classes, Streams(seed, ("replacements",)))

    def replaced(old: Tensor, new: Tensor) -> Tensor:
        made = old.clone()
        made[index] = new[index]
        return made

    made = train.copied()
    made.images[index] = test.images[index]
    return replace(
        made,
        labels=replaced(train.labels, labels),
        true_labels=replaced(train.true_labels, test.true_labels),
    )


def add_noise(split: RandomizedSplit, std: float, seed: int, name: str) -> RandomizedSplit:
    """`split` with white noise of `std`, on the 0-255 scale, added to its images once and unclipped: float32.

    Not an operator of the paper: it gives back some of the fine detail that JPEG compression takes from images.
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
    """Returns both splits after `operator`; `positions` are those of the cropped image.

    Raises `InputError` where the operator makes labels or images that are none.
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
            if operators.is_own(operator):  # it may write into the images
                given = train.copied(), test.copied() if test else None
            changed_train, changed_test = operator.change_pixels(*given, positions, random)
        train = _checked(operator, train, changed_train, positions)
        test = _checked(operator, test, changed_test, positions) if test else None
    return train, test


@contextlib.contextmanager
def _failing_in_one_line(operator: Operator, seed: int) -> Iterator[None]:
    """What somebody's own operator raises is an `InputError`; what it draws from global generators is the seed's."""
    try:
        with global_streams(seed, "operator") if operators.is_own(operator) else contextlib.nullcontext():
            yield
    except (InputError, RunError):
        raise
    except Exception as error:  # whatever it is
        if not operators.is_own(operator):
            raise
        raise InputError(f"{type(operator).__name__} fails: {in_one_line(error)}") from error


def _check_labels(operator: Operator, labels: Tensor, count: int, classes: int) -> None:
    name = type(operator).__name__
    if not isinstance(labels, Tensor):
        raise InputError(f"{name} must make a tensor of labels, not {type(labels).__name__}")
    if labels.dtype != torch.int64 or labels.shape != (count,):
        raise InputError(
            f"{name} must make int64 labels of shape ({count},), not {labels.dtype} of {tuple(labels.shape)}"
        )
    if count and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise InputError(f"{name} must make labels from 0 to {classes - 1}, not {labels.min()} to {labels.max()}")


def _checked(operator: Operator, old: RandomizedSplit, new: RandomizedSplit | None, positions: int) -> RandomizedSplit:
    """Returns `new` with what is known of its images. Raises `InputError` where they are none."""
    name = type(operator).__name__
    if not isinstance(new, RandomizedSplit) or not torch.equal(new.labels, old.labels):
        raise InputError(f"{name} changes pixels and must leave the labels of both splits")
    shape = tuple(new.images.shape) if new.rows is None else tuple(new.shape)
    if shape != tuple(old.shape) or new.images.dtype not in (torch.uint8, torch.float32):
        raise InputError(
            f"{name} must make uint8 or float32 images of shape {tuple(old.shape)}, not {new.images.dtype} of {shape}"
        )
    permutation = new.permutation
    if permutation is not None and permutation.shape not in ((positions,), (len(new), positions)):
        raise InputError(
            f"{name} must permute {positions} positions, for all images or each, not {tuple(permutation.shape)}"
        )
    if new.images is old.images or _show_the_same(old, new):
        return replace(new, images=old.images, rows=old.rows, redrawn=False)
    return replace(new, redrawn=True)


def _show_the_same(old: RandomizedSplit, new: RandomizedSplit) -> bool:
    if new.images.dtype != old.images.dtype:
        return False
    pairs = zip(old.chunks(), new.chunks(), strict=True)
    return all(torch.equal(before, after) for (_, before), (_, after) in pairs)
