from collections.abc import Callable
from typing import Any

SOLUTIONS: dict[str, Callable[..., Any]] = {}
