"""The kinds of runs that are solved, written down or measured, and what is done for each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from rethinking.config import read_config_file
from rethinking.errors import InputError
from rethinking.steps import Steps, unwatched
from rethinking.theory import fitting, measuring, memorization, rademacher, run, stability
from rethinking.theory.kernel_machine import KernelMachineConfig
from rethinking.theory.measuring import ComplexityConfig
from rethinking.theory.memorization import MemorizationConfig
from rethinking.theory.rademacher import RademacherConfig
from rethinking.theory.run import TheoryConfig, TheoryResult
from rethinking.theory.stability import StabilityConfig


class Kind(NamedTuple):
    """carry_out, check: of a configuration of this kind, what the functions below do of any"""

    carry_out: Callable[[Any, Steps], TheoryResult]
    check: Callable[[Any], tuple[float, float]]


KINDS: dict[type[TheoryConfig], Kind] = {
    KernelMachineConfig: Kind(fitting.fit, fitting.check),
    MemorizationConfig: Kind(memorization.memorize, memorization.check),
    RademacherConfig: Kind(rademacher.measure, rademacher.check),
    StabilityConfig: Kind(stability.measure, stability.check),
    ComplexityConfig: Kind(measuring.measure, measuring.check),
}


def carry_out(config: TheoryConfig, begin: Steps = unwatched) -> TheoryResult:
    """The result, or that of the run that found it before. Raises `InputError` and `RunError`."""
    return KINDS[type(config)].carry_out(config, begin)


def check(config: TheoryConfig) -> tuple[float, float]:
    """Bytes of memory it takes, and floating-point operations. Raises `InputError` where it cannot be carried out."""
    return KINDS[type(config)].check(config)


def read(path: Path) -> TheoryResult:
    """The finished run in a folder. Raises `InputError` where it is none of these, `RunError` where it is damaged."""
    written = read_config_file(path / "config.yaml")
    kind = next((kind for kind in KINDS if kind.options() == set(written)), None)
    if kind is None:
        raise InputError(f"{path} does not hold the options of a run, or those of another version")
    return run.read(path, run.configuration(kind, path))
