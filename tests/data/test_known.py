"""Known data is recognized by checksums of its decoded content, and a changed copy is never taken for it."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rethinking.data import sources
from rethinking.data.images import ImageSet
from rethinking.data.known import COARSE_CLASSES, KNOWN, folder_of, named
from rethinking.data.sources import ReadOptions
from rethinking.errors import InputError
from tests.conftest import SHARED_DATA, shared

CIFAR10 = "cbbda461ed01520fa349a10aef8752c12204528f34698b97ef646482e175bcc8"  # the fingerprint of commit 9d224da


@pytest.mark.parametrize("name", ["cifar10", "mnist"])
def test_the_real_data_is_recognized_by_its_published_sums(name: str):
    shared(name)
    for data in (sources.load(name, SHARED_DATA), sources.load(str(SHARED_DATA / name))):
        assert data.name == name
        assert data.notes[0] == f"{KNOWN[name].title} itself, bit for bit"
        assert data.class_names == KNOWN[name].class_names


def test_cifar10_keeps_its_fingerprint():
    shared("cifar10")
    assert sources.load("cifar10", SHARED_DATA).fingerprint == CIFAR10


def test_one_changed_pixel_or_label_is_another_data_set():
    shared("mnist")
    data = sources.load("mnist", SHARED_DATA)
    assert data.test is not None
    known = KNOWN["mnist"]
    assert known.is_in({"train": data.train, "test": data.test})
    pixels, labels = data.test.images.copy(), data.test.labels.copy()
    pixels[-1, 0, -1, -1] ^= 1
    labels[0] = (labels[0] + 1) % 10
    for test in (ImageSet(pixels, data.test.labels), ImageSet(data.test.images, labels)):
        assert not known.is_in({"train": data.train, "test": test})
    assert not known.is_in({"train": data.train})


def test_the_same_images_in_another_order_are_another_data_set():
    shared("mnist")
    data = sources.load("mnist", SHARED_DATA)
    assert data.test is not None
    turned = ImageSet(data.test.images[::-1], data.test.labels[::-1])
    assert not KNOWN["mnist"].is_in({"train": data.train, "test": turned})


def test_a_copy_in_a_folder_of_that_name_gets_another_name(real_root: Path):
    for data in (sources.load("cifar10", real_root), sources.load(str(real_root / "cifar10"))):
        assert data.name == f"cifar10-{data.fingerprint[:8]}"
        assert data.notes[0] == f"not CIFAR-10: other images, labels or order; results call it {data.name}"
    assert sources.load("cifar10", real_root, ReadOptions(colour="grey")).name == f"{data.name}-grey"


def test_the_jpeg_copy_keeps_its_name():
    data = sources.load(str(shared("cifar10_jpeg")))
    assert data.name == "cifar10_jpeg"
    assert not any("CIFAR-10" in note for note in data.notes)


def test_known_data_that_was_changed_says_so_in_its_name(tmp_path: Path):
    shared("mnist")
    data = sources.load("mnist", SHARED_DATA, ReadOptions(resize=32, colour="rgb"))
    assert data.name == "mnist-resize32-rgb"
    assert data.image_shape == (3, 32, 32)
    plain = sources.load("mnist", SHARED_DATA)
    assert np.array_equal(data.train.labels, plain.train.labels)


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("CIFAR10", "cifar10"),
        ("CIFAR-10", "cifar10"),
        ("Cifar_100", "cifar100"),
        ("MNIST", "mnist"),
        ("FashionMNIST", "fashion_mnist"),
        ("fashion-mnist", "fashion_mnist"),
        ("Digits", "digits"),
        ("cifra10", None),
        ("mnist2", None),
    ],
)
def test_other_spellings_of_a_name_are_understood(spelling: str, name: str | None):
    assert named(spelling) == name


def test_folders_of_torchvision_and_files_of_keras_are_known_by_their_names():
    names = ["cifar-10-batches-py", "cifar-100-python", "MNIST", "FashionMNIST", "fashion_mnist.npz", "cifar10_jpeg"]
    assert [folder_of(name) for name in names] == [
        "cifar10",
        "cifar100",
        "mnist",
        "fashion_mnist",
        "fashion_mnist",
        None,
    ]


def test_a_note_says_that_a_folder_of_that_name_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits").mkdir()
    assert "the folder digits here is not used; --dataset ./digits reads it" in sources.load("digits").notes


def test_the_coarse_classes_of_cifar100_have_five_fine_ones_each():
    assert len(COARSE_CLASSES) == len(KNOWN["cifar100"].class_names) == 100
    assert sorted(COARSE_CLASSES) == sorted([*range(20)] * 5)
    coarse = dict(zip(KNOWN["cifar100"].class_names, COARSE_CLASSES, strict=True))
    trees = ("maple_tree", "oak_tree", "palm_tree", "pine_tree", "willow_tree")
    assert {coarse[name] for name in trees} == {coarse["oak_tree"]}
    assert {coarse[name] for name in ("baby", "boy", "girl", "man", "woman")} == {coarse["man"]}


@pytest.mark.parametrize(("name", "head"), [("cifar10", [7]), ("cifar100", [int(COARSE_CLASSES[7]), 7])])
def test_a_published_row_is_labels_and_then_red_green_and_blue(name: str, head: list[int]):
    images = np.arange(3, dtype=np.uint8)[None, :, None, None] + np.zeros((2, 3, 32, 32), dtype=np.uint8)
    split = ImageSet(images, np.array([0, 7]))
    files = list(KNOWN[name].files({"train": split, "test": split}))
    expected = {"cifar10": ["data_batch_1.bin", "test_batch.bin"], "cifar100": ["train.bin", "test.bin"]}
    assert [file for file, _ in files] == expected[name]
    second = files[0][1][len(head) + 3072 :]
    assert list(second) == head + [0] * 1024 + [1] * 1024 + [2] * 1024


def test_options_may_make_the_images_of_a_folder_with_a_known_name_alike(tmp_path: Path):
    for index, size in enumerate([(28, 30), (40, 28), (28, 28), (50, 60)]):
        file = tmp_path / "mnist" / "ab"[index % 2] / f"{index}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGBA", size).save(file)
    for options in (ReadOptions(resize=28, colour="grey"), ReadOptions(resize=30, colour="rgb")):
        for data in (sources.load(str(tmp_path / "mnist"), options=options), sources.load("mnist", tmp_path, options)):
            assert data.name == f"mnist{options.suffix}-{data.fingerprint[:8]}"
            assert data.notes[0].startswith("not MNIST")


def test_options_that_choose_nothing_are_refused_where_there_are_no_columns():
    for options in (ReadOptions(label_column="label"), ReadOptions(image_column="image")):
        with pytest.raises(InputError, match="has no columns to choose"):
            sources.load("digits", options=options)


def test_known_data_keeps_its_name_with_options_that_change_nothing():
    shared("mnist")
    data = sources.load("mnist", SHARED_DATA, ReadOptions(label_column="label", skip_unlabelled=True))
    assert data.name == "mnist"
