"""Causes of unfitted labels: each is found on a case that is built for it, and not on a similar healthy case."""

from __future__ import annotations

import dataclasses
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linprog
from torch import Tensor, nn

from rethinking.data.draws import subset_rows
from rethinking.errors import DivergedError, RunError
from rethinking.instrument import battery
from rethinking.instrument.causes import ceiling
from rethinking.instrument.report import Report
from rethinking.options import parse
from rethinking.training.run_dir import RunResult
from tests.instrument.cases import causes_of, commands_of, constant, linear, pictures, report_of, wide, with_dropout


def has(report: Report, text: str, words: str = "random labels") -> bool:
    return any(text in sentence for sentence in causes_of(report, words))


# Too few parameters


def linearly_separable(images: np.ndarray, labels: np.ndarray) -> bool:
    """Says, by a linear program, whether any weights classify every image correctly."""
    inputs = np.hstack([images.reshape(len(images), -1), np.ones((len(images), 1))])
    classes, size = labels.max() + 1, inputs.shape[1]
    rows = []
    for row, label in zip(inputs, labels, strict=True):
        for other in set(range(classes)) - {label}:
            constraint = np.zeros((classes, size))
            constraint[label], constraint[other] = -row, row
            rows.append(constraint.ravel())
    found = linprog(np.zeros(classes * size), A_ub=rows, b_ub=-np.ones(len(rows)), bounds=(None, None))
    return bool(found.status == 0)


def whitened(images: np.ndarray) -> np.ndarray:
    values = images.reshape(len(images), -1) / 255
    return (values - values.mean(1, keepdims=True)) / values.std(1, keepdims=True)


def test_a_linear_model_with_fewer_parameters_than_images_cannot_fit_random_labels(tmp_path: Path):
    images, labels = pictures(100, side=4)
    report = report_of(tmp_path, linear, (images, labels), holdout=0.0, epochs=60)
    assert not linearly_separable(whitened(images), _labels(report["random"]))
    assert "linear does not fit random labels: the training accuracy after 60 epochs is" in report.sentences[0]
    assert has(report, "linear has 68 trainable parameters, fewer than the 100 training images")
    assert "does not settle" in next(f.sentence for f in report.findings if f.about == "capacity")


def test_a_linear_model_with_more_inputs_than_images_fits_them_and_has_no_cause(tmp_path: Path):
    images, labels = pictures(50, side=16)
    report = report_of(tmp_path, linear, (images, labels), holdout=0.0)
    assert linearly_separable(whitened(images), _labels(report["random"]))
    assert report["random"].final["exact_train_accuracy"] == 1.0
    assert report.sentences[0].startswith("linear fits random labels: the training accuracy is 100.00% on 50 images,")
    assert not causes_of(report)


def _labels(run: RunResult) -> np.ndarray:
    return safetensors.numpy.load_file(run.path / "randomization.safetensors")["labels"]


# The rate


@pytest.mark.parametrize(("rate", "how"), [("1e-6", "times smaller"), ("5000", "times larger")])
def test_a_rate_far_from_the_rate_of_a_range_test_is_reported_with_both(rate: str, how: str, tmp_path: Path):
    report = report_of(tmp_path, linear, pictures(100, side=4), lr=rate, epochs=3, holdout=0.0)
    (sentence,) = [sentence for sentence in causes_of(report) if "range test" in sentence]
    assert how in sentence
    assert sentence.startswith(f"The learning rate {float(rate):g} is ")
    assert sentence.endswith("the rate that a range test finds.")
    assert any("lr=" not in command for command in commands_of(report)), "the next command leaves the rate out"


def test_a_rate_near_the_rate_of_a_range_test_is_no_cause(tmp_path: Path):
    found = report_of(tmp_path, linear, pictures(100, side=4), lr="auto", epochs=3, holdout=0.0)
    near = report_of(tmp_path, linear, pictures(100, side=4), lr=str(3 * found.rate.rate), epochs=3, holdout=0.0)
    assert not has(found, "range test finds")
    assert not has(near, "range test finds")


def test_there_is_no_range_test_without_a_rate_to_compare(tmp_path: Path):
    """The paper's rate was not given by the user, and a range test of a large network takes long."""
    report_of(tmp_path, "mlp_1x512", pictures(60, side=28), lr="auto", epochs=1, holdout=0.0)
    assert not (tmp_path / ".rates").exists()


def test_a_loss_that_is_not_finite_is_reported_with_a_range_test_to_try(tmp_path: Path):
    report = report_of(tmp_path, wide, pictures(60), lr="1e30", epochs=3, holdout=0.0)
    assert len(report.findings) == 2, "nothing else is known, for true and for random labels"
    assert has(report, "Training on random labels diverged at learning rate 1e+30: the loss is not finite in epoch 1")
    assert "lr=" not in commands_of(report)[0]
    assert not list(report.cells)


# Explicit regularization


def test_dropout_is_a_cause_and_the_next_command_turns_its_parameter_off(tmp_path: Path):
    options = {"width": 16, "dropout": 0.9}
    report = report_of(tmp_path, wide, pictures(100), epochs=5, holdout=0.0, model_options=options)
    assert has(report, "Explicit regularization was on: dropout 0.9 within the network.")
    (command,) = [command for command in commands_of(report) if "model_options" in command and "dropout=0.0" in command]
    assert "width=16" in command, "other options of the network stay"


def test_dropout_that_is_no_parameter_leads_to_advice_to_build_without_it(tmp_path: Path):
    report = report_of(tmp_path, with_dropout, pictures(100), epochs=5, holdout=0.0)
    assert has(report, "dropout 0.9 within the network. Build with_dropout without this regularization.")
    assert not any("model_options" in command for command in commands_of(report))


def test_weight_decay_and_augmentation_are_causes_and_turned_off_by_the_next_command(tmp_path: Path):
    report = report_of(tmp_path, wide, pictures(100), epochs=2, holdout=0.0, weight_decay=0.5, augment_flip_rotate=True)
    assert has(report, "Explicit regularization was on: weight decay 0.5, flips and rotations.")
    off = next(command for command in commands_of(report) if "weight_decay=" not in command)
    assert "augment_flip_rotate=" not in off


def test_without_regularization_it_is_no_cause(tmp_path: Path):
    report = report_of(tmp_path, wide, pictures(100), epochs=2, holdout=0.0)
    assert report["random"].final["exact_train_accuracy"] != 1.0
    assert not has(report, "regularization")


# A constant network


def test_outputs_that_do_not_depend_on_the_image_are_a_cause(tmp_path: Path):
    report = report_of(tmp_path, constant, pictures(100), epochs=3, holdout=0.0)
    assert has(report, "After training, the outputs of constant are the same for all of 64 training images:")
    assert not has(report_of(tmp_path, wide, pictures(100), epochs=2, holdout=0.0), "outputs")


def test_equal_images_do_not_make_a_network_constant(tmp_path: Path):
    images, labels = pictures(60)
    report = report_of(tmp_path, wide, (np.repeat(images[:1], 60, 0), labels), epochs=3, holdout=0.0)
    assert not has(report, "outputs")
    assert has(report, "60 of 60 training images are equal to an image with another label")


def test_without_a_checkpoint_all_other_causes_are_still_found(tmp_path: Path):
    report = report_of(tmp_path, constant, pictures(100), epochs=3, holdout=0.0)
    for run in tmp_path.glob("*/checkpoint.safetensors"):
        run.unlink()
    again = report_of(tmp_path, constant, pictures(100), epochs=3, holdout=0.0)
    assert [s for s in report.sentences if "outputs" not in s] == again.sentences


# Contradictions


def slow_ceiling(crops: np.ndarray, labels: np.ndarray) -> tuple[float, int]:
    """Computes the ceiling by comparing every image with every other image."""
    right, contradicting = 0, 0
    for first in range(len(crops)):
        same = [other for other in range(len(crops)) if np.array_equal(crops[first], crops[other])]
        counts = [sum(labels[other] == label for other in same) for label in {int(labels[other]) for other in same}]
        contradicting += len(counts) > 1
        if first == same[0]:
            right += max(counts)
    return right / len(labels), contradicting


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), min_size=1, max_size=12),
    st.sampled_from([(2, 2), (2, 4), (4, 4)]),
    st.randoms(use_true_random=False),
)
def test_the_ceiling_equals_a_slow_count(drawn, crop, random):
    """There are four kinds of images; two of them differ only outside the smaller crops."""
    kinds = np.zeros((4, 1, 4, 4), dtype=np.uint8)
    kinds[1, 0, 0, 0], kinds[2, 0, 1, 1], kinds[3] = 1, 5, 9
    images, labels = kinds[[kind for kind, _ in drawn]], np.array([label for _, label in drawn])
    rows = np.array(random.sample(range(len(images)), random.randint(1, len(images))))
    top, left = (4 - crop[0]) // 2, (4 - crop[1]) // 2
    crops = images[rows, :, top : top + crop[0], left : left + crop[1]]
    found = ceiling(images, rows, labels[rows], crop)
    expected = slow_ceiling(crops, labels[rows])
    assert found[0] == pytest.approx(expected[0])
    assert found[1] == expected[1]


def duplicated(number: int, side: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """Returns every image twice, the second time with the label of the next class."""
    images, labels = pictures(number, side)
    return np.concatenate([images, images]), np.concatenate([labels, (labels + 1) % 4])


def said_ceiling(report: Report, words: str) -> tuple[int, int, float] | None:
    """Returns the contradicting images, all images and the percentage in the sentence on contradictions."""
    for sentence in causes_of(report, words):
        if found := re.match(
            r"([\d,]+) of ([\d,]+) training images are equal .* more than ([\d.]+)% correctly", sentence
        ):
            return int(found[1]), int(found[2]), float(found[3])
    return None


@pytest.mark.parametrize(
    "options", [{}, {"random_crop": True, "crop_size": 8}, {"train_subset": 70}, {"holdout": 0.25}]
)
def test_contradicting_duplicates_are_counted_on_the_images_that_the_network_sees(options, tmp_path: Path):
    options = {"holdout": 0.0, "epochs": 2, **options}
    report = report_of(tmp_path, wide, duplicated(60, side=12), **options)
    for words, key in (("true labels", "true"), ("random labels", "random")):
        run = report[key]
        train = report.data.train
        rows = subset_rows(len(train), options.get("train_subset")).numpy()
        cut = slice(2, 10) if "crop_size" in options else slice(None)
        most, contradicting = slow_ceiling(train.images[rows][:, :, cut, cut], _labels(run))
        assert said_ceiling(report, words) == (contradicting, len(rows), pytest.approx(100 * most, abs=0.006))


def test_one_permutation_for_all_images_keeps_duplicates_equal_and_one_for_each_image_does_not(tmp_path: Path):
    report = report_of(tmp_path, wide, duplicated(40), labels=(), pixels=("shuffled", "random"), epochs=2, holdout=0.0)
    assert said_ceiling(report, "shuffled pixels") == (80, 80, 50.0)
    assert said_ceiling(report, "random pixels") is None


def test_equal_images_with_equal_labels_are_no_contradiction(tmp_path: Path):
    images, labels = pictures(40)
    twice = np.concatenate([images, images]), np.concatenate([labels, labels])
    report = report_of(tmp_path, wide, twice, labels=("true",), epochs=1, lr="1e-6", holdout=0.0)
    assert causes_of(report, "true labels")
    assert said_ceiling(report, "true labels") is None


def test_missing_labels_are_reported_in_one_line(tmp_path: Path):
    report = report_of(tmp_path, wide, duplicated(20), epochs=1, holdout=0.0)
    (report["random"].path / "randomization.safetensors").unlink()
    with pytest.raises(RunError, match=r"randomization\.safetensors is damaged or missing"):
        _ = report.findings


# Time


def test_a_short_run_is_called_short_and_its_convergence_is_not_judged(tmp_path: Path):
    report = report_of(tmp_path, wide, pictures(100), epochs=3, holdout=0.0)
    assert has(
        report,
        "Training was short: 3 epochs. With fewer than 30 epochs, this test does not judge whether a run has converged."
        " A run with more epochs is a new run and starts from the first epoch.",
    )
    assert not has(report, "not converged")
    assert "epochs=6" in commands_of(report)[-1], "twice as many are next"


def test_a_loss_that_still_falls_is_not_converged(tmp_path: Path):
    report = report_of(tmp_path, wide, pictures(100), epochs=40, lr="0.005", holdout=0.0)
    assert has(report, "Training has not converged after 40 epochs: over the last 20% of them, the loss fell from")
    assert has(report, ". A run with more epochs is a new run and starts from the first epoch.")
    assert any("epochs=80" in command for command in commands_of(report))


def test_a_loss_that_no_longer_falls_counts_as_converged(tmp_path: Path):
    report = report_of(tmp_path, constant, pictures(100), epochs=60, holdout=0.0)
    assert not has(report, "converged")


def test_a_budget_that_ended_a_run_is_what_the_next_command_raises(tmp_path: Path):
    report = report_of(tmp_path, wide, pictures(100), budget="0.1", lr="1e-5", holdout=0.0)
    assert not report["random"].finished
    assert any("budget='1s'" in command for command in commands_of(report))
    assert has(report, "A larger budget continues this run.")
    assert not has(report, "new run")


def test_a_run_without_any_known_cause_is_reported_as_that(tmp_path: Path):
    """The network sees a few binary pixels. It cannot fit, and none of the known causes is the reason."""
    report = report_of(tmp_path, one_pixel, pictures(60), epochs=120, holdout=0.0, optimizer="adamw", lr="auto")
    (sentence,) = causes_of(report)
    assert sentence.startswith("This test does not know why one_pixel does not fit random labels.")
    assert "optimizer='adamw'" in report.test.command
    assert "optimizer=" not in commands_of(report)[0], "another one than it had: the default"


class Binary(nn.Module):
    """Makes each pixel 0 or 1."""

    def forward(self, images: Tensor) -> Tensor:
        return (images > 0).float()


def one_pixel(num_classes: int) -> nn.Module:
    return nn.Sequential(nn.AvgPool2d(4, stride=8), Binary(), wide(num_classes, (1, 1, 1), width=64))


# Several causes, conditions, seeds


def test_all_causes_are_reported_and_shared_ones_once(tmp_path: Path):
    report = report_of(tmp_path, linear, duplicated(60, side=4), epochs=2, lr="1e-6", holdout=0.0, weight_decay=0.1)
    sentences = [finding.sentence for finding in report.findings]
    for text in (
        "times smaller",
        "equal to an image with another label",
        "weight decay 0.1",
        "fewer than",
        "was short",
    ):
        assert any(text in sentence for sentence in sentences), text
    assert len(set(sentences)) == len(sentences)
    (rate,) = [place for place, sentence in enumerate(sentences) if "times smaller" in sentence]
    assert report.findings[rate - 1].causes_of == "random labels", "after the finding that it explains"
    assert sum("another label" in sentence for sentence in sentences) == 2, "random labels contradict otherwise"


def edited(run: RunResult, accuracy: float) -> RunResult:
    """Returns the run with another exact accuracy after its last epoch."""
    last = {**run.metrics[-1], "exact_train_accuracy": accuracy}
    return dataclasses.replace(run, metrics=[*run.metrics[:-1], last])


def test_one_failing_seed_of_several_has_its_causes_and_settles_nothing(tmp_path: Path):
    report = report_of(tmp_path, wide, pictures(40), seeds=(0, 1), holdout=0.0)
    assert not causes_of(report)
    runs = {**report.outcomes, ("random", 1): edited(report.run("random", 1), 0.5)}
    one = dataclasses.replace(report, outcomes=runs)
    assert "wide fits random labels with 1 of 2 seeds: the training accuracy is 50.00% to 100.00%" in one.sentences[0]
    assert causes_of(one)
    assert "does not settle" in " ".join(one.sentences)


def test_a_seed_that_diverges_counts_as_one_that_does_not_fit(tmp_path: Path):
    report = report_of(tmp_path, wide, pictures(40), seeds=(0, 1, 2), holdout=0.0)
    error = DivergedError("the loss is not finite in epoch 7")
    one = dataclasses.replace(report, outcomes={**report.outcomes, ("random", 1): error})
    sentences = " ".join(one.sentences)
    assert "wide fits random labels with 2 of 3 seeds" in sentences
    assert "diverged at learning rate 0.1 with 1 of 3 seeds: the loss is not finite in epoch 7" in sentences
    assert "does not settle" in sentences
    assert "3 seeds" in one.sentences[-1]
    assert "times as many epochs" not in sentences, "of a condition that was not always fitted"


def test_a_seed_that_diverges_is_reported_beside_one_that_did_not_fit(tmp_path: Path):
    report = report_of(tmp_path, wide, pictures(40), seeds=(0, 1), epochs=1, holdout=0.0)
    error = DivergedError("the loss is not finite in epoch 2")
    one = dataclasses.replace(report, outcomes={**report.outcomes, ("random", 1): error})
    assert has(one, "diverged")
    assert has(one, "was short")


# What to try next can be tried


def test_the_next_commands_are_valid_command_lines(tmp_path: Path):
    asked = battery.asked_for(
        f"{__file__}:one_pixel",
        {"dataset": "digits", "seeds": (0, 1), "lr": "0.1", "data_root": str(tmp_path), "runs_dir": "elsewhere",
         "out": "there", "weight_decay": 0.1, "random_crop": True, "train_subset": 50, "pixels": ("shuffled",)},
    )  # fmt: skip
    for changed in (asked, asked.with_options(lr="auto"), asked.with_options(weight_decay=0.0), asked.longer(3)):
        program, command, *words = shlex.split(changed.command)
        assert (program, command) == ("rethinking", "test")
        values = parse(battery.all_options(), "rethinking test", "", words)
        assert battery.asked_for(values.pop("network"), values) == changed, (
            "with the folders that hold its runs and data"
        )
    assert "elsewhere" not in asked.command_anywhere
