"""Conditions of a randomization test: true labels, random labels or randomized pixels (Section 2.1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from rethinking.data import operators
from rethinking.errors import InputError, nearest

TRUE, RANDOM = "true", "random"  # the keys of the default conditions
PIXELS = ("shuffled", "random", "gaussian")


class Condition(NamedTuple):
    """A condition that a network is trained on.

    key: its name among the options and in a report, such as 'random' or '0.5'
    words: its name in a sentence, such as 'random labels'
    options: the fields of `ExperimentConfig` that make it
    """

    key: str
    words: str
    options: dict[str, Any]


def conditions(labels: Sequence[str | float], pixels: Sequence[str]) -> tuple[Condition, ...]:
    """Returns the conditions of these names, labels first.

    labels: each 'true', 'random', a probability that a label is random, or the path of the user's own operator
    pixels: each 'shuffled', 'random', 'gaussian', or the path of the user's own operator

    Raises `InputError` for an unknown name, for a name that is given twice, and without any name.
    """
    chosen = [*(of_labels(word) for word in labels), *(of_pixels(word) for word in pixels)]
    if not chosen:
        raise InputError("labels and pixels are both empty; the default is --labels true random")
    keys = [condition.key for condition in chosen]
    if twice := next((key for key in keys if keys.count(key) > 1), None):
        raise InputError(f"'{twice}' is given twice; leave one out")
    words = [condition.words for condition in chosen]  # operators in two files can have the same name
    return tuple(
        condition._replace(words=f"{condition.words} ({condition.key})")
        if words.count(condition.words) > 1
        else condition
        for condition in chosen
    )


def of_labels(word: str | float) -> Condition:
    """Returns the condition of one of the `labels` of `conditions`.

    Raises `InputError` for an unknown name.
    """
    if word == TRUE or _probability(word) == 0:
        return Condition(TRUE, "true labels", {"randomization": "none"})
    if word == RANDOM or _probability(word) == 1:
        return Condition(RANDOM, "random labels", {"randomization": "random_labels"})
    probability = _probability(word)
    if probability is not None:
        options = {"randomization": "partial_corrupt", "corruption_prob": probability}
        return Condition(f"{probability:g}", f"labels random with probability {probability:g}", options)
    return _own("labels", str(word), (TRUE, RANDOM, "a probability such as 0.5"))


def of_pixels(word: str) -> Condition:
    """Returns the condition of one of the `pixels` of `conditions`.

    Raises `InputError` for an unknown name.
    """
    plain = str(word).removesuffix("_pixels")
    if plain in PIXELS:
        words = "Gaussian pixels" if plain == "gaussian" else f"{plain} pixels"
        return Condition(f"{plain}_pixels", words, {"randomization": f"{plain}_pixels"})
    return _own("pixels", str(word), PIXELS)


def _probability(word: str | float) -> float | None:
    """Returns the probability; None for text that is no number.

    Raises `InputError` for a number outside 0 to 1.
    """
    try:
        value = float(word)
    except ValueError:
        return None
    if not 0 <= value <= 1:
        raise InputError(f"labels must be a probability from 0 to 1, not {word}")
    return value


def _own(option: str, word: str, known: Sequence[str]) -> Condition:
    """Returns the condition of the user's own operator, by its path or its registered name."""
    if ":" not in word and (word in operators.OWN or word not in operators.OPERATORS.names):
        raise InputError(f"{option} must be {', '.join(known)} or FILE.py:CLASS, not '{word}'{nearest(word, known)}")
    operator = operators.create(word, None, {})
    if not (operator.corrupts_labels if option == "labels" else operator.changes_pixels):
        raise InputError(f"{word} changes no {option} of the data's classes")
    return Condition(word, f"{option} of {word.rpartition(':')[2]}", {"randomization": word})
