"""Finds the arguments that a network's function takes from the data, by our names or by other usual names.

Ours are `num_classes` and `input_shape`. Many functions take `n_classes`, `in_chans` or `img_size` instead, with
ImageNet's values as defaults. With these defaults a network refuses other images, so it gets the data's values.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

CLASSES = ("num_classes", "n_classes", "num_labels", "nb_classes", "num_class", "n_class", "nclasses")
CHANNELS = ("in_chans", "in_channels", "input_channels", "in_ch", "image_channels", "img_channels")
CHANNELS_OR_WIDTH = ("channels", "num_channels", "n_channels")  # an image's channels if the default is 1 or 3
SIDES = ("img_size", "image_size", "input_resolution")
OF_IMAGES = (1, 3)  # numbers of channels of images

Shape = tuple[int, int, int]
Parameters = Mapping[str, inspect.Parameter]


def parameters_of(function: Callable[..., Any]) -> Parameters:
    """Returns the parameters of a function or class by name; empty for some functions in C."""
    try:
        return inspect.signature(function).parameters
    except (ValueError, TypeError):
        return {}


def parameters_of_class(kind: type) -> Parameters:
    """Returns the parameters of a class, and of its base classes as long as any keyword is passed on to them."""
    found: dict[str, inspect.Parameter] = {}
    for one in kind.__mro__:
        if "__init__" in vars(one):
            own = parameters_of(vars(one)["__init__"])
            found = {**own, **found}
            if not takes_any_keyword(own):
                break
    return found


def takes_any_keyword(parameters: Parameters) -> bool:
    """Whether one of the parameters is `**kwargs`."""
    return any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())


def by_our_names(parameters: Parameters, num_classes: int, shape: Shape) -> dict[str, Any]:
    """Returns `num_classes` and `input_shape` if a function has these parameters.

    `num_classes` is also returned if the function takes any keyword and has no other name for it.
    """
    given = {"num_classes": num_classes, "input_shape": shape}
    named = {name: value for name, value in given.items() if name in parameters}
    if takes_any_keyword(parameters) and not parameters.keys() & set(CLASSES):
        named["num_classes"] = num_classes
    return named


def by_other_names(parameters: Parameters, num_classes: int, shape: Shape, given: Iterable[str]) -> dict[str, Any]:
    """Returns classes, channels and side by other names, if a parameter's default is not the data's value.

    given: names of the arguments that are already given. What one of them says is not repeated; `input_shape` says
        channels and side
    """
    channels, height, width = shape
    side = height if height == width else (height, width)
    known = set(given)
    arguments: dict[str, Any] = {}
    for names, value, means in (
        (CLASSES, num_classes, _means_classes),
        (("input_shape", *CHANNELS, *CHANNELS_OR_WIDTH), channels, _means_channels),
        (("input_shape", *SIDES), side, _means_side),
    ):
        name = next((name for name in names if name in parameters and means(parameters[name])), None)
        if name is None or known & set(names):
            continue
        default = parameters[name].default
        if isinstance(default, tuple | list):
            value, default = (height, width), tuple(default)
        if value != default:
            arguments[name] = value
    return arguments


def _means_classes(parameter: inspect.Parameter) -> bool:
    return parameter.default is parameter.empty or isinstance(parameter.default, int)


def _means_channels(parameter: inspect.Parameter) -> bool:
    required = parameter.default is parameter.empty and parameter.name in CHANNELS
    return required or parameter.default in OF_IMAGES


def _means_side(parameter: inspect.Parameter) -> bool:
    """Whether the parameter takes a side. A default of None is left: such a network takes images of any size."""
    return parameter.default is parameter.empty or isinstance(parameter.default, int | tuple | list)
