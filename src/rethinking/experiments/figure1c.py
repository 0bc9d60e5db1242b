"""Figure 1c: test error of networks that fit their training labels, as more labels are random.

Expect a steady rise from each network's own error to 90%, which is chance on ten classes. It stays below the paper's
curve, whose test labels seem to be corrupted too (docs/differences.md). At full scale the 33 runs are Figure 1b's. On
two cores, all runs of the MLP take a quarter of an hour, of AlexNet four hours, of Inception a day.
"""

from rethinking.experiments import figure1b
from rethinking.experiments.experiment import Answer, Experiment, Number, Plot
from rethinking.experiments.paper import curve
from rethinking.experiments.quantities import TEST_ERROR

CURVES = {
    (model, "test error"): curve("figure1c", "label_corruption", "test_error", model=model) for model in figure1b.MODELS
}


def numbers(answers: list[Answer]) -> list[Number]:
    """The error on the test set after the last epoch, by label corruption."""
    found = []
    for answer in answers:
        labels = dict(answer.row.labels)
        level, accuracy = float(labels["label_corruption"]), answer.evidence.metrics[-1]["test_accuracy"]
        error = None if accuracy is None else 1 - accuracy
        found.append(Number(answer, TEST_ERROR, error, CURVES[labels["model"], "test error"][level], level))
    return found


EXPERIMENT = Experiment(
    title="Figure 1c: test error under label corruption",
    about=__doc__,
    models=figure1b.MODELS,
    rows=figure1b.rows,
    numbers=numbers,
    plot=Plot(
        quantities=(TEST_ERROR,),
        series="model",
        paper=CURVES,
        x_label="label corruption",
        y_label="test error",
        x_limits=(0, 1),
        y_limits=(0, 1),
        points=True,
    ),
)
