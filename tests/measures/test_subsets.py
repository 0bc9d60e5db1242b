"""Memorization of real runs on random subsets: what is read, and what does not go together."""

import csv
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser

from rethinking import InputError, RunError, RunResult, sweep, train
from rethinking.config import ExperimentConfig
from rethinking.data import draws, sources
from rethinking.data.given_labels import write_labels
from rethinking.measures import subsets
from rethinking.measures.subsets import Memorized, measure_memorization
from rethinking.report import memorization_page
from rethinking.training.run_dir import RunDir
from tests import forked
from tests.conftest import ROOT, few_digits, violations

IMAGES, INSIDE, RUNS = 120, 84, 12


def config(folder: Path, **options) -> ExperimentConfig:
    fixed = {"model_name": "mlp_1x512", "dataset": few_digits(IMAGES), "num_epochs": 100, "subset_share": 0.7}
    fixed |= {"precision": "fp32", "device": "cpu", "use_tensorboard": False, "stop_when_fit": True, "batch_size": 16}
    return ExperimentConfig(**{**fixed, "runs_dir": str(folder), **options})


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    """A file with wrong labels for the first twelve images."""
    data = sources.load(few_digits(IMAGES))
    given = data.train.labels.copy()
    given[:12] = (given[:12] + 1) % 10
    path = tmp_path_factory.mktemp("labels") / "noisy.csv"
    write_labels(path, given, data.train.labels, data.class_names)
    return path, given


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, labels: tuple[Path, np.ndarray]) -> list[RunResult]:
    folder = tmp_path_factory.mktemp("runs")
    return [train(config(folder, labels=str(labels[0]), subset_seed=seed)) for seed in range(RUNS)]


@pytest.fixture
def measured(runs: list[RunResult]) -> Memorized:
    return measure_memorization([run.path for run in runs])


def test_the_subsets_and_the_answers_are_those_of_the_runs(
    runs: list[RunResult], measured: Memorized, labels: tuple[Path, np.ndarray]
):
    assert measured.inside.shape == measured.right.shape == (RUNS, IMAGES)
    assert measured.right_test.shape == (RUNS, 20)
    np.testing.assert_array_equal(measured.labels, labels[1])
    for row, right, tested, run in zip(measured.inside, measured.right, measured.right_test, runs, strict=True):
        assert set(row.nonzero()[0]) == set(draws.random_rows(IMAGES, INSIDE, run.config.subset_seed).tolist())
        assert right[row].mean() == run.final["exact_train_accuracy"] == 1
        assert tested.mean() == run.final["test_accuracy"]
    assert len({tuple(row) for row in measured.inside}) == RUNS


def test_wrong_labels_are_memorized(measured: Memorized):
    estimate = measured.memorization
    assert measured.wrong.nonzero()[0].tolist() == [*range(12)]
    assert np.nanmean(estimate.value[:12]) > 0.7
    assert np.nanmean(estimate.value[12:]) < 0.3
    errors = measured.standard_errors()
    assert [*errors] == [4, 8, RUNS]
    assert errors[RUNS] < errors[4]


def test_the_strongest_pairs_are_those_of_all_pairs(measured: Memorized, monkeypatch: pytest.MonkeyPatch):
    whole = measured.pairs(30)
    value = subsets.influence(measured.inside, measured.right_test).value
    sure = value - subsets.influence(measured.inside, measured.right_test).standard_error
    assert [pair.influence - pair.standard_error for pair in whole] == sorted(sure[np.isfinite(sure)], reverse=True)[
        :30
    ]
    assert all(value[pair.train, pair.test] == pair.influence for pair in whole)
    by_parts = replace(measured, right_test=np.tile(measured.right_test, 2))
    assert len(by_parts.pairs(5)) == 5
    assert replace(measured, right_test=None).pairs() == []


def test_the_tables_have_the_estimates(measured: Memorized, tmp_path: Path):
    measured.write_csv(tmp_path)
    with (tmp_path / "memorization.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["index", "label", "true_label", "memorization", "standard_error"]
    assert [float(row["memorization"]) for row in rows] == pytest.approx(
        measured.memorization.value.tolist(), abs=1e-5, nan_ok=True
    )
    with (tmp_path / "influence.csv").open() as file:
        assert len(list(csv.DictReader(file))) == subsets.PAIRS


def test_answers_are_kept_and_a_cut_file_is_made_again(
    runs: list[RunResult], measured: Memorized, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folders = [run.path for run in runs]
    kept = measure_memorization(folders, tmp_path)
    np.testing.assert_array_equal(kept.right, measured.right)
    (tmp_path / f"{folders[3].name}.npy").write_bytes(b"\x93NUMPY")
    asked = []
    network = RunResult.network
    monkeypatch.setattr(RunResult, "network", lambda run: (asked.append(run.path), network(run))[1])
    again = measure_memorization(folders, tmp_path)
    assert asked == [folders[3]]
    np.testing.assert_array_equal(again.right, measured.right)
    np.testing.assert_array_equal(again.right_test, measured.right_test)


def test_a_sweep_trains_them(tmp_path: Path):
    found = sweep(
        **{name: getattr(config(tmp_path), name) for name in ("dataset", "subset_share", "precision", "device")},
        model="mlp_1x512",
        num_epochs=1,
        subset_seed=range(4),
        runs_dir=str(tmp_path / "runs"),
        out=str(tmp_path / "swept"),
        progress=False,
    )
    assert len(found.frame()) == 4
    measured = measure_memorization([*(tmp_path / "runs").iterdir()])
    assert measured.wrong is None
    assert measured.inside.sum(axis=1).tolist() == [INSIDE] * 4


def test_runs_that_do_not_go_together_are_told(runs: list[RunResult], tmp_path: Path):
    four = [run.path for run in runs[:4]]
    with pytest.raises(InputError, match="needs at least 4 runs on random subsets, not 3"):
        measure_memorization([*four[:3], four[0]])
    other = train(config(tmp_path, subset_seed=50))
    with pytest.raises(InputError, match="differ in labels_digest; these runs may differ in subset_seed, seed"):
        measure_memorization([*four, other.path])
    seeds = [train(config(tmp_path, num_epochs=1, subset_seed=50 + place, seed=place)).path for place in range(3)]
    twice = train(config(tmp_path, num_epochs=1, subset_seed=50, seed=9)).path
    with pytest.raises(InputError, match="have the same subset_seed; keep one"):
        measure_memorization([*seeds, twice])
    alike = [train(config(tmp_path, num_epochs=1, subset_share=None, seed=seed)).path for seed in range(4)]
    with pytest.raises(InputError, match="did not train on a random subset; train runs on some: rethinking sweep"):
        measure_memorization(alike)


def test_runs_that_share_a_group_have_subsets_of_their_own(tmp_path: Path):
    from rethinking.engines.many import train_many

    asked = [config(tmp_path / "together", num_epochs=2, subset_seed=seed, stop_when_fit=False) for seed in (0, 1)]
    for one, outcome in train_many(asked, at_once=2, stacked=True):
        alone = train(replace(one, runs_dir=str(tmp_path / "alone")))
        assert outcome.final["train_loss"] == pytest.approx(alone.final["train_loss"], rel=1e-3)  # type: ignore[union-attr]


@pytest.mark.parametrize(("width", "scheme"), [(1440, "light"), (390, "dark")])
def test_the_page_shows_what_is_memorized_and_what_helps(
    browser: Browser, measured: Memorized, tmp_path: Path, width: int, scheme: str
):
    context = browser.new_context(viewport={"width": width, "height": 850}, color_scheme=scheme)
    page, complaints = context.new_page(), []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("request", lambda asked: None if asked.url[:5] in ("file:", "data:") else complaints.append(asked.url))
    page.goto(memorization_page.write(measured, tmp_path).as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    most = page.locator("section#memorized img")
    value = np.nan_to_num(measured.memorization.value - measured.memorization.standard_error, nan=-np.inf)
    wrong = np.isfinite(measured.memorization.value) & measured.wrong
    assert most.count() == memorization_page.SHOWN + wrong.sum()
    order = np.argsort(-value, kind="stable")
    for place, members in ((0, ~measured.wrong), (memorization_page.SHOWN, measured.wrong)):
        assert most.nth(place).get_attribute("alt") == f"training image {order[members[order]][0]}"
    (first, *_) = measured.pairs(1)
    alike = page.locator("section#influence li").first.locator("img")
    assert [alike.nth(place).get_attribute("alt") for place in (0, 1)] == [
        f"test image {first.test}",
        f"training image {first.train}",
    ]
    assert page.locator("section#memorization tbody").nth(1).locator("tr").count() == 3
    assert page.locator("section#memorization svg").count() == 1
    assert violations(page) == []
    context.close()
    assert complaints == []


def test_the_command_writes_tables_and_page(runs: list[RunResult], tmp_path: Path):
    command = ROOT / "src/rethinking/__main__.py"
    ran = forked.run(command, "memorization", *(run.path for run in runs), cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert re.search(r"12 with wrong labels\s+12\s+\d+\.\d%\s+\d+\.\d% an image", ran.stdout)
    assert "open memorization/memorization.html" in ran.stdout
    written = sorted(path.name for path in (tmp_path / "memorization").iterdir())
    assert written == ["answers", "influence.csv", "memorization.csv", "memorization.html"]
    assert len([*(tmp_path / "memorization/answers").iterdir()]) == RUNS
    few = forked.run(command, "memorization", runs[0].path, cwd=tmp_path)
    assert few.returncode == 2
    assert few.stderr.startswith("error: memorization needs at least 4 runs on random subsets, not 1")


@pytest.mark.parametrize(
    "options",
    [
        {"randomization": "random_labels"},
        {"randomization": "pair_flip", "corruption_prob": 0.3},
        {"randomization": "random_signs"},
        {"randomization": "random_pixels"},
        {"randomization": "shuffled_pixels"},
        {"randomization": "gaussian_pixels"},
        {"pixel_noise": 60.0},
    ],
)
def test_every_subset_has_the_labels_and_pixels_that_all_images_have(tmp_path: Path, options: dict):
    """So the answers on the images of a run are those that the run measured, whatever was randomized."""
    every = train(config(tmp_path, num_epochs=1, subset_share=None, **options))
    runs = [train(config(tmp_path, num_epochs=2, subset_seed=seed, **options)) for seed in range(4)]
    measured = measure_memorization([run.path for run in runs])
    assert len(measured.index) > INSIDE
    assert measured.inside.any(axis=0).all(), "images that no run had are left out"
    np.testing.assert_array_equal(measured.labels, RunDir(every.path).labels().numpy()[measured.index])
    for row, right, run in zip(measured.inside, measured.right, runs, strict=True):
        assert right[row].mean() == pytest.approx(run.final["exact_train_accuracy"])


def test_answers_that_the_run_did_not_give_are_an_error(runs: list[RunResult], tmp_path: Path):
    four = [run.path for run in runs[:4]]
    measure_memorization(four, tmp_path)
    kept = tmp_path / f"{four[0].name}.npy"
    np.save(kept, ~np.load(kept))
    with pytest.raises(RunError, match=r"gets 0.0% of its training images right here, and 100.0% in its run"):
        measure_memorization(four, tmp_path)


def test_shares_of_a_subset_are_named_by_their_places_in_the_data(tmp_path: Path):
    runs = [train(config(tmp_path, num_epochs=2, train_subset=60, subset_seed=seed)) for seed in range(4)]
    measured = measure_memorization([run.path for run in runs])
    there = np.unique(np.concatenate([draws.random_rows(60, 42, seed).numpy() for seed in range(4)]))
    np.testing.assert_array_equal(measured.index, draws.subset_rows(IMAGES, 60).numpy()[there])
    assert measured.inside.shape == (4, len(there))
    np.testing.assert_array_equal(measured.labels, measured.data.train.labels[measured.index])
    for row, right, run in zip(measured.inside, measured.right, runs, strict=True):
        assert right[row].mean() == pytest.approx(run.final["exact_train_accuracy"])
    measured.write_csv(tmp_path)
    with (tmp_path / "memorization.csv").open() as file:
        assert [int(row["index"]) for row in csv.DictReader(file)] == measured.index.tolist()


def test_the_file_of_labels_is_not_needed_any_more(runs: list[RunResult], labels: tuple[Path, np.ndarray]):
    away = labels[0].rename(labels[0].with_name("away.csv"))
    try:
        measured = measure_memorization([run.path for run in runs])
    finally:
        away.rename(labels[0])
    np.testing.assert_array_equal(measured.labels, labels[1])
