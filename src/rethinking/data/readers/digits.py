"""The built-in digits: scikit-learn's 1,797 handwritten ones, 8x8, enlarged to 28x28; every fifth of a class is for
testing."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np

from rethinking.data.readers.contents import ArrayImages, Contents, Found, Labels, ReadOptions, Split


def find() -> Found:
    return Found({}, _read)


def _read(_: ReadOptions) -> Contents:
    pixels, labels = _stored()
    enlarge = _bilinear(8, 28)
    images = np.rint(enlarge @ (pixels * (255 / 16)) @ enlarge.T).astype(np.uint8)
    rank = np.empty_like(labels)  # a digit's position among those of its class
    for digit in range(10):
        members = np.flatnonzero(labels == digit)
        rank[members] = np.arange(len(members))
    splits = {}
    for split, rows in (("train", rank % 5 != 4), ("test", rank % 5 == 4)):
        splits[split] = Split(ArrayImages(images[rows], split), Labels(labels[rows]), f"the split '{split}'")
    return Contents(splits)


def _stored() -> tuple[np.ndarray, np.ndarray]:
    """Pixels 0-16, float64 (1797, 8, 8), and labels, int64; from a file, since the import takes a second."""
    spec = find_spec("sklearn")
    folders = (spec.submodule_search_locations if spec else None) or ()
    files = [file for folder in folders if (file := Path(folder, "datasets", "data", "digits.csv.gz")).is_file()]
    if not files:  # it may lie elsewhere in another version
        from sklearn.datasets import load_digits

        bunch = load_digits()
        return bunch.images, bunch.target.astype(np.int64)
    rows = np.loadtxt(files[0], delimiter=",")
    return rows[:, :-1].reshape(-1, 8, 8), rows[:, -1].astype(np.int64)


def _bilinear(size: int, enlarged: int) -> np.ndarray:
    """The (enlarged, size) matrix of bilinear interpolation along one axis, edges repeated."""
    position = np.clip((np.arange(enlarged) + 0.5) * size / enlarged - 0.5, 0, size - 1)
    return np.maximum(0.0, 1.0 - np.abs(position[:, None] - np.arange(size)[None, :]))
