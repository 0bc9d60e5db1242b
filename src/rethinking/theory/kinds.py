"""The kinds of runs that are solved, written down or measured, and what is done for each."""

from __future__ import annotations

from pathlib import Path

from rethinking.config import read_config_file
from rethinking.errors import InputError
from rethinking.theory import fitting, measuring, memorization, rademacher, run, stability
from rethinking.theory.interpolation import Steps, unwatched
from rethinking.theory.kernel_machine import KernelMachineConfig
from rethinking.theory.measuring import ComplexityConfig
from rethinking.theory.memorization import MemorizationConfig
from rethinking.theory.rademacher import RademacherConfig
from rethinking.theory.run import TheoryConfig, TheoryResult
from rethinking.theory.stability import StabilityConfig


def carry_out(config: TheoryConfig, begin: Steps = unwatched) -> TheoryResult:
    """The result, or that of the run that found it before. Raises `InputError` and `RunError`."""
    if isinstance(config, KernelMachineConfig):
        return fitting.fit(config, begin)
    if isinstance(config, MemorizationConfig):
        return memorization.memorize(config, begin)
    if isinstance(config, StabilityConfig):
        return stability.measure(config, begin)
    if isinstance(config, ComplexityConfig):
        return measuring.measure(config, begin)
    assert isinstance(config, RademacherConfig), "there is no other kind"
    return rademacher.measure(config, begin)


def check(config: TheoryConfig, summed_by_then: int = 0) -> tuple[float, float]:
    """Bytes of memory it takes, and floating-point operations. Raises `InputError` where it cannot be carried out."""
    if isinstance(config, KernelMachineConfig):
        plan, operations = fitting.check(config, summed_by_then)
        return plan.memory, operations
    if isinstance(config, MemorizationConfig):
        return memorization.check(config)
    if isinstance(config, StabilityConfig):
        return stability.check(config)
    if isinstance(config, ComplexityConfig):
        return measuring.check(config)
    assert isinstance(config, RademacherConfig), "there is no other kind"
    return rademacher.check(config)


def read(path: Path) -> TheoryResult:
    """The finished run in a folder. Raises `InputError` where it is none of these, `RunError` where it is damaged."""
    written = read_config_file(path / "config.yaml")
    kinds = (KernelMachineConfig, MemorizationConfig, RademacherConfig, StabilityConfig, ComplexityConfig)
    kind = next((kind for kind in kinds if kind.options() == set(written)), None)
    if kind is None:
        raise InputError(f"{path} does not hold the options of a run, or those of another version")
    return run.read(path, kind(**written))
