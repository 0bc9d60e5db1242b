"""What of the data a network's function is given: by our names, or by other names that the field has for it.

Ours are `num_classes` and `input_shape`. Many functions ask for `n_classes`, `in_chans` or `img_size` instead, with
ImageNet's values as defaults. A network with these defaults does not take other images, so the data's values are given.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

CLASSES = ("num_classes", "n_classes", "num_labels", "nb_classes", "num_class", "n_class", "nclasses")
CHANNELS = ("in_chans", "in_channels", "input_channels", "in_ch", "image_channels", "img_channels")
CHANNELS_OR_WIDTH = ("channels", "num_channels", "n_channels")  # channels of images where the default says so
SIDES = ("img_size", "image_size", "input_resolution")
OF_IMAGES = (1, 3)  # channels

Shape = tuple[int, int, int]
Parameters = Mapping[str, inspect.Parameter]


def parameters_of(function: Callable[..., Any]) -> Parameters:
    """The parameters of a function or class by name; none of some functions in C."""
    try:
        return inspect.signature(function).parameters
    except (ValueError, TypeError):
        return {}


def parameters_of_class(kind: type) -> Parameters:
    """The parameters of a class, and of those that it is derived from as long as any keyword is handed on to them."""
    found: dict[str, inspect.Parameter] = {}
    for one in kind.__mro__:
        if "__init__" in vars(one):
            own = parameters_of(vars(one)["__init__"])
            found = {**own, **found}
            if not takes_any_keyword(own):
                break
    return found


def takes_any_keyword(parameters: Parameters) -> bool:
    return any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())


def by_our_names(parameters: Parameters, num_classes: int, shape: Shape) -> dict[str, Any]:
    """`num_classes` and `input_shape` where a function has them.

    The number of classes also where it takes any keyword and has no other name for it.
    """
    given = {"num_classes": num_classes, "input_shape": shape}
    named = {name: value for name, value in given.items() if name in parameters}
    if takes_any_keyword(parameters) and not parameters.keys() & set(CLASSES):
        named["num_classes"] = num_classes
    return named


def by_other_names(parameters: Parameters, num_classes: int, shape: Shape, said: Iterable[str]) -> dict[str, Any]:
    """Classes, channels and side by other names, where a parameter's default is not the data's value.

    said: names of arguments that are given already. Nothing is added to what one of them says; `input_shape` says
    channels and side.
    """
    channels, height, width = shape
    side = height if height == width else (height, width)
    known = set(said)
    given: dict[str, Any] = {}
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
            given[name] = value
    return given


def _means_classes(parameter: inspect.Parameter) -> bool:
    return parameter.default is parameter.empty or isinstance(parameter.default, int)


def _means_channels(parameter: inspect.Parameter) -> bool:
    required = parameter.default is parameter.empty and parameter.name in CHANNELS
    return required or parameter.default in OF_IMAGES


def _means_side(parameter: inspect.Parameter) -> bool:
    """A default of None is left: such a network takes images of any size."""
    return parameter.default is parameter.empty or isinstance(parameter.default, int | tuple | list)
