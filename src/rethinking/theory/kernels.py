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
from rethinking.linear import linear
from rethinking.theory import blocks


class Kernel(Protocol):
    def __call__(self, left: Tensor, right: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class LinearKernel:
    """k(x, y) = x . y"""

    def __call__(self, left: Tensor, right: Tensor) -> Tensor:
        return linear(left, right)


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
        exponents = linear(2 * left, right, -right.square().sum(dim=1))
        return exponents.sub_(left.square().sum(dim=1)[:, None]).clamp_(max=0).exp_()


@dataclass(frozen=True)
class KernelMatrix:
    """K of Section 5's K a = y, block row by block row: `points` float32 (n, features)."""

    kernel: Kernel
    points: Tensor

    @property
    def size(self) -> int:
        return len(self.points)

    def rows(self, index: int) -> Tensor:
        """Float32 (rows, columns), to the last column of the block on the diagonal."""
        start, end = blocks.spans(self.size)[index]
        return self.kernel(self.points[start:end], self.points[:end])


def kernel_sum(kernel: Kernel, centres: Tensor, coefficients: Tensor, points: Tensor) -> Tensor:
    """sum_i a_i k(x, x_i) at each of `points`, float64 (m, outputs), for a float64 (n, outputs)."""
    return torch.cat([kernel(some, centres).double() @ coefficients for some in points.split(blocks.BLOCK)])


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
