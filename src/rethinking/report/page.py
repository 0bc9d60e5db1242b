"""`report.html`: every table and figure of a results folder on one page, in one file.

The page begins with what ran and how far it agrees with the paper. Each number has an address and opens the runs
behind it: configuration, data with its fingerprint, provenance, and the command that makes the run again. The page
needs no network. It depends on the folder alone, so the same folder gives the same bytes.
"""

from __future__ import annotations

import base64
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from itertools import takewhile
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import jinja2
from markupsafe import Markup, escape

from rethinking import files
from rethinking.errors import RunError
from rethinking.experiments.catalogue import EXPERIMENTS
from rethinking.experiments.experiment import Cell, Evidence, Experiment, Plot
from rethinking.experiments.quantities import quantity as quantity_of
from rethinking.report import agreement, charts, tables
from rethinking.report.addresses import Addresses
from rethinking.report.runs import TASKS, described

SITE = "https://rethinking-generalization.github.io/rethinking-generalization/"
TITLE = "Rethinking generalization, reproduced"
UPLOT = "1.6.32"  # the version in `uplot/`
MOST_ROWS = 16  # of a table, before it folds
FOLDED_EPOCHS = (1.0, 10.0)  # that a folded table shows, besides the last
MINUS = "\N{MINUS SIGN}"  # as wide as a plus
LETTERS = 24  # of a name in the contents


class Front(NamedTuple):
    """What stands before the tables. findings: sentences, each with the command to try next, or an empty one"""

    title: str
    findings: tuple[tuple[str, str], ...]
    about: str


class Number(NamedTuple):
    """A number of a table as the page shows it.

    text: the mean, or the words in its place; spread, note: what stands beside and below it, or nothing
    runs: the place of its runs in `Behind`; repeats: how many seeds, or draws, it is the mean of
    beside: the paper's number and the difference, where the table has columns for them
    """

    address: str
    text: str
    spread: str
    note: str
    runs: int
    repeats: int
    beside: tuple[str, ...]


class Heading(NamedTuple):
    """The heading of a quantity's columns: ours, and what stands beside it."""

    quantity: str
    beside: tuple[str, ...]


class Line(NamedTuple):
    """A row of a table: the values of its factors, and a number or None for each heading.

    folded: whether it is hidden until the table is unfolded
    begins: whether its first factor differs from the one in the row above
    """

    factors: tuple[str, ...]
    numbers: tuple[Number | None, ...]
    folded: bool
    begins: bool


@dataclass(frozen=True)
class Table:
    """A table as the page shows it. common: the factors that are the same in all rows, which have no column"""

    factors: tuple[str, ...]
    headings: tuple[Heading, ...]
    lines: tuple[Line, ...]
    common: tuple[tuple[str, str], ...]

    @property
    def folds(self) -> int:
        """How many rows are folded."""
        return sum(line.folded for line in self.lines)

    @property
    def spread_letters(self) -> int:
        """The length of the longest spread."""
        numbers = (number for line in self.lines for number in line.numbers if number)
        return max((len(number.spread) for number in numbers), default=0)

    @property
    def has_two_headings(self) -> bool:
        """Whether a quantity has more than one column, so that the table has two rows of headings."""
        return any(heading.beside for heading in self.headings)


@dataclass(frozen=True)
class Section:
    """A table or figure of the page. short: its name in the contents, which no other section has

    agreements: each with the address of its largest difference, and the row of it in words
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
    agreements: tuple[tuple[agreement.Agreement, str, str], ...]
    runs: tuple[str, ...]


class Behind:
    """The runs behind the numbers: each run once, and each set of runs that a number comes from once."""

    def __init__(self, kept: Mapping[str, Evidence]) -> None:
        self.kept = kept
        self.runs: dict[str, int] = {}
        self.groups: dict[tuple[str, ...], int] = {}

    def place(self, runs: tuple[str, ...]) -> int:
        """The place of a number's runs among all groups."""
        for run in runs:
            self.runs.setdefault(run, len(self.runs))
        return self.groups.setdefault(runs, len(self.groups))

    def as_json(self, charts: Mapping[str, charts.Chart]) -> Markup:
        """All of it, and the charts, for `page.js`. No text in it can end the element that it stands in."""
        content = {
            "runs": [described(self.kept[run]) for run in self.runs],
            "groups": [[self.runs[run] for run in group] for group in self.groups],
            "charts": charts,
        }
        text = json.dumps(content, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        return Markup(text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e"))


def write(
    folder: Path,
    kept: Mapping[str, Evidence],
    others: Mapping[str, Experiment] = MappingProxyType({}),
    front: Front | None = None,
) -> Path:
    """Writes the page of all that `folder` holds, from its CSV and SVG files and the evidence; returns its path.

    others: what is known about tables that are not among `EXPERIMENTS`, by the name of their files

    Raises `RunError` where a table there shows runs without evidence.
    """
    files.write(folder / "report.html", as_html(folder, kept, others, front), durable=False)
    return folder / "report.html"


def as_html(
    folder: Path,
    kept: Mapping[str, Evidence],
    others: Mapping[str, Experiment] = MappingProxyType({}),
    front: Front | None = None,
) -> str:
    """The page as text; arguments and errors as of `write`."""
    experiments = {**others, **EXPERIMENTS}
    rest = (path.stem for path in sorted(folder.glob("*.csv")) if tables.is_table(path))
    names = dict.fromkeys([*(name for name in experiments if (folder / f"{name}.csv").exists()), *rest])
    behind, addresses = Behind(kept), Addresses()
    sections = _named_apart([_section(folder, name, behind, addresses, experiments, front) for name in names])
    drawn = {section.name: section.chart for section in sections if section.chart is not None}
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("rethinking.report", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["in_parts"] = _in_parts
    runs = [kept[run] for run in behind.runs]
    return environment.get_template("page.html.j2").render(
        title=front.title if front else TITLE,
        front=front,
        sections=sections,
        summary=summary(runs),
        totals=_totals(sections),
        beside_the_paper=any(run.has_the_papers_images for run in runs),
        site=SITE,
        data=behind.as_json(drawn),
        style=_part("page.css"),
        script=_part("page.js"),
        uplot=[_part(f"uplot/{name}") for name in ("uPlot.min.css", "LICENSE", "uPlot.iife.min.js")] if drawn else [],
    )


def _part(name: str) -> Markup:
    return Markup((resources.files("rethinking.report") / name).read_text(encoding="utf-8"))


# The summary


def summary(runs: Sequence[Evidence]) -> dict[str, list[str]]:
    """What ran, on which data, when and with what, each as a list of lines. What no run kept is left out."""
    unfinished = sum(not run.finished for run in runs)
    ran = [
        _counted(count, *TASKS.get(task, (f"{task} run", f"{task} runs")))
        for task, count in _count(runs, _task).items()
    ]
    provenance = [run.facts["provenance"] for run in runs]
    dates = sorted({made["date"] for made in provenance if "date" in made})
    undated = sum("date" not in made for made in provenance)
    lines = {
        "Runs": ran + ([f"of these {unfinished} not finished"] if unfinished else []),
        "Data": [_images(name, runs) for name in _count(runs, _data)],
        "Hardware": _with_counts(_count(runs, lambda run: run.facts["provenance"]["hardware"])),
        "Versions": _with_counts(_count(runs, _versions)),
        "Commit": _with_counts(_count(runs, lambda run: run.facts["provenance"].get("commit") or "")),
        "Date": [" to ".join(dict.fromkeys([dates[0], dates[-1]]))] if dates else [],
    }
    if dates and undated:
        lines["Date"].append(f"{_counted(undated, 'run', 'runs')} without a date")
    return {name: found for name, found in lines.items() if found}


def _count(runs: Sequence[Evidence], of: Callable[[Evidence], str]) -> Counter[str]:
    """How many runs have each value, the most frequent first; without those that have none."""
    counted = Counter(value for run in runs if (value := of(run)))
    return Counter(dict(counted.most_common()))


def _with_counts(counted: Counter[str]) -> list[str]:
    return [
        value if len(counted) == 1 else f"{value} ({_counted(count, 'run', 'runs')})"
        for value, count in counted.items()
    ]


def _counted(count: int, one: str, several: str) -> str:
    return f"{count:,} {one if count == 1 else several}"


def _images(dataset: str, runs: Sequence[Evidence]) -> str:
    """A data set, with the least and the largest number of training images that runs had."""
    counts = [run.facts["train_images"] for run in runs if run.facts["dataset"] == dataset]
    span = " to ".join(dict.fromkeys([f"{min(counts):,}", f"{max(counts):,}"]))
    return f"{dataset}, {span} training images"


def _task(run: Evidence) -> str:
    return run.task


def _data(run: Evidence) -> str:
    return str(run.facts["dataset"])


def _versions(run: Evidence) -> str:
    versions = run.facts["provenance"]["versions"]
    names = ("rethinking-generalization", "torch", "python")
    return ", ".join(f"{name} {versions[name]}" for name in names if name in versions)


def _totals(sections: Sequence[Section]) -> list[tuple[int, int, str]]:
    """How many numbers agree with the paper's, of how many: in tables, and along curves."""
    totals = []
    for is_curve, what in ((False, "numbers in tables"), (True, "points of figures")):
        found = [one for section in sections for one, *_ in section.agreements if bool(section.chart) is is_curve]
        if found:
            totals.append((sum(one.agree for one in found), sum(one.compared for one in found), what))
    return totals


# A section


def _section(
    folder: Path,
    name: str,
    behind: Behind,
    addresses: Addresses,
    experiments: Mapping[str, Experiment],
    front: Front | None,
) -> Section:
    kept = behind.kept
    path = folder / f"{name}.csv"
    cells, dataset, scale = tables.read_csv(path)
    if unknown := {run for cell in cells for run in cell.runs} - kept.keys():
        raise RunError(
            f"{path} shows {min(unknown)}, of which {folder / 'runs.csv'} has no row; move {name}.* away,"
            f" and `reproduce.py {name}` writes them anew"
        )
    experiment = (experiments.get(name) or _elsewhere(folder, name, cells)).shown_for(cells, kept)
    runs = tuple(dict.fromkeys(run for cell in cells for run in cell.runs))
    found = [kept[run] for run in runs]
    table, places = _table(name, experiment, cells, behind, addresses)
    chart = _chart(experiment, cells, scale, kept, front)
    svg = files.read(folder / f"{name}.svg") if name not in experiments else None
    quantities = dict.fromkeys(cell.quantity for cell in cells)
    compared = agreement.agreements(cells, kept)
    return Section(
        name=name,
        title=experiment.title,
        short="",
        about=_paragraphs(experiment.about),
        facts=_facts(cells, found, dataset, scale),
        repeats=_repeats(experiment, cells),
        spread=f"mean ± {_spread(experiment)} over {experiment.repeats}s",
        columns=tuple((quantity, words) for quantity in quantities if (words := _meaning(quantity))),
        table=table,
        chart=chart,
        picture=base64.b64encode(svg).decode() if svg else "",
        agreements=tuple((one, *(places[one.largest] if one.largest else ("", ""))) for one in compared),
        runs=runs,
    )


def _chart(
    experiment: Experiment, cells: Sequence[Cell], scale: str, kept: Mapping[str, Evidence], front: Front | None
) -> charts.Chart | None:
    """The figure of a section; of a randomization test the learning curves of its runs."""
    if front is None:
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
    images = " or ".join(f"{count:,}" for count in sorted({run.facts["train_images"] for run in runs}))
    ours = f"Ours: {dataset}, {images} training images{f', {scale} scale' if scale else ''}."
    return f"{ours} Paper: {tables.papers(runs)}." if any(cell.paper is not None for cell in cells) else ours


def _repeats(experiment: Experiment, cells: Sequence[Cell]) -> str:
    """What ± is, over how many seeds or what else there is several of."""
    word = experiment.repeats
    several = sorted({cell.seeds for cell in cells if cell.std is not None})
    single = any(cell.std is None for cell in cells)
    if not several:
        return f"Each number comes from one {word}."
    count = f"{several[0]}" if len(several) == 1 else f"{several[0]} to {several[-1]}"
    said = f"Numbers with ± are the mean ± {_spread(experiment)} over {count} {word}s."
    return f"{said} Numbers without ± come from one {word}." if single else said


def _spread(experiment: Experiment) -> str:
    return "standard error" if experiment.standard_error else "standard deviation"


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


def _named_apart(sections: Iterable[Section]) -> list[Section]:
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


# A table


def _table(
    name: str, experiment: Experiment, cells: list[Cell], behind: Behind, addresses: Addresses
) -> tuple[Table, dict[Cell, tuple[str, str]]]:
    """A table with a column a factor; and of each of its cells the address, and the row in words."""
    made = tables.grid(experiment, cells, every_epoch=True)
    tabled = made.factors > len(cells[0].labels)
    wanted = _varying(made)
    factors = tuple(made.headings[column] for column in wanted)
    common = [(made.headings[c], made.rows[0][c].text) for c in range(made.factors) if c not in wanted]
    columns = _columns(made)
    shown = _shown(made, cells, along=tabled)
    places: dict[Cell, tuple[str, str]] = {}
    lines: list[Line] = []
    for row, unfolded in zip(made.rows, shown, strict=True):
        numbers: list[Number | None] = []
        for column, beside in columns:
            cell = row[column].cell
            if cell is None:
                numbers.append(None)
                continue
            address = addresses.of(name, cell, tabled)
            places[cell] = address, tables.row_in_words(made, row)
            texts = tuple(row[place].text for place in beside)
            numbers.append(_number(cell, address, experiment, behind, texts))
        values = tuple(row[column].text for column in wanted)
        begins = not lines or lines[-1].factors[:1] != values[:1]
        lines.append(Line(values, tuple(numbers), not unfolded, begins))
    headings = tuple(
        Heading(made.headings[column], tuple(made.headings[place] for place in beside)) for column, beside in columns
    )
    return Table(factors, headings, tuple(lines), tuple(common)), places


def _number(cell: Cell, address: str, experiment: Experiment, behind: Behind, beside: tuple[str, ...]) -> Number:
    spread = experiment.spread(cell)
    if cell.ours is None:
        text, note, spread = cell.note or "-", "", None
    else:
        text, note = tables.shown(cell.quantity, cell.ours), cell.note
    beyond = "" if spread is None else f"± {tables.shown(cell.quantity, spread).removesuffix('%')}"
    return Number(
        address, _signed(text), beyond, note, behind.place(cell.runs), cell.seeds, tuple(map(_signed, beside))
    )


def _signed(text: str) -> str:
    """A number with a minus as wide as its plus."""
    return f"{MINUS}{text[1:]}" if text[:1] == "-" and text[1:2].isdigit() else text


def _varying(made: tables.Grid) -> list[int]:
    """The columns of the factors that differ between rows; all of them where no factor does."""
    columns = range(made.factors)
    varying = [column for column in columns if len({row[column].text for row in made.rows}) > 1]
    return varying or [*columns]


def _columns(made: tables.Grid) -> list[tuple[int, tuple[int, ...]]]:
    """The column of each quantity, with those of the paper's number and the difference where one of them is filled."""
    headings, columns = made.headings, []
    for column in range(made.factors, len(headings)):
        if headings[column] in tables.PAPERS:
            continue
        rest = range(column + 1, len(headings))
        beside = takewhile(lambda place: headings[place] in tables.PAPERS, rest)
        filled = tuple(place for place in beside if any(row[place].text for row in made.rows))
        columns.append((column, filled))
    return columns


def _shown(made: tables.Grid, cells: Sequence[Cell], along: bool) -> list[bool]:
    """Which rows a folded table shows: the first ones; along an axis, a few places of each curve."""
    if len(made.rows) <= MOST_ROWS + 4:
        return [True] * len(made.rows)
    if not along:
        return [place < MOST_ROWS for place in range(len(made.rows))]
    rows = [*dict.fromkeys((cell.labels, cell.x) for cell in cells)]
    last = dict(rows)
    for epochs in (FOLDED_EPOCHS, ()):
        shown = [x in epochs or x == last[labels] for labels, x in rows]
        if sum(shown) <= 2 * MOST_ROWS:
            break
    return shown


def _in_parts(text: str) -> Markup:
    """A name that may be broken after each underscore and slash."""
    escaped = str(escape(text))
    return Markup(escaped.replace("_", "_<wbr>").replace("/", "/<wbr>"))
