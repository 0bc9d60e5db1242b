"""Tables as the page lays them out: a column a factor, groups of columns, folded rows and addresses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import NamedTuple

from rethinking.experiments.experiment import Cell, Experiment
from rethinking.report import tables
from rethinking.report.addresses import Addresses
from rethinking.report.runs import Behind

MOST_ROWS = 16  # of a table, before it folds
FOLDED_EPOCHS = (1.0, 10.0)  # that a folded table shows, besides the last
MINUS = "\N{MINUS SIGN}"  # as wide as a plus


class Place(NamedTuple):
    """A number in its place in the table.

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
    """The heading of a quantity's columns: ours, and what stands beside it. spread: letters of its longest spread"""

    quantity: str
    beside: tuple[str, ...]
    spread: int


class Line(NamedTuple):
    """A row of a table: the values of its factors, and a number or None for each heading.

    folded: whether it is hidden until the table is unfolded
    begins: whether its first factor differs from the one in the row above
    """

    factors: tuple[str, ...]
    numbers: tuple[Place | None, ...]
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
    def has_two_headings(self) -> bool:
        """Whether a quantity has more than one column, so that the table has two rows of headings."""
        return any(heading.beside for heading in self.headings)


def table_of(
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
        numbers: list[Place | None] = []
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
    headings = []
    for place, (column, beside) in enumerate(columns):
        spread = max((len(number.spread) for line in lines if (number := line.numbers[place])), default=0)
        names = tuple(made.headings[other] for other in beside)
        headings.append(Heading(made.headings[column], names, spread))
    return Table(factors, tuple(headings), tuple(lines), tuple(common)), places


def _number(cell: Cell, address: str, experiment: Experiment, behind: Behind, beside: tuple[str, ...]) -> Place:
    spread = experiment.spread(cell)
    if cell.ours is None:
        text, note, spread = cell.note or "-", "", None
    else:
        text, note = tables.shown(cell.quantity, cell.ours), cell.note
    beyond = "" if spread is None else f"± {tables.shown(cell.quantity, spread).removesuffix('%')}"
    return Place(address, _signed(text), beyond, note, behind.place(cell.runs), cell.seeds, tuple(map(_signed, beside)))


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
