"""Our side of `against_commit.py` and `against_jax.py`: answers each line that asks for epochs with their seconds.

Run with the `benchmarks` and `src` folders of the checkout to be measured on PYTHONPATH.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from statistics import median

from workload import Machine, epoch_seconds, runs_at_work, seconds

from rethinking.config import ExperimentConfig
from rethinking.training.evaluation import evaluate
from rethinking.training.loop import step_of


def main(model: str, precision: str) -> None:
    machine = Machine.here()
    if precision != "auto":
        machine = replace(machine, precision=precision)
    (run,) = runs = runs_at_work(ExperimentConfig(model_name=model), machine)
    try:
        from rethinking.training.cores import observers_of_cores

        run.observers = observers_of_cores(replace(run.config, device=machine.device.type))
    except ImportError:  # an older commit
        pass
    step = step_of(runs)

    def timed(what: str) -> float:
        if what == "evaluate":
            return seconds(lambda: evaluate(run.model, run.train_batches, run.autocast), machine.device)
        took = epoch_seconds(step, runs)
        for observer in run.observers:
            observer.epoch({})
        return took

    def answer(**values: object) -> None:
        print(json.dumps(values), flush=True)

    epoch_seconds(step, runs)
    until_fit = hasattr(run, "_may_fit")  # the exact training accuracy, or to the end
    answer(images=len(run.train_batches), measures_until_fit=until_fit, **machine.columns())
    for line in sys.stdin:
        what, least = line.split()
        took = [timed(what)]
        while sum(took) < float(least):
            took.append(timed(what))
        answer(seconds=median(took))


if __name__ == "__main__":
    main(*sys.argv[1:])
