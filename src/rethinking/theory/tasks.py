"""The tasks besides training: what is solved, written down or measured, and what carries each out.

A task is a configuration class with a function that carries it out and one that estimates its cost. `TheoryConfig.task`
names its evidence's file, and `TheoryConfig.columns` what has a column of its own there.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from rethinking.config import read_config_file
from rethinking.errors import InputError
from rethinking.steps import Steps, unwatched
from rethinking.theory import fitting, measured, measuring, memorization, rademacher, run, stability
from rethinking.theory.kernel_machine import KernelMachineConfig
from rethinking.theory.measured import MeasureConfig
from rethinking.theory.measuring import ComplexityConfig
from rethinking.theory.memorization import MemorizationConfig
from rethinking.theory.rademacher import RademacherConfig
from rethinking.theory.run import Columns, TheoryConfig, TheoryResult
from rethinking.theory.stability import StabilityConfig


class Task(NamedTuple):
    """carry_out, estimate_cost: of a configuration of this task, what the functions below do of any"""

    carry_out: Callable[[Any, Steps], TheoryResult]
    estimate_cost: Callable[[Any], tuple[float, float]]


TASKS: dict[type[TheoryConfig], Task] = {
    KernelMachineConfig: Task(fitting.fit, fitting.estimate_cost),
    MemorizationConfig: Task(memorization.memorize, memorization.estimate_cost),
    RademacherConfig: Task(rademacher.measure, rademacher.estimate_cost),
    StabilityConfig: Task(stability.measure, stability.estimate_cost),
    ComplexityConfig: Task(measuring.measure, measuring.estimate_cost),
    MeasureConfig: Task(measured.measure, measured.estimate_cost),
}


def columns() -> dict[str, Columns]:
    """What has a column of its own in the evidence of each task, by the task's name."""
    return {config.task: config.columns for config in TASKS}


def carry_out(config: TheoryConfig, begin: Steps = unwatched) -> TheoryResult:
    """The result, or that of the run that found it before. Raises `InputError` and `RunError`."""
    return TASKS[type(config)].carry_out(config, begin)


def estimate_cost(config: TheoryConfig) -> tuple[float, float]:
    """Bytes of memory it takes, and floating-point operations. Raises `InputError` where it cannot be carried out."""
    return TASKS[type(config)].estimate_cost(config)


def read(path: Path) -> TheoryResult:
    """The finished run in a folder. Raises `InputError` where it is none of these, `RunError` where it is damaged."""
    written = read_config_file(path / "config.yaml")
    kind = next((kind for kind in TASKS if kind.options() == set(written)), None)
    if kind is None:
        raise InputError(f"{path} does not hold the options of a run, or those of another version")
    return run.read(path, run.configuration(kind, path))
