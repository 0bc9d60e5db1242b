"""`rethinking test` on the command line."""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

from rethinking.experiments import archive
from rethinking.instrument.battery import asked_for
from rethinking.instrument.run import carry_out, prepare
from rethinking.runs import load_run
from rethinking.training.preparation import PlannedRun
from rethinking.training.run_dir import RunDir
from tests import forked
from tests.conftest import ROOT
from tests.instrument.cases import pictures

NETWORK = """
from torch import nn

def net(num_classes, input_shape, width=128, dropout=0.0):
    size = input_shape[0] * input_shape[1] * input_shape[2]
    layers = nn.Flatten(), nn.Linear(size, width), nn.ReLU(), nn.Dropout(dropout), nn.Linear(width, num_classes)
    return nn.Sequential(*layers)
"""
OPTIONS = ("--lr", "0.1", "--batch_size", "32", "--precision", "fp32", "--no_use_tensorboard")
PROGRAM = ROOT / "src/rethinking/__main__.py"
QUARTERS = ("net.py:net", "--dataset", "quarters.npz", *OPTIONS)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "net.py").write_text(NETWORK)
    (x_train, y_train), (x_test, y_test) = pictures(60), pictures(40, seed=1)
    np.savez(tmp_path / "quarters.npz", x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)
    return tmp_path


def ask(folder: Path, *words: str, status: int = 0, file_size: int | None = None) -> str:
    """Runs `rethinking test`, and returns what it prints; for a failure the one line on standard error."""
    done = forked.run(PROGRAM, "test", *words, cwd=folder, file_size=file_size)
    assert done.returncode == status, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    if status:
        (line,) = [line for line in done.stderr.splitlines() if line]
        assert line.startswith("error: ")
        return line
    return done.stdout


def metrics(folder: Path) -> dict[str, bytes]:
    return {path.parent.name: path.read_bytes() for path in (folder / "runs").glob("*/metrics.jsonl")}


def reported_in(folder: Path) -> Path:
    """Returns the only report folder."""
    (found,) = (folder / "tested").iterdir()
    return found


def left(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.startswith(".")}


def on_one_line(printed: str) -> str:
    return " ".join(printed.split())


def test_other_options_have_another_report_folder_and_a_larger_budget_has_the_same(folder: Path):
    ask(folder, *QUARTERS, "--epochs", "1", "--labels", "true")
    first = reported_in(folder)
    before = left(first)
    ask(folder, *QUARTERS, "--epochs", "1", "--labels", "true", "--budget", "5m")
    assert reported_in(folder) == first
    ask(folder, *QUARTERS, "--epochs", "1", "--labels", "random")
    assert len(list((folder / "tested").iterdir())) == 2
    assert left(first).keys() == before.keys()


# What it prints, and asking again


def test_data_choices_and_time_are_printed_before_training_and_the_verdict_after_it(folder: Path):
    printed = ask(folder, *QUARTERS)
    order = [
        "60 training and 40 test images, 4 classes",
        "The optimizer is sgd with momentum 0.9. A batch has 32 images.",
        "The learning rate is 0.1: as given.",
        "Each run ends when it fits all training images, or after 1,000 epochs.",
        "All runs together train for at most 10m.",
        "Explicit regularization: none.",
        "To train: 2 of 2 runs, about",
        "epoch 1/1000",
        "Randomization test of net on quarters",
        "- net fits random labels: the training accuracy is 100.00% on 60 images,",
        "All numbers come from one seed,",
        "written to tested/net-quarters-",
    ]
    text = on_one_line(printed)
    places = [text.index(words) for words in order]
    assert places == sorted(places)
    assert len(metrics(folder)) == 2


def test_a_second_command_trains_nothing_and_writes_the_same_report(folder: Path):
    ask(folder, *QUARTERS)
    trained, reported = metrics(folder), left(reported_in(folder))
    printed = ask(folder, *QUARTERS)
    assert not re.search(r"epoch \d+/", printed)
    assert "To train" not in printed
    assert (metrics(folder), left(reported_in(folder))) == (trained, reported)


def test_a_spent_budget_stays_spent_and_a_larger_budget_continues_the_same_runs(folder: Path):
    hard = (*QUARTERS, "--labels", "random", "0.5")
    first = ask(folder, *hard, "--budget", "0.001")
    short = metrics(folder)
    assert all(len(lines.splitlines()) == 1 for lines in short.values())
    assert "Training was short: 1 epoch." in on_one_line(first)
    assert "next: rethinking test net.py:net --labels random 0.5 --budget 1s --lr 0.1 --dataset quarters.npz" in first
    again = ask(folder, *hard, "--budget", "0.001")
    assert "To train" not in again
    assert metrics(folder) == short
    ask(folder, *hard, "--budget", "none")
    long = metrics(folder)
    assert long.keys() == short.keys()
    assert all(long[run].startswith(short[run]) and len(long[run]) > len(short[run]) for run in short)
    assert all(load_run(path).finished for path in (folder / "runs").glob("net-*"))


def test_epochs_seeds_labels_and_pixels_make_the_runs(folder: Path):
    words = ("--epochs", "2", "--seeds", "0", "1", "--labels", "true", "0.5", "--pixels", "shuffled", "gaussian")
    printed = ask(folder, *QUARTERS, *words)
    runs = [load_run(path) for path in (folder / "runs").iterdir() if path.name.startswith("net")]
    asked = {(run.config.randomization, run.config.corruption_prob, run.config.seed) for run in runs}
    of_seed = [("none", None), ("partial_corrupt", 0.5), ("shuffled_pixels", None), ("gaussian_pixels", None)]
    assert asked == {(*one, seed) for one in of_seed for seed in (0, 1)}
    assert len(runs) == 8
    assert all(len(run.metrics) == 2 and run.config.learning_rate == 0.1 for run in runs)
    for row in ("true labels", "labels random", "shuffled pixels", "Gaussian pixels"):
        assert re.search(rf"^ {row}.*±", printed, re.MULTILINE), row
    assert "All numbers come from 2 seeds," in printed
    half = [RunDir(run.path).labels() for run in runs if run.config.corruption_prob == 0.5]
    assert not torch.equal(*half), "each seed has labels of its own"


def test_the_rate_of_an_own_network_is_found_and_printed(folder: Path):
    words = [word for word in QUARTERS if word not in ("--lr", "0.1")]
    printed = on_one_line(ask(folder, *words, "--epochs", "1"))
    found = re.search(
        r"The learning rate is ([\d.e-]+): one step below ([\d.e-]+), the best rate of a range test", printed
    )
    assert found is not None, printed
    assert float(found[1]) == pytest.approx(float(found[2]) / 3, rel=0.15)
    assert len(list((folder / "runs/.rates").iterdir())) == 1


def test_a_loss_that_is_not_finite_is_a_verdict_and_not_a_failure(folder: Path):
    words = ["1e30" if word == "0.1" else word for word in QUARTERS]
    printed = on_one_line(ask(folder, *words))
    assert "To train: 2 of 2 runs, at most 10m 00s." in printed
    assert "- Training on true labels diverged at learning rate 1e+30: the loss is not finite in epoch 1" in printed
    assert "next: rethinking test net.py:net --dataset" in printed, "a range test"
    again = on_one_line(ask(folder, *words))
    assert "To train" not in again
    assert again[again.index("- Training on") :] == printed[printed.index("- Training on") :]


# The data


def test_mixed_photographs_are_made_alike_and_a_test_set_is_held_out(folder: Path):
    random = np.random.default_rng(0)
    modes = {"RGB": 3, "RGBA": 4, "L": 1}
    for number in range(24):
        mode = [*modes][number % 3]
        of_class = folder / "photos" / ("cats", "dogs")[number % 2]
        of_class.mkdir(parents=True, exist_ok=True)
        pixels = random.integers(0, 255, (30 + number, 45, modes[mode]), dtype=np.uint8).squeeze()
        Image.fromarray(pixels, mode).save(of_class / f"{number}.png")
    printed = on_one_line(ask(folder, "net.py:net", "--dataset", "photos", *OPTIONS, "--epochs", "1"))
    assert "The images are read with --resize 64 --colour rgb." in printed
    assert "A share of 0.2 of each class is held out as the test set (--holdout)." in printed
    (true, *_) = [load_run(path) for path in sorted((folder / "runs").iterdir())]
    assert true.result["data"]["image_shape"] == [3, 64, 64]
    assert (true.result["train_images"], true.result["data"]["test_images"]) == (20, 4)
    chosen = on_one_line(
        ask(folder, "net.py:net", "--dataset", "photos", *OPTIONS, "--epochs", "1", "--resize", "32", "--holdout", "0")
    )
    assert "read with --colour rgb." in chosen
    assert "held out" not in chosen
    assert "no test set" in chosen


# What goes wrong


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("net.py:net --lr_schedule cosine", "lr_schedule cosine needs the number of epochs: give --epochs"),
        ("net.py:net --budgt 5m", "unknown option '--budgt'; did you mean '--budget'?"),
        ("net.py:net --lr_shedule step", "unknown option '--lr_shedule'; did you mean '--lr_schedule'?"),
        ("mlp_1x51 --dataset digits", "'mlp_1x51'; did you mean 'mlp_1x512'?"),
        ("nothing.py:net", "there is no file nothing.py"),
        ("net.py:nett", "net.py has no 'nett'; did you mean 'net'?"),
        ("net.py:net --labels randm", "labels must be true, random, a probability such as 0.5 or FILE.py:CLASS, not"),
        ("net.py:net --labels 1.5", "labels must be a probability from 0 to 1, not 1.5"),
        ("net.py:net --labels random 1", "'random' is given twice"),
        ("net.py:net --pixels shufled", "did you mean 'shuffled'?"),
        ("net.py:net --seeds 0 0", "seeds must be different whole numbers from 0 on"),
        ("net.py:net --seeds one", "--seeds takes SEED ..., not 'one'"),
        ("net.py:net --epochs 0", "epochs must be a whole number from 1 on, not 0"),
        ("net.py:net --budget 10x", "budget must be a time such as 90s, 10m or 1h30m, or none, not '10x'"),
        ("net.py:net --lr fast", "lr must be auto or a number, not 'fast'"),
        ("net.py:net --lr -1", "learning_rate must be a number above 0, not -1.0"),
        ("net.py:net --lr nan", "learning_rate must be a number above 0, not nan"),
        ("net.py:net --holdout 1", "holdout must be a share from 0 to below 1, not 1.0"),
        ("net.py:net --holdout 0.5", "quarters has a test set of 40 images; leave --holdout out"),
        ("net.py:net --train_subset 61", "train_subset must be at most 60"),
        ("net.py:net --crop_size 9", "crop_size 9 is larger than the images, which have 8x8 pixels"),
        ("net.py:net --model_options deep=3", "net.py:net cannot be built: TypeError"),
        ("net.py:net --dataset nowhere", "dataset must be one of digits"),
        ("net.py:net --num_epochs 5", "unknown option '--num_epochs'"),
        ("net.py:net --randomization random_labels", "unknown option '--randomization'"),
        ("", "NETWORK"),
    ],
)  # fmt: skip
def test_bad_input_is_a_one_line_error_and_leaves_no_file(words: str, told: str, folder: Path):
    data = [] if "--dataset" in words or not words else ["--dataset", "quarters.npz"]
    assert told in ask(folder, *words.split(), *data, status=2)
    assert not (folder / "runs").exists()
    assert not (folder / "tested").exists()


def test_images_are_scaled_for_a_network_of_the_paper_and_a_line_says_so(folder: Path):
    printed = ask(folder, "mlp_1x512", "--dataset", "quarters.npz", "--epochs", "1", "--labels", "true")
    assert "The images are read with --resize 64." in on_one_line(printed)
    line = ask(folder, "mlp_1x512", "--dataset", "quarters.npz", "--resize", "20", status=2)
    assert "the networks need at least 28 a side" in line


def test_an_own_network_takes_crops_too_small_for_the_papers_networks(folder: Path):
    printed = ask(folder, *QUARTERS, "--epochs", "1", "--crop_size", "4")
    assert "images of 8x8 pixels are cropped to 4x4: their centre" in printed


def test_two_commands_at_once_share_the_runs_and_both_have_the_verdict(folder: Path):
    words = [*QUARTERS, "--labels", "true", "random", "0.5"]
    both = [forked.start(PROGRAM, "test", *words, cwd=folder) for _ in range(2)]
    said = [one.communicate()[0] for one in both]
    assert [one.returncode for one in both] == [0, 0], said
    verdicts = [[line for line in printed.splitlines() if line.startswith("- ")] for printed in said]
    assert verdicts[0] == verdicts[1] != []
    runs = [path for path in (folder / "runs").iterdir() if not path.name.startswith(".")]
    assert len(runs) == 3
    assert all(load_run(path).finished for path in runs)


def test_a_run_that_another_process_trains_is_waited_for(folder: Path, monkeypatch: pytest.MonkeyPatch):
    """The other process ends here during the first pause."""
    monkeypatch.chdir(folder)
    asked = asked_for("net.py:net", {"dataset": "quarters.npz", "lr": "0.1", "labels": "random", "epochs": 1})
    prepared = prepare(asked)
    (config,) = asked.configs(prepared.config).values()
    with contextlib.ExitStack() as other:
        other.enter_context(PlannedRun.of(config).folder.lock())
        monkeypatch.setattr("rethinking.engines.here.time.sleep", lambda seconds: other.close())
        report = carry_out(prepared)
    assert report["random"].finished


def test_a_damaged_run_and_a_full_disk_are_one_line_errors(folder: Path):
    ask(folder, *QUARTERS, "--epochs", "2")
    (result,) = (folder / "runs").glob("*none*/result.json")
    content = result.read_text()
    result.write_text(content[:-20])
    assert "result.json is damaged" in ask(folder, *QUARTERS, "--epochs", "2", status=1)
    result.write_text(content)
    assert "cannot write" in ask(folder, *QUARTERS, "--epochs", "3", status=1, file_size=3000)
    ask(folder, *QUARTERS, "--epochs", "3")


# What ends it


def started(folder: Path, *words: str) -> forked.Started:
    """Starts a process that trains, and returns it after some epochs of its first run."""
    process = forked.start(PROGRAM, "test", *words, cwd=folder)
    while process.poll() is None:
        if any(content.count(b"\n") >= 3 for content in metrics(folder).values()):
            return process
        time.sleep(0.01)
    raise AssertionError(process.communicate()[1])


def weights(folder: Path) -> dict[str, dict[str, torch.Tensor]]:
    found = (folder / "runs").glob("*/checkpoint.safetensors")
    return {path.parent.name: safetensors.torch.load_file(path) for path in found}


def test_after_a_kill_the_same_command_reaches_the_same_weights(folder: Path, tmp_path_factory):
    words = [*QUARTERS, "--epochs", "120"]
    process = started(folder, *words)
    process.kill()
    process.communicate()
    before = metrics(folder)
    assert not list((folder / "runs").glob("*random_labels*/result.json"))
    ask(folder, *words)
    after = metrics(folder)
    for run, lines in before.items():
        whole = lines[: lines.rfind(b"\n") + 1]
        assert after[run][: len(whole)].count(b"\n") >= whole.count(b"\n") - 1
    uninterrupted = tmp_path_factory.mktemp("uninterrupted")
    for name in ("net.py", "quarters.npz"):
        (uninterrupted / name).write_bytes((folder / name).read_bytes())
    ask(uninterrupted, *words)
    expected = weights(uninterrupted)
    assert weights(folder).keys() == expected.keys()
    for run, tensors in weights(folder).items():
        assert all(torch.equal(tensors[name], expected[run][name]) for name in expected[run])


def test_an_interruption_ends_it_with_one_line(folder: Path):
    process = started(folder, *QUARTERS, "--epochs", "2000")
    process.send_signal(signal.SIGINT)
    _, told = process.communicate()
    assert process.returncode == 128 + signal.SIGINT
    assert told.split("\n") == ["", "stopped; run the same command again to continue", ""]


def test_help_and_a_mistake_do_not_wait_for_pytorch(folder: Path):
    code = (
        "import sys\nfrom rethinking import cli\n"
        "try:\n    cli.main(['test', *sys.argv[1:]])\n"
        "except SystemExit as ended:\n    print(ended.code, 'torch' in sys.modules, 'numpy' in sys.modules)"
    )
    for words, status in ((["--help"], 0), (["mlp_1x512", "--budget", "x"], 2), (["mlp_1x512", "--labls", "x"], 2)):
        ran = subprocess.run([sys.executable, "-c", code, *words], cwd=folder, capture_output=True, text=True)
        assert ran.stdout.splitlines()[-1] == f"{status} False False", ran.stderr


# The networks of the paper


@pytest.mark.parametrize("network", ["mlp_1x512", "mlp_3x512"])
def test_the_papers_mlps_fit_random_labels_of_digits_as_in_table_1(network: str, folder: Path):
    words = (network, "--dataset", "digits", "--train_subset", "300", "--no_use_tensorboard")
    printed = on_one_line(ask(folder, *words))
    assert f"- {network} fits random labels: the training accuracy is 100.00% on 300 images," in printed
    assert "The learning rate is 0.01: the paper's rate for " + network in printed
    assert f"So the capacity of {network} does not explain" in printed
    kept = archive.read(reported_in(folder))
    assert {run.configuration["randomization"] for run in kept.values()} == {"none", "random_labels"}


def test_a_convolutional_network_after_one_epoch_settles_nothing(folder: Path):
    words = ("small_alexnet", "--dataset", "digits", "--train_subset", "48", "--epochs", "1", "--batch_size", "16")
    printed = on_one_line(ask(folder, *words, "--eval_test_every", "1", "--no_use_tensorboard"))
    assert "- small_alexnet does not fit random labels: the training accuracy after 1 epoch is" in printed
    assert "on 48 images (threshold 99%)." in printed
    assert "Training was short: 1 epoch." in printed
    assert "This test does not settle whether the capacity of small_alexnet explains" in printed
