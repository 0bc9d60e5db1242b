"""MNIST's IDX files, plain or gzip-compressed: images with three dimensions, labels with one."""

from __future__ import annotations

import functools
import gzip
import math
import re
import struct
import zlib
from pathlib import Path

import numpy as np

from rethinking.data.readers.contents import ArrayImages, Contents, Found, ReadOptions, Split, numbered, split_of
from rethinking.errors import InputError

NAMED = re.compile(r"(?P<words>.*?)[-_.]?(?P<what>images|labels)[-_.]idx[13][-_.]ubyte(?P<gz>\.gz)?", re.IGNORECASE)
BYTES = 0x08  # type code of unsigned bytes
MOST_COMPRESSED = 1032  # deflate's largest ratio of unpacked to packed bytes


def find(folder: Path, names: frozenset[str]) -> Found | None:
    """Finds the pairs of image and label files in a folder whose files have these names; else returns None.

    Raises `InputError` for images without labels, and for two pairs of one split.
    """
    files: dict[tuple[str, str], Path] = {}
    for name in sorted(names):  # a plain file sorts before its compressed copy, and is used
        match = NAMED.fullmatch(name)
        if not match or not (folder / name).is_file():
            continue
        key = _split(match["words"]), match["what"].lower()
        if key not in files:
            files[key] = folder / name
        elif f"{files[key].name}.gz" != name:
            raise InputError(
                f"{folder} has {files[key].name} and {name}, which are both {key[1]} of the split '{key[0]}'"
            )
    if not files:
        return None
    pairs = {}
    for split, what in files:
        other = "labels" if what == "images" else "images"
        if (split, other) not in files:
            raise InputError(f"{folder} lacks the {other} of the split '{split}'")
        pairs[split] = files[split, "images"], files[split, "labels"]
    return Found({file.name: file for file in files.values()}, functools.partial(_read, pairs))


def _split(words: str) -> str:
    """Returns the split by the words before 'images' or 'labels' in a file name; MNIST calls its test set t10k."""
    parts = re.split(r"[-_.]", words.lower())
    known = (("test" if part == "t10k" else split_of(part)) for part in reversed(parts))
    return next((split for split in known if split), "train")


def _read(pairs: dict[str, tuple[Path, Path]], _: ReadOptions) -> Contents:
    labels_of = numbered({split: _array(labels, 1) for split, (__, labels) in pairs.items()})
    splits = {}
    for split, (images, __) in pairs.items():
        splits[split] = Split(ArrayImages(_array(images, 3), split), labels_of[split], f"the split '{split}'")
    return Contents(splits)


def _array(file: Path, dimensions: int) -> np.ndarray:
    """Returns an IDX file's uint8 array. It unpacks no more bytes than the header declares."""
    try:
        with gzip.open(file) if file.suffix.lower() == ".gz" else file.open("rb") as opened:
            header = opened.read(4 + 4 * dimensions)
            if header[:4] != bytes((0, 0, BYTES, dimensions)) or len(header) < 4 + 4 * dimensions:
                raise InputError(f"{file} is no IDX file of bytes in {dimensions} dimensions")
            shape = struct.unpack(f">{dimensions}I", header[4:])
            values, on_disk = math.prod(shape), file.stat().st_size
            if values > on_disk * (MOST_COMPRESSED if file.suffix.lower() == ".gz" else 1):
                raise InputError(f"{file} is truncated: it declares {shape}, more than its {on_disk:,} bytes hold")
            content = opened.read(values + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{file} is damaged: {error}") from None
    except OSError as error:
        raise InputError(f"cannot read {file}: {error.strerror or error}") from None
    if len(content) != values:
        raise InputError(f"{file} holds {'more' if len(content) > values else 'fewer'} bytes than its shape {shape}")
    return np.frombuffer(content, dtype=np.uint8).reshape(shape)
