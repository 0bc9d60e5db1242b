"""Shows scored examples on the terminal: how well each score finds wrong labels, or the first suspects."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from rethinking.measures.examples import ScoredExamples, class_name, score_examples
from rethinking.measures.subsets import measure_memorization
from rethinking.progress import StepsInWords, say
from rethinking.report import examples_page, memorization_page

FIRST = 10  # suspects that are listed
LISTED = "area_under_margin"  # the score whose suspects are listed


def show(folders: Sequence[str], of: str | None, out: Path, console: Console) -> None:
    """Scores the examples of runs, shows what was found, and writes table and page into `out`.

    Raises the errors of `score_examples`, and `RunError` where a file cannot be written.
    """
    examples = score_examples(folders, of)
    page = examples_page.write(examples, out)
    wrong = examples.wrong
    say(console, [f"{len(examples.index):,} {examples_page.PASSES[examples.of]}; runs: {len(examples.runs)}"])
    if found := examples.found():
        assert wrong is not None, "it is known which labels are wrong"
        title = "how well each score finds the wrong labels"
        table = _table(title, "score", "area under ROC", f"wrong in {wrong.sum():,}")
        for name, value in found.items():
            table.add_row(name.replace("_", " "), f"{value.auroc:.3f}", f"{value.precision:.1%}")
    else:
        table = _suspects(examples)
    console.print(table)
    say(console, [f"written to {out}; open {page}"])


def show_memorization(folders: Sequence[str], out: Path, console: Console) -> None:
    """Measures memorization and influence, shows their means, and writes tables and page into `out`.

    Raises the errors of `measure_memorization`, and `RunError` where a file cannot be written.
    """
    with contextlib.closing(StepsInWords(console)) as steps:
        measured = measure_memorization(folders, out / "answers", steps.of("memorization"))
    page = memorization_page.write(measured, out)
    estimate, wrong = measured.memorization, measured.wrong
    table = _table(
        f"memorization, from {len(measured.runs)} runs on random subsets", "images", "mean", "standard error"
    )
    groups = {"all": np.ones(len(measured.labels), bool)}
    if wrong is not None:
        groups |= {"with wrong labels": wrong, "with right labels": ~wrong}
    for name, members in groups.items():
        if np.isfinite(estimate.value[members]).any():
            mean, error = (np.nanmean(values[members]) for values in estimate)
            table.add_row(f"{members.sum():,} {name}", f"{mean:.1%}", f"{error:.1%} an image")
    console.print(table)
    say(console, [f"written to {out}; open {page}"])


def _suspects(examples: ScoredExamples) -> Table:
    title = LISTED.replace("_", " ")
    table = _table(f"the {FIRST} examples with the least {title}", "image", "label", title)
    for place in examples.suspects(LISTED)[:FIRST].tolist():
        label = class_name(examples.class_names, int(examples.labels[place]))
        table.add_row(str(examples.index[place]), label, f"{examples.scores[LISTED][place]:.3g}")
    return table


def _table(title: str, *headings: str) -> Table:
    table = Table(title=title, box=box.SIMPLE, title_justify="left")
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="left" if number == 0 else "right")
    return table
