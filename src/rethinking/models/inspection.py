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
from rethinking.source import source_of

INTERNAL = {*vars(nn.Module())}  # of what every module holds
REGULARIZERS = ("dropout", "droppath", "drop_path", "stochasticdepth", "dropblock")  # in names of classes of layers
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
    found = []
    for module in model.modules():
        name = type(module).__name__
        probability = getattr(module, "p", getattr(module, "drop_prob", None))
        if any(word in name.lower() for word in REGULARIZERS) and probability != 0:
            shown = f" {probability:g}" if isinstance(probability, int | float) else ""
            found.append(f"{'dropout' if name == 'Dropout' else name}{shown}")
        hooks = [type(hook).__name__ for hook in module._forward_pre_hooks.values()]
        found += [NORMS_OF_WEIGHTS[name] for name in (name, *hooks) if name in NORMS_OF_WEIGHTS]
    return ", ".join(dict.fromkeys(found)) or None


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
    """What a trial showed: whether training draws at random, and the parameters that took no part in it."""

    draws: bool
    unused: tuple[str, ...]


def try_out(model: nn.Module, images: Tensor, outputs: int, batch_sizes: Sequence[int]) -> Trial:
    """Sends `images` through the network, as evaluation and, in batches of these sizes, as training does.

    Leaves the network as it was. Raises `InputError` in one line where the network does not take such images or
    batches, or does not give one row of `outputs` logits an image.
    """
    before = _drawn()
    with unchanged(model):
        with torch.no_grad():
            forward(model.eval(), images[:1], outputs)
        model.train()
        for size in batch_sizes:
            logits = forward(model, images[:size], outputs)
        if not logits.isfinite().all():
            raise InputError("the network's outputs are not finite with its initial weights")
        if not logits.requires_grad:
            raise InputError("no output of the network depends on a trainable parameter")
        try:
            logits.float().square().sum().backward()
        except Exception as error:  # whatever somebody else's layers do
            raise InputError(f"the network has no gradient: {in_one_line(error)}") from None
        trainable = ((name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad)
        unused = tuple(name for name, parameter in trainable if parameter.grad is None)
    return Trial(before != _drawn(), unused)


def _drawn() -> tuple[object, ...]:
    """The state of all global generators on the CPU."""
    numpy = np.random.get_state(legacy=False)["state"]
    return torch.get_rng_state().numpy().tobytes(), random.getstate(), numpy["key"].tobytes(), numpy["pos"]


def forward(model: nn.Module, images: Tensor, outputs: int | None) -> Tensor:
    """Logits (batch, outputs). Raises `InputError` where the network gives something else, or fails."""
    shape = "x".join(map(str, images.shape[1:]))
    try:
        logits = model(images)
    except Exception as error:  # whatever somebody else's layers make of images that they do not take
        if too_little_memory(error):
            raise
        hint = ""
        if len(images) == 1 and "more than 1 value per channel" in str(error):
            hint = "; batch normalization takes no batch of one image: choose another batch_size or train_subset"
        mode = "in training" if model.training else "in evaluation"
        raise InputError(
            f"the network fails {mode} on {len(images)} image{'s' * (len(images) > 1)} of {shape}:"
            f" {in_one_line(error)}{hint}"
        ) from None
    if not isinstance(logits, Tensor):
        mode = "in training" if model.training else "in evaluation"
        raise InputError(
            f"the network returns a {type(logits).__name__} {mode}, not one tensor of logits; turn auxiliary outputs"
            " off, or wrap it in one that returns the logits alone"
        )
    if logits.dim() != 2 or len(logits) != len(images) or (outputs is not None and logits.shape[1] != outputs):
        wanted = f"({len(images)}, {'classes' if outputs is None else outputs})"
        raise InputError(
            f"the network returns logits of shape {tuple(logits.shape)} for {len(images)} images, not {wanted}; a"
            " parameter num_classes of its function is given the number of classes"
        )
    return logits
