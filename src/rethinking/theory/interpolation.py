r"""Section 5's solution of $K a = y$. Of all functions that fit every training label, it has the least norm."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from rethinking.errors import ConflictError, InputError, RunError
from rethinking.steps import Steps, unwatched
from rethinking.theory.blocks import Blocks, spans, triangle
from rethinking.theory.cholesky import (
    NotPositiveDefiniteError,
    SymmetricMatrix,
    factorize,
    multiply,
    substitute,
)
from rethinking.theory.kernels import Kernel, KernelMatrix, kernel_sum

TOLERANCE = 1e-4  # on the largest residual, for targets 0 and 1
EXACT = 1e-3  # on the largest residual with the kernel in float64, whose entries float32 rounds
CHECKED = 2048  # points whose residual is checked in float64
MOST_REFINEMENTS = 30
PATIENCE = 4  # steps of refinement without a smaller residual before it stops
JITTERS = (0.0, 1e-6, 1e-5, 1e-4, 1e-3)  # relative to the mean of K's diagonal, tried in this order


@dataclass(frozen=True)
class Solution:
    r"""A solution of $(K + \lambda I) a = y$.

    coefficients: a, float64 (n, outputs)
    values: K a, float64 (n, outputs), with K computed again
    ridge: the l2 term $\lambda$
    jitter: a number added to the diagonal before factorization, where K in float32 is not positive definite, or so
        nearly singular that refinement does not converge. Refinement removes its effect, unless K itself has no
        solution. In this case, which `residual` shows, a solves the system of K + ridge + jitter
    residual: the largest |K a + ridge a - y|, with K in float32 (`residual_in_float64` uses the exact kernel)
    norm: $\sqrt{\mathrm{tr}(a^T K a)}$, the norm of f in the kernel's space over all outputs; for a linear kernel, the
        norm of the weights. None where `residual` shows that K has no solution: a then grows with the inverse of jitter
    refinements: steps of refinement after the first solution
    """

    coefficients: Tensor
    values: Tensor
    ridge: float
    jitter: float
    residual: float
    norm: float | None
    refinements: int


def solve(
    matrix: SymmetricMatrix,
    targets: Tensor,
    ridge: float = 0.0,
    *,
    folder: Path | None = None,
    held: float = math.inf,
    begin: Steps = unwatched,
) -> Solution:
    r"""Solve $(K + \lambda I) a = y$ for float y (n, outputs): Cholesky in float32 by block rows, then refinement.

    `ridge` is $\lambda$. At 0 the solution fits every target and has the least norm. Up to `held` bytes of the factor
    stay in memory. With a `folder`, each block row is also written there, and an interrupted solution resumes from it.
    Without a `folder`, memory holds all block rows.

    Raises `InputError` for a ridge that is negative or not finite, and `RunError` where K cannot be factorized.
    """
    if ridge < 0 or not math.isfinite(ridge):
        raise InputError(f"the l2 term must be a number from 0 on, not {ridge:g}")
    wanted, found, residual = targets.double(), None, math.inf
    for factor, jitter in _factors(matrix, ridge, folder, held, begin):
        refined = _refine(matrix, factor, wanted, ridge, begin)
        settled = refined.residual < TOLERANCE
        if jitter and not settled:  # K itself has no solution, or refinement cannot reach it
            refined = _refine(matrix, factor, wanted, ridge + jitter, begin)
            settled = refined.residual < TOLERANCE
        left = float((wanted - refined.values - ridge * refined.coefficients).abs().max())
        if settled or left < residual:
            found, residual = (refined, jitter), left
        if settled:
            break
    if found is None:
        raise RunError(
            f"the kernel matrix cannot be factorized in float32, even with {JITTERS[-1]:g} of its diagonal added: some"
            " points are too close to each other for this kernel; leave some out or take another kernel"
        )
    (coefficients, values, _, refinements), jitter = found
    norm = math.sqrt(max(0.0, float((coefficients * values).sum()))) if residual < TOLERANCE else None
    return Solution(coefficients, values, ridge, jitter, residual, norm, refinements)


class _Refined(NamedTuple):
    """The coefficients, K times the coefficients, the largest residual, and the number of steps."""

    coefficients: Tensor
    values: Tensor
    residual: float
    steps: int


def _refine(matrix: SymmetricMatrix, factor: Blocks, wanted: Tensor, ridge: float, begin: Steps) -> _Refined:
    """Solve (K + ridge) a = y for each output separately, by conjugate gradients.

    The float32 factor is the preconditioner. One step suffices where the factor is nearly exact; a few more are needed
    where K is close to singular. Each step computes K again, with sums in float64.
    """
    coefficients, values = torch.zeros_like(wanted), torch.zeros_like(wanted)
    best = _Refined(coefficients, values, math.inf, 0)
    residual = wanted
    solved = substitute(factor, matrix.size, residual.float()).double()
    direction = solved
    for step in range(MOST_REFINEMENTS + 1):
        product = multiply(matrix, direction, begin("refining" if step else "solving"))
        curvature = (direction * (product + ridge * direction)).sum(dim=0)
        energy = (residual * solved).sum(dim=0)
        # An output that is solved exactly has no direction left.
        length = torch.where(curvature > 0, energy / curvature, 0.0)
        coefficients = coefficients + length * direction
        values = values + length * product
        before, residual = residual, wanted - values - ridge * coefficients
        largest = float(residual.abs().max())
        if largest < best.residual:
            best = _Refined(coefficients, values, largest, step)
        if largest < TOLERANCE or step - best.steps == PATIENCE:
            break
        solved = substitute(factor, matrix.size, residual.float()).double()
        turned = (solved * (residual - before)).sum(dim=0)
        direction = solved + torch.where(energy > 0, turned / energy, 0.0) * direction
    return best


def _factors(
    matrix: SymmetricMatrix, ridge: float, folder: Path | None, held: float, begin: Steps
) -> Iterator[tuple[Blocks, float]]:
    """Cholesky's factors of K + ridge + jitter that exist, with their jitter, in rising order of jitter.

    The caller asks for the next factor where the last one was useless. A marker on disk saves a second try.
    """
    diagonal = matrix.rows(0).diagonal()  # the first block stands for the whole diagonal
    for relative in JITTERS:
        kept = None if folder is None else folder / f"jitter-{relative:g}"
        if kept is not None and (kept / "useless").exists():
            continue
        factor = Blocks(triangle(matrix.size), kept, held, diagonal.device)
        jitter = relative * float(diagonal.mean())
        advanced = begin(f"factorizing with {jitter:.1g} added to the diagonal" if jitter else "factorizing")
        with contextlib.suppress(NotPositiveDefiniteError):
            factorize(matrix, ridge + jitter, factor, advanced)
            yield factor, jitter
            if relative == JITTERS[-1]:
                return
        factor.discard()
        if kept is not None:
            with contextlib.suppress(OSError):  # without the marker, the next process only tries once more
                kept.mkdir(parents=True, exist_ok=True)
                (kept / "useless").touch()


@dataclass(frozen=True)
class Interpolant:
    r"""The function $f(x) = \sum_i a_i k(x, x_i)$ of points $x_i$, float32 (n, features)."""

    kernel: Kernel
    points: Tensor
    solution: Solution

    def __call__(self, points: Tensor) -> Tensor:
        """The values of f, float64 (m, outputs), at points float32 (m, features)."""
        return kernel_sum(self.kernel, self.points, self.solution.coefficients, points)


def interpolate(
    kernel: Kernel,
    points: Tensor,
    targets: Tensor,
    ridge: float = 0.0,
    *,
    folder: Path | None = None,
    held: float = math.inf,
    begin: Steps = unwatched,
) -> Interpolant:
    """Fit targets, (n, outputs), at points, float32 (n, features), with `solve`.

    Raises the errors of `solve`, and `ConflictError` where equal points have different targets and there is no ridge.
    """
    if not ridge and (pair := conflicting_points(points, targets)):
        raise ConflictError(
            f"no function fits both points {pair[0]} and {pair[1]}: they are equal, but their targets differ; leave one"
            " out"
        )
    solution = solve(KernelMatrix(kernel, points), targets, ridge, folder=folder, held=held, begin=begin)
    return Interpolant(kernel, points, solution)


def residual_in_float64(
    kernel: Kernel, points: Tensor, solution: Solution, targets: Tensor, generator: torch.Generator
) -> float:
    """The largest |K a + ridge a - y| at `CHECKED` random points, with the kernel in float64."""
    some = torch.randperm(len(points), generator=generator)[:CHECKED].to(points.device)
    values = solution.ridge * solution.coefficients[some]
    for start, end in spans(len(points)):
        across = kernel(points[some].double(), points[start:end].double())
        values += across @ solution.coefficients[start:end]
    return float((values - targets[some]).abs().max())


def one_hot(labels: Tensor, num_classes: int) -> Tensor:
    """Section 5's targets, float64 (n, num_classes)."""
    return F.one_hot(labels, num_classes).double()


def conflicting_points(points: Tensor, targets: Tensor) -> tuple[int, int] | None:
    """The indices of the first two equal points with different targets; None where there are none."""
    first: dict[bytes, int] = {}
    for index, (point, target) in enumerate(zip(points.cpu().numpy(), targets.cpu().numpy(), strict=True)):
        other = first.setdefault((point + 0).tobytes(), index)  # -0.0 is 0.0
        if not np.array_equal(target, targets[other].cpu().numpy()):
            return other, index
    return None
