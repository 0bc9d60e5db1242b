"""Shares the processor's cores with other processes."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator, Sequence

import psutil
import torch

from rethinking.config import ExperimentConfig
from rethinking.training.loggers import Observer
from rethinking.training.run_dir import Record, RunResult

LOOK = 2.0  # seconds of steps between two measurements of other processes
NOTHING = 0.25  # cores; other processes that use fewer count as idle
TRIAL = 1.0  # seconds of steps to try a number of threads
STAY = 20.0  # seconds of steps with the faster number

Step = tuple[int, float]  # images, seconds


def observers_of_cores(config: ExperimentConfig) -> Sequence[Observer]:
    """Returns a `SharedCores` where the resolved `config` computes in bfloat16 on several cores of a CPU.

    A float32 run keeps its number of threads: another number rounds sums differently, and an interrupted run should go
    on bit for bit as if it was never interrupted. Runs whose losses are compared image by image keep it for the same
    reason. Compiled runs keep it too, since PyTorch would compile them again.
    """
    adapts = config.device == "cpu" and config.precision == "bf16" and torch.get_num_threads() > 1
    return [SharedCores()] if adapts and config.compile != "on" and not config.keep_test_losses else []


class SharedCores(Observer):
    """Lets a run compute with fewer threads where other processes are at work and fewer threads are faster.

    Threads wait for each other at every operation. A thread that shares its core with another process delays all of
    them, so that two threads can be slower than one. The faster number is measured, never assumed.
    """

    def __init__(self) -> None:
        self._all = torch.get_num_threads()
        self._last: float | None = None  # when the last step of this epoch ended
        self._plan = self._adapt()
        next(self._plan)

    def step(self, images: int) -> None:
        """Takes the time of a step and may change the number of threads."""
        now = time.perf_counter()
        if self._last is not None:
            self._plan.send((images, now - self._last))
        self._last = now

    def epoch(self, record: Record) -> None:
        """Excludes evaluation and saving from the time of the next step."""
        self._last = None

    def ended(self, result: RunResult | None) -> None:
        """Restores the number of threads."""
        torch.set_num_threads(self._all)

    def _adapt(self) -> Generator[None, Step, None]:
        """Tries numbers of threads. It receives a step at every `yield`."""
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
    """Lets steps pass, at least one and for `seconds`; returns images per second."""
    images, passed = 0, 0.0
    while not images or passed < seconds:
        step_images, step_seconds = yield
        images += step_images
        passed += step_seconds
    return images / passed


def usable_cores() -> list[int]:
    """Returns the numbers of the cores that this process may use."""
    with contextlib.suppress(AttributeError, OSError, psutil.Error):  # macOS has no affinity
        return list(psutil.Process().cpu_affinity())
    return list(range(psutil.cpu_count() or 1))


class CoresOfOthers:
    """Measures how many of the cores that this process may use are used by other processes.

    cores: the number of cores that this process may use
    """

    def __init__(self) -> None:
        self._usable = set(usable_cores())
        self.cores = len(self._usable)
        self._before = self._now()

    def since_last(self) -> float:
        """Returns the mean number of cores since the last call; 0 where the system does not say."""
        before, self._before = self._before, self._now()
        wall, busy, own = (now - then for now, then in zip(self._before, before, strict=True))
        return max(0.0, busy - own) / max(wall, 1e-9)

    def _now(self) -> tuple[float, float, float]:
        """Returns seconds of the clock, of all processes on these cores, and of this process."""
        busy = 0.0
        with contextlib.suppress(OSError, psutil.Error):
            for core, times in enumerate(psutil.cpu_times(percpu=True)):
                if core in self._usable:
                    busy += times.user + times.system + getattr(times, "nice", 0.0)
        return time.perf_counter(), busy, time.process_time()
