"""One task: the runs that a worker trains together, in a process of its own, and what it reports of them.

Every engine with workers uses this module. The worker calls `carry_out`, which sends reports. The driver, which gave
the task, passes the reports on to the observers of its runs. The result of a run is in the run's folder.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch

from rethinking import errors
from rethinking.config import ExperimentConfig
from rethinking.errors import RunError, in_one_line
from rethinking.sweep.here import train_here
from rethinking.training.loggers import Observer, Observers
from rethinking.training.preparation import Observe, PlannedRun
from rethinking.training.run_dir import Record, RunResult

OFTEN = 0.5  # seconds between two reports on the steps of a run


@dataclass(frozen=True)
class Workload:
    """The arguments of `train_many`, for an engine with workers. `observe` includes the display of progress."""

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
    """

    configs: tuple[ExperimentConfig, ...]
    threads: int | None = None
    force: bool = False
    seconds: float = math.inf


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
    """A run is no longer at work."""

    run: str


class Over(NamedTuple):
    """A configuration of the task, by its place, is done: its result is in its folder, or `error` ended it."""

    place: int
    error: RunError | errors.InputError | None


Report = Started | Stepped | EpochEnded | Stopped | Over


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


def carry_out(task: Task, send: Callable[[Report], None], observe: Observe = tuple) -> None:
    """Trains the runs of a task and sends reports on them. An error of a run is sent and not raised.

    observe: makes further observers of a run, which are called before the report is sent
    """
    if task.threads is not None:
        torch.set_num_threads(task.threads)
    several = len(task.configs) > 1
    outcomes = train_here(
        task.configs,
        at_once=None if several else 1,
        stacked=several,
        force=task.force,
        seconds=task.seconds,
        observe=lambda: [*observe(), _Reporter(send)],
        progress=False,
    )
    for config, outcome in outcomes:
        send(Over(task.configs.index(config), None if isinstance(outcome, RunResult) else portable(outcome)))


def portable(error: Exception) -> RunError | errors.InputError:
    """Returns an error that every process can read: one of the package's own types with its message."""
    kind = getattr(errors, type(error).__name__, None)
    if kind is errors.RefusedImagesError:
        kind = errors.InputError
    return kind(str(error)) if kind is not None else RunError(in_one_line(error))


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
        self._send(Stopped(self._run))

    def _steps(self) -> None:
        self._send(Stepped(self._run, self._images))
        self._images, self._sent = 0, time.monotonic()


class Followed:
    """Passes the reports of one task on to the observers of its runs. Call `end` once no report can come any more.

    folders: the folder of each configuration of the task, as the driver sees it
    observe: makes the observers of a run
    result: returns the result of the run with this folder name, for `Observer.ended`; None where it is not finished
    """

    def __init__(self, folders: Sequence[Path], observe: Observe, result: Callable[[str], RunResult | None]) -> None:
        self._folders = {folder.name: folder for folder in folders}
        self._observe = observe
        self._result = result
        self._at_work: dict[str, Observers] = {}

    def take(self, report: Report) -> None:
        """Passes one report on."""
        if isinstance(report, Started):
            observers = self._at_work[report.run] = Observers(self._observe())
            observers.started(self._folders[report.run], report.config, report.metrics, report.images)
        elif isinstance(report, Stepped):
            self._at_work[report.run].step(report.images)
        elif isinstance(report, EpochEnded):
            self._at_work[report.run].epoch(report.record)
        elif isinstance(report, Stopped):
            self._at_work.pop(report.run).ended(self._result(report.run))

    def end(self) -> None:
        """Tells the observers of runs that did not come to an end, for example because their worker died."""
        for observers in self._at_work.values():
            observers.ended(None)
        self._at_work.clear()
