"""Kernels of Section 5 and their Gram matrices, block by block.

Points are float32 (n, features). A kernel of (n, features) and (m, features) returns float32 (n, m).
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
    """A positive definite function of two points, evaluated on two sets of points."""

    def __call__(self, left: Tensor, right: Tensor) -> Tensor:
        """The kernel of each pair, (n, m), for points (n, features) and (m, features) of one dtype."""
        ...


@dataclass(frozen=True)
class LinearKernel:
    r"""The kernel $k(x, y) = \langle x, y \rangle$."""

    def __call__(self, left: Tensor, right: Tensor) -> Tensor:
        """The kernel of each pair, (n, m), for points (n, features) and (m, features)."""
        return linear(left, right)


@dataclass(frozen=True)
class GaussianKernel:
    r"""The kernel $k(x, y) = \exp(-|x - y|^2 / (2 \sigma^2))$, with the bandwidth $\sigma$ in the features' units.

    Raises `InputError` for a bandwidth that is not a positive number.
    """

    bandwidth: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.bandwidth) and self.bandwidth > 0):
            raise InputError(f"bandwidth must be a positive number, not {self.bandwidth:g}")

    def __call__(self, left: Tensor, right: Tensor) -> Tensor:
        """The kernel of each pair, (n, m), for points (n, features) and (m, features)."""
        scale = 1 / (self.bandwidth * math.sqrt(2))
        centre = right.mean(dim=0)  # centring keeps distances and reduces their rounding error
        left, right = (left - centre) * scale, (right - centre) * scale
        exponents = linear(2 * left, right, -right.square().sum(dim=1))
        return exponents.sub_(left.square().sum(dim=1)[:, None]).clamp_(max=0).exp_()


@dataclass(frozen=True)
class KernelMatrix:
    """The Gram matrix K of Section 5's K a = y, block row by block row, of points float32 (n, features)."""

    kernel: Kernel
    points: Tensor

    @property
    def size(self) -> int:
        """The number of points, n."""
        return len(self.points)

    def rows(self, index: int) -> Tensor:
        """Block row `index`, float32 (rows, columns), up to the last column of its diagonal block."""
        start, end = blocks.spans(self.size)[index]
        return self.kernel(self.points[start:end], self.points[:end])


def kernel_sum(kernel: Kernel, centres: Tensor, coefficients: Tensor, points: Tensor) -> Tensor:
    r"""$\sum_i a_i k(x, x_i)$ at each x of `points`, float64 (m, outputs), for coefficients a, float64 (n, outputs)."""
    return torch.cat([kernel(some, centres).double() @ coefficients for some in points.split(blocks.BLOCK)])


def median_distance(points: Tensor, generator: torch.Generator, pairs: int = 10_000) -> float:
    """The median distance of `pairs` random pairs of points: the median heuristic for a Gaussian kernel's bandwidth.

    Raises `InputError` where the points of at least half the pairs are equal.
    """
    left, right = torch.randint(len(points), (2, pairs), generator=generator)
    apart = left != right
    distances = (points[left[apart]] - points[right[apart]]).norm(dim=1)
    if not len(distances) or distances.median() == 0:
        raise InputError("the points do not differ enough for the median of their distances to be a bandwidth")
    return float(distances.median())
