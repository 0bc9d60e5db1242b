"""Bandwidth and l2 term by their error on a held-out part of the training set, one factorization a candidate."""

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

IMAGES = 10_000  # of the training set, its first ones, of which the last fifth is held out
# Of the median distance, the widest first, which is taken where others are as good. Still wider ones make K singular in
# float32: with 60,000 images of MNIST and Gabor features 0.7 of the distance does.
BANDWIDTHS = tuple(2 ** (-power / 2) for power in range(2, 7))
RIDGES = (1e-4, 1e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0)  # where the mean of K's diagonal is 1


@dataclass(frozen=True)
class Choice:
    """held_out_errors: of every candidate, by its value"""

    value: float
    held_out_errors: dict[str, float]


@dataclass(frozen=True)
class DenseMatrix:
    """A symmetric matrix that is there already: float32 (n, n)."""

    entries: Tensor

    @property
    def size(self) -> int:
        return len(self.entries)

    def rows(self, index: int) -> Tensor:
        start, end = spans(self.size)[index]
        return self.entries[start:end, :end].clone()


def choose_bandwidth(points: Tensor, labels: Tensor, num_classes: int, median: float, begin: Steps) -> Choice:
    """Of a Gaussian kernel, among multiples of the median distance: the exact solution with the least error."""
    some = points[:IMAGES]
    candidates = [factor * median for factor in BANDWIDTHS]

    def error(bandwidth: float) -> float:
        return _held_out_error(GaussianKernel(bandwidth)(some, some), labels[:IMAGES], num_classes, 0.0)

    return _choose(candidates, error, begin("choosing the bandwidth"))


def choose_ridge(matrix: SymmetricMatrix, labels: Tensor, num_classes: int, begin: Steps) -> Choice:
    """The l2 term for K, relative to the mean of its diagonal."""
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
            continue  # cannot be factorized
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
