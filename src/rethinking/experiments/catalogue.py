"""Every table and figure there is a command for, by name and in the paper's order."""

from rethinking.experiments import (
    complexity,
    complexity_margins,
    expressivity,
    expressivity_depth,
    expressivity_gap,
    figure1a,
    figure1b,
    figure1c,
    figure2b,
    minimum_norm,
    minimum_norm_errors,
    minimum_norm_sgd,
    rademacher,
    stability,
    table1,
    table3,
    table3_filters,
    table4,
)
from rethinking.experiments.experiment import Experiment

EXPERIMENTS: dict[str, Experiment] = {
    "table1": table1.EXPERIMENT,
    "table4": table4.EXPERIMENT,
    "figure1a": figure1a.EXPERIMENT,
    "figure1b": figure1b.EXPERIMENT,
    "figure1c": figure1c.EXPERIMENT,
    "figure2b": figure2b.EXPERIMENT,
    "rademacher": rademacher.EXPERIMENT,
    "stability": stability.EXPERIMENT,
    "complexity": complexity.EXPERIMENT,
    "complexity_margins": complexity_margins.EXPERIMENT,
    "expressivity": expressivity.EXPERIMENT,
    "expressivity_depth": expressivity_depth.EXPERIMENT,
    "expressivity_gap": expressivity_gap.EXPERIMENT,
    "table3": table3.EXPERIMENT,
    "table3_filters": table3_filters.EXPERIMENT,
    "minimum_norm": minimum_norm.EXPERIMENT,
    "minimum_norm_errors": minimum_norm_errors.EXPERIMENT,
    "minimum_norm_sgd": minimum_norm_sgd.EXPERIMENT,
}
