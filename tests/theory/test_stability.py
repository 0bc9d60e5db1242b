"""Compares the change by one replaced training example with explicit sums and with the networks themselves."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from rethinking import ExperimentConfig, InputError, RunError, train, train_many
from rethinking.data import sources
from rethinking.identity import question
from rethinking.theory import stability as module
from rethinking.theory import tasks
from rethinking.theory.stability import StabilityConfig, change, neighbour, stability
from rethinking.training.networks import untrained
from rethinking.training.optimizers import Optimizer
from rethinking.training.preparation import plain_training_set, resolve
from rethinking.training.run_dir import RunDir


def network(runs: Path, **options) -> ExperimentConfig:
    return ExperimentConfig(
        **{
            "model_name": "mlp_1x512",
            "dataset": "digits",
            "train_subset": 120,
            "runs_dir": str(runs),
            "use_tensorboard": False,
            "num_epochs": 3,
            "precision": "fp32",
            "device": "cpu",
            **options,
        }
    )


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 30), st.floats(0, 30)), min_size=1, max_size=20))
def test_a_change_is_taken_point_by_point(losses):
    before, after = torch.tensor(losses, dtype=torch.float64).T
    found = change(before[None], after[None])
    each = [abs(a - b) for a, b in losses]
    of_probability = [abs(math.exp(-a) - math.exp(-b)) for a, b in losses]
    assert float(found.mean) == pytest.approx(sum(each) / len(each))
    assert float(found.largest) == pytest.approx(max(each))
    assert float(found.mean_of_probability) == pytest.approx(sum(of_probability) / len(each), abs=1e-12)
    assert float(found.largest_of_probability) == pytest.approx(max(of_probability), abs=1e-12)
    assert float(found.largest_of_probability) <= 1


def test_nothing_changes_when_nothing_is_replaced(tmp_path: Path):
    """The two runs have separate folders, so that the second does not find the first."""
    first, second = (train(neighbour(network(tmp_path / name))) for name in ("one", "two"))
    found = module._between(first, second, replaced=0)
    assert all(torch.equal(values, torch.zeros(3, dtype=torch.float64)) for values in found)


@pytest.mark.parametrize("randomization", ["none", "random_labels"])
def test_stability_is_the_change_between_the_two_networks_themselves(tmp_path: Path, randomization):
    """Compares the outputs after the last epoch on all test images but the one that was trained on."""
    asked = network(tmp_path, randomization=randomization)
    found = stability(asked, 2)
    assert len(found) == 2
    data = sources.load("digits")
    config = resolve(asked, data)
    tested = replace(data, train=data.test)  # so that the test images come through the same pipeline
    images = plain_training_set(replace(config, train_subset=None, randomization="none"), tested)
    rows = torch.arange(len(data.test))
    losses = []
    for example in (None, 1):
        result = train(neighbour(asked, example))
        model = untrained(config, data)
        RunDir(result.path).restore(model, Optimizer(model, config))
        with torch.no_grad():
            logits = model.eval()(images.images(rows)).double()
        losses.append(F.cross_entropy(logits, images.labels, reduction="none"))
    fresh = [row for row in rows.tolist() if row != 1]
    difference = (losses[0] - losses[1]).abs()[fresh]
    assert float(found[1].mean[-1]) == pytest.approx(float(difference.mean()), rel=1e-2, abs=1e-6)
    assert float(found[1].largest[-1]) == pytest.approx(float(difference.max()), rel=1e-2, abs=1e-6)
    assert float(found[1].mean[-1]) > 0
    assert not torch.equal(found[0].mean, found[1].mean), "the same example twice"


def test_the_replacing_example_is_not_tested_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    first, second = (train(neighbour(network(tmp_path / name))) for name in ("one", "two"))
    losses = RunDir(first.path).test_losses(3)
    spoiled = losses.clone()
    spoiled[:, 5] += 100
    kept = {first.path: losses, second.path: spoiled}
    monkeypatch.setattr(RunDir, "test_losses", lambda self, _: kept[self.path])
    assert float(module._between(first, second, replaced=5).largest.max()) == 0
    assert float(module._between(first, second, replaced=4).largest.max()) == pytest.approx(100, rel=1e-4)


def test_networks_of_different_lengths_are_compared_in_their_common_epochs(tmp_path: Path):
    short, long = (train(neighbour(network(tmp_path, num_epochs=epochs))) for epochs in (2, 3))
    assert module._between(short, long, 0).mean.shape == (2,)


def test_another_order_of_computation_changes_far_less_than_an_example_does(tmp_path: Path):
    """A stack with others computes the sums of the same network in another order in every epoch."""
    options = {"randomization": "random_labels", "num_epochs": 25, "precision": "auto"}
    alone = train(neighbour(network(tmp_path / "alone", **options)))
    assert alone.config.precision == "fp32", "unless another is asked for"
    stack = [neighbour(network(tmp_path / "stack", **options), example) for example in (None, 0, 1)]
    found = dict(train_many(stack, at_once=3, stacked=True))
    otherwise = module._between(alone, found[stack[0]], 2)
    replaced = module._between(alone, found[stack[1]], 0)
    assert float(otherwise.mean.max()) < 1e-3 * float(replaced.mean.min())


def test_a_finished_run_without_its_losses_is_reported_with_its_file(tmp_path: Path):
    first, second = (train(neighbour(network(tmp_path / name))) for name in ("one", "two"))
    (second.path / "checkpoint.safetensors").unlink()
    with pytest.raises(RunError, match=r"two.*checkpoint\.safetensors is damaged or missing"):
        module._between(first, second, 0)


def test_a_measurement_ignores_the_losses_and_examples_that_its_network_names(tmp_path: Path):
    plain = StabilityConfig.of(network(tmp_path), replaced=1)
    assert StabilityConfig.of(network(tmp_path, keep_test_losses=True, replaced_example=3), replaced=1) == plain


def test_stability_is_a_run(tmp_path: Path):
    asked = StabilityConfig.of(network(tmp_path), replaced=1)
    found = tasks.carry_out(asked)
    (expected,) = stability(network(tmp_path), 2)[1:]
    assert found.result["mean"] == expected.mean.tolist()
    assert found.result["largest_of_probability"] == expected.largest_of_probability.tolist()
    assert len(found.result["networks"]) == 2
    assert all((tmp_path / name / "result.json").exists() for name in found.result["networks"])
    assert tasks.carry_out(asked).result == found.result
    assert tasks.read(found.path).question == found.question
    assert tasks.read(found.path).config == found.config


def test_the_gap_beside_a_change_belongs_to_the_network_without_replacement(tmp_path: Path):
    asked = network(tmp_path, train_subset=10, num_epochs=2)
    found = tasks.carry_out(StabilityConfig.of(asked, replaced=1)).result
    gaps = [train(neighbour(asked, example)).final["generalization_gap"] for example in (None, 1)]
    assert gaps[0] != gaps[1]
    assert found["gap"] == gaps[0]


def test_the_question_is_the_same_in_any_precision_and_another_for_another_example_or_seed(tmp_path: Path):
    data = sources.load("digits")

    def asked(replaced: int = 0, **options) -> str:
        config = StabilityConfig.of(network(tmp_path, **options), replaced=replaced).resolved(data)
        return question(config, data.name, data.fingerprint)

    assert asked() == asked(precision="bf16") == asked(learning_rate=0.01)
    others = {asked(replaced=1), asked(seed=1), asked(num_epochs=4), asked(randomization="random_labels")}
    assert len({asked(), *others}) == 5


def test_a_seed_of_the_measurement_is_the_networks_seed(tmp_path: Path):
    moved = replace(StabilityConfig.of(network(tmp_path), replaced=0), seed=3, randomization_seed=4)
    assert (moved.network.seed, moved.network.randomization_seed) == (3, 4)
    assert {each.seed for each in moved.networks()} == {3}


def test_mistakes_are_reported_before_anything_is_trained(tmp_path: Path):
    with pytest.raises(InputError, match="leave out replaced_example"):
        stability(network(tmp_path, replaced_example=5), 1)
    with pytest.raises(InputError, match="replacements must be a whole number from 1 on"):
        stability(network(tmp_path), 0)
    with pytest.raises(InputError, match="replaced_example must be below 120"):
        tasks.estimate_cost(StabilityConfig.of(network(tmp_path), replaced=120))
    with pytest.raises(InputError, match="replaced_example goes with"):
        tasks.estimate_cost(StabilityConfig.of(network(tmp_path, randomization="random_pixels"), replaced=0))
    assert not list(tmp_path.iterdir())
