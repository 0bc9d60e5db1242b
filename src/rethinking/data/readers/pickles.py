"""Pickles of plain data: NumPy arrays, bytes, text, numbers, lists, tuples and dicts, and nothing else.

CIFAR's Python version is pickled. A pickle can name any function of any module and have it called, so none is: the few
names that NumPy's arrays are pickled with stand for classes of this file, which only note what they are given.
"""

from __future__ import annotations

import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from rethinking.errors import InputError

KINDS = "biufSU"  # of an array's values: booleans, numbers, bytes, text; never objects
DEEPEST = 20  # levels of lists and dicts


def load(path: Path) -> Any:
    """The content of a pickle, with text for bytes keys. Raises `InputError` where it holds anything else."""
    try:
        with path.open("rb") as file:
            return _plain(_Unpickler(file, encoding="bytes").load(), DEEPEST)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    except _NotPlainError as error:
        raise InputError(f"{path} is refused: {error}") from None
    except Exception as error:  # damaged pickles raise nearly every type
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path} is no whole pickle of plain data: {reason}") from None


class _NotPlainError(Exception):
    """What the pickle holds besides plain data."""


class _DType:
    """`numpy.dtype(name, align, copy)`, and the byte order that follows."""

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


class _Array:
    """`numpy.core.multiarray._reconstruct(...)`, and the state that follows."""

    array: np.ndarray | None = None

    def __init__(self, *_: Any) -> None: ...

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, raw = state
        self.array = _array(raw, dtype, shape, "F" if fortran else "C")


class _FromBuffer(_Array):
    """`numpy._core.numeric._frombuffer(buffer, dtype, shape, order)`."""

    def __init__(self, buffer: Any, dtype: Any, shape: Any, order: Any = "C") -> None:
        self.array = _array(bytes(buffer), dtype, shape, "F" if order == "F" else "C")


class _Scalar:
    """`numpy.core.multiarray.scalar(dtype, bytes)`."""

    def __init__(self, dtype: Any, raw: Any = b"") -> None:
        self.value = _array(raw, dtype, (), "C")[()].item()


class _NdArray:
    """The name `numpy.ndarray`, which is an argument and is never called."""

    def __init__(self, *_: Any) -> None:
        raise _NotPlainError("it calls numpy.ndarray")


class _Latin1:
    """`_codecs.encode(text, 'latin1')`, which bytes are pickled as for Python 2."""

    def __init__(self, text: Any, encoding: Any = "latin1") -> None:
        if not isinstance(text, str) or encoding not in ("latin1", "latin-1", b"latin1", b"latin-1"):
            raise _NotPlainError(f"it asks for the encoding {encoding!r}")
        self.value = text.encode("latin-1")


_NAMES: dict[tuple[str, str], type] = {("numpy", "dtype"): _DType, ("numpy", "ndarray"): _NdArray}
_NAMES |= {("_codecs", "encode"): _Latin1}
for _core in ("numpy.core", "numpy._core"):
    _NAMES[f"{_core}.multiarray", "_reconstruct"] = _Array
    _NAMES[f"{_core}.multiarray", "scalar"] = _Scalar
    _NAMES[f"{_core}.numeric", "_frombuffer"] = _FromBuffer


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> type:
        if (module, name) not in _NAMES:
            raise _NotPlainError(f"it asks for {module}.{name}, and only arrays, texts and numbers are taken")
        return _NAMES[module, name]

    def persistent_load(self, pid: Any) -> Any:
        raise _NotPlainError("it refers to something outside of the file")


def _array(raw: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray:
    raw = raw.value if isinstance(raw, _Latin1) else raw
    if not isinstance(raw, bytes) or not isinstance(dtype, _DType) or not isinstance(shape, tuple):
        raise _NotPlainError("it has a NumPy array whose values are not numbers or texts")
    if any(not isinstance(side, int) or side < 0 for side in shape):
        raise _NotPlainError(f"it has a NumPy array of the shape {shape}")
    if math.prod(shape) * dtype.dtype.itemsize != len(raw):
        raise _NotPlainError(f"it has a NumPy array whose {len(raw):,} bytes are not its shape {shape}")
    return np.frombuffer(raw, dtype.dtype).reshape(shape, order=order)


def _plain(value: Any, deepest: int) -> Any:
    """The same with arrays in place of what stands for them; bytes keys become text."""
    if deepest == 0:
        raise _NotPlainError("its lists and dicts are nested too deeply")
    if isinstance(value, _Array):
        if value.array is None:
            raise _NotPlainError("it has a NumPy array without values")
        return value.array
    if isinstance(value, _Scalar | _Latin1):
        return value.value
    if value is None or type(value) in (bool, int, float, str, bytes):
        return value
    if type(value) in (list, tuple):
        return type(value)(_plain(member, deepest - 1) for member in value)
    if type(value) is dict:
        return {_key(key): _plain(member, deepest - 1) for key, member in value.items()}
    raise _NotPlainError(f"it holds a {type(value).__name__.lstrip('_')}")


def _key(key: Any) -> Any:
    plain = _plain(key, 1)
    return plain.decode("latin-1") if isinstance(plain, bytes) else plain
