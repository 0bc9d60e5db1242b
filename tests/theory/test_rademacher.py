"""Compares Equation 1 with enumeration and closed forms for linear classes, and with the outputs of networks."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rethinking.config import ExperimentConfig
from rethinking.data import sources
from rethinking.data.draws import random_signs
from rethinking.errors import InputError
from rethinking.experiments import rademacher as experiment
from rethinking.experiments.experiment import Answer, Evidence, Row
from rethinking.seeding import generator
from rethinking.theory import tasks
from rethinking.theory.rademacher import (
    RademacherConfig,
    ascend,
    correlation_reached,
    empirical_rademacher,
    estimate,
    gap_bound,
    linear_bound,
    linear_supremum,
    measure,
    on_random_signs,
)
from rethinking.theory.stability import neighbour
from rethinking.training import train
from rethinking.training.networks import untrained
from rethinking.training.optimizers import Optimizer
from rethinking.training.run_dir import RunDir, RunResult


def points(count: int, features: int, seed: int = 0) -> Tensor:
    return torch.randn(count, features, dtype=torch.float64, generator=generator(seed, "points"))


def signs(count: int, seed: int = 0) -> Tensor:
    return 2.0 * random_signs(count, seed).double() - 1


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 30), st.integers(1, 20), st.floats(1e-3, 1e3), st.integers(0, 100))
def test_ascent_reaches_the_closed_form_of_a_linear_class_and_nothing_is_above_it(n, d, norm, seed):
    at, drawn = points(n, d, seed), signs(n, seed)
    supremum = linear_supremum(at, drawn, norm)
    assert ascend(at, drawn, norm, generator(seed, "start")) == pytest.approx(supremum, rel=1e-6)
    others = torch.randn(d, 100, dtype=torch.float64, generator=generator(seed, "others"))
    others *= norm / others.norm(dim=0)
    assert (drawn @ (at @ others) / n).max() <= supremum * (1 + 1e-12)


def test_the_mean_over_all_signs_is_just_below_jensens_bound():
    at = points(12, 5)
    every = [
        linear_supremum(at, torch.tensor(drawn, dtype=torch.float64), 2.0)
        for drawn in itertools.product((-1.0, 1.0), repeat=12)
    ]
    mean = sum(every) / len(every)
    assert 0.8 * linear_bound(at, 2.0) < mean <= linear_bound(at, 2.0)
    assert ascend(torch.ones(2, 1).double(), torch.tensor([1.0, -1.0]).double(), 1.0, generator(0, "start")) == 0
    drawn = estimate([linear_supremum(at, signs(12, seed), 2.0) for seed in range(400)])
    assert abs(drawn.mean - mean) < 4 * drawn.standard_error


def test_one_point_is_fitted_perfectly_and_orthogonal_ones_as_one_over_root_n():
    assert linear_supremum(torch.tensor([[3.0, 4.0]], dtype=torch.float64), signs(1), 0.2) == pytest.approx(1.0)
    for n in (4, 100):
        at = torch.eye(n, dtype=torch.float64)
        assert linear_supremum(at, signs(n), 1.0) == pytest.approx(n**-0.5) == linear_bound(at, 1.0)


def test_signs_are_fair_and_independent_of_one_another():
    drawn = torch.stack([signs(1000, seed) for seed in range(50)])
    assert abs(float(drawn.mean())) < 5 / math.sqrt(drawn.numel())
    assert (drawn @ drawn.T / 1000 - torch.eye(50, dtype=torch.float64)).abs().max() < 5 / math.sqrt(1000)
    assert torch.equal(random_signs(10, 3), random_signs(10, 3))


def test_the_standard_error_is_that_of_a_mean():
    found = estimate([0.5, 0.7, 0.9])
    assert found.mean == pytest.approx(0.7)
    assert found.standard_error == pytest.approx(0.2 / math.sqrt(3))
    assert math.isnan(estimate([1.0]).standard_error)


@pytest.mark.parametrize(("accuracy", "correlation"), [(1.0, 1.0), (0.75, 0.5), (0.5, 0.0), (0.25, -0.5)])
def test_a_share_of_right_signs_is_a_correlation_of_twice_it_less_one(accuracy, correlation):
    """If a share a of the products h(x) sigma is +1 and the rest is -1, their mean is 2a - 1."""
    record = {"epoch": 1, "train_accuracy": 0.1, "exact_train_accuracy": accuracy}
    run = RunResult(Path(), ExperimentConfig(randomization="random_signs"), [record], {})
    assert correlation_reached(run) == correlation
    row = Row((("model", "mlp_1x512"), ("examples", "100")), run.config)
    evidence = Evidence("run", "", True, run.config.to_dict(), {}, (record,))
    shown = {number.quantity: number.ours for number in experiment.numbers([Answer(row, 0, evidence)])}
    assert shown["correlation"] == correlation
    assert shown[experiment.BOUND] == pytest.approx(correlation + 3 * math.sqrt(math.log(40) / 200))


def test_the_bound_on_the_gap_falls_with_the_examples_to_the_complexity():
    assert gap_bound(0.3, 10**9) == pytest.approx(0.3, abs=1e-3)
    assert gap_bound(0.0, 200, delta=0.05) == pytest.approx(3 * math.sqrt(math.log(40) / 400))
    assert gap_bound(1.0, 1000) > 1, "says nothing"


def network(runs: Path, **options) -> ExperimentConfig:
    return ExperimentConfig(
        model_name="mlp_1x512",
        dataset="digits",
        runs_dir=str(runs),
        use_tensorboard=False,
        num_epochs=200,
        lr_decay=1.0,
        stop_when_fit=True,
        **options,
    )


def test_a_network_fits_random_signs(tmp_path: Path):
    found = empirical_rademacher(network(tmp_path, train_subset=60), draws=3)
    assert found.mean == 1.0
    assert found.standard_error == 0.0
    assert len({path.name for path in tmp_path.iterdir()}) == 3, "a run each"


def test_a_run_on_random_signs_has_two_outputs_the_linear_classes_signs_and_no_test_set(tmp_path: Path):
    result = train(on_random_signs(network(tmp_path, train_subset=50), draw=2))
    assert result.result["parameters"] == 28 * 28 * 512 + 512 + 512 * 2 + 2
    assert result.final["test_accuracy"] is None
    kept = safetensors.torch.load_file(result.path / "randomization.safetensors")
    assert torch.equal(kept["labels"], random_signs(50, 2000))


def test_the_correlation_is_the_mean_product_of_signs_and_what_the_network_says(tmp_path: Path):
    """For networks that do not fit all signs, with weights from the folder, and signs and images drawn here."""
    config = replace(on_random_signs(network(tmp_path, train_subset=200), draw=1), num_epochs=3)
    result, data = train(config), sources.load("digits")
    model = untrained(result.config, data)
    RunDir(result.path).restore(model, Optimizer(model, result.config))
    rows = torch.randperm(len(data.train), generator=generator(0, "train_subset"))[:200]
    images = torch.from_numpy(data.train.images[rows.numpy()]).float()
    whitened = (images - images.mean((1, 2, 3), keepdim=True)) / images.std((1, 2, 3), correction=0, keepdim=True)
    with torch.no_grad():
        said = 2.0 * model.eval()(whitened).argmax(dim=1).double() - 1
    mean = float((signs(200, 1000) * said).mean())
    assert correlation_reached(result) == pytest.approx(mean, abs=1e-12)
    assert 0 < mean < 1


def test_options_for_other_runs_do_not_disturb_it(tmp_path: Path):
    rarely = network(tmp_path, eval_test_every=50)
    assert on_random_signs(rarely, 0) == on_random_signs(network(tmp_path), 0)
    assert neighbour(rarely) == neighbour(network(tmp_path))


def test_a_mean_needs_a_draw(tmp_path: Path):
    with pytest.raises(InputError, match="leave out randomization random_labels"):
        empirical_rademacher(network(tmp_path, randomization="random_labels"), 1)
    with pytest.raises(InputError, match="draws must be a whole number from 1 on, not 1"):
        empirical_rademacher(network(tmp_path), 1.5)
    with pytest.raises(InputError, match="draws must be a whole number from 1 on"):
        empirical_rademacher(network(tmp_path), draws=0)


def test_too_short_a_training_gives_less_correlation(tmp_path: Path):
    hurried = ExperimentConfig(**{**vars(network(tmp_path)), "num_epochs": 1})
    found = empirical_rademacher(hurried, draws=2)
    assert found.mean < 0.5
    assert found.standard_error > 0


def test_a_linear_class_is_a_run(tmp_path: Path):
    asked = RademacherConfig(dataset="digits", train_subset=80, randomization_seed=1000, runs_dir=str(tmp_path))
    found = measure(asked)
    data = sources.load("digits")
    rows = torch.randperm(len(data.train), generator=generator(0, "train_subset"))[:80]
    at = torch.from_numpy(data.train.images[rows.numpy()]).flatten(1).double() / 255
    expected = float((signs(80, 1000) @ at).norm() / 28 / 80)
    assert found.result["supremum"] == pytest.approx(expected, rel=1e-12)
    assert found.result["correlation"] == pytest.approx(expected, rel=1e-6)
    assert found.result["correlation"] < 1
    assert found.result["bound"] == pytest.approx(float(at.norm() / 28 / 80), rel=1e-12)
    assert measure(asked).result == found.result
    assert tasks.read(found.path).question == found.question
    assert RademacherConfig(dataset="digits", device="cuda").device == "cpu", "where it is computed"
    with pytest.raises(InputError, match="randomization must be one of random_signs"):
        RademacherConfig(dataset="digits", randomization="none")
