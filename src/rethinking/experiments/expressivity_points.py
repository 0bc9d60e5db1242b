"""Theorem 1 and Lemma 1 (Section 4): the weights and the time that more and more points take.

Expect the time to grow somewhat faster than the points, and the smallest eigenvalue of Lemma 1's matrix, a part of the
distance between two neighbouring projections, to fall as the inverse of their square, as the closest two of so many
random places do. The weights are as large as its inverse makes them, and stay below the bound that follows from it; the
worst output moves away from its label as they grow.
"""

from rethinking.experiments.experiment import Answer, Experiment, Number, Plot, Row
from rethinking.experiments.expressivity import of_facts
from rethinking.experiments.quantities import LARGEST_DIFFERENCE, LARGEST_WEIGHT, decimals, declare, significant
from rethinking.experiments.scale import Study


def rows(study: Study) -> list[Row]:
    """Random labels on some images, and on all that `expressivity` has."""
    few = sorted({*study.scale.examples, *study.scale.memorized})
    return [
        Row(
            (("data", source.name), ("images", "all images" if images is None else f"{images:,} images")),
            study.memorizing(source, images, randomization="random_labels"),
        )
        for source in study.images
        for images in (*few, None)
    ]


def numbers(answers: list[Answer]) -> list[Number]:
    return of_facts(answers, QUANTITIES, "train_images")


QUANTITIES = (
    declare("construction seconds", decimals(2), "seconds", "of wall time"),
    declare("smallest eigenvalue", significant(2), "", "of Lemma 1's matrix"),
    LARGEST_WEIGHT,
    declare("weight bound", significant(2), "", "what no weight exceeds"),
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
