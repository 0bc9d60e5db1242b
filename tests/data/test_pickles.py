"""A pickle is a program in a file, and `pickles.load` runs none of it. These tests write opcodes byte by byte."""

import contextlib
import copyreg
import os
import pickle
import struct
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from rethinking.data.readers import pickles
from rethinking.errors import InputError

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)
LARGEST = 1 << 20  # bytes that a message or a small file's content may have, with room to spare


class Calls:
    """An object that pickles as a call of `function`."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def text(value: str) -> bytes:
    return b"\x8c" + bytes([len(value)]) + value.encode()


def named(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def file_of(folder: Path, content: bytes) -> Path:
    file = folder / "data_batch_1"
    file.write_bytes(content)
    return file


def refused(folder: Path, content: bytes) -> str:
    """Returns the error message, which must be one line."""
    with pytest.raises(InputError, match="data_batch_1") as caught:
        pickles.load(file_of(folder, content))
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < LARGEST
    return message


def loaded_elsewhere(file: Path) -> tuple[str, int]:
    """Returns what another process prints of the file, and its additional peak memory in MiB."""
    program = (
        "import resource, sys; from pathlib import Path\n"
        "from rethinking.data.readers import pickles; from rethinking.errors import InputError\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024\n"
        "resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30)); before = peak()\n"
        "try: pickles.load(Path(sys.argv[1])); print('loaded')\n"
        "except InputError as error: print('refused:', str(error)[:300])\n"
        "print(peak() - before)"
    )
    # The time is for what would never end: each file is refused within milliseconds, or not at all.
    done = subprocess.run(
        [sys.executable, "-c", program, str(file)], capture_output=True, text=True, timeout=1200, check=False
    )
    assert done.returncode == 0, f"status {done.returncode}: {done.stderr[-500:]}"
    told, peak = done.stdout.splitlines()
    return told, int(peak)


# Plain data


@st.composite
def numpy_arrays(draw: Any) -> np.ndarray:
    kinds = st.one_of(
        arrays.boolean_dtypes(),
        arrays.integer_dtypes(endianness="?"),
        arrays.unsigned_integer_dtypes(endianness="?"),
        arrays.floating_dtypes(endianness="?"),
        arrays.byte_string_dtypes(),
        arrays.unicode_string_dtypes(),
    )
    array = draw(arrays.arrays(draw(kinds), arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=3)))
    return array.transpose(draw(st.permutations(range(array.ndim))))


scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
plain_data = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text() | st.integers(), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(value=plain_data, protocol=st.sampled_from(PROTOCOLS))
def test_plain_data_comes_back(tmp_path_factory: pytest.TempPathFactory, value: Any, protocol: int):
    file = file_of(tmp_path_factory.getbasetemp(), pickle.dumps(value, protocol))
    assert pickles.load(file) == value


@given(array=numpy_arrays(), protocol=st.sampled_from(PROTOCOLS))
def test_arrays_of_any_simple_type_shape_and_order_come_back(
    tmp_path_factory: pytest.TempPathFactory, array: np.ndarray, protocol: int
):
    file = file_of(tmp_path_factory.getbasetemp(), pickle.dumps({"data": array}, protocol))
    ours = pickles.load(file)["data"]
    assert (ours.dtype, ours.shape) == (array.dtype, array.shape)
    assert ours.tobytes() == array.tobytes()


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("value", [np.uint8(7), np.int64(-3), np.float32(0.5), np.bool_(True), np.str_("cat")])
def test_numpy_numbers_and_texts_come_back_as_plain_ones(tmp_path: Path, value: Any, protocol: int):
    ours = pickles.load(file_of(tmp_path, pickle.dumps([value], protocol)))
    assert ours == [value.item()]
    assert type(ours[0]) is type(value.item())


def test_keys_of_bytes_become_text_and_values_stay_bytes(tmp_path: Path):
    assert pickles.load(file_of(tmp_path, pickle.dumps({b"label_names": [b"cat"]}))) == {"label_names": [b"cat"]}


# What calls something

CALLS = {
    "os.system": Calls(os.system, "touch called"),
    "eval": Calls(eval, "open('called', 'w')"),
    "exec": Calls(exec, "open('called', 'w')"),
    "getattr": Calls(getattr, os.system, "__call__"),
    "open": Calls(open, "called", "w"),
    "__import__": Calls(__import__, "antigravity"),
    "subprocess": Calls(subprocess.check_output, ["touch", "called"]),
    "numpy.load": Calls(np.load, "called.npy"),
    "numpy.memmap": Calls(np.memmap, "called", "uint8", "w+", 0, (10,)),
    "numpy.fromfile": Calls(np.fromfile, "/dev/zero", "uint8", 10),
    "numpy.save": Calls(np.save, "called", 1),
    "ndarray.tofile": Calls(np.ndarray.tofile, np.zeros(3), "called"),
    "inside an array's state": {"data": [np.zeros(2), Calls(os.system, "touch called")]},
    "as a dict's key": {Calls(os.system, "touch called"): 1},
}


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("name", CALLS)
def test_a_call_is_refused_and_nothing_happens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, protocol: int
):
    monkeypatch.chdir(tmp_path)
    content = pickle.dumps(CALLS[name], protocol)
    refused(tmp_path, content)
    assert os.listdir(tmp_path) == ["data_batch_1"]


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("numpy.core", "multiarray._reconstruct"),
        ("numpy.core.multiarray", "_reconstruct.__globals__"),
        ("numpy._core.multiarray", "fromfile"),
        ("numpy._core.numeric", "load"),
        ("numpy", "dtype.__subclasses__"),
        ("numpy", "core.multiarray.scalar"),
        ("_codecs", "encode.__call__"),
        ("_codecs", "decode"),
        ("_codecs", "lookup"),
        ("codecs", "encode"),
        ("copyreg", "_reconstructor"),
        ("copyreg", "add_extension"),
        ("builtins", "object"),
        ("collections", "OrderedDict"),
        ("numpy.testing._private.utils", "runstring"),
        ("numpy.f2py.crackfortran", "myeval"),
        ("rethinking.data.readers.pickles", "load"),
        ("rethinking.data.readers.pickles", "_DType"),
        ("os\nname", "system\n\x1b[2J"),
    ],
)
def test_no_other_name_is_imported(tmp_path: Path, module: str, name: str):
    refused(tmp_path, b"\x80\x04" + text(module) + text(name) + b"\x93.")


@pytest.mark.parametrize(
    "content",
    [
        b"(ios\nsystem\n.",  # INST without arguments
        b"(S'touch called'\nios\nsystem\n.",
        b"\x80\x02(" + named("os", "system") + b"U\x0ctouch calledo.",  # OBJ
        b"\x80\x02" + named("os", "system") + b"U\x0ctouch called\x85\x81.",  # NEWOBJ
        b"\x80\x04" + named("os", "system") + text("touch called") + b"\x85}\x92.",  # NEWOBJ_EX
        b"\x80\x02cbuiltins\neval\n(U\x12open('called','w')tR.",
        b"cos\nsystem\n(S'touch called'\ntR.",
        b"\x80\x02Pid\n.",  # PERSID
        b"\x80\x02K\x01Q.",  # BINPERSID
        b"\x80\x05\x97.",  # NEXT_BUFFER
        b"\x80\x05C\x00\x98.",  # READONLY_BUFFER
    ],
)
def test_every_way_to_make_an_object_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes):
    monkeypatch.chdir(tmp_path)
    refused(tmp_path, content)
    assert os.listdir(tmp_path) == ["data_batch_1"]


@pytest.mark.parametrize("opcode", [b"\x82\xf0", b"\x83\xf0\x00", b"\x84\xf0\x00\x00\x00"])
def test_registered_extensions_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opcode: bytes):
    monkeypatch.chdir(tmp_path)
    refused(tmp_path, b"\x80\x02" + opcode + b"(U\x0ctouch calledtR.")
    copyreg.add_extension("posix", "system", 0xF0)
    try:
        refused(tmp_path, b"\x80\x02" + opcode + b"(U\x0ctouch calledtR.")
        pickle.loads(b"\x80\x02" + opcode + b".")  # from here on Python has it in a cache and asks for no name
        refused(tmp_path, b"\x80\x02" + opcode + b"(U\x0ctouch calledtR.")
    finally:
        copyreg.remove_extension("posix", "system", 0xF0)
    assert os.listdir(tmp_path) == ["data_batch_1"]


# What stands for NumPy's names

DTYPE = named("numpy", "dtype")
ENCODE = named("_codecs", "encode")
RECONSTRUCT = named("numpy.core.multiarray", "_reconstruct")
FROMBUFFER = named("numpy._core.numeric", "_frombuffer")
SCALAR = named("numpy.core.multiarray", "scalar")
NDARRAY = named("numpy", "ndarray")


def dtype(name: str) -> bytes:
    return DTYPE + text(name) + b"\x89\x88\x87R"


def reconstructed(shape: bytes, kind: bytes, raw: bytes) -> bytes:
    """Returns the pickle of an array with this state, in protocols up to 4."""
    return b"\x80\x04" + RECONSTRUCT + NDARRAY + b"K\x00\x85C\x01b\x87R(K\x01" + shape + kind + b"\x89" + raw + b"tb."


def test_a_hand_made_array_is_an_array(tmp_path: Path):
    content = reconstructed(b"K\x03\x85", dtype("u1"), b"C\x03\x01\x02\x03")
    assert pickles.load(file_of(tmp_path, content)).tolist() == [1, 2, 3]


@pytest.mark.parametrize("kind", ["O", "|O", "O8", "V8", "u1,u1", "i4,O", "(2,)u1", "M8[ns]", "m8", "3u1,O", "no"])
def test_types_that_are_not_simple_are_refused(tmp_path: Path, kind: str):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        refused(tmp_path, reconstructed(b"K\x01\x85", dtype(kind), b"C\x08" + bytes(8)))


def test_structured_and_object_arrays_of_numpy_are_refused(tmp_path: Path):
    structured = np.zeros(2, dtype=[("a", "u1"), ("b", "O")])
    for array in (structured, structured[["a"]], np.array([1, "a", None], dtype=object), np.zeros(2, "M8[s]")):
        for protocol in PROTOCOLS:
            refused(tmp_path, pickle.dumps(array, protocol))


HUGE = b"\x8a\x09" + (2**64).to_bytes(9, "little")  # LONG1


@pytest.mark.parametrize(
    ("shape", "raw"),
    [
        (b"K\x04\x85", b"C\x03abc"),  # larger than the bytes
        (b"K\x02\x85", b"C\x03abc"),  # smaller
        (b"J\xff\xff\xff\xff\x85", b"C\x03abc"),  # negative
        (b"J\xff\xff\xff\xffJ\xfd\xff\xff\xff\x86", b"C\x03abc"),  # negative twice
        (HUGE + b"K\x00\x86", b"C\x00"),
        (HUGE + b"\x85", b"C\x00"),
        (b"G" + struct.pack(">d", 3.0) + b"\x85", b"C\x03abc"),
        (b"N", b"C\x03abc"),
        (b"K\x03", b"C\x03abc"),
        (b"](K\x03e", b"C\x03abc"),
        (b"(" + b"K\x01" * 100 + b"K\x03t", b"C\x03abc"),  # more dimensions than NumPy has
        (b"K\x03\x85", b"](K\x01K\x02K\x03e"),  # a list of objects
        (b"K\x03\x85", b"X\x03\x00\x00\x00abc"),
        (b"K\x03\x85", b"N"),
    ],
)
def test_shapes_that_lie_are_refused(tmp_path: Path, shape: bytes, raw: bytes):
    refused(tmp_path, reconstructed(shape, dtype("u1"), raw))


@pytest.mark.parametrize(
    "content",
    [
        NDARRAY + b".",
        DTYPE + b".",
        dtype("u1") + b".",
        NDARRAY + b"K\x03\x85\x85R.",  # ndarray((3,)) has whatever was in the memory
        NDARRAY + b"K\x03\x85\x85\x81.",
        RECONSTRUCT + NDARRAY + b"K\x00\x85C\x01b\x87R.",  # no state
        RECONSTRUCT + b")\x81.",
        SCALAR + b")\x81.",
        SCALAR + dtype("u1") + b"\x85R.",
        SCALAR + dtype("O") + b"K\x01\x86R.",
        DTYPE + b")\x81.",
        DTYPE + b")R.",
        DTYPE + NDARRAY + b"\x85R.",
        DTYPE + b"}\x85R.",
        RECONSTRUCT + b")\x81N" + b"b.",
        RECONSTRUCT + b")\x81" + DTYPE + b"b.",
        ENCODE + text("abc") + text("rot13") + b"\x86R.",
        ENCODE + text("abc") + text("unicode_escape") + b"\x86R.",
        ENCODE + b"C\x03abc" + text("latin1") + b"\x86R.",
        ENCODE + b".",
        FROMBUFFER + b"(K\x03" + dtype("u1") + b"K\x03\x85" + text("C") + b"tR.",  # bytes(3) are three zeros
        FROMBUFFER + b"(](K\x01K\x02e" + dtype("u1") + b"K\x02\x85" + text("C") + b"tR.",
        FROMBUFFER + b"(C\x03abc" + dtype("u1") + b"K\x02\x85" + text("C") + b"tR.",
        FROMBUFFER + b"(C\x03abc" + dtype("O") + b"K\x03\x85" + text("C") + b"tR.",
    ],
)
def test_names_of_numpy_are_refused_for_any_other_use(tmp_path: Path, content: bytes):
    refused(tmp_path, b"\x80\x04" + content)


@pytest.mark.parametrize("state", [b"}" + text("value"), b"N}" + text("value")], ids=["dict", "slots"])
@pytest.mark.parametrize("value", [DTYPE, dtype("O4"), dtype("u1"), b"\x8f", ENCODE], ids=str)
@pytest.mark.parametrize(
    "instance", [ENCODE + text("a") + b"\x85R", SCALAR + dtype("u1") + b"C\x01\x00\x86R"], ids=["bytes", "number"]
)
def test_state_put_into_an_object_is_refused(tmp_path: Path, instance: bytes, state: bytes, value: bytes):
    """BUILD sets attributes of any object without a method for its state."""
    closing = b"s\x86b." if state.startswith(b"N") else b"sb."
    refused(tmp_path, b"\x80\x04" + instance + state + value + closing)


@pytest.mark.parametrize("target", [ENCODE, SCALAR, NDARRAY, DTYPE, RECONSTRUCT, FROMBUFFER], ids=str)
@pytest.mark.parametrize("attribute", ["__init__", "value", "array", "dtype", "__setstate__"])
def test_no_file_changes_how_the_next_one_is_read(tmp_path: Path, target: bytes, attribute: str):
    """BUILD on a name instead of an object would set attributes of a class."""
    good = pickle.dumps({"data": np.arange(6, dtype=np.uint8), "label": np.int64(3), "raw": b"abc"}, 2)
    from rethinking.data.readers.pickles import _NAMES

    before = {kind: dict(vars(kind)) for kind in _NAMES.values()}
    try:
        refused(tmp_path, b"\x80\x04" + target + b"N}" + text(attribute) + text("x") + b"s\x86b.")
        again = pickles.load(file_of(tmp_path, good))
        assert again["data"].tolist() == [0, 1, 2, 3, 4, 5]
        assert (again["label"], again["raw"]) == (3, b"abc")
    finally:  # else it is also what every other test reads with
        for kind, attributes in before.items():
            for name in [name for name in vars(kind) if vars(kind)[name] is not attributes.get(name)]:
                if name in attributes:
                    setattr(kind, name, attributes[name])
                elif name not in ("__weakref__", "__dict__"):
                    delattr(kind, name)


# Other types, damage


@pytest.mark.parametrize("value", [{1, 2}, frozenset({1}), complex(1, 2), slice(1), range(3), ..., int, len], ids=str)
def test_other_types_are_refused(tmp_path: Path, value: Any):
    refused(tmp_path, pickle.dumps({"data": value}))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_file_cut_anywhere_is_refused(tmp_path: Path, protocol: int):
    whole = pickle.dumps({"data": np.arange(8, dtype=np.uint8).reshape(2, 4), "labels": [1, 2], "name": "a"}, protocol)
    for length in range(len(whole)):
        refused(tmp_path, whole[:length])


@given(content=st.binary(max_size=40), protocol=st.booleans())
def test_arbitrary_bytes_are_plain_or_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes, protocol: bool):
    content = content.replace(b"r", b"").replace(b"p", b"")  # both may name a place far out in the memo: see below
    with contextlib.suppress(InputError):
        pickles.load(file_of(tmp_path_factory.getbasetemp(), (b"\x80\x04" if protocol else b"") + content + b"."))


def test_missing_files_and_folders_are_named(tmp_path: Path):
    with pytest.raises(InputError, match=r"cannot read .*absent"):
        pickles.load(tmp_path / "absent")
    with pytest.raises(InputError, match="cannot read"):
        pickles.load(tmp_path)


# What would never end, or need more memory than there is


def layers(opening: bytes, closing: bytes, width: int, height: int) -> bytes:
    """Returns a value of `height` levels; each holds the next level `width` times, by reference."""
    content = b"\x80\x04" + b"]q\x00"
    for level in range(1, height):
        content += opening + (b"h" + bytes([level - 1])) * width + closing + b"q" + bytes([level])
    return content + b"."


PAIRS = b"".join(b"K" + bytes([key]) + b"h\x00" for key in range(100))
BOMBS = {
    "a list in itself": b"\x80\x04]q\x00h\x00a.",
    "a list in itself many times": b"\x80\x04]q\x00(" + b"h\x00" * 100 + b"e.",
    "a dict in itself many times": b"\x80\x04}q\x00(" + PAIRS + b"u.",
    "a tuple in itself": b"\x80\x04(](h\x00etq\x00.",
    "lists of lists by reference": layers(b"](", b"e", 100, 15),
    "tuples of tuples by reference": layers(b"(", b"t", 100, 15),
    "lists two wide and very high": layers(b"](", b"e", 2, 250),
    "deep lists": b"\x80\x04" + b"]" * 3_000_000 + b"a" * 2_999_999 + b".",
    "deep tuples": b"\x80\x04)" + b"\x85" * 3_000_000 + b".",
    "deep tuples as a key": b"\x80\x04})" + b"\x85" * 3_000_000 + b"K\x01s.",
    "many marks": b"\x80\x04" + b"(" * 3_000_000 + b".",
    "a shape of many sides": reconstructed(
        b"\x8a\x08" + bytes(7) + b"\x40\x940(" + b"h\x00" * 3_000_000 + b"t", dtype("u1"), b"C\x00"
    ),
    "bytes that are not there": b"\x80\x04\x8e" + (1 << 40).to_bytes(8, "little") + b"abc.",
    "a text that is not there": b"\x80\x04\x8d" + (1 << 62).to_bytes(8, "little") + b"abc.",
    "a frame that is not there": b"\x80\x04\x95" + (1 << 62).to_bytes(8, "little") + b"N.",
    "an integer that is not there": b"\x80\x02\x8b\xff\xff\xff\x7fabc.",
    "an integer of many digits": b"I" + b"9" * 3_000_000 + b"\n.",
    "a buffer of a number of bytes": b"\x80\x04"
    + FROMBUFFER
    + b"(\x8a\x05\x00\x00\x00\x00\x01"
    + dtype("u1")
    + b"\x8a\x05\x00\x00\x00\x00\x01\x85"
    + text("C")
    + b"tR.",
}


@pytest.mark.parametrize("name", BOMBS)
def test_what_never_ends_is_refused(tmp_path: Path, name: str):
    told, peak = loaded_elsewhere(file_of(tmp_path, BOMBS[name]))
    assert told.startswith("refused:")
    assert "data_batch_1" in told
    assert peak < 1024


@pytest.mark.parametrize("opcode", [b"r" + (1 << 26).to_bytes(4, "little"), b"p%d\n" % (1 << 26)], ids=["r", "p"])
def test_a_place_far_out_in_the_memo_costs_no_memory(tmp_path: Path, opcode: bytes):
    """Python's memo grows to the largest index, so a file of 10 bytes could fill the memory."""
    _, peak = loaded_elsewhere(file_of(tmp_path, b"\x80\x02]" + opcode + b"."))
    assert peak < 256
