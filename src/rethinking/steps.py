"""Defines how a long computation reports its progress."""

from collections.abc import Callable

Steps = Callable[[str], Callable[[float], None]]  # begins a named step; returns a function of the share done, 0-1


def unwatched(step: str) -> Callable[[float], None]:
    """Begins a step that is not shown."""
    return lambda share: None
