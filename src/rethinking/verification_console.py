"""Shows a verification on the terminal: the runs, each number beside the published one, and the verdict."""

from __future__ import annotations

import contextlib

from rich.console import Console

from rethinking.experiments.catalogue import EXPERIMENTS
from rethinking.experiments.quantities import quantity as quantity_of
from rethinking.progress import Progress, StepsInWords, duration, say
from rethinking.report import tables
from rethinking.report.tables import Entry, Grid
from rethinking.sitting import in_words
from rethinking.theory.run import TheoryResult
from rethinking.training.run_dir import RunResult
from rethinking.verification import Again, Choice, Needed, Prepared, Verdict, Verification, carry_out, prepare


class VerificationConsole:
    """A verification with its output on a terminal."""

    def __init__(self, choice: Choice, console: Console) -> None:
        self._choice = choice
        self._console = console

    def dry_run(self) -> None:
        """Lists the runs that `run` would train, with the time that the published ones took. Trains nothing."""
        prepared = self._prepare()
        for needed in prepared.needed:
            found = needed.find()
            self._say(f"{needed.published.run}: {_found(found) if found else _to_train(needed)}")

    def run(self) -> bool:
        """Trains or finds the runs, and shows the verdicts. Returns whether all numbers are within their spread."""
        prepared = self._prepare()
        progress = Progress(self._console)
        with contextlib.closing(StepsInWords(self._console)) as steps:
            done = carry_out(prepared, progress.observers, lambda config: steps.of(in_words(config)))
        self._console.print()
        self._console.print(tables.Terminal(EXPERIMENTS[self._choice.table].title, grid(done), ""))
        self._say(*_sources(done))
        for again in done.runs:
            self._say(*_about(again))
        self._say(conclusion(done))
        return done.is_within

    def _prepare(self) -> Prepared:
        prepared = prepare(self._choice)
        rows = len({cell.labels for cell in prepared.cells})
        narrow = "; --row, --quantity and --x choose fewer" if len(prepared.cells) > 4 else ""
        self._say(
            f"{self._choice.table} in {self._choice.results}: {_count(len(prepared.targets), 'number')} in"
            f" {_count(rows, 'row')}, from {_count(len(prepared.needed), 'run')}{narrow}"
        )
        return prepared

    def _say(self, *lines: str) -> None:
        say(self._console, lines)


def grid(done: Verification) -> Grid:
    """Returns a row for each number: published, new, difference, allowed difference and verdict."""
    first = done.verdicts[0]
    has_place = any(verdict.x is not None for verdict in done.verdicts)
    headings = [*(name.replace("_", " ") for name, _ in first.labels), "quantity", *["at"] * has_place]
    factors = len(headings)
    headings += ["seed", "published", "mean", "now", "difference", "allowed", "verdict"]
    rows = []
    for verdict in done.verdicts:
        place = [] if not has_place else ["" if verdict.x is None else f"{verdict.x:g}"]
        words = [*(value for _, value in verdict.labels), verdict.quantity, *place, *_numbers(verdict)]
        rows.append([Entry(word) for word in words])
    return Grid(headings, rows, factors)


def _numbers(verdict: Verdict) -> list[str]:
    quantity = quantity_of(verdict.quantity)
    mean = tables.shown(verdict.quantity, verdict.mean) or "-"
    return [
        f"{verdict.seed}",
        tables.shown(verdict.quantity, verdict.published) or "-",
        f"{mean} of {verdict.seeds}" if verdict.seeds > 1 else mean,
        tables.shown(verdict.quantity, verdict.new) or "-",
        "" if verdict.difference is None else quantity.difference(verdict.difference),
        f"±{quantity.difference(verdict.spread.width).removeprefix('+')}",
        ("equal" if verdict.is_equal else "within") if verdict.is_within else "not within",
    ]


def _sources(done: Verification) -> list[str]:
    """Returns a line for each source of an allowed difference, with the quantities that have it."""
    quantities: dict[str, dict[str, None]] = {}
    for verdict in done.verdicts:
        quantities.setdefault(verdict.spread.source, {})[verdict.quantity] = None
    return [f"allowed for {', '.join(names)}: {source}" for source, names in quantities.items()]


def _about(again: Again) -> list[str]:
    """Returns lines about one run: where it came from, and what it shares with the published run."""
    provenance = again.published.facts["provenance"]
    lines = [f"{again.path}: {'found there' if again.was_there else 'trained now'}"]
    if again.is_the_same_run:
        lines.append("  it is the published run itself; another --runs_dir trains it again")
    elif again.is_identical:
        kept = f"all {len(again.new.metrics)} epochs" if again.new.is_of_network else "all facts"
        lines.append(f"  bit for bit the same: {kept} agree in every digit that results keep")
    elif not again.changes:
        lines.append("  other digits than the published run, with the same hardware, versions, threads and precision")
    if again.changes:
        lines.append(f"  {'; '.join(again.changes)}")
    lines.append(f"  published run: {provenance['hardware']}, commit {provenance['commit']}")
    return lines


def conclusion(done: Verification) -> str:
    """Returns the verdict in one line."""
    outside = [verdict for verdict in done.verdicts if not verdict.is_within]
    total = _count(len(done.verdicts), "number")
    if not outside:
        return f"verified: {total} within the spread"
    by_chance = "; about one in 20 lies outside by chance" if len(done.verdicts) >= 10 else ""
    return f"not verified: {len(outside)} of {total} outside the spread{by_chance}"


def _found(found: RunResult | TheoryResult) -> str:
    return f"found in {found.path}"


def _to_train(needed: Needed) -> str:
    facts = needed.published.facts
    time = f", which took {duration(facts['seconds'])} on {facts['provenance']['hardware']}"
    threads = _count(needed.threads, "thread")
    return f"to train{time}, {threads}"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
