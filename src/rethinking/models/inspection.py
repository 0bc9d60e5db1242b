"""What is found out about somebody's own network before it is trained: what it is, and whether it can be trained."""

from __future__ import annotations

import contextlib
import hashlib
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from rethinking.errors import InputError, in_one_line, too_little_memory
from rethinking.models.outputs import named_outputs, which_are_logits
from rethinking.source import place_of, source_of

INTERNAL = {*vars(nn.Module())}  # of what every module holds
REGULARIZERS = ("dropout", "droppath", "drop_path", "stochasticdepth", "dropblock")  # in names of classes of layers
LARGER = (32, 64, 128, 224, 299)  # pixels a side that networks are made for
NORMS_OF_WEIGHTS = {"_WeightNorm": "weight norm", "WeightNorm": "weight norm", "_SpectralNorm": "spectral norm"}
NORMS_OF_WEIGHTS |= {"SpectralNorm": "spectral norm", "_Orthogonal": "orthogonal weights"}


# What it is


def digest(function: Callable[..., Any], model: nn.Module) -> str:
    """SHA-256 of a network: its function, the classes of its layers, what layers hold, and its initial state.

    Of functions and classes `source_of` has what counts. Of layers it is their options, such as a dropout's
    probability, and other attributes. The state is the names, shapes, types and values of all parameters and buffers.
    """
    kinds = {type(module) for module in model.modules()} - {
        kind for kind in vars(nn).values() if isinstance(kind, type)
    }
    made = hashlib.sha256("\n".join(source_of([function, *kinds])).encode())
    for name, module in model.named_modules():
        held = {key: value for key, value in vars(module).items() if key not in INTERNAL}
        made.update("\n".join((name, type(module).__qualname__, *source_of([held]))).encode())
    for name, tensor in _state(model).items():
        made.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        made.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return made.hexdigest()


def _state(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name, those that a state dictionary leaves out too."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def regularizers(model: nn.Module) -> str | None:
    """Explicit regularizers that are layers of a network, such as "dropout 0.5", in words; None for none."""
    found: dict[str, set[float]] = {}  # probabilities by name, none where there are none
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
    """One value, or 'LEAST to LARGEST', in a list; nothing of none."""
    return [" to ".join(dict.fromkeys((f"{min(values):g}", f"{max(values):g}")))] if values else []


# Whether it can be trained


@contextlib.contextmanager
def unchanged(model: nn.Module) -> Iterator[None]:
    """Leaves parameters, buffers and mode as they were before."""
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
    """Gives lazy layers their shapes, by one pass over `images`."""
    if any(nn.parameter.is_lazy(tensor) for tensor in _state(model).values()):
        with torch.no_grad():
            forward(model.eval(), images, None)
        model.train()


class Trial(NamedTuple):
    """What a trial showed.

    draws: whether training draws at random; unused: names of the parameters that took no part in it
    outputs: what is to be said of several outputs, in a sentence, else nothing
    """

    draws: bool
    unused: tuple[str, ...]
    outputs: str


def try_out(model: nn.Module, images: Tensor, outputs: int, batch_sizes: Sequence[int]) -> Trial:
    """Sends `images` through the network, as evaluation and, in batches of these sizes, as training does.

    Leaves the network as it was. Raises `InputError` in one line where the network does not take such images or
    batches, or does not give one row of `outputs` logits an image.
    """
    before = _drawn()
    returned: list[Any] = []  # in evaluation, then in training, before the logits are taken from it
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
        except Exception as error:  # whatever somebody else's layers do
            raise InputError(f"the network has no gradient: {in_one_line(error)}{place_of(error)}") from None
        trainable = ((name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad)
        unused = tuple(name for name, parameter in trainable if parameter.grad is None)
    return Trial(before != _drawn(), unused, several_outputs(returned[0], returned[-1], outputs))


def several_outputs(evaluated: Any, trained: Any, outputs: int) -> str:
    """What is said of a network that returns more than logits, in evaluation or in training; nothing of another."""
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
    """The first names and the number of the others."""
    more = len(names) - most
    return ", ".join(names) if more <= 1 else f"{', '.join(names[:most])} and {more} more"


def _drawn() -> tuple[object, ...]:
    """The state of all global generators on the CPU."""
    numpy = np.random.get_state(legacy=False)["state"]
    return torch.get_rng_state().numpy().tobytes(), random.getstate(), numpy["key"].tobytes(), numpy["pos"]


def forward(model: nn.Module, images: Tensor, outputs: int | None) -> Tensor:
    """Logits (batch, outputs). Raises `InputError` where the network gives something else, or fails."""
    shape = "x".join(map(str, images.shape[1:]))
    mode = "in training" if model.training else "in evaluation"
    number = f"{len(images)} image{'s' * (len(images) > 1)}"
    try:
        logits = model(images)
    except Exception as error:  # whatever somebody else's network makes of images that it does not take
        if too_little_memory(error):
            raise
        hint = mended_by(model, images)
        if len(images) == 1 and "more than 1 value per channel" in str(error):
            hint = "; batch normalization takes no batch of one image: choose another batch_size or train_subset"
        raise InputError(
            f"the network fails {mode} on {number} of {shape}: {in_one_line(error)}{place_of(error)}{hint}"
        ) from None
    if not isinstance(logits, Tensor):
        raise InputError(
            f"the network returns a {type(logits).__name__} {mode}, not one tensor of logits; turn auxiliary outputs"
            " off, or wrap it in one that returns the logits alone"
        )
    if logits.dim() != 2 or len(logits) != len(images) or (outputs is not None and logits.shape[1] != outputs):
        wanted = f"({len(images)}, {'classes' if outputs is None else outputs})"
        raise InputError(
            f"the network returns logits of shape {tuple(logits.shape)} for {number}, not {wanted}; a"
            " parameter num_classes of its function is given the number of classes"
        )
    return logits


def mended_by(model: nn.Module, images: Tensor) -> str:
    """The options that make images the network takes of images that it does not, after "; "; nothing where none do."""
    channels, *sides = images.shape[1:]
    training = model.training
    colours = [("", channels), (" --colour rgb", 3) if channels == 1 else (" --colour grey", 1)]
    sizes = [("", sides), *((f" --resize {side}", [side, side]) for side in LARGER if side > min(sides))]
    try:
        for resize, size in sizes:
            for colour, number in colours:
                with torch.no_grad(), contextlib.suppress(Exception):  # it does not take those either
                    model.eval()(torch.randn(1, number, *size))
                    return f"; the network takes {number}x{size[0]}x{size[1]}:{resize}{colour}"
    finally:
        model.train(training)
    return ""
