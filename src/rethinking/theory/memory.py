"""The memory and disk that a kernel machine needs, planned before it begins."""

from __future__ import annotations

import contextlib
import math
import resource
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from rethinking.errors import InputError
from rethinking.linear import linear
from rethinking.theory import blocks
from rethinking.theory.blocks import nbytes, spans, triangle
from rethinking.theory.convolutional import CHUNK
from rethinking.theory.gabor import IMAGES as GABOR_IMAGES
from rethinking.theory.kernel_machine import KernelMachineConfig
from rethinking.theory.search import BANDWIDTHS
from rethinking.theory.search import IMAGES as SEARCHED
from rethinking.training.memory import LIBRARIES, SPARE, free_memory

KEEP_FROM = 20_000  # points; with fewer, or on a GPU, the factor is computed again in less than half a minute
GIB = 2**30


@dataclass(frozen=True)
class Plan:
    """Where Cholesky's factor and the sums over filters are held.

    held_factor, held_sums: bytes of each in memory
    keep_factor, keep_sums: whether each is written to disk
    said: the plan in words
    memory: bytes of memory in total
    """

    held_factor: float
    held_sums: float
    keep_factor: bool
    keep_sums: bool
    said: str
    memory: float


def plan(
    config: KernelMachineConfig, train: tuple[int, ...], test: int, factor_folder: Path, sums_folder: Path
) -> Plan:
    """Plan memory and disk for uint8 training images of shape `train` and `test` test images.

    Matrices that already lie in the folders are used in any case, however full the disk is.

    Raises `InputError` where memory and disk cannot hold the matrices.
    """
    images, values = train[0], math.prod(train[1:])
    conv = config.features == "random_conv"
    factor = nbytes(triangle(images))
    sums = factor + nbytes([(end - start, images) for start, end in spans(test)]) if conv else 0
    rows = 4 * min(blocks.BLOCK, images) * images
    if conv:
        features = config.convolution.features(train[1:]) * min(CHUNK, config.filters or CHUNK)
        working = max(5 * features * (images + test), 4 * rows)
    else:
        features = values if config.features == "pixels" else 4 * values
        working = 4 * features * (5 * images + test) + 4 * rows
        if config.features == "gabor":
            working += 1024 * values * GABOR_IMAGES  # the filtered images
    if config.solution != "minimum_norm":
        working += 4 * 8 * images**2  # dense float64 matrices
    least = LIBRARIES + (images + test) * values + working
    searches_bandwidth = config.bandwidth == "search" and config.kernel == "gaussian"
    searched = min(images, SEARCHED) if config.l2 == "search" or searches_bandwidth else 0
    searching = 4 * 4 * searched**2  # freed before the factor is made
    limit = config.memory_limit * GIB if config.memory_limit else free_memory(config.device) * SPARE
    if least + max(rows, searching) > limit:
        raise InputError(
            f"this takes at least {(least + max(rows, searching)) / GIB:.1f} GiB of memory, and {limit / GIB:.1f} GiB"
            f" are {'allowed' if config.memory_limit else 'free'}; take fewer images or raise --memory_limit"
        )
    fits = least + max(factor, searching) + sums <= limit
    spare = limit - least
    held_factor = factor if fits else spare * factor / (factor + sums)
    held_sums = sums if fits else min(spare * sums / (factor + sums), spare - searching)
    there = [_bytes_in(folder) for folder in (factor_folder, sums_folder)]
    disk = max(0, factor + 2 * sums - sum(there))  # twice: the sums before a chunk and after it
    free = _free_disk(sums_folder)
    if not fits and disk > free:
        raise InputError(
            f"this takes {(least + factor + sums) / GIB:.1f} GiB of memory, of which {limit / GIB:.1f} are available,"
            f" or {disk / GIB:.1f} GiB on the disk of {sums_folder.parent}, of which {free / GIB:.1f} are free; take"
            " fewer images or free disk space"
        )
    long = images >= KEEP_FROM and config.device == "cpu"
    keep_factor = not fits or there[0] > 0 or (long and disk <= free)
    keep_sums = not fits or there[1] > 0 or disk <= free
    if not fits:
        said = f"{(factor + sums) / GIB:.1f} GiB of matrices, {spare / GIB:.1f} of them in memory, the rest on disk"
    elif keep_factor:
        said = f"{(factor + sums) / GIB:.1f} GiB of matrices in memory, kept on disk as they grow"
    else:
        said = f"{(factor + sums) / GIB:.2g} GiB of matrices in memory"
        if long or not keep_sums:
            said += f", not kept on the way: the disk has {free / GIB:.1f} of {disk / GIB:.1f} GiB free"
    memory = least + max(held_factor, searching) + held_sums
    return Plan(held_factor, held_sums, keep_factor, keep_sums, said, memory)


def operations(config: KernelMachineConfig, train: tuple[int, ...], test: int, summed: int = 0) -> float:
    """Floating-point operations in units of a matrix product's, without those of the `summed` filters."""
    images, values = train[0], math.prod(train[1:])
    solving = images**3 / 3
    if config.solution != "minimum_norm":
        solving *= 8  # float64, and no symmetric matrices
    if config.features != "random_conv":
        features = values if config.features == "pixels" else 4 * values
        search = len(BANDWIDTHS) * SEARCHED**3 / 3 if config.bandwidth == "search" else 0.0
        return solving + search + features * (3 * images**2 + 2 * images * test)
    filters = max(0, (config.filters or 0) - summed)
    options = config.convolution
    places = (train[2] - options.patch_size + 1) * (train[3] - options.patch_size + 1)
    responses = 2.0 * (images + test) * places * train[1] * options.patch_size**2 * filters * (1 + options.mirror)
    # Threshold and pooling take about twice as long as the responses' products.
    return solving + 3 * responses + options.features(train[1:]) * filters * (images**2 + 2.0 * images * test)


def product_rate(device: torch.device, size: int = 6000) -> float:
    """The speed of a float32 matrix product in operations per second, the best of three."""
    left, right = torch.randn(2, size, size, device=device)
    best = math.inf
    for _ in range(3):
        began = time.perf_counter()
        float(linear(left, right)[0, 0])
        best = min(best, time.perf_counter() - began)
    return 2 * size**3 / best


def forget_peak(device: str = "cpu") -> None:
    """Reset the peak of memory: of CUDA, or of this process where the system supports it."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def peak(device: str = "cpu") -> float:
    """The peak of memory since `forget_peak`, in bytes: CUDA's or this process's."""
    if device == "cuda":
        return float(torch.cuda.max_memory_allocated())
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        return 1024.0 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration, ValueError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1.0 if sys.platform == "darwin" else 1024.0)


def _bytes_in(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*.npy"))


def _free_disk(folder: Path) -> float:
    there = next(parent for parent in (folder, *folder.absolute().parents) if parent.is_dir())
    return shutil.disk_usage(there).free
