"""Measures of complexity under label corruption: norms, margins and sharpness of trained networks. Beyond the paper.

Expect norms, distance from initialization and sharpness to grow with label corruption, as the gap between training and
test accuracy does. Expect normalized margins to fall. All change by less than the gap, and most of the change comes
before half of the labels are random. Small AlexNet is an exception: its change is not steady, and its sharpness, which
is noisier, grows about as much as the gap. Margins that are not normalized show nothing.

The networks are Figure 1b's, after their last epoch. At demo scale a run ends when it fits. Networks on random labels
therefore train for longer there, which is a part of their distance. `reproduce.py complexity RUN ...` measures finished
runs instead, given by their folders. `rethinking.theory.complexity` defines each measure.
"""

from rethinking.config import ExperimentConfig
from rethinking.experiments import figure1b
from rethinking.experiments.experiment import Answer, Experiment, Number, Plot, Row
from rethinking.experiments.quantities import EPOCHS, TRAIN_ACCURACY, declare, significant
from rethinking.experiments.scale import Study
from rethinking.theory.measuring import ComplexityConfig


def _measure(name: str, meaning: str, unit: str = "") -> str:
    return declare(name, significant(3), unit, meaning)


QUANTITIES = {  # their names in `theory.measuring`
    _measure("generalization gap", "training accuracy minus test accuracy", "share"): "generalization_gap",
    _measure("margin, 10th percentile", "output of the label minus the largest other output"): "margin",
    _measure(
        "normalized margin, 10th percentile", "margin divided by the product of spectral norms"
    ): "normalized_margin",
    _measure("Frobenius norm", "root of the sum of all squared weights"): "frobenius_norm",
    _measure("product of spectral norms", "product over all layers with weights"): "spectral_product",
    _measure("path norm", "root of the sum, over all paths, of the squared product of weights"): "path_norm",
    _measure("distance from initialization", "Euclidean distance of all parameters from their start"): "distance",
    _measure("sharpness", "largest rise of the training loss within a small ball", "nats"): "sharpness",
}
TRAINED = {EPOCHS: "epochs", TRAIN_ACCURACY: "exact_train_accuracy"}  # shown in the table, not in the figure
SHOWN = (*TRAINED, *QUANTITIES)


def rows(study: Study) -> list[Row]:
    """Figure 1b's networks, and the measures of each network."""
    networks = figure1b.rows(study)
    of_each = [(row.labels, row.config) for row in networks if isinstance(row.config, ExperimentConfig)]
    return networks + [Row(labels, ComplexityConfig.of(network)) for labels, network in of_each]


def numbers(answers: list[Answer]) -> list[Number]:
    """Each measure after the last epoch, at its level of label corruption where the figure has this axis."""
    found = []
    for answer in answers:
        if answer.evidence.task == "measures":
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
