"""CIFAR-10 and CIFAR-100 as published, in the Python version (pickles) or the binary version."""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Any

import numpy as np

from rethinking.data.readers import pickles
from rethinking.data.readers.contents import ArrayImages, Contents, Found, Labels, ReadOptions, Split, numbered
from rethinking.errors import InputError

SHAPE = (3, 32, 32)
VALUES = 3072  # bytes of an image: 32x32 red, then green, then blue
PROTOCOL = b"\x80"  # a pickle's first byte, from protocol 2 on


def find(folder: Path, names: frozenset[str]) -> Found | None:
    """Finds the data set in a folder whose files have these names; else returns None.

    Raises `InputError` if a batch is missing.
    """
    if batches := [name for name in names if re.fullmatch(r"data_batch_\d+", name)]:
        return _found(folder, names, _in_order(folder, batches, ""), "test_batch", "batches.meta", _read_pickles)
    if {"train", "meta"} <= names and _is_pickle(folder / "train"):
        return _found(folder, names, ["train"], "test", "meta", _read_pickles)
    if batches := [name for name in names if re.fullmatch(r"data_batch_\d+\.bin", name)]:
        ordered = _in_order(folder, batches, ".bin")
        return _found(folder, names, ordered, "test_batch.bin", "batches.meta.txt", _read_binary)
    if "train.bin" in names and names & {"test.bin", "fine_label_names.txt"}:
        return _found(folder, names, ["train.bin"], "test.bin", "fine_label_names.txt", _read_binary)
    return None


def _in_order(folder: Path, batches: list[str], ending: str) -> list[str]:
    """Returns data_batch_1, data_batch_2, ... in order. Raises `InputError` if one is missing."""
    numbers = {int(re.findall(r"\d+", name)[0]) for name in batches}
    missing = sorted({*range(1, max(5, *numbers) + 1)} - numbers)
    if missing:
        raise InputError(
            f"{folder} lacks {', '.join(f'data_batch_{number}{ending}' for number in missing)} of CIFAR-10"
        )
    return [f"data_batch_{number}{ending}" for number in sorted(numbers)]


def _is_pickle(file: Path) -> bool:
    if not file.is_file():
        return False
    try:
        with file.open("rb") as opened:
            return opened.read(1) == PROTOCOL
    except OSError as error:
        raise InputError(f"cannot read {file}: {error.strerror}") from None


def _found(folder: Path, names: frozenset[str], train: list[str], test: str, meta: str, read: Any) -> Found:
    splits = {"train": train} | ({"test": [test]} if test in names else {})
    used = [*train, *splits.get("test", []), *([meta] if meta in names else [])]
    return Found(
        {name: folder / name for name in used},
        functools.partial(read, folder, splits, folder / meta if meta in names else None),
    )


def _read_pickles(folder: Path, splits: dict[str, list[str]], meta: Path | None, _: ReadOptions) -> Contents:
    names = None
    if meta is not None:
        known = pickles.load(meta)
        listed = known.get("label_names", known.get("fine_label_names")) if isinstance(known, dict) else None
        if not isinstance(listed, list):
            raise InputError(f"{meta} has no list of label names")
        names = tuple(name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name) for name in listed)

    def read(file: Path) -> tuple[np.ndarray, list[Any]]:
        batch = pickles.load(file)
        if not isinstance(batch, dict) or not isinstance(batch.get("data"), np.ndarray):
            raise InputError(f"{file} is no batch of CIFAR: it has no array 'data'")
        labels = batch.get("labels", batch.get("fine_labels"))
        pixels = batch["data"]
        if pixels.dtype != np.uint8 or pixels.ndim != 2 or pixels.shape[1] != VALUES:
            raise InputError(f"{file} has images of {pixels.dtype} {pixels.shape}, not of uint8 (n, {VALUES})")
        if isinstance(labels, np.ndarray):
            labels = labels.tolist()
        if not isinstance(labels, list) or len(labels) != len(pixels) or {*map(type, labels)} - {int}:
            raise InputError(f"{file} must have one whole number as the label of each of its {len(pixels):,} images")
        return pixels, labels

    return _contents({split: [read(folder / name) for name in files] for split, files in splits.items()}, names)


def _read_binary(folder: Path, splits: dict[str, list[str]], meta: Path | None, _: ReadOptions) -> Contents:
    try:
        lines = [] if meta is None else meta.read_text(encoding="utf-8", errors="replace").splitlines()
        fine = splits["train"] == ["train.bin"]
        labels = 2 if fine else 1  # CIFAR-100 has a coarse label before the fine one

        def read(file: Path) -> tuple[np.ndarray, list[Any]]:
            content = np.frombuffer(file.read_bytes(), dtype=np.uint8)
            if not len(content) or len(content) % (labels + VALUES):
                raise InputError(f"{file} is truncated: {len(content):,} bytes are not rows of {labels + VALUES:,}")
            rows = content.reshape(-1, labels + VALUES)
            return rows[:, labels:], rows[:, labels - 1].tolist()

        read_splits = {split: [read(folder / name) for name in files] for split, files in splits.items()}
    except OSError as error:
        raise InputError(f"cannot read {error.filename or folder}: {error.strerror}") from None
    return _contents(read_splits, tuple(line.strip() for line in lines if line.strip()) or None)


def _contents(splits: dict[str, list[tuple[np.ndarray, list[Any]]]], names: tuple[str, ...] | None) -> Contents:
    labels = {split: np.concatenate([labels for _, labels in batches]) for split, batches in splits.items()}
    labels_of = (
        numbered(labels) if names is None else {split: Labels(values, names) for split, values in labels.items()}
    )
    result = {}
    for split, batches in splits.items():
        pixels = np.concatenate([pixels for pixels, _ in batches]).reshape(-1, *SHAPE).transpose(0, 2, 3, 1)
        result[split] = Split(ArrayImages(pixels, split), labels_of[split], f"the split '{split}'")
    return Contents(result)
