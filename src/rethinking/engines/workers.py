"""Trains runs in worker processes on this machine, one for each device.

The driver is the process of the caller. It gives tasks to workers through pipes and reads the results from the run
folders. A worker that dies closes its pipe, and its runs continue in another worker. A worker whose driver dies sees
its own end of the pipe closed, and ends.

A worker is a new Python process that imports this package alone. Unlike a process of `multiprocessing`, it never
imports the caller's script, which would need `if __name__ == "__main__"`.
"""

from __future__ import annotations

import collections
import contextlib
import logging
import math
import os
import queue
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from multiprocessing import connection
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from rethinking.config import ExperimentConfig
from rethinking.engines.tasks import (
    Followed,
    Over,
    Report,
    Task,
    Workload,
    carry_out,
    groups_for,
    modules_for,
    outcome_of,
)
from rethinking.errors import InputError, RunError
from rethinking.training.hardware import only_card
from rethinking.training.preparation import PlannedRun, planning_many
from rethinking.training.run_dir import RunResult

DEATHS = 3  # a run is left after so many deaths of its workers in a row, with no epoch finished in between
STARTS = 3  # a device on which so many workers in a row end before they are ready is left
LOOK = 1.0  # seconds between two looks whether a process is alive whose pipe is open
READY = "ready"  # the first message of a worker
START = """
import sys
from multiprocessing.connection import Connection
pipe = Connection(int(sys.argv[1]))
sys.path[:] = sys.argv[3:]
try:
    from rethinking.engines.workers import work
except BaseException as error:
    pipe.send(f"{type(error).__name__}: {error}")
    sys.exit(1)
work(pipe, driver=int(sys.argv[2]))
"""

Outcome = RunResult | Exception

log = logging.getLogger(__name__)
_is_worker = False


def train_on_devices(
    workload: Workload, devices: Sequence[str]
) -> Iterator[tuple[ExperimentConfig, RunResult | Exception]]:
    """Trains the runs of `workload` in a process for each device, and yields each with its result or its error.

    Tasks are given out while the caller waits for the next outcome. Once the generator is closed no worker is left, and
    every run can be resumed from its last finished epoch.

    devices: names such as 'cuda:0' and 'cuda:3'; 'cuda' is every visible card. 'cpu' given several times is as many
        workers on the CPU. Each worker has an equal share of the computing threads

    Raises `InputError` before any training.
    """
    if _is_worker:
        raise InputError(
            "a worker imports this code, so it cannot start workers itself; put train_many(devices=...) below"
            ' `if __name__ == "__main__":`'
        )
    kind, environments = environments_of(devices, os.environ.get("CUDA_VISIBLE_DEVICES"))
    given: dict[Path, list[ExperimentConfig]] = collections.defaultdict(list)
    planned: dict[Path, PlannedRun] = {}
    with planning_many():
        for config in workload.configs:
            run = _planned(config, kind, workload)
            given[run.folder.path].append(config)
            planned.setdefault(run.folder.path, run)
    finished: list[PlannedRun] = []
    waiting: list[PlannedRun] = []
    for run in planned.values():
        (finished if run.folder.is_finished else waiting).append(run)
    groups = groups_for(waiting, len(environments), workload.at_once, workload.stacked)
    threads = max(1, torch.get_num_threads() // len(environments))
    crew = _Crew(workload, [_Worker(environment) for environment in environments], groups, threads)
    with contextlib.closing(crew.outcomes()) as outcomes:
        for run in finished:
            yield from ((config, outcome_of(run)) for config in given[run.folder.path])
        for run, outcome in outcomes:
            yield from ((config, outcome) for config in given[run.folder.path])


def environments_of(devices: Sequence[str], visible: str | None) -> tuple[str, list[dict[str, str]]]:
    """Returns 'cuda' or 'cpu', and for each worker the environment variables that it needs.

    visible: the value of CUDA_VISIBLE_DEVICES; None where it is not set

    Raises `InputError` for an unknown name, a device that this machine lacks, a card that is named twice, and cards
    beside the CPU.
    """
    for name in devices:
        if not re.fullmatch(r"cpu|cuda(:\d{1,3})?", name):
            raise InputError(f"devices are cpu, cuda for every card, or cards such as cuda:0; not '{name}'")
    kinds = {name.partition(":")[0] for name in devices}
    if len(kinds) != 1:
        raise InputError(f"devices are either cards or the CPU, not {' '.join(devices) or 'none'}")
    if kinds == {"cpu"}:
        return "cpu", [{} for _ in devices]
    number = torch.cuda.device_count()  # asks the driver of the cards and uses none of them
    if not number:
        raise InputError(f"device {devices[0]} is not available here, since no CUDA card is visible; use cpu")
    cards = [card for name in devices for card in (range(number) if name == "cuda" else [int(name[5:])])]
    for card, times in collections.Counter(cards).items():
        if card >= number:
            raise InputError(f"device cuda:{card} is not available here; the cards are cuda:0 to cuda:{number - 1}")
        if times > 1:
            raise InputError(f"device cuda:{card} is named twice in {' '.join(devices)}; a card has one worker")
    return "cuda", [{"CUDA_VISIBLE_DEVICES": only_card(card, visible)} for card in cards]


def _planned(config: ExperimentConfig, kind: str, workload: Workload) -> PlannedRun:
    """Plans a run on devices of this kind. Raises `InputError` where that is not possible."""
    if config.device not in ("auto", kind):
        raise InputError(f"a run has device {config.device}, but its workers have {kind}; leave its device out")
    modules_for(config)  # raises for what a worker cannot import
    return PlannedRun.of(replace(config, device=kind), workload.force, workload.seconds)


class _Worker:
    """A worker process and its task. After its death it can be started again.

    environment: the environment variables that it has besides the driver's
    starts: the number of starts since it was last given a task
    why: how its process ended the last time; '' while it runs
    runs: the runs of its task that are not over
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None
        self._followed: Followed | None = None
        self._task: list[PlannedRun] = []
        self._ready = False
        self.starts = 0
        self.why = ""
        self.runs: list[PlannedRun] = []

    @property
    def is_started(self) -> bool:
        """Whether there is a process, dead or alive."""
        return self._process is not None

    @property
    def is_alive(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def at_work(self) -> list[PlannedRun]:
        """The runs that have begun and are not over. Where none has, each may be the one that is prepared."""
        names = self._followed.at_work if self._followed is not None else set()
        return [run for run in self.runs if run.folder.path.name in names] or self.runs

    @property
    def advanced(self) -> list[PlannedRun]:
        """The runs that are not over and have finished an epoch here."""
        names = self._followed.advanced if self._followed is not None else set()
        return [run for run in self.runs if run.folder.path.name in names]

    @property
    def is_idle(self) -> bool:
        """Whether it can take a task."""
        return self._ready and not self.runs

    def start(self) -> None:
        """Starts the process, in a process group of its own: the terminal's Ctrl-C reaches the driver alone."""
        self.starts, self.why = self.starts + 1, ""
        self.pipe, theirs = connection.Pipe()
        path = [entry for entry in sys.path if isinstance(entry, str)]
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", START, str(theirs.fileno()), str(os.getpid()), *path],
                stdin=subprocess.DEVNULL,
                env={**os.environ, **self._environment},
                pass_fds=[theirs.fileno()],
                process_group=0,
            )
        except OSError as error:  # no memory, or too many processes
            self.why = error.strerror or str(error)
            self.pipe.close()
        finally:
            theirs.close()

    def give(self, runs: Sequence[PlannedRun], task: Task, followed: Followed) -> bool:
        """Gives a task to the idle worker. Returns whether it took the task; a dead one does not."""
        try:
            self.pipe.send(task)
        except OSError:
            return False
        self._task, self.runs, self._followed, self.starts = list(runs), list(runs), followed, 0
        return True

    def receive(self) -> Report | str | None:
        """Returns the next message; None where the worker is dead and there is none."""
        with contextlib.suppress(EOFError, OSError):
            if self.pipe.poll():
                message: Report | str = self.pipe.recv()
                return message
        return None

    def take(self, message: Report | str) -> tuple[PlannedRun, Outcome] | None:
        """Notes a message. Returns the run that it says is over, and the run's outcome; None for other messages."""
        if isinstance(message, str):
            self._ready = message == READY
            self.why = "" if self._ready else " ".join(message.split())
        elif self._followed is not None and isinstance(message, Over):
            run = self._task[message.place]
            self.runs.remove(run)
            return run, message.error or self._followed.outcome(run)
        elif self._followed is not None:
            self._followed.take(message)
        return None

    def kill(self) -> None:
        """Kills the process and all that it started, and does not wait."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def end(self) -> None:
        """Kills the process, frees what belongs to it, and tells the observers of its runs."""
        if self._process is not None:
            self.kill()
            self._process.wait()  # its locks on run folders are free from here on
            self.pipe.close()
        if self._followed is not None:
            self._followed.end()
        self._process, self._followed, self._ready, self.runs = None, None, False, []

    def died(self) -> None:
        """Notes how the process ended, and does what `end` does."""
        if self._process is not None and not self.why:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.why = _in_words(self._process.wait(LOOK))
            self.why = self.why or "a closed pipe"
        self.end()


class _Crew:
    """The workers of one call of `train_on_devices`, and the groups of runs that wait for them."""

    def __init__(
        self, workload: Workload, workers: Sequence[_Worker], groups: Sequence[list[PlannedRun]], threads: int
    ) -> None:
        self._workload = workload
        self._workers = workers
        self._waiting = collections.deque(sorted(groups, key=len, reverse=True))
        self._threads = threads
        self._deaths: collections.Counter[PlannedRun] = collections.Counter()

    def outcomes(self) -> Generator[tuple[PlannedRun, Outcome], None, None]:
        """Trains all runs and yields each with its outcome. No worker is left at the end, whatever it is."""
        try:
            while self._waiting or any(worker.runs for worker in self._workers):
                self._hand_out()
                for worker in self._to_hear():
                    message = worker.receive()
                    if message is None:
                        yield from self._after_death(worker)
                    elif over := worker.take(message):
                        yield over
                if not any(worker.is_started or worker.starts < STARTS for worker in self._workers):
                    yield from self._give_up()
        finally:
            for worker in self._workers:
                worker.kill()
            for worker in self._workers:
                worker.end()

    def _hand_out(self) -> None:
        """Gives tasks to idle workers, and starts as many workers as there are tasks."""
        without_task = sum(worker.is_started and not worker.runs for worker in self._workers)
        for worker in self._workers:
            if not worker.is_started and worker.starts < STARTS and without_task < len(self._waiting):
                worker.start()
                without_task += 1
            if self._waiting and worker.is_idle and self._give(worker, self._waiting[0]):
                self._waiting.popleft()
                without_task -= 1

    def _give(self, worker: _Worker, runs: Sequence[PlannedRun]) -> bool:
        configs = tuple(replace(run.given, precision=run.config.precision) for run in runs)  # equal on all cards
        modules = tuple(dict.fromkeys(module for config in configs for module in modules_for(config)))
        workload = self._workload
        task = Task(configs, self._threads, workload.force, workload.seconds, workload.at_once, modules)
        return worker.give(runs, task, Followed(runs, workload.observe))

    def _to_hear(self) -> list[_Worker]:
        """Waits for messages and deaths. Returns the workers concerned."""
        workers = {worker.pipe: worker for worker in self._workers if worker.is_started}
        ready = connection.wait(list(workers), LOOK)
        # A process that a dead worker had started can hold the pipe open.
        return [worker for pipe, worker in workers.items() if pipe in ready or not worker.is_alive]

    def _after_death(self, worker: _Worker) -> Iterator[tuple[PlannedRun, Outcome]]:
        """Puts the runs of a dead worker in front of the waiting ones. Yields those that are over or are left.

        A group that was at work is halved after the first death, and its runs are alone after the second. So a run
        that kills its workers is alone in the third.
        """
        runs, at_work, advanced = worker.runs, worker.at_work, worker.advanced
        worker.died()
        if not runs:
            log.warning("a worker died without a task (%s)", worker.why)
        again = []
        for run in runs:
            if run in advanced:
                self._deaths[run] = 0
            self._deaths[run] += run in at_work
            if _is_finished(run):
                yield run, outcome_of(run)
            elif self._deaths[run] == DEATHS:
                yield run, _left(run, worker.why)
            else:
                again.append(run)
        if again:
            log.warning("a worker died (%s); runs that go on in another one: %d", worker.why, len(again))
            suspects = [run for run in again if run in at_work]
            others = [run for run in again if run not in at_work]
            if others:
                self._waiting.appendleft(others)
            alone = any(self._deaths[run] > 1 for run in suspects)
            size = 1 if alone else max(1, math.ceil(len(suspects) / 2))
            self._waiting.extendleft(suspects[begin : begin + size] for begin in range(0, len(suspects), size))

    def _give_up(self) -> Iterator[tuple[PlannedRun, Outcome]]:
        """Yields all waiting runs with the reason why no worker starts."""
        why = self._workers[0].why
        for run in [run for runs in self._waiting for run in runs]:
            yield run, RunError(f"{run.folder.path} is not trained, since no worker process starts: {why}")
        self._waiting.clear()


def _is_finished(run: PlannedRun) -> bool:
    with contextlib.suppress(RunError):  # the run's next worker will say so
        return run.folder.is_finished
    return False


def _left(run: PlannedRun, why: str) -> RunError:
    return RunError(
        f"{run.folder.path} was at work in {DEATHS} workers that died within one epoch, at last by {why}; it is left"
        " after its last finished epoch. `rethinking train` trains it alone and shows the reason"
    )


def _in_words(status: int) -> str:
    """Returns how a process ended, from its return code."""
    if status >= 0:
        return f"exit status {status}"
    with contextlib.suppress(ValueError):
        name = signal.Signals(-status).name
        return "SIGKILL, as where the memory runs out" if name == "SIGKILL" else name
    return f"signal {-status}"


def work(pipe: Connection, driver: int) -> None:
    """Carries out the tasks that come through the pipe, in a worker process. It does not return.

    The process ends once the driver does, also in the middle of an epoch.

    driver: the number of the driver's process
    """
    global _is_worker
    _is_worker = True
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the driver ends its workers
    os.set_inheritable(pipe.fileno(), False)
    tasks: queue.SimpleQueue[Task] = queue.SimpleQueue()
    sending = threading.Lock()

    def send(message: Report | str) -> None:
        try:
            with sending:
                pipe.send(message)
        except OSError:  # the driver has ended
            os._exit(1)

    threading.Thread(target=_listen, args=(pipe, tasks, driver), daemon=True).start()
    send(READY)
    while True:
        carry_out(tasks.get(), send)


def _listen(pipe: Connection, tasks: queue.SimpleQueue[Task], driver: int) -> None:
    """Takes tasks from the pipe until the driver ends; then it ends this process."""
    try:
        while os.getppid() == driver:  # a process that the driver had started can hold the pipe open
            if pipe.poll(LOOK):
                tasks.put(pipe.recv())
    finally:
        os._exit(1)
