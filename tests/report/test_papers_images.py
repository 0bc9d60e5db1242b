"""The paper's numbers and curves stand beside the paper's images, and beside no others."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import numpy as np
import pytest

from rethinking.data import sources
from rethinking.experiments.catalogue import EXPERIMENTS
from rethinking.experiments.experiment import Cell, Evidence
from rethinking.experiments.paper import FINGERPRINTS, data_set
from rethinking.report.figures import paper_figure
from tests.conftest import OUT, reproduce, shared
from tests.report.test_figures import cells


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cifar10", "cifar10"),
        ("CIFAR-10", "cifar10"),
        ("cifar-10-batches-py", "cifar10"),
        ("cifar10-0a1b2c3d", "cifar10"),
        ("cifar10_jpeg", "cifar10"),
        ("cifar10_jpeg_first4000", "cifar10"),
        ("cifar10-holdout0.2-0a1b2c3d", "cifar10"),
        ("mnist", "mnist"),
        ("mnist_jpeg", "mnist"),
        ("mnist-0a1b2c3d", "mnist"),
        ("cifar10-resize64", None),
        ("cifar10-grey", None),
        ("cifar10-resize64-0a1b2c3d", None),
        ("cifar10_of_mine", None),
        ("cifar100", None),
        ("fashion_mnist", None),
        ("digits", None),
        ("photos", None),
    ],
)
def test_a_name_says_whether_images_are_the_papers(name, expected):
    assert data_set(name, "f" * 64) == expected


@pytest.mark.parametrize("name", ["cifar10", "mnist"])
def test_the_papers_images_are_known_by_any_name(name, tmp_path: Path):
    (tmp_path / "mine").symlink_to(shared(name))
    found = sources.load(str(tmp_path / "mine")).fingerprint
    assert FINGERPRINTS[found] == data_set("mine", found) == name


FIGURES = ["figure1a", "figure1b", "figure1c", "figure2b"]


@pytest.mark.parametrize("name", FIGURES)
@pytest.mark.parametrize("dataset", ["digits", "photos", "mnist", "cifar10-resize64"])
def test_a_figure_of_other_images_has_ours_alone(name, dataset, tmp_path: Path):
    (axes,) = paper_figure(EXPERIMENTS[name], cells(name, 0.9, dataset), tmp_path / name, dataset, full_scale=True).axes
    assert "--" not in {line.get_linestyle() for line in axes.lines}
    assert not [text.get_text() for text in axes.get_legend().get_texts() if "paper" in text.get_text()]
    assert "paper" not in (tmp_path / f"{name}.svg").read_text()


@pytest.mark.parametrize(("dataset", "levels"), [("digits", 0), ("cifar10", 2)])
def test_the_papers_single_numbers_are_lines_across_its_own_images_alone(dataset, levels, tmp_path: Path):
    facts = {"dataset": dataset, "provenance": {"fingerprint": "f"}}
    run = Evidence("run", "", True, {}, facts, (), "kernel_machines")
    points = [
        Cell((("data", dataset), ("regularizer", f"l2: {l2}")), "test error", x, 0.3, None, 1, None, "", ("run",))
        for l2 in ("no", "yes")
        for x in (500.0, 1000.0)
    ]
    experiment = EXPERIMENTS["table3_filters"].shown_for(points, {"run": run})
    (axes,) = paper_figure(experiment, points, tmp_path / "filters", dataset, full_scale=True).axes
    across = [line for line in axes.lines if line.get_linestyle() == "--" and len(line.get_xdata()) == 2]
    assert len(across) == levels
    assert ("the paper, CIFAR-10" in (tmp_path / "filters.svg").read_text()) is bool(levels)


PAPERS = re.compile(r"\bpaper\b|\| difference \||\bdiff\.", re.IGNORECASE)  # as headings of columns, or anywhere


def paper_in_tables(folder: Path) -> int:
    """How many cells have the paper's number, or a difference, in the CSV files there."""
    rows = [row for path in folder.glob("*.csv") for row in csv.DictReader(path.open(encoding="utf-8"))]
    return sum(bool(row["paper"] or row["difference"]) for row in rows if "difference" in row)


@pytest.mark.parametrize("made", ["reproduced", "solved"])
def test_the_digits_stand_alone_wherever_they_are_shown(made, request: pytest.FixtureRequest):
    folder, printed = request.getfixturevalue(made)
    assert paper_in_tables(folder / OUT) == 0
    assert not PAPERS.search(printed)
    shown = [path for ending in ("md", "svg") for path in (folder / OUT).glob(f"*.{ending}")]
    assert len(shown) > 4
    for path in shown:
        assert not PAPERS.search(path.read_text()), path
    html = re.sub(r"base64,[^\"]*", "", (folder / OUT / "report.html").read_text())
    assert not re.search(r"<th[^>]*>(paper|difference)|beside the paper|the paper's curves|Paper: ", html)
    assert "3.6 for small Inception" not in html
    assert "on MNIST's pixels" not in html


def test_what_to_expect_stays_where_it_is_not_the_papers(reproduced: tuple[Path, str]):
    html = " ".join((reproduced[0] / OUT / "report.html").read_text().split())
    assert "The paper&#39;s point is that uniform stability" in html


@pytest.mark.parametrize(
    ("options", "is_beside"),
    [((), True), (("--resize", "40"), False)],
    ids=["a part of CIFAR-10", "the same resized"],
)
def test_a_part_of_the_papers_images_stands_beside_its_numbers(real_root: Path, tmp_path: Path, options, is_beside):
    asked = ("--dataset", "cifar10", "--data_root", str(real_root), "--scale", "demo", "--models", "mlp_1x512")
    printed = reproduce(tmp_path, "table4", *asked, *options, "--out", "out")
    assert ("99.21%" in printed) is is_beside
    assert bool(PAPERS.search(printed)) is is_beside
    assert paper_in_tables(tmp_path / "out") == is_beside
    assert ("99.21%" in (tmp_path / "out/table4.md").read_text()) is is_beside
    html = (tmp_path / "out/report.html").read_text()
    assert ("99.21%" in html) is ("Paper: CIFAR-10" in html) is ("beside the paper's own" in html) is is_beside
    assert ("failed to converge" in html or "did not converge in the paper" in html) is is_beside


def test_photos_of_ones_own_stand_alone(tmp_path: Path):
    """A picture of noise each, in two classes."""
    draws = np.random.default_rng(0)
    images = draws.integers(0, 256, (64, 32, 32, 3), dtype=np.uint8)
    np.savez(
        tmp_path / "photos.npz", x_train=images, y_train=np.arange(64) % 2, x_test=images, y_test=np.arange(64) % 2
    )
    printed = reproduce(tmp_path, "table4", "--dataset", "photos.npz", "--scale", "demo", "--models", "mlp_1x512")
    folder = tmp_path / "reproduced/photos-demo"
    assert paper_in_tables(folder) == 0
    for text in (printed, (folder / "table4.md").read_text()):
        assert "photos" in text
        assert not PAPERS.search(text)
