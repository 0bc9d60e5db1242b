"""The five networks of Table 1, by name.

Every one is a function `(num_classes=10, input_shape=(3, 28, 28)) -> nn.Module` of float images (batch, channels,
height, width) to logits (batch, num_classes), and takes one or three channels and any square size from 28 to 224.
"""

from collections.abc import Callable

import torch
from torch import nn

from rethinking.errors import InputError
from rethinking.models.alexnet import small_alexnet
from rethinking.models.inception import small_inception, small_inception_no_bn
from rethinking.models.initialization import initialize
from rethinking.models.mlp import mlp_1x512, mlp_3x512

__all__ = [
    "MODELS",
    "build_model",
    "count_parameters",
    "initialize",
    "is_convolutional",
    "mlp_1x512",
    "mlp_3x512",
    "small_alexnet",
    "small_inception",
    "small_inception_no_bn",
    "to_device",
]

MODELS: dict[str, Callable[..., nn.Module]] = {
    "small_inception": small_inception,
    "small_inception_no_bn": small_inception_no_bn,
    "small_alexnet": small_alexnet,
    "mlp_1x512": mlp_1x512,
    "mlp_3x512": mlp_3x512,
}


def build_model(name: str, num_classes: int = 10, input_shape: tuple[int, int, int] = (3, 28, 28)) -> nn.Module:
    """The network `name`, with the framework's initial weights; see `initialize` for reproducible ones.

    Raises `InputError` for an unknown name or a shape that is not (1 or 3, side, side) with 28 <= side <= 224.
    """
    if name not in MODELS:
        raise InputError(f"model must be one of {', '.join(MODELS)}, not '{name}'")
    channels, height, width = input_shape
    if channels not in (1, 3) or height != width or not 28 <= height <= 224:
        raise InputError(
            f"images must have 1 or 3 channels and be square with 28 to 224 pixels a side, not {channels}x{height}x"
            f"{width}; crop_size cuts a square out of the centre"
        )
    return MODELS[name](num_classes=num_classes, input_shape=input_shape)


def count_parameters(model: nn.Module) -> int:
    """Trainable parameters, as Table 1 counts them."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def to_device(model: nn.Module, device: torch.device) -> nn.Module:
    """`model` on `device`, convolutional ones channels-last, which is the faster memory format for them."""
    layout = torch.channels_last if is_convolutional(model) else torch.contiguous_format
    return model.to(device, memory_format=layout)  # type: ignore[call-overload]


def is_convolutional(model: nn.Module) -> bool:
    return any(isinstance(module, nn.Conv2d) for module in model.modules())
