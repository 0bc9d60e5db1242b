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


def run(
    script: Path,
    *arguments: str,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    file_size: int | None = None,
) -> subprocess.CompletedProcess[str]:
    """Runs `python SCRIPT ARGUMENTS`, and returns its standard output and errors as text.

    cwd, env: instead of this process's
    file_size: the most bytes that a file can have, as on a full disk
    """
    words = [str(script), *arguments]
    environment = dict(os.environ if env is None else env)
    with tempfile.TemporaryDirectory() as folder:
        streams = [Path(folder) / name for name in ("output", "errors")]
        for stream in streams:
            stream.touch()
        started = processes.Process(target=_become, args=(words, cwd or Path.cwd(), environment, streams, file_size))
        started.start()
        started.join(LIMIT)
        if started.exitcode is None:
            started.kill()
            started.join()
            raise subprocess.TimeoutExpired(words, LIMIT)
        return subprocess.CompletedProcess(words, started.exitcode, *(stream.read_text() for stream in streams))


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
