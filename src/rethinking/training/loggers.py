"""Reports runs to TensorBoard, Weights & Biases and other observers.

A logger works in a thread of its own, which is fed through a queue. A failure there, such as a missing server, disk or
package, is logged once and never stops or slows the run.
"""

from __future__ import annotations

import contextlib
import logging
import netrc
import os
import queue
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from rethinking.config import ExperimentConfig
from rethinking.data.readers.hub import server_answers
from rethinking.errors import in_one_line
from rethinking.training.run_dir import Record, RunResult

FINISH_TIMEOUT = 10.0  # seconds that a finished run waits for each of its loggers
INTERRUPTED_TIMEOUT = 3.0  # seconds that an interrupted or failed run waits for each

log = logging.getLogger(__name__)


class Observer(Protocol):
    """The calls that a run makes: `started`, then `step` after each batch and `epoch` after each epoch, then `ended`.

    A subclass implements the calls that it needs; the others do nothing. `train(config, observers=[...])` takes
    instances. Where an observer raises an exception, a warning is logged once, and the run goes on without that
    observer.
    """

    def started(self, path: Path, config: ExperimentConfig, metrics: list[Record], images: int) -> None:
        """Is called before the first step.

        path: the run's folder
        config: the resolved configuration
        metrics: the records of the epochs that were finished before
        images: the number of training images per epoch
        """
        return

    def step(self, images: int) -> None:
        """Is called after each batch, with its number of images."""
        return

    def epoch(self, record: Record) -> None:
        """Is called after each epoch, once it is saved. `record` holds the epoch's metrics by name."""
        return

    def ended(self, result: RunResult | None) -> None:
        """Is called once at the end. `result` is None where the run was interrupted or failed."""
        return


class Observers(Observer):
    """Several observers as one. One that fails is left out from then on, with a warning."""

    def __init__(self, observers: Sequence[Observer] = ()) -> None:
        self._observers = tuple(observers)

    def started(self, path: Path, config: ExperimentConfig, metrics: list[Record], images: int) -> None:
        """Calls `started` of every observer."""
        for observer in self._observers:
            self._tell(observer, "started", path, config, list(metrics), images)

    def step(self, images: int) -> None:
        """Calls `step` of every observer."""
        for observer in self._observers:
            self._tell(observer, "step", images)

    def epoch(self, record: Record) -> None:
        """Calls `epoch` of every observer with a copy of the record."""
        for observer in self._observers:
            self._tell(observer, "epoch", dict(record))

    def ended(self, result: RunResult | None) -> None:
        """Calls `ended` of every observer."""
        for observer in self._observers:
            self._tell(observer, "ended", result)

    def _tell(self, observer: Observer, what: str, *arguments: object) -> None:
        try:
            getattr(observer, what)(*arguments)
        except Exception as error:  # a user's observer can raise anything
            self._observers = tuple(other for other in self._observers if other is not observer)
            log.warning("%s failed, the run goes on without it: %s", type(observer).__name__, in_one_line(error, 200))


class TensorBoardLogger(Observer):
    """Writes event files under `<run>/tensorboard`, one scalar per metric.

    A resumed run writes its earlier epochs again.
    """

    def started(self, path: Path, config: ExperimentConfig, metrics: list[Record], images: int) -> None:
        """Opens the event file and writes the earlier epochs."""
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(path / "tensorboard"), purge_step=1)
        for record in metrics:
            self.epoch(record)

    def epoch(self, record: Record) -> None:
        """Writes the numbers of an epoch."""
        for name, value in _scalars(record).items():
            self._writer.add_scalar(name, value, record["epoch"])
        self._writer.flush()

    def ended(self, result: RunResult | None) -> None:
        """Closes the event file."""
        self._writer.close()


class WandbLogger(Observer):
    """Logs one W&B run each time the run is started, grouped by run folder.

    Without a server or a key it logs offline, under `<run>/wandb`.
    """

    def started(self, path: Path, config: ExperimentConfig, metrics: list[Record], images: int) -> None:
        """Opens the W&B run and logs the earlier epochs."""
        os.environ.setdefault("WANDB_SILENT", "true")  # the console shows the run only
        import wandb

        def init(mode: str) -> Any:
            return wandb.init(
                project=config.wandb_project,
                entity=config.wandb_entity,
                dir=str(path),
                name=path.name,
                group=path.name,
                config=config.to_dict(),
                mode=mode,  # type: ignore[arg-type]
                reinit="create_new",  # beside the W&B runs of other runs in this process
                settings=wandb.Settings(console="off", silent=True, init_timeout=5),
            )

        mode = os.environ.get("WANDB_MODE") or ("online" if self._can_go_online() else "offline")
        try:
            self._run = init(mode)
        except Exception:  # a server in trouble can cause anything
            mode = "offline"
            self._run = init(mode)
        if mode == "offline":
            log.warning("W&B logs offline; `wandb sync %s/wandb/offline-run-*` uploads the run", path)
        for record in metrics:
            self.epoch(record)

    @staticmethod
    def _can_go_online() -> bool:
        server = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")
        has_key = bool(os.environ.get("WANDB_API_KEY"))
        with contextlib.suppress(OSError, netrc.NetrcParseError):
            has_key = has_key or netrc.netrc().authenticators(urlsplit(server).hostname or "") is not None
        return has_key and server_answers(server, 3.0)

    def epoch(self, record: Record) -> None:
        """Logs the numbers of an epoch."""
        self._run.log(_scalars(record), step=record["epoch"])

    def ended(self, result: RunResult | None) -> None:
        """Logs the final numbers and closes the W&B run."""
        if result is not None:
            self._run.summary.update({f"final/{name}": value for name, value in _scalars(result.final).items()})
            self._run.summary["epochs_to_fit"] = result.result["epochs_to_fit"]
        self._run.finish(exit_code=0 if result is not None else 1)


class Background(Observer):
    """An observer that passes every call except `step` to `logger` in a thread, and stops when `logger` fails."""

    def __init__(self, name: str, logger: Observer) -> None:
        self._name = name
        self._logger = logger
        self._calls: queue.SimpleQueue[tuple[Callable[..., None], tuple[Any, ...]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            method, arguments = call
            try:
                method(*arguments)
            except Exception as error:  # a logger can raise anything
                log.warning("%s stopped logging, the run goes on: %s", self._name, in_one_line(error, 200))
                return

    def started(self, path: Path, config: ExperimentConfig, metrics: list[Record], images: int) -> None:
        """Passes the call on."""
        self._calls.put((self._logger.started, (path, config, list(metrics), images)))

    def epoch(self, record: Record) -> None:
        """Passes the call on."""
        self._calls.put((self._logger.epoch, (record,)))

    def ended(self, result: RunResult | None) -> None:
        """Passes the call on and waits some seconds for the logger to finish."""
        self._calls.put((self._logger.ended, (result,)))
        self._calls.put(None)
        self._thread.join(INTERRUPTED_TIMEOUT if result is None else FINISH_TIMEOUT)
        if self._thread.is_alive():
            log.warning("%s did not finish in time; the run ends without waiting for it", self._name)


def loggers_for(config: ExperimentConfig) -> list[Observer]:
    """Returns the loggers that the configuration asks for, each in a thread of its own."""

    loggers: list[Observer] = []
    if config.use_tensorboard:
        loggers.append(Background("TensorBoard", TensorBoardLogger()))
    if config.use_wandb:
        loggers.append(Background("W&B", WandbLogger()))
    return loggers


def _scalars(record: Record) -> dict[str, float]:
    return {name: value for name, value in record.items() if name != "epoch" and isinstance(value, int | float)}
