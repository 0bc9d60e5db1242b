"""How far our numbers agree with the paper's: how many within which tolerance, and the largest difference."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from rethinking.experiments.experiment import Cell, Evidence
from rethinking.experiments.quantities import percent
from rethinking.experiments.quantities import quantity as quantity_of
from rethinking.report import tables


class Tolerance(NamedTuple):
    """limit: the largest difference that counts as agreement; relative: as a share of the paper's number"""

    limit: float
    words: str
    unit: str = ""
    relative: bool = False


OF_SHARES = Tolerance(0.01, "1 point", "points")
OF_LOSSES = Tolerance(0.1, "0.1 nats", "nats")
OF_OTHERS = Tolerance(0.1, "10%", relative=True)
ROUNDING = 1e-9


class Agreement(NamedTuple):
    """The numbers of one quantity in one table beside the paper's.

    agree: how many from finished runs are within the tolerance; compared: how many numbers of the paper stand there
    missing: how many of these have no number of ours; unfinished: how many of ours come from a run that has not ended
    in_words: how often the paper has words in place of a number
    largest: the cell with the largest difference, None where we have no number at all
    """

    quantity: str
    agree: int
    compared: int
    tolerance: str
    missing: int
    unfinished: int
    in_words: int
    largest: Cell | None

    @property
    def largest_in_words(self) -> str:
        """The largest difference, with its unit, and with what is to be known about the number."""
        if self.largest is None:
            return ""
        note = f" ({self.largest.note})" if self.largest.note else ""
        return f"{difference(self.largest)}{note}"

    @property
    def remarks(self) -> list[str]:
        """What a reader must know about the count."""
        said = []
        if self.unfinished:
            said.append(f"{self.unfinished} unfinished")
        if self.missing:
            said.append(f"{self.missing} without ours")
        if self.in_words:
            said.append(f"{self.in_words} more in words")
        return said


def agreements(cells: Sequence[Cell], kept: Mapping[str, Evidence], derived: Sequence[str] = ()) -> list[Agreement]:
    """One `Agreement` a quantity, for the quantities that have a number of the paper's.

    derived: quantities that follow from the others of the table, which would be counted twice
    """
    found = []
    for quantity in dict.fromkeys(cell.quantity for cell in cells if cell.quantity not in derived):
        of_quantity = [cell for cell in cells if cell.quantity == quantity and cell.paper is not None]
        compared = [cell for cell in of_quantity if isinstance(cell.paper, float)]
        if not compared:
            continue
        measured = [cell for cell in compared if cell.ours is not None]
        unfinished = [cell for cell in measured if cell.note and not _ended(cell, kept)]
        near = [cell for cell in measured if deviation(cell) <= tolerance(quantity).limit + ROUNDING]
        found.append(
            Agreement(
                quantity,
                agree=sum(cell not in unfinished for cell in near),
                compared=len(compared),
                tolerance=tolerance(quantity).words,
                missing=len(compared) - len(measured),
                unfinished=len(unfinished),
                in_words=len(of_quantity) - len(compared),
                largest=max(measured, key=deviation, default=None),
            )
        )
    return found


def tolerance(quantity: str) -> Tolerance:
    """The tolerance for a quantity: one for shares, one for losses, one for all others."""
    known = quantity_of(quantity)
    if known.written is percent:
        return OF_SHARES
    return OF_LOSSES if known.unit == "nats" else OF_OTHERS


def deviation(cell: Cell) -> float:
    """The absolute difference of a cell from the paper's number, as its tolerance measures it."""
    assert isinstance(cell.paper, float), "a number of the paper's"
    difference = abs(cell.difference or 0.0)
    if not tolerance(cell.quantity).relative or difference == 0:
        return difference
    return difference / abs(cell.paper) if cell.paper else math.inf


def difference(cell: Cell) -> str:
    """The difference in words, as its tolerance measures it, with its unit."""
    allowed = tolerance(cell.quantity)
    if allowed.relative and isinstance(cell.paper, float) and cell.paper:
        text = f"{(cell.difference or 0.0) / abs(cell.paper):+.0%}"
    else:
        text = f"{tables.difference(cell)} {allowed.unit}".strip()
    return text.replace("-", "\N{MINUS SIGN}")


def _ended(cell: Cell, kept: Mapping[str, Evidence]) -> bool:
    return all(kept[run].finished for run in cell.runs)
