"""The additions of docs/extending.md, as written there, in a folder outside the package: one file each."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from rethinking import load_run
from rethinking.data import sources
from rethinking.data.preprocessing import Preprocessing
from rethinking.experiments import archive
from tests import forked
from tests.conftest import ROOT
from tests.documents.blocks import followed_once


def command(folder: Path, *words: str, status: int = 0, **env: str) -> str:
    if env or words[0] != sys.executable or Path(words[1]).parent != ROOT:
        ran = subprocess.run(
            words, cwd=folder, capture_output=True, text=True, timeout=1200, check=False, env={**os.environ, **env}
        )
    else:
        ran = forked.run(Path(words[1]), *words[2:], cwd=folder)
    assert ran.returncode == status, ran.stdout + ran.stderr
    assert "Traceback" not in ran.stderr
    return ran.stdout + ran.stderr


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder in which the page's blocks ran as written, and all that they printed."""
    folder, printed = followed_once(tmp_path_factory, ROOT / "docs" / "extending.md")
    return folder, "".join(printed)


def test_every_block_of_the_document_runs_as_written(followed: tuple[Path, str]):
    folder, printed = followed
    networks = [load_run(run) for run in sorted((folder / "runs").glob("net-*"))]
    assert len(networks) == 2 + 4, "two by themselves, two widths with two seeds"
    assert all(result.finished for result in networks)
    assert "dropout 0.1" in printed
    assert str(networks[0].final["test_accuracy"]) in printed
    assert len((folder / "log.jsonl").read_text().splitlines()) == 3


def test_each_addition_is_one_file(followed: tuple[Path, str]):
    folder, _ = followed
    additions = {path.name for path in folder.glob("*.py")} - {"back.py"}
    names = {
        "net.py",
        "shapes.py",
        "next_class.py",
        "dimmed.py",
        "width_sweep.py",
        "confidence.py",
        "logger.py",
        "late.py",
    }
    assert additions == names


def test_images_of_a_file_are_learnt_and_have_the_name_that_is_printed(
    followed: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder, printed = followed
    monkeypatch.setenv("RETHINKING_CACHE", str(folder / ".cache"))
    (run,) = [load_run(run) for run in (folder / "runs").glob("mlp_1x512-shapes-*")]
    assert run.final["exact_train_accuracy"] > 0.9
    assert run.final["test_accuracy"] > 0.55, "discs and squares are told apart better than by a guess"
    assert f"{run.config.dataset} {run.final['exact_train_accuracy']} {run.final['test_accuracy']}" in printed
    command(
        folder,
        *(sys.executable, str(ROOT / "train.py"), "--dataset", run.config.dataset),
        *("--model", "net.py:net", "--num_epochs", "1", "--runs_dir", str(tmp_path)),
    )
    assert load_run(next(tmp_path.glob("net-shapes-*"))).result["train_images"] == 400


def test_a_measure_is_of_the_network_that_was_trained(followed: tuple[Path, str]):
    folder, _ = followed
    kept = archive.read(folder / "confidences")
    measured = [run for run in kept.values() if run.task == "own_measures"]
    assert len(measured) == 2 * 2, "two kinds of labels, two seeds"
    images = Preprocessing((28, 28)).plain(torch.tensor(sources.load("digits").train.images))
    for run in measured:
        outputs = load_run(folder / "runs" / run.facts["network"]).network()(images).detach().double()
        largest = outputs.amax(1).exp() / outputs.exp().sum(1)
        assert run.facts["numbers"] == {"confidence": pytest.approx(largest.mean().item(), rel=1e-4)}
        again = load_run(folder / "runs" / run.run)
        assert again.result["numbers"] == run.facts["numbers"]
    table = (folder / "confidences/confidence.md").read_text()
    true, random = (re.search(rf"\| {labels} \| ([\d.]+) ± ", table) for labels in ("none", "random_labels"))
    assert true is not None
    assert random is not None
    assert float(true[1]) > float(random[1]), "as the file says"
    assert "confidence" in (folder / "confidences/report.html").read_text()


def test_the_figure_has_each_width_and_seed_once(followed: tuple[Path, str]):
    folder, printed = followed
    assert "model_options width=4" in printed, "the dry run tells the rows apart"
    kept = archive.read(folder / "sweep")
    assert sorted((run.configuration["model_options"], run.configuration["seed"]) for run in kept.values()) == [
        ("width=16", 0),
        ("width=16", 1),
        ("width=4", 0),
        ("width=4", 1),
    ]
    accuracies = [
        run.metrics[-1]["train_accuracy"] for run in kept.values() if "=4" in run.configuration["model_options"]
    ]
    mean = sum(accuracies) / 2
    (line,) = [line for line in (folder / "sweep/width_sweep.md").read_text().splitlines() if line.startswith("| 4 |")]
    assert f"{100 * mean:.2f} ±" in line
    assert (folder / "sweep/width_sweep.png").exists()


def test_runs_from_before_are_found_and_read(followed: tuple[Path, str]):
    folder, _ = followed
    again = command(
        folder,
        sys.executable,
        str(ROOT / "train.py"),
        *shlex.split("--model mlp_1x512 --dataset digits --num_epochs 3"),
    )
    assert "epoch 1/3" not in again, "the logger's run answers"
    run = next(line.removeprefix("kept in ") for line in again.splitlines() if line.startswith("kept in "))
    assert archive.of_run_folder(folder / run).finished


PACKAGE = """
from rethinking.models.catalogue import Network
from net import net
from dimmed import Dimmed

network = Network("packaged", net, learning_rate=0.05)
"""
ENTRY_POINTS = """
[rethinking.networks]
packaged = packaged:network
plain = net:net
[rethinking.operators]
dimmed = packaged:Dimmed
[rethinking.experiments]
sweep = width_sweep:EXPERIMENT
"""


def test_an_installed_package_has_names_for_what_it_adds(followed: tuple[Path, str], tmp_path: Path):
    folder, _ = followed
    (folder / "packaged.py").write_text(PACKAGE)
    metadata = folder / "packaged-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: packaged\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(ENTRY_POINTS)
    train = [sys.executable, str(ROOT / "train.py"), "--dataset", "digits", "--num_epochs", "1", "--train_subset", "50"]
    installed = {"PYTHONPATH": str(folder)}
    command(tmp_path, *train, "--model", "packaged", "--randomization", "dimmed", **installed)
    command(tmp_path, *train, "--model", "plain", **installed)
    configs = {run.name.split("-")[0]: load_run(run).config for run in (tmp_path / "runs").iterdir()}
    assert configs["packaged"].learning_rate == 0.05
    assert configs["plain"].learning_rate == 0.01
    refused = command(tmp_path, *train, "--model", "pakaged", status=2, **installed)
    assert "packaged, plain, or FILE.py:NAME" in refused
    assert "did you mean 'packaged'?" in refused
    listed = command(tmp_path, sys.executable, str(ROOT / "reproduce.py"), "sweeps", status=2)
    assert "experiment must be one of" in listed
    asked = [sys.executable, str(ROOT / "reproduce.py"), "sweep", "--scale", "demo", "--dry_run"]
    assert "net.py:net" in command(folder, *asked, "--runs_dir", str(tmp_path), **installed)


COUNTED_TWICE = """\"\"\"Twice: one run under one label.\"\"\"
from rethinking.experiments.experiment import Experiment, Number, Row
from rethinking.experiments.quantities import TRAIN_ACCURACY

def rows(study):
    return [Row((("model", "mlp"),), study.config("mlp_1x512", num_epochs=1)) for _ in range(2)]

def numbers(answers):
    return [Number(answer, TRAIN_ACCURACY, answer.evidence.metrics[-1]["train_accuracy"], None) for answer in answers]

EXPERIMENT = Experiment(title="Twice", about=__doc__, models=("mlp_1x512",), rows=rows, numbers=numbers)
"""


def test_one_run_is_never_shown_as_two_seeds(tmp_path: Path):
    (tmp_path / "twice.py").write_text(COUNTED_TWICE)
    refused = command(tmp_path, sys.executable, str(ROOT / "reproduce.py"), "twice.py", "--scale", "demo", status=2)
    assert "train accuracy of mlp would count the run mlp_1x512-digits-none-seed0-" in refused
    assert "twice: an experiment's rows for one run must have different labels" in refused


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("EXPERIMENT = 3", "is no rethinking.experiments.experiment.Experiment"),
        ("", "has no 'EXPERIMENT'"),
        ("1 / 0", "cannot import 'figure.py:EXPERIMENT': ZeroDivisionError"),
        (None, "there is no file figure.py"),
    ],
)
def test_a_file_that_is_no_experiment_is_one_line(tmp_path: Path, content, said):
    if content is not None:
        (tmp_path / "figure.py").write_text(content)
    refused = command(tmp_path, sys.executable, str(ROOT / "reproduce.py"), "figure.py", status=2)
    assert said in refused
    assert len(refused.splitlines()) == 1


def test_the_record_of_an_epoch_is_json(followed: tuple[Path, str]):
    folder, _ = followed
    records = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert [record["epoch"] for record in records] == [1, 2, 3]


def test_the_page_keeps_what_another_process_does_not_know(followed: tuple[Path, str]):
    folder, _ = followed
    before = (folder / "sweep/report.html").read_text()
    command(
        folder,
        sys.executable,
        str(ROOT / "reproduce.py"),
        *("table1", "--scale", "demo", "--models", "mlp_1x512", "--show_only", "--out", "sweep"),
    )
    after = (folder / "sweep/report.html").read_text()
    for text in (before, after):
        assert "Width sweep: training accuracy on random labels" in text
    assert "<figure data-chart=" in before
    assert "data:image/svg" in after, "the picture stays, though nothing says what it shows"


ANY = """
from rethinking.experiments.experiment import Experiment, Number, Row
from rethinking.experiments.quantities import TRAIN_ACCURACY

def rows(study):
    return [Row((("model", model),), study.config(model, num_epochs=1)) for model in study.models]

def numbers(answers):
    return [Number(answer, TRAIN_ACCURACY, answer.evidence.metrics[-1]["train_accuracy"], None) for answer in answers]

EXPERIMENT = Experiment(title="Any", about="Any.", models=("mlp_1x512",), rows=rows, numbers=numbers, any_model=True)
"""


def test_a_network_of_ones_own_stays_in_a_table_that_others_are_added_to(followed: tuple[Path, str], tmp_path: Path):
    folder, _ = followed
    (tmp_path / "net.py").write_text((folder / "net.py").read_text())
    (tmp_path / "any.py").write_text(ANY)
    asked = [sys.executable, str(ROOT / "reproduce.py"), "any.py", "--scale", "demo", "--out", "any"]
    printed = command(tmp_path, *asked, "--models", "net.py:net", "small_inception_no_bn", "mlp_1x512", "--dry_run")
    assert printed.index("small_inception_no_bn") < printed.index("mlp_1x512") < printed.index("net.py:net")
    command(tmp_path, *asked, "--models", "net.py:net")
    command(tmp_path, *asked, "--models", "mlp_1x512")
    table = (tmp_path / "any/any.md").read_text()
    assert "| mlp_1x512 |" in table
    assert "| net.py:net |" in table
    assert "Any" in (tmp_path / "any/report.html").read_text()
    told = command(
        tmp_path,
        *(sys.executable, str(ROOT / "reproduce.py"), "figure1b", "--scale", "demo", "--dry_run"),
        *("--models", "mlp_1x512", "net.py:net"),
    )
    assert "left out: net.py:net, which no chosen table or figure trains" in told
    random_signs = [sys.executable, str(ROOT / "reproduce.py"), "rademacher", "--scale", "demo", "--dry_run"]
    assert "net.py:net, random_signs" in command(tmp_path, *random_signs, "--models", "net.py:net")


def test_a_reproduction_speaks_of_a_crop_only_where_a_network_gets_one(followed: tuple[Path, str]):
    folder, _ = followed
    words = ("--scale", "demo", "--dry_run", "--resize", "32")
    own, papers = (
        forked.run(ROOT / "reproduce.py", name, *words, cwd=folder).stdout for name in ("width_sweep.py", "table4")
    )
    assert "To train" in own or "width" in own
    assert "cropped" not in own, "a network of your own takes images whole"
    assert "images of 32x32 pixels are cropped to 28x28: their centre" in papers
