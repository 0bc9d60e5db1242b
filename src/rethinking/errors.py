"""The two ways a run can fail a person, each with the exit status its command ends with."""


class InputError(ValueError):
    """Something the user gave is wrong: the message says what, what is allowed and what to do. Exit status 2."""

    exit_status = 2


class RunError(RuntimeError):
    """A well-formed request could not be carried out: a damaged file, a diverged run. Exit status 1."""

    exit_status = 1
