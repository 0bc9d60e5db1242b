"""`randomize`: applies the operators of Section 2.1 to the data of your own training loop.

The draws are those of a run with the same seed on the same data. So the labels equal those in the run's
`randomization.safetensors`, image by image, and a permutation moves the same positions.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, Dataset, Subset

from rethinking import files, registry
from rethinking.config import as_text
from rethinking.data import operators, randomization, sources
from rethinking.data.draws import RandomizedSplit
from rethinking.data.labels import classify, has_labels
from rethinking.data.readers import in_memory, tables
from rethinking.data.readers.contents import Labels, ReadOptions, Split, Stored
from rethinking.errors import InputError

CHECKED = 3  # number of items whose labels are compared with a data set's list of labels
LISTS = ("targets", "labels")  # attributes that hold all labels, in data sets like torchvision's
KEPT = ("classes", "class_to_idx")

Change = Callable[[Any, int], Any]  # (image, row) -> the image that replaces it


@dataclass(frozen=True, eq=False)
class RandomizationRecord:
    """The record of a randomization: what was applied, and its labels and shared permutation.

    operator, options, seed: as given; the options as text
    class_names: names of the classes of `labels`
    labels, true_labels: of the training set, class indices, int64 (n,)
    permutation: int32 (positions,), shared by all images; None without one, or if each image has its own
    fingerprint, test_fingerprint: SHA-256 of the draws for each set, as in a run's `randomization.safetensors`
    """

    operator: str
    options: str | None
    seed: int
    class_names: tuple[str, ...]
    labels: Tensor
    true_labels: Tensor
    permutation: Tensor | None
    fingerprint: str
    test_fingerprint: str | None

    @property
    def changed(self) -> Tensor:
        """Which labels differ from the true ones, bool (n,)."""
        return self.labels != self.true_labels

    def write(self, path: str | Path) -> None:
        """Writes the record as a safetensors file. Raises `RunError` if the file cannot be written."""
        tensors = {"labels": self.labels, "true_labels": self.true_labels}
        if self.permutation is not None:
            tensors["permutation"] = self.permutation
        details = {
            "operator": self.operator,
            "seed": str(self.seed),
            "class_names": json.dumps(self.class_names),
            "train": self.fingerprint,
        }
        if self.options is not None:
            details["options"] = self.options
        if self.test_fingerprint is not None:
            details["test"] = self.test_fingerprint
        files.write(Path(path), safetensors.torch.save(tensors, details))

    @classmethod
    def read(cls, path: str | Path) -> RandomizationRecord:
        """Reads a record that `write` wrote.

        Raises `InputError` if the file is missing, damaged or no record, and `RunError` if it cannot be read.
        """
        content = files.read(Path(path))
        if content is None:
            raise InputError(f"there is no file {path}")
        try:
            tensors = safetensors.torch.load(content)
            header = files.parse_json(content[8 : 8 + int.from_bytes(content[:8], "little")].decode())
            details = header["__metadata__"]
            return cls(
                details["operator"],
                details.get("options"),
                int(details["seed"]),
                tuple(json.loads(details["class_names"])),
                tensors["labels"],
                tensors["true_labels"],
                tensors.get("permutation"),
                details["train"],
                details.get("test"),
            )
        except (safetensors.SafetensorError, ValueError, KeyError, TypeError, RuntimeError):
            raise InputError(f"{path} is damaged, or is no record that RandomizationRecord.write wrote") from None


@dataclass(frozen=True, eq=False)
class Randomized:
    """Data after an operator, in the form in which it was given.

    data: the training set
    test: the test set; None if none was given, or if the operator's labels replace the data's classes, so that no label
        of a test image would be right
    record: what was drawn
    """

    data: Any
    test: Any
    record: RandomizationRecord


def randomize(
    dataset: Any,
    operator: str,
    *,
    seed: int = 0,
    corruption_prob: float | None = None,
    num_classes: int | None = None,
    test: Any = None,
    image_column: str | None = None,
    label_column: str | None = None,
    **options: Any,
) -> Randomized:
    """Applies a randomization operator (Section 2.1) to data for your own training loop.

    dataset, test: each a torch `Dataset` with a length, a `datasets.Dataset`, or a pair (images, labels) of arrays,
        tensors or lists. The result has the same form. A torch `Dataset` is wrapped and its items change when they are
        read; the other forms change at once
    operator: a name, or your own operator as `FILE.py:CLASS`
    corruption_prob, options: options of the operator
    seed: a run with this `randomization_seed` has the same draws
    num_classes: number of classes, for whole-number labels if not every class has a training image. Without it the
        classes are those of a run on the data
    image_column, label_column: columns of a `datasets.Dataset`

    Test images keep their labels; their pixels change as in a run. A permutation moves all positions of an image, as in
    a run that does not crop.

    Noise and the images of your own operators take the scale of the image that they replace. For floats they are
    divided by 255; for 8 bits they are rounded and clipped to 0-255. These operators read all images into the cache, so
    images must be 8-bit or floats from 0 to 1. Other operators do not look at the images.

    Raises `InputError` for an unknown operator or option, and for data in none of these forms.
    """
    _check(operator, seed, num_classes)
    chosen = operators.create(operator, corruption_prob, options)
    reading = ReadOptions(image_column=image_column, label_column=label_column)
    forms = {"train": _form(dataset, "the training set", reading)}
    if test is not None:
        forms["test"] = _form(test, "the test set", reading)
    class_names, labels = _classes(forms, num_classes)
    shape = forms["train"].shape() if chosen.changes_pixels else (1, 0, 0)
    if chosen.changes_pixels and not chosen.permutes_alone:
        images = _images(sources.load(sources.adopt(dataset, test, options=reading)))
    else:
        images = {name: torch.empty(len(form), 1, 0, 0, dtype=torch.uint8) for name, form in forms.items()}
    splits = {name: RandomizedSplit(images[name], labels[name], labels[name]) for name in forms}
    train_split, test_split = randomization.apply(
        chosen,
        splits["train"],
        splits.get("test"),
        num_classes=len(class_names),
        positions=shape[1] * shape[2],
        seed=int(seed),
    )
    if corruption_prob is not None:
        options["corruption_prob"] = corruption_prob
    if chosen.own_classes is not None:
        class_names = list(map(str, range(chosen.own_classes)))
    one_for_all = train_split.permutation is not None and train_split.permutation.dim() == 1
    record = RandomizationRecord(
        registry.without_folder(operator),
        as_text(options),
        int(seed),
        tuple(class_names),
        train_split.labels.clone(),
        train_split.true_labels.clone(),
        train_split.permutation if one_for_all else None,
        train_split.fingerprint(),
        test_split.fingerprint() if test_split else None,
    )
    values = None
    if chosen.changes_labels:
        known = None if chosen.own_classes else labels["train"].tolist()
        stored = _stored_labels(forms["train"].labels, known, class_names)
        values = [stored[label] for label in train_split.labels.tolist()]
    made = forms["train"].changed(values, _change(train_split, shape), record.fingerprint)
    if chosen.own_classes is not None and isinstance(made, RandomizedDataset):
        made.forget_classes()
    made_test = None
    if test_split is not None:
        made_test = forms["test"].changed(None, _change(test_split, shape), test_split.fingerprint())
    return Randomized(made, made_test, record)


def _check(operator: Any, seed: Any, num_classes: Any) -> None:
    if not isinstance(operator, str):
        raise InputError(f"operator must be a name or FILE.py:CLASS, not of type {type(operator).__name__}")
    if not isinstance(seed, int | np.integer) or seed < 0:
        raise InputError(f"seed must be a whole number from 0 on, not {seed!r}")
    if num_classes is not None and (not isinstance(num_classes, int | np.integer) or num_classes < 2):
        raise InputError(f"num_classes must be a whole number from 2 on, not {num_classes!r}")


# Labels


@dataclass(frozen=True)
class _Counted:
    """A number of images whose content is not read."""

    count: int

    def __len__(self) -> int:
        return self.count

    def part(self, rows: np.ndarray) -> _Counted:
        return _Counted(len(rows))

    def stored(self) -> Iterator[Stored]:
        raise AssertionError("not read")


def _classes(forms: Mapping[str, Form], num_classes: int | None) -> tuple[list[str], dict[str, Tensor]]:
    """Returns the class names and each set's class indices, int64 (n,), as in a run on the data."""
    splits = {name: Split(_Counted(len(form)), form.labels, form.where) for name, form in forms.items()}
    splits = in_memory.with_class_names(splits)
    if num_classes is not None:
        named = next((split.labels.names for split in splits.values() if split.labels and split.labels.names), None)
        if named is not None and len(named) != num_classes:
            raise InputError(
                f"num_classes is {num_classes}, but the data names {len(named)} classes; leave num_classes out"
            )
        if named is None:
            names = tuple(map(str, range(num_classes)))
            splits = {
                name: dataclasses.replace(split, labels=Labels(forms[name].labels.values, names))
                for name, split in splits.items()
            }
    for split in splits.values():
        if not len(split.images):
            raise InputError(f"{split.where} is empty")
        if not has_labels(split):
            raise InputError(f"no image of {split.where} has a label")
    class_names, classes, _ = classify(splits, skip_unlabelled=False)
    return class_names, {name: torch.from_numpy(each.labels) for name, each in classes.items()}


def _stored_labels(labels: Labels, indices: list[int] | None, class_names: list[str]) -> list[Any]:
    """Returns for each class the label that the data uses for it.

    indices: class indices of `labels`; None if the operator has classes of its own
    """
    texts = isinstance(labels.values[0], str)
    first = {} if indices is None else dict(reversed(list(zip(indices, labels.values, strict=True))))
    return [first.get(index, name if texts else index) for index, name in enumerate(class_names)]


# Images


def _images(data: sources.ImageData) -> dict[str, Tensor]:
    """Returns the images of each set, uint8 (n, channels, height, width)."""
    splits = {"train": data.train, "test": data.test}
    return {name: torch.from_numpy(split.images) for name, split in splits.items() if split is not None}


def _change(split: RandomizedSplit, shape: tuple[int, int, int]) -> Change | None:
    images = split.images if split.redrawn else None
    if images is None and split.permutation is None:
        return None
    return _PixelChange(shape, images, None if split.permutation is None else split.permutation.numpy())


@dataclass(frozen=True, eq=False)
class _PixelChange:
    """Replaces the pixels of an image, which keeps its type, shape and order of axes.

    shape: (channels, height, width) that every image must have
    images: the images to show instead, (n, channels, height, width) on the 0-255 scale; None keeps each image
    permutation: permutation of positions, for all images or for each
    """

    shape: tuple[int, int, int]
    images: Tensor | None
    permutation: np.ndarray | None

    def __call__(self, image: Any, row: int) -> Any:
        described = f"image {row}"
        if (shape := _shape(image, described)) != self.shape:
            raise InputError(f"{described} is {shape}, but the first image of the training set is {self.shape}")
        if in_memory.is_tensor(image):
            plain = image.detach().cpu()
            plain = plain.float() if plain.dtype == torch.bfloat16 else plain  # NumPy has no bfloat16
            return torch.from_numpy(self._pixels(plain.numpy(), row, True)).to(image)
        pixels = self._pixels(np.asarray(image), row, False)
        if not hasattr(image, "getexif"):
            return pixels
        from PIL import Image

        made = Image.fromarray(pixels)
        if made.mode != image.mode:
            raise InputError(f"{described} has mode {image.mode}; convert the images to L or RGB")
        return made

    def _pixels(self, pixels: np.ndarray, row: int, is_tensor: bool) -> np.ndarray:
        first = pixels.ndim == 2 or in_memory.has_channels_first(pixels.shape, f"image {row}", is_tensor)
        if self.images is not None:
            new = self.images[row].numpy() if first else self.images[row].permute(1, 2, 0).numpy()
            pixels = _on_scale(new.reshape(pixels.shape), pixels.dtype)
        if self.permutation is not None:
            order = self.permutation if self.permutation.ndim == 1 else self.permutation[row]
            channels = self.shape[0]
            if first:
                moved: np.ndarray = pixels.reshape(channels, -1)[:, order]
            else:
                moved = pixels.reshape(-1, channels)[order]
            pixels = moved.reshape(pixels.shape)
        return pixels


def _on_scale(pixels: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Converts pixels from the 0-255 scale to the scale of images of type `dtype`."""
    if dtype.kind == "f":
        return (pixels / 255).astype(dtype)
    return pixels if pixels.dtype == dtype else np.rint(pixels).clip(0, 255).astype(dtype)


def _shape(image: Any, described: str) -> tuple[int, int, int]:
    """Returns (channels, height, width) of an image of any type. Raises `InputError` if it is no image."""
    is_tensor = in_memory.is_tensor(image)
    shape = tuple(image.shape) if is_tensor else np.shape(image)
    if len(shape) not in (2, 3):
        raise InputError(f"{described} is of type {type(image).__name__} and shape {shape}, and is no image")
    if len(shape) == 2:
        return (1, *shape)
    if in_memory.has_channels_first(shape, described, is_tensor):
        return shape
    return shape[2], shape[0], shape[1]


# Forms of data


class Form(Protocol):
    """Data in the form in which it was given.

    labels: the labels as stored
    where: the set's name in messages
    """

    labels: Labels
    where: str

    def __len__(self) -> int: ...

    def shape(self) -> tuple[int, int, int]:
        """Returns (channels, height, width) of the first image."""

    def changed(self, labels: list[Any] | None, change: Change | None, fingerprint: str) -> Any:
        """Returns the same form of data with other labels and images; None keeps them.

        fingerprint: SHA-256 of the draws, which identifies the new content
        """


def _form(given: Any, where: str, options: ReadOptions) -> Form:
    if isinstance(given, Mapping):
        raise InputError(f"{where} is a mapping; give the training set alone, and the test set as test=")
    if in_memory.is_table(given):
        return _Table(given, where, options)
    if options.image_column or options.label_column:
        raise InputError(f"{where} has no columns to choose; leave image_column and label_column out")
    if in_memory.is_pair(given):
        return _Arrays(given, where)
    data = in_memory.as_dataset(given, where)
    if in_memory.is_iterable(data):
        raise InputError(f"{where} has no length; give a Dataset that has one, or a list")
    return _Items(data, where)


class _Arrays:
    """A pair (images, labels)."""

    def __init__(self, given: Any, where: str) -> None:
        _, labels = in_memory.pair(given, where)
        self.given, self.where, self.labels = given, where, Labels(labels)

    def __len__(self) -> int:
        return len(self.labels)

    def shape(self) -> tuple[int, int, int]:
        return _shape(next(iter(self.given[0])), f"image 0 of {self.where}")

    def changed(self, labels: list[Any] | None, change: Change | None, fingerprint: str) -> Any:
        images, given_labels = self.given
        if change is not None:
            made = (change(image, row) for row, image in enumerate(images))
            if in_memory.is_tensor(images) or isinstance(images, np.ndarray):
                kept = torch.empty_like(images) if in_memory.is_tensor(images) else np.empty_like(images)
                for row, image in enumerate(made):
                    kept[row] = image
                images = kept
            else:
                images = list(made)
        pair = (images, given_labels if labels is None else _same_kind(given_labels, labels))
        return list(pair) if isinstance(self.given, list) else pair


def _same_kind(given: Any, values: list[Any]) -> Any:
    """Returns all labels as the same kind of array, series or list as `given`."""
    if in_memory.is_tensor(given):
        return torch.tensor(values, dtype=given.dtype, device=given.device).reshape(given.shape)
    if isinstance(given, np.ndarray):
        return np.array(values, dtype=given.dtype).reshape(given.shape)
    if hasattr(given, "to_numpy"):  # a `pandas.Series`
        return type(given)(values, index=given.index, dtype=given.dtype, name=given.name)
    return tuple(values) if isinstance(given, tuple) else values


class _Items:
    """A torch `Dataset`, or another object with a length and items."""

    def __init__(self, data: Any, where: str) -> None:
        self.data, self.where = data, where
        self.labels = Labels(_labels_of(data, where), in_memory.class_names(data))

    def __len__(self) -> int:
        return len(self.data)

    def shape(self) -> tuple[int, int, int]:
        return _shape(in_memory.item_at(self.data, 0, self.where).image, f"image 0 of {self.where}")

    def changed(self, labels: list[Any] | None, change: Change | None, fingerprint: str) -> RandomizedDataset:
        return RandomizedDataset(self.data, list(self.labels.values), labels, change)


def _labels_of(data: Any, where: str) -> list[Any]:
    """Returns every label: from the data set's own list if its sampled items agree, else from the items."""
    listed = _listed(data)
    if listed is not None and len(listed) == len(data):
        rows = np.unique(np.linspace(0, len(data) - 1, CHECKED).astype(int)).tolist() if len(data) else []
        if all(_label_at(data, row, where) == listed[row] for row in rows):
            return listed
    return [_label_at(data, row, where) for row in range(len(data))]


def _label_at(data: Any, row: int, where: str) -> Any:
    return in_memory.label_of(in_memory.item_at(data, row, where).label, f"the label of image {row} of {where}")


def _listed(data: Any) -> list[Any] | None:
    """Returns the labels that a data set lists, through subsets and concatenations; None if it lists none."""
    if getattr(data, "target_transform", None) is not None:
        return None
    if isinstance(data, Subset):
        inner = _listed(data.dataset)
        return None if inner is None else [inner[index] for index in data.indices]
    if isinstance(data, ConcatDataset):
        parts = [_listed(one) for one in data.datasets]
        return None if any(part is None for part in parts) else [label for part in parts for label in part or ()]
    return next(iter(_lists(data).values()), None)


def _lists(data: Any) -> dict[str, list[Any]]:
    """Returns the attributes of a data set that hold a label for each image, by name."""
    found = {}
    for name in LISTS:
        with contextlib.suppress(Exception):  # several numbers per image, or an error of a user's property
            labels = getattr(data, name)
            found[name] = [in_memory.label_of(label, f"label {row}") for row, label in enumerate(labels)]
    return found


class RandomizedDataset(Dataset[Any]):
    """A torch `Dataset` whose items have other labels or pixels.

    It has `classes` and `class_to_idx` if the wrapped data set has them. It has `targets` or `labels` if they are the
    labels of the wrapped items.

    An item must have the label that it had when the labels were drawn, else reading the item raises `InputError`. So
    the wrapped data set must keep its order.
    """

    def __init__(self, data: Any, true_labels: list[Any], labels: list[Any] | None, change: Change | None) -> None:
        self.dataset = data
        self._true_labels, self._labels, self._change = true_labels, labels, change
        for name in KEPT:
            if hasattr(data, name):
                setattr(self, name, getattr(data, name))
        for name, listed in _lists(data).items():
            if listed == true_labels:
                given = getattr(data, name)
                setattr(self, name, given if labels is None else _same_kind(given, labels))

    def forget_classes(self) -> None:
        """Removes `classes` and `class_to_idx`, because the labels are no longer of these classes."""
        for name in KEPT:
            vars(self).pop(name, None)

    def __len__(self) -> int:
        return len(self._true_labels)

    def __getitem__(self, index: int) -> Any:
        row = range(len(self))[index]  # a negative index counts from the end; raises IndexError
        item = self.dataset[row]
        image, label = in_memory.as_item(item, row, "the data set")
        if in_memory.label_of(label, f"the label of item {row}") != self._true_labels[row]:
            raise InputError(
                f"item {row} has another label than when labels were drawn; the data set must keep its order"
            )
        if self._change is not None:
            image = self._change(image, row)
        if self._labels is not None:
            label = _like(label, self._labels[row])
        if isinstance(item, Mapping):
            image_key, label_key = in_memory.keys_of(item, row, "the data set")
            return {**item, image_key: image, label_key: label}
        return type(item)((image, label)) if type(item) in (tuple, list) else (image, label)


def _like(label: Any, value: Any) -> Any:
    """Returns `value` in the type of an item's `label`."""
    if in_memory.is_tensor(label):
        return torch.full_like(label, value)
    if isinstance(label, np.ndarray):
        return np.full_like(label, value)
    return type(label)(value) if isinstance(label, np.generic) else value


class _Table:
    """A `datasets.Dataset`, with the names of its image and label columns."""

    def __init__(self, given: Any, where: str, options: ReadOptions) -> None:
        self.given, self.where = given, where
        self.image, self.label = tables.columns(tables.DatasetRows(given), Path(where), options, [])
        contents = tables.read_loaded(given, where, options, any_file=True)
        labels = contents.splits["train"].labels
        assert labels is not None, "the label column was found"
        self.labels = labels

    def __len__(self) -> int:
        return len(self.given)

    @property
    def _plain(self) -> Any:
        """The data set without format and transform; its items have Pillow's images."""
        from datasets import Image

        plain = self.given.with_format(None)
        if not isinstance(plain.features[self.image], Image):
            raise InputError(
                f"the column '{self.image}' of {self.where} holds no images; cast_column('{self.image}',"
                " datasets.Image()) decodes them"
            )
        return plain.cast_column(self.image, Image())

    def shape(self) -> tuple[int, int, int]:
        return _shape(self._plain[0][self.image], f"image 0 of {self.where}")

    def changed(self, labels: list[Any] | None, change: Change | None, fingerprint: str) -> Any:
        features, made = self.given.features, self.given.with_format(None)
        if change is not None:
            name = hashlib.sha256(f"{self.given._fingerprint} {fingerprint}".encode()).hexdigest()[:16]
            made = self._plain.map(
                lambda item, row: {self.image: change(item[self.image], row)},
                with_indices=True,
                features=self._plain.features,
                load_from_cache_file=False,
                new_fingerprint=name,
            )
        if labels is not None:
            names = getattr(features[self.label], "names", None)
            if names is not None and max(labels) >= len(names):
                raise InputError(f"{self.where} names {len(names)} classes, fewer than the operator's labels have")
            made = made.remove_columns(self.label).add_column(self.label, labels, feature=features[self.label])
        made = made.select_columns(list(features))
        made = made if made.features == features else made.cast(features)
        shown = self.given.format
        made.set_format(shown["type"], shown["columns"], shown["output_all_columns"], **shown["format_kwargs"])
        return made
