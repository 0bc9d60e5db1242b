"""Files on disk: written whole, locked against other processes, and told apart when they cannot be read or are damaged.

`write` puts the content under a temporary name of its own, brings it to the disk and renames it. A reader sees the old
content or the new. After a power cut, too, the name holds one of the two.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import secrets
import stat
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import filelock

from rethinking.errors import BusyError, RunError

UNFINISHED = ".tmp"  # ends the names of files that are being written
PATIENCE = 5.0  # seconds of waiting for a lock before that is said
CHECKSUM = "checksum"  # of a JSON file's other content, in the file itself

log = logging.getLogger(__name__)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """What the system refuses, such as for a full disk, is a `RunError`."""
    try:
        yield
    except OSError as error:
        raise RunError(
            f"cannot write {path}: {error.strerror or error}; what was saved stays, and once that is mended the same"
            " command goes on from there"
        ) from None


def write(path: Path, content: bytes | str, *, durable: bool = True) -> None:
    """Write the whole file. `durable` waits until file and name are on the disk. Raises `RunError`."""
    unfinished = path.with_name(f"{path.name}.{secrets.token_hex(4)}{UNFINISHED}")
    with writing(path):
        try:
            with unfinished.open("wb") as file:
                file.write(content.encode() if isinstance(content, str) else content)
                if durable:
                    file.flush()
                    os.fsync(file.fileno())
            os.replace(unfinished, path)
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise
    if durable:
        _bring_names_to_disk(path.parent)


def append(path: Path, content: bytes, end: int) -> None:
    """Write `content` after the first `end` bytes, in place of what follows them, onto the disk. Raises `RunError`."""
    with writing(path), os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+b") as file:
        file.truncate(end)
        file.seek(end)
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def remove_unfinished(folder: Path) -> None:
    """Remove what killed processes left under temporary names; the folder must be locked."""
    with writing(folder):
        for left in folder.glob(f"*{UNFINISHED}"):
            left.unlink(missing_ok=True)


def exists(path: Path) -> bool:
    """Raises `RunError` where that cannot be seen."""
    try:
        return path.exists()
    except OSError as error:
        raise cannot_read(path, error) from None


def read(path: Path) -> bytes | None:
    """The content, None where there is no such file. Raises `RunError` where it cannot be read."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe would be waited for
            raise RunError(f"{path} is no plain file; move it away")
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise cannot_read(path, error) from None


def cannot_read(path: Path, error: OSError) -> RunError:
    """What to tell where the system does not hand out a file, which may be as it should be."""
    return RunError(f"cannot read {path}: {error.strerror or error}; it may be as it should be, so try again later")


def write_json(path: Path, content: Mapping[str, Any], *, durable: bool = True) -> None:
    """With a checksum, which `read_json` takes away again. Raises `RunError`."""
    as_read = json.loads(json.dumps(content))
    write(path, json.dumps({**as_read, CHECKSUM: _checksum_of(as_read)}, indent=2), durable=durable)


def read_json(path: Path, what_to_do: str) -> dict[str, Any] | None:
    """An object, checked where it has a checksum; None where there is no such file.

    Raises `RunError` where the file cannot be read, and where it is damaged: that says what to do about it.
    """
    text = read(path)
    if text is None:
        return None
    try:
        content: dict[str, Any] = parse_json(text.decode())
        intact = isinstance(content, dict)
        if intact and CHECKSUM in content:
            intact = content.pop(CHECKSUM) == _checksum_of(content)
    except ValueError:
        intact = False
    if not intact:
        raise RunError(f"{path} is damaged: {what_to_do}")
    return content


def parse_json(text: str) -> Any:
    """Raises `ValueError` for whatever is wrong with it, too deep a nesting included."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _checksum_of(content: Mapping[str, Any]) -> str:
    try:
        return f"{zlib.crc32(json.dumps(content, sort_keys=True).encode()):08x}"
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


@contextlib.contextmanager
def lock(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold the file `path` against other processes; the lock dies with its process.

    Says so after five seconds of waiting. Raises `BusyError` without `wait` where another process holds it, `RunError`
    where the file cannot be written.
    """
    held = filelock.FileLock(path)
    with writing(path):
        try:
            held.acquire(timeout=PATIENCE if wait else 0)
        except filelock.Timeout:
            if not wait:
                raise BusyError(f"{path} is held by another process") from None
            log.warning("waiting for another process, which holds %s; if it was stopped, let it go on or end it", path)
            held.acquire()
    try:
        yield
    finally:
        held.release()


def _bring_names_to_disk(folder: Path) -> None:
    with contextlib.suppress(OSError):  # not every file system can, and what was renamed stays so
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
