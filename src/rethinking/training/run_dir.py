"""Reads and writes a run's folder, `runs/<id>/`, which the run's configuration finds again.

    config.yaml               the resolved configuration, which --config reads
    facts.json                facts known before training: data, parameters, provenance; written at each start
    randomization.safetensors labels as trained on, true labels, the permutation of shuffled pixels
    metrics.jsonl             one line per epoch, appended
    checkpoint.safetensors    weights, optimizer state, epoch; the losses of test images where they are kept
    result.json               written last: a run with this file is finished
    diverged.json             of a randomization test: says that the loss was not finite, so that no test tries it again
    examples/                 what the network made of every example, where it is kept (see `examples.py`)
    tensorboard/, wandb/      files of the loggers

The folder keeps these promises:

- After a kill or a power cut the run continues from its last finished epoch. Metrics, checkpoint and result are on the
  disk, content and name, before the next epoch begins. A loss from a broken disk or file system is reported.
- All files except metrics.jsonl are replaced as wholes. Only the lines of metrics.jsonl that the checkpoint counts are
  read. The next epoch overwrites what follows them, such as half a line.
- A changed digit is reported. The checkpoint has a checksum of its values, epoch, names, shapes and types, and one of
  the metrics that it counts. result.json and facts.json have checksums of their content. result.json also has one of
  the metrics.
- Files of older versions are checked against each other: the last epoch of result.json against metrics.jsonl, and the
  folder's name against the configuration and data in it.
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
from contextvars import ContextVar
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
from rethinking.training.examples import ExampleFiles, Examples, Recorded
from rethinking.training.networks import rebuilt
from rethinking.training.optimizers import Optimizer

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Record = dict[str, Any]  # one epoch's metrics: a line of metrics.jsonl
METRICS = (  # the part of a record that results keep after the folder is gone
    "learning_rate",
    "train_loss",
    "train_accuracy",
    "exact_train_accuracy",
    "test_loss",
    "test_accuracy",
    "seconds",
)
RECORD_FIELDS = (*METRICS, "generalization_gap", "images_per_second")  # read as None where a record lacks one
RESULT_FIELDS = {  # the fields that every version writes, and their types
    "dataset": str,
    "parameters": int,
    "train_images": int,
    "provenance": dict,
    "final": dict,
    "epochs_to_fit": dict,
    "seconds": float,
}
METRICS_CHECKSUM = "metrics_checksum"  # the key in `result.json` of the checksum of metrics.jsonl
LOCK = ".lock"
START_ANEW = "move that folder away, and the same command starts the run again"
TEST_LOSSES = "test_losses"  # the name of a tensor of the checkpoint
FIT_THRESHOLDS = (0.999, 1.0)  # the first epoch with this exact training accuracy is the time to fit


@dataclass(frozen=True)
class RunResult:
    """A run: its folder, resolved configuration, metrics and facts.

    metrics: one record per epoch; every name of `RECORD_FIELDS` is there, with None where it was not measured
    result: the content of `result.json`. An unfinished run has the same content for its epochs so far.
    finished: whether the run is finished; an unfinished one has at least one epoch
    """

    path: Path
    config: ExperimentConfig
    metrics: list[Record]
    result: dict[str, Any]
    finished: bool = True

    @property
    def final(self) -> Record:
        """The metrics of the last epoch."""
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
        """Returns the metrics as a pandas DataFrame with one row per epoch.

        Raises `InputError` where pandas is not installed.
        """
        return notebook.frame(self.metrics)

    def plot(self) -> Figure:
        """Draws training loss, training accuracy and test accuracy over epochs. A notebook shows the figure."""
        from rethinking.drawing import draw_learning_curves

        return draw_learning_curves({self.config.model_name: [self.metrics]}, self.result["dataset"])

    def network(self, model: Callable[..., nn.Module] | str | None = None) -> nn.Module:
        """Returns the trained network on the CPU in evaluation mode.

        It maps float images (n, channels, height, width), prepared as in training, to logits (n, classes).
        `data.preprocessing.Preprocessing(crop_size).plain` prepares uint8 images.

        model: the function that builds the same network, or its path, where the recorded path no longer leads to it

        Raises `InputError` where a user's own network cannot be built or its source has changed. Raises `RunError`
        where the checkpoint is missing or damaged.
        """
        model = rebuilt(self.config, self.result, model)
        RunDir(self.path).load_weights(model)
        return model.eval()

    def examples(self) -> dict[str, Recorded]:
        """Returns what the run kept of every example: 'online', 'train' and 'test', those of them that were asked for.

        Raises `RunError` where files are lost or damaged.
        """
        return RunDir(self.path).examples()


def _percent(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.2%}"


class Metrics(NamedTuple):
    """The records of `metrics.jsonl` from the first on, and the size in bytes and the checksum of their lines."""

    records: list[Record]
    size: int = 0
    checksum: int = 0


class Checkpoint(NamedTuple):
    """The content of a checkpoint.

    tensors: weights, buffers, optimizer state and test losses by name
    epoch: the last finished epoch
    metrics: the checksum of its lines in metrics.jsonl; '' in files of older versions
    examples: the checksum of the rows in examples/; '' where none are kept
    """

    tensors: dict[str, Tensor]
    epoch: int
    metrics: str
    examples: str


class RunDir:
    """One run's folder. Call `lock` before anything is written, and `restore` before an epoch is saved."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._counted = Metrics([])  # size and checksum of the lines that the checkpoint counts
        self._examples = ExampleFiles(path)

    @classmethod
    def find(cls, runs_dir: Path, identifier: str, force: bool) -> RunDir:
        """Returns the folder of an identifier: the newest finished run, else the unfinished run, else a new folder.

        With `force` a finished run stays, and the next folder, `<id>-2` and so on, is taken. Raises `RunError` where
        `runs_dir` cannot be read. Each call lists `runs_dir`; to find many runs, see `listed_once`.
        """
        numbers = _numbers(runs_dir).get(identifier, [])
        runs = [cls(runs_dir / (identifier if number == 1 else f"{identifier}-{number}")) for number in numbers]
        finished = [run for run in runs if run.is_finished]
        if finished and not force:
            return finished[-1]
        if runs and not runs[-1].is_finished:
            return runs[-1]
        return cls(runs_dir / (f"{identifier}-{numbers[-1] + 1}" if numbers else identifier))

    @property
    def is_finished(self) -> bool:
        """Whether the run is finished. Raises `RunError` where the folder cannot be read."""
        return files.exists(self.path / "result.json")

    @property
    def is_busy(self) -> bool:
        """Whether another process is at work on the folder. Raises `RunError` where the folder cannot be read."""
        try:
            if files.exists(self.path / LOCK):
                with files.lock(self.path / LOCK, wait=False):
                    pass
        except BusyError:
            return True
        return False

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Makes the folder if it does not exist, and holds it against other processes. The lock ends with its process.

        Raises `BusyError` where another process is at work on the folder, and `RunError` where it cannot be written.
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
        """Returns the error for a folder that another process is at work on."""
        return BusyError(f"{self.path} is being trained by another process: wait for it to end")

    def begin(self, config: ExperimentConfig, randomization: Mapping[str, Tensor], details: Mapping[str, str]) -> None:
        """Writes configuration and randomization before the first epoch, or checks that the folder holds equal ones.

        randomization: tensors by name, such as the labels
        details: fingerprints of what is too large to keep

        Raises `RunError` for a folder of another format, or with another configuration or randomization.
        """
        if not files.exists(self.path / "config.yaml"):
            try:
                content = safetensors.torch.save(dict(randomization), dict(details))
                self.write("randomization.safetensors", content)
                self.write("config.yaml", config.to_yaml().encode())
            except RunError:
                shutil.rmtree(self.path, ignore_errors=True)  # it holds only what was begun here
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
        """Raises `RunError` unless the folder's name fits this configuration and data."""
        identifier = run_id(config, facts["dataset"], facts["provenance"]["fingerprint"])
        name = os.path.basename(os.path.abspath(self.path))
        if not re.fullmatch(re.escape(identifier) + r"(-\d+)?", name):
            raise RunError(
                f"{self.path} has the configuration and data of {identifier}: the folder's name, its config.yaml or its"
                " data's name was changed; move that folder away"
            )

    def save_facts(self, facts: Mapping[str, Any]) -> None:
        """Writes `facts.json`. Raises `RunError` where that fails."""
        files.write_json(self.path / "facts.json", facts)

    # One epoch: its metrics first, then the checkpoint that counts them.

    def save_epoch(
        self,
        record: Record,
        model: nn.Module,
        optimizer: Optimizer,
        test_losses: Tensor | None = None,
        examples: Mapping[str, Examples] | None = None,
    ) -> None:
        """Saves an epoch: first its line of metrics.jsonl and its examples, then the checkpoint that counts them.

        test_losses: float32 (epochs, test images) where they are kept, else None
        examples: what is kept of every example, by the first word of its files

        Raises `RunError` where a file cannot be written.
        """
        line = json.dumps(record, allow_nan=False).encode() + b"\n"
        before = self._counted
        files.append(self.path / "metrics.jsonl", line, before.size)
        self._counted = Metrics([], before.size + len(line), zlib.crc32(line, before.checksum))
        tensors = apart({name: tensor.cpu().contiguous() for name, tensor in _state(model, optimizer).items()})
        if test_losses is not None:
            tensors[TEST_LOSSES] = test_losses
        metadata = {"epoch": str(record["epoch"]), "metrics": _hex(self._counted.checksum)}
        if examples:
            metadata["examples"] = self._examples.append(record["epoch"], examples)
        metadata["crc32"] = _checksum(tensors, metadata)
        self.write("checkpoint.safetensors", safetensors.torch.save(tensors, metadata))

    def restore(self, model: nn.Module, optimizer: Optimizer) -> list[Record]:
        """Loads the last finished epoch into model and optimizer. Returns the metrics up to it; none for a new run.

        Raises `RunError` where a file cannot be read or is damaged.
        """
        self._counted = Metrics([])
        self._examples.restore(0, "")
        checkpoint = self._read_checkpoint()
        if checkpoint is None:
            if len(self._read_metrics().records) > 1:  # after one epoch the checkpoint may not be written yet
                raise self._damaged("checkpoint.safetensors")
            return []
        try:
            checkpoint.tensors.pop(TEST_LOSSES, None)
            _load_tensors(_state(model, optimizer), checkpoint.tensors)
        except ValueError:
            raise self._damaged("checkpoint.safetensors") from None
        metrics = self._read_metrics(checkpoint.epoch, checkpoint.metrics)
        self._counted = metrics._replace(records=[])
        self._examples.restore(checkpoint.epoch, checkpoint.examples)
        return metrics.records

    def labels(self) -> Tensor:
        """Returns the labels of the training set as trained on, int64 (n,).

        Raises `RunError` where they are lost or damaged.
        """
        return self._kept_labels("labels")

    def true_labels(self) -> Tensor:
        """Returns the true labels of the training set, int64 (n,). Errors are those of `labels`."""
        return self._kept_labels("true_labels")

    def test_labels(self) -> Tensor | None:
        """Returns the labels of the test set where they were changed, int64 (k,). Errors are those of `labels`."""
        found = self._read_tensors("randomization.safetensors")
        if found is None:
            raise self._damaged("randomization.safetensors")
        return found[0].get("test_labels")

    def _kept_labels(self, name: str) -> Tensor:
        found = self._read_tensors("randomization.safetensors")
        if found is None or name not in found[0]:
            raise self._damaged("randomization.safetensors")
        return found[0][name]

    def load_weights(self, model: nn.Module) -> None:
        """Loads the weights of the last finished epoch into `model`.

        Raises `RunError` where they are lost, damaged or those of another network.
        """
        checkpoint = self._read_checkpoint()
        if checkpoint is None:
            raise RunError(f"{self.path} has lost its checkpoint.safetensors, and with it the network")
        weights = {name: tensor for name, tensor in checkpoint.tensors.items() if name.startswith("model.")}
        try:
            _load_tensors({f"model.{name}": tensor for name, tensor in model.state_dict().items()}, weights)
        except ValueError:
            raise self._damaged("checkpoint.safetensors") from None

    def test_losses(self, epochs: int) -> Tensor:
        """Returns the kept test losses of the first `epochs` epochs, float32 (epochs, test images), in nats.

        Raises `RunError` where the checkpoint is damaged or holds the losses of another number of epochs.
        """
        if not epochs:
            return torch.empty(0, 0)
        checkpoint = self._read_checkpoint()
        if checkpoint is None or len(checkpoint.tensors.get(TEST_LOSSES, ())) != epochs:
            raise self._damaged("checkpoint.safetensors")
        return checkpoint.tensors[TEST_LOSSES]

    def examples(self) -> dict[str, Recorded]:
        """Returns what was kept of every example up to the last finished epoch, by the first word of its files.

        Raises `RunError` where files are lost or damaged.
        """
        checkpoint = self._read_checkpoint()
        if checkpoint is None:
            raise RunError(f"{self.path} has lost its checkpoint.safetensors, which counts the epochs of its examples")
        if not checkpoint.examples:
            return {}
        kept = ExampleFiles(self.path)
        kept.restore(checkpoint.epoch, checkpoint.examples)
        return kept.read(checkpoint.epoch)

    def finish(self, result: Mapping[str, Any]) -> None:
        """Writes `result.json`, which makes the run a finished one. Raises `RunError` where that fails."""
        checksum = {METRICS_CHECKSUM: _hex(self._counted.checksum)}
        files.write_json(self.path / "result.json", {**result, **checksum})

    def result(self, config: ExperimentConfig) -> RunResult:
        """Returns the finished run of `config`.

        Raises `RunError` where a file cannot be read, is damaged, is of another version, or contradicts another file.
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
        """Returns the unfinished run of `config` up to its last finished epoch; None before the first.

        Raises `RunError` where a file cannot be read, is damaged, or is of another version.
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
        """Writes a file of the folder as a whole. Raises `RunError` where that fails."""
        files.write(self.path / name, content)

    def _read_metrics(self, epochs: int | None = None, checksum: str = "") -> Metrics:
        """Returns the records of epochs 1 to `epochs`, or all records. Further lines are ignored.

        A line without an end is still being written, and is ignored too. Raises `RunError` where records are missing or
        damaged, and where their lines do not have the given checksum.
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
        """Returns the checkpoint; None where there is none. Raises `RunError` where it cannot be read or is damaged."""
        found = self._read_tensors("checkpoint.safetensors")
        if found is None:
            return None
        tensors, metadata = found
        checksum = metadata.pop("crc32", "")
        older = "metrics" not in metadata  # its checksum covers the values only
        intact = checksum == (_hex(_checksum_of_values(tensors)) if older else _checksum(tensors, metadata))
        epoch = metadata.get("epoch", "")
        if not intact or not re.fullmatch(r"[1-9][0-9]{0,17}", epoch):
            raise self._damaged("checkpoint.safetensors")
        return Checkpoint(tensors, int(epoch), metadata.get("metrics", ""), metadata.get("examples", ""))

    def _read_tensors(self, name: str) -> tuple[dict[str, Tensor], dict[str, str]] | None:
        """Returns tensors and metadata of a file; None where there is none.

        The file is read as a whole first, since safetensors treats every file that it cannot open as missing.
        """
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


_listed: ContextVar[dict[Path, dict[str, list[int]]] | None] = ContextVar("listed", default=None)


def is_of_network(folder: Path) -> bool:
    """Returns whether the run in a folder trains a network. Raises `InputError` where the folder is not a run's."""
    return "model_name" in read_config_file(folder / "config.yaml")


def network_run(folder: Path) -> RunResult:
    """Returns the run of a network in its folder, as far as it has come.

    Raises `InputError` where the folder is no such run's. Raises `RunError` where it is damaged, or has no finished
    epoch.
    """
    if not is_of_network(folder):
        raise InputError(f"{folder} is no run of a network, and has no examples")
    run, config = RunDir(folder), ExperimentConfig.from_yaml(folder / "config.yaml")
    result = run.result(config) if run.is_finished else run.so_far(config)
    if result is None:
        raise RunError(f"{folder} has no finished epoch yet")
    return result


@contextlib.contextmanager
def listed_once() -> Iterator[None]:
    """Lists each folder of runs once for all calls of `RunDir.find` inside, which then see no folder made since.

    A run that begins meanwhile is found all the same, since its folder has the name that a new folder would have. Only
    a second folder that `force` makes meanwhile is not.
    """
    token = _listed.set({})
    try:
        yield
    finally:
        _listed.reset(token)


def _numbers(runs_dir: Path) -> dict[str, list[int]]:
    """Returns the numbers of the folders of each identifier, ascending: 1 for `<id>`, 2 for `<id>-2`, and so on.

    Raises `RunError` where `runs_dir` cannot be read.
    """
    listed = _listed.get()
    if listed is not None and runs_dir in listed:
        return listed[runs_dir]
    try:
        names = [entry.name for entry in runs_dir.iterdir()] if runs_dir.is_dir() else []
    except OSError as error:
        raise RunError(f"cannot read {runs_dir}: {error.strerror}") from None
    found: dict[str, list[int]] = {}
    for name in names:
        found.setdefault(name, []).append(1)
        identifier, hyphen, number = name.rpartition("-")
        if hyphen and re.fullmatch(r"\d+", number):
            found.setdefault(identifier, []).append(int(number))
    numbers = {identifier: sorted(several) for identifier, several in found.items()}
    if listed is not None:
        listed[runs_dir] = numbers
    return numbers


def _record(line: bytes, epoch: int) -> Record:
    """Returns the record in a line, with None for missing metrics.

    Raises `ValueError` where the line is not the record of `epoch`.
    """
    record = files.parse_json(line.decode())
    if not isinstance(record, dict) or type(record.get("epoch")) is not int or record["epoch"] != epoch:
        raise ValueError("not that epoch's")
    for name in RECORD_FIELDS:
        value = record.setdefault(name)
        if value is not None and (type(value) not in (int, float) or not math.isfinite(value)):
            raise ValueError(f"{name} is not a number")
    return record


def names_its_data(facts: Mapping[str, Any]) -> bool:
    """Returns whether the facts hold the name and the fingerprint of the data, as those of every version do."""
    provenance = facts.get("provenance")
    fingerprint = provenance.get("fingerprint") if isinstance(provenance, dict) else None
    return isinstance(facts.get("dataset"), str) and isinstance(fingerprint, str)


def _agree(result: Mapping[str, Any], expected: Mapping[str, Any]) -> bool:
    """Returns whether `result.json` agrees with what follows from the metrics, for all names that both have."""
    final, last = result["final"], expected["final"]
    reached, first = result["epochs_to_fit"], expected["epochs_to_fit"]
    return (
        all(final.get(name) == last[name] for name in last)
        and all(reached[name] == first[name] for name in reached.keys() & first.keys())
        and math.isclose(result["seconds"], expected["seconds"], rel_tol=1e-9)
    )


def summary(metrics: list[Record]) -> dict[str, Any]:
    """Returns what `result.json` says about the epochs so far: the last metrics, the epochs to fit, and the seconds."""
    return {
        "final": metrics[-1],
        "epochs_to_fit": epochs_to_fit(metrics),
        "seconds": sum(record["seconds"] or 0.0 for record in metrics),
    }


def epochs_to_fit(metrics: Iterable[Record]) -> dict[str, int | None]:
    """Returns the first epoch with an exact training accuracy of at least a threshold, for each of `FIT_THRESHOLDS`.

    An epoch is None where no record reaches the threshold.
    """
    first: dict[str, int | None] = dict.fromkeys(map(str, FIT_THRESHOLDS))
    for record in metrics:
        note_fit(first, record)
    return first


def note_fit(first: dict[str, int | None], record: Record) -> None:
    """Updates `first`, which `epochs_to_fit` returns, with the record of the next epoch."""
    for threshold in FIT_THRESHOLDS:
        if first[str(threshold)] is None and (record["exact_train_accuracy"] or 0.0) >= threshold:
            first[str(threshold)] = record["epoch"]


def _state(model: nn.Module, optimizer: Optimizer) -> dict[str, Tensor]:
    """Returns weights, buffers and optimizer state by name. The tensors share the memory of model and optimizer."""
    weights = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    return weights | {f"optimizer.{name}": tensor for name, tensor in optimizer.state.items()}


def apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns the tensors with separate memory. Tied weights share memory; in a file each has its own."""
    seen: set[int] = set()
    separate = {}
    for name, tensor in tensors.items():
        storage = tensor.untyped_storage().data_ptr()
        separate[name] = tensor.clone() if storage in seen else tensor
        seen.add(storage)
    return separate


def _load_tensors(targets: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> None:
    """Copies each of `tensors` into the target of its name. Raises `ValueError` unless names and shapes agree."""
    if targets.keys() != tensors.keys():
        raise ValueError(f"other tensors than expected: {sorted(targets.keys() ^ tensors.keys())}")
    for name, target in targets.items():
        if target.shape != tensors[name].shape:
            raise ValueError(f"{name} has shape {tuple(tensors[name].shape)}, not {tuple(target.shape)}")
        target.detach().copy_(tensors[name])


def _equal(first: Tensor, other: Tensor) -> bool:
    return first.dtype == other.dtype and torch.equal(first, other)


def _checksum(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """Returns a checksum of values, names, shapes, types and metadata."""
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
