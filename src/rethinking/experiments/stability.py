"""Uniform stability (Section 2.2): the change of the loss at fresh points when one training example is replaced.

Expect similar changes with true and random labels where both are fitted and both gaps are large. On a few thousand
images of CIFAR-10, the mean change in nats is two to three times as large with random labels, whose losses are larger.
The change in the probability of the right class, which is bounded, is about equal. In small AlexNet
the change is smaller with random labels until they are half fitted. In the MLPs it is not, except in the first epochs
of the deeper one. On the digits, which are nearly solved, it is far smaller with true labels. The paper's point is that
uniform stability is a worst case over all training sets, and so over all labels: one number for both. These
measurements of particular sets are lower bounds on it.

A network trains on all examples. It trains again with one example replaced by a test image, with the same seed and
order, for each of several examples. Mean and standard deviation are taken over the replacements. Fresh points are test
images with their true labels, whatever labels the network trains on. The largest change belongs to a single test image.
At full scale there are 60 runs of 70 epochs.
"""

from typing import Any

from rethinking.experiments.experiment import Answer, Experiment, Number, Plot, Row
from rethinking.experiments.quantities import declare, percent, significant
from rethinking.experiments.scale import Study
from rethinking.models import catalogue
from rethinking.theory.stability import Change, StabilityConfig

QUANTITIES = {  # their names in `theory.stability.Change`
    declare("mean change of loss, nats", significant(2), "nats", "mean over the test images"): "mean",
    declare("largest change of loss, nats", significant(2), "nats", "largest over the test images"): "largest",
    declare(
        "mean change of probability", significant(2), "", "change of the right class, mean over the test images"
    ): "mean_of_probability",
    declare(
        "largest change of probability", significant(2), "", "change of the right class, largest over the test images"
    ): "largest_of_probability",
}
assert tuple(QUANTITIES.values()) == Change._fields
TRAINED = declare(
    "online train accuracy", percent, "share", "share of right labels during an epoch"
)  # not in the figure
EPOCHS: dict[str, Any] = {"num_epochs": 70, "stop_when_fit": False}  # networks that are compared train equally long


def rows(study: Study) -> list[Row]:
    """For each model and kind of labels: the networks, and the change by each replacement, under one heading."""
    made = []
    for model in study.models:
        for kind, randomization in (("true", "none"), ("random", "random_labels")):
            labels = (("model", model), ("labels", kind))
            config = study.config(model, randomization=randomization, **EPOCHS)
            changes = [StabilityConfig.of(config, replaced=n) for n in range(study.scale.replaced)]
            networks = dict.fromkeys(network for change in changes for network in change.networks())
            made += [Row(labels, network) for network in networks] + [Row(labels, change) for change in changes]
    return made


def numbers(answers: list[Answer]) -> list[Number]:
    """The changes after each epoch, and the online accuracy of the network trained on all examples."""
    found = []
    for answer in answers:
        evidence = answer.evidence
        if evidence.task == "replacements":
            for quantity, name in QUANTITIES.items():
                changes = enumerate(evidence.facts[name], start=1)
                found += [Number(answer, quantity, value, None, float(epoch)) for epoch, value in changes]
        elif evidence.configuration.get("replaced_example") is None:
            for record in evidence.metrics:
                found.append(
                    Number(answer, TRAINED, record["train_accuracy"], None, float(record["epoch"]), settled=True)
                )
    return found


EXPERIMENT = Experiment(
    title="Uniform stability: change of the loss at fresh points by one replaced training example",
    about=__doc__,
    models=catalogue.PAPER,
    any_model=True,
    rows=rows,
    numbers=numbers,
    ours_only=(*QUANTITIES, TRAINED),
    repeats="replacement",
    plot=Plot(
        quantities=tuple(QUANTITIES),
        series="labels",
        x_label="epoch",
        x_per_epoch=1.0,
        log_y=True,
        panels=True,
    ),
)
