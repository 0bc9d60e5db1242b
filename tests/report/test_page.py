"""`report.html` in a real browser: it loads, reproduced is there, a number opens the runs behind it."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, Page

from rethinking import cli
from rethinking.config import ExperimentConfig
from rethinking.data import sources
from rethinking.errors import RunError
from rethinking.experiments import archive
from rethinking.experiments.catalogue import EXPERIMENTS
from rethinking.experiments.experiment import Cell, Evidence
from rethinking.experiments.reproduction import Reproduction
from rethinking.experiments.scale import SCALES
from rethinking.options import options_of, parse
from rethinking.report import page as report_page
from rethinking.report import results, tables
from rethinking.theory.kernel_machine import KernelMachineConfig
from rethinking.theory.stability import StabilityConfig
from rethinking.training.preparation import resolve
from tests.conftest import OUT

NAMES = ("table1", "table4", "figure1a", "figure1b", "figure1c")


@pytest.fixture(params=["desktop", "phone in the dark"])
def page(browser: Browser, reproduced: tuple[Path, str], request: pytest.FixtureRequest) -> Iterator[Page]:
    """The report in a window; fails on any message on the console and on any request to a network."""
    dark = request.param != "desktop"
    context = browser.new_context(
        viewport={"width": 390, "height": 800} if dark else {"width": 1200, "height": 900},
        color_scheme="dark" if dark else "light",
    )
    opened = context.new_page()
    complaints: list[str] = []
    opened.on("console", lambda message: complaints.append(message.text))
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.on(
        "request", lambda request: None if request.url[:5] in ("file:", "data:") else complaints.append(request.url)
    )
    opened.goto((reproduced[0] / OUT / "report.html").as_uri())
    yield opened
    context.close()
    assert complaints == []


def test_every_table_and_figure_is_there(page: Page):
    assert page.title() == "Rethinking generalization, reproduced"
    for name in NAMES:
        section = page.locator(f"section#{name}")
        assert section.locator("h2").inner_text() == EXPERIMENTS[name].title
        assert "digits, 1,442 training images, demo scale" in " ".join(section.inner_text().split())
        assert section.locator("table button").count() > 0
        assert section.locator("figure img").count() == name.startswith("figure")
    for image in page.query_selector_all("figure img"):
        assert image.evaluate("image => image.complete && image.naturalWidth") > 300, "a figure does not draw"
    assert page.locator("nav a").count() == len(NAMES) + 4, "and Rademacher complexity, stability, measures and margins"


def test_a_number_of_a_kernel_machine_opens_its_solution(browser: Browser, solved: tuple[Path, str]):
    opened = browser.new_page(viewport={"width": 390, "height": 800})
    complaints: list[str] = []
    opened.on("console", lambda message: complaints.append(message.text))
    opened.goto((solved[0] / OUT / "report.html").as_uri())
    names = ("table3", "table3_filters", "minimum_norm", "minimum_norm_errors", "minimum_norm_sgd")
    assert [section.get_attribute("id") for section in opened.query_selector_all("section")] == list(names)
    assert opened.evaluate("document.documentElement.scrollWidth") <= 390
    for image in opened.query_selector_all("figure img"):
        assert image.evaluate("image => image.complete && image.naturalWidth") > 300
    opened.locator("section#table3 table button").first.click()
    popover = opened.locator("[popover]:popover-open")
    assert "fits every training label" in popover.inner_text()
    assert "python reproduce.py table3 --scale demo --filters 25 400" in popover.inner_text()
    opened.close()
    assert complaints == []


def test_nothing_is_wider_than_the_window(page: Page):
    assert page.evaluate("document.documentElement.scrollWidth") <= page.viewport_size["width"]


def test_a_click_opens_the_configuration_and_the_data_behind_a_number(page: Page, reproduced: tuple[Path, str]):
    cells, _, _ = tables.read_csv(reproduced[0] / OUT / "table1.csv")
    run = archive.read(reproduced[0] / OUT)[cells[0].runs[0]]
    popover = page.locator(f"#{report_page.popover_id(cells[0].runs)}")
    assert not popover.is_visible()
    page.locator("section#table1 table button").first.click()
    assert popover.is_visible()
    text = popover.inner_text()
    assert run.run in text
    assert run.facts["provenance"]["fingerprint"] in text
    assert "digits, 1,442 training images" in text
    assert "python train.py --model mlp_1x512 --dataset digits" in text
    popover.locator("summary").click()
    assert "randomization_seed" in popover.inner_text()
    popover.get_by_role("button", name="Close").click()
    assert not popover.is_visible()


def test_it_works_by_keyboard(page: Page):
    page.locator("section#table1 table button").first.focus()
    page.keyboard.press("Enter")
    assert page.locator("[popover]:popover-open").count() == 1
    page.keyboard.press("Escape")
    assert page.locator("[popover]:popover-open").count() == 0
    assert page.evaluate("document.activeElement.closest('table') !== null"), "the focus is lost"


def test_every_number_has_its_runs(page: Page):
    targets = page.eval_on_selector_all("table button", "all => all.map(each => each.getAttribute('popovertarget'))")
    ids = set(page.eval_on_selector_all("[popover]", "all => all.map(each => each.id)"))
    assert len(targets) > 200
    assert set(targets) <= ids


def test_text_stands_out_from_its_background_in_both_colour_schemes(page: Page):
    colours = page.evaluate("[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]")
    text, background = (sum(int(part) for part in colour.strip("rgb()").split(",")) for colour in colours)
    dark = page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
    assert (text > 600 and background < 100) if dark else (text < 150 and background > 700)


def test_a_screenshot_is_no_empty_page(page: Page):
    picture = page.screenshot(full_page=True)
    _, height = struct.unpack(">II", picture[16:24])
    assert height > 3000
    assert len(picture) > 100_000


def test_the_command_of_a_run_is_the_run_again(reproduced: tuple[Path, str]):
    """Parsed back, a popover's command line gives the configuration it stands beside."""
    data = sources.load("digits")
    for run in archive.read(reproduced[0] / OUT).values():
        if not run.is_of_network:
            continue
        words = report_page.command(run).removeprefix("python train.py ").split()
        config, _ = cli.parse(words)
        assert resolve(config, data).identity() == run.configuration


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", ["table3", "minimum_norm", "expressivity", "rademacher"])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_command_of_what_is_not_trained_is_one_that_has_it(monkeypatch: pytest.MonkeyPatch, name, scale, channels):
    """Whatever the scale: the configuration is among those of the command that stands beside it."""
    dataset = {1: "mnist", 3: "cifar10"}[channels]
    images = np.broadcast_to(np.uint8(0), (60_000, channels, 32, 32))
    train = sources.ImageSet(images, np.zeros(60_000, np.int64))
    data = sources.ImageData(dataset, tuple("0123456789"), "f", train, None)
    monkeypatch.setattr(sources, "load", lambda *_, **__: data)
    if (name, channels) == ("minimum_norm", 3):
        return  # which is of grey images
    for asked in Reproduction(experiment=name, dataset=dataset, scale=scale).configs():
        if isinstance(asked, ExperimentConfig):
            continue
        run = Evidence("run", "", True, asked.identity(), {"dataset": dataset}, (), asked.task)
        words = report_page.command(run).removeprefix("python reproduce.py ").split()
        parsed = Reproduction(**parse(options_of(Reproduction), "reproduce.py", "", words))
        found = {json.dumps(config.identity(), sort_keys=True) for config in parsed.configs()}
        assert json.dumps(asked.identity(), sort_keys=True) in found, words


PROVENANCE = {"fingerprint": "f", "hardware": "a machine", "cpu_threads": 1, "versions": {"torch": "2"}}


def shown_on_the_page(folder: Path, name: str, run: Evidence, cell: Cell) -> dict[str, str]:
    """What the page says of the one run that is behind its one number."""
    tables.write_csv(folder / f"{name}.csv", [cell], "digits", "demo")
    html = report_page.write(folder, {run.run: run}).read_text()
    assert html.count("<dl>") == 2, "what was found, and the configuration"
    return dict(re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", html.split("<details><summary>Configuration")[0]))


def test_the_page_says_of_a_network_what_its_last_epoch_came_to(tmp_path: Path):
    records = [
        {"train_loss": loss, "train_accuracy": online, "exact_train_accuracy": exact, "test_accuracy": tested}
        for loss, online, exact, tested in ((2.5, 0.1, 0.2, 0.3), (0.0625, 0.91, 0.92, 0.53))
    ]
    config = ExperimentConfig(model_name="mlp_1x512", dataset="digits").resolved()
    facts = {"dataset": "digits", "train_images": 1442, "seconds": 12.34, "provenance": PROVENANCE}
    run = Evidence("a-run", "", True, config.identity(), facts, tuple(records))
    labels = (("model", "mlp_1x512"), ("labels", "true"), ("random_crop", "no"), ("weight_decay", "no"))
    cell = Cell(labels, "train accuracy", None, 0.92, None, 1, 1.0, "", ("a-run",))
    shown = shown_on_the_page(tmp_path, "table1", run, cell)
    assert shown["training accuracy"] == "92.00%"
    assert shown["test accuracy"] == "53.00%"
    assert shown["training loss"] == "0.0625"
    assert shown["data"] == "digits, 1,442 training images"
    assert shown["time"] == "12.3 s"


def test_the_page_says_of_a_replaced_example_what_it_changed_in_the_end(tmp_path: Path):
    changes = {
        "mean": [0.1, 0.2],
        "largest": [1.0, 2.0],
        "mean_of_probability": [0.01, 0.02],
        "largest_of_probability": [0.3, 0.4],
    }
    facts = {"dataset": "digits", "train_images": 1442, "seconds": 1.0, "provenance": PROVENANCE, **changes}
    asked = StabilityConfig.of(ExperimentConfig(model_name="mlp_1x512", dataset="digits"), replaced=1)
    run = Evidence("a-run", "", True, asked.identity(), facts, (), asked.task)
    labels = (("model", "mlp_1x512"), ("labels", "true"))
    cell = Cell(labels, "mean change of loss, nats", 1.0, 0.1, None, 1, None, "", ("a-run",))
    shown = shown_on_the_page(tmp_path, "stability", run, cell)
    assert shown["mean change"] == "0.2"
    assert shown["largest change"] == "2"
    assert shown["mean of probability change"] == "0.02"
    assert shown["largest of probability change"] == "0.4"


def test_the_page_says_of_a_kernel_machine_what_its_solution_came_to(tmp_path: Path):
    facts = {"dataset": "digits", "train_images": 1442, "seconds": 1.0, "provenance": PROVENANCE, "memory": "all of it"}
    facts |= {"train_error": 0.01, "test_error": 0.25, "norm": 220.5, "residual": 1e-6, "ridge": 0.5, "jitter": 2e-5}
    facts |= {"interpolates": False, "bandwidth": 3.25, "refinements": 2, "peak_gib": 1.5}
    run = Evidence("a-run", "", True, KernelMachineConfig(dataset="digits").identity(), facts, (), "kernel_machines")
    labels = (("data", "digits"), ("features", "pixels"), ("l2", "no"))
    cell = Cell(labels, "test error", None, 0.25, None, 1, 0.012, "", ("a-run",))
    shown = shown_on_the_page(tmp_path, "table3", run, cell)
    assert (shown["training error"], shown["test error"]) == ("1.00%", "25.00%")
    assert (shown["norm"], shown["residual"], shown["bandwidth"]) == ("220.5", "1e-06", "3.25")
    assert (shown["ridge"], shown["jitter"], shown["refinements"]) == ("0.5", "2e-05", "2")
    assert shown["fits every training label"] == "no"
    assert shown["peak memory, GiB"] == "1.5"


def test_markup_in_a_name_is_text(reproduced: tuple[Path, str], tmp_path: Path):
    """A data set can be called anything."""
    folder = reproduced[0] / OUT
    (tmp_path / "table1.csv").write_text((folder / "table1.csv").read_text().replace("digits", "<b>digits"))
    runs = (run for run in archive.read(folder).values() if run.is_of_network)
    facts = {"dataset": "<b>digits"}
    renamed = [replace(run, run=run.run.replace("digits", "<b>digits"), facts={**run.facts, **facts}) for run in runs]
    html = report_page.write(tmp_path, archive.add(tmp_path, renamed)).read_text()
    assert "<b>digits" not in html
    assert "&lt;b&gt;digits" in html


def test_a_table_of_runs_without_evidence_is_told_in_one_line(reproduced: tuple[Path, str], tmp_path: Path):
    folder = reproduced[0] / OUT
    (tmp_path / "table1.csv").write_text((folder / "table1.csv").read_text())
    with pytest.raises(RunError, match=r"table1\.csv shows mlp_1x512-digits-.* move table1\.\* away"):
        report_page.write(tmp_path, {})


def test_the_caption_names_the_data_the_precision_and_the_machine(reproduced: tuple[Path, str]):
    kept = archive.read(reproduced[0] / OUT)
    cells, _, _ = tables.read_csv(reproduced[0] / OUT / "table1.csv")
    caption = results.caption(EXPERIMENTS["table1"], cells, kept, "demo")
    provenance = kept[cells[0].runs[0]].facts["provenance"]
    for part in ("digits (1,442 training images)", "1 seed,", provenance["hardware"], provenance["precision"]):
        assert part in caption
