"""The figures of the page, as data that `page.js` draws: the same curves as `figures` draws into files."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from rethinking.experiments.experiment import Cell, Evidence, Experiment, Plot
from rethinking.experiments.quantities import percent
from rethinking.experiments.quantities import quantity as quantity_of
from rethinking.report import tables
from rethinking.report.figures import is_logarithmic, series_names

COLOURS = 10  # that the page's style has for curves
PADDING = 0.035  # of an axis at both ends, so that no point on its edge is cut
STYLES = ("solid", "dashed", "dotted")  # of curves in several panels; beside the paper's curves all are solid
PAPERS = "the paper, CIFAR-10"

Chart = dict[str, Any]
Points = Sequence[tuple[float, Cell | None]]  # a place on the axis and the cell there, None for a gap


def of_experiment(experiment: Experiment, cells: Sequence[Cell], full_scale: bool) -> Chart | None:
    """The chart of an experiment; None where it has no figure, or no number that the figure shows."""
    plot = experiment.plot
    if plot is None or not any(cell.quantity in plot.quantities for cell in cells):
        return None
    cells = [replace(cell, std=experiment.spread(cell)) for cell in cells]
    chart = _in_panels(plot, cells) if plot.panels else _beside_the_paper(plot, cells, full_scale)
    return _finished(chart, f"one {tables.spread(experiment)}")


def of_runs(runs: Mapping[str, Sequence[Evidence]]) -> Chart | None:
    """Learning curves: a colour a name, with a curve for each of its runs; None where there is no run."""
    exact = all(record.get("exact_train_accuracy") is not None for run in _all(runs) for record in run.metrics)
    metrics = {
        "training loss": ("train_loss", False),
        "training accuracy" if exact else "training accuracy, online": (
            "exact_train_accuracy" if exact else "train_accuracy",
            True,
        ),
        "test accuracy": ("test_accuracy", True),
    }
    panels = []
    for title, (metric, is_share) in metrics.items():
        curves = []
        for place, of_name in enumerate(runs.values()):
            for run in of_name:
                records = [record for record in run.metrics if record.get(metric) is not None]
                x, y = [record["epoch"] for record in records], [_short(record[metric]) for record in records]
                which = {"run": f"seed {run.configuration.get('seed', 0)}"} if len(of_name) > 1 else {}
                curves += [{"name": place, "x": x, "y": y, **which}] if records else []
        if curves:
            panels.append(_panel(title, curves, _x_axis("epoch", curves), is_share, "" if is_share else "nats"))
    if not panels:
        return None
    return _finished({"names": [_name(name, place) for place, name in enumerate(runs)], "panels": panels}, "")


def _all(runs: Mapping[str, Sequence[Evidence]]) -> Iterable[Evidence]:
    return itertools.chain.from_iterable(runs.values())


def _in_panels(plot: Plot, cells: Sequence[Cell]) -> Chart:
    """A panel for each quantity, with the same curves in each."""
    named = series_names(plot, cells)
    names = list(dict.fromkeys(named.values()))
    panels = []
    for quantity in plot.quantities:
        of_quantity = [cell for cell in cells if cell.quantity == quantity]
        if not of_quantity:
            continue
        places = sorted({cell.x or 0.0 for cell in of_quantity})
        log_y = is_logarithmic(plot, [cell.ours for cell in of_quantity if cell.ours is not None])
        curves = []
        for number, name in enumerate(names):
            found = {cell.x or 0.0: cell for cell in of_quantity if named[cell.labels] == name}
            along = sorted(found) if plot.own_places else places
            if found:
                curves.append(_curve(number, [(place, found.get(place)) for place in along], log_y))
        panels.append(_panel_of(plot, quantity, quantity, curves, log_y=log_y))
    if plot.share_y and panels:
        low, high = (limit(panel["y"][end] for panel in panels) for end, limit in (("min", min), ("max", max)))
        for panel in panels:
            panel["y"] |= {"min": low, "max": high}
    styled = [_name(name, place, "solid" if plot.points else STYLES[place % 3]) for place, name in enumerate(names)]
    return {"names": styled, "points": plot.points, "panels": panels}


def _beside_the_paper(plot: Plot, cells: Sequence[Cell], full_scale: bool) -> Chart:
    """One panel with ours, and the paper's curves dashed in the same colours."""
    in_steps = full_scale and plot.x_per_epoch is not None  # where an epoch has as many as the paper's
    unit = plot.x_per_epoch if in_steps and plot.x_per_epoch else 1.0
    named = series_names(plot, cells)
    grouped: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells:
        grouped.setdefault((named[cell.labels], cell.quantity), []).append(cell)
    colours = {key: place for place, key in enumerate(key for key in grouped if key[1] in plot.quantities)}
    places = sorted({cell.x or 0.0 for cell in cells})
    log_y = plot.log_y
    names, curves = [], []
    for (name, quantity), of_curve in grouped.items():
        shaded = quantity == plot.shaded
        if not shaded and quantity not in plot.quantities:
            continue
        alone = len(plot.quantities) == 1
        colour = colours.get((name, plot.quantities[-1] if shaded else quantity), 0)
        names.append(_name(name if alone else f"{quantity}, {name}", colour, "area" if shaded else "solid"))
        found = {cell.x or 0.0: cell for cell in of_curve}
        curves.append(_curve(len(names) - 1, [(place * unit, found.get(place)) for place in places], log_y))
        papers = plot.paper.get((dict(of_curve[0].labels)[plot.series], quantity), {})
        if any(isinstance(cell.paper, float) for cell in of_curve):
            x, y = [_short(place * unit) for place in papers], [_short(value) for value in papers.values()]
            curves.append({"name": len(names) - 1, "x": x, "y": y, "reference": True})
    for series, level in plot.levels.items():
        of_series = next((place for place, name in enumerate(names) if name["label"].startswith(series)), None)
        if of_series is not None:
            x = [places[0] * unit, places[-1] * unit]
            curves.append({"name": of_series, "x": x, "y": [level, level], "reference": True})
    label = plot.x_label if in_steps or plot.x_per_epoch is None else "epoch"
    title = plot.y_label or plot.quantities[0]
    panel = _panel_of(plot, plot.quantities[0], title, curves, label, log_y)
    notes = []
    if plot.x_limits and not plot.log_x and (in_steps or plot.x_per_epoch is None):
        panel["x"] |= _padded(*plot.x_limits, False)
        if places and places[-1] * unit > plot.x_limits[1]:
            notes.append(f"The axis ends where the paper's does: at {plot.x_limits[1]:g} {label}.")
    if plot.y_limits and not log_y:  # the paper's axis, and more only where it must
        values = [cell.ours for cell in cells if cell.quantity in plot.quantities and cell.ours is not None]
        low, high = plot.y_limits
        panel["y"] |= _padded(min([low, *values]), max([high, *values]), False)
    return {"names": names, "points": plot.points, "panels": [panel], "notes": notes}


def _panel_of(
    plot: Plot, quantity: str, title: str, curves: list[dict[str, Any]], x_label: str = "", log_y: bool = False
) -> dict[str, Any]:
    known = quantity_of(quantity)
    x = _x_axis(x_label or plot.x_label, curves, plot.log_x)
    if plot.log_x and plot.points and all(float(place).is_integer() for place in x["places"]):
        x["ticks"] = x["places"]  # such as numbers of filters
    unit = known.unit if known.unit not in ("share", "s", "seconds") else ""
    return _panel(title, curves, x, known.written is percent, unit, log_y)


def _panel(
    title: str,
    curves: list[dict[str, Any]],
    x: dict[str, Any],
    percent: bool = False,
    unit: str = "",
    log_y: bool = False,
) -> dict[str, Any]:
    """A panel with its axes: linear ones begin at 0, so that little looks little."""
    ends = [
        end
        for curve in curves
        for y, spread in itertools.zip_longest(curve["y"], curve.get("spread", ()), fillvalue=0.0)
        if y is not None
        for end in (y - spread, y, y + spread)
        if not log_y or end > 0
    ]
    low, high = min(ends, default=0.0), max(ends, default=1.0)
    y_axis = _padded(low if log_y else min(0.0, low), high, log_y) | {"log": log_y, "percent": percent}
    x = {name: value for name, value in x.items() if name != "places"}
    title = title if unit in title else f"{title}, {unit}"
    return {"title": title, "unit": unit, "x": x, "y": y_axis, "curves": curves}


def _x_axis(label: str, curves: list[dict[str, Any]], log: bool = False) -> dict[str, Any]:
    filled = (zip(curve["x"], curve["y"], strict=True) for curve in curves)
    places = sorted({place for curve in filled for place, value in curve if value is not None})
    log = log and bool(places)
    low, high = (places[0], places[-1]) if places else (0.0, 1.0)
    return {"label": label, "log": log, "places": places, **_padded(low, high, log)}


def _padded(low: float, high: float, log: bool) -> dict[str, float]:
    """The ends of an axis from `low` to `high`, a little beyond both."""
    if log:
        factor = (high / low) ** PADDING if high > low else 2.0
        return {"min": _short(low / factor), "max": _short(high * factor)}
    more = PADDING * (high - low) or abs(high) or 1.0
    return {"min": _short(low - more), "max": _short(high + more)}


def _curve(name: int, points: Points, log_y: bool) -> dict[str, Any]:
    """A curve of ours: y, None where there is a gap; its spread; and where the run has not ended."""
    ours = [None if cell is None or cell.ours is None or (log_y and cell.ours <= 0) else cell for _, cell in points]
    curve: dict[str, Any] = {
        "name": name,
        "x": [_short(place) for place, _ in points],
        "y": [None if cell is None or cell.ours is None else _short(cell.ours) for cell in ours],
    }
    spread = [_short(cell.std) if cell is not None and cell.std is not None else 0.0 for cell in ours]
    if any(spread):
        curve["spread"] = spread
    hollow = [place for place, cell in enumerate(ours) if cell is not None and cell.note]
    if hollow:
        curve["hollow"] = hollow
    return curve


def _name(label: str, colour: int, style: str = "solid") -> dict[str, Any]:
    """An entry of the legend. Where colours repeat, the style of the line tells their curves apart."""
    if style in STYLES:
        style = STYLES[(STYLES.index(style) + colour // COLOURS) % len(STYLES)]
    return {"label": label, "colour": colour % COLOURS, "style": style}


def _finished(chart: Chart, spread: str) -> Chart:
    """The chart with what its legend has to explain, and with what it shows in words."""
    curves = [curve for panel in chart["panels"] for curve in panel["curves"]]
    notes = chart.get("notes", [])
    if any("reference" in curve for curve in curves):
        chart["reference"] = PAPERS
    if any("spread" in curve for curve in curves):
        notes.append(f"Bands: {spread} around the mean.")
    if chart.get("points") and any("hollow" in curve for curve in curves):
        notes.append("Hollow points: the run has not ended.")
    quantities = ", ".join(panel["title"] for panel in chart["panels"])
    names = ", ".join(name["label"] for name in chart["names"])
    chart["notes"] = notes
    chart["words"] = f"{quantities} by {chart['panels'][0]['x']['label']}, with curves for {names}"
    return chart


def _short(value: float) -> float:
    """Six digits, as in the CSV files."""
    short = float(f"{value:.6g}")
    return int(short) if math.isfinite(short) and short.is_integer() and abs(short) < 1e15 else short
