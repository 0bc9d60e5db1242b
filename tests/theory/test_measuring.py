"""Measures of a trained network as a run: they equal `complexity` on the network and its training images."""

from __future__ import annotations

import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from rethinking import ExperimentConfig, InputError, RunError, train
from rethinking.data import sources
from rethinking.data.draws import corrupt_labels
from rethinking.identity import question, run_id
from rethinking.models import build_model, initialize
from rethinking.seeding import generator
from rethinking.theory import complexity, tasks
from rethinking.theory.measuring import RADIUS, ComplexityConfig
from rethinking.training.optimizers import Optimizer
from rethinking.training.run_dir import RunDir


def network(runs: Path, **options) -> ExperimentConfig:
    return ExperimentConfig(
        **{
            "model_name": "mlp_1x512",
            "dataset": "digits",
            "randomization": "random_labels",
            "train_subset": 150,
            "runs_dir": str(runs),
            "use_tensorboard": False,
            "num_epochs": 2,
            **options,
        }
    )


def test_the_measures_use_the_network_and_the_labels_it_was_trained_on(tmp_path: Path):
    asked = network(tmp_path)
    found = tasks.carry_out(ComplexityConfig.of(asked)).result
    run = train(asked)
    model, initial = (build_model("mlp_1x512", 10, (1, 28, 28)) for _ in range(2))
    initialize(initial, "he", generator(0, "init"))
    RunDir(run.path).restore(model, Optimizer(model, run.config))
    data = sources.load("digits")
    rows = torch.randperm(len(data.train), generator=generator(0, "train_subset"))[:150]
    images = torch.from_numpy(data.train.images[rows.numpy()]).double()
    labels = corrupt_labels(torch.from_numpy(data.train.labels[rows.numpy()]), 10, 1.0, 0)
    flat = images.flatten(1)
    whitened = ((flat - flat.mean(1, keepdim=True)) / flat.std(1, correction=0, keepdim=True)).view_as(images).float()
    with torch.no_grad():
        outputs = model.eval()(whitened)
    others = np.where(np.arange(10) == labels[:, None].numpy(), -np.inf, outputs.numpy()).max(axis=1)
    margins = outputs[torch.arange(150), labels].numpy() - others
    product = math.prod(
        float(torch.linalg.matrix_norm(layer.weight.detach().double(), 2)) for layer in complexity.weighted(model)
    )
    assert found["margins"] == pytest.approx(np.percentile(margins, np.arange(101)).tolist(), rel=1e-4, abs=1e-5)
    assert found["margin"] == pytest.approx(np.percentile(margins, 10), rel=1e-4, abs=1e-5)
    assert found["spectral_product"] == pytest.approx(product, rel=1e-6)
    assert found["normalized_margin"] == pytest.approx(found["margin"] / product, rel=1e-6)
    assert found["frobenius_norm"] == complexity.frobenius_norm(model)
    assert found["path_norm"] == complexity.path_norm(model, (1, 28, 28))
    assert found["distance"] == complexity.distance_from_initialization(model, initial) > 0
    assert found["sharpness"] == pytest.approx(complexity.sharpness(model, whitened, labels, RADIUS), rel=1e-4)
    assert found["generalization_gap"] == run.final["generalization_gap"]
    assert (found["epochs"], found["network"]) == (2, run.path.name)


def test_it_trains_a_missing_network_and_answers_again(tmp_path: Path):
    asked = ComplexityConfig.of(network(tmp_path))
    found = tasks.carry_out(asked)
    assert (tmp_path / found.result["network"] / "result.json").exists()
    assert tasks.carry_out(asked).result == found.result
    assert tasks.read(found.path).config == found.config
    assert tasks.read(found.path).question == found.question


def test_runs_given_by_their_folders_are_measured_each_for_itself(tmp_path: Path):
    """They have the same configuration, trained again and in another precision."""
    asked = network(tmp_path, precision="fp32")
    runs = [train(asked), train(asked, force=True), train(replace(asked, precision="bf16"))]
    by_folder = [tasks.carry_out(ComplexityConfig.of_run_folder(run.path)) for run in runs]
    assert [each.result["network"] for each in by_folder] == [run.path.name for run in runs]
    assert len({each.question for each in by_folder}) == len({each.path for each in by_folder}) == 3
    of_configuration = tasks.carry_out(ComplexityConfig.of(asked))
    assert of_configuration.result["margins"] == by_folder[1].result["margins"]
    assert tasks.read(by_folder[1].path).config == by_folder[1].config


@pytest.mark.parametrize(
    "options",
    [
        {"model_name": "small_alexnet", "randomization": "random_signs"},
        {"model_name": "small_inception", "randomization": "shuffled_pixels"},
        {"model_name": "mlp_1x512", "randomization": "gaussian_pixels"},
        {"model_name": "mlp_3x512", "randomization": "partial_corrupt", "corruption_prob": 0.5, "random_crop": True},
    ],
    ids=lambda options: f"{options['model_name']}-{options['randomization']}",
)
def test_any_finished_run_is_measured_on_what_it_was_trained_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options
):
    """The signs of the margins show this; the accuracy of norms and sharpness does not matter here."""
    monkeypatch.setattr(complexity, "ITERATIONS", 2)
    monkeypatch.setattr(complexity, "ASCENTS", 1)
    fitting = {"optimizer": "adam", "learning_rate": 0.001, "num_epochs": 30, "eval_test_every": 30}
    run = train(network(tmp_path, train_subset=20, **fitting, **options))
    found = tasks.carry_out(ComplexityConfig.of_run_folder(run.path)).result
    right = sum(margin > 0 for margin in found["margins"]) / 101
    assert right == pytest.approx(run.final["exact_train_accuracy"], abs=0.05)
    assert right > 0.7, "far above a guess, so that others' images or labels would show"
    assert all(found[name] > 0 for name in ("frobenius_norm", "spectral_product", "path_norm", "distance"))
    assert found["sharpness"] >= 0


@pytest.mark.parametrize("options", [{"min_std": 0.7}, {"pixel_noise": 80.0}, {"replaced_example": 3}], ids=str)
def test_the_loss_measured_is_that_of_the_very_images_it_was_trained_on(tmp_path: Path, options):
    """With one batch and a rate too small to change a weight, it is the loss of the first step."""
    still = {"learning_rate": 1e-30, "train_subset": 12, "num_epochs": 1, "precision": "fp32", "device": "cpu"}
    asked = network(tmp_path, **still, **options)
    found = tasks.carry_out(ComplexityConfig.of(asked)).result
    plain = train(network(tmp_path, **still)).final["train_loss"]
    trained = train(asked).final["train_loss"]
    assert found["train_loss"] == pytest.approx(trained, rel=1e-5)
    assert trained != pytest.approx(plain, rel=1e-3)


def test_a_run_whose_weights_are_gone_is_not_measured_untrained(tmp_path: Path):
    run = train(network(tmp_path, num_epochs=1))
    (run.path / "checkpoint.safetensors").unlink()
    with pytest.raises(RunError, match=r"has lost its checkpoint\.safetensors"):
        tasks.carry_out(ComplexityConfig.of_run_folder(run.path))


def test_a_run_of_another_device_is_measured_here(tmp_path: Path):
    """A run trained on CUDA may be copied to a machine without CUDA."""
    run = train(network(tmp_path))
    here = tasks.carry_out(ComplexityConfig.of_run_folder(run.path))
    fingerprint = run.result["provenance"]["fingerprint"]
    copied = tmp_path / "elsewhere" / run_id(replace(run.config, device="cuda"), "digits", fingerprint)
    shutil.copytree(run.path, copied)
    text = (copied / "config.yaml").read_text()
    (copied / "config.yaml").write_text(text.replace("device: cpu", "device: cuda"))
    there = tasks.carry_out(ComplexityConfig.of_run_folder(copied))
    assert there.result["margins"] == here.result["margins"]
    assert there.result["provenance"]["device"] == "cpu", "of the measurement"
    assert question(replace(there.config, run=str(run.path)), "digits", fingerprint) == here.question


def test_without_test_images_there_is_no_gap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    alone = replace(sources.load("digits"), test=None)
    monkeypatch.setattr("rethinking.data.sources.load", lambda *_, **__: alone)
    found = tasks.carry_out(ComplexityConfig.of(network(tmp_path))).result
    assert found["generalization_gap"] is None
    assert found["sharpness"] > 0


def test_folders_that_hold_no_finished_network_are_refused(tmp_path: Path):
    with pytest.raises(InputError, match=r"cannot read .*config\.yaml"):
        ComplexityConfig.of_run_folder(tmp_path)
    run = train(network(tmp_path))
    measured = tasks.carry_out(ComplexityConfig.of_run_folder(run.path))
    with pytest.raises(InputError, match="is not the folder of a trained network"):
        ComplexityConfig.of_run_folder(measured.path)
    (run.path / "result.json").unlink()
    with pytest.raises(InputError, match=r"is not finished; train\.py --config"):
        ComplexityConfig.of_run_folder(run.path)
    with pytest.raises(InputError, match="radius must be a positive number"):
        ComplexityConfig.of(network(tmp_path), radius=0.0)


def test_other_data_than_it_was_trained_on_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run = train(network(tmp_path))
    other = replace(sources.load("digits"), fingerprint="another")
    monkeypatch.setattr("rethinking.data.sources.load", lambda *_, **__: other)
    with pytest.raises(InputError, match="was trained on other data than digits"):
        tasks.carry_out(ComplexityConfig.of_run_folder(run.path))


def test_its_cost_is_planned_from_the_network_and_the_number_of_images(tmp_path: Path):
    memory, operations = tasks.estimate_cost(ComplexityConfig.of(network(tmp_path)))
    more_memory, more = tasks.estimate_cost(ComplexityConfig.of(network(tmp_path, train_subset=1400)))
    assert 0 < memory < more_memory
    assert more - operations == pytest.approx((1400 - 150) * 2 * (784 * 512 + 512 * 10))
