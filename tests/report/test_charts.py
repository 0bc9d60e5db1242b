"""The figures of the page hold the same curves as the figures in files."""

import functools
import json
import math
from dataclasses import replace

import numpy as np
import pytest

from rethinking.experiments import archive
from rethinking.experiments.catalogue import EXPERIMENTS
from rethinking.experiments.experiment import Cell, Evidence, Plot
from rethinking.report import charts, tables
from rethinking.report.figures import paper_figure
from tools.pages import RESULTS, folders

FIGURES = [
    (folder, path.stem)
    for folder in folders()
    for path in sorted(folder.glob("*.csv"))
    if path.stem in EXPERIMENTS and EXPERIMENTS[path.stem].plot
]


@functools.cache
def kept_in(folder):
    return archive.read(folder)


def chart_of(folder, name):
    kept = kept_in(folder)
    cells, _, scale = tables.read_csv(folder / f"{name}.csv")
    experiment = EXPERIMENTS[name].shown_for(cells, kept)
    full = scale == "full" and kept[cells[0].runs[0]].facts["train_images"] == 50_000
    return experiment, cells, full, charts.of_experiment(experiment, cells, full)


@pytest.mark.parametrize(("folder", "name"), FIGURES, ids=lambda value: getattr(value, "name", value))
def test_the_page_draws_the_curves_of_the_file(folder, name, tmp_path):
    experiment, cells, full, chart = chart_of(folder, name)
    drawn = paper_figure(experiment, cells, tmp_path / name, "d", full)
    assert len(chart["panels"]) == len([axes for axes in drawn.axes if axes.lines])
    for panel, axes in zip(chart["panels"], drawn.axes, strict=False):
        lines = [np.array(line.get_xydata(), dtype=float) for line in axes.lines if len(line.get_xdata())]
        levels = len(experiment.plot.levels)
        lines = [line[np.isfinite(line[:, 1])] for line in lines[: len(lines) - levels if levels else None]]
        hollow = experiment.plot.points and any(cell.note for cell in cells)
        found = [
            np.array([[x, y] for x, y in zip(curve["x"], curve["y"], strict=True) if y is not None], dtype=float)
            for curve in panel["curves"]
            if chart["names"][curve["name"]]["style"] != "area"
        ]
        for curve in found:
            if len(curve) and not (levels and len(curve) == 2):
                same = [line for line in lines if line.shape == curve.shape]
                assert any(np.allclose(line, curve, rtol=1e-5, atol=1e-9) for line in same), "no such line in the file"
        if not hollow and not levels:
            assert len(found) == len([line for line in lines if len(line)]), "a line is missing"


@pytest.mark.parametrize(("folder", "name"), FIGURES, ids=lambda value: getattr(value, "name", value))
def test_axes_hold_every_point_and_a_margin(folder, name):
    *_, chart = chart_of(folder, name)
    json.dumps(chart, allow_nan=False)
    for panel in chart["panels"]:
        ours = [curve for curve in panel["curves"] if not curve.get("reference")]
        filled = [zip(curve["x"], curve["y"], strict=True) for curve in ours]
        x = [place for curve in filled for place, value in curve if value is not None]
        y = [value for curve in ours for value in curve["y"] if value is not None]
        assert panel["x"]["min"] < min(x) or not chart.get("points")
        assert max(x) < panel["x"]["max"] or not chart.get("points")
        assert panel["y"]["min"] < min(y)
        assert max(y) < panel["y"]["max"]
        for axis in (panel["x"], panel["y"]):
            assert not axis["log"] or axis["min"] > 0
            assert math.isfinite(axis["max"] - axis["min"])


def test_levels_that_were_not_run_are_a_gap():
    *_, chart = chart_of(RESULTS / "cifar10", "figure1c")
    inception = next(
        curve for curve in chart["panels"][0]["curves"] if chart["names"][curve["name"]]["label"] == "small inception"
    )
    assert [value is None for value in inception["y"]] == [False] + 9 * [True] + [False]


def test_a_band_is_the_spread_that_the_table_shows():
    experiment, cells, _, chart = chart_of(RESULTS / "digits-demo", "rademacher")
    assert experiment.standard_error
    panel = chart["panels"][0]
    spreads = {
        (cell.x, round(cell.std / math.sqrt(cell.seeds), 5))
        for cell in cells
        if cell.quantity == panel["title"] and cell.std
    }
    shown = {
        (x, round(spread, 5))
        for curve in panel["curves"]
        for x, spread in zip(curve["x"], curve.get("spread", ()), strict=False)
        if spread
    }
    assert shown == spreads
    assert chart["notes"] == ["Bands: one standard error around the mean."]


def test_points_of_unfinished_runs_are_hollow():
    labels = (("model", "m"), ("label_corruption", "0"))
    cells = [
        Cell(labels, "test error", x, 0.5, None, 1, None, note, ("run",))
        for x, note in ((0.0, ""), (0.5, "after 3 of 70 epochs"), (1.0, ""))
    ]
    chart = charts.of_experiment(EXPERIMENTS["figure1c"], cells, False)
    assert [curve["hollow"] for curve in chart["panels"][0]["curves"]] == [[1]]
    assert "Hollow points: the run has not ended." in chart["notes"]


@pytest.mark.parametrize("quantity", ["train loss", "test error"])
def test_curves_of_the_same_colour_differ_in_their_lines(quantity):
    run = Evidence("a", "", True, {}, {}, ({"epoch": 1, "train_loss": 1.0, "train_accuracy": 0.5},))
    names = [f"network {place}" for place in range(12)]
    cells = [Cell((("model", name),), quantity, 1.0, 0.5, None, 1, None, "", ("a",)) for name in names]
    plot = Plot(quantities=(quantity,), series="model", x_label="x", panels=True)
    in_panels = charts.of_experiment(replace(EXPERIMENTS["figure1c"], plot=plot), cells, False)
    for chart in (charts.of_runs({name: [run] for name in names}), in_panels):
        assert [name["label"] for name in chart["names"]] == names
        assert len({(name["colour"], name["style"]) for name in chart["names"]}) == 12


def test_a_logarithmic_axis_holds_the_whole_band():
    curve = {"name": 0, "x": [1, 2, 3], "y": [1.0, 10.0, 5.0], "spread": [0.75, 2.0, 6.0]}
    panel = charts._panel("t", [curve], {"label": "x", "places": [1, 2, 3]}, log_y=True)
    assert 0 < panel["y"]["min"] < 0.25
    assert panel["y"]["max"] > 12


def test_a_note_says_where_an_axis_ends_before_our_last_epoch():
    *_, chart = chart_of(RESULTS / "cifar10", "figure1a")
    plot = EXPERIMENTS["figure1a"].plot
    last = max(curve["x"][-1] for curve in chart["panels"][0]["curves"] if "reference" not in curve)
    assert last > plot.x_limits[1]
    assert f"The axis ends where the paper's does: at {plot.x_limits[1]:g} thousand steps." in chart["notes"]
    *_, chart = chart_of(RESULTS / "cifar10", "figure1c")
    assert not any("axis ends" in note for note in chart["notes"])


def test_learning_curves_have_a_colour_a_condition_and_a_curve_a_run():
    def run(name: str, accuracies: list[float], tested: bool) -> Evidence:
        metrics = tuple(
            {
                "epoch": epoch,
                "train_loss": 1 / epoch,
                "train_accuracy": accuracy - 0.1,
                "exact_train_accuracy": accuracy,
                "test_accuracy": accuracy / 2 if tested and epoch % 2 else None,
            }
            for epoch, accuracy in enumerate(accuracies, start=1)
        )
        return Evidence(name, "", True, {"seed": len(name)}, {}, metrics)

    runs = {"true": [run("a", [0.5, 0.75, 1.0], True), run("bb", [0.5], True)], "random": [run("c", [0.5, 0.5], True)]}
    chart = charts.of_runs(runs)
    assert [name["label"] for name in chart["names"]] == ["true", "random"]
    loss, training, test = chart["panels"]
    assert [curve["name"] for curve in loss["curves"]] == [0, 0, 1]
    assert [curve.get("run") for curve in loss["curves"]] == ["seed 1", "seed 2", None]
    assert loss["title"] == "training loss, nats"
    assert training["title"] == "training accuracy"
    assert training["curves"][0]["y"] == [0.5, 0.75, 1]
    assert (test["curves"][0]["x"], test["curves"][0]["y"]) == ([1, 3], [0.25, 0.5])
    online = {"only": [run("a", [0.5, 1.0], False)]}
    online["only"][0].metrics[0]["exact_train_accuracy"] = None
    chart = charts.of_runs(online)
    assert [panel["title"] for panel in chart["panels"]] == ["training loss, nats", "training accuracy, online"]
    assert charts.of_runs({}) is None
