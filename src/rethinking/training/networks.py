"""Builds the network of a resolved configuration: its input shape, its initial weights, and notes about it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import nn

from rethinking.config import ExperimentConfig, as_text
from rethinking.config import arguments as arguments_in
from rethinking.data import sources
from rethinking.errors import InputError, RefusedImagesError
from rethinking.models import catalogue, inspection
from rethinking.models.catalogue import Network
from rethinking.models.construction import check_shape
from rethinking.models.initialization import initialize, untouched
from rethinking.models.outputs import take_logits
from rethinking.seeding import generator, global_streams
from rethinking.source import source_of

TRIED = 2  # images per batch, at most, in the trial of a user's own network


@dataclass(frozen=True)
class Seen:
    """The properties of a data set that decide a network.

    class_names: names of the classes
    image_shape: (channels, height, width) of the images before the crop
    """

    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]


def untrained(config: ExperimentConfig, data: sources.ImageData) -> nn.Module:
    """Returns the network of a resolved configuration with its initial weights.

    Raises `InputError` where the network cannot be built.
    """
    return _build(config.network, *_network_arguments(config, data))


class Inspected(NamedTuple):
    """Facts about a user's own network.

    digest, regularizers: recorded in the resolved configuration as `network_digest` and `network_regularizers`
    notes: lines for the user
    """

    digest: str
    regularizers: str | None
    notes: tuple[str, ...]


def inspected(config: ExperimentConfig, data: sources.ImageData) -> Inspected | None:
    """Inspects the network of a resolved configuration; returns None for the paper's networks.

    Raises `InputError` where the network cannot be trained.
    """
    network = config.network
    if not network.is_own:
        if config.model_options is not None:
            raise InputError(f"model_options are for your own network; {config.model_name} has no options")
        return None
    source = source_of([network.loaded])  # part of the cache's key, so that a changed file is inspected again
    images = config.training_images(len(data.train))
    sizes = {min(config.batch_size, images), images % config.batch_size} - {0}
    tried = tuple(sorted({min(size, TRIED) for size in sizes}))  # a batch of one image may be too small
    return _inspect(config.network, source, tried, *_network_arguments(config, data))


@functools.lru_cache(maxsize=256)
def _inspect(network: Network, source: tuple[str, ...], batch_sizes: tuple[int, ...], *made: Any) -> Inspected:
    model = _build(network, *made)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise InputError(f"{network.name} has no trainable parameter")
    digest = inspection.digest(network.loaded, model)  # before the trial, which may change what layers hold
    outputs, shape, options, init, seed = made
    with global_streams(seed, "trial"):
        images = torch.randn(max(batch_sizes), *shape)
        trial = inspection.try_out(model, images, outputs, batch_sizes)
    layers = inspection.regularizers(model)
    regularizers = layers or ("random draws in its forward pass" if trial.draws else None)
    left = [] if init == "own" else untouched(model)
    arguments = network.arguments(outputs, shape, arguments_in(options))
    others = {name: value for name, value in arguments.items() if name not in ("num_classes", "input_shape")}
    notes = (
        f"arguments taken from the images: {as_text(others)}" if others else "",
        trial.outputs,
        f"explicit regularization within the network: {regularizers}" if regularizers else "",
        f"--init {init} does not change: {', '.join(left)}" if left else "",
        f"parameters without a gradient are not trained: {inspection.shortened(trial.unused)}" if trial.unused else "",
    )
    return Inspected(digest, regularizers, tuple(note for note in notes if note))


def network_notes(config: ExperimentConfig, data: sources.ImageData) -> list[str]:
    """Returns lines about a user's own network; none for the paper's networks. The configuration must be resolved."""
    own = inspected(config, data)
    return [] if own is None else [f"network: {config.model_name}, {own.digest[:10]}", *own.notes]


def _network_arguments(config: ExperimentConfig, data: sources.ImageData | Seen) -> tuple[Any, ...]:
    """Returns the arguments of `_build`: outputs, image shape, options, initial weights and seed."""
    assert config.init is not None, "a resolved configuration"
    return outputs(config, data), input_shape(config, data), config.model_options, config.init, config.seed


def _build(
    network: Network, outputs: int, shape: tuple[int, int, int], options: str | None, init: str, seed: int
) -> nn.Module:
    """Builds a network with its initial weights. The seed alone decides the network's own draws."""
    check_shape(network, shape)
    with global_streams(seed, "construction"):
        model = network.build(outputs, shape, arguments_in(options))
        if network.is_own:
            take_logits(model, outputs)
            inspection.materialize(model, torch.zeros(2, *shape))
    if init != "own":
        initialize(model, init, generator(seed, "init"))
    return model


def outputs(config: ExperimentConfig, data: sources.ImageData | Seen) -> int:
    """Returns the number of the network's outputs: one per class of the data, or per class of the operator's own."""
    return config.operator.num_outputs(len(data.class_names))


def crop_of(config: ExperimentConfig, shape: tuple[int, int, int]) -> tuple[int, int]:
    """Returns height and width of the crop of images of `shape`, (channels, height, width).

    For a user's own network the default is the whole image. Raises `InputError` where the network does not take the
    images.
    """
    height, width = shape[1:]
    smallest, side = min(height, width), max(height, width)
    size = f"{width}x{height} pixels"
    sides = config.network.sides
    if sides and smallest < sides[0]:
        raise RefusedImagesError(
            f"the images have {size}; the networks need at least {sides[0]} a side: --resize {sides[0]} enlarges them",
            ["resize"],
        )
    crop_size = config.crop_size or (None if sides is None else 28 if side <= 32 else smallest)
    if crop_size is None:
        return height, width
    if crop_size > smallest:
        raise InputError(f"crop_size {crop_size} is larger than the images, which have {size}")
    if sides and crop_size > sides[1]:
        message = f"the images have {size}; choose a --crop_size up to {sides[1]}, or --resize them"
        raise RefusedImagesError(message, ["resize"] if config.crop_size is None else [])
    return crop_size, crop_size


def cut(config: ExperimentConfig, data: sources.ImageData) -> list[str]:
    """Returns a line about the crop in a list; the list is empty where the whole image is used."""
    _, height, width = data.image_shape
    crop = crop_of(config, data.image_shape)
    if (height, width) == crop:
        return []
    where = "a random window in training, else the centre" if config.random_crop else "their centre"
    return [f"images of {width}x{height} pixels are cropped to {crop[1]}x{crop[0]}: {where}"]


def input_shape(config: ExperimentConfig, data: sources.ImageData | Seen) -> tuple[int, int, int]:
    """Returns the shape of the network's input: (channels, height, width) after the crop."""
    return data.image_shape[0], *crop_of(config, data.image_shape)


def rebuilt(
    config: ExperimentConfig, facts: Mapping[str, Any], model: Callable[..., nn.Module] | str | None = None
) -> nn.Module:
    """Returns the network that a run trained, with its initial weights.

    facts: the run's facts, as in `facts.json` or `result.json`
    model: builds the network in place of `config.model_name`: a function, or its path

    Raises `InputError` where the network cannot be built, or differs from the network that the run trained.
    """
    if model is not None:
        path = model if isinstance(model, str) else catalogue.adopt(model)
        config = replace(config, model_name=path)
    data = facts.get("data")
    seen = sources.load_for(config) if data is None else Seen(tuple(data["class_names"]), tuple(data["image_shape"]))
    built = _build(config.network, *_network_arguments(config, seen))
    known = config.network_digest
    if known is not None and known != inspection.digest(config.network.loaded, built):
        raise InputError(
            f"{config.model_name} is no longer the network that this run trained: its source, its attributes or its"
            " initial weights have changed"
        )
    return built
