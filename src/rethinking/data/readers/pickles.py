"""Pickles of plain data: NumPy arrays, bytes, texts, numbers, lists, tuples and dicts, and nothing else.

CIFAR's Python version is pickled. A pickle can name any function of any module and call it, so this reader calls none.
The few names that pickled NumPy arrays need stand for functions of this file, which only record their arguments. Before
anything is unpickled, all operations are checked: only those that plain data needs are allowed.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from rethinking.errors import InputError

KINDS = "biufSU"  # allowed types of array values: booleans, numbers, bytes, text; never objects
DEEPEST = 20  # levels of nested lists and dicts
MOST_CONTAINERS = 100_000  # lists, tuples and dicts
MOST_VALUES = 100_000_000  # a list that occurs in several places counts in each
MOST_SIDES = 32  # dimensions of an array
OPERATIONS = frozenset(
    (
        *("PROTO", "FRAME", "STOP", "MARK", "POP", "POP_MARK", "DUP", "NONE", "NEWTRUE", "NEWFALSE"),
        *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
        *("STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
        *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
        *("EMPTY_LIST", "LIST", "APPEND", "APPENDS", "EMPTY_DICT", "DICT", "SETITEM", "SETITEMS"),
        *("EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"),
        *("GET", "BINGET", "LONG_BINGET", "PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"),
        *("GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD"),
    )
)
CONTAINERS = ("EMPTY_LIST", "LIST", "EMPTY_DICT", "DICT", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3")
PLACES = ("PUT", "BINPUT", "LONG_BINPUT")  # operations that write to a place in the memo


def load(path: Path) -> Any:
    """Returns the content of a pickle; bytes that are keys become text. Raises `InputError` if it is not plain data."""
    try:
        content = path.read_bytes()
        _check_operations(content)
        return _Plain().of(_Unpickler(io.BytesIO(content), encoding="bytes").load(), DEEPEST)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    except _NotPlainError as error:
        raise InputError(f"{path} is refused: {error}") from None
    except Exception as error:  # damaged pickles raise nearly every type
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path} is no complete pickle of plain data: {reason}") from None


class _NotPlainError(Exception):
    """Content of the pickle that is not plain data."""


def _check_operations(content: bytes) -> None:
    """Raises `_NotPlainError` for an operation that plain data does not need, and for far too many containers."""
    containers = 0
    for operations, (operation, argument, _) in enumerate(pickletools.genops(content), start=1):
        containers += operation.name in CONTAINERS
        if operation.name not in OPERATIONS:
            raise _NotPlainError(f"it has the operation {operation.name}, which plain data does not need")
        if operation.name in PLACES and int(argument or 0) > operations:
            raise _NotPlainError(f"it writes to place {argument} of its memo, more than it has operations")
        if containers > MOST_CONTAINERS:
            raise _NotPlainError(f"it has more than {MOST_CONTAINERS:,} lists, tuples and dicts")


class _Noted:
    """Base class of what stands for an object while a pickle is read. Only some subclasses accept a state."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        raise _NotPlainError("it sets the state of an object that has none")


class _Name(_Noted):
    """Stands for a name that the pickle may call; a call runs the recording function."""

    __slots__ = ("_note",)

    def __init__(self, note: Callable[..., Any]) -> None:
        self._note = note

    def __call__(self, *arguments: Any) -> Any:
        return self._note(*arguments)


class _DType(_Noted):
    """Stands for `numpy.dtype(name, align, copy)`, and the byte order that follows."""

    __slots__ = ("dtype",)

    def __init__(self, name: Any, *_: Any) -> None:
        text = name.decode("latin-1") if isinstance(name, bytes) else name
        if not isinstance(text, str) or len(text) > 12:
            raise _NotPlainError("it has a NumPy type that is not simple")
        self.dtype = np.dtype(text)
        if self.dtype.kind not in KINDS or self.dtype.shape:
            raise _NotPlainError(f"it has a NumPy array of {self.dtype}")

    def __setstate__(self, state: Any) -> None:
        if state[1] in (">", b">"):
            self.dtype = self.dtype.newbyteorder(">")


class _Array(_Noted):
    """Stands for `numpy.core.multiarray._reconstruct(...)`, and the state that follows."""

    __slots__ = ("array",)

    def __init__(self, *_: Any) -> None:
        self.array: np.ndarray | None = None

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, raw = state
        self.array = _array(raw, dtype, shape).reshape(shape, order="F" if fortran else "C")


class _Value(_Noted):
    """Stands for bytes or a number that a call would return."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


def _from_buffer(buffer: Any, dtype: Any, shape: Any, order: Any = "C", axes: Any = None) -> _Array:
    """Stands for `numpy._core.numeric._frombuffer`.

    axes: the order of the axes in memory, if it is neither C nor F
    """
    if not isinstance(buffer, bytes | bytearray):
        raise _NotPlainError("it has a NumPy array without bytes")
    made = _Array()
    made.array = _array(bytes(buffer), dtype, shape).reshape(shape, order="F" if order == "F" else "C")
    if axes is not None:
        made.array = made.array.transpose(axes)
    return made


def _scalar(dtype: Any, raw: Any = b"") -> _Value:
    return _Value(_array(raw, dtype, ())[0].item())


def _latin1(text: Any, encoding: Any = "latin1") -> _Value:
    """Stands for `_codecs.encode(text, 'latin1')`, the form of bytes in pickles for Python 2."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1", b"latin1", b"latin-1"):
        raise _NotPlainError("it asks for an encoding other than latin1")
    return _Value(text.encode("latin-1"))


def _no_bytes(*arguments: Any) -> _Value:
    """Stands for `bytes()`, the form of empty bytes in pickles for Python 2."""
    if arguments:
        raise _NotPlainError("it calls bytes with arguments")
    return _Value(b"")


def _never(*_: Any) -> Any:
    raise _NotPlainError("it calls numpy.ndarray")  # plain data passes this name only as an argument


_NAMES: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "dtype"): _DType,
    ("numpy", "ndarray"): _never,
    ("_codecs", "encode"): _latin1,
    ("__builtin__", "bytes"): _no_bytes,
    ("builtins", "bytes"): _no_bytes,
}
for _core in ("numpy.core", "numpy._core"):
    _NAMES[f"{_core}.multiarray", "_reconstruct"] = _Array
    _NAMES[f"{_core}.multiarray", "scalar"] = _scalar
    _NAMES[f"{_core}.numeric", "_frombuffer"] = _from_buffer


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> _Name:
        if (module, name) not in _NAMES:
            unknown = f"{module}.{name}"
            raise _NotPlainError(f"it names {unknown!r}, but only arrays, texts and numbers are allowed")
        return _Name(_NAMES[module, name])

    def persistent_load(self, pid: Any) -> Any:
        raise _NotPlainError("it refers to something outside of the file")


def _array(raw: Any, dtype: Any, shape: Any) -> np.ndarray:
    """Returns the values of an array, flat. Raises `_NotPlainError` unless their bytes exactly fill the shape."""
    raw = raw.value if isinstance(raw, _Value) else raw
    if not isinstance(raw, bytes) or not isinstance(dtype, _DType) or not isinstance(shape, tuple):
        raise _NotPlainError("it has a NumPy array whose values are not numbers or texts")
    if len(shape) > MOST_SIDES or any(type(side) is not int or not 0 <= side < 2**40 for side in shape):
        raise _NotPlainError("it has a NumPy array of an impossible shape")
    if math.prod(shape) * dtype.dtype.itemsize != len(raw):
        raise _NotPlainError(f"it has a NumPy array whose {len(raw):,} bytes do not fill its shape {shape}")
    return np.frombuffer(raw, dtype.dtype)


class _Plain:
    """Turns unpickled content into plain data: stand-ins become arrays and values, and bytes keys become text."""

    def __init__(self) -> None:
        self._made: dict[int, tuple[Any, int]] = {}  # lists, tuples and dicts by id, which may occur in several places
        self._size = 0  # values of the current container; an inner one counts as often as it occurs

    def of(self, value: Any, deepest: int) -> Any:
        """Returns `value` as plain data. Raises `_NotPlainError` if it is nested more than `deepest` levels."""
        self._size += 1
        if deepest == 0:
            raise _NotPlainError("its lists and dicts are nested too deeply")
        if isinstance(value, _Array):
            if value.array is None:
                raise _NotPlainError("it has a NumPy array without values")
            return value.array
        if isinstance(value, _Value):
            return value.value
        if value is None or type(value) in (bool, int, float, str, bytes):
            return value
        if type(value) is bytearray:
            return bytes(value)
        if type(value) not in (list, tuple, dict):
            raise _NotPlainError(f"it holds a {type(value).__name__.lstrip('_')}")
        if id(value) not in self._made:
            before, self._size = self._size, 1
            if type(value) is dict:
                made: Any = {self._key(key): self.of(member, deepest - 1) for key, member in value.items()}
            else:
                made = type(value)(self.of(member, deepest - 1) for member in value)
            self._made[id(value)] = made, self._size
            self._size = before
        made, size = self._made[id(value)]
        self._size += size
        if self._size > MOST_VALUES:
            raise _NotPlainError(f"expanded, it has more than {MOST_VALUES:,} values")
        return made

    def _key(self, key: Any) -> Any:
        plain = self.of(key, 1)
        return plain.decode("latin-1") if isinstance(plain, bytes) else plain
