"""The tables of docs/differences.md; that the document holds them as they are is tested with the documents."""

from dataclasses import replace
from pathlib import Path

from rethinking.experiments import archive
from tests.conftest import ROOT
from tools.differences import compression, noise_levels


def test_runs_that_are_not_finished_stay_out_of_the_levels_of_noise(tmp_path: Path):
    for folder in ("cifar10_jpeg", "differences"):
        kept = archive.read(ROOT / "results" / folder)
        archive.add(tmp_path / folder, [replace(run, finished=unlike_level_one_half(run)) for run in kept.values()])
    whole, without = table(ROOT / "results"), table(tmp_path)
    assert [row for row in whole if row not in without] == [row for row in whole if row[0] == "0.5"]
    (left,) = (row for row in without if row[0] == "0.5")
    assert left == ["0.5", "50", "", "", "79.61%", "", "", ""]
    assert "" not in next(row for row in whole if row[0] == "0.5")


def unlike_level_one_half(run) -> bool:
    return run.finished and run.configuration.get("corruption_prob") != 0.5


def table(results: Path) -> list[list[str]]:
    return rows_of(noise_levels(results))


def rows_of(written: str) -> list[list[str]]:
    return [[place.strip() for place in line.split("|")[1:-1]] for line in written.splitlines()]


def test_what_compression_costs_is_read_from_both_tables():
    _, _, *rows = rows_of(compression(ROOT / "results"))
    assert len({(title, row, quantity) for title, row, quantity, *_ in rows}) == len(rows) > 30
    for title, _, _, *numbers in rows:
        for folder, number in zip(("cifar10", "cifar10_jpeg"), numbers, strict=True):
            name = title.lower().replace(" ", "")
            assert f"| {number} |" in (ROOT / "results" / folder / f"{name}.md").read_text()
