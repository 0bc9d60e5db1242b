"""The randomization operators of Section 2.1, one class each. This is the door for further ones.

An operator is drawn once, before training, and fixed from then on. A new one is a class in any file:

    from rethinking.data.operators import Operator, register

    @register("reversed_labels")
    class ReversedLabels(Operator):
        def change_labels(self, labels, num_classes, random):
            return num_classes - 1 - labels

`--randomization FILE.py:ReversedLabels` takes it from its file. A package that is installed gives it a name of its own
through the entry point `rethinking.operators`. What an operator overrides decides what the package does: where it has
`change_labels`, metrics tell changed labels from untouched ones; where it has `change_pixels`, runs that are trained
together share their images only with the same operator, options and seed.

PyTorch is imported where it is used: the command line asks for names and options alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from rethinking.errors import InputError
from rethinking.registry import Registry
from rethinking.source import digest_of_source

if TYPE_CHECKING:
    from torch import Tensor

    from rethinking.data.draws import RandomizedSplit
    from rethinking.seeding import Streams


@dataclass(frozen=True)
class Operator:
    """What is randomized. The fields of a subclass, a frozen dataclass, are its options, with their defaults.

    A subclass checks its options in `__post_init__` and raises `InputError`.

    own_classes: number of classes of the labels it makes, where they stand in place of the data's; there is no test set
        then, of which no such label is right
    independent: whether each label is drawn by itself, so that one example can be replaced by another
    """

    own_classes: ClassVar[int | None] = None
    independent: ClassVar[bool] = False

    def change_labels(self, labels: Tensor, num_classes: int, random: Streams) -> Tensor:
        """Returns the labels to train on, int64 (n,), of the true ones; test labels stay as they are."""
        return labels

    def change_pixels(
        self, train: RandomizedSplit, test: RandomizedSplit | None, positions: int, random: Streams
    ) -> tuple[RandomizedSplit, RandomizedSplit | None]:
        """Returns both splits with other images or a permutation of the `positions` of the cropped image."""
        return train, test

    @property
    def changes_labels(self) -> bool:
        return type(self).change_labels is not Operator.change_labels

    @property
    def changes_pixels(self) -> bool:
        return type(self).change_pixels is not Operator.change_pixels

    @property
    def permutes_alone(self) -> bool:
        """Whether it draws permutations of positions, whatever the images are."""
        return type(self).change_pixels in (ShuffledPixels.change_pixels, RandomPixels.change_pixels)

    @property
    def corrupts_labels(self) -> bool:
        """Whether labels of the data's classes differ from the true ones, so that metrics tell them apart."""
        return self.changes_labels and self.own_classes is None

    def num_outputs(self, num_classes: int) -> int:
        """Returns the number of outputs of a network for data of `num_classes` classes."""
        return self.own_classes or num_classes


OPERATORS: Registry[type[Operator]] = Registry("randomization", "rethinking.operators")
Kind = TypeVar("Kind", bound=type[Operator])


def register(name: str) -> Callable[[Kind], Kind]:
    """Makes the operator below it known by `name`. Raises `ValueError` for a name of the package's own."""
    return OPERATORS.register(name)


def create(name: str, corruption_prob: float | None, options: Mapping[str, Any]) -> Operator:
    """Returns the operator of that name, with its options.

    Raises `InputError` for an unknown name, an option that it lacks, or values that it refuses.
    """
    kind = OPERATORS.find(name)
    if not (isinstance(kind, type) and issubclass(kind, Operator)):
        raise InputError(f"randomization {name} is no subclass of rethinking.data.operators.Operator")
    known = [spec.name for spec in dataclasses.fields(kind)]
    if "corruption_prob" in options:
        raise InputError("corruption_prob is an option of its own; leave it out of randomization_options")
    if corruption_prob is not None:
        if "corruption_prob" not in known:
            takes = ", ".join(other for other, one in OPERATORS.registered() if hasattr(one, "corruption_prob"))
            raise InputError(
                f"corruption_prob goes with randomization {takes}, not {name}; leave one out or change the other"
            )
        options = {**options, "corruption_prob": corruption_prob}
    for option in options:
        if option not in known:
            raise InputError(f"randomization {name} has no option '{option}'; it has {', '.join(known) or 'none'}")
    try:
        return kind(**options)
    except TypeError as error:  # an option without a default is missing
        raise InputError(f"randomization {name}: {error}") from None


def digest(operator: Operator) -> str | None:
    """SHA-256 of the source of an operator that is not the package's own."""
    return digest_of_source(type(operator)) if is_own(operator) else None


def is_own(operator: Operator) -> bool:
    """Whether it is somebody's own, not the package's."""
    return type(operator).__module__ != __name__


@register("none")
@dataclass(frozen=True)
class TrueLabels(Operator):
    """Nothing is randomized."""

    independent = True


@register("random_labels")
@dataclass(frozen=True)
class RandomLabels(Operator):
    """Every training label is a uniform draw over all classes."""

    independent = True

    @property
    def probability(self) -> float:
        """That a label is replaced."""
        return 1.0

    def change_labels(self, labels: Tensor, num_classes: int, random: Streams) -> Tensor:
        from rethinking.data.draws import corrupt_labels

        return corrupt_labels(labels, num_classes, self.probability, random.seed, *random.purpose)


@register("partial_corrupt")
@dataclass(frozen=True)
class PartialCorrupt(RandomLabels):
    """Each training label, with probability `corruption_prob`, is replaced by a uniform draw over all classes."""

    corruption_prob: float | None = None

    def __post_init__(self) -> None:
        if self.corruption_prob is None:
            raise InputError("randomization partial_corrupt needs a corruption_prob between 0 and 1")
        if not 0 <= self.corruption_prob <= 1:
            raise InputError(f"corruption_prob must be between 0 and 1, not {self.corruption_prob}")

    @property
    def probability(self) -> float:
        assert self.corruption_prob is not None
        return self.corruption_prob


@register("shuffled_pixels")
@dataclass(frozen=True)
class ShuffledPixels(Operator):
    """One permutation of positions for all images, training and test."""

    def change_pixels(
        self, train: RandomizedSplit, test: RandomizedSplit | None, positions: int, random: Streams
    ) -> tuple[RandomizedSplit, RandomizedSplit | None]:
        from rethinking.data.draws import shuffled_pixels

        permutation = shuffled_pixels(positions, random.seed)
        return train.permuted(permutation), test.permuted(permutation) if test else None


@register("random_pixels")
@dataclass(frozen=True)
class RandomPixels(Operator):
    """A permutation of positions for each image, training and test."""

    def change_pixels(
        self, train: RandomizedSplit, test: RandomizedSplit | None, positions: int, random: Streams
    ) -> tuple[RandomizedSplit, RandomizedSplit | None]:
        from rethinking.data.draws import random_pixels

        def permuted(split: RandomizedSplit, name: str) -> RandomizedSplit:
            return split.permuted(random_pixels(len(split), positions, random.seed, name, split.empty))

        return permuted(train, "train"), permuted(test, "test") if test else None


@register("gaussian_pixels")
@dataclass(frozen=True)
class GaussianPixels(Operator):
    """Noise in place of images, training and test, with mean and variance of the training images."""

    def change_pixels(
        self, train: RandomizedSplit, test: RandomizedSplit | None, positions: int, random: Streams
    ) -> tuple[RandomizedSplit, RandomizedSplit | None]:
        from rethinking.data.draws import gaussian_pixels, pixel_moments

        moments = pixel_moments(chunk for _, chunk in train.chunks())

        def drawn(split: RandomizedSplit, name: str) -> RandomizedSplit:
            noise = gaussian_pixels(split.shape, *moments, random.seed, name, split.empty)
            return dataclasses.replace(split, images=noise, rows=None)

        return drawn(train, "train"), drawn(test, "test") if test else None


@register("random_signs")
@dataclass(frozen=True)
class RandomSigns(Operator):
    """The signs of Equation 1 in place of labels: two classes, equally likely."""

    own_classes = 2

    def change_labels(self, labels: Tensor, num_classes: int, random: Streams) -> Tensor:
        from rethinking.data.draws import random_signs

        return random_signs(len(labels), random.seed)


OWN = OPERATORS.reserve()
