"""Shows a list of runs on the terminal: what a dry run finds, and tables that fill in."""

from __future__ import annotations

import collections
import contextlib

from rich.console import Console, Group, RenderableType
from rich.table import Table

from rethinking.config import ExperimentConfig
from rethinking.data import sources
from rethinking.engines.timing import seconds_per_epoch
from rethinking.errors import BusyError, InputError, RunError
from rethinking.experiments import archive
from rethinking.experiments.experiment import Evidence
from rethinking.experiments.run_list import Result, RunList
from rethinking.progress import ListProgress, StepsInWords, Tally, duration, say
from rethinking.report import tables
from rethinking.sitting import Sitting, in_words
from rethinking.theory import fitting, tasks
from rethinking.theory.kernel_machine import KernelMachineConfig
from rethinking.theory.memory import product_rate
from rethinking.theory.run import TheoryConfig, TheoryResult
from rethinking.training.hardware import resolve_device
from rethinking.training.networks import cut


class RunListConsole:
    """A list of runs with its output on a terminal.

    While runs are at work, the current table stands under the live line and fills in. At the end all tables are
    printed.
    """

    def __init__(self, runs: RunList, console: Console) -> None:
        self._runs = runs
        self._console = console
        self._sitting = Sitting(runs)

    def carry_out(self) -> None:
        """Lists the runs for `dry_run`, else carries them out."""
        if self._runs.dry_run:
            self.dry_run()
        else:
            with self._runs.machines():
                self.run()

    def dry_run(self) -> None:
        """Prints the list of runs, and the time and memory that the unfinished ones should take on this machine."""
        self._describe_data()
        title = self._runs.folder().name
        table = Table("run", "epochs", "time left", title=title, title_justify="left")
        measured: dict[str, tuple[float, float]] = {}
        total, peak = 0.0, 0
        summed: dict[object, int] = collections.defaultdict(int)  # filters that earlier runs sum over
        rate = 0.0  # operations per second of matrix products; measured on first use
        kept = archive.read(self._runs.folder())
        missing = {*self._runs.missing(kept)}
        found = [
            (config, (None if config in missing else self._runs.finished_answer(config, kept)) or result)
            for config, result in self._runs.found()
        ]
        left = collections.Counter(
            config.model_name
            for config, result in found
            if isinstance(config, ExperimentConfig) and not _is_over(result)
        )
        for config, result in found:
            if isinstance(result, RunError):
                table.add_row(self._sitting.named(config), "", f"fails: {result}")
                continue
            if isinstance(config, TheoryConfig):
                if _is_over(result):
                    table.add_row(self._sitting.named(config), "", "done")
                    continue
                try:
                    if isinstance(config, KernelMachineConfig):
                        of_sums = config.dataset, config.train_subset, config.seed, config.filter_options
                        by_then = summed[of_sums]
                        memory, operations = fitting.estimate_cost(config, by_then)
                        if config.solution == "minimum_norm":
                            summed[of_sums] = max(by_then, config.filters or 0)
                    else:
                        memory, operations = tasks.estimate_cost(config)
                except InputError as error:
                    table.add_row(self._sitting.named(config), "", f"fails: {error}")
                    continue
                rate = rate or product_rate(resolve_device(config.device), size=2048)
                seconds = operations / rate
                total, peak = total + seconds, max(peak, int(memory))
                table.add_row(self._sitting.named(config), "", duration(seconds))
                continue
            assert not isinstance(result, TheoryResult), "a network's run has no result of a theory run"
            done = len(result.metrics) if result else 0
            if _is_over(result):
                table.add_row(self._sitting.named(config), f"{done}", "done")
                continue
            at_once, memory = self._runs.together(config, left[config.model_name])
            images = config.training_images(len(sources.load_for(config).train))
            epoch = seconds_per_epoch(config, images, at_once, measured)
            seconds = epoch * (config.num_epochs - done)
            total, peak = total + seconds, max(peak, memory)
            most = "at most " if config.stop_when_fit else ""
            table.add_row(self._sitting.named(config), f"{done} of {config.num_epochs}", f"{most}{duration(seconds)}")
        self._console.print(table)
        self._left_out()
        networks = [config for config, _ in found if isinstance(config, ExperimentConfig)]
        most = "at most " if any(config.stop_when_fit for config in networks) else ""
        total /= len(self._runs.device)
        self._print(f"{most}{duration(total)} left in all on this machine, estimated from a few steps of each kind")
        if peak:
            self._print(f"about {peak / 2**30:.1f} GiB of memory at most")

    def run(self) -> None:
        """Trains what is missing, prints the tables and writes the results.

        Raises `RunError` at the end if a run failed.
        """
        self._describe_data()
        progress = ListProgress(
            self._console, self._table_at_work, lambda: Tally(len(self._runs.configs()), self._sitting.needed)
        )
        with (
            contextlib.closing(StepsInWords(self._console)) as steps,
            contextlib.closing(
                self._sitting.run(progress.observers, lambda config: steps.of(self._sitting.named(config)))
            ) as carried_out,
        ):
            for config, outcome in carried_out:
                steps.close()
                failed = isinstance(outcome, RunError)
                busy = isinstance(outcome, BusyError)
                progress.over(config, finished=not failed, failed=failed and not busy)
                if busy:
                    continue
                if failed:
                    self._print(f"failed: {self._sitting.named(config)}: {outcome}")
                    continue
                progress.refresh()
                if not self._console.is_terminal:
                    self._print(f"finished: {self._sitting.named(config)}  ({progress.in_words()})")
        self._console.print(Group(*(self._table(name) for name in self._sitting.shown)))
        self._left_out()
        if self._runs.show_only and (missing := len(self._sitting.needed)):
            self._print(f"not finished: {missing} of {len(self._runs.configs())} runs")
        folder = self._runs.folder()
        if self._sitting.kept:
            self._print(f"written to {folder}; open {folder / 'report.html'}")
        else:
            self._print("no run so far")
        for config in self._sitting.busy:
            self._print(f"another process is at work on: {in_words(config)}")
        self._sitting.raise_failures()

    def _describe_data(self) -> None:
        with contextlib.closing(StepsInWords(self._console)) as steps:
            found = self._runs.all_data(steps.of("data"))
        trained = [config for config in self._runs.configs() if isinstance(config, ExperimentConfig)]
        for data in found:
            crops = dict.fromkeys(line for config in trained if self._uses(config, data) for line in cut(config, data))
            say(self._console, [*data.described(), *crops])

    @staticmethod
    def _uses(config: ExperimentConfig, data: sources.ImageData) -> bool:
        try:
            return sources.load_for(config).fingerprint == data.fingerprint
        except InputError:  # reported by the run
            return False

    def _table_at_work(self) -> RenderableType:
        """Returns the first table or figure with missing runs, apart from failed ones."""
        for name in self._sitting.shown:
            if set(self._runs.misses(name, self._sitting.kept)) - self._sitting.failed.keys():
                return self._table(name)
        return ""

    def _table(self, name: str) -> RenderableType:
        """Returns a table as far as there are runs to fill it."""
        table = self._sitting.table(name)
        return tables.Terminal(table.title, table.grid, table.caption) if table else ""

    def _left_out(self) -> None:
        for line in self._runs.left_out:
            self._print(f"left out: {line}")

    def _print(self, text: str) -> None:
        say(self._console, [text])


def _is_over(result: Evidence | Result | RunError | None) -> bool:
    return isinstance(result, RunError | TheoryResult) or (result is not None and result.finished)
