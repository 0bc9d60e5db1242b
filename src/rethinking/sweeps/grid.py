"""Grids: options with several values each, and the configurations that they make.

    Grid.of({"model": ["mlp_1x512", "small_alexnet"], "seed": range(3)}).combinations()  # six of them

This module does not import PyTorch, so that `rethinking sweep --help` answers at once.
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

from rethinking.config import ExperimentConfig, checked, field_by_name
from rethinking.data import operators
from rethinking.errors import InputError, nearest
from rethinking.models import catalogue

DECIDED = ("device", "precision", "runs_dir")  # options of a run that belong to the whole list of runs
SEEDS = ("seed", "randomization_seed")
MOST_NAMED = 3  # options, and groups of values, that a message names

Values = Mapping[str, Any]  # one value of each option, by field name
Made = TypeVar("Made")

FIELDS = {
    spec.name: spec
    for spec in dataclasses.fields(ExperimentConfig)
    if spec.name not in DECIDED and not spec.metadata["recorded"]
}
FLAGS = {name: spec.metadata["flag"] or name for name, spec in FIELDS.items()}


class Combination(NamedTuple):
    """One point of a grid: the values of the grid's options by field name, and the configuration."""

    values: Values
    config: ExperimentConfig


@dataclass(frozen=True)
class Grid:
    """Options and their values. The grid is the product of the values in the order given, the last option fastest.

    values: by field name, each option's values; one value for an option that does not vary
    zipped: groups of options whose values go together; a group stands where its first option stands

    Raises `InputError` for a value that is given twice, and for groups that do not fit.
    """

    values: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    zipped: tuple[tuple[str, ...], ...] = ()

    def __post_init__(self) -> None:
        grouped = [name for group in self.zipped for name in group]
        for group in self.zipped:
            self._check_group(group, grouped)
        for axis in self.axes:
            points = collections.Counter(zip(*(self.values[name] for name in axis), strict=True))
            if twice := next((point for point, times in points.items() if times > 1), None):
                raise InputError(f"{in_words(dict(zip(axis, twice, strict=True)))} is given twice; leave one out")

    def _check_group(self, group: Sequence[str], grouped: Sequence[str]) -> None:
        flags = [FLAGS[name] for name in group]
        if len(group) < 2:
            raise InputError(f"zip takes two or more options whose values go together, not {' '.join(flags)} alone")
        for name in group:
            if grouped.count(name) > 1:
                raise InputError(f"zip has {FLAGS[name]} twice; leave one out")
            if name not in self.values:
                raise InputError(f"zip has {FLAGS[name]}, which has no values; give --{FLAGS[name]}")
        counts = {FLAGS[name]: len(self.values[name]) for name in group}
        if len({*counts.values()}) > 1:
            listed = ", ".join(f"{count} of {flag}" for flag, count in counts.items())
            raise InputError(f"options that are zipped need the same number of values, not {listed}")

    @classmethod
    def of(cls, values: Mapping[str, Any], zipped: Iterable[Iterable[str]] = ()) -> Grid:
        """Returns the grid of values by field name or option name. One value stands for a list of one.

        Raises `InputError` for an unknown option and a value that is not allowed.
        """
        named: dict[str, tuple[Any, ...]] = {}
        for name, given in values.items():
            option = field_of(name)
            if option in named:
                raise InputError(f"the option {FLAGS[option]} is given twice, once under each of its names")
            several = list(given) if is_several(given) else [given]
            if not several:
                raise InputError(f"{FLAGS[option]} has no value; give one or more, or leave it out")
            named[option] = tuple(_checked(option, value) for value in several)
        return cls(named, tuple(tuple(map(field_of, group)) for group in zipped))

    @property
    def axes(self) -> list[tuple[str, ...]]:
        """The options of each factor of the product: one, or several that are zipped."""
        group_of = {name: group for group in self.zipped for name in group}
        return list(dict.fromkeys(group_of.get(name, (name,)) for name in self.values))

    @property
    def varied(self) -> tuple[str, ...]:
        """The options with several values, in the order given."""
        return tuple(name for name, values in self.values.items() if len(values) > 1)

    def partners(self, name: str) -> tuple[str, ...]:
        """Returns the other options of the group of `name`."""
        return tuple(other for group in self.zipped if name in group for other in group if other != name)

    def points(self) -> list[Values]:
        """Returns the values of every combination by field name."""
        factors = [
            [dict(zip(axis, point, strict=True)) for point in zip(*(self.values[name] for name in axis), strict=True)]
            for axis in self.axes
        ]
        return [
            {name: value for part in parts for name, value in part.items()} for parts in itertools.product(*factors)
        ]

    def combinations(self, **shared: Any) -> list[Combination]:
        """Returns every combination with its configuration. `shared` are further options of all configurations.

        Raises `InputError` that names all combinations whose options do not fit together.
        """
        return self.fitting(self.points(), lambda values: values, lambda values: self._combined(values, shared))

    @staticmethod
    def _combined(values: Values, shared: Values) -> Combination:
        return Combination(values, ExperimentConfig(**{**shared, **of_run(values)}))

    def fitting(
        self, candidates: Sequence[Any], values_of: Callable[[Any], Values], make: Callable[[Any], Made]
    ) -> list[Made]:
        """Returns what `make` makes of each candidate.

        values_of: returns the values of a candidate

        Raises `InputError` that names the values of all candidates for which `make` raises it.
        """
        made: list[Made] = []
        right: list[Values] = []
        wrong: list[tuple[Values, InputError]] = []
        for candidate in candidates:
            try:
                made.append(make(candidate))
                right.append(values_of(candidate))
            except InputError as error:
                wrong.append((values_of(candidate), error))
        if wrong:
            raise InputError(self._misfit(right, wrong))
        return made

    def _misfit(self, right: Sequence[Values], wrong: Sequence[tuple[Values, InputError]]) -> str:
        """Returns the line about combinations that do not fit: how many, which values, and the first error."""
        first, count = wrong[0][1], len(right) + len(wrong)
        if not right:  # so no value of the grid is at fault
            return str(first)
        at_fault = self._at_fault(right, [values for values, _ in wrong])
        named = [in_words(values) for values in at_fault[:MOST_NAMED]]
        if len(at_fault) > MOST_NAMED:
            named.append(f"{len(at_fault) - MOST_NAMED} more")
        verb = "does" if len(wrong) == 1 else "do"
        return f"{len(wrong)} of {count} combinations {verb} not fit together: {'; '.join(named)}: {first}"

    def _at_fault(self, right: Sequence[Values], wrong: Sequence[Values]) -> list[Values]:
        """Returns the different values, of as few options as possible, that tell wrong combinations from right ones."""

        def chosen(values: Values, names: tuple[str, ...]) -> tuple[Any, ...]:
            return tuple(values[name] for name in names)

        for size in range(1, MOST_NAMED + 1):
            for names in itertools.combinations(self.varied, size):
                found = dict.fromkeys(chosen(values, names) for values in wrong)
                if found.keys().isdisjoint(chosen(values, names) for values in right):
                    return [dict(zip(names, values, strict=True)) for values in found]
        return [{name: values[name] for name in self.varied} for values in wrong]


def of_run(values: Values) -> dict[str, Any]:
    """Returns the options of a run with these values of a grid.

    Without `randomization`, `corruption_prob` chooses it, so that the runs are those of Table 1 and Figure 1b: 0 stands
    for true labels, 1 for random labels. Where nothing is drawn, `randomization_seed` is 0, as in `reproduce`.
    """
    options = dict(values)
    if "randomization" not in options and options.get("corruption_prob") is not None:
        probability = options.pop("corruption_prob")
        if probability in (0, 1):
            options["randomization"] = "random_labels" if probability else "none"
        else:
            options |= {"randomization": "partial_corrupt", "corruption_prob": probability}
    if options.get("randomization", "none") == "none" and not options.get("pixel_noise"):
        options.pop("randomization_seed", None)
    return options


def field_of(name: str) -> str:
    """Returns the field of an option, from either of its names. Raises `InputError` for an unknown name."""
    plain = str(name).replace("-", "_")
    found = field_by_name().get(plain, plain)
    if found in DECIDED:
        raise InputError(f"{plain} belongs to the whole sweep, and is no axis of it")
    if found not in FIELDS:
        raise InputError(f"there is no option '{name}' of a run{nearest(plain, [*FIELDS, *FLAGS.values()])}")
    return found


def is_several(value: Any) -> bool:
    """Whether a value from Python or YAML is a list of values, such as a list, a range or an array."""
    return isinstance(value, Iterable) and not isinstance(value, str | bytes | os.PathLike | Mapping)


def in_words(values: Values) -> str:
    """Returns options with their values, such as 'lr_schedule cosine with lr_decay 0.9'."""
    return " with ".join(f"{FLAGS[name]} {text_of(value)}" for name, value in values.items())


def text_of(value: Any) -> str:
    """Returns a value as tables show it. Different values have different texts."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "default" if value is None else str(value).removesuffix(".0")


def is_numeric(values: Iterable[Any]) -> bool:
    """Whether all values are numbers, so that they have places on an axis."""
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)


def _checked(name: str, value: Any) -> Any:
    """Returns a value of an option, converted to its type. Raises `InputError` for one that is not allowed."""
    value = value.item() if hasattr(value, "item") else value  # of NumPy
    value = checked(FIELDS[name], value)
    if name == "model_name" and ":" not in value:
        catalogue.find(value)
    if name == "randomization" and ":" not in value:
        operators.OPERATORS.find(value)
    return value
