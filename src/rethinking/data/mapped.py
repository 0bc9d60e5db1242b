"""Arrays in files that are mapped into memory: the system reads what is used, and drops it where memory is short.

They may be larger than the machine's memory.
"""

from __future__ import annotations

import math
import mmap
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rethinking.errors import RunError

if TYPE_CHECKING:
    import torch

NORESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000) if sys.platform == "linux" else 0  # Python has it from 3.13 on


def read(path: Path) -> np.ndarray:
    """The array of a `.npy` file. It can be written to, as PyTorch wants it; the file stays as it is.

    NumPy's own way of mapping, "c", is refused by Linux where the file is larger than the memory of the machine.
    """
    if not hasattr(mmap, "MAP_PRIVATE"):  # Windows
        writable: np.ndarray = np.load(path, mmap_mode="c")
        return writable
    found = np.load(path, mmap_mode="r")
    if not found.nbytes:
        return np.array(found)
    with path.open("rb") as file:
        whole = mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE | NORESERVE)
    return np.ndarray(found.shape, found.dtype, whole, found.offset, found.strides)


def empty(shape: Sequence[int], dtype: torch.dtype, folder: Path) -> torch.Tensor:
    """A tensor to be filled, in a file of `folder` that has no name and is gone with the tensor.

    Raises `RunError` where the disk has no room for all of it. It is reserved here: to write into the mapping of a full
    disk would end the process.
    """
    import torch  # which reading does without

    size = math.prod(shape) * dtype.itemsize
    if not size:
        return torch.empty(tuple(shape), dtype=dtype)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            _reserve(file.fileno(), size)
            whole = mmap.mmap(file.fileno(), size)
    except OSError as error:
        raise RunError(
            f"cannot keep {size / 2**30:.2g} GiB of drawn images in {folder}: {error.strerror or error}; set"
            " RETHINKING_CACHE to a folder on a larger disk"
        ) from None
    return torch.frombuffer(whole, dtype=dtype).view(tuple(shape))


def _reserve(file: int, size: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file, 0, size)
        return
    zeros = bytes(1 << 20)  # macOS
    for start in range(0, size, len(zeros)):
        os.write(file, zeros[: size - start])
