"""Arrays in memory-mapped files, which may be larger than the machine's memory.

The operating system reads the parts that are used, and drops them if memory is short.
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

NORESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000) if sys.platform == "linux" else 0  # in Python from 3.13 on


def read(path: Path) -> np.ndarray:
    """Maps the array of a `.npy` file. The array is writable, as PyTorch expects; the file never changes.

    NumPy's mode "c" would map it too, but Linux refuses that mode if the file is larger than the machine's memory.
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
    """Returns an uninitialized tensor in an unnamed file in `folder`.

    Raises `RunError` if the disk has no room for all of it. The room is reserved here, because a write into the mapping
    of a full disk would end the process.
    """
    import torch  # `read` does not need it

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
