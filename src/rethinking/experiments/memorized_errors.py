"""Memorization of single examples: how sure it is, against the number of runs. Beyond the paper.

Expect it to fall about with the square root of the number of runs. It is the mean over the examples.
"""

from rethinking.experiments import memorized
from rethinking.experiments.experiment import Answer, Experiment, Number, Plot
from rethinking.experiments.quantities import declare, percent

OF_EXAMPLE = declare(
    "standard error of an example", percent, "share", "of the memorization of one example, mean over all examples"
)


def numbers(answers: list[Answer]) -> list[Number]:
    """The standard error of the first 4, 8, 16, ... runs and of all."""
    return [
        Number(answer, OF_EXAMPLE, error, None, float(runs))
        for answer in answers
        for runs, error in sorted(answer.evidence.facts["standard_errors"].items(), key=lambda pair: int(pair[0]))
    ]


EXPERIMENT = Experiment(
    title="Memorization of single examples: its standard error",
    about=__doc__,
    models=memorized.MODELS,
    any_model=True,
    by_name_only=True,
    rows=memorized.rows,
    numbers=numbers,
    ours_only=(OF_EXAMPLE,),
    plot=Plot(
        quantities=(OF_EXAMPLE,),
        series="label_corruption",
        x_label="runs",
        points=True,
        panels=True,
        log_x=True,
        log_y=True,
        tabled=True,
    ),
)
