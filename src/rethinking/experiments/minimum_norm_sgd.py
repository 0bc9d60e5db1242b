"""Section 5, minimum norm: stochastic gradient descent from zero converges to the solution of K a = y.

Expect the distance to the solution to vanish, in the end by the same factor every epoch. Each step adds a multiple of
the kernel at one training image, so only the solution of least norm is within reach. The figure shows a Gaussian
kernel, and a linear model with more features than images, whose solution is the pseudoinverse's.
"""

from rethinking.experiments.experiment import Answer, Experiment, Number, Plot, Row
from rethinking.experiments.minimum_norm import LINEAR
from rethinking.experiments.quantities import declare, significant
from rethinking.experiments.scale import Study

DISTANCE = declare("distance", significant(2), "", "relative distance to the solution of least norm")


def rows(study: Study) -> list[Row]:
    """For grey images: gradient descent with a Gaussian kernel, and on a linear model."""
    made = []
    for source in study.images:
        if "mnist" in source.stands_for:
            for name, images, options in (
                ("Gaussian kernel", study.scale.interpolated, {}),
                ("linear model", study.scale.linear, LINEAR),
            ):
                labels = (("data", source.name), ("model", name))
                made.append(Row(labels, study.machine(source, images, solution="sgd", **options)))
    return made


def numbers(answers: list[Answer]) -> list[Number]:
    """The distance after each epoch, relative to the solution's norm."""
    return [
        Number(answer, DISTANCE, distance, None, float(epoch), settled=True)
        for answer in answers
        for epoch, distance in answer.evidence.facts["distances"]
        if epoch
    ]


EXPERIMENT = Experiment(
    title="Section 5: gradient descent from zero reaches the solution of least norm",
    about=__doc__,
    models=(),
    rows=rows,
    numbers=numbers,
    ours_only=("distance",),
    plot=Plot(
        quantities=(DISTANCE,),
        series="model",
        x_label="epoch, a step an image",
        y_label="distance to the solution, relative to its norm",
        y_limits=(1e-3, 1.0),
        log_x=True,
        log_y=True,
        x_per_epoch=1.0,
    ),
)
