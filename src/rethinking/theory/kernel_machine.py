"""The configuration of a kernel machine of Section 5, `KernelMachineConfig`, and its checks."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

from rethinking.data import sources
from rethinking.errors import InputError, nearest
from rethinking.identity import digest
from rethinking.theory.convolutional import FilterOptions, check_filters
from rethinking.theory.run import Columns, TheoryConfig

FEATURES = ("pixels", "gabor", "random_conv")
KERNELS = ("gaussian", "linear")
SOLUTIONS = ("minimum_norm", "sgd", "random_centres", "wrong_on_test", "hessian")


@dataclass(frozen=True, kw_only=True)
class KernelMachineConfig(TheoryConfig):
    """One kernel machine on one data set. Raises `InputError` for wrong values.

    features: pixels from 0 to 1, Gabor wavelets, or random convolutional features
    filters: the number of random convolutional filters; their features have a linear kernel
    filter_options: options of these features (`convolutional.FilterOptions`), such as "mirror=True"
    bandwidth: the Gaussian kernel's: "search" on held-out training images with true labels, the "median" distance, or a
        number in the features' units
    l2: the number added to K's diagonal, or "search"
    solution: which function that fits the training set exactly: the one of least norm, or another (see `minimum_norm`)
    memory_limit: GiB that the process may take; None for nine tenths of the free memory
    """

    task: ClassVar[str] = "kernel_machines"
    columns: ClassVar[Columns] = Columns(
        ("features", "filters", "filter_options", "kernel", "solution", "l2", "randomization", "train_subset", "seed"),
        (
            "train_error",
            "test_error",
            "norm",
            "residual",
            "interpolates",
            "bandwidth",
            "ridge",
            "jitter",
            "refinements",
            "cholesky_gflops",
            "product_gflops",
            "peak_gib",
            "seconds",
            "train_images",
            "test_images",
        ),
    )

    features: str = "pixels"
    filters: int | None = None
    filter_options: str | None = None
    kernel: str = "gaussian"
    bandwidth: str | float = "search"
    l2: str | float = 0.0
    solution: str = "minimum_norm"
    memory_limit: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, known in (("features", FEATURES), ("kernel", KERNELS), ("solution", SOLUTIONS)):
            self._one_of(name, known)
        object.__setattr__(self, "bandwidth", _number_or("bandwidth", self.bandwidth, ("search", "median")))
        object.__setattr__(self, "l2", _number_or("l2", self.l2, ("search",)))
        if isinstance(self.bandwidth, float) and not (math.isfinite(self.bandwidth) and self.bandwidth > 0):
            raise InputError(f"bandwidth must be search, median or a positive number, not {self.bandwidth:g}")
        if isinstance(self.l2, float) and not (math.isfinite(self.l2) and self.l2 >= 0):
            raise InputError(f"the l2 term must be search or a number from 0 on, not {self.l2:g}")
        if (self.features == "random_conv") != (self.filters is not None):
            raise InputError("features 'random_conv' need filters, and only they take them")
        object.__setattr__(self, "filter_options", self.convolution.text)
        if self.features == "random_conv":
            object.__setattr__(self, "kernel", "linear")
        elif self.filter_options:
            raise InputError("filter_options are for features 'random_conv'; leave them out")
        if self.kernel == "linear":  # a linear kernel has no bandwidth
            object.__setattr__(self, "bandwidth", "search")
        if self.solution != "minimum_norm" and self.l2:
            raise InputError(f"{self.solution} fits the labels exactly and has no l2 term; leave l2 out")
        if self.filters is not None and self.filters < 1:
            raise InputError(f"filters must be whole numbers from 1 on, not {self.filters}")
        if self.memory_limit is not None and not (math.isfinite(self.memory_limit) and self.memory_limit > 0):
            raise InputError(f"memory_limit must be a positive number of GiB, not {self.memory_limit:g}")

    @property
    def convolution(self) -> FilterOptions:
        """The options of random convolutional features."""
        return FilterOptions.parsed(self.filter_options)

    @property
    def name(self) -> str:
        """Features, number of filters and solution, as the folder's name has them."""
        return "-".join([self.features, *([f"{self.filters}"] if self.filters else []), self.solution])

    @property
    def words(self) -> list[str]:
        """What sets the run apart from others on the same data, for people to read."""
        words = [self.features.replace("_", " ")]
        if self.filters:
            words.append(f"{self.filters:,} filters")
            words += [self.filter_options] if self.filter_options else []
        elif self.kernel == "linear":
            words.append("linear")
        if self.solution != "minimum_norm":
            words.append(self.solution.replace("_", " "))
        return [*words, *super().words, *(["l2"] if self.l2 else [])]

    def resolved(self, data: sources.ImageData) -> Self:
        """The configuration with its device. Raises `InputError` where the data has too few images or patches."""
        resolved = super().resolved(data)
        if self.filters is not None:
            images = self.train_subset or len(data.train)
            check_filters(data.image_shape, images, self.filters, self.convolution)
        return resolved

    def identity(self) -> dict[str, Any]:
        """All options that can change the numbers. Runs of earlier versions lack `filter_options`."""
        values = super().identity()
        return {name: value for name, value in values.items() if (name, value) != ("filter_options", None)}


def sums_folder(config: KernelMachineConfig, fingerprint: str) -> Path:
    """The folder of the sums over random convolutional filters, which does not depend on their number."""
    identity = {"fingerprint": fingerprint, "train_subset": config.train_subset, "seed": config.seed}
    if config.filter_options:
        identity["filter_options"] = config.filter_options
    return Path(config.runs_dir) / f"random_conv-sums-seed{config.seed}-{digest(identity)}"


def _number_or(name: str, value: str | float, words: tuple[str, ...]) -> str | float:
    if value in words:
        return value
    try:
        return float(value)
    except ValueError:
        known = ", ".join(words)
        raise InputError(f"{name} must be {known} or a number, not '{value}'{nearest(str(value), words)}") from None
