"""Table 3: linear models that fit every training label, without regularization.

Expect a test error of about 1.5% with a Gaussian kernel on MNIST's pixels and half of that on Gabor features, whose
solution has the larger norm; on CIFAR-10 about 46% with a kernel on pixels, and far less with random convolutional
features, where an l2 term takes off a little more. At full scale a solution takes 5 to 10 minutes on two cores, and the
features of 32,000 filters a few hours, kept filter by filter.
"""

from rethinking.experiments.experiment import Answer, Experiment, Number, Row
from rethinking.experiments.paper import read_table
from rethinking.experiments.scale import ImageSource, Study

PAPER = read_table("table3")
FEATURES = {"none": "pixels", "gabor_filters": "gabor", "random_convnet": "random_conv"}


def rows(study: Study) -> list[Row]:
    """The paper's rows for each data set that stands in their data set's place; each configuration once."""
    made: dict[object, Row] = {}
    for source in study.images:
        for row in PAPER:
            if row["dataset"] in source.stands_for:
                one = _row(study, source, row)
                made.setdefault(one.config, one)
    return list(made.values())


def _row(study: Study, source: ImageSource, row: dict[str, str]) -> Row:
    features = FEATURES[row["preprocessing"]]
    filters = max(study.filters) if features == "random_conv" else None
    regularized = row["l2_regularization"] == "yes"
    config = study.machine(source, features=features, filters=filters, l2="search" if regularized else 0.0)
    named = features.replace("_", " ") + (f", {filters:,} filters" if filters else "")
    paper = {"test error": float(row["test_error"]) / 100}
    if row["minimum_norm"]:
        paper["norm"] = float(row["minimum_norm"])
    return Row((("dataset", source.name), ("features", named), ("l2", row["l2_regularization"])), config, paper)


def numbers(answers: list[Answer]) -> list[Number]:
    """Errors and the norm of the solution over all outputs; the paper does not say how its norms are measured."""
    found = []
    for answer in answers:
        facts = answer.evidence.facts
        note = "" if facts["norm"] is not None else "no exact solution"
        found += [
            Number(answer, "test error", facts["test_error"], answer.row.paper["test error"]),
            Number(answer, "norm", facts["norm"], answer.row.paper.get("norm"), note=note),
            Number(answer, "train error", facts["train_error"], None),
            Number(answer, "residual", facts["residual"], None),
        ]
    return found


EXPERIMENT = Experiment(
    title="Table 3: linear models that interpolate",
    about=__doc__,
    models=(),
    rows=rows,
    numbers=numbers,
    ours_only=("train error", "residual"),
    companions=("table3_filters",),
)
