"""Arrays in mapped files: they may exceed the memory, and vanish with their last user."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from rethinking.data import mapped

ALL_MEMORY = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


@pytest.mark.parametrize("array", [np.arange(24, dtype=np.int64).reshape(2, 3, 4), np.zeros((0, 3, 2, 2), np.uint8)])
@pytest.mark.parametrize("order", ["C", "F"])
def test_a_saved_array_is_read_back_and_its_file_does_not_change(tmp_path: Path, array, order):
    np.save(tmp_path / "array.npy", np.asarray(array, order=order))
    before = (tmp_path / "array.npy").read_bytes()
    read = mapped.read(tmp_path / "array.npy")
    assert read.dtype == array.dtype
    assert np.array_equal(read, array)
    torch.from_numpy(read).zero_()
    assert not read.any()
    assert (tmp_path / "array.npy").read_bytes() == before


def test_a_file_larger_than_the_memory_is_read(tmp_path: Path):
    """The file is sparse and takes no disk space."""
    images = ALL_MEMORY * 2 // 3072
    written = np.lib.format.open_memmap(tmp_path / "large.npy", "w+", np.uint8, (images, 3, 32, 32))
    written[-1] = 7
    del written
    read = torch.from_numpy(mapped.read(tmp_path / "large.npy"))
    assert read.nbytes > ALL_MEMORY
    assert read[torch.tensor([0, images // 2, images - 1]), 0, 0, 0].tolist() == [0, 0, 7]


def test_a_tensor_to_be_filled_leaves_no_file(tmp_path: Path):
    made = mapped.empty((5, 3), torch.float32, tmp_path / "new" / "folder")
    other = mapped.empty((5, 3), torch.float32, tmp_path / "new" / "folder")
    made.copy_(torch.arange(15.0).view(5, 3))
    other.zero_()
    assert torch.equal(made, torch.arange(15.0).view(5, 3))
    assert not [*(tmp_path / "new" / "folder").iterdir()]
    assert mapped.empty((0, 3), torch.int32, tmp_path).shape == (0, 3)


FULL = """
import resource, sys, torch
from pathlib import Path
from rethinking.data import mapped
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
mapped.empty((1 << 19,), torch.uint8, Path(sys.argv[1]))
try:
    mapped.empty((1 << 21,), torch.uint8, Path(sys.argv[1])).zero_()
except RuntimeError as error:
    print(type(error).__name__, error)
"""


def test_a_full_disk_is_reported_before_anything_is_written(tmp_path: Path):
    """Writing into a mapping on a full disk would kill the process."""
    ran = subprocess.run([sys.executable, "-c", FULL, str(tmp_path)], capture_output=True, text=True, check=True)
    assert ran.stdout.startswith(f"RunError cannot keep 0.002 GiB of drawn images in {tmp_path}: ")
    assert "set RETHINKING_CACHE to a folder on a larger disk" in ran.stdout
