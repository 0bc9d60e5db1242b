"""The sections of the page: each a table or figure with its data, its seeds, and its agreement with the paper."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rethinking import files
from rethinking.errors import RunError
from rethinking.experiments.experiment import Cell, Evidence, Experiment, Plot
from rethinking.experiments.quantities import quantity as quantity_of
from rethinking.report import charts, tables
from rethinking.report.addresses import Addresses
from rethinking.report.agreement import Agreement, agreements
from rethinking.report.layout import Table, table_of
from rethinking.report.runs import Behind

LETTERS = 24  # of a name in the contents


@dataclass(frozen=True)
class Section:
    """A table or figure of the page.

    short: its name in the contents, which no other section has
    about: paragraphs; facts: data and scale; repeats: what ± is; spread: the same, shorter, for a panel
    columns: what each quantity is; picture: an SVG file in base64, where no chart can be drawn
    agreements: each with the address of its largest difference, and with the row of that in words
    by_epoch: whether a curve has a point for each epoch
    """

    name: str
    title: str
    short: str
    about: tuple[str, ...]
    facts: str
    repeats: str
    spread: str
    columns: tuple[tuple[str, str], ...]
    table: Table
    chart: charts.Chart | None
    picture: str
    agreements: tuple[tuple[Agreement, str, str], ...]
    by_epoch: bool


def section_of(
    folder: Path,
    name: str,
    behind: Behind,
    addresses: Addresses,
    experiments: Mapping[str, Experiment],
    learning_curves: bool,
) -> Section:
    """The section of the table `name` in `folder`; learning_curves: it has those of its runs as its figure.

    Raises `RunError` where the table shows runs without evidence.
    """
    kept = behind.kept
    path = folder / f"{name}.csv"
    cells, dataset, scale = tables.read_csv(path)
    if unknown := {run for cell in cells for run in cell.runs} - kept.keys():
        raise RunError(
            f"{path} shows {min(unknown)}, of which {folder / 'runs.csv'} has no row; move {name}.* away,"
            f" and `reproduce.py {name}` writes them anew"
        )
    experiment = (experiments.get(name) or _elsewhere(folder, name, cells)).shown_for(cells, kept)
    runs = [kept[run] for run in dict.fromkeys(run for cell in cells for run in cell.runs)]
    table, places = table_of(name, experiment, cells, behind, addresses)
    chart = _chart(experiment, cells, scale, kept, learning_curves)
    svg = files.read(folder / f"{name}.svg") if name not in experiments else None
    quantities = dict.fromkeys(cell.quantity for cell in cells)
    compared = agreements(cells, kept, experiment.derived)
    return Section(
        name=name,
        title=experiment.title,
        short="",
        about=_paragraphs(experiment.about),
        facts=_facts(cells, runs, dataset, scale),
        repeats=tables.meaning_of_spread(experiment, cells) or f"Each number comes from {tables.source(experiment)}.",
        spread=f"mean ± {tables.spread(experiment)} over {experiment.repeats}s",
        columns=tuple((quantity, words) for quantity in quantities if (words := _meaning(quantity))),
        table=table,
        chart=chart,
        picture=base64.b64encode(svg).decode() if svg else "",
        agreements=tuple((one, *(places[one.largest] if one.largest else ("", ""))) for one in compared),
        by_epoch=experiment.plot is not None and experiment.plot.x_per_epoch is not None,
    )


def _chart(
    experiment: Experiment, cells: Sequence[Cell], scale: str, kept: Mapping[str, Evidence], learning_curves: bool
) -> charts.Chart | None:
    """The figure of a section, or the learning curves of its runs."""
    if not learning_curves:
        as_in_the_paper = scale == "full" and kept[cells[0].runs[0]].facts["train_images"] == 50_000
        return charts.of_experiment(experiment, cells, as_in_the_paper)
    runs: dict[str, dict[str, Evidence]] = {}
    for cell in cells:
        name = ", ".join(value for _, value in cell.labels)
        runs.setdefault(name, {}).update({run: kept[run] for run in cell.runs if kept[run].is_of_network})
    return charts.of_runs({name: list(of_name.values()) for name, of_name in runs.items()})


def _elsewhere(folder: Path, name: str, cells: list[Cell]) -> Experiment:
    """What the tables in the folder tell about an experiment whose file this process was not given."""
    markdown = folder / f"{name}.md"
    title = markdown.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ") if markdown.exists() else name
    ours_only = {cell.quantity for cell in cells} - {cell.quantity for cell in cells if cell.paper is not None}
    along = Plot(quantities=(), series="", x_label="place", tabled=True)
    return Experiment(
        title=title,
        about="",
        models=(),
        rows=lambda study: [],
        numbers=lambda answers: [],
        ours_only=tuple(ours_only),
        plot=along if any(cell.x is not None for cell in cells) else None,
    )


def _facts(cells: Sequence[Cell], runs: Sequence[Evidence], dataset: str, scale: str) -> str:
    """The data and the scale of a table, ours and the paper's."""
    counts = [f"{count:,}" for count in sorted({run.facts["train_images"] for run in runs})]
    images = " or ".join([*filter(None, [", ".join(counts[:-1])]), counts[-1]])
    ours = f"Ours: {dataset}, {images} training images{f', {scale} scale' if scale else ''}."
    return f"{ours} Paper: {tables.papers(runs)}." if any(cell.paper is not None for cell in cells) else ours


def _meaning(quantity: str) -> str:
    """What a quantity is, and its unit."""
    known = quantity_of(quantity)
    unit = f"in {known.unit}" if known.unit not in ("", "share") else ""
    return ", ".join(part for part in (known.source, unit) if part)


def _paragraphs(docstring: str) -> tuple[str, ...]:
    """An experiment's first lines, paragraph by paragraph, without the name that the heading has."""
    first, *rest = [" ".join(part.split()) for part in (docstring or "").split("\n\n")]
    first = first.partition(": ")[2] or first
    return tuple(part for part in (first[:1].upper() + first[1:], *rest) if part)


def named_apart(sections: Iterable[Section]) -> list[Section]:
    """The sections with short names: what stands before the colon of the title, or the name of their files."""
    sections = list(sections)
    heads = [section.title.partition(":")[0] for section in sections]
    named: dict[str, Section] = {}
    for section, head in zip(sections, heads, strict=True):
        plain = re.sub(r"(?<=[a-z])(?=\d)", " ", section.name.replace("_", " "))
        short = head if heads.count(head) == 1 and len(head) <= LETTERS else plain[:1].upper() + plain[1:]
        short = section.name if short in named else short
        named[short] = replace(section, short=short)
    return list(named.values())
