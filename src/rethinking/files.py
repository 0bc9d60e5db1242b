"""Writes whole files, locks them against other processes, and tells unreadable files from damaged ones.

`write` puts the content under a temporary name, brings it to the disk and renames the file. A reader sees either the
old content or the new content, also after a power cut.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import secrets
import shutil
import stat
import tempfile
import time
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import filelock

from rethinking.errors import BusyError, RunError

UNFINISHED = ".tmp"  # suffix of files that are being written
PATIENCE = 5.0  # seconds of waiting for a lock before the warning
HELD = "held.lock"  # in a temporary folder, locked by its process
NEW = 60.0  # seconds in which a temporary folder may not be locked yet
CHECKSUM = "checksum"  # the key of the checksum of a JSON file's other content

log = logging.getLogger(__name__)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns refusals of the system, such as a full disk, into a `RunError`."""
    try:
        yield
    except OSError as error:
        raise RunError(
            f"cannot write {path}: {error.strerror or error}; what was saved stays, and the same command continues from"
            " there once this is mended"
        ) from None


def write(path: Path, content: bytes | str, *, durable: bool = True) -> None:
    """Writes the whole file. With `durable` it returns once file and name are on the disk. Raises `RunError`."""
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
    """Writes `content` after the first `end` bytes of the file and onto the disk. What followed them is lost.

    Raises `RunError` where the file cannot be written.
    """
    with writing(path), os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+b") as file:
        file.truncate(end)
        file.seek(end)
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def remove_unfinished(folder: Path) -> None:
    """Removes the temporary files of killed processes. The folder must be locked. Raises `RunError`."""
    with writing(folder):
        for left in folder.glob(f"*{UNFINISHED}"):
            left.unlink(missing_ok=True)


def exists(path: Path) -> bool:
    """Returns whether the path exists. Raises `RunError` where the system does not say."""
    try:
        return path.exists()
    except OSError as error:
        raise cannot_read(path, error) from None


def read(path: Path) -> bytes | None:
    """Returns the content, or None where the file does not exist. Raises `RunError` where it cannot be read."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # reading a pipe would wait for a writer
            raise RunError(f"{path} is not a regular file; move it away")
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise cannot_read(path, error) from None


def cannot_read(path: Path, error: OSError) -> RunError:
    """Returns the error for a file that the system does not open. The file itself may be intact."""
    return RunError(f"cannot read {path}: {error.strerror or error}; the file may be intact, so try again later")


def write_json(path: Path, content: Mapping[str, Any], *, durable: bool = True) -> None:
    """Writes an object with a checksum of its content, which `read_json` checks and removes. Raises `RunError`."""
    as_read = json.loads(json.dumps(content))
    write(path, json.dumps({**as_read, CHECKSUM: _checksum_of(as_read)}, indent=2), durable=durable)


def read_json(path: Path, what_to_do: str) -> dict[str, Any] | None:
    """Returns the object in a JSON file, or None where the file does not exist. A checksum in the file is checked.

    Raises `RunError` where the file cannot be read, and where it is damaged. The second message ends with `what_to_do`.
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
    """Returns the value of a JSON text. Raises `ValueError` for any mistake in it, also for too deep a nesting."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("the text is nested too deeply") from None


def _checksum_of(content: Mapping[str, Any]) -> str:
    try:
        return f"{zlib.crc32(json.dumps(content, sort_keys=True).encode()):08x}"
    except RecursionError:
        raise ValueError("the content is nested too deeply") from None


@contextlib.contextmanager
def lock(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Holds the file `path` against other processes. The lock ends with its process at the latest.

    After five seconds of waiting it logs a warning. Raises `BusyError` where another process holds the file and `wait`
    is False. Raises `RunError` where the file cannot be written.
    """
    held = filelock.FileLock(path)
    with writing(path):
        try:
            held.acquire(timeout=PATIENCE if wait else 0)
        except filelock.Timeout:
            if not wait:
                raise BusyError(f"{path} is held by another process") from None
            log.warning("waiting for another process that holds %s; if it is suspended, resume it or end it", path)
            held.acquire()
    try:
        yield
    finally:
        held.release()


@contextlib.contextmanager
def temporary_folder(prefix: str, parent: str | None = None) -> Iterator[Path]:
    """Makes a folder and removes it at the end. First it removes those that killed processes left there.

    prefix: the beginning of the folder's name
    parent: where the folder is made; by default the system's folder for temporary files
    """
    for left in Path(parent or tempfile.gettempdir()).glob(f"{prefix}*"):
        with contextlib.suppress(OSError, RunError):  # it belongs to another user, or its process is alive
            if (left / HELD).exists() and time.time() - left.stat().st_ctime > NEW:
                with lock(left / HELD, wait=False):
                    shutil.rmtree(left, ignore_errors=True)
    with contextlib.ExitStack() as held:
        made = tempfile.TemporaryDirectory(prefix=prefix, dir=parent, ignore_cleanup_errors=True)
        folder = Path(held.enter_context(made))
        held.enter_context(lock(folder / HELD))
        yield folder


def _bring_names_to_disk(folder: Path) -> None:
    with contextlib.suppress(OSError):  # some file systems cannot do it; the renamed file stays
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
