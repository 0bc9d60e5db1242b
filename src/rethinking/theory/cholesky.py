"""Cholesky's factorization K = L L' of a matrix by block rows, half the memory of the whole.

LAPACK factorizes the blocks on the diagonal, where its 32-bit indices do (n = 60,000 is beyond them for the whole
matrix); nearly all of the work is matrix products. A block row is made, brought to its final form by those before it,
and kept, so an interrupted factorization goes on at the block row where it was.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from rethinking.linear import linear
from rethinking.theory.blocks import Blocks, spans

STRIPE = 512  # rows of the block on the diagonal that are updated at a time
COLUMNS = 8192  # of a block row that are in float64 at a time


class SymmetricMatrix(Protocol):
    """size: n; `rows(i)` makes block row i anew, float32, to the last column of its block on the diagonal."""

    @property
    def size(self) -> int: ...

    def rows(self, index: int) -> Tensor: ...


class NotPositiveDefiniteError(ValueError):
    """The matrix has, in float32, an eigenvalue that is not positive."""


def factorize(
    matrix: SymmetricMatrix, added: float, factor: Blocks, advanced: Callable[[float], None] = lambda share: None
) -> None:
    """L with L L' = K + `added`, into `factor`, whose first block rows may be there from before.

    `advanced` is told the share of the work that is done. Raises `NotPositiveDefiniteError`.
    """
    places = spans(matrix.size)
    finished = factor.finished
    before_all = (places[finished - 1][1] / matrix.size) ** 3 if finished else 0.0
    for index in range(finished, len(places)):
        start, end = places[index]
        rows = matrix.rows(index)
        for before, (first, last) in enumerate(places[:index]):
            left = factor[before]
            block = rows[:, first:last]
            block.sub_(linear(rows[:, :first], left[:, :first]))
            block.copy_(torch.linalg.solve_triangular(left[:, first:].T, block, upper=True, left=False))
        corner = rows[:, start:]
        for first, last in spans(end - start, STRIPE):  # what lies above the diagonal is not needed
            corner[first:last, :last].sub_(linear(rows[first:last, :start], rows[:last, :start]))
        corner.diagonal().add_(added)
        lower, failed = torch.linalg.cholesky_ex(corner)
        if failed:
            raise NotPositiveDefiniteError
        corner.copy_(lower)
        factor[index] = rows
        advanced(((end / matrix.size) ** 3 - before_all) / (1 - before_all))


def substitute(factor: Blocks, size: int, right_side: Tensor) -> Tensor:
    """The solution x of L L' x = y, for float32 y (n, columns)."""
    places = spans(size)
    solution = right_side.clone()
    for index, (start, end) in enumerate(places):
        rows = factor[index]
        block = solution[start:end]
        block.addmm_(rows[:, :start], solution[:start], alpha=-1)
        block.copy_(torch.linalg.solve_triangular(rows[:, start:], block, upper=False))
    for index, (start, end) in reversed(list(enumerate(places))):
        rows = factor[index]
        block = solution[start:end]
        block.copy_(torch.linalg.solve_triangular(rows[:, start:].T, block, upper=True))
        solution[:start].addmm_(rows[:, :start].T, block, alpha=-1)
    return solution


def multiply(
    matrix: SymmetricMatrix, right_side: Tensor, advanced: Callable[[float], None] = lambda share: None
) -> Tensor:
    """K x in float64, for float64 x (n, columns), K made anew: each block row once, for its transpose as well."""
    product = torch.zeros_like(right_side)
    for index, (start, end) in enumerate(spans(matrix.size)):
        rows = matrix.rows(index)
        for first in range(0, end, COLUMNS):
            some = rows[:, first : first + COLUMNS].double()
            last = first + some.shape[1]
            product[start:end] += some @ right_side[first:last]
            mirrored = min(last, start)  # what stands left of the diagonal's block
            if first < mirrored:
                product[first:mirrored] += some[:, : mirrored - first].T @ right_side[start:end]
        advanced((end / matrix.size) ** 2)
    return product
