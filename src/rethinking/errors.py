"""The two ways a run can fail a person, each with the exit status its command ends with."""

import re


class InputError(ValueError):
    """Something the user gave is wrong: the message says what, what is allowed and what to do. Exit status 2."""

    exit_status = 2


class RunError(RuntimeError):
    """A well-formed request could not be carried out: a damaged file, a diverged run. Exit status 1."""

    exit_status = 1


def too_little_memory(error: BaseException) -> RunError | None:
    """What to tell a person where `error` is the machine's or the device's memory running out; else None."""
    if isinstance(error, MemoryError) or re.search("out of memory|can't allocate memory", str(error)):
        return RunError("there is not enough memory for this; lower --batch_size or --crop_size, or use --train_subset")
    return None
