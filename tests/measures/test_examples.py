"""Scored examples of real runs: the table, the page, the command, and what does not go together."""

import csv
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser

from rethinking import InputError, score_examples
from rethinking.config import ExperimentConfig
from rethinking.data import draws, sources
from rethinking.measures.examples import ScoredExamples
from rethinking.measures.scores import SCORES
from rethinking.report import examples_page
from rethinking.training import RunResult, train
from tests import forked
from tests.conftest import ROOT, few_digits, violations
from tests.engines.test_here import InterruptAfter

NOISY = {"randomization": "partial_corrupt", "corruption_prob": 0.2}


def config(folder: Path, **options) -> ExperimentConfig:
    chosen = {
        "model_name": "mlp_1x512",
        "dataset": "digits",
        "train_subset": 200,
        "num_epochs": 12,
        "precision": "fp32",
        "device": "cpu",
        "use_tensorboard": False,
        "runs_dir": str(folder),
        "record_examples": True,
    }
    return ExperimentConfig(**{**chosen, **options})


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[RunResult]:
    """Two seeds of one configuration, a fifth of whose labels is drawn anew."""
    folder = tmp_path_factory.mktemp("runs")
    return [train(config(folder, seed=seed, **NOISY)) for seed in (0, 1)]


@pytest.fixture
def scored(runs: list[RunResult]) -> ScoredExamples:
    return score_examples([run.path for run in runs])


def test_scores_are_means_over_the_runs_and_belong_to_the_images(runs: list[RunResult], scored: ScoredExamples):
    for name, score in SCORES.items():
        each = [score.of(run.examples()["online"]) for run in runs]
        np.testing.assert_allclose(scored.scores[name], np.mean(each, axis=0))
        assert -1 <= scored.consistency[name] <= 1
    data = sources.load("digits")
    np.testing.assert_array_equal(scored.index, draws.subset_rows(len(data.train), 200))
    np.testing.assert_array_equal(scored.true_labels, data.train.labels[scored.index])
    assert 0 < scored.wrong.sum() < 60
    assert scored.wrong.sum() == runs[0].result["labels_changed"]


def test_wrong_labels_are_suspected(scored: ScoredExamples):
    found = scored.found()
    for name in ("area_under_margin", "confidence", "last_loss", "el2n"):
        assert found[name].auroc > 0.95
        first = scored.suspects(name)[: scored.wrong.sum()]
        assert scored.wrong[first].mean() == pytest.approx(found[name].precision, abs=0.05)


def test_of_true_labels_nothing_is_known_to_be_wrong(tmp_path: Path):
    run = train(config(tmp_path, num_epochs=2, record_test_examples=True, record_evaluated_examples=True))
    alone = score_examples([run.path])
    assert alone.wrong is None
    assert alone.found() == {}
    assert all(np.isnan(value) for value in alone.consistency.values())
    assert "true_label" not in alone.columns()
    tested = score_examples([run.path], of="test")
    assert len(tested.index) == 355
    np.testing.assert_array_equal(tested.labels, sources.load("digits").test.labels)
    evaluated = score_examples([run.path], of="train")
    assert evaluated.of == "train"
    assert (evaluated.scores["last_loss"] != alone.scores["last_loss"]).any()
    for examples in (alone, tested, evaluated):
        assert "known to be wrong" not in examples_page.as_html(examples)


def test_the_table_has_a_row_for_each_example(scored: ScoredExamples, tmp_path: Path):
    scored.write_csv(tmp_path / "examples.csv")
    with (tmp_path / "examples.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0])[:5] == ["index", "label", "true_label", "area_under_margin", "area_under_margin_rank"]
    assert [int(row["index"]) for row in rows] == scored.index.tolist()
    for name in SCORES:
        ranks = np.array([float(row[f"{name}_rank"]) for row in rows])
        assert ranks.sum() == pytest.approx(200 * 201 / 2)
        order = np.argsort(ranks, kind="stable")
        np.testing.assert_array_equal(order, scored.suspects(name))
    frame = scored.frame()
    assert [f"{value:.6g}" for value in frame["confidence"]] == [row["confidence"] for row in rows]


@pytest.mark.parametrize(
    "other",
    [
        {"randomization_seed": 1},
        {"train_subset": 199},
        {"model_name": "mlp_3x512"},
        {"randomization": "none", "corruption_prob": None},
        {"dataset": "other"},
    ],
)
def test_runs_that_differ_in_more_than_their_seeds_do_not_go_together(runs: list[RunResult], tmp_path: Path, other):
    if "dataset" in other:
        other = {"dataset": few_digits(200)}
    differs = train(config(tmp_path, **{**NOISY, **other}))
    name = "images" if "dataset" in other else next(iter(other))
    with pytest.raises(InputError, match=f"differ in .*{name}.*; these runs may differ in seed, device, precision"):
        score_examples([runs[0].path, differs.path])


def test_runs_of_another_length_do_not_go_together(runs: list[RunResult], tmp_path: Path):
    with pytest.raises(KeyboardInterrupt):
        train(config(tmp_path, seed=3, **NOISY), observers=[InterruptAfter(5)])
    (shorter,) = tmp_path.iterdir()
    with pytest.raises(InputError, match=r"has 5 epochs and .* 12; scores are comparable after equally many"):
        score_examples([runs[0].path, shorter])
    assert len(score_examples([shorter]).index) == 200, "alone it has scores"


def test_a_run_counts_once(runs: list[RunResult]):
    twice = score_examples([runs[0].path, runs[0].path.parent / "." / runs[0].path.name])
    assert len(twice.runs) == 1
    assert np.isnan(twice.consistency["confidence"])


def test_test_images_have_the_labels_that_they_were_measured_on(tmp_path: Path):
    options = {"randomization": "partial_corrupt", "corruption_prob": 0.5, "record_test_examples": True}
    run = train(config(tmp_path, **options, corrupt_test_labels=True))
    scored = score_examples([run.path], of="test")
    true = sources.load("digits").test.labels
    np.testing.assert_array_equal(scored.true_labels, true)
    assert 0.3 < scored.wrong.mean() < 0.6
    kept = run.examples()["test"]
    right = scored.labels == true
    assert kept.correct[-1][right].mean() > kept.correct[-1][~right].mean() + 0.3
    assert scored.found()["last_loss"].auroc > 0.7


def test_classes_of_an_operator_are_numbers(tmp_path: Path):
    run = train(config(tmp_path, num_epochs=1, randomization="random_signs"))
    scored = score_examples([run.path])
    named = replace(scored, data=replace(scored.data, class_names=("airplane", *map(str, range(1, 10)))))
    assert set(named.columns()["label"]) == {"0", "1"}
    assert "airplane" not in examples_page.as_html(named)


def test_what_was_not_kept_is_told_with_the_option_that_keeps_it(runs: list[RunResult], tmp_path: Path):
    plain = train(config(tmp_path, num_epochs=1, record_examples=False))
    for folders, of, option in (
        ([plain.path], None, "--record_examples"),
        ([runs[0].path, plain.path], None, "--record_examples"),
        ([runs[0].path], "test", "--record_test_examples"),
        ([runs[0].path], "train", "--record_evaluated_examples"),
    ):
        with pytest.raises(InputError, match=f"kept no examples.*; train it with {option}$"):
            score_examples(folders, of)
    with pytest.raises(InputError, match="examples are kept of online, train, test, not 'valid'"):
        score_examples([runs[0].path], "valid")
    with pytest.raises(InputError, match="at least one run's folder"):
        score_examples([])


@pytest.mark.parametrize(("width", "scheme"), [(1440, "light"), (390, "dark")])
def test_the_page_shows_both_ends_of_each_score(
    browser: Browser, scored: ScoredExamples, tmp_path: Path, width: int, scheme: str
):
    context = browser.new_context(viewport={"width": width, "height": 850}, color_scheme=scheme)
    page, complaints = context.new_page(), []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("request", lambda asked: None if asked.url[:5] in ("file:", "data:") else complaints.append(asked.url))
    page.goto(examples_page.write(scored, tmp_path).as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for name in SCORES:
        pictures = page.locator(f"section#{name} img")
        assert pictures.count() == 2 * examples_page.SHOWN
        assert pictures.evaluate_all("all => all.every(one => one.naturalWidth === 28)")
        first = scored.index[scored.suspects(name)[0]]
        assert pictures.first.get_attribute("alt") == f"image {first}"
    suspects = page.locator("section#area_under_margin ul").first.locator("li.wrong")
    assert suspects.count() == scored.wrong[scored.suspects("area_under_margin")[: examples_page.SHOWN]].sum()
    assert "true label" in suspects.first.inner_text()
    assert page.locator("section#scores tbody tr").count() == len(SCORES)
    assert page.locator("section#scores figure svg").count() == 2
    assert violations(page) == []
    context.close()
    assert complaints == []


def test_markup_in_a_class_name_is_text(scored: ScoredExamples):
    names = ("<b>zero</b>", *map(str, range(1, 10)))
    page = examples_page.as_html(replace(scored, data=replace(scored.data, class_names=names)))
    assert "<b>zero" not in page
    assert "&lt;b&gt;zero" in page


def test_the_command_writes_table_and_page(runs: list[RunResult], tmp_path: Path):
    ran = forked.run(ROOT / "src/rethinking/__main__.py", "examples", *(run.path for run in runs), cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert re.search(r"confidence\s+[01]\.\d{3}\s+\d+\.\d%", ran.stdout)
    assert "written to examples; open examples/examples.html" in ran.stdout
    assert sorted(path.name for path in (tmp_path / "examples").iterdir()) == ["examples.csv", "examples.html"]


def test_without_the_truth_the_command_lists_suspects(tmp_path: Path):
    run = train(config(tmp_path, num_epochs=2))
    ran = forked.run(ROOT / "src/rethinking/__main__.py", "examples", run.path, "--out", "out", cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    scored = score_examples([run.path])
    first = scored.index[scored.suspects("area_under_margin")[0]]
    assert re.search(rf"image\s+label\s+area under margin\s+─+\s+{first} ", ran.stdout)
