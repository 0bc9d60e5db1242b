"""Memorization of true and of random labels along the corruption axis (Feldman & Zhang 2020). Beyond the paper.

An example is memorized as far as a network gets its label right only if the example was in its training set. Expect
nearly all random labels to be memorized, at every level: no other image supports them. Of true labels expect the long
tail to be memorized, images like few others of their class. As more labels are random, less can be learnt from other
images, so more of the true labels are memorized too.

Each number comes from many runs, each on a random 70% of the images. Labels are the same in all of them. Each run has
initial weights and an order of its own. The standard error is over the runs.
"""

from __future__ import annotations

from typing import Any

from rethinking.experiments.experiment import Answer, Experiment, Number, Plot, Row
from rethinking.experiments.quantities import count, declare, percent
from rethinking.experiments.scale import Study
from rethinking.theory.memorized import MEMORIZED, MemorizedConfig

MEAN = declare(
    "mean memorization", percent, "share", "P(right | in the training set) - P(right | not in it), mean over examples"
)
ERROR = declare("standard error", percent, "share", "of the mean memorization, over the runs")
SHARE = declare(
    f"share memorized by {MEMORIZED:.0%}", percent, "share", f"share of examples with a memorization of {MEMORIZED:.0%}"
)
IMAGES = declare("examples", count, "", "number of examples with labels of this kind")
MODELS = ("mlp_1x512",)  # others on request: each number takes many runs
NAMES = {"right": "true", "wrong": "random, wrong"}


def rows(study: Study) -> list[Row]:
    """For each model, the memorization at each level of label corruption."""
    return [
        Row(
            (("model", model), ("label_corruption", f"{level / 10:g}")),
            MemorizedConfig.of(study.config(model, **_corrupted(level)), subsets=study.scale.subsets),
        )
        for model in study.models
        for level in study.scale.subset_levels
    ]


def _corrupted(level: int) -> dict[str, Any]:
    options: dict[str, Any] = {"stop_when_fit": True, "eval_test_every": 1000}
    if level == 0:
        return options
    return options | {"randomization": "partial_corrupt", "corruption_prob": level / 10}


def numbers(answers: list[Answer]) -> list[Number]:
    """The memorization of examples with right and with wrong labels."""
    found = []
    for answer in answers:
        facts, level = answer.evidence.facts, float(dict(answer.row.labels)["label_corruption"])
        for labels, of_labels in facts["labels"].items():
            named = answer._replace(row=answer.row._replace(labels=(*answer.row.labels, ("labels", NAMES[labels]))))
            for quantity, name in ((MEAN, "mean"), (ERROR, "standard_error"), (SHARE, "share"), (IMAGES, "images")):
                found.append(Number(named, quantity, of_labels[name], None, level))
    return found


EXPERIMENT = Experiment(
    title="Memorization of true and of random labels",
    about=__doc__,
    models=MODELS,
    any_model=True,
    by_name_only=True,
    rows=rows,
    numbers=numbers,
    ours_only=(MEAN, ERROR, SHARE, IMAGES),
    companions=("memorized_errors",),
    plot=Plot(
        quantities=(MEAN, SHARE),
        series="labels",
        x_label="label corruption",
        points=True,
        panels=True,
        share_y=True,
    ),
)
