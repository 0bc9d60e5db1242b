"""`rethinking sweep` and `rethinking.sweep`, on a few of the digits: results, reuse, interruption, many processes."""

from __future__ import annotations

import csv
import html
import io
import itertools
import json
import re
import signal
import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import rethinking
from rethinking.config import ExperimentConfig
from rethinking.experiments import archive
from rethinking.progress import ListProgress, Tally, Watched
from rethinking.report import charts, figures, tables
from rethinking.runs import load_run
from rethinking.sweeps.metrics import METRICS
from rethinking.sweeps.options import all_options, asked, parse
from rethinking.sweeps.sweep import Sweep
from rethinking.training.run_dir import RunResult
from tests import forked
from tests.conftest import ROOT, made_once, on_a_terminal

PROGRAM = ROOT / "src/rethinking/__main__.py"
FEW = ("--model", "mlp_1x512", "--dataset", "digits", "--train_subset", "100", "--precision", "fp32")
GRID = (*FEW, "--num_epochs", "2", "--corruption_prob", "0", "0.5", "--lr", "0.01", "0.1", "--seed", "0", "1", "2")
RUNS = 12
OUT = Path("swept")


def sweep(folder: Path, *words: str, status: int = 0) -> str:
    done = forked.run(PROGRAM, "sweep", *words, cwd=folder)
    assert done.returncode == status, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="session")
def swept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder in which the grid was swept, and what the command printed."""
    return made_once(tmp_path_factory, "sweep", lambda folder: sweep(folder, *GRID))


def results(folder: Path) -> Path:
    (found,) = (folder / OUT).iterdir()
    return found


def trained(folder: Path) -> dict[str, int]:
    """Returns when the last epoch of each run was written, by the run's name."""
    return {path.parent.name: path.stat().st_mtime_ns for path in (folder / "runs").glob("*/metrics.jsonl")}


def by_hand(folder: Path) -> dict[tuple[float, float], list[RunResult]]:
    """Returns the runs in a folder by corruption and learning rate, from their own files."""
    found: dict[tuple[float, float], list[RunResult]] = {}
    for path in (folder / "runs").iterdir():
        run = load_run(path)
        assert run.config.learning_rate is not None
        found.setdefault((run.config.corruption_prob or 0.0, run.config.learning_rate), []).append(run)
    return found


def test_numbers_are_means_and_deviations_over_seeds_of_the_runs_themselves(swept: tuple[Path, str]):
    folder, printed = swept
    cells, dataset, _ = tables.read_csv(results(folder) / "sweep.csv")
    assert dataset == "digits"
    assert len(cells) == 2 * 4
    of_point = by_hand(folder)
    for cell in cells:
        labels = dict(cell.labels)
        runs = of_point[float(labels["corruption_prob"]), float(labels["lr"])]
        name = {"train accuracy": "exact_train_accuracy", "test accuracy": "test_accuracy"}[cell.quantity]
        values = [run.final[name] for run in runs]
        assert sorted(run.config.seed for run in runs) == [0, 1, 2]
        assert (cell.seeds, sorted(cell.runs)) == (3, sorted(run.path.name for run in runs))
        assert cell.ours == pytest.approx(statistics.mean(values), rel=1e-5)
        assert cell.std == pytest.approx(statistics.stdev(values), rel=1e-4)
        assert cell.x == float(labels["corruption_prob"])
        assert f"{statistics.mean(values):.2%}".removesuffix("%") in printed
    assert printed.count("finished: ") == RUNS
    assert f"({RUNS} of {RUNS} runs finished)" in printed
    assert "epoch 1/2" not in printed, "many runs have no line for each epoch"


def test_every_metric_is_what_the_run_itself_says(tmp_path: Path):
    sweep(tmp_path, *FEW, "--num_epochs", "1", "60", "--seed", "0", "--randomization", "none", "random_signs")
    kept = archive.read(results(tmp_path))
    assert len(kept) == 4
    reached = set()
    for name, evidence in kept.items():
        run = load_run(tmp_path / "runs" / name)
        final = run.final
        expected = {
            "train_accuracy": final["exact_train_accuracy"],
            "test_accuracy": final["test_accuracy"],
            "generalization_gap": final["generalization_gap"],
            "train_loss": final["train_loss"],
            "test_loss": final["test_loss"],
            "epochs_to_fit": run.result["epochs_to_fit"]["1.0"],
            "epochs": len(run.metrics),
            "seconds": run.result["seconds"],
        }
        reached.add(expected["epochs_to_fit"] is not None)
        assert expected.keys() == METRICS.keys()
        for metric, value in expected.items():
            found = METRICS[metric].of(evidence.metrics, evidence.facts)
            assert found.number == (value if value is None else pytest.approx(value, rel=1e-5, abs=1e-5)), metric
            assert bool(found.note) is (value is None)
        if run.config.randomization == "random_signs":
            assert METRICS["test_loss"].of(evidence.metrics, evidence.facts).note == "no test set"
    assert reached == {True, False}
    online = {**kept[name].metrics[-1], "exact_train_accuracy": None}
    assert METRICS["train_accuracy"].of([online], {}) == (online["train_accuracy"], "online")


def test_the_figure_and_the_page_have_the_points_of_the_table(swept: tuple[Path, str], tmp_path: Path):
    folder, _ = swept
    names = {path.name for path in results(folder).iterdir()}
    assert {"runs.csv", "epochs.csv", "sweep.csv", "sweep.md", "sweep.png", "sweep.svg", "report.html"} <= names
    cells, _, _ = tables.read_csv(results(folder) / "sweep.csv")
    page = (results(folder) / "report.html").read_text()
    data = json.loads(re.findall(r'id="the-data">(.*?)</script>', page)[0])
    chart: charts.Chart = data["charts"]["sweep"]
    assert [panel["title"] for panel in chart["panels"]] == ["train accuracy", "test accuracy"]
    assert [name["label"] for name in chart["names"]] == ["lr 0.01", "lr 0.1"]
    points = {
        (panel["title"], chart["names"][curve["name"]]["label"], x, y)
        for panel in chart["panels"]
        for curve in panel["curves"]
        for x, y in zip(curve["x"], curve["y"], strict=True)
    }
    assert points == {(cell.quantity, f"lr {dict(cell.labels)['lr']}", cell.x, cell.ours) for cell in cells}
    (experiment,) = Sweep.of(parse(GRID)).experiments.values()
    drawn = figures.paper_figure(experiment, cells, tmp_path / "figure", "digits", full_scale=False)
    assert {
        (axes.get_title(), str(line.get_label()), float(x), float(y))
        for axes in drawn.axes
        for line in axes.get_lines()
        for x, y in line.get_xydata()
    } == points
    assert [axes.get_xscale() for axes in drawn.axes] == ["linear", "linear"]
    (by_rate,) = Sweep.of(parse([*GRID, "--x", "lr"])).experiments.values()
    assert by_rate.plot is not None
    assert (by_rate.plot.log_x, by_rate.plot.curves) == (True, ("corruption_prob",))
    shown = {tuple(data["runs"][run]["name"] for run in group) for group in data["groups"]}
    assert shown == {cell.runs for cell in cells}, "each number opens its runs"
    assert "<h1>Sweep over corruption_prob and lr</h1>" in page
    assert "paper" not in re.sub(r"<script.*?</script>|<style.*?</style>", "", page, flags=re.DOTALL).lower()


def test_a_second_time_nothing_is_trained_and_further_seeds_use_what_is_there(swept: tuple[Path, str], tmp_path: Path):
    folder, first = swept
    before, table = trained(folder), (results(folder) / "sweep.md").read_bytes()
    again = sweep(folder, *GRID)
    assert trained(folder) == before
    assert "finished: " not in again
    assert (results(folder) / "sweep.md").read_bytes() == table
    assert again.split("Sweep over")[1] == first.split("Sweep over")[1]
    assert sweep(folder, *GRID, "--dry_run").count("done") == RUNS
    printed = sweep(folder, *GRID, "3", "--dry_run")
    assert printed.count("0 of 2") == 4
    assert "left in all on this machine" in printed
    assert "GiB of memory" in printed
    assert "not finished" not in sweep(folder, *GRID, "--show_only")
    assert "not finished: 4 of 16 runs" in sweep(folder, *GRID, "3", "--show_only", "--out", str(tmp_path / "four"))
    assert trained(folder) == before


def test_any_option_may_be_in_the_rows_and_columns(swept: tuple[Path, str], tmp_path: Path):
    folder, _ = swept
    out = str(tmp_path / "table")
    sweep(folder, *GRID, "--columns", "corruption_prob", "--rows", "seed", "--y", "gap", "--show_only", "--out", out)
    lines = (tmp_path / "table/sweep.md").read_text().splitlines()
    assert lines[4] == "| seed | lr | gap, corruption prob 0 | gap, corruption prob 0.5 |"
    made = {tuple(line.strip("| ").split(" | ")[:2]): line.strip("| ").split(" | ")[2:] for line in lines[6:]}
    assert len(made) == 6
    for (corruption, rate), runs in by_hand(folder).items():
        for run in runs:
            gap = run.final["exact_train_accuracy"] - run.final["test_accuracy"]
            found = made[str(run.config.seed), f"{rate:g}"][[0.0, 0.5].index(corruption)]
            assert found == f"{gap:.2%}"
    with (tmp_path / "table/sweep.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 12, "the CSV file has a line for each number"
    assert f"--out {out}" in html.unescape((tmp_path / "table/report.html").read_text()), "its command"
    printed = sweep(folder, *GRID, "--columns", "seed", "corruption_prob", "--show_only", "--out", out)
    assert "seed 2," in " ".join(printed.split())


def test_runs_are_those_of_train_and_of_table_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    words = ("--model", "mlp_1x512", "--dataset", "digits", "--lr_decay", "1.0", "--stop_when_fit")
    printed = sweep(tmp_path, *words, "--num_epochs", "150", "--corruption_prob", "0", "1", "--dry_run")
    assert "at most" in printed
    monkeypatch.chdir(tmp_path)
    options = {"model": "mlp_1x512", "dataset": "digits", "lr_decay": 1, "stop_when_fit": True, "num_epochs": 150}
    runs = {result.path.name for result in rethinking.sweep(**options, corruption_prob=[0, 1])}
    reproduced = rethinking.reproduce("table1", scale="demo", models="mlp_1x512", show_only=True)
    assert {run for cell in reproduced["table1"].cells for run in cell.runs} == runs


def test_combinations_of_the_same_run_are_trained_once_and_counted_once(tmp_path: Path):
    words = (*FEW, "--num_epochs", "1", "--corruption_prob", "0", "1", "--randomization_seed", "0", "1")
    printed = sweep(tmp_path, *words)
    assert "left out: 1 of 4 combinations, which are the same runs as others" in printed
    assert len(trained(tmp_path)) == 3
    cells, _, _ = tables.read_csv(results(tmp_path) / "sweep.csv")
    assert [(dict(cell.labels)["corruption_prob"], cell.seeds) for cell in cells] == [
        ("0", 1),
        ("0", 1),
        ("1", 2),
        ("1", 2),
    ]
    sweep(tmp_path, *FEW, "--num_epochs", "1", "--weight_decay", "default", "0.0001", "--out", "decay")
    cells, _, _ = tables.read_csv(tmp_path / "decay/sweep.csv")
    assert len(trained(tmp_path)) == 4
    assert len({cell.runs for cell in cells}) == 1
    assert {dict(cell.labels)["weight_decay"] for cell in cells} == {"default", "0.0001"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ("--train_subset", "100", "5000", "--lr", "0.1", "0.2"),
            "2 of 4 combinations do not fit together: train_subset 5000: train_subset must be at most 1442",
        ),
        (
            ("--warmup_epochs", "0", "5", "--num_epochs", "3", "9"),
            "1 of 4 combinations does not fit together: warmup_epochs 5 with num_epochs 3: warmup_epochs must be below",
        ),
        (("--model", "no.py:net", "mlp_1x512"), "1 of 2 combinations does not fit together: model no.py:net"),
        (("--dataset", "digits", "no/such/folder"), "no/such/folder"),
        (("--lr", "0.1", "0.1"), "lr 0.1 is given twice"),
    ],
)
def test_what_does_not_fit_the_data_is_named_before_anything_starts(tmp_path: Path, words: tuple[str, ...], said: str):
    usual = {"--model": "mlp_1x512", "--dataset": "digits"}
    others = [word for option, value in usual.items() if option not in words for word in (option, value)]
    printed = sweep(tmp_path, *others, *words, status=2)
    assert said in printed
    assert len(printed.strip().splitlines()) <= 3, "a line about each data set that was found, and one for the mistake"
    assert sum(line.startswith("error: ") for line in printed.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_fails_is_reported_and_does_not_stop_the_others(tmp_path: Path):
    printed = sweep(tmp_path, *FEW, "--num_epochs", "1", "--lr", "0.1", "1e30", status=1)
    assert "failed: mlp_1x512, none, seed 0, 100 images, learning_rate 1e+30" in printed
    assert "1 of the runs failed, the others are done" in printed
    cells, _, _ = tables.read_csv(results(tmp_path) / "sweep.csv")
    assert {dict(cell.labels)["lr"] for cell in cells} == {"0.1"}


LONG = (*FEW, "--num_epochs", "40", "--lr", "0.01", "0.02", "--seed", "0", "1")


def test_a_killed_sweep_goes_on_where_it_stopped(tmp_path: Path):
    process = forked.start(PROGRAM, "sweep", *LONG, cwd=tmp_path)
    deadline = time.monotonic() + 1200
    while len(list(tmp_path.glob("runs/*/checkpoint.safetensors"))) < 2:  # in the midst of the second run
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=1200)
    done = {path.parent.name for path in tmp_path.glob("runs/*/result.json")}
    before = trained(tmp_path)
    assert len(done) < 4
    printed = sweep(tmp_path, *LONG)
    assert "4 of 4 runs finished" in printed
    after = trained(tmp_path)
    assert all(after[run] == before[run] for run in done), "a finished run was trained again"
    assert printed.count("finished: ") == 4 - len(done)
    (row,) = {cell.seeds for cell in tables.read_csv(results(tmp_path) / "sweep.csv")[0]}
    assert row == 2


def test_in_python_a_sweep_yields_results_and_gives_a_frame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("pandas")
    monkeypatch.chdir(tmp_path)
    options: dict[str, Any] = {
        "dataset": "digits",
        "train_subset": 100,
        "num_epochs": 1,
        "learning_rate": [0.01, 0.1],
        "seed": range(2),
        "precision": "fp32",
    }
    swept = rethinking.sweep(model_name="mlp_1x512", **options)
    assert len(swept) == 4
    assert "no run so far" in swept._repr_html_()
    assert not (tmp_path / "runs").exists(), "nothing is trained before somebody asks for it"
    runs = {result.path.name: result for result in swept}
    assert len(runs) == 4
    before = trained(tmp_path)
    assert {result.path.name for result in rethinking.sweep(model="mlp_1x512", **options)} == runs.keys()
    frame = swept.frame()
    assert list(frame.columns[:2]) == ["lr", "seed"]
    assert [tuple(row) for row in frame[["lr", "seed"]].to_numpy().tolist()] == [
        *itertools.product((0.01, 0.1), (0, 1))
    ]
    for row in frame.to_dict("records"):
        result = runs[row["run"]]
        assert (row["lr"], row["seed"]) == (result.config.learning_rate, result.config.seed)
        assert row["test_accuracy"] == pytest.approx(result.final["test_accuracy"], rel=1e-5)
        assert row["train_accuracy"] == pytest.approx(result.final["exact_train_accuracy"], rel=1e-5)
        assert (row["epochs"], row["finished"]) == (1, True)
    assert trained(tmp_path) == before
    assert swept.table is not None
    assert {cell.seeds for cell in swept.table.cells} == {2}
    assert "test accuracy" in swept._repr_html_()
    assert "2 seeds" in swept._repr_html_()
    with pytest.raises(rethinking.InputError, match=r"unknown option 'seeds'; did you mean 'seed'"):
        rethinking.sweep(model="mlp_1x512", seeds=[0, 1])


def test_a_run_that_another_process_finishes_meanwhile_is_yielded(tmp_path: Path):
    options: dict[str, Any] = {"model": "mlp_1x512", "dataset": "digits", "train_subset": 100, "num_epochs": 1}
    options |= {"runs_dir": tmp_path / "runs", "out": tmp_path / "out"}
    assert len([*rethinking.sweep(seed=[1], **options)]) == 1
    seeds = []
    for result in rethinking.sweep(seed=[0, 1], **options):
        seeds.append(result.config.seed)
        if result.config.seed == 1:
            rethinking.train(replace(result.config, seed=0), progress=False)
    assert seeds == [1, 0]


def test_a_failure_in_python_is_raised_after_the_other_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    swept = rethinking.sweep(
        model="mlp_1x512", dataset="digits", train_subset=100, num_epochs=1, lr=[1e30, 0.1], precision="fp32"
    )
    results = iter(swept)
    assert next(results).config.learning_rate == 0.1
    with pytest.raises(rethinking.RunError, match="1 of the runs failed"):
        next(results)
    assert list(swept.failed) == ["mlp_1x512, none, seed 0, 100 images, learning_rate 1e+30"]


def test_the_folder_stays_when_values_and_seeds_are_added():
    few = {"model": "mlp_1x512", "dataset": "digits", "lr": [0.1, 0.2]}
    folder = Sweep.of(asked(few)).folder()
    assert folder.parent == Path("swept")
    assert folder.name.startswith("digits-lr-")
    assert Sweep.of(asked({**few, "lr": [0.1, 0.2, 0.3], "seed": [0, 1]})).folder() == folder
    assert Sweep.of(asked({**few, "batch_size": 32})).folder() != folder
    assert Sweep.of(asked({**few, "out": "there"})).folder() == Path("there")


def test_on_a_terminal_a_line_counts_the_runs_above_the_live_line(tmp_path: Path):
    text = on_a_terminal(tmp_path, str(PROGRAM), "sweep", *FEW, "--num_epochs", "40", "--seed", "0", "1", "2")
    assert re.search(r"0 of 3 runs finished, 1 at work", text)
    assert re.search(r"2 of 3 runs finished, 1 at work, \d+s left", text)
    assert re.search(r"epoch \d+/40 .*left", text)
    assert "written to swept" in text


def test_without_a_terminal_there_is_a_line_every_half_minute_at_most(monkeypatch: pytest.MonkeyPatch):
    """Two hundred epochs of ten seconds each, in two runs at once."""
    now = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    console = Console(width=200, file=io.StringIO())
    config = ExperimentConfig(model_name="mlp_1x512", num_epochs=100, train_subset=100)
    progress = ListProgress(console, lambda: "", lambda: Tally(2, [config]))
    record = {"train_loss": 1.0, "train_accuracy": 0.5, "exact_train_accuracy": None, "test_accuracy": None}
    runs = [progress.observers()[0] for _ in range(2)]
    for number, run in enumerate(runs):
        run.started(Path(f"runs/{number}"), config, [], 100)
    for epoch in range(1, 101):
        for run in runs:
            now[0] += 5.0
            run.step(100)
            run.epoch({"epoch": epoch, "seconds": 10.0, "images_per_second": 10.0, **record})
    lines = console.file.getvalue().splitlines()
    assert 1000 / 40 <= len(lines) <= 1000 / 30
    assert lines[0].startswith("1 of 2 runs finished, 2 at work, ")
    assert "epoch 4/100" in lines[0]


def test_the_time_left_counts_all_runs_of_the_list_by_network(monkeypatch: pytest.MonkeyPatch):
    """Two runs at once take a second for an epoch of 100 images. Five seconds of epochs in 2.5 seconds are two at once.

    Four runs of ten epochs on 100 images are left, of which one is half done, and one on 200 images: 55 seconds.
    """
    now = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    one = ExperimentConfig(model_name="mlp_1x512", num_epochs=10, train_subset=100)
    configs = [ExperimentConfig(**{**one.to_dict(), "seed": seed}) for seed in range(5)]
    large = ExperimentConfig(**{**one.to_dict(), "train_subset": 200})
    other = ExperimentConfig(model_name="mlp_3x512", num_epochs=10)
    tally = Tally(9, [*configs, large, other])

    class Silent:
        def started(self, run: Watched, going_on: str) -> None: ...
        def step(self, run: Watched) -> None: ...
        def epoch(self, run: Watched) -> None: ...
        def ended(self, run: Watched) -> None: ...

    watched = Watched(Silent())
    watched.started(Path("runs/a"), configs[0], [], 100)
    assert tally.in_words([watched]) == "2 of 9 runs finished, 1 at work"
    now[0] = 2.5
    watched.step(500)
    for _ in range(5):
        tally.epoch(watched, {"seconds": 1.0})
    tally.over(configs[4], failed=True)
    left = (3 * 10 + 5 + 10 * 2) / 2
    expected = f"2 of 9 runs finished, 1 failed, 1 at work, {round(left)}s left without mlp_3x512"
    assert tally.in_words([watched]) == expected
    tally.over(other, finished=True)
    assert tally.in_words([]).startswith("3 of 9 runs finished, 1 failed, ")
    stopping = Tally(1, [ExperimentConfig(**{**one.to_dict(), "stop_when_fit": True})])
    now[0] = 5.0
    stopping.epoch(watched, {"seconds": 1.0})
    assert "at most" in stopping.in_words([])


OWN_OPTIONS = """--config --zip --rows --columns --x --y --curves --device --precision --at_once --ray --runs_shared
    --dry_run --show_only --no_wait --out --runs_dir"""


def test_the_options_of_a_sweep_are_those_of_train_and_these():
    flags = [f"--{option.flag}" for option in all_options()]
    of_train = [spec.metadata["flag"] or name for name, spec in ExperimentConfig.__dataclass_fields__.items()
                if not spec.metadata["recorded"]]  # fmt: skip
    assert sorted(flags) == sorted({*OWN_OPTIONS.split(), *(f"--{flag}" for flag in of_train)})
