"""Makes the tables of docs/differences.md from `results/` and the paper's numbers."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rethinking.config import ExperimentConfig
from rethinking.experiments import archive, figure1b, figure1c
from rethinking.experiments.catalogue import EXPERIMENTS
from rethinking.experiments.experiment import Cell, Evidence
from rethinking.experiments.paper import table1_row
from rethinking.experiments.scale import SCALES, Study
from rethinking.experiments.time_to_overfit import time_to_overfit
from rethinking.identity import question
from rethinking.report import tables
from tools.reproduced import COPY, MNIST, ORIGINAL

COMPARED = ("train accuracy", "test accuracy", "test error", "epochs to overfit")
NOISE = 5.0  # standard deviation of the pixel noise in docs/differences.md, on the 0-255 scale


def single_runs(results: Path) -> str:
    """Makes the table of the runs in `results/differences`, with mean and standard deviation over seeds.

    The runs with noise and partly corrupted labels stand in `noise_levels` instead.
    """
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
    folder = results / "differences"
    between = [run.run for level, run in _levels(folder, "mlp_1x512", pixel_noise=NOISE).items() if 0 < level < 1]
    groups: dict[tuple[str, ...], list[Evidence]] = {}
    for run in archive.read(folder).values():
        if run.run not in between and run.is_of_network:
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
        f"`{config['model_name']}`",
        labels.get(config["randomization"], config["randomization"]),
        f"{config.get('pixel_noise', 0):g}",
        config["init"],
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


def noise_levels(results: Path) -> str:
    """Makes the table of epochs to overfit and test error at each corruption level (Figures 1b and 1c).

    It compares the paper, the JPEG copy of CIFAR-10, and the copy with pixel noise.
    """
    heads = ("the paper", "cifar10_jpeg", "cifar10_jpeg with noise")
    columns = ["label corruption", *(f"epochs, {head}" for head in heads), *(f"test error, {head}" for head in heads)]
    columns.append("test error, cifar10_jpeg, expected on corrupted test labels")
    copy = _levels(results / COPY, "mlp_1x512")
    noisy = _levels(results / "differences", "mlp_1x512", pixel_noise=NOISE)
    body = []
    for level, stated in figure1b.CURVES["mlp_1x512", "epochs to overfit"].items():
        found = (runs_by_level.get(level) for runs_by_level in (copy, noisy))
        runs = [run if run is not None and run.finished else None for run in found]
        errors = [figure1c.CURVES["mlp_1x512", "test error"][level], *map(_test_error, runs)]
        errors.append(None if errors[1] is None else error_on_corrupted_labels(errors[1], level))
        epochs = [f"{stated:g}", *map(_time_to_overfit, runs)]
        body.append([f"{level:g}", *epochs, *("" if error is None else f"{error:.2%}" for error in errors)])
    return tables.markdown_table(columns, body)


def _levels(folder: Path, model: str, **options: Any) -> dict[float, Evidence]:
    """Returns Figure 1b's runs of `model` on the JPEG copy, with these options, by their corruption level."""
    kept = archive.read(folder)
    fingerprints = {run.facts["dataset"]: run.facts["provenance"]["fingerprint"] for run in kept.values()}
    study = Study(SCALES["full"], (model,), {"crop_size": 28, **options})
    found = {}
    for row in figure1b.rows(study):
        assert isinstance(row.config, ExperimentConfig), "a network"
        sought = question(row.config.resolved(), "cifar10_jpeg", fingerprints["cifar10_jpeg"])
        answer = archive.best_answer(kept, sought)
        if answer is not None:
            found[float(dict(row.labels)["label_corruption"])] = answer
    return found


def _test_error(run: Evidence | None) -> float | None:
    return None if run is None else 1 - run.metrics[-1]["test_accuracy"]


def _time_to_overfit(run: Evidence | None) -> str:
    if run is None:
        return ""
    epochs = time_to_overfit(run.metrics)
    return f"over {len(run.metrics)}" if epochs is None else str(epochs)


def alexnet_weights(results: Path) -> str:
    """Makes the table of small AlexNet from two initializations, beside the paper's numbers (Table 1, Figure 1)."""
    columns = ["initial weights", "test accuracy, true labels", "epochs to overfit, true labels", "random labels"]
    table1 = table1_row(ExperimentConfig(model_name="small_alexnet"))
    assert table1 is not None
    epochs = [f"{figure1b.CURVES['small_alexnet', 'epochs to overfit'][level]:g}" for level in (0.0, 1.0)]
    body = [
        ["the paper's, Table 1", f"{table1.test_accuracy:.2%}", "", ""],
        ["the paper's, Figure 1", f"{1 - figure1c.CURVES['small_alexnet', 'test error'][0.0]:.2%}", *epochs],
    ]
    for init, folder in (("pytorch", results / COPY), ("he", results / "differences")):
        runs = _levels(folder, "small_alexnet", init=init)
        true, random = runs[0.0], runs[1.0]
        progress = f" ({true.progress})" if true.progress else ""
        accuracy = f"{true.metrics[-1]['test_accuracy']:.2%}{progress}"
        body.append([f"`{init}`", accuracy, _time_to_overfit(true), _time_to_overfit(random)])
    return tables.markdown_table(columns, body)


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


def error_on_corrupted_labels(error: float, level: float, classes: int = 10) -> float:
    """Returns the expected error where each test label is a uniform draw of `classes` with probability `level`."""
    return (1 - level) * error + level * (1 - 1 / classes)
