"""Every table and figure there is a command for, by name and in the paper's order."""

from rethinking.experiments import figure1a, figure1b, figure1c, figure2b, table1, table4
from rethinking.experiments.experiment import Experiment

EXPERIMENTS: dict[str, Experiment] = {
    "table1": table1.EXPERIMENT,
    "table4": table4.EXPERIMENT,
    "figure1a": figure1a.EXPERIMENT,
    "figure1b": figure1b.EXPERIMENT,
    "figure1c": figure1c.EXPERIMENT,
    "figure2b": figure2b.EXPERIMENT,
}
