"""The tasks other than training, and the functions that carry them out.

A task is a configuration class, a function that carries it out, and a function that estimates its cost.
`TheoryConfig.task` names the file with its evidence, and `TheoryConfig.columns` the columns there.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from rethinking.config import read_config_file
from rethinking.errors import InputError
from rethinking.steps import Steps, unwatched
from rethinking.theory import (
    detecting,
    fitting,
    measured,
    measuring,
    memorization,
    memorized,
    rademacher,
    run,
    stability,
)
from rethinking.theory.detecting import DetectionConfig
from rethinking.theory.kernel_machine import KernelMachineConfig
from rethinking.theory.measured import MeasureConfig
from rethinking.theory.measuring import ComplexityConfig
from rethinking.theory.memorization import MemorizationConfig
from rethinking.theory.memorized import MemorizedConfig
from rethinking.theory.rademacher import RademacherConfig
from rethinking.theory.run import Columns, TheoryConfig, TheoryResult
from rethinking.theory.stability import StabilityConfig


class Task(NamedTuple):
    """The two functions of one task. They do for its configurations what the functions below do for any."""

    carry_out: Callable[[Any, Steps], TheoryResult]
    estimate_cost: Callable[[Any], tuple[float, float]]


TASKS: dict[type[TheoryConfig], Task] = {
    KernelMachineConfig: Task(fitting.fit, fitting.estimate_cost),
    MemorizationConfig: Task(memorization.memorize, memorization.estimate_cost),
    RademacherConfig: Task(rademacher.measure, rademacher.estimate_cost),
    StabilityConfig: Task(stability.measure, stability.estimate_cost),
    ComplexityConfig: Task(measuring.measure, measuring.estimate_cost),
    DetectionConfig: Task(detecting.measure, detecting.estimate_cost),
    MemorizedConfig: Task(memorized.measure, memorized.estimate_cost),
    MeasureConfig: Task(measured.measure, measured.estimate_cost),
}


def columns() -> dict[str, Columns]:
    """The columns of each task's evidence, by the task's name."""
    return {config.task: config.columns for config in TASKS}


def carry_out(config: TheoryConfig, begin: Steps = unwatched) -> TheoryResult:
    """Carry out a run, or return the finished one.

    Raises `InputError` where data and options do not fit, and `RunError` where the run fails or is damaged.
    """
    return TASKS[type(config)].carry_out(config, begin)


def estimate_cost(config: TheoryConfig) -> tuple[float, float]:
    """The bytes of memory and floating-point operations a run needs. Raises `InputError` where it is impossible."""
    return TASKS[type(config)].estimate_cost(config)


def read(path: Path) -> TheoryResult:
    """Read the finished run in a folder.

    Raises `InputError` where it holds none of these tasks, `RunError` where it is unfinished or damaged.
    """
    written = read_config_file(path / "config.yaml")
    kind = next((kind for kind in TASKS if kind.options() == set(written)), None)
    if kind is None:
        raise InputError(f"{path} does not hold the options of a run, or holds those of another version")
    return run.read(path, run.configuration(kind, path))
