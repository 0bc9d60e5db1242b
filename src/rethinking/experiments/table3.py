"""Table 3: linear models that fit every training label without regularization.

Expect a test error slightly over 1% on MNIST with a Gaussian kernel on pixels, and a third of it on Gabor features.
Expect over 40% on CIFAR-10 with a kernel on pixels, and half of it with random convolutional features; more filters
reduce it further. At full scale a solution takes 5 to 15 minutes on two cores. The features of 32,000 filters take a
few hours, and are saved every ten minutes.
"""

from rethinking.experiments.experiment import Answer, Experiment, Number, Row
from rethinking.experiments.paper import read_table
from rethinking.experiments.quantities import NORM, RESIDUAL, TEST_ERROR, TRAIN_ERROR
from rethinking.experiments.scale import ImageSource, Study

PAPER = read_table("table3")
FEATURES = {"none": "pixels", "gabor_filters": "gabor", "random_convnet": "random_conv"}


def rows(study: Study) -> list[Row]:
    """The paper's rows for each data set that stands for theirs, without repeated configurations.

    Random filters have one row per number of filters and options. `numbers` shows the largest number with an answer.
    """
    made: dict[object, Row] = {}
    for source in study.images:
        for row in PAPER:
            if row["dataset"] in source.stands_for:
                conv = row["preprocessing"] == "random_convnet"
                for options in study.filter_options if conv else (None,):
                    for filters in study.filters if conv else (None,):
                        one = _row(study, source, row, filters, options)
                        made.setdefault(one.config, one)
    return list(made.values())


def _row(study: Study, source: ImageSource, row: dict[str, str], filters: int | None, options: str | None) -> Row:
    features = FEATURES[row["preprocessing"]]
    l2 = "search" if row["l2_regularization"] == "yes" else 0.0
    config = study.machine(source, features=features, filters=filters, filter_options=options, l2=l2)
    named = ", ".join(
        [features.replace("_", " "), *([f"{filters:,} filters"] if filters else []), *filter(None, [options])]
    )
    paper = {"test error": float(row["test_error"]) / 100}
    if row["minimum_norm"]:
        paper["norm"] = float(row["minimum_norm"])
    return Row((("data", source.name), ("features", named), ("l2", row["l2_regularization"])), config, paper)


def numbers(answers: list[Answer]) -> list[Number]:
    """Errors, norm and residual. The norm is over all outputs; the paper does not say how it measures norms."""
    found = []
    for answer in _with_most_filters(answers):
        facts = answer.evidence.facts
        note = "" if facts["norm"] is not None else "no exact solution"
        jitter = f"jitter {facts['jitter']:.1g}" if facts["jitter"] else ""
        found += [
            Number(answer, TEST_ERROR, facts["test_error"], answer.row.paper["test error"]),
            Number(answer, NORM, facts["norm"], answer.row.paper.get("norm"), note=note),
            Number(answer, TRAIN_ERROR, facts["train_error"], None),
            Number(answer, RESIDUAL, facts["residual"], None, note=jitter),
        ]
    return found


def _with_most_filters(answers: list[Answer]) -> list[Answer]:
    """The answers with the most filters among answers that differ in nothing else."""

    def same(answer: Answer) -> object:
        data, _, l2 = answer.row.labels
        configuration = answer.evidence.configuration
        return data, l2, configuration["features"], configuration.get("filter_options")

    def filters(answer: Answer) -> int:
        return answer.evidence.configuration["filters"] or 0

    most: dict[object, int] = {}
    for answer in answers:
        most[same(answer)] = max(most.get(same(answer), 0), filters(answer))
    return [answer for answer in answers if filters(answer) == most[same(answer)]]


EXPERIMENT = Experiment(
    title="Table 3: linear models that interpolate",
    about=__doc__,
    models=(),
    rows=rows,
    numbers=numbers,
    ours_only=(TRAIN_ERROR, RESIDUAL),
    companions=("table3_filters",),
)
