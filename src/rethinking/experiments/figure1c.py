"""Figure 1c: test error of networks that fit their training labels, the more of these are random.

Expect a steady rise from each network's own error to 90%, chance on ten classes. 33 runs, all of them Figure 1b's: a
quarter of an hour on two cores for the MLP, four hours for AlexNet, a day for Inception.
"""

from rethinking.experiments import figure1b
from rethinking.experiments.experiment import Answer, Experiment, Number, Plot
from rethinking.experiments.paper import read_table

PAPER = {(row["model"], float(row["label_corruption"])): float(row["test_error"]) for row in read_table("figure1c")}


def numbers(answers: list[Answer]) -> list[Number]:
    """Error on the test set after the last epoch."""
    found = []
    for answer in answers:
        labels = dict(answer.row.labels)
        level, accuracy = float(labels["label_corruption"]), answer.evidence.metrics[-1]["test_accuracy"]
        error = None if accuracy is None else 1 - accuracy
        found.append(Number(answer, "test error", error, PAPER[labels["model"], level], level))
    return found


def _curve(model: str) -> dict[float, float]:
    return {level: error for (name, level), error in PAPER.items() if name == model}


EXPERIMENT = Experiment(
    title="Figure 1c: test error under label corruption",
    about=__doc__,
    models=figure1b.MODELS,
    rows=figure1b.rows,
    numbers=numbers,
    plot=Plot(
        ("test error",),
        "model",
        {(model, "test error"): _curve(model) for model in figure1b.MODELS},
        "label corruption",
        "test error",
        (0, 1),
        (0, 1),
        points=True,
    ),
)
