"""Scores of examples, each a function of what a run kept of them (`--record_examples`).

A score is a number for each example. It has a suspicious end, at which wrong labels gather. To add a score, write its
function here under `@score`, or register it in your own file.

`Recorded` has rows of epochs and columns of examples. All scores are float64 (n,).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from rethinking import registry
from rethinking.errors import InputError, in_one_line, nearest
from rethinking.source import place_of
from rethinking.training.examples import Recorded

Scores = NDArray[np.float64]
EARLY = 10  # epochs after which EL2N is taken, of Paul et al.'s 10 to 20


@dataclass(frozen=True)
class Score:
    """One kind of score.

    name: in columns of tables
    suspicious: the end at which wrong labels gather, 'low' or 'high'
    source: where it is defined
    of: from what was kept to float64 (n,). `HELD_OUT` takes probabilities and labels instead
    """

    name: str
    suspicious: Literal["low", "high"]
    source: str
    of: Callable[..., Scores]

    def measured(self, kept: Recorded) -> Scores:
        """Returns the score of each example that a run kept, float64 (n,).

        Raises `InputError` where the function fails, or returns other than a number for each example.
        """
        try:
            found = np.asarray(self.of(kept), np.float64)
        except Exception as error:  # a user's function may raise anything
            raise InputError(f"the score {self.name} fails: {in_one_line(error)}{place_of(error)}") from error
        count = kept.loss.shape[1]
        if found.shape != (count,):
            raise InputError(f"the score {self.name} must have the shape ({count},), not {found.shape}")
        if np.isnan(found).any():
            raise InputError(f"the score {self.name} is nan for {np.isnan(found).sum():,} of {count:,} examples")
        return found

    def suspicion(self, scores: Scores) -> Scores:
        """Returns the scores with their sign turned so that the largest are the most suspicious."""
        return scores if self.suspicious == "high" else -scores

    def ranks(self, scores: Scores) -> Scores:
        """Returns ranks from 1, the most suspicious; equal scores share the mean of their ranks."""
        return np.asarray(stats.rankdata(-self.suspicion(scores)), np.float64)


SCORES: dict[str, Score] = {}


def score(name: str, suspicious: Literal["low", "high"], source: str) -> Callable[[Any], Any]:
    """Returns a decorator that adds a function to `SCORES`.

    Raises `InputError` for another end than 'low' and 'high', and for the name of one of the package's scores.
    """

    if suspicious not in ("low", "high"):
        raise InputError(f"the score {name} must be suspicious at its low or high end, not '{suspicious}'")

    def decorate(of: Callable[[Recorded], Scores]) -> Callable[[Recorded], Scores]:
        there = SCORES.get(name)
        if there is not None and there.of.__module__ == __name__:
            raise InputError(f"there is a score {name} already; choose another name")
        SCORES[name] = Score(name, suspicious, source, of)
        return of

    return decorate


def load(path: str) -> None:
    """Adds the score of a user's file, `FILE.py:FUNCTION`, to `SCORES`.

    Raises `InputError` where there is no such function, or no `@score` before it.
    """
    found = registry.load(path)
    if not any(known.of is found for known in SCORES.values()):
        raise InputError(f"{path} is no score of examples; put @score(...) before the function (docs/extending.md)")


def find(name: str, known: Mapping[str, Score] = SCORES) -> Score:
    """Returns the score of this name among the known ones. Raises `InputError` for an unknown name."""
    if name not in known:
        raise InputError(f"score must be one of {', '.join(known)}, not '{name}'{nearest(name, known)}")
    return known[name]


@score("area_under_margin", "low", "Pleiss et al. 2020 (arXiv:2001.10528)")
def area_under_margin(kept: Recorded) -> Scores:
    """Returns the margin's mean over all epochs: the logit of the label minus the largest other logit.

    A wrong label has to be learnt against the rule that other images support, so its margin stays small for long.
    """
    return np.asarray(kept.margin.mean(axis=0, dtype=np.float64))


@score("forgetting_events", "high", "Toneva et al. 2019 (arXiv:1812.05159)")
def forgetting_events(kept: Recorded) -> Scores:
    """Returns how often an example was right in one epoch and wrong in the next; infinite where it was never right."""
    forgotten = (kept.correct[:-1] & ~kept.correct[1:]).sum(axis=0)
    return np.where(kept.correct.any(axis=0), forgotten, np.inf)


@score("first_learned", "high", "Toneva et al. 2019 (arXiv:1812.05159)")
def first_learned(kept: Recorded) -> Scores:
    """Returns the first epoch, counted from 1, in which an example was right; infinite where it never was."""
    return np.where(kept.correct.any(axis=0), kept.correct.argmax(axis=0) + 1.0, np.inf)


@score("confidence", "low", "Swayamdipta et al. 2020 (arXiv:2009.10795)")
def confidence(kept: Recorded) -> Scores:
    """Returns the mean over epochs of the label's probability."""
    return np.asarray(_probabilities(kept).mean(axis=0))


@score("variability", "high", "Swayamdipta et al. 2020 (arXiv:2009.10795)")
def variability(kept: Recorded) -> Scores:
    """Returns the standard deviation over epochs of the label's probability, with the number of epochs below.

    It tells ambiguous examples from the others. Wrong labels with a low probability throughout have a low one too.
    """
    return np.asarray(_probabilities(kept).std(axis=0))


@score("el2n", "high", "Paul et al. 2021 (arXiv:2107.07075)")
def el2n(kept: Recorded, epoch: int = EARLY) -> Scores:
    """Returns the distance of the probabilities from the one-hot label in epoch 10, or in a shorter run's last epoch.

    The distance is the Euclidean one. The source evaluates ten networks early in training and takes the mean, as
    `mean_over_runs` does.
    """
    return np.asarray(kept.error_norm[min(epoch, len(kept.error_norm)) - 1], np.float64)


@score("last_loss", "high", "Han et al. 2018 (arXiv:1804.06872)")
def last_loss(kept: Recorded) -> Scores:
    """Returns the loss of the last epoch, in nats."""
    return np.asarray(kept.loss[-1], np.float64)


def of_held_out(probabilities: NDArray[np.float32], labels: NDArray[np.int64]) -> Scores:
    """Returns the label's probability by networks that were not trained on the example (cross-validation).

    probabilities: float32 (n, classes)
    labels: int64 (n,)
    """
    return probabilities[np.arange(len(labels)), labels].astype(np.float64)


HELD_OUT = Score("held_out_confidence", "low", "Northcutt et al. 2021 (arXiv:1911.00068)", of_held_out)


def _probabilities(kept: Recorded) -> Scores:
    """Returns the label's probability in each epoch, which is exp(-loss)."""
    return np.asarray(np.exp(-kept.loss.astype(np.float64)))


def mean_over_runs(each: Sequence[Scores]) -> Scores:
    """Returns the mean over runs, such as seeds. An example that is infinite in one run is infinite.

    nan stands for an example that a run was not trained on; the mean is over the other runs.
    """
    return np.asarray(np.nanmean(each, axis=0))


def consistency(each: Sequence[Scores]) -> float:
    """Returns Spearman's rank correlation between runs, the mean over all pairs.

    It is taken over the examples that both runs were trained on; nan stands for the others. A pair in which all
    examples have one score says nothing, and is left out. Without any pair it is nan.
    """
    pairs = []
    for one, other in itertools.combinations(each, 2):
        both = ~(np.isnan(one) | np.isnan(other))
        first, second = one[both], other[both]
        if len(first) and (first != first[0]).any() and (second != second[0]).any():
            pairs.append(stats.spearmanr(first, second).statistic)
    return float(np.mean(pairs)) if pairs else float("nan")
