"""`load`: loads a data set by name, by path or from the Hub. It is decoded once into the cache, then memory-mapped.

`adopt` puts images given in Python into the same cache. `load` finds them by the string that `adopt` returns.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from rethinking.data import cache, readers
from rethinking.data.decoding import decode_to_files, first_shape
from rethinking.data.images import ImageData, ImageSet, fingerprint
from rethinking.data.known import KNOWN, NAMES, folder_of, named
from rethinking.data.labels import Classes, classify, has_labels
from rethinking.data.readers import digits, hub, in_memory
from rethinking.data.readers.contents import (
    ArrayImages,
    Contents,
    FileImages,
    Found,
    Images,
    Labels,
    ReadOptions,
    Split,
)
from rethinking.errors import InputError, RefusedImagesError, nearest
from rethinking.steps import Steps, unwatched

__all__ = ["NAMES", "ImageData", "ImageSet", "ReadOptions", "absolute", "adopt", "load", "load_for", "provide"]

LONGEST_NAME = 80  # characters of a data set's name, which is part of folder names
GIVEN = re.compile(r"python:([\w.-]+-[0-9a-f]{12})")  # images given in Python: the name of their cache entry
HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")

Shape = tuple[int, int, int]
Content = list[tuple[str, str]]  # name and SHA-256 of each file
Accept = Callable[[Shape], None]  # raises `InputError` for a shape that cannot be used

log = logging.getLogger(__name__)


class Configuration(Protocol):
    """A configuration that names a data set. It also has every option of `ReadOptions`."""

    @property
    def dataset(self) -> str:
        """The data set's name, path or repository."""

    @property
    def data_root(self) -> str | None:
        """The folder in which named data sets are looked for."""


@dataclass(frozen=True)
class Source:
    """The place from which a data set is read.

    name: the data set's name in results
    origin: the place in words
    place: key of its files in the cache's index
    known: the data set in `KNOWN` that it should be
    renamed: whether it gets another name if it is not `known`
    is_derived: whether it is made from a data set that is already decoded
    """

    name: str
    origin: str
    place: str
    found: Found
    known: str | None = None
    renamed: bool = False
    notes: tuple[str, ...] = ()
    configuration: str | None = None
    is_derived: bool = False


def accept_any(shape: Shape) -> None:
    """Accepts images of any shape."""


def load_for(config: Configuration, accept: Accept = accept_any, begin: Steps = unwatched) -> ImageData:
    """Loads the data set of a configuration with the configuration's reading options; see `load`."""
    known, read = _read_once.get(), reading(config)
    data = _provided.get(read) or ({} if known is None else known).get(read)
    if data is not None:
        accept(data.image_shape)
        return data
    data = load(*read, accept, begin)
    if known is not None:
        known[read] = data
    return data


def reading(config: Configuration) -> Read:
    """Returns the arguments of `load` for a configuration: its data set, folder and reading options."""
    options = {spec.name: getattr(config, spec.name) for spec in dataclasses.fields(ReadOptions)}
    return config.dataset, config.data_root, ReadOptions(**options)


def image_files(config: Configuration, split: str) -> tuple[str, ...] | None:
    """Returns the file of each image of a split, 'train' or 'test', relative to the data set's folder.

    Returns None where the images are not files of their own. Raises `InputError` where the folder cannot be read.
    """
    dataset, data_root, options = reading(config)
    if GIVEN.fullmatch(dataset):
        return None
    source = _source(dataset, data_root)
    if not source.found.of_image_files:
        return None
    images = _chosen(source.found.read(options), source, options).images[split]
    names = {path: name for name, path in source.found.files.items()}
    return tuple(names[file] for file in images.files) if isinstance(images, FileImages) else None


def provide(config: Configuration, data: ImageData) -> None:
    """Makes `load_for` return `data` for configurations that read the same, in this process.

    It is for a machine that lacks the files, and gets the decoded images from another machine.
    """
    _provided[reading(config)] = data


@contextlib.contextmanager
def read_once() -> Iterator[None]:
    """Makes `load_for` look for each data set once inside, and not again for every one of many configurations."""
    before = _read_once.set({})
    try:
        yield
    finally:
        _read_once.reset(before)


Read = tuple[str, str | None, ReadOptions]
_provided: dict[Read, ImageData] = {}
_read_once: ContextVar[dict[Read, ImageData] | None] = ContextVar("read_once", default=None)


def load(
    dataset: str,
    data_root: str | Path | None = None,
    options: ReadOptions = ReadOptions(),  # noqa: B008  # frozen
    accept: Accept = accept_any,
    begin: Steps = unwatched,
) -> ImageData:
    """Loads a data set, memory-mapped from the cache. The cache is filled first if it lacks the data set.

    dataset: a name of `NAMES`, a path, `owner/name` on the Hub, or a string that `adopt` returned. A path and
        `owner/name` may end in `:configuration`
    data_root: the folder in which a named data set is looked for before the Hub
    accept: raises `InputError` for a shape (channels, height, width) that cannot be used

    Raises `InputError` for an unknown name, for files that are no image data, for images that `accept` refuses, and if
    the Hub cannot be reached. Raises `RunError` if the cache is damaged or cannot be read.
    """
    if GIVEN.fullmatch(dataset):
        return _load_adopted(dataset, options, accept, begin)
    source = _source(dataset, data_root)
    if source.known and options != options.plain():
        with contextlib.suppress(InputError):  # images that need the options to be alike are not the known ones
            source = _derived(load(dataset, data_root, options.plain(), begin=begin), source.configuration)
    return _load(source, options, accept, begin)


def _load(source: Source, options: ReadOptions, accept: Accept, begin: Steps) -> ImageData:
    if (options.image_column or options.label_column) and not source.found.has_columns:
        raise InputError(f"{source.origin} has no columns to choose; leave --image_column and --label_column out")
    name = source.name + (options.changes if source.is_derived else options).suffix
    files = cache.content_of(source.found.files, source.place, begin)
    path = cache.entry_path(name, [dataclasses.astuple(options), files or source.place, source.configuration])
    if not cache.exists(path):
        cache.build(path, lambda folder: _write(folder, source, files, options, accept, begin))
    data = _read(path, name, source)
    accept(data.image_shape)
    return data


def _read(path: Path, name: str, source: Source) -> ImageData:
    """Reads a cache entry as a data set called `name`, unless its content requires another name."""
    entry = cache.read(path)
    data = ImageData(
        name,
        tuple(entry.info["class_names"]),
        entry.info["fingerprint"],
        entry.splits["train"],
        entry.splits.get("test"),
        source.origin,
        (*source.notes, *source.found.notes, *entry.info["notes"]),
    )
    return data if source.is_derived else _checked(data, source, entry.info["known"])


def _checked(data: ImageData, source: Source, known: str | None) -> ImageData:
    """Returns the data with a note on whether it is the data set in `KNOWN` that it should be."""
    if known is not None:
        note = f"{KNOWN[known].title} itself, bit for bit"
        data = dataclasses.replace(data, name=source.name)  # without the suffix of the options
    elif source.known is not None:
        note = f"not {KNOWN[source.known].title}: other images, labels or order"
        if source.renamed:
            name = f"{data.name}-{data.fingerprint[:8]}"
            data = dataclasses.replace(data, name=name)
            note += f"; results call it {name}"
    else:
        return data
    return dataclasses.replace(data, notes=(note, *data.notes))


# Where a data set is


def _source(dataset: str, data_root: str | Path | None) -> Source:
    if data_root is not None and not Path(data_root).is_dir():
        raise InputError(f"data_root {data_root} is no folder")
    name, path, configuration = _parsed(dataset)
    if name is not None:
        return _named_source(name, data_root)
    if Path(path).exists():
        return _local_source(Path(path).resolve(), configuration or None)
    if HUB_NAME.fullmatch(path):
        tried = [f"the folder {path}"]
        try:
            found = hub.find(path, configuration or None, tried)
        except InputError as error:
            raise InputError(f"{error}{_like(path)}") from None
        place = f"{path}@{hub.cached_commit(path)}"  # another revision is another data set
        return Source(_plain_name(dataset), f"the Hub, {dataset}", place, found, configuration=configuration or None)
    raise InputError(
        f"dataset must be one of {', '.join(NAMES)}, the path of an existing folder or .npz file, or owner/name on the"
        f" Hub, not '{dataset}'{nearest(dataset, NAMES) or _like(path)}"
    )


def _like(path: str) -> str:
    """Suggests a folder or file beside a path that does not exist; empty where none has a similar name."""
    with contextlib.suppress(OSError):
        beside = [str(other) for other in Path(path).parent.iterdir() if not other.name.startswith(".")]
        return nearest(str(Path(path)), beside)
    return ""


def _parsed(dataset: str) -> tuple[str | None, str, str]:
    """Returns the known name or None, the path or repository, and its configuration or ''."""
    path, _, configuration = (dataset, "", "") if Path(dataset).exists() else dataset.partition(":")
    name = dataset if dataset in NAMES else None if Path(path).exists() else named(dataset)
    return name, path, configuration


def absolute(dataset: str) -> str:
    """Returns `dataset` in a form that does not depend on the current folder, such as an absolute path."""
    name, path, configuration = _parsed(dataset)
    if name is not None or not Path(path).exists() or GIVEN.fullmatch(dataset):
        return name or dataset
    return f"{Path(path).resolve()}:{configuration}" if configuration else str(Path(path).resolve())


def _named_source(name: str, data_root: str | Path | None) -> Source:
    ignored = f"the folder {name} here is not used; --dataset ./{name} reads it"
    notes = (ignored,) if Path(name).is_dir() else ()
    if name == "digits":
        return Source(name, "scikit-learn", name, digits.find(), notes=notes)
    folder = None if data_root is None else _folder_under(Path(data_root), name)
    if folder is not None:
        local = _local_source(folder.resolve(), None)
        return dataclasses.replace(local, name=name, known=name, renamed=True, notes=notes)
    repository = KNOWN[name].repository
    tried = [] if data_root is None else [f"the folder {Path(data_root) / name}"]
    place = f"{repository}@{hub.cached_commit(repository)}"
    return Source(name, f"the Hub, {repository}", place, hub.find(repository, None, tried), name, True, notes)


def _folder_under(root: Path, name: str) -> Path | None:
    """Returns the path of a known data set in a folder or of that folder itself, under any usual name; else None."""
    if (root / name).is_dir():
        return root / name
    try:
        inner = sorted(path for path in root.iterdir() if folder_of(path.name) == name)
    except OSError as error:
        raise InputError(f"cannot read {root}: {error.strerror}") from None
    inner = [path for path in inner if path.is_dir() or path.suffix == ".npz"]
    return next(iter(inner), root if folder_of(root.resolve().name) == name else None)


def _local_source(path: Path, configuration: str | None) -> Source:
    name = path.name if path.is_dir() else path.stem
    name = f"{name}-{configuration}" if configuration else name
    known = folder_of(path.name)
    origin = f"{path}:{configuration}" if configuration else str(path)
    found = readers.find(path, configuration)
    renamed = known is not None and known == named(path.name)
    return Source(_plain_name(name), origin, origin, found, known, renamed, configuration=configuration)


def _plain_name(name: str) -> str:
    return re.sub(r"[^\w.-]+", "_", name)[:LONGEST_NAME]


def _derived(base: ImageData, configuration: str | None = None) -> Source:
    """Returns a source that reads decoded images again, with other options."""
    splits = {"train": base.train} | ({"test": base.test} if base.test else {})

    def read(_: ReadOptions) -> Contents:
        return Contents(
            {
                name: Split(
                    ArrayImages(split.images.transpose(0, 2, 3, 1), name),
                    Labels(split.labels, base.class_names),
                    f"the split '{name}'",
                )
                for name, split in splits.items()
            }
        )

    found = Found({}, read, has_columns=True)  # the columns were chosen when it was decoded
    return Source(
        base.name,
        base.origin,
        base.fingerprint,
        found,
        notes=base.notes,
        configuration=configuration,
        is_derived=True,
    )


# Images that are given in Python


def adopt(
    images: Any,
    test_images: Any = None,
    name: str = "images",
    options: ReadOptions = ReadOptions(),  # noqa: B008  # frozen
    begin: Steps = unwatched,
) -> str:
    """Puts images given in Python into the cache. Returns the `dataset` of an `ExperimentConfig` for them.

    images, test_images: each a pair (images, labels) of arrays, tensors or lists; a torch `Dataset`, also an iterable
        one that ends; or a `datasets.Dataset`. `images` may also be a mapping of these by 'train' and 'test', such as a
        `datasets.DatasetDict`
    name: the data set's name in results
    options: reading options, as for files. Images of different sizes or modes need `resize` or `colour` here. The
        configuration of a run leaves out the options that are given here

    An image is an array or tensor, uint8 or float from 0 to 1, of shape (height, width), (height, width, channels) or
    (channels, height, width), or a Pillow image.

    The returned string names the content. The same images give the same string in every process and every form, and
    find the same runs. Nothing is written if the cache has the images.

    Raises `InputError` for data in none of these forms, for invalid images or labels, and for a data set that returns
    other images at each reading. Raises `RunError` if the disk is full.
    """
    name = _name_for(name, options)
    source = _adopted_source(name)
    with cache.unfinished(name) as folder:
        undecoded = folder / "given"
        undecoded.mkdir()
        contents = in_memory.read(images, test_images, options, undecoded, begin)
        test = contents.splits.get("test")
        if test_images is not None and test is not None and len(test.images) and not has_labels(test):
            raise InputError("the test images have no labels (missing, or -1); leave them out")
        chosen = _chosen(contents, source, options)
        path = _found_by_content(chosen, name, options)
        if path is None:
            info = _decoded(folder, chosen, options, accept_any, begin)
            shutil.rmtree(undecoded)
            path = cache.finish(folder, info, lambda digest: _adopted_path(name, digest))
    return f"python:{path.name}"


def _name_for(name: str, options: ReadOptions) -> str:
    """Returns the name of given images in results: plain characters, and the suffix of the options."""
    if not isinstance(name, str) or not re.search(r"\w", name):
        raise InputError(f"the name of images must have letters or digits, not {name!r}")
    if named(name) == "digits":
        raise InputError("digits is the name of the built-in data set; give the images another name")
    if (known := folder_of(name)) and options.changes.suffix:  # changed images cannot be compared with the known ones
        raise InputError(
            f"images called {known} must be given without options, so that they can be checked; give the options to"
            " each run, or the images another name"
        )
    return _plain_name(name) + options.suffix


def _adopted_path(name: str, digest: str) -> Path:
    return cache.folder() / f"{name}-{digest[:12]}"


def _adopted_source(name: str) -> Source:
    known = folder_of(name)
    renamed = known is not None and known == named(name)
    return Source(name, "Python", name, Found({}, lambda _: Contents({})), known, renamed)


def _found_by_content(chosen: Chosen, name: str, options: ReadOptions) -> Path | None:
    """Returns the cache entry that already holds these images; None if there is none, or they need decoding."""
    splits = {}
    for split, images in chosen.images.items():
        if not isinstance(images, ArrayImages) or (pixels := images.ready(options)) is None:
            return None
        splits[split] = ImageSet(pixels, chosen.classes[split].labels)
    known = _known_content(splits)
    names = chosen.class_names if known is None else KNOWN[known].class_names
    path = _adopted_path(name, fingerprint(splits, names))
    return path if cache.exists(path) else None


def _load_adopted(dataset: str, options: ReadOptions, accept: Accept, begin: Steps) -> ImageData:
    """Loads images that were given to `adopt`. Raises `InputError` if the cache lacks them."""
    entry = dataset.removeprefix("python:")
    path = cache.folder() / entry
    if not cache.exists(path):
        raise InputError(
            f"the images given in Python as {entry} are no longer in the cache {cache.folder()}; give them again to"
            " rethinking.data.sources.adopt"
        )
    if options.image_column or options.label_column:
        raise InputError(f"{dataset} has no columns to choose; leave --image_column and --label_column out")
    name = entry.rpartition("-")[0]
    data = _read(path, name, _adopted_source(name))
    if options.changes.suffix:
        return _load(_derived(data), options, accept, begin)
    accept(data.image_shape)
    return data


# Filling the cache


@dataclass(frozen=True)
class Chosen:
    """The parts of a data set that are used: by split the images, not decoded, and their classes.

    notes: what was decided or left out, one sentence each
    """

    class_names: list[str]
    images: dict[str, Images]
    classes: dict[str, Classes]
    notes: list[str]


def _write(
    folder: Path, source: Source, files: Content, options: ReadOptions, accept: Accept, begin: Steps
) -> dict[str, Any]:
    """Decodes a data set into `folder`. Returns the content of `info.json` without the fingerprint."""
    try:
        chosen = _chosen(source.found.read(options), source, options)
        info = _decoded(folder, chosen, options, accept, begin)
        if source.found.files and cache.content_of(source.found.files, source.place, begin) != files:
            raise InputError(f"{source.origin} changed while it was read; the same command reads it again")
        return info
    except InputError as error:
        is_named = source.place in str(error) or not source.found.files
        message = str(error) if is_named else f"{source.origin}: {error}"
        if isinstance(error, RefusedImagesError):
            raise RefusedImagesError(message, error.mended_by) from None
        raise InputError(message) from None


def _chosen(contents: Contents, source: Source, options: ReadOptions) -> Chosen:
    splits, notes = _used(contents)
    class_names, classes, more = classify(splits, options.skip_unlabelled)
    images = {name: split.images for name, split in splits.items()}
    if options.holdout:
        classes = _held_out(classes, options.holdout, source)
        images["test"] = images["train"]
        notes.append(f"held out as the test set: {len(classes['test'].rows):,} of the training images")
    used = {
        name: images[name] if len(labelled.rows) == len(images[name]) else images[name].part(labelled.rows)
        for name, labelled in classes.items()
    }
    return Chosen(class_names, used, classes, notes + more)


def _decoded(folder: Path, chosen: Chosen, options: ReadOptions, accept: Accept, begin: Steps) -> dict[str, Any]:
    _decode_all(folder, chosen.images, options, accept, begin)
    for name, labelled in chosen.classes.items():
        np.save(folder / f"{name}_labels.npy", labelled.labels)
    class_names, known = chosen.class_names, None
    if not options.changes.suffix:
        splits = {
            name: ImageSet(np.load(folder / f"{name}_images.npy", mmap_mode="r"), labelled.labels)
            for name, labelled in chosen.classes.items()
        }
        known = _known_content(splits)
    if known is not None:
        class_names = list(KNOWN[known].class_names)
    return {"class_names": class_names, "notes": chosen.notes, "known": known}


def _decode_all(folder: Path, images: dict[str, Images], options: ReadOptions, accept: Accept, begin: Steps) -> None:
    """Decodes every split into its file. Raises `InputError` for images that are refused."""
    first, shape = first_shape(images["train"], options)
    accept(shape)
    log.info("decoding %s images into the cache, once", f"{sum(map(len, images.values())):,}")
    files = {folder / f"{name}_images.npy": split_images for name, split_images in images.items()}
    decode_to_files(files, options, first, shape, begin("decoding"))


def _used(contents: Contents) -> tuple[dict[str, Split], list[str]]:
    """Returns the training split and the split to test on, which is always called 'test', and notes on the others."""
    if "train" not in contents.splits:
        raise InputError(f"there are no training images, only {' and '.join(sorted(contents.splits))}")
    splits, notes = {"train": contents.splits["train"]}, list(contents.notes)
    for name in ("test", "val"):
        split = contents.splits.get(name)
        if split is None:
            continue
        if not len(split.images):
            raise InputError(f"{split.where} is empty")
        if not has_labels(split):
            notes.append(f"not used: {len(split.images):,} images of {split.where}, which have no labels")
        elif "test" in splits:
            notes.append(f"not used: {len(split.images):,} images of {split.where}, since there is a test set")
        else:
            splits["test"] = split
            if name == "val":
                notes.append(f"the test set is {split.where}, since no test split has labels")
    if not len(splits["train"].images):
        raise InputError(f"{splits['train'].where} is empty")
    return splits, notes


def _held_out(classes: dict[str, Classes], share: float, source: Source) -> dict[str, Classes]:
    """Moves `share` of every class to the test set, by a fixed shuffle. Rows stay in order."""
    import torch

    from rethinking.seeding import generator

    if "test" in classes:
        raise InputError(f"{source.name} has a test set of {len(classes['test'].rows):,} images; leave --holdout out")
    rows, labels = classes["train"].rows, classes["train"].labels
    held = np.zeros(len(rows), dtype=bool)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        count = min(round(share * len(members)), len(members) - 1)
        shuffled = torch.randperm(len(members), generator=generator(0, "holdout", int(label))).numpy()
        held[members[shuffled[:count]]] = True
    if not held.any():
        raise InputError(
            f"holdout {share:g} takes no image: {len(rows):,} images in {len(np.unique(labels)):,} classes are too few"
        )
    return {name: Classes(rows[chosen], labels[chosen]) for name, chosen in (("train", ~held), ("test", held))}


def _known_content(splits: Mapping[str, ImageSet]) -> str | None:
    """Returns the name of the data set in `KNOWN` that these splits are, whatever its given name; else None."""
    return next((name for name, known in KNOWN.items() if known.is_in(splits)), None)
