"""NumPy's files: one `.npz`, as Keras and MedMNIST publish it, or a folder of `.npy` files with the same names."""

from __future__ import annotations

import contextlib
import functools
import math
import os
import re
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import numpy as np

from rethinking.data.readers.contents import (
    LAYOUTS,
    ArrayImages,
    Contents,
    Found,
    ReadOptions,
    Split,
    numbered,
    split_of,
)
from rethinking.errors import InputError

IMAGES = ("images", "image", "imgs", "img", "data", "x")
LABELS = ("labels", "label", "targets", "target", "y")
NAMES_TAKEN = "x_train, y_train, x_test, y_test (or train_images, train_labels, ...)"

Shape = tuple[int, ...]


class NoPairsError(InputError):
    """The names of the arrays do not say which are images and which are labels."""


def find_npz(file: Path) -> Found:
    """Returns the data set in an `.npz` file."""
    return Found({file.name: file}, functools.partial(_read_npz, file))


def find_npy(folder: Path, names: frozenset[str]) -> Found | None:
    """Finds pairs of image and label arrays among a folder's files of these names; else returns None."""
    files = {name[:-4]: folder / name for name in names if name.lower().endswith(".npy")}
    if not files:
        return None
    try:
        pairs = _pairs(files, str(folder))
    except NoPairsError:
        return None
    used = {file.name: file for pair in pairs.values() for file in (files[pair[0]], files[pair[1]])}
    return Found(used, functools.partial(_read_npy, folder, files, pairs))


def _pairs(names: dict[str, Path] | list[str], where: str) -> dict[str, tuple[str, str]]:
    """Returns by split the names of its images and labels. Raises `InputError` if the training set has none."""
    found: dict[tuple[str, str], str] = {}
    for name in sorted(names):
        words = re.split(r"[-_. ]", name.lower())
        splits = {split_of(word) or "" for word in words} - {""}
        kinds = {kind for kind, known in (("images", IMAGES), ("labels", LABELS)) if set(words) & set(known)}
        if len(splits) > 1 or len(kinds) != 1:
            continue
        key = next(iter(splits), "train"), kinds.pop()
        if key in found:
            raise InputError(f"{where} has {found[key]} and {name}, which are both {key[1]} of the split '{key[0]}'")
        found[key] = name
    pairs = {}
    for split, _ in found:
        if (split, "images") in found and (split, "labels") in found:
            pairs[split] = found[split, "images"], found[split, "labels"]
    if "train" not in pairs:
        raise NoPairsError(
            f"{where} has no arrays named {NAMES_TAKEN}; its names are {', '.join(sorted(names)) or 'none'}"
        )
    return pairs


def _read_npz(file: Path, _: ReadOptions) -> Contents:
    with _errors_of(file), zipfile.ZipFile(file) as archive:
        members = {info.filename[:-4]: info for info in archive.infolist() if info.filename.endswith(".npy")}
        pairs = _pairs(list(members), str(file))
        used = [members[name] for pair in pairs.values() for name in pair]
        unpacked = sum(info.file_size for info in used)
        if unpacked > _memory() / 2:
            raise InputError(f"{file} would unpack to {unpacked / 2**30:,.1f} GiB, more than half of the memory")

        def shape(name: str) -> Shape:
            with archive.open(members[name]) as member:
                declared, dtype = _header(member, f"{name} of {file}")
                if math.prod(declared) * dtype.itemsize > members[name].file_size:
                    raise InputError(f"{name} of {file} declares {declared}, more than it holds")
                return declared

        def array(name: str) -> np.ndarray:
            with archive.open(members[name]) as member:
                return np.lib.format.read_array(member, allow_pickle=False)

        return _contents(pairs, shape, array, str(file))


def _memory() -> int:
    """Returns the machine's memory in bytes."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _read_npy(folder: Path, files: dict[str, Path], pairs: dict[str, tuple[str, str]], _: ReadOptions) -> Contents:
    def shape(name: str) -> Shape:
        with _errors_of(files[name]), files[name].open("rb") as file:
            return _header(file, str(files[name]))[0]

    def array(name: str) -> np.ndarray:
        with _errors_of(files[name]):
            found: np.ndarray = np.load(files[name], mmap_mode="r", allow_pickle=False)
            return found

    return _contents(pairs, shape, array, str(folder))


def _header(file: IO[bytes], where: str) -> tuple[Shape, np.dtype]:
    """Returns shape and type before anything is unpacked. Raises `InputError` for objects, which would be pickled."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    if dtype.hasobject:
        raise InputError(f"{where} holds Python objects, which are never unpickled; save plain numbers")
    return shape, dtype


def _contents(
    pairs: dict[str, tuple[str, str]],
    shape: Callable[[str], Shape],
    array: Callable[[str], np.ndarray],
    where: str,
) -> Contents:
    for images, labels in pairs.values():
        if shape(images)[:1] != shape(labels)[:1]:
            raise InputError(f"{where}: {images} is {shape(images)}, but {labels} is {shape(labels)}")
    labels_of = numbered({split: _labels(array(labels), labels, where) for split, (_, labels) in pairs.items()})
    splits = {}
    for split, (images, _) in pairs.items():
        pixels = _pixels(array(images), images, where)
        splits[split] = Split(ArrayImages(pixels, split), labels_of[split], f"the split '{split}'")
    return Contents(splits)


def _pixels(array: np.ndarray, name: str, where: str) -> np.ndarray:
    """Returns the images as (n, height, width) or (n, height, width, channels)."""
    if array.ndim == 4 and array.shape[3] == 1:
        array = array[..., 0]
    if array.dtype != np.uint8 and (array.dtype != np.uint16 or array.ndim != 3):  # 16-bit images are grey
        raise InputError(f"{where}: {name} is {array.dtype}; images must be uint8, from 0 to 255")
    if array.ndim == 4 and array.shape[3] not in (1, 3, 4) and array.shape[1] in (1, 3):
        array = array.transpose(0, 2, 3, 1)
    if array.ndim == 3 or (array.ndim == 4 and array.shape[3] in (1, 3, 4)):
        return array
    raise InputError(f"{where}: {name} is {array.shape}; images must be {LAYOUTS}")


def _labels(array: np.ndarray, name: str, where: str) -> np.ndarray:
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1 or array.dtype.kind not in "biufSU":
        raise InputError(f"{where}: {name} is {array.dtype} {array.shape}; labels must be one number or text per image")
    return array


@contextlib.contextmanager
def _errors_of(file: Path) -> Iterator[None]:
    """Turns what NumPy and zipfile raise for a damaged file into an `InputError` of one line."""
    try:
        yield
    except InputError:
        raise
    except MemoryError:
        raise InputError(f"{file} does not fit into memory") from None
    except OSError as error:
        raise InputError(f"cannot read {file}: {error.strerror or error}") from None
    except Exception as error:  # NumPy parses headers as Python, which raises nearly every type
        raise InputError(f"{file} is damaged: {' '.join(str(error).split())}") from None
