"""Finds the logits among the outputs of a network that returns more than one tensor.

Networks with auxiliary classifiers, and those of Hugging Face, return objects that contain `logits`.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn


def take_logits(model: nn.Module, outputs: int) -> None:
    """Makes a network return only its logits (batch, outputs), if `which_are_logits` finds them."""
    model.register_forward_hook(functools.partial(_logits_alone, outputs))


def _logits_alone(outputs: int, model: nn.Module, images: tuple[Any, ...], returned: Any) -> Any:
    if isinstance(returned, Tensor):
        return None  # the output stays as it is
    name = which_are_logits(returned, outputs)
    return None if name is None else named_outputs(returned)[name]


def which_are_logits(returned: Any, outputs: int) -> str | None:
    """Returns the name of the output `logits`, else of the only tensor (batch, outputs), else None.

    With several tensors of that shape it is unknown how they form one decision. Names are as in `named_outputs`.
    """
    by_name = {name: output for name, output in named_outputs(returned).items() if isinstance(output, Tensor)}
    if "logits" in by_name:
        return "logits"
    alike = [name for name, output in by_name.items() if output.dim() == 2 and output.shape[1] == outputs]
    return alike[0] if len(alike) == 1 else None


def named_outputs(returned: Any) -> dict[str, Any]:
    """Returns a network's outputs by name, without those that are None.

    Items of a tuple or list are named by number, from 'output 1' on.
    """
    if isinstance(returned, Mapping):
        by_name = {str(name): output for name, output in returned.items()}
    elif hasattr(returned, "_asdict"):  # a named tuple
        by_name = returned._asdict()
    elif dataclasses.is_dataclass(returned):
        by_name = {spec.name: getattr(returned, spec.name) for spec in dataclasses.fields(returned)}
    elif isinstance(returned, tuple | list):
        by_name = {f"output {number}": output for number, output in enumerate(returned, 1)}
    else:
        by_name = dict(getattr(returned, "__dict__", {}))
    return {name: output for name, output in by_name.items() if output is not None}
