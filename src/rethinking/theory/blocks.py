"""Large matrices as numbered blocks, in memory while there is room, and in files that outlive the process."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rethinking import files
from rethinking.errors import RunError

BLOCK = 1024  # rows of a block


def spans(size: int, block: int | None = None) -> list[tuple[int, int]]:
    """The first row of each block, and the row after its last, for a matrix with `size` rows."""
    block = block or BLOCK
    return [(start, min(start + block, size)) for start in range(0, size, block)]


def triangle(size: int) -> list[tuple[int, int]]:
    """The shapes of a lower triangle's block rows. Each row ends with the last column of its diagonal block."""
    return [(end - start, end) for start, end in spans(size)]


def nbytes(shapes: Sequence[tuple[int, int]]) -> int:
    """The bytes of float32 blocks with these shapes."""
    return sum(4 * rows * columns for rows, columns in shapes)


class Blocks:
    """Float32 blocks of the given shapes, set in order.

    folder: where each block is written when it is set, and where the next process finds it; None where memory holds
        all blocks
    held: bytes of blocks that also stay in memory; any other block is read each time it is used
    """

    def __init__(
        self,
        shapes: Sequence[tuple[int, int]],
        folder: Path | None = None,
        held: float = float("inf"),
        device: torch.device | str = "cpu",
    ) -> None:
        self.shapes = list(shapes)
        self.folder = folder
        self._device = device
        self._held: dict[int, Tensor] = {}
        self._room = held if folder is not None else float("inf")

    @property
    def finished(self) -> int:
        """The number of blocks that are set, from the first without a gap."""
        there = (index in self._held or self._on_disk(index) for index in range(len(self.shapes)))
        return next((index for index, found in enumerate(there) if not found), len(self.shapes))

    def __getitem__(self, index: int) -> Tensor:
        """The block, float32, on the device. After a change in place, set it again.

        Raises `RunError` for a damaged or missing file.
        """
        if index not in self._held:
            block = self._read(index)
            if not self._hold(index, block):
                return block
        return self._held[index]

    def __setitem__(self, index: int, block: Tensor) -> None:
        if self.folder is not None:
            self._write(index, block)
        self._hold(index, block)

    def rename(self, folder: Path) -> None:
        """Rename the folder of the files to `folder`."""
        assert self.folder is not None, "there are files"
        self.folder = self.folder.rename(folder)

    def discard(self) -> None:
        """Free the memory and delete the files."""
        self._held.clear()
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _hold(self, index: int, block: Tensor) -> bool:
        if index not in self._held:
            if block.nbytes > self._room:
                return False
            self._room -= block.nbytes
        self._held[index] = block
        return True

    def _path(self, index: int) -> Path:
        assert self.folder is not None, "all blocks are held"
        return self.folder / f"{index:04d}.npy"

    def _on_disk(self, index: int) -> bool:
        return self.folder is not None and self._path(index).exists()

    def _read(self, index: int) -> Tensor:
        path = self._path(index)
        try:
            block = np.load(
                path, mmap_mode="r", allow_pickle=False
            )  # a damaged header may claim any size: map, not read
            complete = block.shape == self.shapes[index] and block.dtype == np.float32
        except FileNotFoundError:
            complete = False
        except OSError as error:
            raise files.cannot_read(path, error) from None
        except Exception:  # NumPy raises many kinds of errors for damaged bytes
            complete = False
        if not complete:
            raise RunError(f"{path} is damaged or missing: delete its folder, and the same command makes it again")
        return torch.from_numpy(np.array(block)).to(self._device)

    def _write(self, index: int, block: Tensor) -> None:
        path = self._path(index)
        unfinished = path.with_name(f"{path.name}{files.UNFINISHED}")
        with files.writing(path):
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                with unfinished.open("wb") as file:
                    np.save(file, block.cpu().numpy(), allow_pickle=False)
                os.replace(unfinished, path)
            except OSError:
                unfinished.unlink(missing_ok=True)
                raise
