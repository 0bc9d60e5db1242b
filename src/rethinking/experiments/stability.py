"""Uniform stability (Section 2.2): what replacing one training example changes of the loss at fresh points.

Expect one example to change much the same with true and with random labels once both are fitted and the gap is large
on both, as on some thousand images of CIFAR-10: on average in nats about two to three times as much with random ones,
whose losses are larger, and in the probability of the right class, which is bounded, about as much. While a network
does not fit random labels yet, as small AlexNet in its first epochs, it changes less with them. On the digits, nearly
solved, it changes far less with true labels. The paper's point is that uniform stability, a worst case over all
training sets and so over all labels, is one number for both; what is measured here, of particular sets, is a lower
bound on it.

A network is trained on all examples, and again with each of several replaced by a test image, with the same seed and
order; mean and standard deviation are over these. Fresh points are the test images with their true labels, whatever
labels were trained on. The largest change is that of one point of the test set. At full scale 60 runs of 70 epochs.
"""

from typing import Any

from rethinking.experiments.experiment import Answer, Experiment, Number, Plot, Row
from rethinking.experiments.quantities import declare, percent, significant
from rethinking.experiments.scale import Study
from rethinking.models import catalogue
from rethinking.theory.stability import Change, StabilityConfig

QUANTITIES = {  # by the name of each in `theory.stability.Change`
    declare("mean change of loss, nats", significant(2), "nats", "over the test set"): "mean",
    declare("largest change of loss, nats", significant(2), "nats", "over the test set"): "largest",
    declare("mean change of probability", significant(2), "", "of the right class"): "mean_of_probability",
    declare("largest change of probability", significant(2), "", "of the right class"): "largest_of_probability",
}
assert tuple(QUANTITIES.values()) == Change._fields
TRAINED = declare("online train accuracy", percent, "share", "within an epoch")  # in the table alone
EPOCHS: dict[str, Any] = {"num_epochs": 70, "stop_when_fit": False}  # the same for all that are compared


def rows(study: Study) -> list[Row]:
    """For each model and kind of labels the networks, and what each replacement changes, all under one heading."""
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
    """An epoch a point: what was measured, and how far the network of all examples has come by then."""
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
