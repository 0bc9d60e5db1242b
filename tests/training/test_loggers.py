import http.server
import logging
import socket
import socketserver
import sys
import threading
import time
from pathlib import Path

import pytest

from rethinking import ExperimentConfig, train, train_many
from rethinking.training import loggers
from rethinking.training.loggers import Background, Observer, TensorBoardLogger


def config(tmp_path: Path, **options) -> ExperimentConfig:
    fixed = {"model_name": "mlp_1x512", "dataset": "digits", "num_epochs": 3, "runs_dir": str(tmp_path / "runs")}
    return ExperimentConfig(**{**fixed, **options})


def test_tensorboard_holds_every_metric_of_every_epoch(tmp_path: Path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    result = train(config(tmp_path))
    events = EventAccumulator(str(result.path / "tensorboard"))
    events.Reload()
    for name in ("train_loss", "train_accuracy", "test_loss", "test_accuracy", "learning_rate"):
        logged = [(event.step, event.value) for event in events.Scalars(name)]
        assert logged == [(record["epoch"], pytest.approx(record[name])) for record in result.metrics]
    assert [event.step for event in events.Scalars("exact_train_accuracy")] == [3]


def test_a_resumed_runs_curves_are_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A kill can lose unwritten records of a logger, so the resumed run logs every epoch again."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.summary.writer import event_file_writer

    # Files of one second sort by their number in this process, and as text 10 comes before 9.
    monkeypatch.setattr(event_file_writer._global_uid, "_value", 0)
    metrics = [{"epoch": epoch, "train_loss": 1.0 / epoch} for epoch in range(1, 6)]
    for sitting in (metrics[:2], metrics[:4]):  # the first one's third epoch was lost
        logger = TensorBoardLogger()
        logger.started(tmp_path, ExperimentConfig(), sitting, 10)
        logger.ended(None)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("train_loss")][-4:] == [1, 2, 3, 4]


class Troubled(http.server.BaseHTTPRequestHandler):
    """A W&B server that accepts connections and fails at every request."""

    def do_HEAD(self) -> None:
        self.send_response(200)
        self.end_headers()

    def do_POST(self) -> None:
        self.send_response(500)
        self.end_headers()

    do_GET = do_POST  # noqa: N815

    def log_message(self, *_: object) -> None: ...


def logged(run: Path, *words: bytes, times: int = 1) -> bool:
    """Says whether W&B wrote each of the words; its service may still write when the run has ended."""
    deadline = time.monotonic() + 1200
    while time.monotonic() < deadline:
        content = b"".join(file.read_bytes() for file in run.glob("wandb/offline-run-*/run-*.wandb"))
        if all(content.count(word) >= times for word in words):
            return True
        time.sleep(0.01)
    return False


def test_wandb_whose_server_fails_logs_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(loggers, "FINISH_TIMEOUT", 60)
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Troubled) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.server_address[1]}")
        monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
        result = train(config(tmp_path, use_wandb=True, use_tensorboard=False))
        server.shutdown()
    assert len(result.metrics) == 3
    assert logged(result.path, b"train_loss")


@pytest.mark.parametrize("stacked", [True, False])
def test_wandb_has_a_run_for_each_of_several_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stacked: bool):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setattr(loggers, "FINISH_TIMEOUT", 60.0)  # its service is slow to start where other tests run beside
    configs = [config(tmp_path, use_wandb=True, use_tensorboard=False, seed=seed) for seed in range(2)]
    for _, result in train_many(configs, at_once=2, stacked=stacked):
        assert len(list((result.path / "wandb").glob("offline-run-*"))) == 1
        assert logged(result.path, b"train_loss", times=3), "every epoch of its own"
        assert logged(result.path, b"epochs_to_fit")


def test_wandb_without_a_server_logs_offline_and_the_run_continues(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(loggers, "FINISH_TIMEOUT", 60.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
        with caplog.at_level(logging.WARNING, "rethinking"):
            result = train(config(tmp_path, use_wandb=True, wandb_project="zhang-generalization"))
    assert len(list((result.path / "wandb").glob("offline-run-*"))) == 1
    assert logged(result.path, b"zhang-generalization", b"train_loss", b"epochs_to_fit", b"mlp_1x512")
    assert any("logs offline" in message for message in caplog.messages)


class FakeWandb:
    """The part of the package that a logger calls; it keeps its arguments."""

    Settings = dict

    def __init__(self) -> None:
        self.logged: list[tuple[int, dict[str, float]]] = []
        self.summary: dict[str, object] = {}
        self.ended: int | None = None

    def init(self, **options: object) -> "FakeWandb":
        self.options = options
        return self

    def log(self, scalars: dict[str, float], step: int) -> None:
        self.logged.append((step, scalars))

    def finish(self, exit_code: int) -> None:
        self.ended = exit_code


def test_wandb_gets_the_numbers_of_each_epoch_and_the_last_ones_as_final(tmp_path: Path, monkeypatch):
    wandb = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    monkeypatch.setenv("WANDB_MODE", "offline")
    asked = config(tmp_path, use_wandb=True, use_tensorboard=False, wandb_project="mine", eval_test_every=2)
    result = train(asked)
    shown = {"train_loss", "train_accuracy", "exact_train_accuracy", "test_loss", "test_accuracy", "generalization_gap"}
    shown |= {"learning_rate", "images_per_second", "seconds"}
    numbers = [{name: record[name] for name in shown if record[name] is not None} for record in result.metrics]
    assert wandb.logged == [*enumerate(numbers, 1)]
    assert len({record["train_loss"] for record in numbers}) == 3
    assert wandb.summary.pop("epochs_to_fit") == result.result["epochs_to_fit"]
    assert wandb.summary == {f"final/{name}": value for name, value in numbers[-1].items()}
    assert (wandb.options["project"], wandb.options["name"], wandb.ended) == ("mine", result.path.name, 0)
    assert wandb.options["config"]["learning_rate"] == 0.01, "resolved"


class Broken:
    """Fails in the function `where`."""

    def __init__(self, where: str) -> None:
        self.where = where

    def started(self, *_: object) -> None:
        self.fail_in("started")

    def step(self, images: int) -> None: ...

    def epoch(self, record: object) -> None:
        self.fail_in("epoch")

    def ended(self, result: object) -> None:
        self.fail_in("ended")

    def fail_in(self, place: str) -> None:
        if place == self.where:
            raise OSError("no server\nhere")


class EpochsAlone:
    """Has one function of an observer, and is not derived from `Observer`."""

    def epoch(self, record) -> None:
        record["seen"] = True


def test_an_object_that_is_no_observer_does_not_end_a_run(tmp_path: Path, caplog):
    result = train(config(tmp_path, use_tensorboard=False), observers=[EpochsAlone()])
    assert len(result.metrics) == 3
    assert caplog.text.count("EpochsAlone failed, the run goes on without it: AttributeError") == 1


@pytest.mark.parametrize("where", ["started", "epoch", "ended"])
def test_a_failing_logger_is_reported_once_and_stops_nothing(tmp_path: Path, caplog, monkeypatch, where):
    monkeypatch.setattr(loggers, "TensorBoardLogger", lambda: Broken(where))
    with caplog.at_level(logging.WARNING, "rethinking"):
        result = train(config(tmp_path))
    assert len(result.metrics) == 3
    assert [message for message in caplog.messages if "stopped logging, the run goes on" in message] == caplog.messages
    assert len(caplog.messages) == 1


def test_a_hanging_logger_slows_nothing_and_is_abandoned(monkeypatch, caplog):
    monkeypatch.setattr(loggers, "INTERRUPTED_TIMEOUT", 0.2)
    hanging = Broken("nowhere")
    monkeypatch.setattr(hanging, "epoch", lambda record: threading.Event().wait())
    background = Background("Hanging", hanging)
    for epoch in range(100):
        background.epoch({"epoch": epoch})  # it would hang for good
    with caplog.at_level(logging.WARNING, "rethinking"):
        background.ended(None)
    assert "the run ends without waiting for it" in caplog.text


def test_a_missing_wandb_package_is_reported_and_stops_nothing(tmp_path: Path, caplog, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "wandb", None)
    with caplog.at_level(logging.WARNING, "rethinking"):
        result = train(config(tmp_path, use_wandb=True, use_tensorboard=False))
    assert len(result.metrics) == 3
    assert "W&B stopped logging, the run goes on: ModuleNotFoundError" in caplog.text


class Failing(Observer):
    """Raises in the function `where`, and keeps the names of the functions that were called."""

    def __init__(self, where: str) -> None:
        self.where, self.told = where, []

    def _tell(self, name: str) -> None:
        self.told.append(name)
        if name == self.where:
            raise ZeroDivisionError("a fault of somebody else's")

    def started(self, path, config, metrics, images) -> None:
        self._tell("started")

    def step(self, images) -> None:
        self._tell("step")

    def epoch(self, record) -> None:
        record.clear()  # nor does it spoil what the others see
        self._tell("epoch")

    def ended(self, result) -> None:
        self._tell("ended")


@pytest.mark.parametrize("where", ["started", "step", "epoch", "ended"])
def test_a_failing_observer_is_reported_once_and_the_run_continues(tmp_path: Path, caplog, where):
    failing, other = Failing(where), Failing("nowhere")
    result = train(config(tmp_path, use_tensorboard=False), observers=[failing, other])
    assert [record["epoch"] for record in result.metrics] == [1, 2, 3]
    told = [record.getMessage() for record in caplog.records if "Failing" in record.getMessage()]
    assert told == ["Failing failed, the run goes on without it: ZeroDivisionError: a fault of somebody else's"]
    assert failing.told[-1] == where
    assert failing.told.count(where) == 1
    assert other.told.count("epoch") == 3
    assert other.told[-1] == "ended"
