"""Which score finds wrong labels: scores of examples, where a part of the labels was made wrong. Beyond the paper.

Expect area under the margin and confidence to find most, and pair flips to be harder to find than uniform draws. Of
these, a tenth is right where there are ten classes. Two numbers judge a score. The area under the ROC curve (AUROC) is
the probability that a wrong label is more suspicious than a right one. Precision is the share of wrong labels among as
many suspects as there are wrong labels.

A score comes from one network's training on the noisy labels, without a second network and without clean labels.
`rethinking.measures.scores` defines each score. At small scale the runs of an MLP take minutes, those of small AlexNet
an hour on one core.
"""

from __future__ import annotations

from typing import Any

from rethinking.experiments.experiment import Answer, Experiment, Number, Row
from rethinking.experiments.quantities import decimals, declare, percent
from rethinking.experiments.scale import Study
from rethinking.models import catalogue
from rethinking.theory.detecting import DetectionConfig

AUROC = declare(
    "AUROC", decimals(3), "", "area under the ROC curve: P(a wrong label is more suspicious than a right one)"
)
PRECISION = declare(
    "precision", percent, "share", "share of wrong labels among as many suspects as there are wrong labels"
)
NOISE = {"uniform": "partial_corrupt", "pair flip": "pair_flip"}
RATES = (0.1, 0.2, 0.4)
EPOCHS: dict[str, Any] = {"num_epochs": 30, "stop_when_fit": False, "eval_test_every": 30}  # all train equally long


def rows(study: Study) -> list[Row]:
    """For each model, noise and share of noisy labels: the network, and the scores of its examples."""
    made = []
    for model in study.models:
        for noise, randomization in NOISE.items():
            for rate in RATES:
                labels = (("model", model), ("noise", noise), ("noise rate", f"{rate:g}"))
                config = study.config(
                    model, randomization=randomization, corruption_prob=rate, record_examples=True, **EPOCHS
                )
                made += [Row(labels, config), Row(labels, DetectionConfig.of(config))]
    return made


def numbers(answers: list[Answer]) -> list[Number]:
    """What each score finds after the last epoch."""
    found = []
    for answer in answers:
        if answer.evidence.task == DetectionConfig.task:
            facts = answer.evidence.facts
            for quantity, name in ((AUROC, "auroc"), (PRECISION, "precision")):
                for score, by_epoch in facts[name].items():
                    found.append(Number(_of_score(answer, score), quantity, by_epoch[-1], None))
    return found


def _of_score(answer: Answer, score: str) -> Answer:
    *shared, rate = answer.row.labels
    labels = (*shared, ("score", score.replace("_", " ")), rate)
    return answer._replace(row=answer.row._replace(labels=labels))


EXPERIMENT = Experiment(
    title="Which score finds wrong labels",
    about=__doc__,
    models=catalogue.PAPER,
    any_model=True,
    by_name_only=True,
    rows=rows,
    numbers=numbers,
    ours_only=(AUROC, PRECISION),
    companions=("detection_epochs",),
    columns={"noise rate": tuple(f"{rate:g}" for rate in RATES)},
)
