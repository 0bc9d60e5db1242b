"""Trains runs within a budget of time, which they share equally; time that one run leaves goes to the others."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from rethinking import files
from rethinking.config import ExperimentConfig
from rethinking.engines.here import wait_for_others
from rethinking.engines.many import train_many
from rethinking.errors import BusyError, DivergedError, RunError
from rethinking.training import RunResult, find
from rethinking.training.preparation import Observe, PlannedRun

SPENT = 0.99  # share of a budget, from which on the budget counts as spent
DIVERGED = "diverged.json"  # in a run's folder: the error of a loss that was not finite

Outcome = RunResult | RunError


def train_within(
    configs: Sequence[ExperimentConfig], budget: float, observe: Observe = tuple
) -> dict[ExperimentConfig, Outcome]:
    """Trains every run as far as the budget allows, and returns the result or the error of each.

    budget: seconds of training of all runs together, including the seconds of earlier calls

    A second call with the same budget trains nothing: `DIVERGED` notes a loss that was not finite. A run that another
    process trains is waited for. Raises `InputError` where data and options do not fit together.
    """
    outcomes = found_of(configs)
    pause = 0.0
    while True:
        left, seconds = to_train(outcomes, budget)
        if not left:
            break
        busy = []
        limit = level([_seconds(outcomes[config]) for config in left], seconds)
        for config, outcome in train_many(left, at_once=None, seconds=limit, observe=observe, progress=False):
            if isinstance(outcome, BusyError):
                busy.append(config)
                continue
            if isinstance(outcome, Exception) and not isinstance(outcome, RunError):
                raise outcome
            if isinstance(outcome, DivergedError):
                files.write_json(_divergence_of(config), {"error": str(outcome)})
            outcomes[config] = outcome
        if busy:
            pause = wait_for_others(pause, len(busy))
            outcomes |= found_of(busy)
    return {config: outcome for config, outcome in outcomes.items() if outcome is not None}


def found_of(configs: Sequence[ExperimentConfig]) -> dict[ExperimentConfig, Outcome | None]:
    """Returns what each run has reached so far: a result, an error, or None before its first finished epoch."""
    return dict(zip(configs, map(_found, configs), strict=True))


def to_train(
    outcomes: Mapping[ExperimentConfig, Outcome | None], budget: float
) -> tuple[list[ExperimentConfig], float]:
    """Returns the runs that are not over, or none if the budget is spent, and the seconds that are left.

    budget: seconds
    """
    spent = sum(map(_seconds, outcomes.values()))
    left = [config for config, outcome in outcomes.items() if not _is_over(outcome)]
    is_spent = spent >= SPENT * budget and all(outcomes.values())
    return [] if is_spent else left, max(0.0, budget - spent)


def level(spent: Sequence[float], left: float) -> float:
    """Returns the seconds that each run may reach when `left` seconds are shared.

    spent: seconds of each run so far

    The runs with the fewest seconds get the most. The result is the level of water poured into vessels of these
    heights.
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
        found = find(config)
        note = None if found and found.finished else files.read_json(_divergence_of(config), "delete that file")
        return DivergedError(note.get("error", "")) if note else found
    except RunError as error:
        return error


def _divergence_of(config: ExperimentConfig) -> Path:
    return PlannedRun.of(config).folder.path / DIVERGED


def _is_over(outcome: Outcome | None) -> bool:
    return isinstance(outcome, RunError) or (outcome is not None and outcome.finished)


def _seconds(outcome: Outcome | None) -> float:
    return outcome.result["seconds"] if isinstance(outcome, RunResult) else 0.0
