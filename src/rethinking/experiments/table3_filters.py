"""Table 3's random convolutional features: test error against the number of filters.

Expect the error to fall with the number of filters where there is an l2 term. Without an l2 term, it peaks where there
are about as many features as training images, at eight features per filter. From there on every label is fitted, and
the error falls. Dashed lines show the paper's numbers, with 32,000 filters.
"""

from rethinking.experiments.experiment import Answer, Experiment, Number, Plot, Row
from rethinking.experiments.paper import read_table
from rethinking.experiments.quantities import NORM, TEST_ERROR, TRAIN_ERROR
from rethinking.experiments.scale import Study

PAPER = {
    f"l2: {row['l2_regularization']}": float(row["test_error"]) / 100
    for row in read_table("table3")
    if row["preprocessing"] == "random_convnet"
}


def rows(study: Study) -> list[Row]:
    """For coloured images: every number of filters and their options, with and without an l2 term."""
    return [
        Row(
            (
                ("data", source.name),
                ("regularizer", f"l2: {l2}" + (f"; {options}" if options else "")),
                ("filters", f"{filters}"),
            ),
            study.machine(
                source,
                features="random_conv",
                filters=filters,
                filter_options=options,
                l2="search" if l2 == "yes" else 0.0,
            ),
        )
        for source in study.images
        if "cifar10" in source.stands_for
        for options in study.filter_options
        for l2 in ("no", "yes")
        for filters in study.filters
    ]


def numbers(answers: list[Answer]) -> list[Number]:
    """Errors and norm, by the number of filters."""
    found = []
    for answer in answers:
        facts, filters = answer.evidence.facts, float(dict(answer.row.labels)["filters"])
        note = "" if facts["norm"] is not None else "no exact solution"
        jitter = f"jitter {facts['jitter']:.1g}" if facts["jitter"] else ""
        found += [
            Number(answer, TEST_ERROR, facts["test_error"], None, filters),
            Number(answer, TRAIN_ERROR, facts["train_error"], None, filters, note=jitter),
            Number(answer, NORM, facts["norm"], None, filters, note=note),
        ]
    return found


EXPERIMENT = Experiment(
    title="Table 3: error against the number of random filters",
    about=__doc__,
    models=(),
    rows=rows,
    numbers=numbers,
    ours_only=("test error", "train error", "norm"),
    plot=Plot(
        quantities=(TEST_ERROR,),
        series="regularizer",
        x_label="filters",
        y_label="test error",
        y_limits=(0.0, 0.7),
        points=True,
        log_x=True,
        levels=PAPER,
    ),
)
