"""Shows the progress of runs as a live line on a terminal, or as plain lines elsewhere.

The observers of runs call this module. It does not know what a run is.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.segment import Segment
from rich.status import Status
from rich.text import Text

from rethinking.config import ExperimentConfig


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
        self._print(
            f"{run.path}: {run.config.precision} on {run.config.device}, {run.images:,} training images{going_on}"
        )
        with self._lock:
            self._at_work = [*self._at_work, run]
            if not self._console.is_terminal or self._live is not None:
                return
            self.refresh()
            self._live = Live(
                get_renderable=lambda: Group(self._line(), Shortened(self._under)) if self._under else self._line(),
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

    def _print(self, text: str) -> None:
        say(self._console, [text])

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
        assert self._last is not None, "an epoch is finished"
        return f"epoch {self._last['epoch']}/{self.config.num_epochs}"

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
    """Fits content under one line of the terminal. Of too long a content it keeps the beginning and the end."""

    def __init__(self, whole: RenderableType) -> None:
        self._whole = whole

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        lines = console.render_lines(self._whole, options.update(height=None), pad=False)
        room = max(console.height - 1, 2)  # one line is for the live line
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
