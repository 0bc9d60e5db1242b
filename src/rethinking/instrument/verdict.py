"""The verdict of a randomization test: what its runs show, in sentences with their numbers and thresholds.

Pure functions of numbers. Why a network did not fit its labels is in `causes`.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import NamedTuple

from rethinking.instrument.conditions import RANDOM, TRUE, Condition
from rethinking.theory.rademacher import DELTA, gap_bound
from rethinking.training.run_dir import Record

FITS = 0.99  # exact training accuracy; of Table 1's networks that fit random labels the least has 99.34%

GUESS = 1.2  # times the accuracy of a guess, below which a test accuracy shows nothing learnt


class Finding(NamedTuple):
    """about: what it is of; number: the one that the sentence rests on, and threshold: what it is compared with

    command: what to try next; causes_of: the condition, in words, whose causes are said after it
    """

    about: str
    sentence: str
    number: float | None = None
    threshold: float | None = None
    command: str = ""
    causes_of: str = ""


class Shown(NamedTuple):
    """What one condition's runs show, one list of records, an epoch each, for every seed.

    diverged: number of further seeds, whose loss was not finite and which have no numbers
    """

    condition: Condition
    metrics: tuple[Sequence[Record], ...]
    diverged: int = 0

    @property
    def seeds(self) -> int:
        return len(self.metrics) + self.diverged

    @property
    def train_accuracies(self) -> list[float]:
        """After the last epoch, as of `train_accuracy`."""
        return [train_accuracy(records[-1]) for records in self.metrics]

    @property
    def test_accuracies(self) -> list[float]:
        """After the last epoch; empty where there is no test set."""
        last = [records[-1]["test_accuracy"] for records in self.metrics]
        return [accuracy for accuracy in last if accuracy is not None] if None not in last else []

    @property
    def epochs(self) -> list[int]:
        return [len(records) for records in self.metrics]

    @property
    def epochs_to_fit(self) -> list[int | None]:
        """The first epoch of each seed with an exact training accuracy of `FITS`."""
        return [epoch_to_fit(records) for records in self.metrics]

    @property
    def fits(self) -> bool:
        """Whether every seed's last epoch does."""
        return not self.diverged and min(self.train_accuracies) >= FITS


def train_accuracy(record: Record) -> float:
    """Of an epoch, exact; online where a run was interrupted before that was measured."""
    exact: float | None = record["exact_train_accuracy"]
    return record["train_accuracy"] if exact is None else exact


def epoch_to_fit(records: Sequence[Record]) -> int | None:
    """The first epoch whose exact training accuracy reached `FITS`; None where none did."""
    return next((record["epoch"] for record in records if (record["exact_train_accuracy"] or 0.0) >= FITS), None)


def verdict(network: str, shown: Sequence[Shown], images: int, classes: int) -> list[Finding]:
    """The findings on conditions with at least one finished epoch, each of them in `shown` once.

    images: of the training set; classes: of the data
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
    """Whether it fits the labels of a condition."""
    reached, words, first = shown.train_accuracies, shown.condition.words, shown.epochs_to_fit
    lowest = min(reached)
    fitted = sum(accuracy >= FITS for accuracy in reached)
    seeds = shown.seeds
    about = f"{words}: fit"
    plural = " epoch" if max(shown.epochs) == 1 else " epochs"
    accuracies = f"{span(reached, percent)} of {images:,} training images"
    each, none = (f" with {word} of {seeds} seeds" if seeds > 1 else "" for word in ("each", "none"))
    if fitted == seeds:
        epochs = [epoch for epoch in first if epoch is not None]
        when = f", and {FITS:.0%}, the threshold, by epoch {span(epochs, whole)}" if len(epochs) == seeds else ""
        sentence = f"{network} fits {words}{each}: it learns {accuracies}{when}."
    elif fitted:
        sentence = (
            f"{network} fits {words} with {fitted} of {seeds} seeds: it learns {accuracies} (threshold {FITS:.0%})."
        )
    else:
        sentence = (
            f"{network} {'fits' if none else 'does not fit'} {words}{none} in {span(shown.epochs, whole)}{plural}:"
            f" it learns {accuracies} (threshold {FITS:.0%})."
        )
    return Finding(about, sentence, lowest, FITS, causes_of=words)


def duration(shown: Shown, true: Shown | None) -> list[Finding]:
    """How much longer fitting took than with true labels; nothing where one of both was not fitted."""
    if true is None or not (shown.fits and true.fits):
        return []
    epochs, baseline = ([e for e in one.epochs_to_fit if e is not None] for one in (shown, true))
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
    """Training less test accuracy of one or two conditions, beside a guess."""
    measured = [one for one in (first, second) if one is not None and one.test_accuracies]
    findings = []
    for one in measured:
        train, test = one.train_accuracies, one.test_accuracies
        points = [100 * (a - b) for a, b in zip(train, test, strict=True)]
        words = one.condition.words
        sentence = (
            f"With {words} the gap between training and test accuracy is {span(points, decimal)} points:"
            f" {span(train, percent)} less {span(test, percent)}."
        )
        guessed = None
        if one.condition.key == RANDOM:
            sentence = f"{sentence[:-1]}, where a guess is right for {1 / classes:.2%}."
            guessed = 1 - 1 / classes  # of a network that learns all training images, and of others nothing
        findings.append(Finding(f"{words}: gap", sentence, statistics.mean(points) / 100, guessed))
    return findings


def capacity(network: str, random: Shown, true: Shown | None, images: int, classes: int) -> Finding:
    """What fitting random labels implies for capacity as an explanation (Section 2.2, Equation 1)."""
    complexity = statistics.mean(complexity_at_least(accuracy, classes) for accuracy in random.train_accuracies)
    bound = gap_bound(complexity, images)
    draws = "one draw" if len(random.metrics) == 1 else f"the mean of {len(random.metrics)} draws"
    equation = (
        f" By Equation 1 the empirical Rademacher complexity of its two-class functions on these images is at least"
        f" {complexity:.3f} (from {draws} of labels), so what bounds their gap with probability {1 - DELTA:.0%} is at"
        f" least {bound:.2f}."
    )
    if random.fits:
        tested = true.test_accuracies if true else []
        explained = f" the {span(tested, percent)} on test images" if tested else " how it generalizes"
        if tested and statistics.mean(tested) < GUESS / classes:
            explained = (
                f" how it generalizes, of which {span(tested, percent)} on test images, near a guess, show little"
            )
        ends = " No gap is larger than 1: such a bound says nothing." if bound >= 1 else ""
        sentence = (
            "The same network, trained in the same way, fits labels that say nothing of its images. Its capacity does"
            f" not explain{explained}.{equation}{ends}"
        )
    else:
        sentence = (
            f"This test does not settle whether its capacity explains how it generalizes: {network} was not seen to fit"
            f" random labels."
        )
        if complexity > 0:
            sentence += f"{equation} Both may be larger: training finds a lower bound."
    return Finding("capacity", sentence, bound, 1.0)


def complexity_at_least(accuracy: float, classes: int) -> float:
    """A lower bound on Equation 1's R_n from one draw of random labels of which a network has learnt a share.

    Half of the classes as +1 and half as -1 make random signs of the labels and a function to +1 and -1 of the network.
    The two agree where the network has the label. Of an odd number of classes one has signs of its own, a coin's,
    whose mean correlation with any function is 0. So the correlation is at least (k - k mod 2) / k - 2 (1 - accuracy),
    of k classes. It is never below 0, which a constant function reaches in the mean.
    """
    return max(0.0, (classes - classes % 2) / classes - 2 * (1 - accuracy))


def spread(shown: Sequence[Shown]) -> Finding:
    """How many seeds there were, and so what is known of their spread."""
    seeds = min(one.seeds for one in shown)
    if seeds == 1:
        sentence = "These are numbers of one seed; how much they vary from seed to seed is not known."
    else:
        sentence = f"These are numbers of {seeds} seeds, each with random draws of its own."
    return Finding("seeds", sentence, float(seeds))


# Numbers in words


def span(values: Sequence[float], written: Callable[[float], str]) -> str:
    """The least and the largest of several values, or the one that there is."""
    least, largest = written(min(values)), written(max(values))
    return least if least == largest else f"{least} to {largest}"


def percent(value: float) -> str:
    """Rounded down where rounding would say that all are right."""
    text = f"{value:.2%}"
    return "99.99%" if text == "100.00%" and value < 1 else text


def whole(value: float) -> str:
    return f"{value:,.0f}"


def epochs_in_words(value: float) -> str:
    return "1 epoch" if value == 1 else f"{value:,.0f} epochs"


def decimal(value: float) -> str:
    return f"{value:.2f}"
