r"""Cholesky's factorization $K = L L^T$ by block rows, in half the memory of the whole matrix.

LAPACK factorizes the diagonal blocks alone: its 32-bit indices cannot address the whole matrix at n = 60,000. Matrix
products are nearly all of the work. Each block row is made, updated by the rows before it, and kept. An interrupted
factorization therefore resumes at the block row where it stopped.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from rethinking.linear import linear
from rethinking.theory.blocks import Blocks, spans

STRIPE = 512  # rows of a diagonal block that are updated at a time
COLUMNS = 8192  # columns of a block row that are in float64 at a time


class SymmetricMatrix(Protocol):
    """A symmetric matrix, (n, n), that computes one block row at a time."""

    @property
    def size(self) -> int:
        """The number of rows, n."""
        ...

    def rows(self, index: int) -> Tensor:
        """A new copy of block row `index`, float32, up to the last column of its diagonal block."""
        ...


class NotPositiveDefiniteError(ValueError):
    """In float32, the matrix has an eigenvalue that is not positive."""


def factorize(
    matrix: SymmetricMatrix, added: float, factor: Blocks, advanced: Callable[[float], None] = lambda share: None
) -> None:
    r"""Write L into `factor`, where $L L^T = K + \lambda I$ and $\lambda$ is `added`.

    The first block rows may be set already. `advanced` receives the finished share of the work, 0-1. Raises
    `NotPositiveDefiniteError`.
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
        for first, last in spans(end - start, STRIPE):  # entries above the diagonal are not needed
            corner[first:last, :last].sub_(linear(rows[first:last, :start], rows[:last, :start]))
        corner.diagonal().add_(added)
        lower, failed = torch.linalg.cholesky_ex(corner)
        if failed:
            raise NotPositiveDefiniteError
        corner.copy_(lower)
        factor[index] = rows
        advanced(((end / matrix.size) ** 3 - before_all) / (1 - before_all))


def substitute(factor: Blocks, size: int, right_side: Tensor) -> Tensor:
    """Solve $L L^T x = y$ for float32 y, (n, columns)."""
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
    """The product $K x$, float64, for float64 x (n, columns). Each block row of K is computed once."""
    product = torch.zeros_like(right_side)
    for index, (start, end) in enumerate(spans(matrix.size)):
        rows = matrix.rows(index)
        for first in range(0, end, COLUMNS):
            some = rows[:, first : first + COLUMNS].double()
            last = first + some.shape[1]
            product[start:end] += some @ right_side[first:last]
            mirrored = min(last, start)  # the columns left of the diagonal block also count transposed
            if first < mirrored:
                product[first:mirrored] += some[:, : mirrored - first].T @ right_side[start:end]
        advanced((end / matrix.size) ** 2)
    return product
