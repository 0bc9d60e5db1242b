"""`randomize` for a user's own training loop: it makes the draws of a run, and keeps the kind of the data."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import torch
from PIL import Image

from rethinking import ExperimentConfig, InputError, RandomizationRecord, randomize, train
from rethinking.data import draws, sources
from tests.data.test_in_memory import Pictures, Stream, normalized, table, to_tensor
from tests.data.test_operators import OPERATORS

DRAWS = np.random.default_rng(1)
PIXELS = DRAWS.integers(0, 256, (40, 28, 28, 3), dtype=np.uint8)
LABELS = np.arange(40) % 4
TEST_PIXELS = DRAWS.integers(0, 256, (8, 28, 28, 3), dtype=np.uint8)
TEST_LABELS = np.arange(8) % 4
OWN = ("Reversed", "Dimmed", "InPlace", "Thirds")
NAMES = (
    "none",
    "random_labels",
    "partial_corrupt",
    "shuffled_pixels",
    "random_pixels",
    "gaussian_pixels",
    "random_signs",
)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RETHINKING_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "operators.py"
    path.write_text(OPERATORS)
    return path


FORMS: dict[str, Callable[[np.ndarray, np.ndarray], Any]] = {
    "arrays": lambda pixels, labels: (pixels, labels),
    "tensors": lambda pixels, labels: (torch.from_numpy(pixels).permute(0, 3, 1, 2), torch.from_numpy(labels)),
    "lists": lambda pixels, labels: (list(pixels), labels.tolist()),
    "Pillow's images": Pictures,
    "float tensors": lambda pixels, labels: Pictures(pixels, labels, to_tensor),
    "pairs": lambda pixels, labels: list(zip(pixels, labels, strict=True)),
    "a datasets.Dataset": lambda pixels, labels: table(pixels, labels.tolist()),
}


def items(data: Any) -> list[tuple[Any, Any]]:
    """Returns image and label of every item, of any kind of data."""
    if isinstance(data, datasets.Dataset):
        return [(item["image"], item["label"]) for item in data]
    if isinstance(data, tuple):
        return list(zip(*data, strict=True))
    return [data[index] for index in range(len(data))]


def channels_first(image: Any) -> np.ndarray:
    """Returns an image of any type as uint8 (3, height, width)."""
    if isinstance(image, torch.Tensor):
        return (image * 255).round().to(torch.uint8).numpy() if image.is_floating_point() else image.numpy()
    return np.asarray(image).transpose(2, 0, 1)


@pytest.mark.parametrize("operator", [*NAMES, *OWN])
def test_the_draws_equal_those_of_a_run_with_the_same_seed(operator: str, file: Path, tmp_path: Path):
    operator = f"{file}:{operator}" if operator in OWN else operator
    corruption = 0.4 if operator == "partial_corrupt" else None
    train_set, test_set = (PIXELS, LABELS), (TEST_PIXELS, TEST_LABELS)
    run = train(
        ExperimentConfig(
            model_name="mlp_1x512",
            dataset=sources.adopt(train_set, test_set),
            randomization=operator,
            randomization_seed=3,
            corruption_prob=corruption,
            num_epochs=1,
            device="cpu",
            runs_dir=str(tmp_path / "runs"),
        )
    )
    content = (run.path / "randomization.safetensors").read_bytes()
    kept, details = safetensors.torch.load(content), run.result["provenance"]["randomization"]
    for make in FORMS.values():
        made = randomize(make(*train_set), operator, seed=3, corruption_prob=corruption, test=make(*test_set))
        record = made.record
        assert torch.equal(record.labels, kept["labels"])
        assert torch.equal(record.true_labels, kept["true_labels"])
        assert [int(label) for _, label in items(made.data)] == kept["labels"].tolist()
        assert (record.permutation is None) == ("permutation" not in kept)
        if record.permutation is not None:
            assert torch.equal(record.permutation, kept["permutation"])
        assert record.operator == details["operator"]
        assert record.fingerprint == details["train"]
        assert record.test_fingerprint == details.get("test")
        assert (made.test is None) == ("test" not in details)


@pytest.mark.parametrize("form", FORMS)
def test_the_result_has_the_same_kind_and_only_labels_change(form: str):
    given = FORMS[form](PIXELS, LABELS)
    made = randomize(given, "random_labels", seed=1)
    assert made.record.changed.any()
    expected = draws.corrupt_labels(torch.from_numpy(LABELS), 4, 1.0, 1).tolist()
    for (image, label), (old_image, old_label), drawn in zip(items(made.data), items(given), expected, strict=True):
        assert type(label) is type(old_label)
        assert type(image) is type(old_image)
        assert label == drawn
        np.testing.assert_array_equal(channels_first(image), channels_first(old_image))
    assert made.test is None
    if isinstance(given, tuple):
        assert made.data[0] is given[0]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("operator", ["shuffled_pixels", "random_pixels"])
def test_permutations_move_the_positions_that_the_draws_name(form: str, operator: str):
    make = FORMS[form]
    made = randomize(make(PIXELS, LABELS), operator, seed=2, test=make(TEST_PIXELS, TEST_LABELS))
    for data, pixels, labels, split in (
        (made.data, PIXELS, LABELS, "train"),
        (made.test, TEST_PIXELS, TEST_LABELS, "test"),
    ):
        if operator == "shuffled_pixels":
            orders = draws.shuffled_pixels(28 * 28, 2).expand(len(pixels), -1)
        else:
            orders = draws.random_pixels(len(pixels), 28 * 28, 2, split)
        for (image, label), old, old_label, order in zip(items(data), pixels, labels, orders, strict=True):
            expected = np.stack([old[..., channel].ravel()[order.numpy()].reshape(28, 28) for channel in range(3)])
            np.testing.assert_array_equal(channels_first(image), expected)
            assert int(label) == old_label


@pytest.mark.parametrize("form", FORMS)
def test_noise_has_the_training_set_s_moments_on_the_scale_of_the_images(form: str):
    make = FORMS[form]
    made = randomize(make(PIXELS, LABELS), "gaussian_pixels", seed=2, test=make(TEST_PIXELS, TEST_LABELS))
    mean, std = PIXELS.mean(), PIXELS.std()
    for data, count, split in ((made.data, 40, "train"), (made.test, 8, "test")):
        noise = draws.gaussian_pixels(torch.Size((count, 3, 28, 28)), mean, std, 2, split).numpy()
        for (image, _), expected in zip(items(data), noise, strict=True):
            if isinstance(image, torch.Tensor) and image.is_floating_point():
                np.testing.assert_allclose(image.numpy(), expected / 255, atol=1e-5)
            else:
                drawn = channels_first(image).astype(float)
                assert np.abs(drawn - expected.clip(0, 255)).max() <= 0.5 + 1e-3


def test_images_that_no_operator_looks_at_may_be_of_any_kind():
    """Normalized and random images work too, because they are permuted last and never stored."""
    made = randomize(Pictures(PIXELS, LABELS, normalized), "shuffled_pixels", seed=2)
    order = draws.shuffled_pixels(28 * 28, 2).long()
    image, old = made.data[5][0], normalized(Image.fromarray(PIXELS[5]))
    assert image.dtype == torch.float32
    assert torch.equal(image, old.flatten(1)[:, order].reshape(old.shape))
    noisy = Pictures(PIXELS, LABELS, lambda image: to_tensor(image) + torch.randn(3, 28, 28))
    assert torch.equal(
        randomize(noisy, "random_labels", seed=1).record.labels,
        randomize((PIXELS, LABELS), "random_labels", seed=1).record.labels,
    )
    with pytest.raises(InputError, match="differ from one reading to the next"):
        randomize(noisy, "gaussian_pixels")


def test_labels_alone_are_taken_from_their_list_without_reading_images():
    class Slow(Pictures):
        read = 0

        def __getitem__(self, index: int) -> tuple[Any, Any]:
            self.read += 1
            return super().__getitem__(index)

    given = Slow(PIXELS, LABELS)
    made = randomize(torch.utils.data.Subset(given, range(10, 30)), "random_labels")
    assert given.read <= 3
    assert made.record.true_labels.tolist() == LABELS[10:30].tolist()
    assert made.data[0][1] == made.record.labels[0]


def test_a_list_of_labels_that_items_contradict_is_not_used():
    given = Pictures(PIXELS, LABELS)
    shuffled = torch.utils.data.TensorDataset(torch.from_numpy(PIXELS), torch.from_numpy(LABELS))
    shuffled.targets = list(LABELS[::-1])  # type: ignore[attr-defined]
    assert torch.equal(randomize(shuffled, "random_labels").record.true_labels, torch.from_numpy(LABELS))
    made = randomize(given, "random_labels")
    given.targets = list(LABELS[::-1])
    with pytest.raises(InputError, match="item 3 has another label than when labels were drawn"):
        made.data[3]


def test_a_list_that_does_not_match_the_items_labels_is_neither_used_nor_kept():
    class Attributes(Pictures):
        """A data set like CelebA: several numbers an image, and one of them in the item."""

        def __getitem__(self, index: int) -> tuple[Any, Any]:
            return self.data[index], int(LABELS[index])

        @property
        def labels(self) -> Any:
            raise RuntimeError("not read yet")

    given = Attributes(PIXELS, torch.zeros(40, 5))
    made = randomize(given, "random_labels", seed=1)
    assert made.record.true_labels.tolist() == LABELS.tolist()
    assert [label for _, label in items(made.data)] == made.record.labels.tolist()
    assert not hasattr(made.data, "targets")
    assert not hasattr(made.data, "labels")


@pytest.mark.parametrize("kind", [list, np.array, torch.tensor])
def test_a_data_set_keeps_its_classes_and_has_the_new_targets(kind: Callable[[Any], Any]):
    given = Pictures(PIXELS, LABELS)
    given.classes = ["cat", "dog", "bus", "car", "van"]  # type: ignore[attr-defined]
    given.targets = kind(LABELS.tolist())
    made = randomize(given, "random_labels", seed=4)
    assert made.data.classes == given.classes  # type: ignore[attr-defined]
    assert made.record.class_names == ("cat", "dog", "bus", "car", "van")
    assert type(made.data.targets) is type(given.targets)
    assert [int(label) for label in made.data.targets] == made.record.labels.tolist()
    assert [int(made.data[row][1]) for row in range(40)] == made.record.labels.tolist()
    assert type(made.data[0][1]) is type(given[0][1])
    assert made.record.labels.max() == 4, "a class that no image has is drawn too"


def test_it_goes_through_a_data_loader_with_workers():
    made = randomize(Pictures(PIXELS, LABELS, to_tensor), "random_pixels", seed=1)
    loader = torch.utils.data.DataLoader(made.data, batch_size=8, num_workers=2)
    images = torch.cat([batch for batch, _ in loader])
    expected = torch.stack([made.data[row][0] for row in range(40)])
    assert torch.equal(images, expected)
    assert torch.equal(made.data[-1][0], expected[39])
    with pytest.raises(IndexError):
        made.data[40]


def test_a_datasets_dataset_keeps_columns_features_and_format():
    given = table(PIXELS, LABELS.tolist(), ["cat", "dog", "bus", "car"]).add_column("number", list(range(40)))
    given = given.select(range(39, -1, -1))
    made = randomize(given.with_format("numpy"), "random_labels", seed=1)
    assert made.data.features == given.features
    assert made.data.column_names == given.column_names
    assert made.data.format["type"] == "numpy"
    assert made.data["number"][:].tolist() == list(range(39, -1, -1))
    assert made.data["label"][:].tolist() == made.record.labels.tolist()
    assert made.record.true_labels.tolist() == LABELS[::-1].tolist()
    moved = randomize(given, "shuffled_pixels", seed=1)
    assert moved.data.features == given.features
    assert moved.data["number"][:] == list(range(39, -1, -1))


def test_given_labels_do_not_take_the_class_names_of_the_data(file: Path):
    given = Pictures(PIXELS, LABELS)
    given.classes = ["cat", "dog", "bus", "car"]  # type: ignore[attr-defined]
    made = randomize(given, "random_signs", test=Pictures(TEST_PIXELS, TEST_LABELS))
    assert not hasattr(made.data, "classes")
    assert made.record.class_names == ("0", "1")
    assert set(made.data.targets) == {0, 1}
    assert made.test is None, "of which no label is right"
    with pytest.raises(InputError, match="names 2 classes, fewer than the operator's labels have"):
        randomize(table(PIXELS, LABELS // 2, ["cat", "dog"]), f"{file}:Thirds")


@pytest.mark.parametrize(
    "labels", [np.array(list("abcd"))[LABELS], LABELS.astype(float), LABELS.astype(np.uint8) * 10, LABELS[:, None]]
)
def test_labels_stay_in_their_own_words(labels: np.ndarray):
    made = randomize((PIXELS, labels), "random_labels", seed=1)
    assert made.data[1].dtype == labels.dtype
    assert made.data[1].shape == labels.shape
    classes = np.unique(labels)
    assert made.data[1].ravel().tolist() == [classes[index] for index in made.record.labels.tolist()]
    assert torch.equal(made.record.labels, randomize((PIXELS, LABELS), "random_labels", seed=1).record.labels)


def test_a_series_of_pandas_stays_one():
    given = pd.Series(LABELS, index=range(100, 140), name="kind", dtype="category")
    made = randomize((PIXELS, given), "random_labels", seed=1)
    assert made.data[1].tolist() == made.record.labels.tolist()
    assert made.data[1].index.equals(given.index)
    assert made.data[1].dtype == given.dtype


def test_classes_that_the_training_set_lacks_are_drawn_where_their_number_is_given():
    few = LABELS % 2
    made = randomize((PIXELS, few), "random_labels", num_classes=6, seed=1)
    assert torch.equal(made.record.labels, draws.corrupt_labels(torch.from_numpy(few), 6, 1.0, 1))
    assert set(made.data[1].tolist()) == set(range(6))
    with pytest.raises(InputError, match="the label 2 of image 2 of the training set is none of its 2 class names"):
        randomize((PIXELS, LABELS), "random_labels", num_classes=2)
    cats, dogs = table(PIXELS, few, ["cat", "dog"]), table(PIXELS, few, ["dog", "cat"])
    for number in (None, 2):
        assert (
            randomize(cats, "random_labels", num_classes=number, test=dogs, seed=1).test["label"][:] == few.tolist()
        ), "as they are"
    named = Pictures(PIXELS, LABELS)
    named.classes = ["a", "b", "c", "d"]  # type: ignore[attr-defined]
    with pytest.raises(InputError, match="num_classes is 5, but the data names 4 classes"):
        randomize(named, "random_labels", num_classes=5)


@pytest.mark.parametrize("operator", NAMES)
def test_a_record_is_read_back_as_it_was_written(operator: str, tmp_path: Path):
    made = randomize(
        (PIXELS, LABELS),
        operator,
        seed=7,
        corruption_prob=0.25 if operator == "partial_corrupt" else None,
        test=(TEST_PIXELS, TEST_LABELS),
    )
    made.record.write(tmp_path / "record.safetensors")
    read = RandomizationRecord.read(tmp_path / "record.safetensors")
    for name, value in vars(made.record).items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, getattr(read, name))
        else:
            assert getattr(read, name) == value
    assert read.options == ("corruption_prob=0.25" if operator == "partial_corrupt" else None)
    assert torch.equal(read.changed, read.labels != read.true_labels)
    assert (tmp_path / "record.safetensors").stat().st_size < 6000, "no images, no permutation for each image"


@pytest.mark.parametrize("content", [b"", b"abc", b"\x00" * 100])
def test_a_file_without_a_record_is_refused(content: bytes, tmp_path: Path):
    (tmp_path / "record").write_bytes(content)
    with pytest.raises(InputError, match="is no record"):
        RandomizationRecord.read(tmp_path / "record")
    with pytest.raises(InputError, match="there is no file"):
        RandomizationRecord.read(tmp_path / "other")


def test_an_operator_of_one_s_own_changes_pixels_with_its_options(file: Path):
    given = Pictures(PIXELS, LABELS, to_tensor)
    made = randomize(given, f"{file}:Dimmed", strength=1.0)
    assert all(not image.any() for image, _ in items(made.data))
    dark = randomize(given, f"{file}:InPlace", test=Pictures(TEST_PIXELS, TEST_LABELS))
    assert torch.allclose(dark.data[3][0], 1 - given[3][0])
    np.testing.assert_array_equal(np.asarray(dark.test[3][0]), 255 - TEST_PIXELS[3])
    assert made.record.options == "strength=1.0"
    assert made.record.operator == "operators.py:Dimmed"


WRONG: dict[str, tuple[Callable[[], Any], str]] = {
    "an unknown operator": (lambda: randomize((PIXELS, LABELS), "random_label"), "did you mean 'random_labels'"),
    "an unknown option": (lambda: randomize((PIXELS, LABELS), "random_labels", width=3), "has no option 'width'"),
    "no probability": (lambda: randomize((PIXELS, LABELS), "partial_corrupt"), "needs a corruption_prob"),
    "a probability": (
        lambda: randomize((PIXELS, LABELS), "random_labels", corruption_prob=0.5),
        "corruption_prob goes with",
    ),
    "a negative seed": (lambda: randomize((PIXELS, LABELS), "random_labels", seed=-1), "seed must be"),
    "a seed that is none": (lambda: randomize((PIXELS, LABELS), "random_labels", seed="a"), "seed must be"),  # type: ignore[arg-type]
    "one class": (
        lambda: randomize((PIXELS, LABELS), "random_labels", num_classes=1),
        "num_classes must be a whole number from 2 on",
    ),
    "an operator that is no text": (lambda: randomize((PIXELS, LABELS), object()), "FILE.py:CLASS"),  # type: ignore[arg-type]
    "a mapping": (lambda: randomize({"train": (PIXELS, LABELS)}, "random_labels"), "the test set as test="),
    "a stream": (lambda: randomize(Stream([]), "random_labels"), "no length"),
    "lengths": (lambda: randomize((PIXELS, LABELS[1:]), "random_labels"), "has 40 images, but 39 labels"),
    "a missing label": (
        lambda: randomize((PIXELS[:3], [0, 1, -1]), "random_labels"),
        "1 of the 3 images of the training set",
    ),
    "nothing": (lambda: randomize([], "random_labels"), "the training set is empty"),
    "a test set of other classes": (
        lambda: randomize((PIXELS, LABELS), "random_labels", test=(PIXELS[:1], [9])),
        "the class '9'",
    ),
    "an unlabelled test set": (
        lambda: randomize((PIXELS, LABELS), "random_labels", test=(PIXELS[:1], [-1])),
        "no image of the test set",
    ),
    "sizes": (
        lambda: items(randomize([(PIXELS[0], 0), (PIXELS[1, :7], 1)] * 2, "shuffled_pixels").data),
        "image 1 is .3, 7, 28., but the first image",
    ),
    "columns of arrays": (lambda: randomize((PIXELS, LABELS), "random_labels", label_column="x"), "no columns"),
    "a column that is not there": (
        lambda: randomize(table(PIXELS, LABELS), "random_labels", label_column="x"),
        "no column 'x'",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_mistake_is_a_one_line_error(case: str):
    do, message = WRONG[case]
    with pytest.raises(InputError, match=message) as refused:
        do()
    assert "\n" not in str(refused.value)


def test_importing_the_package_does_not_import_pytorch():
    code = "import sys, rethinking; assert 'randomize' in dir(rethinking); print('torch' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=1200)
    assert ran.stdout == "False\n"
