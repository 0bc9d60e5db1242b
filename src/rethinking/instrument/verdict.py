"""The verdict of a randomization test: sentences about its runs, each with its number and its threshold.

All functions here are pure functions of numbers. `causes` explains why a network did not fit its labels.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import NamedTuple

from rethinking.experiments.quantities import decimals, percent, whole
from rethinking.instrument.conditions import RANDOM, TRUE, Condition
from rethinking.theory.rademacher import DELTA, gap_bound
from rethinking.training.run_dir import Record

FITS = 0.99  # exact training accuracy; the lowest of Table 1's networks that fit random labels is 99.34%

GUESS = 1.2  # times the accuracy of guessing; a test accuracy below it shows nothing learnt


class Finding(NamedTuple):
    """One statement of the verdict, with the number that it rests on.

    about: the condition and the question, such as 'random labels: fit'; or 'capacity' or 'seeds'
    sentence: the statement, one or more English sentences
    number: the number that the statement rests on, None where it has none
    threshold: the value that `number` is compared with, None where it has none
    command: the command to try next, '' where there is none
    causes_of: the condition, in words, whose causes follow this finding, or ''
    """

    about: str
    sentence: str
    number: float | None = None
    threshold: float | None = None
    command: str = ""
    causes_of: str = ""


class Shown(NamedTuple):
    """The runs of one condition.

    metrics: a list of records for each seed, one record an epoch
    diverged: number of further seeds whose loss was not finite; they have no records
    """

    condition: Condition
    metrics: tuple[Sequence[Record], ...]
    diverged: int = 0

    @property
    def seeds(self) -> int:
        """Number of seeds, including those that diverged."""
        return len(self.metrics) + self.diverged

    @property
    def train_accuracies(self) -> list[float]:
        """The training accuracy of each seed after its last epoch, from 0 to 1 (see `train_accuracy`)."""
        return [train_accuracy(records[-1]) for records in self.metrics]

    @property
    def test_accuracies(self) -> list[float]:
        """The test accuracy of each seed after its last epoch, from 0 to 1; empty without a test set."""
        last = [records[-1]["test_accuracy"] for records in self.metrics]
        return [accuracy for accuracy in last if accuracy is not None] if None not in last else []

    @property
    def epochs(self) -> list[int]:
        """The number of epochs of each seed."""
        return [len(records) for records in self.metrics]

    @property
    def epochs_to_fit(self) -> list[int | None]:
        """The first epoch of each seed whose exact training accuracy is at least `FITS`; None where no epoch's is."""
        return [epoch_to_fit(records) for records in self.metrics]

    @property
    def fits(self) -> bool:
        """Whether no seed diverged and each has a training accuracy of at least `FITS` after its last epoch."""
        return not self.diverged and min(self.train_accuracies) >= FITS


def train_accuracy(record: Record) -> float:
    """Returns the exact training accuracy of an epoch, from 0 to 1.

    An interrupted run may lack the exact accuracy; then this is the online accuracy of its last epoch.
    """
    exact: float | None = record["exact_train_accuracy"]
    online: float = record["train_accuracy"]
    return online if exact is None else exact


def epoch_to_fit(records: Sequence[Record]) -> int | None:
    """Returns the first epoch whose exact training accuracy is at least `FITS`; None where no epoch's is."""
    return next((record["epoch"] for record in records if (record["exact_train_accuracy"] or 0.0) >= FITS), None)


def verdict(network: str, shown: Sequence[Shown], images: int, classes: int) -> list[Finding]:
    """Returns the findings about all conditions, in the order in which a reader needs them (Section 2).

    network: its name in the sentences
    shown: the conditions, each once and with at least one finished epoch
    images: number of training images
    classes: number of classes
    """
    by_key = {one.condition.key: one for one in shown}
    true, random = by_key.get(TRUE), by_key.get(RANDOM)
    findings = [fitting(network, random, images)] if random else []
    findings += [fitting(network, true, images)] if true and (not true.fits or not random) else []
    if random and true:
        findings += duration(random, true)
    findings += gap(true, random, classes)
    if random:
        findings.append(capacity(network, random, true, images, classes))
    for one in shown:
        if one not in (true, random):
            findings += [fitting(network, one, images), *duration(one, true), *gap(one, None, classes)]
    return [*findings, spread(shown)]


def fitting(network: str, shown: Shown, images: int) -> Finding:
    """Says whether the network fits the labels of a condition: a training accuracy of at least `FITS`."""
    words, seeds, reached = shown.condition.words, shown.seeds, shown.train_accuracies
    fitted = sum(accuracy >= FITS for accuracy in reached)
    if seeds == 1:
        whether = f"{network} {'fits' if fitted else 'does not fit'} {words}"
    else:
        count = {0: "none", seeds: "each"}.get(fitted, str(fitted))
        whether = f"{network} fits {words} with {count} of {seeds} seeds"
    first = [epoch for epoch in shown.epochs_to_fit if epoch is not None]
    threshold = f" (threshold {FITS:.0%})."
    if fitted == len(first) == seeds:
        epoch = "epoch" if min(first) == max(first) else "epochs"
        threshold = f", and first reached the threshold of {FITS:.0%} in {epoch} {span(first, whole)}."
    after = "" if fitted else f" after {span(shown.epochs, whole)} {'epoch' if max(shown.epochs) == 1 else 'epochs'}"
    sentence = (
        f"{whether}: the training accuracy{after} is {span(reached, strict_percent)} on {images:,} images{threshold}"
    )
    return Finding(f"{words}: fit", sentence, min(reached), FITS, causes_of=words)


def duration(shown: Shown, true: Shown | None) -> list[Finding]:
    """Compares the mean epochs to fit a condition with those to fit true labels; empty where either does not fit."""
    if true is None or not (shown.fits and true.fits):
        return []
    epochs, baseline = ([epoch for epoch in one.epochs_to_fit if epoch is not None] for one in (shown, true))
    if len(epochs) < shown.seeds or len(baseline) < true.seeds:
        return []
    factor = statistics.mean(epochs) / statistics.mean(baseline)
    words, times = shown.condition.words, f"{factor:.3g}"
    how_many = "as many" if times == "1" else f"{times} times as many"
    sentence = (
        f"{words[:1].upper()}{words[1:]} take {how_many} epochs as true labels to reach {FITS:.0%}:"
        f" {span(epochs, whole)} against {span(baseline, whole)}."
    )
    return [Finding(f"{words}: time", sentence, factor, 1.0)]


def gap(first: Shown | None, second: Shown | None, classes: int) -> list[Finding]:
    """States the generalization gap of one or two conditions: training minus test accuracy, a mean over seeds.

    Its threshold is 1 - 1/classes for random labels, the expected gap of a network that fits all of them.
    """
    measured = [one for one in (first, second) if one is not None and one.test_accuracies]
    findings = []
    for one in measured:
        train, test = one.train_accuracies, one.test_accuracies
        points = [100 * (a - b) for a, b in zip(train, test, strict=True)]
        words = one.condition.words
        sentence = (
            f"The generalization gap with {words} is {span(points, decimals(2))} percentage points:"
            f" {span(train, strict_percent)} training minus {span(test, strict_percent)} test accuracy."
        )
        expected = None
        if one.condition.key == RANDOM:
            sentence += f" Guessing has a test accuracy of {1 / classes:.2%}."
            expected = 1 - 1 / classes
        findings.append(Finding(f"{words}: gap", sentence, statistics.mean(points) / 100, expected))
    return findings


def capacity(network: str, random: Shown, true: Shown | None, images: int, classes: int) -> Finding:
    """States what the fit of random labels says about capacity as an explanation (Section 2.2, Equation 1).

    Its number is a lower bound on Equation 1's bound on the generalization gap. Its threshold is 1: a larger bound
    says nothing.
    """
    complexity = statistics.mean(complexity_at_least(accuracy, classes) for accuracy in random.train_accuracies)
    bound = gap_bound(complexity, images)
    draws = "one draw" if len(random.metrics) == 1 else f"the mean of {len(random.metrics)} draws"
    equation = (
        f" The empirical Rademacher complexity (Equation 1) of the two-class functions of {network} on these images is"
        f" at least {complexity:.3f}, from {draws} of labels. So the bound on the generalization gap of these"
        f" functions, at a confidence of {1 - DELTA:.0%}, is at least {bound:.2f}."
    )
    if not random.fits:
        sentence = (
            f"This test does not settle whether the capacity of {network} explains its generalization, because"
            f" {network} did not fit random labels."
        )
        if complexity > 0:
            sentence += f"{equation} Both numbers may be larger, because training finds only a lower bound."
        return Finding("capacity", sentence, bound, 1.0)
    tested = true.test_accuracies if true else []
    explained = f"the test accuracy of {span(tested, strict_percent)}." if tested else "its generalization."
    if tested and statistics.mean(tested) < GUESS / classes:
        explained = (
            f"its generalization. The test accuracy of {span(tested, strict_percent)} is close to guessing and shows"
            " little generalization."
        )
    vacuous = " No gap is larger than 1, so this bound says nothing." if bound >= 1 else ""
    sentence = (
        "The same network, trained in the same way, fits labels that say nothing about the images. So the capacity"
        f" of {network} does not explain {explained}{equation}{vacuous}"
    )
    return Finding("capacity", sentence, bound, 1.0)


def complexity_at_least(accuracy: float, classes: int) -> float:
    """Returns a lower bound on Equation 1's R_n, from one draw of random labels and a training accuracy on them.

    Half of the classes count as +1 and half as -1. So random labels become random signs, and the network becomes a
    function to +1 and -1. Both agree on each image whose label the network gives. With an odd number of classes, one
    class has random signs of its own, and their mean correlation with any function is 0. So for k classes the
    correlation is at least (k - k mod 2) / k - 2 (1 - accuracy). It is never below 0, which a constant function
    reaches in the mean.
    """
    return max(0.0, (classes - classes % 2) / classes - 2 * (1 - accuracy))


def spread(shown: Sequence[Shown]) -> Finding:
    """States the number of seeds, the smallest of all conditions."""
    seeds = min(one.seeds for one in shown)
    if seeds == 1:
        sentence = "All numbers come from one seed, so their variation over seeds is not known."
    else:
        sentence = f"All numbers come from {seeds} seeds, each with its own random draws."
    return Finding("seeds", sentence, float(seeds))


# Numbers in words


def span(values: Sequence[float], written: Callable[[float], str]) -> str:
    """Writes the smallest and the largest value, as '1 to 3', or one of them where both read the same."""
    smallest, largest = written(min(values)), written(max(values))
    return smallest if smallest == largest else f"{smallest} to {largest}"


def strict_percent(value: float) -> str:
    """Writes a share as a percentage; unlike `percent`, it writes 100.00% only for exactly 1."""
    text = percent(value)
    return "99.99%" if text == "100.00%" and value < 1 else text


def epochs_in_words(value: float) -> str:
    """Writes a number of epochs, as '1 epoch' or '1,000 epochs'."""
    return "1 epoch" if value == 1 else f"{whole(value)} epochs"
