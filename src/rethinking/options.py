"""Makes options of a command from the fields of a dataclass, and values from the words of a command line.

`argparse` finds the words. For every mistake one line says what the option takes.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import re
import shlex
import types
import typing
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, NoReturn

from rethinking.errors import InputError, nearest

Check = Callable[[Any], str | None]  # None for an allowed value, else words for what is allowed

NUMBER = re.compile(r"-(\d|\.\d|inf|nan)", re.IGNORECASE)


def anything(value: object) -> None:
    """Accepts every value."""


def option(
    default: Any,
    help: str,
    *,
    group: str = "options",
    check: Check = anything,
    choices: tuple[str, ...] = (),
    flag: str = "",
    metavar: str = "",
    default_text: str | None = None,
    positional: bool = False,
    alone: str | None = None,
    changes_numbers: bool = True,
    added_later: bool = False,
    recorded: bool = False,
) -> Any:
    """Declares one field of a dataclass, which is one option of a command.

    flag: the option's name on the command line, where it differs from the field's name
    metavar: stands for the value in `--help`
    default_text: replaces the default in `--help`, for a default that depends on other options
    positional: whether the option is an argument without a flag
    alone: the value of the flag without a value; None where it needs one
    changes_numbers: whether the option is part of a run's identity
    added_later: whether runs of earlier versions lack the option; at its default it stays out of the identity, so that
        these runs are found
    recorded: whether the field is set when a configuration is resolved, and is no option of the command line
    """
    if choices:
        check, metavar = one_of(*choices), "|".join(choices)
    metadata = {
        "help": help,
        "group": group,
        "check": check,
        "flag": flag,
        "metavar": metavar,
        "choices": choices,
        "default_text": default_text,
        "positional": positional,
        "alone": alone,
        "changes_numbers": changes_numbers,
        "added_later": added_later,
        "recorded": recorded,
    }
    if default is dataclasses.MISSING:
        return dataclasses.field(metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def one_of(*allowed: str) -> Check:
    """Returns a check for one of the values `allowed`."""
    return lambda value: None if value in allowed else f"one of {', '.join(allowed)}"


def check_seeds(seeds: Sequence[int]) -> None:
    """Raises `InputError` unless there is at least one seed and all are different and 0 or more."""
    if not seeds or min(seeds) < 0 or len(set(seeds)) < len(seeds):
        raise InputError("seeds must be different whole numbers from 0 on, such as --seeds 0 1 2")


class Option(NamedTuple):
    """An option of a command line.

    kinds: the types that its value may have; for a tuple the types of its elements
    many: whether it takes several words
    groups: whether it may stand several times, each time with several words; its value is a tuple of tuples
    alone: its value where the flag stands without one; None where that is an error
    """

    name: str
    flag: str
    kinds: tuple[type, ...]
    default: Any
    help: str
    group: str
    metavar: str
    default_text: str | None
    positional: bool = False
    many: bool = False
    alone: str | None = None
    groups: bool = False

    @property
    def off(self) -> str:
        """The flag that turns a switch off."""
        return off(self.flag)


def off(flag: str) -> str:
    """Returns the flag that turns a switch off: `no_name` for `name`, and `wait` for `no_wait`."""
    return flag[3:] if flag.startswith("no_") else f"no_{flag}"


def options_of(kind: type, defaults: object = None) -> list[Option]:
    """Returns the options of a dataclass whose fields are made by `option`, its own before those of its base class.

    defaults: an instance with other default values, or None
    """
    hints = typing.get_type_hints(kind)
    made = []
    own = vars(kind).get("__annotations__", {})
    for spec in sorted(dataclasses.fields(kind), key=lambda spec: spec.name not in own):
        meta = spec.metadata
        if not spec.init or meta["recorded"]:
            continue
        hint = hints[spec.name]
        alternatives = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
        many = typing.get_origin(alternatives[0]) is tuple
        kinds = typing.get_args(alternatives[0])[:1] if many else alternatives
        groups = many and typing.get_origin(kinds[0]) is tuple
        kinds = typing.get_args(kinds[0])[:1] if groups else kinds
        default = spec.default if defaults is None else getattr(defaults, spec.name)
        default_text = meta["default_text"] if default == spec.default else None
        metavar = meta["metavar"] or {int: "INT", float: "FLOAT"}.get(kinds[0], "TEXT")
        flag = meta["flag"] or spec.name
        made.append(
            Option(
                spec.name,
                flag,
                kinds,
                default,
                meta["help"],
                meta["group"],
                metavar,
                default_text,
                meta["positional"],
                many,
                meta["alone"],
                groups,
            )
        )
    return made


def parse(options: Sequence[Option], prog: str, description: str, arguments: Sequence[str]) -> dict[str, Any]:
    """Returns the value of each option by its name, or prints the help and exits where `--help` is given.

    Hyphens read as underscores. `--no_NAME` turns off a switch. Raises `InputError` in one line.
    """
    parser = _Parser(prog, description, options)
    found, unknown = parser.parse_known_args([_plain(word) for word in arguments])
    if unknown:
        wrong = next((word for word in unknown if word.startswith("-")), unknown[0]).split("=")[0]
        known = [f"--{option.flag}" for option in options if not option.positional] + ["--help"]
        as_given = next((word for word in arguments if _plain(word).split("=")[0] == wrong), wrong).split("=")[0]
        raise InputError(f"unknown option '{as_given}'{nearest(wrong, known) or '; --help lists all'}")
    return {option.name: _value(option, getattr(found, option.name)) for option in options}


def _plain(word: str) -> str:
    """Replaces the hyphens in an option's name by underscores."""
    if not word.startswith("--"):
        return word
    name, equals, value = word[2:].partition("=")
    return f"--{name.replace('-', '_')}{equals}{value}"


class _Parser(argparse.ArgumentParser):
    """Takes texts and gives texts; `_value` converts them."""

    def __init__(self, prog: str, description: str, options: Sequence[Option]) -> None:
        positional = [option for option in options if option.positional]
        usage = " ".join([prog, *(f"[{o.metavar} ...]" if o.many else o.metavar for o in positional), "[OPTIONS]"])
        super().__init__(prog, usage, description, allow_abbrev=False)
        self._negative_number_matcher = NUMBER  # argparse itself would take -1e5 and -inf for options
        groups: dict[str, argparse._ActionsContainer] = {"options": self}
        for option in options:
            if option.group not in groups:
                groups[option.group] = self.add_argument_group(f"{option.group} options")
            self._add(groups[option.group], option)

    @staticmethod
    def _add(group: argparse._ActionsContainer, option: Option) -> None:
        words = _help(option).replace("%", "%%")
        if option.positional:
            nargs = "*" if option.many else "?" if option.default is not dataclasses.MISSING else None
            group.add_argument(option.name, metavar=option.metavar, help=words, nargs=nargs)
        elif bool in option.kinds:
            flags = (f"--{option.flag}", f"--{option.off}")
            count = "*" if option.many else 0
            group.add_argument(*flags, dest=option.name, action=_Switch, help=words, nargs=count, metavar="true|false")
        else:
            metavar = option.metavar.removesuffix(" ...")
            nargs = "+" if option.many else None if option.alone is None else "?"
            action: Any = {"action": "append"} if option.groups else {"const": option.alone}
            group.add_argument(f"--{option.flag}", dest=option.name, metavar=metavar, help=words, nargs=nargs, **action)

    def error(self, message: str) -> NoReturn:
        """Raises `InputError` for what argparse itself refuses: a missing value, or a value too many."""
        if missing := re.match(r"argument (?:\S*/)?(--\w+)(?:/\S+)?: expected .*argument", message):
            raise InputError(f"{missing[1]} needs a value; see --help")
        if unwanted := re.match(r"argument (--\w+)(?:/\S+)?: ignored explicit argument (.*)", message):
            raise InputError(f"{unwanted[1]} takes no value, not {unwanted[2]}; --{off(unwanted[1][2:])} turns it off")
        if required := re.match(r"the following arguments are required: (\w+)", message):
            raise InputError(f"{self.prog} needs {required[1]}; see --help")
        raise InputError(f"{self.prog}: {message}; --help lists all")


class _Switch(argparse.Action):
    """The two forms of a switch, `--name` and `--no_name`. With `nargs` "*", `--name` takes values too."""

    def __call__(self, parser: object, namespace: object, values: Any, option_string: str | None = None) -> None:
        on = option_string == self.option_strings[0]
        if values and not on:
            raise InputError(f"{option_string} takes no value, not {values[0]!r}; give {self.option_strings[0]}")
        single = on if self.nargs == 0 else [str(on)]
        setattr(namespace, self.dest, values or single)


def _help(option: Option) -> str:
    shown = shown_default(option)
    return f"{option.help} (default: {shown})" if shown else option.help


def shown_default(option: Option) -> str:
    """Returns the default in words; '' where there is none."""
    default = option.default
    if option.default_text is not None:
        return option.default_text
    if default is None or default is dataclasses.MISSING or default == ():
        return ""
    if isinstance(default, bool):
        return "on" if default else "off"
    return " ".join(map(str, default)) if isinstance(default, tuple) else str(default)


def _value(option: Option, found: Any) -> Any:
    """Converts the words of an option to its type. No word gives the default."""
    if found is None or (option.positional and option.many and not found):
        return option.default
    if option.groups:
        return tuple(tuple(_one_value(option, word) for word in words) for words in found)
    if isinstance(found, list):
        return tuple(_one_value(option, word) for word in found)
    return found if isinstance(found, bool) else _one_value(option, found)


def _one_value(option: Option, word: str) -> Any:
    if types.NoneType in option.kinds and word == "None":
        return None
    if bool in option.kinds and word.lower() in ("true", "false"):
        return word.lower() == "true"
    for kind in (int, float, str):
        if kind in option.kinds:
            try:
                return kind(word)
            except ValueError:
                continue
    name = option.metavar if option.positional else f"--{option.flag}"
    raise InputError(f"{name} takes {option.metavar}, not '{word}': {option.help}")


def given(option: Option, value: Any) -> Any:
    """Converts a value from Python to the option's type.

    A path or a number stands for its text, and one value stands for a tuple of one. True stands for an option that is
    given without a value. Raises `InputError` in one line.
    """
    if option.alone is not None and isinstance(value, bool):
        return option.alone if value else option.default
    if bool in option.kinds:
        if not isinstance(value, bool):
            raise InputError(f"{option.name} takes True or False, not {value!r}: {option.help}")
        return value
    if option.groups:
        if not isinstance(value, Iterable):
            raise InputError(f"{option.name} takes {option.metavar}, not {value!r}: {option.help}")
        groups = [value] if isinstance(value, str) or all(isinstance(one, str) for one in value) else value
        return tuple(given(option._replace(groups=False), group) for group in groups if group)
    if option.many:
        is_one = isinstance(value, str | os.PathLike) or not isinstance(value, Iterable)
        values = [value] if is_one else value
        return tuple(_one_value(option, str(one)) for one in values)
    return _one_value(option, str(value))


def command_line(program: str, chosen: Any) -> str:
    """Returns the command that gives these values. It holds the changed options that can change numbers."""
    return f"{program} {shlex.join(words_of(chosen))}".rstrip()


def words_of(chosen: Any, defaults: object = None, leave_out: Sequence[str] = ()) -> list[str]:
    """Returns the words of `command_line`. `defaults` is an instance whose values need no words."""
    changing = {spec.name for spec in dataclasses.fields(chosen) if spec.metadata["changes_numbers"]}
    words = []
    for option in options_of(type(chosen), defaults):
        value = getattr(chosen, option.name)
        if option.name not in changing or option.name in leave_out or value == option.default:
            continue
        if isinstance(value, bool):
            words.append(f"--{option.flag}" if value else f"--{option.off}")
        else:
            name = [] if option.positional else [f"--{option.flag}"]
            for group in value if option.groups else [value]:
                words += [*name, *map(str, group if isinstance(group, tuple) else [group])]
    return words
