"""The cache of decoded data sets: one folder of `.npy` files per data set, which later runs memory-map.

An entry is built under a temporary name and renamed when it is complete, so two processes may build it at once. Its
name holds a hash of the contents of its source files. So a copied folder or a `touch` makes no second entry.
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
INDEX = "files-"  # prefix of the files that hold the sizes, times and hashes of a data set's files
UNFINISHED = ".unfinished"
DELETE_IT = "delete that folder, and the next run builds it again"
INFO = "info.json"

Stamps = tuple[tuple[str, int, int], ...]  # name, size and modification time of each file


@dataclass(frozen=True)
class Entry:
    """A decoded data set: its folder, the content of `info.json`, and its memory-mapped splits."""

    path: Path
    info: dict[str, Any]
    splits: dict[str, ImageSet]


def folder() -> Path:
    """Returns the cache's folder: `RETHINKING_CACHE`, else one in the user's cache folder."""
    return Path(os.environ.get("RETHINKING_CACHE") or platformdirs.user_cache_dir("rethinking"))


def entry_path(name: str, content: list[Any]) -> Path:
    """Returns the path of the entry for a data set called `name`.

    `content` holds everything that decides the entry's content.
    """
    digest = hashlib.sha256(json.dumps([FORMAT, *content]).encode()).hexdigest()[:12]
    return folder() / f"{name}-{digest}"


def content_of(files: Mapping[str, Path], place: str, begin: Steps) -> list[tuple[str, str]]:
    """Returns the name and SHA-256 of each file, sorted by name.

    A file is not read again if its size, times and inode are unchanged. An index in the cache holds the last hashes;
    its name comes from `place`. Raises `InputError` if a file cannot be read.
    """
    if not files:
        return []
    index = folder() / f"{INDEX}{hashlib.sha256(place.encode()).hexdigest()[:12]}.json"
    try:
        known = files_on_disk.read_json(index, "it is rebuilt") or {}
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
        with contextlib.suppress(OSError, RunError):  # the index only saves time
            index.parent.mkdir(parents=True, exist_ok=True)
            files_on_disk.write_json(index, stamps, durable=False)
    return sorted((name, stamp[-1]) for name, stamp in stamps.items())


def build(path: Path, write: Callable[[Path], dict[str, Any]]) -> None:
    """Builds the entry at `path`. Of several processes that want the same entry, one builds it and the others wait.

    `write` puts the arrays into the folder it is given, and returns the rest of `info.json`.

    Raises the errors of `unfinished`.
    """
    lock = filelock.FileLock(path.with_name(f"{path.name}.building"), mode=0o666)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError as error:
        raise _cannot_write(error) from None
    try:
        if not exists(path):
            with unfinished(path.name) as made:
                finish(made, write(made), lambda _: path)
    finally:
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


@contextlib.contextmanager
def unfinished(name: str) -> Iterator[Path]:
    """Yields an empty folder in the cache for an entry called `name`. Removes it at the end unless `finish` renamed it.

    Raises `InputError` if the cache cannot be written at all, and `RunError` if the disk is full.
    """
    cache = folder()
    try:
        cache.mkdir(parents=True, exist_ok=True)
        remove_unfinished()
        name = f"{name}.{secrets.token_hex(4)}"
        lock = filelock.FileLock(cache / f"{name}.lock", mode=0o666)
        lock.acquire()
    except OSError as error:
        raise _cannot_write(error) from None
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
    """Adds the fingerprint to `info`, renames the folder `made` to `place(fingerprint)`, and returns that path."""
    info["fingerprint"] = fingerprint(_read_splits(made), info["class_names"])
    files_on_disk.write_json(made / INFO, info)
    path = place(info["fingerprint"])
    try:
        made.rename(path)
    except OSError:
        if not path.exists():  # else another process was first, and its entry is equal
            raise
    return path


def remove_unfinished() -> None:
    """Removes the folders that killed builds left: those whose lock no process holds."""
    for left in folder().glob(f"*{UNFINISHED}"):
        lock = filelock.FileLock(left.with_name(f"{left.name.removesuffix(UNFINISHED)}.lock"), mode=0o666)
        with contextlib.suppress(OSError, filelock.Timeout), lock.acquire(timeout=0):
            shutil.rmtree(left)
            Path(lock.lock_file).unlink(missing_ok=True)


def exists(path: Path) -> bool:
    """Whether `path` exists. Raises `RunError` if that cannot be checked."""
    try:
        return path.exists()
    except OSError as error:
        raise _cannot_read(path, error) from None


def read(path: Path) -> Entry:
    """Reads an entry and checks its fingerprint. Raises `RunError` if it is damaged or cannot be read."""
    try:
        info = files_on_disk.read_json(path / INFO, DELETE_IT) or {}
        splits = _read_splits(path)
        intact = info["fingerprint"] == _fingerprint_on_disk(path, _stamps(path))
    except OSError as error:
        if error.errno not in (errno.ENOENT, None):  # a missing or truncated file is damage; other errors are not
            raise _cannot_read(path, error) from None
        intact = False
    except RunError:
        raise
    except Exception:  # NumPy raises many types for damaged bytes
        intact = False
    if not intact:
        raise RunError(f"the cached data set {path} is damaged: {DELETE_IT}")
    return Entry(path, info, splits)


def _cannot_write(error: OSError) -> InputError:
    return InputError(f"cannot write the cache {folder()}: {error.strerror}; set RETHINKING_CACHE to another folder")


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
    """Computes the fingerprint, once per process while `stamps` stay: a reproduction needs it for every run."""
    info = files_on_disk.read_json(path / INFO, DELETE_IT) or {}
    return fingerprint(_read_splits(path), info["class_names"])


# The entries that `rethinking cache` shows and removes


def entries() -> dict[str, int]:
    """Returns the name of every finished entry with its size in bytes.

    Raises `RunError` if the cache cannot be read.
    """
    try:
        inner = sorted(folder().iterdir()) if folder().is_dir() else []
        found = [path for path in inner if (path / INFO).is_file() and not path.name.endswith(UNFINISHED)]
        return {path.name: sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) for path in found}
    except OSError as error:
        raise RunError(f"cannot read the cache {folder()}: {error.strerror}") from None


def remove_all() -> int:
    """Removes every entry and what killed builds left, and nothing else. Returns the number of entries."""
    names = list(entries())
    for name in names:
        remove(name)
    remove_unfinished()
    for index in folder().glob(f"{INDEX}*.json"):
        index.unlink(missing_ok=True)
    return len(names)


def remove(name: str) -> None:
    """Removes the entry called `name`. Raises `InputError` if there is none, and `RunError` if it cannot be removed."""
    path = folder() / name
    if name not in entries():
        raise InputError(f"{folder()} has no entry '{name}'; `rethinking cache` lists the entries")
    try:
        shutil.rmtree(path)
    except OSError as error:
        raise RunError(f"cannot remove {path}: {error.strerror}") from None
