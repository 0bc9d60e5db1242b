"""A sweep: a grid of runs, with a table and a figure of what they measured."""

from __future__ import annotations

import contextlib
import functools
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from rethinking.config import ExperimentConfig
from rethinking.data import sources
from rethinking.errors import InputError
from rethinking.experiments.experiment import Answer, Config, Evidence, Experiment, Labels, Number, Plot, Row
from rethinking.experiments.run_list import RunList
from rethinking.identity import digest, question
from rethinking.options import words_of
from rethinking.steps import Steps, unwatched
from rethinking.sweeps.grid import FLAGS, SEEDS, Combination, text_of
from rethinking.sweeps.metrics import METRICS
from rethinking.sweeps.options import SweepOptions
from rethinking.training.preparation import PlannedRun, accepting, planning_many

NAME = "sweep"  # of the files with the results
MAGNITUDE = 10.0  # ratio of the values along an axis from which on it is logarithmic
NAMED_BY_FILE = ("dataset", "model_name", "randomization")
LONGEST_NAME = 60  # letters of a folder's name


@dataclass(frozen=True, kw_only=True)
class Sweep(SweepOptions, RunList):
    """A grid of runs, and the options for carrying them out and for showing them.

    Raises `InputError` for wrong values, and on first use of `rows` for options that do not fit the data.
    """

    @classmethod
    def of(cls, options: SweepOptions) -> Sweep:
        """Returns the sweep with these options."""
        return cls(**{spec.name: getattr(options, spec.name) for spec in fields(options)})

    @property
    def program(self) -> str:
        """The command without its options."""
        return "rethinking sweep"

    @property
    def command(self) -> str:
        """The command line with the same options, except for those that change neither numbers nor their place."""
        words = []
        for name, values in self.grid.values.items():
            words += [f"--{FLAGS[name]}", *map(str, values)]
        place = ["--out", self.out] if self.out else []
        return shlex.join([*self.program.split(), *words, *words_of(self), *place])

    @functools.cached_property
    def _planned(self) -> list[PlannedRun]:
        """The run of every combination. Raises `InputError` that names all that do not fit the data or the machine."""
        with planning_many():
            return self.grid.fitting(self.combinations, lambda one: one.values, lambda one: PlannedRun.of(one.config))

    @functools.cached_property
    def members(self) -> list[Combination]:
        """Every combination with its configuration. Combinations of the same run have the same configuration.

        Raises `InputError` that names all combinations that do not fit the data or the machine.
        """
        first: dict[Path, ExperimentConfig] = {}
        return [
            Combination(one.values, first.setdefault(run.folder.path, one.config))
            for one, run in zip(self.combinations, self._planned, strict=True)
        ]

    @functools.cached_property
    def rows(self) -> dict[str, list[Row]]:
        """The rows of the table. A row is there once for each of its seeds that the table has no row for."""
        rows = [
            Row(tuple((FLAGS[name], self.text(name, one)) for name in self.shown), one.config, own_seed=True)
            for one in self.members
        ]
        return {NAME: list({(row.labels, row.config): row for row in rows}.values())}

    def text(self, name: str, one: Combination) -> str:
        """Returns the value of an option as the table shows it."""
        if name in one.values:
            return self._texts(name)[one.values[name]]
        return text_of(getattr(one.config, name))

    def _texts(self, name: str) -> dict[Any, str]:
        """The text of every value of an option. Files and folders go by their names, unless two have the same."""
        values = self.grid.values[name]
        short = {value: _short(value) if name in NAMED_BY_FILE else text_of(value) for value in values}
        return short if len({*short.values()}) == len(short) else {value: text_of(value) for value in values}

    @functools.cached_property
    def experiments(self) -> dict[str, Experiment]:
        """The table and figure of the sweep."""
        quantities = tuple(METRICS[name].quantity for name in self.y)
        varied = [FLAGS[name] for name in self.grid.varied if name in self.shown]
        columns = {
            FLAGS[name]: tuple(dict.fromkeys(self.text(name, one) for one in self.members))
            for name in self.table_columns
        }
        return {
            NAME: Experiment(
                title=f"Sweep over {_and(varied)}" if varied else "Sweep",
                about=f"Sweep: made by {self.command}",
                models=(),
                rows=lambda study: [],
                numbers=self._numbers,
                plot=self._plot(quantities),
                ours_only=quantities,
                columns=columns,
                repeats=self._repeats,
            )
        }

    @property
    def _repeats(self) -> str:
        """What a number is a mean over, in a word."""
        over = self.means_over
        alone = over == ("randomization_seed",)
        together = len(over) < 2 or set(over) <= {over[0], *self.grid.partners(over[0])}
        return "draw" if alone else "seed" if together else "run"

    def _plot(self, quantities: tuple[str, ...]) -> Plot | None:
        """How the figure is drawn: a panel for each quantity; None where no option that varies has numbers."""
        x = self.figure_x
        if x is None:
            return None
        values = [float(value) for value in self.grid.values[x]]
        low, high = min(values), max(values)
        return Plot(
            quantities=quantities,
            series=", ".join(FLAGS[name] for name in self.figure_curves),
            curves=tuple(FLAGS[name] for name in self.figure_curves),
            x_label=FLAGS[x],
            points=True,
            panels=True,
            own_places=True,
            log_x=low > 0 and high / low >= MAGNITUDE,
        )

    def _numbers(self, answers: list[Answer]) -> list[Number]:
        """The numbers of every run. A run that answers several combinations of a row counts once."""
        x = self.figure_x
        found: dict[Any, Number] = {}
        for answer in answers:
            place = None if x is None else float(dict(answer.row.labels)[FLAGS[x]])
            for name in self.y:
                metric = METRICS[name]
                number, note = metric.of(answer.evidence.metrics, answer.evidence.facts)
                remark = ", ".join(part for part in (note, answer.evidence.progress) if part)
                found.setdefault(
                    (answer.row.labels, name, answer.evidence.run),
                    Number(answer, metric.quantity, number, None, place, remark),
                )
        return list(found.values())

    def answers(self, name: str, kept: Mapping[str, Evidence]) -> list[Answer]:
        """The evidence for each row. Where some runs of a row are finished, unfinished ones are left out."""
        of_row: dict[Labels, list[Answer]] = {}
        for row in self.rows[name]:
            evidence = self._answer(row.config, kept)
            of_row.setdefault(row.labels, [])
            if evidence is not None:
                of_row[row.labels].append(Answer(row, row.config.seed, evidence))
        return [
            answer
            for answers in of_row.values()
            for answer in ([one for one in answers if one.evidence.finished] or answers)
        ]

    def evidence(self, config: Config, kept: Mapping[str, Evidence]) -> Evidence | None:
        """The best evidence for a run; None where there is none."""
        return self._answer(config, kept)

    def named_values(self, one: Combination) -> dict[str, Any]:
        """The values of the options that vary or are shown, by the name on the command line."""
        names = dict.fromkeys((*self.grid.varied, *self.shown))
        return {FLAGS[name]: one.values.get(name, getattr(one.config, name)) for name in names}

    @functools.cached_property
    def _questions(self) -> dict[ExperimentConfig, str]:
        """The question of each run's configuration."""
        found: dict[ExperimentConfig, str] = {}
        with planning_many():
            for one, run in zip(self.members, self._planned, strict=True):
                data = sources.load_for(one.config)
                found.setdefault(one.config, question(run.config, data.name, data.fingerprint))
        return found

    def all_data(self, begin: Steps = unwatched) -> list[sources.ImageData]:
        """Load every data set of the runs, except missing ones and those that do not fit, which `rows` reports."""
        found = []
        for config in {self._reading(one.config): one.config for one in self.combinations}.values():
            with contextlib.suppress(InputError):
                found.append(sources.load_for(config, accepting(config), begin))
        return found

    @staticmethod
    def _reading(config: ExperimentConfig) -> tuple[Any, ...]:
        names = ("dataset", "data_root", *(spec.name for spec in fields(sources.ReadOptions)))
        return tuple(getattr(config, name) for name in names)

    def folder(self) -> Path:
        """The folder of the results: `--out`, or one for the data, the options that vary, and the value of the others.

        A sweep with more values or seeds goes into the same folder.
        """
        if self.out:
            return Path(self.out)
        return self._own_folder

    @functools.cached_property
    def _own_folder(self) -> Path:
        varied = [name for name in self.grid.varied if name not in SEEDS]
        fixed = {name: [*map(str, values)] for name, values in self.grid.values.items() if name not in SEEDS}
        fixed = {name: values for name, values in fixed.items() if name not in (*varied, "data_root")}
        zipped = [[name for name in group if name not in SEEDS] for group in self.grid.zipped]
        data = "+".join(dict.fromkeys(data.name for data in self.all_data()))
        words = re.sub(r"[^\w.+-]+", "_", "-".join([data, *(FLAGS[name] for name in varied)]))[:LONGEST_NAME]
        return Path("swept") / f"{words}-{digest({'fixed': fixed, 'varied': varied, 'zipped': zipped})[:6]}"

    @property
    def left_out(self) -> list[str]:
        """That some combinations are the same run as others, in a sentence."""
        runs, combinations = len(self.configs()), len(self.members)
        if runs == combinations:
            return []
        return [f"{combinations - runs} of {combinations} combinations, which are the same runs as others"]


def _short(value: str) -> str:
    """The text of a name, which is that of the file or folder alone where it is a path."""
    return Path(value).name or text_of(value)


def _and(names: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))
