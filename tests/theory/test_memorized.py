"""Memorization of groups of labels, from runs that the measurement trains, against single runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rethinking import ExperimentConfig, InputError, load_run, train
from rethinking.measures.subsets import measure_memorization
from rethinking.theory import tasks
from rethinking.theory.memorized import LISTED, MEMORIZED, MemorizedConfig
from tests.conftest import few_digits

SUBSETS = 8


def network(runs: Path, **options) -> ExperimentConfig:
    fixed = {"model_name": "mlp_1x512", "dataset": few_digits(120), "num_epochs": 60, "device": "cpu"}
    fixed |= {"randomization": "partial_corrupt", "corruption_prob": 0.3, "precision": "fp32", "batch_size": 16}
    return ExperimentConfig(**{**fixed, "stop_when_fit": True, "runs_dir": str(runs), **options})


def test_wrong_labels_are_memorized_and_right_ones_less(tmp_path: Path):
    asked = MemorizedConfig.of(network(tmp_path), subsets=SUBSETS)
    done = tasks.carry_out(asked)
    found = done.result["labels"]
    networks = [train(one) for one in MemorizedConfig.of(network(tmp_path), subsets=SUBSETS).networks()]
    assert [run.config.subset_seed for run in networks] == [run.config.seed for run in networks] == [*range(SUBSETS)]
    assert {run.result["train_images"] for run in networks} == {84}
    measured = measure_memorization([run.path for run in networks])
    for name, members in (("right", ~measured.wrong), ("wrong", measured.wrong)):
        value = measured.memorization.value[members]
        value = value[np.isfinite(value)]
        assert found[name]["mean"] == pytest.approx(value.mean())
        assert found[name]["share"] == pytest.approx((value >= MEMORIZED).mean())
        assert found[name]["images"] == len(value)
        most = found[name]["most"]
        assert len(most) == min(LISTED, len(value))
        sure = [value - error for _, value, error in most]
        assert sure == pytest.approx(sorted(sure, reverse=True), abs=2e-4)
        of_place = dict(zip(measured.index.tolist(), measured.memorization.value.tolist(), strict=True))
        assert all(of_place[place] == pytest.approx(value, abs=1e-4) for place, value, _ in most)
    assert found["wrong"]["mean"] - found["right"]["mean"] > 4 * found["right"]["standard_error"] > 0
    assert {*done.result["standard_errors"]} <= {4, 8, "4", "8"}
    assert load_run(done.path).result["labels"] == found
    assert tasks.carry_out(asked).path == done.path


def test_true_labels_have_one_group_and_another_seed_has_other_networks(tmp_path: Path):
    asked = MemorizedConfig.of(network(tmp_path, randomization="none", corruption_prob=None, num_epochs=2), subsets=4)
    assert tasks.carry_out(asked).result["labels"].keys() == {"right"}
    second = MemorizedConfig.of(network(tmp_path, seed=1), subsets=4)
    assert [one.subset_seed for one in second.networks()] == [4, 5, 6, 7]


def test_too_few_subsets_and_impossible_shares_are_refused(tmp_path: Path):
    with pytest.raises(InputError, match="memorization needs at least 4 subsets, not 3"):
        MemorizedConfig.of(network(tmp_path), subsets=3)
    with pytest.raises(InputError, match="subset_share must be a share above 0 and below 1"):
        MemorizedConfig.of(network(tmp_path), subsets=4, share=1.0)


def test_the_cost_grows_with_the_runs(tmp_path: Path):
    memory, _ = tasks.estimate_cost(MemorizedConfig.of(network(tmp_path), subsets=4))
    more, _ = tasks.estimate_cost(MemorizedConfig.of(network(tmp_path), subsets=4000))
    assert more > memory > 0
