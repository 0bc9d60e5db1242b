"""The README's picture, drawn from `results/`: one network on true and on random labels.

Its background is transparent. Its colours stand out from white and from the dark of a dark page alike.
"""

from __future__ import annotations

import csv
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rethinking.drawing import save_figure
from rethinking.report.tables import read_csv

MODEL = "small_inception"
FOLDER = "cifar10"  # of the results
WORDS = "#797979"
CURVES = {"train_accuracy": ("training", "#1f83d6"), "test_accuracy": ("test", "#d9611e")}  # metric: its name, colour


def curves(results: Path) -> dict[str, dict[str, list[float]]]:
    """Accuracies an epoch, by labels ('true', 'random') and metric, of Table 1's runs without regularization."""
    cells, _, _ = read_csv(results / FOLDER / "table1.csv")
    wanted = {"model": MODEL, "random_crop": "no", "weight_decay": "no"}
    runs = {dict(cell.labels)["labels"]: cell.runs[0] for cell in cells if wanted.items() <= dict(cell.labels).items()}
    with (results / FOLDER / "epochs.csv").open(encoding="utf-8", newline="") as file:
        epochs = list(csv.DictReader(file))
    return {
        labels: {metric: [float(row[metric]) for row in epochs if row["run"] == run] for metric in CURVES}
        for labels, run in runs.items()
    }


def draw(results: Path) -> Figure:
    """Training and test accuracy an epoch, true labels on the left and random labels on the right."""
    figure = Figure(figsize=(8, 3.2), layout="constrained", facecolor="none")
    both = curves(results)
    panels = figure.subplots(1, len(both), sharey=True)
    for axes, (labels, accuracies) in zip(panels, both.items(), strict=True):
        _draw_labels(axes, labels, accuracies)
    panels[0].set_ylabel("accuracy", color=WORDS, fontsize=12)
    return figure


def _draw_labels(axes: Axes, labels: str, accuracies: dict[str, list[float]]) -> None:
    """Each curve has its name and its last value at its end, and its identity in the SVG is labels and metric."""
    axes.set_facecolor("none")
    axes.axhline(0.1, color=WORDS, linewidth=1, linestyle=":")
    axes.text(len(accuracies["test_accuracy"]), 0.08, "a guess", color=WORDS, fontsize=11, ha="right", va="top")
    for metric, (name, colour) in CURVES.items():
        values = accuracies[metric]
        axes.plot(range(1, len(values) + 1), values, color=colour, linewidth=2.5, gid=f"{labels}-{metric}")
        place = (len(values), values[-1] - (0.02 if values[-1] > 0.5 else -0.02))
        above = "top" if values[-1] > 0.5 else "bottom"
        text = f"{name} {values[-1]:.1%}"
        axes.annotate(text, place, color=colour, fontsize=12, fontweight="bold", ha="right", va=above)
    axes.set_title(f"{labels} labels", color=WORDS, fontsize=14, fontweight="bold")
    axes.set_xlabel("epoch", color=WORDS, fontsize=12)
    axes.set_ylim(0, 1.02)
    axes.set_yticks([0, 0.5, 1], ["0%", "50%", "100%"])
    axes.tick_params(colors=WORDS, labelsize=11)
    for side, spine in axes.spines.items():
        spine.set_color(WORDS)
        spine.set_visible(side in ("left", "bottom"))


def write(results: Path, folder: Path) -> None:
    """Writes `true_and_random.svg` and `.png` into `folder`, the same files each time."""
    folder.mkdir(parents=True, exist_ok=True)
    save_figure(draw(results), folder / "true_and_random", "true_and_random")
