"""The options of `rethinking sweep`, from a command line, a YAML file or Python.

This module does not import PyTorch, so that `rethinking sweep --help` answers at once.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from types import NoneType
from typing import Any

from rethinking.config import ExperimentConfig, checked, field_by_name, read_config_file
from rethinking.errors import InputError, nearest
from rethinking.experiments.running import Running
from rethinking.models import catalogue
from rethinking.options import Option, given, option, options_of
from rethinking.options import parse as parse_words
from rethinking.sweeps import metrics
from rethinking.sweeps.grid import DECIDED, FIELDS, FLAGS, SEEDS, Combination, Grid, field_of, is_numeric

ABOUT = (
    "Train a grid of runs. Every option of a run takes several values, and the grid is their product. Runs that are"
    " finished are found again."
)
DEPENDENT = (  # options whose value in a file is dropped where the command line gives the option before them
    ("lr_schedule", "lr_decay"),
    ("randomization", "corruption_prob"),
    ("randomization", "randomization_options"),
    ("model_name", "model_options"),
)
GROUP = "sweep"


@dataclass(frozen=True, kw_only=True)
class SweepOptions(Running):
    """The options of a sweep.

    grid: the options of the runs, with their values

    Raises `InputError` for a wrong value, and for options of runs that do not fit together.
    """

    zip: tuple[tuple[str, ...], ...] = option(
        (),
        "options whose values go together, first with first and so on, instead of every value with every value. It may"
        " be given several times",
        group=GROUP,
        metavar="OPTION ...",
    )
    in_rows: tuple[str, ...] = option(
        (),
        "options with a row for each value in the table",
        group=GROUP,
        flag="rows",
        metavar="OPTION ...",
        default_text="all that vary and have no column, except seeds, over which the table shows means",
    )
    in_columns: tuple[str, ...] = option(
        (),
        "options with a column for each value in the table",
        group=GROUP,
        flag="columns",
        metavar="OPTION ...",
        default_text="none",
    )
    x: str | None = option(
        None,
        "the option along the x axis of the figure. Its values must be numbers",
        group=GROUP,
        metavar="OPTION",
        default_text="the first option that varies over numbers, except seeds",
    )
    y: tuple[str, ...] = option(
        ("train_accuracy", "test_accuracy"),
        "what table and figure show: " + ", ".join(metrics.METRICS),
        group=GROUP,
        metavar="METRIC ...",
    )
    curves: tuple[str, ...] = option(
        (),
        "options with a curve and colour for each value in the figure",
        group=GROUP,
        metavar="OPTION ...",
        default_text="all that vary, except seeds and the one along the x axis",
    )
    out: str | None = option(
        None,
        "write the results here",
        group="running",
        metavar="FOLDER",
        default_text="swept/<data>-<options that vary>-<hash of the other options>",
        changes_numbers=False,
    )
    grid: Grid = option(Grid(), "", recorded=True)  # noqa: RUF009  # frozen

    def __post_init__(self) -> None:
        self._check_running()
        checked(_spec("precision"), self.precision)
        zipped = tuple(tuple(map(field_of, group)) for group in self.zip)
        object.__setattr__(self, "grid", Grid(self.grid.values, zipped))
        for name in ("in_rows", "in_columns", "curves"):
            object.__setattr__(self, name, tuple(map(field_of, getattr(self, name))))
        object.__setattr__(self, "y", tuple(dict.fromkeys(map(metrics.find, self.y))))
        if not self.y:
            raise InputError(f"y needs one or more of {', '.join(metrics.METRICS)}")
        if self.x is not None:
            object.__setattr__(self, "x", field_of(self.x))
        self._check_places()
        _ = self.combinations

    def _check_places(self) -> None:
        """Raises `InputError` for an option in two places of the table or the figure, and for an x without numbers."""
        for names, where in (
            ((*self.in_rows, *self.in_columns), "rows and columns"),
            ((*filter(None, [self.x]), *self.curves), "x and curves"),
        ):
            if twice := next((name for name in names if names.count(name) > 1), None):
                raise InputError(f"{where} have {FLAGS[twice]} twice; leave one out")
        if self.x is not None and not is_numeric(self.grid.values.get(self.x, ())):
            raise InputError(
                f"x needs an option whose values are numbers, and {FLAGS[self.x]} has others; try --curves"
            )
        if self.x is not None and self.x not in self.grid.values:
            raise InputError(f"x is {FLAGS[self.x]}, which has no values; give --{FLAGS[self.x]}")

    @functools.cached_property
    def combinations(self) -> list[Combination]:
        """Every combination of the grid. Raises `InputError` that names all whose options do not fit together."""
        return self.grid.combinations(device=self.one_device, precision=self.precision, runs_dir=self.runs_dir)

    @functools.cached_property
    def shown(self) -> tuple[str, ...]:
        """The options that name a number: rows, then columns. The other options have one value, or are seeds.

        Numbers are means over seeds that no option of table or figure names.
        """
        return (*self.table_rows, *self.table_columns)

    @functools.cached_property
    def table_rows(self) -> tuple[str, ...]:
        """The options in the rows of the table: those that are named, then all others that are shown."""
        others = [name for name in self._needed if name not in self.table_columns]
        named = tuple(dict.fromkeys((*self.in_rows, *others)))
        return named or ("dataset" if "model_name" in self.table_columns else "model_name",)

    @functools.cached_property
    def table_columns(self) -> tuple[str, ...]:
        """The options in the columns of the table, with those whose values go together with theirs."""
        beside = [(name, *self.grid.partners(name)) for name in self.in_columns]
        return tuple(
            dict.fromkeys(
                name
                for group in beside
                for name in group
                if name in self.in_columns or (name in self._needed and name not in self.in_rows)
            )
        )

    @functools.cached_property
    def figure_x(self) -> str | None:
        """The option along the x axis; None where there is no figure."""
        if self.x is not None:
            return self.x
        candidates = (name for name in self._needed if name not in (*SEEDS, *self.curves))
        return next((name for name in candidates if is_numeric(self.grid.values.get(name, (None,)))), None)

    @functools.cached_property
    def figure_curves(self) -> tuple[str, ...]:
        """The options that name a curve: those that are named, then all others that are shown but x.

        Options whose values follow from x name no curve.
        """
        x = self.figure_x
        follows = self.grid.partners(x) if x and len({*self.grid.values[x]}) == len(self.grid.values[x]) else ()
        others = [name for name in self.shown if name != x and name not in follows]
        return tuple(dict.fromkeys((*self.curves, *others)))

    @functools.cached_property
    def _needed(self) -> tuple[str, ...]:
        """The options that a number must be told by: those that vary, except seeds, and those that are named."""
        named = {*self.in_rows, *self.in_columns, *self.curves, *filter(None, [self.x])}
        varied = [name for name in self.grid.varied if name not in SEEDS or name in named]
        return tuple(dict.fromkeys((*varied, *(name for name in FIELDS if name in named))))

    @property
    def means_over(self) -> tuple[str, ...]:
        """The seeds that numbers are means over."""
        return tuple(name for name in self.grid.varied if name not in self.shown)


def _spec(name: str) -> dataclasses.Field[Any]:
    return next(spec for spec in fields(ExperimentConfig) if spec.name == name)


def all_options() -> list[Option]:
    """Returns the options of `rethinking sweep`: its own, those of a run with several values each, and of its list."""
    several = [_several(one) for one in options_of(ExperimentConfig) if one.name not in DECIDED]
    own = [one for one in own_options() if one.group == GROUP]
    return [*own, *several, *(one for one in own_options() if one.group != GROUP)]


def own_options() -> list[Option]:
    """Returns the options of `rethinking sweep` that are not options of a run."""
    return [_CONFIG, *options_of(SweepOptions)]


def _several(one: Option) -> Option:
    metavar = "true|false" if bool in one.kinds else one.metavar
    return one._replace(many=True, metavar=f"{metavar} ...")


_CONFIG = Option(
    "config",
    "config",
    (str, NoneType),
    None,
    "read options from a YAML file. Each has one value or a list of values, and zip has lists of options. Options on"
    " the command line override the file",
    GROUP,
    "FILE",
    None,
)


def parse(arguments: Sequence[str], prog: str = "rethinking sweep") -> SweepOptions:
    """Reads the options of a sweep from a command line. Raises `InputError` for any mistake in it."""
    options = all_options()
    values = parse_words(options, prog, ABOUT, arguments)
    path = values.pop("config")
    flags = {f"--{prefix}{one.flag}": one.name for one in options for prefix in ("", "no_")}
    words = (word.partition("=")[0].replace("-", "_").replace("__", "--", 1) for word in arguments if word[:2] == "--")
    named = [flags[word] for word in words if word in flags]
    for one in options:
        if not one.groups and named.count(one.name) > 1:
            raise InputError(f"--{one.flag} is given twice; give it once, with all its values")
    chosen = {name: values[name] for name in dict.fromkeys(named) if name != "config"}
    return asked({**_from_file(path, chosen), **chosen})


def _from_file(path: str | None, chosen: Mapping[str, Any]) -> dict[str, Any]:
    """The options in a YAML file by field name, without those that belong to what the command line overrides."""
    if path is None:
        return {}
    known = {**field_by_name(), **_own_names()}
    recorded = {spec.name for spec in fields(ExperimentConfig) if spec.metadata["recorded"]}
    values: dict[str, Any] = {}
    for name, value in read_config_file(Path(path)).items():
        plain = str(name).replace("-", "_")
        if plain not in known:
            raise InputError(f"{path}: unknown option '{name}'{nearest(plain, known)}")
        if known[plain] in values:
            raise InputError(f"{path}: the option {known[plain]} is given twice, once under each of its names")
        if known[plain] not in recorded:
            values[known[plain]] = value
    if isinstance(values.get("device"), str):
        values["device"] = [values["device"]]
    for chooser, detail in DEPENDENT:
        if chooser in chosen:
            values.pop(detail, None)
    if "model_name" in chosen and values.get("model_name") in catalogue.PAPER:
        of_file = catalogue.find(values["model_name"])
        for name in ("init", "learning_rate"):
            if values.get(name) == getattr(of_file, name):
                values.pop(name, None)
    return values


def _own_names() -> dict[str, str]:
    """The fields of `SweepOptions` by every name of an option."""
    return {name: one.name for one in options_of(SweepOptions) for name in (one.flag, one.name)}


def asked(values: Mapping[str, Any]) -> SweepOptions:
    """Returns the options of a sweep from values by field name or option name, as Python and YAML have them.

    An option of a run has one value, or a list of values. Raises `InputError` for an unknown name, and for a value that
    is not allowed.
    """
    own = {one.name: one for one in options_of(SweepOptions)}
    names = _own_names()
    of_runs = {name: field for name, field in field_by_name().items() if field in FIELDS}
    chosen: dict[str, Any] = {}
    axes: dict[str, Any] = {}
    for name, value in values.items():
        plain = str(name).replace("-", "_")
        if plain in names:
            one = own[names[plain]]
            chosen[one.name] = None if value is None and NoneType in one.kinds else given(one, value)
        elif plain in of_runs:
            axes[plain] = value
        else:
            raise InputError(f"unknown option '{name}'{nearest(plain, (*names, *of_runs)) or '; --help lists all'}")
    return SweepOptions(**chosen, grid=Grid.of(axes))
