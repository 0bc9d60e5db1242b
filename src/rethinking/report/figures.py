"""Figures of finished runs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter

from rethinking.drawing import save_figure
from rethinking.experiments.experiment import Cell, Experiment, Labels, Plot
from rethinking.report.tables import labelled

SPAN = 100.0  # of the values of a quantity, from which on its panel is logarithmic
LINES = ("-", "--", ":")
LABELS = 9  # of places on an axis beside each other at most
LETTERS = 13  # of a legend's, in an inch


def paper_figure(experiment: Experiment, cells: Sequence[Cell], path: Path, dataset: str, full_scale: bool) -> Figure:
    """The figure of an experiment, written to `path` as .png and as .svg. Points of unfinished runs are hollow."""
    plot = experiment.plot
    assert plot is not None, "a figure"
    title = f"{experiment.title}\nours on {dataset}"
    cells = [replace(cell, std=experiment.spread(cell)) for cell in cells]
    figure = _panels(plot, cells, title) if plot.panels else _beside_the_paper(plot, cells, title, full_scale)
    save_figure(figure, path, experiment.title)
    return figure


def _panels(plot: Plot, cells: Sequence[Cell], title: str) -> Figure:
    """Axes for each quantity, with the same curves in each."""
    cells = [cell for cell in cells if cell.quantity in plot.quantities]
    quantities = [name for name in plot.quantities if any(cell.quantity == name for cell in cells)]
    columns = {1: 1, 2: 2, 3: 3, 4: 2}.get(len(quantities), 4)
    rows = math.ceil(len(quantities) / columns)
    named = series_names(plot, cells)
    names = list(dict.fromkeys(named.values()))
    width = max(6.4, 3.4 * columns)
    beside = max(1, min(4, int(width * LETTERS / (8 + max(map(len, names))))))  # entries in a line of the legend
    height = max(4.4, 2.8 * rows + 0.8) + 0.2 * (math.ceil(len(names) / beside) - 1)
    figure = Figure(figsize=(width, height), layout="constrained")
    colours = dict(zip(names, itertools.cycle(_palette(len(names))), strict=False))
    # Of curves that coincide each is seen: the later ones have smaller markers, or dashes.
    markers = {name: 4 + 4 * (len(names) - 1 - place) / len(names) for place, name in enumerate(names)}
    lines = dict(zip(names, itertools.cycle(LINES), strict=False))
    panels = figure.subplots(rows, columns, squeeze=False, sharey=plot.share_y).flatten()
    drawn, unused = panels[: len(quantities)], panels[len(quantities) :]
    curves = {}
    for axes, quantity in zip(drawn, quantities, strict=True):
        of_quantity = [cell for cell in cells if cell.quantity == quantity]
        places = sorted({cell.x or 0.0 for cell in of_quantity})
        for name in names:
            found = {cell.x or 0.0: cell for cell in of_quantity if named[cell.labels] == name}
            along = sorted(found) if plot.own_places else places
            points = [found.get(place) for place in along]
            line = "-" if plot.points else lines[name]
            marker = "o" if plot.points else ""
            curves[name] = _draw_curve(axes, along, points, colours[name], name, marker, line, markers[name])
        axes.set_title(quantity, fontsize="medium")
        axes.set_xlabel(plot.x_label)
        axes.grid(alpha=0.3)
        if plot.log_x:
            _log_x(axes, plot, places)
        _scale_y(axes, [cell.ours for cell in of_quantity if cell.ours is not None], plot)
    if plot.share_y:
        drawn[0].set_ylim(top=1.08 * max(axes.dataLim.ymax for axes in drawn))
    for axes in unused:
        axes.remove()
    handles = [curves[name] for name in names]
    figure.legend(handles, names, title=plot.series, fontsize="small", loc="outside lower center", ncols=beside)
    figure.suptitle(title, fontsize="medium")
    return figure


def is_logarithmic(plot: Plot, values: Sequence[float]) -> bool:
    """Whether the axis of a panel with these values is logarithmic: where they have several magnitudes."""
    least, largest = min(values, default=0.0), max(values, default=0.0)
    return least > 0 and (plot.log_y or (largest > SPAN * least and not plot.share_y))


def _scale_y(axes: Axes, values: Sequence[float], plot: Plot) -> None:
    """Scales the axis of a panel. A linear axis begins at 0, so that small differences look small."""
    least, largest = min(values, default=0.0), max(values, default=0.0)
    if is_logarithmic(plot, values):
        axes.set_yscale("log")
        if largest < SPAN * least:
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_minor_formatter(NullFormatter())
        axes.yaxis.set_major_formatter("{x:g}")
    elif least >= 0:
        axes.set_ylim(0, 1.08 * axes.dataLim.ymax if largest > 0 else 1)


def _beside_the_paper(plot: Plot, cells: Sequence[Cell], title: str, full_scale: bool) -> Figure:
    """Ours over the paper's dashed curve, in the paper's axes and order.

    At full scale, with as many training images as the paper's, an epoch has as many steps as the paper's.
    """
    in_steps = full_scale and plot.x_per_epoch is not None  # where an epoch has as many as the paper's
    unit = plot.x_per_epoch if in_steps and plot.x_per_epoch else 1.0
    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    axes = figure.subplots()
    named = series_names(plot, cells)
    curves: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells:
        curves.setdefault((named[cell.labels], cell.quantity), []).append(cell)
    drawn = [key for key in curves if key[1] in plot.quantities]
    colours = dict(zip(drawn, itertools.cycle(_palette(len(drawn))), strict=False))
    places = sorted({cell.x or 0.0 for cell in cells})  # what one curve has and another lacks is a gap in that one
    for (name, quantity), points in curves.items():
        x = [(cell.x or 0.0) * unit for cell in points]
        if quantity in plot.quantities:
            label = name if len(plot.quantities) == 1 else f"{quantity}, {name}"
            found = {cell.x: cell for cell in points}
            all_points, all_x = [found.get(place) for place in places], [place * unit for place in places]
            _draw_curve(axes, all_x, all_points, colours[name, quantity], label, "o" if plot.points else "")
            if any(isinstance(cell.paper, float) for cell in points):
                papers = plot.paper[dict(points[0].labels)[plot.series], quantity]
                papers_x = np.array(list(papers)) * unit
                axes.plot(papers_x, list(papers.values()), "--", color=colours[name, quantity], linewidth=1, alpha=0.8)
        elif quantity == plot.shaded:
            best = [cell.ours or 0.0 for cell in points]
            colour = colours[name, plot.quantities[-1]]
            axes.fill_between(x, 0, best, color=colour, alpha=0.12, linewidth=0, label=f"{quantity}, {name}")
    for series, level in plot.levels.items():
        colour = next((colours[key] for key in drawn if key[0].startswith(series)), "grey")
        axes.axhline(level, linestyle="--", color=colour, linewidth=1, alpha=0.8)
    if plot.levels or any(isinstance(cell.paper, float) for cell in cells):
        axes.plot([], [], "--", color="grey", linewidth=1, label="the paper, CIFAR-10")
    if plot.log_x:
        _log_x(axes, plot, places)
    elif plot.x_limits and (in_steps or plot.x_per_epoch is None):
        axes.set_xlim(*plot.x_limits)
    if plot.log_y:
        axes.set_yscale("log")
    if plot.y_limits:  # the paper's axis, and more only where it must
        low, high = plot.y_limits
        ours = [cell.ours for cell in cells if cell.quantity in plot.quantities and cell.ours is not None]
        lowest, highest = min(ours, default=low), max(ours, default=high)
        axes.set_ylim(
            low if low <= lowest else lowest - 0.05 * abs(lowest), high if highest <= high else 1.05 * highest
        )
    axes.set(xlabel=plot.x_label if in_steps or plot.x_per_epoch is None else "epoch", ylabel=plot.y_label)
    axes.set_title(title, fontsize="medium")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    return figure


def _palette(curves: int) -> list[str]:
    return [to_hex(colour) for colour in matplotlib.color_sequences["tab10" if curves <= 10 else "tab20"]]


def _log_x(axes: Axes, plot: Plot, places: Sequence[float]) -> None:
    """`places` in ascending order."""
    axes.set_xscale("log")
    if plot.points and all(place.is_integer() for place in places):  # such as numbers of filters
        apart, labelled = (places[-1] / places[0]) ** (1 / LABELS), [places[0]]
        for place in places[1:]:
            if place >= apart * labelled[-1]:
                labelled.append(place)
        labels = [f"{place:,.0f}" if place in labelled else "" for place in places]
        axes.set_xticks(places, labels, fontsize="small" if plot.panels else None)
        axes.minorticks_off()


def series_names(plot: Plot, cells: Sequence[Cell]) -> dict[Labels, str]:
    """The curve that each row belongs to; where several models or data sets share a figure, with its own."""
    rows = {cell.labels: dict(cell.labels) for cell in cells}
    if plot.curves is not None:
        words = {row: [labelled(name, labels[name]) for name in plot.curves] for row, labels in rows.items()}
        return {row: ", ".join(of_row) or "all runs" for row, of_row in words.items()}
    beside = [
        name
        for name in ("model", "data")
        if name != plot.series and len({labels.get(name) for labels in rows.values()}) > 1
    ]
    names = {}
    for row, labels in rows.items():
        of_curve = labels[plot.series] if plot.series == "run" else labels[plot.series].replace("_", " ")
        names[row] = ", ".join([of_curve, *(labels[name] for name in beside if name in labels)])
    return names


def _draw_curve(
    axes: Axes,
    x: Sequence[float],
    points: Sequence[Cell | None],
    colour: str,
    label: str,
    marker: str,
    line: str = "-",
    size: float = 4,
) -> Line2D:
    """Ours, with its spread as a band; a gap where there is no cell."""
    ours = np.array([np.nan if cell is None or cell.ours is None else cell.ours for cell in points])
    (curve,) = axes.plot(x, ours, line, color=colour, marker=marker, markersize=size, label=label, zorder=3)
    unfinished = [bool(cell and cell.note) for cell in points]
    if marker and any(unfinished):
        places = np.array(x)[unfinished]
        axes.plot(places, ours[unfinished], marker, color=colour, markerfacecolor="white", markersize=size, zorder=4)
    spread = np.array([(cell and cell.std) or 0.0 for cell in points])
    if spread.any():
        axes.fill_between(x, ours - spread, ours + spread, color=colour, alpha=0.2, linewidth=0)
    return curve
