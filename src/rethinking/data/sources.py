"""Images from anywhere: built in, from the Hub, or from a local folder; decoded once into a cache of our own.

A cache entry is a folder of `.npy` files that later runs memory-map, so they import neither `datasets` nor an image
decoder. It is built under another name and renamed when complete, so two processes may build it at once.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import http.client
import io
import json
import logging
import os
import re
import shutil
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import platformdirs

from rethinking.config import nearest
from rethinking.errors import InputError, RunError

Stamps = tuple[tuple[str, int, int], ...]  # of files: name, size, time of the last change

CACHE_FORMAT = 1
STALE = 24 * 3600.0  # seconds after which an unfinished entry can no longer be at work
HUB_TIMEOUT = 2.0  # seconds; with the import of `datasets` the whole answer stays under 5

log = logging.getLogger(__name__)


class HubSource(NamedTuple):
    repository: str
    label_column: str


HUB_SOURCES = {
    "cifar10": HubSource("uoft-cs/cifar10", "label"),
    "cifar100": HubSource("uoft-cs/cifar100", "fine_label"),
    "mnist": HubSource("ylecun/mnist", "label"),
    "fashion_mnist": HubSource("zalando-datasets/fashion_mnist", "label"),
}
NAMES = ("digits", *HUB_SOURCES)


@dataclass(frozen=True)
class ImageSet:
    """One split: `images` uint8 (n, channels, height, width), `labels` int64 (n,)."""

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class ImageData:
    """A data set: its splits (`test` is None where the source has none), class names and SHA-256 fingerprint."""

    name: str
    class_names: tuple[str, ...]
    fingerprint: str
    train: ImageSet
    test: ImageSet | None

    @property
    def image_shape(self) -> tuple[int, int, int]:
        channels, height, width = self.train.images.shape[1:]
        return channels, height, width


def load(dataset: str, data_root: str | Path | None = None) -> ImageData:
    """The data set named `dataset` (one of `NAMES`) or in the folder of that path.

    A named data set is taken from `data_root` where a folder of that name lies there, else from the Hub. The images
    are memory-mapped from the cache (`RETHINKING_CACHE`, else the user's cache folder), which is built where missing.

    Raises `InputError` for an unknown name, a folder that is no image data set or a Hub out of reach, and `RunError`
    for a damaged cache.
    """
    folder = _local_folder(dataset, data_root)
    name = re.sub(r"[^\w.-]+", "_", folder.name) if folder else dataset
    entry = cache_folder() / f"{name}-{_cache_key(dataset, folder)}"
    if not entry.exists():
        _build(entry, dataset, folder, data_root)
    return _open(entry, name)


def cache_folder() -> Path:
    """Where decoded data sets are kept."""
    return Path(os.environ.get("RETHINKING_CACHE") or platformdirs.user_cache_dir("rethinking"))


def _local_folder(dataset: str, data_root: str | Path | None) -> Path | None:
    """The local folder that `dataset` stands for; None for the embedded digits and for the Hub."""
    if data_root is not None and not Path(data_root).is_dir():
        raise InputError(f"data_root {data_root} is no folder")
    if dataset == "digits":
        return None
    if dataset in HUB_SOURCES:
        named = Path(data_root) / dataset if data_root is not None else None
        return named.resolve() if named is not None and named.is_dir() else None
    if Path(dataset).is_dir():
        return Path(dataset).resolve()
    raise InputError(
        f"dataset must be one of {', '.join(NAMES)}, or the path of an existing folder, not '{dataset}'"
        f"{nearest(dataset, NAMES)}"
    )


def _cache_key(dataset: str, folder: Path | None) -> str:
    """Changes when a local folder's files do, so an edited folder is decoded again."""
    content: list[Any] = [CACHE_FORMAT, dataset] if folder is None else [CACHE_FORMAT, str(folder), *_stamps(folder)]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:12]


def _stamps(folder: Path) -> Stamps:
    files = [file for file in sorted(folder.rglob("*")) if file.is_file()]
    return tuple((str(file.relative_to(folder)), file.stat().st_size, file.stat().st_mtime_ns) for file in files)


# Building a cache entry


def _build(entry: Path, dataset: str, folder: Path | None, data_root: str | Path | None) -> None:
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(prefix=f"{entry.name}.", suffix=".unfinished", dir=entry.parent))
    except OSError as error:
        raise InputError(f"cannot write the cache {entry.parent}: {error.strerror}; set RETHINKING_CACHE") from None
    for left in entry.parent.glob("*.unfinished"):  # by a process that was killed
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > STALE:
                shutil.rmtree(left)
    try:
        if dataset == "digits":
            class_names = _write_digits(unfinished)
        else:
            splits = _load_dataset(dataset, folder, data_root, unfinished / "arrow")
            log.info("decoding %s into %s, once", dataset, entry)
            class_names = _decode(unfinished, splits, dataset)
            shutil.rmtree(unfinished / "arrow", ignore_errors=True)
        info = {"class_names": class_names, "fingerprint": _fingerprint(_read_splits(unfinished), class_names)}
        (unfinished / "info.json").write_text(json.dumps(info), encoding="utf-8")
        try:
            unfinished.rename(entry)
        except OSError:
            if not entry.exists():  # where it does another process was first, and its entry is as good as ours
                raise
    except OSError as error:
        raise RunError(f"cannot write the cache {entry.parent}: {error.strerror or error}") from None
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _write_digits(folder: Path) -> list[str]:
    """scikit-learn's 1,797 handwritten digits, 8x8, enlarged to 28x28; every fifth of a class is for testing."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    enlarge = _bilinear(8, 28)
    images = np.rint(enlarge @ (bunch.images * (255 / 16)) @ enlarge.T).astype(np.uint8)[:, None]
    labels = bunch.target.astype(np.int64)
    rank = np.empty_like(labels)  # a digit's position among those of its class
    for digit in range(10):
        members = np.flatnonzero(labels == digit)
        rank[members] = np.arange(len(members))
    for split, rows in (("train", rank % 5 != 4), ("test", rank % 5 == 4)):
        np.save(folder / f"{split}_images.npy", images[rows])
        np.save(folder / f"{split}_labels.npy", labels[rows])
    return [str(digit) for digit in range(10)]


def _bilinear(size: int, enlarged: int) -> np.ndarray:
    """The (enlarged, size) matrix of bilinear interpolation along one axis, edges repeated."""
    position = np.clip((np.arange(enlarged) + 0.5) * size / enlarged - 0.5, 0, size - 1)
    return np.maximum(0.0, 1.0 - np.abs(position[:, None] - np.arange(size)[None, :]))


def _load_dataset(dataset: str, folder: Path | None, data_root: str | Path | None, scratch: Path) -> Any:
    """The `datasets.DatasetDict` of a local folder, or of the Hub.

    A Hub out of reach is told within `HUB_TIMEOUT`; `datasets` itself would retry for half a minute.
    """
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    asked_offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
    if folder is None and not asked_offline:
        described = f"{endpoint}/api/datasets/{HUB_SOURCES[dataset].repository}"
        if not server_answers(described, HUB_TIMEOUT, "GET"):  # a portal in between may answer, but not this
            raise _unreachable(dataset, data_root, endpoint)
    import datasets
    import huggingface_hub

    datasets.disable_progress_bars()
    huggingface_hub.logging.set_verbosity_error()
    try:
        if folder is None:
            return datasets.load_dataset(HUB_SOURCES[dataset].repository)
        return datasets.load_dataset(str(folder), cache_dir=str(scratch))
    except Exception as error:  # the library raises many types of its own and of its readers
        if full := _disk_error(error):
            raise full from None
        if folder is None:
            raise _unreachable(dataset, data_root, endpoint) from None
        raise InputError(f"cannot read {folder} as a data set: {_first_line(error.__cause__ or error)}") from None


def _unreachable(dataset: str, data_root: str | Path | None, endpoint: str) -> InputError:
    tried = [] if data_root is None else [f"the folder {Path(data_root) / dataset}"]
    tried.append(f"{endpoint}/datasets/{HUB_SOURCES[dataset].repository}")
    return InputError(
        f"{dataset}: the Hub is out of reach (tried {' and '.join(tried)}); use --dataset digits, --data_root FOLDER"
        " with a folder of that name in it, or --dataset PATH; HF_HUB_OFFLINE=1 takes what the Hub's own cache holds"
    )


def server_answers(url: str, timeout: float, method: str = "HEAD") -> bool:
    """Whether a working server answers in full at `url` in `timeout` seconds, the name's look-up included."""
    answered = threading.Event()

    def ask() -> None:
        try:
            with urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=timeout) as answer:
                answer.read()
        except urllib.error.HTTPError as error:
            if error.code in (403, 407) or error.code >= 500:  # a proxy's or a broken server's answer
                return
        except (OSError, ValueError, http.client.HTTPException):
            return
        answered.set()

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(timeout)
    return answered.is_set()


def _decode(folder: Path, splits: Mapping[str, Any], dataset: str) -> list[str]:
    """Write the splits of a `DatasetDict` as `.npy` files; returns the class names."""
    if "train" not in splits:
        raise InputError(f"{dataset} has no split 'train', only {', '.join(map(str, splits))}")
    test = next((name for name in ("test", "validation") if name in splits), None)
    used = {"train": splits["train"]} | ({"test": splits[test]} if test else {})
    image_column, label_column = _columns(splits["train"].features, dataset)
    class_names = _class_names(splits["train"], label_column, dataset)

    shape = None
    for split, rows in used.items():
        if not len(rows):
            raise InputError(f"{dataset}: the split '{split}' is empty")
        with (folder / f"{split}_images.npy").open("wb") as file:
            for index, (image, described) in enumerate(_images(rows, image_column, split)):
                if shape is None:
                    shape, first = image.shape, described
                if image.shape != shape:
                    raise InputError(
                        f"images must have one size and mode: {described} is {_shape_text(image.shape)},"
                        f" but {first} is {_shape_text(shape)}"
                    )
                if index == 0:
                    header = {"descr": "|u1", "fortran_order": False, "shape": (len(rows), *shape)}
                    np.lib.format.write_array_header_1_0(file, header)
                file.write(image.tobytes())
        np.save(folder / f"{split}_labels.npy", _labels(rows, label_column, class_names, dataset, split))
    return [str(name) for name in class_names]


def _columns(features: Mapping[str, Any], dataset: str) -> tuple[str, str]:
    """The one image column and the one label column."""
    import datasets

    images = [name for name, kind in features.items() if isinstance(kind, datasets.Image)]
    labels = [name for name, kind in features.items() if isinstance(kind, datasets.ClassLabel)]
    if not labels:
        labels = [
            name
            for name, kind in features.items()
            if isinstance(kind, datasets.Value) and (kind.dtype == "string" or "int" in kind.dtype)
        ]
    if dataset in HUB_SOURCES and HUB_SOURCES[dataset].label_column in labels:
        labels = [HUB_SOURCES[dataset].label_column]
    if len(images) != 1 or len(labels) != 1:
        listing = ", ".join(f"{name} ({type(kind).__name__})" for name, kind in features.items())
        raise InputError(
            f"{dataset} must have one image and one label column (class subfolders: two at least); its columns are"
            f" {listing}"
        )
    return images[0], labels[0]


def _class_names(rows: Any, column: str, dataset: str) -> list[Any]:
    names = getattr(rows.features[column], "names", None)
    if names is None:
        names = sorted(rows.unique(column), key=lambda value: (value is None, value))
    if None in names:
        raise InputError(f"{dataset}: column '{column}' has rows without a label")
    return list(names)


def _labels(rows: Any, column: str, class_names: list[Any], dataset: str, split: str) -> np.ndarray:
    """Class indices, int64 (n,)."""
    values = rows[column][:]
    if getattr(rows.features[column], "names", None) is None:
        index = {name: position for position, name in enumerate(class_names)}
        values = [index.get(value, -1) for value in values]
    labels = np.array([-1 if value is None else value for value in values], dtype=np.int64)
    wrong = np.flatnonzero((labels < 0) | (labels >= len(class_names)))
    if len(wrong):
        raise InputError(f"{dataset}: image {wrong[0]} of the split '{split}' has no label among the training classes")
    return labels


def _images(rows: Any, column: str, split: str) -> Iterator[tuple[np.ndarray, str]]:
    """Every image, uint8 (channels, height, width), with the words that name its file."""
    import datasets
    from PIL import Image

    index = 0
    for batch in rows.cast_column(column, datasets.Image(decode=False)).select_columns(column).iter(batch_size=1000):
        for stored in batch[column]:
            described = (stored or {}).get("path") or f"image {index} of the split '{split}'"
            index += 1
            try:
                content = stored["bytes"]
                with Image.open(io.BytesIO(content) if content is not None else stored["path"]) as image:
                    mode, pixels = image.mode, np.asarray(image)
            except Exception as error:  # decoders raise OSError, SyntaxError, ValueError, ...
                raise InputError(f"cannot decode {described}: {_first_line(error)}") from None
            if mode not in ("L", "RGB"):
                raise InputError(f"{described} has mode {mode}; convert the images to RGB or to 8-bit grey (L)")
            yield (pixels[None] if mode == "L" else pixels.transpose(2, 0, 1)), described


def _shape_text(shape: tuple[int, ...]) -> str:
    channels, height, width = shape
    return f"{width}x{height} {'grey' if channels == 1 else 'RGB'}"


def _disk_error(error: BaseException | None) -> OSError | None:
    """What kept the library behind `error` from writing, where that was the disk."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            return error
        if isinstance(error, OSError) and "Not enough disk space" in str(error):  # what `datasets` foresees
            return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        error = error.__cause__ or error.__context__
    return None


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


# Reading a cache entry


def _open(entry: Path, name: str) -> ImageData:
    try:
        info = json.loads((entry / "info.json").read_text(encoding="utf-8"))
        splits = _read_splits(entry)
        intact = info["fingerprint"] == _fingerprint_on_disk(entry, _stamps(entry))
    except (OSError, EOFError, ValueError, KeyError, TypeError):
        intact = False
    if not intact:
        raise RunError(f"the cached data set {entry} is damaged: delete that folder, it is built again")
    return ImageData(name, tuple(info["class_names"]), info["fingerprint"], splits["train"], splits.get("test"))


def _read_splits(entry: Path) -> dict[str, ImageSet]:
    def read(file: str) -> np.ndarray:
        return np.load(entry / file, mmap_mode="c")  # copy-on-write: torch wants writable memory, the file stays

    splits = [split for split in ("train", "test") if split == "train" or (entry / f"{split}_images.npy").exists()]
    return {split: ImageSet(read(f"{split}_images.npy"), read(f"{split}_labels.npy")) for split in splits}


@functools.lru_cache(maxsize=8)
def _fingerprint_on_disk(entry: Path, stamps: Stamps) -> str:
    """Computed once a process while the files' `stamps` stay: a reproduction asks for every run."""
    info = json.loads((entry / "info.json").read_text(encoding="utf-8"))
    return _fingerprint(_read_splits(entry), info["class_names"])


def _fingerprint(splits: Mapping[str, ImageSet], class_names: list[str]) -> str:
    digest = hashlib.sha256(json.dumps(class_names).encode())
    for name, split in splits.items():
        digest.update(f"{name} {split.images.shape}".encode())
        digest.update(split.images.data)
        digest.update(split.labels.data)
    return digest.hexdigest()
