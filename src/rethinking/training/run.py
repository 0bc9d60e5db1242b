"""Trains one run, from its configuration to its result."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from torch import nn

from rethinking.config import ExperimentConfig
from rethinking.errors import RunError, too_little_memory
from rethinking.models import catalogue
from rethinking.notebook import shown
from rethinking.training.cores import observers_of_cores
from rethinking.training.hardware import keep_freed_memory
from rethinking.training.loggers import Observer
from rethinking.training.loop import fit
from rethinking.training.preparation import PlannedRun, prepare
from rethinking.training.run_dir import RunResult


def train(
    config: ExperimentConfig,
    *,
    model: Callable[..., nn.Module] | None = None,
    force: bool = False,
    observers: Sequence[Observer] = (),
    progress: bool | None = None,
) -> RunResult:
    """Trains as `config` says and returns the result.

    A configuration always names the same folder. A finished run is returned at once, and an interrupted run continues
    after its last finished epoch.

    model: builds the network in place of `config.model_name` (see `rethinking.models.catalogue`)
    force: trains a finished run again, in a new folder beside it
    observers: are called at every step and epoch
    progress: whether to show progress; by default a notebook does and a script does not

    Raises `InputError` for data or options that do not fit together. Raises `RunError` for damaged files, a full disk,
    too little memory or a loss that is not finite.
    """
    if model is not None:
        config = replace(config, model_name=catalogue.adopt(model))
    with shown(progress) as display, contextlib.ExitStack() as held:
        keep_freed_memory()
        planned = PlannedRun.of(config, force)
        if planned.folder.is_finished:
            return planned.folder.result(planned.config)
        if planned.folder.is_busy:  # checked before its images are prepared
            raise planned.folder.busy()
        with _shortage_in_one_line():
            observing = [*observers, *display.observers()]
            training = prepare(planned, {}, lambda: [*observing, *observers_of_cores(planned.config)], held)
            held.callback(training.end)
            ((_, outcome),) = fit([training])
    if isinstance(outcome, RunError):
        raise outcome
    return outcome


@contextlib.contextmanager
def _shortage_in_one_line() -> Iterator[None]:
    """Turns a lack of memory into a `MemoryShortageError`."""
    try:
        yield
    except (RuntimeError, OSError, MemoryError) as error:
        shortage = too_little_memory(error)
        if shortage is None:
            raise
        raise shortage from None


def find(config: ExperimentConfig) -> RunResult | None:
    """Returns the run of `config` as far as it has come, without training; None where no epoch is finished.

    Raises `InputError` and `RunError` as `train` does.
    """
    planned = PlannedRun.of(config)
    folder, resolved = planned.folder, planned.config
    return folder.result(resolved) if folder.is_finished else folder.so_far(resolved)
