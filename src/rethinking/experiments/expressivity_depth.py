"""Corollary 1 (Section 4): depth k, width O(n / k) and O(n + d) weights also fit n points.

Expect every label right at every depth. The width falls like 1 / (depth - 2). The number of weights stays below
d + 5 n plus a few for each layer; two layers need no clipping and have d + 2 n. With many layers, the worst output is
closer to its label than with two. The reason is that a point passes through the ramps of its own interval alone.
"""

from rethinking.experiments.experiment import Answer, Experiment, Number, Plot, Row
from rethinking.experiments.expressivity import of_facts
from rethinking.experiments.quantities import LARGEST_DIFFERENCE, TRAIN_ERROR, WEIGHTS, declare, whole
from rethinking.experiments.scale import Study

DEPTHS = (2, 3, 4, 8, 16, 32, 64)


def rows(study: Study) -> list[Row]:
    """Random labels on the scale's numbers of images, at every depth."""
    return [
        Row(
            (("data", source.name), ("images", f"{images:,} images"), ("depth", f"{depth}")),
            study.memorizing(source, images, depth=depth, randomization="random_labels"),
        )
        for source in study.images
        for images in study.scale.memorized
        for depth in DEPTHS
    ]


def numbers(answers: list[Answer]) -> list[Number]:
    """Width, weights, error and largest difference, by depth."""
    return of_facts(answers, QUANTITIES, "depth")


QUANTITIES = (
    declare("width", whole, "", "number of units in a hidden layer"),
    WEIGHTS,
    TRAIN_ERROR,
    LARGEST_DIFFERENCE,
)
EXPERIMENT = Experiment(
    title="Corollary 1: networks of any depth that memorize by construction",
    about=__doc__,
    models=(),
    rows=rows,
    numbers=numbers,
    ours_only=QUANTITIES,
    plot=Plot(
        quantities=(LARGEST_DIFFERENCE,),
        series="images",
        x_label="depth",
        y_label="largest difference of output and label",
        points=True,
        log_x=True,
        log_y=True,
    ),
)
