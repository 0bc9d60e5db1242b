"""Section 5, minimum norm: test error against norm, for solutions that fit every training label.

Expect the solution of K a = y at the lower left. Solutions that generalize badly lie to its right. But the norm does
not order the errors. More images give a larger norm and a smaller error. On all images, Gabor features have about the
norm of pixels and a far smaller error.
"""

from rethinking.experiments.experiment import Answer, Experiment, Number, Plot, Row
from rethinking.experiments.minimum_norm import rows as rows_of_table
from rethinking.experiments.quantities import TEST_ERROR
from rethinking.experiments.scale import Study


def rows(study: Study) -> list[Row]:
    """The table's rows with a Gaussian kernel, except random centres, whose norm is beyond any axis."""
    left_out = ("linear model", "random centres")
    return [row for row in rows_of_table(study) if dict(row.labels)["solution"] not in left_out]


def numbers(answers: list[Answer]) -> list[Number]:
    """The test error of each solution, by its norm."""
    return [
        Number(answer, TEST_ERROR, answer.evidence.facts["test_error"], None, answer.evidence.facts["norm"])
        for answer in answers
        if answer.evidence.facts["norm"] is not None
    ]


EXPERIMENT = Experiment(
    title="Section 5: test error against norm",
    about=__doc__,
    models=(),
    rows=rows,
    numbers=numbers,
    ours_only=("test error",),
    plot=Plot(
        quantities=(TEST_ERROR,),
        series="solution",
        x_label="norm of the solution",
        y_label="test error",
        y_limits=(0.0, 1.0),
        points=True,
        log_x=True,
    ),
)
