"""What is on disk: `runs/<id>/`, found again by its configuration.

    config.yaml               the resolved configuration, reloadable with --config
    facts.json                what each sitting knows before its first epoch: data, parameters, provenance
    randomization.safetensors labels as trained on, true labels, the shuffled-pixel permutation
    metrics.jsonl             one line an epoch, appended
    checkpoint.safetensors    weights, optimizer state, epoch; each test image's losses where they are kept
    result.json               written last: its presence means done
    diverged.json             of a randomization test: that the loss was not finite, so that it is not tried again
    tensorboard/, wandb/      the loggers' own

What is promised:

- After a kill or a power cut the run goes on from its last finished epoch: metrics, checkpoint and result are on the
  disk, by content and name, before the next epoch begins. What a broken disk or file system loses is told.
- Files but metrics.jsonl are replaced as wholes. Only lines of metrics.jsonl that the checkpoint counts are read; what
  follows them, such as half a line, is overwritten by the next epoch.
- A changed digit is told. The checkpoint has a checksum of its content, epoch, names, shapes and types, and one of the
  metrics that it counts; result.json and facts.json have checksums of their content, result.json that of the metrics.
  The files of older versions, too, are held against each other: result.json's last epoch is that of metrics.jsonl, and
  the folder is named by the configuration and data in it.
- A metric that an older or newer version lacks is absent, which is no damage.

No pickle is read or written.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import shutil
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from rethinking import files, notebook
from rethinking.config import ExperimentConfig, read_config_file
from rethinking.errors import BusyError, InputError, RunError
from rethinking.identity import run_id
from rethinking.training.networks import rebuilt
from rethinking.training.optimizers import Optimizer

if TYPE_CHECKING:
    from matplotlib.figure import Figure

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
RECORD_FIELDS = (*METRICS, "generalization_gap", "images_per_second")  # None where a record lacks one
RESULT_FIELDS = {  # which every version has, and their types
    "dataset": str,
    "parameters": int,
    "train_images": int,
    "provenance": dict,
    "final": dict,
    "epochs_to_fit": dict,
    "seconds": float,
}
METRICS_CHECKSUM = "metrics_checksum"  # in `result.json`, of the lines it counts
LOCK = ".lock"
START_ANEW = "move that folder away, and the same command starts it anew"
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

    def __repr__(self) -> str:
        return f"RunResult({', '.join(f'{name}: {value}' for name, value in self._in_words().items())})"

    def _repr_html_(self) -> str:
        return notebook.table([], [*self._in_words().items(), ("folder", str(self.path))])

    def _in_words(self) -> dict[str, str]:
        final, config = self.final, self.config
        exact = final["exact_train_accuracy"]
        labels = config.randomization
        if config.corruption_prob is not None:
            labels += f" ({config.corruption_prob:g})"
        return {
            "network": config.model_name,
            "data": self.result["dataset"],
            "randomization": labels,
            "epochs": f"{final['epoch']}" if self.finished else f"{final['epoch']} of {config.num_epochs}",
            "training accuracy": _percent(final["train_accuracy"] if exact is None else exact),
            "test accuracy": _percent(final["test_accuracy"]),
        }

    def frame(self) -> Any:
        """The metrics as a pandas DataFrame, a row an epoch. Raises `InputError` where pandas is missing."""
        return notebook.frame(self.metrics)

    def plot(self) -> Figure:
        """Draws training loss, training and test accuracy an epoch. A notebook shows the figure by itself."""
        from rethinking.drawing import draw_learning_curves

        return draw_learning_curves({self.config.model_name: [self.metrics]}, self.result["dataset"])

    def network(self, model: Callable[..., nn.Module] | str | None = None) -> nn.Module:
        """The trained network on the CPU, in evaluation mode: float images (n, channels, height, width) to logits.

        It takes images as in training: `data.preprocessing.Preprocessing(crop_size).plain` makes them of uint8 ones.

        `model` is what builds it, a function or its path, where that is not found where it was; it must be the same.

        Raises `InputError` where somebody's own network cannot be built any more or has another source by now, and
        `RunError` where the checkpoint is gone or damaged.
        """
        model = rebuilt(self.config, self.result, model)
        RunDir(self.path).load_weights(model)
        return model.eval()


def _percent(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.2%}"


class Metrics(NamedTuple):
    """Records of `metrics.jsonl`, from the first on, and the size and checksum of their lines."""

    records: list[Record]
    size: int = 0
    checksum: int = 0


class Checkpoint(NamedTuple):
    """tensors: by name; epoch: the last one finished; metrics: the checksum of its lines, empty in older versions'"""

    tensors: dict[str, Tensor]
    epoch: int
    metrics: str


class RunDir:
    """One run's folder. Nothing is written before `lock`, no epoch before `restore`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._counted = Metrics([])  # by the checkpoint; without the records

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
        return files.exists(self.path / "result.json")

    @property
    def is_busy(self) -> bool:
        """Whether another process is at work on it."""
        try:
            if files.exists(self.path / LOCK):
                with files.lock(self.path / LOCK, wait=False):
                    pass
        except BusyError:
            return True
        return False

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder, made where missing, against other processes; the lock dies with its process.

        Raises `BusyError` where another process is at work on it, `RunError` where it cannot be written.
        """
        with files.writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as held:
            try:
                held.enter_context(files.lock(self.path / LOCK, wait=False))
            except BusyError:
                raise self.busy() from None
            files.remove_unfinished(self.path)
            yield

    def busy(self) -> BusyError:
        return BusyError(f"{self.path} is being trained by another process: wait for it to end")

    def begin(self, config: ExperimentConfig, randomization: Mapping[str, Tensor], details: Mapping[str, str]) -> None:
        """Write what is known before the first epoch; where it is there already, check that it is the same.

        Raises `RunError` for a folder of another format, or one whose configuration or randomization differs.
        """
        if not files.exists(self.path / "config.yaml"):
            try:
                content = safetensors.torch.save(dict(randomization), dict(details))
                self.write("randomization.safetensors", content)
                self.write("config.yaml", config.to_yaml().encode())
            except RunError:
                shutil.rmtree(self.path, ignore_errors=True)  # nothing in it but what was begun here
                raise
            return
        self._check_config(config)
        found = self._read_tensors("randomization.safetensors")
        if found is None:
            raise self._damaged("randomization.safetensors")
        tensors, stored = found
        same = dict(details) == stored and tensors.keys() == randomization.keys()
        if not same or not all(_equal(tensors[name], randomization[name]) for name in tensors):
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

    def _check_name(self, config: ExperimentConfig, facts: Mapping[str, Any]) -> None:
        """Raises `RunError` unless the folder is named by this configuration and data."""
        identifier = run_id(config, facts["dataset"], facts["provenance"]["fingerprint"])
        name = os.path.basename(os.path.abspath(self.path))
        if not re.fullmatch(re.escape(identifier) + r"(-\d+)?", name):
            raise RunError(
                f"{self.path} has the configuration and data of {identifier}: its name, config.yaml or the data's name"
                " in it was changed; move that folder away"
            )

    def save_facts(self, facts: Mapping[str, Any]) -> None:
        files.write_json(self.path / "facts.json", facts)

    # One epoch: its metrics first, then the checkpoint that counts them.

    def save_epoch(
        self, record: Record, model: nn.Module, optimizer: Optimizer, test_losses: Tensor | None = None
    ) -> None:
        """`test_losses`: float32 (epochs, test images) where they are kept."""
        line = json.dumps(record, allow_nan=False).encode() + b"\n"
        before = self._counted
        files.append(self.path / "metrics.jsonl", line, before.size)
        self._counted = Metrics([], before.size + len(line), zlib.crc32(line, before.checksum))
        tensors = apart({name: tensor.cpu().contiguous() for name, tensor in _state(model, optimizer).items()})
        if test_losses is not None:
            tensors[TEST_LOSSES] = test_losses
        metadata = {"epoch": str(record["epoch"]), "metrics": _hex(self._counted.checksum)}
        metadata["crc32"] = _checksum(tensors, metadata)
        self.write("checkpoint.safetensors", safetensors.torch.save(tensors, metadata))

    def restore(self, model: nn.Module, optimizer: Optimizer) -> list[Record]:
        """Load the last finished epoch into model and optimizer; returns the metrics up to it, none for a new run."""
        self._counted = Metrics([])
        checkpoint = self._read_checkpoint()
        if checkpoint is None:
            if len(self._read_metrics().records) > 1:  # of one epoch alone the checkpoint may never have been written
                raise self._damaged("checkpoint.safetensors")
            return []
        try:
            checkpoint.tensors.pop(TEST_LOSSES, None)
            _load_tensors(_state(model, optimizer), checkpoint.tensors)
        except ValueError:
            raise self._damaged("checkpoint.safetensors") from None
        metrics = self._read_metrics(checkpoint.epoch, checkpoint.metrics)
        self._counted = metrics._replace(records=[])
        return metrics.records

    def labels(self) -> Tensor:
        """Those of the training set as trained on, int64 (n,). Raises `RunError` where they are gone or damaged."""
        found = self._read_tensors("randomization.safetensors")
        if found is None or "labels" not in found[0]:
            raise self._damaged("randomization.safetensors")
        return found[0]["labels"]

    def load_weights(self, model: nn.Module) -> None:
        """Those of the last finished epoch. Raises `RunError` where they are gone, damaged or another network's."""
        checkpoint = self._read_checkpoint()
        if checkpoint is None:
            raise RunError(f"{self.path} has no checkpoint.safetensors any more, and so no network")
        weights = {name: tensor for name, tensor in checkpoint.tensors.items() if name.startswith("model.")}
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
        checkpoint = self._read_checkpoint()
        if checkpoint is None or len(checkpoint.tensors.get(TEST_LOSSES, ())) != epochs:
            raise self._damaged("checkpoint.safetensors")
        return checkpoint.tensors[TEST_LOSSES]

    def finish(self, result: Mapping[str, Any]) -> None:
        """Write `result.json`, which makes the run a finished one. Raises `RunError` where that cannot be."""
        checksum = {METRICS_CHECKSUM: _hex(self._counted.checksum)}
        files.write_json(self.path / "result.json", {**result, **checksum})

    def result(self, config: ExperimentConfig) -> RunResult:
        """The finished run of `config`.

        Raises `RunError` where a file cannot be read, is damaged, of another version, or contradicts another.
        """
        self._check_config(config)
        what_to_do = "delete that file, and the same command writes it again from the others"
        result = files.read_json(self.path / "result.json", what_to_do) or {}
        complete = all(isinstance(result.get(name), kind) for name, kind in RESULT_FIELDS.items())
        if not complete or type((final := result["final"]).get("epoch")) is not int or not names_its_data(result):
            raise RunError(f"{self.path / 'result.json'} is damaged: {what_to_do}")
        self._check_name(config, result)
        records = self._read_metrics(final["epoch"], result.pop(METRICS_CHECKSUM, "")).records
        if not _agree(result, summary(records)):
            raise RunError(f"metrics.jsonl and result.json of {self.path} contradict each other: move that folder away")
        return RunResult(self.path, config, records, result)

    def so_far(self, config: ExperimentConfig) -> RunResult | None:
        """The unfinished run of `config` up to its last finished epoch; None before the first.

        Raises `RunError` where a file cannot be read, is damaged or of another version.
        """
        checkpoint = self._read_checkpoint()
        if checkpoint is None:
            records = self._read_metrics().records
        else:
            records = self._read_metrics(checkpoint.epoch, checkpoint.metrics).records
        if not records:
            return None
        facts = files.read_json(self.path / "facts.json", START_ANEW) or {}
        if not names_its_data(facts):
            raise self._damaged("facts.json")
        self._check_name(config, facts)
        return RunResult(self.path, config, records, facts | summary(records), finished=False)

    # Reading and writing

    def write(self, name: str, content: bytes) -> None:
        """Raises `RunError` where that cannot be."""
        files.write(self.path / name, content)

    def _read_metrics(self, epochs: int | None = None, checksum: str = "") -> Metrics:
        """The records of epochs 1 to `epochs`, without it all that are there; what follows them is left out.

        A line without its end is one that is being written. Raises `RunError` where there are fewer, where they are
        damaged, and where their lines have another checksum than the one given.
        """
        content = files.read(self.path / "metrics.jsonl") or b""
        lines = content[: content.rfind(b"\n") + 1].splitlines(keepends=True)
        counted = lines if epochs is None else lines[: max(0, epochs)]
        try:
            if epochs is not None and len(counted) != max(1, epochs):
                raise ValueError("epochs are missing")
            records = [_record(line, number) for number, line in enumerate(counted, 1)]
        except (ValueError, OverflowError):
            raise self._damaged("metrics.jsonl") from None
        metrics = Metrics(records, sum(map(len, counted)), zlib.crc32(b"".join(counted)))
        if checksum and checksum != _hex(metrics.checksum):
            raise self._damaged("metrics.jsonl")
        return metrics

    def _read_checkpoint(self) -> Checkpoint | None:
        """None where there is none. Raises `RunError` where it cannot be read, or it is damaged."""
        found = self._read_tensors("checkpoint.safetensors")
        if found is None:
            return None
        tensors, metadata = found
        checksum = metadata.pop("crc32", "")
        older = "metrics" not in metadata  # whose checksum is of the values alone
        intact = checksum == (_hex(_checksum_of_values(tensors)) if older else _checksum(tensors, metadata))
        epoch = metadata.get("epoch", "")
        if not intact or not re.fullmatch(r"[1-9][0-9]{0,17}", epoch):
            raise self._damaged("checkpoint.safetensors")
        return Checkpoint(tensors, int(epoch), metadata.get("metrics", ""))

    def _read_tensors(self, name: str) -> tuple[dict[str, Tensor], dict[str, str]] | None:
        """Tensors and metadata; the whole file is read, since safetensors takes whatever it cannot open for missing."""
        content = files.read(self.path / name)
        if content is None:
            return None
        try:
            tensors = safetensors.torch.load(content)
            header = files.parse_json(content[8 : 8 + int.from_bytes(content[:8], "little")].decode())
            return tensors, header.get("__metadata__", {})
        except (safetensors.SafetensorError, ValueError, KeyError, TypeError, RuntimeError):
            raise self._damaged(name) from None

    def _damaged(self, name: str) -> RunError:
        return RunError(f"{self.path / name} is damaged or missing: {START_ANEW}")


def _record(line: bytes, epoch: int) -> Record:
    """The record in a line, None for what it lacks. Raises `ValueError` where it is not that of `epoch`."""
    record = files.parse_json(line.decode())
    if not isinstance(record, dict) or type(record.get("epoch")) is not int or record["epoch"] != epoch:
        raise ValueError("not that epoch's")
    for name in RECORD_FIELDS:
        value = record.setdefault(name)
        if value is not None and (type(value) not in (int, float) or not math.isfinite(value)):
            raise ValueError(f"{name} is not a number")
    return record


def names_its_data(facts: Mapping[str, Any]) -> bool:
    """Whether the name and fingerprint of the data stand where every version has them."""
    provenance = facts.get("provenance")
    fingerprint = provenance.get("fingerprint") if isinstance(provenance, dict) else None
    return isinstance(facts.get("dataset"), str) and isinstance(fingerprint, str)


def _agree(result: Mapping[str, Any], expected: Mapping[str, Any]) -> bool:
    """Whether `result.json` says what follows from the metrics, as far as both versions know of it."""
    final, last = result["final"], expected["final"]
    reached, first = result["epochs_to_fit"], expected["epochs_to_fit"]
    return (
        all(final.get(name) == last[name] for name in last)
        and all(reached[name] == first[name] for name in reached.keys() & first.keys())
        and math.isclose(result["seconds"], expected["seconds"], rel_tol=1e-9)
    )


def summary(metrics: list[Record]) -> dict[str, Any]:
    """What `result.json` says of the epochs so far: the last one's metrics, epochs to fit, seconds."""
    return {
        "final": metrics[-1],
        "epochs_to_fit": epochs_to_fit(metrics),
        "seconds": sum(record["seconds"] or 0.0 for record in metrics),
    }


def epochs_to_fit(metrics: Iterable[Record]) -> dict[str, int | None]:
    """The first epoch whose exact training accuracy reached each of `FIT_THRESHOLDS`, by threshold."""
    first: dict[str, int | None] = dict.fromkeys(map(str, FIT_THRESHOLDS))
    for record in metrics:
        note_fit(first, record)
    return first


def note_fit(first: dict[str, int | None], record: Record) -> None:
    """Take the next epoch's record into what `epochs_to_fit` gives."""
    for threshold in FIT_THRESHOLDS:
        if first[str(threshold)] is None and (record["exact_train_accuracy"] or 0.0) >= threshold:
            first[str(threshold)] = record["epoch"]


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


def _equal(first: Tensor, other: Tensor) -> bool:
    return first.dtype == other.dtype and torch.equal(first, other)


def _checksum(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """Of values, names, shapes and types, and of the metadata."""
    described = [(name, str(tensors[name].dtype), tuple(tensors[name].shape)) for name in sorted(tensors)]
    begun = zlib.crc32(json.dumps([described, sorted(metadata.items())]).encode())
    return _hex(_checksum_of_values(tensors, begun))


def _checksum_of_values(tensors: Mapping[str, Tensor], begun: int = 0) -> int:
    checksum = begun
    for name in sorted(tensors):
        checksum = zlib.crc32(tensors[name].flatten().view(torch.uint8).numpy().data, checksum)
    return checksum


def _hex(checksum: int) -> str:
    return f"{checksum:08x}"
