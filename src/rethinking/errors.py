"""The two ways a run can fail a person, each with the exit status its command ends with, and words for them."""

import difflib
import errno
import re
from collections.abc import Iterable

OUT_OF_MEMORY = re.compile("out of memory|can't allocate memory|(CUBLAS|CUDNN)_STATUS_ALLOC_FAILED")


class InputError(ValueError):
    """Something the user gave is wrong: the message says what, what is allowed and what to do. Exit status 2."""

    exit_status = 2


def nearest(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the known name closest to `name`, or nothing where none is close."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean '{close[0]}'?" if close else ""


def in_one_line(error: BaseException, letters: int = 300) -> str:
    """The kind of an error and what it says, cut after so many letters."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:letters]}"


class RefusedImagesError(InputError):
    """Images of several sizes or modes, or of a size that a network does not take.

    mended_by: the options, of how images are read, with which they are taken
    """

    def __init__(self, message: str, mended_by: Iterable[str]) -> None:
        super().__init__(message)
        self.mended_by = tuple(mended_by)


class ImpossibleError(InputError):
    """The data does not allow one run, whatever its options. Other runs on the same data may be possible."""


class ConflictError(ImpossibleError):
    """Two equal points have different targets: no function fits both."""


class RunError(RuntimeError):
    """A well-formed request could not be carried out: a damaged file, a diverged run. Exit status 1."""

    exit_status = 1


class BusyError(RunError):
    """Another process is at work on the same; it can be returned to."""


class DivergedError(RunError):
    """The loss of a run is not finite."""


class MemoryShortageError(RunError):
    """The machine's or the device's memory ran out."""


def too_little_memory(error: BaseException) -> MemoryShortageError | None:
    """What to tell a person where `error` is the machine's or the device's memory running out; else None."""
    told = error
    while told.__context__ is not None and not _is_of_memory(told):  # ending a capture may fail over it
        told = told.__context__
    if _is_of_memory(told):
        return MemoryShortageError(
            "there is not enough memory for this; lower --batch_size or --crop_size, or use --train_subset"
        )
    return None


def _is_of_memory(error: BaseException) -> bool:
    refused = isinstance(error, OSError) and error.errno == errno.ENOMEM
    return refused or isinstance(error, MemoryError) or bool(OUT_OF_MEMORY.search(str(error)))
