"""Which labels of a data set are wrong? Trains networks that each leave one part out, and scores every image.

Each image has scores from the networks that were trained on it, and a prediction from a network that was not.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

from rethinking.config import ExperimentConfig, field_by_name
from rethinking.data import sources
from rethinking.data.readers.contents import ReadOptions
from rethinking.engines.many import train_many
from rethinking.errors import InputError, nearest
from rethinking.measures.examples import ScoredExamples, score_examples
from rethinking.measures.searching import BASE, DECIDED, Searching
from rethinking.notebook import shown
from rethinking.steps import Steps, unwatched
from rethinking.training.preparation import Observe, accepting


def configurations(config: ExperimentConfig, searching: Searching, images: int) -> list[ExperimentConfig]:
    """Returns the run of each part, which keeps its examples and leaves the part out.

    images: number of training images in the data set

    Raises `InputError` for more parts than images.
    """
    used = config.train_subset or images
    if searching.folds > used:
        raise InputError(f"folds must be at most {used}, the number of training images, not {searching.folds}")
    epochs = searching.epochs(config, images)
    alike = replace(config, record_examples=True, num_epochs=epochs, eval_test_every=epochs)
    return [replace(alike, left_out=f"{part}/{searching.folds}") for part in range(1, searching.folds + 1)]


def search(
    configs: Sequence[ExperimentConfig],
    observe: Observe = tuple,
    begin: Steps = unwatched,
    ended: Callable[[ExperimentConfig], None] = lambda config: None,
) -> ScoredExamples:
    """Trains the runs of all parts, or finds them finished, and scores their examples.

    observe, begin: show progress
    ended: is called with each configuration once its run is finished

    Raises the errors of `train` and of `score_examples`.
    """
    folders = []
    runs: Iterator[Any] = train_many(configs, at_once=None, observe=observe, progress=False)
    with closing(runs):  # type: ignore[type-var]
        for config, outcome in runs:
            if isinstance(outcome, Exception):
                raise outcome
            folders.append(outcome.path)
            ended(config)
    return score_examples(folders, "online", begin)


def find_label_errors(
    images: Any,
    *,
    model: str = BASE.model_name,
    folds: int = 5,
    num_epochs: int | None = None,
    name: str = "images",
    progress: bool | None = None,
    **options: Any,
) -> ScoredExamples:
    """Scores every image of a data set by how wrong its label looks.

    images: what `--dataset` takes, or images in Python that `data.sources.adopt` takes
    model: the network, a name or `FILE.py:FUNCTION` as for `--model`
    folds: number of networks. Each is trained without another part of the images
    num_epochs: epochs of each network; by default ten, or more on few images
    name: the name of images that are given in Python
    progress: shows the progress of the runs; by default in a notebook only
    options: options of a run, such as seed, device, runs_dir

    Returns the scored examples. `suspects('area_under_margin')` has the most suspicious images first, and
    `probabilities` the out-of-sample probabilities of all classes.

    Finished runs are found again, and unfinished runs continue. Raises `InputError` for options, network and images
    that do not fit together, and the other errors of `train`.
    """
    known = {flag: field for flag, field in field_by_name().items() if field not in (*DECIDED, "dataset")}
    for given in options:
        if given not in known:
            raise InputError(f"unknown option '{given}'{nearest(given, (*known, 'num_epochs', 'folds'))}")
    config = replace(BASE, model_name=model, **{known[given]: value for given, value in options.items()})
    searching = Searching(folds=folds, num_epochs=num_epochs)
    if isinstance(images, os.PathLike):
        images = os.fspath(images)
    if not isinstance(images, str):
        reading = ReadOptions(**{spec: getattr(config, spec) for spec in ("resize", "colour")})
        images = sources.adopt(images, None, name, reading)
        config = replace(config, resize=None, colour=None)
    with shown(progress) as display:
        config = replace(config, dataset=images)
        configs = configurations(config, searching, len(sources.load_for(config, accepting(config)).train))
        return search(configs, display.observers, display.steps("label errors"))
