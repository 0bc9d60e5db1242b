"""What a person sees of a reproduction: the list of a dry run, and tables that fill in."""

from __future__ import annotations

import collections
import contextlib
import functools
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.table import Table

from rethinking.config import ExperimentConfig
from rethinking.console import Progress, StepsInWords, duration, say
from rethinking.errors import BusyError, InputError, RunError
from rethinking.experiments import archive
from rethinking.experiments.catalogue import EXPERIMENTS
from rethinking.experiments.experiment import Config, Evidence
from rethinking.experiments.reproduction import Reproduction, Result, seconds_per_epoch
from rethinking.report import results, tables
from rethinking.theory import fitting, tasks
from rethinking.theory.kernel_machine import KernelMachineConfig
from rethinking.theory.memory import product_rate
from rethinking.theory.run import TheoryConfig, TheoryResult
from rethinking.theory.trained import MeasurementConfig
from rethinking.training.hardware import resolve_device
from rethinking.training.networks import cut

BETWEEN_WRITINGS = 60.0  # seconds; tables and figures take a few to draw


class ReproductionConsole:
    """A reproduction as it goes: the table at work under the live line as it fills in, all of them at the end."""

    def __init__(self, reproduction: Reproduction, console: Console) -> None:
        self._reproduction = reproduction
        self._console = console
        self._kept: dict[str, Evidence] = {}
        self._failed: set[Config] = set()

    @functools.cached_property
    def _names(self) -> dict[Config, str]:
        """Every run in words."""
        return named_apart(self._reproduction.configs())

    def _named(self, config: Config) -> str:
        return self._names.get(config) or _named(config)

    def dry_run(self) -> None:
        """The list of runs, which are done, and how long and how much memory the rest should take here."""
        self._describe_data()
        title = self._reproduction.folder().name
        table = Table("run", "epochs", "time left", title=title, title_justify="left")
        measured: dict[str, tuple[float, float]] = {}
        total, peak = 0.0, 0
        summed: dict[tuple[str, int], int] = collections.defaultdict(int)  # filters, by the runs before
        rate = 0.0  # of matrix products, once it is needed
        kept = archive.read(self._reproduction.folder())
        missing = {*self._reproduction.missing(kept)}
        found = [
            (config, (None if config in missing else self._reproduction.finished_answer(config, kept)) or result)
            for config, result in self._reproduction.found()
        ]
        left = collections.Counter(
            config.model_name
            for config, result in found
            if isinstance(config, ExperimentConfig) and not _is_over(result)
        )
        for config, result in found:
            if isinstance(result, RunError):
                table.add_row(self._named(config), "", f"fails: {result}")
                continue
            if isinstance(config, TheoryConfig):
                if _is_over(result):
                    table.add_row(self._named(config), "", "done")
                    continue
                try:
                    if isinstance(config, KernelMachineConfig):
                        by_then = summed[config.dataset, config.seed]
                        memory, operations = fitting.estimate_cost(config, by_then)
                        if config.solution == "minimum_norm":
                            summed[config.dataset, config.seed] = max(by_then, config.filters or 0)
                    else:
                        memory, operations = tasks.estimate_cost(config)
                except InputError as error:
                    table.add_row(self._named(config), "", f"fails: {error}")
                    continue
                rate = rate or product_rate(resolve_device(config.device), size=2048)
                seconds = operations / rate
                total, peak = total + seconds, max(peak, int(memory))
                table.add_row(self._named(config), "", duration(seconds))
                continue
            assert not isinstance(result, TheoryResult), "it is of a network"
            done = len(result.metrics) if result else 0
            if _is_over(result):
                table.add_row(self._named(config), f"{done}", "done")
                continue
            at_once, memory = self._reproduction.together(config, left[config.model_name])
            images = config.train_subset or len(self._reproduction.data().train)
            epoch = seconds_per_epoch(config, images, at_once, measured)
            seconds = epoch * (config.num_epochs - done)
            total, peak = total + seconds, max(peak, memory)
            most = "at most " if config.stop_when_fit else ""
            table.add_row(self._named(config), f"{done} of {config.num_epochs}", f"{most}{duration(seconds)}")
        self._console.print(table)
        self._left_out()
        networks = [config for config, _ in found if isinstance(config, ExperimentConfig)]
        most = "at most " if any(config.stop_when_fit for config in networks) else ""
        self._print(f"{most}{duration(total)} left in all on this machine, from a few measured steps of each kind")
        if peak:
            self._print(f"about {peak / 2**30:.1f} GiB of memory at most")

    def run(self) -> None:
        """Train what is missing and write the results. Raises `RunError` at the end where runs failed."""
        self._describe_data()
        folder = self._reproduction.folder()
        self._keep(folder, self._so_far())  # before the first run, so that a folder that cannot be written shows now
        failed: list[str] = []
        busy: list[str] = []
        try:
            if not self._reproduction.show_only:
                failed, busy = self._train(folder)
        finally:
            self._keep(folder, self._so_far())  # how far an interrupted one came
            self._write(folder)
        self._console.print(self._tables())
        self._left_out()
        if self._kept:
            self._print(f"written to {folder}; open {folder / 'report.html'}")
        else:
            self._print("no run so far")
        for name in busy:
            self._print(f"another process is at work on: {name}")
        if failed:
            raise RunError(f"{len(failed)} of the runs failed, the others are done: {'; '.join(failed)}")
        if busy:
            raise RunError(f"other processes are at work on {len(busy)} of the runs; run the same command again later")

    def _describe_data(self) -> None:
        with contextlib.closing(StepsInWords(self._console)) as steps:
            found = self._reproduction.all_data(steps.of("data"))
        networks = any(EXPERIMENTS[name].models for name in self._reproduction.rows)
        for data in found:
            say(self._console, [*data.described(), *(cut(ExperimentConfig(), data) if networks else [])])

    def _train(self, folder: Path) -> tuple[list[str], list[str]]:
        """What is missing, its evidence into `folder`; returns in words what failed, and what others are at work on."""
        failed: list[str] = []
        busy: list[str] = []
        written = time.monotonic()
        progress = Progress(self._console, self._table_at_work)
        # Closed whatever happens here, since runs side by side would go on.
        with (
            contextlib.closing(StepsInWords(self._console)) as steps,
            contextlib.closing(
                self._reproduction.train(self._kept, progress.observers, lambda config: steps.of(self._named(config)))
            ) as trained,
        ):
            for config, outcome in trained:
                steps.close()
                if isinstance(outcome, BusyError):
                    busy.append(_named(config))
                    continue
                if isinstance(outcome, RunError):
                    failed.append(f"{self._named(config)}: {outcome}")
                    self._failed.add(config)
                    self._print(f"failed: {failed[-1]}")
                    continue
                self._keep(folder, [outcome])
                progress.refresh()
                if not self._console.is_terminal:
                    self._print(f"finished: {self._named(config)}")
                if time.monotonic() - written > BETWEEN_WRITINGS:
                    self._write(folder)
                    written = time.monotonic()
        return failed, busy

    def _so_far(self) -> list[Result]:
        return [result for _, result in self._reproduction.found() if result and not isinstance(result, RunError)]

    def _keep(self, folder: Path, found: list[Result]) -> None:
        self._kept = archive.add(folder, [archive.evidence(result) for result in found])

    def _write(self, folder: Path) -> None:
        """Tables, figures and page of the evidence as it is now, with what other processes added."""
        with archive.locked(folder) as self._kept:
            results.write(self._reproduction, self._kept)

    def _table_at_work(self) -> RenderableType:
        """The first table or figure that misses runs which have not failed."""
        for name in self._tabled():
            if set(self._reproduction.misses(name, self._kept)) - self._failed:
                return self._table(name)
        return ""

    def _tables(self) -> RenderableType:
        return Group(*(self._table(name) for name in self._tabled()))

    def _tabled(self) -> list[str]:
        """What was asked for, but for long tables of curves that are made along with others."""
        first, *others = self._reproduction.rows
        plots = {name: EXPERIMENTS[name].plot for name in others}
        return [first, *(name for name, plot in plots.items() if plot is None or not plot.tabled)]

    def _table(self, name: str) -> RenderableType:
        """As far as there are runs to fill it."""
        cells = self._reproduction.cells(name, self._kept)
        if not cells:
            return ""
        caption = results.caption(EXPERIMENTS[name], cells, self._kept, self._reproduction.scale_in_words)
        return tables.Terminal(EXPERIMENTS[name].title, tables.grid(EXPERIMENTS[name], cells), caption)

    def _left_out(self) -> None:
        for model in self._reproduction.models_left_out:
            self._print(f"left out: {model}, of which nothing that was asked for has a run")
        for name in self._reproduction.left_out:
            takes = ", ".join(EXPERIMENTS[name].models)
            why = f"takes --models {takes}" if takes else "trains no network, or is not of these images"
            self._print(f"left out: {name}, which {why}")

    def _print(self, text: str) -> None:
        say(self._console, [text])


def _is_over(result: Evidence | Result | RunError | None) -> bool:
    return isinstance(result, RunError | TheoryResult) or (result is not None and result.finished)


def named_apart(configs: Sequence[Config]) -> dict[Config, str]:
    """Runs in words; those of one name with the options that they differ in."""
    alike: dict[str, list[Config]] = {}
    for config in configs:
        alike.setdefault(_named(config), []).append(config)
    names = {}
    for name, group in alike.items():
        identities = [config.identity() for config in group]
        options = dict.fromkeys(option for identity in identities for option in identity)
        differing = [o for o in options if len({str(identity.get(o)) for identity in identities}) > 1]
        for config, identity in zip(group, identities, strict=True):
            apart = [f"{option} {identity.get(option, 'default')}" for option in differing]
            names[config] = ", ".join([name, *apart])
    return names


def _named(config: Config) -> str:
    """A run in words: what sets it apart from the others of a reproduction."""
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
