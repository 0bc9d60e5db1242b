"""Multilayer perceptrons (Appendix A): 512 ReLU units per hidden layer, linear layers with biases."""

import itertools
import math

from torch import nn

from rethinking.linear import Linear


def mlp_1x512(num_classes: int = 10, input_shape: tuple[int, int, int] = (3, 28, 28)) -> nn.Module:
    """Returns the MLP with one hidden layer: 1,209,866 parameters at the defaults (Table 1)."""
    return mlp(1, num_classes, input_shape)


def mlp_3x512(num_classes: int = 10, input_shape: tuple[int, int, int] = (3, 28, 28)) -> nn.Module:
    """Returns the MLP with three hidden layers: 1,735,178 parameters at the defaults (Table 1)."""
    return mlp(3, num_classes, input_shape)


def mlp(hidden_layers: int, num_classes: int, input_shape: tuple[int, int, int], width: int = 512) -> nn.Module:
    """Returns an MLP with `hidden_layers` of `width` ReLU units; the paper's width is 512.

    It maps (batch, *input_shape) to logits (batch, num_classes).
    """
    sizes = [math.prod(input_shape)] + [width] * hidden_layers
    layers: list[nn.Module] = [nn.Flatten()]
    for fan_in, fan_out in itertools.pairwise(sizes):
        layers += [Linear(fan_in, fan_out), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, Linear(width, num_classes))
