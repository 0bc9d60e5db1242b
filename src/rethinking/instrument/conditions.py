"""What a network is trained on in a randomization test: true labels, random ones, randomized pixels (Section 2.1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from rethinking.data import operators
from rethinking.errors import InputError, nearest

TRUE, RANDOM = "true", "random"  # the keys of the two that are trained on by default
PIXELS = ("shuffled", "random", "gaussian")


class Condition(NamedTuple):
    """key: as it is asked for, and found in a report; words: in a sentence; options: of `ExperimentConfig`"""

    key: str
    words: str
    options: dict[str, Any]


def conditions(labels: Sequence[str | float], pixels: Sequence[str]) -> tuple[Condition, ...]:
    """Those that are asked for, labels first. Raises `InputError` for unknown ones, and where one is asked for twice.

    labels: 'true', 'random', a probability that a label is random, or the path of somebody's own operator
    pixels: 'shuffled', 'random', 'gaussian', or such a path
    """
    asked = [*(of_labels(word) for word in labels), *(of_pixels(word) for word in pixels)]
    if not asked:
        raise InputError("labels and pixels are both empty; the default is labels true random")
    keys = [condition.key for condition in asked]
    if twice := next((key for key in keys if keys.count(key) > 1), None):
        raise InputError(f"'{twice}' is asked for twice")
    words = [condition.words for condition in asked]  # of operators in two files they can be the same
    return tuple(
        condition._replace(words=f"{condition.words} ({condition.key})")
        if words.count(condition.words) > 1
        else condition
        for condition in asked
    )


def of_labels(word: str | float) -> Condition:
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
    plain = str(word).removesuffix("_pixels")
    if plain in PIXELS:
        words = "Gaussian pixels" if plain == "gaussian" else f"{plain} pixels"
        return Condition(f"{plain}_pixels", words, {"randomization": f"{plain}_pixels"})
    return _own("pixels", str(word), PIXELS)


def _probability(word: str | float) -> float | None:
    """None for what is no number. Raises `InputError` for a number that is no probability."""
    try:
        value = float(word)
    except ValueError:
        return None
    if not 0 <= value <= 1:
        raise InputError(f"labels takes a probability from 0 to 1, not {word}")
    return value


def _own(option: str, word: str, known: Sequence[str]) -> Condition:
    """Somebody's own operator, by its path or the name that it is registered with."""
    if ":" not in word and (word in operators.OWN or word not in operators.OPERATORS.names):
        raise InputError(f"{option} takes {', '.join(known)} or FILE.py:CLASS, not '{word}'{nearest(word, known)}")
    operator = operators.create(word, None, {})
    if not (operator.corrupts_labels if option == "labels" else operator.changes_pixels):
        raise InputError(f"{word} changes no {option} of the data's classes")
    return Condition(word, f"{option} of {word.rpartition(':')[2]}", {"randomization": word})
