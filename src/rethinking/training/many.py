"""Many runs: stacked as one computation, side by side in threads, or one after the other."""

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
from rethinking.errors import InputError, MemoryShortageError, RunError, too_little_memory
from rethinking.notebook import shown
from rethinking.training.cores import observers_of_cores
from rethinking.training.hardware import keep_freed_memory
from rethinking.training.loggers import Observer
from rethinking.training.loop import Training, fit
from rethinking.training.memory import at_once_that_fit
from rethinking.training.preparation import Observe, PlannedRun, Shared, prepare
from rethinking.training.run_dir import RunResult

LONGEST_PAUSE = 10.0  # seconds, before runs of other processes are looked at again
TOO_MANY = "%d runs at once are too many for the memory: going on with %d"

log = logging.getLogger(__name__)


def train_many(
    configs: Sequence[ExperimentConfig],
    *,
    at_once: int | None = 1,
    stacked: bool | None = None,
    force: bool = False,
    seconds: float = math.inf,
    observe: Observe = tuple,
    progress: bool | None = None,
) -> Iterator[tuple[ExperimentConfig, RunResult | Exception]]:
    """`train` for each of `configs`, up to `at_once` at the same time: one stacked computation, or side by side.

    Stacked are runs that share network, data set, batch size and hardware; seed, labels, pixels, augmentation, weight
    decay, schedule and length are each run's own. Such a run agrees with its solo twin but for rounding. On a CPU any
    runs can go side by side, each in a thread with its share of the processor's cores; where one is to be compiled, all
    go one after the other. By default runs are stacked on CUDA
    alone. Either way each leaves the folder that it would leave alone and can be taken up alone. With None for
    `at_once` there are as many as the free memory holds, on a CPU no more than it has computing threads and those with
    convolutions one after the other, all threads to each. `observe` makes the observers of a run. `progress` shows how
    far the runs are; by default a notebook does and a script does not.

    A run that has been trained for `seconds`, all sittings together, ends with that epoch. Its result is not finished,
    and the same call with more seconds takes it up.

    Gives each configuration with its result as soon as that is there, or with the error that ended it and it alone.
    Runs that the memory does not hold go on from their last finished epochs, half as many at once. Raises `InputError`
    before anything is trained.
    """
    if at_once is not None and at_once < 1:
        raise InputError(f"at_once must be a whole number from 1 on, or None, not {at_once}")
    with shown(progress) as display:
        keep_freed_memory()
        planned = [PlannedRun.of(config, force, seconds) for config in configs]
        yield from _train_all(planned, at_once, stacked, lambda: [*observe(), *display.observers()])


def _train_all(
    waiting: list[PlannedRun], at_once: int | None, stacked: bool | None, observe: Observe
) -> Iterator[tuple[ExperimentConfig, RunResult | Exception]]:
    if stacked is None:
        stacked = all(planned.config.device == "cuda" for planned in waiting)
    if not stacked and any(planned.config.compile == "on" for planned in waiting):
        at_once = 1  # the compiler works for one thread alone
    if at_once != 1 and len(waiting) > 1:
        for name in dict.fromkeys(
            planned.config.model_name for planned in waiting if not planned.config.network.stackable
        ):
            log.info("%s: one run after the other, as networks go that are not registered as stackable", name)
    if stacked:
        yield from _train_stacked(waiting, at_once, observe)
        return
    one_of_each = {planned.group: planned.config for planned in waiting}
    number = {group_key: at_once or at_once_that_fit(config) for group_key, config in one_of_each.items()}
    beside = [planned for planned in waiting if number[planned.group] > 1 and planned.goes_side_by_side]
    if beside:
        yield from _train_side_by_side(beside, min(number[planned.group] for planned in beside), observe)
    yield from _train_stacked([planned for planned in waiting if planned not in beside], 1, observe)


def _train_stacked(
    waiting: list[PlannedRun], at_once: int | None, observe: Observe
) -> Iterator[tuple[ExperimentConfig, RunResult | Exception]]:
    """Groups of up to `at_once` that fit together, one after the other."""
    largest: dict[tuple[object, ...], int] = {}  # number at once of each group
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
        told: RunError | None = None
        try:
            for planned, outcome in _train_together(group, observe):
                group.remove(planned)
                yield planned.given, outcome
        except (RuntimeError, OSError, MemoryError) as error:
            told = too_little_memory(error)
            failure = told or error
        if failure is None:
            continue
        if told and len(group) > 1:
            gc.collect()  # what the failed step still holds in cycles
            largest[group_key] = len(group) // 2
            log.warning(TOO_MANY, len(group), largest[group_key])
            waiting = group + waiting
        else:
            for planned in group:
                yield planned.given, failure


def _train_side_by_side(
    waiting: list[PlannedRun], at_once: int, observe: Observe
) -> Iterator[tuple[ExperimentConfig, RunResult | Exception]]:
    """Each in a thread of its own, with an equal share of this process's computing threads.

    Those that the memory does not hold go on when the others are done, half as many.
    """
    paths = dict.fromkeys(planned.folder.path for planned in waiting)
    at_once, threads = min(at_once, len(paths)), torch.get_num_threads()
    again: list[PlannedRun] = []
    stop = _Stop()
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
                for later, same in work.items():  # nothing new begins beside those at work
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
    """Waits for runs that other processes are at work on, longer each time; returns the pause.

    pause: what the call before returned, 0 for the first, which says so; busy: how many runs there are
    """
    if not pause:
        log.info("waiting for runs that other processes are at work on: %d", busy)
    pause = min(LONGEST_PAUSE, pause + 0.5)
    time.sleep(pause)
    return pause


class _Stop(Observer):
    """Ends a run at its next step, once asked to: threads cannot be interrupted from outside."""

    wanted = False

    def step(self, images: int) -> None:
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
                if planned.folder.is_busy:  # known before its images are prepared
                    raise planned.folder.busy()
                training = prepare(planned, images, _with_cores(planned, observe) if alone else observe, held)
            except RunError as error:
                yield planned, error
                continue
            held.callback(training.end)
            prepared.append(training)
            runs[planned.folder.path] = planned
        images.clear()  # each run has its own by now, and gives them back at its end
        for training, outcome in fit(prepared):
            yield runs[training.folder.path], outcome
