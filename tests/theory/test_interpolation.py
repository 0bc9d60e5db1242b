from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from rethinking.errors import ConflictError, InputError, RunError
from rethinking.seeding import generator
from rethinking.theory import blocks, interpolation
from rethinking.theory.interpolation import (
    Interpolant,
    conflicting_points,
    interpolate,
    one_hot,
    residual_in_float64,
)
from rethinking.theory.kernels import GaussianKernel, LinearKernel, median_distance


def points(count: int, features: int, seed: int = 0) -> Tensor:
    return torch.randn(count, features, generator=generator(seed, "test"))


def random_labels(count: int) -> Tensor:
    return torch.randint(10, (count,), generator=generator(0, "labels"))


def slow(interpolant: Interpolant, targets: Tensor, ridge: float = 0.0) -> np.ndarray:
    """Computes the coefficients by the general solver in float64."""
    at = interpolant.points.double()
    gram = interpolant.kernel(at, at).numpy()
    return np.linalg.solve(gram + ridge * np.eye(len(gram)), targets.numpy())


def test_random_labels_are_fitted_exactly_and_as_in_float64():
    labels = random_labels(500)
    at = points(500, 20)
    found = interpolate(GaussianKernel(median_distance(at, generator(0, "pairs")) / 2), at, one_hot(labels, 10))
    assert torch.equal(found(at).argmax(dim=1), labels)
    assert found.solution.residual < interpolation.TOLERANCE
    assert found.solution.residual == pytest.approx(float((found(at) - one_hot(labels, 10)).abs().max()), abs=1e-5)
    assert found.solution.jitter == 0
    exact = slow(found, one_hot(labels, 10))
    assert np.abs(found.solution.coefficients.numpy() - exact).max() < 1e-3 * np.abs(exact).max()
    at = at.double()
    assert found.solution.norm == pytest.approx(
        np.sqrt(np.sum(exact * (found.kernel(at, at).numpy() @ exact))), rel=1e-3
    )


def test_with_more_features_than_points_it_gives_the_weights_of_least_norm():
    at, labels = points(40, 100), random_labels(40)
    found = interpolate(LinearKernel(), at, one_hot(labels, 10))
    weights = np.linalg.pinv(at.double().numpy()) @ one_hot(labels, 10).numpy()
    new = points(10, 100, seed=1)
    assert np.allclose(found(new).numpy(), new.double().numpy() @ weights, atol=1e-3)
    assert found.solution.norm == pytest.approx(np.linalg.norm(weights), rel=1e-4)


def test_an_l2_term_is_ridge_regression_and_fits_less():
    at, labels = points(300, 20), random_labels(300)
    found = interpolate(GaussianKernel(3.0), at, one_hot(labels, 10), ridge=0.5)
    assert np.allclose(found.solution.coefficients.numpy(), slow(found, one_hot(labels, 10), 0.5), atol=1e-4)
    assert found.solution.norm < interpolate(GaussianKernel(3.0), at, one_hot(labels, 10)).solution.norm


def test_a_matrix_that_float32_cannot_factorize_takes_jitter_and_says_so():
    at, labels = points(400, 2), random_labels(400)
    found = interpolate(GaussianKernel(2.0), at, one_hot(labels, 10))
    assert found.solution.jitter > 0
    assert found.solution.residual > interpolation.TOLERANCE, "nobody is told that this is exact"
    assert found.solution.norm is None


@pytest.mark.parametrize("scale", [0.01, 1.0, 100.0])
def test_jitter_is_a_share_of_the_matrixs_own_diagonal(scale):
    """Fewer features than points make a singular matrix. The added share does not depend on their unit."""
    at = points(100, 5)
    found = interpolate(LinearKernel(), scale * at, one_hot(random_labels(100), 10)).solution
    mean = float((scale * at).double().square().sum(dim=1).mean())
    shares = (1e-6, 1e-5, 1e-4, 1e-3)
    assert min(abs(found.jitter / mean / share - 1) for share in shares) < 1e-4


@pytest.mark.parametrize("held", [0.0, 50_000.0])
def test_with_less_memory_than_the_factor_the_answer_is_the_same(tmp_path: Path, held, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(blocks, "BLOCK", 64)
    at, targets = points(300, 20), one_hot(random_labels(300), 10)
    direct = interpolate(GaussianKernel(3.0), at, targets)
    limited = interpolate(GaussianKernel(3.0), at, targets, folder=tmp_path, held=held)
    assert torch.equal(direct.solution.coefficients, limited.solution.coefficients)


def test_an_interrupted_solution_continues_with_its_factor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(blocks, "BLOCK", 64)
    at, targets = points(300, 20), one_hot(random_labels(300), 10)

    def interrupt(step: str):
        def advanced(share: float) -> None:
            if step == "factorizing" and share > 0.5:
                raise KeyboardInterrupt

        return advanced

    with pytest.raises(KeyboardInterrupt):
        interpolate(GaussianKernel(3.0), at, targets, folder=tmp_path, begin=interrupt)
    assert len(list(tmp_path.rglob("*.npy"))) == 4
    again = interpolate(GaussianKernel(3.0), at, targets, folder=tmp_path)
    direct = interpolate(GaussianKernel(3.0), at, targets)
    assert torch.equal(again.solution.coefficients, direct.solution.coefficients)


def test_useless_jitter_is_not_tried_again(tmp_path: Path):
    at, targets = points(400, 2), one_hot(random_labels(400), 10)
    begun: list[str] = []

    def begin(step: str):
        begun.append(step)
        return lambda share: None

    found = interpolate(GaussianKernel(2.0), at, targets, folder=tmp_path, begin=begin)
    assert "factorizing" in begun
    begun.clear()
    again = interpolate(GaussianKernel(2.0), at, targets, folder=tmp_path, begin=begin)
    assert "factorizing" not in begun, "without jitter"
    assert torch.equal(found.solution.coefficients, again.solution.coefficients)


def test_without_convergence_the_best_solution_is_returned_after_a_kill_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(interpolation, "TOLERANCE", 0.0)
    at, targets = points(200, 5), one_hot(random_labels(200), 10)
    found = interpolate(GaussianKernel(2.0), at, targets, folder=tmp_path)
    assert found.solution.jitter == 0, "the least of what was added gives the least residual"
    assert found.solution.residual < 1e-4
    again = interpolate(GaussianKernel(2.0), at, targets, folder=tmp_path)  # as after a kill before it was kept
    assert again.solution.jitter > 0


@pytest.mark.parametrize("bandwidth", [3.0, 12.0])
def test_the_residual_in_float64_is_that_of_the_kernel_itself(bandwidth, monkeypatch: pytest.MonkeyPatch):
    """The entries of a wide kernel are near 1, and the solution does not see how float32 rounds them."""
    monkeypatch.setattr(blocks, "BLOCK", 64)
    at, targets = points(400, 20), one_hot(random_labels(400), 10)
    found = interpolate(GaussianKernel(bandwidth), at, targets)
    double = at.double()
    exact = float((found.kernel(double, double) @ found.solution.coefficients - targets).abs().max())
    told = residual_in_float64(found.kernel, at, found.solution, targets, generator(0, "checked"))
    assert told == pytest.approx(exact, rel=1e-4)
    if bandwidth > 10:
        assert told > 10 * found.solution.residual
    monkeypatch.setattr(interpolation, "CHECKED", 100)
    assert residual_in_float64(found.kernel, at, found.solution, targets, generator(0, "checked")) <= told


def test_refinement_reaches_what_a_rough_factor_does_not():
    """For a nearly singular matrix, one substitution in float32 leaves a large residual; conjugate gradients do not."""
    at, labels = points(300, 10), random_labels(300)
    found = interpolate(GaussianKernel(7.0), at, one_hot(labels, 10))
    assert found.solution.refinements > 1
    assert found.solution.residual < interpolation.TOLERANCE
    assert torch.equal(found(at).argmax(dim=1), labels)
    assert found.solution.norm is not None
    exact = slow(found, one_hot(labels, 10))
    energy = np.sum(exact * (found.kernel(at.double(), at.double()).numpy() @ exact))
    assert found.solution.norm == pytest.approx(np.sqrt(energy), rel=0.02)


def test_fewer_features_than_points_leave_a_residual():
    at = points(200, 5)
    found = interpolate(LinearKernel(), at, one_hot(random_labels(200), 10))
    least = at.double().numpy()
    targets = one_hot(random_labels(200), 10).numpy()
    best = least @ np.linalg.lstsq(least, targets)[0]
    assert found.solution.residual >= 0.9 * np.abs(best - targets).max() > 0.5


def test_equal_points_with_different_labels_are_named():
    at, labels = points(30, 4), random_labels(30)
    at[7] = -0.0
    at[21] = 0.0
    labels[7], labels[21] = 3, 4
    assert conflicting_points(at, one_hot(labels, 10)) == (7, 21)
    with pytest.raises(ConflictError, match="both points 7 and 21:"):
        interpolate(GaussianKernel(1.0), at, one_hot(labels, 10))
    assert (
        interpolate(GaussianKernel(1.0), at, one_hot(labels, 10), ridge=0.1).solution.residual < interpolation.TOLERANCE
    )
    labels[21] = 3
    assert conflicting_points(at, one_hot(labels, 10)) is None


def test_equal_points_with_the_same_label_are_fitted():
    at, labels = points(30, 4), random_labels(30)
    at[21], labels[21] = at[7], labels[7]
    found = interpolate(GaussianKernel(1.0), at, one_hot(labels, 10))
    assert torch.equal(found(at).argmax(dim=1), labels)


@pytest.mark.parametrize("ridge", [-1.0, float("nan")])
def test_an_l2_term_below_zero_is_refused(ridge):
    with pytest.raises(InputError, match="l2 term must be a number from 0 on"):
        interpolate(LinearKernel(), points(3, 2), torch.ones(3, 1), ridge=ridge)


def test_a_matrix_that_no_jitter_helps_is_an_error():
    class Negative:
        def __call__(self, left: Tensor, right: Tensor) -> Tensor:
            return -LinearKernel()(left, right)

    with pytest.raises(RunError, match="cannot be factorized"):
        interpolate(Negative(), points(5, 5), torch.ones(5, 1))
