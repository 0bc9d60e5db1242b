"""One reproduction: the runs that tables and figures need, their training, and the numbers that follow from them."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any

from rethinking.config import ExperimentConfig
from rethinking.data import sources
from rethinking.errors import InputError, nearest
from rethinking.experiments.catalogue import EXPERIMENTS
from rethinking.experiments.catalogue import find as find_experiment
from rethinking.experiments.experiment import Config, Evidence, Experiment, Row
from rethinking.experiments.run_list import RunList
from rethinking.experiments.scale import SCALES, ImageSource, Scale, Study
from rethinking.identity import question
from rethinking.models import catalogue
from rethinking.options import check_seeds, option
from rethinking.steps import Steps, unwatched
from rethinking.theory.convolutional import FilterOptions
from rethinking.theory.kernel_machine import KernelMachineConfig
from rethinking.theory.run import TheoryConfig, TheoryResult
from rethinking.theory.trained import MeasurementConfig
from rethinking.training.preparation import accepting
from rethinking.training.run_dir import RunResult

Result = RunResult | TheoryResult
Watch = Callable[[TheoryConfig], Steps]  # makes an observer of the steps of one run that trains nothing

OF_ALL = [name for name, experiment in EXPERIMENTS.items() if not experiment.of_runs and not experiment.by_name_only]


@dataclass(frozen=True, kw_only=True)
class Reproduction(RunList):
    """The options of `reproduce.py`. Raises `InputError` for unknown names and wrong values."""

    experiment: str = option(
        MISSING,
        "table1, table3, table4, figure1a, figure1b, figure1c, figure2b, minimum_norm, expressivity, rademacher,"
        " stability, complexity, memorized, detection, or all; or your own FILE.py (docs/extending.md)",
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
    filters: tuple[int, ...] = option(
        (),
        "table3: numbers of random convolutional filters (default at full scale: from 500 to the paper's 32000)",
        metavar="N ...",
    )
    filter_options: str | None = option(
        None,
        "table3: options of random convolutional features, such as 'mirror=True, pool_size=15, pool_stride=6'"
        " (docs/reproduce/table3_filter_options.md)",
        metavar="NAME=VALUE,...",
        default_text="Coates & Ng's",
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
        self._check_running()
        if any(filters < 1 for filters in self.filters):
            raise InputError("filters must be whole numbers from 1 on, such as --filters 500 1000")
        object.__setattr__(self, "filter_options", FilterOptions.parsed(self.filter_options).text)
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
    def program(self) -> str:
        """The command without its options."""
        return "python reproduce.py"

    @property
    def all_seeds(self) -> tuple[int, ...]:
        """The seeds of rows that have none of their own."""
        return self.seeds

    @property
    def experiments(self) -> Mapping[str, Experiment]:
        """All tables and figures by name."""
        return EXPERIMENTS

    @property
    def every_run_fails_alone(self) -> bool:
        """Whether a run that trains nothing and does not fit the data fails alone: with `all`."""
        return self.experiment == "all"

    @property
    def wanted(self) -> list[str]:
        """The names of the requested experiments and of their companions."""
        if self.experiment == "all":
            return OF_ALL
        name = "complexity_runs" if self.runs else self.experiment
        return [name, *EXPERIMENTS[name].companions]

    @functools.cached_property
    def rows(self) -> dict[str, list[Row]]:
        """The rows of each experiment that has some. Raises `InputError` where none has, or the data is missing."""
        rows = {name: rows for name in self.wanted if (rows := self._rows(name))}
        if not rows:
            images = f" for images like those of --dataset {self.dataset}" if self.dataset else ""
            more = "give another --scale or --dataset"
            raise InputError(f"{self.experiment} has no run at {self.scale} scale{images}; {more}")
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
            "device": self.one_device,
            "precision": self.precision,
            **self._reading,
        }
        if self.dataset is not None:
            options["dataset"] = self.dataset
        return experiment.rows(Study(scale, models, options, runs=self.runs))

    def _study_of_theory(self, scale: Scale, kept: Mapping[str, Evidence]) -> Study:
        """The study of an experiment that trains nothing, with the data sets and the filters in the evidence."""
        options = {"runs_dir": self.runs_dir, "data_root": self.data_root, "device": self.one_device, **self._reading}
        machine_options = {"bandwidth": self.bandwidth, "memory_limit": self.memory_limit}
        theory = [run for run in kept.values() if not run.is_of_network]
        machines = [run.configuration for run in theory if run.task == "kernel_machines"]
        summed = [machine for machine in machines if machine["solution"] == "minimum_norm" and machine["filters"]]
        filters = {*(self.filters or scale.filters), *(machine["filters"] for machine in summed)}
        # Options that are only compared (table3_filter_options) have an l2 term, and a part of the images.
        used = (machine for machine in summed if not machine["l2"] or machine["train_subset"] is None)
        filter_options = {self.filter_options, *(machine.get("filter_options") for machine in used)}
        names = {source.name for source in self._images}
        in_evidence = dict.fromkeys((run.facts["dataset"], run.facts["image_shape"][0]) for run in theory)
        added = [
            ImageSource(name, name, self._stands_for(name, channels))
            for name, channels in in_evidence
            if name not in names
        ]
        # MNIST comes first, as in the paper.
        images = sorted((*self._images, *added), key=lambda source: "mnist" not in source.stands_for)
        return Study(
            scale,
            (),
            options,
            tuple(images),
            tuple(sorted(filters)),
            tuple(sorted(filter_options, key=lambda text: text or "")),
            machine_options,
        )

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
    def words_for_scale(self) -> str:
        """The scale, or "their own" for given runs."""
        return "their own" if self.runs else self.scale

    @property
    def left_out(self) -> list[str]:
        """The models that no wanted table or figure trains, and what of `all` has no run, in a sentence each."""
        networks = (config.network if isinstance(config, MeasurementConfig) else config for config in self.configs())
        used = {network.model_name for network in networks if isinstance(network, ExperimentConfig)}
        lines = [f"{model}, which no chosen table or figure trains" for model in self.models if model not in used]
        for name in (name for name in self.wanted if name not in self.rows and self.experiment == "all"):
            takes = ", ".join(EXPERIMENTS[name].models)
            untrained = "trains no network" if self.models else f"has no run at {self.scale} scale for these images"
            why = f"takes --models {takes}" if takes else untrained
            lines.append(f"{name}, which {why}")
        return lines

    @functools.cached_property
    def given(self) -> set[Config]:
        """The measurements of runs that are given by their folders."""
        return {row.config for rows in self.rows.values() for row in rows if row.own_seed}

    def rows_with(self, name: str, kept: Mapping[str, Evidence]) -> list[Row]:
        """The rows of an experiment, with those of further models in the evidence."""
        more_models = (*EXPERIMENTS[name].models, *(_own_models(kept) if EXPERIMENTS[name].any_model else ()))
        return self._rows(name, more_models, kept)

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

    def answer_of_theory(self, config: TheoryConfig, kept: Mapping[str, Evidence]) -> Evidence | None:
        """The evidence for `config`: on the requested data, or else on data of the same name in the evidence."""
        needed = isinstance(config, MeasurementConfig) or config.dataset in {source.dataset for source in self._images}
        try:
            data = sources.load_for(config) if needed else None
            if data is not None and isinstance(config, MeasurementConfig):
                config = config.resolved(data)
        except InputError as error:
            self._failure(config, error)
            data = None
        wanted = dict(self.requested)
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
