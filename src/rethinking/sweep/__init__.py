"""Many runs: here, one process for each device, or on a Ray cluster; and grids of runs.

The package can be called: `rethinking.sweep(...)` is `rethinking.calls.sweep(...)`. A function of that name could not
stand beside the package, because Python gives an imported package its name in the package above it.
"""

from __future__ import annotations

import sys
import types
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rethinking.calls import Swept


class _Callable(types.ModuleType):
    """A module that can be called."""

    def __call__(self, *, progress: bool | None = None, **options: Any) -> Swept:
        """Returns a grid of runs (see `rethinking.calls.sweep`)."""
        from rethinking.calls import sweep

        return sweep(progress=progress, **options)


sys.modules[__name__].__class__ = _Callable
