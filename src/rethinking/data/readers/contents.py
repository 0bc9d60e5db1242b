"""What a reader finds: the files that decide it, then images that are not decoded yet, and their labels.

A reader works in two steps. Listing opens no file and imports no decoder, so that a data set in the cache is found at
once. Reading is done where the cache has nothing.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image

SPLIT_WORDS = {
    **dict.fromkeys(("train", "training", "trainset"), "train"),
    **dict.fromkeys(("test", "testing", "testset"), "test"),
    **dict.fromkeys(("val", "valid", "validation", "dev", "eval"), "val"),
}


def split_of(word: str) -> str | None:
    """The split that a folder or file name stands for: 'train', 'test' or 'val', without regard to case."""
    return SPLIT_WORDS.get(word.lower())


@dataclass(frozen=True)
class ReadOptions:
    """How images are read, of `ExperimentConfig`'s options of the same names.

    resize: the shorter side in pixels, then the centre square; None leaves sizes as they are
    colour: 'rgb' or 'grey'; None takes 8-bit grey and RGB alone
    holdout: share of the training images that becomes the test set; 0 for none
    """

    resize: int | None = None
    colour: str | None = None
    holdout: float = 0.0
    skip_unlabelled: bool = False
    image_column: str | None = None
    label_column: str | None = None

    def plain(self) -> ReadOptions:
        """The same without what makes other images or splits of a data set."""
        return dataclasses.replace(self, resize=None, colour=None, holdout=0.0)

    @property
    def changes(self) -> ReadOptions:
        """What makes other images or splits of a data set alone."""
        return ReadOptions(self.resize, self.colour, self.holdout)

    @property
    def suffix(self) -> str:
        """What they add to the data set's name, since its images or labels are others then."""
        parts = [re.sub(r"\W+", "_", column) for column in (self.image_column, self.label_column) if column]
        parts += ["labelled"] if self.skip_unlabelled else []
        parts += [f"resize{self.resize}"] if self.resize else []
        parts += [self.colour] if self.colour else []
        parts += [f"holdout{self.holdout}"] if self.holdout else []
        return "".join(f"-{part}" for part in parts)


class Stored(NamedTuple):
    """An image as it is stored: encoded in bytes, a file, an array (height, width) or (height, width, channels), or
    Pillow's.
    """

    described: str
    content: bytes | Path | np.ndarray | Image


class Images(Protocol):
    """A split's images in their order, not decoded."""

    def __len__(self) -> int: ...

    def part(self, rows: np.ndarray) -> Images:
        """Those of `rows`, int64 ascending, as something small to send to another process."""

    def stored(self) -> Iterator[Stored]:
        """One after the other. Raises `InputError` where one is missing."""


@dataclass(frozen=True)
class Labels:
    """A split's labels as read: numbers, texts, booleans or None; indices into `names` where there are any."""

    values: Sequence[Any] | np.ndarray
    names: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.values)


@dataclass(frozen=True)
class Split:
    """labels: None where the source has none at all; where: in words"""

    images: Images
    labels: Labels | None
    where: str


@dataclass(frozen=True)
class Contents:
    """splits: by 'train', 'test' and 'val'; notes: what reading decided and left out, a sentence each"""

    splits: dict[str, Split]
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Found:
    """A data set where it was found.

    files: those that decide what is read, by the names that tell them apart; empty for what has no files here
    read: opens them
    notes: what listing decided and left out
    has_columns: whether a column can be chosen
    """

    files: dict[str, Path]
    read: Callable[[ReadOptions], Contents]
    notes: tuple[str, ...] = ()
    has_columns: bool = False


def numbered(labels: dict[str, np.ndarray]) -> dict[str, Labels]:
    """Labels of splits whose classes are the numbers in any of them; -1 stays "no label".

    Text, fractions and the like are left to be told apart by name.
    """
    if any(values.dtype.kind not in "iu" for values in labels.values()):
        return {split: Labels(values) for split, values in labels.items()}
    numbers = sorted({number for values in labels.values() for number in values.tolist()} - {-1})
    index = {number: position for position, number in enumerate(numbers)}
    names = tuple(map(str, numbers))
    return {
        split: Labels([index.get(number, -1) for number in values.tolist()], names) for split, values in labels.items()
    }


@dataclass(frozen=True)
class FileImages:
    """Image files, and how each is named in messages."""

    files: Sequence[Path]

    def __len__(self) -> int:
        return len(self.files)

    def part(self, rows: np.ndarray) -> FileImages:
        return FileImages([self.files[row] for row in rows])

    def stored(self) -> Iterator[Stored]:
        return (Stored(str(file), file) for file in self.files)


@dataclass(frozen=True)
class ArrayImages:
    """The images at `rows` of an array (n, height, width) or (n, height, width, channels), uint8 or uint16.

    rows: None for all of them
    numbers: of the array's images in the split, where they are not their rows
    """

    array: np.ndarray
    split: str
    rows: np.ndarray | None = None
    numbers: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.array) if self.rows is None else len(self.rows)

    def part(self, rows: np.ndarray) -> ArrayImages:
        return ArrayImages(self.array, self.split, rows if self.rows is None else self.rows[rows], self.numbers)

    def ready(self, options: ReadOptions) -> np.ndarray | None:
        """All of them as (n, channels, height, width), a view, where nothing is to be decoded; else None."""
        pixels = self.array[..., None] if self.array.ndim == 3 else self.array
        plain = options.resize is None and options.colour is None and self.rows is None
        return (
            pixels.transpose(0, 3, 1, 2) if plain and pixels.dtype == np.uint8 and pixels.shape[3] in (1, 3) else None
        )

    def __reduce__(self) -> tuple[Any, ...]:
        """To another process go these images alone."""
        if self.rows is None:
            return ArrayImages, (self.array, self.split, None, self.numbers)
        numbers = self.rows if self.numbers is None else self.numbers[self.rows]
        return ArrayImages, (self.array[self.rows], self.split, np.arange(len(self.rows)), numbers)

    def stored(self) -> Iterator[Stored]:
        for row in range(len(self.array)) if self.rows is None else self.rows:
            number = row if self.numbers is None else self.numbers[row]
            yield Stored(f"image {number} of the split '{self.split}'", self.array[row])
