"""The paper's five networks, the catalogue of all networks, and initial weights.

Everything except `catalogue` needs PyTorch and is imported at first use.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rethinking.models.construction import build_model, count_parameters, is_convolutional, to_device
    from rethinking.models.initialization import initialize

__all__ = ["build_model", "count_parameters", "initialize", "is_convolutional", "to_device"]


def __getattr__(name: str) -> Any:
    """Imports a public name at first use."""
    if name not in __all__:
        raise AttributeError(f"module 'rethinking.models' has no attribute '{name}'")
    module = "initialization" if name == "initialize" else "construction"
    return getattr(importlib.import_module(f"rethinking.models.{module}"), name)
