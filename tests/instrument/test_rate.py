"""The learning rate that a range test finds."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rethinking import ExperimentConfig, train
from rethinking.data import sources
from rethinking.errors import DivergedError, RunError
from rethinking.instrument import rate
from rethinking.instrument.battery import BASE
from rethinking.instrument.rate import RATES, Rate, choose, find_rate
from tests.instrument.cases import pictures, report_of, wide

NETWORK = """
import torch
from torch import nn

def net(num_classes, input_shape, width=32):
    size = input_shape[0] * input_shape[1] * input_shape[2]
    layers = nn.Flatten(), nn.Linear(size, width), nn.ReLU(), nn.Dropout(0.1), nn.Linear(width, num_classes)
    return nn.Sequential(*layers)

class Rooted(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.zero = nn.Parameter(torch.zeros(num_classes))

    def forward(self, images):
        return images + self.zero.sqrt()  # whose gradient is infinite

def endless(num_classes, input_shape):
    return nn.Sequential(net(num_classes, input_shape), Rooted(num_classes))
"""


@pytest.fixture
def config(tmp_path: Path) -> ExperimentConfig:
    (tmp_path / "own.py").write_text(NETWORK)
    dataset = sources.adopt(pictures(100), name="quarters")
    fixed = {"dataset": dataset, "runs_dir": str(tmp_path / "runs"), "device": "cpu", "precision": "fp32"}
    return replace(BASE, model_name=f"{tmp_path / 'own.py'}:net", batch_size=32, use_tensorboard=False, **fixed)


def kept(config: ExperimentConfig) -> list[Path]:
    return sorted(Path(config.runs_dir).glob(".rates/*"))


def test_the_rate_is_the_same_for_a_seed_in_this_and_in_another_process(config, tmp_path: Path):
    first = find_rate(config)
    elsewhere = replace(config, runs_dir=str(tmp_path / "elsewhere"))
    assert find_rate(elsewhere) == first
    (tmp_path / "config.yaml").write_text(replace(config, runs_dir=str(tmp_path / "third")).to_yaml())
    code = (
        "from rethinking import ExperimentConfig\nfrom rethinking.instrument.rate import find_rate\n"
        "print(find_rate(ExperimentConfig.from_yaml('config.yaml')))"
    )
    shown = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == str(first)
    assert find_rate(replace(config, seed=1, runs_dir=elsewhere.runs_dir)).losses != first.losses


def test_a_rate_is_kept_and_found_again(config, monkeypatch):
    first = find_rate(config)
    monkeypatch.setattr(rate, "range_test", None)  # which cannot be called
    assert find_rate(config) == first
    unlike = {
        "num_epochs": 7,
        "lr_schedule": "cosine",
        "eval_train_every": 1,
        "random_crop": True,
        "learning_rate": 3.0,
    }
    assert find_rate(replace(config, **unlike)) == first, "none of these changes it"
    assert len(kept(config)) == 1


@pytest.mark.parametrize("damaged", ["{", '{"losses": {}}', '{"losses": {"7": 1.0}}', "{}", "[]"])
def test_a_damaged_file_is_named_in_a_one_line_error(damaged: str, config):
    first = find_rate(config)
    (file,) = kept(config)
    file.write_text(damaged)
    with pytest.raises(RunError) as told:
        find_rate(config)
    assert str(told.value) == f"{file} is damaged: delete that file; the next test finds the rate again"
    file.unlink()
    assert find_rate(config) == first


def test_a_changed_digit_is_noticed(config):
    find_rate(config)
    (file,) = kept(config)
    content = json.loads(file.read_text())
    content["losses"][next(iter(content["losses"]))] += 0.001
    file.write_text(json.dumps(content))
    with pytest.raises(RunError, match="is damaged"):
        find_rate(config)


def test_another_network_or_other_images_have_a_rate_of_their_own(config, tmp_path: Path):
    find_rate(config)
    find_rate(replace(config, model_options="width=8"))
    find_rate(replace(config, dataset=sources.adopt(pictures(100, seed=1), name="quarters")))
    find_rate(replace(config, optimizer="adamw"))
    assert len(kept(config)) == 4
    (tmp_path / "own.py").write_text(NETWORK.replace("ReLU", "Tanh"))
    find_rate(config)
    assert len(kept(config)) == 5


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_the_rate_trains_as_well_as_nearly_any_other(optimizer: str, config):
    """Compares with whole runs at every rate: no rate reaches a loss of 0.1 in less than a third of the epochs."""
    config = replace(config, optimizer=optimizer, num_epochs=12)
    found = find_rate(config).rate
    epochs = {}
    for one in RATES:
        try:
            run = train(replace(config, learning_rate=one))
        except DivergedError:
            continue
        reached = [record["epoch"] for record in run.metrics if record["train_loss"] < 0.1]
        epochs[one] = min(reached, default=math.inf)
    assert epochs[found] <= 3 * min(epochs.values()) < math.inf


def test_one_step_below_the_lowest_loss_is_chosen():
    losses = {1e-4: 2.0, 3e-4: 1.5, 1e-3: 0.4, 3e-3: 0.5, 1e-2: None}
    assert choose(losses) == Rate(3e-4, 1e-3, losses)
    lowest = {RATES[0]: 0.1, RATES[1]: 0.2, RATES[2]: 0.3}
    assert choose(lowest).rate == RATES[0], "there is none below"
    with pytest.raises(
        DivergedError, match="no learning rate keeps the loss of this network finite; choose one by --lr NUMBER"
    ):
        choose(dict.fromkeys(RATES))


def test_the_smallest_rate_is_not_described_as_a_step_below_another(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(rate, "loss_after_steps", lambda config, data, batches, tried, steps: tried)
    report = report_of(tmp_path, wide, pictures(40), lr="auto", epochs=1, holdout=0.0)
    assert report.config.learning_rate == RATES[0]
    assert "The learning rate is 3e-05: the best rate of a range test, and the smallest that was tried." in " ".join(
        report.choices
    )


def test_a_network_whose_loss_is_never_finite_is_a_one_line_error(config, tmp_path: Path):
    with pytest.raises(
        DivergedError, match=r"^no learning rate keeps the loss of this network finite; choose one by --lr NUMBER"
    ):
        find_rate(replace(config, model_name=f"{tmp_path / 'own.py'}:endless"))


def test_rates_whose_loss_is_not_finite_are_not_chosen(config, monkeypatch):
    finite = {one: 1 / one for one in RATES if one < 0.05}
    monkeypatch.setattr(rate, "loss_after_steps", lambda config, data, batches, tried, steps: finite.get(tried))
    found = find_rate(config)
    assert (found.rate, found.lowest_at) == (1e-2, 3e-2)
    assert list(found.losses) == [one for one in RATES if 3e-3 <= one <= 0.3], "two rates that are worse end the test"


def test_a_range_test_uses_the_images_that_are_trained_on(config, monkeypatch):
    """It uses the images of a subset, without augmentation, and no more than the steps need."""
    seen: list[tuple[int, float, bool]] = []

    def watched(config, data, batches, tried, steps):
        images, labels = next(batches.in_order(len(batches)))
        seen.append((len(batches), float(images.sum()), bool((labels == np.sort(labels)).all())))
        return 1.0

    monkeypatch.setattr(rate, "loss_after_steps", watched)
    find_rate(replace(config, train_subset=50))
    find_rate(replace(config, train_subset=50, random_crop=True))
    find_rate(replace(config, batch_size=2, train_subset=50))
    find_rate(replace(config, train_subset=50, randomization="random_labels"))
    find_rate(config)
    assert {images for images, *_ in seen} == {50, 40, 100}
    first = [one for one in seen if one[0] == 50]
    assert len(set(first)) == 1, "whatever is randomized or augmented"


def test_a_range_test_has_the_precision_of_the_runs(config):
    coarse, fine = (find_rate(replace(config, precision=precision)) for precision in ("bf16", "fp32"))
    assert coarse.losses != fine.losses
    for one in set(coarse.losses) & set(fine.losses) & {3e-3, 1e-2}:
        assert coarse.losses[one] == pytest.approx(fine.losses[one], rel=0.05)


def test_the_papers_rate_goes_with_the_papers_optimizer_alone(tmp_path: Path):
    options = {"lr": "auto", "epochs": 1, "holdout": 0.0, "labels": ("true",)}
    papers = report_of(tmp_path, "mlp_1x512", pictures(60, side=28), **options)
    assert (papers.rate, papers.config.learning_rate) == (None, 0.01)
    assert "The learning rate is 0.01: the paper's rate for mlp_1x512." in " ".join(papers.choices)
    other = report_of(tmp_path, "mlp_1x512", pictures(60, side=28), optimizer="adamw", **options)
    assert other.rate is not None
    assert other.config.learning_rate == other.rate.rate < 0.01
    assert "paper" not in " ".join(other.choices)


def test_there_are_more_steps_if_no_rate_is_better_than_guessing(config, monkeypatch):
    """A transformer on a plateau of four classes: before any rate has learnt, the small rates look best."""
    guess = math.log(4)

    def on_a_plateau(config, data, batches, tried, steps):
        return guess * (1 + tried) if steps == rate.STEPS else abs(math.log(tried / 0.1))

    monkeypatch.setattr(rate, "loss_after_steps", on_a_plateau)
    assert find_rate(config).lowest_at == 0.1
    monkeypatch.setattr(rate, "loss_after_steps", lambda config, data, batches, tried, steps: steps * abs(tried - 0.01))
    assert find_rate(replace(config, seed=1)).losses[3e-2] == pytest.approx(20 * 0.02), "these have learnt in 20"
