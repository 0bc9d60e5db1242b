"""Labels from a file in place of the data's own: a CSV, Parquet or `.npy` file (`--labels`).

A table has a row for each training image. Its column `index`, if there is one, says which image; otherwise the rows are
in the order of the images. Another column has the labels: names of classes, or their numbers from 0. A `.npy` file has
whole numbers, (n,), or (n, columns) whose columns are named by number.
"""

from __future__ import annotations

import csv
import functools
import hashlib
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from rethinking import files
from rethinking.errors import InputError, nearest

INDEX = "index"
LABEL = "label"
UNNAMED = ("", "Unnamed: 0", "__index_level_0__")  # pandas' own index in files that it writes
ENDINGS = (".csv", ".parquet", ".npy")
PICKLES = (".pt", ".pth", ".pkl", ".pickle")

Labels = NDArray[np.int64]


def read_labels(path: Path, column: str | None, class_names: Sequence[str], images: int) -> Labels:
    """Returns the class numbers that a file gives to the training images, int64 (images,), which cannot be written to.

    column: which column has the labels; by default `label`, or the only one besides `index`

    A file that did not change is read once. Raises `InputError` where the file cannot be read or does not fit the
    images.
    """
    try:
        status = path.stat()
    except OSError:  # it is told in words
        return _read(path, (), column, tuple(class_names), images)
    return _read(path, (status.st_mtime_ns, status.st_size, status.st_ino), column, tuple(class_names), images)


@functools.lru_cache(maxsize=8)
def _read(path: Path, status: tuple[int, ...], column: str | None, class_names: tuple[str, ...], images: int) -> Labels:
    labels = _in_order(path, column, class_names, images)
    labels.setflags(write=False)
    return labels


def _in_order(path: Path, column: str | None, class_names: tuple[str, ...], images: int) -> Labels:
    columns = _columns(path)
    of_rows = [columns.pop(name) for name in (INDEX, *UNNAMED) if name in columns]
    labels = _classes(path, columns[_chosen(path, columns, column)], class_names)
    if len(labels) != images:
        raise InputError(
            f"{path} has {len(labels):,} labels, and the data {images:,} training images (after --holdout and"
            " --skip_unlabelled); give one for each"
        )
    if not of_rows:
        return labels
    try:
        places = np.array([int(_number(value)) for value in of_rows[0]], np.int64)
    except (ValueError, OverflowError):
        raise InputError(f"the column {INDEX} of {path} must have whole numbers") from None
    if not np.array_equal(np.sort(places), np.arange(images)):
        raise InputError(f"the column {INDEX} of {path} must have each of the numbers 0 to {images - 1:,} once")
    in_order = np.empty_like(labels)
    in_order[places] = labels
    return in_order


def _classes(path: Path, values: Sequence[Any], class_names: Sequence[str]) -> Labels:
    """Returns class numbers for labels that are all names, or all numbers.

    Raises `InputError` for other labels, and where the labels are both and mean different classes.
    """
    by_name = {name: label for label, name in enumerate(class_names)}
    by_number = {str(label): label for label in range(len(class_names))}
    texts = [str(value) for value in values]
    named = [by_name.get(text, by_name.get(text.strip())) for text in texts]
    numbered = [by_number.get(_number(value)) for value in values]
    readings = [reading for reading in (named, numbered) if None not in reading]
    if not readings:
        unknown = next(text for text, *known in zip(texts, named, numbered, strict=True) if known == [None, None])
        shown = ", ".join(class_names[:10]) + (", ..." if len(class_names) > 10 else "")
        raise InputError(f"{path} has the label '{unknown:.100}', which is no class of the data: {shown}")
    if len(readings) == 2 and readings[0] != readings[1]:
        raise InputError(
            f"the labels in {path} may be names of classes or their numbers from 0, which differ here; give the classes"
            " names that are no numbers, or write all labels as one of them"
        )
    return np.array(readings[0], np.int64)


def write_labels(path: Path, labels: Labels, true_labels: Labels, class_names: Sequence[str]) -> None:
    """Writes a table with the columns index, label and true_label, which `read_labels` reads.

    labels, true_labels: int64 (n,), class numbers

    Raises `InputError` for another ending than .csv, and `RunError` where the file cannot be written.
    """
    if path.suffix.lower() != ".csv":
        raise InputError(f"labels are written as a .csv file, not as {path.name}")
    with files.writing(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([INDEX, LABEL, "true_label"])
    for place, (label, true) in enumerate(zip(labels.tolist(), true_labels.tolist(), strict=True)):
        writer.writerow([place, class_names[label], class_names[true]])
    if path.exists() and path.read_bytes() != text.getvalue().encode():
        raise InputError(f"{path} exists and has other labels; choose another name, or move it away")
    files.write(path, text.getvalue(), durable=False)


def provide(labels: Iterable[Labels]) -> None:
    """Makes these labels known to this process by their digests, on a machine that lacks their files."""
    _provided.update((digest(one), one) for one in labels)


def provided(digest_of_labels: str | None) -> Labels | None:
    """Returns the labels of this digest if another machine gave them to this process, int64 (n,); else None."""
    return None if digest_of_labels is None else _provided.get(digest_of_labels)


_provided: dict[str, Labels] = {}


def digest(labels: Labels) -> str:
    """Returns the SHA-256 of labels, int64 (n,)."""
    return hashlib.sha256(labels.astype("<i8").tobytes()).hexdigest()


def _chosen(path: Path, columns: Mapping[str, Any], column: str | None) -> str:
    if column is not None:
        if column not in columns:
            raise InputError(f"{path} has no column '{column}'{nearest(column, columns)}; it has {', '.join(columns)}")
        return column
    if LABEL in columns:
        return LABEL
    if len(columns) != 1:
        there = ", ".join(columns) or "none"
        raise InputError(f"{path} has several columns or none: {there}; choose one with --labels_column")
    return next(iter(columns))


def _number(value: Any) -> str:
    """Returns a whole number as text, also from the form of a float, as pandas writes it; other values as they are."""
    text = str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip()
    return text[:-2] if text.endswith(".0") and text[:-2].isdecimal() else text


def _columns(path: Path) -> dict[str, Sequence[Any]]:
    """Returns the columns of a file by name. Raises `InputError` where it cannot be read."""
    ending = path.suffix.lower()
    if not path.is_file():
        raise InputError(f"there is no file {path} with labels")
    if ending in PICKLES:
        raise InputError(_convert(path))
    if ending not in ENDINGS:
        raise InputError(f"labels are read from {', '.join(ENDINGS)} files, not from {path.name}")
    try:
        return {".csv": _of_csv, ".parquet": _of_parquet, ".npy": _of_npy}[ending](path)
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from None
    except Exception as error:  # a file of another kind, or one that was cut
        raise InputError(f"{path} is no {ending} file with labels: {' '.join(str(error).split())[:200]}") from None


def _convert(path: Path) -> str:
    imported, load = {
        ".pt": ("pandas, torch", "torch.load(FILE, weights_only=False)"),
        ".pth": ("pandas, torch", "torch.load(FILE, weights_only=False)"),
        ".npy": ("numpy, pandas", "numpy.load(FILE, allow_pickle=True).tolist()"),
    }.get(path.suffix.lower(), ("pandas", "pandas.read_pickle(FILE)"))
    return (
        f"{path.name} is pickled, and unpickling it could run any code. If you trust it, convert it by these two lines:"
        f" `import {imported}; FILE = {str(path)!r}` and"
        f" `pandas.DataFrame({load}).to_csv({str(path.with_suffix('.csv'))!r}, index=False)`"
    )


def _of_csv(path: Path) -> dict[str, Sequence[Any]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.reader(file))
    if not rows or len({*rows[0]}) < len(rows[0]):
        raise InputError(f"{path} needs a first line with a name for each column")
    for number, row in enumerate(rows[1:], 2):
        if row and len(row) != len(rows[0]):
            raise InputError(f"line {number} of {path} has {len(row)} values for {len(rows[0])} columns")
    return {name.strip(): [row[place] for row in rows[1:] if row] for place, name in enumerate(rows[0])}


def _of_parquet(path: Path) -> dict[str, Sequence[Any]]:
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    return {name: table.column(name).to_pylist() for name in table.column_names}


def _of_npy(path: Path) -> dict[str, Sequence[Any]]:
    with path.open("rb") as file:
        version = npy.read_magic(file)
        read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        _, _, dtype = read_header(file)
    if dtype.hasobject:
        raise InputError(_convert(path))
    array: NDArray[Any] = np.load(path, allow_pickle=False)
    if array.dtype.kind not in "iuU" or array.ndim not in (1, 2):
        raise InputError(f"{path} must have whole numbers or texts of shape (n,) or (n, columns)")
    if array.ndim == 1:
        return {LABEL: array.tolist()}
    return {str(number): column.tolist() for number, column in enumerate(array.T)}
