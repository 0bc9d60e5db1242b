r"""Section 2.2's uniform stability: the change of the loss at fresh points when one training example is replaced.

A training algorithm A is uniformly $\beta$-stable if $|\ell(A(S), z) - \ell(A(S'), z)| \le \beta$ for all points z and
all training sets S and S' that differ in one example. Its expected gap between training and test loss is then at most
$\beta$ (Hardt, Recht & Singer 2016, "Train faster, generalize better"). They take the expectation over A's randomness.
Bousquet & Elisseeff 2002, "Stability and generalization", leave an example out instead. Here S and S' share one seed
for all of A's randomness. A measurement on some S, S' and z is a lower bound on the $\beta$ of A with that seed.

The loss is either the cross-entropy in nats, which is unbounded, or 1 - p, from 0 to 1, where p is the probability of
the right class.

Unless a precision is given, these networks train in fp32. Other threads or another stack change the order of sums; in
fp32 this changes the loss far less than an example does, and in bf16 about as much.

    runs/<id>/config.yaml   the resolved `StabilityConfig`
              result.json   written last: it marks the run as finished
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
    """The change of the loss at fresh points by one replaced example, after every epoch: each float64 (epochs,).

    mean, largest: of the |change| of the cross-entropy over the points, in nats
    mean_of_probability, largest_of_probability: of the |change| of the right class's probability, 0-1
    """

    mean: Tensor
    largest: Tensor
    mean_of_probability: Tensor
    largest_of_probability: Tensor


def change(before: Tensor, after: Tensor) -> Change:
    """Compare the losses of two networks at the same points, each float (epochs, points), in nats."""
    losses = (before.double() - after.double()).abs()
    probabilities = (before.double().neg().exp() - after.double().neg().exp()).abs()
    return Change(losses.mean(1), losses.amax(1), probabilities.mean(1), probabilities.amax(1))


def stability(config: ExperimentConfig, replacements: int, *, at_once: int | None = None) -> list[Change]:
    """Measure how the loss changes when a test image replaces each of the first `replacements` training examples.

    Trains by `config` on all examples, and once for each replacement, with the same initial weights, order and
    augmentation. Fresh points are all test images except the replacement, with their true labels. The replacement's
    label is of the kind that `config` trains on. `at_once` networks train together, None for as many as the memory
    holds. Raises `InputError` for less than one replacement, and where `config` itself replaces an example, and the
    errors of `train`.
    """
    if not isinstance(replacements, Integral) or replacements < 1:
        raise InputError(f"replacements must be a whole number from 1 on, not {replacements}")
    if config.replaced_example is not None:
        raise InputError("stability replaces the first examples itself; leave out replaced_example")
    first, *others = trained([neighbour(config), *(neighbour(config, n) for n in range(replacements))], at_once)
    return [_between(first, other, replaced) for replaced, other in enumerate(others)]


def neighbour(config: ExperimentConfig, replaced: int | None = None) -> ExperimentConfig:
    """The configuration with example `replaced` replaced, or none, which keeps its losses at the test images."""
    precision = "fp32" if config.precision == "auto" else config.precision
    kept = replace(config, eval_test_every=1, keep_test_losses=True)
    return replace(kept, replaced_example=replaced, precision=precision)


def _between(first: RunResult, other: RunResult, replaced: int) -> Change:
    """The change over the epochs that both have. The test image in the training set is not a fresh point."""
    before, after = (RunDir(result.path).test_losses(len(result.metrics)) for result in (first, other))
    epochs = min(len(before), len(after))
    fresh = torch.arange(before.shape[1]) != replaced
    return change(before[:epochs, fresh], after[:epochs, fresh])


@dataclass(frozen=True, kw_only=True)
class StabilityConfig(MeasurementConfig):
    """The measurement of one replaced example.

    replaced: its index, as `ExperimentConfig.replaced_example`
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
        """The example's index and the network, as the folder's name has them."""
        return f"replacing_{self.replaced}-{self.network.model_name}"

    @property
    def words(self) -> list[str]:
        """What sets the run apart from others on the same network, for people to read."""
        return [f"change by example {self.replaced}"]

    def networks(self) -> Iterator[ExperimentConfig]:
        """The network trained on all examples, and the one with a replaced example."""
        yield self.network
        yield neighbour(self.network, self.replaced)


def estimate_cost(config: StabilityConfig) -> tuple[float, float]:
    """The bytes of memory and the operations that `measure` needs beyond training.

    Raises `InputError` where the networks cannot be trained.
    """
    data = sources.load_for(config)
    for network in config.networks():
        MeasurementConfig.of(network).resolved(data)
    values = 4.0 * config.network.num_epochs * (len(data.test) if data.test else 0)
    return LIBRARIES + 12 * values, 10 * values


def measure(config: StabilityConfig, begin: Steps = unwatched) -> TheoryResult:
    """Compare the two networks, or return the finished comparison. Untrained networks are trained first.

    Raises the errors of `train`.
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
