"""The report of a randomization test: its runs, the table, the verdict, and what it leaves in a folder."""

from __future__ import annotations

import functools
import html
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rethinking import files, notebook
from rethinking.config import ExperimentConfig
from rethinking.data import sources
from rethinking.errors import DivergedError, InputError, RunError, nearest
from rethinking.experiments import archive
from rethinking.experiments.experiment import Answer, Cell, Evidence, Experiment, Number, Row, cells
from rethinking.experiments.quantities import EPOCHS, GAP, SECONDS, TEST_ACCURACY, TRAIN_ACCURACY, count, declare
from rethinking.instrument.battery import RandomizationTest
from rethinking.instrument.causes import Unfit, causes, diverged
from rethinking.instrument.conditions import RANDOM, TRUE, Condition
from rethinking.instrument.rate import Rate
from rethinking.instrument.verdict import FITS, Finding, Shown, epoch_to_fit, train_accuracy, verdict
from rethinking.report import page, results, tables
from rethinking.training.run_dir import RunResult

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Outcome = RunResult | DivergedError

NAME = "test"  # of the table, and of its files
TO_FIT = declare(f"epochs to {FITS:.0%}", count, "epochs", "the first epoch with that exact training accuracy")


@dataclass(frozen=True, repr=False)
class Report:
    """What a randomization test found: its runs, a table, sentences and a figure.

    test: the test as it was given
    config: the options that all runs share
    data: the images
    outcomes: for each condition and seed the run, or the error if its loss was not finite
    rate: the result of the range test, None if there was none
    choices: sentences that say what was chosen and why
    """

    test: RandomizationTest
    config: ExperimentConfig
    data: sources.ImageData
    outcomes: dict[tuple[str, int], Outcome]
    rate: Rate | None
    choices: tuple[str, ...]

    # The runs

    def __getitem__(self, condition: str | float | tuple[str | float, int]) -> RunResult:
        """Returns the run of a condition: 'true', 'random', 0.5, 'shuffled_pixels', ...

        `report["random"]` is the run of the first seed, `report["random", 1]` the run of seed 1. Raises `InputError`
        for a condition that the test lacks, and `DivergedError` if the loss of the run was not finite.
        """
        return self.run(*condition) if isinstance(condition, tuple) else self.run(condition)

    def __iter__(self) -> Iterator[str]:
        """Iterates over the keys of the conditions."""
        return iter([condition.key for condition in self.test.conditions])

    def run(self, condition: str | float, seed: int | None = None) -> RunResult:
        """Returns the run of a condition and seed, by default the first. Raises what `report[condition]` raises."""
        known = list(self)
        word = condition if isinstance(condition, str) else f"{condition:g}"
        meant = (word, f"{word}_pixels", {"0": TRUE, "1": RANDOM}.get(word))
        key = next((key for key in meant if key in known), None)
        seed = self.test.seeds[0] if seed is None else seed
        if key is None or seed not in self.test.seeds:
            what, meant_is = (f"condition '{word}'", nearest(word, known)) if key is None else (f"seed {seed}", "")
            seeds = ", ".join(map(str, self.test.seeds))
            raise InputError(f"the report has no {what}; it has {', '.join(known)}, of seeds {seeds}{meant_is}")
        outcome = self.outcomes[key, seed]
        if isinstance(outcome, DivergedError):
            raise outcome
        return outcome

    # The verdict

    @property
    def network(self) -> str:
        """The name of the network."""
        name = self.test.network.rpartition(":")[2]
        instance = re.fullmatch(r"<(.+ [0-9a-f]{8})>", name)  # of an `nn.Module`, its class and the start of its digest
        return instance[1] if instance else name

    @functools.cached_property
    def findings(self) -> tuple[Finding, ...]:
        """The verdict in sentences with numbers and thresholds, why labels were not fitted, and what to try."""
        shown = [one for condition in self.test.conditions if (one := self._shown(condition)) is not None]
        images = self.config.train_subset or len(self.data.train)
        found = verdict(self.network, shown, images, len(self.data.class_names)) if shown else []
        said = {condition.words: self._causes(condition) for condition in self.test.conditions}
        made = []
        for finding in found:
            made += [finding, *said.pop(finding.causes_of, [])]
        rest = [finding for findings in said.values() for finding in findings]  # of what diverged in its first epoch
        first: dict[str, Finding] = {}  # causes are often common to conditions
        for finding in [*rest, *made]:
            first.setdefault(finding.sentence, finding)
        return tuple(first.values())

    def _shown(self, condition: Condition) -> Shown | None:
        metrics = tuple(run.metrics for run in self._runs(condition))
        return Shown(condition, metrics, len(self.test.seeds) - len(metrics)) if metrics else None

    def _causes(self, condition: Condition) -> list[Finding]:
        """Returns why runs of a condition diverged, and why the first other run did not fit its labels."""
        outcomes = [self.outcomes[condition.key, seed] for seed in self.test.seeds]
        errors = [outcome for outcome in outcomes if isinstance(outcome, DivergedError)]
        rate = self.config.learning_rate
        found = [diverged(condition.words, errors, self.test, rate)] if errors and rate else []
        for run in outcomes:
            if isinstance(run, RunResult) and not Shown(condition, (run.metrics,)).fits:
                unfit = Unfit(condition.words, run, self.data, self.test, self.network, self.rate)
                return [*found, *causes(unfit)]
        return found

    @property
    def sentences(self) -> list[str]:
        """The verdict, a sentence for each finding, with the next command where there is one."""
        return [
            f"{finding.sentence} Next: {finding.command}" if finding.command else finding.sentence
            for finding in self.findings
        ]

    @property
    def paragraph(self) -> str:
        """A paragraph in Markdown for the appendix of a paper: set-up, verdict, versions and command."""
        runs = [run for run in self.outcomes.values() if isinstance(run, RunResult)]
        if not runs:
            return f"{' '.join(finding.sentence for finding in self.findings)} (`{self.test.command_anywhere}`.)\n"
        facts = runs[0].result
        versions = facts["provenance"]["versions"]
        tested = f" and {facts['data']['test_images']:,} test" if facts["data"]["test_images"] else ""
        how = (
            f"Randomization test (Zhang et al. 2017) of {self.network}, with {facts['parameters']:,} trainable"
            f" parameters, on {facts['train_images']:,} training{tested} images of {self.data.name}, with"
            f" {len(self.data.class_names):,} classes. {' '.join(self.choices)}"
        )
        made = (
            f"rethinking-generalization {versions['rethinking-generalization']}, torch {versions['torch']},"
            f" {facts['provenance']['precision']} on {facts['provenance']['hardware']}; data"
            f" {self.data.fingerprint[:12]}; `{self.test.command_anywhere}`."
        )
        return f"{how} {' '.join(finding.sentence for finding in self.findings)} ({made})\n"

    # The table

    @property
    def experiment(self) -> Experiment:
        """The test as tables and the page take it, with a row for each condition."""
        return Experiment(
            title=f"Randomization test of {self.network} on {self.data.name}",
            about="",
            models=(),
            rows=lambda study: [],
            numbers=numbers,
            ours_only=(TRAIN_ACCURACY, TEST_ACCURACY, GAP, TO_FIT, EPOCHS, SECONDS),
        )

    @functools.cached_property
    def evidence(self) -> dict[str, Evidence]:
        """The evidence of each run by its name."""
        runs = [archive.evidence(run) for run in self.outcomes.values() if isinstance(run, RunResult)]
        return {run.run: run for run in runs}

    @functools.cached_property
    def cells(self) -> list[Cell]:
        """The numbers of the table, over all seeds with a finite loss."""
        answers = []
        configs = self.test.configs(self.config)
        for condition in self.test.conditions:
            finite, seeds = len(self._runs(condition)), len(self.test.seeds)
            words = condition.words if finite == seeds else f"{condition.words} ({finite} of {seeds} seeds)"
            for seed in self.test.seeds:
                run = self.outcomes[condition.key, seed]
                if isinstance(run, RunResult):
                    row = Row((("trained on", words),), configs[condition.key, seed])
                    answers.append(Answer(row, seed, self.evidence[run.path.name]))
        return cells(numbers(answers))

    @property
    def grid(self) -> tables.Grid:
        """The table, with a row for each condition."""
        return tables.grid(self.experiment, self.cells)

    def frame(self) -> Any:
        """Returns a pandas `DataFrame` with a row for every condition and seed. Raises `InputError` without pandas."""
        rows = []
        for condition in self.test.conditions:
            for seed in self.test.seeds:
                run = self.outcomes[condition.key, seed]
                row: dict[str, Any] = {"condition": condition.key, "seed": seed, **dict.fromkeys(FRAME)}
                if isinstance(run, RunResult):
                    row |= dict(zip(FRAME, _numbers_of(run.metrics, run.result["seconds"]), strict=True))
                    row |= {"finished": run.finished, "run": str(run.path)}
                rows.append(row)
        return notebook.frame(rows)

    def plot(self) -> Figure:
        """Draws loss and accuracies by epoch, in a colour for each condition."""
        from rethinking.drawing import draw_learning_curves

        runs = {condition.words: self._runs(condition) for condition in self.test.conditions}
        return draw_learning_curves(
            {words: [run.metrics for run in of_condition] for words, of_condition in runs.items()}, self.data.name
        )

    def _runs(self, condition: Condition) -> list[RunResult]:
        """Returns the runs of a condition whose loss was finite."""
        outcomes = (self.outcomes[condition.key, seed] for seed in self.test.seeds)
        return [outcome for outcome in outcomes if isinstance(outcome, RunResult)]

    # What is left

    def save(self, folder: str | Path) -> Path:
        """Writes the report into `folder`, and returns the path of its page, report.html.

        test.csv and test.md hold the table, test.png and test.svg the curves, verdict.md the paragraph, and runs.csv
        and epochs.csv the evidence. Raises `RunError` if a file cannot be read or written, and where `folder` has a
        report of the same runs with more epochs.
        """
        from rethinking.drawing import save_figure

        folder = Path(folder)
        self._check_not_behind(folder)
        archive.add(folder, self.evidence.values())
        with archive.locked(folder) as kept:
            if self.cells:
                results.write_table(folder, NAME, self.experiment, self.cells, kept, scale="")
                save_figure(self.plot(), folder / NAME, self.experiment.title)
                files.write(folder / "verdict.md", self.paragraph, durable=False)
            else:
                self._remove_earlier(folder)
            findings = tuple((finding.sentence, finding.command) for finding in self.findings)
            front = page.Front(self.experiment.title, findings, " ".join(self.choices))
            return page.write(folder, kept, {NAME: self.experiment}, front)

    def _check_not_behind(self, folder: Path) -> None:
        """Raises `RunError` where `folder` has the same runs with more epochs, as after their folders were removed."""
        kept = archive.read(folder)
        for name, run in self.evidence.items():
            if name in kept and archive.progress(kept[name]) > archive.progress(run):
                raise RunError(
                    f"{folder} has a report of {name} after {len(kept[name].metrics)} epochs, and this one is after"
                    f" {len(run.metrics)}; write this report into another folder (--out), or move that one away"
                )

    @staticmethod
    def _remove_earlier(folder: Path) -> None:
        """Removes the files that another test left in the folder."""
        with files.writing(folder):
            for name in (*(f"{NAME}.{ending}" for ending in ("csv", "md", "png", "svg")), "verdict.md"):
                (folder / name).unlink(missing_ok=True)

    def __repr__(self) -> str:
        first = self.findings[0].sentence if self.findings else "no run has a finished epoch"
        return f"<Report: {first}>"

    def _repr_html_(self) -> str:
        """Returns table, sentences and curves as a notebook shows them."""
        from rethinking.drawing import as_svg

        said = "".join(f"<li>{html.escape(sentence)}</li>" for sentence in self.sentences)
        title = self.experiment.title
        rows = [[entry.text for entry in row] for row in self.grid.rows]
        table = notebook.table(self.grid.headings, rows, title) if rows else f"<p>{html.escape(title)}</p>"
        return f"{table}<ul>{said}</ul>{as_svg(self.plot(), title) if rows else ''}"


def numbers(answers: list[Answer]) -> list[Number]:
    """Returns the numbers of each run after its last epoch."""
    found = []
    for answer in answers:
        run = answer.evidence
        values = dict(
            zip(
                (TRAIN_ACCURACY, TEST_ACCURACY, GAP, TO_FIT, EPOCHS, SECONDS),
                _numbers_of(run.metrics, run.facts["seconds"]),
                strict=True,
            )
        )
        for quantity, value in values.items():
            no_test = "not measured" if run.facts["data"]["test_images"] else "no test set"
            note = "" if value is not None else "not reached" if quantity == TO_FIT else no_test
            found.append(Number(answer, quantity, value, None, note=note, settled=True))
    return found


FRAME = ("train_accuracy", "test_accuracy", "generalization_gap", "epochs_to_fit", "epochs", "seconds")


def _numbers_of(metrics: Any, seconds: float) -> tuple[float | None, ...]:
    """Returns training and test accuracy, their difference, epochs to fit, epochs and seconds."""
    last = metrics[-1]
    train = train_accuracy(last)
    test = last["test_accuracy"]
    gap = None if test is None else train - test
    return train, test, gap, epoch_to_fit(metrics), len(metrics), seconds
