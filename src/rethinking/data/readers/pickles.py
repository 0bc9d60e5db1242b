"""Pickles of plain data: NumPy arrays, bytes, text, numbers, lists, tuples and dicts, and nothing else.

CIFAR's Python version is pickled. A pickle can name any function of any module and have it called, so none is: the few
names that NumPy's arrays are pickled with stand for functions of this file, which only note what they are given. Before
anything is unpickled all its operations are looked through, and only those that plain data needs are admitted.
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

KINDS = "biufSU"  # of an array's values: booleans, numbers, bytes, text; never objects
DEEPEST = 20  # lists and dicts in one another
MOST_CONTAINERS = 100_000  # lists, tuples and dicts
MOST_VALUES = 100_000_000  # where lists stand in several places, counted in each
MOST_SIDES = 32  # of an array
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
PLACES = ("PUT", "BINPUT", "LONG_BINPUT")  # operations that name a place in the memo


def load(path: Path) -> Any:
    """The content of a pickle, with text for bytes keys. Raises `InputError` where it holds anything else."""
    try:
        content = path.read_bytes()
        _look_through(content)
        return _Plain().of(_Unpickler(io.BytesIO(content), encoding="bytes").load(), DEEPEST)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    except _NotPlainError as error:
        raise InputError(f"{path} is refused: {error}") from None
    except Exception as error:  # damaged pickles raise nearly every type
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path} is no whole pickle of plain data: {reason}") from None


class _NotPlainError(Exception):
    """What the pickle holds that is no plain data."""


def _look_through(content: bytes) -> None:
    """Raises `_NotPlainError` for an operation that plain data does not need, or far too many."""
    containers = 0
    for operations, (operation, argument, _) in enumerate(pickletools.genops(content), start=1):
        containers += operation.name in CONTAINERS
        if operation.name not in OPERATIONS:
            raise _NotPlainError(f"it has the operation {operation.name}, which plain data does not need")
        if operation.name in PLACES and int(argument or 0) > operations:
            raise _NotPlainError(f"it names the place {argument} of its memo, which nothing needs")
        if containers > MOST_CONTAINERS:
            raise _NotPlainError(f"it has more than {MOST_CONTAINERS:,} lists, tuples and dicts")


class _Noted:
    """What stands for an object while a pickle is read. No state is put into it, unless a subclass takes it."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        raise _NotPlainError("it sets the state of what has none")


class _Name(_Noted):
    """A name that the pickle may call, as the function that notes it."""

    __slots__ = ("_note",)

    def __init__(self, note: Callable[..., Any]) -> None:
        self._note = note

    def __call__(self, *arguments: Any) -> Any:
        return self._note(*arguments)


class _DType(_Noted):
    """`numpy.dtype(name, align, copy)`, and the byte order that follows."""

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
    """`numpy.core.multiarray._reconstruct(...)`, and the state that follows."""

    __slots__ = ("array",)

    def __init__(self, *_: Any) -> None:
        self.array: np.ndarray | None = None

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, raw = state
        self.array = _array(raw, dtype, shape).reshape(shape, order="F" if fortran else "C")


class _Value(_Noted):
    """Bytes or a number that a call stands for."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


def _from_buffer(buffer: Any, dtype: Any, shape: Any, order: Any = "C", axes: Any = None) -> _Array:
    """`numpy._core.numeric._frombuffer`; axes: their places in memory, where the order is neither C nor F."""
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
    """`_codecs.encode(text, 'latin1')`, which bytes are pickled as for Python 2."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1", b"latin1", b"latin-1"):
        raise _NotPlainError("it asks for an encoding other than latin1")
    return _Value(text.encode("latin-1"))


def _no_bytes(*arguments: Any) -> _Value:
    """`bytes()`, which empty bytes are pickled as for Python 2."""
    if arguments:
        raise _NotPlainError("it calls bytes with arguments")
    return _Value(b"")


def _never(*_: Any) -> Any:
    raise _NotPlainError("it calls numpy.ndarray")  # a name that is an argument alone


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
            asked = f"{module}.{name}"
            raise _NotPlainError(f"it asks for {asked!r}, and only arrays, texts and numbers are taken")
        return _Name(_NAMES[module, name])

    def persistent_load(self, pid: Any) -> Any:
        raise _NotPlainError("it refers to something outside of the file")


def _array(raw: Any, dtype: Any, shape: Any) -> np.ndarray:
    """The values of an array, flat, of which it is sure that they fill the shape."""
    raw = raw.value if isinstance(raw, _Value) else raw
    if not isinstance(raw, bytes) or not isinstance(dtype, _DType) or not isinstance(shape, tuple):
        raise _NotPlainError("it has a NumPy array whose values are not numbers or texts")
    if len(shape) > MOST_SIDES or any(type(side) is not int or not 0 <= side < 2**40 for side in shape):
        raise _NotPlainError("it has a NumPy array of an impossible shape")
    if math.prod(shape) * dtype.dtype.itemsize != len(raw):
        raise _NotPlainError(f"it has a NumPy array whose {len(raw):,} bytes are not its shape {shape}")
    return np.frombuffer(raw, dtype.dtype)


class _Plain:
    """Makes plain data of what was unpickled: arrays in place of what stands for them, text in place of bytes keys."""

    def __init__(self) -> None:
        self._made: dict[int, tuple[Any, int]] = {}  # lists, tuples and dicts, which may stand in several places
        self._size = 0  # values of the one at work, those of inner ones as often as these stand in it

    def of(self, value: Any, deepest: int) -> Any:
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
            raise _NotPlainError(f"written out it has more than {MOST_VALUES:,} values")
        return made

    def _key(self, key: Any) -> Any:
        plain = self.of(key, 1)
        return plain.decode("latin-1") if isinstance(plain, bytes) else plain
