"""Folders of images, compared with trees that the test built, whose right reading it knows.

Each image holds its own number in its first two pixels. So a test knows which file each loaded image came from.
"""

from __future__ import annotations

import builtins
import io
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from rethinking.data import sources
from rethinking.data.images import ImageData, ImageSet
from rethinking.data.readers.contents import ReadOptions
from rethinking.errors import InputError

TRAIN_WORDS = ("train", "training", "trainset")
TEST_WORDS = ("test", "testing", "testset")
VAL_WORDS = ("val", "valid", "validation", "dev", "eval")
SPLIT_WORDS = (*TRAIN_WORDS, *TEST_WORDS, *VAL_WORDS)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RETHINKING_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def save_numbered(file: Path, number: int) -> None:
    """Saves a grey 28x28 PNG under any name, with `number` in its first two pixels."""
    pixels = np.zeros((28, 28), dtype=np.uint8)
    pixels[0, :2] = divmod(number, 256)
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("wb") as out:
        Image.fromarray(pixels).save(out, "png")


def tree(root: Path, *names: str) -> Path:
    """Makes a folder with an image at each relative path; the number of an image is its place in `names`."""
    for number, name in enumerate(names):
        save_numbered(root / name, number)
    return root


def numbers(split: ImageSet | None) -> list[int]:
    if split is None:
        return []
    return (split.images[:, 0, 0, 0].astype(int) * 256 + split.images[:, 0, 0, 1]).tolist()


def labelled(data: ImageData, split: ImageSet | None) -> dict[int, str]:
    """The class name of each image, by number."""
    assert split is not None
    assert len(set(numbers(split))) == len(split), "an image is in the set twice"
    return {number: data.class_names[label] for number, label in zip(numbers(split), split.labels, strict=True)}


def loaded(root: Path, **options: Any) -> tuple[dict[int, str], dict[int, str], str]:
    """Class names of the training and of the test images by number, and the notes as one text."""
    data = sources.load(str(root), options=ReadOptions(**options))
    return labelled(data, data.train), labelled(data, data.test) if data.test else {}, "\n".join(data.notes)


def refusal(root: Path, **options: Any) -> str:
    """Returns the error message for a folder: one line that names the folder."""
    with pytest.raises(InputError) as refused:
        sources.load(str(root), options=ReadOptions(**options))
    message = str(refused.value)
    assert len(message.splitlines()) == 1
    assert str(root) in message
    return message


def loaded_unless_refused(
    root: Path, named: str | Path, **options: Any
) -> tuple[dict[int, str], dict[int, str], str] | None:
    """Returns what `loaded` returns; None for a folder that is refused in one line that contains `named`."""
    try:
        return loaded(root, **options)
    except InputError as error:
        message = str(error)
    assert len(message.splitlines()) == 1
    assert str(root) in message
    assert str(named) in message
    return None


def count_of(notes: str, words: str) -> int:
    """The sum of the counts in notes such as "left out: 3 images ..."."""
    return sum(int(count.replace(",", "")) for count in re.findall(rf"(?:{words}): ([\d,]+) images", notes))


# Random trees


@dataclass
class Plan:
    """A tree to build.

    images: by relative path the set ("train", "test", or "" for unused) and the class that are right
    linked: class folders that are links to a folder elsewhere; beside: files that are no images
    """

    images: dict[str, tuple[str, str]] = field(default_factory=dict)
    linked: list[str] = field(default_factory=list)
    beside: list[str] = field(default_factory=list)

    def build(self, place: Path) -> Path:
        root, elsewhere = place / "pets", place / "elsewhere"
        tree(root, *self.images)
        for number, folder in enumerate(self.linked):
            elsewhere.mkdir(exist_ok=True)
            (root / folder).rename(elsewhere / str(number))
            (root / folder).symlink_to(elsewhere / str(number), target_is_directory=True)
        for name in self.beside:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(b"no image")
        return root

    def of_set(self, name: str) -> dict[int, str]:
        return {number: label for number, (used, label) in enumerate(self.images.values()) if used == name}


PLAIN_NAMES = st.sampled_from(
    ["cat", "dog", "eval_board", "on_a_train", "test 1", "1", "2", "10", "black cat", "café", "猫", "trains", "x" * 200]
)
ANY_NAMES = st.one_of(
    PLAIN_NAMES, st.sampled_from(["train", "Test", "dev", "validation", "TRAINING", "eval", "cat.png"])
)
INNER = st.sampled_from(["", "", "images/", "2020/", "deep/er/still/", "train_images/", "test.d/"])
FILES = st.sampled_from(
    ["0.png", "1.PNG", "on_a_train.png", "cat_test.png", "val.JPG", "dev-0.jpeg", "test.png", "ein Bild.png", "é.png"]
)
BESIDE = st.sampled_from(
    [".DS_Store", ".hidden.png", ".ipynb_checkpoints/0.png", "notes.txt", "Thumbs.db", "train.csv"]
)


def cased(words: Sequence[str]) -> st.SearchStrategy[str]:
    return st.builds(lambda word, change: change(word), st.sampled_from(words), st.sampled_from(CASES))


CASES: list[Callable[[str], str]] = [str.lower, str.upper, str.title]


@st.composite
def files_of_a_class(draw: st.DrawFn, one_inner: bool = False) -> list[str]:
    """Paths below a class folder, at one depth or at several."""
    inner = st.just(draw(INNER)) if one_inner else INNER
    return draw(st.lists(st.builds(str.__add__, inner, FILES), min_size=1, max_size=3, unique=True))


@st.composite
def split_plans(draw: st.DrawFn) -> Plan:
    """train/class/..., with or without a test and a validation set; classes may be called as splits are."""
    names = draw(st.lists(ANY_NAMES, min_size=2, max_size=4, unique=True))
    folders = {"train": draw(cased(TRAIN_WORDS))}
    for split, words in (("test", TEST_WORDS), ("val", VAL_WORDS)):
        if draw(st.booleans()):
            folders[split] = draw(cased(words))
    used = {"train": "train", "val": "" if "test" in folders else "test", "test": "test"}
    plan = Plan()
    for split, folder in folders.items():
        classes = names if split == "train" else draw(st.lists(st.sampled_from(names), min_size=1, unique=True))
        for name in classes:
            for file in draw(files_of_a_class()):
                plan.images[f"{folder}/{name}/{file}"] = used[split], name
            if draw(st.integers(0, 4)) == 0:
                plan.linked.append(f"{folder}/{name}")
    places = ["", f"{folders['train']}/", f"{folders['train']}/{names[0]}/"]
    plan.beside = draw(st.lists(st.builds(str.__add__, st.sampled_from(places), BESIDE), max_size=3, unique=True))
    return plan


@st.composite
def class_plans(draw: st.DrawFn) -> Plan:
    """class/..., without splits; classes may be called as splits are, but not all of them."""
    names = draw(st.lists(ANY_NAMES, min_size=1, max_size=3, unique=True))
    names = list(dict.fromkeys([draw(PLAIN_NAMES), *names]))
    names += [] if len(names) > 1 else ["another"]
    plan = Plan()
    for name in names:
        for file in draw(files_of_a_class(one_inner=True)):
            plan.images[f"{name}/{file}"] = "train", name
        if draw(st.integers(0, 4)) == 0:
            plan.linked.append(name)
    plan.beside = draw(st.lists(BESIDE, max_size=2, unique=True))
    return plan


@st.composite
def plans_with_splits_below_classes(draw: st.DrawFn) -> Plan:
    """class/train/... and class/test/..."""
    plan = Plan()
    names = draw(st.lists(PLAIN_NAMES, min_size=2, max_size=4, unique=True))
    for name in names:
        for split, words in (("train", TRAIN_WORDS), ("test", TEST_WORDS)):
            if split == "train" or draw(st.booleans()):
                folder = draw(cased(words))
                for file in draw(files_of_a_class()):
                    plan.images[f"{name}/{folder}/{file}"] = split, name
    return plan


def is_read_as_planned(plan: Plan) -> str:
    with tempfile.TemporaryDirectory() as place:
        root = plan.build(Path(place).resolve())
        train, test, notes = loaded(root)
    assert train == plan.of_set("train")
    assert test == plan.of_set("test")
    assert count_of(notes, "not used") == len(plan.of_set(""))
    assert count_of(notes, "left out") == 0
    visible = [name for name in plan.beside if not name.rsplit("/", 1)[-1].startswith(".") and "/." not in f"/{name}"]
    assert (f"left out: {len(visible)} files" in notes) == bool(visible)
    return notes


@settings(max_examples=50)
@given(split_plans())
def test_first_level_splits_and_their_classes_are_read(plan):
    is_read_as_planned(plan)


@settings(max_examples=40)
@given(class_plans())
def test_class_folders_alone_are_a_training_set_whatever_their_names(plan):
    try:
        notes = is_read_as_planned(plan)
    except InputError as error:  # where all have words of splits in their names and hold folders of the same names
        if "look like splits" not in str(error):
            raise
        return
    for name in dict.fromkeys(path.split("/")[0] for path in plan.images):
        if name.lower() in SPLIT_WORDS:
            assert f"{name}/" in notes
            assert "read as classes" in notes


@settings(max_examples=40)
@given(plans_with_splits_below_classes())
def test_split_folders_below_every_class_are_splits(plan):
    is_read_as_planned(plan)


@settings(max_examples=40)
@given(split_plans(), st.data())
def test_a_split_folder_somewhere_below_a_class_of_a_split_is_refused_by_name(plan, data):
    above = data.draw(st.sampled_from(sorted({"/".join(path.split("/")[:2]) for path in plan.images})))
    folder = above + "/" + data.draw(st.sampled_from(["", "images/", "a/b/"])) + data.draw(cased(SPLIT_WORDS))
    plan.images[f"{folder}/inside.png"] = "", ""
    with tempfile.TemporaryDirectory() as place:
        root = plan.build(Path(place).resolve())
        assert str(root / folder) in refusal(root)


FIRST = ["train", "Train", "test", "val", "dev", "cat", "dog", "bus"]
BELOW = ["cat", "dog", "train", "test", "images"]
WILD_PATHS = st.builds(
    lambda first, below, file: "/".join((first, *below, file)),
    st.sampled_from(FIRST),
    st.lists(st.sampled_from(BELOW), max_size=3),
    st.sampled_from(["0.png", "1.png", "train.png", "test.png"]),
)


def second_level(paths: Iterable[str], first: str) -> set[str]:
    return {parts[1] for path in paths if len(parts := path.split("/")) > 2 and parts[0] == first}


@settings(max_examples=150)
@given(st.lists(WILD_PATHS, min_size=1, max_size=10, unique=True))
def test_any_tree_is_refused_or_read_without_losing_mixing_or_misnaming_an_image(paths):
    with tempfile.TemporaryDirectory() as place:
        root = tree(Path(place).resolve() / "pets", *paths)
        result = loaded_unless_refused(root, root)
    if result is None:
        return
    train, test, notes = result
    assert not train.keys() & test.keys(), "an image is in both sets"
    assert len(train) + len(test) + count_of(notes, "left out|not used") == len(paths), notes
    for number, name in {**train, **test}.items():
        assert name in paths[number].split("/")[:2], "a label is no class folder of the image"
    trained = [paths[number] for number in train]
    first = {path.split("/")[0] for path in paths}
    if any(len(second_level(paths, word)) > 1 for word in ("train", "Train")):
        assert not [path for path in trained if path.split("/")[0] in ("test", "val", "dev")]
    for name in first - {"train", "Train"}:
        assert not {"train", "test"} <= second_level(trained, name), "splits below a class were merged"
    if first & {"cat", "dog", "bus"} and all(re.match("[^/]+/(train|test)/", path) for path in paths):
        assert not [path for path in trained if path.split("/")[1] == "test"], "splits below classes became classes"


# Splits


@pytest.mark.parametrize("words", [TRAIN_WORDS, TEST_WORDS, VAL_WORDS])
def test_every_word_for_a_split_is_understood_in_any_case(tmp_path: Path, words):
    for number, word in enumerate([*words, *(word.upper() for word in words), *(word.title() for word in words)]):
        if words is TRAIN_WORDS:
            names = [f"{word}/cat/0.png", f"{word}/dog/1.png", "test/cat/2.png"]
        else:
            names = ["train/cat/0.png", "train/dog/1.png", f"{word}/cat/2.png"]
        train, test, notes = loaded(tree(tmp_path / str(number), *names))
        assert (train, test) == ({0: "cat", 1: "dog"}, {2: "cat"}), word
        assert ("the test set is the split 'val'" in notes) == (words is VAL_WORDS)


@pytest.mark.parametrize(
    ("one", "other"),
    [("Train", "train"), ("train", "training"), ("TEST", "testset"), ("val", "dev"), ("valid", "eval")],
)
def test_two_folders_of_one_split_are_refused_by_name(tmp_path: Path, one, other):
    names = [f"{split}/{name}/0.png" for split in ("train", one, other) for name in ("cat", "dog")]
    message = refusal(tree(tmp_path / "pets", *names))
    assert f"{one}/" in message
    assert f"{other}/" in message


def test_a_class_called_train_among_other_classes_stays_a_class_and_a_note_says_so(tmp_path: Path):
    train, test, notes = loaded(tree(tmp_path / "rides", "train/0.png", "bus/0.png", "car/0.png"))
    assert (train, test) == ({0: "train", 1: "bus", 2: "car"}, {})
    assert "read as classes: train/" in notes


def test_a_class_called_train_below_splits_stays_a_class(tmp_path: Path):
    names = [f"{split}/{name}/{split}.png" for split in ("train", "test") for name in ("bus", "train", "test", "dev")]
    train, test, _ = loaded(tree(tmp_path / "rides", *names))
    assert train == {0: "bus", 1: "train", 2: "test", 3: "dev"}
    assert test == {4: "bus", 5: "train", 6: "test", 7: "dev"}


def test_other_folders_beside_splits_are_left_out_and_counted(tmp_path: Path):
    names = ["train/cat/0.png", "train/dog/1.png", "test/cat/2.png", "extra/cat/3.png", "extra/4.png"]
    train, test, notes = loaded(tree(tmp_path / "pets", *names))
    assert (train, test) == ({0: "cat", 1: "dog"}, {2: "cat"})
    assert "left out: 2 images of extra/" in notes


def test_splits_below_classes_are_read_where_one_class_is_called_train_or_refused(tmp_path: Path):
    names = [f"{name}/{split}/{name}.png" for name in ("bus", "car", "train") for split in ("train", "test")]
    result = loaded_unless_refused(tree(tmp_path / "rides", *names), tmp_path / "rides/train")
    assert result is None or result[:2] == ({0: "bus", 2: "car", 4: "train"}, {1: "bus", 3: "car", 5: "train"})


@pytest.mark.parametrize(
    ("names", "named"),
    [
        (["cat/train/0.png", "cat/test/1.png", "dog/train/2.png", "dog/3.png"], "cat/t(rain|est)"),
        (["cat/images/train/0.png", "cat/images/test/1.png", "dog/2.png"], "cat/images/t(rain|est)"),
        (["cat/train/0.png", "cat/Train/1.png", "dog/train/2.png"], "cat"),
        (["data/train/cat/0.png", "data/train/dog/1.png", "data/test/cat/2.png", "more/cat/3.png"], "data/t(rain|est)"),
    ],
)
def test_splits_below_some_classes_are_refused_by_name(tmp_path: Path, names, named):
    root = tree(tmp_path / "pets", *names)
    assert re.search(rf"{re.escape(str(root))}/{named}\b", refusal(root))


@pytest.mark.parametrize("names", [["test/cat/0.png", "test/dog/1.png"], ["val/cat/0.png", "test/dog/1.png"]])
def test_test_images_alone_are_refused(tmp_path: Path, names):
    assert "no training images" in refusal(tree(tmp_path / "pets", *names))


def test_classes_beside_a_test_folder_of_the_same_classes_are_refused(tmp_path: Path):
    names = ["cat/0.png", "dog/1.png", "test/cat/2.png", "test/dog/3.png"]
    root = tree(tmp_path / "pets", *names)
    assert str(root / "test") in refusal(root)


@pytest.mark.parametrize("wrapping", ["pets", "images", "data", "archive/pets"])
def test_splits_in_a_wrapping_folder_are_never_trained_on_together(tmp_path: Path, wrapping):
    names = [f"{split}/{name}/0.png" for split in ("train", "test") for name in ("cat", "dog")]
    root = tree(tmp_path / "pets", *(f"{wrapping}/{name}" for name in names))
    result = loaded_unless_refused(root, root)
    assert result is None or result[:2] == ({0: "cat", 1: "dog"}, {2: "cat", 3: "dog"})


def test_a_test_set_is_preferred_to_a_validation_set_and_a_note_says_so(tmp_path: Path):
    names = ["train/cat/0.png", "train/dog/1.png", "val/dog/2.png", "test/cat/3.png"]
    train, test, notes = loaded(tree(tmp_path / "pets", *names))
    assert (train, test) == ({0: "cat", 1: "dog"}, {3: "cat"})
    assert "not used: 1 images of the split 'val'" in notes


# Classes


def test_a_class_that_only_the_test_set_has_is_named(tmp_path: Path):
    names = ["train/cat/0.png", "train/dog/1.png", "test/cat/2.png", "test/wolf/3.png"]
    assert "'wolf'" in refusal(tree(tmp_path / "pets", *names))


def test_several_classes_of_the_test_set_alone_do_not_count_as_unlabelled_images(tmp_path: Path):
    names = ["train/cat/0.png", "train/dog/1.png", "test/fox/2.png", "test/wolf/3.png"]
    assert "'fox'" in refusal(tree(tmp_path / "pets", *names))


def test_classes_are_told_apart_by_case_between_splits(tmp_path: Path):
    names = ["train/Cat/0.png", "train/Dog/1.png", "test/cat/2.png", "test/dog/3.png"]
    assert "'cat'" in refusal(tree(tmp_path / "pets", *names))


def test_classes_may_be_missing_from_the_test_set(tmp_path: Path):
    train, test, _ = loaded(tree(tmp_path / "pets", "train/cat/0.png", "train/dog/1.png", "test/dog/2.png"))
    assert (train, test) == ({0: "cat", 1: "dog"}, {2: "dog"})


@pytest.mark.parametrize("name", ["cat/0.png", "train/cat/0.png"])
def test_one_class_alone_is_refused(tmp_path: Path, name):
    assert "only one class, 'cat'" in refusal(tree(tmp_path / "pets", name))


def test_empty_class_folders_are_reported(tmp_path: Path):
    root = tree(tmp_path / "pets", "train/cat/0.png", "train/dog/1.png")
    (root / "train/bird").mkdir()
    (root / "train/fish/images").mkdir(parents=True)
    train, _, notes = loaded(root)
    assert train == {0: "cat", 1: "dog"}
    assert "train/bird" in notes
    assert "train/fish" in notes


def test_class_folders_named_by_numbers_keep_the_order_of_their_text(tmp_path: Path):
    """torchvision and `datasets` have the same order."""
    root = tree(tmp_path / "digits", *(f"{name}/0.png" for name in ("1", "2", "10", "-1", "07")))
    data = sources.load(str(root))
    assert data.class_names == ("-1", "07", "1", "10", "2")
    assert labelled(data, data.train) == {0: "1", 1: "2", 2: "10", 3: "-1", 4: "07"}


def test_names_outside_unicode_are_read(tmp_path: Path):
    root = tree(tmp_path / "pets", "train/dog/1.png", f"train/{os.fsdecode(b'caf' + bytes([233]))}/0.png")
    assert sorted(sources.load(str(root)).train.labels.tolist()) == [0, 1]


def test_a_data_set_may_have_a_name_as_long_as_a_folder_can_have(tmp_path: Path):
    train, _, _ = loaded(tree(tmp_path / ("x" * 250), "cat/0.png", "dog/1.png"))
    assert train == {0: "cat", 1: "dog"}


def test_files_with_an_image_ending_in_upper_case_are_images(tmp_path: Path):
    names = [f"cat/{number}.{ending}" for number, ending in enumerate(("PNG", "JPG", "Jpeg", "BMP", "WEBP", "TIF"))]
    train, _, _ = loaded(tree(tmp_path / "pets", *names, "dog/0.png"))
    assert len(train) == 7


def test_images_outside_class_folders_are_left_out_and_counted(tmp_path: Path):
    root = tree(tmp_path / "pets", "cat/0.png", "dog/1.png", "stray.png", "stray2.png")
    train, _, notes = loaded(root)
    assert train == {0: "cat", 1: "dog"}
    assert "left out: 2 images" in notes
    names = ["train/cat/0.png", "train/dog/1.png", "train/stray.png", "test/cat/3.png", "test/stray.png"]
    train, test, notes = loaded(tree(tmp_path / "split", *names))
    assert (train, test) == ({0: "cat", 1: "dog"}, {3: "cat"})
    assert count_of(notes, "left out") == 2


def test_images_beside_the_split_folders_are_left_out_and_counted(tmp_path: Path):
    names = ["train/cat/0.png", "train/dog/1.png", "test/cat/2.png", "sample.png", "logo.png"]
    train, test, notes = loaded(tree(tmp_path / "pets", *names))
    assert (train, test) == ({0: "cat", 1: "dog"}, {2: "cat"})
    assert count_of(notes, "left out") == 2, notes


def test_other_files_are_counted_by_kind_and_hidden_files_are_not(tmp_path: Path):
    root = tree(tmp_path / "pets", "cat/0.png", "dog/1.png", "dog/.hidden.png", "__MACOSX/cat/._0.png")
    for name in ("README", "cat/boxes.xml", "cat/more.XML", "dog/notes.txt", ".DS_Store", "dog/.DS_Store"):
        (root / name).write_text("words")
    train, _, notes = loaded(root)
    assert train == {0: "cat", 1: "dog"}
    assert "left out: 4 files that are no images (2 .xml" in notes


@pytest.mark.parametrize("name", ["cat/features.npy", "features.npy", "cat/scores.parquet", "cat/batches.meta"])
def test_files_of_other_forms_of_data_do_not_hide_the_images_beside_them(tmp_path: Path, name):
    import pyarrow as pa
    import pyarrow.parquet as pq

    root = tree(tmp_path / "pets", "cat/0.png", "dog/1.png")
    if name.endswith(".npy"):
        np.save(root / name, np.zeros(3))
    else:
        pq.write_table(pa.table({"score": [0.5]}), root / name)
    train, _, notes = loaded(root)
    assert train == {0: "cat", 1: "dog"}
    assert "left out: 1 files" in notes


# Links, and what cannot be read


def test_linked_class_folders_and_files_are_followed(tmp_path: Path):
    elsewhere = tree(tmp_path / "elsewhere", "bird/0.png", "bird/deep/1.png", "file.png")
    root = tree(tmp_path / "pets", "train/cat/3.png")
    save_numbered(root / "train/cat/3.png", 3)
    (root / "train/bird").symlink_to(elsewhere / "bird")
    (root / "train/cat/linked.png").symlink_to(elsewhere / "file.png")
    train, _, _ = loaded(root)
    assert train == {0: "bird", 1: "bird", 2: "cat", 3: "cat"}


def test_a_tree_of_links_alone_is_read(tmp_path: Path):
    elsewhere = tree(tmp_path / "elsewhere", "a/cat/0.png", "a/dog/1.png", "b/cat/2.png")
    (tmp_path / "pets").mkdir()
    (tmp_path / "pets/train").symlink_to(elsewhere / "a")
    (tmp_path / "pets/test").symlink_to(elsewhere / "b")
    train, test, _ = loaded(tmp_path / "pets")
    assert (train, test) == ({0: "cat", 1: "dog"}, {2: "cat"})


@pytest.mark.parametrize(
    ("link", "target"),
    [("cat/up", ".."), ("cat/here", "."), ("cat/deep/up", "../.."), ("self", "self"), ("cat/self", "self")],
)
def test_a_link_in_a_circle_is_refused_by_name(tmp_path: Path, link, target):
    root = tree(tmp_path / "pets", "cat/0.png", "cat/deep/1.png", "dog/2.png")
    (root / link).symlink_to(target)
    assert str(root / link) in refusal(root)


def test_two_folders_that_link_to_each_other_are_refused(tmp_path: Path):
    root = tree(tmp_path / "pets", "cat/0.png", "dog/1.png")
    (root / "cat/other").symlink_to("../dog")
    (root / "dog/other").symlink_to("../cat")
    assert "other" in refusal(root)


@pytest.mark.parametrize("target", ["train/cat", "train/cat/0.png"])
@pytest.mark.parametrize("split", ["test", "val"])
def test_a_file_linked_into_training_and_test_set_is_refused(tmp_path: Path, split, target):
    root = tree(tmp_path / "pets", "train/cat/0.png", "train/dog/1.png", f"{split}/dog/2.png")
    link = root / split / ("cat" if target == "train/cat" else "dog/3.png")
    link.symlink_to(root / target)
    message = refusal(root)
    assert str(root / "train/cat/0.png") in message
    assert str(link) in message


def test_a_hard_link_in_training_and_test_set_is_refused(tmp_path: Path):
    root = tree(tmp_path / "pets", "train/cat/0.png", "train/dog/1.png", "test/dog/2.png")
    os.link(root / "train/cat/0.png", root / "test/dog/3.png")
    assert str(root / "test/dog/3.png") in refusal(root)


def test_a_test_folder_that_links_to_the_training_folder_is_refused(tmp_path: Path):
    root = tree(tmp_path / "pets", "train/cat/0.png", "train/dog/1.png")
    (root / "test").symlink_to("train")
    assert str(root / "test") in refusal(root)


def test_a_file_that_is_linked_twice_is_never_both_held_out_and_trained_on(tmp_path: Path):
    """Three of the eight names of each class are held out, which could separate the two names of a file."""
    root = tree(tmp_path / "pets", *(f"{name}/{number}.png" for name in ("cat", "dog") for number in range(4)))
    for name in ("cat", "dog"):
        for number in range(4):
            (root / name / f"again{number}.png").symlink_to(f"{number}.png")
    try:
        data = sources.load(str(root), options=ReadOptions(holdout=0.375))
    except InputError as error:
        message = str(error)
    else:
        assert not set(numbers(data.train)) & set(numbers(data.test))
        return
    assert "again" in message


@pytest.mark.parametrize("link", ["train/bird", "train/bird.v2", "train/cat/deep", "train/cat/0000.PNG", "test"])
def test_a_broken_link_is_named(tmp_path: Path, link):
    root = tree(tmp_path / "pets", "train/cat/0.png", "train/dog/1.png")
    (root / link).symlink_to("/nowhere/at/all")
    assert str(root / link) in refusal(root)


@pytest.mark.parametrize("folder", ["test", "train/bird", "train/cat/deep/er"])
def test_an_unreadable_folder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder):
    """The denial is simulated, because the superuser may read every folder."""
    root = tree(tmp_path / "pets", "train/cat/0.png", "train/dog/1.png", f"{folder}/2.png")
    for name in ("scandir", "listdir"):
        monkeypatch.setattr(os, name, denied(getattr(os, name), root / folder))
    message = refusal(root)
    assert str(root / folder) in message
    assert "Permission denied" in message


def test_an_unreadable_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    root = tree(tmp_path / "pets", "cat/0.png", "dog/1.png")
    for module in (io, builtins):
        monkeypatch.setattr(module, "open", denied(module.open, root / "dog/1.png"))
    message = refusal(root)
    assert str(root / "dog/1.png") in message
    assert "Permission denied" in message


def denied(call: Callable[..., Any], path: Path) -> Callable[..., Any]:
    """Wraps `call` so that it may not read `path`."""

    def denying(asked: Any = ".", *arguments: Any, **options: Any) -> Any:
        if isinstance(asked, str | os.PathLike) and Path(asked) == path:
            raise PermissionError(13, "Permission denied", str(asked))
        return call(asked, *arguments, **options)

    return denying


# Images that cannot be decoded


def cut(file: Path) -> None:
    """Keeps the header and half of the pixels of a file."""
    noise = np.random.default_rng(0).integers(0, 256, (28, 28), dtype=np.uint8)
    Image.fromarray(noise).save(file)
    file.write_bytes(file.read_bytes()[:400])


def overwrite(file: Path) -> None:
    file.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")


@pytest.mark.parametrize("damage", [cut, overwrite])
@pytest.mark.parametrize(
    "broken", [["cat/1.png", "dog/4.png", "dog/5.png"], ["cat/0.png", "cat/1.png", "dog/5.png"]], ids=["later", "first"]
)
def test_a_damaged_image_is_named_and_the_others_are_counted(tmp_path: Path, damage, broken):
    root = tree(tmp_path / "pets", "cat/0.png", "cat/1.png", "cat/2.png", "dog/3.png", "dog/4.png", "dog/5.png")
    for name in broken:
        damage(root / name)
    message = refusal(root)
    assert f"cannot decode {root / broken[0]}" in message
    assert re.search(r"\b2 others\b", message), message


def test_damaged_images_of_both_splits_are_counted(tmp_path: Path):
    root = tree(tmp_path / "pets", "train/cat/0.png", "train/cat/1.png", "train/dog/2.png", "test/cat/3.png")
    for name in ("train/cat/1.png", "test/cat/3.png"):
        cut(root / name)
    message = refusal(root)
    assert str(root / "train/cat/1.png") in message
    assert re.search(r"\b1 other", message), message


def test_an_empty_file_with_an_image_ending_is_named(tmp_path: Path):
    root = tree(tmp_path / "pets", "cat/0.png", "dog/1.png")
    (root / "dog/2.jpg").touch()
    assert str(root / "dog/2.jpg") in refusal(root)


# Listing is bounded


def test_a_folder_of_texts_is_refused_before_it_is_listed_completely(tmp_path: Path):
    for number in range(25_000):
        place = tmp_path / "texts" / f"{number // 5_000}"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number}.txt").touch()
    assert "is no folder of images" in refusal(tmp_path / "texts")


def test_the_root_of_the_file_system_is_refused():
    assert refusal(Path("/"))


def test_a_very_deep_tree_is_read_or_refused(tmp_path: Path):
    root = tree(tmp_path / "pets", "cat/0.png", "dog/1.png")
    deep = root / "cat" / "/".join("d" * 200)
    deep.mkdir(parents=True)
    save_numbered(deep / "2.png", 2)
    result = loaded_unless_refused(root, root)
    assert result is None or result[0] == {0: "cat", 1: "dog", 2: "cat"}


# Labels from metadata


def write_metadata(file: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes metadata as CSV, JSON lines or Parquet, by the file's ending."""
    import csv

    import pyarrow as pa
    import pyarrow.parquet as pq

    if file.suffix == ".csv":
        with file.open("w", newline="", encoding="utf-8") as out:
            writer = csv.DictWriter(out, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    elif file.suffix == ".jsonl":
        file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    else:
        pq.write_table(pa.Table.from_pylist([dict(row) for row in rows]), file)


FORMS = pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])


@FORMS
@pytest.mark.parametrize("labels", [("dog", "cat", "dog", "cat"), (10, 9, 10, 9)])
def test_labels_come_from_the_metadata_of_each_split(tmp_path: Path, form, labels):
    root = tree(tmp_path / "pets", "train/a.png", "train/b/c.png", "test/a.png", "test/b.png")
    rows = [{"file_name": name, "label": label} for name, label in zip(("a.png", "b/c.png"), labels, strict=False)]
    write_metadata(root / f"train/metadata.{form}", rows)
    rows = [{"file_name": name, "label": label} for name, label in zip(("b.png", "a.png"), labels, strict=False)]
    write_metadata(root / f"test/metadata.{form}", rows)
    train, test, _ = loaded(root)
    assert train == {0: str(labels[0]), 1: str(labels[1])}
    assert test == {3: str(labels[0]), 2: str(labels[1])}
    assert sources.load(str(root)).class_names == tuple(str(name) for name in sorted(set(labels)))


@FORMS
def test_one_metadata_file_may_label_all_splits(tmp_path: Path, form):
    root = tree(tmp_path / "pets", "train/a.png", "train/b.png", "test/a.png")
    names = {"train/a.png": "x", "train/b.png": "y", "test/a.png": "y"}
    write_metadata(root / f"metadata.{form}", [{"file_name": name, "label": label} for name, label in names.items()])
    train, test, _ = loaded(root)
    assert (train, test) == ({0: "x", 1: "y"}, {2: "y"})


def test_labelled_test_images_are_not_trained_on_beside_other_folders(tmp_path: Path):
    root = tree(tmp_path / "pets", "train/a.png", "train/b.png", "test/a.png", "extra/a.png")
    names = {"train/a.png": "x", "train/b.png": "y", "test/a.png": "y"}
    write_metadata(root / "metadata.csv", [{"file_name": name, "label": label} for name, label in names.items()])
    result = loaded_unless_refused(root, root)
    assert result is None or result[:2] == ({0: "x", 1: "y"}, {2: "y"})


def test_images_that_the_metadata_of_the_test_folder_names_are_not_trained_on(tmp_path: Path):
    root = tree(tmp_path / "pets", "images/0.png", "images/1.png", "images/2.png", "images/3.png")
    for split, first in (("train", 0), ("test", 2)):
        (root / split).mkdir()
        rows = [{"file_name": f"../images/{first + row}.png", "label": "xy"[row]} for row in range(2)]
        write_metadata(root / split / "metadata.csv", rows)
    result = loaded_unless_refused(root, root)
    assert result is None or result[:2] == ({0: "x", 1: "y"}, {2: "x", 3: "y"})


def test_metadata_of_the_test_set_goes_with_class_folders_of_the_training_set(tmp_path: Path):
    root = tree(tmp_path / "pets", "train/cat/0.png", "train/dog/1.png", "test/a.png", "test/b.png")
    rows = [{"file_name": "a.png", "label": "dog"}, {"file_name": "b.png", "label": "cat"}]
    write_metadata(root / "test/metadata.csv", rows)
    train, test, _ = loaded(root)
    assert (train, test) == ({0: "cat", 1: "dog"}, {2: "dog", 3: "cat"})


@FORMS
@pytest.mark.parametrize(
    "text", ["two\nlines", "a, comma", 'a "quote"', "line\u2028separator", "next\x85line", "f\x0cf"]
)
def test_texts_in_the_metadata_may_have_any_characters(tmp_path: Path, form, text):
    """Both labels and other columns have them."""
    root = tree(tmp_path / "pets", "a.png", "b.png", "c.png")
    labels = [text, "plain", "".join(character for character in text if character.isalnum())]
    rows = [
        {"file_name": name, "label": label, "caption": text}
        for name, label in zip(("a.png", "b.png", "c.png"), labels, strict=True)
    ]
    write_metadata(root / f"metadata.{form}", rows)
    train, _, _ = loaded(root)
    assert train == dict(enumerate(labels))


def test_a_very_long_field_of_the_metadata_is_no_obstacle(tmp_path: Path):
    """A mask in run lengths is an example."""
    root = tree(tmp_path / "pets", "a.png", "b.png")
    rows = [{"file_name": f"{name}.png", "label": name, "mask": "17 4 " * 40_000} for name in "ab"]
    write_metadata(root / "metadata.csv", rows)
    assert loaded(root)[0] == {0: "a", 1: "b"}


def test_labels_in_another_encoding_are_refused_or_kept_apart(tmp_path: Path):
    root = tree(tmp_path / "pets", "a.png", "b.png", "c.png")
    (root / "metadata.csv").write_bytes("file_name,label\na.png,pêche\nb.png,pèche\nc.png,x\n".encode("latin-1"))
    result = loaded_unless_refused(root, root / "metadata.csv")
    assert result is None or len(set(result[0].values())) == 3


def test_an_image_with_two_labels_is_refused(tmp_path: Path):
    root = tree(tmp_path / "pets", "a.png", "b.png", "c.png")
    labels = [("a.png", "x"), ("a.png", "y"), ("b.png", "x"), ("c.png", "y")]
    write_metadata(root / "metadata.csv", [{"file_name": name, "label": label} for name, label in labels])
    assert "a.png" in refusal(root)


def test_texts_of_digits_that_differ_are_different_classes(tmp_path: Path):
    root = tree(tmp_path / "pets", "a.png", "b.png", "c.png")
    rows = [{"file_name": name, "label": label} for name, label in (("a.png", "01"), ("b.png", "1"), ("c.png", "2"))]
    write_metadata(root / "metadata.jsonl", rows)
    assert len(set(loaded(root)[0].values())) == 3


@FORMS
@pytest.mark.parametrize("missing", [None, -1])
def test_missing_labels_are_counted_and_left_out_on_request(tmp_path: Path, form, missing):
    root = tree(tmp_path / "pets", *(f"{name}.png" for name in "abcd"))
    rows = [
        {"file_name": f"{name}.png", "label": label} for name, label in zip("abcd", (1, missing, 0, 1), strict=True)
    ]
    write_metadata(root / f"metadata.{form}", rows)
    message = refusal(root)
    assert "1 of the 4 images" in message
    assert "--skip_unlabelled" in message
    train, _, notes = loaded(root, skip_unlabelled=True)
    assert train == {0: "1", 2: "0", 3: "1"}
    assert "left out: 1 images" in notes


@FORMS
def test_a_test_set_whose_labels_are_missing_is_not_used_and_a_note_says_so(tmp_path: Path, form):
    root = tree(tmp_path / "pets", "train/a.png", "train/b.png", "test/a.png")
    names: dict[str, int | None] = {"train/a.png": 0, "train/b.png": 1, "test/a.png": None}
    write_metadata(root / f"metadata.{form}", [{"file_name": name, "label": label} for name, label in names.items()])
    train, test, notes = loaded(root)
    assert (train, test) == ({0: "0", 1: "1"}, {})
    assert "not used: 1 images of the split 'test', which have no labels" in notes


@FORMS
@pytest.mark.parametrize("name", ["../outside.png", "/etc/passwd.png", "train/../../outside.png", "C:\\outside.png"])
def test_metadata_with_paths_outside_the_folder_is_refused(tmp_path: Path, form, name):
    save_numbered(tmp_path / "outside.png", 9)
    root = tree(tmp_path / "pets", "a.png", "b.png")
    rows = [{"file_name": "a.png", "label": "x"}, {"file_name": name, "label": "y"}]
    write_metadata(root / f"metadata.{form}", rows)
    message = refusal(root)
    assert str(root / f"metadata.{form}") in message
    assert name in message


@FORMS
def test_metadata_that_names_a_missing_file_is_refused(tmp_path: Path, form):
    root = tree(tmp_path / "pets", "a.png", "b.png")
    rows = [{"file_name": name, "label": name} for name in ("a.png", "b.png", "gone.png")]
    write_metadata(root / f"metadata.{form}", rows)
    assert "gone.png" in refusal(root)


@FORMS
def test_file_names_may_have_colons_spaces_and_folders(tmp_path: Path, form):
    root = tree(tmp_path / "pets", "train/2020-01-01T12:30:00.png", "train/12:30/a b.png", "train/é.png")
    rows = [
        {"file_name": name, "label": label}
        for name, label in (("2020-01-01T12:30:00.png", "x"), ("./12:30/a b.png", "y"), ("é.png", "x"))
    ]
    write_metadata(root / f"train/metadata.{form}", rows)
    assert loaded(root)[0] == {0: "x", 1: "y", 2: "x"}


@FORMS
def test_images_that_the_metadata_does_not_list_are_left_out_and_counted(tmp_path: Path, form):
    root = tree(tmp_path / "pets", "a.png", "b.png", "c.png", "d.png")
    write_metadata(root / f"metadata.{form}", [{"file_name": name, "label": name} for name in ("a.png", "c.png")])
    train, _, notes = loaded(root)
    assert train == {0: "a.png", 2: "c.png"}
    assert "left out: 2 images" in notes


def test_metadata_without_a_label_column_leaves_the_class_folders_and_a_note_says_so(tmp_path: Path):
    root = tree(tmp_path / "pets", "cat/0.png", "dog/1.png")
    rows = [{"file_name": "cat/0.png", "width": 1}, {"file_name": "dog/1.png", "width": 2}]
    write_metadata(root / "metadata.csv", rows)
    train, _, notes = loaded(root)
    assert train == {0: "cat", 1: "dog"}
    assert "metadata.csv has no column 'label'" in notes


def test_a_label_column_may_be_chosen_and_a_missing_one_lists_the_others(tmp_path: Path):
    root = tree(tmp_path / "pets", "a.png", "b.png")
    rows = [{"file_name": "a.png", "breed": "x", "owner": "u"}, {"file_name": "b.png", "breed": "y", "owner": "u"}]
    write_metadata(root / "metadata.csv", rows)
    assert loaded(root, label_column="breed")[0] == {0: "x", 1: "y"}
    for options in ({}, {"label_column": "age"}):
        message = refusal(root, **options)
        assert "--label_column" in message
        assert "breed, owner" in message


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("metadata.csv", b"name,label\na.png,x\nb.png,y\n"),
        ("metadata.csv", b"file_name;label\na.png;x\nb.png;y\n"),
        ("metadata.csv", "file_name,label\na.png,x\nb.png,y\n".encode("utf-16")),
        ("metadata.jsonl", b'{"file_name": "a.png", "label": "x"}\n{"file_name": '),
        ("metadata.jsonl", b'{"file_name": "a.png", "label": ["x"]}\n{"file_name": "b.png", "label": ["y"]}\n'),
        ("metadata.parquet", b"PAR1 and no more"),
    ],
)
def test_metadata_that_cannot_be_read_is_refused(tmp_path: Path, name, content):
    root = tree(tmp_path / "pets", "a.png", "b.png")
    (root / name).write_bytes(content)
    refusal(root)


# Labels from annotations, and none


def tiny_imagenet(root: Path) -> Path:
    names = [f"train/n0{number}/images/n0{number}_{row}.JPEG" for number in (1, 2) for row in range(2)]
    tree(root, *names, "val/images/val_0.JPEG", "val/images/val_1.JPEG", "test/images/test_0.JPEG")
    (root / "val/val_annotations.txt").write_text("val_0.JPEG\tn02\t0\t0\t1\t1\nval_1.JPEG\tn01\t0\t0\t1\t1\n")
    for number in (1, 2):
        (root / f"train/n0{number}/n0{number}_boxes.txt").write_text("n01_0.JPEG\t0\t0\t1\t1\n")
    (root / "wnids.txt").write_text("n01\nn02\n")
    return root


def test_tiny_imagenet_is_tested_on_its_annotated_validation_set(tmp_path: Path):
    train, test, notes = loaded(tiny_imagenet(tmp_path / "tiny"))
    assert (train, test) == ({0: "n01", 1: "n01", 2: "n02", 3: "n02"}, {4: "n02", 5: "n01"})
    assert "not used: 1 images of the split 'test', which have no labels" in notes
    assert "val/val_annotations.txt" in notes
    assert "left out: 3 files that are no images (3 .txt)" in notes


@pytest.mark.parametrize("line", ["val_9.JPEG\tn01\n", "val_1.JPEG\n", "val_1.JPEG\tn03\n"])
def test_annotations_that_do_not_fit_are_refused(tmp_path: Path, line):
    root = tiny_imagenet(tmp_path / "tiny")
    (root / "val/val_annotations.txt").write_text(f"val_0.JPEG\tn02\n{line}")
    refusal(root)


def test_an_image_that_annotations_give_two_classes_is_refused(tmp_path: Path):
    root = tiny_imagenet(tmp_path / "tiny")
    (root / "val/val_annotations.txt").write_text("val_0.JPEG\tn02\nval_0.JPEG\tn01\nval_1.JPEG\tn01\n")
    assert "val_0.JPEG" in refusal(root)


def test_annotations_do_not_mistake_images_of_one_name_in_two_folders(tmp_path: Path):
    names = ["train/n01/0.png", "train/n02/1.png", "val/images/a/0.png", "val/images/b/0.png"]
    root = tree(tmp_path / "tiny", *names)
    (root / "val/val_annotations.txt").write_text("0.png\tn01\n0.png\tn02\n")
    refusal(root)


@pytest.mark.parametrize("name", ["test/2.png", "test/images/2.png", "test/images/deep/2.png"])
def test_a_test_folder_without_labels_is_not_used_and_a_note_says_so(tmp_path: Path, name):
    train, test, notes = loaded(tree(tmp_path / "pets", "train/cat/0.png", "train/dog/1.png", name))
    assert (train, test) == ({0: "cat", 1: "dog"}, {})
    assert "not used: 1 images of the split 'test', which have no labels" in notes


def test_training_images_without_class_folders_are_refused(tmp_path: Path):
    message = refusal(tree(tmp_path / "pets", "train/cat.0.png", "train/dog.1.png", "test/2.png"))
    assert "neither class folders nor" in message


# Decoding


def test_images_are_turned_upright_as_their_exif_says(tmp_path: Path):
    """With orientation 6, the stored top row becomes the right column."""
    stored = np.zeros((28, 28), dtype=np.uint8)
    stored[0] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    for name in ("cat", "dog"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        Image.fromarray(stored).save(tmp_path / "pets" / name / "0.png", exif=exif)
    image = sources.load(str(tmp_path / "pets")).train.images[0, 0]
    assert image[:, -1].tolist() == [255] * 28
    assert image[:, :-1].max() == 0


@pytest.mark.parametrize(
    "names", [("seg_train/seg_train", "seg_test/seg_test"), ("train2017", "val2017"), ("training_set", "test_set")]
)
def test_folders_that_look_like_splits_are_never_silently_classes(tmp_path: Path, names: tuple[str, str]):
    for number, place in enumerate(f"{name}/{inner}" for name in names for inner in ("cat", "dog")):
        save_numbered(tmp_path / "pets" / place / "0.png", number)
    with pytest.raises(InputError, match=r"look like splits.*call them train and test"):
        sources.load(str(tmp_path / "pets"))
