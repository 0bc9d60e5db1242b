"""What the reproduction found, in a sentence for each table and figure, and what is too long for a page in short.

Every number is read from `results/`, in the form that its table has. The words of a sentence hold for numbers of one
sign. Where other results contradict them, `ContradictedError` says so, and the sentence is to be written anew.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from rethinking.experiments.catalogue import EXPERIMENTS
from rethinking.experiments.experiment import Cell
from rethinking.experiments.quantities import percent
from rethinking.models import catalogue
from rethinking.report import tables

# The folders of the results.
ORIGINAL, ORIGINAL_SMALL, COPY, SMALL, MNIST = "cifar10", "cifar10-small", "cifar10_jpeg", "cifar10_jpeg-small", "mnist"
SMALL_ONES = {"CIFAR-10": ORIGINAL_SMALL, "MNIST": "mnist-small"}
LISTED = 10  # images of the long tail
COMPARED = ("area under margin", "confidence", "el2n", "last loss", "variability")  # scores by the epoch


class ContradictedError(ValueError):
    """The results do not say what a sentence says."""


def _hold(words: str, *facts: bool) -> None:
    """Raises `ContradictedError` unless all facts hold on which these words of a sentence rest."""
    if not all(facts):
        raise ContradictedError(f"the results contradict the words '{words}'; write the sentence anew")


class Shown:
    """The cells of one table or figure."""

    def __init__(self, results: Path, folder: str, name: str) -> None:
        assert name in EXPERIMENTS, "it declares its quantities"
        self.cells, _, _ = tables.read_csv(results / folder / f"{name}.csv")

    def of(self, quantity: str, **labels: str) -> Iterator[Cell]:
        """The cells with that quantity and these labels, in the order of the table."""
        for cell in self.cells:
            if cell.quantity == quantity and labels.items() <= dict(cell.labels).items():
                yield cell

    def one(self, quantity: str, **labels: str) -> Cell:
        """The only cell with that quantity and these labels."""
        (found,) = self.of(quantity, **labels)
        return found

    def ours(self, quantity: str, **labels: str) -> str:
        return tables.shown(quantity, self.one(quantity, **labels).ours)

    def beside(self, quantity: str, **labels: str) -> str:
        """Ours with the paper's in brackets."""
        cell = self.one(quantity, **labels)
        return f"{tables.shown(quantity, cell.ours)} (the paper: {tables.shown(quantity, cell.paper)})"


def table1(results: Path) -> str:
    found = Shown(results, ORIGINAL, "table1")
    train, test = (
        max(found.of(f"{split} accuracy"), key=lambda cell: abs(cell.difference or 0.0)) for split in ("train", "test")
    )
    cells = [*found.of("train accuracy")]
    _hold("with true and with random labels", {dict(cell.labels)["labels"] for cell in cells} == {"true", "random"})
    within = [f"within {100 * abs(cell.difference or 0.0):.2f}" for cell in (train, test)]
    ended = f" The largest difference comes from a run {test.note}." if test.note else ""
    return (
        f"Training accuracy is at least {percent(min(cell.ours or 0.0 for cell in cells))} in all {len(cells)} rows,"
        f" with true and with random labels. It is {within[0]} points of the paper's, test accuracy {within[1]}.{ended}"
    )


def table3(results: Path) -> str:
    original, copy = Shown(results, ORIGINAL, "table3"), Shown(results, COPY, "table3")
    error, conv = "test error", "random conv, 32,000 filters"
    without, with_l2 = (copy.beside(error, features=conv, l2=l2) for l2 in ("no", "yes"))
    best = min(original.of(error, l2="yes"), key=lambda cell: cell.ours or 1.0)
    features = dict(best.labels)["features"]
    filters, *options = features.removeprefix("random conv, ").split(", ", 1)
    return (
        f"The test error on MNIST is {original.beside(error, features='pixels', data='mnist')} from pixels and"
        f" {original.beside(error, features='gabor')} from Gabor features. On CIFAR-10 it is"
        f" {original.beside(error, features='pixels', data='cifar10')} from pixels. With an l2 term, {filters} with"
        f" `{', '.join(options)}` give {original.beside(error, features=features)}. On the JPEG copy"
        f" 32,000 filters with Coates & Ng's constants give {without}, and with an l2 term {with_l2}."
    )


def table3_filter_options(results: Path) -> str:
    found, error = Shown(results, ORIGINAL_SMALL, "table3_filter_options"), "held-out error"
    before, mirrored = (found.one(error, options=options) for options in ("Coates & Ng's", "mirror=True"))
    least = min(found.of(error), key=lambda cell: cell.ours or 0.0)
    alone = [cell for cell in found.of(error) if "," not in dict(cell.labels)["options"].replace(", pool_stride", "")]
    _hold("mirror images lower it most", mirrored == min(alone, key=lambda cell: cell.ours or 0.0))
    numbers = [tables.shown(error, cell.ours) for cell in (before, mirrored, least)]
    return (
        f"Mirror images lower the held-out error most, from {numbers[0]} to {numbers[1]}. The least is {numbers[2]},"
        f" with `{dict(least.labels)['options']}`."
    )


def table4(results: Path) -> str:
    found = Shown(results, ORIGINAL, "table4")
    each = [f"{found.beside('train accuracy', model=model)} for `{model}`" for model in ("mlp_3x512", "mlp_1x512")]
    return f"With weight decay, the training accuracy on random labels is {' and '.join(each)}."


def figure1a(results: Path) -> str:
    loss = Shown(results, ORIGINAL, "figure1a")
    true, random = (_epochs_to_loss(loss, condition, 0.1) for condition in ("true_labels", "random_labels"))
    return (
        f"The training loss falls to 0.1 after {true[0]} epochs on true labels (the paper: {true[1]}) and after"
        f" {random[0]} on random labels (the paper: {random[1]})."
    )


def figure1b(results: Path) -> str:
    found = Shown(results, ORIGINAL, "figure1b")
    each = [
        f"{found.beside('relative time to overfit', model=model, label_corruption='1')} for `{model}`"
        for model in ("small_inception", "mlp_1x512")
    ]
    factors = [cell for cell in found.of("relative time to overfit", label_corruption="1") if cell.ours is not None]
    _hold("random labels take longer", all((cell.ours or 0.0) > 1 for cell in factors))
    return f"Random labels take longer than true ones by a factor of {' and '.join(each)}."


def figure1c(results: Path) -> str:
    found = Shown(results, ORIGINAL, "figure1c")
    inner = [
        -100 * (cell.difference or 0.0)
        for cell in found.of("test error", model="mlp_1x512")
        if dict(cell.labels)["label_corruption"] not in ("0", "1")
    ]
    errors = [cell.ours or 0.0 for cell in found.of("test error", model="mlp_1x512")]
    _hold("the test error rises", errors == sorted(errors))
    _hold("below the paper's", min(inner) > 0)
    return (
        f"The test error rises to {found.beside('test error', model='mlp_1x512', label_corruption='1')} for `mlp_1x512`"
        f" on random labels. Between the ends it is {min(inner):.2f} to {max(inner):.2f} points below the paper's."
    )


def figure2b(results: Path) -> str:
    found = Shown(results, ORIGINAL, "figure2b")
    best = []
    for model in ("small_inception", "small_inception_no_bn"):
        cells = [*found.of("test accuracy", model=model)]
        ours, papers = (max(values) for values in ([c.ours or 0.0 for c in cells], [_number(c.paper) for c in cells]))
        best.append(f"{percent(ours)} (the paper: {percent(papers)})")
    return f"The best test accuracy is {best[0]} with batch normalization and {best[1]} without."


def minimum_norm(results: Path) -> str:
    found = Shown(results, MNIST, "minimum_norm")
    errors = [cell.ours or 0.0 for cell in found.of("test error")]
    misfits = max(cell.ours or 0.0 for cell in found.of("train error"))
    least, descent = (found.ours("test error", solution=name) for name in ("least norm", "gradient descent"))
    return (
        f"The largest training error of the {len(errors)} solutions is {percent(misfits)}. Their test errors go from"
        f" {percent(min(errors))} to {percent(max(errors))}. Gradient descent errs on {descent} of the test images, and"
        f" the solution with the least norm on {least}."
    )


def expressivity(results: Path) -> str:
    found = Shown(results, ORIGINAL, "expressivity")
    random = "images, random labels"
    weights = [found.ours("weights", data=data, points=random) for data in ("mnist", "cifar10")]
    misfits = max(cell.ours or 0.0 for cell in found.of("train error"))
    _hold("fits random labels", misfits == 0)
    return (
        f"A network with {weights[0]} weights fits random labels of all MNIST images. For CIFAR-10 {weights[1]} weights"
        f" are enough. The training error is {percent(misfits)}."
    )


def rademacher(results: Path) -> str:
    found = Shown(results, SMALL, "rademacher")
    networks = {cell.labels for cell in found.of("gap measured")}
    _hold("all networks", {dict(labels)["model"] for labels in networks} == {*catalogue.PAPER})
    least, bound, gap = (
        [cell.ours or 0.0 for cell in found.of(quantity) if cell.labels in networks]
        for quantity in ("correlation", "bound on the gap, at least", "gap measured")
    )
    _hold("all networks reach a correlation, so the bound, while the gaps", min(least) > 0.99, min(bound) > max(gap))
    return (
        f"On the JPEG copy all networks reach a correlation of at least {min(least):.3f} with random signs. So the"
        f" bound on the gap is at least {min(bound):.2f}, while the measured gaps are {min(gap):.2f} to {max(gap):.2f}."
    )


def stability(results: Path) -> str:
    found = Shown(results, SMALL, "stability")
    quantity = "mean change of loss, nats"
    ratios = [random / true for true, random in _last_changes(found, quantity).values()]
    shares = [random / true for true, random in _last_changes(found, "mean change of probability").values()]
    _hold("changes the final loss times as much", min(ratios) > 1)
    return (
        f"On the JPEG copy one replaced example changes the final loss {min(ratios):.1f} to {max(ratios):.1f} times as"
        f" much with random labels as with true ones. It changes the probability of the right class"
        f" {min(shares):.1f} to {max(shares):.1f} times as much."
    )


def complexity(results: Path) -> str:
    found = Shown(results, SMALL, "complexity")

    def ends(quantity: str) -> str:
        true, random = (found.one(quantity, model="mlp_1x512", label_corruption=level) for level in "01")
        _hold(f"the {quantity} grows", (true.ours or 0.0) < (random.ours or 0.0))
        return f"from {tables.shown(quantity, true.ours)} to {tables.shown(quantity, random.ours)}"

    return (
        f"On the JPEG copy the gap of `mlp_1x512` grows {ends('generalization gap')} between true and random labels."
        f" Its Frobenius norm grows {ends('Frobenius norm')}, and its sharpness {ends('sharpness')}."
    )


def detection(results: Path) -> str:
    networks = {"CIFAR-10": "small_alexnet", "MNIST": "mlp_1x512"}
    found = {name: Shown(results, folder, "detection") for name, folder in SMALL_ONES.items()}
    for shown in found.values():
        of_score: dict[str, list[float]] = {}
        for cell in shown.of("AUROC"):
            of_score.setdefault(dict(cell.labels)["score"], []).append(cell.ours or 0.0)
        for score in ("last loss", "el2n", "forgetting events"):
            pairs = zip(of_score["area under margin"], of_score[score], strict=True)
            _hold(f"better than {score} for every network, noise and rate", *(first > other for first, other in pairs))

    def areas(score: str) -> str:
        wanted = {"noise": "uniform", "score": score, "noise rate": "0.2"}
        return " and ".join(
            f"{shown.ours('AUROC', model=networks[name], **wanted)} on {name}" for name, shown in found.items()
        )

    return (
        "Area under the margin finds wrong labels better than the loss of the last epoch, EL2N and forgetting events,"
        " for every network, noise and rate. Where a fifth of the labels is drawn uniformly, its AUROC after 30 epochs"
        f" is {areas('area under margin')}. The last loss has {areas('last loss')}. The networks are `small_alexnet`"
        " and `mlp_1x512`."
    )


def best_epochs(results: Path) -> str:
    """The epoch in which a score finds most, and what it finds then and after the last epoch."""
    rows = []
    for name, folder in SMALL_ONES.items():
        found = Shown(results, folder, "detection_epochs")
        for quantity in dict.fromkeys(cell.quantity for cell in found.cells):
            _, network, noise = quantity.split(", ")
            curves = {score: [cell.ours or 0.0 for cell in found.of(quantity, score=score)] for score in COMPARED}
            falls = {score: max(curve) - curve[-1] for score, curve in curves.items()}
            _hold("confidence loses less than the last loss", falls["confidence"] < falls["last loss"])
            if (name, network) == ("CIFAR-10", "mlp_1x512"):
                last = {score: curve[-1] for score, curve in curves.items()}
                varies = curves["variability"]
                _hold("the best after 30 epochs", last["variability"] == max(last.values()), len(varies) == 30)
                _hold("worse than guessing after ten", varies[9] < 0.5)
            entries = (
                f"{max(curve):.3f} ({curve.index(max(curve)) + 1}), {curve[-1]:.3f}" for curve in curves.values()
            )
            rows.append([name, f"`{network}`", noise, *entries])
    return tables.markdown_table(["data", "network", "noise", *COMPARED], rows)


def memorized(results: Path) -> str:
    found = {name: Shown(results, folder, "memorized") for name, folder in SMALL_ONES.items()}
    words = []
    for name, shown in found.items():
        true = [cell.ours or 0.0 for cell in shown.of("mean memorization", labels="true")]
        wrong = [cell.ours or 0.0 for cell in shown.of("mean memorization", labels="random, wrong")]
        _hold("grows from level to level", true == sorted(true))
        words.append(
            f"On {name} its mean memorization of true labels grows from {percent(true[0])} to {percent(true[-1])} with"
            f" label corruption; of wrong labels it is {percent(min(wrong))} to {percent(max(wrong))}."
        )
    return f"`mlp_1x512` on 5,000 images memorizes wrong labels at every level. {' '.join(words)}"


def long_tail(results: Path) -> str:
    """The most memorized images with true labels, by their places in the training set."""
    rows = []
    for name, folder in SMALL_ONES.items():
        with (results / folder / "memorized_examples.csv").open(newline="") as file:
            runs = [row for row in csv.DictReader(file) if row["randomization"] == "none"]
        for run in runs:
            most = json.loads(run["facts"])["labels"]["right"]["most"][:LISTED]
            shown = (f"{place} ({value:.0%} ± {error:.0%})" for place, value, error in most)
            rows.append([name, f"`{run['model_name']}`", ", ".join(shown)])
    return tables.markdown_table(["data", "network", "images: memorization ± standard error"], rows)


class Page(NamedTuple):
    """title: of the link to it; shows: what the paper's table or figure is for; found: our result in a sentence"""

    title: str
    shows: str
    found: Callable[[Path], str]


PAGES = {
    "table1": Page("Table 1", "Explicit regularization is not why networks generalize", table1),
    "table3": Page("Table 3", "Linear models fit every label and generalize", table3),
    "table3_filter_options": Page(
        "Random filters", "Mirror images matter more than the other options of the filters", table3_filter_options
    ),
    "table4": Page("Table 4", "Networks fit random labels in spite of explicit regularization", table4),
    "figure1a": Page("Figure 1a", "Networks fit random labels and random pixels", figure1a),
    "figure1b": Page("Figure 1b", "Random labels take longer by a small factor only", figure1b),
    "figure1c": Page("Figure 1c", "The test error rises steadily with label corruption", figure1c),
    "figure2b": Page("Figure 2b", "Networks generalize without batch normalization too", figure2b),
    "minimum_norm": Page("Minimum norm", "Gradient descent finds the solution with the least norm", minimum_norm),
    "expressivity": Page("Expressivity", "Two layers with 2n + d weights fit any labels", expressivity),
    "rademacher": Page("Rademacher complexity", "Equation 1 gives no bound for networks that fit noise", rademacher),
    "stability": Page(
        "Uniform stability", "The worst case over all training sets is one number for true and random labels", stability
    ),
    "complexity": Page(
        "Complexity measures", "Norms, margins and sharpness beside the gap; beyond the paper", complexity
    ),
    "detection": Page(
        "Wrong labels", "Which score of examples finds the labels that we replaced; beyond the paper", detection
    ),
    "memorized": Page(
        "Memorization", "Random labels are memorized, true labels only in the long tail; beyond the paper", memorized
    ),
}


def overview(results: Path) -> str:
    """A row for each page on the reproduction."""
    rows = [[f"[{page.title}]({name}.md)", page.shows, page.found(results)] for name, page in PAGES.items()]
    lines = [["page", "what it shows", "what we find"], ["---"] * 3, *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def loss_reached(results: Path) -> str:
    """Figure 1a's curves in short: the first epoch whose training loss is at most a threshold, ours and the paper's."""
    found = Shown(results, ORIGINAL, "figure1a")
    conditions = dict.fromkeys(dict(cell.labels)["condition"] for cell in found.cells)
    levels = (1.0, 0.1, 0.01)
    columns = ["condition", *(word for level in levels for word in (f"loss at most {level:g}", "paper"))]
    rows = [
        [condition, *(str(epoch) for level in levels for epoch in _epochs_to_loss(found, condition, level))]
        for condition in conditions
    ]
    return tables.markdown_table(columns, rows)


def _epochs_to_loss(found: Shown, condition: str, level: float) -> tuple[int, int]:
    """The first epoch with at most that training loss, ours and the paper's."""
    cells = [*found.of("training loss", condition=condition)]
    ours = [cell.x for cell in cells if cell.ours is not None and cell.ours <= level]
    papers = [cell.x for cell in cells if isinstance(cell.paper, float) and cell.paper <= level]
    _hold(f"the training loss falls to {level:g}", bool(ours), bool(papers))
    return int(ours[0] or 0), int(papers[0] or 0)


def last_changes(results: Path) -> str:
    """Uniform stability in short: its numbers after the last epoch."""
    found = Shown(results, SMALL, "stability")
    quantities = list(dict.fromkeys(cell.quantity for cell in found.cells))
    rows = []
    for labels, cells in groupby(found.cells, key=lambda cell: cell.labels):
        of_row = [*cells]
        last = {cell.quantity: cell for cell in of_row if cell.x == max(c.x or 0.0 for c in of_row)}
        rows.append([value for _, value in labels] + [tables.ours(last[name], last[name].std) for name in quantities])
    return tables.markdown_table(["model", "labels", *quantities], rows)


def _last_changes(found: Shown, quantity: str) -> dict[str, tuple[float, float]]:
    """A quantity after the last epoch, with true and with random labels, by model."""
    last: dict[str, dict[str, float]] = {}
    for cell in found.of(quantity):
        labels = dict(cell.labels)
        last.setdefault(labels["model"], {})[labels["labels"]] = cell.ours or 0.0
    return {model: (by_labels["true"], by_labels["random"]) for model, by_labels in last.items()}


def _number(value: float | str | None) -> float:
    return value if isinstance(value, float) else 0.0
