"""The options that change how data is read, on the command line."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from rethinking import ExperimentConfig, train
from rethinking.data import sources
from rethinking.experiments import archive
from rethinking.report.commands import command
from tests.conftest import reproduce


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """Makes 60 images of five sizes and two modes in two classes, without a test set."""
    draws = np.random.default_rng(0)
    for index in range(60):
        shape = (30 + index % 5, 32, *((3,) if index % 2 else ()))
        file = tmp_path / "mixed" / ("cat", "dog")[index // 2 % 2] / f"{index:02}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draws.integers(0, 256, shape, dtype=np.uint8)).save(file)
    return tmp_path / "mixed"


ALIKE = ("--resize", "28", "--colour", "grey", "--holdout", "0.2")


def test_a_run_prints_and_keeps_how_its_data_was_read(mixed: Path, tmp_path: Path, train_command):
    ran = train_command("--model", "mlp_1x512", "--num_epochs", "1", "--dataset", str(mixed), *ALIKE, "--randomization",
                        "random_labels")  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert f"data: mixed-resize28-grey-holdout0.2, from {mixed}" in ran.stdout
    assert "48 training and 12 test images, 2 classes (cat, dog), 28x28 grey" in ran.stdout
    (run,) = (tmp_path / "runs").iterdir()
    facts = json.loads((run / "facts.json").read_text())
    assert facts["dataset"] == "mixed-resize28-grey-holdout0.2"
    assert facts["data"]["origin"] == str(mixed)
    assert (facts["data"]["train_images"], facts["data"]["test_images"]) == (48, 12)
    assert json.loads((run / "result.json").read_text())["data"] == facts["data"]
    again = train_command("--config", str(run / "config.yaml"), "--runs_dir", str(tmp_path / "runs"))
    assert again.returncode == 0, again.stderr
    assert len(list((tmp_path / "runs").iterdir())) == 1, "the same run"


def test_the_labels_that_really_changed_are_counted(tmp_path: Path):
    config = ExperimentConfig(
        model_name="mlp_1x512", dataset="digits", num_epochs=1, runs_dir=str(tmp_path), randomization="random_labels"
    )
    result = train(config)
    from safetensors.numpy import load_file

    kept = load_file(result.path / "randomization.safetensors")
    changed = int((kept["labels"] != kept["true_labels"]).sum())
    assert result.result["labels_changed"] == changed
    assert 0.8 < changed / 1442 < 0.97  # nine tenths of a uniform draw over ten classes


def test_options_are_part_of_a_runs_identity(mixed: Path, tmp_path: Path):
    options = [{"resize": 28}, {"resize": 30}, {"resize": 28, "holdout": 0.2}, {"resize": 28, "holdout": 0.25}]
    paths = set()
    for option in options:
        config = ExperimentConfig(
            model_name="mlp_1x512", dataset=str(mixed), colour="rgb", num_epochs=1, runs_dir=str(tmp_path), **option
        )
        paths.add(train(config).path)
    assert len(paths) == len(options)


def test_held_out_images_are_a_share_of_every_class_and_the_same_for_every_seed(mixed: Path):
    options = sources.ReadOptions(resize=28, colour="grey", holdout=0.25)
    data = sources.load(str(mixed), options=options)
    assert data.test is not None
    assert np.bincount(data.train.labels).tolist() == [22, 22]
    assert np.bincount(data.test.labels).tolist() == [8, 8]
    training = {image.tobytes() for image in data.train.images}
    assert not training & {image.tobytes() for image in data.test.images}
    whole = sources.load(str(mixed), options=sources.ReadOptions(resize=28, colour="grey"))
    assert training | {image.tobytes() for image in data.test.images} == {i.tobytes() for i in whole.train.images}


def test_held_out_images_are_drawn_at_random_within_each_class(mixed: Path):
    """They are the first 8 of a shuffle of the 30 images of a class, seeded by SHA-256 of its name, in stored order."""
    whole = sources.load(str(mixed), options=sources.ReadOptions(resize=28, colour="grey"))
    data = sources.load(str(mixed), options=sources.ReadOptions(resize=28, colour="grey", holdout=0.25))
    expected = []
    for label in (0, 1):
        digest = hashlib.sha256(f"0/holdout/{label}".encode()).digest()
        stream = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little"))
        members = np.flatnonzero(whole.train.labels == label)
        expected += members[torch.randperm(30, generator=stream)[:8].numpy()].tolist()
    assert np.array_equal(data.test.images, whole.train.images[sorted(expected)])
    assert np.array_equal(data.test.labels, whole.train.labels[sorted(expected)])


def test_a_cut_to_a_square_is_reported(tmp_path: Path, train_command):
    for index in range(8):
        file = tmp_path / "wide" / ("cat", "dog")[index % 2] / f"{index}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (64, 48), index).save(file)
    ran = train_command("--model", "mlp_1x512", "--num_epochs", "1", "--dataset", str(tmp_path / "wide"))
    assert "images of 64x48 pixels are cropped to 48x48: their centre" in ran.stdout
    listed = reproduce(tmp_path, "table1", "--scale", "demo", "--models", "mlp_1x512", "--dataset", "wide", "--dry_run")
    assert "images of 64x48 pixels are cropped to 48x48: their centre" in listed


def test_reproductions_read_data_as_asked(mixed: Path, tmp_path: Path):
    first = reproduce(tmp_path, "expressivity", "--scale", "demo", "--dataset", "mixed", *ALIKE, status=1)
    assert "data: mixed-resize28-grey-holdout0.2" in first
    assert "one size and mode" not in first
    assert (tmp_path / "reproduced/mixed-resize28-grey-holdout0.2-demo/memorization.csv").exists()
    options = ("--scale", "demo", "--models", "mlp_1x512", "--dataset", "mixed")
    reproduce(tmp_path, "table1", *options, *ALIKE)
    kept = archive.read(tmp_path / "reproduced/mixed-resize28-grey-holdout0.2-demo")
    commands = [command(run) for run in kept.values() if run.is_of_network]
    assert commands
    for line in commands:
        assert "--dataset mixed " in line
        for option in ("--resize 28", "--colour grey", "--holdout 0.2"):
            assert option in line
    refused = reproduce(tmp_path, "table1", *options, status=2)
    assert "--resize N" in refused
