"""Images that are given in Python: all forms make the same single cache entry, and wrong ones are reported."""

from __future__ import annotations

import dataclasses
import os
import random
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from rethinking import ExperimentConfig, train
from rethinking.data import cache, sources
from rethinking.data.sources import ReadOptions
from rethinking.errors import InputError
from tests.conftest import ROOT, shared

DRAWS = np.random.default_rng(0)
PIXELS = DRAWS.integers(0, 256, (12, 10, 8, 3), dtype=np.uint8)
LABELS = np.arange(12) % 3
GREY = PIXELS[..., 0]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RETHINKING_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


class Pictures(torch.utils.data.Dataset):
    """A data set like torchvision's: Pillow images, or what a transform makes of them."""

    def __init__(self, pixels: np.ndarray, labels: Any, transform: Callable[[Any], Any] | None = None) -> None:
        self.data, self.targets, self.transform = pixels, list(labels), transform

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        image = Image.fromarray(self.data[index])
        return (self.transform(image) if self.transform else image), self.targets[index]


class Stream(torch.utils.data.IterableDataset):
    """A data set of items one after the other, which can be read repeatedly."""

    def __init__(self, items: Any) -> None:
        self.items = items

    def __iter__(self) -> Iterator[Any]:
        yield from self.items


def to_tensor(image: Image.Image) -> torch.Tensor:
    """Does what torchvision's `ToTensor` does: float32 from 0 to 1, channels first."""
    pixels = torch.from_numpy(np.array(image))
    return (pixels[None] if pixels.dim() == 2 else pixels.permute(2, 0, 1)).float() / 255


def table(pixels: np.ndarray, labels: Any, names: list[str] | None = None) -> datasets.Dataset:
    label = datasets.ClassLabel(names=names) if names else datasets.Value("int64")
    features = datasets.Features({"image": datasets.Image(), "label": label})
    images = [Image.fromarray(image) for image in pixels]
    return datasets.Dataset.from_dict({"image": images, "label": list(labels)}, features=features)


FORMS: dict[str, Callable[[], Any]] = {
    "channels last": lambda: (PIXELS, LABELS),
    "channels first": lambda: (PIXELS.transpose(0, 3, 1, 2), LABELS),
    "float arrays": lambda: ((PIXELS / 255), LABELS.astype(float)),
    "tensors": lambda: (torch.from_numpy(PIXELS).permute(0, 3, 1, 2), torch.from_numpy(LABELS)),
    "tensors, channels last": lambda: (torch.from_numpy(PIXELS), torch.from_numpy(LABELS)),
    "half floats": lambda: ((torch.from_numpy(PIXELS).permute(0, 3, 1, 2) / 255).half(), LABELS),
    "lists": lambda: (list(PIXELS), LABELS.tolist()),
    "a list of two": lambda: [PIXELS, LABELS],
    "a column of labels": lambda: (PIXELS, LABELS[:, None]),
    "pairs": lambda: list(zip(PIXELS, LABELS, strict=True)),
    "lists of Pillow's": lambda: ([Image.fromarray(image) for image in PIXELS], LABELS),
    "a Dataset": lambda: Pictures(PIXELS, LABELS),
    "a Dataset of tensors": lambda: Pictures(PIXELS, LABELS, to_tensor),
    "a Dataset with tensors as labels": lambda: Pictures(PIXELS, torch.from_numpy(LABELS)),
    "a TensorDataset": lambda: torch.utils.data.TensorDataset(torch.from_numpy(PIXELS), torch.from_numpy(LABELS)),
    "mappings": lambda: [{"image": image, "label": label} for image, label in zip(PIXELS, LABELS, strict=True)],
    "a Subset": lambda: torch.utils.data.Subset(Pictures(PIXELS, LABELS), range(12)),
    "a stream": lambda: Stream(list(zip(PIXELS, LABELS, strict=True))),
    "a stream that is read once": lambda: Stream(iter(list(zip(PIXELS, LABELS, strict=True)))),
    "a stream of mappings": lambda: Stream([{"image": i, "label": y} for i, y in zip(PIXELS, LABELS, strict=True)]),
    "a datasets.Dataset": lambda: table(PIXELS, LABELS),
    "a datasets.Dataset in another format": lambda: table(PIXELS, LABELS).with_format("torch"),
    "a datasets.IterableDataset": lambda: table(PIXELS, LABELS).to_iterable_dataset(),
}


@pytest.fixture
def expected(tmp_path: Path) -> sources.ImageData:
    """The same images as the file reader loads them."""
    np.savez(tmp_path / "images.npz", x_train=PIXELS, y_train=LABELS)
    return sources.load(str(tmp_path / "images.npz"))


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_what_the_reader_of_files_gives(form: str, expected: sources.ImageData):
    loaded = sources.load(sources.adopt(FORMS[form]()))
    assert loaded.fingerprint == expected.fingerprint
    assert loaded.class_names == expected.class_names == ("0", "1", "2")
    np.testing.assert_array_equal(loaded.train.images, PIXELS.transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(loaded.train.labels, LABELS)
    assert loaded.train.labels.dtype == np.int64
    assert loaded.name == "images"


def test_every_form_has_one_name_and_the_cache_one_entry(own_cache: Path):
    names = {sources.adopt(make()) for make in FORMS.values()}
    assert len(names) == 1
    assert [f"python:{entry}" for entry in cache.entries()] == list(names)
    assert sorted(path.name for path in next(own_cache.iterdir()).iterdir()) == [
        "info.json",
        "train_images.npy",
        "train_labels.npy",
    ]


@pytest.mark.parametrize(
    "form", ["channels last", "channels first", "a Dataset", "a Dataset of tensors", "a stream", "a datasets.Dataset"]
)
def test_grey_images_have_one_channel_in_every_form(form: str):
    grey = {
        "channels last": lambda: (GREY[..., None], LABELS),
        "channels first": lambda: (GREY[:, None], LABELS),
        "a Dataset": lambda: Pictures(GREY, LABELS),
        "a Dataset of tensors": lambda: Pictures(GREY, LABELS, to_tensor),
        "a stream": lambda: Stream(list(zip(GREY, LABELS, strict=True))),
        "a datasets.Dataset": lambda: table(GREY, LABELS),
    }
    assert sources.adopt(grey[form]()) == sources.adopt((GREY, LABELS))
    assert sources.load(sources.adopt((GREY, LABELS))).train.images.shape == (12, 1, 10, 8)


def test_a_folder_of_png_files_has_the_same_fingerprint(tmp_path: Path):
    for row, (image, label) in enumerate(zip(PIXELS, LABELS, strict=True)):
        file = tmp_path / "pets" / "train" / "abc"[label] / f"{row:02}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(file)
    order = np.argsort(LABELS, kind="stable")  # as the folder is read
    texts = np.array(list("abc"))[LABELS]
    by_text = sources.load(sources.adopt((PIXELS[order], texts[order])))
    with_names = Pictures(PIXELS[order], LABELS[order])
    with_names.classes = ["a", "b", "c"]  # type: ignore[attr-defined]
    assert by_text.fingerprint == sources.load(str(tmp_path / "pets")).fingerprint
    assert sources.adopt(with_names) == sources.adopt((PIXELS[order], texts[order]))


@pytest.mark.parametrize(
    "test",
    [
        lambda: (PIXELS[:4], LABELS[:4]),
        lambda: Pictures(PIXELS[:4], LABELS[:4]),
        lambda: table(PIXELS[:4], LABELS[:4]),
    ],
)
@pytest.mark.parametrize("train_set", [lambda: (PIXELS, LABELS), lambda: table(PIXELS, LABELS)])
def test_a_test_set_goes_beside_in_any_form_or_in_a_mapping(train_set: Callable[[], Any], test: Callable[[], Any]):
    beside = sources.load(sources.adopt(train_set(), test()))
    assert beside.test is not None
    np.testing.assert_array_equal(beside.test.images, PIXELS[:4].transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(beside.test.labels, LABELS[:4])
    assert sources.load(sources.adopt({"train": train_set(), "test": test()})).fingerprint == beside.fingerprint


def test_a_dataset_dict_is_a_mapping():
    given = datasets.DatasetDict(
        train=table(PIXELS, LABELS, ["cat", "dog", "bus"]),
        validation=table(PIXELS[:6], LABELS[:6], ["cat", "dog", "bus"]),
    )
    loaded = sources.load(sources.adopt(given))
    assert loaded.class_names == ("cat", "dog", "bus")
    assert loaded.test is not None
    assert len(loaded.test) == 6
    assert "the test set is the split 'val', since no test split has labels" in loaded.notes


def test_image_files_named_by_a_datasets_dataset_are_read(tmp_path: Path):
    """`load_dataset("imagefolder")` makes data sets like this: absolute paths without bytes."""
    for row, image in enumerate(PIXELS):
        Image.fromarray(image).save(tmp_path / f"{row}.png")
    files = [str(tmp_path / f"{row}.png") for row in range(12)]
    given = datasets.Dataset.from_dict({"image": files, "label": LABELS}).cast_column("image", datasets.Image())
    assert sources.adopt(given) == sources.adopt((PIXELS, LABELS))


def test_chosen_rows_and_columns_of_a_datasets_dataset():
    rows = [7, 2, 4, 0, 9]
    given = table(PIXELS, LABELS).select(rows)
    assert sources.adopt(given) == sources.adopt((PIXELS[rows], LABELS[rows]))
    coarse = given.add_column("coarse", [0, 1, 0, 1, 1])
    options = ReadOptions(label_column="coarse")
    chosen = sources.load(sources.adopt(coarse, options=options))
    assert chosen.train.labels.tolist() == [0, 1, 0, 1, 1]
    assert chosen.name == "images-coarse"


def test_a_note_says_that_a_transform_of_a_datasets_dataset_is_not_applied():
    given = table(PIXELS, LABELS)
    given.set_transform(lambda batch: {**batch, "image": [image.rotate(90) for image in batch["image"]]})
    loaded = sources.load(sources.adopt(given))
    np.testing.assert_array_equal(loaded.train.images, PIXELS.transpose(0, 3, 1, 2))
    assert any("its transform is not applied" in note for note in loaded.notes)


def test_class_names_come_from_a_data_set_like_torchvision_s():
    given = Pictures(PIXELS, LABELS)
    given.classes = ["cat", "dog", "bus", "car"]  # type: ignore[attr-defined]
    for one in (given, torch.utils.data.Subset(given, range(12)), torch.utils.data.ConcatDataset([given])):
        loaded = sources.load(sources.adopt(one, (PIXELS[:3], LABELS[:3])))
        assert loaded.class_names == ("cat", "dog", "bus", "car")
        assert loaded.test is not None
        assert loaded.test.labels.tolist() == [0, 1, 2]
    given.target_transform = lambda label: label > 1  # type: ignore[attr-defined]
    assert sources.load(sources.adopt(given)).class_names == ("0", "1", "2")


def test_floats_are_turned_back_to_8_bits_and_the_largest_change_is_reported():
    notes = sources.load(sources.adopt((PIXELS / np.float32(255), LABELS))).notes
    assert len(notes) == 1
    assert float(notes[0].rpartition(" ")[2]) < 1e-6
    between = np.full((4, 5, 5), 0.5)  # 127.5 of 255: half a level away
    (note,) = sources.load(sources.adopt((between, [0, 1, 0, 1]))).notes
    assert float(note.rpartition(" ")[2]) == pytest.approx(0.5 / 255, rel=0.01)


def test_different_sizes_and_colours_are_read_with_options_as_files_are(tmp_path: Path):
    mixed = [Image.fromarray(PIXELS[0]), Image.fromarray(GREY[1, :7]), Image.fromarray(PIXELS[2]).convert("P")]
    mixed += [Image.fromarray(np.dstack([PIXELS[3], GREY[3]])), Image.fromarray(GREY[4].astype(np.uint16) * 250)]
    for row, image in enumerate(mixed):
        file = tmp_path / "mixed" / "ab"[row % 2] / f"{row}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        image.save(file)
    order = [0, 2, 4, 1, 3]
    given = [(mixed[row], "ab"[row % 2]) for row in order]
    options = ReadOptions(resize=6, colour="rgb")
    read = sources.load(str(tmp_path / "mixed"), options=options)
    adopted = sources.load(sources.adopt(given, options=options))
    assert adopted.fingerprint == read.fingerprint
    assert adopted.name == "images-resize6-rgb"
    with pytest.raises(InputError, match="--colour rgb or --colour grey converts"):
        sources.adopt(given)


def test_pillow_s_images_have_the_pixels_that_a_training_loop_sees():
    """EXIF orientation is not applied, because Pillow does not apply it either."""
    image = Image.fromarray(PIXELS[0])
    image.getexif()[0x0112] = 6
    image.info["exif"] = image.getexif().tobytes()
    loaded = sources.load(sources.adopt([(image, 0), (image, 1), (image.copy(), 1)]))
    np.testing.assert_array_equal(loaded.train.images[2], PIXELS[0].transpose(2, 0, 1))
    palette = image.convert("P")
    rgb = sources.load(sources.adopt([(palette, 0), (palette, 1)] * 2, options=ReadOptions(colour="rgb")))
    np.testing.assert_array_equal(rgb.train.images[0], np.asarray(palette.convert("RGB")).transpose(2, 0, 1))


def test_options_of_a_run_act_on_adopted_images_as_on_files(tmp_path: Path):
    np.savez(tmp_path / "images.npz", x_train=PIXELS, y_train=LABELS)
    given = sources.adopt((PIXELS, LABELS))
    for options in (ReadOptions(resize=6), ReadOptions(colour="grey"), ReadOptions(holdout=0.5, resize=5)):
        adopted = sources.load(given, options=options)
        read = sources.load(str(tmp_path / "images.npz"), options=options)
        assert (adopted.fingerprint, adopted.name) == (read.fingerprint, read.name)
        assert sources.load(sources.adopt((PIXELS, LABELS), options=options)).fingerprint == read.fingerprint


def test_an_option_leaves_unlabelled_images_out():
    labels = [0, 1, -1, 0, None, 1]
    loaded = sources.load(sources.adopt((PIXELS[:6], labels), options=ReadOptions(skip_unlabelled=True)))
    np.testing.assert_array_equal(loaded.train.images, PIXELS[[0, 1, 3, 5]].transpose(0, 3, 1, 2))
    assert loaded.notes == ("left out: 2 images of the split 'train' without a label",)


def test_the_same_images_again_do_not_change_the_cache(own_cache: Path):
    sources.adopt((PIXELS, LABELS))
    before = {path: path.stat().st_mtime_ns for path in own_cache.rglob("*")}
    for make in FORMS.values():
        sources.adopt(make())
    assert {path: path.stat().st_mtime_ns for path in own_cache.rglob("*")} == before


def test_memory_mapped_arrays_are_read_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    np.save(tmp_path / "x.npy", PIXELS)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    given = sources.adopt((mapped, LABELS))
    monkeypatch.setattr(sources, "_decode_all", lambda *_: pytest.fail("decoded again"))
    assert sources.adopt((mapped, LABELS)) == given


def test_a_data_set_is_read_once_and_never_held_whole(monkeypatch: pytest.MonkeyPatch):
    count, read = 3000, []

    class Counted(Pictures):
        def __len__(self) -> int:
            return count

        def __getitem__(self, index: int) -> tuple[Any, Any]:
            read.append(index)
            return np.full((64, 64, 3), index % 251, dtype=np.uint8), index % 2

    sources.adopt((PIXELS, LABELS))  # imports what it needs
    tracemalloc.start()
    given = sources.adopt(Counted(PIXELS, LABELS))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(read) == count + 2 * 16, "and a few items twice before, to see whether they stay as they are"
    assert peak < count * 64 * 64 * 3 / 2
    assert sources.load(given).train.images[250, 0, 0, 0] == 250


def test_another_process_finds_and_makes_the_same_entry(own_cache: Path):
    given = sources.adopt((PIXELS, LABELS))
    code = (
        "import numpy as np; from rethinking.data import sources\n"
        "pixels = np.random.default_rng(0).integers(0, 256, (12, 10, 8, 3), dtype=np.uint8)\n"
        f"print(sources.load({given!r}).fingerprint, sources.adopt((pixels, np.arange(12) % 3)))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=1200)
    assert ran.stdout.split() == [sources.load(given).fingerprint, given]


def test_a_run_is_found_again_and_resumed_from_its_configuration(tmp_path: Path):
    pixels = DRAWS.integers(0, 256, (20, 28, 28), dtype=np.uint8)
    labels = np.arange(20) % 2
    config = ExperimentConfig(
        model_name="mlp_1x512",
        dataset=sources.adopt((pixels, labels), name="my pets"),
        num_epochs=1,
        train_subset=10,
        device="cpu",
        runs_dir=str(tmp_path / "runs"),
    )
    result = train(config)
    again = train(dataclasses.replace(config, dataset=sources.adopt(Pictures(pixels, labels), name="my pets")))
    assert result.path == again.path
    assert result.result["dataset"] == "my_pets"
    command = [sys.executable, str(ROOT / "train.py"), "--config", str(result.path / "config.yaml")]
    ran = subprocess.run([*command, "--num_epochs", "2"], cwd=tmp_path, capture_output=True, text=True, timeout=1200)
    assert ran.returncode == 0, ran.stderr
    assert "data: my_pets, from Python" in ran.stdout
    cache.remove_all()
    ran = subprocess.run([*command, "--num_epochs", "3"], cwd=tmp_path, capture_output=True, text=True, timeout=1200)
    assert ran.returncode == 2
    assert "given in Python as my_pets-" in ran.stderr
    assert "give them again" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_its_name_is_the_same_from_every_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    given = sources.adopt((PIXELS, LABELS))
    (tmp_path / "python").mkdir()
    monkeypatch.chdir(tmp_path)
    assert sources.absolute(given) == given
    assert sources.load(given).name == "images"


def test_known_data_is_recognized_and_a_false_name_is_not_kept():
    loaded = sources.load(sources.adopt((PIXELS, LABELS), name="cifar10"))
    assert loaded.name == f"cifar10-{loaded.fingerprint[:8]}"
    assert "not CIFAR-10: other images, labels or order" in loaded.notes[0]
    folder = shared("mnist")
    read = sources.load(str(folder))
    assert read.test is not None
    given = sources.adopt((read.train.images, read.train.labels), (read.test.images, read.test.labels))
    adopted = sources.load(given)
    assert adopted.notes == ("MNIST itself, bit for bit",)
    assert (adopted.name, adopted.fingerprint) == ("images", read.fingerprint)
    assert sources.adopt((read.train.images, read.train.labels), (read.test.images, read.test.labels)) == given


class Flipped(Pictures):
    def __getitem__(self, index: int) -> tuple[Any, Any]:
        image, label = super().__getitem__(index)
        return (image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if random.random() < 0.5 else image), label


def normalized(image: Image.Image) -> torch.Tensor:
    return (to_tensor(image) - 0.5) / 0.25


def jittered(image: Image.Image) -> torch.Tensor:
    return to_tensor(image) * torch.rand(())


def named_too_few() -> Pictures:
    given = Pictures(PIXELS, LABELS)
    given.classes = ["cat", "dog"]  # type: ignore[attr-defined]
    return given


FEW = PIXELS[:4]
WRONG: dict[str, tuple[Callable[[], Any], str]] = {
    "lengths": (lambda: (PIXELS, LABELS[:-1]), "has 12 images, but 11 labels"),
    "empty": (lambda: (PIXELS[:0], LABELS[:0]), "the split 'train' is empty"),
    "an empty data set": (lambda: Pictures(PIXELS[:0], []), "the split 'train' is empty"),
    "an empty stream": (lambda: Stream([]), "the split 'train' is empty"),
    "an empty list": (list, "the split 'train' is empty"),
    "one class": (lambda: (FEW, [1, 1, 1, 1]), "only one class, '1'"),
    "no labels": (lambda: PIXELS, "has no labels"),
    "None for labels": (lambda: (PIXELS, None), "has no labels"),
    "items without labels": (lambda: list(PIXELS), "not a pair"),
    "items of three parts": (lambda: [(image, 0, 1) for image in PIXELS], "is 3 parts, not a pair"),
    "a tuple of three": (lambda: (PIXELS, LABELS, LABELS), "is a tuple of 3"),
    "missing labels": (lambda: (FEW, [0, None, 1, 0]), "1 of the 4 images of the split 'train' have no label"),
    "-1": (lambda: (FEW, [0, -1, 1, 0]), "have no label"),
    "fractions": (lambda: (FEW, [0.5, 1.0, 0.0, 1.0]), "0.5 of image 0 of the split 'train' is no class"),
    "one-hot": (lambda: (FEW, np.eye(4)), "argmax"),
    "objects": (lambda: (np.array([FEW[0], None], dtype=object), [0, 1]), "Python objects"),
    "sizes": (lambda: [(FEW[0], 0), (FEW[1][:5], 1)], "one size and mode: image 1 of the split 'train' is 8x5 RGB"),
    "modes": (lambda: [(FEW[0], 0), (FEW[1][..., 0], 1)], "--colour rgb or grey makes them alike"),
    "two channels": (lambda: (PIXELS[..., :2], LABELS), "with neither 1 nor 3 channels"),
    "transparency first": (
        lambda: (np.zeros((20, 4, 8, 8), np.uint8), [0, 1] * 10),
        r"8\), with neither.* or \(n, 1 or 3, height",
    ),
    "two channels, an item": (lambda: [(image[..., :2], 0) for image in FEW], "with neither 1 nor 3 channels"),
    "two axes of channels": (lambda: (np.zeros((4, 3, 9, 3), np.uint8), LABELS[:4]), "two numbers could be"),
    "flat images": (lambda: (FEW.reshape(4, -1), LABELS[:4]), r"is \(4, 240\); images must be"),
    "exchanged": (lambda: (LABELS, PIXELS), "are exchanged"),
    "a DataLoader": (lambda: torch.utils.data.DataLoader(Pictures(PIXELS, LABELS)), "give its .dataset"),
    "a generator": (lambda: ((image, 0) for image in PIXELS), "read only once"),
    "a path": (lambda: "pets", "given as dataset="),
    "a path in a tuple": (lambda: ("pets/x.npy", "pets/y.npy"), "given as dataset=PATH"),
    "paths": (lambda: (["a.png", "b.png"], [0, 1]), "image 0 of the split 'train' is of type str"),
    "a number": (lambda: 3, "is of type int; give a pair"),
    "nothing": (lambda: None, "has no labels"),
    "a sparse tensor": (lambda: (torch.zeros(4, 3, 8, 8).to_sparse(), LABELS[:4]), "to_dense"),
    "other keys": (lambda: {"x": PIXELS, "y": LABELS}, "the key 'x'"),
    "no training images": (lambda: {"test": (PIXELS, LABELS)}, "no key 'train'"),
    "integers": (lambda: (PIXELS.astype(np.int64), LABELS), "is int64; images must be uint8"),
    "normalized": (lambda: Pictures(PIXELS, LABELS, normalized), "without its Normalize"),
    "normalized arrays": (lambda: (PIXELS / 255 - 0.5, LABELS), "without its Normalize"),
    "floats up to 255": (lambda: (PIXELS.astype(float), LABELS), "floats from 0 to 1"),
    "nan": (lambda: (np.full((4, 5, 5), np.nan), LABELS[:4]), "holds numbers from nan"),
    "random flips": (lambda: Flipped(PIXELS, LABELS), "differ from one reading to the next"),
    "random brightness": (lambda: Pictures(PIXELS, LABELS, jittered), "without its random transforms"),
    "a random stream": (lambda: Stream(Flipped(PIXELS, LABELS)), "differ from one reading to the next"),
    "a failing data set": (lambda: Pictures(PIXELS, LABELS, lambda image: 1 / 0), "ZeroDivisionError"),  # type: ignore[arg-type]
    "too few names": (
        named_too_few,
        "none of its 2 class names",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_mistake_is_a_one_line_error_and_leaves_no_file(case: str, own_cache: Path):
    make, message = WRONG[case]
    with pytest.raises(InputError, match=message) as refused:
        sources.adopt(make())
    assert "\n" not in str(refused.value)
    assert not own_cache.exists() or not os.listdir(own_cache)


def test_a_test_set_with_other_classes_or_without_labels_is_refused():
    with pytest.raises(
        InputError, match="the class '7' of the split 'test' is not among the training classes: 0, 1, 2"
    ):
        sources.adopt((PIXELS, LABELS), (PIXELS[:2], [7, 0]))
    with pytest.raises(InputError, match="the test images have no labels"):
        sources.adopt((PIXELS, LABELS), (PIXELS[:2], [-1, -1]))
    with pytest.raises(InputError, match="twice"):
        sources.adopt({"train": (PIXELS, LABELS), "test": (PIXELS, LABELS)}, (PIXELS, LABELS))
    with pytest.raises(InputError, match="the split 'test' is empty"):
        sources.adopt((PIXELS, LABELS), (PIXELS[:0], []))


def test_columns_of_arrays_cannot_be_chosen():
    with pytest.raises(InputError, match="no columns to choose"):
        sources.adopt((PIXELS, LABELS), options=ReadOptions(label_column="coarse"))


@pytest.mark.parametrize("name", ["", "//", "digits", "Digits", None])
def test_invalid_names_and_names_in_use_are_refused(name: Any):
    with pytest.raises(InputError, match="name"):
        sources.adopt((PIXELS, LABELS), name=name)


def test_columns_of_adopted_images_cannot_be_chosen_later():
    with pytest.raises(InputError, match="no columns to choose"):
        sources.load(sources.adopt((PIXELS, LABELS)), options=ReadOptions(label_column="coarse"))


def test_cached_entries_are_listed_and_removed_as_others():
    given = sources.adopt((PIXELS, LABELS), name="pets")
    assert list(cache.entries()) == [given.removeprefix("python:")]
    cache.remove(given.removeprefix("python:"))
    with pytest.raises(InputError, match="no longer in the cache"):
        sources.load(given)
