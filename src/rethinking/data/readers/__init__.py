"""The readers of image data, one file per form. `find` recognizes the form of a folder or file by its content."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path

from rethinking.data.readers import cifar, idx, image_folder, numpy_files, tables
from rethinking.data.readers.contents import Found
from rethinking.errors import InputError

ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar")
MOST_INNER = 50  # with more inner folders, `find` does not look for published files in them


def find(path: Path, configuration: str | None = None) -> Found:
    """Finds the data set in a folder or file.

    configuration: the configuration of a folder of tables, as on the Hub

    Raises `InputError` if the content has none of the known forms, or more than one.
    """
    if path.is_file():
        return _find_file(path)
    names = _names(path)
    published = _published(path, names)
    found = tables.find(path, configuration, only_named=True) if published is None else None
    published = published if published or found else _published_below(path)
    if published is not None and configuration is not None:
        raise InputError(f"{path} has no configurations; leave ':{configuration}' out")
    if published or found:
        return published or found  # type: ignore[return-value]
    tree = image_folder.listed(path)
    if configuration is None and tree.has_class_folders:  # class folders come before arrays and tables
        found = image_folder.found_in(tree)
    else:
        found = _arrays(path, names) or tables.find(path, configuration)
        found = found or (image_folder.found_in(tree) if configuration is None else None)
    if found is None:
        raise InputError(
            f"cannot read {path} as a data set: it has neither image files in class folders nor Parquet, Arrow, .npz,"
            f" IDX or CIFAR files, nor .npy files named {numpy_files.NAMES_TAKEN}"
        )
    return found


def _find_file(file: Path) -> Found:
    ending = file.suffix.lower()
    if ending == ".npz":
        return numpy_files.find_npz(file)
    if ending in tables.ENDINGS:
        return tables.find_file(file)
    if ending in ARCHIVES and not idx.NAMED.fullmatch(file.name):
        raise InputError(f"{file} is an archive; unpack it, and give the folder")
    raise InputError(f"{file} is no data set; give its folder, or an .npz, .parquet or .arrow file")


def _names(folder: Path) -> frozenset[str]:
    try:
        return frozenset(os.listdir(folder))
    except OSError as error:
        raise InputError(f"cannot read {folder}: {error.strerror}") from None


def _published(folder: Path, names: frozenset[str]) -> Found | None:
    """Finds a data set in files as the authors of CIFAR and MNIST publish them, or as `datasets` saves them."""
    return cifar.find(folder, names) or tables.find_saved(folder, names) or idx.find(folder, names)


def _arrays(folder: Path, names: frozenset[str]) -> Found | None:
    """Finds the one `.npz` file of a folder, or its `.npy` files."""
    archives = sorted(name for name in names if name.lower().endswith(".npz"))
    if len(archives) > 1:
        raise InputError(f"{folder} has {len(archives)} .npz files; name one, such as --dataset {folder / archives[0]}")
    return numpy_files.find_npz(folder / archives[0]) if archives else numpy_files.find_npy(folder, names)


def _published_below(folder: Path) -> Found | None:
    """Finds the one published data set in the inner folders, as in torchvision's root (`MNIST/raw`)."""
    found = []
    for inner in _inner_folders(folder):
        published = _published(inner, _names(inner))
        if published is not None:
            found.append((inner, published))
    if len(found) > 1:
        listing = ", ".join(str(inner) for inner, _ in found)
        raise InputError(f"{folder} holds {len(found)} data sets; give one as --dataset: {listing}")
    if not found:
        return None
    inner, published = found[0]
    return dataclasses.replace(published, notes=(f"read from {inner.relative_to(folder)}/", *published.notes))


def _inner_folders(folder: Path) -> Iterator[Path]:
    """Yields the visible inner folders, and `raw` in each. Yields none if there are many: those are classes."""
    inner = sorted(folder / name for name in _names(folder) if not name.startswith("."))
    inner = [path for path in inner[: 10 * MOST_INNER] if os.path.isdir(path)]
    if len(inner) > MOST_INNER:
        return
    for path in inner:
        yield path
        if os.path.isdir(path / "raw"):
            yield path / "raw"
