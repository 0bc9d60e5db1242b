"""Table 3: the options of random convolutional features, compared on held-out training images.

The paper names Coates & Ng 2012 and 32,000 random filters, and not the rest. Each row changes the options that it names
and leaves all others at Coates & Ng's. The l2 term is chosen for each row. Expect the largest step from mirror images,
and a smaller one from more pools. A row takes a few minutes on two cores. Only the small scale has these rows:
10,000 images, of which the last fifth is held out.
"""

from rethinking.experiments.experiment import Answer, Experiment, Number, Row
from rethinking.experiments.quantities import TEST_ERROR, declare, percent
from rethinking.experiments.scale import SCALES, Study

FILTERS = 1000
HELD_OUT_ERROR = declare("held-out error", percent, "share", "the last fifth of the first 10,000 training images")
OPTIONS = (
    None,
    "patch_size=5",
    "patch_size=7",
    "contrast=1.0",
    "contrast=100.0",
    "whitening=0.01",
    "whitening=1.0",
    "threshold=0.1",
    "threshold=0.5",
    "pool_size=9, pool_stride=9",
    "pool_size=15, pool_stride=6",
    "mirror=True",
    "mirror=True, pool_size=9, pool_stride=9",
    "mirror=True, pool_size=15, pool_stride=6",
    "mirror=True, pool_size=15, pool_stride=6, threshold=0.5",
)


def rows(study: Study) -> list[Row]:
    """For coloured images at small scale: each choice of options. The same images choose the l2 term."""
    return [
        Row(
            (("data", source.name), ("options", options or "Coates & Ng's")),
            study.machine(source, features="random_conv", filters=FILTERS, filter_options=options, l2="search"),
        )
        for source in study.images
        if "cifar10" in source.stands_for and study.scale is SCALES["small"]
        for options in OPTIONS
    ]


def numbers(answers: list[Answer]) -> list[Number]:
    """The held-out error of the chosen l2 term, and the test error."""
    found = []
    for answer in answers:
        facts = answer.evidence.facts
        found += [
            Number(answer, HELD_OUT_ERROR, min(facts["ridges_tried"].values()), None),
            Number(answer, TEST_ERROR, facts["test_error"], None),
        ]
    return found


EXPERIMENT = Experiment(
    title="Table 3: options of random convolutional features",
    about=__doc__,
    models=(),
    rows=rows,
    numbers=numbers,
    ours_only=(HELD_OUT_ERROR, TEST_ERROR),
)
