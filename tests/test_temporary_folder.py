"""Temporary folders: gone at the end, also after the death of their process."""

import subprocess
import sys
from pathlib import Path

import pytest

from rethinking import files

KILLED = """
import os, signal, sys
from rethinking import files
with files.temporary_folder("own-", sys.argv[1]) as folder:
    (folder / "content").touch()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_folder_is_removed_at_the_end_or_by_the_next_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    subprocess.run([sys.executable, "-c", KILLED, tmp_path], check=False)
    (left,) = tmp_path.iterdir()
    other = tmp_path / "own-without-lock"
    other.mkdir()
    with files.temporary_folder("own-", str(tmp_path)) as folder:
        assert {*tmp_path.iterdir()} == {left, other, folder}, "a new folder may not be locked yet"
        monkeypatch.setattr(files, "NEW", -1)
        with files.temporary_folder("own-", str(tmp_path)) as second:
            assert {*tmp_path.iterdir()} == {other, folder, second}
    assert [*tmp_path.iterdir()] == [other]
