"""The data sets that have names: their titles, their repositories on the Hub, and the checksums of their decoded data.

The checksums are the MD5 sums of the unpacked files that the authors publish. Public build scripts check the same sums.
Any copy of the same images and labels in the same order can be written in the published form. The sums of CIFAR-100
come from one public source alone.
"""

from __future__ import annotations

import hashlib
import itertools
import re
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from rethinking.data.images import ImageSet

Files = Iterator[tuple[str, bytes]]  # name and content of a published file, piece by piece

# The coarse class of each fine class of CIFAR-100. The binary version stores both.
COARSE = (
    "4 1 14 8 0 6 7 7 18 3 3 14 9 18 7 11 3 9 7 11 6 11 5 10 7 6 13 15 3 15 0 11 1 10 12 14 16 9 11 5 5"
    " 19 8 8 15 13 14 17 18 10 16 4 17 4 2 0 17 4 18 17 10 3 2 12 12 16 12 1 9 19 2 10 0 1 16 12 9 13 15"
    " 13 16 19 2 4 6 19 5 5 8 19 18 1 2 15 6 0 17 8 14 13"
)
COARSE_CLASSES = np.array(COARSE.split(), dtype=np.int64)
CIFAR100_CLASSES = (  # 'cra' is the Hub's spelling
    "apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle"
    " caterpillar cattle chair chimpanzee clock cloud cockroach couch cra crocodile cup dinosaur dolphin elephant"
    " flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man"
    " maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree"
    " plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper"
    " snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor train"
    " trout tulip turtle wardrobe whale willow_tree wolf woman worm"
)


@dataclass(frozen=True)
class KnownData:
    """A data set that has a name.

    title: the name as people write it
    repository: the repository on the Hub
    folders: other names of its folder, reduced by `plain`
    shape: (channels, height, width) of an image
    sizes: numbers of training and test images
    class_names: the class names that the Hub has
    files: writes decoded data in the form of the published files
    sums: the MD5 of each published file
    """

    title: str
    repository: str
    folders: tuple[str, ...]
    shape: tuple[int, int, int]
    sizes: tuple[int, int]
    class_names: tuple[str, ...]
    files: Callable[[Mapping[str, ImageSet]], Files]
    sums: Mapping[str, str]

    def is_in(self, splits: Mapping[str, ImageSet]) -> bool:
        """Whether `splits` are its images and labels, bit for bit and in its order."""
        if tuple(len(splits[name]) for name in ("train", "test") if name in splits) != self.sizes:
            return False
        if splits["train"].images.shape[1:] != self.shape:
            return False
        if any(split.labels.max() >= len(self.class_names) for split in splits.values()):
            return False
        for name, chunks in itertools.groupby(self.files(splits), key=lambda file: file[0]):
            digest = hashlib.md5(usedforsecurity=False)
            for _, content in chunks:
                digest.update(content)
            if digest.hexdigest() != self.sums[name]:
                return False
        return True


def _cifar10_files(splits: Mapping[str, ImageSet]) -> Files:
    """Yields the binary version: per image one byte for the label and 3,072 for the pixels."""
    for split, name in (("train", "data_batch_{}.bin"), ("test", "test_batch.bin")):
        for start in range(0, len(splits[split]), 10_000):
            rows = slice(start, start + 10_000)
            yield name.format(1 + start // 10_000), _rows([splits[split].labels[rows]], splits[split].images[rows])


def _cifar100_files(splits: Mapping[str, ImageSet]) -> Files:
    """Yields the binary version: per image a byte each for the coarse and the fine label, and 3,072 for the pixels."""
    for split in ("train", "test"):
        for start in range(0, len(splits[split]), 10_000):
            fine = splits[split].labels[start : start + 10_000]
            yield f"{split}.bin", _rows([COARSE_CLASSES[fine], fine], splits[split].images[start : start + 10_000])


def _rows(labels: list[np.ndarray], images: np.ndarray) -> bytes:
    columns = [column.astype(np.uint8)[:, None] for column in labels]
    return np.concatenate([*columns, images.reshape(len(images), -1)], axis=1).tobytes()


def _idx_files(splits: Mapping[str, ImageSet]) -> Files:
    """Yields the IDX files: a magic number, the dimensions, then the bytes."""
    for split, name in (("train", "train"), ("test", "t10k")):
        images, labels = splits[split].images, splits[split].labels
        yield f"{name}-images-idx3-ubyte", struct.pack(">4I", 2051, len(images), *images.shape[2:]) + images.tobytes()
        yield f"{name}-labels-idx1-ubyte", struct.pack(">2I", 2049, len(labels)) + labels.astype(np.uint8).tobytes()


KNOWN = {
    "cifar10": KnownData(
        "CIFAR-10",
        "uoft-cs/cifar10",
        ("cifar10batchespy", "cifar10batchesbin", "cifar10python", "cifar10binary"),
        (3, 32, 32),
        (50_000, 10_000),
        ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
        _cifar10_files,
        {
            "data_batch_1.bin": "5dd7e06a14cb22eb9f671a540d1b7c25",
            "data_batch_2.bin": "5ea93a67294ea407fff1d09f752e9692",
            "data_batch_3.bin": "942cd6a4bcdd0dd3c604fbe906cb4421",
            "data_batch_4.bin": "ae636b3ba5c66a11e91e8cb52e771fcb",
            "data_batch_5.bin": "53f37980c15c3d472c316c40844f3f0d",
            "test_batch.bin": "803d5f7f4d78ea53de84dbe85f74fb6d",
        },
    ),
    "cifar100": KnownData(
        "CIFAR-100",
        "uoft-cs/cifar100",
        ("cifar100python", "cifar100binary"),
        (3, 32, 32),
        (50_000, 10_000),
        tuple(CIFAR100_CLASSES.split()),
        _cifar100_files,
        {"train.bin": "6172c7755cfe09b2fe270c85cebc1b15", "test.bin": "4499cfba6c016c1be1438163640a0898"},
    ),
    "mnist": KnownData(
        "MNIST",
        "ylecun/mnist",
        (),
        (1, 28, 28),
        (60_000, 10_000),
        tuple("0123456789"),
        _idx_files,
        {
            "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
            "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
            "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
            "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
        },
    ),
    "fashion_mnist": KnownData(
        "Fashion-MNIST",
        "zalando-datasets/fashion_mnist",
        (),
        (1, 28, 28),
        (60_000, 10_000),
        (
            *("T - shirt / top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag"),
            "Ankle boot",
        ),
        _idx_files,
        {
            "train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
            "train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
            "t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
            "t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
        },
    ),
}
NAMES = ("digits", *KNOWN)


def plain(name: str) -> str:
    """Reduces a name to lower-case letters and digits: 'CIFAR-10' and 'cifar_10' both give 'cifar10'."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def named(name: str) -> str | None:
    """Returns the name in `NAMES` that `name` is a spelling of, such as 'cifar10' for 'CIFAR-10'; else None."""
    return next((known for known in NAMES if plain(known) == plain(name)), None)


def folder_of(file_or_folder: str) -> str | None:
    """Returns the known data set that a folder or `.npz` file of this name should hold, else None."""
    stem = plain(file_or_folder.removesuffix(".npz"))
    return next((name for name, known in KNOWN.items() if stem in (plain(name), *known.folders)), None)
