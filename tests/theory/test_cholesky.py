from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rethinking.seeding import generator
from rethinking.theory import blocks, cholesky
from rethinking.theory.blocks import Blocks, spans, triangle
from rethinking.theory.cholesky import NotPositiveDefiniteError, factorize, multiply, substitute
from rethinking.theory.search import DenseMatrix

SIZE = 50


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(blocks, "BLOCK", 16)
    monkeypatch.setattr(cholesky, "STRIPE", 5)
    monkeypatch.setattr(cholesky, "COLUMNS", 20)


def positive(size: int = SIZE, seed: int = 0) -> Tensor:
    root = torch.randn(size, size + 5, generator=generator(seed, "matrix"), dtype=torch.float64)
    return (root @ root.T / size + torch.eye(size)).float()


def whole(factor: Blocks, size: int) -> Tensor:
    lower = torch.zeros(size, size)
    for index, (start, end) in enumerate(spans(size)):
        lower[start:end, :end] = factor[index]
    return lower


@settings(deadline=None)
@given(size=st.integers(1, 60), seed=st.integers(0, 100), added=st.sampled_from((0.0, 2.0)))
def test_the_factor_equals_numpys(size, seed, added):
    matrix = positive(size, seed)
    factor = Blocks(triangle(size))
    factorize(DenseMatrix(matrix), added, factor)
    expected = np.linalg.cholesky(matrix.double().numpy() + added * np.eye(size))
    assert np.allclose(whole(factor, size).tril().numpy(), expected, atol=1e-4)


def test_it_solves_linear_systems():
    matrix = positive()
    factor = Blocks(triangle(SIZE))
    factorize(DenseMatrix(matrix), 0.0, factor)
    right = torch.randn(SIZE, 3, generator=generator(0, "right"))
    expected = np.linalg.solve(matrix.double().numpy(), right.numpy())
    assert np.allclose(substitute(factor, SIZE, right).numpy(), expected, atol=1e-4)


def test_products_equal_those_of_the_whole_symmetric_matrix():
    matrix = positive()
    right = torch.randn(SIZE, 3, generator=generator(0, "right"), dtype=torch.float64)
    assert torch.allclose(multiply(DenseMatrix(matrix), right), matrix.double() @ right, atol=1e-12)


@pytest.mark.parametrize("held", [0.0, 3000.0, float("inf")])
def test_rows_on_disk_give_the_same_factor(tmp_path: Path, held):
    matrix = DenseMatrix(positive())
    in_memory, on_disk = Blocks(triangle(SIZE)), Blocks(triangle(SIZE), tmp_path, held)
    factorize(matrix, 0.0, in_memory)
    factorize(matrix, 0.0, on_disk)
    assert torch.equal(whole(in_memory, SIZE), whole(on_disk, SIZE))


def test_an_interrupted_factorization_continues_where_it_stopped(tmp_path: Path):
    class Interrupted(DenseMatrix):
        def rows(self, index: int) -> Tensor:
            if index == 2:
                raise KeyboardInterrupt
            return super().rows(index)

    class Rest(DenseMatrix):
        def rows(self, index: int) -> Tensor:
            assert index >= 2, "is there"
            return super().rows(index)

    matrix = positive()
    with pytest.raises(KeyboardInterrupt):
        factorize(Interrupted(matrix), 0.0, Blocks(triangle(SIZE), tmp_path))
    factor, uninterrupted = Blocks(triangle(SIZE), tmp_path), Blocks(triangle(SIZE))
    factorize(Rest(matrix), 0.0, factor)
    factorize(DenseMatrix(matrix), 0.0, uninterrupted)
    assert torch.equal(whole(factor, SIZE), whole(uninterrupted, SIZE))


def test_a_matrix_that_is_not_positive_definite_is_reported():
    matrix = positive()
    matrix[40, 40] = -1.0
    with pytest.raises(NotPositiveDefiniteError):
        factorize(DenseMatrix(matrix), 0.0, Blocks(triangle(SIZE)))


def test_the_share_done_rises_to_one():
    told: list[float] = []
    factorize(DenseMatrix(positive()), 0.0, Blocks(triangle(SIZE)), told.append)
    assert told == sorted(told)
    assert told[-1] == 1.0
