"""Keeps what a network made of every example in every epoch: its loss, its margin, and whether its class was right.

Scores of examples are made of it (see `rethinking.measures`).

A run's folder holds them in `examples/`, in files of `numpy.load`, each of shape (epochs, images):

    online_loss.npy, online_margin.npy, ...   training images, each in its batch, before the update
    train_loss.npy, ...                       training images, in evaluation mode after the epoch
    test_loss.npy, ...                        test images, in evaluation mode after the epoch

`Recorded` has the quantities and their types. Images stand in the order of the training subset, or of the test
set. A row is on the disk before the checkpoint that counts it, and the checkpoint has a checksum of all rows.
"""

from __future__ import annotations

import io
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.lib import format as npy
from numpy.typing import NDArray
from torch import Tensor

from rethinking import files
from rethinking.errors import RunError

FOLDER = "examples"
LARGEST = torch.finfo(torch.float16).max


class Examples(NamedTuple):
    """One pass of a network over a set of n images, on the CPU.

    loss: float16 (n,), cross-entropy in nats
    margin: float16 (n,), the logit of the label minus the largest other logit
    error_norm: float16 (n,), the Euclidean distance of the predicted probabilities from the one-hot label
    correct: bool (n,), whether the predicted class is the label
    """

    loss: Tensor
    margin: Tensor
    error_norm: Tensor
    correct: Tensor

    @classmethod
    def of(cls, logits: Tensor, labels: Tensor, rows: Tensor | None = None) -> Examples:
        """Measures logits (n, classes) against labels, int64 (n,).

        rows: int64 (n,), the place of each image; by default they are in order
        """
        by_class = logits.float().T.contiguous()  # ten times as fast as sums over the last dimension
        label = labels[None]
        own = by_class.gather(0, label)[0]
        others = by_class.scatter(0, label, -torch.inf).amax(dim=0)
        errors = by_class.softmax(dim=0).scatter_add_(0, label, -torch.ones_like(own)[None])
        measured = [
            (by_class.logsumexp(dim=0) - own).clamp(0, LARGEST).half(),
            (own - others).clamp(-LARGEST, LARGEST).half(),
            errors.square_().sum(dim=0).sqrt_().half(),
            logits.argmax(dim=1) == labels,
        ]
        if rows is not None:
            measured = [torch.empty_like(part).index_copy_(0, rows, part) for part in measured]
        return cls(*(part.cpu() for part in measured))


class Recorded(NamedTuple):
    """What a run kept of a set of n images. The arrays are mapped from the disk and can only be read.

    loss: float16 (epochs, n), cross-entropy in nats
    margin: float16 (epochs, n), the logit of the label minus the largest other logit
    error_norm: float16 (epochs, n), the Euclidean distance of the predicted probabilities from the one-hot label
    correct: bool (epochs, n), whether the predicted class is the label
    """

    loss: NDArray[np.float16]
    margin: NDArray[np.float16]
    error_norm: NDArray[np.float16]
    correct: NDArray[np.bool_]

    def until(self, epoch: int) -> Recorded:
        """Returns the rows of the epochs up to `epoch`, counted from 1."""
        return Recorded(self.loss[:epoch], self.margin[:epoch], self.error_norm[:epoch], self.correct[:epoch])


class ExampleFiles:
    """The folder `examples/` of a run. Call `restore` before `append`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / FOLDER
        self._checksums: dict[str, int] = {}

    def restore(self, epochs: int, checksum: str) -> None:
        """Goes on after the first `epochs` epochs. Raises `RunError` unless their rows have the given checksum.

        An empty checksum is one of a run that kept nothing.
        """
        self._checksums = {}
        if checksum:
            for path in self._paths():
                rows = _rows(path)
                if len(rows) < epochs:
                    raise damaged(path)
                self._checksums[path.name] = zlib.crc32(np.ascontiguousarray(rows[:epochs]).data)
            if self.checksum != checksum:
                raise damaged(self._folder)

    def append(self, epoch: int, passes: Mapping[str, Examples]) -> str:
        """Writes the rows of an epoch, counted from 1, onto the disk. Returns the checksum of all rows so far.

        passes: what was measured, by the first word of its files

        Raises `RunError` where that fails.
        """
        if passes:
            with files.writing(self._folder):
                self._folder.mkdir(exist_ok=True)
        for word, examples in passes.items():
            for quantity, values in examples._asdict().items():
                path = self._folder / f"{word}_{quantity}.npy"
                row = values.numpy()
                _write_row(path, row, epoch)
                self._checksums[path.name] = zlib.crc32(row.data, self._checksums.get(path.name, 0))
        return self.checksum

    @property
    def checksum(self) -> str:
        """The checksum of all rows; empty where there are none."""
        if not self._checksums:
            return ""
        return f"{zlib.crc32(repr(sorted(self._checksums.items())).encode()):08x}"

    def read(self, epochs: int) -> dict[str, Recorded]:
        """Returns the first `epochs` rows of each set, by the first word of its files.

        Raises `RunError` where a file cannot be read or lacks rows.
        """
        found: dict[str, dict[str, NDArray[np.generic]]] = {}
        for path in self._paths():
            word, _, quantity = path.stem.partition("_")
            rows = _rows(path)
            if quantity not in Recorded._fields or len(rows) < epochs:
                raise damaged(path)
            found.setdefault(word, {})[quantity] = rows[:epochs]
        for word, arrays in found.items():
            for quantity in Recorded._fields:
                if quantity not in arrays:
                    raise damaged(self._folder / f"{word}_{quantity}.npy")
        return {word: Recorded(**arrays) for word, arrays in found.items()}  # type: ignore[arg-type]

    def _paths(self) -> list[Path]:
        return sorted(self._folder.glob("*.npy"))


def damaged(path: Path) -> RunError:
    """Returns the error for a file of examples that lacks rows or has others than it was written with."""
    return RunError(
        f"{path} is damaged or missing: move the run's folder away, and the same command starts the run again"
    )


def _rows(path: Path) -> NDArray[np.generic]:
    """Maps the rows of a file. Raises `RunError` where that is not possible."""
    try:
        rows: NDArray[np.generic] = np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError as error:
        raise files.cannot_read(path, error) from None
    except (ValueError, EOFError):  # the header or the rows are cut
        raise damaged(path) from None
    if rows.ndim != 2:
        raise damaged(path)
    return rows


def _write_row(path: Path, row: NDArray[np.generic], epoch: int) -> None:
    """Writes the row of `epoch` and a header that counts it. What follows the row is lost.

    NumPy pads headers so that they keep their length while the first dimension grows.
    """
    header = io.BytesIO()
    described = {"descr": npy.dtype_to_descr(row.dtype), "fortran_order": False, "shape": (epoch, *row.shape)}
    npy.write_array_header_1_0(header, described)
    start = header.tell() + (epoch - 1) * row.nbytes
    with files.writing(path), os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+b") as file:
        file.seek(start)
        file.write(row.data)
        file.seek(0)
        file.write(header.getvalue())
        file.flush()
        file.truncate(start + row.nbytes)  # last: at each moment the file has the rows that its header counts
        os.fsync(file.fileno())
