"""`reproduce.py table3` and `minimum_norm` on the command line, on the digits at demo scale."""

from __future__ import annotations

import csv
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from rethinking.config import ExperimentConfig
from rethinking.data import sources
from rethinking.errors import InputError, RunError
from rethinking.experiments import archive, experiment, table3, table3_filter_options
from rethinking.experiments.catalogue import EXPERIMENTS
from rethinking.experiments.experiment import Answer, Row
from rethinking.experiments.reproduction import Reproduction
from rethinking.experiments.scale import SCALES, ImageSource, Study
from rethinking.report import tables
from rethinking.report.commands import command
from rethinking.sitting import in_words
from rethinking.theory import fitting, tasks
from rethinking.theory.kernel_machine import KernelMachineConfig
from rethinking.training.hardware import resolve_device
from tests.conftest import OUT, on_a_terminal, reproduce

FILTERS = ("--filters", "25", "400")


def solved_when(folder: Path) -> dict[str, int]:
    return {path.parent.name: path.stat().st_mtime_ns for path in (folder / "runs").glob("*/result.json")}


def test_it_leaves_table_3_with_its_curve_and_evidence(solved):
    folder, printed = solved
    names = {path.name for path in (folder / OUT).iterdir()}
    assert {"kernel_machines.csv", "table3.csv", "table3.md", "report.html"} <= names
    assert {"table3_filters.csv", "table3_filters.png", "table3_filters.svg", "minimum_norm_sgd.svg"} <= names
    assert "runs.csv" not in names, "no network was trained"
    for name in ("table3", "table3_filters", "minimum_norm", "minimum_norm_errors", "minimum_norm_sgd"):
        assert EXPERIMENTS[name].title in " ".join(printed.split())


def test_every_number_equals_the_number_in_its_run_folder(solved):
    folder, _ = solved
    checked = 0
    for name in ("table3", "table3_filters", "minimum_norm"):
        cells, dataset, scale = tables.read_csv(folder / OUT / f"{name}.csv")
        assert (dataset, scale) == ("digits", "demo")
        for cell in cells:
            (run,) = cell.runs
            result = json.loads((folder / "runs" / run / "result.json").read_text())
            key = cell.quantity.lower().replace("'s", "").replace(" ", "_")
            places = [result, *result.get("minima", [])]
            expected = {place.get(key) for place in places}
            assert any(value == cell.ours or value == pytest.approx(cell.ours, rel=1e-5) for value in expected), cell
            checked += 1
    assert checked > 40


@pytest.mark.parametrize(
    ("name", "channels", "errors", "norms"),
    [
        ("mnist", 1, {0.012, 0.006}, {220.0, 390.0}),
        ("cifar10", 3, {0.46, 0.17, 0.15}, {None}),
        ("digits", 1, {None}, {None}),
        ("cifar10-grey", 1, {None}, {None}),
        ("mnist-rgb", 3, {None}, {None}),
    ],
)
def test_the_papers_numbers_stand_beside_its_own_images(solved, name, channels, errors, norms):
    run = next(run for run in archive.read(solved[0] / OUT).values() if run.task == "kernel_machines")
    facts = {**run.facts, "dataset": name, "provenance": {**run.facts["provenance"], "fingerprint": "another"}}
    source = ImageSource(name, name, ("mnist",) if channels == 1 else ("cifar10",))
    rows = table3.rows(Study(SCALES["full"], (), {}, (source,), (32_000,)))
    answers = [
        Answer(row, 0, replace(run, run=str(place), configuration=row.config.identity(), facts=facts))
        for place, row in enumerate(rows)
    ]
    cells = experiment.cells(table3.numbers(answers))
    assert {cell.paper for cell in cells if cell.quantity == "test error"} == errors
    assert {cell.paper for cell in cells if cell.quantity == "norm"} == norms


def test_the_largest_number_of_random_filters_stands_for_the_papers(solved):
    cells, *_ = tables.read_csv(solved[0] / OUT / "table3.csv")
    random = [dict(cell.labels) for cell in cells if "random conv" in dict(cell.labels)["features"]]
    assert {labels["features"] for labels in random} == {"random conv, 400 filters"}, "the most there are"


@pytest.mark.parametrize(("jitter", "said"), [(0.0, ""), (1e-5, " (jitter 1e-05)")])
def test_jitter_is_shown_beside_the_residual(solved, jitter, said):
    run = next(run for run in archive.read(solved[0] / OUT).values() if run.configuration["features"] == "gabor")
    labels = (("data", "digits"), ("features", "gabor"), ("l2", "no"))
    row = Row(labels, KernelMachineConfig(dataset="digits"), {"test error": 0.006})
    answer = Answer(row, 0, replace(run, facts={**run.facts, "jitter": jitter, "residual": 2e-5}))
    *_, residual = experiment.cells(table3.numbers([answer]))
    assert tables.ours(residual, None) == f"2e-05{said}"


def test_the_digits_show_what_the_paper_says(solved):
    folder, _ = solved
    found = {dict(cell.labels)["solution"]: {} for cell in tables.read_csv(folder / OUT / "minimum_norm.csv")[0]}
    for cell in tables.read_csv(folder / OUT / "minimum_norm.csv")[0]:
        found[dict(cell.labels)["solution"]][cell.quantity] = cell.ours
    least = found["least norm"]
    assert all(row["train error"] == 0 for row in found.values())
    gabor, pixels = (found[f"least norm, all images, {features}"] for features in ("gabor", "pixels"))
    assert gabor["norm"] > pixels["norm"]
    assert gabor["test error"] < pixels["test error"]
    for name in ("least norm, random labels", "random centres", "wrong on 355 test images"):
        assert found[name]["norm"] > 2 * least["norm"]
        assert found[name]["test error"] > 2 * least["test error"]
    assert found["gradient descent"]["norm"] == pytest.approx(least["norm"], rel=1e-2)
    hessians = [row["Hessian's difference"] for row in found.values() if "Hessian's difference" in row]
    assert len(hessians) == 3
    assert max(hessians) < 1e-12


def test_gradient_descents_curve_comes_down(solved):
    cells, *_ = tables.read_csv(solved[0] / OUT / "minimum_norm_sgd.csv")
    for model in ("Gaussian kernel", "linear model"):
        curve = [cell.ours for cell in cells if dict(cell.labels)["model"] == model]
        assert curve == sorted(curve, reverse=True)
        assert curve[-1] < 1e-3


def test_the_evidence_holds_provenance_and_comes_back(solved):
    folder, _ = solved
    with (folder / OUT / "kernel_machines.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(solved_when(folder))
    for row in rows:
        assert row["fingerprint"]
        assert row["hardware"]
        assert row["commit"]
        assert float(row["seconds"]) > 0
        of_process = resolve_device("auto").type != "cuda"  # there of the device alone
        assert float(row["peak_gib"]) > (0.1 if of_process else 0.0)
    kept = archive.read(folder / OUT)
    assert all(run.task == "kernel_machines" and run.finished for run in kept.values())
    assert {run.run for run in kept.values()} == {row["run"] for row in rows}


def test_the_same_command_solves_nothing_again_even_without_the_run_folders(solved, tmp_path: Path):
    folder, _ = solved
    shutil.copytree(folder / OUT, tmp_path / OUT)
    before = (tmp_path / OUT / "table3.csv").read_bytes()
    printed = reproduce(tmp_path, "table3", "--scale", "demo", *FILTERS)
    assert "finished" not in printed
    assert not list((tmp_path / "runs").glob("pixels-*"))
    assert (tmp_path / OUT / "table3.csv").read_bytes() == before


def test_other_filters_and_data_are_added_to_what_is_there(solved, real_root: Path, tmp_path: Path):
    folder, _ = solved
    shutil.copytree(folder / OUT, tmp_path / "out")
    options = ("--scale", "demo", "--out", "out", "--data_root", str(real_root))
    reproduce(tmp_path, "table3", *options, "--dataset", "mnist")
    cells, dataset, _ = tables.read_csv(tmp_path / "out" / "table3.csv")
    mnist, cifar10 = (sources.load(name, real_root).name for name in ("mnist", "cifar10"))  # small copies
    assert set(dataset.split(" and ")) == {mnist, "digits"}
    assert {dict(cell.labels)["data"] for cell in cells} == {mnist, "digits"}
    reproduce(tmp_path, "table3_filters", *options, "--dataset", "cifar10", "--filters", "12")
    curve, *_ = tables.read_csv(tmp_path / "out" / "table3_filters.csv")
    assert {(dict(cell.labels)["data"], cell.x) for cell in curve} == {(cifar10, 12.0)} | {
        ("digits", float(filters)) for filters in (25, 400)
    }
    html = (tmp_path / "out" / "report.html").read_text()
    assert "python reproduce.py table3 --dataset mnist" in html


def test_other_options_of_the_filters_have_rows_of_their_own(solved, tmp_path: Path):
    folder, _ = solved
    shutil.copytree(folder / OUT, tmp_path / OUT)
    before = {cell.labels for cell in tables.read_csv(tmp_path / OUT / "table3.csv")[0]}
    text = "mirror=True, pool_size=15, pool_stride=6"
    options = ("--scale", "demo", "--filters", "25", "--filter_options", "pool_stride=6, pool_size=15, mirror=True")
    reproduce(tmp_path, "table3", *options)
    after = {cell.labels for cell in tables.read_csv(tmp_path / OUT / "table3.csv")[0]}
    assert before < after
    assert {labels[1][1] for labels in after - before} == {f"random conv, 25 filters, {text}"}
    curve, *_ = tables.read_csv(tmp_path / OUT / "table3_filters.csv")
    series = {dict(cell.labels)["regularizer"]: cell for cell in curve if cell.x == 25.0}
    assert set(series) == {"l2: no", "l2: yes", f"l2: no; {text}", f"l2: yes; {text}"}
    evidence = archive.read(tmp_path / OUT)[series[f"l2: yes; {text}"].runs[0]]
    assert evidence.configuration["filter_options"] == text
    assert evidence.facts["features"] == 18 * 25 + 1
    assert f"--filter_options '{text}'" in command(evidence)
    asked = Reproduction(experiment="table3", scale="demo", filters=(25,), filter_options=text, out=str(tmp_path / OUT))
    kept = archive.read(asked.folder())
    assert all(asked.finished_answer(config, kept) for config in asked.configs())


def test_the_options_that_are_compared_are_searched_on_held_out_images(solved):
    folder, _ = solved
    study = Study(SCALES["small"], (), {}, (ImageSource("cifar10", "cifar10", ("cifar10",)),))
    rows = table3_filter_options.rows(study)
    assert [row.config.filter_options for row in rows] == [*table3_filter_options.OPTIONS]
    assert len({row.config for row in rows}) == len(rows)
    assert {(row.config.train_subset, row.config.l2) for row in rows} == {(10_000, "search")}
    (found,) = (
        run
        for run in archive.read(folder / OUT).values()
        if run.configuration["l2"] == "search" and run.configuration["filters"] == 400
    )
    held_out, test = table3_filter_options.numbers([Answer(rows[0], 0, found)])
    assert (
        held_out.ours
        == min(found.facts["ridges_tried"].values())
        == found.facts["ridges_tried"][f"{found.facts['ridge']:.6g}"]
    )
    assert test.ours == found.facts["test_error"]


def test_an_answer_of_another_device_does_not_count_if_the_device_is_given(solved):
    folder, _ = solved
    kept = archive.read(folder / OUT)
    here = resolve_device("auto").type
    for device, answered in (("auto", True), (here, True), ("cpu" if here == "cuda" else "cuda", False)):
        asked = Reproduction(experiment="minimum_norm", scale="demo", device=(device,))
        found = [asked.finished_answer(config, kept) for config in asked.configs()]
        assert all(found) is answered
        assert any(found) is answered


def test_in_reproduce_all_an_impossible_machine_is_reported_and_the_networks_continue(
    real_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """With CIFAR-10 alone, its networks do not wait for MNIST."""
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    shutil.copytree(real_root / "cifar10", tmp_path / "data" / "cifar10")
    options = {"data_root": str(tmp_path / "data"), "runs_dir": str(tmp_path / "runs"), "filters": (5,)}
    everything = Reproduction(experiment="all", **options)
    assert any(isinstance(config, ExperimentConfig) and found is None for config, found in everything.found())
    of_mnist = [found for config, found in everything.found() if config.dataset == "mnist"]
    assert of_mnist
    assert all(isinstance(found, RunError) for found in of_mnist)
    told = {}
    for config, failure in everything.train({}):
        assert isinstance(failure, RunError), "before anything is trained"
        told[config.dataset] = str(failure)
        if config.dataset == "mnist":
            break
    assert "must be from 1 to 300" in told["cifar10"], "random signs for more images than there are"
    with pytest.raises(InputError):
        list(Reproduction(experiment="table3", **options).found())


def test_a_machine_that_no_longer_fits_when_its_turn_comes_fails_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The run before it may have filled the disk."""
    asked = Reproduction(experiment="table3", scale="demo", filters=(5,), runs_dir=str(tmp_path / "runs"))
    fit, refused = fitting.fit, []

    def full_at_first(config: KernelMachineConfig, begin):
        if not refused:
            refused.append(config)
            raise InputError("this takes 7 GiB on the disk, of which 1 is free")
        return fit(config, begin)

    monkeypatch.setitem(tasks.TASKS, KernelMachineConfig, tasks.Task(full_at_first, fitting.estimate_cost))
    outcomes = dict(asked.train({}))
    assert "of which 1 is free" in str(outcomes.pop(refused[0]))
    assert outcomes
    assert not any(isinstance(outcome, Exception) for outcome in outcomes.values())


def test_each_run_has_a_name_of_its_own():
    for name in ("table1", "table4", "figure1c", "table3", "minimum_norm", "rademacher"):
        configs = Reproduction(experiment=name, scale="demo").configs()
        assert len({in_words(config) for config in configs}) == len(configs)


def test_a_dry_run_says_how_long_and_solves_nothing(tmp_path: Path):
    printed = reproduce(tmp_path, "table3", "--scale", "demo", *FILTERS, "--dry_run")
    assert re.search(r"digits, random conv, 400 filters, l2, seed 0\W+\d+s", printed)
    assert re.search(r"\d+s left in all", printed)
    assert "GiB of memory at most" in printed
    assert not list(tmp_path.glob("runs/*"))


def test_a_dry_run_shows_what_is_finished(solved):
    printed = reproduce(solved[0], "table3", "--scale", "demo", *FILTERS, "--dry_run")
    assert len(re.findall(r"seed 0\W+done", printed)) == 6
    assert "0s left in all" in printed


def test_on_a_terminal_each_step_is_one_live_line(tmp_path: Path):
    command = ("-m", "rethinking", "reproduce", "table3_filters", "--scale", "demo", "--filters", "25", "300")
    seen = on_a_terminal(tmp_path, *command)
    assert "digits, random conv, 300 filters, seed 0: summing over 300 filters" in seen
    assert "finished:" not in seen


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("table3", "--bandwidth", "wide"), "error: bandwidth must be search, median or a number, not 'wide'"),
        (("table3", "--bandwidth", "0"), "error: bandwidth must be search, median or a positive number, not 0"),
        (("table3", "--filters", "0"), "error: filters must be whole numbers from 1 on"),
        (
            ("table3", "--filter_options", "mirrored=True"),
            "error: filter_options has no 'mirrored'; did you mean 'mirror'?",
        ),
        (("table3", "--filter_options", "mirror=yes"), "error: the option mirror must be a literal value"),
        (("table3", "--memory_limit", "-2"), "error: memory_limit must be a positive number of GiB, not -2"),
        (("table3", "--models", "mlp_1x512"), "error: table3 trains no network; leave out --models"),
        (("table33",), "did you mean 'table3'?"),
        (("minimum_norm", "--scale", "demo", "--memory_limit", "0.05"), "GiB of memory, and 0.1 GiB are allowed"),
        (("table3", "--scale", "demo", "--filters", "900000"), "900,000 filters are more than the 762,818 patches"),
    ],
)
def test_a_mistake_is_a_one_line_error_before_any_work(tmp_path: Path, arguments, message):
    printed = reproduce(tmp_path, *arguments, status=2)
    assert message in " ".join(printed.split())
    assert printed.count("error:") == 1
    assert not list(tmp_path.glob("runs/*"))


def test_images_without_rows_in_an_experiment_are_reported(real_root: Path, tmp_path: Path):
    options = ("--dataset", "cifar10", "--data_root", str(real_root))
    printed = reproduce(tmp_path, "minimum_norm", *options, status=2)
    assert "minimum_norm has no run at full scale for images like those of --dataset cifar10" in printed
    printed = reproduce(tmp_path, "table3_filter_options", "--data_root", str(real_root), status=2)
    assert "error: table3_filter_options has no run at full scale; give another --scale" in " ".join(printed.split())


def test_grey_images_stand_for_mnist_and_coloured_ones_for_cifar10(real_root: Path):
    def rows(name: str, dataset: str) -> set[tuple[str, str]]:
        asked = Reproduction(experiment=name, dataset=dataset, data_root=str(real_root), filters=(5,))
        return {(dict(row.labels)["data"], row.config.features) for found in asked.rows.values() for row in found}

    mnist, cifar10 = (sources.load(name, real_root).name for name in ("mnist", "cifar10"))  # small copies
    assert rows("table3", "mnist") == {(mnist, "pixels"), (mnist, "gabor")}
    assert rows("table3", "cifar10") == {(cifar10, "pixels"), (cifar10, "random_conv")}
    full = Reproduction(experiment="table3").rows["table3"]
    assert [row.paper["test error"] for row in full if row.config.features != "random_conv"] == [0.012, 0.006, 0.46]
    assert {row.config.filters for row in full} == {None, 500, 1000, 2000, 4000, 8000, 16_000, 32_000}
    assert all(row.config.train_subset is None for row in full)
    small = Reproduction(experiment="table3", scale="small").rows["table3"]
    assert all(row.config.train_subset == 10_000 for row in small)


def test_the_page_describes_each_solution(solved):
    html = (solved[0] / OUT / "report.html").read_text()
    for word in ("fits every training label", "test error", "peak memory, GiB", "fingerprint"):
        assert word in html
    kept = archive.read(solved[0] / OUT)
    commands = {command(run) for run in kept.values()}
    assert "python reproduce.py table3 --scale demo --filters 25 400" in commands
    assert "python reproduce.py minimum_norm --scale demo" in commands
    assert "Paper: " not in html, "the digits are not the paper's"
