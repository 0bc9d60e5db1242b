"""Training within a budget of time: every run the same share, and what one leaves goes to the others."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from rethinking.config import ExperimentConfig
from rethinking.errors import InputError, RunError
from rethinking.training import RunResult, find, train_many
from rethinking.training.preparation import Observe

UNITS = {"s": 1, "m": 60, "h": 3600}
SPENT = 0.99  # of a budget, from where on it counts as spent

Outcome = RunResult | RunError


def seconds_of(budget: str | float | None) -> float:
    """Seconds in '10m', '1h30m' or '90' (seconds); infinite for None or 'none'. Raises `InputError`."""
    if budget is None or budget == "none":
        return math.inf
    text = str(budget).strip().lower()
    parts = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s?)?", text)
    seconds = (
        sum(float(part or 0) * unit for part, unit in zip(parts.groups(), (3600, 60, 1), strict=True)) if parts else 0
    )
    if not seconds:
        raise InputError(f"budget takes a time such as 90s, 10m, 1h30m, or none, not '{budget}'")
    return seconds


def train_within(
    configs: Sequence[ExperimentConfig], budget: float, observe: Observe = tuple
) -> dict[ExperimentConfig, Outcome]:
    """Every run as far as `budget` allows, in seconds of training, those of earlier sittings and of all runs together.

    A run that fails has its error. Asked again with the same budget, nothing is trained. Raises `InputError` where data
    and options do not fit.
    """
    outcomes: dict[ExperimentConfig, Outcome | None] = dict(zip(configs, map(_found, configs), strict=True))
    while True:
        left = [config for config in configs if not _is_over(outcomes[config])]
        spent = {config: _seconds(outcomes[config]) for config in configs}
        if not left or (sum(spent.values()) >= SPENT * budget and all(outcomes.values())):
            break
        limit = level([spent[config] for config in left], budget - sum(spent.values()))
        for config, outcome in train_many(left, at_once=None, seconds=limit, observe=observe, progress=False):
            if isinstance(outcome, Exception) and not isinstance(outcome, RunError):
                raise outcome
            outcomes[config] = outcome
    return {config: outcome for config, outcome in outcomes.items() if outcome is not None}


def level(spent: Sequence[float], left: float) -> float:
    """The seconds that each run comes to when `left` seconds are shared so that those that had least get most.

    It is the level of water poured into vessels of these heights.
    """
    if math.isinf(left):
        return left
    heights = sorted(spent)
    for number in range(len(heights), 0, -1):
        poured = (left + sum(heights[:number])) / number
        if poured >= heights[number - 1]:
            return poured
    raise AssertionError("the lowest vessel alone takes whatever is poured")


def _found(config: ExperimentConfig) -> Outcome | None:
    try:
        return find(config)
    except RunError as error:
        return error


def _is_over(outcome: Outcome | None) -> bool:
    return isinstance(outcome, RunError) or (outcome is not None and outcome.finished)


def _seconds(outcome: Outcome | None) -> float:
    return outcome.result["seconds"] if isinstance(outcome, RunResult) else 0.0
