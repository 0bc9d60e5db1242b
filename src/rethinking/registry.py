"""Finds networks, operators and measures by name: registered, installed with an entry point, or from a file."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib
import importlib.util
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Generic, TypeVar

from rethinking.errors import InputError, in_one_line, nearest
from rethinking.source import local_files, place_of

T = TypeVar("T")
Thing = TypeVar("Thing")
FILE = "rethinking_file_"  # prefix of the names of modules that are loaded from files


class Registry(Generic[T]):
    """The names of one kind of object, such as networks.

    what: the option that takes a name, for messages
    group: the entry points by which installed packages add names
    """

    def __init__(self, what: str, group: str) -> None:
        self._what = what
        self._group = group
        self._registered: dict[str, T] = {}
        self._reserved: tuple[str, ...] = ()

    def register(self, name: str) -> Callable[[Thing], Thing]:
        """Returns a decorator that registers a function or class under `name`, in place of an earlier one.

        Raises `ValueError` for a name of the package's own.
        """
        if name in self._reserved:
            raise ValueError(f"{self._what} '{name}' is the package's own; choose another name")

        def decorate(thing: Thing) -> Thing:
            self._registered[name] = thing  # type: ignore[assignment]
            return thing

        return decorate

    def reserve(self) -> tuple[str, ...]:
        """Returns the names registered so far and reserves them as the package's own."""
        self._reserved = tuple(self._registered)
        return self._reserved

    def registered(self) -> Iterator[tuple[str, T]]:
        """Yields the registered names and their objects."""
        yield from self._registered.items()

    @property
    def names(self) -> tuple[str, ...]:
        """The registered names, followed by the names of installed packages."""
        return tuple(dict.fromkeys((*self._registered, *(point.name for point in _installed(self._group)))))

    def find(self, name: str) -> T:
        """Returns the object of a registered or installed name, of `FILE.py:NAME`, or of `package.module:NAME`.

        Raises `InputError` for an unknown name, and where the import fails.
        """
        if name in self._registered:
            return self._registered[name]
        try:
            found: T = load_named(name, self._group)
            return found
        except KeyError:
            raise InputError(
                f"{self._what} must be one of {', '.join(self.names)}, or FILE.py:NAME or MODULE:NAME, not '{name}'"
                f"{nearest(name, self.names)}"
            ) from None


def load_named(name: str, group: str) -> Any:
    """Returns the object of an installed package's entry point of `group`, or of a path.

    Raises `KeyError` where `name` is neither, and `InputError` where the import fails.
    """
    for point in _installed(group):
        if point.name == name:
            return _imported(name, point.load)
    if ":" in name:
        return load(name)
    raise KeyError(name)


@functools.cache
def _installed(group: str) -> tuple[Any, ...]:
    from importlib.metadata import entry_points  # slow to import and seldom needed

    return tuple(entry_points(group=group))


def load(path: str) -> Any:
    """Returns the object at `FILE.py:NAME` or `package.module:NAME`. Raises `InputError` in one line."""
    module, _, name = path.rpartition(":")
    if not (module and name):
        raise InputError(f"a path is FILE.py:NAME or MODULE:NAME, with something on both sides of ':', not '{path}'")
    if module.endswith(".py"):
        file = _copies.get(module, Path(module))
        if not file.is_file():
            raise InputError(f"there is no file {module}, which '{path}' names")
        loaded = _imported(path, lambda: _module_of_file(file.resolve()))
    else:
        loaded = _imported(path, lambda: importlib.import_module(module))
    try:
        return functools.reduce(getattr, name.split("."), loaded)
    except AttributeError:
        known = [other for other in vars(loaded) if not other.startswith("_")]
        raise InputError(f"{module} has no '{name}'{nearest(name, known)}") from None


@contextlib.contextmanager
def using_copies(copies: Mapping[str, Path]) -> Iterator[None]:
    """Makes paths of files load their copies inside, for example on a machine that lacks the files.

    copies: by the paths of the files
    """
    _copies.update(copies)
    try:
        yield
    finally:
        for file in copies:
            del _copies[file]


_copies: dict[str, Path] = {}


def absolute(path: str) -> str:
    """Returns the path of the same object with an absolute file, which holds in every working directory."""
    module, separator, name = path.rpartition(":")
    return f"{Path(module).resolve()}{separator}{name}" if module.endswith(".py") else path


def without_folder(path: str) -> str:
    """Returns the path of an object without the folder of its file, which differs between machines."""
    module, separator, name = path.rpartition(":")
    return f"{Path(module).name}{separator}{name}" if module.endswith(".py") else path


def plain(name: str) -> str:
    """Returns a name for folders: the name itself, or the function or class of a path. It has at most 40 characters."""
    return re.sub(r"[^\w.]+", "_", name.rpartition(":")[2])[:40]


def _module_of_file(file: Path) -> Any:
    """Returns the module of a file. A change in the file or in a file that it imports gives a new module.

    Each file has its own copies of the files beside it that it imports, since other files may import others of these
    names.
    """
    content = "".join(sorted(local_files(file).values()))
    name = f"{FILE}{hashlib.sha256(f'{file} {content}'.encode()).hexdigest()[:16]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None, "its name ends with .py"
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    with beside(file.parent):
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
    return module


@contextlib.contextmanager
def beside(folder: Path) -> Iterator[None]:
    """Adds `folder` as the last place for imports. Modules that are imported from there are forgotten afterwards."""
    before = set(sys.modules)
    sys.path.append(str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        for name in set(sys.modules) - before:
            where = getattr(sys.modules[name], "__file__", None)
            if where and not name.startswith(FILE) and Path(where).resolve().is_relative_to(folder.resolve()):
                del sys.modules[name]


def folder_of(thing: object) -> Path | None:
    """Returns the folder of a function or class that was loaded from a file, for its later imports; else None."""
    module = sys.modules.get(getattr(thing, "__module__", None) or "")
    if module is None or not module.__name__.startswith(FILE):
        return None
    assert module.__file__ is not None
    return Path(module.__file__).parent


def _imported(path: str, do: Callable[[], Any]) -> Any:
    try:
        return do()
    except Exception as error:  # a user's file can raise anything
        raise InputError(f"cannot import '{path}': {in_one_line(error)}{place_of(error)}") from None
