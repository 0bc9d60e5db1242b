"""Initial weights. The paper does not state its own, so they are an option (`--init`)."""

import math

import torch
from torch import nn

from rethinking.errors import InputError

Layer = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d


def initialize(model: nn.Module, scheme: str, generator: torch.Generator) -> None:
    """Draws every weight and bias of `model` anew, in place, in the order of its layers.

    - `he`: normal with variance 2 / fan_in (He et al. 2015); 1 / fan_in in the last layer, which no ReLU follows
    - `lecun`: normal with variance 1 / fan_in (LeCun et al. 1998)
    - `xavier`: uniform with variance 2 / (fan_in + fan_out) (Glorot and Bengio 2010)
    - `pytorch`: weights and biases uniform in +-1/sqrt(fan_in), PyTorch's default

    The first three set biases to 0. All act on linear layers and convolutions; `untouched` names other weights. Raises
    `InputError` for an unknown scheme.
    """
    layers = _layers(model)
    with torch.no_grad():
        for layer in layers:
            fan_in, fan_out = layer.weight[0].numel(), layer.weight.shape[0] * layer.weight[0, 0].numel()
            if layer.bias is not None:
                layer.bias.zero_()
            if scheme == "he":
                gain = 1.0 if layer is layers[-1] else 2.0
                layer.weight.normal_(0.0, math.sqrt(gain / fan_in), generator=generator)
            elif scheme == "lecun":
                layer.weight.normal_(0.0, math.sqrt(1.0 / fan_in), generator=generator)
            elif scheme == "xavier":
                bound = math.sqrt(6.0 / (fan_in + fan_out))
                layer.weight.uniform_(-bound, bound, generator=generator)
            elif scheme == "pytorch":
                bound = 1.0 / math.sqrt(fan_in)
                layer.weight.uniform_(-bound, bound, generator=generator)
                if layer.bias is not None:
                    layer.bias.uniform_(-bound, bound, generator=generator)
            else:
                raise InputError(f"init must be one of he, lecun, xavier, pytorch, not '{scheme}'")


def untouched(model: nn.Module) -> list[str]:
    """Returns the names of trainable weights, of two or more dimensions, that `initialize` leaves as they are."""
    drawn = {id(layer.weight) for layer in _layers(model)}
    return [
        name
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and parameter.dim() > 1 and id(parameter) not in drawn
    ]


def _layers(model: nn.Module) -> list[Layer]:
    """Returns the layers whose weight (outputs, inputs, ...) is a parameter, not computed from other parameters."""
    kinds = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d
    return [module for module in model.modules() if isinstance(module, kinds) and "weight" in module._parameters]
