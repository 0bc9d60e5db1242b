"""Theorem 1 and Corollary 1: how close points with different labels may be for float64 to tell them apart.

Expect the worst output's error to grow like the inverse of the distance, in two layers earlier than in many. Where the
error exceeds one half, labels are wrong. At even smaller distances no network is constructed, because float64 does not
tell the points' projections apart.
"""

from rethinking.experiments.experiment import Answer, Experiment, Number, Plot, Row
from rethinking.experiments.expressivity import of_facts
from rethinking.experiments.quantities import LARGEST_DIFFERENCE, TRAIN_ERROR
from rethinking.experiments.scale import Study

GAPS = tuple(10.0**-power for power in range(17))
DEPTHS = (2, 64)


def rows(study: Study) -> list[Row]:
    """Pairs of points at every distance, for two layers and for many."""
    return [
        Row(
            (("data", source.name), ("depth", f"depth {depth}"), ("distance", f"{gap:.0e}")),
            study.memorizing(source, study.scale.memorized[0], points="pairs", gap=gap, depth=depth),
        )
        for source in study.images
        for depth in DEPTHS
        for gap in GAPS
    ]


def numbers(answers: list[Answer]) -> list[Number]:
    """Error and largest difference, by the distance of a pair."""
    return of_facts(answers, QUANTITIES, "gap")


QUANTITIES = (TRAIN_ERROR, LARGEST_DIFFERENCE)
EXPERIMENT = Experiment(
    title="Theorem 1 and Corollary 1: close points with different labels",
    about=__doc__,
    models=(),
    rows=rows,
    numbers=numbers,
    ours_only=QUANTITIES,
    plot=Plot(
        quantities=(LARGEST_DIFFERENCE,),
        series="depth",
        x_label="distance of the points of a pair, in units of the largest pixel",
        y_label="largest difference of output and label",
        points=True,
        log_x=True,
        log_y=True,
    ),
)
