"""Builds networks by name, checks the images they take, and puts them on a device."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from rethinking.errors import InputError
from rethinking.models import catalogue


def build_model(
    name: str, num_classes: int = 10, input_shape: tuple[int, int, int] = (3, 28, 28), **options: Any
) -> nn.Module:
    """Returns the network `name`, as `--model` takes it, with its own initial weights.

    See `initialize` for seeded ones.

    input_shape: (channels, height, width) of an image
    options: arguments of the function of a network that is not the paper's

    Raises `InputError` for an unknown name, and for a shape that the network does not take. The paper's networks take
    (1 or 3, side, side) with 28 <= side <= 224.
    """
    network = catalogue.find(name)
    check_shape(network, input_shape)
    return network.build(num_classes, input_shape, options)


def check_shape(network: catalogue.Network, input_shape: tuple[int, int, int]) -> None:
    """Raises `InputError` for images (channels, height, width) that the network's `sides` exclude."""
    channels, height, width = input_shape
    if network.sides is None:
        return
    smallest, largest = network.sides
    if channels not in (1, 3) or height != width or not smallest <= height <= largest:
        raise InputError(
            f"images must have 1 or 3 channels and be square with {smallest} to {largest} pixels a side, not"
            f" {channels}x{height}x{width}; crop_size cuts a square out of the centre"
        )


def count_parameters(model: nn.Module) -> int:
    """Returns the number of trainable parameters, as Table 1 counts them."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def to_device(model: nn.Module, device: torch.device) -> nn.Module:
    """Returns `model` on `device`. Convolutional networks become channels-last, the faster memory format for them."""
    layout = torch.channels_last if is_convolutional(model) else torch.contiguous_format
    moved: nn.Module = model.to(device, memory_format=layout)  # type: ignore[call-overload]
    return moved


def is_convolutional(model: nn.Module) -> bool:
    """Whether the network has a two-dimensional convolution."""
    return any(isinstance(module, nn.Conv2d) for module in model.modules())
