"""Distribution of normalized margins of single runs: how sure networks are of the labels they were trained on.

Expect a curve above 0 for a run that fits all its labels.
"""

from rethinking.experiments import complexity_margins, complexity_runs
from rethinking.experiments.experiment import Experiment, Plot
from rethinking.models import catalogue

EXPERIMENT = Experiment(
    title="Distribution of normalized margins of single runs",
    about=__doc__,
    models=catalogue.PAPER,
    rows=complexity_runs.rows,
    numbers=complexity_margins.numbers,
    ours_only=tuple(complexity_margins.QUANTITIES.values()),
    plot=Plot(
        quantities=tuple(complexity_margins.QUANTITIES.values()),
        series="run",
        x_label="share of training images below",
        tabled=True,
        panels=True,
    ),
    of_runs=True,
)
