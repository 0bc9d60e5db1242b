"""Figure 2b: accuracy of small Inception by epoch, with and without batch normalization.

Expect both to fit the training set. Without batch normalization, test accuracy is a few points lower. The best test
accuracy so far, which early stopping could have reached, is shaded. At full scale there are 2 runs, both also Table
1's. Each takes over two hours on two cores.
"""

from collections.abc import Mapping
from itertools import accumulate

import numpy as np

from rethinking.experiments.experiment import Answer, Experiment, Number, Plot, Row
from rethinking.experiments.paper import curve
from rethinking.experiments.quantities import TEST_ACCURACY, TRAIN_ACCURACY, declare, percent
from rethinking.experiments.scale import Study

BEST = declare("best test accuracy so far", percent, "share", "highest test accuracy up to an epoch")
STEPS = 391  # per epoch, in the paper's figure
MODELS = ("small_inception", "small_inception_no_bn")


CURVES = {  # every point of the paper, by epoch; the paper's finer curve has fractions of an epoch
    (model, f"{split} accuracy"): {
        step / STEPS: accuracy
        for step, accuracy in curve("figure2b", "step", "accuracy", model=model, split=split).items()
    }
    for model in MODELS
    for split in ("train", "test")
}


def at_epochs(curve: Mapping[float, float]) -> dict[int, float]:
    """A curve's values at the end of each epoch, interpolated where it has no point there."""
    epochs = range(1, int(max(curve)) + 1)
    return dict(zip(epochs, np.interp(epochs, list(curve), list(curve.values())).tolist(), strict=True))


PAPER = {name: at_epochs(curve) for name, curve in CURVES.items()}


def rows(study: Study) -> list[Row]:
    """Small Inception with and without batch normalization, on true labels."""
    return [Row((("model", model),), study.config(model)) for model in MODELS if model in study.models]


def numbers(answers: list[Answer]) -> list[Number]:
    """Online training accuracy, test accuracy, and the best test accuracy so far, for every epoch."""
    found = []
    for answer in answers:
        metrics, model = answer.evidence.metrics, dict(answer.row.labels)["model"]
        tested = [record["test_accuracy"] for record in metrics if record["test_accuracy"] is not None]
        best = list(accumulate(tested, max)) or [None] * len(metrics)
        for record, best_so_far in zip(metrics, best, strict=True):
            epoch = record["epoch"]
            for quantity, ours, paper in (
                (TRAIN_ACCURACY, record["train_accuracy"], PAPER[model, "train accuracy"].get(epoch)),
                (TEST_ACCURACY, record["test_accuracy"], PAPER[model, "test accuracy"].get(epoch)),
                (BEST, best_so_far, None),
            ):
                found.append(Number(answer, quantity, ours, paper, float(epoch), settled=True))
    return found


EXPERIMENT = Experiment(
    title="Figure 2b: with and without batch normalization",
    about=__doc__,
    models=MODELS,
    rows=rows,
    numbers=numbers,
    ours_only=(BEST,),
    plot=Plot(
        quantities=(TRAIN_ACCURACY, TEST_ACCURACY),
        series="model",
        paper=CURVES,
        x_label="thousand training steps",
        y_label="accuracy",
        x_limits=(0, 20),
        y_limits=(0.6, 1.0),
        shaded=BEST,
        x_per_epoch=0.391,
    ),
)
