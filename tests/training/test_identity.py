"""Names of runs: everything that can change the numbers changes the name, and nothing else does."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from rethinking import ExperimentConfig, RunResult, train
from rethinking.identity import question, run_id

BASE: dict[str, Any] = {"model_name": "mlp_1x512", "randomization": "partial_corrupt", "corruption_prob": 0.5}
# Each option that changes numbers, another of its values, and what has to stand beside it.
CHANGED: dict[str, tuple[Any, dict[str, Any]]] = {
    "model_name": ("mlp_3x512", {}),
    "model_options": ("width=3", {}),
    "network_digest": ("0" * 64, {}),
    "init": ("xavier", {}),
    "resize": (64, {}),
    "colour": ("grey", {}),
    "holdout": (0.2, {}),
    "skip_unlabelled": (True, {}),
    "image_column": ("photo", {}),
    "label_column": ("kind", {}),
    "train_subset": (100, {}),
    "subset_share": (0.7, {}),
    "subset_seed": (1, {"subset_share": 0.7}),
    "left_out": ("1/5", {}),
    "crop_size": (30, {}),
    "min_std": ("tensorflow", {}),
    "pixel_noise": (5.0, {}),
    "replaced_example": (0, {}),
    "randomization": ("shuffled_pixels", {"randomization": "none", "corruption_prob": None}),
    "randomization_options": ("strength=1", {"randomization": "mine.py:Mine", "corruption_prob": None}),
    "randomization_digest": ("0" * 64, {}),
    "corruption_prob": (0.25, {}),
    "randomization_seed": (1, {}),
    "weight_decay": (0.001, {}),
    "weight_decay_on": ("hidden_linear", {}),
    "random_crop": (True, {}),
    "augment_flip_rotate": (True, {}),
    "num_epochs": (3, {}),
    "batch_size": (64, {}),
    "optimizer": ("adam", {}),
    "learning_rate": (0.02, {}),
    "momentum": (0.5, {}),
    "lr_schedule": ("step", {"lr_schedule": "cosine"}),
    "lr_decay": (0.999, {}),
    "warmup_epochs": (2, {}),
    "seed": (1, {}),
    "eval_train_every": (2, {}),
    "eval_test_every": (2, {}),
    "stop_when_fit": (True, {}),
    "device": ("cuda", {"device": "cpu"}),
    "precision": ("bf16", {"precision": "fp32"}),
    "keep_test_losses": (True, {}),
    "labels_digest": ("0" * 64, {}),
    "corrupt_test_labels": (True, {}),
    "record_examples": (True, {}),
    "record_evaluated_examples": (True, {}),
    "record_test_examples": (True, {}),
}
UNCHANGED: dict[str, Any] = {
    "network_regularizers": "dropout 0.5",
    "data_root": "elsewhere",
    "compile": "off",
    "images_in_memory": "never",
    "runs_dir": "elsewhere",
    "use_tensorboard": False,
    "use_wandb": True,
    "wandb_project": "another",
    "wandb_entity": "somebody",
}
TRUE_LABELS = {"randomization": "none", "corruption_prob": None}
OF_A_FILE = {"labels": ("elsewhere.csv", TRUE_LABELS), "labels_column": ("worst", TRUE_LABELS | {"labels": "some.csv"})}
OF_THE_MACHINE = {"device", "precision"}  # of the run's name, but not of what it asks


def names(**options: Any) -> tuple[str, str]:
    """Returns the name and the question of a run, on data with the same name and content."""
    config = ExperimentConfig(**BASE | options).resolved()
    return run_id(config, "photos", "fingerprint"), question(config, "photos", "fingerprint")


def test_every_option_is_listed_as_changing_numbers_or_not():
    """A new option belongs into one of these lists. `dataset` changes numbers by the name and content of the data."""
    assert {spec.name for spec in fields(ExperimentConfig)} == {"dataset", *CHANGED, *UNCHANGED, *OF_A_FILE}
    assert not CHANGED.keys() & UNCHANGED.keys()


@pytest.mark.parametrize("option", CHANGED)
def test_an_option_that_changes_numbers_gives_the_run_another_name(option):
    value, beside = CHANGED[option]
    before, after = names(**beside), names(**beside | {option: value})
    assert before[0] != after[0]
    assert (before[1] == after[1]) is (option in OF_THE_MACHINE)


def test_every_two_runs_that_differ_in_one_option_have_different_names():
    """No option can be confused with another, such as one seed with another seed."""
    alone = {option: names(**{option: value})[0] for option, (value, beside) in CHANGED.items() if not beside}
    assert len({names()[0], *alone.values()}) == 1 + len(alone) > 25


@pytest.mark.parametrize("option", UNCHANGED)
def test_an_option_that_changes_no_number_leaves_the_name(option):
    assert names(**{option: UNCHANGED[option]}) == names()


@pytest.mark.parametrize("option", OF_A_FILE)
def test_the_labels_in_a_file_count_and_not_where_they_are(option):
    """Their digest is in the name."""
    value, beside = OF_A_FILE[option]
    assert names(**beside | {option: value}) == names(**beside)


def config(folder: Path, **options: Any) -> ExperimentConfig:
    fixed = {"model_name": "mlp_1x512", "dataset": "digits", "num_epochs": 1, "train_subset": 50, "batch_size": 20}
    fixed |= {"precision": "fp32", "device": "cpu", "runs_dir": str(folder), "use_tensorboard": False}
    return ExperimentConfig(**fixed | options)


def trained_on(folder: Path, images: np.ndarray, labels: np.ndarray, test_labels: np.ndarray) -> RunResult:
    """Returns a run on a file photos.npz with this content, so that all data sets have one name."""
    (folder / "data").mkdir(parents=True)
    arrays = {"x_train": images, "y_train": labels, "x_test": images[:4], "y_test": test_labels}
    np.savez(folder / "data" / "photos.npz", **arrays)
    return train(config(folder / "runs", dataset=str(folder / "data" / "photos.npz"), train_subset=None))


def test_data_of_another_content_gives_another_run_whatever_its_name(tmp_path: Path):
    """One pixel, one training label, one test label, or the order of two images differs."""
    draws = np.random.default_rng(0)
    images, labels = draws.integers(0, 256, (12, 28, 28), dtype=np.uint8), np.arange(12) % 4
    pixel, label, tested = images.copy(), labels.copy(), labels[:4].copy()
    pixel[5, 14, 14] ^= 1
    label[5], tested[0] = 2, 3
    order = np.array([1, 0, *range(2, 12)])
    contents = {
        "original": (images, labels, labels[:4]),
        "again": (images, labels, labels[:4]),
        "a pixel": (pixel, labels, labels[:4]),
        "a label": (images, label, labels[:4]),
        "a test label": (images, labels, tested),
        "exchanged": (images[order], labels, labels[:4]),
    }
    runs = {name: trained_on(tmp_path / name.replace(" ", "_"), *content) for name, content in contents.items()}
    assert len({run.result["dataset"] for run in runs.values()}) == 1, "a name each"
    assert runs["again"].path.name == runs["original"].path.name
    assert len({run.path.name for run in runs.values()}) == 5
    assert len({run.result["provenance"]["fingerprint"] for run in runs.values()}) == 5


def outcome(run: RunResult) -> tuple[list[dict[str, Any]], dict[str, torch.Tensor]]:
    timings = ("seconds", "images_per_second")
    records = [{name: value for name, value in record.items() if name not in timings} for record in run.metrics]
    return records, safetensors.torch.load_file(run.path / "checkpoint.safetensors")


def test_the_randomization_seed_changes_nothing_without_randomization(tmp_path: Path):
    """Initial weights, order and augmentation depend on the seed alone."""
    options = {"random_crop": True, "augment_flip_rotate": True, "num_epochs": 2}
    (records, tensors), (others, other_tensors) = (
        outcome(train(config(tmp_path, randomization_seed=seed, **options))) for seed in (0, 1)
    )
    assert records == others
    assert all(torch.equal(tensor, other_tensors[name]) for name, tensor in tensors.items())


def test_the_seed_changes_weights_and_order_and_no_random_label(tmp_path: Path):
    """The rate is too small to change a weight, so the final weights are the initial ones."""
    runs = [
        train(config(tmp_path, seed=seed, randomization="random_labels", learning_rate=rate))
        for seed, rate in ((0, 1e-30), (1, 1e-30))
    ]
    weights = [outcome(run)[1]["model.1.weight"] for run in runs]
    assert not torch.equal(*weights)
    assert weights[0].std() == pytest.approx((2 / 784) ** 0.5, rel=0.02)
    drawn = [safetensors.torch.load_file(run.path / "randomization.safetensors")["labels"] for run in runs]
    assert torch.equal(*drawn)


def test_the_random_labels_depend_on_the_randomization_seed(tmp_path: Path):
    """The same network has other labels; because its weights do not change, order and predictions stay."""
    options = {"randomization": "random_labels", "learning_rate": 1e-30}
    first, second = (train(config(tmp_path, randomization_seed=seed, **options)) for seed in (0, 1))
    drawn = [safetensors.torch.load_file(run.path / "randomization.safetensors") for run in (first, second)]
    assert (drawn[0]["labels"] != drawn[1]["labels"]).double().mean() > 0.5
    assert torch.equal(drawn[0]["true_labels"], drawn[1]["true_labels"])
    assert torch.equal(outcome(first)[1]["model.1.weight"], outcome(second)[1]["model.1.weight"])
    assert first.final["test_loss"] == second.final["test_loss"]
    assert first.final["true_label_agreement"] == second.final["true_label_agreement"]
