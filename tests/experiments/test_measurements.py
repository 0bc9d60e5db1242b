"""`reproduce.py stability` and `complexity` on the command line, on the digits at demo scale."""

from __future__ import annotations

import json
import shutil
import statistics
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from rethinking import ExperimentConfig, RunError, train, train_many
from rethinking.data import sources
from rethinking.data.sources import ImageSet
from rethinking.experiments import archive, complexity, complexity_margins, stability
from rethinking.experiments.reproduction import Reproduction
from rethinking.report import tables
from rethinking.report.commands import command
from rethinking.theory.measuring import ComplexityConfig
from rethinking.theory.stability import StabilityConfig
from tests.conftest import DEMO, OUT, reproduce


def results_of(folder: Path, runs: tuple[str, ...]) -> list[dict]:
    return [json.loads((folder / "runs" / run / "result.json").read_text()) for run in runs]


def test_stability_is_the_mean_over_replacements_epoch_by_epoch(reproduced: tuple[Path, str]):
    folder, printed = reproduced
    cells, _, _ = tables.read_csv(folder / OUT / "stability.csv")
    assert {dict(cell.labels)["labels"] for cell in cells} == {"true", "random"}
    assert {cell.quantity for cell in cells} == {*stability.QUANTITIES, stability.TRAINED}
    for cell in cells:
        found = results_of(folder, cell.runs)
        if cell.quantity == stability.TRAINED:
            (network,) = cell.runs
            lines = (folder / "runs" / network / "metrics.jsonl").read_text().splitlines()
            assert cell.ours == pytest.approx(json.loads(lines[int(cell.x) - 1])["train_accuracy"], rel=1e-5)
            assert "replaced_example: null" in (folder / "runs" / network / "config.yaml").read_text()
            continue
        values = [each[stability.QUANTITIES[cell.quantity]][int(cell.x) - 1] for each in found]
        assert cell.ours == pytest.approx(statistics.mean(values), rel=1e-5)
        assert cell.ours > 0
        assert "probability" not in cell.quantity or cell.ours <= 1
    firsts = [cell for cell in cells if cell.x == 1 and cell.quantity != stability.TRAINED]
    assert {cell.seeds for cell in firsts} == {2}
    assert "Uniform stability" in printed
    assert {cell.x for cell in cells} == set(range(1, 71)), "all of them, whether the labels are fitted before or not"
    assert "2 replacements" in " ".join(printed.split())


def test_the_measures_stand_along_the_corruption_axis_beside_the_gap(reproduced: tuple[Path, str]):
    folder, _ = reproduced
    cells, _, _ = tables.read_csv(folder / OUT / "complexity.csv")
    at = {(cell.quantity, cell.x): cell for cell in cells}
    assert {quantity for quantity, _ in at} == set(complexity.SHOWN)
    assert {x for _, x in at} == {0.0, 0.5, 1.0}
    for (quantity, _), cell in at.items():
        (found,) = results_of(folder, cell.runs)
        assert cell.ours == pytest.approx(found[(complexity.TRAINED | complexity.QUANTITIES)[quantity]], rel=1e-5)
    for grows in ("generalization gap", "Frobenius norm", "distance from initialization", "path norm"):
        assert at[grows, 0.0].ours < at[grows, 0.5].ours < at[grows, 1.0].ours
    margin = "normalized margin, 10th percentile"
    assert at[margin, 0.0].ours > at[margin, 1.0].ours > 0, "all labels are fitted"


def test_the_distribution_of_margins_rises_from_the_least_to_the_largest(reproduced: tuple[Path, str]):
    folder, _ = reproduced
    cells, _, _ = tables.read_csv(folder / OUT / "complexity_margins.csv")
    for kind in complexity_margins.LEVELS.values():
        curve = [cell for cell in cells if dict(cell.labels)["labels"] == kind]
        assert {cell.quantity for cell in curve} == {"normalized margin, mlp_1x512"}
        assert [cell.x for cell in curve] == pytest.approx([percent / 100 for percent in range(0, 101, 5)])
        assert [cell.ours for cell in curve] == sorted(cell.ours for cell in curve)
        (found,) = results_of(folder, curve[0].runs)
        assert (curve[0].ours > 0) is (found["exact_train_accuracy"] == 1)
    table = (folder / OUT / "complexity_margins.md").read_text()
    assert "share of training images below" in table


@pytest.mark.parametrize("name", ["stability", "complexity", "complexity_margins", "rademacher"])
def test_each_has_a_figure(reproduced: tuple[Path, str], name):
    with Image.open(reproduced[0] / OUT / f"{name}.png") as picture:
        assert picture.width > 600
        assert len(picture.convert("RGB").getcolors(maxcolors=1 << 24) or []) > 50


def test_the_page_says_what_is_behind_each_and_the_command_that_runs_it_again(reproduced: tuple[Path, str]):
    folder, _ = reproduced
    kept = archive.read(folder / OUT)
    commands = {command(run) for run in kept.values() if run.task == "replacements"}
    assert commands == {"python reproduce.py all --models mlp_1x512 --scale demo"}, "the one that made them"
    measured = [run for run in kept.values() if run.task == "measures"]
    assert len(measured) == 3
    for run in measured:
        assert command(run).endswith(f"&& python reproduce.py complexity runs/{run.facts['network']}")
        train, _, _ = command(run).partition(" && ")
        assert "radius" not in train
    html = (folder / OUT / "report.html").read_text()
    assert "Measures of complexity" in html
    assert "mean of probability change" in html


def test_their_answers_are_found_again_without_run_folders(reproduced: tuple[Path, str], tmp_path: Path):
    folder, _ = reproduced
    out = folder / OUT
    for name in ("stability", "complexity"):
        before = (out / f"{name}.csv").read_text()
        printed = reproduce(tmp_path, name, *DEMO, "--out", str(out))
        assert "finished:" not in printed
        assert (out / f"{name}.csv").read_text() == before
    assert not (tmp_path / "runs").exists()


def test_finished_runs_are_measured_from_their_folders(reproduced: tuple[Path, str], tmp_path: Path):
    folder, _ = reproduced
    runs = sorted((folder / "runs").glob("mlp_1x512-digits-*-seed0-*"))[:2]
    other = ExperimentConfig(
        model_name="mlp_1x512", dataset="digits", seed=3, num_epochs=1, runs_dir=str(tmp_path / "a")
    )
    runs.append(train(other).path)
    printed = reproduce(tmp_path, "complexity", *map(str, runs))
    assert "share of training images below" not in printed, "the margins of each run are long"
    cells, _, scale = tables.read_csv(tmp_path / "reproduced" / "complexity" / "complexity_runs.csv")
    assert scale == "their own"
    assert {dict(cell.labels)["run"] for cell in cells} == {run.name for run in runs}
    assert {(cell.seeds, cell.std, len(cell.runs)) for cell in cells} == {(1, None, 1)}
    assert len({cell.runs for cell in cells}) == 3, "each has its own measures"
    assert {cell.quantity for cell in cells} == set(complexity.SHOWN)
    trained = {dict(cell.labels)["run"]: cell.ours for cell in cells if cell.quantity == "epochs"}
    assert trained[runs[-1].name] == 1
    assert {dict(cell.labels)["trained on"] for cell in cells if runs[-1].name == dict(cell.labels)["run"]} == {
        "true labels, all images"
    }
    names = {path.name for path in (tmp_path / "reproduced" / "complexity").iterdir()}
    assert "complexity_runs_margins.png" in names
    assert not {"complexity.csv", "complexity_runs.png"} & names, "without an axis there is no figure"
    again = reproduce(tmp_path, "complexity", *map(str, runs))
    assert "finished:" not in again


def test_measured_runs_leave_the_tables_of_a_scale_as_they_are(reproduced: tuple[Path, str], tmp_path: Path):
    folder, _ = reproduced
    out = tmp_path / "results"
    shutil.copytree(folder / OUT, out)
    before = {path.name: path.read_bytes() for path in out.glob("complexity*")}
    (run, *_) = sorted((folder / "runs").glob("mlp_1x512-digits-none-*"))
    reproduce(tmp_path, "complexity", str(run), "--out", str(out))
    assert (out / "complexity_runs.md").exists()
    assert all((out / name).read_bytes() == content for name, content in before.items())
    assert "Measures of complexity of single runs" in (out / "report.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("table1", "table3"), "table1 takes no run folders like 'table3'; give one table or figure per command"),
        (
            ("complexity", f"no_such_{'very_' * 30}long_run"),
            f"no_such_{'very_' * 30}long_run",
        ),
        (("complexity", "no_such_run"), "there is no run folder"),
        (("complexity", "one/run", "two/run"), "runs must have different names"),
        (("complexity_runs", "run"), "experiment must be one of"),
        (("complexity", "run", "--scale", "demo"), "runs are measured as they are: leave out --scale"),
    ],
)
def test_mistakes_are_one_line_errors(tmp_path: Path, arguments, said):
    printed = reproduce(tmp_path, *arguments, status=2)
    assert said in printed
    assert len([line for line in printed.splitlines() if line]) == 1


def test_a_measurement_without_evidence_needs_its_networks_again_where_their_folders_are_gone(
    reproduced: tuple[Path, str], tmp_path: Path
):
    folder, _ = reproduced
    kept = archive.read(folder / OUT)
    fewer = {name: run for name, run in kept.items() if run.task != "replacements"}
    options = {"experiment": "stability", "scale": "demo", "models": ("mlp_1x512",)}
    gone, there = (Reproduction(runs_dir=str(runs), **options) for runs in (tmp_path, folder / "runs"))
    assert gone.missing(kept) == []
    assert sum(isinstance(config, StabilityConfig) for config in gone.missing(fewer)) == 4
    assert sum(isinstance(config, ExperimentConfig) for config in gone.missing(fewer)) == 6
    assert all(isinstance(config, StabilityConfig) for config in there.missing(fewer))


def test_a_given_precision_applies_to_the_measurements_too(reproduced: tuple[Path, str]):
    kept = archive.read(reproduced[0] / OUT)
    for precision, answered in (("auto", True), ("fp32", True), ("bf16", False)):
        asked = Reproduction(experiment="stability", scale="demo", models=("mlp_1x512",), precision=precision)
        changes = [config for config in asked.configs() if isinstance(config, StabilityConfig)]
        assert {asked.finished_answer(config, kept) is not None for config in changes} == {answered}


def test_only_the_measurements_of_a_failed_network_fail_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    asked = Reproduction(
        experiment="stability", scale="demo", models=("mlp_1x512",), runs_dir=str(tmp_path), dataset="digits"
    )

    def one_fails(configs, **options):
        quick = [replace(config, num_epochs=1) for config in configs]
        for config, (_, outcome) in zip(configs, train_many(quick), strict=True):
            yield config, RuntimeError("a fault of the device") if config.replaced_example == 1 else outcome

    carried_out = []
    monkeypatch.setattr("rethinking.experiments.run_list.train_many", one_fails)
    monkeypatch.setattr(
        "rethinking.experiments.run_list.tasks.carry_out", lambda config, _: carried_out.append(config) or config
    )
    outcomes = dict(asked.train({}))
    failed = {config: str(outcome) for config, outcome in outcomes.items() if isinstance(outcome, RunError)}
    assert sorted(failed.values()) == 2 * ["RuntimeError: a fault of the device"] + 2 * ["its network failed"]
    assert {config.replaced for config in carried_out} == {0}
    assert len(carried_out) == 2


@pytest.mark.parametrize("images", [0, 1])
def test_reproduce_all_continues_without_test_images_for_replacements(tmp_path: Path, monkeypatch, images):
    digits = sources.load("digits")
    few = ImageSet(digits.test.images[:images], digits.test.labels[:images]) if images else None
    monkeypatch.setattr("rethinking.data.sources.load", lambda *_, **__: replace(digits, test=few))
    asked = Reproduction(experiment="all", scale="demo", models=("mlp_1x512",), runs_dir=str(tmp_path))
    found = dict(asked.found())
    failing = {config for config, outcome in found.items() if isinstance(outcome, RunError)}
    assert failing
    assert all(isinstance(config, StabilityConfig) or config.keep_test_losses for config in failing)
    assert asked.missing({}) == asked.configs()
    assert asked.cells("stability", {}) == []


def test_seeds_apply_to_the_networks_too():
    for name, kind in (("stability", StabilityConfig), ("complexity", ComplexityConfig)):
        asked = Reproduction(experiment=name, scale="demo", models=("mlp_1x512",), seeds=(0, 2))
        seeds = {(config.seed, config.network.seed) for config in asked.configs() if isinstance(config, kind)}
        assert seeds == {(0, 0), (2, 2)}
