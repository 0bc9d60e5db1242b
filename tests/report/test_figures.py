import dataclasses
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from rethinking import get_baseline_config, get_random_labels_config, train
from rethinking.drawing import draw_learning_curves, save_figure
from rethinking.experiments.catalogue import EXPERIMENTS
from rethinking.experiments.experiment import Answer, Cell, Evidence
from rethinking.experiments.experiment import cells as merge
from rethinking.experiments.paper import read_table
from rethinking.experiments.scale import SCALES, Study
from rethinking.report.figures import paper_figure


def test_learning_curves_are_drawn_for_every_run(tmp_path: Path):
    options = {"dataset": "digits", "num_epochs": 2, "runs_dir": str(tmp_path / "runs"), "use_tensorboard": False}
    results = {
        "true labels": [train(get_baseline_config("mlp_1x512", **options)).metrics],
        "random labels": [
            train(get_random_labels_config("mlp_1x512", **options, seed=seed, randomization_seed=seed)).metrics
            for seed in range(2)
        ],
    }
    figure = draw_learning_curves(results, "digits")
    assert [len(axes.lines) for axes in figure.axes] == [3, 6], "a loss, and two accuracies, of each run"
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == [*results]
    save_figure(figure, tmp_path / "curves", "curves")
    with Image.open(tmp_path / "curves.png") as picture:
        colours = picture.convert("RGB").getcolors(maxcolors=1 << 24)
    drawn = {colour for count, colour in colours or [] if count > 100}
    assert {(31, 119, 180), (255, 127, 14)} <= drawn, "a run's curve is missing"


def cells(name: str, ours: float, dataset: str = "cifar10") -> list[Cell]:
    """An experiment's own points at full scale, with `ours` in place of every measured value."""
    metrics = tuple(
        {
            "epoch": epoch,
            "train_loss": ours,
            "train_accuracy": ours,
            "test_accuracy": ours,
            "exact_train_accuracy": None,
        }
        for epoch in range(1, 71)
    )
    experiment = EXPERIMENTS[name]
    rows = experiment.rows(Study(SCALES["full"], experiment.models, {}))
    facts = {"dataset": dataset, "provenance": {"fingerprint": "f"}}
    evidence = Evidence("run", "", True, {"num_epochs": 70}, facts, metrics)
    return merge(experiment.numbers([Answer(row, 0, evidence) for row in rows]))


@pytest.mark.parametrize("name", ["figure1a", "figure1b", "figure1c", "figure2b"])
def test_the_papers_curves_are_dashed_under_ours_in_its_own_axes(name, tmp_path: Path):
    experiment = EXPERIMENTS[name]
    plot = experiment.plot
    assert plot is not None
    drawn = paper_figure(experiment, cells(name, 0.99), tmp_path / name, "some_data", full_scale=True)
    (axes,) = drawn.axes
    assert (axes.get_xlim(), axes.get_ylim()) == (plot.x_limits, plot.y_limits)
    assert axes.get_ylabel() == plot.y_label
    assert "some_data" in axes.get_title()
    dashed = [line for line in axes.lines if line.get_linestyle() == "--" and len(line.get_xdata()) > 0]
    ours = [line for line in axes.lines if line.get_linestyle() == "-"]
    assert len(dashed) == len(ours) == {"figure1a": 5, "figure1b": 3, "figure1c": 3, "figure2b": 4}[name]
    for mine, papers in zip(ours, dashed, strict=True):
        assert mine.get_color() == papers.get_color()
        assert mine.get_zorder() > papers.get_zorder()
    assert (tmp_path / f"{name}.svg").read_text().startswith("<?xml")
    with Image.open(tmp_path / f"{name}.png") as picture:
        assert picture.width > 800


def test_the_dashed_curve_is_the_papers_point_for_point(tmp_path: Path):
    drawn = paper_figure(EXPERIMENTS["figure1a"], cells("figure1a", 1.0), tmp_path / "a", "d", full_scale=True)
    dashed = [line for line in drawn.axes[0].lines if line.get_linestyle() == "--" and len(line.get_xdata()) > 0]
    rows = read_table("figure1a")
    for line, condition in zip(dashed, dict.fromkeys(row["condition"] for row in rows), strict=True):
        points = [(0.391 * int(r["epoch"]), float(r["average_loss"])) for r in rows if r["condition"] == condition]
        drawn_points = [(x, y) for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True) if y == y]
        np.testing.assert_allclose(drawn_points, points, atol=1e-9)


def test_the_papers_curve_is_whole_where_ours_has_just_begun(tmp_path: Path):
    begun = [cell for cell in cells("figure1a", 2.3) if cell.x in (1.0, 2.0)]
    drawn = paper_figure(EXPERIMENTS["figure1a"], begun, tmp_path / "a", "d", full_scale=True)
    lengths = [len(line.get_xdata()) for line in drawn.axes[0].lines if line.get_linestyle() == "--"]
    assert [length for length in lengths if length] == [63] * 5


def test_curves_with_places_of_their_own_have_no_gap_where_another_has_one(tmp_path: Path):
    experiment = EXPERIMENTS["expressivity_points"]
    own = [
        Cell((("data", data), ("images", f"{x} images")), quantity, x, x, None, 1, None, "", ("run",))
        for quantity in experiment.plot.quantities
        for data, places in (("mnist", (100.0, 10_000.0, 60_000.0)), ("cifar10", (100.0, 10_000.0, 50_000.0)))
        for x in places
    ]
    drawn = paper_figure(experiment, own, tmp_path / "points", "d", full_scale=True)
    for axes in drawn.axes:
        assert [list(line.get_xdata()) for line in axes.lines] == [[100, 10_000, 60_000], [100, 10_000, 50_000]]
        assert [tick.get_text() for tick in axes.get_xticklabels()] == ["100", "10,000", "50,000", ""]


def test_levels_that_were_not_run_are_a_gap_and_no_line_across(tmp_path: Path):
    points = [
        cell for cell in cells("figure1c", 0.5) if dict(cell.labels)["model"] == "mlp_1x512" or cell.x in (0.0, 1.0)
    ]
    (axes,) = paper_figure(EXPERIMENTS["figure1c"], points, tmp_path / "c", "d", full_scale=True).axes
    inception, alexnet, mlp = (line.get_ydata() for line in axes.lines if line.get_linestyle() == "-")
    assert np.isfinite(mlp).all()
    for ends in (inception, alexnet):
        np.testing.assert_array_equal(np.isfinite(ends), [True] + 9 * [False] + [True])


def panels(name: str, series: list[str], heights: dict[str, float], path: Path) -> Figure:
    """A figure of an experiment with the same values for all of `series` in each panel."""
    experiment = EXPERIMENTS[name]
    points = [
        Cell(((experiment.plot.series, label), ("n", "3")), quantity, x, height * x, None, 1, None, "", ())
        for quantity, height in heights.items()
        for label in series
        for x in (1.0, 200.0)
    ]
    return paper_figure(experiment, points, path, "some_data", full_scale=True)


def test_quantities_to_be_compared_share_an_axis_that_holds_all_of_them(tmp_path: Path):
    heights = {"correlation": 0.01, "bound on the gap, at least": 0.015, "gap measured": 0.002}
    drawn = panels("rademacher", ["one", "other"], heights, tmp_path / "r")
    assert [axes.get_ylim() for axes in drawn.axes] == [(0, pytest.approx(1.08 * 3))] * 3
    one, other = drawn.axes[0].lines
    assert one.get_markersize() > other.get_markersize(), "which it would be hidden by"
    alone = panels(
        "complexity", ["one"], {"path norm": 0.02, "sharpness": -1.0, "distance from initialization": 0.0}, tmp_path
    )
    scales = {axes.get_title(): axes.get_yscale() for axes in alone.axes}
    assert scales == {"path norm": "log", "sharpness": "linear", "distance from initialization": "linear"}


def test_a_band_lies_within_its_panel(tmp_path: Path):
    labels = (("model", "m"), ("label_corruption", "0"))
    points = [Cell(labels, "sharpness", x, 3.0, 1.0, 3, None, "", ()) for x in (0.0, 1.0)]
    drawn = paper_figure(EXPERIMENTS["complexity"], points, tmp_path / "c", "some_data", full_scale=True)
    assert drawn.axes[0].get_ylim() == (0, pytest.approx(1.08 * 4))


def test_a_long_legend_lies_within_the_picture(tmp_path: Path):
    names = ["_mine", *(f"mlp_1x512-some_data-partial_corrupt-seed0-{place:010d}" for place in range(24))]
    drawn = panels("complexity_runs_margins", names, {"normalized margin, mlp_1x512": 0.1}, tmp_path / "m")
    box = drawn.legends[0].get_window_extent()
    assert 0 <= box.x0 < box.x1 <= drawn.bbox.width
    assert 0 <= box.y0 < box.y1 <= drawn.bbox.height
    assert [text.get_text() for text in drawn.legends[0].get_texts()] == names
    (handle, *_), (curve, *_) = drawn.legends[0].legend_handles, drawn.axes[0].lines
    assert handle.get_color() == curve.get_color()
    styles = {(line.get_color(), line.get_linestyle()) for line in drawn.axes[0].lines}
    assert len(styles) == 25, "two runs look the same"


def test_a_slower_run_than_the_papers_axis_has_room_for_is_not_cut_off(tmp_path: Path):
    points = [dataclasses.replace(cell, ours=9.0) for cell in cells("figure1b", 0.99)]
    drawn = paper_figure(EXPERIMENTS["figure1b"], points, tmp_path / "b", "d", full_scale=True)
    assert 9 < drawn.axes[0].get_ylim()[1] < 10


def test_the_same_numbers_draw_the_same_file(tmp_path: Path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        paper_figure(EXPERIMENTS["figure1c"], cells("figure1c", 0.5), tmp_path / name / "c", "d", full_scale=True)
    assert (tmp_path / "one/c.svg").read_bytes() == (tmp_path / "two/c.svg").read_bytes()


def test_several_quantities_have_axes_of_their_own_with_a_curve_a_model_in_each(tmp_path: Path):
    experiment = EXPERIMENTS["complexity"]
    quantities = experiment.plot.quantities
    values = {"mlp_1x512": 1.0, "small_alexnet": 2.0}
    points = [
        Cell((("model", model), ("label_corruption", f"{x}")), quantity, x, value * (place + x), None, 1, None, "", ())
        for place, quantity in enumerate(quantities, start=1)
        for model, value in values.items()
        for x in (0.0, 0.5, 1.0)
        if (model, x) != ("mlp_1x512", 0.5)
    ]
    drawn = paper_figure(experiment, points, tmp_path / "c", "some_data", full_scale=True)
    assert [axes.get_title() for axes in drawn.axes[: len(quantities)]] == list(quantities)
    for place, axes in enumerate(drawn.axes[: len(quantities)], start=1):
        mlp, alexnet = axes.lines
        np.testing.assert_array_equal(mlp.get_ydata(), [place, np.nan, place + 1])
        np.testing.assert_array_equal(alexnet.get_ydata(), [2 * place, 2 * place + 1, 2 * place + 2])
    (legend,) = drawn.legends
    assert [text.get_text() for text in legend.get_texts()] == ["mlp 1x512", "small alexnet"]
    assert all(axes.get_ylim()[0] == 0 for axes in drawn.axes[: len(quantities)]), "little looks little"
    assert "some_data" in drawn.get_suptitle()
    with Image.open(tmp_path / "c.png") as picture:
        assert picture.width > 1500
