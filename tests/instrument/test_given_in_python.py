"""Sentences and commands of a report on images and networks that are given in Python."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from PIL import Image
from torch import nn

import rethinking
from rethinking.instrument.battery import asked_for

Pair = tuple[np.ndarray, np.ndarray]


def pooled(channels: int = 1) -> nn.Module:
    return nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(16 * channels, 3))


def noise(count: int, seed: int) -> Pair:
    return np.random.default_rng(seed).integers(0, 256, (count, 4, 4), dtype=np.uint8), np.arange(count) % 3


OPTIONS: dict[str, Any] = {"epochs": 2, "lr": 0.01, "use_tensorboard": False}


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("network", "test_images", "options", "arguments"),
    [
        (pooled, noise(30, 1), {"name": "noise", "resize": 6}, "pooled, images, test_images, name='noise', resize=6"),
        (lambda: pooled(3), None, {"colour": "rgb", "train_subset": 20}, "network, images, colour='rgb'"),
        (pooled(), None, {}, "network, images"),
    ],
)
def test_the_call_that_is_proposed_finds_the_runs_of_the_test(
    network: Any, test_images: Pair | None, options: dict[str, Any], arguments: str
):
    images = noise(60, 0)
    report = rethinking.randomization_test(network, images, test_images, **options, **OPTIONS)
    call = report.test.command
    assert call.startswith(f"rethinking.randomization_test({arguments}, epochs=2, lr='0.01'")
    known = {"pooled": network, "network": network, "images": images, "test_images": test_images}
    again = eval(call, {"rethinking": rethinking, **known})
    assert [again[key].path for key in again] == [report[key].path for key in report]


def test_the_columns_of_a_given_data_set_can_be_chosen():
    pictures, labels = noise(60, 0)
    table = datasets.Dataset.from_dict(
        {
            "image": list(map(Image.fromarray, pictures)),
            "kind": [f"kind {label}" for label in labels],
            "label": [0] * 60,
        }
    )
    report = rethinking.randomization_test(pooled, table, label_column="kind", **OPTIONS)
    assert report.data.class_names == ("kind 0", "kind 1", "kind 2")
    assert "label_column='kind'" in report.test.command


def test_a_network_of_a_notebook_has_a_call_instead_of_a_command_line():
    in_notebook = asked_for("__main__:small", {"dataset": "digits", "epochs": 5})
    assert in_notebook.command == "rethinking.randomization_test(small, 'digits', epochs=5)"
    in_file = asked_for("networks.py:small", {"dataset": "digits", "epochs": 5})
    assert in_file.command == "rethinking test networks.py:small --epochs 5 --dataset digits"


def test_sentences_and_bound_count_the_images_that_are_trained_on():
    report = rethinking.randomization_test(pooled, noise(60, 0), noise(30, 1), train_subset=20, **OPTIONS)
    assert report["random"].result["train_images"] == 20
    findings = {finding.about: finding for finding in report.findings}
    assert " on 20 images" in findings["random labels: fit"].sentence
    assert " on 20 images" in findings["true labels: fit"].sentence
    learnt = report["random"].final["exact_train_accuracy"]
    complexity = max(0.0, 2 / 3 - 2 * (1 - learnt))
    bound = complexity + 3 * math.sqrt(math.log(2 / 0.05) / (2 * 20))  # Equation 1's, of n = 20
    assert findings["capacity"].number == pytest.approx(bound)
