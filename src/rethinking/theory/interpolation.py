"""Section 5: the solution of K a = y, which fits every training label exactly and of all that do has the least norm."""

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

TOLERANCE = 1e-4  # of the largest residual, where targets are 0 and 1
EXACT = 1e-3  # and of that with the kernel in float64, whose entries float32 rounds
CHECKED = 2048  # points whose residual is looked at in float64
MOST_REFINEMENTS = 30
PATIENCE = 4  # steps of refinement that may pass without a smaller residual
JITTERS = (0.0, 1e-6, 1e-5, 1e-4, 1e-3)  # of the mean of K's diagonal, tried in this order


@dataclass(frozen=True)
class Solution:
    """Of (K + ridge) a = y.

    coefficients: a, float64 (n, outputs)
    values: K a, float64 (n, outputs), K made anew
    jitter: what was added besides to the matrix that was factorized, because it is not positive definite in float32, or
        so nearly singular that refinement does not settle;
        refinement takes its effect out again, unless `residual` says that K itself has no solution: then this is that
        of K + ridge + jitter
    residual: the largest |K a + ridge a - y|, of K as float32 has it (`residual_in_float64` is that of the kernel)
    norm: sqrt(trace(a' K a)), of f in the kernel's space over all outputs; with a linear kernel that of the weights;
        None where `residual` says that this is no solution, as a then grows with the inverse of jitter
    refinements: steps of refinement taken after the first solution
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
    """Solve (K + ridge) a = y for y float (n, outputs): Cholesky in float32 by block rows, then refinement.

    The factor's block rows stay in memory up to `held` bytes. With a `folder` each is kept there as well, from where an
    interrupted solution goes on; without one memory holds them all.

    Raises `InputError` for a ridge below 0, `RunError` where K cannot be factorized.
    """
    if ridge < 0 or not math.isfinite(ridge):
        raise InputError(f"the l2 term must be a number from 0 on, not {ridge:g}")
    wanted, found, residual = targets.double(), None, math.inf
    for factor, jitter in _factors(matrix, ridge, folder, held, begin):
        refined = _refine(matrix, factor, wanted, ridge, begin)
        settled = refined.residual < TOLERANCE
        if jitter and not settled:  # K itself has no solution, or none within reach
            refined = _refine(matrix, factor, wanted, ridge + jitter, begin)
            settled = refined.residual < TOLERANCE
        left = float((wanted - refined.values - ridge * refined.coefficients).abs().max())
        if settled or left < residual:
            found, residual = (refined, jitter), left
        if settled:
            break
    if found is None:
        raise RunError(
            f"the kernel matrix cannot be factorized in float32, even with {JITTERS[-1]:g} of its diagonal added; some"
            " points are too close to each other for this kernel"
        )
    (coefficients, values, _, refinements), jitter = found
    norm = math.sqrt(max(0.0, float((coefficients * values).sum()))) if residual < TOLERANCE else None
    return Solution(coefficients, values, ridge, jitter, residual, norm, refinements)


class _Refined(NamedTuple):
    """Coefficients, K times them, the largest residual and the steps it took."""

    coefficients: Tensor
    values: Tensor
    residual: float
    steps: int


def _refine(matrix: SymmetricMatrix, factor: Blocks, wanted: Tensor, ridge: float, begin: Steps) -> _Refined:
    """Solve (K + ridge) a = y, each output for itself.

    Conjugate gradients with the float32 factor as preconditioner: one step where the factor is as good as exact, a
    few more where K is close to singular. K is made anew in each, and sums are in float64.
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
        # An output that is solved to the last digit has no direction left.
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
    """Cholesky's factors of K + ridge + jitter that there are, and the jitter, from the smallest on.

    Asked for the next, the one before was of no use, which is not found out again; the last must do.
    """
    diagonal = matrix.rows(0).diagonal()  # as far as the first block tells
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
            with contextlib.suppress(OSError):  # where it cannot be written it is found out again
                kept.mkdir(parents=True, exist_ok=True)
                (kept / "useless").touch()


@dataclass(frozen=True)
class Interpolant:
    """f(x) = sum_i a_i k(x, x_i), for points float32 (n, features)."""

    kernel: Kernel
    points: Tensor
    solution: Solution

    def __call__(self, points: Tensor) -> Tensor:
        """f at float32 (m, features), float64 (m, outputs)."""
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
    """`solve` for the kernel matrix of `points`, whose residual is that of K computed anew in blocks.

    Raises `ConflictError` where equal points have different targets and there is no ridge, so that no solution exists.
    """
    if not ridge and (pair := conflicting_points(points, targets)):
        raise ConflictError(
            f"no function fits points {pair[0]} and {pair[1]} both: they are equal and their targets are not; leave one"
            " out"
        )
    solution = solve(KernelMatrix(kernel, points), targets, ridge, folder=folder, held=held, begin=begin)
    return Interpolant(kernel, points, solution)


def residual_in_float64(
    kernel: Kernel, points: Tensor, solution: Solution, targets: Tensor, generator: torch.Generator
) -> float:
    """The largest |K a + ridge a - y| of `CHECKED` points drawn at random, with the kernel in float64."""
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
    """Two equal points with different targets, the first there are; None where every point has one target."""
    first: dict[bytes, int] = {}
    for index, (point, target) in enumerate(zip(points.cpu().numpy(), targets.cpu().numpy(), strict=True)):
        other = first.setdefault((point + 0).tobytes(), index)  # -0.0 is 0.0
        if not np.array_equal(target, targets[other].cpu().numpy()):
            return other, index
    return None
