"""The page of scored examples: the images at both ends of each score, a data map, and how well wrong labels are found.

The page is one file that needs no network.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from rethinking.measures.detection import roc
from rethinking.measures.examples import PASSES, ScoredExamples, class_name
from rethinking.report import pictures

SHOWN = 24  # images at each end of a score
SUSPECTS = 100  # images of the first section, where networks were asked that were not trained on them
SUSPECTED_BY = "area_under_margin"  # the score that orders these, and the list on the terminal
POINTS = 5000  # of a data map, at most; evenly chosen


@dataclass(frozen=True)
class Section:
    """One score: its definition, its source, and the images at its ends."""

    name: str
    title: str
    definition: str
    source: str
    suspects: list[pictures.Shown]
    others: list[pictures.Shown]
    auroc: str
    precision: str
    consistency: str


def write(examples: ScoredExamples, folder: Path) -> Path:
    """Writes examples.html and examples.csv into `folder`, and returns the page's path. Raises `RunError`."""
    path = pictures.write(folder, "examples.html", as_html(examples))
    examples.write_csv(folder / "examples.csv")
    return path


def as_html(examples: ScoredExamples) -> str:
    """Returns the page as text."""
    wrong = examples.wrong
    return pictures.rendered(
        "examples.html.j2",
        title=f"Examples of {examples.data.name}",
        examples=examples,
        passes=PASSES[examples.of],
        wrong=None if wrong is None else int(wrong.sum()),
        suspects=_suspects(examples),
        predicted_otherwise=0 if examples.predicted is None else int((examples.predicted != examples.labels).sum()),
        suspected_by=SUSPECTED_BY.replace("_", " "),
        sections=_sections(examples),
        roc=pictures.drawn(_roc_curves(examples), "roc") if examples.found() else None,
        data_map=pictures.drawn(data_map(examples), "data map"),
    )


def _suspects(examples: ScoredExamples) -> list[pictures.Shown]:
    if examples.probabilities is None:
        return []
    return [_shown(examples, SUSPECTED_BY, place) for place in examples.suspects(SUSPECTED_BY)[:SUSPECTS].tolist()]


def _sections(examples: ScoredExamples) -> list[Section]:
    sections, found = [], examples.found()
    for name, score in examples.kinds.items():
        order = examples.suspects(name)
        ends = min(SHOWN, len(order) // 2)
        repeated = examples.consistency[name]
        sections.append(
            Section(
                name,
                name.replace("_", " "),
                (score.of.__doc__ or "").split("\n\n")[0].removeprefix("Returns ").strip(),
                score.source,
                [_shown(examples, name, place) for place in order[:ends].tolist()],
                [_shown(examples, name, place) for place in order[::-1][:ends].tolist()],
                f"{found[name].auroc:.3f}" if name in found else "",
                f"{found[name].precision:.1%}" if name in found else "",
                "" if np.isnan(repeated) else f"{repeated:.2f}",
            )
        )
    return sections


def _shown(examples: ScoredExamples, name: str, place: int) -> pictures.Shown:
    index = int(examples.index[place])
    split = examples.data.test if examples.of == "test" else examples.data.train
    assert split is not None
    true, wrong, names = examples.true_labels, examples.wrong, examples.class_names
    label, predicted = int(examples.labels[place]), examples.predicted
    return pictures.Shown(
        pictures.picture(split.images[index]),
        index,
        class_name(names, label),
        class_name(names, int(true[place])) if true is not None and wrong is not None and wrong[place] else None,
        f"{examples.scores[name][place]:.3g}",
        None if predicted is None or predicted[place] == label else class_name(names, int(predicted[place])),
        None if examples.files is None else examples.files[place],
    )


def data_map(examples: ScoredExamples) -> Figure:
    """Draws each example at its variability and confidence (Swayamdipta et al. 2020)."""
    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    axes = figure.subplots()
    count = len(examples.index)
    chosen = np.unique(np.linspace(0, count - 1, min(count, POINTS)).astype(int))
    wrong = examples.wrong
    groups = {"": np.ones(count, bool)} if wrong is None else {"right label": ~wrong, "wrong label": wrong}
    for number, (label, members) in enumerate(groups.items()):
        places = chosen[members[chosen]]
        axes.scatter(
            examples.scores["variability"][places],
            examples.scores["confidence"][places],
            s=5,
            alpha=0.5,
            linewidths=0,
            color=f"C{number}",
            label=label,
            rasterized=True,
        )
    axes.set(xlabel="variability", ylabel="confidence", xlim=(0, None), ylim=(-0.02, 1.02))
    axes.grid(alpha=0.3)
    if wrong is not None:
        axes.legend(fontsize="small", markerscale=2)
    return figure


def _roc_curves(examples: ScoredExamples) -> Figure:
    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    axes = figure.subplots()
    wrong = examples.wrong
    assert wrong is not None, "it is known which labels are wrong"
    for name, values in examples.scores.items():
        axes.plot(*roc(examples.kinds[name].suspicion(values), wrong), label=name.replace("_", " "), linewidth=1.2)
    axes.plot([0, 1], [0, 1], color="grey", linestyle=":", linewidth=1)
    axes.set(xlabel="share of right labels suspected", ylabel="share of wrong labels found", xlim=(0, 1), ylim=(0, 1))
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    return figure
