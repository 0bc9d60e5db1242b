"""One run, from its configuration to its result."""

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
    """Train as `config` says, or find the run that did: the same configuration always names the same folder.

    `model` builds the network in place of `config.model_name` (see `rethinking.models.catalogue`).

    A finished run is returned at once and an interrupted one goes on after its last finished epoch; `force` trains a
    finished one again in a folder beside it. `observers` are told of every step and epoch. `progress` shows how far the
    run is; by default a notebook does and a script does not.

    Raises `InputError` for data or options that do not fit together, `RunError` for damaged files, a full disk, too
    little memory or a loss that is not finite.
    """
    if model is not None:
        config = replace(config, model_name=catalogue.adopt(model))
    with shown(progress) as display, contextlib.ExitStack() as held:
        keep_freed_memory()
        planned = PlannedRun.of(config, force)
        if planned.folder.is_finished:
            return planned.folder.result(planned.config)
        if planned.folder.is_busy:  # known before its images are prepared
            raise planned.folder.busy()
        with _shortage_in_one_line():
            told = [*observers, *display.observers()]
            training = prepare(planned, {}, lambda: [*told, *observers_of_cores(planned.config)], held)
            held.callback(training.end)
            ((_, outcome),) = fit([training])
    if isinstance(outcome, RunError):
        raise outcome
    return outcome


@contextlib.contextmanager
def _shortage_in_one_line() -> Iterator[None]:
    """Memory that runs out is a `MemoryShortageError`."""
    try:
        yield
    except (RuntimeError, OSError, MemoryError) as error:
        told = too_little_memory(error)
        if told is None:
            raise
        raise told from None


def find(config: ExperimentConfig) -> RunResult | None:
    """The run of `config` as far as it has come, without training; None where no epoch is finished.

    Raises what `train` raises.
    """
    planned = PlannedRun.of(config)
    folder, resolved = planned.folder, planned.config
    return folder.result(resolved) if folder.is_finished else folder.so_far(resolved)
