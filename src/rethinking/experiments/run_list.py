"""A list of runs and the tables that show them: what a reproduction and a sweep have in common."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from rethinking.config import ExperimentConfig
from rethinking.data import sources
from rethinking.engines.here import wait_for_others
from rethinking.engines.many import train_many
from rethinking.engines.tasks import portable
from rethinking.errors import BusyError, ImpossibleError, InputError, RunError
from rethinking.experiments import archive
from rethinking.experiments.experiment import Answer, Cell, Config, Evidence, Experiment, Row, cells
from rethinking.experiments.running import Running
from rethinking.identity import question
from rethinking.options import command_line
from rethinking.steps import Steps, unwatched
from rethinking.theory import tasks
from rethinking.theory.run import TheoryConfig, TheoryResult, made_by
from rethinking.theory.run import find as find_theory
from rethinking.theory.trained import MeasurementConfig
from rethinking.training import find
from rethinking.training.hardware import planning_for
from rethinking.training.memory import LIBRARIES, at_once_that_fit, footprint
from rethinking.training.preparation import Observe, planning_many, resolve
from rethinking.training.run_dir import RunResult

Result = RunResult | TheoryResult
Watch = Callable[[TheoryConfig], Steps]  # makes an observer of the steps of one run that trains nothing


@dataclass(frozen=True, kw_only=True)
class RunList(Running):
    """A list of runs, the options for carrying them out, and the tables and figures that show them.

    A subclass says which runs there are (`rows`), what shows them (`experiments`) and where the results go (`folder`).

    Raises `InputError` for wrong values.
    """

    # What a subclass says

    @property
    def rows(self) -> dict[str, list[Row]]:
        """The rows of each table and figure that has some, by its name."""
        raise NotImplementedError

    @property
    def experiments(self) -> Mapping[str, Experiment]:
        """The tables and figures by name."""
        raise NotImplementedError

    def folder(self) -> Path:
        """The folder of the results."""
        raise NotImplementedError

    def all_data(self, begin: Steps = unwatched) -> list[sources.ImageData]:
        """Load every data set that the runs use, except missing ones."""
        raise NotImplementedError

    @property
    def program(self) -> str:
        """The command without its options."""
        raise NotImplementedError

    @property
    def all_seeds(self) -> tuple[int, ...]:
        """The seeds of rows that have none of their own."""
        return (0,)

    @property
    def words_for_scale(self) -> str:
        """The scale in words; empty where there is none."""
        return ""

    @property
    def wanted(self) -> list[str]:
        """The names of the tables and figures to write."""
        return list(self.rows)

    @property
    def left_out(self) -> list[str]:
        """What the options ask for and no run answers, in a sentence each."""
        return []

    @property
    def every_run_fails_alone(self) -> bool:
        """Whether a run that trains nothing and does not fit the data fails alone, instead of ending the command."""
        return False

    def rows_with(self, name: str, kept: Mapping[str, Evidence]) -> list[Row]:
        """The rows of an experiment, with those that only the evidence has."""
        return self.rows[name]

    @property
    def given(self) -> set[Config]:
        """Measurements of runs that are given by their folders."""
        return set()

    # What follows

    @contextlib.contextmanager
    def machines(self) -> Iterator[None]:
        """Connect to the Ray cluster, where one is asked for, and plan runs for its machines in this context.

        Raises `InputError` where Ray or the cluster is missing.
        """
        if self.ray is None or self.show_only:
            yield
            return
        from rethinking.engines.on_ray import ray_cluster  # Ray is an optional package

        with ray_cluster(self.ray or None) as machine, planning_for(machine):
            yield

    @property
    def command(self) -> str:
        """The command line with the same options."""
        return command_line(self.program, self)

    def configs(self) -> list[Config]:
        """Every run that is needed, seed by seed. A run that tables and figures share appears once."""
        everything = [row for rows in self.rows.values() for row in rows]
        return list(dict.fromkeys(row.with_seed(seed) for seed in self.all_seeds for row in everything))

    def found(self) -> Iterator[tuple[Config, Result | RunError | None]]:
        """Every run that is needed, with its result so far: None before it begins, the error where it is damaged."""
        for config in self.configs():
            try:
                yield config, find(config) if isinstance(config, ExperimentConfig) else find_theory(config)
            except RunError as error:
                yield config, error
            except InputError as error:
                yield config, self._failure(config, error)

    def missing(self, kept: Mapping[str, Evidence]) -> list[Config]:
        """The runs that are still needed, because the evidence does not answer them.

        A network that the evidence answers is needed again where a measurement of it is missing and its folder is gone.
        """
        needed = self.configs()
        with planning_many():
            missing = {config for config in needed if not self.finished_answer(config, kept)}
        measured = [config for config in missing if isinstance(config, MeasurementConfig) and config not in self.given]
        for network in {network for config in measured for network in config.networks()} - missing:
            try:
                found = find(network)
            except RunError:  # damaged
                found = None
            if found is None or not found.finished:
                missing.add(network)
        return [config for config in needed if config in missing]

    def finished_answer(self, config: Config, kept: Mapping[str, Evidence]) -> Evidence | None:
        """The finished run in the evidence that answers `config`, from any machine; None where there is none."""
        answer = self._answer(config, kept)
        return answer if answer is not None and answer.finished else None

    def train(
        self, kept: Mapping[str, Evidence], observe: Observe = tuple, watch: Watch = lambda config: unwatched
    ) -> Generator[tuple[Config, Result | RunError], None, None]:
        """Train the networks that the evidence lacks, in groups of `at_once`, then carry out the other runs in turn.

        Yields each run with its result or error. A run that fails, or that the data does not allow, does not stop the
        others. Runs that another process is at work on are tried again after all others, until they are done. With
        `no_wait` each of them is yielded with its `BusyError`. Raises `InputError` where data or options do not fit any
        run.
        """
        left = self.missing(kept)
        failed: set[Config] = set()  # networks that failed
        pause = 0.0
        while left:
            busy = []
            for config, outcome in self._train_once(left, failed, observe, watch):
                if isinstance(outcome, BusyError) and not self.no_wait:
                    busy.append(config)
                else:
                    yield config, outcome
            if busy:
                pause = wait_for_others(pause, len(busy))
            left = busy

    def _train_once(
        self, configs: list[Config], failed: set[Config], observe: Observe, watch: Watch
    ) -> Iterator[tuple[Config, Result | RunError]]:
        """Carry out each configuration and yield its result or error. Networks that fail are added to `failed`."""
        theory = [config for config in configs if isinstance(config, TheoryConfig)]
        for one in list(theory):
            try:
                tasks.estimate_cost(one)
            except InputError as error:
                theory.remove(one)
                yield one, self._failure(one, error)
        networks = [config for config in configs if isinstance(config, ExperimentConfig)]
        for config in list(networks):
            try:
                self._question(config)
            except InputError as error:
                networks.remove(config)
                failed.add(config)
                yield config, self._failure(config, error)
        busy: set[Config] = set()
        for config, outcome in self._train_networks(networks, observe):
            if isinstance(outcome, Exception):
                (busy if isinstance(outcome, BusyError) else failed).add(config)
                if not isinstance(outcome, RunError):
                    outcome = RunError(str(portable(outcome)))
            yield config, outcome
        # Ascending, because the sums over filters continue from one number of filters to the next.
        for one in sorted(theory, key=lambda config: getattr(config, "filters", None) or 0):
            needed = {*one.networks()} if isinstance(one, MeasurementConfig) else set()
            if needed & (failed | busy):
                yield one, RunError("its network failed") if needed & failed else BusyError("its network is busy")
                continue
            made_by.set(self.command)
            try:
                yield one, tasks.carry_out(one, watch(one))
            except BusyError as error:
                yield one, error
            except (RunError, InputError) as error:  # for example where free memory has shrunk
                yield one, RunError(str(error))

    def _train_networks(
        self, networks: list[ExperimentConfig], observe: Observe
    ) -> Iterator[tuple[ExperimentConfig, RunResult | Exception]]:
        """Train networks where the options say: here, on several devices, or on a Ray cluster."""
        yield from train_many(
            networks,
            at_once=self._at_once,
            devices=self._devices,
            ray=False if self.ray is None else self.ray or True,
            runs_shared=self.runs_shared,
            observe=observe,
            progress=False,
        )

    def _failure(self, config: Config, error: InputError) -> RunError:
        """The error of a run that fails alone, because the data does not allow it or has too few images.

        With `every_run_fails_alone` that holds for all runs that train nothing. Otherwise `error` is raised, and ends
        the command.
        """
        theory = self.every_run_fails_alone and isinstance(config, TheoryConfig)
        if theory or isinstance(error, ImpossibleError) or self._fails_alone(config):
            return RunError(str(error))
        raise error

    def _fails_alone(self, config: Config) -> bool:
        """Whether the data has too few images for this run, but enough for another."""
        return self._lacks_images(config) and (self.every_run_fails_alone or self._some_have_images)

    @functools.cached_property
    def _some_have_images(self) -> bool:
        return not all(self._lacks_images(config) for config in self.configs())

    def _lacks_images(self, config: Config) -> bool:
        """Whether the data has fewer training or test images than the run needs."""
        if isinstance(config, MeasurementConfig):
            return any(self._lacks_images(network) for network in config.networks())
        data = sources.load_for(config)
        train_images, test_images = len(data.train), len(data.test) if data.test else 0
        if isinstance(config, TheoryConfig):
            return (config.train_subset or 0) > train_images
        replaced = 0 if config.replaced_example is None else config.replaced_example + 1
        return (config.train_subset or replaced) > train_images or max(config.keep_test_losses, replaced) > test_images

    @property
    def _at_once(self) -> int | None:
        return None if self.at_once == "auto" else int(self.at_once)

    @property
    def _devices(self) -> tuple[str, ...] | None:
        """The devices that have a process each; None where this process trains."""
        if self.ray is not None:
            return None
        if len(self.device) > 1:
            return self.device
        all_cards = self.one_device in ("auto", "cuda") and torch.cuda.device_count() > 1
        return ("cuda",) if all_cards else None

    def together(self, config: ExperimentConfig, runs: int) -> tuple[int, int]:
        """How many of `runs` runs like `config` train at once, and their peak of memory in bytes."""
        data = sources.load_for(config)
        resolved = resolve(config, data)
        at_once = min(runs, self._at_once or at_once_that_fit(resolved))
        images, run = footprint(resolved, data)
        own = images if resolved.redraws_images else 0
        peak = LIBRARIES + at_once * (images + run) if resolved.device == "cpu" else images + at_once * (own + run)
        return at_once, peak

    def answers(self, name: str, kept: Mapping[str, Evidence]) -> list[Answer]:
        """The evidence for each row of an experiment, including models and seeds that were not requested.

        Where a row has finished runs, its unfinished ones are left out.
        """
        seeds = sorted({*self.all_seeds, *(run.configuration["seed"] for run in kept.values())})
        answers = []
        for row in self.rows_with(name, kept):
            own = [row.config.seed] if row.own_seed else seeds
            found = ((seed, self._answer(row.with_seed(seed), kept)) for seed in own)
            of_row = [Answer(row, seed, evidence) for seed, evidence in found if evidence is not None]
            answers += [answer for answer in of_row if answer.evidence.finished] or of_row
        return answers

    def misses(self, name: str, kept: Mapping[str, Evidence]) -> list[Config]:
        """The runs that an experiment still needs."""
        needed = (row.with_seed(seed) for row in self.rows[name] for seed in self.all_seeds)
        return [config for config in needed if not self.finished_answer(config, kept)]

    def _answer(self, config: Config, kept: Mapping[str, Evidence]) -> Evidence | None:
        """The best evidence for `config`, from any device and in any precision unless one is requested."""
        if isinstance(config, TheoryConfig):
            return self.answer_of_theory(config, kept)
        try:
            wanted = self._question(config)
        except InputError as error:
            self._failure(config, error)
            return None
        return archive.best_answer(kept, wanted, self.requested)

    def _question(self, config: ExperimentConfig) -> str:
        """The question of a run that trains a network. Raises `InputError` where data and options do not fit."""
        if config not in self._questions:
            data = sources.load_for(config)
            self._questions[config] = question(resolve(config, data), data.name, data.fingerprint)
        return self._questions[config]

    @functools.cached_property
    def _questions(self) -> dict[ExperimentConfig, str]:
        return {}

    def answer_of_theory(self, config: TheoryConfig, kept: Mapping[str, Evidence]) -> Evidence | None:
        """The evidence for a run that trains nothing."""
        return None

    @property
    def requested(self) -> dict[str, str]:
        """Device and precision, where they are requested."""
        requested = {"device": self.one_device.partition(":")[0], "precision": self.precision}
        return {name: value for name, value in requested.items() if value != "auto"}

    def cells(self, name: str, kept: Mapping[str, Evidence]) -> list[Cell]:
        """The cells or points of an experiment, from the evidence."""
        return cells(self.experiments[name].numbers(self.answers(name, kept)))
