import io
import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rethinking.data import decoding, sources
from rethinking.data.decoding import decode, shape_of
from rethinking.data.readers.contents import ArrayImages, ReadOptions, Stored
from rethinking.errors import InputError

PLAIN, RGB, GREY = ReadOptions(), ReadOptions(colour="rgb"), ReadOptions(colour="grey")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RETHINKING_CACHE", str(tmp_path / "cache"))


def stored(image: Image.Image, kind: str = "PNG", **options: object) -> Stored:
    content = io.BytesIO()
    image.save(content, kind, **options)
    return Stored("an image", content.getvalue())


def random_image(mode: str, size: tuple[int, int] = (40, 30)) -> Image.Image:
    channels = len(Image.new(mode, (1, 1)).getbands())
    shape = (size[1], size[0], channels) if channels > 1 else (size[1], size[0])
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8), mode)


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_eight_bit_grey_and_rgb_are_taken_as_they_are(mode: str):
    image = random_image(mode)
    pixels = np.asarray(image)
    expected = pixels[None] if mode == "L" else pixels.transpose(2, 0, 1)
    assert np.array_equal(decode(stored(image), PLAIN), expected)


@pytest.mark.parametrize(
    ("image", "kind"),
    [
        (Image.new("P", (30, 30)), "PNG"),
        (Image.new("RGBA", (30, 30)), "PNG"),
        (Image.new("LA", (30, 30)), "PNG"),
        (Image.new("CMYK", (30, 30)), "JPEG"),
        (Image.new("I;16", (30, 30)), "PNG"),
        (Image.new("1", (30, 30)), "PNG"),
    ],
)
def test_other_modes_are_refused_by_default_and_the_option_is_named(image: Image.Image, kind: str):
    for read in (decode, shape_of):
        with pytest.raises(InputError, match=r"an image has mode .*; --colour rgb or --colour grey"):
            read(stored(image, kind), PLAIN)
    assert decode(stored(image, kind), RGB).shape == shape_of(stored(image, kind), RGB) == (3, 30, 30)
    assert decode(stored(image, kind), GREY).shape == shape_of(stored(image, kind), GREY) == (1, 30, 30)


def test_sixteen_bits_are_scaled_to_eight():
    values = np.array([[0, 128, 129, 257, 32767, 65535]], dtype=np.uint16).repeat(30, axis=0)
    ours = decode(stored(Image.fromarray(values)), GREY)[0, 0]
    assert ours.tolist() == np.rint(values[0] / 257).astype(int).tolist() == [0, 0, 1, 1, 127, 255]
    assert decode(Stored("an array", values), GREY)[0, 0].tolist() == ours.tolist()


def test_transparent_pixels_are_laid_over_white():
    pixels = np.zeros((30, 30, 4), dtype=np.uint8)
    pixels[..., 0] = 200
    pixels[:, 10:20, 3] = 255
    pixels[:, 20:, 3] = 51  # a fifth
    red, green, blue = decode(stored(Image.fromarray(pixels)), RGB)[:, 0]
    assert (red[0], green[0], blue[0]) == (255, 255, 255)
    assert (red[15], green[15], blue[15]) == (200, 0, 0)
    assert (red[25], green[25], blue[25]) == (244, 204, 204)


def test_a_palette_with_a_transparent_colour_is_laid_over_white():
    image = Image.new("P", (30, 30))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((0, 0), 1)
    pixels = decode(stored(image, transparency=1), RGB)
    assert pixels[:, 0, 0].tolist() == [255, 255, 255]
    assert pixels[:, 1, 1].tolist() == [10, 20, 30]


def test_black_and_white_become_0_and_255():
    image = Image.new("1", (30, 30))
    image.putpixel((0, 0), 1)
    pixels = decode(stored(image), GREY)
    assert sorted(np.unique(pixels).tolist()) == [0, 255]


def test_grey_among_rgb_has_three_equal_channels_and_rgb_becomes_luma():
    grey, colour = random_image("L"), random_image("RGB")
    assert (decode(stored(grey), RGB) == np.asarray(grey)).all()
    weights = np.array([0.299, 0.587, 0.114])  # ITU-R 601
    assert np.abs(decode(stored(colour), GREY)[0] - np.asarray(colour) @ weights).max() <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_is_turned_upright(orientation: int):
    upright = Image.new("L", (40, 30))
    upright.paste(255, (0, 0, 20, 15))  # the upper left quarter is white
    operations = {  # how an upright image is stored under each orientation, of EXIF's table
        1: lambda image: image,
        2: lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        3: lambda image: image.transpose(Image.Transpose.ROTATE_180),
        4: lambda image: image.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
        5: lambda image: image.transpose(Image.Transpose.TRANSPOSE),
        6: lambda image: image.transpose(Image.Transpose.ROTATE_90),
        7: lambda image: image.transpose(Image.Transpose.TRANSVERSE),
        8: lambda image: image.transpose(Image.Transpose.ROTATE_270),
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned = stored(operations[orientation](upright), exif=exif)
    assert shape_of(turned, PLAIN) == (1, 30, 40)
    assert np.array_equal(decode(turned, PLAIN)[0], np.asarray(upright))


@pytest.mark.parametrize("size", [(40, 30), (30, 40), (300, 31), (28, 28), (20, 50)])
def test_resizing_scales_the_shorter_side_and_cuts_the_centre_square(size: tuple[int, int]):
    """A ramp along the longer side stays a ramp, whose middle is the middle of the square."""
    width, height = size
    ramp = np.linspace(0, 255, max(size))
    pixels = np.tile(ramp, (height, 1)) if width >= height else np.tile(ramp[:, None], (1, width))
    options = ReadOptions(resize=28)
    image = stored(Image.fromarray(np.rint(pixels).astype(np.uint8)))
    square = decode(image, options)
    assert square.shape == shape_of(image, options) == (1, 28, 28)
    across = square[0].mean(axis=0) if width >= height else square[0].mean(axis=1)
    assert abs(across.mean() - 127.5) < 0.5 * np.diff(across).max() + 1  # half a pixel where the rest is odd
    assert (np.diff(across) >= 0).all()


def test_resizing_is_antialiased():
    """Stripes finer than a pixel of the result average out; without antialiasing single stripes would remain."""
    stripes = np.tile(np.array([0, 255], dtype=np.uint8), (280, 140))
    shrunk = decode(stored(Image.fromarray(stripes)), ReadOptions(resize=28))[0]
    assert np.abs(shrunk[:, 2:-2].astype(int) - 127).max() < 12


def test_images_of_the_right_size_are_not_touched_by_resize():
    image = random_image("RGB", (28, 28))
    assert np.array_equal(decode(stored(image), ReadOptions(resize=28)), decode(stored(image), PLAIN))


# Whole data sets


def folder_of(root: Path, images: dict[str, Image.Image]) -> str:
    for name, image in images.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        image.save(root / name)
    return str(root)


def mixed() -> Iterator[tuple[str, Image.Image]]:
    for index in range(4):
        yield f"cat/{index}.png", random_image("L", (30 + index, 40))
        yield f"dog/{index}.png", random_image("RGB", (40, 30 + index))


def test_images_of_any_size_and_mode_are_read_with_both_options(tmp_path: Path):
    folder = folder_of(tmp_path / "pets", dict(mixed()))
    with pytest.raises(InputError, match=r"one size and mode: .*; --resize N.* makes them alike"):
        sources.load(folder)
    data = sources.load(folder, options=ReadOptions(resize=28, colour="rgb"))
    assert data.train.images.shape == (8, 3, 28, 28)
    assert data.name == "pets-resize28-rgb"
    assert data.fingerprint != sources.load(folder, options=ReadOptions(resize=29, colour="rgb")).fingerprint


def test_the_images_that_cannot_be_decoded_are_counted(tmp_path: Path):
    folder = folder_of(tmp_path / "pets", {f"{name}/{i}.png": random_image("L") for name in "ab" for i in range(5)})
    for name in ("a/3", "a/4", "b/0"):
        (tmp_path / f"pets/{name}.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"cannot decode .*a/3\.png.* \(2 others of 10 images are refused too\)"):
        sources.load(folder)


def test_an_impossible_size_is_refused_before_anything_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = folder_of(tmp_path / "pets", {f"{name}/{i}.png": random_image("L") for name in "ab" for i in range(5)})
    seen = []

    def refuse(shape: tuple[int, int, int]) -> None:
        seen.append(shape)
        raise InputError("too small")

    monkeypatch.setattr(decoding, "_decode_part", None)
    with pytest.raises(InputError, match="too small"):
        sources.load(folder, accept=refuse)
    assert seen == [(1, 30, 40)]


def test_several_processes_decode_the_same_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    images = {f"{name}/{index:03}.png": random_image("RGB", (30, 30)) for name in "ab" for index in range(40)}
    images["b/007.png"] = Image.new("RGB", (30, 30), "red")
    folder = folder_of(tmp_path / "pets", images)
    alone = sources.load(folder)
    monkeypatch.setattr(decoding, "CHUNK", 7)
    monkeypatch.setattr(decoding, "WORTH_PROCESSES", 0.0)
    monkeypatch.setenv("RETHINKING_CACHE", str(tmp_path / "another"))
    told: list[float] = []
    together = sources.load(folder, begin=lambda step: told.append if step == "decoding" else lambda share: None)
    assert together.fingerprint == alone.fingerprint
    assert told == sorted(told)
    assert told[-1] == 1.0
    (tmp_path / "pets/b/039.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"cannot decode .*b/039\.png"):
        sources.load(folder)


def test_numbers_without_a_known_range_are_refused():
    content = io.BytesIO()
    Image.fromarray(np.full((30, 30), 200, dtype=np.int32)).save(content, "TIFF")
    for options in (PLAIN, RGB, GREY):
        with pytest.raises(InputError, match="mode I"):
            decode(Stored("an image", content.getvalue()), options)


@pytest.mark.parametrize("options", [RGB, GREY])
def test_a_transparent_colour_of_plain_rgb_is_laid_over_white(options: ReadOptions):
    pixels = decode(stored(Image.new("RGB", (30, 30)), transparency=(0, 0, 0)), options)
    assert (pixels == 255).all()


def test_a_held_out_array_stays_on_disk(tmp_path: Path):
    """Copies at most a chunk of a mapped array at a time."""
    images = np.random.default_rng(0).integers(0, 256, (40, 30, 30), dtype=np.uint8)
    part = ArrayImages(images, "train").part(np.arange(0, 40, 2)).part(np.arange(5))
    assert part.array is images
    assert [image.described for image in part.stored()][1] == "image 2 of the split 'train'"
    sent = pickle.loads(pickle.dumps(part))
    assert len(sent.array) == 5
    for ours, theirs in zip(part.stored(), sent.stored(), strict=True):
        assert ours.described == theirs.described
        assert np.array_equal(ours.content, theirs.content)
