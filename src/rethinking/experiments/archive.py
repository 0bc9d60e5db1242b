"""The evidence behind every number, as CSV files that outlive the run folders.

    runs.csv             one row per trained network: configuration, final metrics, seed, fingerprint of the data,
                         precision, hardware, versions, commit, seconds
    epochs.csv           one row per epoch of these networks
    kernel_machines.csv  one row per kernel machine: configuration, errors, norm, and its origin as in runs.csv
    memorization.csv     one row per network by construction: configuration, errors, weights, origin
    linear_classes.csv   one row per draw of signs for a linear class: configuration, correlation, origin
    replacements.csv     one row per replaced training example: configuration, change of the loss, origin
    measures.csv         one row per measured network: configuration, norms, margins, origin
    own_measures.csv     one row per network measured by a user's own function: configuration, numbers, origin

Weights are not kept. Tables, figures and the page are made from these files. Runs may be added by many commands, from
many machines.

A process locks the folder and reads its evidence again before it writes. All files change together: they are first
written into `.evidence.json`. Where a process is killed on the way, the next one makes the files from it. Each row has
a checksum of itself and of the run's epochs. Earlier versions wrote no checksum; in their rows, columns that follow
from others are compared with them.

`rethinking keep FOLDER RUN_FOLDER ...` adds single runs.
"""

from __future__ import annotations

import contextlib
import csv
import functools
import io
import json
import math
import os
import shlex
import sys
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from rethinking import files, registry
from rethinking.errors import RunError
from rethinking.experiments.experiment import NETWORK, Evidence
from rethinking.identity import question, question_of_identity
from rethinking.runs import load_run
from rethinking.theory import tasks
from rethinking.theory.run import Columns, TheoryResult
from rethinking.training.run_dir import METRICS, RunResult

OPTIONS = (  # options with a column of their own, for people to read; the column `configuration` holds all options
    "model_name",
    "randomization",
    "corruption_prob",
    "weight_decay",
    "random_crop",
    "augment_flip_rotate",
    "num_epochs",
    "seed",
    "randomization_seed",
)

LOCK = ".lock"
CHANGES = ".evidence.json"  # the new content of the files, by name, until all of them are written
CHECKSUM = "checksum"  # a column: the checksum of the rest of the row and of the run's rows in epochs.csv

Text = Mapping[str, str]  # a row of a file, as text
csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # one field may hold a number for each epoch


def evidence(result: RunResult | TheoryResult) -> Evidence:
    """The evidence of a run. Metrics are rounded to the six digits that are written, so they do not change later."""
    if isinstance(result, TheoryResult):
        task = result.config.task
        return Evidence(result.path.name, result.question, True, result.config.identity(), result.result, (), task)
    facts = {name: value for name, value in result.result.items() if name not in ("final", "epochs_to_fit", "run")}
    facts = without_folders(facts, result.config.model_name)
    hashed = question(result.config, facts["dataset"], facts["provenance"]["fingerprint"])
    metrics = tuple({"epoch": record["epoch"], **_rounded(record)} for record in result.metrics)
    return Evidence(result.path.name, hashed, result.finished, result.config.identity(), facts, metrics)


def without_folders(facts: Mapping[str, Any], network: str) -> dict[str, Any]:
    """Facts without the folders of this machine in which the data and the `network` lie. They say nothing to others."""
    shared = dict(facts)
    if "data" in facts and os.path.isabs(facts["data"]["origin"]):
        shared["data"] = facts["data"] | {"origin": Path(facts["data"]["origin"]).name}
    if "command" in facts:  # earlier versions have no command
        short = registry.without_folder(network)
        shared["network"] = [note.replace(network, short) for note in facts["network"]]
        shared["command"] = _without_folders(facts["command"])
    return shared


def _without_folders(command: str) -> str:
    """A command whose absolute paths, such as `--dataset FOLDER` and `--labels FILE`, have lost their folders."""
    try:
        words = shlex.split(command)
    except ValueError:  # a call in Python
        return command
    if not any(map(os.path.isabs, words)):
        return command
    return shlex.join(Path(word).name if os.path.isabs(word) else word for word in words)


def of_run_folder(path: Path) -> Evidence:
    """The evidence of a finished or unfinished run, from its folder. Raises the errors of `load_run`."""
    return evidence(load_run(path))


class Kept(dict[str, Evidence]):
    """The evidence of a folder by the run's name, as it was read. Make another one instead of changing it."""

    @functools.cached_property
    def by_question(self) -> Mapping[str, list[Evidence]]:
        """The runs by their question."""
        found: dict[str, list[Evidence]] = {}
        for run in self.values():
            found.setdefault(run.question, []).append(run)
        return found


def read(folder: Path) -> Kept:
    """Read the evidence of every run in `folder`, by the run's name.

    Raises `RunError` for files that cannot be read, are damaged or contradict each other.
    """
    if not os.access(folder / LOCK, os.W_OK):  # nothing was ever written here, or the folder is read-only
        return _read(folder)
    with locked(folder) as kept:
        return kept


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[Kept]:
    """Lock `folder` against other processes and yield its current evidence. A missing folder is made.

    Raises the errors of `read`, and `RunError` where the folder cannot be written.
    """
    with files.writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with files.lock(folder / LOCK):
        files.remove_unfinished(folder)
        _carry_through(folder)
        yield _read(folder)


def _read(folder: Path) -> Kept:
    name = ""
    try:
        name = "epochs.csv"
        of_run: dict[str, list[Text]] = {}
        for row in _rows(folder / name):
            of_run.setdefault(row["run"], []).append(row)
        name = "runs.csv"
        kept = Kept()
        for row in _rows(folder / name):
            kept[row["run"]] = _network(row, of_run.pop(row["run"], []))
        if of_run:
            raise ValueError(f"there is no row for {min(of_run)}, which epochs.csv has")
        for task, columns in tasks.columns().items():
            name = f"{task}.csv"
            kept.update({row["run"]: _theory(row, task, columns) for row in _rows(folder / name)})
        return kept
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError, csv.Error) as error:
        what = " ".join(repr(error).split())[:200]
        raise RunError(
            f"the evidence in {folder} ({name}) is damaged or of another version: {what}; move that folder away, and"
            " the same command writes it again from the run folders"
        ) from None


def _network(row: Text, epochs: list[Text]) -> Evidence:
    """The run in one row of runs.csv and its rows of epochs.csv. Raises `ValueError` where they disagree."""
    if not epochs:
        raise ValueError(f"epochs.csv has no row of {row['run']}")
    metrics = tuple(_record(line, number) for number, line in enumerate(epochs, 1))
    run = _evidence(row, row["status"] == "finished", metrics)
    if CHECKSUM in row:
        _check_sum(row, epochs)
    else:
        _check_columns(row, run, _run_row(run))
    return run


def _theory(row: Text, task: str, columns: Columns) -> Evidence:
    run = _evidence(row, True, (), task)
    if CHECKSUM in row:
        _check_sum(row, [])
    else:
        _check_columns(row, run, {**_theory_row(run, columns), "run": run.facts["run"]})
    return run


def _evidence(row: Text, finished: bool, metrics: tuple[Mapping[str, Any], ...], task: str = NETWORK) -> Evidence:
    configuration, facts = (files.parse_json(row[name]) for name in ("configuration", "facts"))
    return Evidence(row["run"], row["question"], finished, configuration, facts, metrics, task)


def _record(line: Text, epoch: int) -> dict[str, Any]:
    """The metrics of one epoch. A metric that an earlier version did not measure is None."""
    numbers = {name: float(text) if (text := line.get(name)) else None for name in METRICS}
    if line["epoch"] != str(epoch) or not all(map(math.isfinite, filter(None, numbers.values()))):
        raise ValueError(f"epoch {epoch} of {line['run']} is missing or not a number")
    return {"epoch": epoch, **numbers}


def _check_sum(row: Text, epochs: list[Text]) -> None:
    """Raises `ValueError` where a row or the epochs of its run have changed since they were written."""
    if row[CHECKSUM] != _checksum([row, *epochs]):
        raise ValueError(f"{row['run']} has another checksum")


def _check_columns(row: Text, run: Evidence, expected: Mapping[str, Any]) -> None:
    """Raises `ValueError` where a column of an earlier version's row contradicts the columns it follows from."""
    question_of_run = question_of_identity(
        run.configuration, run.facts["dataset"], run.facts["provenance"]["fingerprint"]
    )
    for name, value in {**expected, "question": question_of_run}.items():
        if name in row and row[name] != _text(value):
            raise ValueError(f"{name} of {run.run} does not agree with the rest")


def add(folder: Path, runs: Iterable[Evidence]) -> Kept:
    """Add `runs` to the evidence in `folder`, and return all of it. Several processes may add to one folder.

    Of two states of one run, the one with more epochs stays. Raises the errors of `read`, and `RunError` where the
    folder cannot be written.
    """
    with locked(folder) as kept:
        before = kept
        kept = Kept(before)
        for run in runs:
            there = kept.get(run.run)
            if there is None or there.question != run.question or progress(run) >= progress(there):
                kept[run.run] = run
        kept = Kept(sorted(kept.items()))
        if kept != before:
            written = _as_files(kept).items()
            changed = {name: text for name, text in written if files.read(folder / name) != text.encode()}
            files.write_json(folder / CHANGES, changed)
            _carry_through(folder)
        return kept


def progress(run: Evidence) -> tuple[bool, int]:
    """Returns whether a run is finished, and its epochs: what orders two states of one run."""
    return run.finished, len(run.metrics)


def _as_files(kept: Mapping[str, Evidence]) -> dict[str, str]:
    """The content of each file, by its name. A file without rows is left out."""
    networks = [run for run in kept.values() if run.is_of_network]
    epochs = {run.run: [{"run": run.run, **record} for record in run.metrics] for run in networks}
    tables = {
        "epochs.csv": [row for rows in epochs.values() for row in rows],
        "runs.csv": [_sealed(_run_row(run), epochs[run.run]) for run in networks],
    }
    for task, columns in tasks.columns().items():
        tables[f"{task}.csv"] = [_sealed(_theory_row(run, columns), []) for run in kept.values() if run.task == task]
    return {name: _as_csv(rows) for name, rows in tables.items() if rows}


def _carry_through(folder: Path) -> None:
    """Write the files that `CHANGES` holds, where it exists."""
    what_to_do = "delete that file, and the same command writes the evidence again"
    changes = files.read_json(folder / CHANGES, what_to_do)
    if changes is not None:
        known = {"epochs.csv", "runs.csv", *(f"{task}.csv" for task in tasks.columns())}
        if not known >= changes.keys() or not all(isinstance(text, str) for text in changes.values()):
            raise RunError(f"{folder / CHANGES} is damaged: {what_to_do}")
        for name, text in changes.items():
            files.write(folder / name, text)
        with files.writing(folder):
            (folder / CHANGES).unlink()


def best_answer(
    kept: Mapping[str, Evidence], wanted: str, options: Mapping[str, Any] = MappingProxyType({})
) -> Evidence | None:
    """The run that answers the question `wanted`: a finished run first, then the one with most epochs.

    options: values that the run's configuration must have, such as its device
    """
    runs = kept.by_question.get(wanted, []) if isinstance(kept, Kept) else kept.values()
    answers = [
        run for run in runs if run.question == wanted and run.metrics and options.items() <= run.configuration.items()
    ]
    return max(answers, key=lambda run: (run.finished, len(run.metrics), run.run), default=None)


def _run_row(run: Evidence) -> dict[str, Any]:
    last = run.metrics[-1]
    return {
        "run": run.run,
        "dataset": run.facts["dataset"],
        "status": "finished" if run.finished else run.progress,
        **{name: run.configuration.get(name) for name in OPTIONS},
        **{f"final_{name}": last.get(name) for name in METRICS if name != "seconds"},
        "best_test_accuracy": max(
            (record["test_accuracy"] for record in run.metrics if record.get("test_accuracy") is not None), default=None
        ),
        "seconds": round(run.facts["seconds"], 1),
        "train_images": run.facts["train_images"],
        "parameters": run.facts["parameters"],
        **_origin(run),
    }


def _theory_row(run: Evidence, columns: Columns) -> dict[str, Any]:
    return {
        "run": run.run,
        "dataset": run.facts["dataset"],
        **{name: run.configuration.get(name) for name in columns.options},
        **{name: _six_digits(run.facts.get(name)) for name in columns.facts},
        **_origin(run),
    }


def _origin(run: Evidence) -> dict[str, Any]:
    """The last columns of every row: what produced the run, its whole configuration and all facts."""
    provenance = run.facts["provenance"]
    return {
        "fingerprint": provenance["fingerprint"],
        "precision": provenance["precision"],
        "hardware": provenance["hardware"],
        "cpu_threads": provenance["cpu_threads"],
        "torch": provenance["versions"]["torch"],
        "python": provenance["versions"]["python"],
        "package": provenance["versions"]["rethinking-generalization"],
        "commit": provenance.get("commit"),
        "question": run.question,
        "configuration": json.dumps(run.configuration, sort_keys=True),
        "facts": json.dumps(run.facts, sort_keys=True),
    }


def _six_digits(value: Any) -> Any:
    return float(f"{value:.6g}") if isinstance(value, float) else value


def _rounded(record: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _six_digits(record.get(name)) for name in METRICS}


def _sealed(row: Mapping[str, Any], epochs: list[dict[str, Any]]) -> dict[str, Any]:
    texts = [{name: _text(value) for name, value in one.items()} for one in (row, *epochs)]
    return {**row, CHECKSUM: _checksum(texts)}


def _checksum(rows: Sequence[Text]) -> str:
    """The checksum of all fields that are not empty, so that a later version's new column does not change it."""
    filled = [{name: text for name, text in row.items() if text and name != CHECKSUM} for row in rows]
    return f"{zlib.crc32(json.dumps(filled, sort_keys=True).encode()):08x}"


def _text(value: Any) -> str:
    """The value as a field of a CSV file."""
    return "" if value is None else str(value)


def _rows(path: Path) -> list[dict[str, str]]:
    """The rows of a file. Raises `ValueError` where a row lacks columns or has too many, or the file is cut short."""
    text = (files.read(path) or b"").decode()
    rows = list(csv.DictReader(io.StringIO(text, newline=""), strict=True))
    if (text and not text.endswith("\n")) or any(None in row or None in row.values() for row in rows):
        raise ValueError("a row is cut short")
    return rows


def _as_csv(rows: list[dict[str, Any]]) -> str:
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()
