"""`reproduce.py expressivity` on the command line, on the digits at demo scale."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path

import pytest

from rethinking.experiments import archive
from rethinking.experiments.expressivity_points import QUANTITIES
from rethinking.experiments.reproduction import Reproduction
from rethinking.report import tables
from rethinking.report.commands import command
from rethinking.sitting import in_words
from tests.conftest import OUT, reproduce


@pytest.fixture(scope="module")
def memorized(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("memorized")
    return folder, reproduce(folder, "expressivity", "--scale", "demo")


def test_it_leaves_tables_figures_and_evidence(memorized):
    folder, printed = memorized
    names = {path.name for path in (folder / OUT).iterdir()}
    assert {"memorization.csv", "expressivity.csv", "expressivity.md", "report.html"} <= names
    assert {"expressivity_depth.png", "expressivity_depth.svg", "expressivity_gap.png", "expressivity_gap.svg"} <= names
    assert "runs.csv" not in names
    assert "Theorem 1: networks that memorize by construction" in printed
    with (folder / OUT / "memorization.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(list((folder / "runs").glob("*/result.json")))
    for row in rows:
        assert row["fingerprint"]
        assert row["commit"]
        assert float(row["seconds"]) > 0


def test_every_number_equals_the_number_in_its_run_folder(memorized):
    folder, _ = memorized
    for name in ("expressivity", "expressivity_points", "expressivity_depth", "expressivity_gap"):
        cells, dataset, scale = tables.read_csv(folder / OUT / f"{name}.csv")
        assert (dataset, scale) == ("digits", "demo")
        assert cells
        for cell in cells:
            (run,) = cell.runs
            result = json.loads((folder / "runs" / run / "result.json").read_text())
            value = result.get(cell.quantity.replace(" ", "_"))
            assert cell.ours == (value if value is None else pytest.approx(value, rel=1e-5)), cell


def test_every_label_is_right_with_2n_plus_d_weights_and_at_every_depth(memorized):
    folder, _ = memorized
    theorem = tables.read_csv(folder / OUT / "expressivity.csv")[0]
    assert {cell.ours for cell in theorem if cell.quantity == "weights"} == {2 * 1442 + 784}
    depths = tables.read_csv(folder / OUT / "expressivity_depth.csv")[0]
    assert {cell.ours for cell in (*theorem, *depths) if cell.quantity == "train error"} == {0.0}
    widths = {cell.x: cell.ours for cell in depths if cell.quantity == "width" and "1,000" in str(cell.labels)}
    assert widths[2.0] == 1000
    assert widths[64.0] < 30


def test_the_more_points_the_smaller_the_eigenvalue_and_the_larger_the_weights_below_their_bound(memorized):
    cells = tables.read_csv(memorized[0] / OUT / "expressivity_points.csv")[0]
    found = {quantity: [cell.ours for cell in cells if cell.quantity == quantity] for quantity in QUANTITIES}
    assert {cell.x for cell in cells} == {30, 100, 300, 1000, 1442}
    assert found["smallest eigenvalue"] == sorted(found["smallest eigenvalue"], reverse=True)
    assert found["largest weight"] == sorted(found["largest weight"])
    assert all(weight <= bound for weight, bound in zip(found["largest weight"], found["weight bound"], strict=True))


def test_the_gap_at_which_float64_fails_is_reported(memorized):
    cells = tables.read_csv(memorized[0] / OUT / "expressivity_gap.csv")[0]
    two = {cell.x: cell for cell in cells if dict(cell.labels)["depth"] == "depth 2"}
    told = [(cell.quantity, cell.x) for cell in cells if cell.note == "too close"]
    assert ("train error", 1e-16) in told
    assert two[1e-3].ours < 1e-6 < two[1e-10].ours
    assert "too close" in (memorized[0] / OUT / "expressivity_gap.md").read_text()


def test_the_same_command_computes_nothing_again_even_without_the_run_folders(memorized, tmp_path: Path):
    folder, _ = memorized
    shutil.copytree(folder / OUT, tmp_path / OUT)
    again = reproduce(tmp_path, "expressivity", "--scale", "demo")
    assert not list(tmp_path.glob("runs/*/result.json"))
    assert "finished:" not in again
    assert (tmp_path / OUT / "expressivity.csv").read_bytes() == (folder / OUT / "expressivity.csv").read_bytes()


def test_a_dry_run_shows_what_is_finished(memorized, tmp_path: Path):
    printed = reproduce(memorized[0], "expressivity", "--scale", "demo", "--dry_run")
    assert re.search(r"(?<!\d)0s left in all", printed)
    fresh = reproduce(tmp_path, "expressivity", "--scale", "demo", "--dry_run")
    assert re.search(r"digits, memorizing images, depth 2, seed 0\W+\d+s", fresh)
    assert "GiB of memory at most" in fresh
    configs = Reproduction(experiment="expressivity", scale="demo").configs()
    assert len({in_words(config) for config in configs}) == len(configs)


def test_the_page_describes_each_network(memorized):
    html = (memorized[0] / OUT / "report.html").read_text()
    for word in ("largest difference", "weight bound", "not to be had"):
        assert word in html
    kept = archive.read(memorized[0] / OUT)
    assert {command(run) for run in kept.values()} == {"python reproduce.py expressivity --scale demo"}


def test_it_refuses_models(tmp_path: Path):
    printed = reproduce(tmp_path, "expressivity", "--scale", "demo", "--models", "mlp_1x512", status=2)
    assert "expressivity trains no network; leave out --models" in " ".join(printed.split())
