"""Writes a user's own functions and classes as text: their source and the values that they hold.

The text is part of a run's identity. It is the same in every process and has no addresses, folders or comments.
"""

from __future__ import annotations

import ast
import contextlib
import enum
import functools
import hashlib
import inspect
import sys
import sysconfig
import threading
import traceback
import types
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

INSTALLED = [sysconfig.get_paths()[name] for name in ("stdlib", "purelib", "platlib")]
HERE = str(Path(__file__).parent)
WITH_VERSION = tuple(str(Path(folder).resolve()) for folder in (*INSTALLED, HERE))  # code with a version, not followed
LIBRARIES = {"site-packages", "dist-packages"}  # also of a user, of the system, or of another environment
PLAIN = (type(None), bool, int, float, complex, str, bytes, enum.Enum)
PARSING = threading.Lock()  # in Python 3.11 two threads that parse at once fail (python/cpython#106905)


def source_of(things: Iterable[object]) -> tuple[str, ...]:
    """Returns the parts that functions, classes and objects are made of, as sorted texts.

    The parts are the source of their files, and of the files that these import. A function without a file has its own
    source. Default values, values in closures and partial functions, global values that code names, and the attributes
    of objects are parts too. Code of installed packages counts by name only, except the files of classes in `things`.
    """
    found = _Found()
    for thing in things:
        found.add_thing(thing, "")
        if isinstance(thing, type) and (file := _file_of(thing)):
            found.add_file(file, follow=_is_own(file))
    return tuple(sorted(found.parts))


def place_of(error: BaseException) -> str:
    """Returns where in the user's own code an error was raised, such as " (net.py, line 7)".

    Without a line of own code it names the line of an installed package other than PyTorch. Where there is none either,
    and for a syntax error, which names its own place, it returns ''.
    """
    places = [(Path(frame.filename), frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    own = [place for place in places if place[0].is_file() and _is_own(place[0].resolve())]
    of_packages = [
        place for place in places if LIBRARIES.intersection(place[0].parts) and "torch" not in place[0].parts
    ]
    if isinstance(error, SyntaxError) or not (own or of_packages):
        return ""
    file, line = (own or of_packages)[-1]
    for folder in (Path.cwd(), *map(Path, INSTALLED)):
        if file.is_relative_to(folder):
            file = file.relative_to(folder)
            break
    return f" ({file}, line {line})"


def digest_of_source(thing: object) -> str:
    """Returns the SHA-256 of the parts of a function or class, in hexadecimal digits."""
    return hashlib.sha256("\n".join(source_of([thing])).encode()).hexdigest()


def local_files(file: Path) -> dict[Path, str]:
    """Returns the source, without comments, of a file and of all files outside installed packages that it imports."""
    found = _Found()
    found.add_file(file, follow=True)
    return found.files


class _Found:
    """The texts and files that were found so far, and the objects that were looked at."""

    def __init__(self) -> None:
        self.parts: set[str] = set()
        self.files: dict[Path, str] = {}
        self._seen: dict[int, object] = {}  # by id; the objects stay alive, so that no id is used again

    def add_file(self, file: Path, follow: bool) -> None:
        """Adds the source of a file, and with `follow` the source of the files that it imports."""
        if file in self.files:
            return
        text = file.read_text(encoding="utf-8", errors="replace")
        self.files[file] = _without_comments(text)
        self.parts.add(self.files[file])
        if follow:
            for other in _imported_files(text, file):
                self.add_file(other, follow=True)

    def add_thing(self, thing: object, where: str) -> None:
        """Adds the parts of an object; `where` names its place, such as an attribute, an argument or a global."""
        if isinstance(thing, PLAIN):
            self.parts.add(f"{where} = {thing!r}")
        elif isinstance(thing, Mapping):
            for key in thing:
                self.add_thing(thing[key], f"{where}[{key!r}]" if isinstance(key, PLAIN) else where)
        elif isinstance(thing, list | tuple):
            self.parts.add(f"{where} has {len(thing)}")
            for index, value in enumerate(thing):
                self.add_thing(value, f"{where}[{index}]")
        elif isinstance(thing, set | frozenset):
            self.parts.add(f"{where} = {sorted(map(repr, thing)) if all(isinstance(v, PLAIN) for v in thing) else ''}")
        elif hasattr(thing, "__array__") and not isinstance(thing, type):
            self.parts.add(f"{where} = {_digest_of_array(thing)}")
        elif id(thing) not in self._seen:
            self._seen[id(thing)] = thing
            self._add_object(thing, where)

    def _add_object(self, thing: Any, where: str) -> None:
        if isinstance(thing, functools.partial):
            self.add_thing(thing.func, where)
            self.add_thing((thing.args, thing.keywords), f"{where}()")
        elif isinstance(thing, types.MethodType):
            self.add_thing(thing.__func__, where)
            self.add_thing(thing.__self__, f"{where}.__self__")
        elif isinstance(thing, types.ModuleType):
            self._add_named(thing, where, thing.__name__)
        elif isinstance(thing, types.FunctionType | type):
            self._add_named(thing, where, f"{thing.__module__}:{thing.__qualname__}")
            if _is_own(_file_of(thing)):
                for function in [thing] if isinstance(thing, types.FunctionType) else _functions_in(thing):
                    self._add_values(function)
        else:
            self.add_thing(type(thing), f"{where}.__class__")
            if _is_own(_file_of(type(thing))) or where == "":
                self.add_thing(dict(getattr(thing, "__dict__", {})), where)

    def _add_named(self, thing: Any, where: str, name: str) -> None:
        file = _file_of(thing)
        if file is None and not isinstance(thing, types.ModuleType) and thing.__module__ in ("__main__", None):
            self.parts.add(_own_source(thing))
        elif file is not None and _is_own(file):
            self.add_file(file, follow=True)
            self.parts.add(f"{where} is {name.rpartition(':')[2]}")
        else:
            self.parts.add(f"{where} is {name}")

    def _add_values(self, function: types.FunctionType) -> None:
        """Adds the values that a function holds besides its source, and the global values that its code names."""
        name = function.__qualname__
        self.add_thing((function.__defaults__, function.__kwdefaults__), f"{name} by default")
        for variable, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            with contextlib.suppress(ValueError):  # the cell is still empty
                self.add_thing(cell.cell_contents, f"{name}.{variable}")
        for variable in _names_in(function.__code__):
            value = function.__globals__.get(variable, self)
            if value is not self and not isinstance(value, list | dict | set):  # these change while code runs
                self.add_thing(value, variable)


def _functions_in(kind: type) -> Iterator[types.FunctionType]:
    for value in vars(kind).values():
        function = getattr(value, "__func__", getattr(value, "fget", value))
        if isinstance(function, types.FunctionType):
            yield function


def _names_in(code: types.CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names_in(constant)


def _file_of(thing: object) -> Path | None:
    """Returns the file of a module, function or class; None where there is no file, as in a notebook."""
    if isinstance(thing, types.FunctionType):
        name: str | None = thing.__code__.co_filename
    elif isinstance(thing, types.ModuleType):
        name = getattr(thing, "__file__", None)
    else:
        module = sys.modules.get(getattr(thing, "__module__", ""))
        functions = _functions_in(thing) if isinstance(thing, type) else ()
        own = (
            f.__code__.co_filename for f in functions if f.__qualname__.startswith(getattr(thing, "__qualname__", "?"))
        )
        name = next(own, getattr(module, "__file__", None))
    return Path(name).resolve() if name and name.endswith(".py") and Path(name).is_file() else None


def _is_own(file: Path | None) -> bool:
    """Returns whether a file is the user's own, not a versioned package's. Code without a file is the user's own."""
    return file is None or not (str(file).startswith(WITH_VERSION) or LIBRARIES.intersection(file.parts))


def _imported_files(text: str, file: Path) -> Iterator[Path]:
    """Yields the files outside installed packages that a file imports anywhere in its code."""
    with contextlib.suppress(SyntaxError, ValueError, RecursionError):
        with PARSING:
            tree = ast.parse(text)
        for node in ast.walk(tree):
            names = []
            folder = file.parent
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                folder = file.parents[max(0, node.level - 1)]
                names = [node.module] if node.module else []
                names += [f"{node.module}.{alias.name}" if node.module else alias.name for alias in node.names]
            for name in names:
                for found in _files_of_module(name, folder):
                    if _is_own(found):
                        yield found


def _files_of_module(name: str, folder: Path) -> Iterator[Path]:
    path = folder.joinpath(*name.split("."))
    beside = [path.with_suffix(".py"), path / "__init__.py"]
    loaded = getattr(sys.modules.get(name), "__file__", None)
    yield from (file.resolve() for file in (*beside, *([Path(loaded)] if loaded else [])) if file.is_file())


def _own_source(thing: Any) -> str:
    """Returns the source of a function or class without a file, or its code where the source is not known."""
    with contextlib.suppress(OSError, TypeError):
        return _without_comments(inspect.getsource(thing))
    codes = [f.__code__ for f in ([thing] if isinstance(thing, types.FunctionType) else _functions_in(thing))]
    return f"{thing.__qualname__} {[_of_code(code) for code in codes]}"


def _of_code(code: types.CodeType) -> object:
    constants = [_of_code(value) if isinstance(value, types.CodeType) else repr(value) for value in code.co_consts]
    return code.co_code.hex(), constants, code.co_names


def _digest_of_array(array: Any) -> str:
    """Returns type, shape and the SHA-256 of the content of a tensor or an array."""
    with contextlib.suppress(Exception):  # an object with `__array__` may still not be an array
        import numpy as np

        values = np.ascontiguousarray(array.detach().cpu() if hasattr(array, "detach") else array)
        return f"{values.dtype} {values.shape} {hashlib.sha256(values.tobytes()).hexdigest()}"
    return type(array).__name__


def _without_comments(source: str) -> str:
    with contextlib.suppress(SyntaxError, ValueError, RecursionError):
        with PARSING:
            tree = ast.parse(inspect.cleandoc(source))
        return ast.unparse(tree)
    return source
