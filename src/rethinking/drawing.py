"""Draws learning curves, and writes figures to files, pages and notebooks."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rethinking import files

Metrics = Sequence[Mapping[str, Any]]  # the records of one run


class Picture(Figure):
    """A figure that a notebook shows as the value of a cell. It does not use pyplot, which would show it twice."""

    def _repr_png_(self) -> bytes:
        drawn = io.BytesIO()
        self.savefig(drawn, format="png")
        return drawn.getvalue()


def draw_learning_curves(runs: Mapping[str, Sequence[Metrics]], dataset: str) -> Picture:
    """Draws training loss, training accuracy and test accuracy over epochs.

    Each name has one colour, and each of its runs has one line per quantity.

    runs: the records of every run by name, one record per epoch, as in `RunResult.metrics`
    dataset: the name of the data set in the titles
    """
    figure = Picture(figsize=(9, 3.6), layout="constrained")
    loss_axes, accuracy_axes = figure.subplots(1, 2)
    for index, (name, repetitions) in enumerate(runs.items()):
        for number, metrics in enumerate(repetitions):
            _draw_run(loss_axes, accuracy_axes, metrics, f"C{index}", name if number == 0 else "_")
    for axes, title in ((loss_axes, "training loss"), (accuracy_axes, "accuracy")):
        axes.set(xlabel="epoch", title=f"{title} on {dataset}")
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend(fontsize="small")
    return figure


def _draw_run(loss_axes: Axes, accuracy_axes: Axes, metrics: Metrics, colour: str, name: str) -> None:
    """Draws one run. The legend leaves out names that begin with '_'."""
    epochs = [record["epoch"] for record in metrics]
    alone = "." if len(epochs) == 1 else ""
    loss_axes.plot(epochs, [record["train_loss"] for record in metrics], color=colour, label=name, marker=alone)
    for metric, style, split in (("train_accuracy", "-", "training"), ("test_accuracy", "--", "test")):
        measured = {record["epoch"]: record[metric] for record in metrics if record[metric] is not None}
        marker = alone if len(measured) == len(epochs) else "."
        label = f"{name}, {split}"
        if measured:
            accuracy_axes.plot([*measured], [*measured.values()], style, color=colour, marker=marker, label=label)


def save_figure(figure: Figure, path: Path, name: str) -> None:
    """Writes a figure to `path` as .png and .svg. The same figure gives the same bytes each time.

    name: seeds the identifiers inside the .svg. Raises `RunError` where the files cannot be written.
    """
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        _save(figure, path.with_suffix(".svg"), metadata={"Date": None})
    _save(figure, path.with_suffix(".png"))


def as_svg(figure: Figure, name: str) -> str:
    """Returns the figure as an `<svg>` element; `name` seeds the identifiers inside it."""
    drawn = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(drawn, format="svg", metadata={"Date": None})
    text = drawn.getvalue()
    return text[text.index("<svg") :]


def _save(figure: Figure, path: Path, **options: Any) -> None:
    drawn = io.BytesIO()
    figure.savefig(
        drawn, format=path.suffix.removeprefix("."), dpi=150 if path.suffix == ".png" else "figure", **options
    )
    files.write(path, drawn.getvalue(), durable=False)
