"""Verifies published numbers: trains their runs again, and says whether the new numbers lie within the known spread.

A published number is a row of a table in a folder of results, with its runs in the evidence beside it. Its runs are
trained again in the published precision, or found in `runs_dir`. The new numbers come from the same function that made
the table. `spread` says how far they may lie from the published mean.

A number is not verified, and nothing is trained, where the evidence does not say how it was made: where a commit is
missing or marked `-dirty`, or versions, hardware or precision are missing.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch

from rethinking import training
from rethinking.config import ExperimentConfig
from rethinking.data import sources
from rethinking.data.readers.contents import ReadOptions
from rethinking.errors import InputError, RunError, nearest
from rethinking.experiments import archive
from rethinking.experiments.catalogue import EXPERIMENTS
from rethinking.experiments.experiment import Answer, Cell, Config, Evidence, Number, cells
from rethinking.experiments.quantities import quantity as quantity_of
from rethinking.experiments.reproduction import Reproduction, Result, Watch
from rethinking.experiments.scale import SCALES
from rethinking.notebook import shown
from rethinking.report import tables
from rethinking.spread import Spread, spread_of
from rethinking.steps import unwatched
from rethinking.theory import tasks
from rethinking.theory.run import TheoryConfig
from rethinking.theory.run import find as find_theory
from rethinking.theory.trained import MeasurementConfig
from rethinking.training.preparation import Observe

Key = tuple[object, ...]  # labels, quantity and place of a number
RECORDED = ("commit", "hardware", "device", "precision", "cpu_threads", "platform", "fingerprint")
VERSIONS = ("python", "torch", "numpy", "rethinking-generalization")
ORIGIN = ("hardware", "device", "precision", "cpu_threads")  # and the versions: what may change digits
COSTS = (  # facts that say where and how fast a run was made, and not what came out
    "run",
    "network",
    "command",
    "provenance",
    "seconds",
    "construction_seconds",
    "steps",
    "memory",
    "peak_gib",
    "cholesky_gflops",
    "product_gflops",
)


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What to verify, and how. Raises `InputError` where no table is named.

    results: the folder of results
    table: the name of a table or figure there
    row: values of the row's labels; all must agree. A word may be LABEL=VALUE
    quantity: the names of quantities; empty for all
    x: a place on a figure's axis; None for all
    seeds: published seeds; empty for the first one of each number
    dataset: the place of the data; None for a place that follows from its name
    precision: None for the published precision
    threads: computing threads; None for the published number where this machine has as many

    The other fields are those of `ExperimentConfig`.
    """

    results: str
    table: str
    row: tuple[str, ...] = ()
    quantity: tuple[str, ...] = ()
    x: float | None = None
    seeds: tuple[int, ...] = ()
    dataset: str | None = None
    data_root: str | None = None
    runs_dir: str = "runs"
    device: str = "auto"
    precision: str | None = None
    threads: int | None = None

    def __post_init__(self) -> None:
        if self.threads is not None and self.threads < 1:
            raise InputError(f"threads must be a whole number from 1 on, not {self.threads}")


@dataclass(frozen=True)
class Needed:
    """A published run that is to be trained again.

    config: the same run for this machine
    """

    published: Evidence
    config: Config

    @property
    def threads(self) -> int:
        """The number of computing threads of the published run."""
        return int(self.published.facts["provenance"]["cpu_threads"])

    def find(self) -> Result | None:
        """Returns the finished run in `runs_dir`; None where there is none. Raises the errors of `train`."""
        if isinstance(self.config, TheoryConfig):
            return find_theory(self.config)
        found = training.find(self.config)
        return found if found is not None and found.finished else None


@dataclass(frozen=True)
class Prepared:
    """The published numbers to verify, and the runs behind them.

    cells: the chosen cells of the table
    answers, numbers: the whole table's, from the evidence
    targets: the chosen numbers, one for each cell and seed
    """

    choice: Choice
    cells: list[Cell]
    answers: list[Answer]
    numbers: list[Number]
    targets: list[Number]
    needed: list[Needed]


@dataclass(frozen=True)
class Again:
    """A published run and the new run.

    new: the evidence of the new run, with as many epochs as the published one has
    was_there: whether the new run was found and not trained
    """

    published: Evidence
    new: Evidence
    path: Path
    was_there: bool

    @property
    def is_identical(self) -> bool:
        """Whether the runs agree in every digit that results keep: six for each metric of an epoch, all for a fact."""
        if not self.published.is_of_network:
            return _facts(self.published) == _facts(self.new)
        return _metrics(self.published) == _metrics(self.new)

    @property
    def is_the_same_run(self) -> bool:
        """Whether the run that was found is the published run itself, and not a second one."""
        same = self.published.facts["provenance"] == self.new.facts["provenance"]
        return self.was_there and same and self.published.facts["seconds"] == self.new.facts["seconds"]

    @property
    def changes(self) -> list[str]:
        """What may change digits and differs between the two runs, such as 'torch 2.12.0, published with 2.11.0'."""
        then, now = (run.facts["provenance"] for run in (self.published, self.new))
        pairs = [(name.replace("_", " "), then.get(name), now.get(name)) for name in ORIGIN]
        pairs += [(name, then["versions"].get(name), now["versions"].get(name)) for name in VERSIONS]
        return [f"{name} {new}, published with {old}" for name, old, new in pairs if old != new]


@dataclass(frozen=True)
class Verdict:
    """One published number and the same number of the new run.

    published: of the same seed
    mean: over the published seeds
    new: None where the new run has not reached it
    """

    labels: tuple[tuple[str, str], ...]
    quantity: str
    x: float | None
    seed: int
    published: float | None
    mean: float | None
    seeds: int
    new: float | None
    spread: Spread

    @property
    def difference(self) -> float | None:
        """The new number less the published mean."""
        return None if self.new is None or self.mean is None else self.new - self.mean

    @property
    def is_equal(self) -> bool:
        """Whether the new number equals the published one of the same seed, as tables print it."""
        return tables.shown(self.quantity, self.new) == tables.shown(self.quantity, self.published)

    @property
    def is_within(self) -> bool:
        """Whether the new number equals the published one, or lies within the spread around the mean."""
        return self.is_equal or (self.difference is not None and abs(self.difference) <= self.spread.width)


@dataclass(frozen=True)
class Verification:
    """The verdict on each chosen number, and the runs behind the verdicts."""

    choice: Choice
    verdicts: tuple[Verdict, ...]
    runs: tuple[Again, ...]

    @property
    def is_within(self) -> bool:
        """Whether all numbers are within their spread."""
        return all(verdict.is_within for verdict in self.verdicts)


def verify(
    results: str | Path, table: str, row: str | Sequence[str] = (), *, progress: bool | None = None, **options: Any
) -> Verification:
    """Trains the runs of published numbers again, or finds them, and compares the numbers.

        rethinking.verify("results/cifar10", "table1", "mlp_3x512").is_within

    It does the same as `rethinking verify`; `options` are the options of that command, which are the fields of
    `Choice`. `progress` shows progress; by default a notebook shows it and a script does not.

    Raises `InputError` for unknown names and for data that is missing or differs. Raises `RunError` where the number
    cannot be verified, or a run fails.
    """
    known = {spec.name for spec in fields(Choice)}
    for name in options.keys() - known:
        raise InputError(f"unknown option '{name}'{nearest(name, known)}")
    words = (row,) if isinstance(row, str) else tuple(row)
    prepared = prepare(Choice(results=str(results), table=table, row=words, **options))
    with shown(progress) as display:
        return carry_out(prepared, display.observers)


def prepare(choice: Choice) -> Prepared:
    """Reads the published numbers, and checks that their runs can be trained again. Trains nothing.

    Raises `InputError` and `RunError` as `verify` does.
    """
    folder = Path(choice.results)
    table, _, scale = tables.read_csv(_path(folder, choice.table))
    chosen = _narrowed(table, choice)
    kept = archive.read(folder)
    of_cells = _published(chosen, kept, folder)
    for run in of_cells:
        if lacking := incomplete(run):
            raise RunError(f"cannot be verified: {run.run} in {folder} {lacking}")
    places = _places(of_cells, choice)
    everything = {name: kept[name] for cell in table for name in cell.runs if name in kept}
    reproduction = _reproduction(choice, scale, everything, places)
    answers = reproduction.answers(choice.table, everything)
    numbers = EXPERIMENTS[choice.table].numbers(answers)
    _check_agreement(chosen, numbers, kept, folder)
    targets = _targets(chosen, numbers, choice.seeds)
    behind = dict.fromkeys(run for number in targets for run in number.runs)
    by_run = {answer.evidence.run: answer for answer in answers}
    needed = [Needed(kept[run], _here(by_run[run], places, choice)) for run in behind]
    return Prepared(choice, chosen, answers, numbers, targets, needed)


def carry_out(prepared: Prepared, observe: Observe = tuple, watch: Watch = lambda config: unwatched) -> Verification:
    """Trains the needed runs, or finds them, and compares the numbers. Raises the errors of `train`.

    observe, watch: make the observers of a run that trains a network, and of one that trains nothing
    """
    again = {one.published.run: _again(one, prepared.choice.threads, observe, watch) for one in prepared.needed}
    replaced = [
        answer._replace(evidence=again[answer.evidence.run].new) if answer.evidence.run in again else answer
        for answer in prepared.answers
    ]
    new_numbers = EXPERIMENTS[prepared.choice.table].numbers(replaced)
    table = {_key(cell): cell for cell in cells(prepared.numbers)}
    verdicts = [_verdict(number, table, prepared, again, new_numbers) for number in prepared.targets]
    return Verification(prepared.choice, tuple(verdicts), tuple(again.values()))


def incomplete(run: Evidence) -> str:
    """Returns what a run's provenance lacks, in words that follow the run's name; '' where it is complete."""
    provenance = run.facts["provenance"]
    commit = provenance.get("commit")
    if commit is not None and "-dirty" in commit:
        return f"was made with files that differ from its commit, {commit}"
    versions = provenance.get("versions") or {}
    lacking = [name.replace("_", " ") for name in RECORDED if provenance.get(name) in (None, "")]
    lacking += [f"the version of {name}" for name in VERSIONS if not versions.get(name)]
    return f"does not say its {', '.join(lacking)}" if lacking else ""


# What is chosen


def _path(folder: Path, table: str) -> Path:
    """Returns the file of a table. Raises `InputError` where there is none that can be verified."""
    if not folder.is_dir():
        raise InputError(f"there is no folder of results {folder}")
    found = {path.stem: path for path in sorted(folder.glob("*.csv")) if tables.is_table(path)}
    known = [name for name in found if name in EXPERIMENTS and not EXPERIMENTS[name].of_runs]
    if not known:
        raise InputError(f"{folder} has no table or figure of `rethinking reproduce`")
    if table in found and table not in known:
        raise InputError(f"{table} is no table or figure of `rethinking reproduce`; --table takes {', '.join(known)}")
    if table not in found:
        given = f"not '{table}'{nearest(table, known)}" if table else "such as --table " + known[0]
        raise InputError(f"--table must be one of {', '.join(known)}, which {folder} has, {given}")
    return found[table]


def _narrowed(table: list[Cell], choice: Choice) -> list[Cell]:
    """Returns the cells that row, quantity and place choose. Raises `InputError` where there are none."""
    chosen = table
    for word in choice.row:
        if not any(_has(cell, word) for cell in table):
            values = dict.fromkeys(value for cell in table for _, value in cell.labels)
            known = f"{', '.join(values)}" if len(values) <= 20 else "the values of " + ", ".join(_names(table))
            raise InputError(f"--row takes {known}, not '{word}'{nearest(word, values)}")
        chosen = [cell for cell in chosen if _has(cell, word)]
    if not chosen:
        raise InputError(f"no row of {choice.table} has all of {' '.join(choice.row)}; give fewer words")
    quantities = {cell.quantity.replace("_", " "): cell.quantity for cell in chosen}
    wanted = [name.replace("_", " ") for name in choice.quantity]
    for name in wanted:
        if name not in quantities:
            raise InputError(f"--quantity takes {', '.join(quantities)}, not '{name}'{nearest(name, quantities)}")
    chosen = [cell for cell in chosen if not wanted or cell.quantity.replace("_", " ") in wanted]
    if choice.x is not None:
        places = [f"{place:g}" for place in dict.fromkeys(cell.x for cell in chosen) if place is not None]
        chosen = [cell for cell in chosen if cell.x == choice.x]
        if not chosen:
            known = f"takes {', '.join(places[:20])}" if places else "goes with a figure"
            raise InputError(f"--x {known}; {choice.x:g} is no place of this row")
    return chosen


def _has(cell: Cell, word: str) -> bool:
    name, equals, value = word.partition("=")
    if equals and name in dict(cell.labels):
        return dict(cell.labels)[name] == value
    return word in dict(cell.labels).values()


def _names(table: list[Cell]) -> list[str]:
    return [name for name, _ in table[0].labels]


def _published(chosen: list[Cell], kept: Mapping[str, Evidence], folder: Path) -> list[Evidence]:
    """Returns the evidence behind the cells. Raises `RunError` where a run has none."""
    names = dict.fromkeys(name for cell in chosen for name in cell.runs)
    for name in names:
        if name not in kept:
            raise RunError(f"cannot be verified: {folder} has a number of {name}, but no evidence of that run")
    return [kept[name] for name in names]


def _targets(chosen: list[Cell], numbers: list[Number], seeds: tuple[int, ...]) -> list[Number]:
    """Returns the numbers of each cell with these seeds, or the first one of each cell. Raises `InputError`."""
    of_cells: dict[Key, list[Number]] = {}
    for number in numbers:
        of_cells.setdefault(_key(number), []).append(number)
    targets = []
    for cell in chosen:
        of_cell = of_cells[_key(cell)]
        there = {number.answer.seed for number in of_cell}
        for seed in seeds:
            if seed not in there:
                known = " ".join(map(str, sorted(there)))
                raise InputError(f"{_in_words(cell)} has the seeds {known}, not {seed}; give --seeds {known}")
        targets += [number for number in of_cell if number.answer.seed in seeds] if seeds else of_cell[:1]
    return targets


def _key(number: Number | Cell) -> Key:
    labels = number.labels if isinstance(number, Cell) else number.answer.row.labels
    return labels, number.quantity, number.x


def _in_words(cell: Cell) -> str:
    place = "" if cell.x is None else f" at {cell.x:g}"
    return f"{cell.quantity} of {', '.join(value for _, value in cell.labels)}{place}"


# The same runs on this machine


def _places(runs: list[Evidence], choice: Choice) -> dict[str, str]:
    """Returns where each data set of the runs is, by its name in results.

    Raises `InputError` where it is not found or has other content than the published data.
    """
    published = {run.facts["dataset"]: run for run in runs}
    if choice.dataset is not None and len(published) > 1:
        raise InputError(f"--dataset is for one data set, and these numbers have {', '.join(published)}")
    places = {}
    for name, run in published.items():
        options = _reading(run)
        plain = name.removesuffix(ReadOptions(**options).suffix)
        place = choice.dataset or _place(plain, choice.data_root)
        data = sources.load(place, choice.data_root, ReadOptions(**options))
        fingerprint = run.facts["provenance"]["fingerprint"]
        if data.fingerprint != fingerprint:
            raise InputError(
                f"{data.name} from {data.origin} is not the published {name}: its fingerprint begins with"
                f" {data.fingerprint[:12]}, the published one with {fingerprint[:12]}; give the same images with"
                " --dataset or --data_root"
            )
        if data.name != name:
            raise InputError(f"{data.origin} has the images of {name}; rename it to {plain}, which names their runs")
        places[name] = place
    return places


def _place(name: str, data_root: str | None) -> str:
    if name in sources.NAMES:
        return name
    if data_root is not None and (Path(data_root) / name).exists():
        return str(Path(data_root) / name)
    raise InputError(
        f"the numbers have the data set {name}; say where it is with --dataset, or --data_root for {name}/"
    )


def _reading(run: Evidence) -> dict[str, Any]:
    """Returns the reading options of a run that differ from the defaults."""
    names = {spec.name for spec in fields(ReadOptions)}
    return {name: value for name, value in run.configuration.items() if name in names}


def _reproduction(choice: Choice, scale: str, kept: Mapping[str, Evidence], places: Mapping[str, str]) -> Reproduction:
    """Returns the reproduction that has the table. Raises `RunError` for a scale of another version."""
    if scale not in SCALES:
        raise RunError(
            f"cannot be verified: {choice.table} has the scale '{scale}', and the scales are {', '.join(SCALES)}"
        )
    names = {run.facts["dataset"] for run in kept.values()}
    one = next(iter(kept.values()))
    return Reproduction(
        experiment=choice.table,
        dataset=places[names.pop()] if len(names) == 1 else None,
        data_root=choice.data_root,
        scale=scale,
        runs_dir=choice.runs_dir,
        **_reading(one),
    )


def _check_agreement(chosen: list[Cell], numbers: list[Number], kept: Mapping[str, Evidence], folder: Path) -> None:
    """Raises `RunError` where the evidence does not give the chosen numbers, and `InputError` without own code."""
    made = {_key(cell): cell for cell in cells(numbers)}
    for cell in chosen:
        found = made.get(_key(cell))
        if found is not None and {*found.runs} == {*cell.runs}:
            if _six_digits(found.ours) == _six_digits(cell.ours):
                continue
            raise RunError(
                f"cannot be verified: {_in_words(cell)} is {cell.ours} in the table, and {_six_digits(found.ours)} from"
                f" the evidence in {folder}; one of them was changed"
            )
        for run in cell.runs:
            own = [str(kept[run].configuration.get(name)) for name in ("model_name", "randomization")]
            for path in (name for name in own if ":" in name):
                raise InputError(f"{run} has your own {path}; run this command in the folder where that file is")
        raise RunError(
            f"cannot be verified: this version has no run of {_in_words(cell)} like those in {folder}; use the"
            f" version {_version(kept[cell.runs[0]])}"
        )


def _version(run: Evidence) -> str:
    provenance = run.facts["provenance"]
    return f"{provenance['versions']['rethinking-generalization']} at commit {provenance['commit']}"


def _here(answer: Answer, places: Mapping[str, str], choice: Choice) -> Config:
    """Returns the configuration of a published run for this machine, in the published precision."""
    run = answer.evidence
    config = answer.row.with_seed(answer.seed)
    config = replace(config, dataset=places[run.facts["dataset"]])
    precision = choice.precision or run.configuration.get("precision", "auto")
    if isinstance(config, ExperimentConfig):
        return replace(config, device=choice.device, precision=precision)
    if isinstance(config, MeasurementConfig):
        return replace(config, network=replace(config.network, device=choice.device, precision=precision))
    return replace(config, device=choice.device)


# Training and comparing


def _again(needed: Needed, threads: int | None, observe: Observe, watch: Watch) -> Again:
    """Trains one run, or finds it. Raises the errors of `train`."""
    result = needed.find()
    was_there = result is not None
    if result is None:
        with _computing_threads(threads or needed.threads):
            if isinstance(needed.config, ExperimentConfig):
                result = training.train(needed.config, observers=observe(), progress=False)
            else:
                result = tasks.carry_out(needed.config, watch(needed.config))
    new, published = archive.evidence(result), needed.published
    if not published.finished:  # as far as the published run came
        new = replace(new, finished=False, metrics=new.metrics[: len(published.metrics)])
    return Again(published, new, result.path, was_there)


@contextlib.contextmanager
def _computing_threads(number: int) -> Iterator[None]:
    """Sets PyTorch's computing threads, up to those of this machine, and sets them back."""
    before = torch.get_num_threads()
    torch.set_num_threads(min(number, os.cpu_count() or 1))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _verdict(
    number: Number,
    table: Mapping[Key, Cell],
    prepared: Prepared,
    again: Mapping[str, Again],
    new_numbers: list[Number],
) -> Verdict:
    experiment, cell = EXPERIMENTS[prepared.choice.table], table[_key(number)]
    alike = list(table.values())
    if experiment.plot is not None and experiment.plot.x_per_epoch is not None:  # epochs differ in their spread
        alike = [other for other in alike if other.x == cell.x]
    needed = next(one for one in prepared.needed if one.published is number.answer.evidence)
    return Verdict(
        cell.labels,
        cell.quantity,
        cell.x,
        number.answer.seed,
        number.ours,
        cell.ours,
        cell.seeds,
        _same_number(number, again[number.answer.evidence.run].new, new_numbers),
        spread_of(cell, alike, _images(cell.quantity, needed.config), experiment.repeats),
    )


def _same_number(number: Number, new: Evidence, new_numbers: list[Number]) -> float | None:
    """Returns the number of the new run that stands where `number` stands; None where there is none.

    A place on the axis that is itself measured, as the norm of a solution, may differ.
    """
    of_run = [other for other in new_numbers if other.answer.evidence is new and other.quantity == number.quantity]
    of_run = [other for other in of_run if other.answer.row.labels == number.answer.row.labels] or of_run
    found = [other for other in of_run if other.x == number.x] or (of_run if len(of_run) == 1 else [])
    return found[0].ours if found else None


def _images(quantity: str, config: Config) -> int | None:
    """Returns the number of images that a share was counted on; None for a number that is no share."""
    if quantity_of(quantity).unit != "share":
        return None
    data = sources.load_for(config)
    if "train" in quantity:
        if isinstance(config, ExperimentConfig):
            return config.training_images(len(data.train))
        return config.train_subset or len(data.train)
    return len(data.test) if data.test else None


def _metrics(run: Evidence) -> list[dict[str, Any]]:
    """Returns the records of all epochs without the time that they took."""
    return [{name: value for name, value in record.items() if name != "seconds"} for record in run.metrics]


def _facts(run: Evidence) -> dict[str, Any]:
    """Returns the facts of a run that trains nothing, without its costs and its origin."""
    return {name: value for name, value in run.facts.items() if name not in COSTS}


def _six_digits(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.6g}")
