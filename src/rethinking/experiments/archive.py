"""The evidence behind every number, as CSV files that outlive the run folders.

    runs.csv             a row a network trained: configuration, final metrics, seed, data's fingerprint, precision,
                         hardware, versions, commit, seconds
    epochs.csv           a row an epoch of each of these
    kernel_machines.csv  a row a kernel machine: configuration, errors, norm, and the same
    memorization.csv     a row a network that was written down: configuration, errors, weights, and the same
    linear_classes.csv   a row a draw of signs for a linear class: configuration, correlation, and the same
    replacements.csv     a row a replaced training example: configuration, change of the loss, and the same
    measures.csv         a row a network that was measured: configuration, norms, margins, and the same

No weights. Tables, figures and the page are made from these files, over as many sittings and machines as it takes.

`rethinking keep FOLDER RUN_FOLDER ...` keeps single runs.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import filelock

from rethinking.errors import RunError
from rethinking.experiments.experiment import Evidence
from rethinking.runs import load_run
from rethinking.theory.run import TheoryResult
from rethinking.training.run_dir import METRICS, RunResult, question

OPTIONS = (  # what of the configuration has a column of its own, for people; `configuration` holds all of it
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


class Columns(NamedTuple):
    """Of theory's runs of a kind: what of the configuration and of what was found has one of its own, for people."""

    options: tuple[str, ...]
    facts: tuple[str, ...]


THEORY = {
    "kernel_machines": Columns(
        ("features", "filters", "kernel", "solution", "l2", "randomization", "train_subset", "seed"),
        (
            "train_error",
            "test_error",
            "norm",
            "residual",
            "interpolates",
            "bandwidth",
            "ridge",
            "jitter",
            "refinements",
            "cholesky_gflops",
            "product_gflops",
            "peak_gib",
            "seconds",
            "train_images",
            "test_images",
        ),
    ),
    "memorization": Columns(
        ("points", "gap", "depth", "randomization", "train_subset", "seed"),
        (
            "dimensions",
            "width",
            "weights",
            "train_error",
            "largest_difference",
            "test_error",
            "largest_weight",
            "weight_bound",
            "construction_seconds",
            "seconds",
        ),
    ),
    "linear_classes": Columns(
        ("train_subset", "randomization_seed", "seed"), ("correlation", "supremum", "bound", "seconds", "train_images")
    ),
    "replacements": Columns(
        ("model_name", "randomization", "replaced", "num_epochs", "seed"), ("gap", "seconds", "train_images")
    ),
    "measures": Columns(
        ("model_name", "randomization", "corruption_prob", "num_epochs", "seed"),
        (
            "exact_train_accuracy",
            "test_accuracy",
            "generalization_gap",
            "train_loss",
            "margin",
            "normalized_margin",
            "frobenius_norm",
            "spectral_product",
            "path_norm",
            "distance",
            "sharpness",
            "seconds",
            "train_images",
        ),
    ),
}


def evidence(result: RunResult | TheoryResult) -> Evidence:
    """What is kept of a run; its metrics to the six digits that are written, so that numbers do not change later."""
    if isinstance(result, TheoryResult):
        return Evidence(result.path.name, result.question, True, result.config.identity(), result.result, ())
    facts = {name: value for name, value in result.result.items() if name not in ("final", "epochs_to_fit", "run")}
    asked = question(result.config, facts["dataset"], facts["provenance"]["fingerprint"])
    metrics = tuple({"epoch": record["epoch"], **_rounded(record)} for record in result.metrics)
    return Evidence(result.path.name, asked, result.finished, result.config.identity(), facts, metrics)


def of_run_folder(path: Path) -> Evidence:
    """The evidence of a run as far as it has come, from its folder. Raises what `load_run` raises."""
    return evidence(load_run(path))


def read(folder: Path) -> dict[str, Evidence]:
    """Every run kept in `folder`, by its name. Raises `RunError` for files that are damaged."""
    try:
        theory = {
            row["run"]: Evidence(
                row["run"], row["question"], True, json.loads(row["configuration"]), json.loads(row["facts"]), ()
            )
            for kind in THEORY
            for row in _read_csv(folder / f"{kind}.csv")
        }
        epochs: dict[str, list[Mapping[str, Any]]] = {}
        for row in _read_csv(folder / "epochs.csv"):
            record = {name: float(row[name]) if row[name] else None for name in METRICS}
            epochs.setdefault(row["run"], []).append({"epoch": int(row["epoch"]), **record})
        return theory | {
            row["run"]: Evidence(
                row["run"],
                row["question"],
                row["status"] == "finished",
                json.loads(row["configuration"]),
                json.loads(row["facts"]),
                tuple(epochs[row["run"]]),
            )
            for row in _read_csv(folder / "runs.csv")
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        files = ", ".join(f"{name}.csv" for name in ("runs", "epochs", *THEORY))
        raise RunError(
            f"the evidence in {folder} ({files}) is damaged or of another version: {error!r}; move that folder away,"
            " and the same command writes it anew from the run folders"
        ) from None


def add(folder: Path, runs: Iterable[Evidence]) -> dict[str, Evidence]:
    """Keep `runs` in `folder` beside those there, in place of what was kept of them before; returns all.

    Safe when several processes add to one folder.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(folder / ".lock"):
            kept = read(folder) | {run.run: run for run in runs}
            if not kept:
                return {}
            ordered = dict(sorted(kept.items()))
            networks = [run for run in ordered.values() if run.is_of_network]
            _write_csv(folder / "epochs.csv", [row for run in networks for row in _epoch_rows(run)])
            _write_csv(folder / "runs.csv", [_run_row(run) for run in networks])
            for kind, columns in THEORY.items():
                of_its_kind = [run for run in ordered.values() if run.kind == kind]
                _write_csv(folder / f"{kind}.csv", [_theory_row(run, columns) for run in of_its_kind])
            return ordered
    except OSError as error:
        raise RunError(f"cannot write {folder}: {error.strerror}") from None


def best_answer(kept: Mapping[str, Evidence], asked: str) -> Evidence | None:
    """The run that answers a question: a finished one before an unfinished, then the one that came furthest."""
    answers = [run for run in kept.values() if run.question == asked and run.metrics]
    return max(answers, key=lambda run: (run.finished, len(run.metrics), run.run), default=None)


def _run_row(run: Evidence) -> dict[str, Any]:
    last = run.metrics[-1]
    return {
        "run": run.run,
        "dataset": run.facts["dataset"],
        "status": "finished" if run.finished else run.progress,
        **{name: run.configuration[name] for name in OPTIONS},
        **{f"final_{name}": last[name] for name in METRICS if name != "seconds"},
        "best_test_accuracy": max(
            (record["test_accuracy"] for record in run.metrics if record["test_accuracy"] is not None), default=None
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
        **{name: run.configuration[name] for name in columns.options},
        **{name: _six_digits(run.facts.get(name)) for name in columns.facts},
        **_origin(run),
    }


def _origin(run: Evidence) -> dict[str, Any]:
    """The last columns of every row: what produced it, and all that is known of it."""
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


def _epoch_rows(run: Evidence) -> list[dict[str, Any]]:
    return [{"run": run.run, **record} for record in run.metrics]


def _rounded(record: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _six_digits(record[name]) for name in METRICS}


def _read_csv(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    """Beside its name, then renamed: a reader never sees half of it. Without rows there is no file."""
    if not rows:
        return
    unfinished = path.with_name(f"{path.name}.tmp")
    with unfinished.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    os.replace(unfinished, path)
