"""From a `MemorizationConfig` to its result: a network of Theorem 1 or Corollary 1 on images, noise or close points.

runs/<id>/config.yaml   the resolved configuration
          result.json   written last: its presence means done

The network itself is not kept: it is written down again in seconds, on the CPU. What it says of its points is computed
on the device.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from rethinking.data import sources
from rethinking.errors import InputError
from rethinking.seeding import generator
from rethinking.steps import Steps, unwatched
from rethinking.theory.expressivity import (
    VALUES,
    DeepMemorizingNetwork,
    MemorizingNetwork,
    TooCloseError,
    deep_memorizing_network,
)
from rethinking.theory.run import (
    Columns,
    Problem,
    TheoryConfig,
    TheoryResult,
    about,
    at_work,
    find,
    keep,
    refuse_conflicting_images,
    run_dir,
)
from rethinking.training.memory import LIBRARIES

POINTS = ("images", "gaussian", "pairs")


@dataclass(frozen=True, kw_only=True)
class MemorizationConfig(TheoryConfig):
    """One network that memorizes. Raises `InputError` for values that are wrong.

    points: the training images with pixels from 0 to 255; Gaussian noise, as many points of as many dimensions; or half
        of the images and beside each a point at the distance `gap`, with a label of its own
    gap: of pairs, Euclidean, in units of the largest pixel
    depth: layers of weights: 2 for Theorem 1, more for Corollary 1
    """

    task: ClassVar[str] = "memorization"
    columns: ClassVar[Columns] = Columns(
        ("points", "gap", "depth", "randomization", "train_subset", "seed"),
        (
            "dimensions",
            "width",
            "weights",
            "train_error",
            "largest_difference",
            "test_error",
            "largest_weight",
            "weight_bound",
            "construction_seconds",
            "seconds",
        ),
    )

    points: str = "images"
    gap: float | None = None
    depth: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        self._one_of("points", POINTS)
        if self.depth < 2:
            raise InputError(f"depth must be a whole number from 2 on, not {self.depth}")
        if (self.points == "pairs") != (self.gap is not None):
            raise InputError("a gap is for points in pairs, and those need one")
        if self.gap is not None and not 0 < self.gap < math.inf:
            raise InputError(f"gap must be a positive number, not {self.gap:g}")

    @property
    def name(self) -> str:
        return f"memorizing_{self.points}-depth{self.depth}"

    @property
    def words(self) -> list[str]:
        apart = [] if self.gap is None else [f"{self.gap:g} apart"]
        return [f"memorizing {self.points}", *apart, f"depth {self.depth}", *super().words]


def memorize(config: MemorizationConfig, begin: Steps = unwatched) -> TheoryResult:
    """Write the network down and look what it says of its points, or find the run that did.

    Raises `InputError` where data and options do not fit, as `ConflictError` where equal images have different labels.
    """
    if found := find(config):
        return found
    data = sources.load_for(config)
    config = config.resolved(data)
    _refuse(config, data)
    problem, folder = Problem.of(config, data), run_dir(config, data)
    with at_work(folder, config) as found:
        if found:
            return found
        advanced, began = begin("writing the network down"), time.perf_counter()
        facts: dict[str, Any]
        try:
            points, labels = _points(config, problem)
            network = deep_memorizing_network(points, labels, config.depth, generator(config.seed, "direction"))
        except TooCloseError as error:
            facts = {"train_error": None, "too_close": str(error)}
        else:
            constructed = time.perf_counter() - began
            advanced(1.0)
            network.to(config.device)
            facts = _facts(network, points, labels, config, problem, begin) | {"construction_seconds": constructed}
        facts |= {"dimensions": problem.train[0].numel(), "depth": config.depth}
        result = {**about(config, data, "fp64"), **facts, "seconds": time.perf_counter() - began}
        return keep(folder, config, data, result)


def estimate_cost(config: MemorizationConfig) -> tuple[float, float]:
    """Bytes of memory it takes, and operations as if of matrix products. Raises `InputError` as `memorize` does."""
    data = sources.load_for(config)
    config = config.resolved(data)
    _refuse(config, data)
    images, test = config.train_subset or len(data.train), len(data.test) if data.test else 0
    values = math.prod(data.image_shape)
    held = (images + test) * values + 10 * 8 * images + (0 if config.points == "images" else 3 * 8 * images * values)
    # A ramp at a point takes about as long as a hundred operations of a product, a connection of many layers as three.
    at_each = images if config.depth == 2 else 15 * images
    return LIBRARIES + held + 4 * 8 * VALUES, 100.0 * (images + test) * at_each


def _refuse(config: MemorizationConfig, data: sources.ImageData) -> None:
    """Raises `ConflictError` where equal images have different labels, `InputError` where there is none for a pair."""
    if config.points == "images":
        refuse_conflicting_images(config, data)
    if config.points == "pairs":
        half = (config.train_subset or len(data.train)) // 2
        if not half:
            raise InputError("a pair takes two points; take more images")
        refuse_conflicting_images(config, data, half)


def _points(config: MemorizationConfig, problem: Problem) -> tuple[Tensor, Tensor]:
    """Points (n, d), uint8 or float64, and labels int64 (n,)."""
    images, labels = problem.train.flatten(1), problem.labels
    if config.points == "images":
        return images, labels
    stream = generator(config.seed, config.points)
    if config.points == "gaussian":
        return torch.randn(images.shape, dtype=torch.float64, generator=stream), labels
    assert config.gap is not None, "checked with the configuration"
    half = images[: len(images) // 2].double() / 255
    step = torch.randn(half.shape, dtype=torch.float64, generator=stream)
    beside = half + config.gap * step / step.norm(dim=1, keepdim=True)
    if (same := (beside == half).all(dim=1)).any():
        raise TooCloseError(f"rounding makes the points of pair {int(same.nonzero()[0])} one")
    other = labels[: len(half)] + torch.randint(1, problem.num_classes, (len(half),), generator=stream)
    return torch.cat([half, beside]), torch.cat([labels[: len(half)], other % problem.num_classes])


def _facts(
    network: MemorizingNetwork | DeepMemorizingNetwork,
    points: Tensor,
    labels: Tensor,
    config: MemorizationConfig,
    problem: Problem,
    begin: Steps,
) -> dict[str, Any]:
    """What the network says of its points, and of test images where it has seen images."""
    values = _evaluate(network, points, begin("its points"))
    facts: dict[str, Any] = {
        "train_error": float((values.round() != labels).double().mean()),
        "largest_difference": float((values - labels).abs().max()),
        "test_error": None,
        "points": len(points),
        "weights": sum(parameter.numel() for parameter in network.parameters()),
        "width": network.width,
    }
    if config.points == "images" and len(problem.test):
        said = _evaluate(network, problem.test.flatten(1), begin("test images"))
        facts["test_error"] = float((said.round() != problem.test_labels).double().mean())
    if isinstance(network, MemorizingNetwork):
        facts["largest_weight"] = float(network.weights.abs().max())
        facts["weight_bound"] = network.weight_bound
        facts["smallest_eigenvalue"] = network.smallest_eigenvalue
    return facts


def _evaluate(
    network: MemorizingNetwork | DeepMemorizingNetwork, points: Tensor, advanced: Callable[[float], None]
) -> Tensor:
    made, device = [], next(network.parameters()).device
    for some in points.split(max(1, len(points) // 100)):
        made.append(network(some.to(device)).cpu())
        advanced(sum(map(len, made)) / len(points))
    return torch.cat(made)
