import pytest
import torch

from rethinking.data import sources
from rethinking.errors import RunError
from rethinking.seeding import generator
from rethinking.steps import unwatched
from rethinking.theory import search
from rethinking.theory.interpolation import interpolate, one_hot
from rethinking.theory.kernels import GaussianKernel, KernelMatrix, median_distance
from rethinking.theory.search import BANDWIDTHS, RIDGES, DenseMatrix, choose_bandwidth, choose_ridge


@pytest.fixture
def digits() -> tuple[torch.Tensor, torch.Tensor]:
    train = sources.load("digits").train
    return torch.from_numpy(train.images[:500]).flatten(1).float() / 255, torch.from_numpy(train.labels[:500].copy())


def test_the_bandwidth_is_the_one_with_the_least_error_on_the_last_fifth(digits):
    points, labels = digits
    median = median_distance(points, generator(0, "pairs"))
    choice = choose_bandwidth(points, labels, 10, median, unwatched)
    assert len(choice.held_out_errors) == len(BANDWIDTHS)
    errors = {}
    for factor in BANDWIDTHS:
        fitted = interpolate(GaussianKernel(factor * median), points[:400], one_hot(labels[:400], 10))
        wrong = fitted(points[400:]).argmax(dim=1) != labels[400:]
        errors[f"{factor * median:.6g}"] = float(wrong.double().mean())
    assert choice.held_out_errors == pytest.approx(errors, abs=0.011)
    assert choice.held_out_errors[f"{choice.value:.6g}"] == min(choice.held_out_errors.values())


def test_only_the_first_images_are_searched_on(digits, monkeypatch: pytest.MonkeyPatch):
    points, labels = digits
    monkeypatch.setattr(search, "IMAGES", 200)
    few = choose_bandwidth(points[:200], labels[:200], 10, 8.0, unwatched)
    assert choose_bandwidth(points, labels, 10, 8.0, unwatched) == few


def test_noisy_labels_ask_for_an_l2_term(digits):
    points, labels = digits
    noisy = torch.where(torch.rand(500, generator=generator(0, "which")) < 0.4, torch.arange(500) % 10, labels)
    matrix = KernelMatrix(GaussianKernel(4.0), points)
    assert choose_ridge(matrix, noisy, 10, unwatched).value > RIDGES[0]
    assert len(choose_ridge(matrix, labels, 10, unwatched).held_out_errors) == len(RIDGES)


def test_the_l2_term_is_relative_to_the_matrix(digits):
    points, labels = digits
    gram = GaussianKernel(4.0)(points, points)
    once = choose_ridge(DenseMatrix(gram), labels, 10, unwatched)
    twice = choose_ridge(DenseMatrix(1000 * gram), labels, 10, unwatched)
    assert twice.value == pytest.approx(1000 * once.value, rel=1e-4)


def test_without_a_usable_candidate_the_error_asks_for_a_number():
    matrix = DenseMatrix(torch.diag(torch.tensor([300.0, *[-5.0] * 49])))
    with pytest.raises(RunError, match="give a number instead"):
        choose_ridge(matrix, torch.arange(50) % 10, 10, unwatched)
