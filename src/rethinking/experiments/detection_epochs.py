"""Which score finds wrong labels: what each finds after every epoch, and so how long to train. Beyond the paper.

Expect each score to rise while the network learns what the images have in common, and to fall or stay once it has
memorized wrong labels. Forgetting events and the loss of the last epoch fall most, area under the margin and confidence
least. Variability points the other way until wrong labels are memorized.

The runs are those of `detection` in which a fifth of the labels is noisy.
"""

from rethinking.experiments import detection
from rethinking.experiments.experiment import Answer, Experiment, Number, Plot, Row
from rethinking.experiments.quantities import decimals, declare
from rethinking.experiments.scale import Study
from rethinking.models import catalogue
from rethinking.theory.detecting import DetectionConfig

RATE = "0.2"


def auroc_of(model: str, noise: str) -> str:
    """The name of the quantity that holds the areas of one panel."""
    return declare(
        f"AUROC, {model}, {noise}", decimals(3), "", "area under the ROC curve of a score of the epochs so far"
    )


QUANTITIES = tuple(auroc_of(model, noise) for noise in detection.NOISE for model in catalogue.PAPER)


def rows(study: Study) -> list[Row]:
    """The rows of `detection` in which a fifth of the labels is noisy."""
    return [row for row in detection.rows(study) if dict(row.labels)["noise rate"] == RATE]


def numbers(answers: list[Answer]) -> list[Number]:
    """The area under the ROC curve of each score, after every epoch."""
    found = []
    for answer in answers:
        labels = dict(answer.row.labels)
        if answer.evidence.task == DetectionConfig.task:
            quantity = auroc_of(labels["model"], labels["noise"])
            for score, by_epoch in answer.evidence.facts["auroc"].items():
                named = answer._replace(row=answer.row._replace(labels=(("score", score.replace("_", " ")),)))
                found += [
                    Number(named, quantity, value, None, float(epoch)) for epoch, value in enumerate(by_epoch, start=1)
                ]
    return found


EXPERIMENT = Experiment(
    title="Which score finds wrong labels: after every epoch",
    about=__doc__,
    models=catalogue.PAPER,
    any_model=True,
    by_name_only=True,
    rows=rows,
    numbers=numbers,
    ours_only=QUANTITIES,
    plot=Plot(
        quantities=QUANTITIES,
        series="score",
        x_label="epoch",
        x_per_epoch=1.0,
        panels=True,
        share_y=True,
        of_any_model=True,
    ),
)
