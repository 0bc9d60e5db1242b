from __future__ import annotations

import csv
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from rethinking.config import ExperimentConfig
from rethinking.errors import RunError
from rethinking.experiments import archive
from rethinking.experiments.experiment import Evidence
from rethinking.theory import fitting
from rethinking.theory.kernel_machine import KernelMachineConfig
from rethinking.training import train
from rethinking.training.run_dir import RunResult
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    folder = tmp_path_factory.mktemp("runs")
    return train(
        ExperimentConfig(
            model_name="mlp_1x512", dataset="digits", num_epochs=3, runs_dir=str(folder), use_tensorboard=False
        )
    )


def test_evidence_survives_the_way_to_disk_and_back(tmp_path: Path, result: RunResult):
    run = archive.evidence(result)
    archive.add(tmp_path, [run])
    (back,) = archive.read(tmp_path).values()
    assert (back.run, back.question, back.finished) == (run.run, run.question, True)
    assert back.configuration == run.configuration
    assert back.facts == run.facts
    for record, expected in zip(back.metrics, run.metrics, strict=True):
        assert record.keys() == expected.keys()
        for name, value in expected.items():
            assert record[name] == (value if value is None else pytest.approx(value, rel=1e-5)), name


def test_a_row_has_what_a_reader_must_know_and_no_path(tmp_path: Path, result: RunResult):
    archive.add(tmp_path, [archive.evidence(result)])
    with (tmp_path / "runs.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert float(row["final_exact_train_accuracy"]) == pytest.approx(result.final["exact_train_accuracy"], rel=1e-5)
    for name in ("seed", "fingerprint", "precision", "hardware", "torch", "python", "commit", "seconds", "dataset"):
        assert row[name], name
    assert str(result.path.parent) not in (tmp_path / "runs.csv").read_text()


def test_evidence_names_no_folder_of_a_machine(real_root: Path, tmp_path: Path):
    """Neither of the data, nor of labels from a file, nor of a network of one's own."""
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "net.py").write_text(
        "from torch import nn\n"
        "def net(num_classes):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(3072, num_classes))\n"
    )
    (tmp_path / "own" / "labels.csv").write_text("label\n" + "0\n" * 300)
    options = {"dataset": str(real_root / "cifar10"), "labels": str(tmp_path / "own" / "labels.csv"), "num_epochs": 1}
    options |= {"use_tensorboard": False}
    found = train(ExperimentConfig(model_name=f"{tmp_path}/own/net.py:net", runs_dir=str(tmp_path / "runs"), **options))
    assert found.result["data"]["origin"] == str(real_root / "cifar10"), "the run's own folder has it"
    archive.add(tmp_path / "results", [archive.evidence(found)])
    written = (tmp_path / "results" / "runs.csv").read_text()
    assert str(tmp_path) not in written
    assert str(real_root) not in written
    facts = archive.read(tmp_path / "results")[found.path.name].facts
    assert facts["data"]["origin"] == "cifar10"
    assert facts["network"][0].startswith("network: net.py:net, ")
    named = "python train.py --model net.py:net --dataset cifar10 --labels labels.csv --num_epochs 1"
    assert facts["command"] == named
    assert found.result["command"].count(str(tmp_path)) == 2, "the run's own folder has the whole command"


def test_metrics_are_kept_with_six_digits_each_in_its_column(tmp_path: Path, result: RunResult):
    numbers = {
        "learning_rate": 0.0123456789,
        "train_loss": 1.23456789,
        "train_accuracy": 0.234567891,
        "exact_train_accuracy": 0.345678912,
        "test_loss": 4.56789123,
        "test_accuracy": 0.567891234,
        "seconds": 67.8912345,
    }
    record = {"epoch": 1, **numbers, "generalization_gap": 0.5, "images_per_second": 100.0}
    archive.add(tmp_path, [archive.evidence(replace(result, metrics=[record]))])
    (kept,) = archive.read(tmp_path).values()
    assert kept.metrics == (
        {
            "epoch": 1,
            "learning_rate": 0.0123457,
            "train_loss": 1.23457,
            "train_accuracy": 0.234568,
            "exact_train_accuracy": 0.345679,
            "test_loss": 4.56789,
            "test_accuracy": 0.567891,
            "seconds": 67.8912,
        },
    )
    with (tmp_path / "runs.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert (row["final_test_accuracy"], row["final_train_loss"]) == ("0.567891", "1.23457")


def test_a_later_sitting_replaces_a_run_and_keeps_the_others(tmp_path: Path, result: RunResult):
    run = archive.evidence(result)
    begun = Evidence("a", "q", False, run.configuration, run.facts, run.metrics[:1])
    archive.add(tmp_path, [begun, run])
    kept = archive.add(tmp_path, [Evidence("a", "q", True, run.configuration, run.facts, run.metrics)])
    assert set(kept) == {"a", run.run}
    assert (kept["a"].finished, len(kept["a"].metrics)) == (True, 3)
    assert archive.read(tmp_path).keys() == kept.keys()


def test_the_best_answer_is_finished_or_came_furthest(result: RunResult):
    run = archive.evidence(result)

    def made(name: str, finished: bool, epochs: int, asked: str = "q") -> Evidence:
        return Evidence(name, asked, finished, run.configuration, run.facts, run.metrics[:epochs])

    kept = {e.run: e for e in (made("a", False, 2), made("b", False, 3), made("c", True, 1), made("d", True, 3, "x"))}
    assert archive.best_answer(kept, "q") == kept["c"]
    del kept["c"]
    assert archive.best_answer(kept, "q") == kept["b"]
    assert archive.best_answer(kept, "other") is None


def test_several_processes_may_add_at_once(tmp_path: Path, result: RunResult):
    code = (
        "import sys; from dataclasses import replace; from pathlib import Path\n"
        "from rethinking.experiments import archive\n"
        "run = archive.of_run_folder(Path(sys.argv[2]))\n"
        "for i in range(5): archive.add(Path(sys.argv[1]), [replace(run, run=f'{sys.argv[3]}-{i}')])"
    )
    command = [sys.executable, "-c", code, str(tmp_path), str(result.path)]
    processes = [subprocess.Popen([*command, name], cwd=ROOT) for name in "abc"]
    assert [process.wait(timeout=1200) for process in processes] == [0, 0, 0]
    assert len(archive.read(tmp_path)) == 15


def test_a_run_is_kept_by_its_folder(tmp_path: Path, result: RunResult):
    options = KernelMachineConfig(dataset="digits", device="cpu", train_subset=100, runs_dir=str(tmp_path / "runs"))
    machine = fitting.fit(options)
    command = [sys.executable, "-m", "rethinking", "keep", str(tmp_path / "kept")]
    subprocess.run([*command, str(result.path), str(machine.path)], check=True, timeout=1200)
    kept = archive.read(tmp_path / "kept")
    assert set(kept) == {result.path.name, machine.path.name}
    assert kept[machine.path.name] == archive.evidence(machine)
    (machine.path / "result.json").unlink()
    with pytest.raises(RunError, match="is not finished yet"):
        archive.of_run_folder(machine.path)
    for wrong, said in (([], "keep takes a folder of results and run folders"), (["nowhere"], "cannot read nowhere")):
        refused = subprocess.run([*command, *wrong], capture_output=True, text=True, timeout=1200, check=False)
        assert refused.returncode == 2
        (line,) = refused.stderr.splitlines()
        assert said in line


@pytest.mark.parametrize("damage", ["no,such,columns\n1,2,3\n", "run,epoch\n"])
def test_damaged_evidence_is_reported_in_one_line(tmp_path: Path, result: RunResult, damage):
    archive.add(tmp_path, [archive.evidence(result)])
    (tmp_path / "epochs.csv").write_text(damage)
    with pytest.raises(RunError, match="is damaged or of another version") as caught:
        archive.read(tmp_path)
    assert "\n" not in str(caught.value)
