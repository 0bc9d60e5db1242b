"""Memorizing networks as runs, on the digits."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from rethinking.data import sources
from rethinking.errors import ConflictError, InputError, RunError
from rethinking.identity import question
from rethinking.seeding import generator
from rethinking.theory import expressivity, tasks
from rethinking.theory.expressivity import memorizing_network
from rethinking.theory.memorization import MemorizationConfig, memorize

DIGITS = sources.load("digits")


def config(runs: Path, **options) -> MemorizationConfig:
    return MemorizationConfig(**{"dataset": "digits", "device": "cpu", "runs_dir": str(runs), **options})


def test_a_run_reports_what_the_network_does(tmp_path: Path):
    """Compares with the network written out here."""
    result = memorize(config(tmp_path)).result
    images, labels = torch.from_numpy(DIGITS.train.images.copy()), torch.from_numpy(DIGITS.train.labels.copy())
    network = memorizing_network(images, labels, generator(0, "direction"))
    assert result["train_error"] == 0
    assert result["largest_difference"] == pytest.approx(float((network(images) - labels).abs().max()), rel=0.5)
    test, test_labels = torch.from_numpy(DIGITS.test.images.copy()), torch.from_numpy(DIGITS.test.labels.copy())
    assert result["test_error"] == float((network(test).round() != test_labels).double().mean())
    assert (result["points"], result["dimensions"], result["depth"]) == (1442, 784, 2)
    assert (result["width"], result["weights"]) == (1442, 2 * 1442 + 784)
    assert result["largest_weight"] == float(network.weights.abs().max()) <= result["weight_bound"]
    along = expressivity.project(images, network.direction).sort().values
    assert result["smallest_eigenvalue"] == pytest.approx(float((along - network.thresholds).min()), rel=1e-12)
    assert result["provenance"]["precision"] == "fp64"


def test_it_generalizes_no_better_from_true_labels(tmp_path: Path):
    """True and random labels are both fitted, and both leave the test error near chance."""
    true, random = (memorize(config(tmp_path, randomization=labels)).result for labels in ("none", "random_labels"))
    assert true["train_error"] == random["train_error"] == 0
    assert min(true["test_error"], random["test_error"]) > 0.8


@pytest.mark.parametrize("depth", [2, 7])
def test_noise_and_pairs_are_fitted_as_images_are(tmp_path: Path, depth):
    noise = memorize(config(tmp_path, points="gaussian", depth=depth, randomization="random_labels")).result
    assert noise["train_error"] == 0
    assert noise["test_error"] is None, "there are no test images of noise"
    pairs = memorize(config(tmp_path, points="pairs", gap=0.01, depth=depth, train_subset=101)).result
    assert (pairs["points"], pairs["train_error"]) == (100, 0.0)


def test_points_of_a_pair_are_so_far_apart_and_labelled_differently(tmp_path: Path):
    from rethinking.theory.memorization import _points
    from rethinking.theory.run import Problem

    asked = config(tmp_path, points="pairs", gap=0.25, train_subset=40)
    points, labels = _points(asked, Problem.of(asked, DIGITS))
    assert points.shape == (40, 784)
    torch.testing.assert_close((points[20:] - points[:20]).norm(dim=1), torch.full((20,), 0.25, dtype=torch.float64))
    assert (labels[20:] != labels[:20]).all()
    assert labels.max() < 10


def test_closer_pairs_are_fitted_less_well_and_finally_not_at_all(tmp_path: Path):
    found = [
        memorize(config(tmp_path, points="pairs", gap=gap, train_subset=100)).result for gap in (1e-3, 1e-9, 1e-16)
    ]
    assert found[0]["largest_difference"] < found[1]["largest_difference"]
    assert "are too close for float64" in found[2]["too_close"]
    assert found[2]["train_error"] is None


def test_bright_points_that_rounding_makes_equal_are_refused_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """No pixel is near 0, where float64 would keep the smallest step."""
    bright = replace(DIGITS, train=replace(DIGITS.train, images=DIGITS.train.images // 2 + 120))
    monkeypatch.setattr(sources, "load", lambda *_, **__: bright)
    for depth in (2, 5):
        found = memorize(config(tmp_path, points="pairs", gap=1e-16, train_subset=100, depth=depth)).result
        assert "rounding makes the points of pair 0 one" in found["too_close"]


def test_equal_images_with_different_labels_are_named_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    images = DIGITS.train.images.copy()
    images[1010] = images[0]
    assert DIGITS.train.labels[1010] != DIGITS.train.labels[0]
    monkeypatch.setattr(
        sources,
        "load",
        lambda *_, **__: replace(DIGITS, train=replace(DIGITS.train, images=images), fingerprint="copies"),
    )
    said = r"both training images 0 and 1010: they are equal, but their true labels are '0' and '5'"
    for refuse in (memorize, tasks.estimate_cost):
        with pytest.raises(ConflictError, match=said):
            refuse(config(tmp_path))
    assert not list(tmp_path.iterdir())
    assert tasks.estimate_cost(config(tmp_path, points="gaussian")), "which has no image"


def test_pairs_beside_equal_images_with_different_labels_are_refused_where_both_have_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Only the first half of the images have a partner point."""
    order = torch.randperm(1442, generator=generator(0, "train_subset"))[:100].tolist()
    for second, refused in ((order[7], True), (order[70], False)):
        images, labels = DIGITS.train.images.copy(), DIGITS.train.labels.copy()
        images[second], labels[second] = images[order[3]], (labels[order[3]] + 1) % 10
        copies = replace(DIGITS, train=sources.ImageSet(images, labels), fingerprint=f"pairs {second}")
        monkeypatch.setattr(sources, "load", lambda *_, copies=copies: copies)
        asked = config(tmp_path, points="pairs", gap=0.1, train_subset=100)
        if refused:
            with pytest.raises(ConflictError, match=r"true labels"):
                tasks.estimate_cost(asked)
        else:
            assert tasks.estimate_cost(asked)
            assert memorize(asked).result["train_error"] == 0


def test_a_finished_run_answers(tmp_path: Path):
    first = memorize(config(tmp_path, train_subset=50))
    written = (first.path / "result.json").stat().st_mtime_ns
    again = memorize(config(tmp_path, train_subset=50))
    assert again.result == first.result
    assert (first.path / "result.json").stat().st_mtime_ns == written
    assert tasks.read(first.path).question == first.question
    other = memorize(config(tmp_path, train_subset=50, seed=1))
    assert other.path != first.path
    assert other.result["largest_weight"] != first.result["largest_weight"], "another direction"


def test_the_question_is_that_of_any_device(tmp_path: Path):
    base = config(tmp_path)
    assert question(base, "digits", "f") == question(replace(base, device="cuda", runs_dir="elsewhere"), "digits", "f")
    assert question(base, "digits", "f") != question(replace(base, depth=3), "digits", "f")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depth": 1}, "depth must be a whole number from 2 on, not 1"),
        ({"points": "imges"}, "did you mean 'images'?"),
        ({"points": "pairs"}, "points 'pairs' need a gap, and only they take one"),
        ({"gap": 0.1}, "points 'pairs' need a gap, and only they take one"),
        ({"points": "pairs", "gap": 0.0}, "gap must be a positive number, not 0"),
        ({"points": "pairs", "gap": 0.1, "train_subset": 1}, "a pair takes two points"),
        ({"train_subset": 5000}, "train_subset must be from 1 to 1442"),
        ({"randomization": "shuffled_pixels"}, "randomization must be one of none, random_labels"),
    ],
)
def test_wrong_options_are_a_one_line_error(tmp_path: Path, options, message):
    with pytest.raises(InputError) as caught:
        memorize(config(tmp_path, **options))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_folder_of_something_else_or_with_a_damaged_result_is_refused(tmp_path: Path):
    (tmp_path / "config.yaml").write_text("dataset: digits\ncolour: blue\n")
    with pytest.raises(InputError, match="does not hold the options of a run"):
        tasks.read(tmp_path)
    found = memorize(config(tmp_path, train_subset=50))
    (found.path / "result.json").write_text(json.dumps(found.result)[:50])
    with pytest.raises(RunError, match=r"result\.json is damaged"):
        tasks.read(found.path)
