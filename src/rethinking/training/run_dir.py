"""What is on disk: `runs/<id>/`, found again by its configuration.

    config.yaml               the resolved configuration, reloadable with --config
    facts.json                what each sitting knows before its first epoch: data, parameters, provenance
    randomization.safetensors labels as trained on, true labels, the shuffled-pixel permutation
    metrics.jsonl             one line an epoch
    checkpoint.safetensors    weights, optimizer state, epoch; each test image's losses where they are kept
    result.json               written last: its presence means done
    tensorboard/, wandb/      the loggers' own

Files are written beside their name and renamed, so a reader never sees half of one. No pickle is read or written.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock
import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from rethinking.config import ExperimentConfig, read_config_file
from rethinking.errors import InputError, RunError
from rethinking.training.optimizers import Optimizer

Record = dict[str, Any]  # one epoch's metrics: a line of metrics.jsonl
METRICS = (  # what of a record outlives the folder, as evidence
    "learning_rate",
    "train_loss",
    "train_accuracy",
    "exact_train_accuracy",
    "test_loss",
    "test_accuracy",
    "seconds",
)
RECORD_FIELDS = {"epoch", *METRICS, "generalization_gap", "images_per_second"}
RESULT_FIELDS = {"dataset", "parameters", "train_images", "provenance", "final", "epochs_to_fit", "seconds"}
TEST_LOSSES = "test_losses"  # of the checkpoint's tensors, beside the state
FIT_THRESHOLDS = (0.999, 1.0)  # exact training accuracies whose first epoch is the time to fit


@dataclass(frozen=True)
class RunResult:
    """A run: folder, resolved configuration, metrics an epoch and the content of `result.json`.

    One that is not finished has the same content as far as it has come, at least one epoch.
    """

    path: Path
    config: ExperimentConfig
    metrics: list[Record]
    result: dict[str, Any]
    finished: bool = True

    @property
    def final(self) -> Record:
        """The last epoch's metrics."""
        return self.metrics[-1]

    def network(self) -> nn.Module:
        """The trained network on the CPU, in evaluation mode: float images (n, channels, height, width) to logits.

        Raises `InputError` where somebody's own network cannot be built any more or has another source by now, and
        `RunError` where the checkpoint is gone or damaged.
        """
        from rethinking.training.preparation import trained_network

        return trained_network(self)


def run_id(config: ExperimentConfig, data_name: str, fingerprint: str) -> str:
    """A readable name and a hash of everything that can change the numbers; `config` must be resolved."""
    digest = _digest(config.identity() | {"dataset": data_name, "fingerprint": fingerprint})
    names = (plain(config.model_name), data_name, plain(config.randomization))
    return f"{'-'.join(names)}-seed{config.seed}-{digest}"


def plain(name: str) -> str:
    """What a network or an operator that is not ours is called in the name of a folder: its function or class."""
    return re.sub(r"[^\w.]+", "_", name.rpartition(":")[2])[:40]


def question(config: ExperimentConfig, data_name: str, fingerprint: str) -> str:
    """A hash of what a run asks, whatever machine and precision answers it; `config` must be resolved."""
    identity = config.identity() | {"dataset": data_name, "fingerprint": fingerprint}
    return _digest({name: value for name, value in identity.items() if name not in ("device", "precision")})


def _digest(identity: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:10]


class RunDir:
    """One run's folder. Nothing is written before `lock`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def find(cls, runs_dir: Path, identifier: str, force: bool) -> RunDir:
        """The folder that answers: the newest finished run, else the unfinished one, else a new one.

        With `force` a finished run is left as it is and its successor, `<id>-2` and so on, is taken.
        """
        pattern = re.compile(re.escape(identifier) + r"(?:-(\d+))?")
        try:
            names = [entry.name for entry in runs_dir.iterdir()] if runs_dir.is_dir() else []
        except OSError as error:
            raise RunError(f"cannot read {runs_dir}: {error.strerror}") from None
        matches = (pattern.fullmatch(name) for name in names)
        numbers = sorted(int(match[1] or 1) for match in matches if match)
        runs = [cls(runs_dir / (identifier if number == 1 else f"{identifier}-{number}")) for number in numbers]
        finished = [run for run in runs if run.is_finished]
        if finished and not force:
            return finished[-1]
        if runs and not runs[-1].is_finished:
            return runs[-1]
        return cls(runs_dir / (f"{identifier}-{numbers[-1] + 1}" if numbers else identifier))

    @property
    def is_finished(self) -> bool:
        return (self.path / "result.json").exists()

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder, made where missing, against other processes; the lock dies with its process."""
        with self._writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            lock = filelock.FileLock(self.path / ".lock")
            try:
                lock.acquire(timeout=0)
            except filelock.Timeout:
                raise RunError(f"{self.path} is being trained by another process: wait for it to end") from None
        try:
            with self._writing(self.path):
                for unfinished in self.path.glob("*.tmp"):  # of a process that was killed while writing
                    unfinished.unlink()
            yield
        finally:
            lock.release()

    def begin(self, config: ExperimentConfig, randomization: Mapping[str, Tensor], details: Mapping[str, str]) -> None:
        """Write what is known before the first epoch; where it is there already, check that it is the same.

        Raises `RunError` for a folder of another format, or one whose configuration or randomization differs.
        """
        if not (self.path / "config.yaml").exists():
            try:
                content = safetensors.torch.save(dict(randomization), dict(details))
                self.write("randomization.safetensors", content)
                self.write("config.yaml", config.to_yaml().encode())
            except RunError:
                shutil.rmtree(self.path, ignore_errors=True)  # nothing in it but what was begun here
                raise
            return
        self._check_config(config)
        _, stored = self._read_tensors("randomization.safetensors")
        if dict(details) != stored:
            raise RunError(
                f"{self.path} was begun with other random labels or pixels than this version draws; move that folder"
                " away, or use the version that wrote it"
            )

    def _check_config(self, config: ExperimentConfig) -> None:
        try:
            written = ExperimentConfig.from_mapping(read_config_file(self.path / "config.yaml"))
        except InputError as error:
            raise RunError(f"cannot use the run {self.path}: {error}") from None
        if written.identity() != config.identity():
            raise RunError(f"{self.path}/config.yaml was changed since the run began; move that folder away")

    def save_facts(self, facts: Mapping[str, Any]) -> None:
        self.write("facts.json", json.dumps(facts, indent=2).encode())

    # One epoch: its metrics first, then the checkpoint that counts them.

    def save_epoch(
        self, metrics: list[Record], model: nn.Module, optimizer: Optimizer, test_losses: Tensor | None = None
    ) -> None:
        """`test_losses`: float32 (epochs, test images) where they are kept."""
        lines = "".join(json.dumps(record, allow_nan=False) + "\n" for record in metrics)
        self.write("metrics.jsonl", lines.encode())
        tensors = apart({name: tensor.cpu().contiguous() for name, tensor in _state(model, optimizer).items()})
        if test_losses is not None:
            tensors[TEST_LOSSES] = test_losses
        metadata = {"epoch": str(metrics[-1]["epoch"]), "crc32": _checksum(tensors)}
        self.write("checkpoint.safetensors", safetensors.torch.save(tensors, metadata))

    def restore(self, model: nn.Module, optimizer: Optimizer) -> list[Record]:
        """Load the last finished epoch into model and optimizer; returns the metrics up to it, none for a new run."""
        if not (self.path / "checkpoint.safetensors").exists():
            if len(self._read_metrics()) > 1:  # of one epoch alone the checkpoint may never have come to be written
                raise self._damaged("checkpoint.safetensors")
            return []
        tensors, metadata = self._read_checkpoint()
        try:
            epoch = int(metadata.get("epoch", ""))
            tensors.pop(TEST_LOSSES, None)
            _load_tensors(_state(model, optimizer), tensors)
        except ValueError:
            raise self._damaged("checkpoint.safetensors") from None
        return self._read_metrics(epoch)

    def load_weights(self, model: nn.Module) -> None:
        """Those of the last finished epoch. Raises `RunError` where they are gone, damaged or another network's."""
        if not (self.path / "checkpoint.safetensors").exists():
            raise RunError(f"{self.path} has no checkpoint.safetensors any more, and so no network")
        tensors, _ = self._read_checkpoint()
        weights = {name: tensor for name, tensor in tensors.items() if name.startswith("model.")}
        try:
            _load_tensors({f"model.{name}": tensor for name, tensor in model.state_dict().items()}, weights)
        except ValueError:
            raise self._damaged("checkpoint.safetensors") from None

    def test_losses(self, epochs: int) -> Tensor:
        """Of a run that keeps them and has come so far, float32 (epochs, test images), in nats.

        Raises `RunError` where the checkpoint is damaged or has not those of so many epochs.
        """
        if not epochs:
            return torch.empty(0, 0)
        tensors, _ = self._read_checkpoint()
        if TEST_LOSSES not in tensors or len(tensors[TEST_LOSSES]) != epochs:
            raise self._damaged("checkpoint.safetensors")
        return tensors[TEST_LOSSES]

    def finish(self, result: Mapping[str, Any]) -> None:
        self.write("result.json", json.dumps(result, indent=2, allow_nan=False).encode())

    def result(self, config: ExperimentConfig) -> RunResult:
        """The finished run of `config`. Raises `RunError` where a file is damaged or of another version."""
        self._check_config(config)
        try:
            result = json.loads((self.path / "result.json").read_text(encoding="utf-8"))
            last = result["final"]["epoch"]
            complete = result.keys() >= RESULT_FIELDS
        except (OSError, ValueError, KeyError, TypeError):
            complete = False
        if not complete:
            raise RunError(
                f"{self.path / 'result.json'} is damaged: delete that file, and the same command writes it again from"
                " the others"
            )
        return RunResult(self.path, config, self._read_metrics(last), result)

    def so_far(self, config: ExperimentConfig) -> RunResult | None:
        """The unfinished run of `config` up to its last finished epoch; None before the first."""
        metrics = self._read_metrics()
        if not metrics:
            return None
        try:
            facts = json.loads((self.path / "facts.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            raise self._damaged("facts.json") from None
        return RunResult(self.path, config, metrics, facts | summary(metrics), finished=False)

    # Reading and writing

    def write(self, name: str, content: bytes) -> None:
        """Atomically: beside the name, then renamed."""
        unfinished = self.path / f"{name}.tmp"
        with self._writing(self.path / name):
            try:
                unfinished.write_bytes(content)
                os.replace(unfinished, self.path / name)
            except BaseException:
                unfinished.unlink(missing_ok=True)
                raise

    @contextlib.contextmanager
    def _writing(self, path: Path) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise RunError(
                f"cannot write {path}: {error.strerror}; what was saved stays, and once that is mended the same"
                " command goes on from there"
            ) from None

    def _read_metrics(self, epochs: int | None = None) -> list[Record]:
        """The records of epochs 1 to `epochs`; a later one, whose checkpoint was never finished, is left out.

        Without `epochs` all there are, none where the first is not finished.
        """
        if epochs is None and not (self.path / "metrics.jsonl").exists():
            return []
        try:
            lines = (self.path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
            metrics = [json.loads(line) for line in lines[:epochs]]
            expected = range(1, (len(lines) if epochs is None else epochs) + 1)
            complete = [record["epoch"] for record in metrics] == list(expected)
            complete = complete and all(record.keys() >= RECORD_FIELDS for record in metrics)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            complete = False
        if not complete:
            raise self._damaged("metrics.jsonl")
        return metrics

    def _read_checkpoint(self) -> tuple[dict[str, Tensor], dict[str, str]]:
        tensors, metadata = self._read_tensors("checkpoint.safetensors")
        if metadata.get("crc32") != _checksum(tensors):
            raise self._damaged("checkpoint.safetensors")
        return tensors, metadata

    def _read_tensors(self, name: str) -> tuple[dict[str, Tensor], dict[str, str]]:
        try:
            with safetensors.safe_open(self.path / name, framework="pt") as file:
                return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118
        except (safetensors.SafetensorError, OSError):
            raise self._damaged(name) from None

    def _damaged(self, name: str) -> RunError:
        return RunError(
            f"{self.path / name} is damaged or missing: move that folder away, and the same command starts it anew"
        )


def summary(metrics: list[Record]) -> dict[str, Any]:
    """What `result.json` says of the epochs so far: the last one's metrics, epochs to fit, seconds."""
    return {
        "final": metrics[-1],
        "epochs_to_fit": epochs_to_fit(metrics),
        "seconds": sum(record["seconds"] for record in metrics),
    }


def epochs_to_fit(metrics: list[Record]) -> dict[str, int | None]:
    """The first epoch whose exact training accuracy reached each of `FIT_THRESHOLDS`, by threshold."""
    first: dict[str, int | None] = {}
    for threshold in FIT_THRESHOLDS:
        reached = (record["epoch"] for record in metrics if (record["exact_train_accuracy"] or 0.0) >= threshold)
        first[str(threshold)] = next(reached, None)
    return first


def _state(model: nn.Module, optimizer: Optimizer) -> dict[str, Tensor]:
    """Weights, buffers and optimizer state by name, as they lie in memory."""
    weights = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    return weights | {f"optimizer.{name}": tensor for name, tensor in optimizer.state.items()}


def apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same values, none in memory that another one shares, as tied weights do: in a file each has its own."""
    seen: set[int] = set()
    made = {}
    for name, tensor in tensors.items():
        storage = tensor.untyped_storage().data_ptr()
        made[name] = tensor.clone() if storage in seen else tensor
        seen.add(storage)
    return made


def _load_tensors(targets: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> None:
    """Copy each of `tensors` into the target of its name. Raises `ValueError` unless names and shapes agree."""
    if targets.keys() != tensors.keys():
        raise ValueError(f"other tensors than expected: {sorted(targets.keys() ^ tensors.keys())}")
    for name, target in targets.items():
        if target.shape != tensors[name].shape:
            raise ValueError(f"{name} has shape {tuple(tensors[name].shape)}, not {tuple(target.shape)}")
        target.detach().copy_(tensors[name])


def _checksum(tensors: Mapping[str, Tensor]) -> str:
    checksum = 0
    for name in sorted(tensors):
        checksum = zlib.crc32(tensors[name].flatten().view(torch.uint8).numpy().data, checksum)
    return f"{checksum:08x}"
