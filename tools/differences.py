"""Makes the tables of docs/differences.md from `results/` and the paper's numbers."""

from __future__ import annotations

import csv
import math
import statistics
from collections.abc import Iterable
from pathlib import Path

from rethinking.config import ExperimentConfig
from rethinking.experiments import archive, figure1b, figure1c
from rethinking.experiments.catalogue import EXPERIMENTS
from rethinking.experiments.experiment import Cell, Evidence
from rethinking.experiments.paper import read_table, table1_row
from rethinking.experiments.table3 import FEATURES
from rethinking.experiments.time_to_overfit import time_to_overfit
from rethinking.report import tables
from tools.reproduced import COPY, MNIST, ORIGINAL

COMPARED = ("train accuracy", "test accuracy", "test error", "epochs to overfit")
PLAIN = {  # of the runs that `trials` compares
    "train_subset": None,
    "crop_size": 28,
    "weight_decay": 0.0,
    "random_crop": False,
    "augment_flip_rotate": False,
    "num_epochs": 70,
    "batch_size": 128,
    "optimizer": "sgd",
    "momentum": 0.9,
    "learning_rate": 0.01,
    "lr_schedule": "exponential",
    "lr_decay": 0.95,
}


def single_runs(results: Path) -> str:
    """Makes the table of the runs in `results/differences`, with mean and standard deviation over seeds."""
    columns = [
        "data",
        "images",
        "model",
        "labels",
        "pixel noise",
        "initial weights",
        "weight decay",
        "epochs",
        "98.5% in epoch",
        "seeds",
        "training",
        "test",
    ]
    groups: dict[tuple[str, ...], list[Evidence]] = {}
    for run in archive.read(results / "differences").values():
        if run.is_of_network:
            groups.setdefault(_named(run), []).append(run)
    body = [
        [
            *name,
            _together(map(_time_to_overfit, runs)),
            str(len(runs)),
            _mean(runs, "exact_train_accuracy", "train_accuracy"),
            _mean(runs, "test_accuracy"),
        ]
        for name, runs in sorted(groups.items())
    ]
    return tables.markdown_table(columns, body)


def _named(run: Evidence) -> tuple[str, ...]:
    """Returns what distinguishes a run from the others, in the columns of `single_runs`."""
    config = run.configuration
    labels = {"none": "true", "random_labels": "random", "partial_corrupt": f"random {config['corruption_prob']}"}
    where = ", hidden linear layers" if config["weight_decay"] and "weight_decay_on" in config else ""
    return (
        run.facts["dataset"],
        f"{run.facts['train_images']:,}",
        f"`{_network(run)}`",
        labels.get(config["randomization"], config["randomization"]),
        f"{config.get('pixel_noise', 0):g}",
        _weights(run),
        f"{config['weight_decay']:g}{where}",
        run.progress.removeprefix("after ").removesuffix(" epochs") or str(config["num_epochs"]),
    )


def _together(values: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(values))


def _mean(runs: list[Evidence], *metrics: str) -> str:
    """Writes the mean over seeds of the first of these metrics that the last epoch has, with the sample deviation."""
    found = ([last[name] for name in metrics if last[name] is not None] for last in (run.metrics[-1] for run in runs))
    values = [100 * accuracies[0] for accuracies in found if accuracies]
    if len(values) < 2:
        return f"{values[0]:.2f}%" if values else ""
    return f"{statistics.mean(values):.2f} ± {statistics.stdev(values):.2f}%"


def compression(results: Path) -> str:
    """Makes the table of each number that is measured both on CIFAR-10 and on its JPEG copy."""
    body = []
    for name in ("table1", "table3", "table4", "figure1b", "figure1c"):
        original, copy = (
            {_place(cell): cell for cell in tables.read_csv(folder / f"{name}.csv")[0] if cell.ours is not None}
            for folder in (results / ORIGINAL, results / COPY)
        )
        for place, cell in original.items():
            if place in copy and cell.quantity in COMPARED:
                title = EXPERIMENTS[name].title.partition(":")[0]
                numbers = [tables.ours(one, one.std) for one in (cell, copy[place])]
                row = tables.labels_in_words((label.replace("_", " "), value) for label, value in place[0])
                body.append([title, row, cell.quantity, *numbers])
    return tables.markdown_table(["", "row", "quantity", "CIFAR-10", "JPEG copy"], body)


def _place(cell: Cell) -> tuple[tuple[tuple[str, str], ...], str]:
    """Returns the labels of a cell without the data's, and its quantity."""
    return tuple((name, value) for name, value in cell.labels if name != "data"), cell.quantity


def levels(results: Path) -> str:
    """Makes the table of epochs to overfit and test error on CIFAR-10 at each level (Figures 1b and 1c).

    The last column is the error that our networks would have on test labels that are corrupted as well.
    """
    columns = ["model", "label corruption", "epochs, the paper", "epochs", "test error, the paper", "test error"]
    columns.append("on corrupted test labels, expected")
    overfit, error = (
        {_place(cell): cell for cell in tables.read_csv(results / ORIGINAL / f"{name}.csv")[0]}
        for name in ("figure1b", "figure1c")
    )
    body = []
    for (labels, quantity), cell in error.items():
        model, level = (value for _, value in labels)
        epochs = overfit[labels, "epochs to overfit"]
        if quantity == "test error" and cell.ours is not None and isinstance(cell.paper, float):
            expected = error_on_corrupted_labels(cell.ours, float(level))
            numbers = [f"{epochs.paper:g}", tables.ours(epochs, epochs.std), f"{cell.paper:.2%}"]
            body.append([f"`{model}`", level, *numbers, tables.ours(cell, cell.std), f"{expected:.2%}"])
    return tables.markdown_table(columns, body)


def _time_to_overfit(run: Evidence) -> str:
    epochs = time_to_overfit(run.metrics)
    return f"over {len(run.metrics)}" if epochs is None else str(epochs)


def _network(run: Evidence) -> str:
    """Returns the network's name, without the file of one that is no network of the package."""
    return str(run.configuration["model_name"]).rpartition(":")[2]


def _weights(run: Evidence) -> str:
    """Returns the initial weights of a run: the scheme, or the file and options of a network that draws its own."""
    config = run.configuration
    if config["init"] != "own":
        return f"`{config['init']}`"
    file = config["model_name"].rpartition(":")[0]
    return f"`{file}`, `{config['model_options']}`" if config.get("model_options") else f"`{file}`"


def mlp_trials(results: Path) -> str:
    """Makes the table of MLP 1x512 from several initial weights."""
    return _trials(results, "mlp_1x512")


def order_of_batches(results: Path) -> str:
    """Makes the table of MLP 1x512 with batches in several orders (`trials/order_of_batches.py`)."""
    columns = ["order of batches", "labels", "seed", "epochs to overfit", "training accuracy", "test accuracy"]
    body = []
    for row in csv.DictReader((results / "differences" / "order_of_batches.csv").open(encoding="utf-8")):
        accuracies = [f"{float(row[name]):.2%}" for name in ("train_accuracy", "test_accuracy")]
        epochs = row["epochs_to_overfit"] or "over 70"
        body.append([row["order"], row["labels"], row["seed"], epochs, *accuracies])
    return tables.markdown_table(columns, body)


def alexnet_trials(results: Path) -> str:
    """Makes the table of small AlexNet from several initial weights."""
    return _trials(results, "small_alexnet")


def _trials(results: Path, model: str) -> str:
    """Makes the table of a model's runs without regularization, by initial weights, on true and on random labels."""
    columns = ["data", "initial weights", "epochs to overfit, true labels", "test accuracy", "seeds"]
    columns += ["epochs to overfit, random labels", "training accuracy", "seeds"]
    table1 = [table1_row(ExperimentConfig(model_name=model, randomization=name)) for name in ("none", "random_labels")]
    curves = figure1b.CURVES[model, "epochs to overfit"]
    assert table1[0] is not None
    training = "" if table1[1] is None else f"{table1[1].train_accuracy:.2%}"
    figure_1c = f"{1 - figure1c.CURVES[model, 'test error'][0.0]:.2%}"
    body = [
        ["the paper, Table 1", "", "", f"{table1[0].test_accuracy:.2%}", "", "", training, ""],
        ["the paper, Figure 1", "", f"{curves[0.0]:g}", figure_1c, "", f"{curves[1.0]:g}", "", ""],
    ]
    groups: dict[tuple[str, str], dict[str, list[Evidence]]] = {}
    for folder in (ORIGINAL, COPY, "differences"):
        for run in archive.read(results / folder).values():
            config = run.configuration
            plain = run.is_of_network and all(config[name] == value for name, value in PLAIN.items())
            labels = config.get("randomization")
            if plain and _network(run) == model and labels in ("none", "random_labels") and "pixel_noise" not in config:
                group = groups.setdefault((run.facts["dataset"], _weights(run)), {"none": [], "random_labels": []})
                if run.configuration["seed"] not in (other.configuration["seed"] for other in group[labels]):
                    group[labels].append(run)
    for name, by_labels in sorted(groups.items()):
        true, random = by_labels.values()
        cells = [_epochs(true), _accuracy(true, "test_accuracy"), str(len(true))]
        cells += [_epochs(random), _accuracy(random, "exact_train_accuracy", "train_accuracy"), str(len(random))]
        body.append([*name, *cells])
    return tables.markdown_table(columns, body)


def _epochs(runs: list[Evidence]) -> str:
    """Writes the mean time to overfit with the sample deviation, or each where a run did not come so far."""
    found = [time_to_overfit(run.metrics) for run in runs]
    known = [epochs for epochs in found if epochs is not None]
    if len(known) < len(found) or len(known) < 2:
        return _together(map(_time_to_overfit, runs))
    return f"{statistics.mean(known):.1f} ± {statistics.stdev(known):.1f}"


def _accuracy(runs: list[Evidence], *metrics: str) -> str:
    """Writes the mean accuracy, and how far the runs came where they are not finished."""
    progress = _together(run.progress for run in runs if run.progress)
    return _mean(runs, *metrics) + (f" ({progress})" if progress else "")


def corrupted_test_labels(_: Path) -> str:
    """Makes the table of Figure 1c minus the error of networks that memorize, on true and on corrupted test labels.

    A network with error e at level 0 is taken to memorize at level p. Its error is then c(e, p) on the true test
    labels, and c(c(e, p), p) on corrupted test labels, where c is `error_on_corrupted_labels`.
    """
    columns = ["model", "error at level 0", "Figure 1c less c(e, p)", "Figure 1c less c(c(e, p), p)"]
    body = []
    for (model, _quantity), curve in figure1c.CURVES.items():
        true, corrupted = [], []
        for level, error in curve.items():
            if 0 < level < 1:
                memorized = error_on_corrupted_labels(curve[0.0], level)
                true.append(error - memorized)
                corrupted.append(error - error_on_corrupted_labels(memorized, level))
        spans = [f"{100 * min(values):+.1f} to {100 * max(values):+.1f}" for values in (true, corrupted)]
        body.append([f"`{model}`", f"{curve[0.0]:.2%}", *spans])
    return tables.markdown_table(columns, body)


def bandwidths(results: Path) -> str:
    """Makes the table of the Gaussian kernel's bandwidths on pixels: those searched, and those solved."""
    columns = ["data", "bandwidth", "of the median distance", "held-out error", "test error", "norm", "peak memory"]
    body = []
    for dataset in (MNIST, COPY):
        kept = archive.read(results / dataset) | archive.read(results / "differences")
        body += [[dataset, *row] for row in _bandwidths_of(dataset, list(kept.values()))]
    return tables.markdown_table(columns, body)


def _bandwidths_of(dataset: str, kept: list[Evidence]) -> list[list[str]]:
    whole = {"features": "pixels", "kernel": "gaussian", "solution": "minimum_norm", "train_subset": None}
    runs = [
        run
        for run in kept
        if run.facts["dataset"] == dataset and all(run.configuration.get(name) == whole[name] for name in whole)
    ]
    solved = {f"{run.facts['bandwidth']:.6g}": run.facts for run in runs}
    tried = {name: error for run in runs for name, error in run.facts.get("bandwidths_tried", {}).items()}
    median = next(run.facts["median_distance"] for run in runs if "median_distance" in run.facts)
    body = []
    for name in sorted(tried | solved, key=float):
        held_out = f"{tried[name]:.2%}" if name in tried else ""
        found = solved.get(name)
        of_all = ["", "", ""]
        if found is not None:
            of_all = [f"{found['test_error']:.2%}", f"{found['norm']:.0f}", f"{found['peak_gib']:.1f} GiB"]
        body.append([name, f"{float(name) / median:.2f}", held_out, *of_all])
    return body


def norms(results: Path) -> str:
    """Makes the table of three norms of the solutions on all of MNIST, beside the paper's (Table 3)."""
    columns = ["features", "bandwidth", "test error", "the paper's norm", "in the kernel's space"]
    columns += ["mean over outputs of their coefficients'", "of all coefficients together"]
    papers = {
        FEATURES[row["preprocessing"]]: row["minimum_norm"] for row in read_table("table3") if row["minimum_norm"]
    }
    body = []
    for run in archive.read(results / "differences").values():
        lengths = run.facts.get("coefficient_norms")
        if lengths and run.facts["dataset"] == MNIST:
            facts, features = run.facts, run.configuration["features"]
            numbers = [facts["norm"], statistics.mean(lengths), math.hypot(*lengths)]
            body.append([features, f"{facts['bandwidth']:.3g}", f"{facts['test_error']:.2%}", papers[features]])
            body[-1] += [f"{number:.0f}" for number in numbers]
    return tables.markdown_table(columns, sorted(body, reverse=True))


def error_on_corrupted_labels(error: float, level: float, classes: int = 10) -> float:
    """Returns the expected error where each test label is a uniform draw of `classes` with probability `level`."""
    return (1 - level) * error + level * (1 - 1 / classes)
