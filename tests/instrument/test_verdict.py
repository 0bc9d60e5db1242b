"""The verdict on known numbers."""

from __future__ import annotations

import itertools
import math

import pytest

from rethinking.experiments.quantities import percent, whole
from rethinking.instrument.conditions import conditions
from rethinking.instrument.verdict import Shown, complexity_at_least, epoch_to_fit, span, strict_percent, verdict
from rethinking.training.run_dir import Record

TRUE, RANDOM, HALF, SHUFFLED = conditions(("true", "random", "0.5"), ("shuffled",))


def run(*exact: float | None, test: float | None = 0.5) -> list[Record]:
    """Returns records with these exact training accuracies, one an epoch; None where it was not measured."""
    return [
        {"epoch": epoch, "train_accuracy": 0.4, "exact_train_accuracy": accuracy, "test_accuracy": test}
        for epoch, accuracy in enumerate(exact, 1)
    ]


def said(*shown: Shown, images: int = 1000, classes: int = 10) -> dict[str, str]:
    return {finding.about: finding.sentence for finding in verdict("net", shown, images, classes)}


def test_a_network_that_fits_random_labels_has_all_sentences_with_their_numbers():
    found = verdict(
        "net",
        [Shown(TRUE, (run(None, 0.995, 1.0, test=0.8),)), Shown(RANDOM, (run(None, None, None, 0.99, 1.0, test=0.1),))],
        1000,
        10,
    )
    by_about = {finding.about: finding for finding in found}
    assert [finding.about for finding in found] == [
        "random labels: fit", "random labels: time", "true labels: gap", "random labels: gap", "capacity", "seeds"
    ]  # fmt: skip
    fit, time = by_about["random labels: fit"], by_about["random labels: time"]
    assert fit.sentence == (
        "net fits random labels: the training accuracy is 100.00% on 1,000 images, and first reached the threshold"
        " of 99% in epoch 4."
    )
    assert (fit.number, fit.threshold) == (1.0, 0.99)
    assert (time.number, time.threshold) == (2.0, 1.0)
    assert by_about["true labels: gap"].number == pytest.approx(0.2)
    assert by_about["true labels: gap"].threshold is None
    assert by_about["random labels: gap"].number == by_about["random labels: gap"].threshold == pytest.approx(0.9)
    assert "Guessing has a test accuracy of 10.00%." in by_about["random labels: gap"].sentence
    assert "does not explain the test accuracy of 80.00%." in by_about["capacity"].sentence
    assert "this bound says nothing" in by_about["capacity"].sentence
    assert by_about["capacity"].number == pytest.approx(1 + 3 * math.sqrt(math.log(40) / 2000))
    assert "one seed" in by_about["seeds"].sentence


def test_a_network_that_does_not_fit_leaves_capacity_unsettled():
    found = said(Shown(TRUE, (run(1.0),)), Shown(RANDOM, (run(None, 0.3),)))
    assert found["random labels: fit"] == (
        "net does not fit random labels: the training accuracy after 2 epochs is 30.00% on 1,000 images"
        " (threshold 99%)."
    )
    assert "random labels: time" not in found
    assert "does not settle" in found["capacity"]
    assert "does not explain" not in found["capacity"]
    assert "Equation 1" not in found["capacity"], "a complexity of at least 0 says nothing"


def test_a_fit_is_a_training_accuracy_of_at_least_the_threshold():
    almost = said(Shown(RANDOM, (run(0.9899),)))["random labels: fit"]
    assert "does not fit" in almost
    assert "98.99%" in almost
    assert "net fits" in said(Shown(RANDOM, (run(0.99),)))["random labels: fit"]


def test_a_run_that_fitted_only_in_an_earlier_epoch_does_not_fit():
    lost, kept = (run(0.995, 0.6),), (run(0.995, 0.998),)
    found = said(Shown(TRUE, kept), Shown(RANDOM, lost))
    assert "does not fit" in found["random labels: fit"]
    assert "random labels: time" not in found
    assert "random labels: time" not in said(Shown(TRUE, lost), Shown(RANDOM, kept))
    assert "random labels: time" in said(Shown(TRUE, kept), Shown(RANDOM, kept))


def test_true_labels_that_are_not_fitted_have_a_sentence_of_their_own():
    found = said(Shown(TRUE, (run(0.5),)), Shown(RANDOM, (run(0.2),)))
    assert "does not fit true labels" in found["true labels: fit"]


def test_several_seeds_are_counted_and_their_range_is_shown():
    true = Shown(TRUE, (run(0.99), run(None, 1.0)))
    random = Shown(RANDOM, (run(*[None] * 5, 0.995, test=0.1), run(*[None] * 7, 1.0, test=0.2)))
    found = said(true, random)
    assert "with each of 2 seeds: the training accuracy is 99.50% to 100.00%" in found["random labels: fit"]
    assert "in epochs 6 to 8." in found["random labels: fit"]
    time = "4.67 times as many epochs as true labels to reach 99%: 6 to 8 against 1 to 2"
    assert time in found["random labels: time"]
    assert "2 seeds" in found["seeds"]
    one_of_two = said(Shown(RANDOM, (run(1.0), run(0.4))))
    assert "fits random labels with 1 of 2 seeds" in one_of_two["random labels: fit"]
    assert "does not settle" in one_of_two["capacity"]


def test_the_sentence_for_seeds_of_which_none_fits_has_one_meaning():
    found = said(Shown(RANDOM, (run(0.3), run(None, 0.4))))["random labels: fit"]
    assert found == (
        "net fits random labels with none of 2 seeds: the training accuracy after 1 to 2 epochs is 30.00% to 40.00% on"
        " 1,000 images (threshold 99%)."
    )
    assert "after 1 epoch is" in said(Shown(RANDOM, (run(0.3),)))["random labels: fit"]


def test_seeds_that_diverged_are_among_those_that_do_not_fit():
    true, random = Shown(TRUE, (run(1.0), run(1.0))), Shown(RANDOM, (run(1.0),), diverged=1)
    found = said(true, random)
    assert "fits random labels with 1 of 2 seeds" in found["random labels: fit"]
    assert "does not settle" in found["capacity"]
    assert "random labels: time" not in found
    assert "2 seeds" in found["seeds"]
    assert "fits true labels with 1 of 2 seeds" in said(Shown(TRUE, (run(1.0),), 1), random)["true labels: fit"]


def test_without_a_test_set_there_is_no_gap_sentence():
    found = said(Shown(TRUE, (run(1.0, test=None),)), Shown(RANDOM, (run(1.0, test=None),)))
    assert not [about for about in found if "gap" in about]
    assert "So the capacity of net does not explain its generalization." in found["capacity"]


def test_other_conditions_have_their_own_sentences():
    found = said(Shown(TRUE, (run(1.0),)), Shown(HALF, (run(None, 1.0),)), Shown(SHUFFLED, (run(0.8),)))
    assert "labels random with probability 0.5" in found["labels random with probability 0.5: fit"]
    assert "Labels random with probability 0.5 take 2 times" in found["labels random with probability 0.5: time"]
    assert "does not fit shuffled pixels" in found["shuffled pixels: fit"]
    assert "capacity" not in found, "it is of random labels"


@pytest.mark.parametrize("classes", [2, 3, 4, 5])
def test_the_complexity_is_a_lower_bound_on_the_correlation_with_random_signs(classes):
    """Compares with all labels and predictions of three images, and the mean over a coin."""
    for labels, predicted in itertools.product(itertools.product(range(classes), repeat=3), repeat=2):
        accuracy = sum(a == b for a, b in zip(labels, predicted, strict=True)) / 3

        def sign(label: int, coin: int) -> int:
            return coin if label == classes - 1 and classes % 2 else 1 if label < classes // 2 else -1

        # Of an odd number of classes, the coin is thrown anew for each image with the last class as its label.
        correlation = sum(
            sum(sign(label, coin) * sign(guess, 1) for coin in (-1, 1)) / 2
            for label, guess in zip(labels, predicted, strict=True)
        )
        in_last = sum(label == classes - 1 for label in labels) if classes % 2 else 0
        share = (3 - in_last) / 3  # its mean over labels is (k - k mod 2) / k
        assert correlation / 3 >= share - 2 * (1 - accuracy) - 1e-12


def test_the_complexity_follows_its_formula():
    assert complexity_at_least(1.0, 10) == 1.0
    assert complexity_at_least(1.0, 3) == pytest.approx(2 / 3)
    assert complexity_at_least(0.75, 2) == 0.5
    assert complexity_at_least(0.4, 10) == 0.0


def test_the_epoch_to_fit_is_the_first_with_an_exact_accuracy_above_the_threshold():
    assert epoch_to_fit(run(None, 0.98, 0.991, 1.0)) == 3
    assert epoch_to_fit(run(None, 0.98)) is None


def test_rounding_never_hides_a_wrong_image():
    assert strict_percent(1.0) == percent(49_999 / 50_000) == "100.00%"
    assert strict_percent(49_999 / 50_000) == "99.99%"
    assert span([1, 1], whole) == "1"
    assert span([3, 1, 2], whole) == "1 to 3"
