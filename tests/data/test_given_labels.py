"""Labels from a file: how they are read, what is refused, and what a run does with them."""

import csv
import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from rethinking import InputError, score_examples, train
from rethinking.config import ExperimentConfig
from rethinking.data import sources
from rethinking.data.given_labels import read_labels
from rethinking.training.run_dir import RunDir
from tests import forked
from tests.conftest import ROOT

NAMES = ("cat", "dog", "frog")
GIVEN = [2, 0, 1, 1]


def read(path: Path, column: str | None = None, names=NAMES, images: int = 4) -> list[int]:
    labels = read_labels(path, column, names, images)
    assert labels.dtype == np.int64
    return labels.tolist()


def written(folder: Path, text: str) -> Path:
    (folder / "labels.csv").write_text(text)
    return folder / "labels.csv"


@pytest.mark.parametrize(
    "text",
    [
        "label\nfrog\ncat\ndog\ndog\n",
        "label\n2\n0\n1\n1\n",
        "anything\n2.0\n0.0\n1\n1\n",
        "index,label\n3,dog\n0,frog\n2,dog\n1,cat\n",
        "label,other\nfrog,cat\ncat,cat\ndog,cat\ndog,cat\n",
        '\ufeffindex,label\n"0", frog\n1,cat\n2,dog\n3,dog\n',
        "label\nfrog\ncat\n\ndog\ndog\n\n",
    ],
    ids=[
        "names",
        "numbers",
        "as pandas writes them",
        "by index",
        "the column label",
        "a byte order mark",
        "blank lines",
    ],
)
def test_a_csv_file_is_read(tmp_path: Path, text: str):
    assert read(written(tmp_path, text)) == GIVEN


def test_parquet_and_npy_files_are_read(tmp_path: Path):
    pq.write_table(pa.table({"index": [1, 0, 3, 2], "worst": ["cat", "frog", "dog", "dog"]}), tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet") == GIVEN
    np.save(tmp_path / "one.npy", np.array(GIVEN, np.uint8))
    assert read(tmp_path / "one.npy") == GIVEN
    np.save(tmp_path / "two.npy", np.stack([np.zeros(4, int), GIVEN], axis=1))
    assert read(tmp_path / "two.npy", "1") == GIVEN


def test_a_column_is_chosen(tmp_path: Path):
    path = written(tmp_path, "index,aggregate,worst\n0,cat,frog\n1,cat,cat\n2,cat,dog\n3,cat,dog\n")
    assert read(path, "worst") == GIVEN
    assert read(path, "aggregate") == [0, 0, 0, 0]
    with pytest.raises(InputError, match="several columns or none: aggregate, worst; choose one with --labels_column"):
        read(path)
    with pytest.raises(InputError, match=r"no column 'wurst'; did you mean 'worst'\?; it has aggregate, worst"):
        read(path, "wurst")


def test_numbers_that_are_names_too_are_read_as_what_they_can_be(tmp_path: Path):
    names = ("1", "2", "3")
    assert read(written(tmp_path, "label\n1\n2\n3\n1\n"), names=names) == [0, 1, 2, 0], "3 is no number of a class"
    assert read(written(tmp_path, "label\n1\n2\n0\n1\n"), names=names) == [1, 2, 0, 1], "0 is no name of a class"
    with pytest.raises(InputError, match="may be names of classes or their numbers from 0, which differ here"):
        read(written(tmp_path, "label\n1\n2\n2\n1\n"), names=names)
    digits = tuple("0123")
    assert read(written(tmp_path, "label\n1\n2\n3\n1\n"), names=digits) == [1, 2, 3, 1], "both mean the same"


def test_the_index_that_pandas_writes_is_an_index(tmp_path: Path):
    table = pd.DataFrame({"label": ["cat", "frog", "dog", "dog"]}, index=[1, 0, 3, 2])
    table.to_csv(tmp_path / "a.csv")
    table.to_parquet(tmp_path / "a.parquet")
    pd.read_csv(tmp_path / "a.csv").to_csv(tmp_path / "b.csv", index=False)
    for name in ("a.csv", "a.parquet", "b.csv"):
        assert read(tmp_path / name) == GIVEN


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("label\nfrog\ncat\ndog\n", "has 3 labels, and the data 4 training images"),
        ("label\nfrog\ncat\ndog\nbird\n", "has the label 'bird', which is no class of the data: cat, dog, frog"),
        ("label\n0\n1\n2\n3\n", "has the label '3', which is no class"),
        ("label,other\n0,0\n1\n2,2\n0,0\n", "line 3 of .* has 1 values for 2 columns"),
        ("index,label\n99999999999999999999,cat\n1,cat\n2,cat\n3,cat\n", "the column index of .* must have whole"),
        ("index,label\n0,cat\n1,cat\n2,cat\n2,cat\n", "must have each of the numbers 0 to 3 once"),
        ("index,label\n1,cat\n2,cat\n3,cat\n4,cat\n", "must have each of the numbers 0 to 3 once"),
        ("index,label\na,cat\n2,cat\n3,cat\n4,cat\n", "the column index of .* must have whole numbers"),
        ("label,label\n0,0\n", "needs a first line with a name for each column"),
        ("", "needs a first line with a name for each column"),
        ("index\n0\n1\n2\n3\n", "has several columns or none: none"),
    ],
)
def test_what_does_not_fit_is_told_in_one_line(tmp_path: Path, text: str, said: str):
    with pytest.raises(InputError, match=said):
        read(written(tmp_path, text))


def test_other_files_are_refused(tmp_path: Path):
    with pytest.raises(InputError, match=r"there is no file .*absent.csv with labels"):
        read(tmp_path / "absent.csv")
    (tmp_path / "labels.txt").write_text("cat")
    with pytest.raises(InputError, match=r"labels are read from .csv, .parquet, .npy files, not from labels.txt"):
        read(tmp_path / "labels.txt")
    for name in ("cut.parquet", "cut.npy"):
        (tmp_path / name).write_bytes(b"PAR1")
        with pytest.raises(InputError, match=f"{name} is no .* file with labels"):
            read(tmp_path / name)
    np.save(tmp_path / "floats.npy", np.zeros(4))
    with pytest.raises(InputError, match="must have whole numbers or texts of shape"):
        read(tmp_path / "floats.npy")


def test_a_pickle_is_refused_with_the_lines_that_convert_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """As CIFAR-10N's file; the lines are run here."""
    monkeypatch.chdir(tmp_path)
    torch.save({"worse_label": np.array(GIVEN), "clean_label": np.zeros(4, int)}, tmp_path / "human.pt")
    (tmp_path / "human.pkl").write_bytes(pickle.dumps({"worse_label": GIVEN}))
    np.save(tmp_path / "human.npy", {"worse_label": GIVEN}, allow_pickle=True)  # type: ignore[arg-type]
    for name in ("human.pt", "human.pkl", "human.npy"):
        with pytest.raises(InputError, match="is pickled, and unpickling it could run any code") as error:
            read(tmp_path / name)
        first, second = str(error.value).split("`")[1::2]
        exec(f"{first}\n{second}", {})  # what a person would paste
        assert read(tmp_path / "human.csv", "worse_label") == GIVEN
        (tmp_path / "human.csv").unlink()


# In a run


def config(folder: Path, **options) -> ExperimentConfig:
    fixed = {"model_name": "mlp_1x512", "dataset": "digits", "num_epochs": 6, "precision": "fp32", "device": "cpu"}
    return ExperimentConfig(**{**fixed, "runs_dir": str(folder), "use_tensorboard": False, **options})


def noisy(folder: Path, share: float = 0.2) -> tuple[Path, np.ndarray]:
    """Writes labels of the digits, a share of which is the next class, in another order than the images'."""
    true = sources.load("digits").train.labels
    draws = np.random.default_rng(0)
    labels = np.where(draws.random(len(true)) < share, (true + 1) % 10, true)
    with (folder / "noisy.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["index", "label"])
        writer.writerows((place, labels[place]) for place in draws.permutation(len(true)))
    return folder / "noisy.csv", labels


@pytest.mark.parametrize("subset", [None, 500])
def test_a_run_trains_on_the_labels_and_knows_the_true_ones(tmp_path: Path, subset):
    path, labels = noisy(tmp_path)
    result = train(config(tmp_path / "runs", labels=str(path), train_subset=subset, record_examples=True))
    scored = score_examples([result.path])
    np.testing.assert_array_equal(scored.labels, labels[scored.index])
    np.testing.assert_array_equal(scored.true_labels, sources.load("digits").train.labels[scored.index])
    assert result.result["labels_changed"] == scored.wrong.sum() > 50
    assert result.final["train_accuracy_untouched"] > 0.9 > 0.3 > result.final["train_accuracy_corrupted"]
    assert result.final["test_accuracy"] > 0.8
    assert scored.found()["area_under_margin"].auroc > 0.95


def test_the_content_names_the_run_and_not_the_file(tmp_path: Path):
    path, _ = noisy(tmp_path)
    result = train(config(tmp_path / "runs", labels=str(path), num_epochs=1))
    moved = path.rename(tmp_path / "elsewhere.csv")
    assert train(config(tmp_path / "runs", labels=str(moved), num_epochs=1)).path == result.path
    other = tmp_path / "other"
    other.mkdir()
    assert train(config(tmp_path / "runs", labels=str(noisy(other, 0.3)[0]), num_epochs=1)).path != result.path
    assert train(config(tmp_path / "runs", num_epochs=1)).path != result.path


def test_labels_that_changed_since_the_run_began_are_told(tmp_path: Path):
    path, _ = noisy(tmp_path)
    result = train(config(tmp_path / "runs", labels=str(path), num_epochs=1))
    resolved = ExperimentConfig.from_yaml(result.path / "config.yaml")
    noisy(tmp_path, 0.3)
    with pytest.raises(InputError, match=r"the labels in .*noisy.csv were changed since the run began"):
        train(resolved)


# Corrupted test labels


def test_test_labels_are_corrupted_by_draws_of_their_own(tmp_path: Path):
    noise = {"randomization": "partial_corrupt", "corruption_prob": 0.5, "num_epochs": 20, "record_test_examples": True}
    plain, corrupted = (train(config(tmp_path, **noise, corrupt_test_labels=on)) for on in (False, True))
    assert plain.path != corrupted.path
    assert [record["train_loss"] for record in plain.metrics] == [record["train_loss"] for record in corrupted.metrics]
    for labels in (RunDir(run.path).labels() for run in (plain, corrupted)):
        np.testing.assert_array_equal(labels, RunDir(plain.path).labels())
    error, on_corrupted = (1 - run.final["test_accuracy"] for run in (plain, corrupted))
    expected = 0.5 * error + 0.9 * 0.5
    assert on_corrupted == pytest.approx(expected, abs=4 * (expected * (1 - expected) / 355) ** 0.5)
    assert on_corrupted > error + 0.1


def test_runs_that_share_images_have_their_own_test_labels(tmp_path: Path):
    """A group shares the images; its labels are each run's own."""
    from rethinking.engines.many import train_many

    noise = {"randomization": "partial_corrupt", "corruption_prob": 0.5, "num_epochs": 2}
    asked = [
        config(tmp_path / "together", **noise, corrupt_test_labels=on, randomization_seed=seed)
        for on, seed in ((False, 0), (True, 0), (True, 1))
    ]
    together = dict(train_many(asked, at_once=3, stacked=True))
    for one in asked:
        alone = train(ExperimentConfig(**{**one.to_dict(), "runs_dir": str(tmp_path / "alone")}))
        assert together[one].final["test_accuracy"] == pytest.approx(alone.final["test_accuracy"], abs=0.01)  # type: ignore[union-attr]
        assert together[one].final["test_loss"] == pytest.approx(alone.final["test_loss"], rel=0.01)  # type: ignore[union-attr]


# The labels that an operator draws, as a file


def written_by_command(folder: Path, *words: str, status: int = 0) -> str:
    ran = forked.run(ROOT / "src/rethinking/__main__.py", "randomize-labels", *words, cwd=folder)
    assert ran.returncode == status, ran.stdout + ran.stderr
    return ran.stdout + ran.stderr


@pytest.mark.parametrize(
    "noise",
    [
        {"randomization": "partial_corrupt", "corruption_prob": 0.3},
        {"randomization": "asymmetric", "corruption_prob": 0.3, "randomization_options": "flips='mnist'"},
    ],
)
def test_a_run_on_the_file_equals_the_run_with_the_operator(tmp_path: Path, noise):
    drawn = train(config(tmp_path / "runs", **noise, num_epochs=2))
    options = [word for name, value in noise.items() for word in (f"--{name}", str(value))]
    said = written_by_command(tmp_path, "noisy.csv", "--dataset", "digits", *options)
    changed = int((RunDir(drawn.path).labels() != RunDir(drawn.path).true_labels()).sum())
    assert said.strip() == f"{changed:,} of 1,442 labels are changed; written to noisy.csv"
    given = train(config(tmp_path / "runs", labels=str(tmp_path / "noisy.csv"), num_epochs=2))
    assert given.path != drawn.path
    assert torch.equal(RunDir(given.path).labels(), RunDir(drawn.path).labels())
    assert torch.equal(RunDir(given.path).true_labels(), RunDir(drawn.path).true_labels())
    assert [record["train_loss"] for record in given.metrics] == [record["train_loss"] for record in drawn.metrics]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["a.csv"], "takes an operator that changes labels and keeps the data's classes, not randomization none"),
        (["a.csv", "--randomization", "random_signs"], "keeps the data's classes, not randomization random_signs"),
        (["a.npy", "--randomization", "random_labels"], "labels are written as a .csv file, not as a.npy"),
        (["--randomization", "random_labels"], "randomize-labels takes a file to write"),
    ],
)
def test_a_mistake_is_one_line(tmp_path: Path, words: list[str], said: str):
    printed = written_by_command(tmp_path, *words, "--dataset", "digits", status=2)
    assert said in printed
    assert printed.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_other_labels_are_not_overwritten(tmp_path: Path):
    words = ("made/noisy.csv", "--dataset", "digits", "--randomization", "random_labels")
    written_by_command(tmp_path, *words)
    before = (tmp_path / "made" / "noisy.csv").read_bytes()
    written_by_command(tmp_path, *words)
    said = written_by_command(tmp_path, *words, "--randomization_seed", "1", status=2)
    assert "made/noisy.csv exists and has other labels; choose another name" in said
    assert (tmp_path / "made" / "noisy.csv").read_bytes() == before
