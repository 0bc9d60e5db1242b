"""Interruptions of real processes: kill -9, SIGTERM, Ctrl-C, a full disk, damaged files."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import safetensors
import safetensors.torch
import torch

from tests import forked
from tests.conftest import ROOT, few_digits

TIMINGS = ("images_per_second", "seconds")


def options(runs: Path, **changed: object) -> list[str]:
    chosen = {
        "model": "mlp_3x512",
        "dataset": "digits",
        "randomization": "random_labels",
        "num_epochs": 25,
        "precision": "fp32",
        "device": "cpu",
        "runs_dir": runs,
        **changed,
    }
    return [part for name, value in chosen.items() for part in (f"--{name}", str(value))] + [
        "--keep_test_losses",
        "--record_examples",
        "--record_test_examples",
    ]


def start(arguments: list[str], **kwargs: object) -> forked.Started:
    return forked.start(ROOT / "train.py", *arguments, **kwargs)  # type: ignore[arg-type]


def finish(arguments: list[str], **kwargs: object) -> "subprocess.CompletedProcess[str]":
    return forked.run(ROOT / "train.py", *arguments, **kwargs)  # type: ignore[arg-type]


def only_run(runs: Path) -> Path:
    (run,) = runs.iterdir()
    return run


def saved_epoch(runs: Path) -> int:
    """Returns the epoch of the checkpoint, which is written after its metrics; 0 without a checkpoint."""
    for file in runs.glob("*/checkpoint.safetensors"):
        with safetensors.safe_open(file, framework="pt") as opened:
            return int(opened.metadata()["epoch"])
    return 0


def wait_for_epoch(runs: Path, epoch: int, process: "forked.Started | subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 1200
    while saved_epoch(runs) < epoch:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.002)


def outcome(run: Path) -> tuple[list[dict[str, object]], dict[str, torch.Tensor]]:
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for record in records:
        for name in TIMINGS:
            del record[name]
    return records, safetensors.torch.load_file(run / "checkpoint.safetensors")


def examples_of(run: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (run / "examples").iterdir()}


def assert_same_bits(run: Path, other: Path) -> None:
    (metrics, tensors), (other_metrics, other_tensors) = outcome(run), outcome(other)
    assert metrics == other_metrics
    assert tensors.keys() == other_tensors.keys()
    for name, tensor in tensors.items():
        assert torch.equal(tensor, other_tensors[name]), name
    assert len(examples_of(run)) == 8
    assert examples_of(run) == examples_of(other)


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"optimizer": "adamw", "lr": 0.001, "weight_decay": 0.01, "warmup_epochs": 2},
        {"model": "small_inception", "train_subset": 70, "batch_size": 32, "num_epochs": 4},
        {"model": "small_alexnet", "train_subset": 300, "num_epochs": 8, "lr_schedule": "cosine"},
    ],
    ids=["mlp", "adamw", "inception", "alexnet"],
)
def test_kill_9_and_the_same_command_equal_an_uninterrupted_run_bit_for_bit(tmp_path: Path, changed):
    env = {**os.environ, "OMP_NUM_THREADS": "2"}  # as many as divide a sum
    if "train_subset" in changed:
        changed = {**changed, "dataset": few_digits(changed["train_subset"])}
    straight = finish(options(tmp_path / "straight", **changed), env=env)
    assert straight.returncode == 0, straight.stderr
    process = start(options(tmp_path / "killed", **changed), env=env)
    wait_for_epoch(tmp_path / "killed", 1, process)
    process.kill()
    process.communicate()
    run = only_run(tmp_path / "killed")
    assert not (run / "result.json").exists()
    epoch = saved_epoch(tmp_path / "killed")
    resumed = finish(options(tmp_path / "killed", **changed), env=env)
    assert resumed.returncode == 0, resumed.stderr
    assert f"going on from epoch {epoch + 1}" in resumed.stdout
    assert_same_bits(only_run(tmp_path / "straight"), run)


def test_kill_9_and_the_same_command_equal_an_uninterrupted_run_with_augmentation(tmp_path: Path):
    command = [*options(tmp_path / "straight", num_epochs=12), "--random_crop", "--augment_flip_rotate"]
    assert finish(command).returncode == 0
    command = [*options(tmp_path / "killed", num_epochs=12), "--random_crop", "--augment_flip_rotate"]
    process = start(command)
    wait_for_epoch(tmp_path / "killed", 2, process)
    process.kill()
    process.communicate()
    assert "going on from epoch" in finish(command).stdout
    assert_same_bits(only_run(tmp_path / "straight"), only_run(tmp_path / "killed"))


def test_a_run_survives_kills_at_any_moment(tmp_path: Path):
    """Kills at different times hit start, training and writing; each costs at most one epoch."""
    assert finish(options(tmp_path / "straight", model="mlp_1x512", num_epochs=80)).returncode == 0
    command = options(tmp_path / "killed", model="mlp_1x512", num_epochs=80)
    python = [sys.executable, str(ROOT / "train.py"), *command]
    for attempt in (0, 3, 8, 9):
        before = saved_epoch(tmp_path / "killed")
        process = subprocess.Popen(python, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        if attempt % 2:
            wait_for_epoch(tmp_path / "killed", before + 1, process)
            time.sleep(0.011 * attempt)
        else:
            time.sleep(0.3 * attempt)  # from before the imports to well into training
        process.kill()
        process.wait()
        assert saved_epoch(tmp_path / "killed") >= before
    assert finish(command).returncode == 0
    assert_same_bits(only_run(tmp_path / "straight"), only_run(tmp_path / "killed"))
    assert not list(only_run(tmp_path / "killed").glob("*.tmp"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_interruption_says_how_to_continue(tmp_path: Path, number):
    command = options(tmp_path, num_epochs=1000)
    process = start(command)
    wait_for_epoch(tmp_path, 2, process)
    process.send_signal(number)
    _, errors = process.communicate(timeout=1200)
    assert process.returncode == 128 + number
    assert errors.strip() == "stopped; run the same command again to continue"
    before = saved_epoch(tmp_path)
    process = start(command)
    wait_for_epoch(tmp_path, before + 1, process)
    process.kill()
    output, _ = process.communicate()
    assert f"going on from epoch {before + 1}" in output


def test_two_processes_cannot_train_the_same_run_at_once(tmp_path: Path):
    command = options(tmp_path, num_epochs=1000)
    process = start(command)
    wait_for_epoch(tmp_path, 1, process)
    second = finish(command)
    process.kill()
    process.communicate()
    assert second.returncode == 1
    assert "is being trained by another process" in second.stderr
    assert len(second.stderr.splitlines()) == 1


def test_a_full_disk_is_a_one_line_error_and_saved_epochs_stay(tmp_path: Path):
    command = options(tmp_path, num_epochs=30)
    process = start(command)
    wait_for_epoch(tmp_path, 1, process)
    process.kill()
    process.communicate()
    saved = (only_run(tmp_path) / "checkpoint.safetensors").read_bytes()
    full = start(command, file_size=4_000_000)  # between metrics and a checkpoint
    _, errors = full.communicate(timeout=1200)
    assert full.returncode == 1
    (line,) = errors.splitlines()
    assert line.startswith("error: cannot write")
    assert "checkpoint.safetensors" in line
    assert "the same command continues" in line
    assert (only_run(tmp_path) / "checkpoint.safetensors").read_bytes() == saved
    assert not list(only_run(tmp_path).glob("*.tmp"))
    again = finish(command)
    assert again.returncode == 0
    assert "going on from epoch" in again.stdout


def test_a_run_folder_that_cannot_be_created_is_a_one_line_error(tmp_path: Path):
    (tmp_path / "file").write_text("in the way")
    refused = finish(options(tmp_path / "file/runs"))
    assert refused.returncode == 1
    (line,) = refused.stderr.splitlines()
    assert line.startswith("error: cannot write")


def test_a_disk_that_is_full_from_the_start_leaves_no_folder(tmp_path: Path):
    assert finish(options(tmp_path / "other", num_epochs=1)).returncode == 0  # the digits are decoded
    full = finish(options(tmp_path / "runs"), file_size=9000)
    assert full.returncode == 1
    (line,) = full.stderr.splitlines()
    assert "randomization.safetensors" in line
    assert list((tmp_path / "runs").iterdir()) == []


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = tmp_path_factory.mktemp("killed")
    process = start(options(runs, num_epochs=1000))
    wait_for_epoch(runs, 2, process)
    process.kill()
    process.communicate()
    return only_run(runs)


@pytest.fixture
def interrupted(killed: Path, tmp_path: Path) -> Path:
    """A separate copy for each test."""
    return shutil.copytree(killed, tmp_path / killed.name)


def damage_checkpoint_end(run: Path) -> None:
    content = bytearray((run / "checkpoint.safetensors").read_bytes())
    content[-5] ^= 0xFF
    (run / "checkpoint.safetensors").write_bytes(content)


def truncate_checkpoint(run: Path) -> None:
    content = (run / "checkpoint.safetensors").read_bytes()
    (run / "checkpoint.safetensors").write_bytes(content[: len(content) // 2])


def lose_checkpoint(run: Path) -> None:
    (run / "checkpoint.safetensors").unlink()


def checkpoint_without_its_epoch(run: Path) -> None:
    with safetensors.safe_open(run / "checkpoint.safetensors", framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata = {"crc32": file.metadata()["crc32"]}
    safetensors.torch.save_file(tensors, run / "checkpoint.safetensors", metadata)


def metrics_of_another_version(run: Path) -> None:
    first, *others = (run / "metrics.jsonl").read_text().splitlines()
    assert json.loads(first)["epoch"] == 1
    (run / "metrics.jsonl").write_text("\n".join(['{"epoch": 1}', *others]))


def empty_metrics(run: Path) -> None:
    (run / "metrics.jsonl").write_text("")


def break_yaml(run: Path) -> None:
    (run / "config.yaml").write_text("model: [")


def other_version(run: Path) -> None:
    text = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(text.replace("format: 1", "format: 7"))


def edit_yaml(run: Path) -> None:
    text = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(text.replace("momentum: 0.9", "momentum: 0.5"))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_checkpoint_end, "checkpoint.safetensors is damaged"),
        (truncate_checkpoint, "checkpoint.safetensors is damaged"),
        (lose_checkpoint, "checkpoint.safetensors is damaged or missing"),
        (checkpoint_without_its_epoch, "checkpoint.safetensors is damaged"),
        (metrics_of_another_version, "metrics.jsonl is damaged"),
        (empty_metrics, "metrics.jsonl is damaged"),
        (break_yaml, "config.yaml is not a YAML file"),
        (other_version, "has format 7 and this version reads 1"),
        (edit_yaml, "config.yaml was changed since the run began"),
    ],
)
def test_a_damaged_run_is_reported_and_not_changed(interrupted: Path, damage, message):
    damage(interrupted)
    files = {file.name: file.read_bytes() for file in interrupted.iterdir() if file.is_file()}
    refused = finish(options(interrupted.parent, num_epochs=1000))
    assert refused.returncode == 1
    (line,) = refused.stderr.splitlines()
    assert message in line
    assert {file.name: file.read_bytes() for file in interrupted.iterdir() if file.is_file()} == files


def break_result(run: Path) -> None:
    (run / "result.json").write_text("{")


def cut_result(run: Path) -> None:
    (run / "result.json").write_text('{"final": {"epoch": 1}}')


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = tmp_path_factory.mktemp("ended")
    assert finish(options(runs, num_epochs=1)).returncode == 0
    return only_run(runs)


@pytest.fixture
def finished(ended: Path, tmp_path: Path) -> Path:
    """A separate copy for each test."""
    return shutil.copytree(ended, tmp_path / ended.name)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (break_result, "result.json is damaged: delete that file"),
        (cut_result, "result.json is damaged: delete that file"),
        (metrics_of_another_version, "metrics.jsonl is damaged"),
        (empty_metrics, "metrics.jsonl is damaged"),
        (other_version, "has format 7 and this version reads 1"),
        (edit_yaml, "config.yaml was changed since the run began"),
    ],
)
def test_a_damaged_finished_run_is_reported(finished: Path, damage, message):
    damage(finished)
    refused = finish(options(finished.parent, num_epochs=1))
    assert refused.returncode == 1
    assert message in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
