"""Section 2.2's uniform stability: how far the loss at fresh points moves when one training example is replaced.

A training algorithm A is uniformly beta-stable where |l(A(S), z) - l(A(S'), z)| <= beta for all points z and all
training sets S and S' that differ in one example, and its expected gap of training and test loss is then at most beta:
Hardt, Recht & Singer 2016, "Train faster, generalize better", who take the expectation over A's randomness; after
Bousquet & Elisseeff 2002, "Stability and generalization", where an example is left out. Here A's randomness is that of
a seed, the same for S and S'. What is measured on some S, S' and z is a lower bound on the beta of A with that seed.

The loss is the cross-entropy, unbounded, in nats, or 1 - p with p the probability of the right class, from 0 to 1.

Unless a precision is asked for, these networks are trained in fp32: that sums are taken in another order, with other
threads or in another stack, then changes the loss far less than an example does. In bf16 it changes about as much.

runs/<id>/config.yaml   the resolved `StabilityConfig`
          result.json   written last: its presence means done
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from numbers import Integral
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from rethinking.config import ExperimentConfig
from rethinking.data import sources
from rethinking.errors import InputError
from rethinking.steps import Steps, unwatched
from rethinking.theory.run import Columns, TheoryResult, about, at_work, find, keep, run_dir
from rethinking.theory.trained import MeasurementConfig, trained, trained_for
from rethinking.training.memory import LIBRARIES
from rethinking.training.run_dir import RunDir, RunResult


class Change(NamedTuple):
    """Of the loss at fresh points by one replaced example, after every epoch: float64 (epochs,) each.

    mean, largest: |change| of the cross-entropy over the points, nats
    mean_of_probability, largest_of_probability: |change| of the probability of the right class, 0-1
    """

    mean: Tensor
    largest: Tensor
    mean_of_probability: Tensor
    largest_of_probability: Tensor


def change(before: Tensor, after: Tensor) -> Change:
    """From the losses of two networks at the same points, float (epochs, points) each, in nats."""
    losses = (before.double() - after.double()).abs()
    probabilities = (before.double().neg().exp() - after.double().neg().exp()).abs()
    return Change(losses.mean(1), losses.amax(1), probabilities.mean(1), probabilities.amax(1))


def stability(config: ExperimentConfig, replacements: int, *, at_once: int | None = None) -> list[Change]:
    """What each of the first `replacements` training examples changes when a test image stands in its place.

    Trains as `config` says on all examples and once for each replacement, with the same initial weights, order and
    augmentation. Fresh points are the test images but the replacement, always with their true labels; the replacement
    has a label of the kind that `config` trains on. Raises `InputError` for less than one replacement and where
    `config` replaces an example itself, and what `train` raises.
    """
    if not isinstance(replacements, Integral) or replacements < 1:
        raise InputError(f"replacements must be a whole number from 1 on, not {replacements}")
    if config.replaced_example is not None:
        raise InputError("the first examples are replaced, one a network; leave out replaced_example")
    first, *others = trained([neighbour(config), *(neighbour(config, n) for n in range(replacements))], at_once)
    return [_between(first, other, replaced) for replaced, other in enumerate(others)]


def neighbour(config: ExperimentConfig, replaced: int | None = None) -> ExperimentConfig:
    """`config` trained with one example replaced, or none, and the losses at the test images kept."""
    precision = "fp32" if config.precision == "auto" else config.precision
    kept = replace(config, eval_test_every=1, keep_test_losses=True)
    return replace(kept, replaced_example=replaced, precision=precision)


def _between(first: RunResult, other: RunResult, replaced: int) -> Change:
    """As far as both have come; the test image that stood in training is no fresh point."""
    before, after = (RunDir(result.path).test_losses(len(result.metrics)) for result in (first, other))
    epochs = min(len(before), len(after))
    fresh = torch.arange(before.shape[1]) != replaced
    return change(before[:epochs, fresh], after[:epochs, fresh])


@dataclass(frozen=True, kw_only=True)
class StabilityConfig(MeasurementConfig):
    """What one replaced example changes.

    replaced: which, as `ExperimentConfig.replaced_example`
    """

    task: ClassVar[str] = "replacements"
    columns: ClassVar[Columns] = Columns(
        ("model_name", "randomization", "replaced", "num_epochs", "seed"), ("gap", "seconds", "train_images")
    )

    replaced: int

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "network", neighbour(self.network))

    @property
    def name(self) -> str:
        return f"replacing_{self.replaced}-{self.network.model_name}"

    @property
    def words(self) -> list[str]:
        return [f"change by example {self.replaced}"]

    def networks(self) -> Iterator[ExperimentConfig]:
        """The network of all examples, and its neighbour."""
        yield self.network
        yield neighbour(self.network, self.replaced)


def estimate_cost(config: StabilityConfig) -> tuple[float, float]:
    """Bytes of memory it takes, and operations. Raises `InputError` where the network cannot be trained."""
    data = sources.load_for(config)
    for network in config.networks():
        MeasurementConfig.of(network).resolved(data)
    values = 4.0 * config.network.num_epochs * (len(data.test) if data.test else 0)
    return LIBRARIES + 12 * values, 10 * values


def measure(config: StabilityConfig, begin: Steps = unwatched) -> TheoryResult:
    """Compare the two networks, trained where they are not yet, or find the run that did.

    Raises what `train` raises.
    """
    if found := find(config):
        return found
    data = sources.load_for(config)
    config = config.resolved(data)
    folder = run_dir(config, data)
    first, other = trained_for(config, begin)
    with at_work(folder, config) as found:
        if found:
            return found
        began = time.perf_counter()
        facts = {name: values.tolist() for name, values in _between(first, other, config.replaced)._asdict().items()}
        network = {"networks": [first.path.name, other.path.name], "gap": first.final["generalization_gap"]}
        result = {**about(config, data, config.network.precision), **network, **facts}
        return keep(folder, config, data, result | {"seconds": time.perf_counter() - began})
