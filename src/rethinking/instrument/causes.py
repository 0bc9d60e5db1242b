"""What kept a network from fitting its labels, as far as it can be told, and what to try next."""

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
from rethinking.data.draws import subset_rows
from rethinking.data.operators import ShuffledPixels
from rethinking.errors import DivergedError
from rethinking.instrument.battery import RandomizationTest
from rethinking.instrument.rate import Rate
from rethinking.instrument.verdict import FITS, Finding, epochs_in_words, percent
from rethinking.models import signature
from rethinking.training.networks import crop_of
from rethinking.training.preparation import plain_training_set
from rethinking.training.run_dir import Record, RunDir, RunResult

FAR = 10.0  # times the rate that a range test finds, up or down
LATE = 0.2  # share of the epochs, the last ones, in which a loss that falls shows that a run is not converged
FALLS = 0.02  # share of the loss in them
SHORT = 30  # epochs, below which nothing is said of convergence
LAGS = 0.05  # training accuracy online less exact, from where on it is a cause; the weights still move within an epoch
TOLERANCE = 1e-6  # largest difference of outputs, relative to the largest, of a network that ignores its images
IMAGES_COMPARED = 64


@dataclass(frozen=True)
class Unfit:
    """A run that did not fit its labels, and what is known of the test it is of.

    words: the condition; network: its name; test: as it was asked for
    rate: of a range test on the same data; None where there was none
    """

    words: str
    run: RunResult
    data: sources.ImageData
    test: RandomizationTest
    network: str
    rate: Rate | None


def causes(unfit: Unfit) -> list[Finding]:
    """Every cause that is found, the surest first; one finding that says so where none is."""
    looked_for = (wrong_rate, contradictions, regularizers, constant, not_converged, lagging, few_parameters)
    found = [finding for look in looked_for for finding in look(unfit)]
    near = "its rate is near that of a range test, " if unfit.rate else ""
    other = "sgd" if unfit.test.config.optimizer != "sgd" else "adamw"
    return found or [
        Finding(
            f"{unfit.words}: cause",
            f"Why it does not fit {unfit.words} is not known: {near}its loss no longer falls, and no other cause that"
            " was looked for is found. Other initial weights or another optimizer are next.",
            command=unfit.test.with_options(optimizer=other, lr="auto").command,
        )
    ]


def diverged(words: str, errors: Sequence[DivergedError], test: RandomizationTest, rate: float) -> Finding:
    """Of runs of one condition whose loss was not finite."""
    seeds = len(test.seeds)
    some = f" with {len(errors)} of {seeds} seeds" if seeds > 1 else ""
    told = str(errors[0]).partition(",")[0]
    sentence = f"Training on {words} broke off at rate {rate:g}{some}: {told}."
    lower = f"{float(f'{rate / 10:.1g}'):g}" if test.lr == "auto" else "auto"
    return Finding(f"{words}: cause", sentence, rate, command=test.with_options(lr=lower).command)


def wrong_rate(unfit: Unfit) -> Iterator[Finding]:
    """A rate that was given and lies far from the one that a range test finds."""
    given = unfit.run.config.learning_rate
    assert given is not None, "a resolved configuration"
    if unfit.rate is None or unfit.test.lr == "auto":
        return
    factor = given / unfit.rate.rate
    if 1 / FAR < factor < FAR or (factor >= FAR and falls(unfit.run.metrics)):  # a larger one that trains is none
        return
    how = f"{1 / factor:.3g} times smaller" if factor < 1 else f"{factor:.3g} times larger"
    yield Finding(
        f"{unfit.words}: cause",
        f"The rate {given:g} is {how} than the {unfit.rate.rate:g} that a range test finds.",
        factor,
        FAR,
        unfit.test.with_options(lr="auto").command,
    )


def contradictions(unfit: Unfit) -> Iterator[Finding]:
    """Equal images with different labels. Accuracy is measured without augmentation, on the centre crops."""
    config = unfit.run.config
    stay_equal = not config.operator.changes_pixels or isinstance(config.operator, ShuffledPixels)
    if not stay_equal or config.pixel_noise:
        return
    labels = RunDir(unfit.run.path).labels()
    height, width = crop_of(config, unfit.data.image_shape)
    rows = subset_rows(len(unfit.data.train), config.train_subset).numpy()
    most, contradicting = ceiling(unfit.data.train.images, rows, labels.numpy(), (height, width))
    if most < FITS:
        yield Finding(
            f"{unfit.words}: cause",
            f"{contradicting:,} of {len(labels):,} training images are equal to one with another label: no function"
            f" gets more than {percent(most)} right. Without duplicates random labels do not contradict each other.",
            most,
            FITS,
        )


def ceiling(images: np.ndarray, rows: np.ndarray, labels: np.ndarray, crop: tuple[int, int]) -> tuple[float, int]:
    """The largest training accuracy of any function of the centre crops, and how many images contradict others.

    images: uint8 (n, channels, height, width), of which `rows` are used, int64 (m,); labels: int64 (m,)
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
    """Explicit regularizers, those that were asked for and those within the network."""
    config = unfit.run.config
    asked = {
        "weight_decay": f"weight decay {config.weight_decay}" if config.weight_decay else "",
        "random_crop": "random crops" if config.random_crop else "",
        "augment_flip_rotate": "flips and rotations" if config.augment_flip_rotate else "",
    }
    asked = {name: words for name, words in asked.items() if words}
    within = f"{config.network_regularizers} within the network" if config.network_regularizers else ""
    words = [*asked.values(), *([within] if within else [])]
    if not words:
        return
    off: dict[str, Any] = {"weight_decay": 0.0, "random_crop": False, "augment_flip_rotate": False}
    options = {name: off[name] for name in asked}
    if within and (off_within := without_dropout(unfit)):
        options["model_options"] = off_within
    build = f"; build {unfit.network} without that" if within and "model_options" not in options else ""
    yield Finding(
        f"{unfit.words}: cause",
        f"Explicit regularization was on: {', '.join(words)}{build}.",
        command=unfit.test.with_options(**options).command if options else "",
    )


def without_dropout(unfit: Unfit) -> str | None:
    """The options of the network with 0 for all that have 'drop' in their names and are not 0; None where none are.

    A function that takes any keyword hands them on to the class of the network.
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
    """Outputs that are the same for all images, which are not."""
    if not files.exists(unfit.run.path / "checkpoint.safetensors"):  # deleted since, and with it the network
        return
    compared = min(unfit.run.result["train_images"], IMAGES_COMPARED)
    config = replace(unfit.run.config, train_subset=compared, device="cpu")
    images, _ = next(plain_training_set(config, unfit.data).in_order(compared))
    with torch.no_grad():
        outputs = unfit.run.network()(images).float()
    if differs_least(outputs) and not differs_least(images):
        yield Finding(
            f"{unfit.words}: cause",
            f"After training the outputs of {unfit.network} are the same for each of {compared} training images: they"
            " do not depend on the image.",
        )


def differs_least(outputs: Tensor) -> bool:
    """Whether all rows are one, but for rounding."""
    return bool((outputs - outputs[0]).abs().max() <= TOLERANCE * outputs.abs().max().clamp_min(1e-30))


def lagging(unfit: Unfit) -> Iterator[Finding]:
    """Batches that are fitted in training, and images that are not in evaluation."""
    last, config = unfit.run.metrics[-1], unfit.run.config
    online, exact = last["train_accuracy"], last["exact_train_accuracy"]
    if exact is None or online - exact < LAGS:
        return
    steps = math.ceil(unfit.run.result["train_images"] / config.batch_size)
    momenta = [layer.momentum for layer in unfit.run.network().modules() if isinstance(layer, _BatchNorm)]
    moving = [momentum for momentum in momenta if momentum]
    why = "It computes something else in evaluation than in training."
    if moving:
        batches = f"{1 / max(moving):.0f}"
        why = (
            f"Batch normalization has the statistics of each batch in training, and running averages of about {batches}"
            f" batches in evaluation: an epoch has {steps:,}. The weights change faster than these follow, or the"
            " batches differ much. More epochs or a smaller rate are next."
        )
    assert config.learning_rate is not None, "a resolved configuration"
    yield Finding(
        f"{unfit.words}: cause",
        f"In its last epoch the network had {percent(online)} of the images right in training, and {percent(exact)} in"
        f" evaluation, which counts. {why}",
        online - exact,
        LAGS,
        unfit.test.with_options(lr=f"{config.learning_rate / 3:.1g}").command if moving else "",
    )


def not_converged(unfit: Unfit) -> Iterator[Finding]:
    """A loss that still falls when the run ends, or a run too short to tell."""
    epochs = len(unfit.run.metrics)
    about, longer = f"{unfit.words}: cause", unfit.test.longer(epochs).command
    if epochs < SHORT:
        yield Finding(
            about,
            f"Training was short: {epochs_in_words(epochs)}. Below {SHORT} it is not told whether a run is converged.",
            float(epochs),
            float(SHORT),
            longer,
        )
        return
    if falls(unfit.run.metrics):
        before, after = losses_late(unfit.run.metrics)
        yield Finding(
            about,
            f"Training is not converged after {epochs:,} epochs: over the last {LATE:.0%} of them the loss fell from"
            f" {before:.4g} to {after:.4g}.",
            (before - after) / before,
            FALLS,
            longer,
        )


def falls(metrics: Sequence[Record]) -> bool:
    """Whether the training loss still falls at the end."""
    if len(metrics) < 2:
        return False
    before, after = losses_late(metrics)
    return after < (1 - FALLS) * before


def losses_late(metrics: Sequence[Record]) -> tuple[float, float]:
    """Mean training losses of the two halves of the last epochs, a share `LATE` of all, two at least."""
    last = [record["train_loss"] for record in metrics[-max(2, math.ceil(LATE * len(metrics))) :]]
    middle = len(last) // 2
    return sum(last[:middle]) / middle, sum(last[middle:]) / (len(last) - middle)


def few_parameters(unfit: Unfit) -> Iterator[Finding]:
    """Fewer weights than images, and training that is over."""
    parameters, images = unfit.run.result["parameters"], unfit.run.result["train_images"]
    if parameters < images:
        yield Finding(
            f"{unfit.words}: cause",
            f"{unfit.network} has {parameters:,} trainable parameters, fewer than the {images:,} training images. A"
            " linear model cannot fit arbitrary labels then; with two layers 2n + d weights are enough for n images of"
            " d values (Theorem 1).",
            float(parameters),
            float(images),
        )
