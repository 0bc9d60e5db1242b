"""Defines the errors that users see, with the exit status of a command that ends with one, and words for messages."""

import difflib
import errno
import re
from collections.abc import Iterable

OUT_OF_MEMORY = re.compile("out of memory|can't allocate memory|(CUBLAS|CUDNN)_STATUS_ALLOC_FAILED")


class InputError(ValueError):
    """An error in the user's input. The message says what is wrong, what is allowed and what to do. Exit status 2."""

    exit_status = 2


def nearest(name: str, known: Iterable[str]) -> str:
    """Returns `; did you mean 'x'?` for the known name closest to `name`, or '' where no name is close."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean '{close[0]}'?" if close else ""


def in_one_line(error: BaseException, letters: int = 300) -> str:
    """Returns the type and the message of an error in one line. The message is cut after `letters` characters."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:letters]}"


class RefusedImagesError(InputError):
    """Images of different sizes or modes, or of a size that the network does not take.

    mended_by: the names of the reading options that mend the images, such as `resize`
    """

    def __init__(self, message: str, mended_by: Iterable[str]) -> None:
        super().__init__(message)
        self.mended_by = tuple(mended_by)


class ImpossibleError(InputError):
    """A run that the data does not allow, whatever its options. Other runs on the same data may be possible."""


class ConflictError(ImpossibleError):
    """Equal points with different targets, which no function fits."""


class RunError(RuntimeError):
    """A failure of a correct request, such as a damaged file or a diverged run. Exit status 1."""

    exit_status = 1


class BusyError(RunError):
    """A run or folder that another process works on at the moment. Try again later."""


class DivergedError(RunError):
    """A run whose loss is not finite."""


class MemoryShortageError(RunError):
    """A run that needs more memory than the machine or the device has."""


def too_little_memory(error: BaseException) -> MemoryShortageError | None:
    """Returns the error to show where `error` is a lack of memory on the machine or the device; else None."""
    cause = error
    while cause.__context__ is not None and not _is_of_memory(cause):  # the end of a CUDA capture may fail after it
        cause = cause.__context__
    if _is_of_memory(cause):
        return MemoryShortageError(
            "there is not enough memory for this; lower --batch_size or --crop_size, or use --train_subset"
        )
    return None


def _is_of_memory(error: BaseException) -> bool:
    refused = isinstance(error, OSError) and error.errno == errno.ENOMEM
    return refused or isinstance(error, MemoryError) or bool(OUT_OF_MEMORY.search(str(error)))
