"""Measures of complexity of single runs: `reproduce.py complexity RUN ...`, each row a finished run.

They may differ in network, data, labels and how far they were trained, and are to be compared with that in mind. Where
each measure is defined: `rethinking.theory.complexity`.
"""

from pathlib import Path

from rethinking.config import MODEL_DEFAULTS, ExperimentConfig
from rethinking.experiments import complexity, complexity_margins
from rethinking.experiments.experiment import Experiment, Plot, Row
from rethinking.experiments.scale import Study
from rethinking.theory.measuring import ComplexityConfig


def rows(study: Study) -> list[Row]:
    """By the name of its folder, with the labels and images it was trained on; none where no runs are given."""
    where = {name: study.options[name] for name in ("dataset", "data_root") if study.options.get(name) is not None}
    made = []
    for path in (Path(run).resolve() for run in study.runs):
        config = ComplexityConfig.of_run_folder(path, **where)
        images = config.network.train_subset
        labels = (("run", path.name), ("labels", _labels(config.network)), ("images", f"{images or 'all'}"))
        made.append(Row(labels, config, own_seed=True))
    return made


def _labels(network: ExperimentConfig) -> str:
    if network.randomization == "none":
        return "true"
    level = "" if network.corruption_prob is None else f" {network.corruption_prob:g}"
    return network.randomization.replace("_", " ") + level


MEASURES = Experiment(
    title="Measures of complexity of single runs",
    about=__doc__,
    models=tuple(MODEL_DEFAULTS),
    rows=rows,
    numbers=complexity.numbers,
    ours_only=complexity.SHOWN,
    companions=("complexity_runs_margins",),
    of_runs=True,
)
MARGINS = Experiment(
    title="Distribution of normalized margins of single runs",
    about="Normalized margins: as `complexity_margins` has them, of runs given by their folders.",
    models=tuple(MODEL_DEFAULTS),
    rows=rows,
    numbers=complexity_margins.numbers,
    ours_only=tuple(complexity_margins.QUANTITIES.values()),
    plot=Plot(
        quantities=tuple(complexity_margins.QUANTITIES.values()),
        series="run",
        x_label="share of training images below",
        tabled=True,
        panels=True,
        share_y=True,
    ),
    of_runs=True,
)
