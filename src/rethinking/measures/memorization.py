"""Memorization and influence of single examples, from runs on random subsets (Feldman & Zhang 2020, arXiv:2008.03703).

An example is memorized as far as a network gets its label right only if the example was in its training set. Each of
m runs trains on a random subset of the training set. `inside` says which examples were in the subset of each run, and
`right` which labels the run's network gets right.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rethinking.errors import InputError

Mask = NDArray[np.bool_]
Values = NDArray[np.float64]


class Estimate(NamedTuple):
    """Estimates with their standard errors, both float64 and of one shape.

    Both are nan where fewer than two runs had the example, or fewer than two lacked it.
    """

    value: Values
    standard_error: Values

    def largest(self, count: int, members: Mask | None = None) -> NDArray[np.int64]:
        """Returns the places of the largest known estimates, each less its standard error, int64 (at most count,).

        Many estimates from few runs are equal. Those come first that are surest.

        members: bool, the estimates to choose from; by default all. The estimates are one-dimensional
        """
        known = np.isfinite(self.value) if members is None else members & np.isfinite(self.value)
        places = np.flatnonzero(known)
        sure = self.value[places] - self.standard_error[places]
        return places[np.argsort(-sure, kind="stable")][:count]


class Share(NamedTuple):
    """A share of right answers. right, runs: numbers of runs"""

    right: NDArray[Any]
    runs: NDArray[Any]

    @property
    def mean(self) -> Values:
        """The share, 0-1."""
        return np.asarray(self.right / np.maximum(self.runs, 1))

    @property
    def variance(self) -> Values:
        """The variance of `mean`. One right and one wrong run are added, since a share of 0 or 1 is not certain."""
        smoothed = (self.right + 1) / (self.runs + 2)
        return np.asarray(smoothed * (1 - smoothed) / np.maximum(self.runs, 1))


def memorization(inside: Mask, right: Mask) -> Estimate:
    """Estimates mem(i) = P(right on i | i in the training set) - P(right on i | i not in it), Equation 1 there.

    inside, right: bool (m, n), of m runs and n training examples

    Returns estimates (n,). Raises `InputError` for fewer than four runs or other shapes.
    """
    _check(inside, right)
    if inside.shape != right.shape:
        raise InputError(f"inside and right must have one shape, not {inside.shape} and {right.shape}")
    shares = [Share((group & right).sum(axis=0), group.sum(axis=0)) for group in (inside, ~inside)]
    return _difference(*shares)


def influence(inside: Mask, right: Mask) -> Estimate:
    """Estimates infl(i, j) = P(right on j | i in the training set) - P(right on j | i not in it), Equation 2 there.

    inside: bool (m, n), of m runs and n training examples
    right: bool (m, k), of the same runs and k test examples

    Returns estimates (n, k). Raises `InputError` for fewer than four runs or other shapes.
    """
    _check(inside, right)
    of_right = right.astype(np.float32)  # counts below 2^24 are exact
    shares = [Share(group.astype(np.float32).T @ of_right, group.sum(axis=0)[:, None]) for group in (inside, ~inside)]
    return _difference(*shares)


def _difference(first: Share, second: Share) -> Estimate:
    known = (first.runs >= 2) & (second.runs >= 2)
    error = np.sqrt(first.variance + second.variance)
    return Estimate(np.where(known, first.mean - second.mean, np.nan), np.where(known, error, np.nan))


def _check(inside: Mask, right: Mask) -> None:
    if inside.ndim != 2 or right.ndim != 2 or len(inside) != len(right):
        raise InputError(f"inside and right must have a row for each run, not {inside.shape} and {right.shape}")
    if len(inside) < 4:
        raise InputError(f"memorization needs at least 4 runs on random subsets, not {len(inside)}")
