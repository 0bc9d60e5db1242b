"""Runs a randomization test, from its options to its report."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from torch import nn

from rethinking.config import ExperimentConfig
from rethinking.data import sources
from rethinking.data.readers.contents import ReadOptions
from rethinking.engines.timing import seconds_per_epoch
from rethinking.errors import DivergedError, InputError, RefusedImagesError, RunError
from rethinking.instrument.battery import BASE, HELD_OUT, MOST_EPOCHS, RandomizationTest, asked_for
from rethinking.instrument.budget import found_of, to_train, train_within
from rethinking.instrument.rate import RATES, STEPS, Rate, find_rate
from rethinking.instrument.report import Report
from rethinking.instrument.verdict import FITS, epochs_in_words, train_accuracy
from rethinking.models import catalogue
from rethinking.notebook import shown
from rethinking.progress import Watched, duration
from rethinking.steps import Steps, unwatched
from rethinking.training.loggers import Observer
from rethinking.training.preparation import Observe, accepting, resolve
from rethinking.training.run_dir import RunResult

__all__ = ["randomization_test"]

ALIKE: dict[str, Any] = {"resize": 64, "colour": "rgb"}  # for images of several sizes (pixels a side) or modes
READ_ONCE = ("resize", "colour", "image_column", "label_column", "skip_unlabelled")  # options that read images

T = TypeVar("T")


def randomization_test(
    network: str | Callable[..., nn.Module] | nn.Module,
    images: Any = "cifar10",
    test_images: Any = None,
    *,
    labels: Sequence[str | float] = ("true", "random"),
    pixels: Sequence[str] = (),
    name: str = "images",
    progress: bool | None = None,
    **options: Any,
) -> Report:
    """Trains a network on true and on random labels, and reports what the runs show (Section 2 of the paper).

    network: a name as for `--model`, a function that builds the network, or an `nn.Module` with the initial weights
    images: what `--dataset` takes, or images in Python that `data.sources.adopt` takes
    test_images: the test set in the same form, None without one
    labels: each 'true', 'random', a probability that a label is random, or your own operator
    pixels: each 'shuffled', 'random', 'gaussian', or your own operator
    name: the name of images that are given in Python
    progress: shows the progress of the runs; by default in a notebook only
    options: options of `rethinking test`, such as epochs, budget, lr, seeds, optimizer, batch_size, runs_dir. The
        documentation lists them in docs/testing.md, and the options of each run in docs/training.md

    An operator is given as text, 'FILE.py:CLASS' or 'package.module:CLASS', and not as a class.

    Finished runs are found again, and unfinished runs continue. Raises `InputError` for options, network and images
    that do not fit together, and the other errors of `train`. A loss that is not finite is no error: the report says
    so.
    """
    if "dataset" in options:
        raise InputError("leave dataset out: the second argument, images, takes a name or path too")
    path = network if isinstance(network, str) else catalogue.adopt(network)
    options |= {"labels": labels, "pixels": pixels}
    with shown(progress) as display:
        if isinstance(images, str) and test_images is None:
            prepared = prepare(asked_for(path, {**options, "dataset": images}), display.steps(path))
        else:
            test, read_as = of_images(asked_for(path, options), images, test_images, name)
            prepared = prepare(test, display.steps(path))
            prepared = replace(prepared, choices=(*read_as, *prepared.choices))
        for line in (*prepared.choices, *estimate(prepared)):
            display.say(line)
        return carry_out(prepared, display.observers, display.steps(path))


def of_images(test: RandomizationTest, images: Any, test_images: Any, name: str) -> tuple[RandomizationTest, list[str]]:
    """Returns the test on images that are given in Python, and what was chosen to read them, at most one sentence.

    Raises `InputError` where the images cannot be read.
    """

    def read(config: ExperimentConfig) -> str:
        options = ReadOptions(**{name: getattr(config, name) for name in READ_ONCE})
        return sources.adopt(images, test_images, name, options)

    dataset, config = made_alike(test.config, read)
    values = {option: getattr(test.config, option) for option in READ_ONCE}
    arguments = ["images"] if test_images is None else ["images", "test_images"]
    arguments += [f"name={name!r}"] if name != "images" else []
    arguments += [f"{option}={value!r}" for option, value in values.items() if value != getattr(BASE, option)]
    read_already = {option: getattr(BASE, option) for option in READ_ONCE}
    adopted = test.with_options(dataset=dataset, **read_already, in_python=", ".join(arguments))
    return adopted, made_alike_in_words(test.config, config)


def made_alike_in_words(given: ExperimentConfig, config: ExperimentConfig) -> list[str]:
    """Says in a sentence what `made_alike` chose; empty where it chose nothing."""
    chosen = [f"--{name} {getattr(config, name)}" for name in ALIKE if getattr(config, name) != getattr(given, name)]
    return [f"The images are read with {' '.join(chosen)}."] if chosen else []


@dataclass(frozen=True)
class Prepared:
    """A test with its data and its learning rate.

    config: the options that all runs share
    rate: the result of a range test, None where the rate is given or the paper's
    choices: what was chosen and why, in sentences
    """

    test: RandomizationTest
    data: sources.ImageData
    config: ExperimentConfig
    rate: Rate | None
    choices: tuple[str, ...]


def made_alike(config: ExperimentConfig, read: Callable[[ExperimentConfig], T]) -> tuple[T, ExperimentConfig]:
    """Reads images by `read`, and returns the result and the configuration that reads them.

    Images of several sizes or modes are scaled and converted to one (`ALIKE`), unless the configuration chooses how.
    Raises what `read` raises.
    """
    while True:
        try:
            return read(config), config
        except RefusedImagesError as error:
            chosen = {name: ALIKE[name] for name in error.mended_by}
            if not chosen or any(getattr(config, name) is not None for name in chosen):
                raise
            config = replace(config, **chosen)


def load(test: RandomizationTest, begin: Steps = unwatched) -> tuple[sources.ImageData, ExperimentConfig]:
    """Returns the data and the configuration that reads it.

    Data without a test set gets one: a share `HELD_OUT` of each class, if there are enough images. Raises what
    `sources.load` raises.
    """

    def read(config: ExperimentConfig) -> sources.ImageData:
        return sources.load_for(config, accepting(config), begin)

    data, config = made_alike(test.config, read)
    if data.test is None and test.holdout is None:
        with contextlib.suppress(InputError):  # too few images; they go without a test set
            data, config = made_alike(replace(config, holdout=HELD_OUT), read)
    return data, config


def prepare(test: RandomizationTest, begin: Steps = unwatched) -> Prepared:
    """Reads the data and chooses the learning rate.

    Raises `InputError` where network and data do not fit together.
    """
    _ = test.config.network  # reports a wrong name before any data is read
    data, config = load(test, begin)
    for condition in test.conditions:
        resolved = resolve(replace(config, **condition.options), data)
    rate = None
    if config.learning_rate is None and (config.network.is_own or config.optimizer != "sgd"):
        rate = find_rate(config, begin)
        config = replace(config, learning_rate=rate.rate)
    test_images, train_images = len(data.test) if data.test else 0, config.train_subset or len(data.train)
    if test.eval_test_every is None and test_images > train_images:  # otherwise evaluation takes most of the time
        config = replace(config, eval_test_every=math.ceil(test_images / train_images))
    config = replace(config, learning_rate=config.learning_rate or resolved.learning_rate)
    resolved = replace(resolved, learning_rate=config.learning_rate, eval_test_every=config.eval_test_every)
    return Prepared(test, data, config, rate, tuple(choices(test, resolved, train_images, rate)))


def choices(test: RandomizationTest, config: ExperimentConfig, images: int, rate: Rate | None) -> list[str]:
    """Says what was chosen and why, in sentences.

    config: a resolved configuration
    images: number of training images
    rate: the result of a range test, None without one
    """
    sentences = made_alike_in_words(test.config, config)
    if config.holdout and test.holdout is None:
        sentences.append(f"A share of {HELD_OUT} of each class is held out as the test set (--holdout).")
    momentum = f" with momentum {config.momentum:g}" if config.optimizer == "sgd" else ""
    at_most = "at most " if images < config.batch_size else ""
    sentences.append(f"The optimizer is {config.optimizer}{momentum}. A batch has {at_most}{config.batch_size} images.")
    why = "as given"
    if rate is not None:
        why = f"one step below {rate.lowest_at:g}, the best rate of a range test"
        if rate.rate == rate.lowest_at:
            why = "the best rate of a range test, and the smallest that was tried"
    elif test.rate is None:
        why = f"the paper's rate for {config.model_name}"
    schedule = "" if config.lr_schedule == "constant" else f" with the {config.lr_schedule} schedule"
    sentences.append(f"The learning rate is {config.learning_rate:g}{schedule}: {why}.")
    when = "" if test.epochs else " when it fits all training images, or"
    sentences.append(f"Each run ends{when} after {epochs_in_words(test.epochs or MOST_EPOCHS)}.")
    if test.budget != "none":
        sentences.append(f"All runs together train for at most {test.budget}.")
    if config.eval_train_every != 1:
        every = config.eval_train_every
        when = f"every {every} epochs" if every else "from an online accuracy of 99% on"
        sentences.append(
            f"The exact training accuracy is measured {when} and in the last epoch, so the first epoch that fits may be"
            " found late."
        )
    if config.eval_test_every > 1:
        sentences.append(f"The test accuracy is measured every {config.eval_test_every} epochs and in the last epoch.")
    on = [f"weight decay {config.weight_decay}"] if config.weight_decay else []
    on += ["random crops"] if config.random_crop else []
    on += ["flips and rotations"] if config.augment_flip_rotate else []
    on += [f"{config.network_regularizers} within the network"] if config.network_regularizers else []
    sentences.append(f"Explicit regularization: {', '.join(on) or 'none'}.")
    return sentences


def estimate(prepared: Prepared) -> list[str]:
    """Says in one line how long the remaining training should take here; empty where nothing remains."""
    found = found_of(list(prepared.test.configs(prepared.config).values()))
    left, budget = to_train(found, prepared.test.seconds)
    if not left:
        return []
    config = resolve(prepared.config, prepared.data)
    runs = f"To train: {len(left)} of {len(found)} runs"
    try:
        epoch = seconds_per_epoch(config, config.train_subset or len(prepared.data.train), 1, {})
    except DivergedError:  # the report will say so
        return [f"{runs}, at most {duration(budget)}." if budget < math.inf else f"{runs}."]
    done = sum(len(run.metrics) for one in left if isinstance(run := found[one], RunResult))
    most = min((len(left) * config.num_epochs - done) * epoch, budget)
    return [f"{runs}, about {epoch:.2g} s an epoch, at most {duration(most)} in all."]


def carry_out(prepared: Prepared, observe: Observe = tuple, begin: Steps = unwatched) -> Report:
    """Trains the remaining runs within the budget, and returns the report.

    Raises `RunError` where a run fails, except for a loss that is not finite: the report says so.
    """
    configs = prepared.test.configs(prepared.config)
    wanted = list(dict.fromkeys(configs.values()))
    outcomes = train_within(wanted, prepared.test.seconds, lambda: _knowing(observe(), prepared.test.seconds))
    found: dict[tuple[str, int], RunResult | DivergedError] = {}
    for key, config in configs.items():
        outcome = outcomes[config]
        if isinstance(outcome, RunError) and not isinstance(outcome, DivergedError):
            raise outcome
        found[key] = outcome
    rate = prepared.rate or rate_to_compare(prepared, list(found.values()), begin)
    return Report(prepared.test, prepared.config, prepared.data, found, rate, prepared.choices)


def _knowing(observers: Sequence[Observer], seconds: float) -> Sequence[Observer]:
    """Returns observers of a run, of which those that show the time left know that training has at most `seconds`."""
    for observer in observers:
        if isinstance(observer, Watched):
            observer.seconds = seconds
    return observers


def rate_to_compare(
    prepared: Prepared, outcomes: Sequence[RunResult | DivergedError], begin: Steps = unwatched
) -> Rate | None:
    """Returns a range test's result to compare a given learning rate with, if a run did not fit its labels.

    None where all runs fit, where the range test would take longer than the budget, and where no loss is finite.
    """
    runs = [outcome for outcome in outcomes if isinstance(outcome, RunResult)]
    if prepared.test.lr == "auto" or all(train_accuracy(run.final) >= FITS for run in runs):
        return None
    fastest = max((record["images_per_second"] or 0.0 for run in runs for record in run.metrics), default=0.0)
    longest = len(RATES) * STEPS * prepared.config.batch_size / fastest if fastest else 0.0  # seconds
    if longest > prepared.test.seconds:
        return None
    try:
        return find_rate(prepared.config, begin)
    except DivergedError:
        return None
