"""The randomization operators of Section 2.1, one class each. Your own operators are classes of the same kind.

An operator is drawn once, before training, and then stays fixed. A new one is a class in any file:

    from rethinking.data.operators import Operator, register

    @register("reversed_labels")
    class ReversedLabels(Operator):
        def change_labels(self, labels, num_classes, random):
            return num_classes - 1 - labels

`--randomization FILE.py:ReversedLabels` loads it from its file. An installed package gives it a name through the entry
point `rethinking.operators`.

The methods that an operator overrides decide what the package does. With `change_labels`, metrics are split into
changed and untouched labels. With `change_pixels`, runs that train together share images only if operator, options and
seed are equal.

PyTorch is imported inside functions, because the command line needs only names and options.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
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
    """Base class of the randomization operators. A subclass is a frozen dataclass whose fields are its options.

    The methods get all images of a split at once, before training begins. `random("words")` returns a
    `torch.Generator` for one purpose, which depends only on `--randomization_seed` and the words.

    A subclass checks its options in `__post_init__` and raises `InputError`.

    own_classes: number of classes of the operator's labels, if they replace the data's classes. Such a run has no test
        set, because no label of a test image would be right
    independent: whether each label is drawn by itself, so that one example can be replaced by another
    """

    own_classes: ClassVar[int | None] = None
    independent: ClassVar[bool] = False

    def change_labels(self, labels: Tensor, num_classes: int, random: Streams) -> Tensor:
        """Returns the labels to train on. Test labels stay as they are.

        labels: the true labels, int64 (n,); the result has the same dtype and shape
        num_classes: number of classes of the data. Labels are 0 to `num_classes` - 1, those that are returned too
        random: makes generators, as `torch.rand(n, generator=random("which"))` uses them
        """
        return labels

    def change_pixels(
        self, train: RandomizedSplit, test: RandomizedSplit | None, positions: int, random: Streams
    ) -> tuple[RandomizedSplit, RandomizedSplit | None]:
        """Returns both splits with other images or with a permutation of positions.

        positions: number of positions of an image as the network sees it, after the crop: height times width. A
            permutation is int32 (positions,), or (n, positions) with one for each image (`RandomizedSplit.permuted`)
        random: makes generators, as `torch.rand(n, generator=random("which"))` uses them
        """
        return train, test

    @property
    def changes_labels(self) -> bool:
        """Whether the operator changes labels."""
        return type(self).change_labels is not Operator.change_labels

    @property
    def changes_pixels(self) -> bool:
        """Whether the operator changes pixels."""
        return type(self).change_pixels is not Operator.change_pixels

    @property
    def permutes_alone(self) -> bool:
        """Whether the operator only draws permutations of positions, independent of the images."""
        return type(self).change_pixels in (ShuffledPixels.change_pixels, RandomPixels.change_pixels)

    @property
    def corrupts_labels(self) -> bool:
        """Whether labels change but keep the data's classes, so that metrics can tell changed from true labels."""
        return self.changes_labels and self.own_classes is None

    def num_outputs(self, num_classes: int) -> int:
        """Returns the number of outputs of a network for data of `num_classes` classes."""
        return self.own_classes or num_classes


FLIPS = {  # true and new classes, as Patrini et al. 2017 chose them
    "cifar10": ((9, 1), (2, 0), (4, 7), (3, 5), (5, 3)),
    "mnist": ((2, 7), (3, 8), (7, 1), (5, 6), (6, 5)),
}

OPERATORS: Registry[type[Operator]] = Registry("randomization", "rethinking.operators")
Kind = TypeVar("Kind", bound=type[Operator])


def register(name: str) -> Callable[[Kind], Kind]:
    """Registers the decorated operator under `name`. Raises `ValueError` for a name that the package itself uses."""
    return OPERATORS.register(name)


def create(name: str, corruption_prob: float | None, options: Mapping[str, Any]) -> Operator:
    """Returns the operator of that name, with its options.

    Raises `InputError` for an unknown name, for an unknown option, and for a value that the operator refuses.
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
                f"corruption_prob goes with randomization {takes}, not {name}; leave corruption_prob out, or change the"
                " randomization"
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
    """Returns the SHA-256 of an operator's source; None for the package's own operators."""
    return digest_of_source(type(operator)) if is_own(operator) else None


def is_own(operator: Operator) -> bool:
    """Whether the operator is a user's own, not the package's."""
    return type(operator).__module__ != __name__


@register("none")
@dataclass(frozen=True)
class TrueLabels(Operator):
    """Changes nothing: the true labels and the original images (Section 2.1)."""

    independent = True


@register("random_labels")
@dataclass(frozen=True)
class RandomLabels(Operator):
    """Replaces every training label by a uniform draw over all classes (Section 2.1)."""

    independent = True

    @property
    def probability(self) -> float:
        """The probability that a label is replaced."""
        return 1.0

    def change_labels(self, labels: Tensor, num_classes: int, random: Streams) -> Tensor:
        """Returns the labels after `corrupt_labels`, int64 (n,)."""
        from rethinking.data.draws import corrupt_labels

        return corrupt_labels(labels, num_classes, self.probability, random.seed, *random.purpose)


@register("partial_corrupt")
@dataclass(frozen=True)
class PartialCorrupt(RandomLabels):
    """Replaces each training label with probability `corruption_prob` by a uniform draw over all classes."""

    corruption_prob: float | None = None

    def __post_init__(self) -> None:
        _check_probability(self.corruption_prob, "partial_corrupt")

    @property
    def probability(self) -> float:
        """The probability that a label is replaced: `corruption_prob`."""
        assert self.corruption_prob is not None
        return self.corruption_prob


@dataclass(frozen=True)
class ClassNoise(Operator):
    """Base class of the operators that draw each label by its true class, as the literature on label noise does.

    A subclass says with which probabilities, in `transition`.
    """

    independent = True

    def transition(self, num_classes: int) -> Tensor:
        """Returns the transition matrix, float64 (classes, classes): new classes (columns) by true ones (rows)."""
        raise NotImplementedError

    def change_labels(self, labels: Tensor, num_classes: int, random: Streams) -> Tensor:
        """Returns the labels after `draw_by_class`, int64 (n,)."""
        from rethinking.data.draws import draw_by_class

        return draw_by_class(labels, self.transition(num_classes), random.seed, *random.purpose)


@register("pair_flip")
@dataclass(frozen=True)
class PairFlip(ClassNoise):
    """Replaces each label with probability `corruption_prob` by the next class, and the last class by the first.

    Han et al. 2018 ("Co-teaching", arXiv:1804.06872) call it pair flipping.
    """

    corruption_prob: float | None = None

    def __post_init__(self) -> None:
        _check_probability(self.corruption_prob, "pair_flip")

    def transition(self, num_classes: int) -> Tensor:
        """Returns the transition matrix, float64 (classes, classes)."""
        following = {label: (label + 1) % num_classes for label in range(num_classes)}
        return _flipping(following, self.corruption_prob, num_classes)


@register("asymmetric")
@dataclass(frozen=True)
class Asymmetric(ClassNoise):
    """Replaces labels of some classes, with probability `corruption_prob`, by one similar class each.

    flips: pairs of a true class and its new one by number, such as [[9, 1], [2, 0]], or the name of pairs that Patrini
        et al. 2017 ("Making deep neural networks robust to label noise", arXiv:1609.03683) chose. 'cifar10' flips truck
        to automobile, bird to airplane, deer to horse, and cat and dog to each other. 'mnist' flips 2 to 7, 3 to 8, 7
        to 1, and 5 and 6 to each other
    """

    corruption_prob: float | None = None
    flips: Any = None

    def __post_init__(self) -> None:
        _check_probability(self.corruption_prob, "asymmetric")
        pairs = self._pairs
        is_pairs = isinstance(pairs, Sequence) and not isinstance(pairs, str) and len(pairs) > 0
        if not is_pairs or not all(_is_pair(pair) for pair in pairs):
            raise InputError(
                f"randomization asymmetric needs flips, which are one of {', '.join(FLIPS)}, or pairs of different"
                f" classes by number such as [[9, 1], [2, 0]], not {self.flips!r:.100}"
            )
        if len(dict(pairs)) < len(pairs):
            raise InputError("randomization asymmetric flips each class to one other class only")

    @property
    def _pairs(self) -> Any:
        return FLIPS.get(self.flips) if isinstance(self.flips, str) else self.flips

    def transition(self, num_classes: int) -> Tensor:
        """Returns the transition matrix, float64 (classes, classes). Raises `InputError` for classes that are not."""
        pairs = dict(self._pairs)
        if max(*pairs, *pairs.values()) >= num_classes:
            raise InputError(f"flips must be between classes from 0 to {num_classes - 1}, not {self.flips}")
        return _flipping(pairs, self.corruption_prob, num_classes)


@register("class_matrix")
@dataclass(frozen=True)
class ClassMatrix(ClassNoise):
    """Draws each label from the row of its true class in a matrix of your own.

    matrix: a row for each true class, with the probability of each new class, such as [[0.9, 0.1], [0.2, 0.8]]
    """

    matrix: Any = None

    def __post_init__(self) -> None:
        rows = self.matrix
        square = isinstance(rows, Sequence) and not isinstance(rows, str) and len(rows) > 0
        if not square or not all(isinstance(row, Sequence) and len(row) == len(rows) for row in rows):
            raise InputError(
                "randomization class_matrix needs a matrix with a row and a column for each class, such as"
                " [[0.9, 0.1], [0.2, 0.8]]"
            )
        for label, row in enumerate(rows):
            numbers = all(isinstance(p, int | float) and not isinstance(p, bool) and 0 <= p <= 1 for p in row)
            if not numbers or abs(sum(row) - 1) > 1e-6:
                raise InputError(
                    f"each row of matrix must be probabilities from 0 to 1 that add up to 1; row {label} is not"
                )

    def transition(self, num_classes: int) -> Tensor:
        """Returns the matrix, float64 (classes, classes). Raises `InputError` for another number of classes."""
        import torch

        if len(self.matrix) != num_classes:
            raise InputError(f"matrix has {len(self.matrix)} classes, and the data {num_classes}")
        return torch.tensor([list(row) for row in self.matrix], dtype=torch.float64)


def _is_pair(pair: Any) -> bool:
    """Whether `pair` has two different class numbers."""
    if not isinstance(pair, Sequence) or isinstance(pair, str) or len(pair) != 2:
        return False
    return all(type(label) is int and label >= 0 for label in pair) and pair[0] != pair[1]


def _flipping(pairs: Mapping[int, int], probability: float | None, num_classes: int) -> Tensor:
    """Returns the matrix that moves each class in `pairs` to its new class with `probability`."""
    import torch

    assert probability is not None, "checked"
    matrix = torch.eye(num_classes, dtype=torch.float64)
    for true, new in pairs.items():
        matrix[true, true] -= probability
        matrix[true, new] += probability
    return matrix


def _check_probability(probability: float | None, name: str) -> None:
    if probability is None:
        raise InputError(f"randomization {name} needs a corruption_prob between 0 and 1")
    if not 0 <= probability <= 1:
        raise InputError(f"corruption_prob must be between 0 and 1, not {probability}")


@register("shuffled_pixels")
@dataclass(frozen=True)
class ShuffledPixels(Operator):
    """Permutes the pixels of all training and test images by one permutation (Section 2.1)."""

    def change_pixels(
        self, train: RandomizedSplit, test: RandomizedSplit | None, positions: int, random: Streams
    ) -> tuple[RandomizedSplit, RandomizedSplit | None]:
        """Returns both splits with the one permutation."""
        from rethinking.data.draws import shuffled_pixels

        permutation = shuffled_pixels(positions, random.seed)
        return train.permuted(permutation), test.permuted(permutation) if test else None


@register("random_pixels")
@dataclass(frozen=True)
class RandomPixels(Operator):
    """Permutes the pixels of each training and test image by a permutation of its own (Section 2.1)."""

    def change_pixels(
        self, train: RandomizedSplit, test: RandomizedSplit | None, positions: int, random: Streams
    ) -> tuple[RandomizedSplit, RandomizedSplit | None]:
        """Returns both splits with a permutation for each image."""
        from rethinking.data.draws import random_pixels

        def permuted(split: RandomizedSplit, name: str) -> RandomizedSplit:
            return split.permuted(random_pixels(len(split), positions, random.seed, name, split.empty))

        return permuted(train, "train"), permuted(test, "test") if test else None


@register("gaussian_pixels")
@dataclass(frozen=True)
class GaussianPixels(Operator):
    """Replaces all images by Gaussian noise with the mean and variance of the training images (Section 2.1)."""

    def change_pixels(
        self, train: RandomizedSplit, test: RandomizedSplit | None, positions: int, random: Streams
    ) -> tuple[RandomizedSplit, RandomizedSplit | None]:
        """Returns both splits with float32 noise on the 0-255 scale in place of the images."""
        from rethinking.data.draws import gaussian_pixels, pixel_moments

        moments = pixel_moments(chunk for _, chunk in train.chunks())

        def drawn(split: RandomizedSplit, name: str) -> RandomizedSplit:
            noise = gaussian_pixels(split.shape, *moments, random.seed, name, split.empty)
            return dataclasses.replace(split, images=noise, rows=None)

        return drawn(train, "train"), drawn(test, "test") if test else None


@register("random_signs")
@dataclass(frozen=True)
class RandomSigns(Operator):
    """Replaces the labels by the signs of Equation 1: two equally likely classes."""

    own_classes = 2

    def change_labels(self, labels: Tensor, num_classes: int, random: Streams) -> Tensor:
        """Returns the signs as classes 0 and 1, int64 (n,)."""
        from rethinking.data.draws import random_signs

        return random_signs(len(labels), random.seed)


OWN = OPERATORS.reserve()
