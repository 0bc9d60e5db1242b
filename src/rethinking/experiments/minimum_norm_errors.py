"""Section 5, minimum norm: test error against norm, of solutions that all fit every training label.

Expect the solution of K a = y at the lower left, and those that generalize badly to its right. But more images make the
norm larger and the error smaller, and of the two with all images the one on Gabor features has about the norm of the
one on pixels and far less error: the norm orders the solutions of one problem, not of different ones.
"""

from rethinking.experiments.experiment import Answer, Experiment, Number, Plot, Row
from rethinking.experiments.minimum_norm import rows as rows_of_table
from rethinking.experiments.quantities import TEST_ERROR
from rethinking.experiments.scale import Study


def rows(study: Study) -> list[Row]:
    """Those of the table with a Gaussian kernel; the norm with random centres is beyond any axis."""
    left_out = ("linear model", "random centres")
    return [row for row in rows_of_table(study) if dict(row.labels)["solution"] not in left_out]


def numbers(answers: list[Answer]) -> list[Number]:
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
