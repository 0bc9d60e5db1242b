"""The folder of a run's identifier, among many others."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rethinking.errors import RunError
from rethinking.training.run_dir import RunDir, listed_once

ID = "mlp_1x512-digits-none-seed0-0123456789"  # a hash may consist of digits alone
NAMES = [ID, f"{ID}-1", f"{ID}-2", f"{ID}-3", f"{ID}-11", f"{ID}-x", f"{ID}-2-3", f"{ID}0", f"x{ID}", "a-2", "a"]


def as_listed_for_one(names: dict[str, bool], identifier: str, force: bool) -> str:
    """The rule as one search: the newest finished run, else the unfinished run, else a new folder."""
    pattern = re.compile(re.escape(identifier) + r"(?:-(\d+))?")
    numbers = sorted({int(match[1] or 1) for name in names if (match := pattern.fullmatch(name))})
    folders = [identifier if number == 1 else f"{identifier}-{number}" for number in numbers]
    finished = [name for name in folders if names.get(name)]
    if finished and not force:
        return finished[-1]
    if folders and not names.get(folders[-1]):
        return folders[-1]
    return f"{identifier}-{numbers[-1] + 1}" if numbers else identifier


@given(names=st.dictionaries(st.sampled_from(NAMES), st.booleans()), force=st.booleans())
def test_each_identifier_has_the_folder_that_a_search_for_it_alone_finds(
    tmp_path_factory: pytest.TempPathFactory, names: dict[str, bool], force: bool
):
    runs = tmp_path_factory.mktemp("runs")
    for name, finished in names.items():
        (runs / name).mkdir()
        if finished:
            (runs / name / "result.json").touch()
    for identifier in (ID, f"{ID}-2", "a", "other"):
        expected = runs / as_listed_for_one(names, identifier, force)
        assert RunDir.find(runs, identifier, force).path == expected
        with listed_once():
            assert RunDir.find(runs, identifier, force).path == expected


@pytest.fixture
def listings(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The folders that are listed, in order."""
    seen: list[Path] = []
    original: Callable[[Path], object] = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda path: seen.append(path) or original(path))
    return seen


def test_many_runs_are_found_with_one_listing_of_each_folder(tmp_path: Path, listings: list[Path]):
    for name in ("runs", "others"):
        (tmp_path / name / ID).mkdir(parents=True)
    with listed_once():
        for number in range(100):
            for name in ("runs", "others"):
                RunDir.find(tmp_path / name, f"{ID}{number}", False)
    assert listings == [tmp_path / "runs", tmp_path / "others"]


def test_a_run_that_another_process_begins_meanwhile_has_the_planned_folder(tmp_path: Path):
    (tmp_path / "runs").mkdir()
    with listed_once():
        RunDir.find(tmp_path / "runs", "a", False)
        (tmp_path / "runs" / ID).mkdir()
        planned = RunDir.find(tmp_path / "runs", ID, False)
        assert not planned.is_finished
        (tmp_path / "runs" / ID / "result.json").touch()
        assert planned.is_finished
    assert planned.path == tmp_path / "runs" / ID


def test_after_the_listing_every_folder_is_seen_again(tmp_path: Path):
    with listed_once():
        assert RunDir.find(tmp_path, ID, False).path == tmp_path / ID
    for name in (ID, f"{ID}-2"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "result.json").touch()
        assert RunDir.find(tmp_path, ID, False).path == tmp_path / name


def test_a_file_in_place_of_the_folder_of_runs_has_no_runs(tmp_path: Path):
    (tmp_path / "runs").touch()
    assert RunDir.find(tmp_path / "runs", ID, False).path == tmp_path / "runs" / ID


def test_a_folder_that_cannot_be_listed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refused(path: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refused)
    with pytest.raises(RunError, match=f"cannot read {tmp_path}: Permission denied"):
        RunDir.find(tmp_path, ID, False)
