"""`reproduce` and `sweep`, for Python: what these commands do, with a result to work with."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from rethinking import notebook
from rethinking.config import ExperimentConfig
from rethinking.errors import BusyError, InputError, RunError, nearest
from rethinking.experiments import archive
from rethinking.experiments.experiment import Config
from rethinking.experiments.reproduction import Reproduction
from rethinking.options import given, options_of
from rethinking.run_list_console import RunListConsole
from rethinking.sitting import Reproduced, Sitting, Table
from rethinking.sweeps.metrics import METRICS
from rethinking.sweeps.options import asked
from rethinking.sweeps.sweep import NAME, Sweep
from rethinking.training.preparation import planning_many
from rethinking.training.run_dir import RunResult


def reproduce(experiment: str, *, progress: bool | None = None, **options: Any) -> Reproduced:
    """Trains the missing runs of a table or figure, writes the results, and returns the tables.

        rethinking.reproduce("table1", scale="demo", models=("mlp_1x512",))["table1"].frame()

    It does the same as `rethinking reproduce`. `options` are the options of that command, which are the fields of
    `experiments.reproduction.Reproduction`. `progress` shows progress; by default a notebook shows it and a script does
    not. A dry run prints its list and returns the tables so far.

    Raises `InputError` for wrong options and for options that do not fit the data. Raises `RunError` after writing the
    results if runs failed.
    """
    reproduction = Reproduction(**_given({"experiment": experiment, **options}))
    sitting = Sitting(reproduction)
    if reproduction.dry_run:
        RunListConsole(reproduction, Console()).dry_run()
        sitting.kept = archive.read(reproduction.folder())
        return sitting.reproduced
    with reproduction.machines(), notebook.shown(progress) as display:
        reproduction.all_data(display.steps("data"))
        running = sitting.run(display.observers, lambda config: display.steps(sitting.named(config)))
        with contextlib.closing(running) as carried_out:
            for config, outcome in carried_out:
                if isinstance(outcome, RunError):
                    display.say(f"failed: {sitting.named(config)}: {outcome}")
                elif not isinstance(config, ExperimentConfig):
                    display.say(f"finished: {sitting.named(config)}")
    sitting.raise_failures()
    return sitting.reproduced


def _given(options: Mapping[str, Any]) -> dict[str, Any]:
    """Converts options to those of `Reproduction`. Raises `InputError` for an unknown name or a wrong type."""
    known = {option.name: option for option in options_of(Reproduction)}
    for name in options.keys() - known.keys():
        raise InputError(f"unknown option '{name}'{nearest(name, known) or '; the options are ' + ', '.join(known)}")
    return {name: given(known[name], value) for name, value in options.items()}


def sweep(*, progress: bool | None = None, **options: Any) -> Swept:
    """Returns a grid of runs, which trains what is missing when it is iterated.

        swept = rethinking.sweep(model="mlp_1x512", dataset="digits", corruption_prob=[0, 0.5, 1], seed=range(3))
        for result in swept:
            print(result.config.seed, result.final["train_accuracy"])
        swept.frame()

    It does the same as `rethinking sweep`. An option of a run has one value, or a list of values. The other options are
    those of that command, which are the fields of `sweeps.options.SweepOptions`. `zip` is a list of names, or a list of
    such lists. `progress` shows progress; by default a notebook shows it and a script does not. A dry run prints its
    list, and trains nothing when it is iterated.

    Raises `InputError` for wrong options, and for options that do not fit together or do not fit the data.
    """
    chosen = Sweep.of(asked(options))
    if chosen.ray is None:  # else a combination may fit the cluster alone
        _ = chosen.rows  # checks every combination against its data
    if chosen.dry_run:
        RunListConsole(chosen, Console()).dry_run()
    return Swept(chosen, progress)


def _in_own_context(results: Generator[RunResult, None, None]) -> Iterator[RunResult]:
    """Yields what a generator yields. Context variables that it sets are not seen outside."""
    context = contextvars.copy_context()
    try:
        while True:
            try:
                result = context.run(next, results)
            except StopIteration:
                return
            yield result
    finally:
        context.run(results.close)


class Swept:
    """A grid of runs. Iterating it trains the missing runs and writes the results.

    It yields the `RunResult` of each run: finished ones first, then each one as it ends. A run that fails is not
    yielded, and does not stop the others. `RunError` is raised after the last one if runs failed. Runs that only the
    evidence in the folder of results answers are in the frame and the table, and are not yielded.

    folder: the folder of the results
    failed: runs that failed, in words, with their errors
    """

    def __init__(self, chosen: Sweep, progress: bool | None) -> None:
        self._sweep = chosen
        self._progress = progress
        self._sitting = Sitting(chosen)
        self._done = chosen.dry_run

    @property
    def folder(self) -> Path:
        """The folder of the results."""
        return self._sweep.folder()

    @property
    def failed(self) -> dict[str, RunError]:
        """Runs that failed, in words, with their errors."""
        return {self._sitting.named(config): error for config, error in self._sitting.failed.items()}

    def __len__(self) -> int:
        return len(self._sweep.configs())

    def __iter__(self) -> Iterator[RunResult]:
        return iter(()) if self._sweep.dry_run else _in_own_context(self._trained())

    def _trained(self) -> Generator[RunResult, None, None]:
        sitting = self._sitting = Sitting(self._sweep)
        with self._sweep.machines(), notebook.shown(self._progress) as display:
            left = {*self._sweep.configs()}
            for config, result in self._finished():
                left.discard(config)
                yield result
            running = sitting.run(display.observers, lambda config: display.steps(sitting.named(config)))
            with contextlib.closing(running) as carried_out:
                for config, outcome in carried_out:
                    left.discard(config)
                    if isinstance(outcome, RunResult):
                        yield outcome
                    elif isinstance(outcome, BusyError):
                        display.say(f"another process is at work on: {sitting.named(config)}")
                    elif isinstance(outcome, RunError):
                        display.say(f"failed: {sitting.named(config)}: {outcome}")
            # Another process may have finished runs while the caller looked at the first results.
            if left:
                yield from (result for config, result in self._finished() if config in left)
        self._done = True
        sitting.raise_failures()

    def _finished(self) -> Iterator[tuple[Config, RunResult]]:
        with planning_many():
            all_found = list(self._sweep.found())
        for config, found in all_found:
            if isinstance(found, RunResult) and found.finished:
                yield config, found

    def frame(self) -> Any:
        """Returns a pandas DataFrame with one row per run: its options that vary, and its final numbers.

        The missing runs are trained first. Runs that have no epoch yet have no row. Raises `InputError` where pandas is
        not installed, and `RunError` where runs failed at that time; a second call returns the other runs.
        """
        self._carry_out()
        return notebook.frame(self._rows())

    @property
    def table(self) -> Table | None:
        """The table, as far as there are runs to fill it. The missing runs are trained first, as in `frame`."""
        self._carry_out()
        return self._table()

    def _carry_out(self) -> None:
        if not self._done:
            for _ in self:
                pass

    def _table(self) -> Table | None:
        self._read()
        return self._sitting.table(NAME)

    def _read(self) -> None:
        if not self._sitting.kept:
            self._sitting.kept = archive.read(self.folder)

    def _rows(self) -> list[dict[str, Any]]:
        self._read()
        rows: dict[str, dict[str, Any]] = {}
        for one in self._sweep.members:
            evidence = self._sweep.evidence(one.config, self._sitting.kept)
            if evidence is not None and evidence.run not in rows:
                measured = {name: metric.of(evidence.metrics, evidence.facts) for name, metric in METRICS.items()}
                rows[evidence.run] = {
                    **self._sweep.named_values(one),
                    **{name: value.number for name, value in measured.items()},
                    "finished": evidence.finished,
                    "run": evidence.run,
                }
        return list(rows.values())

    def __repr__(self) -> str:
        varied = ", ".join(self._sweep.grid.varied)
        return f"Swept({len(self)} runs{f' over {varied}' if varied else ''}; in {self.folder})"

    def _repr_html_(self) -> str:
        """The table so far. It trains nothing."""
        found = self._table()
        shown = found._repr_html_() if found else notebook.table([], [["no run so far", repr(self)]])
        return shown + notebook.table([], [["results", str(self.folder)]])
