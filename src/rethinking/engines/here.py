"""Trains many runs in this process: stacked as one computation, side by side in threads, or one after the other."""

from __future__ import annotations

import contextlib
import gc
import logging
import math
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import torch

from rethinking.config import ExperimentConfig
from rethinking.errors import MemoryShortageError, RunError, too_little_memory
from rethinking.notebook import shown
from rethinking.training.cores import observers_of_cores
from rethinking.training.hardware import keep_freed_memory
from rethinking.training.loggers import Observer
from rethinking.training.loop import Training, fit
from rethinking.training.memory import at_once_that_fit
from rethinking.training.preparation import Observe, PlannedRun, Shared, plan, prepare
from rethinking.training.run_dir import RunResult

LONGEST_PAUSE = 10.0  # seconds before runs of other processes are checked again
TOO_MANY = "%d runs at once are too many for the memory: going on with %d"

log = logging.getLogger(__name__)


def train_here(
    configs: Sequence[ExperimentConfig],
    *,
    at_once: int | None = 1,
    stacked: bool | None = None,
    force: bool = False,
    seconds: float = math.inf,
    observe: Observe = tuple,
    progress: bool | None = None,
) -> Iterator[tuple[ExperimentConfig, RunResult | Exception]]:
    """Trains every configuration in this process. The arguments and the results are those of `many.train_many`."""
    with shown(progress) as display:
        keep_freed_memory()
        planned = plan(configs, force, seconds)
        yield from _train_all(planned, at_once, stacked, lambda: [*observe(), *display.observers()])


def _train_all(
    waiting: list[PlannedRun], at_once: int | None, stacked: bool | None, observe: Observe
) -> Iterator[tuple[ExperimentConfig, RunResult | Exception]]:
    if stacked is None:
        stacked = all(planned.config.device == "cuda" for planned in waiting)
    if not stacked and any(planned.config.compile == "on" for planned in waiting):
        at_once = 1  # PyTorch's compiler works in one thread only
    if at_once != 1 and len(waiting) > 1:
        for name in dict.fromkeys(
            planned.config.model_name for planned in waiting if not planned.config.network.stackable
        ):
            log.info("%s: one run after the other, since this network is not registered as stackable", name)
    if stacked:
        yield from _train_stacked(waiting, at_once, observe)
        return
    one_of_each = {planned.group: planned.config for planned in waiting}
    number = {group_key: at_once or at_once_that_fit(config) for group_key, config in one_of_each.items()}
    parallel = [planned for planned in waiting if number[planned.group] > 1 and planned.goes_side_by_side]
    if parallel:
        yield from _train_side_by_side(parallel, min(number[planned.group] for planned in parallel), observe)
    yield from _train_stacked([planned for planned in waiting if planned not in parallel], 1, observe)


def _train_stacked(
    waiting: list[PlannedRun], at_once: int | None, observe: Observe
) -> Iterator[tuple[ExperimentConfig, RunResult | Exception]]:
    """Trains groups of up to `at_once` runs that can be stacked, one group after the other."""
    largest: dict[tuple[object, ...], int] = {}  # number of runs at once, by group
    while waiting:
        group_key = waiting[0].group
        alike: dict[Path, PlannedRun] = {}
        for planned in waiting:
            if planned.group == group_key:
                alike.setdefault(planned.folder.path, planned)
        if group_key not in largest:
            together = at_once or min(at_once_that_fit(planned.config) for planned in alike.values())
            largest[group_key] = together if waiting[0].config.network.stackable else 1
        group = list(alike.values())[: largest[group_key]]
        waiting = [planned for planned in waiting if planned not in group]
        failure: Exception | None = None
        shortage: RunError | None = None
        try:
            for planned, outcome in _train_together(group, observe):
                group.remove(planned)
                yield planned.given, outcome
        except (RuntimeError, OSError, MemoryError) as error:
            shortage = too_little_memory(error)
            failure = shortage or error
        if failure is None:
            continue
        if shortage and len(group) > 1:
            gc.collect()  # frees what the failed step holds in reference cycles
            largest[group_key] = len(group) // 2
            log.warning(TOO_MANY, len(group), largest[group_key])
            waiting = group + waiting
        else:
            for planned in group:
                yield planned.given, failure


def _train_side_by_side(
    waiting: list[PlannedRun], at_once: int, observe: Observe
) -> Iterator[tuple[ExperimentConfig, RunResult | Exception]]:
    """Trains each run in a thread of its own, with an equal share of the computing threads.

    Runs that the memory does not hold are trained after the others, half as many at once.
    """
    paths = dict.fromkeys(planned.folder.path for planned in waiting)
    at_once, threads = min(at_once, len(paths)), torch.get_num_threads()
    again: list[PlannedRun] = []
    stop = Stop()
    pool = ThreadPoolExecutor(at_once, initializer=torch.set_num_threads, initargs=(max(1, threads // at_once),))
    try:
        work = {
            pool.submit(list, _train_stacked(same[:1], 1, lambda: [*observe(), stop])): same
            for same in ([planned for planned in waiting if planned.folder.path == path] for path in paths)
        }
        for done in as_completed(work):
            if done.cancelled():
                continue
            ((_, outcome),) = done.result()
            if isinstance(outcome, MemoryShortageError) and at_once > 1:
                if not again:
                    log.warning(TOO_MANY, at_once, at_once // 2)
                again += work[done]
                for later, same in work.items():  # no further run begins beside those at work
                    if not later.cancelled() and later.cancel():
                        again += same
            else:
                yield from ((planned.given, outcome) for planned in work[done])
    finally:
        stop.wanted = True
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)
    if again:
        gc.collect()
        yield from _train_side_by_side(again, at_once // 2, observe)


def wait_for_others(pause: float, busy: int) -> float:
    """Waits for runs that other processes are at work on, longer each time. Returns the pause in seconds.

    pause: the value that the previous call returned; 0 for the first call, which logs a line
    busy: the number of these runs, for the line
    """
    if not pause:
        log.info("waiting for runs that other processes are at work on: %d", busy)
    pause = min(LONGEST_PAUSE, pause + 0.5)
    time.sleep(pause)
    return pause


class Stop(Observer):
    """Ends a run at its next step once `wanted` is set. A thread cannot be interrupted from outside."""

    wanted = False

    def step(self, images: int) -> None:
        """Raises `KeyboardInterrupt` where the run is to end."""
        if self.wanted:
            raise KeyboardInterrupt


def _with_cores(planned: PlannedRun, observe: Observe) -> Observe:
    return lambda: [*observe(), *observers_of_cores(planned.config)]


def _train_together(
    group: Sequence[PlannedRun], observe: Observe
) -> Iterator[tuple[PlannedRun, RunResult | Exception]]:
    with contextlib.ExitStack() as held:
        runs: dict[Path, PlannedRun] = {}
        prepared: list[Training] = []
        images: Shared = {}
        alone = len(group) == 1
        for planned in list(group):
            try:
                if planned.folder.is_finished:
                    yield planned, planned.folder.result(planned.config)
                    continue
                if planned.folder.is_busy:  # checked before its images are prepared
                    raise planned.folder.busy()
                training = prepare(planned, images, _with_cores(planned, observe) if alone else observe, held)
            except RunError as error:
                yield planned, error
                continue
            held.callback(training.end)
            prepared.append(training)
            runs[planned.folder.path] = planned
        images.clear()  # each run holds its images by now and frees them at its end
        for training, outcome in fit(prepared):
            yield runs[training.folder.path], outcome
