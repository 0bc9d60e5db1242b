"""Figure 1a: training loss an epoch on true labels, random labels, and shuffled, random and Gaussian pixels.

Expect all five to reach zero, true labels first and random labels last, after a start at which nothing seems to
happen. 5 runs of small Inception, two of them Table 1's, over two hours each on two cores.
"""

from rethinking.config import MODEL_DEFAULTS
from rethinking.experiments.experiment import Answer, Experiment, Number, Plot, Row
from rethinking.experiments.paper import read_table
from rethinking.experiments.scale import Study

CONDITIONS = {
    "true_labels": "none",
    "random_labels": "random_labels",
    "shuffled_pixels": "shuffled_pixels",
    "random_pixels": "random_pixels",
    "gaussian_pixels": "gaussian_pixels",
}
PAPER = {(row["condition"], int(row["epoch"])): float(row["average_loss"]) for row in read_table("figure1a")}


def rows(study: Study) -> list[Row]:
    return [
        Row((("model", model), ("condition", condition)), study.config(model, randomization=randomization))
        for model in MODEL_DEFAULTS
        if model in study.models
        for condition, randomization in CONDITIONS.items()
    ]


def numbers(answers: list[Answer]) -> list[Number]:
    """The online loss of every epoch; the paper's curves are small Inception's and end after 63."""
    found = []
    for answer in answers:
        labels = dict(answer.row.labels)
        for record in answer.evidence.metrics:
            paper = PAPER.get((labels["condition"], record["epoch"])) if labels["model"] == "small_inception" else None
            epoch = float(record["epoch"])
            found.append(Number(answer, "training loss", record["train_loss"], paper, epoch, settled=True))
    return found


def _curve(condition: str) -> dict[float, float]:
    return {float(epoch): loss for (name, epoch), loss in PAPER.items() if name == condition}


EXPERIMENT = Experiment(
    title="Figure 1a: training loss under randomization",
    about=__doc__,
    models=("small_inception",),
    rows=rows,
    numbers=numbers,
    plot=Plot(
        ("training loss",),
        "condition",
        {(condition, "training loss"): _curve(condition) for condition in CONDITIONS},
        "thousand steps",
        "average loss",
        (0, 25),
        (0, 2.5),
        x_per_epoch=0.391,
    ),
    any_model=True,
)
