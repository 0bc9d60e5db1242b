"""Figures of finished runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from matplotlib.figure import Figure

from rethinking.training.run_dir import RunResult


def learning_curves(results: Mapping[str, RunResult], path: Path) -> Path:
    """Training loss, training and test accuracy an epoch, one colour a run, written to `path`."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    loss_axes, accuracy_axes = figure.subplots(1, 2)
    for index, (name, result) in enumerate(results.items()):
        colour = f"C{index}"
        epochs = [record["epoch"] for record in result.metrics]
        loss_axes.plot(epochs, [record["train_loss"] for record in result.metrics], color=colour, label=name)
        for metric, style, split in (("train_accuracy", "-", "training"), ("test_accuracy", "--", "test")):
            values = [record[metric] for record in result.metrics]
            accuracy_axes.plot(epochs, values, style, color=colour, label=f"{name}, {split}")
    datasets = sorted({result.result["dataset"] for result in results.values()})
    for axes, title in ((loss_axes, "training loss"), (accuracy_axes, "accuracy")):
        axes.set(xlabel="epoch", title=f"{title} on {', '.join(datasets)}")
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    return path
