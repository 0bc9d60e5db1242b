import contextlib
import hashlib
import http.server
import json
import os
import socket
import socketserver
import struct
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rethinking.data import sources
from rethinking.data.readers import digits
from rethinking.errors import InputError, RunError
from tests.conftest import shared


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RETHINKING_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def save_image(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def class_folders(root: Path, size: int = 30, splits: tuple[str, ...] = ("train", "test")) -> dict[str, np.ndarray]:
    """Writes two class folders of three random RGB images a split; returns the pixels by relative path."""
    draws = np.random.default_rng(0)
    pixels = {}
    for split in splits:
        for name in ("cat", "dog"):
            for index in range(3):
                relative = f"{split}/{name}/{index}.png"
                pixels[relative] = draws.integers(0, 256, (size, size, 3), dtype=np.uint8)
                save_image(root / relative, pixels[relative])
    return pixels


def run_python(code: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_digits_are_split_by_class_and_enlarged_to_28():
    loaded = sources.load("digits")
    assert loaded.test is not None
    assert loaded.train.images.shape == (1442, 1, 28, 28)
    assert loaded.test.images.shape == (355, 1, 28, 28)
    assert loaded.train.images.dtype == np.uint8
    assert loaded.train.labels.dtype == np.int64
    per_class = np.bincount(loaded.train.labels) / (np.bincount(loaded.train.labels) + np.bincount(loaded.test.labels))
    assert np.abs(per_class - 0.8).max() < 0.01


def test_digits_are_the_same_where_the_library_keeps_its_file_elsewhere(monkeypatch: pytest.MonkeyPatch):
    from sklearn.datasets import load_digits

    pixels, labels = digits._stored()
    monkeypatch.setattr(digits, "find_spec", lambda name: None)
    for stored in (digits._stored(), (load_digits().images, load_digits().target)):
        np.testing.assert_array_equal(pixels, stored[0])
        np.testing.assert_array_equal(labels, stored[1])


def test_digits_are_scikit_learns_digits_interpolated():
    """Compares with SciPy's linear zoom on the same half-pixel grid."""
    from scipy.ndimage import zoom
    from sklearn.datasets import load_digits

    expected = zoom(load_digits().images[0] * (255 / 16), 3.5, order=1, mode="nearest", grid_mode=True)
    ours = sources.load("digits").train.images[0, 0]
    assert np.abs(ours - expected).max() <= 0.5 + 1e-6


def test_mnist_is_bit_for_bit_the_original():
    mnist = sources.load(str(shared("mnist")))
    assert mnist.test is not None
    for split, md5 in (
        (mnist.train, "6bbc9ace898e44ae57da46a324031adb"),
        (mnist.test, "2646ac647ad5339dbf082846283269ea"),
    ):
        header = struct.pack(">IIII", 2051, len(split), 28, 28)
        assert hashlib.md5(header + split.images.tobytes()).hexdigest() == md5


def test_the_first_cifar10_images_are_the_original_bytes_and_have_no_test_split():
    data = sources.load(str(shared("cifar10_first4000")))
    assert data.name == "cifar10_first4000"
    assert data.test is None
    assert data.train.images[0, :, 0, 0].tolist() == [59, 62, 63]
    assert data.class_names[data.train.labels[0]] == "frog"


def test_a_named_data_set_comes_from_data_root(real_root: Path):
    data = sources.load("cifar10", real_root)
    assert data.test is not None
    assert (data.image_shape, len(data.train), len(data.test)) == ((3, 32, 32), 300, 100)
    assert data.origin == str(real_root / "cifar10")


def test_class_subfolders_become_classes(tmp_path: Path):
    pixels = class_folders(tmp_path / "pets")
    data = sources.load(str(tmp_path / "pets"))
    assert data.test is not None
    assert (data.name, data.class_names) == ("pets", ("cat", "dog"))
    assert data.train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    expected = [pixels[f"test/{name}/{index}.png"].transpose(2, 0, 1) for name in ("cat", "dog") for index in range(3)]
    assert np.array_equal(data.test.images, np.stack(expected))


def test_cifar100_takes_the_fine_labels(tmp_path: Path):
    import datasets

    rows = {
        "img": [Image.fromarray(np.full((32, 32, 3), value, dtype=np.uint8)) for value in (1, 2, 3)],
        "fine_label": [2, 0, 1],
        "coarse_label": [0, 0, 1],
    }
    features = datasets.Features(
        img=datasets.Image(),
        fine_label=datasets.ClassLabel(names=["a", "b", "c"]),
        coarse_label=datasets.ClassLabel(names=["x", "y"]),
    )
    (tmp_path / "root" / "cifar100").mkdir(parents=True)
    for split in ("train", "test"):
        datasets.Dataset.from_dict(rows, features).to_parquet(str(tmp_path / f"root/cifar100/{split}.parquet"))
    data = sources.load("cifar100", tmp_path / "root")
    assert data.train.labels.tolist() == [2, 0, 1]
    assert data.class_names == ("a", "b", "c")


def test_string_labels_are_sorted_into_classes(tmp_path: Path):
    import datasets

    image = Image.fromarray(np.zeros((28, 28), dtype=np.uint8))
    features = datasets.Features(image=datasets.Image(), kind=datasets.Value("string"))
    (tmp_path / "letters").mkdir()
    for split, kinds in (("train", ["b", "a", "b"]), ("test", ["a"])):
        rows = datasets.Dataset.from_dict({"image": [image] * len(kinds), "kind": kinds}, features)
        rows.to_parquet(str(tmp_path / f"letters/{split}.parquet"))
    data = sources.load(str(tmp_path / "letters"))
    assert data.class_names == ("a", "b")
    assert data.train.labels.tolist() == [1, 0, 1]


def test_a_test_label_without_training_images_is_an_error(tmp_path: Path):
    import datasets

    image = Image.fromarray(np.zeros((28, 28), dtype=np.uint8))
    features = datasets.Features(image=datasets.Image(), kind=datasets.Value("string"))
    (tmp_path / "letters").mkdir()
    for split, kinds in (("train", ["a", "b"]), ("test", ["c"])):
        rows = datasets.Dataset.from_dict({"image": [image] * len(kinds), "kind": kinds}, features)
        rows.to_parquet(str(tmp_path / f"letters/{split}.parquet"))
    with pytest.raises(InputError, match="the class 'c' of the split 'test' is not among the training classes: a, b"):
        sources.load(str(tmp_path / "letters"))


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (np.zeros((31, 30, 3), dtype=np.uint8), r"odd\.png is 30x31 RGB, but .*0\.png is 30x30 RGB"),
        (np.zeros((30, 30), dtype=np.uint8), r"odd\.png is 30x30 grey, but .*0\.png is 30x30 RGB"),
        (np.zeros((30, 30, 4), dtype=np.uint8), r"odd\.png has mode RGBA"),
    ],
)
def test_mixed_sizes_and_modes_name_the_file(tmp_path: Path, own_cache: Path, pixels, message):
    class_folders(tmp_path / "pets")
    save_image(tmp_path / "pets/train/dog/odd.png", pixels)
    with pytest.raises(InputError, match=message):
        sources.load(str(tmp_path / "pets"))
    assert not any(path.is_dir() for path in own_cache.iterdir()), "a half-built cache entry stayed behind"


def test_an_image_that_cannot_be_decoded_is_named(tmp_path: Path):
    class_folders(tmp_path / "pets")
    (tmp_path / "pets/train/cat/1.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"cannot decode .*train/cat/1\.png"):
        sources.load(str(tmp_path / "pets"))


def test_a_folder_without_images_is_refused(tmp_path: Path):
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts/train.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match=r"cannot read .*texts as a data set: it has neither image files"):
        sources.load(str(tmp_path / "texts"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"cannot read .*empty as a data set"):
        sources.load(str(tmp_path / "empty"))


@pytest.mark.parametrize(
    ("dataset", "data_root", "message"),
    [
        ("cifra10", None, "did you mean 'cifar10'"),
        ("./nowhere", None, "path of an existing folder"),
        ("cifar10", "nowhere", "data_root nowhere is no folder"),
    ],
)
def test_unknown_names_and_paths_are_refused(dataset, data_root, message):
    with pytest.raises(InputError, match=message):
        sources.load(dataset, data_root)


def test_an_edited_folder_is_decoded_again(tmp_path: Path):
    class_folders(tmp_path / "pets")
    before = sources.load(str(tmp_path / "pets"))
    save_image(tmp_path / "pets/train/cat/9.png", np.zeros((30, 30, 3), dtype=np.uint8))
    after = sources.load(str(tmp_path / "pets"))
    assert (len(before.train), len(after.train)) == (6, 7)
    assert before.fingerprint != after.fingerprint


def test_the_fingerprint_does_not_depend_on_where_the_folder_lies(tmp_path: Path):
    class_folders(tmp_path / "a/pets")
    class_folders(tmp_path / "b/pets")
    assert sources.load(str(tmp_path / "a/pets")).fingerprint == sources.load(str(tmp_path / "b/pets")).fingerprint


def test_folders_that_differ_only_in_their_pixels_are_told_apart(tmp_path: Path):
    """Their files have the same names, sizes and times, as from an unpacked archive."""
    for place, value in (("a", 10), ("b", 200)):
        for name in ("cat", "dog"):
            file = tmp_path / place / "pets/train" / name / "0.bmp"
            save_image(file, np.full((30, 30, 3), value, dtype=np.uint8))
            os.utime(file, (1e9, 1e9))
    values = [sources.load(str(tmp_path / place / "pets")).train.images.max() for place in ("a", "b")]
    assert values == [10, 200]


@pytest.mark.parametrize("damage", ["flip", "truncate", "empty", "remove", "info"])
def test_a_damaged_cache_is_reported_and_never_used(own_cache: Path, damage):
    sources.load("digits")
    (entry,) = own_cache.iterdir()
    images = entry / "train_images.npy"
    if damage == "flip":
        content = bytearray(images.read_bytes())
        content[-1] ^= 1
        images.write_bytes(content)
    elif damage == "truncate":
        images.write_bytes(images.read_bytes()[:1000])
    elif damage == "empty":
        images.write_bytes(b"")
    elif damage == "remove":
        (entry / "train_labels.npy").unlink()
    else:
        (entry / "info.json").write_text(json.dumps([]))
    with pytest.raises(RunError, match=rf"{entry.name}(/info\.json)? is damaged: delete that folder"):
        sources.load("digits")


def test_two_processes_may_build_the_same_entry_at_once(own_cache: Path):
    code = "from rethinking.data import sources; print(sources.load('digits').fingerprint)"
    processes = [run_python(code) for _ in range(3)]
    outputs = [process.communicate(timeout=1200) for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], outputs
    assert len({output for output, _ in outputs}) == 1
    assert len(list(own_cache.iterdir())) == 1, "an unfinished entry stayed behind"


@pytest.mark.parametrize("dataset", ["digits", "pets"])
def test_a_full_disk_while_decoding_is_reported_and_leaves_no_file(tmp_path: Path, own_cache: Path, dataset):
    if dataset == "pets":
        class_folders(tmp_path / "pets", size=224)
        dataset = str(tmp_path / "pets")
    code = f"""
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
from rethinking.data import sources
try:
    sources.load({dataset!r})
except RuntimeError as error:
    print(error)
"""
    output, errors = run_python(code).communicate(timeout=1200)
    assert output.startswith(f"cannot write the cache {own_cache}: "), errors
    assert not output.strip().endswith(": None")
    assert not any(path.is_dir() for path in own_cache.iterdir())


def test_a_warm_cache_needs_neither_datasets_nor_a_decoder(tmp_path: Path):
    class_folders(tmp_path / "pets")
    sources.load(str(tmp_path / "pets"))
    code = f"""
import sys
from rethinking.data import sources
sources.load({str(tmp_path / "pets")!r})
print([name for name in ("datasets", "PIL", "sklearn", "pyarrow") if name in sys.modules])
"""
    output, errors = run_python(code).communicate(timeout=1200)
    assert output.strip() == "[]", errors


class Failing(http.server.BaseHTTPRequestHandler):
    """A proxy or a server that fails."""

    def do_HEAD(self) -> None:
        self.send_response(503)
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


class Portal(Failing):
    """A server that answers HEAD and never answers GET, as a login page may."""

    def do_HEAD(self) -> None:
        self.send_response(200)
        self.end_headers()

    def do_GET(self) -> None:
        threading.Event().wait(30)


class Garbled(socketserver.BaseRequestHandler):
    """A server that does not speak HTTP."""

    def handle(self) -> None:
        self.request.sendall(b"hello?\r\n\r\n")


def test_an_unreachable_hub_is_reported_without_waiting(monkeypatch: pytest.MonkeyPatch):
    """The connection is refused, never answered, or answered by another service."""
    with contextlib.ExitStack() as servers:
        silent = servers.enter_context(socket.create_server(("127.0.0.1", 0)))
        endpoints = ["http://127.0.0.1:9", f"http://127.0.0.1:{silent.getsockname()[1]}"]
        for handler in (Failing, Portal, Garbled):
            server = servers.enter_context(socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler))
            server.daemon_threads = True
            threading.Thread(target=server.serve_forever, daemon=True).start()
            servers.callback(server.shutdown)
            endpoints.append(f"http://127.0.0.1:{server.server_address[1]}")
        for endpoint in endpoints:
            monkeypatch.setenv("HF_ENDPOINT", endpoint)
            attempt = "try: sources.load('fashion_mnist')\nexcept ValueError as error: print(error)"
            code = f"from rethinking.data import sources\n{attempt}"
            output, errors = run_python(code).communicate(timeout=1200)
            for hint in (f"tried {endpoint}", "--dataset digits", "--data_root", "--dataset PATH"):
                assert hint in output, errors
            assert len(output.splitlines()) == 1
            assert errors == ""
