"""Rademacher complexity (Section 2.2, Equation 1): how well networks fit random signs of so many examples.

Expect networks to reach a correlation of 1, or nearly, on every number of examples, the Inception without batch
normalization not with every draw, so that the bound on the gap of training and test error is 1 or more and says
nothing, while the gap on true labels is smaller, on easy data far smaller. A linear class with bounded weights, whose
complexity is known in closed form, does not, and less the more examples there are.

A correlation is the mean over draws of signs, with its standard error; that of networks, which are trained, is a
lower bound on the supremum; so they may train as they fit best, and the Inception without batch normalization does
with Adam. The bound on the gap, of the error of functions to +1 and -1, is the complexity + 3 sqrt(log(2 / 0.05) / 2n)
with n examples, which a gap exceeds with a probability of 0.05 at most (Bartlett & Mendelson 2002). What is shown has
the correlation for the complexity, so the bound is at least that, and no more where the correlation is 1, which nothing
exceeds. The gap measured beside it is that of one network of the kind on all of the data's classes; of the linear
class, which tells two classes apart, there is none, and its bound is that of the loss (1 - y h(x)) / 2. The linear
class is of x -> <w, x> with |w| <= 1 / sqrt(d), of d pixels from 0 to 1, so that its values are from -1 to 1; the
closed form is the supremum for the same signs, which gradient ascent is to reach, and the bound on its mean that of
Jensen, sqrt(sum |x_i|^2 / d) / n. At full scale 150 runs of 500 epochs at most, each until it fits.
"""

from typing import Any

from rethinking.experiments.experiment import Answer, Experiment, Number, Plot, Row
from rethinking.experiments.quantities import decimals, declare
from rethinking.experiments.scale import Study
from rethinking.models import catalogue
from rethinking.theory.rademacher import APART, gap_bound, on_random_signs

# Until it fits: a hundred examples are one step an epoch.
LONG: dict[str, Any] = {"num_epochs": 500, "lr_decay": 1.0, "stop_when_fit": True}
# On so few images gradient descent stays at one class for all for long, where its loss stays finite; Adam leaves it.
OF_MODEL: dict[str, dict[str, Any]] = {"small_inception_no_bn": {"optimizer": "adam", "learning_rate": 0.001}}
CORRELATION = declare("correlation", decimals(3), "", "(1/n) sum_i sigma_i h(x_i) reached")
CLOSED_FORM = declare("closed form", decimals(3), "", "the supremum for the same signs")
BOUND_ON_MEAN = declare("bound on its mean", decimals(3), "", "over signs, by Jensen")
BOUND = declare("bound on the gap, at least", decimals(2), "", "from the correlation")
GAP = declare("gap measured", decimals(2), "share", "training less test accuracy")
RARELY = 50  # epochs from one look at the test set to the next: it has up to a hundred times the images


def rows(study: Study) -> list[Row]:
    """For each model and number of examples a row a draw, all under one heading, and one on true labels."""
    made = []
    for model in study.models:
        for examples in study.scale.examples:
            labels = (("model", model), ("examples", f"{examples}"))
            options = LONG | OF_MODEL.get(model, {})
            config = study.config(model, train_subset=examples, eval_test_every=RARELY, **options)
            draws = (on_random_signs(config, draw) for draw in range(study.scale.draws))
            made += [Row(labels, drawn) for drawn in draws] + [Row(labels, config)]
    for examples in study.scale.examples:
        labels = (("model", "linear class"), ("examples", f"{examples}"))
        made += [Row(labels, study.linear_class(examples, APART * draw)) for draw in range(study.scale.draws)]
    return made


def numbers(answers: list[Answer]) -> list[Number]:
    """Of random signs the correlation and what it bounds the gap by, beside the gap measured on true labels."""
    found = []
    for answer in answers:
        evidence, examples = answer.evidence, int(dict(answer.row.labels)["examples"])
        if evidence.task == "linear_classes":
            reached, exact = evidence.facts["correlation"], evidence.facts["supremum"]
            found += _of_signs(answer, reached, examples)
            found.append(Number(answer, CLOSED_FORM, exact, None, float(examples)))
            found.append(Number(answer, BOUND_ON_MEAN, evidence.facts["bound"], None, float(examples)))
            continue
        last = evidence.metrics[-1]
        accuracy = last["exact_train_accuracy"]
        if evidence.configuration["randomization"] == "random_signs":
            found += _of_signs(answer, None if accuracy is None else 2 * accuracy - 1, examples)
        else:
            tested = last["test_accuracy"]
            gap = None if accuracy is None or tested is None else accuracy - tested
            found.append(Number(answer, GAP, gap, None, float(examples)))
    return found


def _of_signs(answer: Answer, correlation: float | None, examples: int) -> list[Number]:
    bound = None if correlation is None else gap_bound(correlation, examples)
    return [
        Number(answer, CORRELATION, correlation, None, float(examples)),
        Number(answer, BOUND, bound, None, float(examples)),
    ]


QUANTITIES = (CORRELATION, CLOSED_FORM, BOUND, GAP, BOUND_ON_MEAN)
EXPERIMENT = Experiment(
    title="Rademacher complexity: correlation with random signs",
    about=__doc__,
    models=catalogue.PAPER,
    any_model=True,
    rows=rows,
    numbers=numbers,
    ours_only=QUANTITIES,
    repeats="draw",
    standard_error=True,
    plot=Plot(
        quantities=(CORRELATION, BOUND, GAP),
        series="model",
        x_label="training examples",
        points=True,
        log_x=True,
        panels=True,
        share_y=True,
    ),
)
