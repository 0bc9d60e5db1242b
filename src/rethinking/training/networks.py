"""From a resolved configuration to its network: the images it takes, its initial weights, what is told of it."""

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

TRIED = 2  # images of a batch, at most, that somebody's own network is tried out with


@dataclass(frozen=True)
class Seen:
    """What of a data set decides a network: its classes and its images, (channels, height, width)."""

    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]


def untrained(config: ExperimentConfig, data: sources.ImageData) -> nn.Module:
    """The network of a resolved configuration, with initial weights. Raises `InputError` where it cannot be built."""
    return _build(config.network, *_network_arguments(config, data))


class Inspected(NamedTuple):
    """What is found out about somebody's own network: what a resolved configuration records, and what is told."""

    digest: str
    regularizers: str | None
    notes: tuple[str, ...]


def inspected(config: ExperimentConfig, data: sources.ImageData) -> Inspected | None:
    """Of a resolved configuration's network; None for the paper's. Raises `InputError` if it cannot be trained."""
    network = config.network
    if not network.is_own:
        if config.model_options is not None:
            raise InputError(f"model_options are for your own network; {config.model_name} has none")
        return None
    source = source_of([network.loaded])  # so that a file that was changed is inspected anew
    images = config.train_subset or len(data.train)
    sizes = {min(config.batch_size, images), images % config.batch_size} - {0}
    few = tuple(sorted({min(size, TRIED) for size in sizes}))  # a batch of one image may be one too few
    return _inspect(config.network, source, few, *_network_arguments(config, data))


@functools.lru_cache(maxsize=256)
def _inspect(network: Network, source: tuple[str, ...], batch_sizes: tuple[int, ...], *made: Any) -> Inspected:
    model = _build(network, *made)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise InputError(f"{network.name} has no trainable parameter")
    digest = inspection.digest(network.loaded, model)  # before a trial, which layers may take notes of
    outputs, shape, options, init, seed = made
    with global_streams(seed, "trial"):
        images = torch.randn(max(batch_sizes), *shape)
        trial = inspection.try_out(model, images, outputs, batch_sizes)
    layers = inspection.regularizers(model)
    within = layers or ("random draws in its forward pass" if trial.draws else None)
    left = [] if init == "own" else untouched(model)
    arguments = network.arguments(outputs, shape, arguments_in(options))
    others = {name: value for name, value in arguments.items() if name not in ("num_classes", "input_shape")}
    notes = (
        f"given as the images have it: {as_text(others)}" if others else "",
        trial.outputs,
        f"explicit regularization within the network: {within}" if within else "",
        f"--init {init} leaves as the network has them: {', '.join(left)}" if left else "",
        f"parameters without a gradient stay as they are: {inspection.shortened(trial.unused)}" if trial.unused else "",
    )
    return Inspected(digest, within, tuple(note for note in notes if note))


def network_notes(config: ExperimentConfig, data: sources.ImageData) -> list[str]:
    """What is to be known of somebody's own network, of a resolved configuration: a line each."""
    own = inspected(config, data)
    return [] if own is None else [f"network: {config.model_name}, {own.digest[:10]}", *own.notes]


def _network_arguments(config: ExperimentConfig, data: sources.ImageData | Seen) -> tuple[Any, ...]:
    """What `_build` takes: outputs, shape of an image, options, initial weights, seed."""
    assert config.init is not None, "a resolved configuration"
    return outputs(config, data), input_shape(config, data), config.model_options, config.init, config.seed


def _build(
    network: Network, outputs: int, shape: tuple[int, int, int], options: str | None, init: str, seed: int
) -> nn.Module:
    """A network with its initial weights. Its own draws are those of the seed, whatever was drawn before."""
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
    return config.operator.num_outputs(len(data.class_names))


def crop_of(config: ExperimentConfig, shape: tuple[int, int, int]) -> tuple[int, int]:
    """Height and width of the crop of images (channels, height, width): of somebody's own network the whole image.

    Raises `InputError` where the network does not take them.
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
        told = f"the images have {size}; choose a --crop_size up to {sides[1]}, or --resize them"
        raise RefusedImagesError(told, ["resize"] if config.crop_size is None else [])
    return crop_size, crop_size


def cut(config: ExperimentConfig, data: sources.ImageData) -> list[str]:
    """What is cut off from the images, in a sentence; nothing where they are used whole."""
    _, height, width = data.image_shape
    crop = crop_of(config, data.image_shape)
    if (height, width) == crop:
        return []
    where = "a random window in training, else the centre" if config.random_crop else "their centre"
    return [f"of images of {width}x{height} pixels {crop[1]}x{crop[0]} are used: {where}"]


def input_shape(config: ExperimentConfig, data: sources.ImageData | Seen) -> tuple[int, int, int]:
    return data.image_shape[0], *crop_of(config, data.image_shape)


def rebuilt(
    config: ExperimentConfig, facts: Mapping[str, Any], model: Callable[..., nn.Module] | str | None = None
) -> nn.Module:
    """The network that a run with these facts, of its `facts.json`, trained, with its initial weights.

    `model` builds it in place of the configuration's, a function or its path.

    Raises `InputError` where it cannot be built any more, or is another one by now.
    """
    if model is not None:
        path = model if isinstance(model, str) else catalogue.adopt(model)
        config = replace(config, model_name=path)
    data = facts.get("data")
    seen = sources.load_for(config) if data is None else Seen(tuple(data["class_names"]), tuple(data["image_shape"]))
    built = _build(config.network, *_network_arguments(config, seen))
    if config.network_digest not in (None, inspection.digest(config.network.loaded, built)):
        raise InputError(
            f"{config.model_name} is no longer the network that this run trained: its source, what it holds or its"
            " initial values have changed"
        )
    return built
