"""Theorem 1 (Section 4): two layers and 2n + d weights that take any labels on n points in d dimensions.

Expect every label right after rounding, of images with true or random labels and of Gaussian noise: the network is
written down, in seconds, and learns nothing. What it says of test images is no better than a guess whatever the labels,
and often no label at all.
"""

from typing import Any

from rethinking.experiments.experiment import Answer, Experiment, Number, Row
from rethinking.experiments.scale import Study

POINTS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("images, true labels", {}),
    ("images, random labels", {"randomization": "random_labels"}),
    ("Gaussian noise, random labels", {"points": "gaussian", "randomization": "random_labels"}),
)


def rows(study: Study) -> list[Row]:
    return [
        Row((("data", source.name), ("points", name)), study.memorizing(source, **options))
        for source in study.images
        for name, options in POINTS
    ]


def numbers(answers: list[Answer]) -> list[Number]:
    """Errors after rounding, and how far the worst output is from its label before."""
    return [
        Number(answer, quantity, answer.evidence.facts.get(quantity.replace(" ", "_")), None, note=too_close(answer))
        for answer in answers
        for quantity in QUANTITIES
    ]


def too_close(answer: Answer) -> str:
    return "too close" if "too_close" in answer.evidence.facts else ""


QUANTITIES = ("weights", "train error", "largest difference", "test error", "largest weight")
EXPERIMENT = Experiment(
    title="Theorem 1: networks that memorize by construction",
    about=__doc__,
    models=(),
    rows=rows,
    numbers=numbers,
    ours_only=QUANTITIES,
    companions=("expressivity_depth", "expressivity_gap"),
)
