"""`reproduce.py` on the command line, on the digits at demo scale: all steps, reuse, interruption, failures."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest

from rethinking.config import ExperimentConfig
from rethinking.engines.timing import seconds_per_epoch
from rethinking.experiments import archive
from rethinking.experiments.catalogue import EXPERIMENTS
from rethinking.experiments.reproduction import Reproduction
from rethinking.experiments.time_to_overfit import time_to_overfit
from rethinking.identity import question
from rethinking.report import tables
from rethinking.training.preparation import resolve
from tests import forked
from tests.conftest import DEMO, OUT, ROOT, on_a_terminal, reproduce


def trained(folder: Path) -> dict[str, int]:
    """Returns when the last epoch of each run was written, by the run's name."""
    return {path.parent.name: path.stat().st_mtime_ns for path in (folder / "runs").glob("*/metrics.jsonl")}


def test_all_leaves_every_table_and_figure_and_says_what_it_left_out(reproduced):
    folder, printed = reproduced
    names = {path.name for path in (folder / OUT).iterdir()} - {".lock"}
    assert {"runs.csv", "epochs.csv", "report.html", "time_to_overfit.md"} <= names
    for name in ("table1", "table4", "figure1a", "figure1b", "figure1c"):
        assert {f"{name}.csv", f"{name}.md"} <= names
        assert ({f"{name}.png", f"{name}.svg"} <= names) is name.startswith("figure")
        assert EXPERIMENTS[name].title in " ".join(printed.split())
    assert not any(name.startswith("figure2b") or name.endswith(".tmp") for name in names)
    assert "left out: figure2b, which takes --models small_inception, small_inception_no_bn" in printed
    signs, linear = 12, 9  # three draws of random signs, and true labels, for three sizes; as many for a linear class
    neighbours, changes, measured = 6, 4, 3  # two examples replaced, of true and random labels; three levels
    assert len(trained(folder)) == 8 + signs + neighbours
    assert printed.count("finished: ") == 8 + signs + linear + neighbours + changes + measured


def test_every_cell_and_point_is_traceable_to_runs_that_say_the_same(reproduced):
    """Reads the run folders themselves, in an independent way."""
    folder, _ = reproduced
    kept = archive.read(folder / OUT)
    checked = 0
    for name in ("table1", "table4", "figure1a", "figure1b", "figure1c"):
        cells, dataset, scale = tables.read_csv(folder / OUT / f"{name}.csv")
        assert (dataset, scale) == ("digits", "demo")
        for cell in cells:
            assert set(cell.runs) <= kept.keys()
            lines, *baseline = (metrics_of(folder / "runs" / run) for run in cell.runs)
            times = time_to_overfit(lines), time_to_overfit(*baseline or [lines])
            expected = {
                "train accuracy": lines[-1]["exact_train_accuracy"],
                "test accuracy": lines[-1]["test_accuracy"],
                "training loss": lines[int(cell.x or 1) - 1]["train_loss"],
                "epochs to overfit": times[0],
                "relative time to overfit": times[0] / times[1] if all(times) else None,
                "test error": 1 - lines[-1]["test_accuracy"],
            }
            assert cell.ours == pytest.approx(expected[cell.quantity], rel=1e-5), (name, cell)
            checked += 1
    assert checked > 100


def metrics_of(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_a_second_table_reuses_the_firsts_runs_and_a_finished_one_answers_at_once(reproduced):
    folder, _ = reproduced
    before = trained(folder)
    printed = reproduce(folder, "figure1c", *DEMO)
    assert trained(folder) == before
    assert "epoch" not in printed.split("Figure 1c")[0]


def test_an_epoch_without_a_test_is_planned_to_be_shorter():
    config = ExperimentConfig(model_name="mlp_1x512", dataset="digits", train_subset=10, device="cpu")
    measured: dict[str, tuple[float, float]] = {}
    epochs = [seconds_per_epoch(replace(config, eval_test_every=every), 10, 1, measured) for every in (1, 2, 1000)]
    assert epochs[0] > epochs[1] > epochs[2] > 0
    exact = seconds_per_epoch(replace(config, eval_train_every=1), 10, 1, measured)
    assert exact > epochs[0], "a pass over the training set takes time too"
    seconds_per_epoch(replace(config, randomization="random_signs"), 10, 1, measured)
    assert len(measured) == 2, "random signs, which have no test set, are measured apart"


def test_an_epoch_of_a_run_with_a_long_warm_up_can_be_planned():
    config = ExperimentConfig(model_name="mlp_1x512", dataset="digits", train_subset=10, device="cpu", warmup_epochs=5)
    assert seconds_per_epoch(config, 10, 1, {}) > 0


def test_a_dry_run_lists_what_is_finished_and_trains_nothing(reproduced, tmp_path: Path):
    folder, _ = reproduced
    before = trained(folder)
    printed = reproduce(folder, "table1", *DEMO, "--dry_run", "--seeds", "0", "1")
    assert printed.count("done") == 3
    assert printed.count("0 of 150") == 3
    assert "left in all on this machine" in printed
    assert trained(folder) == before
    reproduce(tmp_path, "table1", *DEMO, "--dry_run")
    assert list(tmp_path.iterdir()) == []


def test_on_a_terminal_the_table_fills_in_under_the_live_line(tmp_path: Path):
    text = on_a_terminal(tmp_path, str(ROOT / "reproduce.py"), "table1", *DEMO, "--at_once", "1")
    first, second, third = text.split("\x1b[?25l")[1:]  # the cursor is hidden while a run goes
    for part, shown in ((first, []), (second, ["true, weight decay"]), (third, ["true, weight decay", "true"])):
        going = re.split(r"\x1b\[\?25h", part)[0]
        assert re.search(r"epoch \d+/150 .*left", going)
        assert set(re.findall(r"mlp_1x512, ([a-z ,]*[a-z])  ", going)) == set(shown)
        assert "50.39%" not in going, "the paper's number beside other images"
    after = third.split("\x1b[?25h")[1]
    assert set(re.findall(r"mlp_1x512, ([a-z ,]*[a-z])  ", after)) == {"true, weight decay", "true", "random"}


@pytest.mark.parametrize("at_once", ["2", "auto"])
def test_runs_side_by_side_leave_the_same_results(reproduced, tmp_path: Path, at_once):
    folder, _ = reproduced
    two = {**os.environ, "OMP_NUM_THREADS": "2"}
    printed = reproduce(tmp_path, "table1", *DEMO, "--at_once", at_once, env=two)
    assert printed.count("finished: ") == 3
    ours, _, _ = tables.read_csv(tmp_path / OUT / "table1.csv")
    before, _, _ = tables.read_csv(folder / OUT / "table1.csv")
    assert [(cell.labels, cell.quantity, cell.runs) for cell in ours] == [
        (cell.labels, cell.quantity, cell.runs) for cell in before
    ]
    for cell, other in zip(ours, before, strict=True):
        assert cell.ours == pytest.approx(other.ours, abs=0.02)


def test_on_a_terminal_runs_side_by_side_share_the_live_line(tmp_path: Path):
    text = on_a_terminal(tmp_path, str(ROOT / "reproduce.py"), "table1", *DEMO, "--at_once", "3")
    (live,) = text.split("\x1b[?25l")[1:]
    going, after = live.split("\x1b[?25h")
    assert re.search(r"3 runs at once  epoch \d+/150 ", going)
    assert re.search(r"mlp_1x512, true", going), "the table fills in while others go on"
    assert set(re.findall(r"mlp_1x512, ([a-z ,]*[a-z])  ", after)) == {"true, weight decay", "true", "random"}


def test_runs_of_train_py_are_found(tmp_path: Path):
    options = ("--model", "mlp_1x512", "--dataset", "digits", "--randomization", "random_labels")
    options += ("--num_epochs", "150", "--lr_decay", "1.0", "--stop_when_fit", "--weight_decay", "default")
    assert forked.run(ROOT / "train.py", *options, cwd=tmp_path).returncode == 0
    before = trained(tmp_path)
    reproduce(tmp_path, "table4", *DEMO)
    assert trained(tmp_path) == before
    assert len(before) == 1


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["kill -9", "SIGTERM"])
def test_an_interrupted_reproduction_continues(tmp_path: Path, number):
    options = (*DEMO, "--precision", "fp32", "--at_once", "1")
    process = forked.start(ROOT / "reproduce.py", "table1", *options, cwd=tmp_path)
    deadline = time.monotonic() + 1200
    while len(list(tmp_path.glob("runs/*/checkpoint.safetensors"))) < 3:  # in the midst of the third run
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(number)
    process.communicate(timeout=1200)
    assert process.returncode == (-number if number == signal.SIGKILL else 128 + number)
    (unfinished,) = [run for run in trained(tmp_path) if not (tmp_path / "runs" / run / "result.json").exists()]
    kept = archive.read(tmp_path / OUT)
    assert len([run for run in kept.values() if run.finished]) == 2
    if number == signal.SIGTERM:
        assert unfinished in kept, "how far it came is kept too"
        cells, _, _ = tables.read_csv(tmp_path / OUT / "table1.csv")
        assert any(cell.note.startswith("after ") for cell in cells)
    printed = reproduce(tmp_path, "table1", *DEMO, "--precision", "fp32")
    assert "going on from epoch" in printed
    cells, _, _ = tables.read_csv(tmp_path / OUT / "table1.csv")
    assert len(cells) == 6
    assert not any(cell.note for cell in cells)


def test_interrupted_runs_side_by_side_all_continue(tmp_path: Path):
    options = (*DEMO, "--precision", "fp32", "--at_once", "3")
    process = forked.start(ROOT / "reproduce.py", "table1", *options, cwd=tmp_path)
    deadline = time.monotonic() + 1200
    while len(list(tmp_path.glob("runs/*/checkpoint.safetensors"))) < 3:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=1200)
    assert process.returncode == 128 + signal.SIGTERM
    assert errors.strip() == "stopped; run the same command again to continue"
    unfinished = [run for run in trained(tmp_path) if not (tmp_path / "runs" / run / "result.json").exists()]
    assert unfinished
    assert set(unfinished) <= archive.read(tmp_path / OUT).keys()
    printed = reproduce(tmp_path, "table1", *options)
    assert printed.count("going on from epoch") == len(unfinished)
    assert not any(cell.note for cell in tables.read_csv(tmp_path / OUT / "table1.csv")[0])


def test_a_failed_run_is_reported_and_does_not_stop_the_others(reproduced, tmp_path: Path):
    folder, _ = reproduced
    cells, _, _ = tables.read_csv(folder / OUT / "table1.csv")
    for name in {run for cell in cells for run in cell.runs}:
        shutil.copytree(folder / "runs" / name, tmp_path / "runs" / name)
    runs = sorted((tmp_path / "runs").iterdir())
    for run in runs:
        (run / "result.json").unlink()
        (run / "checkpoint.safetensors").unlink()  # to be trained anew
        (run / "metrics.jsonl").unlink()
    broken = next(run for run in runs if "random_labels" in run.name)
    (broken / "config.yaml").write_text("format: 999\n")
    printed = reproduce(tmp_path, "table1", *DEMO, status=1)
    assert "failed: mlp_1x512, random_labels, seed 0" in printed
    assert "1 of the runs failed, the others are done" in printed
    assert printed.count("finished: ") == 2
    (broken / "result.json").write_text("{")  # a finished run that cannot be read
    assert "1 of the runs failed" in reproduce(tmp_path, "table1", *DEMO, status=1)
    assert "fails: " in reproduce(tmp_path, "table1", *DEMO, "--dry_run")
    with (tmp_path / OUT / "table1.csv").open() as file:
        assert {row["labels"] for row in csv.DictReader(file)} >= {"true"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["tabel1"], "did you mean 'table1'?"),
        ([], "NAME"),
        (["table1", "--scale", "dmo"], "scale must be one of full, small, demo, not 'dmo'; did you mean 'demo'?"),
        (["table1", "--models", "mlp_3x51"], "did you mean 'mlp_3x512'?"),
        (["table1", "--seeds", "0", "0"], "seeds must be different whole numbers"),
        (["table1", "--seeds", "-1"], "seeds"),
        (["table1", "--sedes", "0"], "unknown option '--sedes'; did you mean '--seeds'?"),
        (["table1", "--precision", "fp16"], "precision must be one of auto, fp32, tf32, bf16"),
        (["table1", "--at_once", "many"], "at_once must be auto or a whole number from 1 on, not 'many'"),
        (["table1", "--at_once", "0"], "at_once must be auto or a whole number"),
        (["table1", "--device", "cpuu"], "device must be one of"),
        (["figure2b", "--scale", "demo"], "figure2b has no run for these models at demo scale"),
        (["table1", "--dataset", "no/such/folder"], "no/such/folder"),
        (["table1", "--dataset", "digits", "--train_subset", "3"], "unknown option '--train_subset'"),
    ],
)
def test_each_mistake_is_a_one_line_error(tmp_path: Path, arguments, said):
    printed = reproduce(tmp_path, *arguments, status=2)
    assert said in printed
    assert len(printed.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_run_beyond_the_data_is_a_mistake_of_the_user(tmp_path: Path):
    """The digits have fewer images than the small scale needs."""
    printed = reproduce(tmp_path, "table1", "--scale", "small", "--dataset", "digits", status=2)
    assert "train_subset must be at most 1442" in printed
    assert not (tmp_path / "reproduced").exists()


def test_a_command_whose_runs_all_fail_says_so_with_its_status(tmp_path: Path):
    (tmp_path / "taken").write_text("a file")
    printed = reproduce(tmp_path, "table4", *DEMO, "--runs_dir", "taken/runs", status=1)
    assert "1 of the runs failed" in printed


def test_unwritable_results_are_reported_before_anything_is_trained(tmp_path: Path):
    (tmp_path / "taken").write_text("a file")
    printed = reproduce(tmp_path, "table1", *DEMO, "--out", "taken/results", status=1)
    assert "cannot write taken/results" in printed
    assert not (tmp_path / "runs").exists()


def test_show_only_trains_nothing(reproduced, tmp_path: Path):
    folder, _ = reproduced
    before = trained(folder)
    printed = reproduce(folder, "table1", *DEMO, "--seeds", "0", "1", "--show_only", "--out", str(tmp_path / "shown"))
    assert trained(folder) == before
    assert "Table 1" in printed
    cells, _, _ = tables.read_csv(tmp_path / "shown" / "table1.csv")
    assert {cell.seeds for cell in cells} == {1}
    assert "no run so far" in reproduce(tmp_path, "table1", *DEMO, "--show_only")


def test_results_outlive_the_run_folders(reproduced, tmp_path: Path):
    """A later command without run folders adds to the earlier results."""
    folder, _ = reproduced
    reproduce(folder, "table1", *DEMO, "--show_only", "--out", str(tmp_path / "kept"))
    first, _, _ = tables.read_csv(tmp_path / "kept" / "table1.csv")
    for option in ("--show_only", "--dry_run", "--seeds=0"):
        printed = reproduce(tmp_path, "table1", *DEMO, option, "--out", "kept")
        assert printed.count("done") == 3 if option == "--dry_run" else "Table 1" in printed
        assert not (tmp_path / "runs").exists(), "trained again what the evidence answers"
    assert tables.read_csv(tmp_path / "kept" / "table1.csv")[0] == first


def test_a_later_command_for_fewer_seeds_keeps_what_there_is(reproduced, tmp_path: Path):
    folder, _ = reproduced
    shutil.copytree(folder / "runs", tmp_path / "runs")
    printed = reproduce(tmp_path, "table4", *DEMO, "--seeds", "0", "1")
    assert printed.count("finished: ") == 1, "seed 0 was trained again"
    (cell,) = tables.read_csv(tmp_path / OUT / "table4.csv")[0]
    runs = [archive.read(tmp_path / OUT)[run].metrics[-1]["exact_train_accuracy"] for run in cell.runs]
    assert (cell.seeds, cell.ours, cell.std) == (
        2,
        pytest.approx(sum(runs) / 2, rel=1e-5),
        pytest.approx(abs(runs[0] - runs[1]) / 2**0.5, rel=1e-3),
    )
    assert "2 seeds" in " ".join(reproduce(tmp_path, "table4", *DEMO).split())
    assert tables.read_csv(tmp_path / OUT / "table4.csv")[0] == [cell]


def test_unfinished_seeds_do_not_count_beside_finished_ones(reproduced):
    folder, _ = reproduced
    kept = archive.read(folder / OUT)
    asked = Reproduction(experiment="table4", scale="demo", models=("mlp_1x512",), seeds=(0, 1))
    (finished,) = asked.answers("table4", kept)
    data = asked.data()
    other = question(resolve(finished.row.with_seed(1), data), data.name, data.fingerprint)
    changed = {"question": other, "finished": False, "metrics": finished.evidence.metrics[:3]}
    begun = replace(
        finished.evidence, run="begun", configuration={**finished.evidence.configuration, "seed": 1}, **changed
    )
    assert asked.answers("table4", kept | {"begun": begun}) == [finished]
    alone = asked.answers("table4", {"begun": begun})
    assert [answer.evidence for answer in alone] == [begun]


def test_evidence_in_another_precision_answers_unless_a_precision_is_given(reproduced, tmp_path: Path):
    folder, _ = reproduced
    reproduce(folder, "table4", *DEMO, "--show_only", "--out", str(tmp_path / "kept"))
    (run,) = archive.read(tmp_path / "kept").values()
    other = {"bf16": "fp32", "fp32": "bf16"}[run.configuration["precision"]]
    assert "0 of 150" in reproduce(tmp_path, "table4", *DEMO, "--dry_run", "--out", "kept", "--precision", other)
    assert "done" in reproduce(tmp_path, "table4", *DEMO, "--dry_run", "--out", "kept")
