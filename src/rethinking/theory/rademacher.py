"""Section 2.2's empirical Rademacher complexity, Equation 1: how well a class of functions fits random signs.

R_n(H) = E_sigma sup_{h in H} (1/n) sum_i sigma_i h(x_i), the signs sigma_i independent, +1 or -1 equally likely.

Of a linear class the supremum is known in closed form. Of networks, as h(x) = +1 or -1 by the larger of two outputs,
what training reaches is below it: `empirical_rademacher` is a lower bound.

runs/<id>/config.yaml   the resolved `RademacherConfig`, of a linear class
          result.json   written last: its presence means done
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from numbers import Integral
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from rethinking.config import ExperimentConfig
from rethinking.data import sources
from rethinking.data.draws import random_signs
from rethinking.errors import InputError
from rethinking.seeding import generator
from rethinking.steps import Steps, unwatched
from rethinking.theory.run import Columns, Problem, TheoryConfig, TheoryResult, about, at_work, find, keep, run_dir
from rethinking.theory.trained import trained
from rethinking.training.memory import LIBRARIES
from rethinking.training.run_dir import RunResult

DELTA = 0.05  # with more than 1 - DELTA the gap is below `gap_bound`
APART = 1000  # between the seeds of two draws, so that those of other `--seeds` are others
STEPS = 1000  # of ascent at most
RISE = 1e-12  # of the correlation, below which a step no longer counts


class Estimate(NamedTuple):
    """The mean over draws of the correlation with random signs that was reached, and its standard error."""

    mean: float
    standard_error: float
    correlations: tuple[float, ...]


def estimate(correlations: Sequence[float]) -> Estimate:
    """Of one correlation a draw, at least one; with a single draw the standard error is not known, nan."""
    draws = len(correlations)
    error = statistics.stdev(correlations) / math.sqrt(draws) if draws > 1 else math.nan
    return Estimate(statistics.mean(correlations), error, tuple(correlations))


def empirical_rademacher(config: ExperimentConfig, draws: int, *, at_once: int | None = None) -> Estimate:
    """A lower bound on R_n of a network's class, by training it on random signs as `config` says, once a draw.

    n is `config.train_subset`, or all training images. Raises `InputError` for less than one draw and for a `config`
    that randomizes something else, and what `train` raises.
    """
    if not isinstance(draws, Integral) or draws < 1:
        raise InputError(f"draws must be a whole number from 1 on, not {draws}")
    if config.randomization not in ("none", "random_signs"):
        raise InputError(f"random signs take the place of the labels; leave out randomization {config.randomization}")
    runs = trained([on_random_signs(config, draw) for draw in range(draws)], at_once)
    return estimate([correlation_reached(run) for run in runs])


def on_random_signs(config: ExperimentConfig, draw: int) -> ExperimentConfig:
    """`config` trained on the signs of one draw in place of labels."""
    return replace(
        config,
        randomization="random_signs",
        corruption_prob=None,
        randomization_seed=APART * draw,
        eval_test_every=1,  # there is no test set, whatever is asked of the other runs
    )


def correlation_reached(result: RunResult) -> float:
    """(1/n) sum_i sigma_i h(x_i) at the end of a run on random signs: 1 less twice the share of wrong ones."""
    return float(2 * result.final["exact_train_accuracy"] - 1)


def gap_bound(complexity: float, examples: int, delta: float = DELTA) -> float:
    """What the gap of training and test error of any h exceeds with probability `delta` at most.

    Of a lower bound on the complexity, such as `empirical_rademacher`, it is no more than a lower bound on that; at a
    complexity of 1, which none exceeds, it is the bound.

    R_n(H) + 3 sqrt(log(2 / delta) / 2n), for the error of functions to +1 and -1 and, of functions h to [-1, 1], the
    loss (1 - y h(x)) / 2, which for the former is the error: Bartlett & Mendelson 2002, "Rademacher and Gaussian
    complexities", as Mohri, Rostamizadeh & Talwalkar state it with the complexity measured on the sample ("Foundations
    of machine learning", second edition, Theorem 3.5). The class is one fixed before the sample is seen.
    """
    return complexity + 3 * math.sqrt(math.log(2 / delta) / (2 * examples))


def linear_supremum(points: Tensor, signs: Tensor, norm: float) -> float:
    """Equation 1's supremum for one draw and a linear class, sup over |w| <= norm of (1/n) sum_i sigma_i <w, x_i>.

    It is norm / n |sum_i sigma_i x_i|, by Cauchy and Schwarz.

    points: (n, d) and signs: (n,), float64
    """
    return norm * float((signs @ points).norm()) / len(points)


def linear_bound(points: Tensor, norm: float) -> float:
    """What Equation 1's mean over signs of `linear_supremum` does not exceed: norm / n sqrt(sum_i |x_i|^2), by Jensen.

    points: (n, d), float64
    """
    return norm * float(points.norm()) / len(points)


def ascend(points: Tensor, signs: Tensor, norm: float, start: torch.Generator) -> float:
    """The correlation that gradient ascent from a random w reaches, put back to |w| <= norm after every step.

    points: (n, d) and signs: (n,), float64. The rate is one at which a step moves w by a tenth of `norm`.
    """
    gradient = points.T @ signs / len(points)
    if not gradient.any():
        return 0.0  # of every w
    weights = torch.randn(points.shape[1], dtype=torch.float64, generator=start)
    weights *= norm / weights.norm()
    reached = -math.inf
    for _ in range(STEPS):
        before, reached = reached, float(points @ weights @ signs) / len(points)
        if reached - before < RISE * norm * float(gradient.norm()):
            break
        weights = weights + 0.1 * norm * gradient / gradient.norm()
        weights *= norm / max(norm, float(weights.norm()))
    return reached


@dataclass(frozen=True, kw_only=True)
class RademacherConfig(TheoryConfig):
    """A linear class x -> <w, x> of d pixels from 0 to 1, with |w| <= 1 / sqrt(d), so that its values are in [-1, 1].

    randomization_seed: of the signs
    device: always the CPU
    """

    task: ClassVar[str] = "linear_classes"
    columns: ClassVar[Columns] = Columns(
        ("train_subset", "randomization_seed", "seed"), ("correlation", "supremum", "bound", "seconds", "train_images")
    )

    randomization: str = "random_signs"

    def __post_init__(self) -> None:
        self._one_of("randomization", ("random_signs",))
        object.__setattr__(self, "device", "cpu")

    @property
    def name(self) -> str:
        return "rademacher_linear"

    @property
    def words(self) -> list[str]:
        return ["linear class", f"draw {self.randomization_seed}"]

    def identity(self) -> dict[str, Any]:
        return super().identity() | {"norm": "1/sqrt(d)"}


def estimate_cost(config: RademacherConfig) -> tuple[float, float]:
    """Bytes of memory it takes, and operations. Raises `InputError` as `measure` does."""
    data = sources.load_for(config)
    values = (config.resolved(data).train_subset or len(data.train)) * math.prod(data.image_shape)
    return LIBRARIES + 3.0 * 8 * values, 4.0 * STEPS * values


def measure(config: RademacherConfig, begin: Steps = unwatched) -> TheoryResult:
    """The correlation of a linear class with one draw of signs, by ascent and in closed form.

    Raises `InputError` where there are fewer training images than `train_subset`.
    """
    if found := find(config):
        return found
    data = sources.load_for(config)
    config = config.resolved(data)
    problem, folder = Problem.of(config, data), run_dir(config, data)
    with at_work(folder, config) as found:
        if found:
            return found
        advanced, began = begin("gradient ascent"), time.perf_counter()
        points = problem.train.flatten(1).double() / 255
        signs = 2.0 * random_signs(len(points), config.randomization_seed).double() - 1
        norm = points.shape[1] ** -0.5
        facts = {
            "correlation": ascend(points, signs, norm, generator(config.seed, "ascent")),
            "supremum": linear_supremum(points, signs, norm),
            "bound": linear_bound(points, norm),
        }
        advanced(1.0)
        result = {**about(config, data, "fp64"), **facts, "seconds": time.perf_counter() - began}
        return keep(folder, config, data, result)
