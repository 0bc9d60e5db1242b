"""What an experiment is: a list of configurations, and one function from their runs to numbers beside the paper's."""

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

Config = ExperimentConfig | TheoryConfig  # of a run: a network trained, or what is solved, written down or measured
NETWORK = "network"  # the task of training one
Labels = tuple[tuple[str, str], ...]  # a row's heading, such as (("model", "mlp_1x512"), ("labels", "random"))


class Row(NamedTuple):
    """One row of a table, or one curve or point of a figure: what the paper calls it, and the run that answers it.

    paper: the paper's numbers for it, by quantity; empty in a figure, whose numbers belong to points of a curve
    own_seed: it is of one run, whatever seeds are asked for
    """

    labels: Labels
    config: Config
    paper: Mapping[str, float | str] = {}
    own_seed: bool = False

    def with_seed(self, seed: int) -> Config:
        """The run for one of several seeds, which draws its own random labels, signs and pixels too."""
        if self.own_seed:
            return self.config
        drawn = self.config.randomization_seed + seed if self.config.randomization != "none" else 0
        return replace(self.config, seed=seed, randomization_seed=drawn)


@dataclass(frozen=True)
class Evidence:
    """A run as far as it has come, as `archive` keeps it.

    configuration: the resolved configuration's identity (`ExperimentConfig.identity`)
    facts: data, parameters and provenance, as in `result.json`, without metrics; of theory all of it
    metrics: one record an epoch; none of theory
    task: that of training a network, or `TheoryConfig.task`
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
        """Of one that is trained."""
        return self.task == NETWORK

    @property
    def has_the_papers_images(self) -> bool:
        """Whether the paper can have a number of it: its networks are CIFAR-10's, its other results MNIST's too."""
        found = paper.data_set(self.facts["dataset"], self.facts["provenance"]["fingerprint"])
        return found == "cifar10" or (found is not None and not self.is_of_network)

    @property
    def progress(self) -> str:
        """Empty for a finished run."""
        return "" if self.finished else f"after {len(self.metrics)} of {self.configuration['num_epochs']} epochs"


class Answer(NamedTuple):
    """A row, and the run that answers it for one seed."""

    row: Row
    seed: int
    evidence: Evidence


class Number(NamedTuple):
    """One number of ours beside the paper's; `x` is the place on a figure's axis, None in a table.

    ours: None where the run has not come to it, and `note` says so
    paper: a number, words, or None where the paper has none; `cells` leaves it out beside images that are not its own
    settled: it stays as it is however far the run still goes, as the loss of an epoch does
    baseline: the run it is relative to
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
        """What is to be known about it: why it is missing, or how far its run has come."""
        return self.note or ("" if self.settled else self.answer.evidence.progress)

    @property
    def runs(self) -> tuple[str, ...]:
        baseline = () if self.baseline is None else (self.baseline.run,)
        return (self.answer.evidence.run, *baseline)


@dataclass(frozen=True)
class Cell:
    """`Number`s of all seeds together: a table's cell or a figure's point, with the runs behind it."""

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
        return self.ours - self.paper if self.ours is not None and isinstance(self.paper, float) else None


@dataclass(frozen=True, kw_only=True)
class Plot:
    """How a figure is drawn: the paper's axes, order and curves."""

    quantities: tuple[str, ...]  # a curve each
    series: str  # the label that names a curve
    paper: Mapping[tuple[str, str], Mapping[float, float]] = field(default_factory=dict)  # y by x, by series, quantity
    x_label: str
    y_label: str = ""  # but for panels, which are headed by their quantity
    x_limits: tuple[float, float] | None = None
    y_limits: tuple[float, float] | None = None  # ours may go beyond
    shaded: str | None = None  # a quantity drawn as an area under its curve
    points: bool = False  # few points: mark them
    x_per_epoch: float | None = None  # a point an epoch: what an epoch is on the paper's axis at full scale
    log_x: bool = False
    log_y: bool = False
    panels: bool = False  # axes of its own for each quantity
    own_places: bool = False  # panels' curves each have places of their own, and no gap where others have some
    share_y: bool = False  # of the panels, since their quantities are to be compared
    tabled: bool = False  # the place on the axis has a column in the table, as an epoch always has; not on a terminal
    levels: Mapping[str, float] = field(default_factory=dict)  # the paper's single numbers by series: dashed lines


@dataclass(frozen=True)
class Experiment:
    """One table or figure of the paper.

    models: those the paper has in it; none where nothing is trained
    any_model: whether the others can stand in it too, without the paper's numbers beside them
    rows: the runs it needs
    numbers: what it shows of them
    ours_only: quantities of which the paper has no number
    companions: what is made along with it
    repeats: what a number is the mean over, besides its standard deviation
    standard_error: of that mean, shown in place of the deviation
    of_runs: of finished runs that are given by their folders, and of nothing else
    """

    title: str
    about: str
    models: tuple[str, ...]
    rows: Callable[[Study], list[Row]]
    numbers: Callable[[list[Answer]], list[Number]]
    plot: Plot | None = None
    any_model: bool = False
    ours_only: tuple[str, ...] = ()
    companions: tuple[str, ...] = ()
    repeats: str = "seed"
    standard_error: bool = False
    of_runs: bool = False

    def shown_for(self, cells: Iterable[Cell], kept: Mapping[str, Evidence]) -> Experiment:
        """Itself, where a run behind the cells has the paper's images; else without all that holds for those alone."""
        if any(kept[run].has_the_papers_images for cell in cells for run in cell.runs):
            return self
        levels = self.plot.levels if self.plot else {}
        has_papers = bool(levels) or not {cell.quantity for cell in cells} <= {*self.ours_only}
        plot = replace(self.plot, paper={}, levels={}) if self.plot else None
        return replace(self, about="" if has_papers else self.about, plot=plot)

    def spread(self, cell: Cell) -> float | None:
        """What is shown beside a mean: the deviation of what it is of, or its standard error; None for a single one."""
        if cell.std is None or not self.standard_error:
            return cell.std
        return cell.std / math.sqrt(cell.seeds)


def cells(numbers: Iterable[Number]) -> list[Cell]:
    """One cell for the numbers of the same row, quantity and place, in the order in which they first come.

    The paper's number stands in it where the images are the paper's, and nowhere else.

    Raises `InputError` where one run is among them twice, as if it were two seeds.
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
