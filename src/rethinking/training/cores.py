"""Sharing the processor's cores with other processes."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator, Sequence

import psutil
import torch

from rethinking.config import ExperimentConfig
from rethinking.training.loggers import Observer
from rethinking.training.run_dir import Record, RunResult

LOOK = 2.0  # seconds of steps between two looks at what other processes use
NOTHING = 0.25  # cores; other processes that use fewer count as idle
TRIAL = 1.0  # seconds of steps that a number of threads is tried for
STAY = 20.0  # seconds of steps with the faster one

Step = tuple[int, float]  # images, seconds


def observers_of_cores(config: ExperimentConfig) -> Sequence[Observer]:
    """A `SharedCores` where `config`, resolved, computes in bfloat16 on several of a CPU's cores.

    In float32 a run keeps its threads: with another number of them sums are rounded otherwise, and a run that goes on
    should be bit for bit the run that was never interrupted. So do runs whose losses are compared image by image, and
    compiled ones, which would be compiled anew.
    """
    adapts = config.device == "cpu" and config.precision == "bf16" and torch.get_num_threads() > 1
    return [SharedCores()] if adapts and config.compile != "on" and not config.keep_test_losses else []


class SharedCores(Observer):
    """Lets a run compute with fewer threads where that is faster, because other processes are at work.

    Threads wait for each other at every operation. The one that shares its core with another process keeps all of them
    waiting, so that two can be slower than one. Which is faster is tried, never assumed.
    """

    def __init__(self) -> None:
        self._all = torch.get_num_threads()
        self._last: float | None = None  # when the last step of this epoch ended
        self._plan = self._adapt()
        next(self._plan)

    def step(self, images: int) -> None:
        now = time.perf_counter()
        if self._last is not None:
            self._plan.send((images, now - self._last))
        self._last = now

    def epoch(self, record: Record) -> None:
        self._last = None  # evaluation and saving are no step

    def ended(self, result: RunResult | None) -> None:
        torch.set_num_threads(self._all)

    def _adapt(self) -> Generator[None, Step, None]:
        """Waits for steps at every `yield`."""
        used = CoresOfOthers()
        while True:
            yield from _steps_for(LOOK)
            others = used.since_last()
            fewer = max(1, int(used.cores - others))
            if others < NOTHING or fewer >= self._all:
                torch.set_num_threads(self._all)
                continue
            speeds = {}
            for threads in (self._all, fewer):
                torch.set_num_threads(threads)
                yield from _steps_for(0)  # the first one wakes threads
                speeds[threads] = yield from _steps_for(TRIAL)
            torch.set_num_threads(max(speeds, key=speeds.__getitem__))
            yield from _steps_for(STAY)
            used.since_last()


def _steps_for(seconds: float) -> Generator[None, Step, float]:
    """Lets steps pass, one at least; returns images a second."""
    images, passed = 0, 0.0
    while not images or passed < seconds:
        of_step, took = yield
        images += of_step
        passed += took
    return images / passed


class CoresOfOthers:
    """How many of the cores that this process may use other processes use.

    cores: how many it may use
    """

    def __init__(self) -> None:
        self._allowed: set[int] | None = None
        with contextlib.suppress(AttributeError, OSError):  # macOS has no affinity
            self._allowed = set(psutil.Process().cpu_affinity())
        self.cores = len(self._allowed) if self._allowed else psutil.cpu_count() or 1
        self._before = self._now()

    def since_last(self) -> float:
        """The mean since this was last asked for, in cores; 0 where the system does not tell."""
        before, self._before = self._before, self._now()
        wall, busy, own = (now - then for now, then in zip(self._before, before, strict=True))
        return max(0.0, busy - own) / max(wall, 1e-9)

    def _now(self) -> tuple[float, float, float]:
        """Seconds: of the clock, of all processes on these cores, of this process."""
        busy = 0.0
        with contextlib.suppress(OSError, psutil.Error):
            for core, times in enumerate(psutil.cpu_times(percpu=True)):
                if self._allowed is None or core in self._allowed:
                    busy += times.user + times.system + getattr(times, "nice", 0.0)
        return time.perf_counter(), busy, time.process_time()
