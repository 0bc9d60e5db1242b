"""`load`: a data set by name, by path or from the Hub, decoded once into the cache and memory-mapped from then on.

`adopt` puts images that are given in Python into the same cache, where `load` finds them by what `adopt` returns.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import re
import shutil
from collections.abc import Callable, Mapping
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
from rethinking.data.readers.contents import ArrayImages, Contents, Found, Images, Labels, ReadOptions, Split
from rethinking.errors import InputError, RefusedImagesError, nearest
from rethinking.steps import Steps, unwatched

__all__ = ["NAMES", "ImageData", "ImageSet", "ReadOptions", "absolute", "adopt", "load", "load_for"]

LONGEST_NAME = 80  # of a data set, which is in the names of folders
GIVEN = re.compile(r"python:([\w.-]+-[0-9a-f]{12})")  # images that were given in Python, by their entry in the cache
HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")

Shape = tuple[int, int, int]
Content = list[tuple[str, str]]  # of files: name and SHA-256
Accept = Callable[[Shape], None]  # raises `InputError` for images of a shape that is of no use

log = logging.getLogger(__name__)


class Configuration(Protocol):
    """A configuration that names a data set, and has the options of `ReadOptions` too."""

    @property
    def dataset(self) -> str: ...
    @property
    def data_root(self) -> str | None: ...


@dataclass(frozen=True)
class Source:
    """Where a data set is.

    name: in results; origin: in words; place: the key of its files in the cache's index
    known: the data set in `KNOWN` that it should be; renamed: whether it goes by another name where it is not
    is_derived: whether it is made of a data set that is decoded already
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
    """Loads the data set of a configuration with the options that it has."""
    options = {spec.name: getattr(config, spec.name) for spec in dataclasses.fields(ReadOptions)}
    return load(config.dataset, config.data_root, ReadOptions(**options), accept, begin)


def load(
    dataset: str,
    data_root: str | Path | None = None,
    options: ReadOptions = ReadOptions(),  # noqa: B008  # frozen
    accept: Accept = accept_any,
    begin: Steps = unwatched,
) -> ImageData:
    """The data set named `dataset` (one of `NAMES`), at that path, of that repository of the Hub, or given to `adopt`.

    A named data set is taken from `data_root` where it lies there, else from the Hub. A path may end in
    `:configuration`, as may `owner/name`. The images are memory-mapped from the cache, which is filled where it lacks
    them.

    Raises `InputError` for an unknown name, for files that are no image data, images that `accept` refuses or a Hub out
    of reach, and `RunError` for a damaged or unreadable cache.
    """
    if GIVEN.fullmatch(dataset):
        return _load_adopted(dataset, options, accept, begin)
    source = _source(dataset, data_root)
    if source.known and options != options.plain():
        with contextlib.suppress(InputError):  # images that the options alone make alike are not the known ones
            source = _derived(load(dataset, data_root, options.plain(), begin=begin), source.configuration)
    return _load(source, options, accept, begin)


def _load(source: Source, options: ReadOptions, accept: Accept, begin: Steps) -> ImageData:
    if (options.image_column or options.label_column) and not source.found.has_columns:
        raise InputError(f"{source.origin} has no columns to choose: leave --image_column and --label_column out")
    name = source.name + (options.changes if source.is_derived else options).suffix
    files = cache.content_of(source.found.files, source.place, begin)
    path = cache.entry_path(name, [dataclasses.astuple(options), files or source.place, source.configuration])
    if not cache.exists(path):
        cache.build(path, lambda folder: _write(folder, source, files, options, accept, begin))
    data = _read(path, name, source)
    accept(data.image_shape)
    return data


def _read(path: Path, name: str, source: Source) -> ImageData:
    """The data set in an entry of the cache, called `name` unless its content asks for another name."""
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
    """With what is to be said of a data set that is, or should be, one of `KNOWN`."""
    if known is not None:
        note = f"{KNOWN[known].title} itself, bit for bit"
        data = dataclasses.replace(data, name=source.name)  # whatever options it was read with
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
    name, path, configuration = _asked(dataset)
    if name is not None:
        return _named_source(name, data_root)
    if Path(path).exists():
        return _local_source(Path(path).resolve(), configuration or None)
    if HUB_NAME.fullmatch(path):
        tried = [f"the folder {path}"]
        found = hub.find(path, configuration or None, tried)
        place = f"{path}@{hub.cached_commit(path)}"  # so that another revision is another data set
        return Source(_plain_name(dataset), f"the Hub, {dataset}", place, found, configuration=configuration or None)
    raise InputError(
        f"dataset must be one of {', '.join(NAMES)}, the path of an existing folder or .npz file, or owner/name on the"
        f" Hub, not '{dataset}'{nearest(dataset, NAMES)}"
    )


def _asked(dataset: str) -> tuple[str | None, str, str]:
    """The name that is meant, or none; else the path or repository, and its configuration or ''."""
    path, _, configuration = (dataset, "", "") if Path(dataset).exists() else dataset.partition(":")
    name = dataset if dataset in NAMES else None if Path(path).exists() else named(dataset)
    return name, path, configuration


def absolute(dataset: str) -> str:
    """The same data set from whatever folder: its name, its path from the root, or what `adopt` calls it."""
    name, path, configuration = _asked(dataset)
    if name is not None or not Path(path).exists() or GIVEN.fullmatch(dataset):
        return name or dataset
    return f"{Path(path).resolve()}:{configuration}" if configuration else str(Path(path).resolve())


def _named_source(name: str, data_root: str | Path | None) -> Source:
    beside = f"./{name} here is not used: --dataset ./{name} means that folder"
    notes = (beside,) if Path(name).is_dir() else ()
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
    """Where a known data set lies in a folder, under any of its usual names; or that folder itself."""
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
    """The images of a data set that is decoded already, to be read again with other options."""
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

    found = Found({}, read, has_columns=True)  # which were chosen where it was decoded
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
    """Puts images that are given in Python into the cache; returns the `dataset` of an `ExperimentConfig` for them.

    images, test_images: each a pair (images, labels) of arrays, tensors or lists; a torch `Dataset`, or one that has
        only an iterator and ends; a `datasets.Dataset`. `images` may also be a mapping of these by 'train' and 'test',
        such as a `datasets.DatasetDict`
    name: what results call the data set
    options: how the images are read, as of a file. Images of different sizes or modes need `resize` or `colour` here;
        the configuration of a run leaves out what is given here

    An image is an array or tensor, uint8 or float from 0 to 1, (height, width), (height, width, channels) or (channels,
    height, width); or Pillow's. The string that is returned names the content: the same images give the same string in
    every process and every form, and find the same runs. Nothing is written for images that the cache has.

    Raises `InputError` for what has none of the forms, images or labels that are none, and a data set that gives other
    images at each reading; `RunError` where the disk is full.
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
    """What results call images that are given: plain characters, and what the options add."""
    if not isinstance(name, str) or not re.search(r"\w", name):
        raise InputError(f"the name of images must have letters or digits, not {name!r}")
    if named(name) == "digits":
        raise InputError("digits is the name of the built-in data set; give the images another name")
    if (known := folder_of(name)) and options.changes.suffix:  # which are not compared with the known ones
        raise InputError(f"give images called {known} without options, and the options to each run; or rename them")
    return _plain_name(name) + options.suffix


def _adopted_path(name: str, digest: str) -> Path:
    return cache.folder() / f"{name}-{digest[:12]}"


def _adopted_source(name: str) -> Source:
    known = folder_of(name)
    renamed = known is not None and known == named(name)
    return Source(name, "Python", name, Found({}, lambda _: Contents({})), known, renamed)


def _found_by_content(chosen: Chosen, name: str, options: ReadOptions) -> Path | None:
    """The entry in the cache that already has these images, where they are arrays and need no decoding."""
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
    """Raises `InputError` where the cache lacks them."""
    entry = dataset.removeprefix("python:")
    path = cache.folder() / entry
    if not cache.exists(path):
        raise InputError(
            f"the images given in Python as {entry} are no longer in the cache {cache.folder()}; give them again, with"
            " rethinking.data.sources.adopt"
        )
    if options.image_column or options.label_column:
        raise InputError(f"{dataset} has no columns to choose: leave --image_column and --label_column out")
    name = entry.rpartition("-")[0]
    data = _read(path, name, _adopted_source(name))
    if options.changes.suffix:
        return _load(_derived(data), options, accept, begin)
    accept(data.image_shape)
    return data


# Filling the cache


@dataclass(frozen=True)
class Chosen:
    """What of a data set is used: by split its images, not decoded, and their classes.

    notes: what was decided and left out, a sentence each
    """

    class_names: list[str]
    images: dict[str, Images]
    classes: dict[str, Classes]
    notes: list[str]


def _write(
    folder: Path, source: Source, files: Content, options: ReadOptions, accept: Accept, begin: Steps
) -> dict[str, Any]:
    """Decode a data set into `folder`: what `info.json` says of it, but for the fingerprint."""
    try:
        chosen = _chosen(source.found.read(options), source, options)
        info = _decoded(folder, chosen, options, accept, begin)
        if source.found.files and cache.content_of(source.found.files, source.place, begin) != files:
            raise InputError(f"{source.origin} changed while it was read; the same command reads it again")
        return info
    except InputError as error:
        is_named = source.place in str(error) or not source.found.files
        told = str(error) if is_named else f"{source.origin}: {error}"
        if isinstance(error, RefusedImagesError):
            raise RefusedImagesError(told, error.mended_by) from None
        raise InputError(told) from None


def _chosen(contents: Contents, source: Source, options: ReadOptions) -> Chosen:
    splits, notes = _used(contents)
    class_names, classes, more = classify(splits, options.skip_unlabelled)
    images = {name: split.images for name, split in splits.items()}
    if options.holdout:
        classes = _held_out(classes, options.holdout, source)
        images["test"] = images["train"]
        notes.append(f"held out as the test set: {len(classes['test'].rows):,} of the training images")
    used = {
        name: images[name] if len(of_split.rows) == len(images[name]) else images[name].part(of_split.rows)
        for name, of_split in classes.items()
    }
    return Chosen(class_names, used, classes, notes + more)


def _decoded(folder: Path, chosen: Chosen, options: ReadOptions, accept: Accept, begin: Steps) -> dict[str, Any]:
    _decode_all(folder, chosen.images, options, accept, begin)
    for name, of_split in chosen.classes.items():
        np.save(folder / f"{name}_labels.npy", of_split.labels)
    class_names, known = chosen.class_names, None
    if not options.changes.suffix:
        splits = {
            name: ImageSet(np.load(folder / f"{name}_images.npy", mmap_mode="r"), of_split.labels)
            for name, of_split in chosen.classes.items()
        }
        known = _known_content(splits)
    if known is not None:
        class_names = list(KNOWN[known].class_names)
    return {"class_names": class_names, "notes": chosen.notes, "known": known}


def _decode_all(folder: Path, images: dict[str, Images], options: ReadOptions, accept: Accept, begin: Steps) -> None:
    """Decode every split into its file. Raises `InputError` for images that are refused."""
    first, shape = first_shape(images["train"], options)
    accept(shape)
    log.info("decoding %s images into the cache, once", f"{sum(map(len, images.values())):,}")
    files = {folder / f"{name}_images.npy": of_split for name, of_split in images.items()}
    decode_to_files(files, options, first, shape, begin("decoding"))


def _used(contents: Contents) -> tuple[dict[str, Split], list[str]]:
    """The training split and the one to test on, called 'test' whichever it is, and notes on the others."""
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
            notes.append(f"not used: {len(split.images):,} images of {split.where}, beside the test set")
        else:
            splits["test"] = split
            if name == "val":
                notes.append(f"the test set is {split.where}, since there is no other with labels")
    if not len(splits["train"].images):
        raise InputError(f"{splits['train'].where} is empty")
    return splits, notes


def _held_out(classes: dict[str, Classes], share: float, source: Source) -> dict[str, Classes]:
    """Of every class that share as the test set, in a fixed shuffle; rows stay in their order."""
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
    """The data set in `KNOWN` that these are, whatever it is called."""
    return next((name for name, known in KNOWN.items() if known.is_in(splits)), None)
