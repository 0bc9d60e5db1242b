"""Folders of image files. These rules alone decide which folder is a split and which is a class:

1. A split folder stands on the first level and is named train, training or trainset; test, testing or testset; or val,
   valid, validation, dev or eval, in any case. Elsewhere a folder with such a name is a class, or an error.
2. The first level is splits if it holds a training folder and one of two conditions is met: the training folder has
   classes of its own (two folders, or metadata), or all other folders are splits too. Else the first level is classes,
   and a note names the folders that could have been splits. Two folders of the same split are an error. So are folders
   that look like splits because they hold folders with the same names.
3. Below a split, or on the first level if it is classes, a folder is a class. Its images lie at any depth.
4. Split folders below all classes (cat/train, cat/test) are splits. Anywhere else below a class they are an error.
5. Labels come from a `metadata.csv`, `.jsonl` or `.parquet` that has labels for a split's images. Its column
   `file_name` holds paths relative to the metadata file. A split without class folders takes labels from an annotations
   file (`val_annotations.txt`: file name, class).
6. Symbolic links are followed. A broken link, a link back to a folder above it, and an image in two sets are errors.

Hidden files are ignored.
"""

from __future__ import annotations

import collections
import csv
import functools
import io
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rethinking.data.readers.contents import Contents, FileImages, Found, Labels, ReadOptions, Split, split_of
from rethinking.errors import InputError

ENDINGS = frozenset(
    (
        *(".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".dib", ".gif", ".tif", ".tiff", ".ppm"),
        *(".pgm", ".pbm", ".pnm", ".tga", ".jp2", ".avif"),
    )
)
METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
SKIPPED = ("__MACOSX",)  # macOS adds this folder to archives
UNLABELLED = ("images", "image", "imgs", "img")  # a test set's only folder, if it has such a name, is no class
MOST_OTHER = 20_000  # other files and folders before a folder is refused as no folder of images
OTHERS_PER_IMAGE = 10  # other files and folders that are allowed per image
DEEPEST = 100  # levels of folders

Parts = tuple[str, ...]  # a path below the folder


@dataclass
class Tree:
    """The content of a folder, at any depth.

    images: relative paths, sorted as text
    identities: device and inode of each image, which two links to one file share
    tables: relative paths of metadata and annotation files
    others: counts of all other files, by ending
    folders: relative paths
    """

    folder: Path
    images: list[Parts] = field(default_factory=list)
    identities: dict[Parts, tuple[int, int]] = field(default_factory=dict)
    tables: list[Parts] = field(default_factory=list)
    others: collections.Counter[str] = field(default_factory=collections.Counter)
    folders: list[Parts] = field(default_factory=list)

    def path(self, parts: Parts) -> Path:
        """Returns the full path of a relative one."""
        return self.folder.joinpath(*parts)

    @property
    def has_class_folders(self) -> bool:
        """Whether any image lies in an inner folder."""
        return any(len(parts) > 1 for parts in self.images)


@dataclass(frozen=True)
class Arrangement:
    """The split and the class folder of every image. The class is None for an image outside of class folders."""

    splits: dict[Parts, str]
    classes: dict[Parts, str | None]
    notes: list[str]


def find(folder: Path) -> Found | None:
    """Finds the images in a folder; returns None if it has none.

    Raises `InputError` for a folder that breaks the rules.
    """
    return found_in(listed(folder))


def found_in(tree: Tree) -> Found | None:
    """Finds the images in a folder that is already listed; see `find`."""
    if not tree.images:
        return None
    arrangement = arranged(tree)
    _refuse_shared_images(tree, arrangement)
    files = {"/".join(parts): tree.path(parts) for parts in (*tree.images, *tree.tables)}
    notes = [*arrangement.notes]
    if others := sum(tree.others.values()):
        endings = ", ".join(
            f"{count:,} {ending or 'without an ending'}" for ending, count in tree.others.most_common(4)
        )
        notes.append(f"left out: {others:,} files that are no images ({endings})")
    if empty := _empty_classes(tree, arrangement):
        notes.append(f"classes without images: {', '.join(empty)}")
    return Found(
        files, functools.partial(_read, tree, arrangement), tuple(notes), has_columns=True, of_image_files=True
    )


# Listing


def listed(folder: Path) -> Tree:
    """Lists a folder at any depth.

    Raises `InputError` if it cannot be read, has links in a circle, or holds far more other files than images.
    """
    tree = Tree(folder)
    _walk(tree, (), {_identity(os.stat(folder))})
    tree.images.sort(key="/".join)
    return tree


def _walk(tree: Tree, parts: Parts, above: set[tuple[int, int]]) -> None:
    here = tree.path(parts)
    try:
        with os.scandir(here) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        raise InputError(f"cannot read {here}: {error.strerror}") from None
    for entry in entries:
        if entry.name.startswith(".") or entry.name in SKIPPED:
            continue
        inner = (*parts, entry.name)
        ending = os.path.splitext(entry.name)[1].lower()
        try:
            is_folder, is_file = entry.is_dir(), entry.is_file()
            identity = _identity(entry.stat()) if is_folder or is_file else (0, 0)
        except OSError as error:
            raise InputError(f"cannot read {entry.path}: {error.strerror}") from None
        if is_folder:
            if identity in above:
                raise InputError(f"{entry.path} links back to a folder above it; remove the link")
            if len(inner) > DEEPEST:
                raise InputError(f"{entry.path} lies more than {DEEPEST} folders deep")
            tree.folders.append(inner)
            _walk(tree, inner, above | {identity})
        elif entry.is_symlink() and not is_file:
            raise InputError(f"{entry.path} is a broken link; remove or repair it")
        elif ending in ENDINGS and is_file:
            tree.images.append(inner)
            tree.identities[inner] = identity
        elif entry.name.lower() in METADATA or (ending == ".txt" and "annotations" in entry.name.lower()):
            tree.tables.append(inner)
        else:
            tree.others[ending] += 1
    others = sum(tree.others.values()) + len(tree.folders)
    if others > max(MOST_OTHER, OTHERS_PER_IMAGE * len(tree.images)):
        raise InputError(
            f"{tree.folder} is no folder of images: the search stopped after {others:,} other files and folders and"
            f" {len(tree.images):,} images"
        )


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


# Splits and classes


def arranged(tree: Tree) -> Arrangement:
    """Returns the split and class of every image, by the rules of this module."""
    first = list(dict.fromkeys(parts[0] for parts in tree.images if len(parts) > 1))
    named = {name: split for name in first if (split := split_of(name))}
    others = [name for name in first if name not in named]
    training = [name for name, split in named.items() if split == "train"]
    if not named or (others and _all_have_splits(tree)):
        return _of_classes(tree, [])
    listing = ", ".join(f"{name}/" for name in named)
    if not training:
        if not others:
            raise InputError(f"{tree.folder} has no training images, only {listing}; a folder train/ is missing")
        for name in named:
            if shared := _folders_in(tree, name) & set(others):
                raise InputError(
                    f"{tree.folder / name} has folders with the same names as its neighbours"
                    f" ({', '.join(sorted(shared))}); move the neighbours into {tree.folder / 'train'}"
                )
        return _of_classes(tree, [f"read as classes: {listing}, since there is no training folder"])
    if others and not any(_has_classes(tree, name) for name in training):
        return _of_classes(
            tree,
            [f"read as classes: {listing}, since {others[0]}/ is no split and {training[0]}/ has no class folders"],
        )
    for split in dict.fromkeys(named.values()):
        if len(same := [name for name, of in named.items() if of == split]) > 1:
            raise InputError(
                f"{tree.folder} has {' and '.join(f'{name}/' for name in same)}, which mean the same split"
            )
    return _of_splits(tree, named, others)


def _all_have_splits(tree: Tree) -> bool:
    """Whether all images below the folders of the first level lie in split folders."""
    inside = [parts for parts in tree.images if len(parts) > 1]
    return bool(inside) and all(len(parts) > 2 and split_of(parts[1]) for parts in inside)


def _has_classes(tree: Tree, name: str) -> bool:
    """Whether a folder of the first level has class folders, or metadata for its images."""
    with_metadata = any(parts[-1].lower() in METADATA and parts[:1] in ((name,), parts) for parts in tree.tables)
    return with_metadata or len(_folders_in(tree, name)) > 1


def _folders_in(tree: Tree, name: str) -> set[str]:
    """Returns the folders in a folder of the first level that hold images."""
    return {parts[1] for parts in tree.images if len(parts) > 2 and parts[0] == name}


def _of_splits(tree: Tree, named: Mapping[str, str], others: list[str]) -> Arrangement:
    splits, classes, notes = {}, {}, []
    for parts in tree.images:
        if len(parts) == 1 or parts[0] not in named:
            continue
        _refuse_splits_below(tree, parts, 2)
        splits[parts] = named[parts[0]]
        classes[parts] = parts[1] if len(parts) > 2 else None
    if outside := sum(len(parts) == 1 for parts in tree.images):
        notes.append(f"left out: {outside:,} images outside of the split folders")
    if others:
        count = sum(parts[0] in others for parts in tree.images if len(parts) > 1)
        which = "which is no split" if len(others) == 1 else "which are no splits"
        notes.append(f"left out: {count:,} images of {', '.join(f'{name}/' for name in others)}, {which}")
    return Arrangement(splits, classes, notes)


def _of_classes(tree: Tree, notes: list[str]) -> Arrangement:
    """Arranges a folder whose first level is classes. Either all classes or none have split folders."""
    all_split = _all_have_splits(tree)
    _refuse_other_levels(tree, all_split)
    splits, classes = {}, {}
    names: dict[tuple[str, str], str] = {}
    for parts in tree.images:
        _refuse_splits_below(tree, parts, 2 if all_split else 1)
        splits[parts] = (split_of(parts[1]) if all_split and len(parts) > 2 else None) or "train"
        classes[parts] = parts[0] if len(parts) > 1 else None
        if all_split and len(parts) > 1 and names.setdefault((parts[0], splits[parts]), parts[1]) != parts[1]:
            raise InputError(
                f"{tree.folder / parts[0]} has {names[parts[0], splits[parts]]}/ and {parts[1]}/, which mean the same"
                " split"
            )
    if all_split:
        if "train" not in splits.values():
            raise InputError(f"{tree.folder} has no training images below its classes")
        notes = [*notes, "the splits are the split folders below the classes"]
    return Arrangement(splits, classes, notes)


def _refuse_other_levels(tree: Tree, all_split: bool) -> None:
    """Raises `InputError` if the first level does not look like classes."""
    first = list(dict.fromkeys(parts[0] for parts in tree.images if len(parts) > 1))
    inner = {name: _folders_in(tree, name) for name in first}
    if len(first) == 1 and len(inner[first[0]]) > 1 and not any(len(parts) == 1 for parts in tree.tables):
        raise InputError(f"{tree.folder} has all images in one folder; use --dataset {tree.folder / first[0]}")
    words = {name: {split_of(word) for word in re.split(r"[^a-zA-Z]+", name)} - {None} for name in first}
    deepest = [{parts[-2] for parts in tree.images if len(parts) > 2 and parts[0] == name} for name in first]
    alike = len(first) > 1 and len(set.intersection(*deepest)) > 1
    if not all_split and alike and all(words.values()) and len(set[str | None]().union(*words.values())) > 1:
        raise InputError(
            f"{tree.folder}: {', '.join(first)} look like splits, since they hold folders with the same names; call"
            " them train and test"
        )


def _refuse_splits_below(tree: Tree, parts: Parts, level: int) -> None:
    for depth in range(level, len(parts) - 1):
        if split_of(parts[depth]):
            raise InputError(
                f"{tree.path(parts[: depth + 1])} is named like a split but lies below a class; move split folders to"
                " the first level, or rename this one"
            )


def _refuse_shared_images(tree: Tree, arrangement: Arrangement) -> None:
    """Raises `InputError` for a file that links put into the training set and another set."""
    training = {tree.identities[parts]: parts for parts, split in arrangement.splits.items() if split == "train"}
    for parts, split in arrangement.splits.items():
        if split != "train" and (other := training.get(tree.identities[parts])):
            raise InputError(_one_file(tree, parts, other))


def _refuse_linked_twice(tree: Tree, images: Iterable[Parts]) -> None:
    """Raises `InputError` for a file that is listed twice among images that will be split."""
    seen: dict[tuple[int, int], Parts] = {}
    for parts in images:
        if (other := seen.setdefault(tree.identities[parts], parts)) != parts:
            raise InputError(_one_file(tree, parts, other))


def _one_file(tree: Tree, one: Parts, other: Parts) -> str:
    return (
        f"{tree.path(one)} and {tree.path(other)} are the same file, which would be in both the training and the test"
        " set"
    )


def _empty_classes(tree: Tree, arrangement: Arrangement) -> list[str]:
    """Returns the folders that stand in the place of classes but hold no image."""
    filled = {parts[:depth] for parts in tree.images for depth in range(1, len(parts))}
    levels = {
        depth
        for parts, name in arrangement.classes.items()
        if name is not None
        for depth in (1, 2)
        if parts[depth - 1] == name
    }
    empty = [parts for parts in tree.folders if parts not in filled and len(parts) in levels]
    return ["/".join(parts) for parts in empty if len(parts) == 1 or parts[:1] in filled]


# Labels


def _read(tree: Tree, arrangement: Arrangement, options: ReadOptions) -> Contents:
    if options.image_column is not None:
        raise InputError(f"image_column is for tables; {tree.folder} is a folder of image files")
    notes: list[str] = []
    images: dict[str, list[Parts]] = {"train": []}
    for parts, split in arrangement.splits.items():
        images.setdefault(split, []).append(parts)
    metadata = _Metadata.of(tree)
    classes = {arrangement.classes[parts] for parts in images["train"]} - {None}
    splits = {}
    for split, split_images in images.items():
        labels = metadata.labels(split_images, arrangement, options.label_column, notes) or _folder_labels(
            tree, arrangement, split_images, classes if split != "train" else set(), notes
        )
        splits[split] = _labelled(tree, split, split_images, labels, notes)
    if options.holdout:
        _refuse_linked_twice(tree, images["train"])
    return Contents(splits, notes)


def _labelled(tree: Tree, split: str, images: list[Parts], labels: Mapping[Parts, Any], notes: list[str]) -> Split:
    """Returns the split with its labelled images; a split without any label keeps all images."""
    where = f"the split '{split}'"
    labelled = [parts for parts in images if parts in labels]
    if not labelled:
        if split == "train":
            raise InputError(
                f"{tree.folder} has {len(images):,} training images, but neither class folders nor a metadata file"
                " with labels"
            )
        return Split(FileImages([tree.path(parts) for parts in images]), None, where)
    if outside := len(images) - len(labelled):
        notes.append(f"left out: {outside:,} images of {where} outside of its class folders or metadata")
    files = FileImages([tree.path(parts) for parts in labelled])
    return Split(files, Labels([labels[parts] for parts in labelled]), where)


def _folder_labels(
    tree: Tree, arrangement: Arrangement, images: list[Parts], training: set[str | None], notes: list[str]
) -> dict[Parts, Any]:
    """Returns labels by class folder.

    If no folder is one of the `training` classes, annotations give the labels, if any.
    """
    labels = {parts: name for parts in images if (name := arrangement.classes[parts]) is not None}
    folders = set(labels.values())
    if not training or folders & training or not all(name.lower() in UNLABELLED for name in folders):
        return labels
    annotations: dict[Parts, Any] = {}
    for table in tree.tables:
        if images and table[0] == images[0][0] and table[-1].lower() not in METADATA:
            _annotate(tree, table, images, annotations)
            notes.append(f"labels of {table[0]}/ come from {'/'.join(table)}")
    return annotations


def _annotate(tree: Tree, table: Parts, images: list[Parts], labels: dict[Parts, Any]) -> None:
    """Reads lines of file name, class, and further words that are ignored, separated by tabs or spaces."""
    file = tree.path(table)
    by_name: dict[str, list[Parts]] = {}
    for parts in images:
        for name in {parts[-1], "/".join(parts[len(table) - 1 :])}:
            by_name.setdefault(name, []).append(parts)
    for number, line in enumerate(_text(file).split("\n"), start=1):
        if not line.strip():
            continue
        words = [word.strip() for word in (line.split("\t") if "\t" in line else line.split())]
        named = by_name.get(words[0], [])
        if len(words) < 2 or len(named) != 1:
            why = f"names {len(named)} images" if len(named) > 1 else "names no image here, or has no class"
            raise InputError(f"{file}, line {number}: '{words[0]}' {why}")
        if labels.setdefault(named[0], words[1]) != words[1]:
            raise InputError(f"{file}, line {number}: '{words[0]}' has two classes, {labels[named[0]]} and {words[1]}")


@dataclass(frozen=True)
class _Metadata:
    """The metadata row of each image, and the file that holds it."""

    tree: Tree
    rows: dict[Parts, Mapping[str, Any]]
    tables: dict[Parts, Parts]

    @classmethod
    def of(cls, tree: Tree) -> _Metadata:
        """Reads all metadata files.

        Raises `InputError` for a row that names no image, and for two different rows of an image.
        """
        metadata, known = cls(tree, {}, {}), set(tree.images)
        for table in tree.tables:
            if table[-1].lower() not in METADATA:
                continue
            file = tree.path(table)
            for row in _metadata_rows(file):
                name = row.get("file_name")
                if not isinstance(name, str) or not name:
                    raise InputError(f"{file} has rows without a 'file_name'")
                image = _below(table[:-1], name, known)
                if image is None:
                    raise InputError(f"{file} names {name}, which is no image in its folder or below")
                if dict(metadata.rows.setdefault(image, row)) != dict(row):
                    raise InputError(f"{file} names {name}, for which another row has other values")
                metadata.tables[image] = table
        return metadata

    def labels(
        self, images: list[Parts], arrangement: Arrangement, label_column: str | None, notes: list[str]
    ) -> dict[Parts, Any]:
        """Returns the labels of a split's images that have a row; -1 for an empty value.

        Returns nothing if class folders are the labels.

        label_column: the column to use; None for 'label', or the only column
        """
        rows = {image: self.rows[image] for image in images if image in self.rows}
        if not rows:
            if label_column is not None:
                raise InputError(f"{self.tree.folder} has no metadata file for the column '{label_column}'")
            return {}
        table = "/".join(next(self.tables[image] for image in rows))
        columns = list(dict.fromkeys(name for row in rows.values() for name in row if name and name != "file_name"))
        column = label_column or ("label" if "label" in columns else None)
        if column is None and len({name for image in images if (name := arrangement.classes[image])}) > 1:
            notes.append(
                f"{table} has no column 'label', so class folders are the labels; --label_column chooses a column"
            )
            return {}
        if column is None and len(columns) == 1:
            column = columns[0]
        if column is None or column not in columns:
            raise InputError(
                f"{self.tree.folder / table} has no column '{label_column or 'label'}'; "
                + (f"--label_column chooses one of {', '.join(columns)}" if columns else "it has only file_name")
            )
        notes.append(f"labels come from the column '{column}' of {table}")
        values = _numbers([row.get(column) for row in rows.values()], table.lower().endswith(".csv"))
        return {image: -1 if value is None else value for image, value in zip(rows, values, strict=True)}


def _below(folder: Parts, name: str, known: set[Parts]) -> Parts | None:
    """Returns the image that a metadata file in `folder` names by its relative path; None if there is no such image."""
    for written in (name, name.replace("\\", "/")):  # Windows writes backslashes
        inner = tuple(part for part in written.split("/") if part != ".")
        if "" not in inner and ".." not in inner and (*folder, *inner) in known:
            return (*folder, *inner)
    return None


def _metadata_rows(file: Path) -> Iterator[Mapping[str, Any]]:
    ending = file.suffix.lower()
    if ending == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            yield from pq.read_table(file).to_pylist()
        except (OSError, pa.ArrowException) as error:
            raise InputError(f"cannot read {file}: {' '.join(str(error).split())}") from None
        return
    text = _text(file)
    if ending == ".csv":
        csv.field_size_limit(max(csv.field_size_limit(), len(text)))
        try:
            yield from csv.DictReader(io.StringIO(text, newline=""))
        except csv.Error as error:
            raise InputError(f"{file} is no CSV file: {error}") from None
        return
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict):
            raise InputError(f"{file}, line {number} is no JSON object")
        yield row


def _text(file: Path) -> str:
    try:
        return file.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{file} is not in UTF-8; save it in UTF-8") from None
    except OSError as error:
        raise InputError(f"cannot read {file}: {error.strerror}") from None


def _numbers(values: list[Any], of_text: bool) -> list[Any]:
    """Returns empty values as None. Values of a text file become numbers if all are written as whole numbers."""
    given = [None if value == "" else value for value in values]
    written = [value for value in given if value is not None]
    if of_text and all(re.fullmatch(r"0|-?[1-9][0-9]*", value) for value in written):
        return [None if value is None else int(value) for value in given]
    return given
