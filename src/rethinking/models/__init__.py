"""The networks: the paper's five, what any network is to the package, and initial weights.

Everything but `catalogue` needs PyTorch and is imported when first asked for.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rethinking.models.construction import build_model, count_parameters, is_convolutional, to_device
    from rethinking.models.initialization import initialize

__all__ = ["build_model", "count_parameters", "initialize", "is_convolutional", "to_device"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'rethinking.models' has no attribute '{name}'")
    room = "initialization" if name == "initialize" else "construction"
    return getattr(importlib.import_module(f"rethinking.models.{room}"), name)
