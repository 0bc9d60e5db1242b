"""Choose bandwidth and l2 term by the error on held-out training images, with one factorization per candidate."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from rethinking.errors import RunError
from rethinking.steps import Steps
from rethinking.theory.blocks import spans
from rethinking.theory.cholesky import SymmetricMatrix
from rethinking.theory.interpolation import one_hot, solve
from rethinking.theory.kernels import GaussianKernel

IMAGES = 10_000  # the first training images are used; the last fifth of them is held out
# Relative to the median distance. The widest comes first and wins a tie. A wider one makes K singular in float32, as
# 0.7 does with MNIST's 60,000 images and Gabor features.
BANDWIDTHS = tuple(2 ** (-power / 2) for power in range(2, 7))
RIDGES = (1e-4, 1e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0)  # where the mean of K's diagonal is 1


@dataclass(frozen=True)
class Choice:
    """The chosen value, and the held-out error of every candidate, 0-1, by its value."""

    value: float
    held_out_errors: dict[str, float]


@dataclass(frozen=True)
class DenseMatrix:
    """A symmetric matrix held in memory, float32 (n, n)."""

    entries: Tensor

    @property
    def size(self) -> int:
        """The number of rows, n."""
        return len(self.entries)

    def rows(self, index: int) -> Tensor:
        """A copy of block row `index`, up to the last column of its diagonal block."""
        start, end = spans(self.size)[index]
        return self.entries[start:end, :end].clone()


def choose_bandwidth(points: Tensor, labels: Tensor, num_classes: int, median: float, begin: Steps) -> Choice:
    """Choose a Gaussian kernel's bandwidth among multiples of the median distance.

    Candidates are compared by their exact solutions' held-out error. Points are float32 (n, features), labels int64
    (n,). Raises `RunError` where no candidate's matrix can be factorized.
    """
    some = points[:IMAGES]
    candidates = [factor * median for factor in BANDWIDTHS]

    def error(bandwidth: float) -> float:
        return _held_out_error(GaussianKernel(bandwidth)(some, some), labels[:IMAGES], num_classes, 0.0)

    return _choose(candidates, error, begin("choosing the bandwidth"))


def choose_ridge(matrix: SymmetricMatrix, labels: Tensor, num_classes: int, begin: Steps) -> Choice:
    """Choose the l2 term of K among multiples of the mean of its diagonal.

    Labels are int64 (n,). Raises `RunError` where no candidate's matrix can be factorized.
    """
    size = min(matrix.size, IMAGES)
    lower = torch.zeros(size, size, device=matrix.rows(0).device)
    for index, (start, end) in enumerate(spans(size)):
        lower[start:end, :end] = matrix.rows(index)[: end - start, :end]
    whole = lower.tril() + lower.tril(-1).T
    scale = float(whole.diagonal().mean())

    def error(ridge: float) -> float:
        return _held_out_error(whole, labels[:size], num_classes, ridge)

    return _choose([relative * scale for relative in RIDGES], error, begin("choosing the l2 term"))


def _choose(
    candidates: Iterable[float], error_of: Callable[[float], float], advanced: Callable[[float], None]
) -> Choice:
    candidates = list(candidates)
    errors: dict[float, float] = {}
    for done, candidate in enumerate(candidates, start=1):
        try:
            errors[candidate] = error_of(candidate)
        except RunError:
            continue  # its matrix cannot be factorized
        finally:
            advanced(done / len(candidates))
    if not errors:
        raise RunError("none of the candidates gives a kernel matrix that can be factorized; give a number instead")
    return Choice(min(errors, key=lambda value: errors[value]), {f"{value:.6g}": err for value, err in errors.items()})


def _held_out_error(gram: Tensor, labels: Tensor, num_classes: int, ridge: float) -> float:
    fitted = max(1, 4 * len(gram) // 5)
    targets = one_hot(labels[:fitted], num_classes).to(gram.device)
    coefficients = solve(DenseMatrix(gram[:fitted, :fitted]), targets, ridge).coefficients
    values = gram[fitted:, :fitted].double() @ coefficients
    return float((values.argmax(dim=1).cpu() != labels[fitted:]).double().mean())
