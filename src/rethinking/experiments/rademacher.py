"""Rademacher complexity (Section 2.2, Equation 1): how well networks fit random signs.

Expect networks to reach a correlation of 1, or nearly 1, with any number of examples. Inception without batch
normalization does not with every draw. The bound on the gap between training and test error is then 1 or more and says
nothing. The gap on true labels is smaller, and far smaller on easy data. A linear class with bounded weights does not
reach 1, and more examples lower its correlation. Its complexity has a closed form.

A correlation is the mean over draws of signs, with its standard error. For trained networks it is a lower bound on the
supremum, so any training is allowed; Inception without batch normalization uses Adam. For functions with values +1 and
-1, the bound on the gap is the complexity + 3 sqrt(log(2 / 0.05) / 2n) with n examples. A gap exceeds it with
probability 0.05 at most (Bartlett & Mendelson 2002). The value shown uses the correlation as the complexity, so the
true bound is at least this value. At correlation 1, the largest possible, the two are equal. The measured gap belongs
to one network of the same model on all classes of the data.

The linear class is x -> <w, x> with |w| <= 1 / sqrt(d) on d pixels from 0 to 1, with values from -1 to 1. It separates
two classes only, so it has no measured gap; its bound holds for the loss (1 - y h(x)) / 2. The closed form is the
supremum for the same signs, which gradient ascent should reach. The bound on its mean is Jensen's,
sqrt(sum |x_i|^2 / d) / n. At full scale there are 150 runs of 500 epochs at most. Each stops when it fits.
"""

from typing import Any

from rethinking.experiments.experiment import Answer, Experiment, Number, Plot, Row
from rethinking.experiments.quantities import decimals, declare
from rethinking.experiments.scale import Study
from rethinking.models import catalogue
from rethinking.theory.rademacher import APART, gap_bound, on_random_signs

# A run stops when it fits. With a hundred examples, an epoch is one step.
LONG: dict[str, Any] = {"num_epochs": 500, "lr_decay": 1.0, "stop_when_fit": True}
# With so few images, gradient descent predicts one class for all for a long time, or diverges. Adam does not.
OF_MODEL: dict[str, dict[str, Any]] = {"small_inception_no_bn": {"optimizer": "adam", "learning_rate": 0.001}}
CORRELATION = declare("correlation", decimals(3), "", "(1/n) sum_i sigma_i h(x_i) that training reached")
CLOSED_FORM = declare("closed form", decimals(3), "", "supremum of the correlation for the same signs")
BOUND_ON_MEAN = declare(
    "bound on its mean", decimals(3), "", "bound on the mean over all signs, by Jensen's inequality"
)
BOUND = declare("bound on the gap, at least", decimals(2), "", "bound that follows from the correlation (Equation 1)")
GAP = declare("gap measured", decimals(2), "share", "training accuracy minus test accuracy")
RARELY = 50  # epochs between two evaluations on the test set, which has up to a hundred times the images


def rows(study: Study) -> list[Row]:
    """For each model and number of examples: one row per draw, and one on true labels, under the same heading."""
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
    """The correlation with random signs, the bound on the gap that follows, and the gap measured on true labels."""
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
