"""Shows the progress of runs as a live line on a terminal, or as plain lines elsewhere.

The observers of runs call this module. It does not know what a run is.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.segment import Segment
from rich.status import Status
from rich.text import Text

from rethinking.config import ExperimentConfig

MANY = 1_000_000  # images, of which a share is exact enough


def say(console: Console, lines: Iterable[str]) -> None:
    """Prints lines without markup, highlighting and wrapping."""
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)


class Follower(Protocol):
    """A display that the observers of runs report to."""

    def started(self, run: Watched, going_on: str) -> None:
        """Is called before the first step; `going_on` says where an interrupted run continues, or is ''."""

    def step(self, run: Watched) -> None:
        """Is called after every training step."""

    def epoch(self, run: Watched) -> None:
        """Is called after every epoch."""

    def ended(self, run: Watched) -> None:
        """Is called once the run is finished or stopped."""


class Progress:
    """Shows one live line for all runs at work on a terminal, or one plain line per epoch elsewhere.

    below: makes what stands under the live line, such as a table that fills in
    """

    def __init__(self, console: Console, below: Callable[[], RenderableType] | None = None) -> None:
        self._console = console
        self._below = below
        self._live: Live | None = None
        self._under: RenderableType = ""
        self._at_work: list[Watched] = []
        self._lock = threading.Lock()  # runs side by side have a thread each

    def refresh(self) -> None:
        """Makes what stands under the live line again."""
        self._under = self._below() if self._below else ""

    def observers(self) -> list[Watched]:
        """Returns the observers of one run, as `training.train_many` takes them."""
        return [Watched(self)]

    def started(self, run: Watched, going_on: str) -> None:
        """Prints a line about the run and opens the live line on a terminal."""
        self._announce(run, going_on)
        with self._lock:
            self._at_work = [*self._at_work, run]
            if not self._console.is_terminal or self._live is not None:
                return
            self.refresh()
            self._live = Live(
                get_renderable=self._all_lines,
                console=self._console,
                refresh_per_second=4,
                transient=True,
            )
            self._live.start()

    def step(self, run: Watched) -> None:
        """Does nothing: the live line is redrawn several times a second."""

    def epoch(self, run: Watched) -> None:
        """Prints a line about the epoch where there is no live line."""
        if self._live is None:
            name = f"{run.path.name}  " if len(self._at_work) > 1 else ""
            self._print("  ".join([name + run.epoch_finished(), *run.left_and_measured()]))

    def ended(self, run: Watched) -> None:
        """Removes the run from the live line, and the live line after the last run."""
        with self._lock:
            self._at_work = [other for other in self._at_work if other is not run]
            if self._live is not None and not self._at_work:
                self._live.stop()
                self._live = None

    def _announce(self, run: Watched, going_on: str) -> None:
        self._print(
            f"{run.path}: {run.config.precision} on {run.config.device}, {run.images:,} training images{going_on}"
        )

    def _print(self, text: str) -> None:
        say(self._console, [text])

    def _all_lines(self) -> RenderableType:
        """Returns the live line and what stands under it."""
        return Group(self._line(), Shortened(self._under)) if self._under else self._line()

    def _line(self) -> Text:
        """Returns the live line: current epoch, time left and latest numbers. Of several runs it shows the slowest."""
        at_work = self._at_work  # read once, since another thread draws the line
        if not at_work:
            return Text()
        slowest = max(at_work, key=Watched.epochs_left)
        parts = [slowest.epoch_at_work(), *slowest.left_and_measured()]
        if len(at_work) > 1:
            parts.insert(0, f"{len(at_work)} runs at once")
        return Text("  ".join(parts), no_wrap=True, overflow="ellipsis")


class Tally:
    """Counts the runs of a list, and estimates the time that is left for all of them.

    A run of a network takes the seconds for each image that runs of this network took so far, with the same batch size
    where there was one. The number of runs at once follows from the seconds of all epochs and the time that has passed.

    Runs side by side and the live line may use it from their own threads.

    total: the number of runs in the list
    waiting: the runs that are neither finished nor failed
    """

    def __init__(self, total: int, waiting: Iterable[Any]) -> None:
        self._waiting = dict.fromkeys(waiting)
        self._total = total
        self._finished = total - len(self._waiting)
        self._failed = 0
        self._began = time.perf_counter()
        self._seconds = 0.0  # of all epochs since then
        self._spent: dict[tuple[object, ...], tuple[float, int]] = {}  # seconds, and images, by `_kinds`
        self._images: dict[str, int] = {}  # in an epoch on all images, by data set
        self._lock = threading.Lock()  # nothing else is locked inside it

    def epoch(self, run: Watched, record: Mapping[str, Any]) -> None:
        """Takes the time of an epoch."""
        taken = record.get("seconds") or 0.0
        with self._lock:
            self._seconds += taken
            for kind in _kinds(run.config):
                seconds, images = self._spent.get(kind, (0.0, 0))
                self._spent[kind] = seconds + taken, images + run.images
            if run.config.train_subset is None:
                share = run.config.training_images(MANY) / MANY  # of the images, where a run leaves some out
                self._images[Path(run.config.dataset).name] = round(run.images / share)

    def over(self, config: Any, finished: bool = False, failed: bool = False) -> None:
        """Takes a run off the list, as finished, failed or left to another process."""
        with self._lock:
            self._waiting.pop(config, None)
            self._finished += finished
            self._failed += failed

    def in_words(self, at_work: Sequence[Watched]) -> str:
        """Returns the numbers of runs and the time left, such as '3 of 36 runs finished, 2 at work, 12m 10s left'."""
        with self._lock:
            parts = [f"{self._finished} of {self._total} runs finished"]
            parts += [f"{self._failed} failed"] if self._failed else []
            parts += [f"{len(at_work)} at work"] if at_work else []
            return ", ".join([*parts, *self._left(at_work)])

    def _left(self, at_work: Sequence[Watched]) -> list[str]:
        """Returns words for the time left, in a list; empty where no epoch has ended, or nothing is left."""
        waiting = [config for config in self._waiting if isinstance(config, ExperimentConfig)]
        elapsed = time.perf_counter() - self._began
        if not waiting or self._seconds <= 0 or elapsed <= 0:
            return []
        seconds = sum(self._epoch(config) * config.num_epochs for config in waiting)
        seconds -= sum(self._epoch(run.config) * (run.config.num_epochs - run.epochs_left()) for run in at_work)
        at_once = self._seconds / elapsed
        most = "at most " if any(config.stop_when_fit for config in waiting) else ""
        unknown = dict.fromkeys(config.model_name for config in waiting if not self._epoch(config))
        rest = f" without {', '.join(unknown)}" if unknown else ""
        return [f"{most}{duration(max(0.0, seconds / at_once))} left{rest}"]

    def _epoch(self, config: ExperimentConfig) -> float:
        """Returns the seconds of an epoch of a run; 0 where no run of its network has finished an epoch."""
        kind = next((kind for kind in _kinds(config) if kind in self._spent), None)
        if kind is None:
            return 0.0
        seconds, images = self._spent[kind]
        of_data = self._images.get(Path(config.dataset).name, max(self._images.values(), default=0))
        return seconds / images * config.training_images(of_data)


def _kinds(config: ExperimentConfig) -> tuple[tuple[object, ...], tuple[object, ...]]:
    """Returns what runs of about the same speed have in common, the closest first."""
    network = Path(config.model_name).name, config.model_options
    return (*network, config.batch_size), network


class ListProgress(Progress):
    """Shows a list of runs: how many are finished, failed and at work, and the time left for all of them.

    A terminal has a line with that above the live line. Elsewhere a plain line is printed every `OFTEN` seconds at
    most. Runs may be many, so they have no line for each epoch.

    tally: makes the tally when it is first needed
    """

    OFTEN = 30.0

    def __init__(self, console: Console, below: Callable[[], RenderableType], tally: Callable[[], Tally]) -> None:
        super().__init__(console, below)
        self._make_tally = tally
        self._made: Tally | None = None
        self._making = threading.Lock()
        self._said = time.perf_counter()

    def refresh(self) -> None:
        """Makes what stands under the live line again. Elsewhere there is nothing."""
        if self._console.is_terminal:
            super().refresh()

    def started(self, run: Watched, going_on: str) -> None:
        """Opens the live line on a terminal. Prints a line about a run that goes on from an earlier epoch."""
        _ = self._tally  # its clock begins
        super().started(run, going_on)

    def _announce(self, run: Watched, going_on: str) -> None:
        if going_on:
            super()._announce(run, going_on)

    def epoch(self, run: Watched) -> None:
        """Takes the time of the epoch. Where there is no live line, prints a line if the last one is long ago."""
        self._tally.epoch(run, run.last)
        now = time.perf_counter()
        if self._live is None and now - self._said > self.OFTEN:
            self._said = now
            self._print(f"{self.in_words()}: {self._line().plain}")

    def over(self, config: Any, finished: bool = False, failed: bool = False) -> None:
        """Takes a run off the list, as finished, failed or left to another process."""
        self._tally.over(config, finished, failed)
        self._said = time.perf_counter()  # a line follows

    def in_words(self) -> str:
        """Returns the numbers of runs and the time left."""
        return self._tally.in_words(self._at_work)

    @property
    def _tally(self) -> Tally:
        with self._making:
            if self._made is None:
                self._made = self._make_tally()
            return self._made

    def _all_lines(self) -> RenderableType:
        lines = [Text(self.in_words(), no_wrap=True, overflow="ellipsis"), self._line()]
        return Group(*lines, Shortened(self._under, len(lines))) if self._under else Group(*lines)


class Watched:
    """The observer of one run. It counts images and reports to a `Follower`."""

    def __init__(self, follower: Follower) -> None:
        self._follower = follower
        self.seconds = math.inf  # that training has at most, where somebody sets them

    def started(self, path: Path, config: ExperimentConfig, metrics: list[dict[str, Any]], images: int) -> None:
        """Takes the run's folder, configuration, earlier records and images per epoch, and starts the clock."""
        self.path, self.config, self.images = path, config, images
        self._images_done = 0  # since `started`
        self._result: Any = None  # a `RunResult`, once the run is finished
        self._last = metrics[-1] if metrics else None
        self._first_epoch = len(metrics) + 1
        self._began = time.perf_counter()
        self._follower.started(self, f", going on from epoch {self._first_epoch}" if metrics else "")

    def step(self, images: int) -> None:
        """Counts the images of a batch."""
        self._images_done += images
        self._follower.step(self)

    def epoch(self, record: dict[str, Any]) -> None:
        """Keeps the record of an epoch."""
        self._last = record
        self._follower.epoch(self)

    def ended(self, result: Any) -> None:
        """Keeps the result; None where the run was interrupted or failed."""
        self._result = result
        self._follower.ended(self)

    @property
    def last(self) -> Mapping[str, Any]:
        """The record of the last finished epoch. There is one."""
        assert self._last is not None, "an epoch is finished"
        return self._last

    def epochs_left(self) -> float:
        """Returns the number of epochs that are left, with the fraction of the current epoch."""
        return self.config.num_epochs - self._first_epoch + 1 - self._epochs_done

    @property
    def _epochs_done(self) -> float:
        """The number of epochs since `started`, with the fraction of the current epoch."""
        return self._images_done / self.images

    def epoch_at_work(self) -> str:
        """Returns words for the current epoch and its progress, such as 'epoch 3/10 42%'."""
        epochs, done = self.config.num_epochs, self._epochs_done
        return f"epoch {min(self._first_epoch + int(done), epochs)}/{epochs} {done % 1:3.0%}"

    def epoch_finished(self) -> str:
        """Returns words for the last finished epoch, such as 'epoch 2/10'."""
        return f"epoch {self.last['epoch']}/{self.config.num_epochs}"

    def outcome(self) -> str:
        """Returns words for how the run ended: its last epoch, and its time and numbers where it finished."""
        epochs = "" if self._last is None else self.epoch_finished()
        if self._result is None:
            return f"stopped after {epochs}" if epochs else "stopped in its first epoch"
        return "  ".join([f"{epochs} in {duration(self._result.result['seconds'])}", *_measured(self._result.final)])

    def left_and_measured(self) -> list[str]:
        """Returns words for the time left and the numbers of the last epoch, as far as they are known."""
        done, left = self._epochs_done, self.epochs_left()
        elapsed = time.perf_counter() - self._began
        most = "at most " if self.config.stop_when_fit or self.seconds < math.inf else ""  # the end is not known yet
        expected = min(elapsed / done * left, max(0.0, self.seconds - elapsed)) if done > 0 else 0.0
        parts = [f"{most}{duration(expected)} left"] if done > 0 and left > 0 else []
        return parts if self._last is None else parts + _measured(self._last)


class StepsInWords:
    """Shows the steps of a computation without training.

    A terminal has one live line per step. Elsewhere a plain line is printed every `OFTEN` seconds.
    """

    OFTEN = 30.0

    def __init__(self, console: Console) -> None:
        self._console = console
        self._name = ""
        self._status: Status | None = None

    def of(self, name: str) -> Callable[[str], Callable[[float], None]]:
        """Returns the `Steps` of the computation `name`, and removes the line of the one before."""
        self.close()
        self._name = name
        return self._begin

    def _begin(self, step: str) -> Callable[[float], None]:
        """Begins a step. The returned function takes the share of the step that is done, 0-1."""
        began = said = time.perf_counter()
        self.close()
        if self._console.is_terminal:
            self._status = self._console.status(f"{self._name}: {step}")
            self._status.start()

        def advanced(share: float) -> None:
            nonlocal said
            now = time.perf_counter()
            left = f"{duration((now - began) * (1 - share) / share)} left" if share > 0 and now - began > 1 else ""
            line = f"{self._name}: {step} {share:.0%}  {left}".rstrip()
            if self._status is not None:
                self._status.update(line)
            elif now - said > self.OFTEN:
                said = now
                self._console.print(line, highlight=False, markup=False, soft_wrap=True)

        return advanced

    def close(self) -> None:
        """Removes the live line."""
        if self._status is not None:
            self._status.stop()
            self._status = None


class Shortened:
    """Fits content under the first lines of the terminal. Of too long a content it keeps the beginning and the end.

    below: the number of lines above it
    """

    def __init__(self, whole: RenderableType, below: int = 1) -> None:
        self._whole = whole
        self._below = below

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        lines = console.render_lines(self._whole, options.update(height=None), pad=False)
        room = max(console.height - self._below, 2)
        if len(lines) > room:
            heading = room // 3
            lines = [*lines[:heading], [Segment("⋮")], *lines[len(lines) - (room - heading - 1) :]]
        for line in lines:
            yield from line
            yield Segment.line()


def _measured(record: Mapping[str, Any]) -> list[str]:
    parts = [f"loss {record['train_loss']:.4f}", f"train {record['train_accuracy']:.2%}"]
    if record["exact_train_accuracy"] is not None:
        parts.append(f"exact {record['exact_train_accuracy']:.2%}")
    if record["test_accuracy"] is not None:
        parts += [f"test {record['test_accuracy']:.2%}", f"test loss {record['test_loss']:.4f}"]
    return [*parts, f"{record['images_per_second']:,.0f} images/s"]


def duration(seconds: float) -> str:
    """Returns a time in words, such as '45s', '2m 05s' or '1h 10m'. `seconds` are rounded to whole seconds."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h {minutes:02}m" if hours else f"{minutes}m {seconds:02}s" if minutes else f"{seconds}s"
