"""One task: the runs that a worker trains together, in a process of its own, and what it reports of them.

Every engine with workers uses this module. The worker calls `carry_out`, which sends reports. The driver, which gave
the task, passes the reports on to the observers of its runs. The result of a run is in the run's folder.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

from rethinking import errors, registry
from rethinking.config import ExperimentConfig
from rethinking.data import operators
from rethinking.engines.here import train_here
from rethinking.errors import InputError, RunError, in_one_line, too_little_memory
from rethinking.source import place_of
from rethinking.training.loggers import Observer, Observers
from rethinking.training.preparation import Observe, PlannedRun
from rethinking.training.run_dir import Record, RunResult

OFTEN = 0.5  # seconds between two reports on the steps of a run


@dataclass(frozen=True)
class Workload:
    """The arguments of `train_many`, for an engine with workers. `observe` includes the display of progress.

    runs_shared: whether a cluster's nodes see `runs_dir`: 'auto' looks, 'yes' demands it, with 'no' their files travel
    """

    configs: tuple[ExperimentConfig, ...]
    at_once: int | None
    stacked: bool | None
    force: bool
    seconds: float
    observe: Observe
    runs_shared: str = "auto"


@dataclass(frozen=True)
class Task:
    """The runs that a worker trains together.

    configs: the configurations; several ones are stacked as one computation
    threads: the number of computing threads; None for PyTorch's default
    force, seconds: as in `train_many`
    at_once: the largest number of runs in one computation; None for as many as the worker's memory holds
    modules: the modules that the worker imports first, from `modules_for`
    """

    configs: tuple[ExperimentConfig, ...]
    threads: int | None = None
    force: bool = False
    seconds: float = math.inf
    at_once: int | None = None
    modules: tuple[str, ...] = ()


class Started(NamedTuple):
    """A run begins or goes on. The fields are those of `Observer.started`; `run` is the name of its folder."""

    run: str
    config: ExperimentConfig
    metrics: list[Record]
    images: int


class Stepped(NamedTuple):
    """Steps on a number of images, since the last report."""

    run: str
    images: int


class EpochEnded(NamedTuple):
    """An epoch is finished and saved."""

    run: str
    record: Record


class Stopped(NamedTuple):
    """A run is no longer at work. `complete` is False where it was interrupted or failed."""

    run: str
    complete: bool


class Over(NamedTuple):
    """A configuration of the task, by its place, is done: its result is in its folder, or `error` ended it."""

    place: int
    error: RunError | InputError | None


class Logged(NamedTuple):
    """A line of the package's log: the name of the logger, the level, and the message."""

    name: str
    level: int
    message: str


Report = Started | Stepped | EpochEnded | Stopped | Over | Logged


def groups_for(
    planned: Sequence[PlannedRun], workers: int, at_once: int | None, stacked: bool | None
) -> list[list[PlannedRun]]:
    """Returns the runs in groups that one worker each trains together. A run alone is a group.

    Runs that can be stacked are stacked on CUDA, unless `stacked` says otherwise. Each worker gets an equal share of
    them, at most `at_once` in a group.
    """
    groups: dict[tuple[object, ...], list[PlannedRun]] = {}
    for number, run in enumerate(planned):
        network, device = run.config.network, run.config.device
        stacks = network.stackable and (stacked or (stacked is None and device == "cuda"))
        if at_once is None and device not in network.faster_together:
            stacks = False
        groups.setdefault(run.group if stacks else (number,), []).append(run)
    made = []
    for group in groups.values():
        size = min(math.ceil(len(group) / workers), at_once or len(group))
        made += [group[begin : begin + size] for begin in range(0, len(group), size)]
    return made


def modules_for(config: ExperimentConfig) -> tuple[str, ...]:
    """Returns the modules that register the network and the operator of a configuration, for a worker to import.

    Nothing has to be imported for the package's own, and for what is named FILE.py:NAME or MODULE:NAME. Raises
    `InputError` for a network or an operator that another process cannot import by its name.
    """
    needed: list[str] = []
    if config.network.is_own:
        needed += _module_of("network", config.model_name, config.network.function)
    if operators.is_own(config.operator):
        needed += _module_of("operator", config.randomization, type(config.operator))
    return tuple(dict.fromkeys(needed))


def _module_of(what: str, name: str, thing: Any) -> list[str]:
    inner = thing
    while hasattr(inner, "func"):  # functools.partial
        inner = inner.func
    module = getattr(inner, "__module__", None) or "__main__"
    given = name.rpartition(":")[0] if ":" in name else module  # where a worker looks for it
    found = "<" not in name and module != "__main__" and given != "__main__" and not given.startswith(registry.FILE)
    if found and ":" in name:
        found = registry.load(name) is thing  # not so with arguments bound by functools.partial
    elif found and not isinstance(thing, str):
        found = "<" not in inner.__qualname__  # made inside a function
    if not found:
        raise InputError(
            f"another process cannot import the {what} {name}: put it into a file of its own and give it as"
            " FILE.py:NAME, or leave devices and ray out"
        )
    return [] if ":" in name or isinstance(thing, str) else [module]


def carry_out(task: Task, send: Callable[[Report], None], observe: Observe = tuple) -> None:
    """Trains the runs of a task and sends reports on them, with one `Over` for each configuration.

    Errors are sent and not raised. Lines of the package's log are sent in place of being handled here.

    send: may be called by several threads at once, since the loggers of a run have threads of their own
    observe: makes further observers of a run, which are called before the report is sent
    """
    if task.threads is not None:
        torch.set_num_threads(task.threads)
    several = len(task.configs) > 1
    left = set(range(len(task.configs)))
    with _log_sent(send):
        try:
            for module in task.modules:
                importlib.import_module(module)
            outcomes = train_here(
                task.configs,
                at_once=task.at_once if several else 1,
                stacked=several,
                force=task.force,
                seconds=task.seconds,
                observe=lambda: [*observe(), _Reporter(send)],
                progress=False,
            )
            for config, outcome in outcomes:
                place = task.configs.index(config)
                left.remove(place)
                send(Over(place, None if isinstance(outcome, RunResult) else portable(outcome)))
        except Exception as error:  # a user's network can raise anything
            for place in sorted(left):
                send(Over(place, portable(error)))


def outcome_of(run: PlannedRun, patience: float = 0.0) -> RunResult | RunError:
    """Returns the result in the folder of a run that a worker has ended, or the error of reading it.

    patience: seconds in which a file of another machine must appear on a shared file system
    """
    until = time.monotonic() + patience
    while True:
        try:
            if run.folder.is_finished:
                return run.folder.result(run.config)
            in_time = run.folder.so_far(run.config) if run.seconds < math.inf else None
        except RunError as error:
            return error
        if in_time is not None:
            return in_time
        if time.monotonic() >= until:
            break
        time.sleep(0.5)
    return RunError(
        f"{run.folder.path} lacks the result that a worker reported: the data or the code of the network has changed"
        " since this command began; give the same command again"
    )


def portable(error: Exception) -> RunError | InputError:
    """Returns an error that every process can read: one of the package's own types with its message."""
    error = too_little_memory(error) or error
    kind = getattr(errors, type(error).__name__, None)
    if kind is errors.RefusedImagesError:
        kind = InputError
    return kind(str(error)) if kind is not None else RunError(in_one_line(error) + place_of(error))


@contextlib.contextmanager
def _log_sent(send: Callable[[Report], None]) -> Iterator[None]:
    """Sends the lines of the package's log, from INFO on, and gives them to no other handler."""
    logger = logging.getLogger("rethinking")
    before = logger.handlers[:], logger.level, logger.propagate
    logger.handlers[:], logger.propagate = [_LogSender(send)], False
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.handlers[:], level, logger.propagate = before
        logger.setLevel(level)


class _LogSender(logging.Handler):
    def __init__(self, send: Callable[[Report], None]) -> None:
        super().__init__()
        self._send = send

    def emit(self, record: logging.LogRecord) -> None:
        self._send(Logged(record.name, record.levelno, record.getMessage()))


class _Reporter(Observer):
    """Sends reports on one run."""

    def __init__(self, send: Callable[[Report], None]) -> None:
        self._send = send
        self._images = 0  # since the last report
        self._sent = 0.0

    def started(self, path: Path, config: ExperimentConfig, metrics: list[Record], images: int) -> None:
        self._run = path.name
        self._send(Started(self._run, config, metrics, images))

    def step(self, images: int) -> None:
        self._images += images
        if time.monotonic() - self._sent > OFTEN:
            self._steps()

    def epoch(self, record: Record) -> None:
        self._steps()
        self._send(EpochEnded(self._run, record))

    def ended(self, result: RunResult | None) -> None:
        self._send(Stopped(self._run, complete=result is not None))

    def _steps(self) -> None:
        if self._images:
            self._send(Stepped(self._run, self._images))
        self._images, self._sent = 0, time.monotonic()


class Followed:
    """Passes the reports of one task on to the observers of its runs. Call `end` once no report can come any more.

    Lines of a worker's log go to the logger of the same name.

    runs: the runs of the task
    observe: makes the observers of a run
    """

    def __init__(self, runs: Sequence[PlannedRun], observe: Observe) -> None:
        self._runs = {run.folder.path.name: run for run in runs}
        self._observe = observe
        self._results: dict[str, RunResult] = {}
        self._at_work: dict[str, Observers] = {}
        self.advanced: set[str] = set()  # the names of the folders of the runs that have finished an epoch

    @property
    def at_work(self) -> set[str]:
        """The names of the folders of the runs that have begun and not stopped."""
        return set(self._at_work)

    def take(self, report: Report) -> None:
        """Passes one report on."""
        if isinstance(report, Started):
            observers = self._at_work[report.run] = Observers(self._observe())
            elsewhere = Path(report.config.runs_dir) / report.run  # another process took the folder meanwhile
            folder = self._runs[report.run].folder.path if report.run in self._runs else elsewhere
            observers.started(folder, report.config, report.metrics, report.images)
        elif isinstance(report, Stepped):
            self._at_work[report.run].step(report.images)
        elif isinstance(report, EpochEnded):
            self.advanced.add(report.run)
            self._at_work[report.run].epoch(report.record)
        elif isinstance(report, Stopped):
            self._at_work.pop(report.run).ended(self._result_of(report.run) if report.complete else None)
        elif isinstance(report, Logged):
            logging.getLogger(report.name).log(report.level, "%s", report.message)

    def outcome(self, run: PlannedRun, patience: float = 0.0) -> RunResult | RunError:
        """Returns what `outcome_of` does, and reads a result once."""
        return self._results.get(run.folder.path.name) or outcome_of(run, patience)

    def _result_of(self, name: str) -> RunResult | None:
        if name not in self._runs:
            return None
        outcome = outcome_of(self._runs[name])
        if isinstance(outcome, RunError):  # told by `outcome`
            return None
        self._results[name] = outcome
        return outcome

    def end(self) -> None:
        """Tells the observers of runs that did not come to an end, for example because their worker died."""
        for observers in self._at_work.values():
            observers.ended(None)
        self._at_work.clear()
