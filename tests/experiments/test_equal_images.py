"""`reproduce.py` on folders with duplicate images: only the impossible runs are missing."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
import torch
from PIL import Image

from rethinking.config import ExperimentConfig
from rethinking.data import sources
from rethinking.data.draws import corrupt_labels
from rethinking.errors import InputError, RunError
from rethinking.experiments import run_list
from rethinking.experiments.experiment import Config
from rethinking.experiments.reproduction import Reproduction
from rethinking.report import tables
from rethinking.theory import run
from rethinking.theory.kernel_machine import KernelMachineConfig
from rethinking.theory.memorization import MemorizationConfig
from rethinking.theory.rademacher import RademacherConfig
from rethinking.theory.run import Problem, TheoryResult
from tests.conftest import reproduce

DIGITS = sources.load("digits")
WIDE = {"COLUMNS": "300"}  # each row of a dry run in one line
CONFLICT = re.compile(r"no function fits both training images (\d+) and (\d+): .* (\w+ labels) are '(.*)' and '(.*)';")


def digits(folder: Path, train: np.ndarray, labels: np.ndarray) -> Path:
    """A folder with these training images, uint8 (n, height, width) or (n, height, width, 3), and test images.

    The first test images are training images too.
    """
    test = DIGITS.test.images[:40, 0, : train.shape[1], : train.shape[2]]
    shown = np.stack([test] * 3, axis=3) if train.ndim == 4 else test
    test_labels = np.concatenate([labels[:3], DIGITS.test.labels[:40]])
    for split, images, classes in (
        ("train", train, labels),
        ("test", np.concatenate([train[:3], shown]), test_labels),
    ):
        for number, (image, label) in enumerate(zip(images, classes, strict=True)):
            path = folder / split / str(label) / f"{number:04}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
    return folder


def twice(folder: Path, images: int) -> Path:
    """Returns images that each occur twice with the same label."""
    return digits(folder, DIGITS.train.images[:images, 0].repeat(2, axis=0), DIGITS.train.labels[:images].repeat(2))


def contradictory(folder: Path, *, coloured: bool = False, images: int = 120) -> Path:
    """Returns images of which the first occurs again with another label."""
    train, labels = DIGITS.train.images[: images + 1, 0].copy(), DIGITS.train.labels[: images + 1].copy()
    train[images], labels[images] = train[0], (labels[0] + 1) % 10
    return digits(folder, np.stack([train] * 3, axis=3) if coloured else train, labels)


def demo(name: str, dataset: Path, runs: Path, **options) -> Reproduction:
    return Reproduction(experiment=name, dataset=str(dataset), runs_dir=str(runs), scale="demo", **options)


def fitted(config: Config, data: sources.ImageData) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Returns the images and labels that a run must fit exactly; None where there are none."""
    if isinstance(config, MemorizationConfig):
        exactly = config.points != "gaussian"
    else:
        exactly = isinstance(config, KernelMachineConfig) and not config.l2
    if not exactly or (config.train_subset or 0) > len(data.train):
        return None
    problem = Problem.of(config, data)
    count = len(problem.train) // (2 if getattr(config, "points", None) == "pairs" else 1)
    return problem.train[:count], problem.labels[:count]


def is_contradictory(config: Config, data: sources.ImageData) -> bool:
    """Says whether two equal images have different labels to fit, by comparing all pairs."""
    if (asked := fitted(config, data)) is None:
        return False
    images, labels = asked[0].flatten(1), asked[1]
    return any(
        bool(((images[index] == images).all(dim=1) & (labels[index] != labels)).any()) for index in range(len(images))
    )


def check_words(error: str, data: sources.ImageData, seed: int = 0) -> str:
    """Checks the two images and labels in a message against the data; returns the kind of labels."""
    found = CONFLICT.search(error)
    assert found, error
    first, second, kind, *named = found.groups()
    images, true_labels = data.train.images, torch.from_numpy(data.train.labels.copy())
    labels = true_labels if kind == "true labels" else corrupt_labels(true_labels, len(data.class_names), 1.0, seed)
    assert np.array_equal(images[int(first)], images[int(second)])
    assert named == [data.class_names[int(labels[int(place)])] for place in (first, second)]
    assert named[0] != named[1]
    assert "\n" not in error
    return kind


class BegunError(Exception):
    """Signals that the first run begins."""


def failures(asked: Reproduction, monkeypatch: pytest.MonkeyPatch) -> dict[Config, str]:
    """Returns the failures that are reported before the first run begins."""

    def begin(*_: object, **options: object) -> NoReturn:
        raise BegunError

    failed: dict[Config, str] = {}
    with monkeypatch.context() as patch, contextlib.suppress(BegunError):
        patch.setattr(run_list, "train_many", begin)
        for config, outcome in asked.train({}):
            assert isinstance(outcome, RunError)
            failed[config] = str(outcome)
    return failed


def test_minimum_norm_lacks_only_random_labels(tmp_path: Path):
    dataset = str(twice(tmp_path / "twice", 600))
    options = ("minimum_norm", "--scale", "demo", "--dataset", dataset, "--out", "out")
    printed = reproduce(tmp_path, *options, status=1)
    (failed,) = re.findall(r"^failed: .*$", printed, re.MULTILINE)
    assert check_words(failed, sources.load(dataset)) == "random labels"
    assert printed.count("finished: ") == 9
    assert "1 of the runs failed, the others are done: twice, pixels, random labels, seed 0" in printed
    cells, *_ = tables.read_csv(tmp_path / "out" / "minimum_norm.csv")
    solutions = {dict(cell.labels)["solution"] for cell in cells}
    assert {"least norm", "random centres", "gradient descent", "wrong on 40 test images"} <= solutions
    assert "least norm, random labels" not in solutions
    assert {cell.ours for cell in cells if cell.quantity == "train error"} == {0.0}
    assert (tmp_path / "out" / "report.html").exists()
    again = reproduce(tmp_path, *options, status=1)
    assert "finished: " not in again
    assert failed in again

    foretold = reproduce(tmp_path, *options, "--dry_run", env={**os.environ, **WIDE})
    (row,) = [line for line in foretold.splitlines() if "fails: " in line]
    assert "random labels, seed 0" in row
    assert failed.split("images: ", 1)[1] in row, "the same words"
    assert len(re.findall(r"seed 0\D.*done", foretold)) == 9
    assert re.search(r"^0s left in all", foretold, re.MULTILINE)


def test_expressivity_lacks_the_runs_whose_labels_no_function_fits(tmp_path: Path):
    dataset = twice(tmp_path / "twice", 150)
    data = sources.load(str(dataset))
    asked = demo("expressivity", dataset, tmp_path / "runs")
    outcomes = dict(asked.train({}))
    assert set(outcomes) == set(asked.configs())
    for config, outcome in outcomes.items():
        if (config.train_subset or 0) > 300:
            assert isinstance(outcome, RunError), "1,000 images are more than there are"
            assert "train_subset must be from 1 to 300" in str(outcome)
        elif is_contradictory(config, data):
            assert isinstance(outcome, RunError)
            assert check_words(str(outcome), data) == "random labels"
        else:
            assert isinstance(outcome, TheoryResult)
            assert outcome.result["train_error"] in (0.0, None) or config.gap < 1e-6
    done = [config for config, outcome in outcomes.items() if isinstance(outcome, TheoryResult)]
    assert {config.points for config in done} == {"images", "gaussian", "pairs"}


def test_equal_images_are_searched_once_for_each_question(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """They are not searched again for each depth, although no network is possible."""
    dataset = twice(tmp_path / "twice", 60)
    asked = demo("expressivity_depth", dataset, tmp_path / "runs")
    looked = []
    search = run.conflicting_points
    monkeypatch.setattr(run, "conflicting_points", lambda *points: looked.append(len(points[0])) or search(*points))
    failed = failures(asked, monkeypatch)
    assert len(failed) == len(asked.configs()) == 14, "7 depths of 100 images, and of 1,000"
    assert looked == [100]


def test_table_3_has_its_l2_rows_where_an_image_has_two_true_labels(contradicted: tuple[Path, str]):
    folder, _ = contradicted
    cells, *_ = tables.read_csv(folder / "out" / "table3.csv")
    assert {dict(cell.labels)["l2"] for cell in cells} == {"yes"}
    curve, *_ = tables.read_csv(folder / "out" / "table3_filters.csv")
    assert {(dict(cell.labels)["regularizer"], cell.x) for cell in curve} == {("l2: yes", 25.0), ("l2: yes", 400.0)}


def test_table_3_says_of_each_row_without_l2_that_no_function_fits_the_true_labels(contradicted: tuple[Path, str]):
    folder, printed = contradicted
    failed = re.findall(r"^failed: (?:.*?), seed 0: (.*)$", printed, re.MULTILINE)
    assert len(failed) == 3, "pixels, and two numbers of filters"
    assert {check_words(error, sources.load(str(folder / "coloured"))) for error in failed} == {"true labels"}
    assert printed.count("finished: ") == 2
    assert "3 of the runs failed, the others are done: " in printed


@pytest.fixture(scope="module")
def contradicted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("contradicted")
    dataset = str(contradictory(folder / "coloured", coloured=True))
    options = ("--scale", "demo", "--filters", "25", "400", "--dataset", dataset, "--out", "out")
    return folder, reproduce(folder, "table3", *options, status=1)


def test_rows_that_are_all_impossible_are_each_reported_and_take_no_time(tmp_path: Path):
    dataset = str(contradictory(tmp_path / "grey"))
    options = ("table3", "--scale", "demo", "--dataset", dataset)
    foretold = reproduce(tmp_path, *options, "--dry_run", env={**os.environ, **WIDE})
    rows = [line for line in foretold.splitlines() if ", seed 0" in line]
    assert len(rows) == 2
    for row in rows:
        assert check_words(row.split("fails: ")[1], sources.load(dataset)) == "true labels"
    assert re.search(r"^0s left in all", foretold, re.MULTILINE)
    assert "2 of the runs failed" in reproduce(tmp_path, *options, status=1)
    assert not list(tmp_path.glob("runs/*"))


@pytest.mark.parametrize("name", ["minimum_norm", "expressivity", "all"])
def test_exactly_the_runs_with_a_contradiction_fail(name, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    dataset = contradictory(tmp_path / "grey", images=400)
    data = sources.load(str(dataset))
    asked = demo(name, dataset, tmp_path / "runs", seeds=(0, 1))
    failed = failures(asked, monkeypatch)
    told = {config for config, error in failed.items() if CONFLICT.search(error)}
    assert told == {config for config in asked.configs() if is_contradictory(config, data)}
    assert told
    assert len(failed) < len(asked.configs())
    for config in told:
        kind = "true labels" if config.randomization == "none" else "random labels"
        assert check_words(failed[config], data, config.randomization_seed) == kind


def test_fewer_images_than_a_run_takes_leave_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Random signs need 30, 100 and 300 images, and there are 120."""
    train, labels = DIGITS.train.images[:120, 0], DIGITS.train.labels[:120]
    dataset = digits(tmp_path / "few", train, labels)
    asked = demo("rademacher", dataset, tmp_path / "runs", models=("mlp_1x512",))
    beyond = {config for config in asked.configs() if config.train_subset == 300}
    assert {type(config) for config in beyond} == {ExperimentConfig, RademacherConfig}
    assert {config for config, result in asked.found() if isinstance(result, RunError)} == beyond
    assert set(failures(asked, monkeypatch)) == beyond


def test_too_few_images_for_every_run_are_a_mistake_of_the_user(tmp_path: Path):
    train, labels = DIGITS.train.images[:20, 0], DIGITS.train.labels[:20]
    asked = demo("rademacher", digits(tmp_path / "few", train, labels), tmp_path / "runs", models=("mlp_1x512",))
    with pytest.raises(InputError, match="train_subset must be"):
        list(asked.found())


def test_images_too_small_for_random_filters_leave_the_kernels_on_pixels(tmp_path: Path):
    train = DIGITS.train.images[:60, 0, 9:15, 9:15]
    dataset = digits(tmp_path / "tiny", np.stack([train] * 3, axis=3), DIGITS.train.labels[:60])
    outcomes = dict(demo("table3", dataset, tmp_path / "runs", filters=(5,), bandwidth="median").train({}))
    for config, outcome in outcomes.items():
        assert isinstance(outcome, RunError) is (config.features == "random_conv"), outcome
    assert len(outcomes) == 3
