"""Distribution of normalized margins: how sure trained networks are of their training labels, true and random.

A normalized margin is divided by the product of the network's spectral norms, after Bartlett, Foster & Telgarsky 2017.
Expect every curve above 0 where the labels are fitted. Expect the curve of random labels nearer to 0 than the curve of
true labels.

The runs are those of `complexity`, at the ends and in the middle of the corruption axis.
"""

from rethinking.experiments import complexity, figure1b
from rethinking.experiments.experiment import Answer, Experiment, Number, Plot, Row
from rethinking.experiments.quantities import declare, significant
from rethinking.experiments.scale import Study
from rethinking.models import catalogue

LEVELS = {"0": "true", "0.5": "half random", "1": "random"}


def margin_of(model: str) -> str:
    """The name of the quantity that holds a model's margins."""
    return declare(
        f"normalized margin, {model}",
        significant(2),
        "",
        "margin divided by the product of spectral norms, at a percentile of the training set",
    )


QUANTITIES = {model: margin_of(model) for model in catalogue.PAPER}


def rows(study: Study) -> list[Row]:
    """The rows of `complexity` whose label corruption is in `LEVELS`."""
    levels = [(dict(row.labels), row) for row in complexity.rows(study)]
    return [
        row._replace(labels=(("labels", LEVELS[labels["label_corruption"]]),))
        for labels, row in levels
        if labels["label_corruption"] in LEVELS
    ]


def numbers(answers: list[Answer]) -> list[Number]:
    """Percentiles of each run's normalized margins. The place on the axis is the share of images below."""
    found = []
    for answer in answers:
        if answer.evidence.task == "measures":
            margins, product = answer.evidence.facts["margins"], answer.evidence.facts["spectral_product"]
            quantity = margin_of(answer.evidence.configuration["model_name"])
            found += [
                Number(answer, quantity, margin / product, None, percent / 100)
                for percent, margin in enumerate(margins)
                if percent % 5 == 0
            ]
    return found


EXPERIMENT = Experiment(
    title="Distribution of normalized margins",
    about=__doc__,
    models=figure1b.MODELS,
    rows=rows,
    numbers=numbers,
    ours_only=tuple(QUANTITIES.values()),
    plot=Plot(
        quantities=tuple(QUANTITIES.values()),
        series="labels",
        x_label="share of training images below",
        tabled=True,
        panels=True,
    ),
)
