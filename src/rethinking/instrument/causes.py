"""The causes that kept a network from fitting its labels, and the command to try next for each."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from rethinking import files
from rethinking.config import arguments, as_text
from rethinking.data import sources
from rethinking.data.operators import ShuffledPixels
from rethinking.errors import DivergedError
from rethinking.instrument.battery import RandomizationTest
from rethinking.instrument.rate import Rate
from rethinking.instrument.verdict import FITS, Finding, epochs_in_words, strict_percent
from rethinking.models import signature
from rethinking.training.networks import crop_of
from rethinking.training.preparation import plain_training_set, training_rows
from rethinking.training.run_dir import Record, RunDir, RunResult

FAR = 10.0  # a learning rate is a cause if it differs from a range test's by this factor, in either direction
LATE = 0.2  # share of the epochs, the last ones, over which the loss must no longer fall
FALLS = 0.02  # a loss falls if it decreases by this share over those epochs
SHORT = 30  # epochs; a run with fewer is too short to judge convergence
LAGS = 0.05  # online minus exact training accuracy, from which on it is a cause; within an epoch the weights move too
TOLERANCE = 1e-6  # largest difference between outputs that count as equal, relative to the largest output
IMAGES_COMPARED = 64


@dataclass(frozen=True)
class Unfit:
    """A run that did not fit its labels, and its test.

    words: the condition, such as 'random labels'
    network: its name in the sentences
    rate: the result of a range test on the same data, None where there was none
    """

    words: str
    run: RunResult
    data: sources.ImageData
    test: RandomizationTest
    network: str
    rate: Rate | None


def causes(unfit: Unfit) -> list[Finding]:
    """Returns all causes that are found, the most certain first; without any, one finding that says so.

    Raises `RunError` where the labels or the weights of the run are damaged.
    """
    known = (wrong_rate, contradictions, regularizers, constant, not_converged, lagging, few_parameters)
    found = [finding for cause in known for finding in cause(unfit)]
    near = " The learning rate is near the rate that a range test finds." if unfit.rate else ""
    other = "sgd" if unfit.test.config.optimizer != "sgd" else "adamw"
    return found or [
        Finding(
            f"{unfit.words}: cause",
            f"This test does not know why {unfit.network} does not fit {unfit.words}. The loss no longer falls.{near}"
            " No other cause that this test looks for was found. Try other initial weights or another optimizer.",
            command=unfit.test.with_options(optimizer=other, lr="auto").command,
        )
    ]


def diverged(words: str, errors: Sequence[DivergedError], test: RandomizationTest, rate: float) -> Finding:
    """Reports the runs of one condition that diverged at learning rate `rate`, an error for each."""
    seeds = len(test.seeds)
    some = f" with {len(errors)} of {seeds} seeds" if seeds > 1 else ""
    reason = str(errors[0]).partition(",")[0]
    sentence = f"Training on {words} diverged at learning rate {rate:g}{some}: {reason}."
    lower = f"{float(f'{rate / 10:.1g}'):g}" if test.lr == "auto" else "auto"
    return Finding(f"{words}: cause", sentence, rate, command=test.with_options(lr=lower).command)


def wrong_rate(unfit: Unfit) -> Iterator[Finding]:
    """Finds a given learning rate that is far from the one that a range test finds.

    A larger rate that still reduces the loss is no cause.
    """
    given = unfit.run.config.learning_rate
    assert given is not None, "a resolved configuration"
    if unfit.rate is None or unfit.test.lr == "auto":
        return
    factor = given / unfit.rate.rate
    if 1 / FAR < factor < FAR or (factor >= FAR and falls(unfit.run.metrics)):
        return
    how = f"{1 / factor:.3g} times smaller" if factor < 1 else f"{factor:.3g} times larger"
    yield Finding(
        f"{unfit.words}: cause",
        f"The learning rate {given:g} is {how} than {unfit.rate.rate:g}, the rate that a range test finds.",
        factor,
        FAR,
        unfit.test.with_options(lr="auto").command,
    )


def contradictions(unfit: Unfit) -> Iterator[Finding]:
    """Finds equal images with different labels, among the centre crops on which accuracy is measured."""
    config = unfit.run.config
    stay_equal = not config.operator.changes_pixels or isinstance(config.operator, ShuffledPixels)
    if not stay_equal or config.pixel_noise:
        return
    labels = RunDir(unfit.run.path).labels()
    height, width = crop_of(config, unfit.data.image_shape)
    rows = training_rows(config, len(unfit.data.train)).numpy()
    most, contradicting = ceiling(unfit.data.train.images, rows, labels.numpy(), (height, width))
    if most < FITS:
        yield Finding(
            f"{unfit.words}: cause",
            f"{contradicting:,} of {len(labels):,} training images are equal to an image with another label. So no"
            f" function classifies more than {strict_percent(most)} correctly. Without duplicate images, random labels"
            " do not contradict each other.",
            most,
            FITS,
        )


def ceiling(images: np.ndarray, rows: np.ndarray, labels: np.ndarray, crop: tuple[int, int]) -> tuple[float, int]:
    """Returns the largest training accuracy of any function of the centre crops, and how many images contradict others.

    images: uint8 (n, channels, height, width)
    rows: the images that are used, int64 (m,)
    labels: the labels of these images, int64 (m,)
    crop: height and width of the centre crop in pixels
    """
    top, left = (images.shape[2] - crop[0]) // 2, (images.shape[3] - crop[1]) // 2
    groups: dict[bytes, list[int]] = {}
    for row, label in zip(rows, labels, strict=True):
        cropped = images[row, :, top : top + crop[0], left : left + crop[1]]
        groups.setdefault(hashlib.sha256(cropped.tobytes()).digest(), []).append(int(label))
    right = sum(int(np.bincount(group).max()) for group in groups.values())
    contradicting = sum(len(group) for group in groups.values() if len(set(group)) > 1)
    return right / len(labels), contradicting


def regularizers(unfit: Unfit) -> Iterator[Finding]:
    """Finds explicit regularizers (Section 3): options of the run, and layers of the network such as dropout."""
    config = unfit.run.config
    in_words = {
        "weight_decay": f"weight decay {config.weight_decay}" if config.weight_decay else "",
        "random_crop": "random crops" if config.random_crop else "",
        "augment_flip_rotate": "flips and rotations" if config.augment_flip_rotate else "",
    }
    chosen = {name: words for name, words in in_words.items() if words}
    within = f"{config.network_regularizers} within the network" if config.network_regularizers else ""
    words = [*chosen.values(), *([within] if within else [])]
    if not words:
        return
    off: dict[str, Any] = {"weight_decay": 0.0, "random_crop": False, "augment_flip_rotate": False}
    options = {name: off[name] for name in chosen}
    if within and (off_within := without_dropout(unfit)):
        options["model_options"] = off_within
    build = f" Build {unfit.network} without this regularization." if within and "model_options" not in options else ""
    yield Finding(
        f"{unfit.words}: cause",
        f"Explicit regularization was on: {', '.join(words)}.{build}",
        command=unfit.test.with_options(**options).command if options else "",
    )


def without_dropout(unfit: Unfit) -> str | None:
    """Returns the network's options as text, with 0 for each that has 'drop' in its name; None where all are 0 already.

    A function that takes any keyword passes its keywords on to the class of the network.
    """
    config = unfit.run.config
    function, given = config.network.loaded, arguments(config.model_options)
    parameters = signature.parameters_of(function)
    if signature.takes_any_keyword(parameters):
        parameters = {**signature.parameters_of_class(type(unfit.run.network())), **parameters}
    values = {name: given.get(name, parameter.default) for name, parameter in parameters.items()}
    dropped = {
        name: 0.0 for name, value in values.items() if "drop" in name.lower() and type(value) in (int, float) and value
    }
    return as_text(given | dropped) if dropped else None


def constant(unfit: Unfit) -> Iterator[Finding]:
    """Finds a network whose outputs are the same for different images; without a checkpoint it finds nothing."""
    if not files.exists(unfit.run.path / "checkpoint.safetensors"):  # a user may delete it
        return
    compared = min(unfit.run.result["train_images"], IMAGES_COMPARED)
    config = replace(unfit.run.config, train_subset=compared, device="cpu")
    images, _ = next(plain_training_set(config, unfit.data).in_order(compared))
    with torch.no_grad():
        outputs = unfit.run.network()(images).float()
    if are_equal(outputs) and not are_equal(images):
        yield Finding(
            f"{unfit.words}: cause",
            f"After training, the outputs of {unfit.network} are the same for all of {compared} training images: the"
            " outputs do not depend on the image.",
        )


def are_equal(values: Tensor) -> bool:
    """Says whether all rows of `values`, float32 (n, ...), are equal up to `TOLERANCE`."""
    return bool((values - values[0]).abs().max() <= TOLERANCE * values.abs().max().clamp_min(1e-30))


def lagging(unfit: Unfit) -> Iterator[Finding]:
    """Finds a network that fits in training mode but not in evaluation mode, as batch normalization can cause."""
    last, config = unfit.run.metrics[-1], unfit.run.config
    online, exact = last["train_accuracy"], last["exact_train_accuracy"]
    if exact is None or online - exact < LAGS:
        return
    steps = math.ceil(unfit.run.result["train_images"] / config.batch_size)
    momenta = [layer.momentum for layer in unfit.run.network().modules() if isinstance(layer, _BatchNorm)]
    moving = [momentum for momentum in momenta if momentum]
    why = "The network computes something else in evaluation mode than in training mode."
    if moving:
        why = (
            "Batch normalization uses the statistics of each batch in training mode. In evaluation mode, batch"
            f" normalization uses running averages over about {1 / max(moving):,.0f} batches, and an epoch has"
            f" {steps:,}. The weights change faster than these averages, or the batches differ much. Try more epochs or"
            " a smaller learning rate."
        )
    assert config.learning_rate is not None, "a resolved configuration"
    yield Finding(
        f"{unfit.words}: cause",
        f"In the last epoch, the training accuracy was {strict_percent(online)} in training mode and"
        f" {strict_percent(exact)} in evaluation mode. The second number counts. {why}",
        online - exact,
        LAGS,
        unfit.test.with_options(lr=f"{config.learning_rate / 3:.1g}").command if moving else "",
    )


def not_converged(unfit: Unfit) -> Iterator[Finding]:
    """Finds a loss that still falls when the run ends, or a run that is too short to judge."""
    epochs, about = len(unfit.run.metrics), f"{unfit.words}: cause"
    longer = unfit.test.longer(epochs)
    more = "A larger budget continues this run."
    if longer.epochs != unfit.test.epochs:
        more = "A run with more epochs is a new run and starts from the first epoch."
    if epochs < SHORT:
        yield Finding(
            about,
            f"Training was short: {epochs_in_words(epochs)}. With fewer than {SHORT} epochs, this test does not judge"
            f" whether a run has converged. {more}",
            float(epochs),
            float(SHORT),
            longer.command,
        )
    elif falls(unfit.run.metrics):
        before, after = losses_late(unfit.run.metrics)
        yield Finding(
            about,
            f"Training has not converged after {epochs:,} epochs: over the last {LATE:.0%} of them, the loss fell from"
            f" {before:.4g} to {after:.4g}. {more}",
            (before - after) / before,
            FALLS,
            longer.command,
        )


def falls(metrics: Sequence[Record]) -> bool:
    """Says whether the training loss still falls at the end of a run, by a share of `FALLS` (see `losses_late`)."""
    if len(metrics) < 2:
        return False
    before, after = losses_late(metrics)
    return after < (1 - FALLS) * before


def losses_late(metrics: Sequence[Record]) -> tuple[float, float]:
    """Returns the mean training loss of each half of the last epochs, in nats.

    The last epochs are a share `LATE` of all, at least two.
    """
    last = [record["train_loss"] for record in metrics[-max(2, math.ceil(LATE * len(metrics))) :]]
    middle = len(last) // 2
    return sum(last[:middle]) / middle, sum(last[middle:]) / (len(last) - middle)


def few_parameters(unfit: Unfit) -> Iterator[Finding]:
    """Finds a network with fewer trainable parameters than there are training images (Theorem 1)."""
    parameters, images = unfit.run.result["parameters"], unfit.run.result["train_images"]
    if parameters < images:
        yield Finding(
            f"{unfit.words}: cause",
            f"{unfit.network} has {parameters:,} trainable parameters, fewer than the {images:,} training images. A"
            " linear model of this size cannot fit arbitrary labels. A network of two layers with 2n + d weights can"
            " fit any labels of n images with d values (Theorem 1).",
            float(parameters),
            float(images),
        )
