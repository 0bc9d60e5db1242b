"""What a reproduction leaves in its folder, made anew from the evidence there each time.

runs.csv, epochs.csv and one for each kind of what is not trained: the evidence (see `experiments.archive`)
<table or figure>.csv, .md    every number of ours beside the paper's, with the runs behind it
<figure>.png, .svg            with the paper's curve dashed under ours
report.html                   all of it on one page that needs no network

The paper's numbers and curves are there where the images are the paper's (`experiments.experiment.cells`).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from pathlib import Path

from rethinking import files
from rethinking.experiments.experiment import Cell, Evidence, Experiment
from rethinking.experiments.run_list import RunList
from rethinking.experiments.time_to_overfit import DEFINITION, SENSITIVITY, time_to_overfit
from rethinking.report import page, tables
from rethinking.report.figures import paper_figure


def write(runs: RunList, kept: Mapping[str, Evidence]) -> None:
    """Every table and figure of `runs` that has evidence, and the page of all that its folder holds.

    The folder must be locked (`archive.locked`). Raises `RunError` where it cannot be read or written.
    """
    folder = runs.folder()
    if not kept:
        return
    for name in runs.wanted:
        cells = runs.cells(name, kept)
        if cells:
            _write_experiment(folder, name, runs.experiments[name], cells, kept, runs.words_for_scale)
    page.write(folder, kept, runs.experiments)


def caption(experiment: Experiment, cells: list[Cell], kept: Mapping[str, Evidence], scale: str) -> str:
    """What the numbers are of: data, images, scale, seeds, precision, hardware, and what ± is."""
    runs = [kept[run] for run in dict.fromkeys(run for cell in cells for run in cell.runs)]
    datasets = dict.fromkeys(f"{run.facts['dataset']} ({run.facts['train_images']:,} training images)" for run in runs)
    hardware = dict.fromkeys(
        f"{run.facts['provenance']['hardware']}, {run.facts['provenance']['precision']}" for run in runs
    )
    of_scale = f" {scale} scale," if scale else ""
    ours = f"Ours: {'; '.join(datasets)},{of_scale} {tables.repeats(experiment, cells)}, {'; '.join(hardware)}."
    paper = f"Paper: {tables.papers(runs)}." if any(cell.paper is not None for cell in cells) else ""
    return " ".join(filter(None, (ours, paper, tables.meaning_of_spread(experiment, cells))))


def _write_experiment(
    folder: Path, name: str, experiment: Experiment, cells: list[Cell], kept: Mapping[str, Evidence], scale: str
) -> None:
    experiment = experiment.shown_for(cells, kept)
    facts = kept[cells[0].runs[0]].facts
    dataset = write_table(folder, name, experiment, cells, kept, scale)
    if experiment.plot is not None and any(cell.quantity in experiment.plot.quantities for cell in cells):
        as_in_the_paper = scale == "full" and facts["train_images"] == 50_000
        paper_figure(experiment, cells, folder / name, dataset, as_in_the_paper)
    if name == "figure1b":
        files.write(folder / "time_to_overfit.md", sensitivity(cells, kept), durable=False)


def write_table(
    folder: Path, name: str, experiment: Experiment, cells: list[Cell], kept: Mapping[str, Evidence], scale: str
) -> str:
    """Write the table of an experiment as .csv and .md; returns the data's name. `scale` is empty where there is none.

    Raises `RunError` where that cannot be.
    """
    dataset = " and ".join(dict.fromkeys(kept[run].facts["dataset"] for cell in cells for run in cell.runs))
    tables.write_csv(folder / f"{name}.csv", cells, dataset, scale)
    table = tables.markdown(tables.grid(experiment, cells))
    text = f"# {experiment.title}\n\n{caption(experiment, cells, kept, scale)}\n\n{table}\n"
    files.write(folder / f"{name}.md", text, durable=False)
    return dataset


def sensitivity(cells: list[Cell], kept: Mapping[str, Evidence]) -> str:
    """Epochs to overfit under other definitions than the one chosen, beside the paper's if any, in Markdown."""
    points = [cell for cell in cells if cell.quantity == "epochs to overfit"]
    beside = any(cell.paper is not None for cell in points)
    headings = ["model", "label corruption", *["the paper"] * beside, *map(str, SENSITIVITY)]
    rows = []
    misses: dict[str, list[float]] = {str(threshold): [] for threshold in SENSITIVITY}
    reached = dict.fromkeys(misses, 0)
    for cell in points:
        run = kept[cell.runs[0]]
        ours = []
        for threshold in SENSITIVITY:
            epoch = time_to_overfit(run.metrics, threshold)
            ours.append("-" if epoch is None else str(epoch))
            reached[str(threshold)] += epoch is not None
            if isinstance(cell.paper, float) and (epoch or run.finished):
                misses[str(threshold)].append(abs(math.log((epoch or len(run.metrics) + 1) / cell.paper)))
        papers = [tables.shown(cell.quantity, cell.paper)] * beside
        rows.append([*(value for _, value in cell.labels), *papers, *ours])
    if beside:
        mean = [f"{math.exp(statistics.mean(values)):.2f}" if values else "-" for values in misses.values()]
        rows.append(["mean factor off the paper, at least", "", "", *mean])
    rows.append(["points reached", "", *[""] * beside, *(f"{count} of {len(points)}" for count in reached.values())])
    of_mean = " In the mean a run that ended without reaching a threshold counts as if the next epoch had."
    return (
        "# Time to overfit: how much the definition matters\n\n"
        f"The first epoch that reaches each threshold, first seed; '-' where none does. Chosen: {DEFINITION}."
        f"{of_mean if beside else ''}\n\n{tables.markdown_table(headings, rows)}\n"
    )
