"""Table 1: training and test accuracy with and without explicit regularization, on true and random labels.

Expect every network to fit the training set, including random labels, where its test accuracy is chance. Weight decay
and random crops add a few points of test accuracy, but networks generalize without them. At full scale there are 19
runs. On two cores with native bfloat16, one run takes 1 to 2 minutes (MLPs), 20 (AlexNet) or 140 (Inception).
"""

from rethinking.experiments.experiment import Answer, Experiment, Number, Row
from rethinking.experiments.paper import read_table
from rethinking.experiments.quantities import TEST_ACCURACY, TRAIN_ACCURACY
from rethinking.experiments.scale import Study

PAPER = read_table("table1")
COLUMNS = ("model", "labels", "random_crop", "weight_decay")


def rows(study: Study) -> list[Row]:
    """The paper's rows of the models in the study."""
    return [
        Row(
            tuple((column, row[column]) for column in COLUMNS),
            study.config(
                row["model"],
                randomization={"true": "none", "random": "random_labels"}[row["labels"]],
                random_crop=row["random_crop"] == "yes",
                weight_decay="default" if row["weight_decay"] == "yes" else 0.0,
            ),
            {f"{split} accuracy": float(row[f"{split}_accuracy"]) / 100 for split in ("train", "test")},
        )
        for row in PAPER
        if row["model"] in study.models
    ]


def numbers(answers: list[Answer]) -> list[Number]:
    """The final accuracies. Training accuracy is the exact one where the run has measured it, else the online one."""
    found = []
    for answer in answers:
        last = answer.evidence.metrics[-1]
        exact = last["exact_train_accuracy"]
        train = last["train_accuracy"] if exact is None else exact
        note = f"online, {answer.evidence.progress}" if exact is None else ""
        found += [
            Number(answer, TRAIN_ACCURACY, train, answer.row.paper["train accuracy"], note=note),
            Number(answer, TEST_ACCURACY, last["test_accuracy"], answer.row.paper["test accuracy"]),
        ]
    return found


EXPERIMENT = Experiment(
    title="Table 1: training and test accuracy, with and without regularization",
    about=__doc__,
    models=tuple(dict.fromkeys(row["model"] for row in PAPER)),
    rows=rows,
    numbers=numbers,
)
