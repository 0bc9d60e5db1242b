"""What a reader returns: the files that decide the content, then the undecoded images and their labels.

A reader works in two steps. Listing opens no file and imports no decoder, so that a data set in the cache is found at
once. Reading happens only if the cache lacks the data set.
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
LAYOUTS = "(n, height, width), (n, height, width, 1, 3 or 4) or (n, 1 or 3, height, width)"


def split_of(word: str) -> str | None:
    """Returns the split that a folder or file name stands for, 'train', 'test' or 'val', in any case; else None."""
    return SPLIT_WORDS.get(word.lower())


@dataclass(frozen=True)
class ReadOptions:
    """Options of reading images. `ExperimentConfig` has options of the same names.

    resize: length of the shorter side in pixels, before the centre square is cut out; None keeps all sizes
    colour: 'rgb' or 'grey'; None accepts only 8-bit grey and RGB
    holdout: share of the training images that becomes the test set; 0 for none
    skip_unlabelled: whether images without a label are left out
    image_column, label_column: columns of a table; None chooses by name and type
    """

    resize: int | None = None
    colour: str | None = None
    holdout: float = 0.0
    skip_unlabelled: bool = False
    image_column: str | None = None
    label_column: str | None = None

    def plain(self) -> ReadOptions:
        """Returns the options without those that change images or splits."""
        return dataclasses.replace(self, resize=None, colour=None, holdout=0.0)

    @property
    def changes(self) -> ReadOptions:
        """The options that change images or splits, and no others."""
        return ReadOptions(self.resize, self.colour, self.holdout)

    @property
    def suffix(self) -> str:
        """The words that the options add to the data set's name, since they change its images or labels."""
        parts = [re.sub(r"\W+", "_", column) for column in (self.image_column, self.label_column) if column]
        parts += ["labelled"] if self.skip_unlabelled else []
        parts += [f"resize{self.resize}"] if self.resize else []
        parts += [self.colour] if self.colour else []
        parts += [f"holdout{self.holdout}"] if self.holdout else []
        return "".join(f"-{part}" for part in parts)


class Stored(NamedTuple):
    """An image as it is stored.

    described: its name in messages
    content: encoded bytes, a file, an array (height, width) or (height, width, channels), or a Pillow image
    """

    described: str
    content: bytes | Path | np.ndarray | Image


class Images(Protocol):
    """The images of a split in order, not decoded."""

    def __len__(self) -> int: ...

    def part(self, rows: np.ndarray) -> Images:
        """Returns the images at `rows`, int64 ascending, in a form that is cheap to send to another process."""

    def stored(self) -> Iterator[Stored]:
        """Yields the images in order. Raises `InputError` if one is missing."""


@dataclass(frozen=True)
class Labels:
    """The labels of a split as stored: numbers, texts, booleans or None; indices into `names` if there are names."""

    values: Sequence[Any] | np.ndarray
    names: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.values)


@dataclass(frozen=True)
class Split:
    """The images and labels of one split.

    labels: None if the source has no labels at all
    where: the split's name in messages
    """

    images: Images
    labels: Labels | None
    where: str


@dataclass(frozen=True)
class Contents:
    """The splits of a data set.

    splits: by 'train', 'test' and 'val'
    notes: what reading decided or left out, one sentence each
    """

    splits: dict[str, Split]
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Found:
    """A data set that listing found.

    files: the files that decide the content, by relative name; empty if the source has no files here
    read: reads the contents
    notes: what listing decided or left out, one sentence each
    has_columns: whether the options may choose columns
    of_image_files: whether each image is a file of its own
    """

    files: dict[str, Path]
    read: Callable[[ReadOptions], Contents]
    notes: tuple[str, ...] = ()
    has_columns: bool = False
    of_image_files: bool = False


def numbered(labels: dict[str, np.ndarray]) -> dict[str, Labels]:
    """Returns labels whose classes are the numbers in any split; -1 stays "no label".

    Labels that are not integers are returned as they are.
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
    """Images in files. Their paths name them in messages."""

    files: Sequence[Path]

    def __len__(self) -> int:
        return len(self.files)

    def part(self, rows: np.ndarray) -> FileImages:
        """Returns the images at `rows`."""
        return FileImages([self.files[row] for row in rows])

    def stored(self) -> Iterator[Stored]:
        """Yields each file."""
        return (Stored(str(file), file) for file in self.files)


@dataclass(frozen=True)
class ArrayImages:
    """The images at `rows` of an array (n, height, width) or (n, height, width, channels), uint8 or uint16.

    rows: int64; None for all images
    numbers: numbers of the array's images in the whole split, if they are not 0, 1, 2, ...
    """

    array: np.ndarray
    split: str
    rows: np.ndarray | None = None
    numbers: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.array) if self.rows is None else len(self.rows)

    def part(self, rows: np.ndarray) -> ArrayImages:
        """Returns the images at `rows`; the array is shared."""
        return ArrayImages(self.array, self.split, rows if self.rows is None else self.rows[rows], self.numbers)

    def ready(self, options: ReadOptions) -> np.ndarray | None:
        """Returns all images as a view (n, channels, height, width), if none must be decoded; else None."""
        pixels = self.array[..., None] if self.array.ndim == 3 else self.array
        plain = options.resize is None and options.colour is None and self.rows is None
        return (
            pixels.transpose(0, 3, 1, 2) if plain and pixels.dtype == np.uint8 and pixels.shape[3] in (1, 3) else None
        )

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles only the images at `rows`, not the whole array."""
        if self.rows is None:
            return ArrayImages, (self.array, self.split, None, self.numbers)
        numbers = self.rows if self.numbers is None else self.numbers[self.rows]
        return ArrayImages, (self.array[self.rows], self.split, np.arange(len(self.rows)), numbers)

    def stored(self) -> Iterator[Stored]:
        """Yields each image as an array."""
        for row in range(len(self.array)) if self.rows is None else self.rows:
            number = row if self.numbers is None else self.numbers[row]
            yield Stored(f"image {number} of the split '{self.split}'", self.array[row])
