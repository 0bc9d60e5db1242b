"""Section 5: the solution of K a = y, which fits every training label exactly and of all that do has the least norm."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy.linalg import lapack
from torch import Tensor
from torch.nn import functional as F

from rethinking.errors import InputError, RunError
from rethinking.theory.kernels import Kernel, gram_matrix, kernel_sum

TOLERANCE = 1e-4  # of the largest residual, where targets are 0 and 1
MOST_REFINEMENTS = 10
MOST_POINTS = 46_340  # SciPy's LAPACK counts the entries in 32 bits, and ends the process beyond (seen at 60,000)
JITTERS = (0.0, 1e-6, 1e-5, 1e-4, 1e-3)  # of the mean of K's diagonal, tried in this order


@dataclass(frozen=True)
class Interpolant:
    """f(x) = sum_i a_i k(x, x_i).

    points: float32 (n, features)
    coefficients: a, float64 (n, outputs)
    ridge: what was added to K's diagonal because it was asked for
    jitter: what was added besides to the matrix that was factorized, because it is not positive definite in float32;
        refinement takes its effect out again as far as `residual` says
    residual: the largest |K a + ridge a - y|, K computed anew
    norm: sqrt(trace(a' K a)), of f in the kernel's space over all outputs; with a linear kernel that of the weights
    refinements: steps of iterative refinement taken
    """

    kernel: Kernel
    points: Tensor
    coefficients: Tensor
    ridge: float
    jitter: float
    residual: float
    norm: float
    refinements: int

    def __call__(self, points: Tensor) -> Tensor:
        """f at float32 (m, features), float64 (m, outputs)."""
        return kernel_sum(self.kernel, self.points, self.coefficients, points)


def interpolate(kernel: Kernel, points: Tensor, targets: Tensor, ridge: float = 0.0) -> Interpolant:
    """Solve (K + ridge) a = y for y float (n, outputs), by Cholesky in place in float32 and iterative refinement.

    The residual is that of K computed anew in blocks. Raises `InputError` for more than `MOST_POINTS` points, and where
    equal points have different targets and there is no ridge, so that no solution exists; `RunError` where K cannot be
    factorized.
    """
    if ridge < 0 or not math.isfinite(ridge):
        raise InputError(f"the l2 term must be a number from 0 on, not {ridge:g}")
    if len(points) > MOST_POINTS:
        raise InputError(
            f"{len(points):,} points are more than the {MOST_POINTS:,} whose matrix LAPACK can index; take fewer"
        )
    pair = None if ridge else conflicting_points(points, targets)
    if pair:
        raise InputError(
            f"no function fits points {pair[0]} and {pair[1]} both: they are equal and their targets are not; leave one"
            " out or add an l2 term"
        )
    factor, jitter = _factorize(kernel, points, ridge)
    wanted = targets.double()
    coefficients = torch.zeros_like(wanted)
    residual, values = wanted, torch.zeros_like(wanted)
    best = (math.inf, coefficients, values)
    for refinements in range(MOST_REFINEMENTS + 1):
        coefficients = coefficients + _substitute(factor, residual)
        values = kernel_sum(kernel, points, coefficients, points)  # K a, from K computed anew
        residual = wanted - values - ridge * coefficients
        largest = float(residual.abs().max())
        if not largest < best[0]:
            refinements -= 1
            break
        best = (largest, coefficients, values)
        if largest < TOLERANCE:
            break
    largest, coefficients, values = best
    norm = math.sqrt(max(0.0, float((coefficients * values).sum())))
    return Interpolant(kernel, points, coefficients, ridge, jitter, largest, norm, refinements)


def one_hot(labels: Tensor, num_classes: int) -> Tensor:
    """Section 5's targets, float64 (n, num_classes)."""
    return F.one_hot(labels, num_classes).double()


def conflicting_points(points: Tensor, targets: Tensor) -> tuple[int, int] | None:
    """Two equal points with different targets, the first there are; None where every point has one target."""
    first: dict[bytes, int] = {}
    for index, (point, target) in enumerate(zip(points.numpy(), targets.numpy(), strict=True)):
        other = first.setdefault((point + 0.0).tobytes(), index)  # -0.0 is 0.0
        if not np.array_equal(target, targets[other].numpy()):
            return other, index
    return None


def _factorize(kernel: Kernel, points: Tensor, ridge: float) -> tuple[Tensor, float]:
    """Cholesky's factor of K + ridge + jitter, and the smallest jitter that makes one possible."""
    for relative in JITTERS:
        gram = gram_matrix(kernel, points)
        diagonal = gram.diagonal()
        jitter = relative * float(diagonal.mean())
        diagonal += ridge + jitter
        # The lower triangle of rows is, in LAPACK's order of columns, the upper one.
        _, failed_at = lapack.spotrf(gram.numpy().T, lower=0, clean=0, overwrite_a=1)
        if failed_at == 0:
            return gram, jitter
        del gram, diagonal  # the memory holds one such matrix, not two
    raise RunError(
        f"the kernel matrix cannot be factorized in float32, even with {JITTERS[-1]:g} of its diagonal added; some"
        " points are too close to each other for this kernel"
    )


def _substitute(factor: Tensor, right_side: Tensor) -> Tensor:
    """float64 (n, outputs): the solution in float32."""
    solution, failed = lapack.spotrs(factor.numpy().T, right_side.float().numpy(), lower=0)
    assert failed == 0, "LAPACK takes every finite right side"
    return torch.from_numpy(solution).double()
