"""The built-in digits: scikit-learn's 1,797 handwritten digits of 8x8 pixels, enlarged to 28x28.

Every fifth image of each class is a test image.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np

from rethinking.data.readers.contents import ArrayImages, Contents, Found, Labels, ReadOptions, Split


def find() -> Found:
    """Returns the built-in data set."""
    return Found({}, _read)


def _read(_: ReadOptions) -> Contents:
    pixels, labels = _stored()
    enlarge = _bilinear(8, 28)
    images = np.rint(enlarge @ (pixels * (255 / 16)) @ enlarge.T).astype(np.uint8)
    rank = np.empty_like(labels)  # position of an image among those of its class
    for digit in range(10):
        members = np.flatnonzero(labels == digit)
        rank[members] = np.arange(len(members))
    splits = {}
    for split, rows in (("train", rank % 5 != 4), ("test", rank % 5 == 4)):
        splits[split] = Split(ArrayImages(images[rows], split), Labels(labels[rows]), f"the split '{split}'")
    return Contents(splits)


def _stored() -> tuple[np.ndarray, np.ndarray]:
    """Returns pixels 0-16, float64 (1797, 8, 8), and labels, int64.

    They are read from scikit-learn's file, since importing scikit-learn takes a second.
    """
    spec = find_spec("sklearn")
    folders = (spec.submodule_search_locations if spec else None) or ()
    files = [file for folder in folders if (file := Path(folder, "datasets", "data", "digits.csv.gz")).is_file()]
    if not files:  # another version may keep the file elsewhere
        from sklearn.datasets import load_digits

        bunch = load_digits()
        return bunch.images, bunch.target.astype(np.int64)
    rows = np.loadtxt(files[0], delimiter=",")
    return rows[:, :-1].reshape(-1, 8, 8), rows[:, -1].astype(np.int64)


def _bilinear(size: int, enlarged: int) -> np.ndarray:
    """Returns the (enlarged, size) matrix of bilinear interpolation along one axis, with repeated edges."""
    position = np.clip((np.arange(enlarged) + 0.5) * size / enlarged - 0.5, 0, size - 1)
    return np.maximum(0.0, 1.0 - np.abs(position[:, None] - np.arange(size)[None, :]))
