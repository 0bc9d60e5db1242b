"""Several reproductions share their folders: each run is trained once, and all see all results."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from rethinking.errors import BusyError
from rethinking.experiments import archive
from rethinking.experiments.reproduction import Reproduction
from rethinking.report import tables
from rethinking.theory.run import run_dir as theory_run_dir
from rethinking.training import train
from rethinking.training.preparation import PlannedRun
from rethinking.training.run_dir import RunDir
from tests import forked
from tests.conftest import DEMO, OUT, ROOT, reproduce


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(ROOT / "reproduce.py"), *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_three_reproductions_at_once_finish_the_list_once(tmp_path: Path):
    words = ("table1", *DEMO, "--precision", "fp32", "--at_once", "1")
    processes = [forked.start(ROOT / "reproduce.py", *words, cwd=tmp_path) for _ in range(3)]
    printed = ["".join(process.communicate()) for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], printed
    events = [file.parent.parent for file in tmp_path.glob("runs/*/tensorboard/*")]
    assert len(events) == len({*events}) == 3, "each was trained by one of them"
    for text in printed:
        assert text.count("finished: ") == 3
        assert "failed" not in text
    kept = archive.read(tmp_path / OUT)
    assert {run.finished for run in kept.values()} == {True}
    cells, _, _ = tables.read_csv(tmp_path / OUT / "table1.csv")
    assert {run for cell in cells for run in cell.runs} == kept.keys()
    assert (tmp_path / OUT / "report.html").exists()
    assert not [*tmp_path.rglob("*.tmp"), *tmp_path.rglob(".evidence.json")]


def only_run(reproduction: Reproduction) -> RunDir:
    (config,) = reproduction.configs()
    return PlannedRun.of(config).folder  # type: ignore[arg-type]


def test_a_run_of_another_process_is_left_or_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    folder = only_run(Reproduction(experiment="table4", scale="demo", models=("mlp_1x512",)))
    with folder.lock():
        printed = reproduce(tmp_path, "table4", *DEMO, "--no_wait", status=1)
        assert "another process is at work on: mlp_1x512, random_labels, weight_decay, seed 0" in printed
        assert "error: other processes are at work on 1 of the runs" in printed
        assert "failed" not in printed
        process = start(tmp_path, "table4", *DEMO)
        assert process.stdout is not None
        before = []
        for line in process.stdout:
            before.append(line)
            if line.startswith("waiting for runs that other processes are at work on: 1"):
                break
    after, _ = process.communicate(timeout=1200)
    assert process.returncode == 0, "".join(before) + after
    assert "finished: mlp_1x512, random_labels" in after, "its process left it, so that it was trained here"


def test_a_measurement_of_a_run_at_work_is_done_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Another process trains the network in the first pass and measures in the second; in the third all is finished."""
    options = {"experiment": "stability", "scale": "demo", "models": ("mlp_1x512",), "runs_dir": str(tmp_path)}
    asked = Reproduction(**options)  # type: ignore[arg-type]
    theory = asked.configs()[-1]
    data = asked.data()
    own = theory_run_dir(theory.resolved(data), data)  # type: ignore[union-attr]
    networks = [PlannedRun.of(config).folder for config in theory.networks()]  # type: ignore[union-attr]
    monkeypatch.setattr(Reproduction, "configs", lambda self: [theory])
    held = [networks[0].lock(), own.lock()]
    pauses = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if held:
            held.pop(0).__exit__(None, None, None)

    for lock in held:
        lock.__enter__()
    monkeypatch.setattr("rethinking.engines.here.time", SimpleNamespace(sleep=pause))
    ((config, outcome),) = [*asked.train({})]
    assert config == theory
    assert not isinstance(outcome, Exception)
    assert len(pauses) == 2


def test_a_run_that_another_process_finished_is_not_done_again(tmp_path: Path):
    asked = Reproduction(experiment="table4", scale="demo", models=("mlp_1x512",), runs_dir=str(tmp_path), no_wait=True)
    folder = only_run(asked)
    with folder.lock():
        ((_, outcome),) = asked.train({})
        assert isinstance(outcome, BusyError)
        with pytest.raises(BusyError, match="is being trained by another process: wait for it to end"):
            train(asked.configs()[0])  # type: ignore[arg-type]


def test_evidence_with_more_epochs_stays(tmp_path: Path):
    """One process read a run before another finished it, and writes its evidence later."""
    run = next(run for run in archive.read(ROOT / "results/digits-demo").values() if run.is_of_network)
    archive.add(tmp_path, [run])
    kept = archive.add(tmp_path, [replace(run, finished=False, metrics=run.metrics[:1])])
    assert kept == archive.read(tmp_path) == {run.run: run}
