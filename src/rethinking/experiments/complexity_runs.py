"""Measures of complexity of single runs: norms, margins and sharpness of runs given by their folders. Beyond the paper.

Expect the same as in `complexity` for runs that differ in their labels alone. Compare runs with care where they also
differ in network, data or length of training. `rethinking.theory.complexity` defines each measure.
"""

from pathlib import Path

from rethinking.config import ExperimentConfig
from rethinking.experiments import complexity
from rethinking.experiments.experiment import Experiment, Row
from rethinking.experiments.scale import Study
from rethinking.models import catalogue
from rethinking.theory.measuring import ComplexityConfig


def rows(study: Study) -> list[Row]:
    """One row per given run: the name of its folder, and what it was trained on. Without runs, no rows."""
    where = study.options.get("dataset"), study.options.get("data_root")
    made = []
    for path in (Path(run).resolve() for run in study.runs):
        config = ComplexityConfig.of_run_folder(path, *where)
        made.append(Row((("run", path.name), ("trained on", _trained_on(config.network))), config, own_seed=True))
    return made


def _trained_on(network: ExperimentConfig) -> str:
    randomized = "true labels" if network.randomization == "none" else network.randomization.replace("_", " ")
    level = "" if network.corruption_prob is None else f" {network.corruption_prob:g}"
    images = "all" if network.train_subset is None else f"{network.train_subset:,}"
    return f"{randomized}{level}, {images} images"


EXPERIMENT = Experiment(
    title="Measures of complexity of single runs",
    about=__doc__,
    models=catalogue.PAPER,
    rows=rows,
    numbers=complexity.numbers,
    ours_only=complexity.SHOWN,
    companions=("complexity_runs_margins",),
    of_runs=True,
)
