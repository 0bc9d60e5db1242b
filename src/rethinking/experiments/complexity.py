"""Measures of complexity under label corruption: what trained networks are like. Beyond the paper.

Expect norms, distance from initialization and sharpness to grow with label corruption, as the gap of training and test
accuracy does, and normalized margins to fall: by less than the gap, most of it by the time half of the labels are
random, in small AlexNet not at every step; sharpness, which is noisier, about as much there. Margins that are not
normalized say nothing.

The networks are Figure 1b's, after their last epoch; at demo scale, where a run ends when it fits, those of random
labels are trained for longer, which is part of the distance they go. `reproduce.py complexity RUN ...` measures
finished runs, given by their folders, instead. Where each measure is defined: `rethinking.theory.complexity`.
"""

from rethinking.config import ExperimentConfig
from rethinking.experiments import figure1b
from rethinking.experiments.experiment import Answer, Experiment, Number, Plot, Row
from rethinking.experiments.scale import Study
from rethinking.theory.measuring import ComplexityConfig

QUANTITIES = {
    "generalization gap": "generalization_gap",
    "margin, 10th percentile": "margin",
    "normalized margin, 10th percentile": "normalized_margin",
    "Frobenius norm": "frobenius_norm",
    "product of spectral norms": "spectral_product",
    "path norm": "path_norm",
    "distance from initialization": "distance",
    "sharpness": "sharpness",
}
TRAINED = {"epochs": "epochs", "train accuracy": "exact_train_accuracy"}  # how far: in the table alone
SHOWN = (*TRAINED, *QUANTITIES)


def rows(study: Study) -> list[Row]:
    """Figure 1b's networks and the measures of each."""
    networks = figure1b.rows(study)
    of_each = [(row.labels, row.config) for row in networks if isinstance(row.config, ExperimentConfig)]
    return networks + [Row(labels, ComplexityConfig.of(network)) for labels, network in of_each]


def numbers(answers: list[Answer]) -> list[Number]:
    """Each measure after the last epoch, at its level of label corruption where that is the axis."""
    found = []
    for answer in answers:
        if answer.evidence.kind == "measures":
            level = dict(answer.row.labels).get("label_corruption")
            for quantity, name in (TRAINED | QUANTITIES).items():
                place = None if level is None else float(level)
                found.append(Number(answer, quantity, answer.evidence.facts[name], None, place))
    return found


EXPERIMENT = Experiment(
    title="Measures of complexity under label corruption",
    about=__doc__,
    models=figure1b.MODELS,
    rows=rows,
    numbers=numbers,
    ours_only=SHOWN,
    companions=("complexity_margins",),
    plot=Plot(
        quantities=tuple(QUANTITIES),
        series="model",
        x_label="label corruption",
        points=True,
        panels=True,
    ),
)
