"""How far runs are, on a terminal or in plain lines. What runs are is not known here: they tell it."""

from __future__ import annotations

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
    """Print lines as they are."""
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)


class Follower(Protocol):
    """Whom the observer of a run tells how far it is."""

    def started(self, run: Watched, going_on: str) -> None: ...
    def step(self, run: Watched) -> None: ...
    def epoch(self, run: Watched) -> None: ...
    def ended(self, run: Watched) -> None: ...


class Progress:
    """One live line for all runs at work on a terminal, a plain line an epoch elsewhere.

    `below` makes what stands under the live line, such as a table that fills in.
    """

    def __init__(self, console: Console, below: Callable[[], RenderableType] | None = None) -> None:
        self._console = console
        self._below = below
        self._live: Live | None = None
        self._under: RenderableType = ""
        self._at_work: list[Watched] = []
        self._lock = threading.Lock()  # runs side by side have a thread each

    def refresh(self) -> None:
        """Make anew what stands under the live line."""
        self._under = self._below() if self._below else ""

    def observers(self) -> list[Watched]:
        """Those of one run, for `training.train_many`."""
        return [Watched(self)]

    def started(self, run: Watched, going_on: str) -> None:
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
        """The live line is drawn anew by itself."""

    def epoch(self, run: Watched) -> None:
        if self._live is None:
            name = f"{run.path.name}  " if len(self._at_work) > 1 else ""
            self._print("  ".join([name + run.epoch_finished(), *run.left_and_measured()]))

    def ended(self, run: Watched) -> None:
        with self._lock:
            self._at_work = [other for other in self._at_work if other is not run]
            if self._live is not None and not self._at_work:
                self._live.stop()
                self._live = None

    def _print(self, text: str) -> None:
        say(self._console, [text])

    def _line(self) -> Text:
        """The epoch at work, what the last finished one measured, and what is left; of several runs the slowest's."""
        at_work = self._at_work  # as it is now: the line is drawn in a thread of its own
        if not at_work:
            return Text()
        slowest = max(at_work, key=Watched.epochs_left)
        parts = [slowest.epoch_at_work(), *slowest.left_and_measured()]
        if len(at_work) > 1:
            parts.insert(0, f"{len(at_work)} runs at once")
        return Text("  ".join(parts), no_wrap=True, overflow="ellipsis")


class Watched:
    """The observer of one run: how far it is."""

    def __init__(self, follower: Follower) -> None:
        self._follower = follower

    def started(self, path: Path, config: ExperimentConfig, metrics: list[dict[str, Any]], images: int) -> None:
        self.path, self.config, self.images = path, config, images
        self._images_done = 0  # in this sitting
        self._result: Any = None  # of type `RunResult`, once there is one
        self._last = metrics[-1] if metrics else None
        self._first_epoch = len(metrics) + 1
        self._began = time.perf_counter()
        self._follower.started(self, f", going on from epoch {self._first_epoch}" if metrics else "")

    def step(self, images: int) -> None:
        self._images_done += images
        self._follower.step(self)

    def epoch(self, record: dict[str, Any]) -> None:
        self._last = record
        self._follower.epoch(self)

    def ended(self, result: Any) -> None:
        self._result = result
        self._follower.ended(self)

    def epochs_left(self) -> float:
        return self.config.num_epochs - self._first_epoch + 1 - self._epochs_done

    @property
    def _epochs_done(self) -> float:
        """In this sitting, the one at work in part."""
        return self._images_done / self.images

    def epoch_at_work(self) -> str:
        epochs, done = self.config.num_epochs, self._epochs_done
        return f"epoch {min(self._first_epoch + int(done), epochs)}/{epochs} {done % 1:3.0%}"

    def epoch_finished(self) -> str:
        assert self._last is not None, "an epoch is finished"
        return f"epoch {self._last['epoch']}/{self.config.num_epochs}"

    def outcome(self) -> str:
        """What it came to: the last epoch, where it stopped before its end too."""
        epochs = "" if self._last is None else self.epoch_finished()
        if self._result is None:
            return f"stopped after {epochs}" if epochs else "stopped in its first epoch"
        return "  ".join([f"{epochs} in {duration(self._result.result['seconds'])}", *_measured(self._result.final)])

    def left_and_measured(self) -> list[str]:
        done, left = self._epochs_done, self.epochs_left()
        elapsed = time.perf_counter() - self._began
        most = "at most " if self.config.stop_when_fit else ""  # nobody knows the last epoch
        parts = [f"{most}{duration(elapsed / done * left)} left"] if done > 0 and left > 0 else []
        return parts if self._last is None else parts + _measured(self._last)


class StepsInWords:
    """Progress of what is not trained: on a terminal a live line a step, else a plain one every `OFTEN` seconds."""

    OFTEN = 30.0

    def __init__(self, console: Console) -> None:
        self._console = console
        self._name = ""
        self._status: Status | None = None

    def of(self, name: str) -> Callable[[str], Callable[[float], None]]:
        """What begins the steps of the run of that name."""
        self.close()
        self._name = name
        return self._begin

    def _begin(self, step: str) -> Callable[[float], None]:
        """A step of the work; what it gives is told the share that is done."""
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
        """Take the live line away."""
        if self._status is not None:
            self._status.stop()
            self._status = None


class Shortened:
    """What does not fit under one line of the terminal loses its middle: its heading and its last rows stay."""

    def __init__(self, whole: RenderableType) -> None:
        self._whole = whole

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        lines = console.render_lines(self._whole, options.update(height=None), pad=False)
        room = max(console.height - 1, 2)  # one is for the line above
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
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h {minutes:02}m" if hours else f"{minutes}m {seconds:02}s" if minutes else f"{seconds}s"
