"""The form in which every reader returns data: images and labels as arrays, class names and a fingerprint."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

SHOWN_CLASSES = 10
CHUNK = 64  # images that are hashed at once
NO_TEST_SET = (
    "no test set: test accuracy and generalization gap are not measured; --holdout 0.2 makes a test set from a fifth of"
    " the training images"
)


@dataclass(frozen=True)
class ImageSet:
    """One split: `images` uint8 (n, channels, height, width), `labels` int64 (n,)."""

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class ImageData:
    """A data set: its splits, class names and SHA-256 fingerprint.

    test: None if the source has no test set
    origin: where the data set was read from, in words
    notes: what the reader decided or left out, one sentence each
    """

    name: str
    class_names: tuple[str, ...]
    fingerprint: str
    train: ImageSet
    test: ImageSet | None
    origin: str = ""
    notes: tuple[str, ...] = ()

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        channels, height, width = self.train.images.shape[1:]
        return channels, height, width

    def described(self) -> list[str]:
        """Returns what a person should know about the data before training, one line each."""
        test = f"{len(self.test):,} test images" if self.test else "no test images"
        names = ", ".join(self.class_names[:SHOWN_CLASSES])
        more = ", ..." if len(self.class_names) > SHOWN_CLASSES else ""
        classes = f"{len(self.class_names):,} classes ({names}{more})"
        origin = f", from {self.origin}" if self.origin else ""
        return [
            f"data: {self.name}{origin}",
            f"{len(self.train):,} training and {test}, {classes}, {shape_in_words(self.image_shape)}",
            *self.notes,
            *([] if self.test else [NO_TEST_SET]),
        ]


def fingerprint(splits: Mapping[str, ImageSet], class_names: Sequence[str]) -> str:
    """Returns the SHA-256 of class names, images and labels."""
    digest = hashlib.sha256(json.dumps(list(class_names)).encode())
    for name, split in splits.items():
        digest.update(f"{name} {split.images.shape}".encode())
        for start in range(0, len(split), CHUNK):  # an array of another layout is copied chunk by chunk
            digest.update(np.ascontiguousarray(split.images[start : start + CHUNK]).data)
        digest.update(split.labels.data)
    return digest.hexdigest()


def shape_in_words(shape: tuple[int, ...]) -> str:
    """Returns the shape (channels, height, width) of an image in words, such as '32x32 RGB'."""
    channels, height, width = shape
    return f"{width}x{height} {'grey' if channels == 1 else 'RGB'}"
