"""A folder of images, a tenth of the labels wrong: one command shows them. Beside it cleanlab, on the same networks."""

import csv
import re
from pathlib import Path

import numpy as np
import pytest
from cleanlab.filter import find_label_issues
from PIL import Image
from playwright.sync_api import Browser

import rethinking
from rethinking import InputError
from rethinking.data import sources
from rethinking.measures.detection import auroc
from rethinking.report import examples_page
from tests import forked
from tests.conftest import ROOT, shared, violations
from trials.label_errors import Folder, with_wrong_labels

COMMAND = ROOT / "src/rethinking/__main__.py"


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """1,000 of the built-in digits; 100 lie in the folder of another class."""
    return with_wrong_labels(sources.load("digits"), 1000, 0.1, tmp_path_factory.mktemp("images") / "photos")


def suspects(folder: Path) -> list[str]:
    with (folder / "examples.csv").open() as file:
        rows = list(csv.DictReader(file))
    return [row["file"] for row in sorted(rows, key=lambda row: float(row["area_under_margin_rank"]))]


def test_one_command_lists_the_wrong_labels_first(digits: Folder, tmp_path: Path, browser: Browser):
    asked = ("label-errors", "--dataset", digits.path, "--model", "mlp_1x512")
    ran = forked.run(COMMAND, *asked, cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    found = suspects(tmp_path / "label_errors")
    assert len(found) == 1000
    assert sum(file in digits.wrong for file in found[:50]) >= 45
    assert found[0] in ran.stdout
    assert "open label_errors/examples.html" in ran.stdout
    before = (tmp_path / "label_errors/examples.csv").read_bytes()
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").glob("*/metrics.jsonl")}
    assert forked.run(COMMAND, *asked, cwd=tmp_path).returncode == 0
    assert written == {path: path.stat().st_mtime_ns for path in written}, "the runs are found again"
    assert "(5 of 5 runs finished)" in ran.stdout
    assert re.search(r"\d+ images have another predicted class than their label", ran.stdout)
    assert (tmp_path / "label_errors/examples.csv").read_bytes() == before

    page = browser.new_page()
    page.goto((tmp_path / "label_errors/examples.html").as_uri())
    shown = page.locator("section#suspects li")
    assert shown.count() == examples_page.SUSPECTS
    assert found[0] in shown.first.inner_text()
    assert "predicted:" in shown.first.inner_text()
    assert violations(page) == []
    page.close()


def test_it_agrees_with_cleanlab_on_the_same_probabilities(digits: Folder, tmp_path: Path):
    options = {"model": "mlp_1x512", "device": "cpu", "runs_dir": str(tmp_path), "use_tensorboard": False}
    found = rethinking.find_label_errors(str(digits.path), folds=3, **options)
    wrong = np.array([file in digits.wrong for file in found.files])
    issues = find_label_issues(found.labels, found.probabilities)
    assert wrong[issues].mean() > 0.8
    assert issues[wrong].mean() > 0.8
    for name in ("area_under_margin", "held_out_confidence"):
        assert auroc(found.kinds[name].suspicion(found.scores[name]), wrong) > 0.97
    data = sources.load(str(digits.path))
    pixels, labels = data.train.images.transpose(0, 2, 3, 1).squeeze(-1), data.train.labels
    of_arrays = rethinking.find_label_errors((pixels, labels), folds=3, name="arrays", **options)
    assert of_arrays.files is None
    for name, values in found.scores.items():
        np.testing.assert_array_equal(of_arrays.scores[name], values)


@pytest.mark.parametrize(
    ("data", "images", "words", "least"),
    [
        ("mnist", 2000, ("--model", "mlp_1x512"), 90),
        ("cifar10", 2500, ("--folds", "2", "--num_epochs", "6", "--batch_size", "32"), 50),  # small AlexNet
    ],
)
def test_most_of_the_first_hundred_suspects_are_wrong(data: str, images: int, words, least: int, tmp_path: Path):
    folder = with_wrong_labels(sources.load(data, shared(data).parent), images, 0.1, tmp_path / "photos")
    ran = forked.run(COMMAND, "label-errors", "--dataset", folder.path, *words, cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert (tmp_path / "label_errors/examples.html").is_file()
    assert sum(file in folder.wrong for file in suspects(tmp_path / "label_errors")[:100]) >= least


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--folds", "1"), "error: folds must be a whole number from 2 on, not 1"),
        (("--folds", "5000"), "error: folds must be at most 1442, the number of training images, not 5000"),
        (("--num_epochs", "0"), "error: num_epochs must be a whole number from 1 on, not 0"),
        (("--stop_when_fit",), "error: unknown option '--stop_when_fit'"),
        (("--left_out", "1/5"), "error: unknown option '--left_out'"),
        (("--epochs", "3"), "--num_epochs"),
        (("--dataset", "nowhere/at/all"), "nowhere/at/all"),
    ],
)
def test_mistakes_are_one_line(words, message, tmp_path: Path):
    ran = forked.run(COMMAND, "label-errors", "--dataset", "digits", "--model", "mlp_1x512", *words, cwd=tmp_path)
    assert ran.returncode == 2
    assert message in ran.stderr
    assert len(ran.stderr.splitlines()) == 1
    assert not (tmp_path / "label_errors").exists()


def test_names_that_look_like_markup_are_shown(tmp_path: Path):
    data = sources.load("digits")
    for place, image in enumerate(data.train.images[:24]):
        file = tmp_path / "photos" / ("[unknown]" if place % 2 else "<b>dog") / f"img [copy] {place}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[0]).save(file)
    words = ("--dataset", "photos", "--model", "mlp_1x512", "--folds", "2", "--num_epochs", "2")
    ran = forked.run(COMMAND, "label-errors", *words, cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert "[unknown]/img [copy]" in ran.stdout
    assert "without part 2/2" in ran.stdout
    html = (tmp_path / "label_errors/examples.html").read_text()
    assert "&lt;b&gt;dog/img [copy]" in html
    assert "<b>dog" not in html


def test_python_takes_a_path_and_refuses_parts_of_folds(digits: Folder, tmp_path: Path):
    options = {"model": "mlp_1x512", "num_epochs": 1, "runs_dir": str(tmp_path), "folds": 2, "train_subset": 50}
    assert len(rethinking.find_label_errors(digits.path, **options).files) == 50
    with pytest.raises(InputError, match=r"folds must be a whole number from 2 on, not 2\.5"):
        rethinking.find_label_errors(digits.path, folds=2.5)


def test_python_refuses_what_the_search_decides():
    for name in ("left_out", "record_examples", "eval_test_every"):
        with pytest.raises(InputError, match=f"unknown option '{name}'"):
            rethinking.find_label_errors("digits", **{name: 1})
    with pytest.raises(InputError, match="unknown option 'num_epoch'; did you mean 'num_epochs'"):
        rethinking.find_label_errors("digits", num_epoch=1)
