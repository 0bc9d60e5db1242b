"""Whom a run tells: TensorBoard, Weights & Biases, and whoever else observes it.

A logger works in a thread of its own, fed through a queue. Whatever happens there (no server, no disk, no package)
is told once and never stops or slows the run.
"""

from __future__ import annotations

import logging
import os
import queue
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from rethinking.config import ExperimentConfig
from rethinking.training.run_dir import Record, RunResult

FINISH_TIMEOUT = 30.0  # seconds that a finished run waits for its loggers

log = logging.getLogger(__name__)


class Observer(Protocol):
    """What a run calls: `started`, then `step` after each batch and `epoch` after each epoch, then `ended`."""

    def started(self, path: Path, config: ExperimentConfig, metrics: list[Record], images: int) -> None:
        """`metrics` holds the epochs that were finished before, `images` how many an epoch has."""

    def step(self, images: int) -> None: ...

    def epoch(self, record: Record) -> None: ...

    def ended(self, result: RunResult | None) -> None:
        """`result` is None where the run was interrupted or failed."""


class TensorBoardLogger:
    """Event files under `<run>/tensorboard`, one scalar a metric."""

    def started(self, path: Path, config: ExperimentConfig, metrics: list[Record], images: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(path / "tensorboard"), purge_step=len(metrics) + 1)

    def step(self, images: int) -> None:
        pass

    def epoch(self, record: Record) -> None:
        for name, value in _scalars(record).items():
            self._writer.add_scalar(name, value, record["epoch"])
        self._writer.flush()

    def ended(self, result: RunResult | None) -> None:
        self._writer.close()


class WandbLogger:
    """One W&B run a run folder; offline, under `<run>/wandb`, where the server or a key is missing."""

    def started(self, path: Path, config: ExperimentConfig, metrics: list[Record], images: int) -> None:
        import wandb

        mode = os.environ.get("WANDB_MODE") or ("online" if self._has_server(wandb) else "offline")
        if mode == "offline":
            log.warning("W&B is out of reach or has no key: logging offline; `wandb sync %s/wandb/*` uploads it", path)
        self._run = wandb.init(
            project=config.wandb_project,
            entity=config.wandb_entity,
            dir=str(path),
            id=path.name[-64:],
            name=path.name,
            config=config.to_dict(),
            mode=mode,  # type: ignore[arg-type]
            resume="allow" if mode == "online" else None,
            settings=wandb.Settings(console="off", silent=True, init_timeout=20),
        )

    @staticmethod
    def _has_server(wandb: Any) -> bool:
        from rethinking.data.sources import server_answers

        api = wandb.setup().settings
        return bool(os.environ.get("WANDB_API_KEY") or wandb.api.api_key) and server_answers(api.base_url, 3.0)

    def step(self, images: int) -> None:
        pass

    def epoch(self, record: Record) -> None:
        self._run.log(_scalars(record), step=record["epoch"])

    def ended(self, result: RunResult | None) -> None:
        if result is not None:
            self._run.summary.update({f"final/{name}": value for name, value in _scalars(result.final).items()})
            self._run.summary["epochs_to_fit"] = result.result["epochs_to_fit"]
        self._run.finish(exit_code=0 if result is not None else 1)


class Background:
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
                log.warning("%s stopped logging, the run goes on: %s: %s", self._name, type(error).__name__, error)
                return

    def started(self, path: Path, config: ExperimentConfig, metrics: list[Record], images: int) -> None:
        self._calls.put((self._logger.started, (path, config, list(metrics), images)))

    def step(self, images: int) -> None:
        pass

    def epoch(self, record: Record) -> None:
        self._calls.put((self._logger.epoch, (record,)))

    def ended(self, result: RunResult | None) -> None:
        self._calls.put((self._logger.ended, (result,)))
        self._calls.put(None)
        self._thread.join(FINISH_TIMEOUT)
        if self._thread.is_alive():
            log.warning("%s did not finish within %.0f s and is left behind", self._name, FINISH_TIMEOUT)


def loggers_for(config: ExperimentConfig) -> list[Observer]:
    loggers: list[Observer] = []
    if config.use_tensorboard:
        loggers.append(Background("TensorBoard", TensorBoardLogger()))
    if config.use_wandb:
        loggers.append(Background("W&B", WandbLogger()))
    return loggers


def _scalars(record: Record) -> dict[str, float]:
    return {name: value for name, value in record.items() if name != "epoch" and isinstance(value, int | float)}
