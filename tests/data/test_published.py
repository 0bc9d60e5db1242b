"""Data sets in the files of their authors, torchvision, Keras and MedMNIST, compared with the written arrays."""

import contextlib
import gzip
import io
import os
import pickle
import re
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rethinking.data import sources
from rethinking.data.images import ImageData, ImageSet
from rethinking.data.readers.contents import ReadOptions
from rethinking.errors import InputError

CASES = Path(__file__).parents[2].parent / "shared" / "cases"
CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RETHINKING_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def pixels(count: int, *shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)


def assert_holds(split: ImageSet | None, images: np.ndarray, labels: Any) -> None:
    """images: (n, height, width) or (n, channels, height, width)."""
    assert split is not None
    expected = images[:, None] if images.ndim == 3 else images
    assert split.images.dtype == np.uint8
    assert np.array_equal(split.images, expected)
    assert split.labels.tolist() == list(labels)


def assert_refused(path: Path, *words: str, options: ReadOptions = ReadOptions()) -> None:  # noqa: B008  # frozen
    with pytest.raises(InputError) as caught:
        sources.load(str(path), options=options)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


# CIFAR


def python_2(value: Any) -> bytes:
    """Writes, opcode by opcode, what Python 2 and NumPy 1 wrote with protocol 2."""
    if isinstance(value, bytes):
        return b"U" + bytes([len(value)]) + value if len(value) < 256 else b"T" + struct.pack("<I", len(value)) + value
    if isinstance(value, int):
        return b"J" + struct.pack("<i", value)
    if isinstance(value, list):
        return b"](" + b"".join(map(python_2, value)) + b"e"
    if isinstance(value, dict):
        return b"}(" + b"".join(python_2(key) + python_2(member) for key, member in value.items()) + b"u"
    assert isinstance(value, np.ndarray)
    kind = b"cnumpy\ndtype\n(U\x02u1K\x00K\x01tR(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    shape = b"(" + b"".join(map(python_2, value.shape)) + b"t"
    empty = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tU\x01btR"
    order = b"\x89" if value.flags.c_contiguous else b"\x88"
    return empty + b"(K\x01" + shape + kind + order + python_2(value.tobytes("A")) + b"tb"


def old(value: Any) -> bytes:
    return b"\x80\x02" + python_2(value) + b"."


WRITERS: dict[str, Callable[[Any], bytes]] = {
    "python 2": old,
    **{f"protocol {number}": lambda value, number=number: pickle.dumps(value, number) for number in (2, 3, 4, 5)},
}


def write_cifar10(folder: Path, write: Callable[[Any], bytes] = old, seed: int = 0) -> tuple[np.ndarray, list[int]]:
    """Writes six batches of two images each; returns all 12 with their labels, test images last."""
    images = pixels(12, 3, 32, 32, seed=seed)
    labels = [0, 9, 3, 3, 1, 2, 4, 5, 6, 7, 8, 0]
    folder.mkdir(parents=True)
    names = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]
    for index, name in enumerate(names):
        rows = slice(2 * index, 2 * index + 2)
        batch = {
            b"batch_label": f"batch {name}".encode(),
            b"labels": labels[rows],
            b"data": images[rows].reshape(2, -1),
            b"filenames": [b"a.png", b"b.png"],
        }
        (folder / name).write_bytes(write(batch))
    meta = {b"num_cases_per_batch": 2, b"label_names": [name.encode() for name in CIFAR10], b"num_vis": 3072}
    (folder / "batches.meta").write_bytes(write(meta))
    (folder / "readme.html").write_text("<html>")
    return images, labels


@pytest.mark.parametrize("writer", WRITERS)
def test_cifar10_of_any_python_is_read(tmp_path: Path, writer: str):
    images, labels = write_cifar10(tmp_path / "cifar-10-batches-py", WRITERS[writer])
    data = sources.load(str(tmp_path / "cifar-10-batches-py"))
    assert data.class_names == CIFAR10
    assert_holds(data.train, images[:10], labels[:10])
    assert_holds(data.test, images[10:], labels[10:])


def test_text_keys_and_fortran_order_are_read(tmp_path: Path):
    def write(value: dict[bytes, Any]) -> bytes:
        told = {key.decode(): member for key, member in value.items()}
        if "data" in told:
            told["data"] = np.asfortranarray(told["data"])
            told["labels"] = np.array(told["labels"], dtype=np.uint8)
        return pickle.dumps(told, 4)

    images, labels = write_cifar10(tmp_path / "cifar", write)
    data = sources.load(str(tmp_path / "cifar"))
    assert_holds(data.train, images[:10], labels[:10])


def test_python_2_writes_fortran_order_too(tmp_path: Path):
    images, labels = write_cifar10(tmp_path / "cifar")
    batch = {b"labels": labels[:2], b"data": np.asfortranarray(images[:2].reshape(2, -1))}
    (tmp_path / "cifar/data_batch_1").write_bytes(old(batch))
    assert_holds(sources.load(str(tmp_path / "cifar")).train, images[:10], labels[:10])


@pytest.mark.parametrize("writer", WRITERS)
def test_cifar100_takes_the_fine_labels(tmp_path: Path, writer: str):
    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    images, fine = pixels(6, 3, 32, 32), [2, 0, 1, 2, 1, 0]
    for name, rows in (("train", slice(4)), ("test", slice(4, 6))):
        batch = {
            b"filenames": [b"a.png"] * len(fine[rows]),
            b"fine_labels": fine[rows],
            b"coarse_labels": [0] * len(fine[rows]),
            b"data": images[rows].reshape(-1, 3072),
        }
        (folder / name).write_bytes(WRITERS[writer](batch))
    meta = {b"fine_label_names": [b"apple", b"aquarium_fish", b"baby"], b"coarse_label_names": [b"fruit"]}
    (folder / "meta").write_bytes(WRITERS[writer](meta))
    data = sources.load(str(folder))
    assert data.class_names == ("apple", "aquarium_fish", "baby")
    assert_holds(data.train, images[:4], fine[:4])
    assert_holds(data.test, images[4:], fine[4:])


def write_binary(folder: Path, files: dict[str, slice], columns: list[np.ndarray], images: np.ndarray) -> None:
    folder.mkdir(parents=True)
    rows = np.concatenate([*(column[:, None] for column in columns), images.reshape(len(images), -1)], axis=1)
    for name, part in files.items():
        (folder / name).write_bytes(rows[part].astype(np.uint8).tobytes())


BINARY = {
    **{f"data_batch_{number}.bin": slice(2 * number - 2, 2 * number) for number in range(1, 6)},
    "test_batch.bin": slice(10, 12),
}


def test_cifar10_of_c_is_read(tmp_path: Path):
    images, labels = pixels(12, 3, 32, 32), np.arange(12) % 10
    write_binary(tmp_path / "cifar-10-batches-bin", BINARY, [labels], images)
    (tmp_path / "cifar-10-batches-bin/batches.meta.txt").write_text("\n".join(CIFAR10) + "\n\n")
    data = sources.load(str(tmp_path / "cifar-10-batches-bin"))
    assert data.class_names == CIFAR10
    assert_holds(data.train, images[:10], labels[:10])
    assert_holds(data.test, images[10:], labels[10:])


def test_cifar100_of_c_takes_the_fine_labels(tmp_path: Path):
    images, fine, coarse = pixels(6, 3, 32, 32), np.array([2, 0, 1, 2, 1, 0]), np.array([7, 8, 9, 7, 9, 8])
    write_binary(tmp_path / "c", {"train.bin": slice(4), "test.bin": slice(4, 6)}, [coarse, fine], images)
    (tmp_path / "c/fine_label_names.txt").write_text("apple\naquarium_fish\nbaby\n")
    (tmp_path / "c/coarse_label_names.txt").write_text("fruit\n")
    data = sources.load(str(tmp_path / "c"))
    assert data.class_names == ("apple", "aquarium_fish", "baby")
    assert_holds(data.train, images[:4], fine[:4])
    assert_holds(data.test, images[4:], fine[4:])


@pytest.mark.parametrize("missing", [1, 3, 5])
@pytest.mark.parametrize("ending", ["", ".bin"])
def test_a_missing_batch_is_named(tmp_path: Path, missing: int, ending: str):
    if ending:
        write_binary(tmp_path / "cifar", BINARY, [np.arange(12) % 10], pixels(12, 3, 32, 32))
    else:
        write_cifar10(tmp_path / "cifar")
    (tmp_path / f"cifar/data_batch_{missing}{ending}").unlink()
    assert_refused(tmp_path / "cifar", f"data_batch_{missing}{ending}")


def test_without_a_test_batch_there_is_no_test_set(tmp_path: Path):
    write_cifar10(tmp_path / "cifar")
    (tmp_path / "cifar/test_batch").unlink()
    data = sources.load(str(tmp_path / "cifar"))
    assert (len(data.train), data.test) == (10, None)
    assert "no test set" in data.described()[-1]


def test_without_names_the_classes_are_numbers(tmp_path: Path):
    _, labels = write_cifar10(tmp_path / "cifar")
    (tmp_path / "cifar/batches.meta").unlink()
    data = sources.load(str(tmp_path / "cifar"))
    assert [data.class_names[label] for label in data.train.labels] == [str(label) for label in labels[:10]]


@pytest.mark.parametrize("name", ["data_batch_2", "batches.meta", "test_batch"])
def test_a_cut_pickle_is_named(tmp_path: Path, name: str):
    write_cifar10(tmp_path / "cifar")
    file = tmp_path / "cifar" / name
    file.write_bytes(file.read_bytes()[:-200])
    assert_refused(tmp_path / "cifar", name)


def test_a_cut_binary_batch_is_named(tmp_path: Path):
    write_binary(tmp_path / "cifar", BINARY, [np.arange(12) % 10], pixels(12, 3, 32, 32))
    file = tmp_path / "cifar/data_batch_4.bin"
    for kept in (0, 1, 3072, 6145):
        file.write_bytes(bytes(kept))
        assert_refused(tmp_path / "cifar", "data_batch_4.bin")


@pytest.mark.parametrize(
    "change",
    [
        {b"labels": [1]},
        {b"labels": [1, 2, 3]},
        {b"labels": [b"cat", b"dog"]},
        {b"labels": ["cat", None]},
        {b"labels": [[1], [2]]},
        {b"labels": [1, 1.5]},
        {b"labels": [1, float("nan")]},
        {b"labels": [1, float("inf")]},
        {b"labels": 5},
        {b"labels": None},
        {b"labels": np.zeros((2, 2), dtype=np.uint8)},
        {b"labels": np.array(1)},
        {b"labels": [1, 10]},
        {b"labels": [1, -2]},
        {b"labels": [1, -1]},
        {b"labels": [1, 2**70]},
        {b"labels": {0: 1, 1: 2}},
        {b"data": [[0] * 3072] * 2},
        {b"data": np.zeros((2, 3071), dtype=np.uint8)},
        {b"data": np.zeros((2, 3072), dtype=np.float32)},
        {b"data": np.zeros(6144, dtype=np.uint8)},
        {b"data": b"\0" * 6144},
    ],
    ids=str,
)
def test_a_file_without_a_batch_is_named(tmp_path: Path, change: dict[bytes, Any]):
    images, labels = write_cifar10(tmp_path / "cifar")
    batch = {b"data": images[:2].reshape(2, -1), b"labels": labels[:2]} | change
    (tmp_path / "cifar/data_batch_1").write_bytes(pickle.dumps(batch))
    assert_refused(tmp_path / "cifar")


@pytest.mark.parametrize("content", [[], {}, {b"label_names": 3}, {b"label_names": b"abc"}, {b"label_names": []}])
def test_a_meta_file_without_names_is_refused(tmp_path: Path, content: Any):
    write_cifar10(tmp_path / "cifar")
    (tmp_path / "cifar/batches.meta").write_bytes(pickle.dumps(content))
    assert_refused(tmp_path / "cifar")


def test_a_batch_that_would_run_something_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    write_cifar10(tmp_path / "cifar")
    (tmp_path / "cifar/data_batch_3").write_bytes(b"cos\nsystem\n(S'touch called'\ntR.")
    assert_refused(tmp_path / "cifar", "data_batch_3", "os.system")
    assert not (tmp_path / "called").exists()


# MNIST


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


IMAGES = pixels(14, 28, 28)
LABELS = np.array([3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 3, 1, 4], dtype=np.uint8)
MNIST = {
    "train-images-idx3-ubyte": idx(IMAGES[:10]),
    "train-labels-idx1-ubyte": idx(LABELS[:10]),
    "t10k-images-idx3-ubyte": idx(IMAGES[10:]),
    "t10k-labels-idx1-ubyte": idx(LABELS[10:]),
}


def write_mnist(folder: Path, ending: str = "", files: dict[str, bytes] = MNIST) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / f"{name}{ending}").write_bytes(gzip.compress(content) if ending else content)


def assert_is_mnist(data: ImageData) -> None:
    assert data.image_shape == (1, 28, 28)
    for split, images, labels in ((data.train, IMAGES[:10], LABELS[:10]), (data.test, IMAGES[10:], LABELS[10:])):
        assert split is not None
        assert np.array_equal(split.images[:, 0], images)
        assert [data.class_names[label] for label in split.labels] == [str(label) for label in labels]


@pytest.mark.parametrize("endings", [[""], [".gz"], ["", ".gz"]], ids=["plain", "gzip", "both"])
@pytest.mark.parametrize("folder", [".", "MNIST/raw", "raw"])
def test_mnist_is_read_packed_or_not_and_in_its_raw_folder(tmp_path: Path, endings: list[str], folder: str):
    for ending in endings:
        write_mnist(tmp_path / "digits" / folder, ending)
    assert_is_mnist(sources.load(str(tmp_path / "digits")))


@pytest.mark.parametrize("separator", [".idx3-ubyte", "-idx3.ubyte", "_idx3_ubyte"])
def test_other_spellings_of_the_file_names_are_read(tmp_path: Path, separator: str):
    ends = {"-idx3-ubyte": separator, "-idx1-ubyte": separator.replace("3", "1")}
    files = {name[:-11] + ends[name[-11:]]: content for name, content in MNIST.items()}
    write_mnist(tmp_path / "digits", files=files)
    assert_is_mnist(sources.load(str(tmp_path / "digits")))


def test_folders_named_like_the_files_beside_them_are_passed_over(tmp_path: Path):
    """Kaggle's copy has train-images.idx3-ubyte, and train-images-idx3-ubyte/train-images-idx3-ubyte."""
    write_mnist(tmp_path / "digits", files={name.replace("-idx", ".idx"): content for name, content in MNIST.items()})
    for name, content in MNIST.items():
        write_mnist(tmp_path / "digits" / name, files={name: content})
    assert_is_mnist(sources.load(str(tmp_path / "digits")))


@pytest.mark.parametrize("ending", ["", ".gz"])
@pytest.mark.parametrize("name", MNIST)
def test_a_cut_idx_file_is_named(tmp_path: Path, ending: str, name: str):
    write_mnist(tmp_path / "digits", ending)
    file = tmp_path / "digits" / f"{name}{ending}"
    whole = file.read_bytes()
    for kept in (0, 2, 7, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:kept])
        assert_refused(tmp_path / "digits", name)


def test_a_damaged_byte_of_a_packed_file_is_noticed(tmp_path: Path):
    write_mnist(tmp_path / "digits", ".gz")
    file = tmp_path / "digits/train-images-idx3-ubyte.gz"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(bytes(content))
    assert_refused(tmp_path / "digits", "train-images-idx3-ubyte.gz")


@pytest.mark.parametrize("ending", ["", ".gz"])
@pytest.mark.parametrize(
    "content",
    [
        struct.pack(">4I", 2051, 2**32 - 1, 2**32 - 1, 2**32 - 1),
        struct.pack(">4I", 2051, 2**31, 28, 28) + bytes(784),
        struct.pack(">4I", 2051, 11, 28, 28) + bytes(10 * 784),
        struct.pack(">4I", 2051, 9, 28, 28) + bytes(10 * 784),
        struct.pack(">4I", 2051, 10, 0, 28),
        struct.pack(">4I", 2051, 0, 28, 28),
        struct.pack(">4I", 2049, 10, 28, 28) + bytes(7840),
        struct.pack(">4I", 0x0D03, 10, 28, 28) + bytes(4 * 7840),
        struct.pack("<4I", 2051, 10, 28, 28) + bytes(7840),
        b"<html>not found</html>",
        struct.pack(">4I", 2051, 5, 28, 28) + bytes(5 * 784),  # of five, beside ten labels
    ],
    ids=["all", "many", "more", "fewer", "flat", "none", "magic", "floats", "order", "html", "labels"],
)
def test_a_header_that_lies_is_refused(tmp_path: Path, ending: str, content: bytes):
    write_mnist(tmp_path / "digits", ending, MNIST | {"train-images-idx3-ubyte": content})
    assert_refused(tmp_path / "digits")


def test_a_bomb_is_not_unpacked(tmp_path: Path):
    import resource

    write_mnist(tmp_path / "digits", ".gz")
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb") as bomb:
        bomb.write(struct.pack(">4I", 2051, 10, 28, 28))
        for _ in range(500):
            bomb.write(bytes(1 << 20))
    (tmp_path / "digits/train-images-idx3-ubyte.gz").write_bytes(packed.getvalue())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert_refused(tmp_path / "digits", "train-images-idx3-ubyte.gz")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 * 1024


@pytest.mark.parametrize("missing", MNIST)
def test_a_missing_idx_file_is_reported(tmp_path: Path, missing: str):
    write_mnist(tmp_path / "digits", files={name: content for name, content in MNIST.items() if name != missing})
    assert_refused(tmp_path / "digits", "labels" if "labels" in missing else "images")


def test_a_training_set_alone_is_read(tmp_path: Path):
    write_mnist(tmp_path / "digits", files={name: content for name, content in MNIST.items() if "train" in name})
    data = sources.load(str(tmp_path / "digits"))
    assert (len(data.train), data.test) == (10, None)


# NumPy's files

COLOURED = pixels(14, 8, 6, 3)
FEW = np.array([0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 2])


def arrays_of(names: str, images: np.ndarray = COLOURED, labels: np.ndarray = FEW) -> dict[str, np.ndarray]:
    """names: names of training images and labels, then of test images and labels"""
    parts = (images[:10], labels[:10], images[10:], labels[10:])
    return dict(zip(names.split(), parts, strict=True))


KERAS = "x_train y_train x_test y_test"
MEDMNIST = "train_images train_labels test_images test_labels"


@pytest.mark.parametrize(
    "names", [KERAS, MEDMNIST, "X_train Y_train X_test Y_test", "train_x train_y test_x test_y", "x y x_test y_test"]
)
@pytest.mark.parametrize("form", ["npz", "compressed", "npy"])
def test_arrays_of_usual_names_are_read(tmp_path: Path, names: str, form: str):
    given = arrays_of(names)
    place = tmp_path / "given"
    if form == "npy":
        place.mkdir()
        for name, array in given.items():
            np.save(place / f"{name}.npy", array)
    else:
        place = tmp_path / "given.npz"
        (np.savez_compressed if form == "compressed" else np.savez)(place, **given)
    data = sources.load(str(place))
    assert (data.name, data.class_names) == ("given", ("0", "1", "2"))
    assert_holds(data.train, COLOURED[:10].transpose(0, 3, 1, 2), FEW[:10])
    assert_holds(data.test, COLOURED[10:].transpose(0, 3, 1, 2), FEW[10:])


def load_npz(folder: Path, **given: np.ndarray) -> ImageData:
    np.savez(folder / "given.npz", **given)
    return sources.load(str(folder / "given.npz"))


def test_labels_in_a_column_and_validation_images_as_medmnist_has_them(tmp_path: Path):
    given = arrays_of(MEDMNIST, labels=FEW[:, None].astype(np.uint8))
    data = load_npz(tmp_path, **given, val_images=COLOURED[:3], val_labels=FEW[:3, None])
    assert_holds(data.train, COLOURED[:10].transpose(0, 3, 1, 2), FEW[:10])
    assert_holds(data.test, COLOURED[10:].transpose(0, 3, 1, 2), FEW[10:])
    assert any("3 images" in note and "val" in note for note in data.notes)


def test_validation_images_are_the_test_set_where_there_is_no_other(tmp_path: Path):
    given = arrays_of("train_images train_labels val_images val_labels")
    data = load_npz(tmp_path, **given)
    assert_holds(data.test, COLOURED[10:].transpose(0, 3, 1, 2), FEW[10:])
    assert any("val" in note for note in data.notes)


@pytest.mark.parametrize(
    ("labels", "class_names"),
    [
        (np.array(["ant", "cat", "dog"])[FEW], ("ant", "cat", "dog")),
        (np.array([b"ant", b"cat", b"dog"])[FEW], ("ant", "cat", "dog")),
        (FEW.astype(np.float32), ("0", "1", "2")),
        (FEW.astype(np.float16), ("0", "1", "2")),
        (FEW.astype(">f8"), ("0", "1", "2")),
        (FEW.astype(np.uint8), ("0", "1", "2")),
        (FEW.astype(np.uint64), ("0", "1", "2")),
        (FEW.astype(">i4"), ("0", "1", "2")),
        (np.array([7, 100, 1000])[FEW], ("7", "100", "1000")),
        (np.array([0, 254, 255], dtype=np.uint8)[FEW], ("0", "254", "255")),
        (FEW == 0, ("False", "True")),
    ],
    ids=str,
)
def test_labels_of_every_type_are_classes(tmp_path: Path, labels: np.ndarray, class_names: tuple[str, ...]):
    data = load_npz(tmp_path, **arrays_of(KERAS, labels=labels))
    assert data.class_names == class_names
    for split, part in ((data.train, labels[:10]), (data.test, labels[10:])):
        assert split is not None
        named = [data.class_names[label] for label in split.labels]
        texts = [value.decode() if isinstance(value, bytes) else value for value in part.tolist()]
        assert named == [str(int(value)) if isinstance(value, float) else str(value) for value in texts]


@pytest.mark.parametrize("kinds", [(np.int64, np.uint64), (np.uint64, np.int32), (np.float32, np.int64)])
def test_labels_of_two_types_are_matched(tmp_path: Path, kinds: tuple[type, type]):
    given = arrays_of(KERAS)
    given |= {"y_train": given["y_train"].astype(kinds[0]), "y_test": given["y_test"].astype(kinds[1])}
    data = load_npz(tmp_path, **given)
    assert data.class_names == ("0", "1", "2")
    assert_holds(data.test, COLOURED[10:].transpose(0, 3, 1, 2), FEW[10:])


def test_labels_that_are_no_classes_are_refused(tmp_path: Path):
    for labels in (FEW + 0.5, np.eye(3)[FEW], FEW[:, None, None], FEW + 0j, FEW.astype("M8[s]")):
        np.savez(tmp_path / "given.npz", **arrays_of(KERAS, labels=labels))
        assert_refused(tmp_path / "given.npz")


def test_missing_labels_are_counted_and_left_out_on_request(tmp_path: Path):
    labels = FEW.astype(np.float64)
    labels[[1, 4]] = -1, np.nan
    np.savez(tmp_path / "given.npz", **arrays_of(KERAS, labels=labels))
    assert_refused(tmp_path / "given.npz", "2 of the 10 images", "--skip_unlabelled")
    data = sources.load(str(tmp_path / "given.npz"), options=ReadOptions(skip_unlabelled=True))
    kept = [0, 2, 3, 5, 6, 7, 8, 9]
    assert_holds(data.train, COLOURED[kept].transpose(0, 3, 1, 2), FEW[kept])
    assert any("2 images" in note for note in data.notes)


@pytest.mark.parametrize("missing", [-1.0, np.nan])
def test_a_test_set_without_labels_gives_way_to_validation_images(tmp_path: Path, missing: float):
    given = arrays_of(KERAS, labels=FEW.astype(np.float64)) | {"x_val": COLOURED[:3], "y_val": FEW[:3]}
    data = load_npz(tmp_path, **given | {"y_test": np.full(4, missing)})
    assert_holds(data.test, COLOURED[:3].transpose(0, 3, 1, 2), FEW[:3])
    assert any("4 images" in note and "no labels" in note for note in data.notes)


def test_channels_may_come_first(tmp_path: Path):
    for channels in (1, 3):
        images = pixels(14, channels, 8, 6)
        assert_holds(load_npz(tmp_path, **arrays_of(KERAS, images)).train, images[:10], FEW[:10])


def test_transparency_comes_last(tmp_path: Path):
    images = pixels(14, 4, 8, 6)
    np.savez(tmp_path / "given.npz", **arrays_of(KERAS, images))
    assert_refused(tmp_path / "given.npz", "4, 8, 6)", "(n, height, width, 1, 3 or 4) or (n, 1 or 3, height, width)")
    np.savez(tmp_path / "given.npz", **arrays_of(KERAS, images.transpose(0, 2, 3, 1)))
    assert sources.load(str(tmp_path / "given.npz"), options=ReadOptions(colour="rgb")).image_shape == (3, 8, 6)


def test_grey_images_have_one_channel_or_none(tmp_path: Path):
    for images in (pixels(14, 8, 6), pixels(14, 8, 6, 1)):
        data = load_npz(tmp_path, **arrays_of(KERAS, images))
        assert_holds(data.train, images.reshape(14, 8, 6)[:10], FEW[:10])


def test_arrays_in_fortran_order_are_read(tmp_path: Path):
    data = load_npz(tmp_path, **arrays_of(KERAS, np.asfortranarray(COLOURED)))
    assert_holds(data.train, COLOURED[:10].transpose(0, 3, 1, 2), FEW[:10])


def test_16_bit_grey_needs_its_option(tmp_path: Path):
    images = np.random.default_rng(0).integers(0, 65536, (14, 8, 6), dtype=np.uint16)
    np.savez(tmp_path / "given.npz", **arrays_of(KERAS, images))
    assert_refused(tmp_path / "given.npz", "--colour")
    data = sources.load(str(tmp_path / "given.npz"), options=ReadOptions(colour="grey"))
    assert_holds(data.train, np.round(images[:10] / 257).astype(np.uint8), FEW[:10])


@pytest.mark.parametrize(
    "images",
    [
        COLOURED / 255,
        COLOURED.astype(np.int64),
        COLOURED.astype(np.int8),
        COLOURED[..., 0, 0],
        COLOURED[..., :2],
        COLOURED[:13],
        pixels(14, 2, 2, 2, 3),
    ],
    ids=["floats", "int64", "int8", "flat", "two channels", "one fewer", "volumes"],
)
def test_images_of_no_known_shape_are_refused(tmp_path: Path, images: np.ndarray):
    np.savez(tmp_path / "given.npz", **arrays_of(KERAS, images))
    assert_refused(tmp_path / "given.npz", "given.npz")


class Touches:
    """An object that creates a file when it is unpickled."""

    def __reduce__(self) -> Any:
        return os.system, ("touch called",)


@pytest.mark.parametrize("form", ["npz", "npy"])
@pytest.mark.parametrize("name", KERAS.split())
def test_object_arrays_are_never_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str, name: str):
    monkeypatch.chdir(tmp_path)
    given = arrays_of(KERAS)
    given[name] = np.array([Touches()] * len(given[name]), dtype=object)
    if form == "npz":
        np.savez(tmp_path / "given.npz", **given)
    else:
        (tmp_path / "given").mkdir()
        for one, array in given.items():
            np.save(tmp_path / "given" / f"{one}.npy", array)
    assert_refused(tmp_path / ("given.npz" if form == "npz" else "given"), "objects")
    assert not (tmp_path / "called").exists()


def member(array: np.ndarray) -> bytes:
    content = io.BytesIO()
    np.save(content, array)
    return content.getvalue()


def write_zip(file: Path, members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def test_members_with_paths_are_written_nowhere(tmp_path: Path):
    inner = tmp_path / "one/two"
    inner.mkdir(parents=True)
    hostile = {f"{path}x_train.npy": member(COLOURED) for path in ("../../", "/tmp/rethinking-hostile/", "a/../../")}
    write_zip(inner / "given.npz", {f"{name}.npy": member(array) for name, array in arrays_of(KERAS).items()} | hostile)
    data = sources.load(str(inner / "given.npz"))
    assert_holds(data.train, COLOURED[:10].transpose(0, 3, 1, 2), FEW[:10])
    assert not list(tmp_path.rglob("x_train.npy"))
    assert not Path("/tmp/rethinking-hostile").exists()


def header(text: str, version: bytes = b"\x01\x00") -> bytes:
    size = struct.pack("<H" if version[0] == 1 else "<I", len(text))
    return b"\x93NUMPY" + version + size + text.encode("latin-1")


def declared(shape: str, descr: str = "'|u1'") -> str:
    return f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n"


HEADERS = {
    "larger": header(declared("(10, 800, 600, 3)")),
    "enormous": header(declared(f"(10, {2**62}, {2**62})")),
    "negative": header(declared("(10, -8, -6, 3)")),
    "no tuple": header(declared("10")),
    "objects": header(declared("(10,)", "'|O'")),
    "objects in fields": header(declared("(10,)", "[('a', '|O')]")),
    "a call": header("__import__('os').system('touch called')\n"),
    "open brackets": header("{'descr': '|u1', (((\n"),
    "open text": header("{'descr': '''\n"),
    "indented": header("{\n  }\n }\n"),
    "a backslash": header("{'descr': \\"),
    "deep": header("(" * 5000 + "\n"),
    "deep minus": header("-" * 9000 + "1\n"),
    "long": header(declared("(10,)") + " " * 60000),
    "empty": header(""),
    "a NUL": header("{'descr': \0}\n"),
    "version 9": header(declared("(10, 8, 6, 3)"), b"\x09\x00"),
    "version 2 of 4 GiB": b"\x93NUMPY\x02\x00\xff\xff\xff\xff",
    "cut magic": b"\x93NUM",
    "nothing": b"",
    "html": b"<html>",
}


@pytest.mark.parametrize("form", ["npz", "npy"])
@pytest.mark.parametrize("kind", HEADERS)
def test_hostile_headers_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, form: str):
    monkeypatch.chdir(tmp_path)
    members = {f"{name}.npy": member(array) for name, array in arrays_of(KERAS).items()}
    members["x_train.npy"] = HEADERS[kind] + COLOURED[:10].tobytes()
    if form == "npz":
        write_zip(tmp_path / "given.npz", members)
    else:
        (tmp_path / "given").mkdir()
        for name, content in members.items():
            (tmp_path / "given" / name).write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Python's parser
        assert_refused(tmp_path / ("given.npz" if form == "npz" else "given"))
    assert not (tmp_path / "called").exists()


def test_a_zip_bomb_is_not_unpacked(tmp_path: Path):
    """One member declares a small size, and another declares half a TiB."""
    import resource

    members = {f"{name}.npy": member(array) for name, array in arrays_of(KERAS).items()}
    write_zip(
        tmp_path / "long.npz",
        members | {"x_train.npy": members["x_train.npy"] + bytes(300 << 20)},
        zipfile.ZIP_DEFLATED,
    )
    write_zip(tmp_path / "large.npz", members, zipfile.ZIP_DEFLATED)
    content = bytearray((tmp_path / "large.npz").read_bytes())
    place = content.index(b"PK\x01\x02")  # the directory's entry of x_train
    content[place + 24 : place + 28] = struct.pack("<I", 2**32 - 2)
    (tmp_path / "large.npz").write_bytes(bytes(content))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for name in ("long", "large"):
        with contextlib.suppress(InputError):
            data = sources.load(str(tmp_path / f"{name}.npz"))
            assert_holds(data.train, COLOURED[:10].transpose(0, 3, 1, 2), FEW[:10])
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 * 1024


@pytest.mark.parametrize("write", [np.savez, np.savez_compressed])
def test_a_cut_or_damaged_archive_is_named(tmp_path: Path, write: Callable[..., None]):
    file = tmp_path / "given.npz"
    write(file, **arrays_of(KERAS))
    whole = file.read_bytes()
    for kept in (0, 1, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:kept])
        assert_refused(file, "given.npz")
    flipped = bytearray(whole)
    flipped[700] ^= 0xFF
    file.write_bytes(bytes(flipped))
    assert_refused(file, "given.npz")


def test_a_locked_archive_is_named(tmp_path: Path):
    file = tmp_path / "given.npz"
    np.savez(file, **arrays_of(KERAS))
    content = bytearray(file.read_bytes())
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        for found in re.finditer(re.escape(signature), bytes(content)):
            content[found.start() + flags] |= 1
    file.write_bytes(bytes(content))
    assert_refused(file, "given.npz")


def test_a_cut_npy_file_is_named(tmp_path: Path):
    (tmp_path / "given").mkdir()
    for name, array in arrays_of(KERAS).items():
        np.save(tmp_path / "given" / f"{name}.npy", array)
    file = tmp_path / "given/x_train.npy"
    whole = file.read_bytes()
    for kept in (0, 5, 60, len(whole) - 1):
        file.write_bytes(whole[:kept])
        assert_refused(tmp_path / "given", "x_train.npy")


def test_unexpected_array_names_are_listed(tmp_path: Path):
    np.savez(tmp_path / "given.npz", COLOURED, FEW)
    assert_refused(tmp_path / "given.npz", "arr_0, arr_1", "x_train, y_train")


@pytest.mark.parametrize("name", ["mean.npy", "features.npz"])
def test_arrays_beside_folders_of_images_are_other_files(tmp_path: Path, name: str):
    from PIL import Image

    for split in ("train", "test"):
        for kind in ("cat", "dog"):
            (tmp_path / "pets" / split / kind).mkdir(parents=True)
            Image.fromarray(COLOURED[0]).save(tmp_path / "pets" / split / kind / "a.png")
    np.save(tmp_path / "mean.npy", COLOURED.mean(axis=0))
    np.savez(tmp_path / "features.npz", mean=COLOURED.mean(axis=0))
    (tmp_path / name).rename(tmp_path / "pets" / name)
    data = sources.load(str(tmp_path / "pets"))
    assert (data.class_names, len(data.train)) == (("cat", "dog"), 2)


# Named data sets


def torchvision_root(root: Path) -> None:
    write_cifar10(root / "cifar-10-batches-py")
    (root / "cifar-10-python.tar.gz").write_bytes(b"the archive that it was unpacked from")
    folder = root / "cifar-100-python"
    folder.mkdir()
    for name, count in (("train", 4), ("test", 2)):
        batch = {b"data": pixels(count, 3072, seed=1), b"fine_labels": [2, 0, 1, 2][:count]}
        (folder / name).write_bytes(old(batch))
    (folder / "meta").write_bytes(old({b"fine_label_names": [b"apple", b"aquarium_fish", b"baby"]}))
    (root / "cifar-100-python.tar.gz").write_bytes(b"")
    write_mnist(root / "MNIST/raw")
    write_mnist(root / "MNIST/raw", ".gz")
    write_mnist(root / "FashionMNIST/raw")
    write_mnist(root / "FashionMNIST/raw", ".gz")


@pytest.mark.parametrize(
    ("dataset", "count", "shape"),
    [
        ("cifar10", 10, (3, 32, 32)),
        ("CIFAR10", 10, (3, 32, 32)),
        ("CIFAR-10", 10, (3, 32, 32)),
        ("cifar100", 4, (3, 32, 32)),
        ("CIFAR100", 4, (3, 32, 32)),
        ("mnist", 10, (1, 28, 28)),
        ("MNIST", 10, (1, 28, 28)),
        ("fashion_mnist", 10, (1, 28, 28)),
        ("FashionMNIST", 10, (1, 28, 28)),
        ("Fashion-MNIST", 10, (1, 28, 28)),
    ],
)
def test_a_root_folder_of_torchvision_is_a_data_root(
    tmp_path: Path, dataset: str, count: int, shape: tuple[int, int, int]
):
    torchvision_root(tmp_path / "root")
    data = sources.load(dataset, tmp_path / "root")
    assert data.test is not None
    assert (len(data.train), data.image_shape) == (count, shape)
    if shape == (1, 28, 28):
        assert_is_mnist(data)
    assert any(note.startswith("not ") for note in data.notes), "noise passed as a known data set"
    assert data.name.startswith(sources.load(dataset.lower(), tmp_path / "root").name[:5])


def test_every_spelling_of_a_name_is_one_data_set(tmp_path: Path):
    torchvision_root(tmp_path / "root")
    for spellings in (("cifar10", "CIFAR10", "CIFAR-10"), ("fashion_mnist", "FashionMNIST", "Fashion-MNIST")):
        loaded = [sources.load(spelling, tmp_path / "root") for spelling in spellings]
        assert len({(data.name, data.fingerprint) for data in loaded}) == 1


def test_mnist_of_keras_is_found_under_its_root(tmp_path: Path):
    (tmp_path / "keras").mkdir()
    np.savez(tmp_path / "keras/mnist.npz", **arrays_of(KERAS, IMAGES, LABELS))
    assert_is_mnist(sources.load("mnist", tmp_path / "keras"))


def test_the_folder_of_a_named_data_set_may_be_its_own_root(tmp_path: Path):
    images, labels = write_cifar10(tmp_path / "cifar-10-batches-py")
    assert_holds(sources.load("cifar10", tmp_path / "cifar-10-batches-py").train, images[:10], labels[:10])


def test_a_root_of_several_data_sets_lists_them(tmp_path: Path):
    torchvision_root(tmp_path / "root")
    assert_refused(tmp_path / "root", "cifar-10-batches-py", "cifar-100-python", "MNIST")


@pytest.mark.skipif(not CASES.is_dir(), reason="no ../shared/cases")
@pytest.mark.parametrize("name", ["cifar-10-batches-py", "cifar-10-batches-bin"])
def test_the_case_of_cifar10_is_read_by_path_and_by_name(name: str):
    data = sources.load(str(CASES / name))
    assert data.test is not None
    assert (len(data.train), len(data.test), data.class_names) == (100, 20, CIFAR10)
    assert sources.load("cifar10", CASES).image_shape == (3, 32, 32)


@pytest.mark.skipif(not CASES.is_dir(), reason="no ../shared/cases")
@pytest.mark.parametrize(("name", "counts"), [("mnist_idx", (30, 10)), ("medmnist_npz", (20, 20))])
def test_the_cases_of_mnist_and_medmnist_are_read(name: str, counts: tuple[int, int]):
    data = sources.load(str(CASES / name))
    assert data.test is not None
    assert (len(data.train), len(data.test)) == counts
    if name == "medmnist_npz":
        assert any("val" in note for note in data.notes)
