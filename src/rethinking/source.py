"""The source that somebody's own functions and classes are made by, which is part of what their runs are."""

from __future__ import annotations

import ast
import contextlib
import inspect
import sysconfig
import types
from collections.abc import Sequence
from pathlib import Path

INSTALLED = [sysconfig.get_paths()[name] for name in ("stdlib", "purelib", "platlib")]
HERE = str(Path(__file__).parent)
FOLLOWED_NOT = tuple(str(Path(folder).resolve()) for folder in (*INSTALLED, HERE))  # they have versions of their own


def source_of(things: Sequence[object]) -> set[str]:
    """The source that functions and classes are made by, without comments: of their files, and of what these import.

    Where there is no file, as in a notebook, their own source or code.
    """
    found: set[str] = set()
    seen: set[str] = set()
    waiting: list[object] = list(things)
    while waiting:
        thing = waiting.pop()
        while hasattr(thing, "func"):  # functools.partial
            found.add(repr((thing.args, thing.keywords)))  # type: ignore[attr-defined]
            thing = thing.func
        module = thing if isinstance(thing, types.ModuleType) else inspect.getmodule(thing)
        if module is not None and (module.__name__ == "torch" or module.__name__.startswith("torch.")):
            continue
        file = getattr(module, "__file__", None)
        if module is None or file is None or not Path(file).is_file():
            found.add(_own_source(thing))
            continue
        if file in seen:
            continue
        seen.add(file)
        found.add(_without_comments(Path(file).read_text(encoding="utf-8", errors="replace")))
        if not _has_version(file):
            waiting += [value for value in vars(module).values() if _is_local(value)]
    return found


def _is_local(value: object) -> bool:
    """Whether it is a module, a function or a class of a file that no package has a version for."""
    if not isinstance(value, types.ModuleType | types.FunctionType | type):
        return False
    file = getattr(value if isinstance(value, types.ModuleType) else inspect.getmodule(value), "__file__", None)
    return file is not None and file.endswith(".py") and not _has_version(file)


def _has_version(file: str) -> bool:
    return str(Path(file).resolve()).startswith(FOLLOWED_NOT)


def _own_source(thing: object) -> str:
    try:
        return _without_comments(inspect.getsource(thing))  # type: ignore[arg-type]
    except (OSError, TypeError):
        code = getattr(thing, "__code__", None) or getattr(getattr(thing, "forward", None), "__code__", None)
        return repr((code.co_code, code.co_consts, code.co_names)) if code else repr(type(thing))


def _without_comments(source: str) -> str:
    with contextlib.suppress(SyntaxError, ValueError, RecursionError):
        return ast.unparse(ast.parse(inspect.cleandoc(source)))
    return source
