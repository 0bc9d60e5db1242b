"""Whom a run tells: TensorBoard, Weights & Biases, and whoever else observes it.

A logger works in a thread of its own, fed through a queue. Whatever happens there (no server, no disk, no package)
is told once and never stops or slows the run.
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
INTERRUPTED_TIMEOUT = 3.0  # seconds that an interrupted or failed one does

log = logging.getLogger(__name__)


class Observer(Protocol):
    """What a run calls: `started`, then `step` after each batch and `epoch` after each epoch, then `ended`.

    A class derived from it needs only those in which it has something to do. Where one raises an exception, that is
    told once, and the run goes on without it. `train(config, observers=[...])` takes objects of it.
    """

    def started(self, path: Path, config: ExperimentConfig, metrics: list[Record], images: int) -> None:
        """`metrics` holds the epochs that were finished before, `images` how many an epoch has."""
        return

    def step(self, images: int) -> None:
        """After a batch of so many images."""
        return

    def epoch(self, record: Record) -> None:
        """After an epoch, once it is saved."""
        return

    def ended(self, result: RunResult | None) -> None:
        """`result` is None where the run was interrupted or failed."""
        return


class Observers(Observer):
    """Several as one. One that fails is told once and left out from then on; the run goes on."""

    def __init__(self, observers: Sequence[Observer] = ()) -> None:
        self._observers = tuple(observers)

    def started(self, path: Path, config: ExperimentConfig, metrics: list[Record], images: int) -> None:
        for observer in self._observers:
            self._tell(observer, "started", path, config, list(metrics), images)

    def step(self, images: int) -> None:
        for observer in self._observers:
            self._tell(observer, "step", images)

    def epoch(self, record: Record) -> None:
        for observer in self._observers:
            self._tell(observer, "epoch", dict(record))

    def ended(self, result: RunResult | None) -> None:
        for observer in self._observers:
            self._tell(observer, "ended", result)

    def _tell(self, observer: Observer, what: str, *arguments: object) -> None:
        try:
            getattr(observer, what)(*arguments)
        except Exception as error:  # anything that somebody else's observer can raise
            self._observers = tuple(other for other in self._observers if other is not observer)
            log.warning("%s is no longer told, the run goes on: %s", type(observer).__name__, in_one_line(error, 200))


class TensorBoardLogger(Observer):
    """Event files under `<run>/tensorboard`, one scalar a metric; a resumed run writes its earlier epochs again."""

    def started(self, path: Path, config: ExperimentConfig, metrics: list[Record], images: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(path / "tensorboard"), purge_step=1)
        for record in metrics:
            self.epoch(record)

    def epoch(self, record: Record) -> None:
        for name, value in _scalars(record).items():
            self._writer.add_scalar(name, value, record["epoch"])
        self._writer.flush()

    def ended(self, result: RunResult | None) -> None:
        self._writer.close()


class WandbLogger(Observer):
    """One W&B run a sitting, grouped by run folder; offline, under `<run>/wandb`, where server or key are missing."""

    def started(self, path: Path, config: ExperimentConfig, metrics: list[Record], images: int) -> None:
        os.environ.setdefault("WANDB_SILENT", "true")  # the run's own console is for the run
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
                reinit="create_new",  # beside those of the other runs at work in this process
                settings=wandb.Settings(console="off", silent=True, init_timeout=5),
            )

        mode = os.environ.get("WANDB_MODE") or ("online" if self._can_go_online() else "offline")
        try:
            self._run = init(mode)
        except Exception:  # whatever a server in trouble makes of it
            mode = "offline"
            self._run = init(mode)
        if mode == "offline":
            log.warning("W&B logs offline; `wandb sync %s/wandb/offline-run-*` uploads it", path)
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
        self._run.log(_scalars(record), step=record["epoch"])

    def ended(self, result: RunResult | None) -> None:
        if result is not None:
            self._run.summary.update({f"final/{name}": value for name, value in _scalars(result.final).items()})
            self._run.summary["epochs_to_fit"] = result.result["epochs_to_fit"]
        self._run.finish(exit_code=0 if result is not None else 1)


class Background(Observer):
    """An observer that hands every call but `step` to `logger` in a thread, and gives it up when it fails."""

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
            except Exception as error:  # anything a logger can raise
                log.warning("%s stopped logging, the run goes on: %s", self._name, in_one_line(error, 200))
                return

    def started(self, path: Path, config: ExperimentConfig, metrics: list[Record], images: int) -> None:
        self._calls.put((self._logger.started, (path, config, list(metrics), images)))

    def epoch(self, record: Record) -> None:
        self._calls.put((self._logger.epoch, (record,)))

    def ended(self, result: RunResult | None) -> None:
        self._calls.put((self._logger.ended, (result,)))
        self._calls.put(None)
        self._thread.join(INTERRUPTED_TIMEOUT if result is None else FINISH_TIMEOUT)
        if self._thread.is_alive():
            log.warning("%s did not finish in time and is left behind", self._name)


def loggers_for(config: ExperimentConfig) -> list[Observer]:
    loggers: list[Observer] = []
    if config.use_tensorboard:
        loggers.append(Background("TensorBoard", TensorBoardLogger()))
    if config.use_wandb:
        loggers.append(Background("W&B", WandbLogger()))
    return loggers


def _scalars(record: Record) -> dict[str, float]:
    return {name: value for name, value in record.items() if name != "epoch" and isinstance(value, int | float)}
