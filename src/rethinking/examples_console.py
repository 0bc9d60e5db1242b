"""Shows scored examples on the terminal: how well each score finds wrong labels, or the first suspects."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rethinking.config import ExperimentConfig
from rethinking.data import sources
from rethinking.measures.examples import PASSES, ScoredExamples, class_name, score_examples
from rethinking.measures.label_errors import configurations, search
from rethinking.measures.searching import Searching
from rethinking.measures.subsets import measure_memorization
from rethinking.progress import ListProgress, StepsInWords, Tally, say
from rethinking.report import examples_page, memorization_page
from rethinking.training.networks import cut, network_notes
from rethinking.training.preparation import accepting, resolve

FIRST = 10  # suspects that are listed
FITTED = 0.95  # of the training images; below, networks memorize less than they could


def show(folders: Sequence[str], of: str | None, out: Path, console: Console) -> None:
    """Scores the examples of runs, shows what was found, and writes table and page into `out`.

    Raises the errors of `score_examples`, and `RunError` where a file cannot be written.
    """
    with contextlib.closing(StepsInWords(console)) as steps:
        examples = score_examples(folders, of, steps.of("examples"))
    show_examples(examples, out, console)


def show_examples(examples: ScoredExamples, out: Path, console: Console) -> None:
    """Shows scored examples on the terminal, and writes table and page into `out`. Raises `RunError`."""
    page = examples_page.write(examples, out)
    wrong = examples.wrong
    say(console, [f"{len(examples.index):,} {PASSES[examples.of]}; runs: {len(examples.runs)}"])
    say(console, [examples.note] if examples.note else [])
    if found := examples.found():
        assert wrong is not None, "it is known which labels are wrong"
        title = "how well each score finds the wrong labels"
        table = _table(title, "score", "area under ROC", f"wrong in {wrong.sum():,}")
        for name, value in found.items():
            table.add_row(name.replace("_", " "), f"{value.auroc:.3f}", f"{value.precision:.1%}")
    else:
        table = _suspects(examples)
    console.print(table)
    if examples.predicted is not None:
        other = int((examples.predicted != examples.labels).sum())
        say(console, [f"{other:,} images have another predicted class than their label"])
    say(console, [f"written to {out}; open {page}"])


def show_label_errors(config: ExperimentConfig, searching: Searching, console: Console) -> None:
    """Trains the networks of a search for wrong labels, shows the suspects, and writes table and page.

    Raises the errors of `search`, and `RunError` where a file cannot be written.
    """
    with contextlib.closing(StepsInWords(console)) as steps:
        data = sources.load_for(config, accepting(config), steps.of("data"))
    configs = configurations(config, searching, len(data.train))
    say(console, [*data.described(), *cut(config, data), *network_notes(resolve(configs[0], data), data)])
    epochs, images = configs[0].num_epochs, configs[0].training_images(len(data.train))
    if data.test:
        say(console, [f"the {len(data.test):,} test images are not searched"])
    say(console, [f"{len(configs)} networks, each trained for {epochs} epochs on about {images:,} images"])
    progress = ListProgress(console, lambda: "", lambda: Tally(len(configs), configs))

    def ended(run: ExperimentConfig) -> None:
        progress.over(run, finished=True)
        say(console, [f"finished: without part {run.left_out}  ({progress.in_words()})"])

    with contextlib.closing(StepsInWords(console)) as steps:
        examples = search(configs, progress.observers, steps.of("examples"), ended)
    show_examples(examples, Path(searching.out), console)


def show_memorization(folders: Sequence[str], out: Path, console: Console) -> None:
    """Measures memorization and influence, shows their means, and writes tables and page into `out`.

    Raises the errors of `measure_memorization`, and `RunError` where a file cannot be written.
    """
    with contextlib.closing(StepsInWords(console)) as steps:
        measured = measure_memorization(folders, out / "answers", steps.of("memorization"))
    page = memorization_page.write(measured, out)
    estimate, wrong = measured.memorization, measured.wrong
    title = f"memorization, from {len(measured.runs)} runs on random subsets"
    table = _table(title, "images", "estimated", "mean", "standard error")
    groups = {"all": np.ones(len(measured.labels), bool)}
    if wrong is not None:
        groups |= {"with wrong labels": wrong, "with right labels": ~wrong}
    for name, members in groups.items():
        if np.isfinite(estimate.value[members]).any():
            mean, error = (np.nanmean(values[members]) for values in estimate)
            known = (members & measured.estimated).sum()
            table.add_row(f"{members.sum():,} {name}", f"{known:,}", f"{mean:.1%}", f"{error:.1%} an image")
    console.print(table)
    if measured.fit < FITTED:
        unfit = (
            f"the networks get only {measured.fit:.1%} of their own images right; what is not fitted is not memorized"
        )
        say(console, [f"{unfit} (--num_epochs, --stop_when_fit)"])
    say(console, [f"written to {out}; open {page}"])


def _suspects(examples: ScoredExamples) -> Table:
    listed, names, predicted = examples_page.SUSPECTED_BY, examples.class_names, examples.predicted
    title = listed.replace("_", " ")
    predicted_heading = [] if predicted is None else ["predicted"]
    table = _table(f"the {FIRST} examples with the least {title}", "image", "label", *predicted_heading, title)
    for place in examples.suspects(listed)[:FIRST].tolist():
        image = str(examples.index[place]) if examples.files is None else examples.files[place]
        labels = [int(examples.labels[place]), *([] if predicted is None else [int(predicted[place])])]
        words = [image, *(class_name(names, label) for label in labels), f"{examples.scores[listed][place]:.3g}"]
        table.add_row(*map(Text, words))  # a name may look like markup
    return table


def _table(title: str, *headings: str) -> Table:
    table = Table(title=title, box=box.SIMPLE, title_justify="left")
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="left" if number == 0 else "right")
    return table
