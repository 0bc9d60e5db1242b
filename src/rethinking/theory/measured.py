"""Your own measure of a trained network: the place to add measures.

A measure is a function of a trained network in evaluation mode and of its training set. It returns numbers by name:

    def largest_weight(network, images, labels):
        return {"largest weight": max(p.abs().max().item() for p in network.parameters())}

The network is on the CPU, in float32. `images` is float32 (n, channels, height, width) and `labels` int64 (n,), both as
they were trained on. An experiment requests the measure by
`MeasureConfig.of(network_config, measure="FILE.py:largest_weight")`. The measurement has its own folder:

    runs/<id>/config.yaml   the resolved configuration, with the network's inside
              result.json   written last: it marks the run as finished
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch

from rethinking import registry
from rethinking.config import ExperimentConfig
from rethinking.data import sources
from rethinking.errors import InputError, in_one_line
from rethinking.seeding import global_streams
from rethinking.source import digest_of_source
from rethinking.steps import Steps, unwatched
from rethinking.theory.run import Columns, TheoryResult
from rethinking.theory.trained import MeasurementConfig, carry_out
from rethinking.training.memory import LIBRARIES, footprint
from rethinking.training.preparation import plain_training_set
from rethinking.training.run_dir import RunResult

Measure = Callable[[torch.nn.Module, torch.Tensor, torch.Tensor], Mapping[str, float]]
MEASURES: registry.Registry[Measure] = registry.Registry("measure", "rethinking.measures")


@dataclass(frozen=True, kw_only=True)
class MeasureConfig(MeasurementConfig):
    """Your own measure of one network.

    measure: `FILE.py:FUNCTION`, `package.module:FUNCTION`, or the name of an entry point `rethinking.measures`
    measure_digest: SHA-256 of the function's source, in a resolved configuration
    """

    task: ClassVar[str] = "own_measures"
    columns: ClassVar[Columns] = Columns(
        ("model_name", "randomization", "corruption_prob", "num_epochs", "seed", "measure"), ("numbers", "seconds")
    )

    measure: str
    measure_digest: str | None = None

    @property
    def name(self) -> str:
        """The function's name and the network's, as the folder's name has them."""
        return f"{self.measure.rpartition(':')[2]}-{registry.plain(self.network.model_name)}"

    @property
    def words(self) -> list[str]:
        """The function's name in words."""
        return [self.measure.rpartition(":")[2].replace("_", " ")]

    def resolved(self, data: sources.ImageData) -> MeasureConfig:
        """The configuration with the resolved network and the digest of the function's source.

        Raises `InputError` where there is no such function, or the network does not fit the data.
        """
        digest = digest_of_source(MEASURES.find(self.measure))
        return replace(super().resolved(data), measure=registry.absolute(self.measure), measure_digest=digest)

    def identity(self) -> dict[str, Any]:
        """The network's identity, and the measure without the folder of its file."""
        return super().identity() | {"measure": registry.without_folder(self.measure)}


def estimate_cost(config: MeasureConfig) -> tuple[float, float]:
    """The bytes of memory a measurement needs, and 0 operations: their number is unknown.

    Raises `InputError` where there is no such function, or the network does not fit the data.
    """
    data = sources.load_for(config)
    images, run = footprint(_with_images(config.resolved(data).network), data)
    return LIBRARIES + 2.0 * images + run, 0.0


def measure(config: MeasureConfig, begin: Steps = unwatched) -> TheoryResult:
    """Measure the network, or return the finished measurement. An untrained network is trained first.

    Raises `InputError` where the function fails or does not return finite numbers by name, and the errors of `train`.
    """
    return carry_out(config, "fp32", begin, lambda config, data, runs: _facts(config, data, runs[0], begin))


def _facts(config: MeasureConfig, data: sources.ImageData, run: RunResult, begin: Steps) -> dict[str, Any]:
    advanced = begin(config.words[0])
    batches = plain_training_set(replace(_with_images(config.network), device=config.device), data)
    images = batches.images(torch.arange(len(batches)))
    with global_streams(config.seed, "measure"):
        numbers = _measured(config, MEASURES.find(config.measure), run.network(), images, batches.labels)
    advanced(1.0)
    return {"network": run.path.name, "numbers": numbers}


def _with_images(network: ExperimentConfig) -> ExperimentConfig:
    """The configuration with all images in memory, which a measure receives as one tensor."""
    return replace(network, images_in_memory="always")


def _measured(
    config: MeasureConfig, function: Measure, network: torch.nn.Module, images: torch.Tensor, labels: torch.Tensor
) -> dict[str, float]:
    try:
        numbers = function(network, images, labels)
    except Exception as error:  # the user's function may raise anything
        raise InputError(f"{config.measure} fails: {in_one_line(error)}") from error
    if not isinstance(numbers, Mapping):
        raise InputError(f"{config.measure} must return numbers by name, not {type(numbers).__name__}")
    found = {}
    for name, value in numbers.items():
        try:
            found[str(name)] = float(value.detach() if isinstance(value, torch.Tensor) else value)
        except (TypeError, ValueError, RuntimeError):  # RuntimeError: a tensor with several values
            found[str(name)] = math.nan
        if not math.isfinite(found[str(name)]):
            raise InputError(f"{config.measure} must return finite numbers by name; '{name}' is {value!r:.100}")
    return found
