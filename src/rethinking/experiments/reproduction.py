"""One reproduction: the runs that tables and figures need, their training, and the numbers that follow from them."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any

from rethinking.config import ExperimentConfig
from rethinking.data import sources
from rethinking.errors import BusyError, ImpossibleError, InputError, RunError, nearest
from rethinking.experiments import archive
from rethinking.experiments.catalogue import EXPERIMENTS
from rethinking.experiments.catalogue import find as find_experiment
from rethinking.experiments.experiment import Answer, Cell, Config, Evidence, Row, cells
from rethinking.experiments.scale import SCALES, ImageSource, Scale, Study
from rethinking.identity import question
from rethinking.models import catalogue
from rethinking.options import check_seeds, command_line, option
from rethinking.steps import Steps, unwatched
from rethinking.sweep.here import wait_for_others
from rethinking.sweep.many import train_many
from rethinking.theory import tasks
from rethinking.theory.kernel_machine import KernelMachineConfig
from rethinking.theory.run import TheoryConfig, TheoryResult, made_by
from rethinking.theory.run import find as find_theory
from rethinking.theory.trained import MeasurementConfig
from rethinking.training import find
from rethinking.training.memory import LIBRARIES, at_once_that_fit, footprint
from rethinking.training.preparation import Observe, accepting, resolve
from rethinking.training.run_dir import RunResult

Result = RunResult | TheoryResult
Watch = Callable[[TheoryConfig], Steps]  # makes an observer of the steps of one run that trains nothing

BY_NAME = [name for name, experiment in EXPERIMENTS.items() if not experiment.of_runs]  # the experiments of `all`


@dataclass(frozen=True, kw_only=True)
class Reproduction:
    """The options of `reproduce.py`. Raises `InputError` for unknown names and wrong values."""

    experiment: str = option(
        MISSING,
        "table1, table3, table4, figure1a, figure1b, figure1c, figure2b, minimum_norm, expressivity, rademacher,"
        " stability, complexity, or all; or your own FILE.py (docs/extending.md)",
        positional=True,
        metavar="NAME",
    )
    runs: tuple[str, ...] = option(
        (),
        "complexity: measure the finished runs in these folders (default: the networks of Figure 1b at this scale)",
        positional=True,
        metavar="RUN",
    )
    dataset: str | None = option(
        None,
        "as for train.py (default: cifar10, and mnist too where nothing is trained; at demo scale digits)",
        metavar="NAME|PATH",
    )
    data_root: str | None = option(
        None, "a folder to search for the named data set before the Hub", metavar="FOLDER", changes_numbers=False
    )
    resize: int | None = option(
        None, "scale the shorter side of every image to N pixels and take the centre square", metavar="N"
    )
    colour: str | None = option(None, "convert every image to rgb or grey", metavar="rgb|grey")
    holdout: float = option(
        0.0,
        "share of each class's training images that becomes the test set, for data without a test set",
        metavar="SHARE",
    )
    skip_unlabelled: bool = option(False, "leave out images without a label")
    image_column: str | None = option(None, "the column of a table that holds the images", metavar="NAME")
    label_column: str | None = option(
        None, "the column of a table or metadata file that holds the labels", metavar="NAME"
    )
    models: tuple[str, ...] = option(
        (),
        "train only these models (default: at full scale the paper's, else the MLPs and small_alexnet)",
        metavar="MODEL ...",
    )
    scale: str = option(
        "full",
        "full: the paper's sizes; small: 5,000 training images (10,000 where nothing is trained); demo: the digits, in"
        " minutes",
        metavar="full|small|demo",
    )
    seeds: tuple[int, ...] = option(
        (0,), "train one run for each seed; the results show mean and standard deviation", metavar="SEED ..."
    )
    at_once: str = option(
        "auto",
        "train this many runs at the same time; auto: as many as fit into memory, on a CPU one MLP for each thread",
        metavar="auto|N",
        changes_numbers=False,
    )
    dry_run: bool = option(
        False,
        "train nothing: list the runs, which of them are done, and how long the others should take on this machine",
        changes_numbers=False,
    )
    show_only: bool = option(False, "train nothing: show and write the results so far", changes_numbers=False)
    no_wait: bool = option(
        False,
        "do not wait for runs that another process is at work on: skip them and list them",
        changes_numbers=False,
    )
    out: str | None = option(
        None,
        "write the results here (default: reproduced/<data>-<scale>, or reproduced/complexity for given runs)",
        metavar="FOLDER",
        changes_numbers=False,
    )
    runs_dir: str = option(
        "runs",
        "keep run folders here, and find earlier runs here, including those of train.py",
        metavar="FOLDER",
        changes_numbers=False,
    )
    device: str = option("auto", "where to compute", metavar="auto|cpu|cuda|mps")
    precision: str = option(
        "auto",
        "the precision of training; kernel machines use fp32 with sums in float64, all others float64",
        metavar="auto|fp32|tf32|bf16",
    )
    filters: tuple[int, ...] = option(
        (),
        "table3: numbers of random convolutional filters (default at full scale: from 500 to the paper's 32000)",
        metavar="N ...",
    )
    bandwidth: str = option(
        "search",
        "table3, minimum_norm: bandwidth of the Gaussian kernel: search chooses it on held-out images, median takes the"
        " median distance, and a number B is taken as it is",
        metavar="search|median|B",
    )
    memory_limit: float | None = option(
        None,
        "table3, minimum_norm: use this much memory, and the disk beyond it (default: nine tenths of the free memory)",
        metavar="GIB",
        changes_numbers=False,
    )

    def __post_init__(self) -> None:
        if self.scale not in SCALES:
            raise InputError(
                f"scale must be one of {', '.join(SCALES)}, not '{self.scale}'{nearest(self.scale, SCALES)}"
            )
        if self.experiment != "all":
            object.__setattr__(self, "experiment", find_experiment(self.experiment))
        for model in self.models:
            catalogue.find(model)
        if self.runs and self.experiment != "complexity":
            raise InputError(
                f"{self.experiment} takes no run folders like '{self.runs[0]}'; give one table or figure per command"
            )
        taken = ("experiment", "runs", "dataset", "data_root", "out", "dry_run", "show_only", "no_wait")
        for spec in fields(self) if self.runs else ():
            if spec.name not in taken and getattr(self, spec.name) != spec.default:
                raise InputError(f"runs are measured as they are: leave out --{spec.name}")
        if len({Path(run).resolve().name for run in self.runs}) < len(self.runs):
            raise InputError("runs must have different names, because the results tell runs apart by them")
        check_seeds(self.seeds)
        if self.at_once != "auto" and not (self.at_once.isdecimal() and int(self.at_once) > 0):
            raise InputError(f"at_once must be auto or a whole number from 1 on, not '{self.at_once}'")
        if any(filters < 1 for filters in self.filters):
            raise InputError("filters must be whole numbers from 1 on, such as --filters 500 1000")
        KernelMachineConfig(dataset="digits", bandwidth=self.bandwidth, memory_limit=self.memory_limit)  # checks both
        ExperimentConfig(**self._reading)  # checks how images are read
        networks = [name for name in self.wanted if EXPERIMENTS[name].models]
        if not networks and self.models:
            raise InputError(f"{self.experiment} trains no network; leave out --models")
        if networks and not self.runs and not any(self._rows(name) for name in networks):
            takes = ", ".join(EXPERIMENTS[networks[0]].models)
            raise InputError(
                f"{self.experiment} has no run for these models at {self.scale} scale; give --models {takes}"
            )

    @property
    def command(self) -> str:
        """The command line with the same options."""
        return command_line("python reproduce.py", self)

    @property
    def wanted(self) -> list[str]:
        """The names of the requested experiments and of their companions."""
        if self.experiment == "all":
            return BY_NAME
        name = "complexity_runs" if self.runs else self.experiment
        return [name, *EXPERIMENTS[name].companions]

    @functools.cached_property
    def rows(self) -> dict[str, list[Row]]:
        """The rows of each experiment that has some. Raises `InputError` where none has, or the data is missing."""
        rows = {name: rows for name in self.wanted if (rows := self._rows(name))}
        if not rows:
            raise InputError(f"{self.experiment} has no run for images like those of --dataset {self.dataset}")
        return rows

    def _rows(
        self, name: str, more_models: tuple[str, ...] = (), kept: Mapping[str, Evidence] = MappingProxyType({})
    ) -> list[Row]:
        """The experiment's rows, for the requested models or else for the paper's models at this scale."""
        experiment, scale = EXPERIMENTS[name], SCALES[self.scale]
        if not experiment.models:
            return [] if self.models else experiment.rows(self._study_of_theory(scale, kept))
        own = (model for model in experiment.models if model in scale.models or model not in catalogue.PAPER)
        models = self.models or tuple(own) or (scale.models if experiment.any_model else ())
        # The paper's models come first, in the catalogue's order.
        models = tuple(sorted(dict.fromkeys((*models, *more_models)), key=_place_in_catalogue))
        options = {
            "runs_dir": self.runs_dir,
            "data_root": self.data_root,
            "device": self.device,
            "precision": self.precision,
            **self._reading,
        }
        if self.dataset is not None:
            options["dataset"] = self.dataset
        return experiment.rows(Study(scale, models, options, runs=self.runs))

    def _study_of_theory(self, scale: Scale, kept: Mapping[str, Evidence]) -> Study:
        """The study of an experiment that trains nothing, with the data sets and numbers of filters in the evidence."""
        options = {"runs_dir": self.runs_dir, "data_root": self.data_root, "device": self.device, **self._reading}
        machine_options = {"bandwidth": self.bandwidth, "memory_limit": self.memory_limit}
        theory = [run for run in kept.values() if not run.is_of_network]
        machines = [run.configuration for run in theory if run.task == "kernel_machines"]
        summed = {machine["filters"] for machine in machines if machine["solution"] == "minimum_norm"}
        filters = {*(self.filters or scale.filters), *(summed - {None})}
        names = {source.name for source in self._images}
        in_evidence = dict.fromkeys((run.facts["dataset"], run.facts["image_shape"][0]) for run in theory)
        added = [
            ImageSource(name, name, self._stands_for(name, channels))
            for name, channels in in_evidence
            if name not in names
        ]
        # MNIST comes first, as in the paper.
        images = sorted((*self._images, *added), key=lambda source: "mnist" not in source.stands_for)
        return Study(scale, (), options, tuple(images), tuple(sorted(filters)), machine_options)

    @functools.cached_property
    def _images(self) -> tuple[ImageSource, ...]:
        """The data sets of experiments that train nothing.

        Grey images stand for MNIST, coloured ones for CIFAR-10. The digits at demo scale stand for both.
        """
        if self.dataset is None and self.scale != "demo":
            return tuple(ImageSource(name, self._name_of(name), (name,)) for name in ("mnist", "cifar10"))
        dataset, data = self.dataset or SCALES[self.scale].dataset, self.data()
        return (ImageSource(dataset, data.name, self._stands_for(data.name, data.image_shape[0])),)

    def _name_of(self, dataset: str) -> str:
        """The name in results of a data set. Where its data is missing, it is made from the options alone."""
        try:
            return self._load(dataset).name
        except InputError:
            return dataset + sources.ReadOptions(**self._reading).suffix

    def _stands_for(self, name: str, channels: int) -> tuple[str, ...]:
        if self.scale == "demo" and name == "digits":
            return ("mnist", "cifar10")
        return ("mnist",) if channels == 1 else ("cifar10",)

    @property
    def scale_in_words(self) -> str:
        """The scale, or "their own" for given runs."""
        return "their own" if self.runs else self.scale

    @property
    def left_out(self) -> list[str]:
        """The experiments of `all` that have no run at this scale or for these models."""
        return [name for name in self.wanted if name not in self.rows] if self.experiment == "all" else []

    @property
    def models_left_out(self) -> list[str]:
        """The requested models for which none of the wanted tables and figures has a run."""
        used = {config.model_name for config in self.configs() if isinstance(config, ExperimentConfig)}
        return [model for model in self.models if model not in used]

    def configs(self) -> list[Config]:
        """Every run that is needed, seed by seed. A run that tables and figures share appears once."""
        everything = [row for rows in self.rows.values() for row in rows]
        return list(dict.fromkeys(row.with_seed(seed) for seed in self.seeds for row in everything))

    @property
    def _reading(self) -> dict[str, Any]:
        """The options that say how images are read, under the names that all configurations use."""
        return {spec.name: getattr(self, spec.name) for spec in fields(sources.ReadOptions)}

    def data(self) -> sources.ImageData:
        """Load the data that networks are trained on. Raises `InputError` where it is missing or cannot be read."""
        return self._load(self.dataset or SCALES[self.scale].dataset)

    def all_data(self, begin: Steps = unwatched) -> list[sources.ImageData]:
        """Load every data set that rows use, except missing ones."""
        if self.runs:
            return []
        of_networks = any(EXPERIMENTS[name].models for name in self.rows)
        of_theory = any(not EXPERIMENTS[name].models for name in self.rows)
        needed = [self.dataset or SCALES[self.scale].dataset] if of_networks else []
        needed += [source.dataset for source in self._images] if of_theory else []
        found = []
        for dataset in dict.fromkeys(needed):
            with contextlib.suppress(InputError):  # the runs that need it report it
                found.append(self._load(dataset, begin))
        return found

    def _load(self, dataset: str, begin: Steps = unwatched) -> sources.ImageData:
        """Load a data set. Where all experiments train networks, unsuitable images are refused before decoding."""
        networks = all(EXPERIMENTS[name].models for name in self.wanted)
        accept = accepting(ExperimentConfig()) if networks else sources.accept_any
        return sources.load(dataset, self.data_root, sources.ReadOptions(**self._reading), accept, begin)

    def folder(self) -> Path:
        """The folder of the results: `--out`, or else one for this data and scale."""
        if self.out:
            return Path(self.out)
        if self.runs:
            return Path("reproduced") / "complexity"
        dataset = self.dataset or SCALES[self.scale].dataset
        name = self._name_of(dataset) if dataset in sources.NAMES else self.data().name
        return Path("reproduced") / f"{name}-{self.scale}"

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
        missing = {config for config in needed if not self.finished_answer(config, kept)}
        measured = [config for config in missing if isinstance(config, MeasurementConfig) and config not in self._given]
        for network in {network for config in measured for network in config.networks()} - missing:
            try:
                found = find(network)
            except RunError:  # damaged
                found = None
            if found is None or not found.finished:
                missing.add(network)
        return [config for config in needed if config in missing]

    @functools.cached_property
    def _given(self) -> set[Config]:
        """The measurements of runs that are given by their folders."""
        return {row.config for rows in self.rows.values() for row in rows if row.own_seed}

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
                resolve(config, self.data())
            except InputError as error:
                networks.remove(config)
                failed.add(config)
                yield config, self._failure(config, error)
        busy: set[Config] = set()
        for config, outcome in train_many(networks, at_once=self._at_once, observe=observe, progress=False):
            if isinstance(outcome, Exception):
                (busy if isinstance(outcome, BusyError) else failed).add(config)
                if not isinstance(outcome, RunError):
                    outcome = RunError(" ".join(str(outcome).split()) or type(outcome).__name__)
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

    def _failure(self, config: Config, error: InputError) -> RunError:
        """The error of a run that fails alone, because the data does not allow it or has too few images.

        With `all`, every run that trains nothing fails alone. Otherwise `error` is raised, and ends the command.
        """
        theory = self.experiment == "all" and isinstance(config, TheoryConfig)
        if theory or isinstance(error, ImpossibleError) or self._fails_alone(config):
            return RunError(str(error))
        raise error

    def _fails_alone(self, config: Config) -> bool:
        """Whether the data has too few images for this run, but enough for another."""
        return self._lacks_images(config) and (self.experiment == "all" or self._some_have_images)

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

    def together(self, config: ExperimentConfig, runs: int) -> tuple[int, int]:
        """How many of `runs` runs like `config` train at once, and their peak of memory in bytes."""
        data = self.data()
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
        seeds = sorted({*self.seeds, *(run.configuration["seed"] for run in kept.values())})
        answers = []
        more_models = (*EXPERIMENTS[name].models, *(_own_models(kept) if EXPERIMENTS[name].any_model else ()))
        for row in self._rows(name, more_models, kept):
            own = [row.config.seed] if row.own_seed else seeds
            found = ((seed, self._answer(row.with_seed(seed), kept)) for seed in own)
            of_row = [Answer(row, seed, evidence) for seed, evidence in found if evidence is not None]
            answers += [answer for answer in of_row if answer.evidence.finished] or of_row
        return answers

    def misses(self, name: str, kept: Mapping[str, Evidence]) -> list[Config]:
        """The runs that an experiment still needs."""
        needed = (row.with_seed(seed) for row in self.rows[name] for seed in self.seeds)
        return [config for config in needed if not self.finished_answer(config, kept)]

    def _answer(self, config: Config, kept: Mapping[str, Evidence]) -> Evidence | None:
        """The best evidence for `config`, from any device and in any precision unless one is requested."""
        if isinstance(config, TheoryConfig):
            return self._answer_of_theory(config, kept)
        data = self.data()
        try:
            wanted = question(resolve(config, data), data.name, data.fingerprint)
        except InputError as error:
            self._failure(config, error)
            return None
        eligible = {name: run for name, run in kept.items() if self._wanted.items() <= run.configuration.items()}
        return archive.best_answer(eligible, wanted)

    @property
    def _wanted(self) -> dict[str, str]:
        """Device and precision, where they are requested."""
        return {name: value for name in ("device", "precision") if (value := getattr(self, name)) != "auto"}

    def _answer_of_theory(self, config: TheoryConfig, kept: Mapping[str, Evidence]) -> Evidence | None:
        """The evidence for `config`: on the requested data, or else on data of the same name in the evidence."""
        needed = isinstance(config, MeasurementConfig) or config.dataset in {source.dataset for source in self._images}
        try:
            data = sources.load_for(config) if needed else None
            if data is not None and isinstance(config, MeasurementConfig):
                config = config.resolved(data)
        except InputError as error:
            self._failure(config, error)
            data = None
        wanted = dict(self._wanted)
        if not isinstance(config, MeasurementConfig):
            wanted.pop("precision", None)  # only training has one
        for run in kept.values():
            if not wanted.items() <= run.configuration.items():
                continue
            name, fingerprint = run.facts["dataset"], run.facts["provenance"]["fingerprint"]
            same = (name, fingerprint) == (data.name, data.fingerprint) if data else name == config.dataset
            if not run.is_of_network and same and run.question == question(config, name, fingerprint):
                return run
        return None

    def cells(self, name: str, kept: Mapping[str, Evidence]) -> list[Cell]:
        """The cells or points of an experiment, from the evidence."""
        return cells(EXPERIMENTS[name].numbers(self.answers(name, kept)))


def _place_in_catalogue(model: str) -> int:
    return catalogue.PAPER.index(model) if model in catalogue.PAPER else len(catalogue.PAPER)


def _own_models(kept: Mapping[str, Evidence]) -> list[str]:
    """The networks in the evidence that are not the paper's and can be found from here."""
    names = {run.configuration["model_name"] for run in kept.values() if run.is_of_network} - {*catalogue.PAPER}
    found = []
    for name in sorted(names):
        with contextlib.suppress(InputError):
            catalogue.find(name)
            found.append(name)
    return found
