"""Measurements of networks that `train` trains. The measurement has a run folder of its own, like each network."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Self, TypeVar

import yaml

from rethinking.config import ExperimentConfig
from rethinking.data import sources
from rethinking.engines.many import train_many
from rethinking.steps import Steps
from rethinking.theory.run import (
    NOT_IN_IDENTITY,
    TheoryConfig,
    TheoryResult,
    about,
    at_work,
    find,
    keep,
    run_dir,
)
from rethinking.training.preparation import resolve
from rethinking.training.run_dir import RunResult


@dataclass(frozen=True, kw_only=True)
class MeasurementConfig(TheoryConfig):
    """The options that all measurements of networks have. Raises `InputError` for wrong options of the network.

    network: the network's own configuration, with the device it trains on. Options that both have, as the seed, take
        the measurement's value
    device: of the measurement, always the CPU
    """

    network: ExperimentConfig

    def __post_init__(self) -> None:
        network = ExperimentConfig.from_mapping(self.network) if isinstance(self.network, Mapping) else self.network
        object.__setattr__(self, "network", replace(network, **{name: getattr(self, name) for name in _shared()}))
        object.__setattr__(self, "device", "cpu")

    @classmethod
    def of(cls, network: ExperimentConfig, **options: Any) -> Self:
        """A measurement of this network. `options` are the measurement's own."""
        return cls(network=network, **{name: getattr(network, name) for name in _shared()}, **options)

    def networks(self) -> Iterator[ExperimentConfig]:
        """The networks that must be trained first."""
        yield self.network

    def resolved(self, data: sources.ImageData) -> Self:
        """The configuration with the network resolved. Raises `InputError` where the network does not fit the data."""
        return type(self).of(resolve(self.network, data), **self._own())

    def identity(self) -> dict[str, Any]:
        """The network's identity, and the measurement's own options."""
        own = {name: value for name, value in self._own().items() if name not in NOT_IN_IDENTITY}
        return {**self.network.identity(), **own}

    def _own(self) -> dict[str, Any]:
        others = TheoryConfig.options() | {"network"}
        return {spec.name: getattr(self, spec.name) for spec in fields(self) if spec.name not in others}

    def to_yaml(self) -> str:
        """The text of `config.yaml`, with the network's options inside."""
        return yaml.safe_dump(dataclasses.asdict(self), sort_keys=False)


def _shared() -> set[str]:
    """The options that a network and its measurement share."""
    return TheoryConfig.options() - {"device"}


Measured = TypeVar("Measured", bound=MeasurementConfig)


def carry_out(
    config: Measured,
    precision: str,
    begin: Steps,
    measure: Callable[[Measured, sources.ImageData, list[RunResult]], Mapping[str, Any]],
) -> TheoryResult:
    """Measure networks and keep the facts, or return the finished measurement. Untrained networks are trained first.

    precision: of the measurement, such as 'fp64'
    measure: returns facts from the resolved configuration, the data and the networks' runs

    Raises `InputError` where the network does not fit the data, and the errors of `train` and of `measure`.
    """
    if found := find(config):
        return found
    data = sources.load_for(config)
    config = config.resolved(data)
    runs = trained_for(config, begin)
    folder = run_dir(config, data)
    with at_work(folder, config) as found:
        if found:
            return found
        began = time.perf_counter()
        result = {**about(config, data, precision), **measure(config, data, runs)}
        return keep(folder, config, data, result | {"seconds": time.perf_counter() - began})


def trained_for(config: MeasurementConfig, begin: Steps) -> list[RunResult]:
    """Train the networks of a measurement as a step of its own, and return their runs. Raises the errors of `train`."""
    return trained(list(config.networks()), advanced=begin("training the networks"))


def trained(
    networks: Sequence[ExperimentConfig],
    at_once: int | None = None,
    advanced: Callable[[float], None] = lambda share: None,
) -> list[RunResult]:
    """Train networks, or find their finished runs, and return the runs in the same order.

    at_once: how many networks train together, None for as many as the memory holds
    advanced: receives the share of the networks that are finished, 0-1

    Raises the errors of `train`.
    """
    asked = list(dict.fromkeys(networks))
    found: dict[ExperimentConfig, RunResult] = {}
    for config, outcome in train_many(asked, at_once=at_once, progress=False):
        if isinstance(outcome, Exception):
            raise outcome
        found[config] = outcome
        advanced(len(found) / len(asked))
    return [found[config] for config in networks]
