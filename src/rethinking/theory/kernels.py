"""Kernels of Section 5 and their Gram matrices, block by block.

Points are float32 (n, features). A kernel called with (n, features) and (m, features) gives float32 (n, m).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from rethinking.errors import InputError

BLOCK = 2048  # rows of a Gram matrix that are computed at a time


class Kernel(Protocol):
    def __call__(self, left: Tensor, right: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class LinearKernel:
    """k(x, y) = x . y"""

    def __call__(self, left: Tensor, right: Tensor) -> Tensor:
        return left @ right.T


@dataclass(frozen=True)
class GaussianKernel:
    """k(x, y) = exp(-|x - y|^2 / (2 bandwidth^2)), the bandwidth in the units of the features.

    Raises `InputError` for a bandwidth that is not a positive number.
    """

    bandwidth: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.bandwidth) and self.bandwidth > 0):
            raise InputError(f"bandwidth must be a positive number, not {self.bandwidth:g}")

    def __call__(self, left: Tensor, right: Tensor) -> Tensor:
        scale = 1 / (self.bandwidth * math.sqrt(2))
        centre = right.mean(dim=0)  # distances stay, and less of them is lost to rounding
        left, right = (left - centre) * scale, (right - centre) * scale
        exponents = torch.addmm(right.square().sum(dim=1), left, right.T, beta=-1, alpha=2)
        return exponents.sub_(left.square().sum(dim=1)[:, None]).clamp_(max=0).exp_()


def gram_matrix(kernel: Kernel, points: Tensor) -> Tensor:
    """K of Section 5's K a = y, float32 (n, n): its lower triangle alone; what stands above means nothing.

    The pages of memory above the triangle are left untouched.
    """
    gram = torch.empty(len(points), len(points), dtype=torch.float32, device=points.device)
    for start in range(0, len(points), BLOCK):
        rows = points[start : start + BLOCK]
        end = start + len(rows)
        gram[start:end, :end] = kernel(rows, points[:end])
    return gram


def kernel_sum(kernel: Kernel, centres: Tensor, coefficients: Tensor, points: Tensor) -> Tensor:
    """sum_i a_i k(x, x_i) at each of `points`, float64 (m, outputs), for a float64 (n, outputs)."""
    return torch.cat([kernel(some, centres).double() @ coefficients for some in points.split(BLOCK)])


def median_distance(points: Tensor, generator: torch.Generator, pairs: int = 10_000) -> float:
    """The median heuristic for a Gaussian kernel's bandwidth: the median distance of `pairs` pairs drawn at random.

    Raises `InputError` where half of them or more are of equal points.
    """
    left, right = torch.randint(len(points), (2, pairs), generator=generator)
    apart = left != right
    distances = (points[left[apart]] - points[right[apart]]).norm(dim=1)
    if not len(distances) or distances.median() == 0:
        raise InputError("the points do not differ enough for the median of their distances to be a bandwidth")
    return float(distances.median())
