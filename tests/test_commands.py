"""The brief's command lines, verbatim, on a small subset of real images (of a repeated option the last counts)."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT, on_a_terminal, shared

COMMANDS = """
python train.py --model small_inception --dataset cifar10
python train.py --model small_inception --randomization random_labels
python train.py --model small_inception --weight_decay 0.0005 --random_crop
python train.py --augment_flip_rotate
python train.py --model small_inception_no_bn --dataset cifar10
python train.py --randomization partial_corrupt --corruption_prob 0.5
python train.py --randomization shuffled_pixels
python train.py --randomization random_pixels
python train.py --randomization gaussian_pixels
python train.py --model small_inception --randomization random_labels --augment_flip_rotate
python train.py --use_wandb --wandb_project zhang-generalization
python train.py --lr_schedule step
python train.py --lr_schedule cosine
python train.py --model small_inception --dataset cifar10 --batch_size 128 --num_epochs 100 --lr 0.01 --momentum 0.9 \
--optimizer sgd --use_wandb --wandb_project zhang-replication
""".strip().splitlines()


@pytest.mark.parametrize("command", COMMANDS)
def test_the_briefs_command_lines_work_as_written(command, real_root: Path, tmp_path: Path, train_command):
    words = command.split()[2:]
    ran = train_command(*words, "--data_root", str(real_root), "--train_subset", "40", "--num_epochs", "1")
    assert ran.returncode == 0, ran.stderr
    (run,) = (tmp_path / "runs").iterdir()
    result = json.loads((run / "result.json").read_text())
    assert result["final"]["epoch"] == 1
    assert result["parameters"] == 1_649_402
    assert list((run / "tensorboard").iterdir())
    written = yaml.safe_load((run / "config.yaml").read_text())
    names = {"model": "model_name", "lr": "learning_rate"}
    for flag, value in re.findall(r"--(\w+)(?: ([^-\s]\S*))?", command):
        if flag != "num_epochs":
            assert written[names.get(flag, flag)] == (yaml.safe_load(value) if value else True), flag
    if "--use_wandb" in words:
        assert list((run / "wandb").glob("offline-run-*"))


def test_the_papers_rate_trains_without_batch_normalization(real_root: Path, tmp_path: Path, train_command):
    """It takes a few steps more than the test above; with other initial weights the loss would overflow by then."""
    few = ["--data_root", str(real_root), "--train_subset", "64", "--num_epochs", "5", "--precision", "fp32"]
    few += ["--eval_test_every", "5", "--batch_size", "32"]
    ran = train_command("--model", "small_inception_no_bn", "--dataset", "cifar10", *few)
    assert ran.returncode == 0, ran.stderr
    assert train_command("--model", "small_inception_no_bn", *few, "--init", "he").returncode == 1


@pytest.mark.parametrize(
    "model", ["mlp_1x512", "mlp_3x512", "small_alexnet", "small_inception", "small_inception_no_bn"]
)
def test_every_model_trains_on_mnist(model, real_root: Path, tmp_path: Path, train_command):
    arguments = ["--model", model, "--dataset", "mnist", "--data_root", str(real_root), "--random_crop"]
    ran = train_command(*arguments, "--num_epochs", "1", "--train_subset", "130")
    assert ran.returncode == 0, ran.stderr


def test_a_real_data_set_by_its_path_is_shown_by_its_folders_name(tmp_path: Path, train_command):
    folder = shared("cifar10_first4000")
    ran = train_command("--model", "mlp_1x512", "--dataset", str(folder), "--num_epochs", "1")
    assert ran.returncode == 0, ran.stderr
    (run,) = (tmp_path / "runs").iterdir()
    assert run.name.startswith("mlp_1x512-cifar10_first4000-none-seed0-")
    assert json.loads((run / "result.json").read_text())["dataset"] == "cifar10_first4000"
    assert "cifar10_first4000" in ran.stdout


def test_an_unreachable_hub_is_a_one_line_error_with_status_2(tmp_path: Path, train_command):
    environment = {**os.environ, "HF_ENDPOINT": "http://127.0.0.1:9"}
    ran = train_command("--model", "small_inception", "--dataset", "cifar10", env=environment)
    assert ran.returncode == 2
    (line,) = [line for line in ran.stderr.splitlines() if line]
    assert "the Hub is out of reach" in line
    assert not (tmp_path / "runs").exists()


def test_on_a_terminal_there_is_one_live_line(tmp_path: Path):
    arguments = ["--model", "mlp_1x512", "--dataset", "digits", "--num_epochs", "150"]
    text = on_a_terminal(tmp_path, str(ROOT / "train.py"), *arguments)
    assert re.search(r"epoch \d+/150 .*left", text)
    assert "\x1b[2K" in text, "the line is redrawn in place"
    assert "\x1b[1A" not in text.split("\x1b[?25h")[0], "the line is longer than the terminal is wide"
    assert "test accuracy" in text


def test_without_a_terminal_there_are_plain_lines(train_command):
    ran = train_command("--model", "mlp_1x512", "--dataset", "digits", "--num_epochs", "3")
    lines = [line for line in ran.stdout.splitlines() if line.startswith("epoch ")]
    assert [line.split()[1] for line in lines] == ["1/3", "2/3", "3/3"]
    for words in ("loss", "train", "test", "images/s"):
        assert all(words in line for line in lines)
    assert "\x1b" not in ran.stdout


def test_a_finished_run_answers_with_its_summary(real_root: Path, train_command):
    ran = train_command("--model", "mlp_1x512", "--randomization", "random_labels", "--data_root", str(real_root),
                        "--num_epochs", "1")  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert "training accuracy" in ran.stdout
    assert "online, corrupted labels" in ran.stdout
    finished = train_command("--model", "mlp_1x512", "--randomization", "random_labels", "--data_root", str(real_root),
                             "--num_epochs", "1")  # fmt: skip
    # The data is described first, then a run that is trained shows its progress, and both end with the summary.
    assert {*finished.stdout.splitlines()} <= {*ran.stdout.splitlines()}, "the same description and summary"
    assert "epoch 1/1" not in finished.stdout, "a finished run was trained again"


@pytest.mark.parametrize("command", ["test_zhang_models.py", "test_data_pipeline.py"])
def test_the_briefs_test_commands_run_their_part_of_the_tests(command):
    ran = subprocess.run(
        [sys.executable, str(ROOT / command), "--collect-only", "-q"], cwd=ROOT, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stdout
    part = {"test_zhang_models.py": "tests/models/", "test_data_pipeline.py": "tests/data/"}[command]
    collected = [line for line in ran.stdout.splitlines() if "::" in line]
    assert len(collected) > 30
    assert all(line.startswith(part) for line in collected)


def test_the_demo_shows_that_random_labels_are_fitted_too(tmp_path: Path):
    ran = subprocess.run([sys.executable, "-m", "rethinking", "demo"], cwd=tmp_path, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    rows = {
        name: [float(value) for value in re.findall(r"([\d.]+)%", line)]
        for line in ran.stdout.splitlines()
        for name in ("true labels", "random labels")
        if line.strip().startswith(name)
    }
    (true_train, true_test, _), (random_train, random_test, gap) = rows["true labels"], rows["random labels"]
    assert true_train == random_train == 100
    assert true_test > 95
    assert random_test < 20
    assert gap == pytest.approx(100 - random_test, abs=0.01)
    assert "mlp_3x512 fits random labels: the training accuracy is 100.00%" in " ".join(ran.stdout.split())
    assert (tmp_path / "tested/mlp_3x512-digits/test.png").stat().st_size > 10_000
