"""The report of a randomization test: its numbers come from its runs, and its files can be read."""

from __future__ import annotations

import csv
import dataclasses
import functools
import html
import json
import re
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from playwright.sync_api import Browser, expect

from rethinking import InputError, RunError, cli
from rethinking.errors import DivergedError
from rethinking.experiments import archive
from rethinking.instrument.battery import asked_for
from rethinking.instrument.report import Report
from rethinking.models import catalogue
from rethinking.report import tables
from rethinking.runs import load_run
from tests.conftest import violations
from tests.instrument.cases import linear, pictures, report_of, wide

FILES = ["epochs.csv", "report.html", "runs.csv", "test.csv", "test.md", "test.png", "test.svg", "verdict.md"]
OPERATORS = """
from rethinking.data.operators import Operator

class Reversed(Operator):
    def change_labels(self, labels, num_classes, random):
        return num_classes - 1 - labels

class Negative(Operator):
    def change_pixels(self, train, test, positions, random):
        import dataclasses
        turned = lambda split: dataclasses.replace(split, images=255 - split.images)
        return turned(train), turned(test) if test else None
"""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """A report on four conditions and two seeds, with a test set."""
    folder = tmp_path_factory.mktemp("report")
    options = {"labels": ("true", "random", 0.5), "pixels": "shuffled", "seeds": (0, 3)}
    return report_of(folder / "runs", wide, pictures(48), pictures(40, seed=1), **options)


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


# Its runs


def test_a_run_is_found_by_the_option_or_by_the_name_of_its_condition(report: Report):
    assert list(report) == ["true", "random", "0.5", "shuffled_pixels"]
    assert "random" in report
    assert report[0.5] is report["0.5"]
    assert report["shuffled"] is report["shuffled_pixels"]
    assert report[1] is report["random"]
    assert report[0] is report["true"]
    assert report.run("true").config.seed == 0
    assert report.run("true", 3).config.seed == 3
    assert report.run("random", 3).config.randomization_seed == 3, "each seed has labels of its own"
    assert report["0.5"].config.corruption_prob == 0.5


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (
            ("randon",),
            r"no condition 'randon'; it has true, .*, shuffled_pixels, of seeds 0, 3; did you mean 'random'\?$",
        ),
        ((0.25,), "no condition '0.25'"),
        (("true", 1), r"no seed 1; it has true, .* of seeds 0, 3$"),
    ],
)
def test_an_unknown_condition_or_seed_is_refused_in_one_line(asked, told: str, report: Report):
    with pytest.raises(InputError, match=told):
        report.run(*asked)


def test_the_frame_has_the_numbers_of_the_run_folders(report: Report):
    frame = report.frame()
    assert len(frame) == 4 * 2
    for row in frame.to_dict("records"):
        run = Path(row["run"])
        records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        config = load_run(run).config
        assert config.seed == row["seed"]
        last = records[-1]
        assert (row["train_accuracy"], row["test_accuracy"]) == (last["exact_train_accuracy"], last["test_accuracy"])
        assert row["generalization_gap"] == last["exact_train_accuracy"] - last["test_accuracy"]
        fitted = [one["epoch"] for one in records if one["exact_train_accuracy"] >= 0.99]  # measured in every epoch
        assert row["epochs_to_fit"] == fitted[0]
        assert (row["epochs"], row["finished"]) == (len(records), True)
        assert row["seconds"] == pytest.approx(sum(one["seconds"] for one in records))


def test_the_table_has_means_over_seeds_of_the_frames_numbers(report: Report):
    frame = report.frame()
    columns = {
        "train accuracy": "train_accuracy",
        "test accuracy": "test_accuracy",
        "gap": "generalization_gap",
        "epochs to 99%": "epochs_to_fit",
        "epochs": "epochs",
    }
    words = {"true labels": "true", "random labels": "random", "labels random with probability 0.5": "0.5"}
    words["shuffled pixels"] = "shuffled_pixels"
    seen = set()
    for cell in report.cells:
        condition = words[dict(cell.labels)["trained on"]]
        if cell.quantity in columns:
            rows = frame[frame["condition"] == condition]
            assert cell.ours == pytest.approx(rows[columns[cell.quantity]].mean(), abs=1e-6)
            assert cell.std == pytest.approx(rows[columns[cell.quantity]].std(), abs=1e-6)
            assert sorted(cell.runs) == sorted(Path(run).name for run in rows["run"])
            seen.add((condition, cell.quantity))
        assert cell.paper is None
    assert len(seen) == 4 * len(columns)


def test_the_curves_have_a_colour_a_condition_and_a_line_a_run(report: Report):
    loss, accuracy = report.plot().axes
    assert len(loss.lines) == 8
    assert len({line.get_color() for line in loss.lines}) == 4
    names = [text.get_text() for text in loss.get_legend().get_texts()]
    assert names == ["true labels", "random labels", "labels random with probability 0.5", "shuffled pixels"]
    first = loss.lines[0]
    assert list(first.get_ydata()) == [record["train_loss"] for record in report["true"].metrics]
    assert "training loss on images" in loss.get_title()
    assert len(accuracy.lines) == 16


def test_the_last_sentence_gives_the_number_of_seeds(report: Report, tmp_path: Path):
    assert report.sentences[-1] == "All numbers come from 2 seeds, each with its own random draws."
    one = report_of(tmp_path, wide, pictures(48), holdout=0.0, epochs=1)
    assert one.sentences[-1] == "All numbers come from one seed, so their variation over seeds is not known."


def test_the_number_of_images_is_the_size_of_the_training_subset(tmp_path: Path):
    """This holds in every sentence, and in the bound of Equation 1."""
    report = report_of(tmp_path, wide, pictures(200), train_subset=40, holdout=0.0)
    everything = " ".join([*report.sentences, report.paragraph])
    assert "100.00% on 40 images" in everything
    assert "on 40 training images" in everything
    assert "200" not in everything
    (capacity,) = [finding for finding in report.findings if finding.about == "capacity"]
    assert capacity.number == pytest.approx(1 + 3 * np.sqrt(np.log(2 / 0.05) / (2 * 40)))


# What it leaves


def test_it_writes_its_files_with_the_same_bytes_each_time(report: Report, tmp_path: Path):
    page = report.save(tmp_path / "tested")
    assert page == tmp_path / "tested/report.html"
    assert names_in(page.parent) == FILES
    first = {name: (page.parent / name).read_bytes() for name in FILES}
    runs = report.outcomes["true", 0].path.parent
    options = {"labels": ("true", "random", 0.5), "pixels": "shuffled", "seeds": (0, 3)}
    before = {path: path.stat().st_mtime_ns for path in runs.glob("*/metrics.jsonl")}
    again = report_of(runs, wide, pictures(48), pictures(40, seed=1), **options)
    again.save(tmp_path / "tested")
    assert {name: (page.parent / name).read_bytes() for name in names_in(page.parent)} == first
    again.save(tmp_path / "elsewhere")
    assert {name: (tmp_path / "elsewhere" / name).read_bytes() for name in FILES} == first
    assert {path: path.stat().st_mtime_ns for path in runs.glob("*/metrics.jsonl")} == before


def test_it_keeps_the_evidence_of_its_runs_and_more_can_be_added(report: Report, tmp_path: Path, capsys):
    folder = report.save(tmp_path).parent
    kept = archive.read(folder)
    assert len(kept) == 8
    for run in kept.values():
        path = report["true"].path.parent / run.run
        assert archive.of_run_folder(path) == run
    other = report_of(tmp_path / "runs", wide, pictures(48), labels="true", epochs=1, holdout=0.0)["true"]
    with pytest.raises(SystemExit) as ended:
        cli.main(["keep", str(folder), str(other.path)])
    assert ended.value.code == 0
    assert len(archive.read(folder)) == 9


def test_a_report_does_not_take_the_place_of_one_with_more_epochs_of_the_same_runs(report: Report, tmp_path: Path):
    """As after `rm -rf runs` and the same command with a smaller budget: the page would show both."""
    report.save(tmp_path)
    before = {name: (tmp_path / name).read_bytes() for name in FILES}
    cut = {
        key: dataclasses.replace(run, metrics=run.metrics[:-1], finished=False) if len(run.metrics) > 1 else run
        for key, run in report.outcomes.items()
    }
    shorter = dataclasses.replace(report, outcomes=cut)
    with pytest.raises(RunError, match=r"has a report of .* after \d+ epochs, and this one is after \d+; .*--out"):
        shorter.save(tmp_path)
    assert {name: (tmp_path / name).read_bytes() for name in FILES} == before
    other = tmp_path / "other"
    shorter.save(other)
    assert names_in(other) == FILES


def test_the_table_file_is_the_reports_table(report: Report, tmp_path: Path):
    folder = report.save(tmp_path).parent
    cells, dataset, scale = tables.read_csv(folder / "test.csv")
    assert (dataset, scale) == (report.data.name, "")
    assert [(c.labels, c.quantity, c.runs) for c in cells] == [(c.labels, c.quantity, c.runs) for c in report.cells]
    rows = list(csv.DictReader((folder / "runs.csv").open()))
    assert {row["run"] for row in rows} == {run for cell in cells for run in cell.runs}
    text = (folder / "test.md").read_text()
    assert text.startswith(f"# Randomization test of wide on {report.data.name}")
    assert "48 training images" in text


def test_the_verdict_file_is_a_paragraph_with_all_that_reproduces_it(report: Report, tmp_path: Path):
    text = (report.save(tmp_path).parent / "verdict.md").read_text()
    assert text.count("\n") == 1
    for finding in report.findings:
        assert finding.sentence in text
    for said in (
        "wide, with 8,836 trainable parameters",
        "48 training and 40 test images",
        "4 classes",
        *report.choices,
    ):
        assert said in text
    assert report.data.fingerprint[:12] in text
    assert str(report["true"].path.parent) not in text, "no folder of this machine"


def test_two_tests_in_one_folder_keep_both_evidences_and_the_numbers_of_the_last(tmp_path: Path):
    first = report_of(tmp_path / "runs", wide, pictures(40), epochs=1, holdout=0.0)
    second = report_of(tmp_path / "runs", linear, pictures(40), epochs=1, holdout=0.0, labels=("true", 0.5))
    first.save(tmp_path / "tested")
    page = second.save(tmp_path / "tested").read_text()
    assert len(archive.read(tmp_path / "tested")) == 4
    assert "Randomization test of linear" in page
    assert "Randomization test of wide" not in page
    cells, _, _ = tables.read_csv(tmp_path / "tested/test.csv")
    assert {run for cell in cells for run in cell.runs} == {second[key].path.name for key in ("true", 0.5)}


def test_the_papers_numbers_stand_nowhere(report: Report, tmp_path: Path):
    folder = report.save(tmp_path).parent
    for name in ("report.html", "test.md", "verdict.md"):
        text = (folder / name).read_text().replace("Zhang et al. 2017", "")
        assert not re.search(r"[Pp]aper", text), name
    assert all(not row["paper"] for row in csv.DictReader((folder / "test.csv").open()))


# Odd cases


def test_a_condition_whose_runs_all_diverged_is_reported_and_has_no_row(report: Report, tmp_path: Path):
    error = DivergedError("the loss is not finite in epoch 1")
    lost = {("random", seed): error for seed in (0, 3)}
    half = dataclasses.replace(report, outcomes={**report.outcomes, **lost})
    assert "Training on random labels diverged at learning rate 0.1 with 2 of 2 seeds" in half.sentences[0]
    assert {dict(cell.labels)["trained on"] for cell in half.cells}.isdisjoint({"random labels"})
    with pytest.raises(DivergedError):
        half["random"]
    frame = half.frame()
    assert frame[frame["condition"] == "random"]["train_accuracy"].isna().all()
    page = half.save(tmp_path)
    assert "diverged" in page.read_text()
    assert "diverged" in half._repr_html_()
    assert not any(finding.about == "capacity" for finding in half.findings)


def test_a_mean_without_the_seeds_that_diverged_says_so(report: Report):
    lost = {("random", 3): DivergedError("the loss is not finite in epoch 1")}
    half = dataclasses.replace(report, outcomes={**report.outcomes, **lost})
    of_random = {dict(cell.labels)["trained on"]: cell for cell in half.cells if cell.quantity == "epochs"}
    assert [*of_random][:2] == ["true labels", "random labels (1 of 2 seeds)"]
    assert of_random["random labels (1 of 2 seeds)"].ours == len(report["random"].metrics)


def test_a_test_whose_runs_all_diverged_says_so_and_removes_older_numbers(tmp_path: Path):
    report_of(tmp_path / "runs", wide, pictures(40), epochs=1, holdout=0.0).save(tmp_path / "tested")
    lost = report_of(tmp_path / "runs", wide, pictures(40), epochs=1, lr="1e30", holdout=0.0)
    page = lost.save(tmp_path / "tested")
    assert names_in(page.parent) == ["epochs.csv", "report.html", "runs.csv"], "the evidence stays"
    assert "diverged" in page.read_text()
    assert "diverged" in repr(lost)
    assert "diverged" in lost._repr_html_()
    assert len(lost.frame()) == 2


def test_without_a_test_set_there_is_no_gap(tmp_path: Path):
    report = report_of(tmp_path / "runs", wide, pictures(40), holdout=0.0)
    assert not any("gap" in finding.about for finding in report.findings)
    assert report.frame()["test_accuracy"].isna().all()
    grid = [[entry.text for entry in row] for row in report.grid.rows]
    assert all(row.count("no test set") == 2 for row in grid)
    report.save(tmp_path / "tested")


def test_data_without_a_test_set_gets_one_and_a_choice_says_so(tmp_path: Path):
    report = report_of(tmp_path, wide, pictures(40))
    assert (len(report.data.train), len(report.data.test)) == (32, 8)
    assert any("A share of 0.2 of each class is held out as the test set" in choice for choice in report.choices)


def test_given_images_of_several_sizes_are_made_alike_and_a_choice_says_so(tmp_path: Path):
    random = np.random.default_rng(0)
    images = [random.integers(0, 255, (20 + number % 3, 24, 3), dtype=np.uint8) for number in range(20)]
    report = report_of(tmp_path, wide, (images, [number % 2 for number in range(20)]), epochs=1, holdout=0.0)
    assert report.choices[0] == "The images are read with --resize 64."
    assert report.data.image_shape == (3, 64, 64)
    alike = report_of(tmp_path, wide, pictures(40), epochs=1)
    assert not any("read with" in choice for choice in alike.choices)


def test_too_few_images_have_no_test_set_held_out(tmp_path: Path):
    report = report_of(tmp_path, wide, pictures(4), epochs=1)
    assert (len(report.data.train), report.data.test) == (4, None)
    assert not any("held out" in choice for choice in report.choices)
    with pytest.raises(InputError, match="4 images in 4 classes are too few"):
        report_of(tmp_path, wide, pictures(4), epochs=1, holdout=0.2)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"learning_rate": 0.1}, "unknown option 'learning_rate'; use lr"),
        ({"randomization": "none"}, "use labels and pixels"),
        ({"epoch": 2}, "did you mean 'epochs'"),
    ],
)
def test_an_option_of_a_run_names_the_option_of_a_test_instead(options: dict[str, object], told: str):
    with pytest.raises(InputError, match=told):
        asked_for("mlp_1x512", options)


def test_data_that_is_named_twice_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match="leave dataset out"):
        report_of(tmp_path, wide, pictures(40), dataset="digits")


@pytest.mark.parametrize("wrong", [{"labels": None}, {"lr": None}, {"seeds": None}, {"pixels": None}, {"foo": 1}])
def test_none_is_refused_where_an_option_needs_a_value(wrong, tmp_path: Path):
    with pytest.raises(InputError):
        report_of(tmp_path, wide, pictures(40), **wrong)


def test_a_choice_says_if_the_training_accuracy_is_measured_in_few_epochs(tmp_path: Path):
    told = {}
    for every in (1, 3, None):
        report = report_of(tmp_path / "runs", wide, pictures(40), epochs=4, labels="true", eval_train_every=every)
        told[every] = [choice for choice in report.choices if "exact training accuracy" in choice]
        measured = [one["epoch"] for one in report["true"].metrics if one["exact_train_accuracy"] is not None]
        assert {*measured} >= {*range(every or 4, 5, every or 4), 4}
    assert told[1] == []
    assert told[3] == [
        "The exact training accuracy is measured every 3 epochs and in the last epoch, so the first epoch that fits may"
        " be found late."
    ]
    assert len(told[None]) == 1


@pytest.mark.parametrize(("chosen", "every"), [({}, 3), ({"eval_test_every": 1}, 1), ({"eval_test_every": 2}, 2)])
def test_a_large_test_set_is_measured_rarely_unless_an_option_says_how_often(chosen, every: int, tmp_path: Path):
    """40 training and 100 test images: by default every third epoch."""
    report = report_of(tmp_path, wide, pictures(40), pictures(100, seed=1), epochs=4, labels="true", **chosen)
    measured = [record["epoch"] for record in report["true"].metrics if record["test_accuracy"] is not None]
    assert measured == sorted({*range(every, 5, every), 4})
    said = f"The test accuracy is measured every {every} epochs and in the last epoch."
    assert (said in report.choices) is (every > 1)
    assert ("eval_test_every" in report.test.command) is bool(chosen)


def test_without_a_budget_no_choice_names_one(tmp_path: Path):
    report = report_of(tmp_path, wide, pictures(40), budget=None, epochs=1)
    assert "Each run ends after 1 epoch." in report.choices
    assert not any("together" in choice for choice in report.choices)
    assert "budget='none'" in report.test.command


def test_a_network_with_bound_arguments_has_no_command_line(tmp_path: Path):
    narrow = functools.partial(wide, width=7)
    report = report_of(tmp_path, narrow, "digits", train_subset=40, epochs=1)
    assert report.test.command.startswith("rethinking.randomization_test(network, 'digits', epochs=1")


def test_a_missing_measurement_is_not_shown_as_a_missing_test_set(tmp_path: Path):
    report = report_of(tmp_path, wide, pictures(40), epochs=1)
    run = report["random"]
    early = dataclasses.replace(run, finished=False, metrics=[{**run.metrics[0], "test_accuracy": None}])
    grid = dataclasses.replace(report, outcomes={**report.outcomes, ("random", 0): early}).grid
    assert [entry.text for entry in grid.rows[1]].count("not measured") == 2


def test_own_operators_are_conditions_as_labels_and_as_pixels(tmp_path: Path):
    file = tmp_path / "own.py"
    file.write_text(OPERATORS)
    labels, pixels = f"{file}:Reversed", f"{file}:Negative"
    report = report_of(tmp_path / "runs", wide, pictures(40), labels=("true", labels), pixels=pixels)
    assert list(report) == ["true", labels, pixels]
    assert any(sentence.startswith("wide fits labels of Reversed") for sentence in report.sentences)
    assert any(sentence.startswith("wide fits pixels of Negative") for sentence in report.sentences)
    assert report[labels].final["test_accuracy"] == 0.0, "what is right for the reversed labels is wrong"
    assert report[pixels].final["test_accuracy"] > 0.8
    for wrong, told in (({"labels": (pixels,)}, "changes no labels"), ({"pixels": labels}, "changes no pixels")):
        with pytest.raises(InputError, match=told):
            report_of(tmp_path / "runs", wide, pictures(40), **wrong)


def test_own_operators_of_one_name_are_two_conditions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    for name in ("one", "two"):
        Path(f"{name}.py").write_text(
            OPERATORS.replace("num_classes - 1 - labels", f"labels * 0 + ('{name}' == 'two')")
        )
    asked = ("one.py:Reversed", "two.py:Reversed")
    report = report_of(tmp_path / "runs", wide, pictures(40), epochs=1, labels=asked, holdout=0.0)
    rows = [dict(cell.labels)["trained on"] for cell in report.cells if cell.quantity == "epochs"]
    assert rows == [f"labels of Reversed ({key})" for key in asked]
    assert {cell.seeds for cell in report.cells} == {1}


def test_a_probability_is_the_same_as_a_number_and_as_text(tmp_path: Path):
    first = report_of(tmp_path, wide, pictures(40), labels=(0.5, 1, 0), epochs=1)
    other = report_of(tmp_path, wide, pictures(40), labels=("0.50", "random", "true"), epochs=1)
    assert list(first) == list(other) == ["0.5", "random", "true"]
    assert [run.path for run in first.outcomes.values()] == [run.path for run in other.outcomes.values()]


# In a notebook and in a browser


def test_a_notebook_shows_the_table_the_verdict_and_the_curves(report: Report):
    shown = report._repr_html_()
    assert shown.index("<table>") < shown.index("<ul>") < shown.index("<svg")
    for sentence in report.sentences:
        assert html.escape(sentence) in shown
    assert repr(report) == f"<Report: {report.sentences[0]}>"


def marked_up(num_classes: int, input_shape: tuple[int, int, int]):
    return wide(num_classes, input_shape, width=96)


@pytest.fixture(scope="module")
def with_markup(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """A report on a network and classes whose names are HTML."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("markup")
    images, labels = pictures(40)
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        of_class = folder / "data" / ["<i>cat<", "a&amp;b", "<script>alert(1)", "dog"][label]
        of_class.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(of_class / f"{number}.png")
    catalogue.register("<b>x</b>")(marked_up)
    return report_of(folder / "runs", "<b>x</b>", str(folder / "data"), epochs=2, seeds=(0, 1))


def test_names_with_markup_are_shown_as_they_are(with_markup: Report, tmp_path: Path):
    page = with_markup.save(tmp_path).read_text()
    assert with_markup.network == "<b>x</b>"
    for shown in (page, with_markup._repr_html_()):
        assert "&lt;b&gt;x&lt;/b&gt;" in shown
        assert "<b>x" not in shown
        assert "<script>alert" not in shown
    assert "<script" not in with_markup._repr_html_()


@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1440, "light")])
def test_in_a_browser_the_verdict_stands_before_the_table_and_a_number_opens_its_runs(
    browser: Browser, with_markup: Report, tmp_path: Path, width: int, scheme: Literal["light", "dark"]
):
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
    opened = context.new_page()
    complaints: list[str] = []
    opened.on("console", lambda message: complaints.append(message.text))
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.goto(with_markup.save(tmp_path).as_uri())
    assert opened.title() == opened.locator("h1").inner_text() == with_markup.experiment.title
    findings = opened.locator("ul.findings p")
    assert findings.all_inner_texts() == [finding.sentence for finding in with_markup.findings]
    assert opened.locator("ul.findings code").all_inner_texts() == [
        finding.command for finding in with_markup.findings if finding.command
    ]
    assert findings.last.bounding_box()["y"] < opened.locator("table").first.bounding_box()["y"]
    assert opened.locator("nav a").all_text_contents() == ["Findings", "Numbers", "What ran"]
    assert opened.evaluate("document.documentElement.scrollWidth") <= width
    assert opened.locator("figure canvas").count() == 3, "loss, training and test accuracy"
    assert opened.locator("figure .legend li").all_inner_texts() == ["true labels", "random labels"]
    assert violations(opened) == []
    buttons = opened.locator("section#test table button")
    assert buttons.count() == len(with_markup.cells)
    buttons.first.click()
    panel = opened.locator("dialog[open]")
    for seed in (0, 1):
        assert with_markup.run("true", seed).path.name in panel.inner_text()
    assert with_markup.data.fingerprint in panel.inner_text()
    assert violations(opened) == []
    opened.goto(f"{opened.url.partition('#')[0]}#test-random_labels-gap")
    opened.reload()
    expect(opened.locator(".number.marked")).to_have_attribute("id", "test-random_labels-gap")
    assert "trained on random labels" in opened.locator("dialog[open]").inner_text()
    context.close()
    assert complaints == []
