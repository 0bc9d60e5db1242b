"""What is measured of networks that `train` trains: they in their own folders, the measurement in one beside them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import yaml

from rethinking.config import ExperimentConfig
from rethinking.data import sources
from rethinking.steps import Steps
from rethinking.theory.run import NOT_IN_IDENTITY, TheoryConfig
from rethinking.training import train_many
from rethinking.training.preparation import resolve
from rethinking.training.run_dir import RunResult


@dataclass(frozen=True, kw_only=True)
class MeasurementConfig(TheoryConfig):
    """What every measurement of networks is of. Raises `InputError` for options of a network that are wrong.

    network: how and on which device it is trained; of what else both have, the seed among it, the measurement's value
        counts
    device: of the measurement, always the CPU
    """

    network: ExperimentConfig

    def __post_init__(self) -> None:
        asked = ExperimentConfig.from_mapping(self.network) if isinstance(self.network, Mapping) else self.network
        object.__setattr__(self, "network", replace(asked, **{name: getattr(self, name) for name in _shared()}))
        object.__setattr__(self, "device", "cpu")

    @classmethod
    def of(cls, network: ExperimentConfig, **options: Any) -> Self:
        """Of this network, `options` being those that a network does not have."""
        return cls(network=network, **{name: getattr(network, name) for name in _shared()}, **options)

    def networks(self) -> Iterator[ExperimentConfig]:
        """Those that have to be trained first."""
        yield self.network

    def resolved(self, data: sources.ImageData) -> Self:
        """With all that the network's training leaves to model, data and machine. Raises `InputError` as it does."""
        return type(self).of(resolve(self.network, data), **self._own())

    def identity(self) -> dict[str, Any]:
        """The network's, and what is measured of it."""
        own = {name: value for name, value in self._own().items() if name not in NOT_IN_IDENTITY}
        return {**self.network.identity(), **own}

    def _own(self) -> dict[str, Any]:
        others = TheoryConfig.options() | {"network"}
        return {spec.name: getattr(self, spec.name) for spec in fields(self) if spec.name not in others}

    def to_yaml(self) -> str:
        return yaml.safe_dump(dataclasses.asdict(self), sort_keys=False)


def _shared() -> set[str]:
    """The options that a network and its measurement both have."""
    return TheoryConfig.options() - {"device"}


def trained_for(config: MeasurementConfig, begin: Steps) -> list[RunResult]:
    """The runs of what is to be measured, as a step of its own. Raises what `train` raises."""
    advanced = begin("the networks")
    runs = trained(list(config.networks()))
    advanced(1.0)
    return runs


def trained(networks: Sequence[ExperimentConfig], at_once: int | None = None) -> list[RunResult]:
    """The run of each, in the same order, trained where it is not yet. Raises what `train` raises."""
    found: dict[ExperimentConfig, RunResult] = {}
    for config, outcome in train_many(list(dict.fromkeys(networks)), at_once=at_once, progress=False):
        if isinstance(outcome, Exception):
            raise outcome
        found[config] = outcome
    return [found[config] for config in networks]
