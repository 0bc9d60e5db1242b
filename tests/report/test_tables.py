from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from rich.console import Console

from rethinking.experiments.catalogue import EXPERIMENTS
from rethinking.experiments.experiment import Cell
from rethinking.report import tables


def cell(quantity: str = "train accuracy", ours: float | None = 0.9786, **changed: object) -> Cell:
    values: dict[str, object] = {
        "labels": (("model", "mlp_1x512"), ("labels", "random"), ("random_crop", "yes"), ("weight_decay", "no")),
        "quantity": quantity,
        "x": None,
        "ours": ours,
        "std": None,
        "seeds": 1,
        "paper": 0.9934,
        "note": "",
        "runs": ("mlp_1x512-digits-random_labels-seed0-0123456789",),
    }
    return Cell(**{**values, **changed})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (cell(), ("97.86%", "99.34%", "-1.48")),
        (cell(std=0.0007), ("97.86 ± 0.07%", "99.34%", "-1.48")),
        (cell(paper="failed to converge"), ("97.86%", "failed to converge", "")),
        (cell(paper=None), ("97.86%",)),
        (cell(note="after 3 of 70 epochs"), ("97.86% (after 3 of 70 epochs)", "99.34%", "-1.48")),
        (cell("relative time to overfit", 2.254, paper=1.786), ("2.25", "1.79", "+0.47")),
        (cell("epochs to overfit", 63.0, paper=50.0), ("63", "50", "+13")),
        (cell("epochs to overfit", None, paper=50.0, note="not in 70 epochs"), ("not in 70 epochs", "50", "")),
        (cell("training loss", 0.0521, paper=0.047), ("0.052", "0.047", "+0.005")),
    ],
)
def test_a_number_is_shown_in_its_unit_beside_the_papers(made, expected):
    (row,) = tables.grid(EXPERIMENTS["table1"], [made]).rows
    assert tuple(entry.text for entry in row[4:]) == expected


def test_one_number_without_the_papers_leaves_its_columns_to_the_others():
    grid = tables.grid(EXPERIMENTS["table1"], [cell(), cell("test accuracy", 0.1016, paper=None)])
    assert grid.headings[4:] == ["train accuracy", "paper", "difference", "test accuracy", "paper", "difference"]
    assert [entry.text for entry in grid.rows[0][4:]] == ["97.86%", "99.34%", "-1.48", "10.16%", "", ""]


def test_the_table_stands_in_markdown_and_on_a_narrow_terminal():
    grid = tables.grid(EXPERIMENTS["table1"], [cell(), cell("test accuracy", 0.1016, paper=0.1061)])
    assert tables.markdown(grid).splitlines()[2] == (
        "| mlp_1x512 | random | yes | no | 97.86% | 99.34% | -1.48 | 10.16% | 10.61% | -0.45 |"
    )
    text = on_a_terminal_of_80(grid)
    for number in ("97.86%", "99.34%", "-1.48", "10.16%", "10.61%", "-0.45", "random crop"):
        assert number in text, f"{number} is cut"


def test_deviations_and_notes_are_whole_on_a_narrow_terminal():
    note = "after 4 of 70 epochs"
    seeds, unfinished = cell(std=0.0007), cell("test accuracy", 0.1016, std=0.01, paper=0.1061, note=note)
    text = on_a_terminal_of_80(tables.grid(EXPERIMENTS["table1"], [seeds, unfinished]))
    for whole in ("97.86 ±", "0.07%", "10.16 ±", "1.00%", *note.split()):
        assert whole in text, f"{whole} is cut"
    assert "…" not in text


def test_a_table_too_wide_for_the_terminal_goes_on_in_another_with_the_same_rows():
    labels = (("model", "mlp_1x512"), ("label_corruption", "0.5"))
    quantities = EXPERIMENTS["complexity"].ours_only
    numbers = [cell(name, 0.5 + place, labels=labels, x=0.5, paper=None) for place, name in enumerate(quantities)]
    grid = tables.grid(EXPERIMENTS["complexity"], numbers)
    for width in range(60, 161):
        text = on_a_terminal(grid, width)
        for whole in (*" ".join(quantities).split(), *(entry.text for entry in grid.rows[0][2:])):
            assert whole in text.split(), f"{whole} is cut at {width}"
        assert text.count("Ours: digits.") == text.count("Table 1") == 1
        assert "…" not in text
    assert on_a_terminal(grid, 80).count("mlp_1x512") == 3
    assert on_a_terminal(grid, 200).count("mlp_1x512") == 1


def on_a_terminal_of_80(grid: tables.Grid) -> str:
    return on_a_terminal(grid, 80)


def on_a_terminal(grid: tables.Grid, width: int) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(tables.Terminal("Table 1", grid, "Ours: digits."))
    text = console.export_text()
    assert max(len(line) for line in text.splitlines()) <= width
    return text


def test_curves_show_some_epochs_and_the_last_and_the_page_all():
    cells = [
        cell("training loss", 1.0, labels=(("model", "m"), ("condition", "true_labels")), x=float(epoch))
        for epoch in range(1, 64)
    ]
    shown = [row[2].text for row in tables.grid(EXPERIMENTS["figure1a"], cells).rows]
    assert shown == ["1", "2", "5", "10", "15", "20", "30", "40", "50", "60", "63"]
    assert len(tables.grid(EXPERIMENTS["figure1a"], cells, every_epoch=True).rows) == 63


def test_cells_survive_the_way_through_csv(tmp_path: Path):
    cells = [cell(std=0.001, seeds=3, runs=("a", "b", "c")), cell("test accuracy", None, paper="words", note="later")]
    tables.write_csv(tmp_path / "table1.csv", cells, "digits", "demo")
    assert tables.read_csv(tmp_path / "table1.csv") == (cells, "digits", "demo")
    with (tmp_path / "table1.csv").open() as file:
        first = next(csv.DictReader(file))
    assert float(first["difference"]) == pytest.approx(0.9786 - 0.9934, abs=1e-6)
    assert (first["model"], first["dataset"], first["runs"]) == ("mlp_1x512", "digits", "a b c")


def test_numbers_are_written_with_six_digits(tmp_path: Path):
    written = cell(ours=0.123456789, std=0.00123456789, paper=0.0987654321, seeds=2)
    tables.write_csv(tmp_path / "table1.csv", [written], "digits", "demo")
    with (tmp_path / "table1.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert [row[name] for name in ("ours", "std", "paper", "difference")] == [
        "0.123457",
        "0.00123457",
        "0.0987654",
        "0.0246914",
    ]


def test_means_over_draws_have_their_standard_error_and_other_means_the_deviation():
    labels = (("model", "linear class"), ("examples", "100"))
    drawn = cell("correlation", 0.41, labels=labels, x=100.0, std=0.06, seeds=9, paper=None)
    (row,) = tables.grid(EXPERIMENTS["rademacher"], [drawn]).rows
    assert row[-1].text == "0.410 ± 0.020"
    assert tables.repeats(EXPERIMENTS["rademacher"], [drawn]) == "9 draws"
    said = "Numbers with ± are the mean ± standard error over 9 draws."
    assert tables.meaning_of_spread(EXPERIMENTS["rademacher"], [drawn]) == said
    assert tables.repeats(EXPERIMENTS["stability"], [drawn]) == "9 replacements"
    changed = cell("mean change of loss, nats", 0.1, labels=labels, x=1.0, std=0.06, seeds=3, paper=None)
    trained = cell("online train accuracy", 0.9, labels=labels, x=1.0, paper=None)
    assert tables.repeats(EXPERIMENTS["stability"], [trained, changed]) == "3 replacements"
    assert tables.repeats(EXPERIMENTS["table1"], [cell(), cell(seeds=3)]) == "1 to 3 seeds"
    assert tables.meaning_of_spread(EXPERIMENTS["table1"], [cell(), cell(std=0.1, seeds=3)]) == (
        "Numbers with ± are the mean ± standard deviation over 3 seeds. Numbers without ± come from one seed."
    )
    assert tables.repeats(EXPERIMENTS["table1"], [cell()]) == "1 seed"
    assert tables.meaning_of_spread(EXPERIMENTS["table1"], [cell()]) == ""


def test_a_place_on_the_axis_has_a_column_where_no_label_tells_it():
    labels = (("model", "mlp_1x512"), ("labels", "true"))
    curve = [cell("normalized margin, mlp_1x512", 0.001 * (1 + x), labels=labels, x=x, paper=None) for x in (0.0, 0.05)]
    grid = tables.grid(EXPERIMENTS["complexity_margins"], curve)
    assert grid.headings == ["model", "labels", "share of training images below", "normalized margin, mlp_1x512"]
    assert [[entry.text for entry in row] for row in grid.rows] == [
        ["mlp_1x512", "true", "0", "0.001"],
        ["mlp_1x512", "true", "0.05", "0.0011"],
    ]
