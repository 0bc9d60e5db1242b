"""Decoding: turns stored images into uint8 arrays of one size and mode, in one file, on all cores.

Worker processes import this module, so it imports neither PyTorch nor a reader's libraries.
"""

from __future__ import annotations

import io
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from rethinking.data.images import shape_in_words
from rethinking.data.readers.contents import Images, ReadOptions, Stored
from rethinking.errors import InputError, RefusedImagesError

if TYPE_CHECKING:
    from PIL.Image import Image

CHUNK = 1000  # images per task, at most
TASK_BYTES = 32 << 20  # decoded bytes per task, at most
MANY = 20  # from this number of tasks on, processes start at once
WORTH_PROCESSES = 2.0  # starting processes pays if this many seconds of decoding are left
ORIENTATION = 0x0112  # EXIF's tag
TURNED = (5, 6, 7, 8)  # orientations that swap width and height
SHIFT_16_BIT = 257  # 65535 / 255
MENDED = {"resize": "--resize N", "colour": "--colour rgb or grey"}

Advanced = Callable[[float], None]  # is called with the completed fraction


class DecodingError(InputError):
    """An image whose header cannot be read."""


class Failure(NamedTuple):
    """An image that cannot be decoded, with the reason.

    converted: whether a colour option would make it readable
    """

    described: str
    reason: str
    converted: bool = False


class OtherShape(NamedTuple):
    """The first image of a part that differs from the others in size or mode."""

    described: str
    shape: tuple[int, ...]


Outcome = tuple[list[Failure], OtherShape | None]


class _Task(NamedTuple):
    """The images at `rows` and the file to decode them into, from byte `begin` on."""

    images: Images
    rows: np.ndarray
    options: ReadOptions
    shape: tuple[int, int, int]
    file: Path
    begin: int

    def to_send(self) -> tuple[Images, ReadOptions, tuple[int, int, int], Path, int]:
        """Returns the arguments of `_decode_part`, which hold this task's images alone."""
        return self.images.part(self.rows), self.options, self.shape, self.file, self.begin


def shape_of(stored: Stored, options: ReadOptions) -> tuple[int, int, int]:
    """Returns the shape (channels, height, width) of `decode`'s result, from the image's header alone.

    Raises `DecodingError` if the header cannot be read, and `InputError` for a mode that the options do not allow.
    """
    if isinstance(stored.content, np.ndarray):
        return _with_options((_channels(stored.content), *stored.content.shape[:2]), options)
    try:
        with _opened(stored) as image:
            channels = 1 if _mode(image, stored.described, options) == "L" else 3
            width, height = image.size
            if image.getexif().get(ORIENTATION) in TURNED:
                width, height = height, width
    except InputError:
        raise
    except Exception as error:  # decoders raise many types: OSError, SyntaxError, ValueError
        raise DecodingError(_cannot_decode(stored.described, error)) from None
    return _with_options((channels, height, width), options)


def _with_options(shape: tuple[int, int, int], options: ReadOptions) -> tuple[int, int, int]:
    channels, height, width = shape
    if options.colour:
        channels = 1 if options.colour == "grey" else 3
    return (channels, options.resize, options.resize) if options.resize else (channels, height, width)


def decode(stored: Stored, options: ReadOptions) -> np.ndarray:
    """Returns an upright image in the size and colours of `options`: uint8 (channels, height, width).

    Raises `InputError` for a mode that the options do not allow, and whatever Pillow's decoders raise.
    """
    if isinstance(stored.content, np.ndarray) and _is_ready(stored.content, options):
        return _channels_first(stored.content)
    from PIL import ImageOps

    with _opened(stored) as image:
        mode = _mode(image, stored.described, options)
        upright: Any = image
        if image.getexif().get(ORIENTATION, 1) != 1:  # the library `datasets` applies it too
            upright = ImageOps.exif_transpose(image)
        converted = upright if options.colour is None else _converted(upright, mode)
        if options.resize is not None:
            converted = _resized(converted, options.resize)
        return _channels_first(np.asarray(converted))


def _is_ready(array: np.ndarray, options: ReadOptions) -> bool:
    plain = options.resize is None and options.colour is None
    return plain and array.dtype == np.uint8 and _channels(array) in (1, 3)


def _channels(array: np.ndarray) -> int:
    return 1 if array.ndim == 2 else array.shape[2]


def _channels_first(pixels: np.ndarray) -> np.ndarray:
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def _opened(stored: Stored) -> Image:
    from PIL import Image

    if isinstance(stored.content, np.ndarray):
        return Image.fromarray(stored.content[..., 0] if stored.content.shape[2:] == (1,) else stored.content)
    if isinstance(stored.content, Image.Image):
        return stored.content.copy()  # the caller closes the copy, not the user's image
    return Image.open(io.BytesIO(stored.content) if isinstance(stored.content, bytes) else stored.content)


def _mode(image: Image, described: str, options: ReadOptions) -> str:
    """Returns 'L' or 'RGB': the mode that the image has, or that it is converted to."""
    if options.colour is not None:
        if image.mode == "F" or (image.mode == "I" and image.format != "PPM"):  # PPM is scaled to 16 bits
            raise InputError(
                f"{described} has mode {image.mode}, whose values have no known range; convert the images to 8 bits"
            )
        return {"grey": "L", "rgb": "RGB"}[options.colour]
    if image.mode not in ("L", "RGB"):
        message = f"{described} has mode {image.mode}; --colour rgb or --colour grey converts the images"
        raise RefusedImagesError(message, ["colour"])
    return image.mode


def _converted(image: Image, mode: str) -> Image:
    """Converts to 8-bit grey or RGB: transparent pixels over white, 16 bits scaled to 8, grey as luma (ITU-R 601)."""
    from PIL import Image

    if image.mode.startswith("I"):
        image = Image.fromarray(_eight_bits(np.asarray(image)))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    if image.mode not in ("L", "RGB"):  # palettes become RGB before they become grey
        image = image.convert("L" if image.mode == "1" else "RGB")
    return image if image.mode == mode else image.convert(mode)


def _eight_bits(values: np.ndarray) -> np.ndarray:
    """Scales 16-bit grey, 0-65535, to 0-255, rounded."""
    return ((values.clip(0, 65535).astype(np.uint32) + SHIFT_16_BIT // 2) // SHIFT_16_BIT).astype(np.uint8)


def _resized(image: Image, side: int) -> Image:
    """Scales the shorter side to `side` pixels, bilinear and antialiased, and takes the centre square."""
    from PIL import Image

    width, height = image.size
    if min(width, height) != side:
        shorter = min(width, height)
        width, height = max(side, width * side // shorter), max(side, height * side // shorter)
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = (width - side) // 2, (height - side) // 2
    return image.crop((left, top, left + side, top + side))


def first_shape(images: Images, options: ReadOptions) -> tuple[Stored, tuple[int, int, int]]:
    """Returns the first image with a readable header, and the shape that all images must have.

    Raises `InputError` if no header can be read, or the image has no pixels.
    """
    failure: InputError | None = None
    for stored in images.stored():
        try:
            shape = shape_of(stored, options)
        except DecodingError as error:
            failure = failure or error
            continue
        if 0 in shape:
            raise InputError(f"{stored.described} has no pixels: it is {shape_in_words(shape)}")
        return stored, shape
    assert failure is not None, "there are images"
    more = f" ({len(images) - 1:,} others are refused too)" if len(images) > 1 else ""
    raise InputError(f"{failure}{more}")


def decode_to_files(
    files: Mapping[Path, Images], options: ReadOptions, first: Stored, shape: tuple[int, int, int], advanced: Advanced
) -> None:
    """Decodes images into `.npy` files, one uint8 array (n, channels, height, width) per file.

    first: the image whose shape all images must have
    advanced: is called with the completed fraction

    Raises `InputError` for an image of another size or mode. If images cannot be decoded, the error names the first and
    counts the others.
    """
    tasks = [task for file, images in files.items() for task in _tasks(file, images, options, shape)]
    total, done, failed = sum(map(len, files.values())), 0, dict[int, list[Failure]]()
    for number, (failures, other) in _carried_out(tasks):
        if other is not None:
            raise not_alike(other, OtherShape(first.described, shape))
        failed[number] = failures
        done += len(tasks[number].rows)
        advanced(done / total)
    if refused := [failure for number in sorted(failed) for failure in failed[number]]:
        more = f" ({len(refused) - 1:,} others of {total:,} images are refused too)" if len(refused) > 1 else ""
        message = f"{refused[0].reason}{more}"
        raise RefusedImagesError(message, ["colour"]) if refused[0].converted else InputError(message)


def _tasks(file: Path, images: Images, options: ReadOptions, shape: tuple[int, int, int]) -> Iterator[_Task]:
    """Writes the file's header, and yields the tasks that decode images into the file."""
    with file.open("wb") as header:
        described = {"descr": "|u1", "fortran_order": False, "shape": (len(images), *shape)}
        np.lib.format.write_array_header_1_0(header, described)
        begin = header.tell()
    size = math.prod(shape)
    chunk = max(1, min(CHUNK, TASK_BYTES // size))
    for start in range(0, len(images), chunk):
        rows = np.arange(start, min(start + chunk, len(images)))
        yield _Task(images, rows, options, shape, file, begin + start * size)


def not_alike(other: OtherShape, first: OtherShape) -> RefusedImagesError:
    """Returns the error for two images of different sizes or modes."""
    mended_by = ["resize"] * (other.shape[1:] != first.shape[1:]) + ["colour"] * (other.shape[0] != first.shape[0])
    return RefusedImagesError(
        f"images must have one size and mode: {other.described} is {shape_in_words(other.shape)}, but"
        f" {first.described} is {shape_in_words(first.shape)}; {' and '.join(MENDED[name] for name in mended_by)}"
        " makes them alike",
        mended_by,
    )


def _carried_out(tasks: Sequence[_Task]) -> Iterator[tuple[int, Outcome]]:
    """Yields the number and outcome of every task.

    Other cores get a process each if this process alone would be slow.
    """
    began, waiting = time.perf_counter(), deque(enumerate(tasks))
    while 0 < len(waiting) < MANY:
        number, task = waiting.popleft()
        yield number, _decode_part(*task.to_send())
        if (time.perf_counter() - began) / (number + 1) * len(waiting) > WORTH_PROCESSES:
            break
    if waiting:
        yield from _with_processes(waiting)


def _with_processes(waiting: deque[tuple[int, _Task]]) -> Iterator[tuple[int, Outcome]]:
    """Yields the same from as many processes as there are cores; this process is one of them."""
    from joblib import cpu_count
    from joblib.externals.loky import get_reusable_executor

    others = cpu_count() - 1
    executor = get_reusable_executor(max_workers=others) if others else None
    at_work: dict[Future[Outcome], int] = {}
    try:
        while waiting or at_work:
            # Each process has one task and one in reserve; near the end there is no reserve.
            while executor is not None and waiting and len(at_work) < others * (1 + (len(waiting) > others)):
                number, task = waiting.popleft()
                at_work[executor.submit(_decode_part, *task.to_send())] = number
            if waiting:
                number, task = waiting.popleft()
                yield number, _decode_part(*task.to_send())
            ended, _ = wait(at_work, timeout=0 if waiting else None, return_when=FIRST_COMPLETED)
            for future in ended:
                yield at_work.pop(future), future.result()
    finally:
        for future in at_work:
            future.cancel()


def _decode_part(images: Images, options: ReadOptions, shape: tuple[int, ...], file: Path, begin: int) -> Outcome:
    """Decodes images into their place in the file. Returns the failures, and the first image of another shape."""
    pixels = np.zeros((len(images), *shape), dtype=np.uint8)
    failures = []
    for row, stored in enumerate(images.stored()):
        try:
            image = decode(stored, options)
        except InputError as error:
            failures.append(Failure(stored.described, str(error), isinstance(error, RefusedImagesError)))
            continue
        except Exception as error:  # decoders raise many types: OSError, SyntaxError, ValueError
            failures.append(Failure(stored.described, _cannot_decode(stored.described, error)))
            continue
        if image.shape != shape:
            return failures, OtherShape(stored.described, image.shape)
        pixels[row] = image
    with file.open("r+b") as out:
        out.seek(begin)
        out.write(pixels.data)
    return failures, None


def _cannot_decode(described: str, error: BaseException) -> str:
    if isinstance(error, OSError) and error.errno is not None:  # the file cannot be read at all
        return f"cannot read {described}: {error.strerror}"
    text = (str(error).strip() or type(error).__name__).splitlines()[0]
    return f"cannot decode {described}: {text}"
