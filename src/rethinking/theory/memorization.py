"""Carry out a `MemorizationConfig`: a network of Theorem 1 or Corollary 1 on images, noise or close points.

    runs/<id>/config.yaml   the resolved configuration
              result.json   written last: it marks the run as finished

The network itself is not kept, since the CPU constructs it again in seconds. Its outputs are computed on the device.
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
    """One network that memorizes. Raises `InputError` for wrong values.

    points: "images": the training images with pixels from 0 to 255; "gaussian": as many points of Gaussian noise, of
        the same dimension; "pairs": half of the images, each with a second point at the distance `gap` and another
        label
    gap: the Euclidean distance of a pair, in units of the largest pixel
    depth: the number of layers of weights: 2 for Theorem 1, more for Corollary 1
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
            raise InputError("points 'pairs' need a gap, and only they take one")
        if self.gap is not None and not 0 < self.gap < math.inf:
            raise InputError(f"gap must be a positive number, not {self.gap:g}")

    @property
    def name(self) -> str:
        """Points and depth, as the folder's name has them."""
        return f"memorizing_{self.points}-depth{self.depth}"

    @property
    def words(self) -> list[str]:
        """What sets the run apart from others on the same data, for people to read."""
        apart = [] if self.gap is None else [f"{self.gap:g} apart"]
        return [f"memorizing {self.points}", *apart, f"depth {self.depth}", *super().words]


def memorize(config: MemorizationConfig, begin: Steps = unwatched) -> TheoryResult:
    """Construct the network and evaluate it at its points, or return the finished run.

    Raises `InputError` where data and options do not fit, and its kind `ConflictError` where equal images have
    different labels.
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
        advanced, began = begin("constructing the network"), time.perf_counter()
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
    """The bytes of memory that `memorize` needs, and its operations, in operations of a matrix product.

    Raises `InputError` as `memorize` does.
    """
    data = sources.load_for(config)
    config = config.resolved(data)
    _refuse(config, data)
    images, test = config.train_subset or len(data.train), len(data.test) if data.test else 0
    values = math.prod(data.image_shape)
    held = (images + test) * values + 10 * 8 * images + (0 if config.points == "images" else 3 * 8 * images * values)
    # One ramp at one point takes about as long as 100 operations of a product. A deep network has 5 n connections, each
    # of which takes as long as 3 ramps.
    at_each = images if config.depth == 2 else 15 * images
    return LIBRARIES + held + 4 * 8 * VALUES, 100.0 * (images + test) * at_each


def _refuse(config: MemorizationConfig, data: sources.ImageData) -> None:
    """Raises `ConflictError` where equal images have different labels, `InputError` with too few images for a pair."""
    if config.points == "images":
        refuse_conflicting_images(config, data)
    if config.points == "pairs":
        half = (config.train_subset or len(data.train)) // 2
        if not half:
            raise InputError("a pair takes two points; take more images")
        refuse_conflicting_images(config, data, half)


def _points(config: MemorizationConfig, problem: Problem) -> tuple[Tensor, Tensor]:
    """The points, uint8 or float64 (n, d), and their labels, int64 (n,)."""
    images, labels = problem.train.flatten(1), problem.labels
    if config.points == "images":
        return images, labels
    stream = generator(config.seed, config.points)
    if config.points == "gaussian":
        return torch.randn(images.shape, dtype=torch.float64, generator=stream), labels
    assert config.gap is not None, "checked with the configuration"
    half = images[: len(images) // 2].double() / 255
    step = torch.randn(half.shape, dtype=torch.float64, generator=stream)
    displaced = half + config.gap * step / step.norm(dim=1, keepdim=True)
    if (same := (displaced == half).all(dim=1)).any():
        raise TooCloseError(f"rounding makes the points of pair {int(same.nonzero()[0])} one")
    other = labels[: len(half)] + torch.randint(1, problem.num_classes, (len(half),), generator=stream)
    return torch.cat([half, displaced]), torch.cat([labels[: len(half)], other % problem.num_classes])


def _facts(
    network: MemorizingNetwork | DeepMemorizingNetwork,
    points: Tensor,
    labels: Tensor,
    config: MemorizationConfig,
    problem: Problem,
    begin: Steps,
) -> dict[str, Any]:
    """Errors and sizes of the network at its points, and at the test images where its points are images."""
    values = _evaluate(network, points, begin("evaluating its points"))
    facts: dict[str, Any] = {
        "train_error": float((values.round() != labels).double().mean()),
        "largest_difference": float((values - labels).abs().max()),
        "test_error": None,
        "points": len(points),
        "weights": sum(parameter.numel() for parameter in network.parameters()),
        "width": network.width,
    }
    if config.points == "images" and len(problem.test):
        outputs = _evaluate(network, problem.test.flatten(1), begin("evaluating test images"))
        facts["test_error"] = float((outputs.round() != problem.test_labels).double().mean())
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
