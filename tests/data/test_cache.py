"""The cache that a lab shares: who may read it, what counts as damage, and what is cleaned up."""

import errno
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import filelock
import numpy as np
import pytest
from PIL import Image

from rethinking.data import cache, sources
from rethinking.errors import InputError, RunError
from tests.conftest import ROOT


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RETHINKING_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    draws = np.random.default_rng(0)
    for name in ("cat", "dog"):
        for index in range(3):
            file = tmp_path / "pets" / name / f"{index}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(draws.integers(0, 256, (28, 28), dtype=np.uint8)).save(file)
    return tmp_path / "pets"


def entries(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_dir())


@pytest.mark.parametrize(("umask", "mode"), [(0o002, 0o775), (0o022, 0o755), (0o077, 0o700)])
def test_an_entry_has_the_file_mode_of_the_umask(own_cache: Path, umask: int, mode: int):
    code = f"import os; os.umask({umask}); from rethinking.data import sources; sources.load('digits')"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=1200)
    (entry,) = entries(own_cache)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (own_cache / entry).iterdir()}
    assert stat.S_IMODE((own_cache / entry).stat().st_mode) == mode
    assert set(modes.values()) == {mode & 0o666}


def test_another_user_loads_an_entry(own_cache: Path, tmp_path: Path):
    """The first user fills the cache, and another user without the first user's rights reads it."""
    if os.geteuid() != 0:
        pytest.skip("it takes root to act for two users")
    images = np.zeros((4, 28, 28), dtype=np.uint8)
    np.savez(tmp_path / "digits.npz", x_train=images, y_train=[0, 1, 0, 1])
    own_cache.mkdir()
    os.chmod(own_cache, 0o2775)
    os.chown(own_cache, 12001, 12000)
    for folder in (tmp_path, *tmp_path.parents):
        if folder == Path("/tmp"):
            break
        folder.chmod(folder.stat().st_mode | 0o055)
    load = f"print(sources.load('{tmp_path / 'digits.npz'}').fingerprint)"
    change = "import os; os.umask(0o002); os.setgroups([12000]); os.setgid(12000); os.setuid({user}); "
    printed = []
    for user in (12001, 12002):
        code = f"import encodings.cp437, mmap; from rethinking.data import sources; {change.format(user=user)}{load}"
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=1200, cwd="/", check=False
        )
        assert done.returncode == 0, done.stderr
        printed.append(done.stdout)
    assert printed[0] == printed[1]
    assert len(entries(own_cache)) == 1


@pytest.mark.parametrize("number", [errno.EACCES, errno.EMFILE, errno.EIO])
def test_an_unreadable_entry_is_never_called_damaged(monkeypatch: pytest.MonkeyPatch, number: int):
    sources.load("digits")

    def refusing(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(np, "load", refusing)
    with pytest.raises(RunError) as caught:
        sources.load("digits")
    assert str(caught.value).startswith("cannot read the cached data set ")
    assert os.strerror(number) in str(caught.value)
    assert "delete" not in str(caught.value)


def test_the_rest_of_a_killed_build_is_removed_at_any_age(own_cache: Path):
    code = """
import os, signal
from rethinking.data import cache
def write(folder):
    (folder / "train_images.npy").write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
cache.build(cache.entry_path("pets", []), write)
"""
    subprocess.run([sys.executable, "-c", code], check=False, timeout=1200)
    (left,) = entries(own_cache)
    assert left.endswith(".unfinished")
    sources.load("digits")
    assert [name.split("-")[0] for name in entries(own_cache)] == ["digits"]
    assert not list(own_cache.glob("*.lock"))


def test_a_build_at_work_is_left_alone(own_cache: Path):
    at_work = own_cache / "pets-123.abc.unfinished"
    at_work.mkdir(parents=True)
    os.utime(at_work, (0, 0))
    with filelock.FileLock(own_cache / "pets-123.abc.lock"):
        sources.load("digits")
        assert at_work.exists()
    cache.remove_unfinished()
    assert not at_work.exists()


def test_new_times_and_hidden_files_make_no_second_entry(own_cache: Path, pets: Path):
    sources.load(str(pets))
    (pets / ".DS_Store").write_bytes(b"x")
    (pets / "cat" / ".DS_Store").write_bytes(b"x")
    for file in pets.rglob("*.png"):
        os.utime(file, (1e9, 1e9))
    sources.load(str(pets))
    (pets / "readme.txt").write_text("x")
    sources.load(str(pets))
    assert len(entries(own_cache)) == 1


def test_a_copied_folder_makes_no_second_entry_and_other_content_does(own_cache: Path, pets: Path, tmp_path: Path):
    first = sources.load(str(pets))
    shutil.copytree(pets, tmp_path / "elsewhere" / "pets")
    again = sources.load(str(tmp_path / "elsewhere" / "pets"))
    assert (again.name, again.fingerprint) == (first.name, first.fingerprint)
    assert again.origin == str(tmp_path / "elsewhere" / "pets")
    assert len(entries(own_cache)) == 1
    Image.new("L", (28, 28)).save(tmp_path / "elsewhere/pets/cat/0.png")
    assert sources.load(str(tmp_path / "elsewhere" / "pets")).fingerprint != first.fingerprint
    assert len(entries(own_cache)) == 2


def test_unchanged_files_are_read_once(own_cache: Path, pets: Path, monkeypatch: pytest.MonkeyPatch):
    sources.load(str(pets))
    monkeypatch.setattr(cache.hashlib, "file_digest", None)
    sources.load(str(pets))
    for index in own_cache.glob("files-*.json"):
        index.write_text("{")  # cut by a crash: it is made anew
    monkeypatch.undo()
    monkeypatch.setenv("RETHINKING_CACHE", str(own_cache))
    sources.load(str(pets))
    assert len(entries(own_cache)) == 1


def rethinking(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "rethinking", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )


def test_the_cache_command_lists_entries_with_sizes_and_removes_them(own_cache: Path, pets: Path):
    assert "0.0 MiB in " in rethinking("cache").stdout
    for dataset in ("digits", str(pets)):
        sources.load(dataset)
    digits, other = entries(own_cache)
    listed = rethinking("cache").stdout
    assert f"1.4 MiB  {digits}" in listed  # 1,797 images of 784 bytes, and labels
    assert f"0.0 MiB  {other}" in listed
    assert rethinking("cache", "--remove", digits).returncode == 0
    assert entries(own_cache) == [other]
    assert rethinking("cache", "--remove-all").returncode == 0
    assert entries(own_cache) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--remove",), "--remove needs a value"),
        (("--remove", "nothing"), "has no entry 'nothing'"),
        (("--remove", ".."), "has no entry '..'"),
        (("everything",), "unknown option 'everything'"),
    ],
)
def test_mistakes_in_the_cache_command_are_reported(own_cache: Path, arguments: tuple[str, ...], message: str):
    own_cache.mkdir()
    done = rethinking("cache", *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert own_cache.is_dir()


def test_only_entries_are_removed(own_cache: Path, tmp_path: Path):
    (tmp_path / "mine").mkdir()
    own_cache.mkdir()
    with pytest.raises(InputError):
        cache.remove("../mine")
    assert (tmp_path / "mine").is_dir()


def test_other_folders_in_the_cache_folder_are_neither_listed_nor_removed(own_cache: Path, pets: Path):
    sources.load(str(pets))
    (own_cache / "thesis").mkdir()
    (own_cache / "thesis" / "a.txt").write_text("x")
    at_work = own_cache / "pets-123.abc.unfinished"
    at_work.mkdir()
    with filelock.FileLock(own_cache / "pets-123.abc.lock"):
        assert "thesis" not in rethinking("cache").stdout
        assert rethinking("cache", "--remove_all").stdout.startswith("1 removed")
        assert (own_cache / "thesis" / "a.txt").exists()
        assert at_work.exists()
    assert not list(own_cache.glob("files-*.json"))


def test_a_file_of_the_same_size_and_time_with_other_content_is_read_anew(tmp_path: Path):
    def fill(value: int) -> None:
        np.save(tmp_path / "pets/x_train.npy", np.full((4, 28, 28), value, dtype=np.uint8))
        np.save(tmp_path / "pets/y_train.npy", [0, 1, 0, 1])
        for file in (tmp_path / "pets").iterdir():
            os.utime(file, (1e9, 1e9))

    (tmp_path / "pets").mkdir()
    fill(1)
    assert sources.load(str(tmp_path / "pets")).train.images.max() == 1
    fill(2)
    assert sources.load(str(tmp_path / "pets")).train.images.max() == 2


def test_files_that_change_while_they_are_read_are_reported(pets: Path, monkeypatch: pytest.MonkeyPatch):
    decode_all = sources._decode_all

    def changing(*arguments: object) -> None:
        decode_all(*arguments)  # type: ignore[arg-type]
        Image.new("L", (28, 28)).save(pets / "cat/0.png")

    monkeypatch.setattr(sources, "_decode_all", changing)
    with pytest.raises(InputError, match="changed while it was read"):
        sources.load(str(pets))
    monkeypatch.undo()
