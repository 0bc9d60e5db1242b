"""Carries out a list of runs: trains missing ones, keeps their evidence, writes tables, figures and the report page."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rethinking import notebook
from rethinking.config import ExperimentConfig
from rethinking.errors import BusyError, RunError
from rethinking.experiments import archive
from rethinking.experiments.experiment import Cell, Config, Evidence
from rethinking.experiments.run_list import Result, RunList, Watch
from rethinking.report import results, tables
from rethinking.theory.trained import MeasurementConfig
from rethinking.training.preparation import Observe, planning_many

BETWEEN_WRITINGS = 60.0  # seconds; drawing tables and figures takes a few seconds
MOST_ERRORS = 5  # that the last line of a command repeats
KEEPING_SHARE = 0.05  # of the time that writing the evidence of many runs may take


@dataclass(frozen=True, repr=False)
class Table:
    """A table, or the numbers of a figure, as far as there are runs to fill it.

    cells: one per number of ours, with the runs behind it
    caption: a sentence about what the numbers measure
    grid: the rows of the table as texts
    """

    name: str
    title: str
    caption: str
    cells: tuple[Cell, ...]
    grid: tables.Grid

    def __repr__(self) -> str:
        return f"Table({self.title}; cells: {len(self.cells)})"

    def _repr_html_(self) -> str:
        rows = [[entry.text for entry in row] for row in self.grid.rows]
        return notebook.table(self.grid.headings, rows, self.title, self.caption)

    def frame(self) -> Any:
        """Returns a pandas DataFrame with one row per number.

        Its columns are labels, quantity, place, our value and its spread, and the paper's value where there is one.
        Raises `InputError` where pandas is not installed.
        """
        found = notebook.frame([tables.row(cell) for cell in self.cells])
        return found if any(cell.paper is not None for cell in self.cells) else found.drop(columns=tables.PAPERS)


class Reproduced(Mapping[str, Table]):
    """The tables of a reproduction by name, such as 'table1', and the folder with the results.

    shown: the names of the tables that a notebook shows; the others are long tables of curves
    """

    def __init__(self, folder: Path, found: Mapping[str, Table], shown: Sequence[str]) -> None:
        self.folder = folder
        self.shown = tuple(name for name in shown if name in found)
        self._found = dict(found)

    def __getitem__(self, name: str) -> Table:
        return self._found[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)

    def __repr__(self) -> str:
        return f"Reproduced({', '.join(self._found) or 'no run so far'}; in {self.folder})"

    def _repr_html_(self) -> str:
        shown = "".join(self[name]._repr_html_() for name in self.shown)
        return shown + notebook.table([], [["written to", str(self.folder)]])


class Sitting:
    """The work of one process on a list of runs.

    kept: the evidence so far, by the names of runs
    failed: runs that failed, with their errors
    busy: runs that other processes are at work on
    needed: the runs that this sitting begins with, because the evidence lacks them
    """

    def __init__(self, runs: RunList) -> None:
        self.runs = runs
        self.kept: dict[str, Evidence] = {}
        self.failed: dict[Config, RunError] = {}
        self.busy: list[Config] = []
        self.needed: list[Config] = []
        self._waiting: list[Result] = []  # results that are not in the evidence yet
        self._keeping = 0.0  # seconds that the last writing of evidence took
        self._kept_at = 0.0  # the time of that writing

    def run(self, observe: Observe, watch: Watch) -> Generator[tuple[Config, Result | RunError], None, None]:
        """Trains what is missing, unless `show_only` is set, and writes the results.

        Yields each run with its outcome. Its evidence is kept by then, or soon after where much evidence makes the
        writing slow. Close the generator at the end: runs side by side would otherwise continue.
        """
        self._keep(self._so_far())  # before the first run, so that it fails early where the folder cannot be written
        self.needed = self.runs.missing(self.kept)
        written = time.monotonic()
        try:
            if self.runs.show_only:
                return
            with contextlib.closing(self.runs.train(self.kept, observe, watch)) as trained:
                for config, outcome in trained:
                    if isinstance(outcome, BusyError):
                        self.busy.append(config)
                    elif isinstance(outcome, RunError):
                        self.failed[config] = outcome
                    else:
                        self._keep_soon(outcome)
                    yield config, outcome
                    if time.monotonic() - written > BETWEEN_WRITINGS:
                        self._keep(self._waiting)
                        self._write()
                        written = time.monotonic()
        finally:
            self._keep(self._so_far())  # with the epochs of interrupted runs
            self._write()

    def raise_failures(self) -> None:
        """Raises `RunError` where runs failed or other processes are at work on some."""
        if self.failed:
            errors = [f"{self.named(config)}: {error}" for config, error in self.failed.items()]
            if len(errors) > MOST_ERRORS:
                errors[MOST_ERRORS:] = [f"{len(errors) - MOST_ERRORS} more, as said above"]
            others = ", the others are done" if len(self.failed) < len(self.runs.configs()) else ""
            raise RunError(f"{len(self.failed)} of the runs failed{others}: {'; '.join(errors)}")
        if self.busy:
            raise RunError(
                f"other processes are at work on {len(self.busy)} of the runs; run the same command again later"
            )

    def table(self, name: str) -> Table | None:
        """Returns a table as far as there are runs to fill it; None where there are no runs."""
        cells = self.runs.cells(name, self.kept)
        if not cells:
            return None
        experiment = self.runs.experiments[name]
        caption = results.caption(experiment, cells, self.kept, self.runs.words_for_scale)
        return Table(name, experiment.title, caption, tuple(cells), tables.grid(experiment, cells))

    @property
    def shown(self) -> list[str]:
        """The names of the requested tables, without long tables of curves that come along with others."""
        first, *others = self.runs.rows
        plots = {name: self.runs.experiments[name].plot for name in others}
        return [first, *(name for name, plot in plots.items() if plot is None or not plot.tabled)]

    @property
    def reproduced(self) -> Reproduced:
        """The tables so far, as `reproduce` returns them."""
        found = {name: table for name in self.runs.rows if (table := self.table(name))}
        return Reproduced(self.runs.folder(), found, self.shown)

    @functools.cached_property
    def _names(self) -> dict[Config, str]:
        return named_apart(self.runs.configs())

    def named(self, config: Config) -> str:
        """Returns a run in words, which differ from the words of every other run."""
        return self._names.get(config) or in_words(config)

    def _so_far(self) -> list[Result]:
        with planning_many():
            found = list(self.runs.found())
        return [result for _, result in found if result and not isinstance(result, RunError)]

    def _keep_soon(self, result: Result) -> None:
        """Keeps a result at once, unless the writing of evidence would take too large a share of the time."""
        self._waiting.append(result)
        if time.monotonic() - self._kept_at >= self._keeping / KEEPING_SHARE:
            self._keep(self._waiting)

    def _keep(self, found: list[Result]) -> None:
        began = time.monotonic()
        self.kept = archive.add(self.runs.folder(), [archive.evidence(result) for result in found])
        self._waiting = []
        self._kept_at = time.monotonic()
        self._keeping = self._kept_at - began

    def _write(self) -> None:
        """Writes tables, figures and the page from the evidence so far, with the evidence of other processes."""
        with archive.locked(self.runs.folder()) as self.kept:
            results.write(self.runs, self.kept)


def named_apart(configs: Sequence[Config]) -> dict[Config, str]:
    """Returns every run in words. Runs with equal words get the options in which they differ."""
    alike: dict[str, list[Config]] = {}
    for config in configs:
        alike.setdefault(in_words(config), []).append(config)
    names = {}
    for name, group in alike.items():
        identities = [config.identity() for config in group]
        options = dict.fromkeys(option for identity in identities for option in identity)
        differing = [o for o in options if len({str(identity.get(o)) for identity in identities}) > 1]
        for config, identity in zip(group, identities, strict=True):
            apart = [f"{option} {identity.get(option, 'default')}" for option in differing]
            names[config] = ", ".join([name, *apart])
    return names


def in_words(config: Config) -> str:
    """Returns a run in words: what sets it apart from the other runs of a list."""
    if isinstance(config, ExperimentConfig):
        words = _words_of_network(config)
    elif isinstance(config, MeasurementConfig):
        model, *words = _words_of_network(config.network)
        words = [f"{' '.join(config.words)} of {model}", *words]
    else:
        words = [Path(config.dataset).name, *config.words]
    images = [f"{config.train_subset:,} images"] if config.train_subset else []
    return ", ".join([*words, f"seed {config.seed}", *images])


def _words_of_network(config: ExperimentConfig) -> list[str]:
    words = [config.model_name, config.randomization]
    if config.corruption_prob is not None:
        words.append(f"p={config.corruption_prob:g}")
    words += [name for name in ("weight_decay", "random_crop", "augment_flip_rotate") if getattr(config, name)]
    if config.replaced_example is not None:
        words.append(f"example {config.replaced_example} replaced")
    elif config.keep_test_losses:
        words.append("test losses kept")
    return words + ([f"draw {config.randomization_seed}"] if config.randomization == "random_signs" else [])
