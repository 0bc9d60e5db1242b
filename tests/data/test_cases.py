"""Typical inputs of users, one of each kind, with the right results: `../shared/cases/README.md`."""

import os
import shutil
from pathlib import Path

import pytest
from PIL import Image

from rethinking.data import sources
from rethinking.data.known import KNOWN
from rethinking.data.readers import image_folder
from rethinking.data.sources import ReadOptions
from rethinking.errors import InputError
from tests.conftest import SHARED_DATA

CASES = SHARED_DATA.parent / "cases"


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RETHINKING_CACHE", str(tmp_path / "cache"))


def case(name: str) -> str:
    if not (CASES / name).is_dir():
        pytest.skip(f"the inputs are absent: no folder {name} in ../shared/cases")
    return str(CASES / name)


def counts(data: sources.ImageData) -> tuple[int, int | None, int]:
    return len(data.train), len(data.test) if data.test else None, len(data.class_names)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cifar100_png", (100, 40, 10)),
        ("class_named_dev", (18, 18, 3)),
        ("fn_split_words", (16, None, 2)),
        ("gtsrb_Train_Test", (30, 12, 3)),
        ("pq_names_differ", (12, 12, 3)),
        ("pq_test_minus1", (12, None, 3)),
        ("if_exif", (16, 16, 2)),
        ("meta_csv_str", (10, 10, 2)),
        ("pq_large_string", (12, 12, 3)),
        ("pq_float", (12, 12, 3)),
        ("pq_pandas_roundtrip", (12, None, 3)),
        ("pq_id_and_int", (12, 12, 3)),
        ("std_single", (12, None, 3)),
        ("tiny_imagenet", (8, 4, 2)),
        ("cifar-10-batches-py", (100, 20, 10)),
        ("cifar-10-batches-bin", (100, 20, 10)),
        ("mnist_idx", (30, 10, 10)),
        ("medmnist_npz", (20, 20, 9)),
    ],
)
def test_images_and_classes_are_counted_right(name: str, expected: tuple[int, int | None, int]):
    assert counts(sources.load(case(name))) == expected


@pytest.mark.parametrize("name", ["cifar100_png", "class_named_dev", "gtsrb_Train_Test"])
def test_no_image_is_in_both_sets(name: str):
    data = sources.load(case(name))
    assert data.test is not None
    training = {image.tobytes() for image in data.train.images}
    assert len(training) == len(data.train), "the images are noise, no two are equal"
    assert not training & {image.tobytes() for image in data.test.images}


def test_a_linked_class_folder_is_followed(tmp_path: Path):
    for split in ("train", "test"):
        for name in ("cat", "dog", "bird"):
            source = Path(case("cifar100_png")) / split / {"cat": "apple", "dog": "bus", "bird": "tank"}[name]
            target = tmp_path / ("elsewhere" if name == "bird" else "pets") / split / name
            shutil.copytree(source, target)
        (tmp_path / "pets" / split / "bird").symlink_to(tmp_path / "elsewhere" / split / "bird")
    assert counts(sources.load(str(tmp_path / "pets"))) == (30, 12, 3)


def test_a_class_folder_that_cannot_be_read_is_an_error_that_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    shutil.copytree(case("gtsrb_Train_Test"), tmp_path / "signs")
    closed, scandir = tmp_path / "signs" / "Train" / "1", os.scandir

    def refusing(path: os.PathLike[str]):
        if Path(path) == closed:
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    with pytest.raises(InputError, match=f"cannot read {closed}: Permission denied"):
        sources.load(str(tmp_path / "signs"))


def test_test_labels_are_matched_by_name():
    data = sources.load(case("pq_names_differ"))
    assert data.test is not None
    assert data.class_names == ("a", "b", "c")
    assert data.train.labels[:3].tolist() == [0, 1, 2]
    assert data.test.labels[:3].tolist() == [2, 1, 0]


def test_minus_one_is_no_label_and_an_option_leaves_its_images_out():
    with pytest.raises(InputError, match=r"3 of the 12 images of the split 'train' have no label .*--skip_unlabelled"):
        sources.load(case("pq_minus1_int"))
    data = sources.load(case("pq_minus1_int"), options=ReadOptions(skip_unlabelled=True))
    assert counts(data) == (9, 9, 3)
    assert data.train.labels.tolist() == [1, 2, 0, 1, 0, 1, 2, 0, 2]


def test_a_test_set_without_labels_is_reported():
    data = sources.load(case("pq_test_minus1"))
    assert any("12 images of the split 'test', which have no labels" in note for note in data.notes)
    assert any("no test set" in line for line in data.described())


def test_images_are_turned_upright():
    image = sources.load(case("if_exif")).train.images[0]
    assert image[:, :, 0].max() < 30
    assert image[:, :, -1].min() > 225


def test_the_column_called_label_is_taken_and_another_can_be_chosen():
    data = sources.load(case("pq_id_and_int"))
    assert any("the label column is 'label'" in note for note in data.notes)
    chosen = sources.load(case("pq_id_and_int"), options=ReadOptions(label_column="id"))
    assert len(chosen.class_names) == 12


def test_a_missing_image_is_named():
    with pytest.raises(InputError, match="pq_null_image: image 4 of the split 'train' is missing"):
        sources.load(case("pq_null_image"))


def test_cifar10_is_found_under_a_data_root_and_has_its_class_names():
    for data in (sources.load("cifar10", case(".")), sources.load(case("cifar-10-batches-py"))):
        assert data.class_names == KNOWN["cifar10"].class_names


def test_a_filled_cache_only_lists_the_files(monkeypatch: pytest.MonkeyPatch):
    first = sources.load(case("tiny_imagenet"))

    def opened(*_: object) -> None:
        raise AssertionError("a file was opened")

    monkeypatch.setattr(Image, "open", opened)
    monkeypatch.setattr(image_folder, "_read", opened)
    assert sources.load(case("tiny_imagenet")).notes == first.notes
