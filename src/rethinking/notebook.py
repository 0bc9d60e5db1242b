"""Shows runs in a notebook: their progress in one display that is updated in place, and tables."""

from __future__ import annotations

import contextlib
import html
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from rethinking.errors import InputError
from rethinking.steps import Steps, unwatched

if TYPE_CHECKING:
    from rethinking.progress import Watched

INTERVAL = 0.4  # seconds between two updates of a display, at least
BLOCK = "font-family: monospace; white-space: pre-wrap"


def in_notebook() -> bool:
    """Returns whether this process is the kernel of a notebook (Jupyter, Colab, VS Code), not IPython on a terminal."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None and hasattr(ipython, "get_ipython") else None
    return getattr(shell, "kernel", None) is not None


class Shown(NamedTuple):
    """The place where progress is shown.

    observers: makes the observers of one run, as `train_many` takes them
    steps: takes the name of a computation without training and returns the `Steps` that show it
    say: shows one line
    """

    observers: Callable[[], list[Watched]]
    steps: Callable[[str], Steps]
    say: Callable[[str], None]


@contextlib.contextmanager
def shown(progress: bool | None) -> Iterator[Shown]:
    """Opens the place where progress is shown, and closes it at the end.

    A notebook shows progress unless `progress` is False. Elsewhere the terminal shows it where `progress` is True. The
    log lines of this package are shown there too, unless another handler shows them already.
    """
    with contextlib.ExitStack() as ended:
        if in_notebook() and progress is not False:
            display = NotebookProgress()
            ended.callback(display.close)
            ended.enter_context(_log_lines(display.say))
            yield Shown(display.observers, display.steps, display.say)
        elif progress:
            from rich.console import Console

            from rethinking import progress as terminals

            terminal = Console()
            steps = ended.enter_context(contextlib.closing(terminals.StepsInWords(terminal)))

            def say(line: str) -> None:
                terminals.say(terminal, [line])

            ended.enter_context(_log_lines(say))
            yield Shown(terminals.Progress(terminal).observers, steps.of, say)
        else:
            yield Shown(list, lambda name: unwatched, lambda line: None)


@contextlib.contextmanager
def _log_lines(say: Callable[[str], None]) -> Iterator[None]:
    logger = logging.getLogger("rethinking")
    level, handler = logger.level, _Lines(say)
    if not logger.hasHandlers():
        logger.addHandler(handler)
    if level == logging.NOTSET:
        logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


class _Lines(logging.Handler):
    def __init__(self, say: Callable[[str], None]) -> None:
        super().__init__()
        self._say = say

    def emit(self, record: logging.LogRecord) -> None:
        self._say(record.getMessage())


@dataclass(eq=False)
class _Line:
    """One line of the display; share: the part of the work that is done, 0-1, or None without a bar."""

    text: str
    name: str = ""
    share: float | None = None

    def in_html(self) -> str:
        bar = "" if self.share is None else f'<progress value="{self.share:.3f}"></progress> '
        return f"<div>{bar}{html.escape(self.in_words())}</div>"

    def in_words(self) -> str:
        return "  ".join(part for part in (self.name, self.text) if part)


class NotebookProgress:
    """One display for all runs. A run has one line, with a bar while the run is at work.

    The display is updated a few times a second at most. Runs side by side may call it from their own threads.
    """

    def __init__(self) -> None:
        self._lines: list[_Line] = []
        self._of_run: dict[Watched, _Line] = {}
        self._step: _Line | None = None  # of a computation without training
        self._handle: Any = None
        self._updated = 0.0
        self._later: threading.Timer | None = None  # a planned update
        self._lock = threading.RLock()

    def observers(self) -> list[Watched]:
        """Returns the observers of one run, as `training.train_many` takes them."""
        from rethinking.progress import Watched

        return [Watched(self)]

    def started(self, run: Watched, going_on: str) -> None:
        """Adds the line of a run."""
        with self._lock:
            line = self._of_run[run] = _Line("", run.path.name, 0.0)
            self._add(line)

    def step(self, run: Watched) -> None:
        """Updates the display after a training step, unless it was updated just before."""
        with self._lock:
            if self._wait() <= 0:
                self._update()

    def epoch(self, run: Watched) -> None:
        """Updates the display after an epoch, unless it was updated just before."""
        self.step(run)

    def ended(self, run: Watched) -> None:
        """Replaces the bar of a run by its outcome."""
        with self._lock:
            line = self._of_run.pop(run)
            line.text, line.share = run.outcome(), None
            self._update(at_once=not self._of_run)

    def steps(self, name: str) -> Steps:
        """Returns the `Steps` of a computation without training. Its line goes when the next computation begins."""
        self._end_steps()

        def begin(step: str) -> Callable[[float], None]:
            self._end_steps()
            with self._lock:
                line = self._step = _Line(step, name, 0.0)
                self._add(line)

            def advanced(share: float) -> None:
                with self._lock:
                    line.share = share
                    self._update()

            return advanced

        return begin

    def say(self, line: str) -> None:
        """Shows one line of text."""
        with self._lock:
            self._add(_Line(line))

    def close(self) -> None:
        """Shows the final state."""
        self._end_steps()
        with self._lock:
            if self._handle is not None:
                self._update(at_once=True)

    def _add(self, line: _Line) -> None:
        self._lines.append(line)
        self._update()

    def _end_steps(self) -> None:
        with self._lock:
            if self._step is not None:
                self._lines.remove(self._step)
                self._step = None

    def _wait(self) -> float:
        """Returns the seconds until the next update is due."""
        return 0.0 if self._handle is None else self._updated + INTERVAL - time.monotonic()

    def _update(self, at_once: bool = False) -> None:
        """Updates the display, now with `at_once` and otherwise as soon as the next update is due."""
        wait = 0.0 if at_once else self._wait()
        if wait > 0:
            if self._later is None:
                self._later = threading.Timer(wait, self._update_late)
                self._later.daemon = True
                self._later.start()
            return
        if self._later is not None:
            self._later.cancel()
            self._later = None
        self._updated = time.monotonic()
        for run, line in self._of_run.items():
            line.share = 1 - run.epochs_left() / run.config.num_epochs
            line.text = "  ".join([run.epoch_at_work(), *run.left_and_measured()])
        content = {
            "text/html": f'<div style="{BLOCK}">{"".join(line.in_html() for line in self._lines)}</div>',
            "text/plain": "\n".join(line.in_words() for line in self._lines),
        }
        if self._handle is None:
            from IPython.display import display

            self._handle = display(content, raw=True, display_id=True)
        else:
            self._handle.update(content, raw=True)

    def _update_late(self) -> None:
        with self._lock:
            if self._later is not None:
                self._update(at_once=True)


def frame(rows: Sequence[Mapping[str, Any]]) -> Any:
    """Returns a pandas DataFrame of `rows`. Raises `InputError` where pandas is not installed."""
    try:
        import pandas
    except ImportError:
        raise InputError("a frame needs pandas, which is not installed: pip install pandas") from None
    return pandas.DataFrame(rows)


def table(headings: Sequence[str], rows: Sequence[Sequence[str]], title: str = "", caption: str = "") -> str:
    """Returns a table in HTML. The texts are escaped."""

    def row(entries: Sequence[str], kind: str) -> str:
        return f"<tr>{''.join(f'<{kind}>{html.escape(entry)}</{kind}>' for entry in entries)}</tr>"

    head = f"<thead>{row(headings, 'th')}</thead>" if headings else ""
    above, below = (f"<p>{html.escape(text)}</p>" if text else "" for text in (title, caption))
    return f"{above}<table>{head}<tbody>{''.join(row(entries, 'td') for entries in rows)}</tbody></table>{below}"
