"""Section 5, minimum norm: which function that fits the training set is found, and what its norm tells.

Expect the solution of K a = y to generalize. Other functions that fit every training label as exactly do not: random
labels, random centres, and wrong labels forced on test images. Each has a larger norm. The norm tells less between
kernels: on all of MNIST, Gabor features have at least the norm of pixels, and a third of their error. Curvature does
not explain it either: it is the same at every global minimum of a linear model, whatever the test error.
"""

from collections.abc import Mapping
from typing import Any

from rethinking.experiments.experiment import Answer, Experiment, Number, Row
from rethinking.experiments.quantities import NORM, RESIDUAL, TEST_ERROR, TRAIN_ERROR, declare, significant
from rethinking.experiments.scale import Study

HESSIANS_DIFFERENCE = declare(
    "Hessian's difference", significant(2), "", "relative difference of the Hessians at two minima"
)
LINEAR: dict[str, Any] = {"features": "random_conv", "filters": 100}  # more features, 801, than images
SOLUTIONS: tuple[tuple[str, dict[str, str]], ...] = (
    ("least norm", {}),
    ("least norm, gabor", {"features": "gabor"}),
    ("least norm, random labels", {"randomization": "random_labels"}),
    ("random centres", {"solution": "random_centres"}),
    ("wrong on test images", {"solution": "wrong_on_test"}),
    ("gradient descent", {"solution": "sgd"}),
)


def rows(study: Study) -> list[Row]:
    """For grey images: each solution on a few thousand images, least norm on all images, and a linear model."""
    made = []
    for source in study.images:
        if "mnist" not in source.stands_for:
            continue
        for name, options in SOLUTIONS:
            labels = (("data", source.name), ("solution", name))
            made.append(Row(labels, study.machine(source, study.scale.interpolated, **options)))
        for features in ("pixels", "gabor"):  # Table 3's
            labels = (("data", source.name), ("solution", f"least norm, all images, {features}"))
            made.append(Row(labels, study.machine(source, features=features)))
        labels = (("data", source.name), ("solution", "linear model"))
        made.append(Row(labels, study.machine(source, study.scale.linear, solution="hessian", **LINEAR)))
    return made


def numbers(answers: list[Answer]) -> list[Number]:
    """Errors, norm and residual of each solution. For the linear model, also the Hessian at each global minimum."""
    found = []
    for answer in answers:
        facts = answer.evidence.facts
        if "forced" in facts:
            answer = _named(answer, f"wrong on {facts['forced']:,} test images")
        if "minima" not in facts:
            found += _of(answer, facts)
            continue
        for minimum in facts["minima"]:
            named = _named(answer, f"linear model, {minimum['minimum']}")
            found += [*_of(named, minimum), Number(named, HESSIANS_DIFFERENCE, minimum["hessian_difference"], None)]
    return found


def _named(answer: Answer, solution: str) -> Answer:
    labels = (*answer.row.labels[:-1], ("solution", solution))
    return answer._replace(row=answer.row._replace(labels=labels))


def _of(answer: Answer, facts: Mapping[str, Any]) -> list[Number]:
    return [
        Number(answer, name, facts[name.replace(" ", "_")], None) for name in (TRAIN_ERROR, TEST_ERROR, NORM, RESIDUAL)
    ]


EXPERIMENT = Experiment(
    title="Section 5: solutions that fit the training set, of least norm and not",
    about=__doc__,
    models=(),
    rows=rows,
    numbers=numbers,
    ours_only=(TRAIN_ERROR, TEST_ERROR, NORM, RESIDUAL, HESSIANS_DIFFERENCE),
    companions=("minimum_norm_errors", "minimum_norm_sgd"),
)
