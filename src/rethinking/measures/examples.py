"""The examples of one or several runs with all their scores: the table, and how well the scores find wrong labels."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rethinking import files, notebook
from rethinking.data import draws, sources
from rethinking.data.images import ImageData
from rethinking.errors import InputError
from rethinking.measures import detection
from rethinking.measures.held_out import Probabilities, held_out_probabilities, lacking_parts
from rethinking.measures.scores import HELD_OUT, SCORES, Score, Scores, consistency, find, mean_over_runs
from rethinking.steps import Steps, unwatched
from rethinking.training.examples import Recorded
from rethinking.training.preparation import kept_rows
from rethinking.training.run_dir import RunDir, RunResult, network_run

PASSES = {  # what is kept, in words, in the order of choice
    "online": "training images, each in its batch before the update",
    "train": "training images, in evaluation mode after each epoch",
    "test": "test images, in evaluation mode after each epoch",
}
SHORT = 40  # letters of two values that a message shows
MAY_DIFFER = ("seed", "device", "precision", "left_out", "subset_seed")  # of runs that are scored together
OPTIONS = {"online": "record_examples", "train": "record_evaluated_examples", "test": "record_test_examples"}


@dataclass(frozen=True)
class Found:
    """How well a score finds the wrong labels.

    auroc: area under the ROC curve
    precision: the share of wrong labels among as many suspects as there are wrong labels
    """

    auroc: float
    precision: float


@dataclass(frozen=True, repr=False)
class ScoredExamples:
    """The examples of some runs, and their scores.

    runs: equal in everything but what changes from seed to seed
    of: 'online', 'train' or 'test'
    index: int64 (n,), the place of each example in the data set's training or test set
    labels: int64 (n,), as trained on
    true_labels: int64 (n,); None where no label was randomized, so that nothing is known to be wrong
    scores: float64 (n,) by name, the mean over the runs that were trained on the example
    consistency: Spearman's correlation between the runs by score; nan for a single run
    kinds: what each score is, by name
    files: the file of each image, relative to the data set's folder; None where images are not files of their own
    probabilities: float32 (n, classes), by networks that were not trained on the example. Only of runs that each leave
        a part out (`--left_out`), and together all parts; otherwise None
    note: why there are none, where some runs left a part out; otherwise empty
    """

    runs: tuple[RunResult, ...]
    of: str
    data: ImageData
    index: NDArray[np.int64]
    labels: NDArray[np.int64]
    true_labels: NDArray[np.int64] | None
    scores: dict[str, Scores]
    consistency: dict[str, float]
    kinds: dict[str, Score]
    files: tuple[str, ...] | None = None
    probabilities: Probabilities | None = None
    note: str = ""

    def __repr__(self) -> str:
        return f"ScoredExamples({len(self.index):,} examples of {self.data.name}; scores: {', '.join(self.scores)})"

    @property
    def class_names(self) -> Sequence[str]:
        """The names of the labels' classes; none where an operator replaced the data's classes."""
        return () if self.runs[0].config.operator.own_classes else self.data.class_names

    @property
    def predicted(self) -> NDArray[np.int64] | None:
        """The class of the largest held-out probability, int64 (n,); None without such probabilities."""
        return None if self.probabilities is None else self.probabilities.argmax(axis=1)

    @property
    def wrong(self) -> NDArray[np.bool_] | None:
        """Whether each label is wrong, bool (n,); None where that is not known."""
        return None if self.true_labels is None else self.labels != self.true_labels

    def suspects(self, score: str) -> NDArray[np.int64]:
        """Returns the places of all examples in `index`, the most suspicious first; ties stay in order.

        Raises `InputError` for an unknown score.
        """
        kind = find(score, self.kinds)
        return np.argsort(kind.ranks(self.scores[score]), kind="stable")

    def found(self) -> dict[str, Found]:
        """Returns by score how well it finds the wrong labels; nothing where these are not known, or none is wrong."""
        wrong = self.wrong
        if wrong is None or not wrong.any() or wrong.all():
            return {}
        suspicion = {name: self.kinds[name].suspicion(values) for name, values in self.scores.items()}
        return {
            name: Found(detection.auroc(values, wrong), detection.precision_at(values, wrong, int(wrong.sum())))
            for name, values in suspicion.items()
        }

    def columns(self) -> dict[str, Sequence[Any]]:
        """Returns the table by column: index, label, true label where it is known, and each score with its ranks."""
        names = self.class_names
        table: dict[str, Sequence[Any]] = {
            "index": self.index.tolist(),
            **({} if self.files is None else {"file": self.files}),
            "label": [class_name(names, label) for label in self.labels.tolist()],
        }
        if self.true_labels is not None:
            table["true_label"] = [class_name(names, label) for label in self.true_labels.tolist()]
        if self.predicted is not None:
            table["predicted_label"] = [class_name(names, label) for label in self.predicted.tolist()]
        for name, values in self.scores.items():
            table[name] = values.tolist()
            table[f"{name}_rank"] = self.kinds[name].ranks(values).tolist()
        return table

    def frame(self) -> Any:
        """Returns the table as a pandas DataFrame, a row for each example.

        Raises `InputError` where pandas is not installed.
        """
        table = self.columns()
        return notebook.frame([dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True)])

    def write_csv(self, path: Path) -> None:
        """Writes the table. Scores have six digits. Raises `RunError` where that fails."""
        table, text = self.columns(), io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(table)
        for row in zip(*table.values(), strict=True):
            writer.writerow(f"{value:.6g}" if isinstance(value, float) else value for value in row)
        files.write(path, text.getvalue(), durable=False)


def class_name(names: Sequence[str], label: int) -> str:
    """Returns the name of a class, or its number where the labels are not the data's."""
    return names[label] if label < len(names) else str(label)


def score_examples(folders: Sequence[str | Path], of: str | None = None, begin: Steps = unwatched) -> ScoredExamples:
    """Returns the scores of the examples of one or several runs, such as seeds of one configuration.

    folders: the runs' folders. The runs must have the same images and labels. They may each leave out another part
        (`--left_out`). Where all parts are there, the scores have the held-out confidence too
    of: 'online', 'train' or 'test'; by default the first that was kept
    begin: shows progress

    Raises `InputError` where the runs do not go together, or did not keep what is asked for. Raises `RunError` for
    damaged files.
    """
    if not folders:
        raise InputError("scores of examples need at least one run's folder")
    runs = [network_run(folder) for folder in dict.fromkeys(Path(folder).resolve() for folder in folders)]
    kept = [run.examples() for run in runs]
    of = _chosen(runs, kept, of)
    first = runs[0]
    if first.config.replaced_example is not None:
        raise InputError(f"{first.path} has a replaced example, whose scores are another image's")
    for run in runs[1:]:
        check_alike(run, first, MAY_DIFFER)
        if len(run.metrics) != len(first.metrics):
            raise InputError(
                f"{run.path} has {len(run.metrics)} epochs and {first.path} {len(first.metrics)}; scores are comparable"
                " after equally many"
            )
    data = sources.load_for(first.config)
    if data.fingerprint != first.result["provenance"]["fingerprint"]:
        raise InputError(f"the images of {data.name} are not those that {first.path} trained on; they were changed")
    examples = _Examples.of_test_set(first, data, len(runs)) if of == "test" else _Examples.of_training_sets(runs, data)
    each = {
        name: [examples.spread(score.measured(one[of]), rows) for one, rows in zip(kept, examples.rows, strict=True)]
        for name, score in SCORES.items()
    }
    scores = {name: mean_over_runs(values) for name, values in each.items()}
    kinds, probabilities = {**SCORES}, None
    lacking = "" if of == "test" else lacking_parts(runs)
    if of != "test" and not lacking:
        probabilities = held_out_probabilities(runs, data, examples.labels, begin)
        kinds[HELD_OUT.name] = HELD_OUT
        scores[HELD_OUT.name] = HELD_OUT.of(probabilities, examples.labels)
    files = sources.image_files(first.config, "test" if of == "test" else "train")
    return ScoredExamples(
        tuple(runs),
        of,
        data,
        examples.index,
        examples.labels,
        examples.true_labels,
        scores,
        {name: consistency(values) for name, values in each.items()} | dict.fromkeys(kinds.keys() - each, math.nan),
        kinds,
        None if files is None else tuple(files[place] for place in examples.index),
        probabilities,
        f"no held-out confidence: {lacking}" if lacking and any(run.config.left_out for run in runs) else "",
    )


@dataclass(frozen=True)
class _Examples:
    """The examples of some runs, as in `ScoredExamples`. rows: by run the places in `index` of its examples."""

    index: NDArray[np.int64]
    labels: NDArray[np.int64]
    true_labels: NDArray[np.int64] | None
    rows: list[NDArray[np.int64]]

    def spread(self, scores: Scores, rows: NDArray[np.int64]) -> Scores:
        """Returns the scores of one run at the places of all examples, with nan for examples that it left out."""
        spread = np.full(len(self.index), np.nan)
        spread[rows] = scores
        return spread

    @classmethod
    def of_test_set(cls, run: RunResult, data: ImageData, runs: int) -> _Examples:
        """Returns the test images of `runs` runs like this one."""
        assert data.test is not None, "the run kept its test images"
        index, changed = np.arange(len(data.test)), RunDir(run.path).test_labels()
        labels = data.test.labels if changed is None else changed.numpy()
        return cls(index, labels, None if changed is None else data.test.labels, [index] * runs)

    @classmethod
    def of_training_sets(cls, runs: Sequence[RunResult], data: ImageData) -> _Examples:
        """Returns all images that some of the runs were trained on."""
        index = draws.subset_rows(len(data.train), runs[0].config.train_subset).numpy()
        labels, true_labels = np.zeros_like(index), np.zeros_like(index)
        kept = [kept_rows(run.config, len(index)).numpy() for run in runs]
        for run, rows in zip(runs, kept, strict=True):
            labels[rows], true_labels[rows] = RunDir(run.path).labels().numpy(), RunDir(run.path).true_labels().numpy()
        there = np.unique(np.concatenate(kept))
        return cls(
            index[there],
            labels[there],
            true_labels[there] if runs[0].config.corrupts_labels else None,
            [np.searchsorted(there, rows) for rows in kept],
        )


def check_alike(run: RunResult, other: RunResult, may_differ: Sequence[str]) -> None:
    """Raises `InputError` where two runs differ in images, or in options that are not in `may_differ`."""
    asked, of_other = run.config.identity(), other.config.identity()
    different = []
    for name in dict.fromkeys((*of_other, *asked)):
        values = asked.get(name), of_other.get(name)
        if values[0] != values[1] and name not in may_differ:
            shown = f" ({values[0]} and {values[1]})"
            different.append(name + (shown if len(shown) < SHORT else ""))
    if run.result["provenance"]["fingerprint"] != other.result["provenance"]["fingerprint"]:
        different.append("images")
    if different:
        raise InputError(
            f"{run.path} and {other.path} differ in {', '.join(different)}; these runs may differ in"
            f" {', '.join(may_differ)}, so give those of one configuration"
        )


def _chosen(runs: Sequence[RunResult], kept: Sequence[dict[str, Recorded]], of: str | None) -> str:
    """Returns what all runs kept. Raises `InputError` where that is nothing, or not what is asked for."""
    if of is not None and of not in PASSES:
        raise InputError(f"examples are kept of {', '.join(PASSES)}, not '{of}'")
    wanted = tuple(PASSES) if of is None else (of,)
    for word in wanted:
        if all(word in one for one in kept):
            return word
    lacking = [run for run, one in zip(runs, kept, strict=True) if wanted[0] not in one]
    of_what = "no examples" if of is None else f"no examples of '{of}'"
    raise InputError(f"{lacking[0].path} kept {of_what}; train it with --{OPTIONS[wanted[0]]}")
