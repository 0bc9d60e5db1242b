"""The tables of docs/differences.md; that the document holds them as they are is tested with the documents."""

import csv
import shutil
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev

import pytest

from rethinking.experiments import archive
from tests.conftest import ROOT
from tools.differences import alexnet_trials, compression, levels, mlp_trials, norms


def test_the_levels_are_those_of_figures_1b_and_1c():
    _, _, *rows = rows_of(levels(ROOT / "results"))
    assert len(rows) >= 13
    for model, level, paper_epochs, epochs, paper_error, error, expected in rows:
        start = f"| {model.strip('`')} | {level} |"
        (of_1b,) = (line for line in lines("figure1b") if line.startswith(start))
        (of_1c,) = (line for line in lines("figure1c") if line.startswith(start))
        assert f"| {epochs} | {paper_epochs} |" in of_1b
        assert f"| {error} | {paper_error} |" in of_1c
        share = float(error.partition(" ")[0].rstrip("%")) / 100
        hits = (1 - share) * (1 - float(level)) + float(level) / 10  # it hits a tenth of uniform draws
        assert float(expected.rstrip("%")) / 100 == pytest.approx(1 - hits, abs=1e-4)


def lines(name: str) -> list[str]:
    return (ROOT / "results" / "cifar10" / f"{name}.md").read_text().splitlines()


def test_the_trials_are_the_runs_without_regularization():
    """Computes the row of the package's own initial weights from the CSV files."""
    names: dict[str, list[str]] = {}
    for row in csv.DictReader((ROOT / "results" / "cifar10" / "runs.csv").open()):
        plain = row["model_name"] == "mlp_1x512" and float(row["weight_decay"]) == 0
        if plain and (row["random_crop"], row["augment_flip_rotate"]) == ("False", "False"):
            names.setdefault(row["randomization"], []).append(row["run"])
    epochs: dict[str, list[dict[str, str]]] = {}
    for row in csv.DictReader((ROOT / "results" / "cifar10" / "epochs.csv").open()):
        epochs.setdefault(row["run"], []).append(row)

    def overfitted(run: str) -> int:
        return next(int(row["epoch"]) for row in epochs[run] if float(row["train_accuracy"]) >= 0.985)

    times = {labels: [overfitted(run) for run in names[labels]] for labels in ("none", "random_labels")}
    tested = [100 * float(epochs[run][-1]["test_accuracy"]) for run in names["none"]]
    trained = [100 * float(epochs[run][-1]["exact_train_accuracy"]) for run in names["random_labels"]]
    (row,) = (row for row in rows_of(mlp_trials(ROOT / "results")) if row[:2] == ["cifar10", "`he`"])
    assert row[2:] == [
        f"{mean(times['none']):.1f} ± {stdev(times['none']):.1f}",
        f"{mean(tested):.2f} ± {stdev(tested):.2f}%",
        "3",
        f"{mean(times['random_labels']):.1f} ± {stdev(times['random_labels']):.1f}",
        f"{mean(trained):.2f} ± {stdev(trained):.2f}%",
        "3",
    ]


def test_trials_that_are_not_finished_say_so(tmp_path: Path):
    for folder in ("cifar10", "cifar10_jpeg", "differences"):
        shutil.copytree(ROOT / "results" / folder, tmp_path / folder)
    (run,) = (
        run
        for run in archive.read(tmp_path / "cifar10_jpeg").values()
        if run.run.startswith("small_alexnet-cifar10_jpeg-random_labels")
        and run.configuration["weight_decay"] == 0
        and run.configuration["num_epochs"] == 70
    )
    (before,) = (row for row in rows_of(alexnet_trials(tmp_path)) if row[:2] == ["cifar10_jpeg", "`pytorch`"])
    assert "after" not in " ".join(before)
    shutil.rmtree(tmp_path / "cifar10_jpeg")
    archive.add(tmp_path / "cifar10_jpeg", [replace(run, finished=False, metrics=run.metrics[:30])])
    (row,) = (row for row in rows_of(alexnet_trials(tmp_path)) if row[:2] == ["cifar10_jpeg", "`pytorch`"])
    assert row[2:5] == ["", "", "0"]
    assert row[5] == "over 30"
    assert row[6].endswith("% (after 30 of 70 epochs)")
    assert row[7] == "1"


def rows_of(written: str) -> list[list[str]]:
    return [[place.strip() for place in line.split("|")[1:-1]] for line in written.splitlines()]


def test_what_compression_costs_is_read_from_both_tables():
    _, _, *rows = rows_of(compression(ROOT / "results"))
    assert len({(title, row, quantity) for title, row, quantity, *_ in rows}) == len(rows) > 30
    for title, _, _, *numbers in rows:
        for folder, number in zip(("cifar10", "cifar10_jpeg"), numbers, strict=True):
            name = title.lower().replace(" ", "")
            assert f"| {number} |" in (ROOT / "results" / folder / f"{name}.md").read_text()


def test_the_norms_are_those_of_the_solutions():
    _, _, *rows = rows_of(norms(ROOT / "results"))
    assert [(row[0], row[3]) for row in rows] == [("pixels", "220"), ("gabor", "390")]
    kept = archive.read(ROOT / "results" / "differences").values()
    for features, bandwidth, error, _, in_space, mean_length, together in rows:
        (facts,) = (
            run.facts
            for run in kept
            if run.facts.get("features")
            and run.configuration["features"] == features
            and "coefficient_norms" in run.facts
        )
        squares = [length**2 for length in facts["coefficient_norms"]]
        assert (bandwidth, error) == (f"{facts['bandwidth']:.3g}", f"{facts['test_error']:.2%}")
        assert in_space == f"{facts['norm']:.0f}"
        assert mean_length == f"{sum(square**0.5 for square in squares) / 10:.0f}"
        assert together == f"{sum(squares) ** 0.5:.0f}"
