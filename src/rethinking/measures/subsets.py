"""Memorization and influence of a network's examples: reads runs on random subsets, and asks each network for answers.

The runs differ in `subset_seed` (and may in `seed`) alone. `rethinking sweep --subset_seed 0 1 2 ...` trains them, on
any number of devices and machines, and goes on after interruptions.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from rethinking import files
from rethinking.data import sources
from rethinking.data.batches import Batches
from rethinking.data.draws import subset_rows
from rethinking.data.images import ImageData
from rethinking.errors import InputError
from rethinking.measures.asking import check_answers, logits, sets_of_all
from rethinking.measures.examples import check_alike, class_name
from rethinking.measures.memorization import Estimate, influence, memorization
from rethinking.steps import Steps, unwatched
from rethinking.training.preparation import kept_rows
from rethinking.training.run_dir import RunDir, RunResult, network_run

MAY_DIFFER = ("subset_seed", "seed", "device", "precision")
PAIRS = 100  # of a training and a test image with the most influence, that are kept


@dataclass(frozen=True)
class Pair:
    """A training image that helps the network to get a test image right.

    test: its place in the test set
    train: its place among the n training images of `Memorized`
    """

    test: int
    train: int
    influence: float
    standard_error: float


@dataclass(frozen=True)
class Memorized:
    """What the networks of m runs on random subsets say of k test images and of n training images, those in a subset.

    index: int64 (n,), the place of each image in the data's training set
    labels, true_labels: int64 (n,); the second is None where nothing is known to be wrong
    test_labels: int64 (k,), on which the networks were measured; None without a test set
    inside: bool (m, n), which images were in the subset of each run
    right: bool (m, n), which labels each network gets right in evaluation mode, in the subset or not
    right_test: bool (m, k); None without a test set
    """

    runs: tuple[RunResult, ...]
    data: ImageData
    index: NDArray[np.int64]
    labels: NDArray[np.int64]
    true_labels: NDArray[np.int64] | None
    test_labels: NDArray[np.int64] | None
    inside: NDArray[np.bool_]
    right: NDArray[np.bool_]
    right_test: NDArray[np.bool_] | None

    @property
    def memorization(self) -> Estimate:
        """The memorization of each training image, (n,)."""
        return memorization(self.inside, self.right)

    @property
    def estimated(self) -> NDArray[np.bool_]:
        """Which training images have an estimate, bool (n,): at least two runs had the image, and two lacked it."""
        return np.isfinite(self.memorization.value)

    @property
    def fit(self) -> float:
        """The networks' mean accuracy on their own training images, 0-1."""
        return float(self.right[self.inside].mean())

    @property
    def wrong(self) -> NDArray[np.bool_] | None:
        """Whether each label is wrong, bool (n,); None where that is not known."""
        return None if self.true_labels is None else self.labels != self.true_labels

    def standard_errors(self) -> dict[int, float]:
        """Returns the mean standard error of the first 4, 8, 16, ... runs and of all, by their number.

        The mean is over the images that the first four runs can estimate.
        """
        counts = [m for m in (2**power for power in range(2, 20)) if m < len(self.runs)]
        each = {m: memorization(self.inside[:m], self.right[:m]).standard_error for m in (*counts, len(self.runs))}
        known = np.isfinite(next(iter(each.values())))
        return {m: float(errors[known].mean()) if known.any() else float("nan") for m, errors in each.items()}

    def pairs(self, count: int = PAIRS) -> list[Pair]:
        """Returns the pairs of a training and a test image with the most influence; none without a test set.

        They are ordered by their influence less its standard error, since many estimates from few runs are equal.
        The estimates are made for a part of the test images at a time, so memory need not hold all pairs.
        """
        if self.right_test is None:
            return []
        found: list[Pair] = []
        part = max(1, int(2e7) // len(self.labels))
        for begin in range(0, self.right_test.shape[1], part):
            estimate = influence(self.inside, self.right_test[:, begin : begin + part])
            value, error = estimate
            best = Estimate(value.ravel(), error.ravel()).largest(count)
            found += [
                Pair(begin + int(j), int(i), float(value[i, j]), float(error[i, j]))
                for i, j in zip(*np.unravel_index(best, value.shape), strict=True)
            ]
        return sorted(found, key=lambda pair: pair.standard_error - pair.influence)[:count]

    def write_csv(self, folder: Path) -> None:
        """Writes memorization.csv, a row for each training image, and influence.csv, a row for each of `pairs`."""
        estimate, names = self.memorization, self.data.class_names
        known = [] if self.true_labels is None else ["true_label"]
        rows: list[list[Any]] = [["index", "label", *known, "memorization", "standard_error"]]
        for place, label in enumerate(self.labels.tolist()):
            true = [] if self.true_labels is None else [class_name(names, int(self.true_labels[place]))]
            numbers = [f"{estimate.value[place]:.6g}", f"{estimate.standard_error[place]:.6g}"]
            rows.append([self.index[place], class_name(names, label), *true, *numbers])
        _write(folder / "memorization.csv", rows)
        rows = [["test_index", "train_index", "influence", "standard_error"]]
        for pair in self.pairs():
            rows.append([pair.test, self.index[pair.train], f"{pair.influence:.6g}", f"{pair.standard_error:.6g}"])
        if len(rows) > 1:
            _write(folder / "influence.csv", rows)


def _write(path: Path, rows: Sequence[Sequence[Any]]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    files.write(path, text.getvalue(), durable=False)


def measure_memorization(
    folders: Sequence[str | Path], keep: Path | None = None, begin: Steps = unwatched
) -> Memorized:
    """Returns memorization and influence from the folders of finished runs on random subsets.

    keep: a folder for the answers of each network, so that a later call asks new runs only
    begin: shows progress

    Raises `InputError` for runs that do not go together. Raises `RunError` for damaged files.
    """
    runs = [_finished(folder) for folder in dict.fromkeys(Path(folder).resolve() for folder in folders)]
    if len(runs) < 4:
        raise InputError(f"memorization needs at least 4 runs on random subsets, not {len(runs)}")
    _check_together(runs)
    data = sources.load_for(runs[0].config)
    if data.fingerprint != runs[0].result["provenance"]["fingerprint"]:
        raise InputError(f"the images of {data.name} are not those that {runs[0].path} trained on; they were changed")
    index = subset_rows(len(data.train), runs[0].config.train_subset).numpy()
    inside, labels = np.zeros((len(runs), len(index)), bool), data.train.labels[index]
    for row, run in zip(inside, runs, strict=True):
        rows = kept_rows(run.config, len(index)).numpy()
        row[rows], labels[rows] = True, RunDir(run.path).labels().numpy()
    train, test = sets_of_all(runs[0], data, labels)
    advanced, answers = begin("asking the networks"), []
    for number, (run, row) in enumerate(zip(runs, inside, strict=True), 1):
        right = _answers(run, train, test, keep)
        check_answers(run, right[: len(train)][row].mean())
        answers.append(right)
        advanced(number / len(runs))
    every, count = np.stack(answers), len(train)
    there = np.flatnonzero(inside.any(axis=0))  # of the others nothing can be said, and perhaps no label is known
    index, labels, inside = index[there], labels[there], inside[:, there]
    true_labels = data.train.labels[index] if runs[0].config.corrupts_labels else None
    right_test = every[:, count:] if test else None
    test_labels = test.labels.cpu().numpy() if test else None
    return Memorized(tuple(runs), data, index, labels, true_labels, test_labels, inside, every[:, there], right_test)


def _finished(folder: Path) -> RunResult:
    run = network_run(folder)
    if not run.finished:
        raise InputError(f"{folder} is not finished; the command that trains it goes on")
    return run


def _check_together(runs: Sequence[RunResult]) -> None:
    first = runs[0]
    if first.config.subset_share is None:
        raise InputError(
            f"{first.path} did not train on a random subset; train runs on some: rethinking sweep --subset_share 0.7"
            " --subset_seed 0 1 2 ..."
        )
    seeds: dict[int, Path] = {}
    for run in runs:
        check_alike(run, first, MAY_DIFFER)
        if run.config.subset_seed in seeds:
            raise InputError(f"{run.path} and {seeds[run.config.subset_seed]} have the same subset_seed; keep one")
        seeds[run.config.subset_seed] = run.path


def _answers(run: RunResult, train: Batches, test: Batches | None, keep: Path | None) -> NDArray[np.bool_]:
    """Returns which labels the run's network gets right, of the training images and then of the test images."""
    count = len(train) + (len(test) if test else 0)
    path = None if keep is None else keep / f"{run.path.name}.npy"
    if path is not None and path.is_file():
        try:
            kept: NDArray[np.bool_] = np.load(path, allow_pickle=False)
        except (ValueError, EOFError):  # it was cut; the network is asked again
            kept = np.empty(0, bool)
        if kept.shape == (count,) and kept.dtype == np.bool_:
            return kept
    network = run.network()
    right = np.concatenate([_right(network, batches) for batches in (train, test) if batches is not None])
    if path is not None:
        with files.writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        content = io.BytesIO()
        np.save(content, right)
        files.write(path, content.getvalue(), durable=False)
    return right


def _right(network: nn.Module, images: Batches) -> NDArray[np.bool_]:
    predicted = logits(network, images, torch.arange(len(images))).argmax(dim=1)
    right: NDArray[np.bool_] = (predicted == images.labels.cpu()).numpy()
    return right
