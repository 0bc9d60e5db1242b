"""A run that solves, constructs or measures instead of training: its configuration, folder and result."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

import torch
import yaml
from torch import Tensor

from rethinking import files
from rethinking.config import read_config_file
from rethinking.data import sources
from rethinking.data.draws import corrupt_labels, subset_rows
from rethinking.data.readers.contents import ReadOptions
from rethinking.errors import ConflictError, InputError, RunError, nearest
from rethinking.identity import digest, question, run_id
from rethinking.theory.interpolation import conflicting_points, one_hot
from rethinking.training.hardware import provenance, resolve_device
from rethinking.training.run_dir import RunDir, names_its_data

NOT_IN_IDENTITY = ("dataset", "data_root", "runs_dir", "memory_limit", "run")
START_ANEW = "move that folder away"
READ_OPTIONS = {spec.name: spec.default for spec in fields(ReadOptions)}  # in the identity unless they are defaults


class Columns(NamedTuple):
    """The options and facts that have a column of their own in the evidence, for people to read."""

    options: tuple[str, ...]
    facts: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class TheoryConfig:
    """The options that all of these runs have. Raises `InputError` for wrong values.

    task: the name of the file with its evidence
    columns: the columns of that file
    seed: of everything that the run itself draws

    All other options have the meaning that they have in `ExperimentConfig`.
    """

    task: ClassVar[str]
    columns: ClassVar[Columns]

    dataset: str
    data_root: str | None = None
    resize: int | None = None
    colour: str | None = None
    holdout: float = 0.0
    skip_unlabelled: bool = False
    image_column: str | None = None
    label_column: str | None = None
    train_subset: int | None = None
    randomization: str = "none"
    seed: int = 0
    randomization_seed: int = 0
    device: str = "auto"
    runs_dir: str = "runs"

    def __post_init__(self) -> None:
        self._one_of("randomization", ("none", "random_labels"))

    def _one_of(self, name: str, known: tuple[str, ...]) -> None:
        value = getattr(self, name)
        if value not in known:
            raise InputError(f"{name} must be one of {', '.join(known)}, not '{value}'{nearest(value, known)}")

    @property
    def name(self) -> str:
        """The first part of its folder's name."""
        raise NotImplementedError

    @property
    def words(self) -> list[str]:
        """What sets the run apart from others on the same data, for people to read."""
        return [self.randomization.replace("_", " ")] if self.randomization != "none" else []

    def resolved(self, data: sources.ImageData) -> Self:
        """The configuration with the device written out. Raises `InputError` where it does not fit the data."""
        if self.train_subset is not None and not 0 < self.train_subset <= len(data.train):
            raise InputError(
                f"train_subset must be from 1 to {len(data.train)}, all of {data.name}'s training images, not"
                f" {self.train_subset}"
            )
        device = resolve_device(self.device).type
        return replace(self, device="cpu" if device == "mps" else device)  # MPS has no float64

    def identity(self) -> dict[str, Any]:
        """All options that can change the numbers. The data's name and fingerprint stand for `dataset`."""
        values = {spec.name: getattr(self, spec.name) for spec in fields(self) if spec.name not in NOT_IN_IDENTITY}
        return {name: value for name, value in values.items() if (name, value) not in READ_OPTIONS.items()}

    @classmethod
    def options(cls) -> set[str]:
        """The names of all options."""
        return {spec.name for spec in fields(cls)}

    def to_yaml(self) -> str:
        """The text of `config.yaml`."""
        return yaml.safe_dump({spec.name: getattr(self, spec.name) for spec in fields(self)}, sort_keys=False)


@dataclass(frozen=True)
class TheoryResult:
    """A finished run.

    path: its folder
    question: the digest of its configuration and data, without device and precision
    result: the content of its `result.json`
    """

    path: Path
    config: TheoryConfig
    question: str
    result: dict[str, Any]


@dataclass(frozen=True)
class Problem:
    """The images and labels of a run.

    rows: int64 (n,), the training images' indices in the data set
    train, test: uint8 (n, channels, height, width)
    labels, true_labels, test_labels: int64 (n,); `labels` are the ones to fit

    Random labels are drawn for all images, and `rows` selects from them. Networks instead train on labels drawn for
    `rows` alone.
    """

    rows: Tensor
    train: Tensor
    labels: Tensor
    true_labels: Tensor
    test: Tensor
    test_labels: Tensor
    num_classes: int

    @property
    def targets(self) -> Tensor:
        """Section 5's one-hot targets, float64 (n, num_classes)."""
        return one_hot(self.labels, self.num_classes)

    @classmethod
    def of(cls, config: TheoryConfig, data: sources.ImageData) -> Problem:
        """The images and labels that `config` takes from `data`. Without a test set, the test tensors are empty."""
        rows = subset_rows(len(data.train), config.train_subset)
        true_labels = torch.from_numpy(data.train.labels.copy())
        labels = true_labels
        if config.randomization == "random_labels":
            labels = corrupt_labels(true_labels, len(data.class_names), 1.0, config.randomization_seed)
        empty = data.train.images[:0], data.train.labels[:0]
        test, test_labels = (data.test.images, data.test.labels) if data.test else empty
        return cls(
            rows,
            torch.from_numpy(data.train.images[rows.numpy()]),
            labels[rows],
            true_labels[rows],
            torch.from_numpy(test.copy()),
            torch.from_numpy(test_labels.copy()),
            len(data.class_names),
        )


def run_dir(config: TheoryConfig, data: sources.ImageData) -> RunDir:
    """The folder of a resolved configuration."""
    return RunDir(Path(config.runs_dir) / run_id(config, data.name, data.fingerprint))


def about(config: TheoryConfig, data: sources.ImageData, precision: str) -> dict[str, Any]:
    """The facts with which every `result.json` begins: run, data and provenance."""
    return {
        "run": run_id(config, data.name, data.fingerprint),
        "dataset": data.name,
        "train_images": config.train_subset or len(data.train),
        "test_images": len(data.test) if data.test else 0,
        "image_shape": list(data.image_shape),
        **({} if made_by.get() is None else {"command": made_by.get()}),
        "provenance": provenance(torch.device(config.device), precision) | {"fingerprint": data.fingerprint},
    }


made_by: ContextVar[str | None] = ContextVar("made_by", default=None)  # the command that carries out the run

_conflicts: dict[tuple[object, ...], str] = {}  # the error's text, or "", by what this process has searched


def refuse_conflicting_images(config: TheoryConfig, data: sources.ImageData, first: int | None = None) -> None:
    """Raises `ConflictError` where two equal images, among all or the `first` ones, have different labels."""
    looked_at = (data.fingerprint, config.train_subset, config.randomization, config.randomization_seed, first)
    if looked_at not in _conflicts:
        _conflicts[looked_at] = _conflict(config, data, first)
    if conflict := _conflicts[looked_at]:
        raise ConflictError(conflict)


def _conflict(config: TheoryConfig, data: sources.ImageData, first: int | None) -> str:
    """The error's text, with the indices and labels of two images that no function fits; empty where all fit."""
    problem = Problem.of(config, data)
    pair = conflicting_points(problem.train[:first].flatten(1), problem.labels[:first])
    if pair is None:
        return ""
    ordered = sorted(pair, key=lambda index: int(problem.rows[index]))
    places = " and ".join(str(int(problem.rows[index])) for index in ordered)
    labels = " and ".join(f"'{data.class_names[int(problem.labels[index])]}'" for index in ordered)
    kind = "true labels" if config.randomization == "none" else config.randomization.replace("_", " ")
    return (
        f"no function fits both training images {places}: they are equal, but their {kind} are {labels}; leave one out"
    )


def find(config: TheoryConfig) -> TheoryResult | None:
    """The finished run of `config`, or None.

    Raises `InputError` where data and options do not fit, and `RunError` where the run is damaged.
    """
    data = sources.load_for(config)
    config = config.resolved(data)
    folder = run_dir(config, data)
    return read(folder.path, config) if folder.is_finished else None


def read(path: Path, config: TheoryConfig) -> TheoryResult:
    """Read the finished run of `config` from a folder.

    Raises `RunError` where the run is not finished, cannot be read, is damaged, or does not belong to its folder.
    """
    result = files.read_json(path / "result.json", START_ANEW)
    if result is None:
        raise RunError(f"{path} is not finished yet")
    if not names_its_data(result):
        raise RunError(f"{path / 'result.json'} is damaged: {START_ANEW}")
    name, fingerprint = result["dataset"], result["provenance"]["fingerprint"]
    identifier = run_id(config, name, fingerprint)
    if not {identifier} == {result.get("run"), os.path.basename(os.path.abspath(path))}:
        raise RunError(
            f"{path} has the configuration and data of {identifier}: its name, config.yaml or result.json was changed;"
            f" {START_ANEW}"
        )
    _check_config(path, config)
    return TheoryResult(path, config, question(config, name, fingerprint), result)


def configuration(kind: type[TheoryConfig], path: Path) -> TheoryConfig:
    """Read `config.yaml` in the folder `path`. Raises `InputError` where it is not a configuration of this class."""
    values = read_config_file(path / "config.yaml")
    try:
        config = kind(**values)
        digest(config.identity())
        return config
    except InputError:
        raise
    except (TypeError, ValueError, AttributeError) as error:
        words = " ".join(str(error).split())[:200]
        raise InputError(f"{path / 'config.yaml'} does not hold the options of this kind of run: {words}") from None


def _check_config(path: Path, config: TheoryConfig) -> None:
    """Raises `RunError` unless `config.yaml` agrees with `config`."""
    try:
        written = configuration(type(config), path)
    except InputError as error:
        raise RunError(f"cannot use the run {path}: {error}") from None
    if written.identity() != config.identity():
        raise RunError(f"{path}/config.yaml was changed since the run began; {START_ANEW}")


@contextlib.contextmanager
def at_work(folder: RunDir, config: TheoryConfig) -> Iterator[TheoryResult | None]:
    """Lock the folder of a run that begins. Yields the result where another process has finished it, else None.

    Raises `BusyError` where another process is at work on it.
    """
    with folder.lock():
        if folder.is_finished:
            yield read(folder.path, config)
        else:
            folder.write("config.yaml", config.to_yaml().encode())
            yield None


def keep(folder: RunDir, config: TheoryConfig, data: sources.ImageData, result: dict[str, Any]) -> TheoryResult:
    """Write `result.json`, which marks the run as finished."""
    files.write_json(folder.path / "result.json", result)
    return TheoryResult(folder.path, config, question(config, data.name, data.fingerprint), result)
