"""Decoded data sets on disk: a folder of `.npy` files each, which later runs memory-map.

An entry is built under another name and renamed when it is complete, so two processes may build it at once. Its name
has a hash of the files that it was read from, by their content: neither a copied folder nor `touch` makes a second one.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock
import platformdirs

from rethinking import files as files_on_disk
from rethinking.data import mapped
from rethinking.data.images import ImageSet, fingerprint
from rethinking.errors import InputError, RunError
from rethinking.steps import Steps

FORMAT = 2
INDEX = "files-"  # begins the name of what is known of a data set's files
UNFINISHED = ".unfinished"
DELETE_IT = "delete that folder, it is built again"
INFO = "info.json"

Stamps = tuple[tuple[str, int, int], ...]  # of files: name, size, time of the last change


@dataclass(frozen=True)
class Entry:
    """A decoded data set: its folder, the content of `info.json`, and its splits, memory-mapped."""

    path: Path
    info: dict[str, Any]
    splits: dict[str, ImageSet]


def folder() -> Path:
    """Where decoded data sets are kept: `RETHINKING_CACHE`, else the user's cache folder."""
    return Path(os.environ.get("RETHINKING_CACHE") or platformdirs.user_cache_dir("rethinking"))


def entry_path(name: str, content: list[Any]) -> Path:
    """The entry of a data set called `name`; content: all that decides what is in it."""
    digest = hashlib.sha256(json.dumps([FORMAT, *content]).encode()).hexdigest()[:12]
    return folder() / f"{name}-{digest}"


def content_of(files: Mapping[str, Path], place: str, begin: Steps) -> list[tuple[str, str]]:
    """Name and SHA-256 of each file.

    Files that are as they were, by size, times and place on the disk, are not read again: what is known of those at
    `place` is kept.
    """
    if not files:
        return []
    index = folder() / f"{INDEX}{hashlib.sha256(place.encode()).hexdigest()[:12]}.json"
    try:
        known = files_on_disk.read_json(index, "it is made anew") or {}
    except RunError:
        known = {}
    advanced: Callable[[float], None] | None = None
    stamps: dict[str, list[Any]] = {}
    for number, (name, file) in enumerate(files.items()):
        try:
            status = file.stat()
            stamp = [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]
            before = known.get(name)
            if isinstance(before, list) and before[:-1] == stamp:
                stamps[name] = before
            else:
                advanced = advanced or begin("comparing the files with the cache")
                with file.open("rb") as opened:
                    stamps[name] = [*stamp, hashlib.file_digest(opened, "sha256").hexdigest()]
                advanced(number / len(files))
        except OSError as error:
            raise InputError(f"cannot read {file}: {error.strerror}") from None
    if stamps != known:
        with contextlib.suppress(OSError, RunError):  # it only saves time
            index.parent.mkdir(parents=True, exist_ok=True)
            files_on_disk.write_json(index, stamps, durable=False)
    return sorted((name, stamp[-1]) for name, stamp in stamps.items())


def build(path: Path, write: Callable[[Path], dict[str, Any]]) -> None:
    """Make the entry: `write` puts the arrays into the folder that it is given, and returns the rest of `info.json`.

    Raises what `unfinished` raises.
    """
    with unfinished(path.name) as made:
        finish(made, write(made), lambda _: path)


@contextlib.contextmanager
def unfinished(name: str) -> Iterator[Path]:
    """An empty folder in the cache for an entry called `name`, removed at the end where `finish` did not rename it.

    Raises `InputError` where the cache cannot be written at all, `RunError` where the disk is full.
    """
    cache = folder()
    try:
        cache.mkdir(parents=True, exist_ok=True)
        remove_unfinished()
        name = f"{name}.{secrets.token_hex(4)}"
        lock = filelock.FileLock(cache / f"{name}.lock", mode=0o666)
        lock.acquire()
    except OSError as error:
        raise InputError(f"cannot write the cache {cache}: {error.strerror}; set RETHINKING_CACHE") from None
    made = cache / f"{name}{UNFINISHED}"
    try:
        made.mkdir()
        yield made
    except OSError as error:
        raise RunError(f"cannot write the cache {cache}: {error.strerror or error}") from None
    finally:
        shutil.rmtree(made, ignore_errors=True)
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


def finish(made: Path, info: dict[str, Any], place: Callable[[str], Path]) -> Path:
    """Add the fingerprint to `info`, and rename the folder to the `place` of that fingerprint, which is returned."""
    info["fingerprint"] = fingerprint(_read_splits(made), info["class_names"])
    files_on_disk.write_json(made / INFO, info)
    path = place(info["fingerprint"])
    try:
        made.rename(path)
    except OSError:
        if not path.exists():  # where it does another process was first, and its entry is as good as ours
            raise
    return path


def remove_unfinished() -> None:
    """Remove what killed builds left: those whose lock no process holds."""
    for left in folder().glob(f"*{UNFINISHED}"):
        lock = filelock.FileLock(left.with_name(f"{left.name.removesuffix(UNFINISHED)}.lock"), mode=0o666)
        with contextlib.suppress(OSError, filelock.Timeout), lock.acquire(timeout=0):
            shutil.rmtree(left)
            Path(lock.lock_file).unlink(missing_ok=True)


def exists(path: Path) -> bool:
    """Raises `RunError` where that cannot be seen."""
    try:
        return path.exists()
    except OSError as error:
        raise _cannot_read(path, error) from None


def read(path: Path) -> Entry:
    """An entry, checked against its fingerprint. Raises `RunError`: it cannot be read, or it is damaged."""
    try:
        info = files_on_disk.read_json(path / INFO, DELETE_IT) or {}
        splits = _read_splits(path)
        intact = info["fingerprint"] == _fingerprint_on_disk(path, _stamps(path))
    except OSError as error:
        if error.errno not in (errno.ENOENT, None):  # a missing or cut file is damage, all else is not
            raise _cannot_read(path, error) from None
        intact = False
    except RunError:
        raise
    except Exception:  # whatever NumPy makes of other bytes
        intact = False
    if not intact:
        raise RunError(f"the cached data set {path} is damaged: {DELETE_IT}")
    return Entry(path, info, splits)


def _cannot_read(path: Path, error: OSError) -> RunError:
    return RunError(f"cannot read the cached data set {path}: {error.strerror}; it is not damaged")


def _read_splits(path: Path) -> dict[str, ImageSet]:
    splits = [split for split in ("train", "test") if split == "train" or (path / f"{split}_images.npy").exists()]
    return {
        split: ImageSet(mapped.read(path / f"{split}_images.npy"), mapped.read(path / f"{split}_labels.npy"))
        for split in splits
    }


def _stamps(path: Path) -> Stamps:
    return tuple((file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in sorted(path.iterdir()))


@functools.lru_cache(maxsize=8)
def _fingerprint_on_disk(path: Path, stamps: Stamps) -> str:
    """Computed once a process while the files' `stamps` stay: a reproduction asks for every run."""
    info = files_on_disk.read_json(path / INFO, DELETE_IT) or {}
    return fingerprint(_read_splits(path), info["class_names"])


# What `rethinking cache` shows and removes


def entries() -> dict[str, int]:
    """Every finished entry by name, with its size in bytes. Raises `RunError` for a folder out of reach."""
    try:
        inner = sorted(folder().iterdir()) if folder().is_dir() else []
        found = [path for path in inner if (path / INFO).is_file() and not path.name.endswith(UNFINISHED)]
        return {path.name: sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) for path in found}
    except OSError as error:
        raise RunError(f"cannot read the cache {folder()}: {error.strerror}") from None


def remove_all() -> int:
    """Remove every entry and what killed builds left, nothing else; returns how many entries there were."""
    names = list(entries())
    for name in names:
        remove(name)
    remove_unfinished()
    for index in folder().glob(f"{INDEX}*.json"):
        index.unlink(missing_ok=True)
    return len(names)


def remove(name: str) -> None:
    """Remove an entry. Raises `InputError` where there is none of that name."""
    path = folder() / name
    if name not in entries():
        raise InputError(f"{folder()} has no entry '{name}'; rethinking cache lists them")
    try:
        shutil.rmtree(path)
    except OSError as error:
        raise RunError(f"cannot remove {path}: {error.strerror}") from None
