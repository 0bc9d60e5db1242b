import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from rethinking.errors import InputError
from rethinking.seeding import generator
from rethinking.theory import blocks
from rethinking.theory.kernels import GaussianKernel, KernelMatrix, LinearKernel, kernel_sum, median_distance

sizes = st.integers(1, 40)
scales = st.sampled_from((1e-2, 1.0, 1e2))
seeds = st.integers(0, 1000)


def points(count: int, features: int, scale: float = 1.0, seed: int = 0) -> Tensor:
    return torch.randn(count, features, generator=generator(seed, "test")) * scale


def slow(kernel, left: Tensor, right: Tensor) -> Tensor:
    """Computes the definition one pair at a time, in float64."""

    def one(x: Tensor, y: Tensor) -> float:
        if isinstance(kernel, LinearKernel):
            return float(x @ y)
        return math.exp(-float((x - y).square().sum()) / (2 * kernel.bandwidth**2))

    return torch.tensor([[one(x, y) for y in right.double()] for x in left.double()], dtype=torch.float64)


@given(count=sizes, others=sizes, features=sizes, scale=scales, seed=seeds)
def test_a_kernel_is_its_definition(count, others, features, scale, seed):
    left, right = points(count, features, scale, seed), points(others, features, scale, seed + 1)
    for kernel, size in ((GaussianKernel(scale * math.sqrt(features)), 1.0), (LinearKernel(), scale**2 * features)):
        difference = kernel(left, right).double() - slow(kernel, left, right)
        assert difference.abs().max() < 1e-5 * size


@given(count=sizes, features=sizes, scale=scales, seed=seeds, far=st.sampled_from((0.0, 100.0)))
def test_a_gaussian_gram_matrix_is_symmetric_positive_semidefinite_and_one_on_its_diagonal(
    count, features, scale, seed, far
):
    at = points(count, features, scale, seed) + far * scale
    gram = GaussianKernel(scale)(at, at)
    assert torch.allclose(gram, gram.T, atol=1e-5)
    assert torch.allclose(gram.diagonal(), torch.ones(count), atol=1e-5)
    assert gram.max() <= 1
    assert torch.linalg.eigvalsh(gram.double()).min() > -1e-4


@pytest.mark.parametrize("kernel", [GaussianKernel(3.0), LinearKernel()])
def test_the_lower_triangle_built_in_blocks_is_that_of_the_whole(kernel, monkeypatch):
    at = points(50, 7)
    monkeypatch.setattr(blocks, "BLOCK", 16)
    matrix = KernelMatrix(kernel, at)
    for index, (start, end) in enumerate(blocks.spans(50)):
        assert torch.allclose(matrix.rows(index), kernel(at, at)[start:end, :end], atol=1e-5)
    whole = kernel_sum(kernel, at, torch.eye(50, dtype=torch.float64), at).float()
    assert torch.allclose(whole, kernel(at, at), atol=1e-5)


@pytest.mark.parametrize("bandwidth", [0.0, -1.0, math.nan, math.inf])
def test_a_bandwidth_that_is_no_positive_number_is_refused(bandwidth):
    with pytest.raises(InputError, match="bandwidth must be a positive number"):
        GaussianKernel(bandwidth)


def test_the_median_distance_is_that_of_all_pairs():
    at = points(300, 10)
    exact = float(torch.pdist(at.double()).median())
    assert median_distance(at, generator(0, "pairs")) == pytest.approx(exact, rel=0.02)


def test_equal_points_have_no_median_distance():
    with pytest.raises(InputError, match="do not differ enough"):
        median_distance(torch.ones(20, 3), generator(0, "pairs"))
