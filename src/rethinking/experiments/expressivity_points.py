"""Theorem 1 and Lemma 1 (Section 4): time and size of weights as the number of points grows.

Expect the time to grow slightly faster than the number of points. The smallest eigenvalue of Lemma 1's matrix falls
like the inverse square of this number: it is a fixed part of the smallest distance between projections, and the closest
two of n random points are that close. The largest weight grows like the inverse eigenvalue and stays below its bound.
The worst output moves away from its label as the weights grow.
"""

from rethinking.experiments.experiment import Answer, Experiment, Number, Plot, Row
from rethinking.experiments.expressivity import of_facts
from rethinking.experiments.quantities import LARGEST_DIFFERENCE, LARGEST_WEIGHT, decimals, declare, significant
from rethinking.experiments.scale import Study


def rows(study: Study) -> list[Row]:
    """Random labels on growing numbers of images, up to all images of `expressivity`."""
    sizes = sorted({*study.scale.examples, *study.scale.memorized})
    return [
        Row(
            (("data", source.name), ("images", "all images" if images is None else f"{images:,} images")),
            study.memorizing(source, images, randomization="random_labels"),
        )
        for source in study.images
        for images in (*sizes, None)
    ]


def numbers(answers: list[Answer]) -> list[Number]:
    """Time, eigenvalue, weights and largest difference, by the number of points."""
    return of_facts(answers, QUANTITIES, "train_images")


QUANTITIES = (
    declare("construction seconds", decimals(2), "seconds", "time that writing the network down takes"),
    declare("smallest eigenvalue", significant(2), "", "smallest eigenvalue of the matrix of Lemma 1"),
    LARGEST_WEIGHT,
    declare("weight bound", significant(2), "", "bound on the absolute weights (Lemma 1)"),
    LARGEST_DIFFERENCE,
)
EXPERIMENT = Experiment(
    title="Theorem 1 and Lemma 1: time and weights by the number of points",
    about=__doc__,
    models=(),
    rows=rows,
    numbers=numbers,
    ours_only=QUANTITIES,
    plot=Plot(
        quantities=QUANTITIES[1:],
        series="data",
        x_label="points",
        points=True,
        log_x=True,
        log_y=True,
        panels=True,
        own_places=True,
    ),
)
