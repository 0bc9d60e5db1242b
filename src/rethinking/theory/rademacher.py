r"""Section 2.2's empirical Rademacher complexity (Equation 1): how well a class of functions fits random signs.

$\hat R_n(H) = E_\sigma \left[ \sup_{h \in H} \frac{1}{n} \sum_{i=1}^n \sigma_i h(x_i) \right]$, where the signs
$\sigma_i$ are independent, +1 or -1 with equal probability.

For a linear class, the supremum has a closed form. A network has h(x) = +1 or -1, by the larger of its two outputs.
Training reaches at most the supremum, so `empirical_rademacher` is a lower bound.

    runs/<id>/config.yaml   the resolved `RademacherConfig` of a linear class
              result.json   written last: it marks the run as finished
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

DELTA = 0.05  # the gap is below `gap_bound` with probability 1 - DELTA at least
APART = 1000  # between the seeds of two draws, so that different `--seeds` share no draw
STEPS = 1000  # of gradient ascent, at most
RISE = 1e-12  # relative rise of the correlation in a step, below which ascent stops


class Estimate(NamedTuple):
    """The correlation with random signs that was reached: its mean over draws, and the mean's standard error."""

    mean: float
    standard_error: float
    correlations: tuple[float, ...]


def estimate(correlations: Sequence[float]) -> Estimate:
    """The estimate from one correlation per draw, of one draw at least. One draw alone has standard error nan."""
    draws = len(correlations)
    error = statistics.stdev(correlations) / math.sqrt(draws) if draws > 1 else math.nan
    return Estimate(statistics.mean(correlations), error, tuple(correlations))


def empirical_rademacher(config: ExperimentConfig, draws: int, *, at_once: int | None = None) -> Estimate:
    r"""A lower bound on $\hat R_n$ of a network's class: train it on random signs by `config`, once per draw.

    n is `config.train_subset`, or the number of all training images. `at_once` networks are trained together, None for
    as many as the memory holds. Raises `InputError` for less than one draw and for a `config` with another
    randomization, and the errors of `train`.
    """
    if not isinstance(draws, Integral) or draws < 1:
        raise InputError(f"draws must be a whole number from 1 on, not {draws}")
    if config.randomization not in ("none", "random_signs"):
        raise InputError(f"random signs replace the labels; leave out randomization {config.randomization}")
    runs = trained([on_random_signs(config, draw) for draw in range(draws)], at_once)
    return estimate([correlation_reached(run) for run in runs])


def on_random_signs(config: ExperimentConfig, draw: int) -> ExperimentConfig:
    """The configuration that trains on the random signs of one draw instead of labels."""
    return replace(
        config,
        randomization="random_signs",
        corruption_prob=None,
        randomization_seed=APART * draw,
        eval_test_every=1,  # without effect: signs have no test set
    )


def correlation_reached(result: RunResult) -> float:
    r"""$\frac{1}{n} \sum_i \sigma_i h(x_i)$ at the end of a run on random signs, which is 2 * accuracy - 1."""
    return float(2 * result.final["exact_train_accuracy"] - 1)


def gap_bound(complexity: float, examples: int, delta: float = DELTA) -> float:
    r"""The bound $\hat R_n(H) + 3 \sqrt{\log(2 / \delta) / 2n}$ on the gap between training and test error.

    For a class fixed before the sample is seen, the gap of any h exceeds it with probability $\delta$ at most. It holds
    for the loss $(1 - y h(x)) / 2$ of functions with values in [-1, 1]. For values +1 and -1 this loss is the error.
    After Bartlett & Mendelson 2002, "Rademacher and Gaussian complexities", in the form of Mohri, Rostamizadeh &
    Talwalkar ("Foundations of machine learning", second edition, Theorem 3.5), with the complexity measured on the
    sample.

    From a lower bound on the complexity, such as `empirical_rademacher`, it is only a lower bound on the bound. At
    complexity 1, which no class exceeds, it is the bound itself.
    """
    return complexity + 3 * math.sqrt(math.log(2 / delta) / (2 * examples))


def linear_supremum(points: Tensor, signs: Tensor, norm: float) -> float:
    r"""Equation 1's supremum over a linear class for one draw of signs.

    $\sup_{|w| \le B} \frac{1}{n} \sum_i \sigma_i \langle w, x_i \rangle = \frac{B}{n} |\sum_i \sigma_i x_i|$, where B
    is `norm`, by the Cauchy-Schwarz inequality. `points` is (n, d) and `signs` (n,), both float64.
    """
    return norm * float((signs @ points).norm()) / len(points)


def linear_bound(points: Tensor, norm: float) -> float:
    r"""The upper bound $\frac{B}{n} \sqrt{\sum_i |x_i|^2}$ on the mean of `linear_supremum` over signs.

    B is `norm`, and the bound follows from Jensen's inequality. `points` is float64 (n, d).
    """
    return norm * float(points.norm()) / len(points)


def ascend(points: Tensor, signs: Tensor, norm: float, start: torch.Generator) -> float:
    """The correlation that projected gradient ascent from a random w reaches, with |w| <= norm after every step.

    `points` is (n, d) and `signs` (n,), both float64. Each step moves w by a tenth of `norm`.
    """
    gradient = points.T @ signs / len(points)
    if not gradient.any():
        return 0.0  # the same for every w
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
    r"""The linear class $x \mapsto \langle w, x \rangle$ with $|w| \le 1 / \sqrt{d}$, on d pixels from 0 to 1.

    Its values are in [-1, 1]. Raises `InputError` for wrong values.

    randomization_seed: draws the signs
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
        """The words "rademacher_linear", which begin the folder's name."""
        return "rademacher_linear"

    @property
    def words(self) -> list[str]:
        """The class and the draw, for people to read."""
        return ["linear class", f"draw {self.randomization_seed}"]

    def identity(self) -> dict[str, Any]:
        """Everything that can change the numbers, with the bound on the norm."""
        return super().identity() | {"norm": "1/sqrt(d)"}


def estimate_cost(config: RademacherConfig) -> tuple[float, float]:
    """The bytes of memory and the operations that `measure` needs. Raises `InputError` as `measure` does."""
    data = sources.load_for(config)
    values = (config.resolved(data).train_subset or len(data.train)) * math.prod(data.image_shape)
    return LIBRARIES + 3.0 * 8 * values, 4.0 * STEPS * values


def measure(config: RademacherConfig, begin: Steps = unwatched) -> TheoryResult:
    """Find the correlation of a linear class with one draw of signs, by gradient ascent and in closed form.

    Returns the finished run where there is one. Raises `InputError` for fewer training images than `train_subset`.
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
