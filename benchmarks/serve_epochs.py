"""Serves `against_commit.py` and `against_jax.py`: times epochs or evaluations for each line on standard input.

PYTHONPATH names the `benchmarks` and `src` folders of the checkout that is measured.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from workload import Machine, epoch_seconds, runs_at_work, seconds

from rethinking.config import ExperimentConfig
from rethinking.training.evaluation import evaluate
from rethinking.training.loggers import Observer
from rethinking.training.loop import step_of


def main(model: str, precision: str) -> None:
    """Prints what it is in a line of JSON, then the mean seconds for each line `epoch LEAST` or `evaluate LEAST`."""
    machine = Machine.here()
    if precision != "auto":
        machine = replace(machine, precision=precision)
    (run,) = runs = runs_at_work(ExperimentConfig(model_name=model), machine)
    step = step_of(runs)
    watching: list[Observer] = []

    def timed(what: str) -> float:
        if what == "evaluate":
            return seconds(lambda: evaluate(run.model, run.train_batches, run.autocast), machine.device)
        took = epoch_seconds(step, runs)
        for observer in watching:
            observer.epoch({})
        return took

    def answer(**values: object) -> None:
        print(json.dumps(values), flush=True)

    epoch_seconds(step, runs)
    until_fit = hasattr(run, "_may_fit")  # how this commit measures the exact training accuracy
    answer(images=len(run.train_batches), measures_until_fit=until_fit, **machine.columns())
    for line in sys.stdin:
        what, least = line.split()
        for observer in watching:
            observer.ended(None)
        watching[:] = observers(
            replace(run.config, device=machine.device.type)
        )  # new, because other processes worked meanwhile
        run.observers = as_one(watching)
        took = [timed(what)]
        while sum(took) < float(least):
            took.append(timed(what))
        answer(seconds=sum(took) / len(took))


def as_one(watching: list[Observer]) -> Any:
    """Returns the observers in the form of a run's `observers`; at an older commit this is the list itself."""
    try:
        from rethinking.training.loggers import Observers
    except ImportError:
        return watching
    return Observers(watching)


def observers(config: ExperimentConfig) -> Sequence[Observer]:
    """Returns the observers that every run has; at an older commit there are none."""
    try:
        from rethinking.training.cores import observers_of_cores
    except ImportError:
        return ()
    return observers_of_cores(config)


if __name__ == "__main__":
    main(*sys.argv[1:])
