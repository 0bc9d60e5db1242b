"""The page of memorization: which images the networks memorized, and which training images helped which test images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from rethinking.measures.examples import class_name
from rethinking.measures.subsets import Memorized
from rethinking.report import pictures

SHOWN = 48  # most memorized images, and pairs with the most influence
BINS = 40


def write(measured: Memorized, folder: Path) -> Path:
    """Writes memorization.html and the tables into `folder`, and returns the page's path. Raises `RunError`."""
    path = pictures.write(folder, "memorization.html", as_html(measured))
    measured.write_csv(folder)
    return path


def as_html(measured: Memorized) -> str:
    """Returns the page as text."""
    estimate, wrong = measured.memorization, measured.wrong
    groups = {"all labels": np.ones(len(measured.labels), bool)}
    if wrong is not None and wrong.any() and not wrong.all():
        groups = {"right labels": ~wrong, "wrong labels": wrong}
    return pictures.rendered(
        "memorization.html.j2",
        title=f"Memorized examples of {measured.data.name}",
        measured=measured,
        share=int(measured.inside[0].sum()),
        errors=measured.standard_errors(),
        means={name: f"{np.nanmean(estimate.value[members]):.1%}" for name, members in groups.items()},
        histogram=pictures.drawn(histogram(measured, groups), "memorization"),
        memorized={name: _most_memorized(measured, members) for name, members in groups.items()},
        pairs=[
            (
                _tested(measured, pair.test),
                _shown(measured, pair.train, f"{pair.influence:.0%} ± {pair.standard_error:.0%}"),
            )
            for pair in measured.pairs(SHOWN)
        ],
    )


def _most_memorized(measured: Memorized, members: np.ndarray) -> list[pictures.Shown]:
    """Returns the most memorized images of a group. Of right labels, they are the long tail: rare images of a class."""
    value, error = measured.memorization
    places = measured.memorization.largest(SHOWN, members).tolist()
    return [_shown(measured, place, f"{value[place]:.0%} ± {error[place]:.0%}") for place in places]


def _shown(measured: Memorized, place: int, value: str) -> pictures.Shown:
    names, wrong, index = measured.data.class_names, measured.wrong, int(measured.index[place])
    true = None
    if measured.true_labels is not None and wrong is not None and wrong[place]:
        true = class_name(names, int(measured.true_labels[place]))
    label = class_name(names, int(measured.labels[place]))
    return pictures.Shown(pictures.picture(measured.data.train.images[index]), index, label, true, value)


def _tested(measured: Memorized, index: int) -> pictures.Shown:
    test, labels = measured.data.test, measured.test_labels
    assert test is not None, "there are pairs"
    assert labels is not None, "there are pairs"
    label = class_name(measured.data.class_names, int(labels[index]))
    return pictures.Shown(pictures.picture(test.images[index]), index, label, None, "")


def histogram(measured: Memorized, groups: dict[str, np.ndarray]) -> Figure:
    """Draws how many images of each group have which memorization."""
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axes = figure.subplots()
    value = measured.memorization.value
    edges = np.linspace(-1, 1, BINS + 1).tolist()
    for number, (name, members) in enumerate(groups.items()):
        chosen = value[members]
        axes.hist(chosen[np.isfinite(chosen)], edges, alpha=0.6, color=f"C{number}", label=name)
    axes.set(xlabel="memorization", ylabel="training images", yscale="symlog")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    return figure
