"""What a kernel machine of Section 5 is made of: `KernelMachineConfig`, its check, and the name it is found by."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import yaml

from rethinking.config import nearest, read_config_file
from rethinking.data import sources
from rethinking.errors import InputError
from rethinking.theory import convolutional
from rethinking.training.hardware import resolve_device

FEATURES = ("pixels", "gabor", "random_conv")
KERNELS = ("gaussian", "linear")
SOLUTIONS = ("minimum_norm", "sgd", "random_centres", "wrong_on_test", "hessian")
NOT_IN_IDENTITY = ("dataset", "data_root", "runs_dir", "memory_limit")


@dataclass(frozen=True, kw_only=True)
class KernelMachineConfig:
    """One solution on one data set. Raises `InputError` for values that are wrong.

    dataset, data_root, train_subset, randomization, randomization_seed, device, runs_dir: as in `ExperimentConfig`
    features: the images' pixels from 0 to 1, Gabor wavelets, or random convolutional features
    filters: of random convolutional features, which have a linear kernel
    bandwidth: of the Gaussian kernel: "search" on held-out training images and their true labels, "median" distance, or
        a number
    l2: the term added to K's diagonal, or "search"
    solution: of all functions that fit the training set exactly, which (see `fitting`)
    memory_limit: GiB that the process may take; None for what the machine has free
    """

    dataset: str
    data_root: str | None = None
    train_subset: int | None = None
    features: str = "pixels"
    filters: int | None = None
    kernel: str = "gaussian"
    bandwidth: str | float = "search"
    l2: str | float = 0.0
    solution: str = "minimum_norm"
    randomization: str = "none"
    seed: int = 0
    randomization_seed: int = 0
    device: str = "auto"
    runs_dir: str = "runs"
    memory_limit: float | None = None

    def __post_init__(self) -> None:
        for name, known in (
            ("features", FEATURES),
            ("kernel", KERNELS),
            ("solution", SOLUTIONS),
            ("randomization", ("none", "random_labels")),
        ):
            value = getattr(self, name)
            if value not in known:
                raise InputError(f"{name} must be one of {', '.join(known)}, not '{value}'{nearest(value, known)}")
        object.__setattr__(self, "bandwidth", _number_or("bandwidth", self.bandwidth, ("search", "median")))
        object.__setattr__(self, "l2", _number_or("l2", self.l2, ("search",)))
        if isinstance(self.bandwidth, float) and not (math.isfinite(self.bandwidth) and self.bandwidth > 0):
            raise InputError(f"bandwidth must be search, median or a positive number, not {self.bandwidth:g}")
        if isinstance(self.l2, float) and not (math.isfinite(self.l2) and self.l2 >= 0):
            raise InputError(f"the l2 term must be search or a number from 0 on, not {self.l2:g}")
        if (self.features == "random_conv") != (self.filters is not None):
            raise InputError("filters are for random_conv features, and those need them")
        if self.features == "random_conv":
            object.__setattr__(self, "kernel", "linear")
        if self.kernel == "linear":  # which has no bandwidth
            object.__setattr__(self, "bandwidth", "search")
        if self.solution != "minimum_norm" and self.l2:
            raise InputError(f"{self.solution} fits the labels exactly and has no l2 term; leave l2 out")
        if self.filters is not None and self.filters < 1:
            raise InputError(f"filters must be whole numbers from 1 on, not {self.filters}")
        if self.memory_limit is not None and not (math.isfinite(self.memory_limit) and self.memory_limit > 0):
            raise InputError(f"memory_limit must be a positive number of GiB, not {self.memory_limit:g}")

    def identity(self) -> dict[str, Any]:
        """What can change the numbers; `dataset` is left to the data's name and fingerprint."""
        return {spec.name: getattr(self, spec.name) for spec in fields(self) if spec.name not in NOT_IN_IDENTITY}

    @classmethod
    def from_yaml(cls, path: Path) -> KernelMachineConfig:
        """The configuration in a run's `config.yaml`. Raises `InputError`."""
        values, known = read_config_file(path), {spec.name for spec in fields(cls)}
        if not {"dataset"} <= set(values) <= known:
            raise InputError(f"{path} does not hold the options of a kernel machine, or those of another version")
        return cls(**values)

    def to_yaml(self) -> str:
        return yaml.safe_dump({spec.name: getattr(self, spec.name) for spec in fields(self)}, sort_keys=False)


def resolve(config: KernelMachineConfig, data: sources.ImageData) -> KernelMachineConfig:
    """`config` with the device written out. Raises `InputError` where it does not fit the data."""
    if config.train_subset is not None and not 0 < config.train_subset <= len(data.train):
        raise InputError(f"train_subset must be from 1 to {len(data.train)}, all of {data.name}'s training images")
    if config.filters is not None:
        convolutional.check(data.image_shape, config.train_subset or len(data.train), config.filters)
    device = resolve_device(config.device).type
    if device == "mps":
        device = "cpu"  # which has no Cholesky of its own there
    return replace(config, device=device)


def name_of(config: KernelMachineConfig) -> str:
    """What it is, in the name of its folder."""
    return "-".join([config.features, *([f"{config.filters}"] if config.filters else []), config.solution])


def run_id(config: KernelMachineConfig, data_name: str, fingerprint: str) -> str:
    """A readable name and a hash of everything that can change the numbers; `config` must have its device resolved."""
    identity = config.identity() | {"dataset": data_name, "fingerprint": fingerprint}
    return f"{name_of(config)}-{data_name}-{config.randomization}-seed{config.seed}-{_digest(identity)}"


def question(config: KernelMachineConfig, data_name: str, fingerprint: str) -> str:
    """A hash of what is asked, whatever device answers it."""
    identity = config.identity() | {"dataset": data_name, "fingerprint": fingerprint}
    del identity["device"]
    return _digest(identity)


def sums_folder(config: KernelMachineConfig, fingerprint: str) -> Path:
    """Where the Gram matrix of random convolutional features is summed: the same for any number of filters."""
    identity = {"fingerprint": fingerprint, "train_subset": config.train_subset, "seed": config.seed}
    return Path(config.runs_dir) / f"random_conv-sums-seed{config.seed}-{_digest(identity)}"


def _digest(identity: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:10]


def _number_or(name: str, value: str | float, words: tuple[str, ...]) -> str | float:
    if value in words:
        return value
    try:
        return float(value)
    except ValueError:
        known = ", ".join(words)
        raise InputError(f"{name} must be {known} or a number, not '{value}'{nearest(str(value), words)}") from None
