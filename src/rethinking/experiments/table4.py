"""Table 4 (Appendix E): networks fit random labels despite explicit regularization.

Expect weight decay to change little, except for small AlexNet, which did not converge in the paper. With random crops,
or with flips and rotations, expect nearly 100% after a longer run. Its learning rate is multiplied by 0.999 each epoch
instead of 0.95, and its accuracy is the online one, over an epoch's augmented batches. At full scale there are 6 runs.
The two augmented ones take 10 hours each on two cores, the others as long as Table 1's.
"""

from typing import Any

from rethinking.experiments.experiment import Answer, Experiment, Number, Row
from rethinking.experiments.paper import read_table
from rethinking.experiments.quantities import TRAIN_ACCURACY
from rethinking.experiments.scale import Study

PAPER = read_table("table4")
REGULARIZERS: dict[str, dict[str, Any]] = {
    "weight_decay": {"weight_decay": "default"},
    "random_crop": {"random_crop": True, "longer": True},
    "flip_and_rotate": {"augment_flip_rotate": True, "longer": True},
}


def rows(study: Study) -> list[Row]:
    """The paper's rows of the models in the study, on random labels."""
    return [
        Row(
            (("model", row["model"]), ("regularizer", row["regularizer"])),
            study.config(row["model"], randomization="random_labels", **REGULARIZERS[row["regularizer"]]),
            {"train accuracy": _percent(row["train_accuracy"])},
        )
        for row in PAPER
        if row["model"] in study.models
    ]


def numbers(answers: list[Answer]) -> list[Number]:
    """The final training accuracy: exact with weight decay alone, else online."""
    found = []
    for answer in answers:
        labels, last = dict(answer.row.labels), answer.evidence.metrics[-1]
        exact = None if labels["regularizer"] != "weight_decay" else last["exact_train_accuracy"]
        ours = last["train_accuracy"] if exact is None else exact
        found.append(Number(answer, TRAIN_ACCURACY, ours, answer.row.paper["train accuracy"]))
    return found


def _percent(stated: str) -> float | str:
    try:
        return float(stated) / 100
    except ValueError:
        return stated  # "failed to converge"


EXPERIMENT = Experiment(
    title="Table 4: fitting random labels with explicit regularization",
    about=__doc__,
    models=tuple(dict.fromkeys(row["model"] for row in PAPER)),
    rows=rows,
    numbers=numbers,
)
