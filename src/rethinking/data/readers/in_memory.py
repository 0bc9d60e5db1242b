"""Images given in Python: arrays, lists, a torch `Dataset`, a `datasets.Dataset`, or a mapping of these.

A torch `Dataset` is read once into a file, item by item, so that memory holds one image at a time. Arrays are used as
they are. A `datasets.Dataset` is read like its files.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rethinking.data.decoding import OtherShape, decode, not_alike
from rethinking.data.readers import tables
from rethinking.data.readers.contents import (
    LAYOUTS,
    ArrayImages,
    Contents,
    Labels,
    ReadOptions,
    Split,
    Stored,
    split_of,
)
from rethinking.errors import InputError, in_one_line
from rethinking.steps import Steps

READ_TWICE = 16  # items that are read twice, to find random transforms
IMAGE_KEYS = ("image", "img", "pixel_values")  # keys of items that are mappings
LABEL_KEYS = ("label", "labels", "fine_label")
CHANNELS = (1, 3, 4)
FORMS = "a pair (images, labels), a torch Dataset, a datasets.Dataset, or a mapping of these by train and test"

Signature = tuple[Any, ...]  # equal for equal items


class Item(NamedTuple):
    """An image and its label, as a data set returns them."""

    image: Any
    label: Any


class Pixels(NamedTuple):
    """An image that can be decoded.

    change: the largest change of a value in 0-1 by the conversion to 8 bits; None for an image that was not float
    """

    stored: Stored
    change: float | None = None


def read(images: Any, test_images: Any, options: ReadOptions, folder: Path, begin: Steps) -> Contents:
    """Reads the given splits. Images outside of arrays are written to `folder`, after `resize` and `colour`.

    Raises `InputError` for data in none of the forms, for invalid images or labels, and for a data set that returns
    other images at each reading.
    """
    given = by_split(images, test_images)
    if all(is_table(one) for one in given.values()):
        contents = tables.read_loaded(given, "the data set", options, any_file=True)
        return Contents(contents.splits, [*contents.notes, *_not_applied(given.values())])
    if (options.image_column or options.label_column) and not any(map(is_table, given.values())):
        raise InputError(
            "images that are no datasets.Dataset have no columns to choose; leave image_column and label_column out"
        )
    notes = list(_not_applied(one for one in given.values() if is_table(one)))
    splits = {split: _split(one, split, options, folder, notes, begin) for split, one in given.items()}
    return Contents(with_class_names(splits), list(dict.fromkeys(notes)))


def by_split(images: Any, test_images: Any) -> dict[str, Any]:
    """Returns what is given, by 'train', 'test' and 'val'."""
    given = {"train": images}
    if isinstance(images, Mapping):
        given = {}
        for name, one in images.items():
            split = split_of(str(name))
            if split is None:
                raise InputError(f"the mapping of images has the key '{name}'; its keys must be train and test")
            if split in given:
                raise InputError(f"two keys of the mapping of images mean '{split}': {', '.join(map(str, images))}")
            given[split] = one
        if "train" not in given:
            raise InputError(f"the mapping of images has no key 'train', only {', '.join(map(str, images)) or 'none'}")
    if test_images is not None:
        if "test" in given:
            raise InputError("test images are given twice, in the mapping and as an argument; leave one out")
        given["test"] = test_images
    return given


def is_table(given: Any) -> bool:
    """Whether `given` is a `datasets.Dataset`."""
    datasets = sys.modules.get("datasets")
    return datasets is not None and isinstance(given, datasets.Dataset)


def is_pair(given: Any) -> bool:
    """Whether `given` is a pair (images, labels), not a data set of items."""
    return isinstance(given, tuple) or (isinstance(given, list) and len(given) == 2 and not _is_item(given[0]))


def _is_item(value: Any) -> bool:
    return isinstance(value, Mapping) or (isinstance(value, tuple) and len(value) == 2)


def _not_applied(tables_given: Iterable[Any]) -> Iterator[str]:
    if any((table.format or {}).get("type") == "custom" for table in tables_given):
        yield "the images are read as the data set stores them; its transform is not applied"


def _split(given: Any, split: str, options: ReadOptions, folder: Path, notes: list[str], begin: Steps) -> Split:
    where = f"the split '{split}'"
    if is_table(given):
        contents = tables.read_loaded(given, where, options, any_file=True)
        notes += contents.notes
        return dataclasses.replace(contents.splits["train"], where=where)
    writing = _Writing(split, options, folder / f"{split}.read", begin)
    if is_pair(given):
        images, labels = pair(given, where)
        if isinstance(images, np.ndarray) and images.dtype.kind != "f":
            return Split(ArrayImages(images, split), Labels(labels), where)
        writing.write((Item(image, label) for image, label in zip(images, labels, strict=True)), len(labels))
        return Split(writing.images(notes), Labels(writing.labels), where)
    data = as_dataset(given, where)
    if is_iterable(data):
        first: list[Signature] = []
        writing.write(_noted(items_of(data, where), first), None)
        with _seeded(0):
            again = [_signature(item) for item in itertools.islice(items_of(data, where), READ_TWICE)]
        _compare(first, again or first, where)  # the second reading is empty if only one is possible
    else:
        _refuse_random(data, where)
        writing.write(items_of(data, where), len(data))
    return Split(writing.images(notes), Labels(writing.labels, class_names(data)), where)


def with_class_names(splits: dict[str, Split]) -> dict[str, Split]:
    """Gives every split the class names of the first split that has names."""
    labels = [split.labels for split in splits.values() if split.labels is not None]
    names = next((each.names for each in labels if each.names is not None), None)
    return {
        name: dataclasses.replace(split, labels=Labels(split.labels.values, names))
        if names is not None and split.labels is not None and split.labels.names is None
        else split
        for name, split in splits.items()
    }


# Pairs of images and labels


def pair(given: Any, where: str) -> tuple[Any, list[Any]]:
    """Returns the images, an array (n, height, width) or (n, height, width, channels) or a list, and a label for each.

    Raises `InputError` if `given` is no pair of images and labels.
    """
    if len(given) != 2:
        raise InputError(f"{where} is a tuple of {len(given)}; give {FORMS}")
    images, labels = given
    for value, name in ((images, "images"), (labels, "labels")):
        if value is None:
            raise InputError(f"{where} has no {name}: the pair is ({', '.join(_kind(each) for each in given)})")
        if isinstance(value, str | bytes | Path):
            raise InputError(f"the {name} of {where} are a text, {str(value)!r}; a path must be given as dataset=PATH")
        if not hasattr(value, "__len__") or isinstance(value, Mapping):
            raise InputError(f"the {name} of {where} are of type {_kind(value)}; give an array, a tensor or a list")
    of_tensor = is_tensor(images)
    if of_tensor or hasattr(images, "__array_interface__"):
        images = _array(images)
    labels = _array(labels) if is_tensor(labels) or hasattr(labels, "__array__") else labels
    if isinstance(images, np.ndarray):
        if images.ndim < 3 and np.ndim(labels) >= 3:
            raise InputError(f"the images and labels of {where} are exchanged; give (images, labels)")
        images = _checked(images, f"the array of images of {where}", of_tensor)
    if len(images) != len(labels):
        raise InputError(f"{where} has {len(images):,} images, but {len(labels):,} labels")
    return images, [label_of(label, f"the label of image {row} of {where}") for row, label in enumerate(labels)]


def _checked(images: np.ndarray, described: str, is_tensor: bool) -> np.ndarray:
    """Returns the images with channels last. Raises `InputError` for a type or shape that is no image's."""
    if images.dtype.kind == "O":
        raise InputError(f"{described} holds Python objects; give a list, or numbers of one size")
    grey16 = images.dtype == np.uint16 and images.ndim == 3
    if images.dtype != np.uint8 and images.dtype.kind != "f" and not grey16:
        raise InputError(f"{described} is {images.dtype}; images must be uint8, from 0 to 255")
    if images.ndim not in (3, 4):
        raise InputError(f"{described} is {images.shape}; images must be {LAYOUTS}")
    if images.ndim == 4 and has_channels_first(images.shape[1:], described, is_tensor):
        return images.transpose(0, 2, 3, 1)
    return images


def has_channels_first(shape: tuple[int, ...], described: str, is_tensor: bool) -> bool:
    """Whether an image with three axes has its channels first, not last. If both are possible, a tensor has them first.

    Raises `InputError` if neither is possible, or if both are possible for an array.
    """
    first, last = shape[0] in (CHANNELS if is_tensor else CHANNELS[:2]), shape[2] in CHANNELS
    if not first and not last:
        raise InputError(
            f"{described} has the shape {tuple(shape)}, with neither 1 nor 3 channels; images must be {LAYOUTS}"
        )
    if first and last and not is_tensor:
        raise InputError(
            f"{described} has the shape {tuple(shape)}, in which two numbers could be the channels; give a tensor"
        )
    return first


def is_tensor(value: Any) -> bool:
    """Whether `value` is a torch tensor; does not import PyTorch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def _array(value: Any) -> np.ndarray:
    if is_tensor(value):
        if value.layout != sys.modules["torch"].strided:
            raise InputError(f"a tensor has the layout {value.layout}; give its .to_dense()")
        value = value.detach().cpu()
        return np.asarray(value.float() if value.dtype.itemsize == 2 and value.is_floating_point() else value)
    return np.asarray(value)


def _kind(value: Any) -> str:
    return type(value).__name__


def label_of(value: Any, described: str) -> Any:
    """Returns a label as a Python value, for `classify`. Raises `InputError` if it holds more than one number."""
    if is_tensor(value) or isinstance(value, np.ndarray | np.generic | list | tuple):
        array = _array(value)
        if array.size != 1:
            raise InputError(
                f"{described} is {array.size} numbers; give one number or text per image, and the argmax of one-hot"
                " labels"
            )
        return array.reshape(()).item()
    return value


# Data sets of items


def as_dataset(given: Any, where: str) -> Any:
    """Returns `given` if it has items. Otherwise raises `InputError`, which says what to give instead."""
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(given, torch.utils.data.DataLoader):
        raise InputError(f"{where} is a DataLoader, which makes batches; give its .dataset")
    if isinstance(given, str | bytes | Path):
        raise InputError(f"{where} is a text, {str(given)!r}; a path or name must be given as dataset=...")
    if hasattr(given, "__next__"):
        raise InputError(f"{where} is a {_kind(given)}, which can be read only once; give a list or a torch Dataset")
    if isinstance(given, np.ndarray) or is_tensor(given) or given is None:
        raise InputError(f"{where} has no labels: it is of type {_kind(given)}; give {FORMS}")
    if is_iterable(given) or (hasattr(given, "__len__") and hasattr(given, "__getitem__")):
        return given
    raise InputError(f"{where} is of type {_kind(given)}; give {FORMS}")


def is_iterable(data: Any) -> bool:
    """Whether `data` is a torch `IterableDataset`."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(data, torch.utils.data.IterableDataset)


def items_of(data: Any, where: str) -> Iterator[Item]:
    """Yields every item in order. Raises `InputError` if an item cannot be read or is no pair."""
    if not is_iterable(data):
        yield from (item_at(data, row, where) for row in range(len(data)))
        return
    iterator, row = iter(data), 0
    while True:
        with _failing_in_one_line(row, where):
            try:
                item = next(iterator)
            except StopIteration:
                return
        yield as_item(item, row, where)
        row += 1


def item_at(data: Any, row: int, where: str) -> Item:
    """Returns one item of a data set that has a length. Raises `InputError` if it cannot be read or is no pair."""
    with _failing_in_one_line(row, where):
        item = data[row]
    return as_item(item, row, where)


@contextlib.contextmanager
def _failing_in_one_line(row: int, where: str) -> Iterator[None]:
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # a user's data set may raise any type
        raise InputError(f"item {row} of {where} cannot be read: {in_one_line(error)}") from error


def as_item(item: Any, row: int, where: str) -> Item:
    """Returns the image and label of an item, which is a pair or a mapping. Raises `InputError` for other items."""
    if isinstance(item, Mapping):
        image, label = keys_of(item, row, where)
        return Item(item[image], item[label])
    if not isinstance(item, tuple | list) or len(item) != 2:
        parts = f"{len(item)} parts" if isinstance(item, tuple | list) else f"of type {_kind(item)}"
        raise InputError(f"item {row} of {where} is {parts}, not a pair (image, label)")
    return Item(*item)


def keys_of(item: Mapping[str, Any], row: int, where: str) -> tuple[str, str]:
    """Returns the keys of an item's image and label. Raises `InputError` if it has none."""
    image = next((key for key in IMAGE_KEYS if key in item), None)
    label = next((key for key in LABEL_KEYS if key in item), None)
    if image is None or label is None:
        raise InputError(f"item {row} of {where} has the keys {', '.join(map(str, item))}, not image and label")
    return image, label


def class_names(data: Any) -> tuple[str, ...] | None:
    """Returns the `classes` of a data set like torchvision's, through subsets and concatenations; else None."""
    if getattr(data, "target_transform", None) is not None:  # its labels are not those of `classes`
        return None
    names = getattr(data, "classes", None)
    if names is None and hasattr(data, "features"):  # an `IterableDataset` of the library `datasets`
        features = data.features or {}
        names = next((getattr(features[key], "names", None) for key in LABEL_KEYS if key in features), None)
    if isinstance(names, list | tuple) and names:
        return tuple(", ".join(name) if isinstance(name, tuple) else str(name) for name in names)
    inner = getattr(data, "datasets", None) or [getattr(data, "dataset", None)]
    if inner == [None]:
        return None
    found = {class_names(one) for one in inner}
    return found.pop() if len(found) == 1 else None


def _refuse_random(data: Any, where: str) -> None:
    """Reads some items twice, with different global seeds. Raises `InputError` if they differ."""
    count = len(data)
    rows = np.unique(np.linspace(0, count - 1, READ_TWICE).astype(int)).tolist() if count else []

    def look(seed: int) -> list[Signature]:
        with _seeded(seed):
            return [_signature(item_at(data, row, where)) for row in rows]

    _compare(look(0), look(1), where)


def _seeded(seed: int) -> contextlib.AbstractContextManager[None]:
    from rethinking.seeding import global_streams  # which imports PyTorch

    return global_streams(seed, "reading")


def _noted(items: Iterator[Item], first: list[Signature]) -> Iterator[Item]:
    """Yields the same items, and collects the signatures of the first ones in `first`."""
    for item in items:
        if len(first) < READ_TWICE:
            first.append(_signature(item))
        yield item


def _compare(first: list[Signature], again: list[Signature], where: str) -> None:
    if first != again:
        raise InputError(
            f"the items of {where} differ from one reading to the next; give the data set without its random transforms"
        )


def _signature(item: Item) -> Signature:
    image, label = _array(item.image), item.label
    label = label.tolist() if is_tensor(label) or isinstance(label, np.ndarray) else label
    return image.shape, str(image.dtype), image.tobytes(), repr(label)


# An image


def pixels_of(image: Any, described: str) -> Pixels:
    """Returns the image of an item: Pillow's, or an array or tensor in one of the layouts.

    Raises `InputError` for others.
    """
    if hasattr(image, "getexif"):  # a Pillow image; its pixels are used as they are, without EXIF's orientation
        if image.mode in ("L", "RGB") and "transparency" not in image.info:
            return Pixels(Stored(described, np.asarray(image)))
        image = image.copy()
        image.info = {key: value for key, value in image.info.items() if key == "transparency"}
        return Pixels(Stored(described, image))
    if isinstance(image, str | bytes | Path) or image is None:
        raise InputError(f"{described} is of type {_kind(image)}; images must be arrays, tensors or Pillow's")
    array = _array(image)
    if array.ndim not in (2, 3):
        raise InputError(f"{described} is {array.shape}; an image is (height, width), with or without 1 or 3 channels")
    array = _checked(array[None], described, is_tensor(image))[0]
    if array.dtype.kind != "f":
        return Pixels(Stored(described, array))
    low, high = (float(array.min()), float(array.max())) if array.size else (0.0, 0.0)
    if not 0 <= low <= high <= 1:  # also true for nan
        raise InputError(
            f"{described} holds numbers from {low:.3g} to {high:.3g}; images must be uint8, or floats from 0 to 1, so"
            " give the data set without its Normalize and augmentations"
        )
    eight_bits = np.rint(array.astype(np.float64) * 255)
    change = float(np.abs(eight_bits / 255 - array).max()) if array.size else 0.0
    return Pixels(Stored(described, eight_bits.astype(np.uint8)), change)


class _Writing:
    """The images of a split, which are decoded into a file one by one, and their labels."""

    def __init__(self, split: str, options: ReadOptions, file: Path, begin: Steps) -> None:
        self.split, self.options, self.file, self.begin = split, options, file, begin
        self.labels: list[Any] = []
        self.first: OtherShape | None = None
        self.change: float | None = None

    def write(self, items: Iterable[Item], count: int | None) -> None:
        """Writes all items. Raises `InputError` for an invalid image, or one of another size than the first."""
        advanced = self.begin("reading the images")
        with self.file.open("wb") as out:
            for row, item in enumerate(items):
                described = f"image {row} of the split '{self.split}'"
                pixels = self._decoded(item.image, described)
                self.first = self.first or OtherShape(described, pixels.shape)
                if pixels.shape != self.first.shape:
                    raise not_alike(OtherShape(described, pixels.shape), self.first)
                out.write(np.ascontiguousarray(pixels).data)
                self.labels.append(label_of(item.label, f"the label of {described}"))
                if count:
                    advanced((row + 1) / count)

    def _decoded(self, image: Any, described: str) -> np.ndarray:
        stored, change = pixels_of(image, described)
        if change is not None:
            self.change = max(change, self.change or 0.0)
        try:
            pixels = decode(stored, self.options)
        except InputError:
            raise
        except Exception as error:  # Pillow raises many types
            raise InputError(f"cannot read {described}: {in_one_line(error)}") from None
        if 0 in pixels.shape:
            raise InputError(f"{described} has no pixels: it is {pixels.shape}")
        return pixels

    def images(self, notes: list[str]) -> ArrayImages:
        """Returns the written images, memory-mapped. Adds what was done to them to `notes`."""
        if self.change is not None:
            notes.append(
                "float images from 0 to 1 were converted back to 8 bits; no value changed by more than"
                f" {self.change:.3g}"
            )
        if self.first is None:
            return ArrayImages(np.empty((0, 1, 1), dtype=np.uint8), self.split)
        shape = (len(self.labels), *self.first.shape)
        return ArrayImages(np.memmap(self.file, np.uint8, "r", shape=shape).transpose(0, 2, 3, 1), self.split)
