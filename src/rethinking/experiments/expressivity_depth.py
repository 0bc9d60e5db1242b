"""Corollary 1 (Section 4): depth k, width O(n / k) and O(n + d) weights fit n points as well.

Expect the width to fall as one over the depth less 2 while the weights stay below d + 5 n and some for each layer (two
layers have d + 2 n, as they need no clipping), every label right at every depth, and the worst output closer to its
label than in two layers: a point passes through the ramps of its own interval alone.
"""

from rethinking.experiments.experiment import Answer, Experiment, Number, Plot, Row
from rethinking.experiments.expressivity import of_facts
from rethinking.experiments.quantities import LARGEST_DIFFERENCE, TRAIN_ERROR, WEIGHTS, declare, whole
from rethinking.experiments.scale import Study

DEPTHS = (2, 3, 4, 8, 16, 32, 64)


def rows(study: Study) -> list[Row]:
    return [
        Row(
            (("data", source.name), ("images", f"{few:,} images"), ("depth", f"{depth}")),
            study.memorizing(source, few, depth=depth, randomization="random_labels"),
        )
        for source in study.images
        for few in study.scale.memorized
        for depth in DEPTHS
    ]


def numbers(answers: list[Answer]) -> list[Number]:
    return of_facts(answers, QUANTITIES, "depth")


QUANTITIES = (declare("width", whole, "", "units of a hidden layer"), WEIGHTS, TRAIN_ERROR, LARGEST_DIFFERENCE)
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
