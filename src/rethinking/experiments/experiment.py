"""What an experiment is: a list of configurations, and a function from their runs to numbers next to the paper's."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from rethinking.config import ExperimentConfig
from rethinking.errors import InputError
from rethinking.experiments import paper
from rethinking.experiments.scale import Study
from rethinking.theory.run import TheoryConfig

Config = ExperimentConfig | TheoryConfig  # a run that trains a network, or one that solves, constructs or measures
NETWORK = "network"  # the task of a run that trains a network
Labels = tuple[tuple[str, str], ...]  # a row's heading, for example (("model", "mlp_1x512"), ("labels", "random"))


class Row(NamedTuple):
    """One row of a table, or one curve or point of a figure.

    labels: its heading, in the paper's words
    config: the run that answers it
    paper: the paper's numbers by quantity; empty in a figure, where numbers belong to points of a curve
    own_seed: whether the row belongs to one run, with the run's own seed
    """

    labels: Labels
    config: Config
    paper: Mapping[str, float | str] = {}
    own_seed: bool = False

    def with_seed(self, seed: int) -> Config:
        """The run for one seed. The seed also draws its random labels, signs and pixels."""
        if self.own_seed:
            return self.config
        drawn = self.config.randomization_seed + seed if self.config.randomization != "none" else 0
        return replace(self.config, seed=seed, randomization_seed=drawn)


@dataclass(frozen=True)
class Evidence:
    """A finished or unfinished run, as `archive` keeps it.

    run: the name of its folder
    question: the digest of its configuration and data, without device and precision
    configuration: the resolved configuration's identity (`ExperimentConfig.identity`)
    facts: data, parameters and provenance from `result.json`; for a run that trains nothing, all of `result.json`
    metrics: one record per epoch; empty for a run that trains nothing
    task: `NETWORK` for training, else `TheoryConfig.task`
    """

    run: str
    question: str
    finished: bool
    configuration: Mapping[str, Any]
    facts: Mapping[str, Any]
    metrics: tuple[Mapping[str, Any], ...]
    task: str = NETWORK

    @property
    def is_of_network(self) -> bool:
        """Whether the run trains a network."""
        return self.task == NETWORK

    @property
    def has_the_papers_images(self) -> bool:
        """Whether the paper has numbers on these images: CIFAR-10, or MNIST for runs that train nothing."""
        found = paper.data_set(self.facts["dataset"], self.facts["provenance"]["fingerprint"])
        return found == "cifar10" or (found is not None and not self.is_of_network)

    @property
    def progress(self) -> str:
        """How far an unfinished run has come, in words; empty for a finished run."""
        return "" if self.finished else f"after {len(self.metrics)} of {self.configuration['num_epochs']} epochs"


class Answer(NamedTuple):
    """A row, and the evidence that answers it for one seed."""

    row: Row
    seed: int
    evidence: Evidence


class Number(NamedTuple):
    """One number of ours next to the paper's.

    ours: None where the run has not reached it
    paper: a number, words, or None where the paper has none. `cells` leaves it out for images that are not the paper's
    x: the place on a figure's axis; None in a table
    note: why a number is missing, or another remark
    settled: whether more epochs cannot change it, as for the loss of a past epoch
    baseline: the run that the number is relative to
    """

    answer: Answer
    quantity: str
    ours: float | None
    paper: float | str | None
    x: float | None = None
    note: str = ""
    settled: bool = False
    baseline: Evidence | None = None

    @property
    def remark(self) -> str:
        """The number's note, or how far its run has come; empty where there is nothing to say."""
        return self.note or ("" if self.settled else self.answer.evidence.progress)

    @property
    def runs(self) -> tuple[str, ...]:
        """The names of the runs behind the number."""
        baseline = () if self.baseline is None else (self.baseline.run,)
        return (self.answer.evidence.run, *baseline)


@dataclass(frozen=True)
class Cell:
    """A table's cell or a figure's point: the `Number`s of all seeds, with the runs behind them."""

    labels: Labels
    quantity: str
    x: float | None
    ours: float | None  # mean over seeds
    std: float | None  # sample standard deviation over seeds; None for fewer than two
    seeds: int
    paper: float | str | None
    note: str
    runs: tuple[str, ...]

    @property
    def difference(self) -> float | None:
        """Ours minus the paper's, or None where one of the two is missing."""
        return self.ours - self.paper if self.ours is not None and isinstance(self.paper, float) else None


@dataclass(frozen=True, kw_only=True)
class Plot:
    """How a figure is drawn: the paper's axes, order and curves."""

    quantities: tuple[str, ...]  # one curve each
    series: str  # the label that names a curve
    paper: Mapping[tuple[str, str], Mapping[float, float]] = field(default_factory=dict)  # y by x, by series, quantity
    x_label: str
    y_label: str = ""  # not for panels, whose headings are their quantities
    x_limits: tuple[float, float] | None = None
    y_limits: tuple[float, float] | None = None  # our curves may exceed them
    shaded: str | None = None  # a quantity drawn as the area under its curve
    points: bool = False  # mark the points, where there are few
    x_per_epoch: float | None = None  # with one point per epoch: an epoch's length on the paper's axis at full scale
    log_x: bool = False
    log_y: bool = False
    panels: bool = False  # each quantity has axes of its own
    own_places: bool = False  # each curve in a panel has its own places, without gaps at the others' places
    share_y: bool = False  # panels share their y axis, to compare their quantities
    tabled: bool = False  # the table has a column with the place on the axis, except on a terminal; epochs always have
    levels: Mapping[str, float] = field(default_factory=dict)  # the paper's single numbers by series: dashed lines
    curves: tuple[str, ...] | None = None  # in place of `series`: the labels that together name a curve
    of_any_model: bool = False  # each network has quantities of its own, and those of other networks are drawn too


@dataclass(frozen=True)
class Experiment:
    """One table or figure.

    title: its heading
    about: what to expect of it, and how long it takes
    models: the models that the paper shows in it; empty where nothing is trained
    rows: the runs it needs
    numbers: what it shows of them
    plot: how it is drawn; None for a table
    any_model: whether other models can be added, without numbers of the paper
    ours_only: quantities for which the paper has no number
    derived: quantities that follow from others in the table; agreement with the paper is not counted for them
    companions: experiments that are made together with it
    repeats: what a number's mean and deviation are taken over
    standard_error: whether the standard error of the mean is shown instead of the deviation
    of_runs: whether its runs are given by their folders, and only so
    by_name_only: whether `reproduce.py all` leaves it out
    columns: labels that have columns in the table in place of rows, each with its texts in their order
    """

    title: str
    about: str
    models: tuple[str, ...]
    rows: Callable[[Study], list[Row]]
    numbers: Callable[[list[Answer]], list[Number]]
    plot: Plot | None = None
    any_model: bool = False
    ours_only: tuple[str, ...] = ()
    derived: tuple[str, ...] = ()
    companions: tuple[str, ...] = ()
    repeats: str = "seed"
    standard_error: bool = False
    of_runs: bool = False
    by_name_only: bool = False
    columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def shown_for(self, cells: Iterable[Cell], kept: Mapping[str, Evidence]) -> Experiment:
        """The experiment as shown for `cells`: without the paper's numbers where no run has the paper's images."""
        cells = list(cells)
        if self.plot is not None and self.plot.of_any_model:
            names = tuple(dict.fromkeys((*self.plot.quantities, *(cell.quantity for cell in cells))))
            return replace(self, plot=replace(self.plot, quantities=names), ours_only=names)
        if any(kept[run].has_the_papers_images for cell in cells for run in cell.runs):
            return self
        levels = self.plot.levels if self.plot else {}
        has_papers = bool(levels) or not {cell.quantity for cell in cells} <= {*self.ours_only}
        plot = replace(self.plot, paper={}, levels={}) if self.plot else None
        return replace(self, about="" if has_papers else self.about, plot=plot)

    def spread(self, cell: Cell) -> float | None:
        """The standard deviation or standard error that is shown after a mean; None for a single number."""
        if cell.std is None or not self.standard_error:
            return cell.std
        return cell.std / math.sqrt(cell.seeds)


def cells(numbers: Iterable[Number]) -> list[Cell]:
    """Join the numbers of one row, quantity and place into one cell, in the order of first appearance.

    A cell has the paper's number only where the images are the paper's. Raises `InputError` where a cell would count
    one run twice, as if it had two seeds.
    """
    groups: dict[Any, list[Number]] = {}
    for number in numbers:
        groups.setdefault((number.answer.row.labels, number.quantity, number.x), []).append(number)
    made = []
    for (labels, quantity, x), group in groups.items():
        runs = [number.answer.evidence.run for number in group]
        if len(set(runs)) < len(runs):
            named = ", ".join(value for _, value in labels)
            raise InputError(
                f"{quantity} of {named} would count the run {max(runs, key=runs.count)} twice: an experiment's rows for"
                " one run must have different labels"
            )
        values = [number.ours for number in group if number.ours is not None]
        notes = dict.fromkeys(number.remark for number in group)
        made.append(
            Cell(
                labels,
                quantity,
                x,
                ours=statistics.mean(values) if len(values) == len(group) else None,
                std=statistics.stdev(values) if len(values) == len(group) > 1 else None,
                seeds=len(group),
                paper=group[0].paper if group[0].answer.evidence.has_the_papers_images else None,
                note="; ".join(note for note in notes if note),
                runs=tuple(dict.fromkeys(run for number in group for run in number.runs)),
            )
        )
    return made
