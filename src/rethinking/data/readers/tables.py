"""Tables of images: Parquet and Arrow files, `save_to_disk` folders and the Hub.

PyArrow reads Parquet and Arrow, one batch at a time. This module decides which file belongs to which split: by the
file's name, or by the folder's README as on the Hub. It does not use the guesses of the library `datasets`.
"""

from __future__ import annotations

import functools
import glob
import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import yaml

from rethinking.data.readers import image_folder
from rethinking.data.readers.contents import Contents, Found, Images, Labels, ReadOptions, Split, Stored, split_of
from rethinking.errors import InputError

ENDINGS = (".parquet", ".arrow")
METADATA = ("metadata.parquet", "metadata.arrow")  # they describe image files, so they are no tables of images
DEPTH = 2  # levels of folders that are searched: a configuration's, and a split's
BATCH = 500  # rows of a `Dataset` that are read at once
ROWS = 5_000  # rows of a Parquet file that are read at once
FILE_MAGIC = b"ARROW1"
END_OF_STREAM = b"\xff\xff\xff\xff\x00\x00\x00\x00"
SHARD = re.compile(r"(.*)-(\d{5})-of-(\d{5})(.*)")
MAGIC = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"RIFF", b"BM", b"II*\x00", b"MM\x00*", b"P5", b"P6", b"P4")
PREFERRED_LABELS = ("label", "fine_label")  # the second is CIFAR-100's
INTEGERS = re.compile(r"u?int\d+")
FLOATS = ("halffloat", "float", "double", "float16", "float32", "float64")
TEXTS = ("string", "large_string", "string_view")


class Rows(Protocol):
    """The rows of a split as Arrow stores them. Cheap to send to another process."""

    @property
    def schema(self) -> Any:
        """The columns' names and types, a `pyarrow.Schema`."""

    def __len__(self) -> int: ...

    def batches(self, column: str) -> Iterator[Any]:
        """Yields the column's values as `pyarrow.Array`s, in order."""

    def pieces(self) -> Iterator[Rows]:
        """Yields the rows of each file; each file may list its class names in another order."""

    def part(self, rows: np.ndarray) -> Rows:
        """Returns the rows at `rows`, int64 ascending."""


# Local files


def find(folder: Path, configuration: str | None, only_named: bool = False) -> Found | None:
    """Finds the Parquet or Arrow files in a folder or up to two levels below; returns None if there are none.

    only_named: whether to return None unless a file's name or the folder's README names a split

    Raises `InputError` if the splits or configurations are ambiguous, or a part of a split is missing.
    """
    found = sorted(_files(folder, DEPTH))
    files = [file for file in found if file.suffix in ENDINGS]
    if not files:
        return None
    notes: list[str] = []
    splits = _declared_splits(folder, configuration, notes)
    if only_named and not splits and not any(map(_names_a_split, files)):
        return None
    splits = splits or _named_splits(folder, files, configuration)
    used = [file for split_files in splits.values() for file in split_files]
    _refuse_missing_shards(used)
    if unused := len(files) - len(used):
        notes.append(f"left out: {unused} files of other configurations or splits")
    # The README, and image files that a table may name by path, are part of the content too.
    others = [file for file in (*found, folder / "README.md") if file.suffix not in ENDINGS and file.is_file()]
    deciding = {str(file.relative_to(folder)): file for file in (*used, *others)}
    return Found(deciding, functools.partial(_read_files, folder, splits), tuple(notes), has_columns=True)


def _refuse_missing_shards(files: list[Path]) -> None:
    """Raises `InputError` if another part of a file such as train-00000-of-00002 is missing."""
    there = {file.name for file in files}
    for file in files:
        if shard := SHARD.fullmatch(file.name):
            before, _, count, after = shard.groups()
            names = [f"{before}-{index:05}-of-{count}{after}" for index in range(int(count))]
            missing = [name for name in names if name not in there]
            if missing:
                raise InputError(f"{file.parent} lacks {missing[0]}, one of {int(count)} parts")


def _files(folder: Path, depth: int) -> Iterator[Path]:
    """Yields Parquet, Arrow and image files, but no metadata, up to `depth` levels below."""
    try:
        with os.scandir(folder) as found:
            entries = [entry for entry in found if not entry.name.startswith(".")]
    except OSError as error:
        raise InputError(f"cannot read {folder}: {error.strerror}") from None
    for entry in entries:
        ending = os.path.splitext(entry.name)[1]
        wanted = ending in ENDINGS or ending.lower() in image_folder.ENDINGS
        if wanted and entry.name not in METADATA and os.path.isfile(entry.path):
            yield Path(entry.path)
        elif depth and os.path.isdir(entry.path):
            yield from _files(Path(entry.path), depth - 1)


def find_file(file: Path) -> Found:
    """Returns the data set in one Parquet or Arrow file; all rows are training images."""
    return Found({file.name: file}, functools.partial(_read_files, file.parent, {"train": [file]}), has_columns=True)


def _declared_splits(folder: Path, configuration: str | None, notes: list[str]) -> dict[str, list[Path]]:
    """Returns the splits that the `configs` of the folder's README.md declare, as on the Hub; may be empty."""
    readme = folder / "README.md"
    if not readme.is_file():
        return {}
    try:
        parts = readme.read_text(encoding="utf-8", errors="replace").split("---\n", 2)
        header = yaml.safe_load(parts[1]) if len(parts) == 3 and not parts[0].strip() else None
        configs = header.get("configs") if isinstance(header, dict) else None
        known = {str(one.get("config_name", "default")): one for one in configs or ()}
        if not known:
            return {}
        files = _configuration(folder, known, configuration).get("data_files")
        if files is None:
            return {}
        return _splits_of(folder, files, notes)
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"cannot read {readme}: {error.strerror}") from None
    except Exception as error:  # the README is written by hand, and YAML raises nearly every type
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"the configs of {readme} are not in the Hub's form: {reason}") from None


def _configuration(folder: Path, known: dict[str, Any], configuration: str | None) -> dict[str, Any]:
    """Returns the configuration of that name, else the only one, else the default."""
    default = next((name for name, one in known.items() if one.get("default")), "default")
    name = configuration or (next(iter(known)) if len(known) == 1 else default)
    if name not in known:
        raise InputError(_choose(folder, sorted(known), configuration))
    whole = {"data_files": known[name].get("data_dir", "").rstrip("/") + "/**"}
    return {**whole, **known[name]}


def _splits_of(folder: Path, files: Any, notes: list[str]) -> dict[str, list[Path]]:
    """Returns the splits that `data_files` declares: patterns of training images, or patterns for each split."""
    if isinstance(files, str) or all(isinstance(one, str) for one in files):
        matching = _matching(folder, files)
        named = _named_splits(folder, matching, None) if any(map(_names_a_split, matching)) else {}
        return named or {"train": matching}
    splits: dict[str, list[Path]] = {}
    for one in files:
        split = split_of(str(one["split"]))
        if split is None:
            notes.append(f"not used: the split '{one['split']}'")
        elif split in splits:
            raise InputError(f"{folder / 'README.md'} has two splits that mean '{split}'")
        else:
            splits[split] = _matching(folder, one["path"])
    return splits


def _matching(folder: Path, patterns: str | list[str]) -> list[Path]:
    """Returns the folder's files that match.

    Raises `InputError` for a pattern that leaves the folder or matches nothing.
    """
    files: list[Path] = []
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        written = pattern.lstrip("/") if pattern.endswith("/**") else pattern
        if not written or Path(written).is_absolute() or ".." in Path(written).parts or "://" in written:
            raise InputError(f"{folder / 'README.md'} names {pattern!r}, which is not in its folder")
        matching = (folder / name for name in sorted(glob.glob(written, root_dir=folder, recursive=True)))
        matched = [file for file in matching if file.is_file() and file.suffix in ENDINGS]
        if not matched:
            raise InputError(f"{folder / 'README.md'} names {pattern!r}, which matches no Parquet or Arrow file")
        files += matched
    return files


def _named_splits(folder: Path, files: list[Path], configuration: str | None) -> dict[str, list[Path]]:
    """Returns the splits by the word in each file's name, else in its folder's name.

    Without such words all files are training images.
    """
    by_configuration: dict[str, dict[str, list[Path]]] = {}
    for file in files:
        folders = file.relative_to(folder).parts[:-1]
        words = [name for name in folders if not split_of(name) and name != "data"]
        split = _split_in(file.stem) or next((split for name in reversed(folders) if (split := split_of(name))), "")
        by_configuration.setdefault("/".join(words), {}).setdefault(split, []).append(file)
    if configuration is None and len(by_configuration) == 1:
        splits = next(iter(by_configuration.values()))
    elif configuration in by_configuration:
        splits = by_configuration[configuration]
    else:
        raise InputError(_choose(folder, sorted(name for name in by_configuration if name), configuration))
    if "" in splits and len(splits) > 1:
        raise InputError(
            f"the name of {splits[''][0]} has no word for its split, such as train, but the name of"
            f" {next(files[0] for split, files in splits.items() if split)} has one; rename or move the first"
        )
    return {"train": splits[""]} if "" in splits else splits


def _names_a_split(file: Path) -> bool:
    return any(map(split_of, _words(file.stem)))


def _words(stem: str) -> list[str]:
    """Returns the words of a file name, such as 'train' of train-00000-of-00005 and of train1."""
    return re.split(r"[^a-zA-Z]+", stem)


def _split_in(stem: str) -> str | None:
    """Returns the split that a file name has a word for, as in train-00000-of-00005.

    Raises `InputError` for two splits.
    """
    splits = {split for word in _words(stem) if (split := split_of(word))}
    if len(splits) > 1:
        raise InputError(f"the file name {stem} has words for {' and '.join(sorted(splits))}; keep one")
    return splits.pop() if splits else None


def _choose(folder: Path, known: list[str], configuration: str | None) -> str:
    which = f"no configuration '{configuration}'" if configuration else f"{len(known)} configurations"
    return (
        f"{folder} has {which}; choose one of {', '.join(known) or 'none'}, as in --dataset PATH:{(known or ['x'])[0]}"
    )


def _read_files(folder: Path, splits: dict[str, list[Path]], options: ReadOptions) -> Contents:
    return read_rows({split: FileRows(tuple(files)) for split, files in splits.items()}, folder, options)


@dataclass(frozen=True)
class FileRows:
    """The rows of Parquet or Arrow files, one file after the other.

    rows: int64 ascending; None for all rows
    """

    files: tuple[Path, ...]
    rows: np.ndarray | None = None

    @functools.cached_property
    def schema(self) -> Any:
        """The first file's `pyarrow.Schema`. Raises `InputError` if another file has other columns."""
        schemas = [_opened(file).schema for file in self.files]
        for file, schema in zip(self.files, schemas, strict=True):
            if schema.names != schemas[0].names:
                raise InputError(f"{file} has the columns {', '.join(schema.names)}, unlike {self.files[0]}")
        if len({*schemas[0].names}) < len(schemas[0].names):
            raise InputError(f"{self.files[0]} has two columns of the same name: {', '.join(schemas[0].names)}")
        return schemas[0]

    def pieces(self) -> Iterator[FileRows]:
        """Yields the rows of each file."""
        return (FileRows((file,)) for file in self.files)

    @functools.cached_property
    def _ends(self) -> np.ndarray:
        """For each file the number of rows in it and in all files before it."""
        return np.cumsum([_opened(file).rows for file in self.files], dtype=np.int64)

    def __len__(self) -> int:
        return int(self._ends[-1]) if self.rows is None else len(self.rows)

    def part(self, rows: np.ndarray) -> FileRows:
        """Returns the rows at `rows`, with only the files that hold them."""
        rows = rows if self.rows is None else self.rows[rows]
        if not len(rows):
            return FileRows(self.files[:1], rows)
        first, last = np.searchsorted(self._ends, rows[[0, -1]], side="right")
        return FileRows(self.files[first : last + 1], rows - (self._ends[first - 1] if first else 0))

    def batches(self, column: str) -> Iterator[Any]:
        """Yields the column's values as `pyarrow.Array`s, in order."""
        before = 0  # rows of the files so far
        for file in self.files:
            opened = _opened(file)
            for start, count, read in opened.batches(column):
                begin = before + start
                if self.rows is None:
                    yield read()
                    continue
                first, last = np.searchsorted(self.rows, [begin, begin + count])
                if first < last:
                    yield _taken(read(), self.rows[first:last] - begin)
            before += opened.rows


def _taken(column: Any, rows: np.ndarray) -> Any:
    """Returns the column's values at `rows`, int64 strictly ascending."""
    import pyarrow as pa

    if rows[-1] - rows[0] + 1 == len(rows):
        return column.slice(rows[0], len(rows))
    if pa.types.is_binary_view(column.type):  # PyArrow cannot take rows of this type
        column = column.cast(pa.large_binary())
    return column.take(rows)


class _Opened:
    """An open Parquet or Arrow file: its schema, its number of rows, and its batches, which are read on demand."""

    def __init__(self, file: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self.file = file
        try:
            if file.suffix == ".parquet":
                self._parquet = pq.ParquetFile(file, memory_map=True)
                self.schema = self._parquet.schema_arrow
                groups = self._parquet.metadata
                self._parts = [
                    (group, index, min(ROWS, groups.row_group(group).num_rows - index * ROWS))
                    for group in range(groups.num_row_groups)
                    for index in range(-(-groups.row_group(group).num_rows // ROWS))
                ]
            else:
                self._parquet = None
                self._batches = _arrow_batches(file)
                self.schema = self._batches[0].schema if self._batches else pa.schema([])
                self._parts = [(number, 0, batch.num_rows) for number, batch in enumerate(self._batches)]
        except OSError as error:
            raise InputError(_cannot_read(file, error)) from None
        except pa.ArrowException as error:
            raise InputError(f"{file} is no complete {file.suffix[1:]} file: {_line(error)}") from None
        self.rows = sum(count for _, _, count in self._parts)
        self._at: tuple[Any, ...] = ()  # the part that was read last, and the iterator over the next parts

    def batches(self, column: str) -> Iterator[tuple[int, int, Any]]:
        """Yields (first row, number of rows, function that reads them as one `pyarrow.Array`) of every batch."""
        start = 0
        for group, index, count in self._parts:
            yield start, count, functools.partial(self._read, group, index, count, column)
            start += count

    def _read(self, group: int, index: int, count: int, column: str) -> Any:
        """Returns the values of a part. Callers read parts in order, so a row group is read once."""
        import pyarrow as pa

        if self._parquet is None:
            return self._batches[group].column(column)
        if self._at[:2] != (group, column) or self._at[2] > index:
            following = self._parquet.iter_batches(ROWS, row_groups=[group], columns=[column])
            self._at = group, column, -1, None, following
        try:
            while self._at[2] < index:
                *_, at, _, following = self._at
                self._at = group, column, at + 1, next(following).column(column), following
        except (OSError, pa.ArrowException, StopIteration) as error:
            raise InputError(f"{self.file} is damaged: {_line(error)}") from None
        if len(self._at[3]) != count:
            raise InputError(f"{self.file} is damaged: it has {len(self._at[3])} rows where {count} are declared")
        return self._at[3]


def _opened(file: Path) -> _Opened:
    """Returns the open file. It is opened again only if it has changed."""
    try:
        status = file.stat()
    except OSError as error:
        raise InputError(_cannot_read(file, error)) from None
    return _opened_once(file, status.st_size, status.st_mtime_ns, status.st_ino)


@functools.lru_cache(maxsize=4)
def _opened_once(file: Path, *stamp: int) -> _Opened:
    return _Opened(file)


def _arrow_batches(file: Path) -> list[Any]:
    """Returns the batches of an Arrow stream, as `datasets` writes it, or of an Arrow file."""
    import pyarrow as pa

    source = pa.memory_map(str(file))
    if source.size() and source.read_at(len(FILE_MAGIC), 0) == FILE_MAGIC:
        opened = pa.ipc.open_file(source)
        batches = [opened.get_batch(index) for index in range(opened.num_record_batches)]
    else:
        batches = list(pa.ipc.open_stream(source))
        if source.read_at(len(END_OF_STREAM), source.size() - len(END_OF_STREAM)) != END_OF_STREAM:
            raise pa.ArrowInvalid("it is truncated")
    for batch in batches:
        batch.validate(full=True)  # the offsets of a damaged file may point anywhere
    return batches


# `save_to_disk` and the Hub


def find_saved(folder: Path, names: frozenset[str]) -> Found | None:
    """Finds what `Dataset.save_to_disk` or `DatasetDict.save_to_disk` wrote; else returns None."""
    if "dataset_dict.json" in names:
        parts = [part for part in sorted(folder.iterdir()) if (part / "state.json").is_file()]
    elif "state.json" in names and "dataset_info.json" in names:
        parts = [folder]
    else:
        return None
    files = {}
    for part in parts:
        for file in (part / "state.json", part / "dataset_info.json", *_data_files(part)):
            files[str(file.relative_to(folder))] = file
    return Found(files, functools.partial(_read_saved, folder), has_columns=True)


def _data_files(part: Path) -> list[Path]:
    """Returns the files that a part's state names, all of which must lie in the part's folder."""
    state_file = part / "state.json"
    try:
        state = json.loads(state_file.read_text(encoding="utf-8"))
        names = [one["filename"] for one in (*state["_data_files"], *(state.get("_indices_data_files") or ()))]
    except OSError as error:
        raise InputError(f"cannot read {state_file}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{state_file} is damaged: it names no data files") from None
    for name in names:
        if not isinstance(name, str) or Path(name).name != name:
            raise InputError(f"{state_file} names {name}, which is not in its folder")
        if not (part / name).is_file():
            raise InputError(f"{state_file} names {name}, which is missing")
    return [part / name for name in names]


def _read_saved(folder: Path, options: ReadOptions) -> Contents:
    import datasets

    try:
        loaded = datasets.load_from_disk(str(folder))
    except Exception as error:  # the library raises many types of its own and of its readers
        raise InputError(f"cannot read {folder}: {_line(error)}") from None
    return read_loaded(loaded, str(folder), options)


def _rows_of(loaded: Any, where: str, notes: list[str]) -> dict[str, Rows]:
    """Returns the rows of a `Dataset` or `DatasetDict` by split. Adds to `notes` what is not used."""
    if not hasattr(loaded, "keys"):
        return {"train": DatasetRows(loaded)}
    splits: dict[str, Rows] = {}
    for name, rows in loaded.items():
        split = split_of(str(name))
        if split is None:
            notes.append(f"not used: {len(rows):,} rows of the split '{name}'")
        elif split in splits:
            raise InputError(f"{where} has two splits that mean '{split}': {', '.join(map(str, loaded))}")
        else:
            splits[split] = DatasetRows(rows)
    if "train" not in splits:
        raise InputError(f"{where} has no split 'train', only {', '.join(map(str, loaded)) or 'none'}")
    return splits


@dataclass(frozen=True)
class DatasetRows:
    """The rows of a `datasets.Dataset`."""

    dataset: Any

    @functools.cached_property
    def schema(self) -> Any:
        """The columns' names and types, a `pyarrow.Schema`."""
        return self.dataset.features.arrow_schema

    def __len__(self) -> int:
        return len(self.dataset)

    def pieces(self) -> Iterator[DatasetRows]:
        """Yields the rows themselves: one data set has one list of class names."""
        yield self

    def part(self, rows: np.ndarray) -> DatasetRows:
        """Returns the rows at `rows`."""
        return DatasetRows(self.dataset.select(rows, keep_in_memory=True))

    def batches(self, column: str) -> Iterator[Any]:
        """Yields the column's values as `pyarrow.Array`s, in order."""
        for batch in self.dataset.select_columns(column).with_format("arrow").iter(batch_size=BATCH):
            yield batch.column(column).combine_chunks()


def read_loaded(loaded: Any, where: str, options: ReadOptions, any_file: bool = False) -> Contents:
    """Returns the contents of a `datasets.Dataset` or `DatasetDict`.

    where: the data set's name in messages
    any_file: whether images may be files in any folder, as in a data set made in this process
    """
    notes: list[str] = []
    contents = read_rows(_rows_of(loaded, where, notes), Path(where), options, any_file)
    return Contents(contents.splits, [*notes, *contents.notes])


# Columns


def read_rows(splits: dict[str, Any], where: Path, options: ReadOptions, any_file: bool = False) -> Contents:
    """Returns the contents of tables. The training table decides the image and the label column.

    splits: `Rows` by split

    Raises `InputError` if a column is missing, is ambiguous, or has no images or labels.
    """
    train = splits.get("train")
    if train is None:
        raise InputError(f"{where} has no training images, only {' and '.join(sorted(splits))}")
    notes: list[str] = []
    image, label = columns(train, where, options, notes)
    contents = {}
    for name, rows in splits.items():
        described = f"the split '{name}'"
        for column in (image, label):
            if column not in rows.schema.names and (column == image or name == "train"):
                raise InputError(f"{described} has no column '{column}': {_described(rows.schema)}")
        labels = _labels(rows, label) if label in rows.schema.names else None
        contents[name] = Split(TableImages(rows, image, name, None if any_file else where), labels, described)
    return Contents(contents, notes)


def columns(rows: Rows, where: Path, options: ReadOptions, notes: list[str]) -> tuple[str, str]:
    """Returns the names of the image and the label column. Adds to `notes` what was decided.

    Raises `InputError` if one is missing, or if several columns could be meant.
    """
    image = _image_column(rows, where, options.image_column, notes)
    return image, _label_column(rows.schema, where, options.label_column, image, notes)


def _image_column(rows: Any, where: Path, chosen: str | None, notes: list[str]) -> str:
    schema = rows.schema
    likely = [name for name in schema.names if _is_image(schema.field(name).type)]
    if chosen is not None:
        if chosen not in schema.names:
            raise InputError(f"{where} has no column '{chosen}': {_described(schema)}")
        if chosen not in likely and not _is_bytes(schema.field(chosen).type):
            raise InputError(f"the column '{chosen}' of {where} has no images: {_described(schema)}")
        return chosen
    encoded = [name for name in schema.names if _is_bytes(schema.field(name).type)]
    if not likely or set(encoded) & {"image", "img"}:
        likely += [name for name in encoded if _holds_images(rows, name)]
    return _one("image", likely, ("image", "img"), where, schema, notes)


def _label_column(schema: Any, where: Path, chosen: str | None, image: str, notes: list[str]) -> str:
    features = _features(schema)
    classes = [name for name in schema.names if features.get(name, {}).get("_type") == "ClassLabel"]
    labels = [name for name in schema.names if name != image and _is_label(schema.field(name).type)]
    if chosen is not None:
        if chosen not in schema.names:
            raise InputError(f"{where} has no column '{chosen}': {_described(schema)}")
        if chosen not in labels:
            raise InputError(f"the column '{chosen}' of {where} has no labels: {_described(schema)}")
        notes.append(f"labels come from the column '{chosen}'")
        return chosen
    return _one("label", labels if "label" in labels else classes or labels, PREFERRED_LABELS, where, schema, notes)


def _one(
    what: str, candidates: Sequence[str], preferred: Sequence[str], where: Path, schema: Any, notes: list[str]
) -> str:
    """Returns the only candidate, else the preferred one with a note. Raises `InputError` if neither exists."""
    if len(candidates) == 1:
        return candidates[0]
    for name in preferred:
        if name in candidates:
            others = ", ".join(other for other in candidates if other != name)
            notes.append(f"the {what} column is '{name}'; --{what}_column chooses another, such as {others}")
            return name
    which = f"{len(candidates)} columns that could hold the {what}s" if candidates else f"no {what} column"
    remedy = f"; --{what}_column chooses one" if candidates else ""
    raise InputError(f"{where} has {which}{remedy}: {_described(schema)}")


def _features(schema: Any) -> dict[str, dict[str, Any]]:
    """Returns the description of each column that `datasets` stores in the schema; empty if there is none."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, ValueError, TypeError):
        return {}
    columns = features.items() if isinstance(features, dict) else ()
    return {name: feature for name, feature in columns if isinstance(feature, dict)}


def _described(schema: Any) -> str:
    """Returns every column with its type, in words."""
    features = _features(schema)
    types = [(name, features.get(name, {}).get("_type", "Value")) for name in schema.names]
    columns = ", ".join(f"{name} ({schema.field(name).type if kind == 'Value' else kind})" for name, kind in types)
    return f"its columns are {columns or 'none'}"


def _is_image(kind: Any) -> bool:
    """Whether the type is a struct with an image's bytes, as `datasets` and pandas write it."""
    import pyarrow as pa

    fields = [kind.field(index) for index in range(kind.num_fields)] if pa.types.is_struct(kind) else []
    return any(field.name == "bytes" and (_is_bytes(field.type) or pa.types.is_null(field.type)) for field in fields)


def _is_bytes(kind: Any) -> bool:
    import pyarrow as pa

    return any(check(kind) for check in (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view))


def _holds_images(rows: Any, column: str) -> bool:
    for batch in rows.batches(column):
        for value in batch:
            content = value.as_py()
            if content is not None:
                return bool(content.startswith(MAGIC))
    return False


def _is_label(kind: Any) -> bool:
    import pyarrow as pa

    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    named = str(kind)
    return named in (*TEXTS, *FLOATS, "bool", "null") or bool(INTEGERS.fullmatch(named))


def _labels(rows: Any, column: str) -> Labels:
    """Returns the column's labels. They become names if files list their classes in different orders."""
    pieces = [(_class_names(piece, column), _values(piece, column)) for piece in rows.pieces()]
    first = pieces[0][0]
    if all(names == first for names, _ in pieces):
        return Labels([value for _, values in pieces for value in values], first)
    every = tuple(dict.fromkeys(name for names, _ in pieces for name in names or ()))
    return Labels([_named(value, names) for names, values in pieces for value in values], every)


def _named(value: Any, names: tuple[str, ...] | None) -> Any:
    """Returns the class name that an index into a file's own class names stands for."""
    if value is None or value == -1 or names is None or isinstance(value, str):
        return value
    if not isinstance(value, int) or not 0 <= value < len(names):
        raise InputError(f"the label {value} is none of the class names {', '.join(names)} of its file")
    return names[value]


def _class_names(rows: Any, column: str) -> tuple[str, ...] | None:
    names = _features(rows.schema).get(column, {}).get("names")
    return tuple(map(str, names)) if isinstance(names, list) else None


def _values(rows: Any, column: str) -> list[Any]:
    return [value for batch in rows.batches(column) for value in batch.to_pylist()]


@dataclass(frozen=True)
class TableImages:
    """The images of a column.

    folder: the folder that image files must be in; None for any folder
    numbers: numbers of the rows in the whole split; None for 0, 1, 2, ...
    """

    rows: Any
    column: str
    split: str
    folder: Path | None
    numbers: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def part(self, rows: np.ndarray) -> Images:
        """Returns the images at `rows`."""
        numbers = rows if self.numbers is None else self.numbers[rows]
        return TableImages(self.rows.part(rows), self.column, self.split, self.folder, numbers)

    def stored(self) -> Iterator[Stored]:
        """Yields each image as bytes or as a file.

        Raises `InputError` if one is missing or lies outside of `folder`.
        """
        row = 0
        for batch in self.rows.batches(self.column):
            for value in batch:
                number = row if self.numbers is None else self.numbers[row]
                yield self._stored(value.as_py(), f"image {number} of the split '{self.split}'")
                row += 1

    def _stored(self, value: Any, described: str) -> Stored:
        content = value.get("bytes") if isinstance(value, dict) else value
        path = value.get("path") if isinstance(value, dict) else None
        named = f"{path} ({described})" if isinstance(path, str) and path else described
        if isinstance(content, bytes):
            return Stored(named, content)
        if not isinstance(path, str) or not path:
            raise InputError(f"{described} is missing")
        if self.folder is None:
            return Stored(named, Path(path))
        if Path(path).is_absolute() or ".." in Path(path).parts or "\0" in path:
            raise InputError(f"{described} names {path!r}, which is not in the folder {self.folder}")
        return Stored(named, self.folder / path)


def _cannot_read(file: Path, error: OSError) -> str:
    return f"cannot read {file}: {error.strerror or _line(error)}"


def _line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
