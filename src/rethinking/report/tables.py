"""Cells of an experiment as a table: on the terminal, in Markdown, in CSV."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich import box
from rich.console import Console, ConsoleOptions
from rich.table import Table
from rich.text import Text

from rethinking import files
from rethinking.errors import RunError
from rethinking.experiments.experiment import Cell, Evidence, Experiment, Labels
from rethinking.experiments.quantities import quantity as quantity_of

EPOCHS_SHOWN = (1, 2, 5, 10, 15, 20, 30, 40, 50, 60)  # and the last, where a figure has a point an epoch
NUMBER = re.compile(r"[\d.]+(e[-+]?\d+)?")
HEADING_WIDTH = 24  # letters of a row's heading on a terminal, before it wraps
COLUMNS = ("quantity", "x", "ours", "std", "seeds", "paper", "difference", "note", "dataset", "scale", "runs")


PAPERS = ["paper", "difference"]
ROUNDED = ("ours", "std", *PAPERS)


class Entry(NamedTuple):
    """What one place of a table shows, and the cell whose number it is."""

    text: str
    cell: Cell | None = None


class Grid(NamedTuple):
    """A table; its first `factors` columns name a row, the others hold numbers."""

    headings: list[str]
    rows: list[list[Entry]]
    factors: int = 0


def grid(experiment: Experiment, cells: Sequence[Cell], every_epoch: bool = False) -> Grid:
    """Rows by label (and epoch, or other place on the axis); for each quantity ours, the paper's and the difference.

    Where no cell has a number of the paper's, its columns and the differences are not there. Some experiments have
    `columns` for values of labels.
    """
    beside_the_paper = any(cell.paper is not None for cell in cells)
    by_epoch = experiment.plot is not None and experiment.plot.x_per_epoch is not None
    along = experiment.plot.x_label if experiment.plot is not None and experiment.plot.tabled else ""
    along = "epoch" if by_epoch else along
    if by_epoch and not every_epoch:
        last = {cell.labels: cell.x for cell in cells}
        cells = [cell for cell in cells if cell.x in EPOCHS_SHOWN or cell.x == last[cell.labels]]
    if not cells:
        return Grid([], [])
    if experiment.columns:
        return _in_columns(experiment, cells)
    quantities = list(dict.fromkeys(cell.quantity for cell in cells))
    compared = {*quantities} - {*experiment.ours_only} if beside_the_paper else set()
    headings = [name.replace("_", " ") for name, _ in cells[0].labels] + ([along] if along else [])
    factors = len(headings)
    for quantity in quantities:
        headings += [quantity, "paper", "difference"] if quantity in compared else [quantity]
    rows = []
    for labels, x in dict.fromkeys((cell.labels, cell.x) for cell in cells):
        places = {cell.quantity: cell for cell in cells if (cell.labels, cell.x) == (labels, x)}
        row = [Entry(value) for _, value in labels] + ([Entry(f"{x:g}")] if along else [])
        for quantity in quantities:
            cell = places.get(quantity)
            row.append(Entry(ours(cell, experiment.spread(cell)), cell) if cell else Entry(""))
            if quantity in compared:
                row += [Entry(shown(quantity, cell.paper)), Entry(difference(cell))] if cell else [Entry("")] * 2
        rows.append(row)
    return Grid(headings, rows, factors)


def _in_columns(experiment: Experiment, cells: Sequence[Cell]) -> Grid:
    """Rows by the labels that have no columns; a column for each quantity and each value of those that have.

    There are no columns for the paper.
    """
    across = experiment.columns

    def parts(cell: Cell, in_columns: bool) -> Labels:
        return tuple(label for label in cell.labels if (label[0] in across) is in_columns)

    def place(labels: Labels) -> list[int]:
        return [across[name].index(text) if text in across[name] else len(across[name]) for name, text in labels]

    places = {(parts(cell, False), cell.quantity, parts(cell, True)): cell for cell in cells}
    columns = sorted({column for _, _, column in places}, key=place)
    quantities = dict.fromkeys(cell.quantity for cell in cells)
    row_labels = dict.fromkeys(labels for labels, _, _ in places)
    names = [name.replace("_", " ") for name, _ in next(iter(row_labels))]
    headings = [
        ", ".join([quantity, *(labelled(name, text) for name, text in column)])
        for quantity in quantities
        for column in columns
    ]
    rows = []
    for labels in row_labels:
        found = (places.get((labels, quantity, column)) for quantity in quantities for column in columns)
        entries = (Entry(ours(cell, experiment.spread(cell)), cell) if cell else Entry("") for cell in found)
        rows.append([*(Entry(text) for _, text in labels), *entries])
    return Grid([*names, *headings], rows, len(names))


def shown(quantity: str, value: float | str | None) -> str:
    """A value as its quantity is written; words as they are, and nothing for none."""
    if value is None or isinstance(value, str):
        return value or ""
    return quantity_of(quantity).written(value)


def ours(cell: Cell, spread: float | None) -> str:
    """Mean, with its spread where there is one, and what is to be known about it."""
    if cell.ours is None:
        return cell.note or "-"
    mean = shown(cell.quantity, cell.ours)
    if spread is not None:
        mean = f"{mean.removesuffix('%')} ± {shown(cell.quantity, spread)}"
    return f"{mean} ({cell.note})" if cell.note else mean


def difference(cell: Cell) -> str:
    """Ours less the paper's; of percentages, in points."""
    return "" if cell.difference is None else quantity_of(cell.quantity).difference(cell.difference)


def with_row_headings(made: Grid) -> Grid:
    """The labels of each row as its heading, in one column; 'yes' and 'no' become the label's name or nothing."""
    labels = made.factors
    rows = [[Entry(row_in_words(made, row)), *row[labels:]] for row in made.rows]
    return Grid([", ".join(made.headings[:labels]), *made.headings[labels:]], rows)


def row_in_words(made: Grid, row: Sequence[Entry]) -> str:
    """The labels of a row, such as 'mlp_3x512, random, weight decay'."""
    named = zip(made.headings[: made.factors], row[: made.factors], strict=True)
    return labels_in_words((heading, entry.text) for heading, entry in named)


def labels_in_words(labels: Iterable[tuple[str, str]]) -> str:
    """Labels by their headings in words. What is "no" is left out."""
    return ", ".join(_in_words(heading, value) for heading, value in labels if value != "no")


def _in_words(heading: str, value: str) -> str:
    if value == "yes":
        return heading
    return f"{heading} {value}" if value == "default" or NUMBER.fullmatch(value) else value


def labelled(name: str, value: str) -> str:
    """A label in words, with its name where the value alone says too little, such as 'lr 0.1' and 'random crop no'."""
    alone = value not in ("yes", "no", "default") and not NUMBER.fullmatch(value)
    return value if alone else f"{name.replace('_', ' ')} {value}"


class Terminal(NamedTuple):
    """A table for people: a row's heading, then its numbers. Headings and notes may wrap, nothing is cut off.

    What the terminal is too narrow for follows in further tables with the same rows.
    """

    title: str
    made: Grid
    caption: str

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Table]:
        headed = with_row_headings(self.made)
        headings = ["diff." if heading == "difference" else heading for heading in headed.headings]
        texts = ([entry.text for entry in row] for row in headed.rows)
        columns = [list(column) for column in zip(headings, *texts, strict=True)]
        first, *numbers = columns
        word = min(_longest_word(first), options.max_width // 2)  # such as a run's name
        left = options.max_width - max(word, min(HEADING_WIDTH, max(map(len, first)))) - 3  # what rich puts around
        pieces: list[list[list[str]]] = [[]]
        room = left
        for column in numbers:
            width = 2 + _longest_word(column)
            if width > room and pieces[-1]:
                pieces.append([])
                room = left
            pieces[-1].append(column)
            room -= width
        for place, piece in enumerate(pieces):
            last = place == len(pieces) - 1
            title, caption = self.title if place == 0 else "", self.caption if last else ""
            yield _table(title, [first, *piece], caption, options.max_width)


def _longest_word(texts: list[str]) -> int:
    return max(len(word) for text in texts for word in text.split())


def _table(title: str, columns: list[list[str]], caption: str, max_width: int) -> Table:
    """Where it is narrower than its texts, a number column is as wide as its longest word, which rich would cut."""
    narrow = 3 + sum(2 + max(map(len, column)) for column in columns) > max_width
    table = Table(
        title=title or None,
        caption=caption or None,
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    first, *numbers = columns
    table.add_column(first[0], overflow="fold")
    for column in numbers:
        table.add_column(column[0], justify="right", width=_longest_word(column) if narrow else None)
    for row in zip(*(texts for _, *texts in columns), strict=True):
        table.add_row(*map(Text, row))
    return table


def papers(runs: Sequence[Evidence]) -> str:
    """The data behind the paper's numbers beside those of `runs`."""
    if not all(run.is_of_network for run in runs):
        return "MNIST, 60,000 training images, and CIFAR-10, 50,000"
    return "CIFAR-10, 50,000 training images"


def repeats(experiment: Experiment, cells: Sequence[Cell]) -> str:
    """How many seeds, or what else there is several of, a number is the mean of, such as '1 to 3 seeds'."""
    plotted = () if experiment.plot is None else experiment.plot.quantities
    counts = {cell.seeds for cell in cells if cell.quantity in plotted} or {cell.seeds for cell in cells}
    few, many, of = min(counts), max(counts), experiment.repeats
    return f"1 {of}" if many == 1 else f"{many} {of}s" if few == many else f"{few} to {many} {of}s"


def meaning_of_spread(experiment: Experiment, cells: Sequence[Cell]) -> str:
    """What ± is, over how many seeds or what else there is several of; empty where no number has one."""
    several = sorted({cell.seeds for cell in cells if cell.std is not None})
    if not several:
        return ""
    count = " to ".join(dict.fromkeys([f"{several[0]}", f"{several[-1]}"]))
    said = f"Numbers with ± are the mean ± {spread(experiment)} over {count} {experiment.repeats}s."
    single = any(cell.std is None and cell.ours is not None for cell in cells)
    return f"{said} Numbers without ± come from {source(experiment)}." if single else said


def spread(experiment: Experiment) -> str:
    """What follows ± in a table of this experiment."""
    return "standard error" if experiment.standard_error else "standard deviation"


def source(experiment: Experiment) -> str:
    """What a number without ± comes from."""
    return "one seed" if experiment.repeats == "seed" else "one run"


def markdown(made: Grid) -> str:
    """A table in Markdown."""
    return markdown_table(made.headings, [[entry.text for entry in row] for row in made.rows])


def markdown_table(headings: list[str], rows: list[list[str]]) -> str:
    """The first column to the left, the others, numbers mostly, to the right."""
    alignment = ["---" if index == 0 else "---:" for index in range(len(headings))]
    return "\n".join("| " + " | ".join(line) + " |" for line in [headings, alignment, *rows])


def write_csv(path: Path, cells: Sequence[Cell], dataset: str, scale: str) -> None:
    """A row a cell: its labels, then `COLUMNS`; accuracies and errors 0-1, runs by name."""
    file = io.StringIO(newline="")
    names = [name for name, _ in cells[0].labels]
    writer = csv.DictWriter(file, [*names, *COLUMNS], lineterminator="\n")
    writer.writeheader()
    for cell in cells:
        values = row(cell) | {"dataset": dataset, "scale": scale}
        writer.writerow(values | {name: _rounded(values[name]) for name in ROUNDED})
    files.write(path, file.getvalue(), durable=False)


def row(cell: Cell) -> dict[str, Any]:
    """A cell by the names of its labels and of `COLUMNS`, but for data and scale, which all of a table share."""
    return dict(cell.labels) | {
        "quantity": cell.quantity,
        "x": cell.x,
        "ours": cell.ours,
        "std": cell.std,
        "seeds": cell.seeds,
        "paper": cell.paper,
        "difference": cell.difference,
        "note": cell.note,
        "runs": " ".join(cell.runs),
    }


def is_table(path: Path) -> bool:
    """Whether a CSV file is one that `write_csv` wrote, by its first line."""
    first = (files.read(path) or b"").partition(b"\n")[0].decode(errors="replace")
    return first.strip().split(",")[-len(COLUMNS) :] == list(COLUMNS)


def read_csv(path: Path) -> tuple[list[Cell], str, str]:
    """The cells of a file that `write_csv` wrote, with the data's name and the scale.

    Raises `RunError` where it cannot be read, is cut, or is another file.
    """
    content = files.read(path)
    try:
        text = (content or b"").decode()
        reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        rows = list(reader)
        names = tuple(reader.fieldnames or ())
        whole = text.endswith("\n") and not any(None in row or None in row.values() for row in rows)
        if not rows or not whole or names[-len(COLUMNS) :] != COLUMNS or len({*names}) < len(names):
            raise ValueError("rows or columns are missing")
        return [_cell(row) for row in rows], rows[0]["dataset"], rows[0]["scale"]
    except (ValueError, csv.Error):
        name = path.stem
        raise RunError(
            f"{path} is damaged or no table of ours: move it away, and `reproduce.py {name}` writes it anew"
        ) from None


def _cell(row: Mapping[str, str]) -> Cell:
    """Raises `ValueError` for what is no number where one belongs."""
    cell = Cell(
        labels=tuple((name, value) for name, value in row.items() if name not in COLUMNS),
        quantity=row["quantity"],
        x=_number(row["x"]),
        ours=_number(row["ours"]),
        std=_number(row["std"]),
        seeds=int(row["seeds"]),
        paper=_number_or_words(row["paper"]),
        note=row["note"],
        runs=tuple(row["runs"].split()),
    )
    difference = _number(row["difference"]) or 0.0
    digits = 1e-5 * (abs(cell.ours or 0.0) + abs(difference))  # six are written
    if not cell.runs or abs(difference - (cell.difference or 0.0)) > digits:
        raise ValueError("a number does not agree with the others")
    return cell


def _rounded(value: float | str | None) -> float | str | None:
    return float(f"{value:.6g}") if isinstance(value, float | int) else value


def _number(text: str) -> float | None:
    """Raises `ValueError` for anything but a finite number, or nothing."""
    number = float(text) if text else None
    if number is not None and not math.isfinite(number):
        raise ValueError(f"not finite: {text}")
    return number


def _number_or_words(text: str) -> float | str | None:
    try:
        return _number(text)
    except ValueError:
        return text
