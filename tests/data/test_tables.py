"""Parquet, Arrow, `save_to_disk` and the Hub's own cache, compared with the written images and labels."""

import dataclasses
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from rethinking.data import sources
from rethinking.data.images import ImageData, ImageSet
from rethinking.data.readers.contents import ReadOptions
from rethinking.data.readers.tables import FileRows
from rethinking.errors import InputError

SKIP = ReadOptions(skip_unlabelled=True)
PIXELS = np.random.default_rng(0).integers(0, 256, (20, 5, 4, 3), dtype=np.uint8)
LABELS = [0, 2, 1, 0, 1, 2, 2, 0]
NAMES = ("ant", "cat", "dog")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RETHINKING_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def png(pixels: np.ndarray) -> bytes:
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "png")
    return content.getvalue()


def structs(rows: Any) -> pa.Array:
    """Images as pandas writes them: {bytes, path}, without metadata."""
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    return pa.array([None if row is None else {"bytes": png(PIXELS[row]), "path": None} for row in rows], kind)


def hub(rows: Any, labels: Any, names: Any = NAMES) -> pa.Table:
    """A table as on the Hub, with the metadata of `datasets`."""
    return described(
        pa.table({"image": structs(rows), "label": pa.array(labels, pa.int64())}),
        {"image": {"_type": "Image"}, "label": {"names": list(names), "_type": "ClassLabel"}},
    )


def described(table: pa.Table, features: Any) -> pa.Table:
    return table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})


def plain(labels: Any, rows: Any = None) -> pa.Table:
    return pa.table({"image": structs(range(len(labels)) if rows is None else rows), "label": labels})


def write(file: Path, table: pa.Table, **options: Any) -> Path:
    """Writes a table by the file's ending: .parquet, .arrow (a stream) or .file.arrow."""
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix == ".parquet":
        pq.write_table(table, file, **options)
    else:
        new = pa.ipc.new_file if file.name.endswith(".file.arrow") else pa.ipc.new_stream
        with new(str(file), table.schema) as writer:
            writer.write_table(table, **options)
    return file


def load(place: Path | str, **options: Any) -> ImageData:
    return sources.load(str(place), options=ReadOptions(**options))


def assert_holds(split: ImageSet | None, rows: Any, labels: Any) -> None:
    """rows: rows of PIXELS"""
    assert split is not None
    assert np.array_equal(split.images, PIXELS[list(rows)].transpose(0, 3, 1, 2))
    assert split.labels.tolist() == list(labels)


def assert_refused(place: Path | str, *words: str, **options: Any) -> None:
    with pytest.raises(InputError) as caught:
        load(place, **options)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def attempt(place: Path) -> ImageData | str:
    """Returns the data set, or the error."""
    try:
        return load(place)
    except InputError as error:
        return str(error)


def assert_said(data: ImageData, *words: str) -> None:
    assert any(all(word in note for word in words) for note in data.notes), data.notes


# Files


@pytest.mark.parametrize("ending", [".parquet", ".arrow", ".file.arrow"])
def test_files_of_every_kind_are_read_as_the_hub_has_them(tmp_path: Path, ending: str):
    write(tmp_path / f"pets/train{ending}", hub(range(8), LABELS))
    write(tmp_path / f"pets/test{ending}", hub([9, 8], [2, 0]))
    data = load(tmp_path / "pets")
    assert (data.name, data.class_names) == ("pets", NAMES)
    assert_holds(data.train, range(8), LABELS)
    assert_holds(data.test, [9, 8], [2, 0])


@pytest.mark.parametrize("ending", [".parquet", ".arrow", ".file.arrow"])
def test_one_file_is_a_training_set(tmp_path: Path, ending: str):
    data = load(write(tmp_path / f"pets{ending}", hub(range(8), LABELS)))
    assert data.test is None
    assert "no test set" in data.described()[-1]
    assert_holds(data.train, range(8), LABELS)


IMAGE_TYPES = [
    pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
    pa.struct([("path", pa.large_string()), ("bytes", pa.large_binary())]),
    pa.struct([("bytes", pa.binary())]),
    pa.binary(),
    pa.large_binary(),
    pa.binary_view(),
]


@pytest.mark.parametrize("ending", [".parquet", ".arrow"])
@pytest.mark.parametrize("kind", IMAGE_TYPES, ids=str)
def test_images_of_every_type_are_read(tmp_path: Path, kind: pa.DataType, ending: str):
    encoded = [png(PIXELS[row]) for row in range(8)]
    values = [{"bytes": content} for content in encoded] if pa.types.is_struct(kind) else encoded
    table = pa.table({"picture": pa.array(values, kind), "kind": LABELS})
    data = load(write(tmp_path / f"pets{ending}", table))
    assert_holds(data.train, range(8), LABELS)
    labels = [None, *LABELS[1:7], None]
    write(tmp_path / f"some{ending}", table.set_column(1, "kind", pa.array(labels)))
    assert_holds(load(tmp_path / f"some{ending}", skip_unlabelled=True).train, range(1, 7), LABELS[1:7])


def test_a_column_of_other_bytes_is_no_image_column(tmp_path: Path):
    table = pa.table({"blob": [b"abc"] * 8, "picture": [png(PIXELS[row]) for row in range(8)], "label": LABELS})
    assert_holds(load(write(tmp_path / "pets.parquet", table)).train, range(8), LABELS)


@pytest.mark.parametrize("ending", [".parquet", ".arrow"])
def test_many_row_groups_and_shards_keep_their_order(tmp_path: Path, ending: str):
    rows = [int(row) for row in np.random.default_rng(1).integers(0, 20, 60)]
    labels = [int(label) for label in np.random.default_rng(2).integers(0, 3, 60)]
    for shard in range(4):
        part = slice(15 * shard, 15 * shard + 15)
        options = {"row_group_size": 4} if ending == ".parquet" else {"max_chunksize": 4}
        write(tmp_path / f"pets/train-{shard:05}-of-00004{ending}", hub(rows[part], labels[part]), **options)
    assert_holds(load(tmp_path / "pets").train, rows, labels)


@pytest.mark.parametrize("ending", [".parquet", ".arrow"])
def test_parts_of_parts_hold_the_rows_that_were_chosen(tmp_path: Path, ending: str):
    """The rows cross files and row groups; some files are empty or hold no chosen row."""
    random = np.random.default_rng(3)
    sizes = [7, 0, 1, 12, 0, 5]
    files = [tmp_path / f"{number}{ending}" for number in range(len(sizes))]
    for file, values in zip(files, np.split(np.arange(sum(sizes)), np.cumsum(sizes)[:-1]), strict=True):
        options = {"row_group_size": 3} if ending == ".parquet" else {"max_chunksize": 3}
        write(file, pa.table({"number": pa.array(values, pa.int64())}), **options)
    rows = FileRows(tuple(files))
    assert len(rows) == sum(sizes)
    assert rows.part(np.arange(8, 20)).files == (files[3],)
    for _ in range(100):
        outer = np.flatnonzero(random.random(sum(sizes)) < random.random())
        inner = np.flatnonzero(random.random(len(outer)) < random.random())
        for part, expected in [(rows.part(outer), outer), (rows.part(outer).part(inner), outer[inner])]:
            found = [value for batch in part.batches("number") for value in batch.to_pylist()]
            assert found == expected.tolist()
            assert len(part) == len(expected)


def test_an_empty_row_group_or_shard_is_passed_over(tmp_path: Path):
    write(tmp_path / "pets/train-00000-of-00003.parquet", hub(range(4), LABELS[:4]))
    write(tmp_path / "pets/train-00001-of-00003.parquet", hub([], []))
    write(tmp_path / "pets/train-00002-of-00003.parquet", hub(range(4, 8), LABELS[4:]))
    assert_holds(load(tmp_path / "pets").train, range(8), LABELS)


def test_kept_images_belong_to_the_kept_labels(tmp_path: Path):
    labels = [0, -1, 2, None, 1, -1, 0, 1, None, 2, 0, 1]
    kept = [row for row, label in enumerate(labels) if label not in (None, -1)]
    for shard in range(3):
        part = slice(4 * shard, 4 * shard + 4)
        name = f"pets/train-{shard:05}-of-00003.parquet"
        write(tmp_path / name, hub(range(12)[part], labels[part]), row_group_size=3)
    assert_refused(tmp_path / "pets", "4 of the 12 images", "--skip_unlabelled")
    data = sources.load(str(tmp_path / "pets"), options=SKIP)
    assert_holds(data.train, kept, [labels[row] for row in kept])
    assert_said(data, "4 images")


def test_a_file_that_was_rewritten_is_read_again(tmp_path: Path):
    """Both reads are in one process, as in a notebook."""
    for ending in (".parquet", ".arrow"):
        file = tmp_path / f"pets{ending}"
        write(file, plain([0, 1]))
        assert_holds(load(file).train, [0, 1], [0, 1])
        write(tmp_path / f"new{ending}", plain([1, 0, 1], [7, 8, 9]))
        os.replace(tmp_path / f"new{ending}", file)
        assert_holds(load(file).train, [7, 8, 9], [1, 0, 1])


@pytest.mark.parametrize("ending", [".parquet", ".arrow", ".file.arrow"])
def test_a_damaged_file_is_named(tmp_path: Path, ending: str):
    write(tmp_path / f"pets/train{ending}", hub(range(8), LABELS))
    file = write(tmp_path / f"pets/test{ending}", hub(range(8), LABELS))
    whole = file.read_bytes()
    for kept in (0, 3, 100, len(whole) // 2, len(whole) - 30):
        file.write_bytes(whole[:kept])
        assert_refused(tmp_path / "pets", f"test{ending}")
    file.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n")
    assert_refused(tmp_path / "pets", f"test{ending}")


def test_a_stream_cut_between_two_batches_is_named(tmp_path: Path):
    """A complete stream ends with a mark. PyArrow and `datasets` write the mark, but PyArrow does not require it."""
    file = write(tmp_path / "pets.arrow", hub(range(8), LABELS), max_chunksize=4)
    with pa.memory_map(str(file)) as source:
        pa.ipc.open_stream(source).read_next_batch()
        first = source.tell()
    file.write_bytes(file.read_bytes()[:first])
    assert_refused(file, "pets.arrow")


def test_a_damaged_page_of_parquet_is_named(tmp_path: Path):
    file = write(tmp_path / "pets/train.parquet", hub(range(8), LABELS), compression="zstd")
    metadata = pq.read_metadata(file).row_group(0)
    for column in range(metadata.num_columns):
        content = bytearray(file.read_bytes())
        start = metadata.column(column).data_page_offset
        content[start : start + 40] = b"\xff" * 40
        (tmp_path / f"damaged{column}").mkdir()
        (tmp_path / f"damaged{column}/train.parquet").write_bytes(bytes(content))
        if metadata.column(column).path_in_schema != "image.path":  # of nulls alone
            assert_refused(tmp_path / f"damaged{column}", "train.parquet")


def elsewhere(place: Path | str, **environment: str) -> str:
    """Returns what another process prints: names and labels as JSON, or the error."""
    program = (
        "import json, sys\n"
        "from rethinking.data import sources; from rethinking.errors import InputError\n"
        "try: data = sources.load(sys.argv[1])\n"
        "except InputError as error: print('refused:', error)\n"
        "else: print(json.dumps([data.class_names, data.train.labels.tolist(), data.train.images[:, :, 0, 0].tolist(),"
        " data.test and data.test.labels.tolist()]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(place)],
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, f"status {done.returncode}: {done.stderr[-800:]}"
    return done.stdout


def test_offsets_of_arrow_that_lead_out_of_the_file_are_refused(tmp_path: Path):
    """PyArrow does not check offsets, and reads the memory that they point to."""
    texts = pa.array(["ant", "cat", "dog"] * 4)
    file = write(tmp_path / "pets.arrow", plain(texts))
    offsets = np.arange(0, 39, 3, dtype=np.int32).tobytes()
    content = file.read_bytes()
    assert content.count(offsets) == 1
    lies = np.concatenate([[0], np.full(12, 2**30)]).astype(np.int32).tobytes()
    file.write_bytes(content.replace(offsets, lies))
    assert elsewhere(file).startswith("refused:")


@pytest.mark.parametrize("ending", [".parquet", ".arrow"])
def test_a_missing_image_is_named(tmp_path: Path, ending: str):
    table = plain([0, 1, 0, 1, 0, 1], [0, 1, 2, 3, None, 5])
    write(tmp_path / f"pets/train{ending}", table)
    assert_refused(tmp_path / "pets", "image 4 ", "missing")
    kind = table.schema.field("image").type
    empty = pa.array([{"bytes": png(PIXELS[0])}, {"bytes": None, "path": None}], kind)
    write(tmp_path / f"more/train{ending}", pa.table({"image": empty, "label": [0, 1]}))
    assert_refused(tmp_path / "more", "image 1 ", "missing")


def test_a_missing_image_is_counted_in_its_split_when_others_are_left_out(tmp_path: Path):
    table = plain(pa.array([None, 1, 0, None, 0, 1]), [0, 1, 2, 3, None, 5])
    write(tmp_path / "pets/train.parquet", table, row_group_size=2)
    assert_refused(tmp_path / "pets", "image 4 ", "missing", skip_unlabelled=True)


def test_an_image_that_cannot_be_decoded_is_named(tmp_path: Path):
    values = [png(PIXELS[0]), png(PIXELS[1]), png(PIXELS[2])[:60]]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    paths = [{"bytes": content, "path": f"{row}.png"} for row, content in enumerate(values)]
    write(tmp_path / "pets.parquet", pa.table({"image": pa.array(paths, kind), "label": [0, 1, 0]}))
    assert_refused(tmp_path / "pets.parquet", "2.png")


# Images by their paths


def by_path(paths: list[str]) -> pa.Table:
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    images = pa.array([{"bytes": None, "path": path} for path in paths], kind)
    return pa.table({"image": images, "label": [index % 2 for index in range(len(paths))]})


def save(file: Path, row: int) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(PIXELS[row]).save(file)


def test_images_beside_the_table_are_read(tmp_path: Path):
    for row in range(4):
        save(tmp_path / f"pets/images/{row}.png", row)
    write(tmp_path / "pets/train.parquet", by_path([f"images/{row}.png" for row in (2, 0, 3, 1)]))
    assert_holds(load(tmp_path / "pets").train, [2, 0, 3, 1], [0, 1, 0, 1])


def test_an_image_beside_the_table_that_was_changed_is_read_again(tmp_path: Path):
    for row in range(2):
        save(tmp_path / f"pets/images/{row}.png", row)
    write(tmp_path / "pets/train.parquet", by_path(["images/0.png", "images/1.png"]))
    load(tmp_path / "pets")
    save(tmp_path / "pets/images/1.png", 9)
    assert_holds(load(tmp_path / "pets").train, [0, 9], [0, 1])


@pytest.mark.parametrize("path", ["../secret.png", "{root}/secret.png", "a/../../secret.png", "a\0.png"])
@pytest.mark.parametrize("first", [True, False])
def test_paths_that_leave_the_folder_are_refused(tmp_path: Path, path: str, first: bool):
    save(tmp_path / "secret.png", 5)
    save(tmp_path / "pets/inside.png", 0)
    paths = [path.format(root=tmp_path), "inside.png"]
    write(tmp_path / "pets/train.parquet", by_path(paths if first else paths[::-1]))
    assert_refused(tmp_path / "pets")


@pytest.mark.parametrize("form", ["text called bytes", "text called an Image"])
def test_text_is_never_opened_as_a_file(tmp_path: Path, form: str):
    """The content of an image is bytes. Text in its place would be an unchecked path."""
    save(tmp_path / "secret.png", 5)
    paths = [str(tmp_path / "secret.png")] * 2
    if form == "text called bytes":
        kind = pa.struct([("bytes", pa.string()), ("path", pa.string())])
        images = pa.array([{"bytes": path, "path": None} for path in paths], kind)
    else:
        images = pa.array(paths)
    table = described(pa.table({"image": images, "label": [0, 1]}), {"image": {"_type": "Image"}})
    write(tmp_path / "pets/train.parquet", table)
    assert_refused(tmp_path / "pets")


def test_a_file_that_is_not_there_is_named(tmp_path: Path):
    write(tmp_path / "pets/train.parquet", by_path(["absent.png", "absent.png"]))
    assert_refused(tmp_path / "pets", "absent.png")


# Labels

INTEGERS = [pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()]
TEXTS = [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())]


@pytest.mark.parametrize("ending", [".parquet", ".arrow"])
@pytest.mark.parametrize("kind", [*INTEGERS, pa.dictionary(pa.int32(), pa.int64())], ids=str)
def test_integers_are_classes_contiguous_or_not(tmp_path: Path, kind: pa.DataType, ending: str):
    values = [7, 100, 3, 7, 100, 3]
    labels = pa.array(values).cast(kind) if not pa.types.is_dictionary(kind) else pa.array(values).dictionary_encode()
    data = load(write(tmp_path / f"pets{ending}", plain(labels)))
    assert data.class_names == ("3", "7", "100")
    assert_holds(data.train, range(6), [1, 2, 0, 1, 2, 0])


@pytest.mark.parametrize("ending", [".parquet", ".arrow"])
@pytest.mark.parametrize("kind", [*TEXTS, pa.dictionary(pa.int32(), pa.large_string())], ids=str)
def test_text_of_every_type_is_classes(tmp_path: Path, kind: pa.DataType, ending: str):
    names = ["dog", "ant", "cat", "dog"]
    if pa.types.is_dictionary(kind):
        labels = pa.array(names, kind.value_type).dictionary_encode().cast(kind)
    else:
        labels = pa.array(names, kind)
    data = load(write(tmp_path / f"pets{ending}", plain(labels)))
    assert data.class_names == NAMES
    assert_holds(data.train, range(4), [2, 0, 1, 2])


def test_dictionaries_that_differ_between_shards_are_classes_by_text(tmp_path: Path):
    for shard, names in enumerate((["dog", "ant"], ["cat", "dog"])):
        labels = pa.array(names).dictionary_encode()
        write(tmp_path / f"pets/train-0000{shard}-of-00002.arrow", plain(labels, [2 * shard, 2 * shard + 1]))
    data = load(tmp_path / "pets")
    assert_holds(data.train, range(4), [2, 0, 1, 2])


@pytest.mark.parametrize("kind", [pa.float16(), pa.float32(), pa.float64()], ids=str)
@pytest.mark.parametrize("ending", [".parquet", ".arrow"])
def test_whole_floats_are_classes_and_fractions_are_not(tmp_path: Path, kind: pa.DataType, ending: str):
    def floats(*values: float) -> pa.Array:
        return pa.array(np.array(values, dtype=kind.to_pandas_dtype()))

    data = load(write(tmp_path / f"pets{ending}", plain(floats(0, 2, 1, 2))))
    assert data.class_names == ("0", "1", "2")
    assert_holds(data.train, range(4), [0, 2, 1, 2])
    assert_refused(write(tmp_path / f"half{ending}", plain(floats(0, 2, 0.5, 2))), "0.5", "image 2")
    assert_refused(write(tmp_path / f"endless{ending}", plain(floats(0, 2, np.inf, 2))), "image 2")


def test_booleans_are_classes(tmp_path: Path):
    data = load(write(tmp_path / "pets.parquet", plain([True, False, True])))
    assert data.class_names == ("False", "True")
    assert_holds(data.train, range(3), [1, 0, 1])


@pytest.mark.parametrize(
    "labels",
    [
        pa.array([[0], [1]]),
        pa.array([{"a": 0}, {"a": 1}]),
        pa.array([0, 1], pa.timestamp("s")),
        pa.array([0, 1], pa.date32()),
        pa.array([0, 1], pa.decimal128(3, 0)),
        pa.array([b"a", b"b"]),
    ],
    ids=lambda labels: str(labels.type),
)
def test_a_refused_column_is_named_with_its_type(tmp_path: Path, labels: pa.Array):
    write(tmp_path / "pets.parquet", plain(labels))
    kind = str(pq.read_schema(tmp_path / "pets.parquet").field("label").type)
    assert_refused(tmp_path / "pets.parquet", "label", kind)
    assert_refused(tmp_path / "pets.parquet", "label", kind, label_column="label")


@pytest.mark.parametrize(
    "labels",
    [
        pa.array([0, -1, 1, None]),
        pa.array([0.0, -1.0, 1.0, None]),
        pa.array([0.0, float("nan"), 1.0, None]),
        pa.array(["0", None, "1", ""]),
        pa.array([0, None, 1, None], pa.uint8()),
        pa.array(["0", None, "1", None]).dictionary_encode(),
        pa.array([False, None, True, None]),
    ],
    ids=str,
)
@pytest.mark.parametrize("ending", [".parquet", ".arrow"])
def test_missing_labels_are_counted_and_the_option_is_named(tmp_path: Path, labels: pa.Array, ending: str):
    file = write(tmp_path / f"pets{ending}", plain(labels))
    assert_refused(file, "2 of the 4 images", "--skip_unlabelled")
    data = load(file, skip_unlabelled=True)
    assert_holds(data.train, [0, 2], [0, 1])
    assert_said(data, "2 images")


def test_missing_labels_of_named_classes_are_counted(tmp_path: Path):
    file = write(tmp_path / "pets.parquet", hub(range(4), [0, -1, None, 2]))
    assert_refused(file, "2 of the 4 images", "--skip_unlabelled")
    assert_holds(load(file, skip_unlabelled=True).train, [0, 3], [0, 2])


@pytest.mark.parametrize("label", [3, 100, -2])
def test_a_label_beyond_the_class_names_is_refused(tmp_path: Path, label: int):
    assert_refused(write(tmp_path / "pets.parquet", hub(range(4), [0, 1, label, 2])), str(label), "image 2")


def test_no_labels_at_all_are_refused(tmp_path: Path):
    assert_refused(write(tmp_path / "pets.parquet", plain(pa.nulls(4))), "4 of the 4", "label")
    assert_refused(tmp_path / "pets.parquet", "label", skip_unlabelled=True)
    assert_refused(write(tmp_path / "bare.parquet", pa.table({"image": structs(range(4))})), "no label column")


UNLABELLED = {
    "of -1": pa.array([-1, -1]),
    "of nulls": pa.array([None, None], pa.int64()),
    "of no type": pa.nulls(2),
    "of -1.0": pa.array([-1.0, -1.0]),
    "of NaN": pa.array([float("nan")] * 2),
    "of empty texts": pa.array(["", ""]),
}


@pytest.mark.parametrize("kind", [*UNLABELLED, "without the column"])
def test_a_test_set_without_labels_is_no_test_set_and_a_note_says_so(tmp_path: Path, kind: str):
    table = plain(UNLABELLED[kind], [8, 9]) if kind in UNLABELLED else pa.table({"image": structs([8, 9])})
    write(tmp_path / "pets/train.parquet", hub(range(8), LABELS))
    write(tmp_path / "pets/test.parquet", table)
    data = load(tmp_path / "pets")
    assert data.test is None
    assert_said(data, "2 images", "'test'", "no labels")
    assert "no test set" in data.described()[-1]
    write(tmp_path / "pets/validation.parquet", hub([10, 11, 12], [0, 1, 2]))
    data = load(tmp_path / "pets")
    assert_holds(data.test, [10, 11, 12], [0, 1, 2])
    assert_said(data, "'val'")


def test_a_test_set_with_some_labels_is_an_error_that_counts(tmp_path: Path):
    write(tmp_path / "pets/train.parquet", hub(range(8), LABELS))
    write(tmp_path / "pets/test.parquet", hub([8, 9, 10], [-1, 2, -1]))
    assert_refused(tmp_path / "pets", "2 of the 3 images", "test", "--skip_unlabelled")
    assert_holds(load(tmp_path / "pets", skip_unlabelled=True).test, [9], [2])


# Class names in other orders


def test_class_names_of_the_test_set_are_matched_by_name(tmp_path: Path):
    write(tmp_path / "pets/train.parquet", hub(range(8), LABELS))
    write(tmp_path / "pets/test.parquet", hub([8, 9, 10], [0, 1, 2], ("dog", "ant", "cat")))
    data = load(tmp_path / "pets")
    assert data.class_names == NAMES
    assert_holds(data.test, [8, 9, 10], [2, 0, 1])


@pytest.mark.parametrize("ending", [".parquet", ".arrow"])
def test_class_names_of_another_shard_are_matched_by_name(tmp_path: Path, ending: str):
    write(tmp_path / f"pets/train-00000-of-00002{ending}", hub([0, 1, 2], [0, 1, 2]))
    write(tmp_path / f"pets/train-00001-of-00002{ending}", hub([3, 4, 5, 6], [0, 1, 2, -1], ("dog", "ant", "cat")))
    data = load(tmp_path / "pets", skip_unlabelled=True)
    assert data.class_names == NAMES
    assert_holds(data.train, range(6), [0, 1, 2, 2, 0, 1])


def test_a_label_beyond_its_own_shards_names_is_no_class_of_another_shard(tmp_path: Path):
    write(tmp_path / "pets/train-00000-of-00002.parquet", hub([0, 1], [0, 1], ("ant", "cat")))
    write(tmp_path / "pets/train-00001-of-00002.parquet", hub([2, 3, 4], [0, 1, 2], ("dog", "emu")))
    assert_refused(tmp_path / "pets", "2")


def test_text_in_the_test_set_is_matched_with_class_names(tmp_path: Path):
    write(tmp_path / "pets/train.parquet", hub(range(8), LABELS))
    write(tmp_path / "pets/test.parquet", plain(pa.array(["dog", "ant"]), [8, 9]))
    assert_holds(load(tmp_path / "pets").test, [8, 9], [2, 0])


def test_a_class_of_the_test_set_alone_is_named(tmp_path: Path):
    write(tmp_path / "pets/train.parquet", hub(range(8), LABELS))
    write(tmp_path / "pets/test.parquet", hub([8, 9], [0, 1], ("ant", "emu")))
    assert_refused(tmp_path / "pets", "emu", "test")


# Columns


def test_columns_called_label_and_image_win_and_a_note_says_so(tmp_path: Path):
    table = pa.table(
        {
            "id": list(range(8)),
            "thumb": structs(range(8, 16)),
            "image": structs(range(8)),
            "label": LABELS,
            "other": LABELS[::-1],
        }
    )
    data = load(write(tmp_path / "pets.parquet", table))
    assert_holds(data.train, range(8), LABELS)
    assert_said(data, "'image'", "--image_column", "thumb")
    assert_said(data, "'label'", "--label_column", "other")
    chosen = load(tmp_path / "pets.parquet", image_column="thumb", label_column="other")
    assert_holds(chosen.train, range(8, 16), LABELS[::-1])


def test_label_wins_over_a_column_with_class_names(tmp_path: Path):
    table = pa.table({"image": structs(range(8)), "label": LABELS, "season": LABELS[::-1]})
    features = {"image": {"_type": "Image"}, "season": {"names": ["a", "b", "c"], "_type": "ClassLabel"}}
    data = load(write(tmp_path / "pets.parquet", described(table, features)))
    assert_holds(data.train, range(8), LABELS)
    assert_said(data, "'label'", "--label_column", "season")


def test_image_wins_over_a_struct_when_it_is_bytes(tmp_path: Path):
    table = pa.table({"mask": structs(range(8, 16)), "image": [png(PIXELS[row]) for row in range(8)], "label": LABELS})
    data = load(write(tmp_path / "pets.parquet", table))
    assert_holds(data.train, range(8), LABELS)
    assert_said(data, "'image'", "--image_column", "mask")


def test_columns_of_which_none_wins_are_refused_with_their_types(tmp_path: Path):
    table = pa.table({"image": structs(range(8)), "kind": LABELS, "season": pa.array(LABELS, pa.uint8())})
    assert_refused(write(tmp_path / "labels.parquet", table), "--label_column", "kind (int64)", "season (uint8)")
    table = pa.table({"left": structs(range(8)), "right": structs(range(8)), "label": LABELS})
    assert_refused(write(tmp_path / "images.parquet", table), "--image_column", "left", "right", "struct")
    table = pa.table({"image": [[0.5, 1.0]] * 8, "label": LABELS})
    assert_refused(write(tmp_path / "none.parquet", table), "no image column", "image (list<element: double>)")


@pytest.mark.parametrize("ending", [".parquet", ".arrow"])
@pytest.mark.parametrize("name", ["image", "label"])
def test_two_columns_of_one_name_are_refused(tmp_path: Path, name: str, ending: str):
    columns = {"image": structs(range(8)), "label": pa.array(LABELS)}
    table = pa.Table.from_arrays([*columns.values(), columns[name]], names=[*columns, name])
    assert_refused(write(tmp_path / f"pets{ending}", table), f"pets{ending}")


@pytest.mark.parametrize("option", ["image_column", "label_column"])
def test_a_chosen_column_that_does_not_exist_is_refused(tmp_path: Path, option: str):
    table = pa.table({"image": structs(range(8)), "label": LABELS, "box": [[1]] * 8})
    file = write(tmp_path / "pets.parquet", table)
    assert_refused(file, "absent", "box", **{option: "absent"})
    assert_refused(file, "box", "list", **{option: "box"})


def test_features_of_lists_as_older_versions_wrote_them_are_passed_over(tmp_path: Path):
    """`datasets` wrote a list's feature as a list of one."""
    table = plain(LABELS).append_column("boxes", pa.array([[1]] * 8))
    features = {
        "image": {"_type": "Image"},
        "label": {"names": list(NAMES), "_type": "ClassLabel"},
        "boxes": [{"dtype": "int64", "_type": "Value"}],
    }
    data = load(write(tmp_path / "pets.parquet", described(table, features)))
    assert data.class_names == NAMES
    assert_holds(data.train, range(8), LABELS)
    assert_refused(tmp_path / "pets.parquet", "boxes", label_column="boxes")


@pytest.mark.parametrize(
    "features", [None, 3, [], "image", {"label": None}, {"label": 3}, {"label": []}, {"label": {"names": 3}}, {"a": {}}]
)
def test_odd_metadata_is_ignored(tmp_path: Path, features: Any):
    assert_holds(load(write(tmp_path / "pets.parquet", described(plain(LABELS), features))).train, range(8), LABELS)


def test_the_metadata_of_pandas_is_ignored(tmp_path: Path):
    import pandas as pd

    frame = pd.DataFrame({"image": [{"bytes": png(PIXELS[row]), "path": None} for row in range(8)], "label": LABELS})
    frame = frame.sample(frac=1, random_state=0)
    frame.to_parquet(tmp_path / "pets.parquet")
    data = load(tmp_path / "pets.parquet", label_column="label")
    assert_holds(data.train, frame.index, frame["label"])


# Splits by the names of files


@pytest.mark.parametrize(
    "names",
    [
        ("train.parquet", "test.parquet"),
        ("train-00000-of-00001.parquet", "test-00000-of-00001.parquet"),
        ("data/train-00000-of-00001-0123456789abcdef.parquet", "data/test-00000-of-00001-0123456789abcdef.parquet"),
        ("train/0000.parquet", "test/0000.parquet"),
        ("data/train/0.parquet", "data/test/0.parquet"),
        ("plain_text/train-00000-of-00001.parquet", "plain_text/test-00000-of-00001.parquet"),
        ("default/train/0000.parquet", "default/test/0000.parquet"),
        ("pets_Train.parquet", "pets_TEST.parquet"),
        ("my.training.arrow", "my.testing.arrow"),
    ],
    ids=str,
)
def test_the_split_is_in_a_files_name_or_in_its_folders(tmp_path: Path, names: tuple[str, str]):
    write(tmp_path / "pets" / names[0], hub(range(8), LABELS))
    write(tmp_path / "pets" / names[1], hub([8, 9], [2, 1]))
    data = load(tmp_path / "pets")
    assert_holds(data.train, range(8), LABELS)
    assert_holds(data.test, [8, 9], [2, 1])


@pytest.mark.parametrize("names", [("train0.parquet", "test0.parquet"), ("train1.parquet", "test1.parquet")])
def test_test_images_are_never_training_images_for_a_number_in_the_name(tmp_path: Path, names: tuple[str, str]):
    write(tmp_path / "pets" / names[0], hub(range(8), LABELS))
    write(tmp_path / "pets" / names[1], hub([8, 9], [2, 1]))
    outcome = attempt(tmp_path / "pets")
    if isinstance(outcome, ImageData):
        assert_holds(outcome.train, range(8), LABELS)
        assert_holds(outcome.test, [8, 9], [2, 1])


def test_files_without_a_split_beside_others_are_refused(tmp_path: Path):
    write(tmp_path / "pets/train.parquet", hub(range(8), LABELS))
    write(tmp_path / "pets/more.parquet", hub([8, 9], [2, 1]))
    assert_refused(tmp_path / "pets", "more.parquet")


def test_a_name_of_two_splits_is_refused(tmp_path: Path):
    write(tmp_path / "pets/train-test.parquet", hub(range(8), LABELS))
    assert_refused(tmp_path / "pets", "train-test")


def test_a_missing_shard_is_refused(tmp_path: Path):
    """An interrupted download leaves files like these."""
    write(tmp_path / "pets/train-00000-of-00002.parquet", hub(range(8), LABELS))
    assert_refused(tmp_path / "pets", "00001")


def test_validation_files_beside_a_test_set_are_not_used_and_a_note_says_so(tmp_path: Path):
    for name, rows in (("train", [0, 1, 2]), ("test", [3, 4]), ("validation", [5, 6, 7])):
        write(tmp_path / f"pets/{name}.parquet", hub(rows, [row % 3 for row in rows]))
    data = load(tmp_path / "pets")
    assert_holds(data.test, [3, 4], [0, 1])
    assert_said(data, "3 images", "'val'")


def configurations(folder: Path) -> None:
    for offset, name in ((0, "big"), (8, "small")):
        write(folder / name / "train-00000-of-00001.parquet", hub(range(offset, offset + 3), [0, 1, 2]))
        write(folder / name / "test-00000-of-00001.parquet", hub([offset + 3], [1]))


def test_folders_of_configurations_are_chosen_by_name(tmp_path: Path):
    configurations(tmp_path / "pets")
    assert_refused(tmp_path / "pets", "big, small", ":big")
    assert_refused(f"{tmp_path}/pets:middle", "'middle'", "big, small")
    for name, first in (("big", 0), ("small", 8)):
        data = load(f"{tmp_path}/pets:{name}")
        assert_holds(data.train, range(first, first + 3), [0, 1, 2])
        assert_holds(data.test, [first + 3], [1])
        assert name in data.name
        assert_said(data, "2 files")


# README.md as on the Hub


def readme(folder: Path, text: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "README.md").write_text(f"---\n{text}\n---\n# Pets\n", encoding="utf-8")


SPLIT = "configs:\n- config_name: default\n  data_files:\n  - split: train\n    path: {}\n  - split: test\n    path: {}"


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("a.parquet", "b.parquet"),
        ("inner/c*.parquet", "b.parquet"),
        ("['inner/c1.parquet', 'inner/c2.parquet']", "[b.parquet]"),
        ("'**/c?.parquet'", "'b.*'"),
        ("inner/**", "b.parquet"),
        ("'inner/c**'", "b.parquet"),
    ],
)
def test_a_readme_says_which_file_is_which_split(tmp_path: Path, train: str, test: str):
    write(tmp_path / "pets/a.parquet", hub(range(8), LABELS))
    write(tmp_path / "pets/inner/c1.parquet", hub(range(4), LABELS[:4]))
    write(tmp_path / "pets/inner/c2.parquet", hub(range(4, 8), LABELS[4:]))
    write(tmp_path / "pets/b.parquet", hub([9, 8], [1, 0]))
    readme(tmp_path / "pets", SPLIT.format(train, test))
    data = load(tmp_path / "pets")
    assert_holds(data.train, range(8), LABELS)
    assert_holds(data.test, [9, 8], [1, 0])


def test_a_readme_that_was_changed_is_read_again(tmp_path: Path):
    write(tmp_path / "pets/a.parquet", hub([0, 1, 2], [0, 1, 2]))
    write(tmp_path / "pets/b.parquet", hub([3, 4, 5], [2, 1, 0]))
    readme(tmp_path / "pets", SPLIT.format("a.parquet", "b.parquet"))
    assert_holds(load(tmp_path / "pets").train, [0, 1, 2], [0, 1, 2])
    readme(tmp_path / "pets", SPLIT.format("b.parquet", "a.parquet"))
    data = load(tmp_path / "pets")
    assert_holds(data.train, [3, 4, 5], [2, 1, 0])
    assert_holds(data.test, [0, 1, 2], [0, 1, 2])


def test_configurations_of_a_readme_are_chosen_by_name(tmp_path: Path):
    write(tmp_path / "pets/a.parquet", hub([0, 1, 2], [0, 1, 2]))
    write(tmp_path / "pets/b.parquet", hub([3, 4, 5], [2, 1, 0]))
    one = "- config_name: {0}\n  data_files:\n  - split: train\n    path: {1}.parquet"
    readme(tmp_path / "pets", "configs:\n" + one.format("first", "a") + "\n" + one.format("second", "b"))
    assert_refused(tmp_path / "pets", "first, second")
    assert_refused(f"{tmp_path}/pets:third", "'third'", "first, second")
    assert_holds(load(f"{tmp_path}/pets:first").train, [0, 1, 2], [0, 1, 2])
    assert_holds(load(f"{tmp_path}/pets:second").train, [3, 4, 5], [2, 1, 0])
    marked = one.format("second", "b").replace("  data", "  default: true\n  data", 1)
    readme(tmp_path / "pets", "configs:\n" + one.format("first", "a") + "\n" + marked)
    assert_holds(load(tmp_path / "pets").train, [3, 4, 5], [2, 1, 0])


@pytest.mark.parametrize(
    "files",
    ["data_files: a.parquet", "data_files: [a.parquet]", "data_dir: inner"],
)
def test_files_without_a_split_are_training_images_as_on_the_hub(tmp_path: Path, files: str):
    for name in ("a", "inner/a"):
        write(tmp_path / f"pets/{name}.parquet", hub([0, 1, 2], [0, 1, 2]))
    write(tmp_path / "pets/b.parquet", hub([3, 4, 5], [2, 1, 0]))
    other = "\n- config_name: second\n  data_files: b.parquet"
    readme(tmp_path / "pets", f"configs:\n- config_name: first\n  {files}{other}")
    assert_holds(load(f"{tmp_path}/pets:first").train, [0, 1, 2], [0, 1, 2])


@pytest.mark.parametrize("path", ["../other/secret.parquet", "{root}/other/secret.parquet", "a/../../other/*"])
def test_a_readme_leads_to_no_other_folder(tmp_path: Path, path: str):
    write(tmp_path / "other/secret.parquet", hub(range(8), LABELS))
    write(tmp_path / "pets/a.parquet", hub([8, 9], [0, 1]))
    readme(tmp_path / "pets", SPLIT.format(path.format(root=tmp_path), "a.parquet"))
    assert_refused(tmp_path / "pets", "README.md")


@pytest.mark.parametrize(
    "text",
    [
        "configs: 5",
        "configs: text",
        "configs: {a: 1}",
        "configs: [5, text]",
        "configs: [{config_name: [1], data_files: 5}]",
        SPLIT.format("5", "a.parquet"),
        SPLIT.format("''", "a.parquet"),
        SPLIT.format("null", "a.parquet"),
        SPLIT.format("[[a]]", "a.parquet"),
        SPLIT.format("'a[**'", "a.parquet"),
        SPLIT.format('"a\\0b"', "a.parquet"),
        "date: 2024-13-45",
        "a: !!python/object/apply:os.system ['touch called']",
        "a: &a [*a]",
        "a: '",
        "{" * 5000,
        "[" * 5000,
        "text alone",
        "",
    ],
    ids=lambda text: repr(text[:60]),
)
def test_an_odd_readme_is_passed_over_or_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "pets/train.parquet", hub(range(8), LABELS))
    readme(tmp_path / "pets", text)
    outcome = attempt(tmp_path / "pets")
    if isinstance(outcome, str):
        assert str(tmp_path / "pets") in outcome
    else:
        assert_holds(outcome.train, range(8), LABELS)
    assert not (tmp_path / "called").exists()


# `save_to_disk`


def saved(folder: Path, splits: dict[str, pa.Table] | pa.Table, **options: Any) -> Path:
    import datasets

    def dataset(table: pa.Table) -> datasets.Dataset:
        features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=list(NAMES)))
        return datasets.Dataset(table.replace_schema_metadata(None).cast(features.arrow_schema))

    if isinstance(splits, pa.Table):
        dataset(splits).save_to_disk(folder, **options)
    else:
        datasets.DatasetDict({name: dataset(table) for name, table in splits.items()}).save_to_disk(folder, **options)
    return folder


def test_a_saved_dataset_is_a_training_set(tmp_path: Path):
    saved(tmp_path / "pets", hub(range(8), LABELS), num_shards=3)
    data = load(tmp_path / "pets")
    assert (data.class_names, data.test) == (NAMES, None)
    assert_holds(data.train, range(8), LABELS)


def test_a_saved_dataset_dict_has_its_splits(tmp_path: Path):
    saved(tmp_path / "pets", {"train": hub(range(8), LABELS), "test": hub([9, 8], [2, 0])})
    data = load(tmp_path / "pets")
    assert_holds(data.train, range(8), LABELS)
    assert_holds(data.test, [9, 8], [2, 0])


def test_a_selection_that_was_saved_keeps_its_order_and_labels(tmp_path: Path):
    import datasets

    saved(tmp_path / "all", hub(range(8), [0, -1, 2, 1, -1, 0, 1, 2]))
    datasets.load_from_disk(tmp_path / "all").select([7, 1, 5, 0]).save_to_disk(tmp_path / "some")
    assert_holds(load(tmp_path / "some", skip_unlabelled=True).train, [7, 5, 0], [2, 0, 0])


def test_a_dataset_saved_in_another_format_is_read(tmp_path: Path):
    import datasets

    saved(tmp_path / "all", hub(range(8), LABELS))
    datasets.load_from_disk(tmp_path / "all").with_format("numpy").save_to_disk(tmp_path / "formatted")
    assert_holds(load(tmp_path / "formatted").train, range(8), LABELS)


def test_an_unused_split_is_reported(tmp_path: Path):
    saved(tmp_path / "pets", {"train": hub([0, 1, 2], [0, 1, 2]), "extra": hub([3, 4], [0, 1])})
    assert_said(load(tmp_path / "pets"), "extra")


def test_two_splits_of_one_meaning_are_refused(tmp_path: Path):
    """Two folders of one split are an error too."""
    saved(tmp_path / "pets", {"train": hub([0, 1, 2], [0, 1, 2]), "training": hub([3, 4], [0, 1])})
    assert_refused(tmp_path / "pets", "training")


@pytest.mark.parametrize("name", ["../other/data.arrow", "{root}/other/data.arrow", "", ".", "..", 5, None, "absent"])
def test_a_state_leads_to_no_other_folder(tmp_path: Path, name: Any):
    saved(tmp_path / "pets", hub(range(8), LABELS))
    write(tmp_path / "other/data.arrow", hub(range(8), LABELS))
    state = json.loads((tmp_path / "pets/state.json").read_text())
    name = name.format(root=tmp_path) if isinstance(name, str) else name
    for key in ("_data_files", "_indices_data_files"):
        changed = {**state, key: [{"filename": name}]}
        (tmp_path / "pets/state.json").write_text(json.dumps(changed))
        assert_refused(tmp_path / "pets")


@pytest.mark.parametrize("splits", [["../other", "train"], ["train", "test"], 5, [5], {"train": 1}, "train"])
def test_a_dict_of_datasets_leads_to_no_other_folder(tmp_path: Path, splits: Any):
    saved(tmp_path / "pets", {"train": hub([0, 1, 2], [0, 1, 2])})
    saved(tmp_path / "other", hub([3, 4, 5], [0, 1, 2]))
    (tmp_path / "pets/dataset_dict.json").write_text(json.dumps({"splits": splits}))
    outcome = attempt(tmp_path / "pets")
    if isinstance(outcome, str):
        assert "pets" in outcome
    else:
        assert_holds(outcome.train, [0, 1, 2], [0, 1, 2])
        assert outcome.test is None


@pytest.mark.parametrize("name", ["state.json", "dataset_info.json", "dataset_dict.json"])
@pytest.mark.parametrize("content", ["", "{", "[]", "5", "{}", '{"_data_files": 5}', '{"_data_files": [5]}'])
def test_damaged_json_is_reported(tmp_path: Path, name: str, content: str):
    saved(tmp_path / "pets", {"train": hub([0, 1, 2], [0, 1, 2])})
    folder = tmp_path / "pets" if name == "dataset_dict.json" else tmp_path / "pets/train"
    (folder / name).write_text(content)
    outcome = attempt(tmp_path / "pets")
    if isinstance(outcome, str):
        assert "pets" in outcome
    else:
        assert_holds(outcome.train, [0, 1, 2], [0, 1, 2])


def test_a_cut_file_of_a_saved_dataset_is_named(tmp_path: Path):
    saved(tmp_path / "pets", hub(range(8), LABELS))
    file = tmp_path / "pets/data-00000-of-00001.arrow"
    file.write_bytes(file.read_bytes()[:700])
    assert_refused(tmp_path / "pets", "pets")


# The Hub's own cache


def snapshot(home: Path, revision: str, files: dict[str, pa.Table], main: bool = True) -> Path:
    """Writes files as `huggingface_hub` keeps them: links to blobs, and the revision of `main`."""
    repository = home / "hub/datasets--someone--pets"
    folder = repository / "snapshots" / revision
    for index, (name, table) in enumerate(files.items()):
        blob = write(repository / f"blobs/{revision}{index}.parquet", table)
        blob = blob.rename(blob.with_suffix(""))
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).symlink_to(os.path.relpath(blob, (folder / name).parent))
    if main:
        (repository / "refs").mkdir(exist_ok=True)
        (repository / "refs/main").write_text(revision)
    return folder


def offline(home: Path, dataset: str) -> Any:
    told = elsewhere(dataset, HF_HOME=str(home), HF_HUB_OFFLINE="1")
    assert not told.startswith("refused"), told
    return json.loads(told)


def corners(rows: Any) -> list[list[int]]:
    return PIXELS[list(rows), 0, 0].tolist()


def test_the_hubs_own_cache_is_read_offline(tmp_path: Path):
    files = {
        "data/train-00000-of-00002.parquet": hub(range(4), LABELS[:4]),
        "data/train-00001-of-00002.parquet": hub(range(4, 8), LABELS[4:]),
        "data/test-00000-of-00001.parquet": hub([9, 8], [1, 0]),
    }
    snapshot(tmp_path / "hf", "a" * 40, files)
    names, labels, pixels, test = offline(tmp_path / "hf", "someone/pets")
    assert (tuple(names), labels, test) == (NAMES, LABELS, [1, 0])
    assert pixels == corners(range(8))


def test_a_configuration_of_the_hubs_own_cache_is_chosen(tmp_path: Path):
    files = {
        "big/train-00000-of-00001.parquet": hub([0, 1, 2], [0, 1, 2]),
        "small/train-00000-of-00001.parquet": hub([3, 4], [2, 0]),
    }
    snapshot(tmp_path / "hf", "a" * 40, files)
    assert offline(tmp_path / "hf", "someone/pets:small")[1:3] == [[2, 0], corners([3, 4])]
    told = elsewhere("someone/pets", HF_HOME=str(tmp_path / "hf"), HF_HUB_OFFLINE="1")
    assert told.startswith("refused")
    assert "big, small" in told


def test_the_revision_that_main_means_is_read(tmp_path: Path):
    """Another revision may have been downloaded later."""
    snapshot(tmp_path / "hf", "b" * 40, {"train.parquet": hub([0, 1, 2], [0, 1, 2])})
    other = snapshot(tmp_path / "hf", "a" * 40, {"train.parquet": hub([3, 4, 5], [2, 1, 0])}, main=False)
    os.utime(other, (4e9, 4e9))
    assert offline(tmp_path / "hf", "someone/pets")[1:3] == [[0, 1, 2], corners([0, 1, 2])]


def test_data_missing_from_the_hubs_own_cache_is_reported(tmp_path: Path):
    told = elsewhere("someone/pets", HF_HOME=str(tmp_path / "hf"), HF_HUB_OFFLINE="1")
    assert told.startswith("refused: someone/pets: the Hub is out of reach")


# The options are those of `ReadOptions`


def test_other_columns_are_other_data_in_the_cache(tmp_path: Path):
    table = pa.table({"image": structs(range(8)), "label": LABELS, "other": LABELS[::-1]})
    file = write(tmp_path / "pets.parquet", table)
    assert_holds(load(file).train, range(8), LABELS)
    assert_holds(load(file, label_column="other").train, range(8), LABELS[::-1])
    assert_holds(load(file).train, range(8), LABELS)


def test_a_copy_of_the_files_counts_as_the_same_data(tmp_path: Path):
    write(tmp_path / "pets/train.parquet", hub(range(8), LABELS))
    shutil.copytree(tmp_path / "pets", tmp_path / "other/pets")
    ours, copy = load(tmp_path / "pets"), load(tmp_path / "other/pets")
    assert dataclasses.astuple(ours)[:3] == dataclasses.astuple(copy)[:3]
