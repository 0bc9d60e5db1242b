"""Kernel machines on a CUDA device have the same numbers as on the CPU."""

from pathlib import Path

import pytest
import torch

from rethinking.theory import blocks
from rethinking.theory.fitting import fit
from rethinking.theory.interpolation import TOLERANCE, interpolate, one_hot
from rethinking.theory.kernels import GaussianKernel
from tests.theory.test_fitting import config
from tests.theory.test_interpolation import points, random_labels

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@pytest.mark.parametrize("held", [0.0, float("inf")])
def test_the_device_interpolates_as_the_cpu_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held):
    monkeypatch.setattr(blocks, "BLOCK", 64)
    at, targets = points(300, 20), one_hot(random_labels(300), 10)
    here = interpolate(GaussianKernel(3.0), at, targets)
    there = interpolate(GaussianKernel(3.0), at.cuda(), targets.cuda(), folder=tmp_path, held=held)
    assert there.solution.residual < TOLERANCE
    torch.testing.assert_close(there.solution.coefficients.cpu(), here.solution.coefficients, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    "options",
    [
        {"bandwidth": 3.0},
        {"features": "gabor", "bandwidth": 6.0},
        {"features": "random_conv", "filters": 100, "l2": 0.01},
        {"solution": "random_centres", "bandwidth": 3.0, "train_subset": 300},
        {"solution": "wrong_on_test", "bandwidth": 3.0, "train_subset": 300},
        {"solution": "hessian", "features": "random_conv", "filters": 20, "train_subset": 40},
        {"solution": "sgd", "bandwidth": 3.0, "train_subset": 100},
    ],
    ids=lambda options: "-".join(map(str, options.values())),
)
def test_a_run_has_the_numbers_of_the_cpus(tmp_path: Path, options):
    here = fit(config(tmp_path, **options)).result
    there = fit(config(tmp_path, **{**options, "device": "cuda"})).result
    assert there["interpolates"] == here["interpolates"]
    assert there["norm"] == pytest.approx(here["norm"], rel=1e-2)
    assert there["test_error"] == pytest.approx(here["test_error"], abs=0.006)
