"""Runs commands in processes forked from a process that has imported PyTorch and the package already.

A start takes two seconds of a processor, nearly all of it for imports, and the tests run hundreds of commands. A forked
process has its own arguments, folder, environment, streams and exit status. It does not show a start from nothing.
For that, some tests of each kind start `python` themselves.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import resource
import runpy
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

PRELOADED = ["rethinking.cli", "rethinking.run_list_console", "torch.utils.tensorboard"]
LIMIT = 1200  # seconds; against hanging alone

processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(PRELOADED)


class Started:
    """A command at work, with some of the methods of `subprocess.Popen`. Its output is read at its end."""

    def __init__(self, words: Sequence[str], cwd: Path, env: Mapping[str, str], file_size: int | None) -> None:
        self.words = list(words)
        self._folder = tempfile.TemporaryDirectory()
        self._streams = [Path(self._folder.name) / name for name in ("output", "errors")]
        for stream in self._streams:
            stream.touch()
        arguments = (self.words, cwd, dict(env), self._streams, file_size)
        self._process = processes.Process(target=_become, args=arguments)
        self._process.start()

    @property
    def returncode(self) -> int | None:
        """The exit status; None while it is at work."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """Returns `returncode`."""
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Sends a signal, unless the process has ended."""
        if self.returncode is None and self._process.pid is not None:
            os.kill(self._process.pid, number)

    def kill(self) -> None:
        """Kills the process as `kill -9` does."""
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout: float = LIMIT) -> tuple[str, str]:
        """Waits for the end, and returns standard output and errors."""
        self._process.join(timeout)
        if self.returncode is None:
            self.kill()
            self._process.join()
            raise subprocess.TimeoutExpired(self.words, timeout)
        output, errors = (stream.read_text() for stream in self._streams)
        self._folder.cleanup()
        return output, errors


def start(
    script: Path,
    *arguments: object,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    file_size: int | None = None,
) -> Started:
    """Starts `python SCRIPT ARGUMENTS`.

    cwd, env: instead of this process's
    file_size: the most bytes that a file can have, as on a full disk
    """
    words = [str(word) for word in (script, *arguments)]
    return Started(words, cwd or Path.cwd(), os.environ if env is None else env, file_size)


def run(
    script: Path,
    *arguments: object,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    file_size: int | None = None,
) -> subprocess.CompletedProcess[str]:
    """Runs `python SCRIPT ARGUMENTS` as `start` does, and returns its standard output and errors as text."""
    started = start(script, *arguments, cwd=cwd, env=env, file_size=file_size)
    output, errors = started.communicate()
    assert started.returncode is not None, "it has ended"
    return subprocess.CompletedProcess(started.words, started.returncode, output, errors)


def _become(
    words: list[str], cwd: Path, environment: dict[str, str], streams: Sequence[Path], file_size: int | None
) -> None:
    """Does what `python` does after its imports: sets streams, folder and signals, and runs the script."""
    atexit._clear()  # what is to be tidied up at the end of the process that was forked
    for number, stream in enumerate(streams, 1):
        file = os.open(stream, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, number)
        os.close(file)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if file_size is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, file_size))
    if "OMP_NUM_THREADS" in environment:  # which is read when PyTorch is loaded
        import torch

        torch.set_num_threads(int(environment["OMP_NUM_THREADS"]))
    sys.argv = words
    sys.path.insert(0, str(Path(words[0]).resolve().parent))
    try:
        runpy.run_path(words[0], run_name="__main__")
    finally:
        atexit._run_exitfuncs()
