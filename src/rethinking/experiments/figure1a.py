"""Figure 1a: training loss by epoch on true labels, random labels, and shuffled, random and Gaussian pixels.

Expect all five curves to reach zero: true labels first, and random labels last, after a start without visible progress.
At full scale there are 5 runs of small Inception. Two of them are also Table 1's. Each takes over two hours on two
cores.
"""

from rethinking.experiments.experiment import Answer, Experiment, Number, Plot, Row
from rethinking.experiments.paper import curve
from rethinking.experiments.quantities import TRAINING_LOSS
from rethinking.experiments.scale import Study

CONDITIONS = {
    "true_labels": "none",
    "random_labels": "random_labels",
    "shuffled_pixels": "shuffled_pixels",
    "random_pixels": "random_pixels",
    "gaussian_pixels": "gaussian_pixels",
}
CURVES = {
    (condition, "training loss"): curve("figure1a", "epoch", "average_loss", condition=condition)
    for condition in CONDITIONS
}


def rows(study: Study) -> list[Row]:
    """Every model under the five conditions."""
    return [
        Row((("model", model), ("condition", condition)), study.config(model, randomization=randomization))
        for model in study.models
        for condition, randomization in CONDITIONS.items()
    ]


def numbers(answers: list[Answer]) -> list[Number]:
    """The online loss of every epoch. The paper's curves are small Inception's and end after epoch 63."""
    found = []
    for answer in answers:
        labels = dict(answer.row.labels)
        paper = CURVES[labels["condition"], "training loss"] if labels["model"] == "small_inception" else {}
        for record in answer.evidence.metrics:
            epoch, loss = float(record["epoch"]), record["train_loss"]
            found.append(Number(answer, TRAINING_LOSS, loss, paper.get(epoch), epoch, settled=True))
    return found


EXPERIMENT = Experiment(
    title="Figure 1a: training loss under randomization",
    about=__doc__,
    models=("small_inception",),
    rows=rows,
    numbers=numbers,
    plot=Plot(
        quantities=(TRAINING_LOSS,),
        series="condition",
        paper=CURVES,
        x_label="thousand steps",
        y_label="average loss",
        x_limits=(0, 25),
        y_limits=(0, 2.5),
        x_per_epoch=0.391,
    ),
    any_model=True,
)
