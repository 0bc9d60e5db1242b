"""Theorem 1 (Section 4): two layers and 2n + d weights fit any labels of n points in d dimensions.

Expect every output to round to its label, for images with true or random labels and for Gaussian noise. The network is
constructed in seconds and learns nothing. On test images it is no better than a guess, whatever the labels are, and its
output is often no label at all.
"""

from typing import Any

from rethinking.experiments.experiment import Answer, Experiment, Number, Row
from rethinking.experiments.quantities import LARGEST_DIFFERENCE, LARGEST_WEIGHT, TEST_ERROR, TRAIN_ERROR, WEIGHTS
from rethinking.experiments.scale import Study

POINTS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("images, true labels", {}),
    ("images, random labels", {"randomization": "random_labels"}),
    ("Gaussian noise, random labels", {"points": "gaussian", "randomization": "random_labels"}),
)


def rows(study: Study) -> list[Row]:
    """Images with true and with random labels, and Gaussian noise with random labels."""
    return [
        Row((("data", source.name), ("points", name)), study.memorizing(source, **options))
        for source in study.images
        for name, options in POINTS
    ]


def numbers(answers: list[Answer]) -> list[Number]:
    """Errors after rounding, the largest difference between an output and its label, and the weights."""
    return of_facts(answers, QUANTITIES)


def of_facts(answers: list[Answer], quantities: tuple[str, ...], place: str | None = None) -> list[Number]:
    """The quantities of each run, or the note "too close". `place` names the option or fact on a figure's axis."""
    found = []
    for answer in answers:
        known = {**answer.evidence.configuration, **answer.evidence.facts}
        x = None if place is None else float(known[place])
        note = "too close" if "too_close" in known else ""
        for quantity in quantities:
            found.append(Number(answer, quantity, known.get(quantity.replace(" ", "_")), None, x, note))
    return found


QUANTITIES = (WEIGHTS, TRAIN_ERROR, LARGEST_DIFFERENCE, TEST_ERROR, LARGEST_WEIGHT)
EXPERIMENT = Experiment(
    title="Theorem 1: networks that memorize by construction",
    about=__doc__,
    models=(),
    rows=rows,
    numbers=numbers,
    ours_only=QUANTITIES,
    companions=("expressivity_points", "expressivity_depth", "expressivity_gap"),
)
