"""How far a number of a new run may lie from a published mean: what several seeds, or counting images, explain.

A new run is one more draw beside the n published ones. Its distance from their mean is at most

    t(0.975, d) * s * sqrt(1 + 1/n)

in 95 of 100 cases, where s is the standard deviation of one run and d the degrees of freedom behind s. This is the
prediction interval of a normal distribution. A new run with a published seed shares that seed's draws, so it tends to
lie closer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from scipy.special import ndtri, stdtrit

from rethinking.experiments.experiment import Cell

COVERAGE = 0.95
ENOUGH = 3  # seeds of a row whose own deviation is used; fewer take that of the whole table


class Spread(NamedTuple):
    """How far a new run may lie from the published mean.

    width: the largest distance; 0 where only an equal number counts
    source: where the width comes from, in words
    """

    width: float
    source: str


def spread_of(cell: Cell, table: Sequence[Cell], images: int | None, repeats: str = "seed") -> Spread:
    """Returns the spread that a new run of `cell` may have.

    table: the cells whose deviations may stand for this one's, such as all of the table
    images: the number of images that a share was counted on; None for a number that is no share
    repeats: what the cell's deviation is taken over, such as seeds

    In a row with three seeds or more, the deviation is its own. Otherwise it is pooled over all rows with several
    seeds. Where there is none, or all seeds are equal, a share may differ as counting on so many images explains. Any
    other number must be equal.
    """
    if cell.std and cell.seeds >= ENOUGH:
        return Spread(predicted(cell.std, cell.seeds - 1, cell.seeds), f"the {cell.seeds} {repeats}s of this row")
    all_equal = cell.std == 0 and cell.seeds >= ENOUGH
    deviation, freedom, rows = pooled(cell, table)
    if deviation and not (all_equal and images):
        over = "the one row" if rows == 1 else f"{rows} rows"
        source = f"the deviation pooled over {over} with several {repeats}s, {freedom} degrees of freedom"
        return Spread(predicted(deviation, freedom, cell.seeds), source)
    if images and cell.ours is not None:
        why = f"all {cell.seeds} {repeats}s are equal" if all_equal else f"no row has different {repeats}s"
        return Spread(counted(cell.ours, images, cell.seeds), f"counting on {images:,} images, since {why}")
    return Spread(0.0, f"nothing: no row has different {repeats}s, so only the same printed number counts")


def predicted(deviation: float, freedom: int, runs: int) -> float:
    """Returns the half width of the prediction interval around the mean of `runs` runs.

    deviation: the standard deviation of one run
    freedom: the degrees of freedom behind `deviation`
    """
    return float(stdtrit(freedom, (1 + COVERAGE) / 2)) * deviation * math.sqrt(1 + 1 / runs)


def pooled(cell: Cell, table: Sequence[Cell]) -> tuple[float, int, int]:
    """Returns deviation, degrees of freedom and number of the cells with `cell`'s quantity and several seeds.

    All are 0 where there is none.
    """
    several = [other for other in table if other.quantity == cell.quantity and other.std is not None]
    freedom = sum(other.seeds - 1 for other in several)
    if not freedom:
        return 0.0, 0, 0
    squares = sum((other.seeds - 1) * (other.std or 0.0) ** 2 for other in several)
    return math.sqrt(squares / freedom), freedom, len(several)


def counted(share: float, images: int, runs: int) -> float:
    """Returns how far a share of `images` images may lie from the mean share of `runs` runs by counting alone.

    Each run counts a binomial number. Two right and two wrong images are added (Agresti and Coull 1998), so that a
    share of exactly 0 or 1 leaves room for a few images.
    """
    seen = images * runs
    likely = (share * seen + 2) / (seen + 4)
    variance = likely * (1 - likely) * (1 / images + 1 / seen)
    return float(ndtri((1 + COVERAGE) / 2)) * math.sqrt(variance)
