"""Folders of image files. Which folder is a split and which a class is decided by these rules and no others:

1. A split folder stands on the first level and is named train, training or trainset; test, testing or testset; val,
   valid, validation, dev or eval, in any case. Everywhere else a folder of such a name is a class, or an error.
2. With a training folder among them the first level is splits. But where folders of other names with images stand
   beside it, and it has not two class folders itself, the first level is classes. Without one it is classes too, unless
   all folders are named as splits. What else could have been meant is said.
3. Below a split, or on the first level where that is classes, a folder is a class; its images lie at any depth.
4. Split folders below all classes (cat/train, cat/test) are splits. Anywhere else below a class they are an error.
5. Labels come from a `metadata.csv`, `.jsonl` or `.parquet` with a column `file_name` where it has labels, and for a
   split without class folders from an annotations file (`val_annotations.txt`: file name, class).
6. Symbolic links are followed; one that leads back to a folder above it, or an image of both splits, is an error.

Hidden files are not looked at.
"""

from __future__ import annotations

import collections
import csv
import functools
import json
import os
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
SKIPPED = ("__MACOSX",)  # what macOS packs beside the files
MOST_OTHER = 20_000  # files that are no images, before a folder is taken for one of something else

Parts = tuple[str, ...]  # a path below the folder


@dataclass
class Tree:
    """What lies in a folder, at any depth.

    images: relative paths in the order of their text; identities: of each, what two links to one file share
    tables: relative paths of metadata and annotation files; others: of files that are no images, by ending
    folders: relative paths
    """

    folder: Path
    images: list[Parts] = field(default_factory=list)
    identities: dict[Parts, tuple[int, int]] = field(default_factory=dict)
    tables: list[Parts] = field(default_factory=list)
    others: collections.Counter[str] = field(default_factory=collections.Counter)
    folders: list[Parts] = field(default_factory=list)


@dataclass(frozen=True)
class Arrangement:
    """The split and the class folder of every image; the class is None for one outside of class folders."""

    splits: dict[Parts, str]
    classes: dict[Parts, str | None]
    notes: list[str]


def find(folder: Path) -> Found | None:
    """The images of a folder, or None where it has none. Raises `InputError` for what the rules do not decide."""
    tree = listed(folder)
    if not tree.images:
        return None
    arrangement = arranged(tree)
    _refuse_shared_images(tree, arrangement)
    files = {"/".join(parts): folder.joinpath(*parts) for parts in (*tree.images, *tree.tables)}
    notes = [*arrangement.notes]
    if others := sum(tree.others.values()):
        kinds = ", ".join(f"{count:,} {ending or 'without an ending'}" for ending, count in tree.others.most_common(4))
        notes.append(f"left out: {others:,} files that are no images ({kinds})")
    if empty := _empty_classes(tree, arrangement):
        notes.append(f"without images: {', '.join(empty)}")
    return Found(files, functools.partial(_read, tree, arrangement), tuple(notes))


# Listing


def listed(folder: Path) -> Tree:
    """Walk a folder. Raises `InputError` for what cannot be read, for links in a circle, and for far too much else."""
    tree = Tree(folder)
    _walk(tree, (), {_identity(os.stat(folder))})
    tree.images.sort(key="/".join)
    return tree


def _walk(tree: Tree, parts: Parts, above: set[tuple[int, int]]) -> None:
    here = tree.folder.joinpath(*parts)
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
            identity = _identity(entry.stat()) if is_folder or (is_file and ending in ENDINGS) else (0, 0)
        except OSError as error:
            raise InputError(f"cannot read {entry.path}: {error.strerror}") from None
        if is_folder:
            if identity in above:
                raise InputError(f"{entry.path} is a link back to a folder that it lies in; remove the link")
            tree.folders.append(inner)
            _walk(tree, inner, above | {identity})
        elif ending in ENDINGS and is_file:
            tree.images.append(inner)
            tree.identities[inner] = identity
        elif ending in ENDINGS and entry.is_symlink():
            raise InputError(f"{entry.path} is a link to a file that is not there")
        elif entry.name.lower() in METADATA or (ending == ".txt" and "annotations" in entry.name.lower()):
            tree.tables.append(inner)
        else:
            tree.others[ending] += 1
    if sum(tree.others.values()) > max(MOST_OTHER, len(tree.images)):
        raise InputError(
            f"{tree.folder} is no folder of images: {sum(tree.others.values()):,} of its first files are none, and"
            f" {len(tree.images):,} are"
        )


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


# Which folder is what


def arranged(tree: Tree) -> Arrangement:
    """Split and class of every image, by the rules above."""
    first = dict.fromkeys(parts[0] for parts in tree.images if len(parts) > 1)
    named = {name: split for name in first if (split := split_of(name))}
    others = [name for name in first if name not in named]
    training = [name for name, split in named.items() if split == "train"]
    if not named:
        return _of_classes(tree, [])
    listing = ", ".join(f"{name}/" for name in named)
    if not training:
        if not others:
            raise InputError(f"{tree.folder} has no training images, only {listing}; a folder train/ is missing")
        for name in named:
            if shared := _folders_in(tree, name) & set(others):
                raise InputError(
                    f"{tree.folder / name} has folders named as those beside it ({', '.join(sorted(shared))}): move"
                    f" those beside it into {tree.folder / 'train'}"
                )
        return _of_classes(tree, [f"{listing} is read as a class: there is no training folder beside it"])
    with_metadata = any(parts[0] in training for parts in tree.tables if len(parts) > 1)
    if others and not with_metadata and all(len(_folders_in(tree, name)) < 2 for name in training):
        return _of_classes(
            tree,
            [f"{listing} is read as a class, since it has no classes of its own and {others[0]}/ stands beside it"],
        )
    for split in dict.fromkeys(named.values()):
        if len(same := [name for name, of in named.items() if of == split]) > 1:
            raise InputError(f"{tree.folder} has {' and '.join(f'{name}/' for name in same)}, which mean one split")
    notes = []
    if others:
        count = sum(parts[0] in others for parts in tree.images if len(parts) > 1)
        notes.append(f"left out: {count:,} images of {', '.join(f'{name}/' for name in others)}, which is no split")
    return _of_splits(tree, named, notes)


def _folders_in(tree: Tree, name: str) -> set[str]:
    """The second level below a first one, as far as it has images."""
    return {parts[1] for parts in tree.images if len(parts) > 2 and parts[0] == name}


def _of_splits(tree: Tree, named: Mapping[str, str], notes: list[str]) -> Arrangement:
    splits, classes = {}, {}
    for parts in tree.images:
        if parts[0] not in named:
            continue
        _refuse_splits_below(tree, parts, 2)
        splits[parts] = named[parts[0]]
        classes[parts] = parts[1] if len(parts) > 2 else None
    return Arrangement(splits, classes, notes)


def _of_classes(tree: Tree, notes: list[str]) -> Arrangement:
    """The first level is classes, below which all or none may have split folders."""
    inside = [parts for parts in tree.images if len(parts) > 1]
    below = {parts: split_of(parts[1]) if len(parts) > 2 else None for parts in inside}
    all_split = bool(inside) and all(below.values())
    splits, classes = {}, {}
    names: dict[tuple[str, str], str] = {}
    for parts in tree.images:
        _refuse_splits_below(tree, parts, 2 if all_split else 1)
        splits[parts] = below.get(parts) or "train"
        classes[parts] = parts[0] if len(parts) > 1 else None
        if all_split and len(parts) > 1 and names.setdefault((parts[0], splits[parts]), parts[1]) != parts[1]:
            raise InputError(
                f"{tree.folder / parts[0]} has {names[parts[0], splits[parts]]}/ and {parts[1]}/, which mean one split"
            )
    if all_split and "train" not in splits.values():
        raise InputError(f"{tree.folder} has no training images below its classes")
    return Arrangement(splits, classes, notes)


def _refuse_splits_below(tree: Tree, parts: Parts, level: int) -> None:
    for depth in range(level, len(parts) - 1):
        if split_of(parts[depth]):
            raise InputError(
                f"{tree.folder.joinpath(*parts[: depth + 1])} is named as a split but lies below a class; move split"
                " folders to the first level, or rename it"
            )


def _refuse_shared_images(tree: Tree, arrangement: Arrangement) -> None:
    """Raises `InputError` for a file that links put into the training set and into another."""
    training = {tree.identities[parts]: parts for parts, split in arrangement.splits.items() if split == "train"}
    for parts, split in arrangement.splits.items():
        if split != "train" and (other := training.get(tree.identities[parts])):
            raise InputError(
                f"{tree.folder.joinpath(*parts)} and {tree.folder.joinpath(*other)} are one file: it would be trained"
                " and tested on"
            )


def _empty_classes(tree: Tree, arrangement: Arrangement) -> list[str]:
    """Folders that stand where classes do and have no image."""
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
    notes: list[str] = []
    labels = _metadata_labels(tree, arrangement, options, notes)
    if labels is None:
        if options.label_column is not None:
            raise InputError(f"{tree.folder} has no metadata file with a column '{options.label_column}'")
        labels = dict(arrangement.classes)
        _annotate(tree, arrangement, labels, notes)
    if options.image_column is not None:
        raise InputError(f"image_column is for tables; {tree.folder} is a folder of image files")
    splits = {}
    for split in dict.fromkeys(("train", *arrangement.splits.values())):
        images = [parts for parts in tree.images if arrangement.splits.get(parts) == split]
        labelled = [parts for parts in images if labels.get(parts) is not None]
        where = f"the split '{split}'"
        if split == "train" and not labelled:
            raise InputError(
                f"{tree.folder} has {len(images):,} training images, but neither class folders nor a metadata file"
                " with labels"
            )
        if not labelled:
            splits[split] = Split(_files(tree, images), None, where)
            continue
        if outside := len(images) - len(labelled):
            notes.append(f"left out: {outside:,} images of {where} outside of its class folders or metadata")
        splits[split] = Split(_files(tree, labelled), Labels([labels[parts] for parts in labelled]), where)
    return Contents(splits, notes)


def _files(tree: Tree, images: Iterable[Parts]) -> FileImages:
    return FileImages([tree.folder.joinpath(*parts) for parts in images])


def _annotate(tree: Tree, arrangement: Arrangement, labels: dict[Parts, Any], notes: list[str]) -> None:
    """Labels of the splits whose folders are no classes of the training set: from annotations, or none."""
    known = {labels[parts] for parts, split in arrangement.splits.items() if split == "train"}
    for split in set(arrangement.splits.values()) - {"train"}:
        images = [parts for parts, of in arrangement.splits.items() if of == split]
        folders = {labels[parts] for parts in images} - {None}
        if folders & known or len(folders) > 1:
            continue
        labels.update(dict.fromkeys(images))
        for table in tree.tables:
            if table[0] == images[0][0] and table[-1].lower() not in METADATA:
                _annotate_from(tree.folder.joinpath(*table), images, labels)
                notes.append(f"labels of {images[0][0]}/ are those of {'/'.join(table)}")


def _annotate_from(file: Path, images: list[Parts], labels: dict[Parts, Any]) -> None:
    """Lines of file name and class, and of what is not needed, with tabs between them."""
    by_name = {parts[-1]: parts for parts in images}
    for number, line in enumerate(_text(file).splitlines(), start=1):
        if not line.strip():
            continue
        words = line.split("\t") if "\t" in line else line.split()
        if len(words) < 2 or words[0] not in by_name:
            raise InputError(f"{file}, line {number}: '{words[0]}' is no image beside it, or has no class")
        labels[by_name[words[0]]] = words[1].strip()


def _metadata_labels(
    tree: Tree, arrangement: Arrangement, options: ReadOptions, notes: list[str]
) -> dict[Parts, Any] | None:
    """Each image's label of the metadata files; None where there are none, or class folders say it instead."""
    tables = [parts for parts in tree.tables if parts[-1].lower() in METADATA]
    rows: dict[Parts, Mapping[str, Any]] = {}
    known = set(tree.images)
    for table in tables:
        file = tree.folder.joinpath(*table)
        for row in _metadata_rows(file):
            name = row.get("file_name")
            if not isinstance(name, str) or not name:
                raise InputError(f"{file} has rows without a 'file_name'")
            image = _relative(table[:-1], name)
            if image is None:
                raise InputError(f"{file} names {name}, which is not in the folder {tree.folder}")
            if image not in known:
                raise InputError(f"{file} names {name}, which is not there or is no image")
            rows[image] = row
    if not rows:
        return None
    columns = dict.fromkeys(column for row in rows.values() for column in row if column and column != "file_name")
    column = options.label_column or ("label" if "label" in columns else None)
    if column is None and len({name for name in arrangement.classes.values() if name}) > 1:
        notes.append(
            f"{'/'.join(tables[0])} has no column 'label': class folders are the labels; --label_column chooses"
        )
        return None
    if column is None and len(columns) == 1:
        column = next(iter(columns))
    if column is None or column not in columns:
        asked = f"no column '{options.label_column}'" if options.label_column else "no column 'label'"
        listing = ", ".join(columns) or "none but file_name"
        raise InputError(f"{tree.folder.joinpath(*tables[0])} has {asked} (--label_column chooses): {listing}")
    values = _numbers({image: row.get(column) for image, row in rows.items()})
    unlabelled = {image: -1 for image, value in values.items() if value is None}  # told apart from images without a row
    return values | unlabelled


def _relative(folder: Parts, name: str) -> Parts | None:
    """A path that a file in `folder` names, below the data set's folder; None where it leads out of that."""
    parts = list(folder)
    if name.startswith(("/", "\\")) or ":" in name.split("/")[0]:
        return None
    for part in name.replace("\\", "/").split("/"):
        if part == "..":
            if not parts:
                return None
            parts.pop()
        elif part not in ("", "."):
            parts.append(part)
    return tuple(parts)


def _metadata_rows(file: Path) -> Iterator[Mapping[str, Any]]:
    if file.suffix.lower() == ".csv":
        yield from csv.DictReader(_text(file).splitlines())
    elif file.suffix.lower() == ".jsonl":
        for number, line in enumerate(_text(file).splitlines(), start=1):
            try:
                row = json.loads(line) if line.strip() else None
            except ValueError:
                raise InputError(f"{file}, line {number} is no JSON") from None
            if isinstance(row, dict):
                yield row
    else:
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            table = pq.read_table(file)
        except (OSError, pa.ArrowException) as error:
            raise InputError(f"cannot read {file}: {' '.join(str(error).split())}") from None
        yield from table.to_pylist()


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig", errors="replace")
    except OSError as error:
        raise InputError(f"cannot read {file}: {error.strerror}") from None


def _numbers(values: dict[Parts, Any]) -> dict[Parts, Any]:
    """Texts that are all whole numbers, as a CSV file has them, as numbers; empty ones as None."""
    given = {image: None if value == "" else value for image, value in values.items()}
    try:
        return {image: None if value is None else int(value) for image, value in given.items() if _is_text(value)} | {
            image: value for image, value in given.items() if not _is_text(value)
        }
    except ValueError:
        return given


def _is_text(value: Any) -> bool:
    return value is None or isinstance(value, str)
