"""Inspects a user's own network before training: its identity, its regularizers, and whether it can be trained."""

from __future__ import annotations

import contextlib
import hashlib
import math
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from rethinking.errors import InputError, in_one_line, too_little_memory
from rethinking.models.outputs import named_outputs, which_are_logits
from rethinking.source import place_of, source_of

INTERNAL = {*vars(nn.Module())}  # attributes that every module has
REGULARIZERS = ("dropout", "droppath", "drop_path", "stochasticdepth", "dropblock")  # words in names of layer classes
USUAL_SIDES = (16, 28, 32, 48, 64, 96, 128, 224, 299)  # of images, in pixels
NORMS_OF_WEIGHTS = {"_WeightNorm": "weight norm", "WeightNorm": "weight norm", "_SpectralNorm": "spectral norm"}
NORMS_OF_WEIGHTS |= {"SpectralNorm": "spectral norm", "_Orthogonal": "orthogonal weights"}


# Identity


def digest(function: Callable[..., Any], model: nn.Module) -> str:
    """Returns the SHA-256 of a network: its function, its layers' classes and attributes, and its initial state.

    `source_of` decides what counts of functions and classes. A layer's attributes include its options, such as the
    probability of dropout. The state is the name, shape, type and values of every parameter and buffer.
    """
    kinds = {type(module) for module in model.modules()} - {
        kind for kind in vars(nn).values() if isinstance(kind, type)
    }
    content = hashlib.sha256("\n".join(source_of([function, *kinds])).encode())
    for name, module in model.named_modules():
        attributes = {key: value for key, value in vars(module).items() if key not in INTERNAL}
        content.update("\n".join((name, type(module).__qualname__, *source_of([attributes]))).encode())
    for name, tensor in _state(model).items():
        content.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        content.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return content.hexdigest()


def _state(model: nn.Module) -> dict[str, Tensor]:
    """Returns parameters and buffers by name, including those that a state dictionary leaves out."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def regularizers(model: nn.Module) -> str | None:
    """Returns the explicit regularizers among a network's layers in words, such as "dropout 0.5"; None for none."""
    found: dict[str, set[float]] = {}  # probabilities by name; may be empty
    for module in model.modules():
        name = type(module).__name__
        probability = getattr(module, "p", getattr(module, "drop_prob", None))
        if any(word in name.lower() for word in REGULARIZERS) and probability != 0:
            known = {float(probability)} if isinstance(probability, int | float) else set()
            found.setdefault("dropout" if name == "Dropout" else name, set()).update(known)
        hooks = [type(hook).__name__ for hook in module._forward_pre_hooks.values()]
        found |= {NORMS_OF_WEIGHTS[name]: set() for name in (name, *hooks) if name in NORMS_OF_WEIGHTS}
    words = [" ".join((name, *_least_to_largest(probabilities))) for name, probabilities in found.items()]
    return ", ".join(words) or None


def _least_to_largest(values: set[float]) -> list[str]:
    """Returns one value, or 'LEAST to LARGEST', as a list of one text; an empty list for no values."""
    return [" to ".join(dict.fromkeys((f"{min(values):g}", f"{max(values):g}")))] if values else []


# Trial before training


@contextlib.contextmanager
def unchanged(model: nn.Module) -> Iterator[None]:
    """Restores parameters, buffers and mode at the end of the block."""
    before = {name: tensor.detach().clone() for name, tensor in _state(model).items()}
    training = model.training
    try:
        yield
    finally:
        model.train(training).zero_grad(set_to_none=True)
        with torch.no_grad():
            for name, tensor in _state(model).items():
                tensor.copy_(before[name])


def materialize(model: nn.Module, images: Tensor) -> None:
    """Gives lazy layers their shapes, by one forward pass over `images`."""
    if any(nn.parameter.is_lazy(tensor) for tensor in _state(model).values()):
        with torch.no_grad():
            forward(model.eval(), images, None)
        model.train()


class Trial(NamedTuple):
    """The findings of a trial.

    draws: whether training draws random numbers
    unused: names of the parameters that got no gradient
    outputs: a sentence on several outputs, if the network has more than logits; else ''
    """

    draws: bool
    unused: tuple[str, ...]
    outputs: str


def try_out(model: nn.Module, images: Tensor, outputs: int, batch_sizes: Sequence[int]) -> Trial:
    """Sends `images` through the network in evaluation, and in training in batches of `batch_sizes`.

    images: float32 (n, channels, height, width)
    outputs: number of logits per image

    The network stays as it was. Raises `InputError` in one line if the network fails on these images or batches, or
    returns other shapes than (batch, outputs).
    """
    before = _drawn()
    returned: list[Any] = []  # outputs in evaluation, then in training, before the logits are taken from them
    seen = model.register_forward_hook(lambda model, images, output: returned.append(output), prepend=True)
    with unchanged(model):
        with torch.no_grad():
            evaluated = forward(model.eval(), images[:1], outputs)
        model.train()
        for size in batch_sizes:
            logits = forward(model, images[:size], outputs)
        seen.remove()
        if not (logits.isfinite().all() and evaluated.isfinite().all()):
            raise InputError("the network's outputs are not finite with its initial weights")
        if not logits.requires_grad:
            raise InputError("no output of the network depends on a trainable parameter")
        try:
            logits.float().square().sum().backward()
        except Exception as error:  # a user's layers may raise any type
            raise InputError(f"the network has no gradient: {in_one_line(error)}{place_of(error)}") from None
        trainable = ((name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad)
        unused = tuple(name for name, parameter in trainable if parameter.grad is None)
    return Trial(before != _drawn(), unused, several_outputs(returned[0], returned[-1], outputs))


def several_outputs(evaluated: Any, trained: Any, outputs: int) -> str:
    """Describes what a network returns besides logits, in evaluation or in training; '' if it returns only logits."""
    if isinstance(trained, Tensor) and isinstance(evaluated, Tensor):
        return ""
    returned = evaluated if isinstance(trained, Tensor) else trained
    mode = " in evaluation" if isinstance(trained, Tensor) else " in training" if isinstance(evaluated, Tensor) else ""
    taken = which_are_logits(returned, outputs)
    rest = [name for name in named_outputs(returned) if name != taken]
    verb = "takes" if len(rest) == 1 else "take"
    left = f", and {shortened(rest)} {verb} no part in the loss" if rest else ""
    return f"the network returns {type(returned).__name__}{mode}; its logits are '{taken}'{left}"


def shortened(names: Sequence[str], most: int = 6) -> str:
    """Returns the first `most` names and the number of the others."""
    more = len(names) - most
    return ", ".join(names) if more <= 1 else f"{', '.join(names[:most])} and {more} more"


def _drawn() -> tuple[object, ...]:
    """Returns the state of all global generators on the CPU."""
    numpy = np.random.get_state(legacy=False)["state"]
    return torch.get_rng_state().numpy().tobytes(), random.getstate(), numpy["key"].tobytes(), numpy["pos"]


def forward(model: nn.Module, images: Tensor, outputs: int | None) -> Tensor:
    """Returns the logits (batch, outputs). Raises `InputError` if the network fails or returns something else."""
    shape = "x".join(map(str, images.shape[1:]))
    mode = "in training" if model.training else "in evaluation"
    number = f"{len(images)} image{'s' * (len(images) > 1)}"
    try:
        logits = model(images)
    except Exception as error:  # a user's network may raise any type
        if too_little_memory(error):
            raise
        hint = mended_by(model, images)
        if len(images) == 1 and "more than 1 value per channel" in str(error):
            hint = "; batch normalization takes no batch of one image; choose another batch_size or train_subset"
        raise InputError(
            f"the network fails {mode} on {number} of {shape}: {in_one_line(error)}{place_of(error)}{hint}"
        ) from None
    if not isinstance(logits, Tensor):
        raise InputError(
            f"the network returns a {type(logits).__name__} {mode}, not one tensor of logits; turn auxiliary outputs"
            " off, or wrap the network in one that returns only the logits"
        )
    if logits.dim() != 2 or len(logits) != len(images) or (outputs is not None and logits.shape[1] != outputs):
        wanted = f"({len(images)}, {'classes' if outputs is None else outputs})"
        raise InputError(
            f"the network returns logits of shape {tuple(logits.shape)} for {number}, not {wanted}; its function can"
            " take the number of classes as a parameter num_classes"
        )
    return logits


def _sides_of_first_linear(model: nn.Module) -> list[int]:
    """Returns the sides of square RGB and grey images that have as many values as the first linear layer takes."""
    linear = next((module for module in model.modules() if isinstance(module, nn.Linear)), None)
    pixels = [linear.in_features / channels for channels in (3, 1)] if linear is not None else []
    return [math.isqrt(int(number)) for number in pixels if number == math.isqrt(int(number)) ** 2]


def mended_by(model: nn.Module, images: Tensor) -> str:
    """Returns a hint with options that make the network take the images, after "; "; '' if no options do."""
    channels, *sides = images.shape[1:]
    training = model.training
    colours = [("", channels), (" --colour rgb", 3) if channels == 1 else (" --colour grey", 1)]
    larger = [side for side in USUAL_SIDES if side > min(sides)]
    smaller = [side for side in reversed(USUAL_SIDES) if side < min(sides)]
    scaled = dict.fromkeys([*_sides_of_first_linear(model), *larger, *smaller])
    sizes = [("", sides), *((f" --resize {side}", [side, side]) for side in scaled)]
    try:
        for resize, size in sizes:
            for colour, number in colours:
                with torch.no_grad(), contextlib.suppress(Exception):  # the network refuses these images too
                    model.eval()(torch.randn(1, number, *size))
                    return f"; the network takes {number}x{size[0]}x{size[1]}:{resize}{colour}"
    finally:
        model.train(training)
    return ""
