"""`report.html` in a real browser: summary, contents, numbers with their addresses and runs, copying and figures."""

from __future__ import annotations

import json
import re
import struct
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, Locator, Page, expect

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
from rethinking.report import charts, commands, results, sections, tables
from rethinking.report import page as report_page
from rethinking.theory.kernel_machine import KernelMachineConfig
from rethinking.theory.stability import StabilityConfig
from rethinking.training.preparation import resolve
from tests.conftest import OUT, ROOT, violations

NAMES = ("table1", "table4", "figure1a", "figure1b", "figure1c")
WINDOWS = {  # each size and each colour scheme once
    f"{width} {scheme}": {"viewport": {"width": width, "height": 850}, "color_scheme": scheme, "has_touch": width < 500}
    for width, scheme in ((1440, "light"), (390, "dark"))
}
HANGING = 1_200_000  # ms
expect.set_options(timeout=HANGING)
Opened = Callable[..., Page]


@pytest.fixture(params=WINDOWS)
def opened(browser: Browser, request: pytest.FixtureRequest) -> Iterator[Opened]:
    """Opens a file in a window of each size and colour scheme. Any message on the console, or request, is a failure."""
    complaints: list[str] = []
    contexts = []

    def is_local(url: str) -> bool:
        return url[:5] in ("file:", "data:")

    def open_page(path: Path, fragment: str = "", script: str = "", **options: Any) -> Page:
        contexts.append(browser.new_context(**{**WINDOWS[request.param], **options}))
        contexts[-1].set_default_timeout(HANGING)
        page = contexts[-1].new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda asked: None if is_local(asked.url) else complaints.append(asked.url))
        if script:
            page.add_init_script(script)
        page.goto(path.as_uri() + fragment)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


@pytest.fixture
def page(opened: Opened, reproduced: tuple[Path, str]) -> Page:
    """The page of the demo reproduction."""
    return opened(reproduced[0] / OUT / "report.html")


@pytest.fixture(scope="module")
def beside_the_paper(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of the results on CIFAR-10, which has the paper's numbers, several seeds and an unfinished run."""
    folder = ROOT / "results/cifar10"
    path = tmp_path_factory.mktemp("cifar10") / "report.html"
    path.write_text(report_page.as_html(folder, archive.read(folder)))
    return path


@pytest.fixture
def page_beside_the_paper(opened: Opened, beside_the_paper: Path) -> Page:
    """The page of the results on CIFAR-10, open."""
    return opened(beside_the_paper)


def panel_of(page: Page) -> Locator:
    """The panel of a number, open."""
    panel = page.locator("dialog[open]")
    expect(panel).to_be_visible()
    return panel


def is_in_sight(page: Page, found: Locator) -> bool:
    """Whether the middle of an element is in the window, and nothing lies over it but the dialog's backdrop."""
    return found.evaluate(
        """found => {
            const {x, y, width, height} = found.getBoundingClientRect();
            const [left, top] = [x + width / 2, y + height / 2];
            const panel = document.querySelector("dialog[open]"), box = panel?.getBoundingClientRect();
            if (box && left > box.left && left < box.right && top > box.top && top < box.bottom) return false;
            panel?.close(); // what a modal dialog makes inert, nothing finds
            const seen = document.elementFromPoint(left, top);
            panel?.showModal();
            return seen !== null && found.contains(seen);
        }"""
    )


# The whole


def test_every_table_and_figure_is_there(page: Page):
    assert page.title() == "Rethinking generalization, reproduced"
    for name in NAMES:
        section = page.locator(f"section#{name}")
        assert section.locator("h2").inner_text() == EXPERIMENTS[name].title
        assert "digits, 1,442 training images, demo scale" in " ".join(section.inner_text().split())
        assert section.locator("table button.number").count() > 0
        assert section.locator("figure canvas").count() == name.startswith("figure")


def test_nothing_is_wider_than_the_window(page: Page):
    assert page.evaluate("document.documentElement.scrollWidth") <= page.viewport_size["width"]


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


def test_no_text_is_smaller_than_11_pixels(opened: Opened, beside_the_paper: Path):
    """In the page and in its figures, whose text is drawn."""
    record = """
        const draw = CanvasRenderingContext2D.prototype.fillText;
        window.drawn = [];
        CanvasRenderingContext2D.prototype.fillText = function (text, ...rest) {
            drawn.push([text, parseFloat(this.font.match(/([\\d.]+)px/)[1]) / devicePixelRatio]);
            return draw.call(this, text, ...rest);
        };"""
    page = opened(beside_the_paper, script=record.replace("\\\\", "\\"))
    drawn = page.evaluate("drawn")
    assert {"2.5", "100%"} <= {text for text, _ in drawn}
    assert min(size for _, size in drawn) >= 11
    sizes = page.evaluate(
        """[...document.querySelectorAll("body *")]
            .filter(one => [...one.childNodes].some(child => child.nodeType === 3 && child.data.trim()))
            .filter(one => one.checkVisibility())
            .map(one => parseFloat(getComputedStyle(one).fontSize))"""
    )
    assert min(sizes) >= 11


def test_axe_finds_nothing_to_mend(opened: Opened, reproduced: tuple[Path, str], beside_the_paper: Path):
    for path in (reproduced[0] / OUT / "report.html", beside_the_paper):
        page = opened(path)
        for state in ("closed", "open"):
            if state == "open":
                page.locator("button.number").first.click()
                panel_of(page)
            found = [(one["id"], one["impact"], len(one["nodes"])) for one in violations(page)]
            assert found == [], f"{path}, panel {state}"


def test_a_printed_page_is_one_column_of_dark_text_with_every_row(opened: Opened, beside_the_paper: Path):
    page = opened(beside_the_paper)
    page.set_viewport_size({"width": 1440, "height": 850})
    page.emulate_media(media="print")
    colour = page.evaluate("getComputedStyle(document.body).color")
    assert sum(map(int, re.findall(r"\d+", colour))) < 150
    assert page.locator("main").bounding_box()["width"] > 1000, "beside no contents"
    assert page.locator("section#figure1a tbody tr").locator("visible=true").count() == 5 * 70
    assert page.locator("nav, button.unfold, button.copy").locator("visible=true").count() == 0
    page.set_viewport_size({"width": 703, "height": 1000})  # what margins of 12 mm leave on A4
    assert page.locator("section#table1 table").bounding_box()["width"] <= 703


def test_figures_print_in_light_colours_and_go_back(opened: Opened, beside_the_paper: Path):
    page = opened(beside_the_paper)
    page.evaluate(
        """() => {
            window.printed = [];
            for (const event of ["beforeprint", "afterprint"]) addEventListener(event, () => {
                const u = document.querySelector("figure .plot").plots[0];
                const widths = [...document.querySelectorAll(".uplot")].map(one => one.getBoundingClientRect().width);
                printed.push([event, u.series[1].stroke(u, 1), Math.max(...widths)]);
            });
        }"""
    )
    before = page.evaluate(f"(() => {{ const u = ({PLOTS})[0]; return u.series[1].stroke(u, 1) }})()")
    page.pdf(format="A4")
    (first, inside, width), (last, after, _) = page.evaluate("printed")
    assert (first, last) == ("beforeprint", "afterprint")
    assert inside == "#1f6fb5"
    assert after == before
    assert width <= 703


# Summary and contents


def test_the_summary_says_what_ran_and_how_far_it_agrees(opened: Opened, beside_the_paper: Path):
    page = opened(beside_the_paper)
    summary = page.locator("section#the-summary")
    text = " ".join(summary.inner_text().split())
    kept = archive.read(ROOT / "results/cifar10").values()
    networks = sum(run.is_of_network for run in kept)
    commits = Counter(run.facts["provenance"]["commit"] for run in kept if "commit" in run.facts["provenance"])
    assert networks > 50
    assert sum(not run.finished for run in kept) == 1
    for said in (
        f"{networks} trained networks",
        "1 of these is not finished",
        "cifar10, 100 to 50,000 training images",
    ):
        assert said in text
    for commit, count in commits.items():
        assert f"{commit} ({count} run{'s' * (count > 1)})" in text
    undated = sum("date" not in run.facts["provenance"] for run in kept)
    assert 0 < undated < len(kept)
    assert re.search(rf"Date 2026-\d\d-\d\d {undated} runs without a date", text)
    urls = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["urls"]
    link = summary.locator("a", has_text="Where the results differ").get_attribute("href")
    assert link == f"{urls['Documentation']}differences.html", (
        "as the site, which opens from files too, names its pages"
    )
    cells, _, _ = tables.read_csv(ROOT / "results/cifar10/table1.csv")
    tested = [cell for cell in cells if cell.quantity == "test accuracy"]
    near = sum(abs(cell.difference) <= 0.01 for cell in tested)
    row = summary.locator("tr", has_text="test accuracy").first
    assert f"{near} of {len(tested)}" in row.inner_text()
    assert "1 point" in row.inner_text()
    largest = max(tested, key=lambda cell: abs(cell.difference))
    link = row.locator("td a")
    assert link.inner_text() == f"{100 * largest.difference:+.2f} points ({largest.note})", "of an unfinished run"
    link.click()
    assert f"{largest.ours:.2%}" in panel_of(page).inner_text()


def test_without_the_papers_images_no_agreement_is_claimed(page: Page):
    text = page.locator("section#the-summary").inner_text()
    assert "agree with" not in text
    assert "none for these images" in text


def test_a_day_is_named_where_runs_have_kept_it(page: Page, reproduced: tuple[Path, str]):
    days = sorted({run.facts["provenance"]["date"] for run in archive.read(reproduced[0] / OUT).values()})
    text = page.locator("dl.glance").inner_text()
    assert all(day in text for day in (days[0], days[-1]))


def test_the_contents_name_every_section_apart_and_stay_at_hand(page: Page):
    links = page.locator("nav a")
    names = [name.strip() for name in links.all_text_contents()]
    assert len(names) == len(set(names)) == page.locator("main section").count()
    assert max(map(len, names)) <= sections.LETTERS
    assert {"Summary", "Table 1", "Figure 1a", "Rademacher complexity", "Complexity margins"} <= set(names)
    page.locator("section").last.scroll_into_view_if_needed()
    if page.viewport_size["width"] < 500:
        menu = page.locator("nav button")
        assert is_in_sight(page, menu)
        assert not links.first.is_visible()
        menu.click()
    link = links.filter(has_text="Table 4")
    assert is_in_sight(page, link)
    link.click()
    page.wait_for_function("() => document.querySelector('#table4').getBoundingClientRect().top < innerHeight / 3")
    expect(page.locator("nav [aria-current]")).to_have_text("Table 4")
    assert links.first.is_visible() == (page.viewport_size["width"] > 500), "the menu closes behind the reader"


def test_the_menu_of_a_phone_closes_by_escape(opened: Opened, reproduced: tuple[Path, str]):
    page = opened(reproduced[0] / OUT / "report.html", viewport={"width": 390, "height": 800})
    menu = page.locator("nav button")
    menu.focus()
    page.keyboard.press("Enter")
    assert menu.get_attribute("aria-expanded") == "true"
    page.keyboard.press("Tab")
    page.keyboard.press("Escape")
    assert menu.get_attribute("aria-expanded") == "false"
    expect(menu).to_be_focused()


# Tables


def test_each_factor_has_a_column_of_its_own(opened: Opened, beside_the_paper: Path):
    page = opened(beside_the_paper)
    head = page.locator("section#table1 thead")
    assert head.locator("th.factor").all_inner_texts() == ["model", "labels", "random crop", "weight decay"]
    row = page.locator("section#table1 tbody tr", has=page.locator("#table1-mlp_3x512-true-weight_decay-test"))
    assert row.locator("th, td.factor").all_inner_texts() == ["mlp_3x512", "true", "no", "yes"]
    assert page.locator("section#figure1a th.factor").all_inner_texts() == ["condition", "epoch"], "the model is common"
    assert "model is small_inception" in page.locator("section#figure1a").inner_text()
    for column in ("paper", "difference"):
        assert head.locator("th", has_text=column).count() == 2
    of_copy = opened(ROOT / "results/cifar10_jpeg/report.html")
    for where, span in ((page, "3"), (of_copy, None)):
        norm = where.locator("section#table3 thead th", has_text="norm")
        assert norm.get_attribute("colspan") == span, "the paper has norms on MNIST alone: no empty columns"


def test_seeds_and_spread_are_explained_where_they_stand(opened: Opened, page: Page, beside_the_paper: Path):
    text = page.locator("section#rademacher").inner_text()
    assert "Numbers with ± are the mean ± standard error over" in text
    assert "draws." in text
    assert "Each number comes from one seed." in page.locator("section#table1").inner_text()
    page = opened(beside_the_paper, "#table1-mlp_3x512-random-test")
    said = "Numbers with ± are the mean ± standard deviation over 3 seeds. Numbers without ± come from one seed."
    assert said in page.locator("section#table1").inner_text()
    assert "n = 3: mean ± standard deviation over seeds" in panel_of(page).inner_text()


def test_a_long_table_is_folded_and_unfolds(opened: Opened, beside_the_paper: Path):
    page = opened(beside_the_paper)
    section = page.locator("section#figure1a")
    rows, fold = section.locator("tbody tr"), section.locator("button.unfold")
    assert rows.count() == 5 * 70
    assert rows.locator("visible=true").count() == 5 * 3, "the first, the tenth and the last epoch"
    assert fold.inner_text() == "Show all 350 rows"
    fold.click()
    assert rows.locator("visible=true").count() == 350
    assert fold.get_attribute("aria-expanded") == "true"
    fold.click()
    assert rows.locator("visible=true").count() == 5 * 3
    assert page.locator("section#table1 button.unfold").count() == 0


def test_a_wide_table_shows_that_it_scrolls_and_keeps_its_first_column(opened: Opened, beside_the_paper: Path):
    page = opened(beside_the_paper, viewport={"width": 390, "height": 800})
    wide = page.locator("section#table1 .wide")
    first = wide.locator("tbody th").first
    expect(wide).to_have_class(re.compile("more-right"))
    left = first.bounding_box()["x"]
    wide.locator(".scroller").evaluate("found => { found.scrollLeft = 120 }")
    expect(wide).to_have_class(re.compile("more-left"))
    assert first.bounding_box()["x"] == left
    wide.locator(".scroller").evaluate("found => { found.scrollLeft = 10000 }")
    expect(wide).not_to_have_class(re.compile("more-right"))


# Numbers, their addresses and their panels


def test_an_address_leads_to_its_number_marks_it_and_opens_its_panel(opened: Opened, beside_the_paper: Path):
    page = opened(beside_the_paper, "#table1-mlp_3x512-random-test")
    cells, _, _ = tables.read_csv(ROOT / "results/cifar10/table1.csv")
    labels = {"model": "mlp_3x512", "labels": "random", "random_crop": "no", "weight_decay": "no"}
    (cell,) = [cell for cell in cells if dict(cell.labels) == labels and cell.quantity == "test accuracy"]
    number = page.locator(".number.marked")
    assert number.inner_text() == f"{cell.ours:.2%} ± {100 * cell.std:.2f}"
    text = panel_of(page).inner_text()
    assert f"{cell.ours:.2%} ± {100 * cell.std:.2f}" in text
    assert f"paper {cell.paper:.2%} · difference" in text
    assert all(run in text for run in cell.runs)
    assert is_in_sight(page, number), "beside the panel"


def test_an_address_unfolds_the_table_that_hides_its_number(opened: Opened, beside_the_paper: Path):
    page = opened(beside_the_paper, "#figure1a-small_inception-random_pixels-33-training_loss")
    number = page.locator(".number.marked")
    assert is_in_sight(page, number)
    assert "epoch 33" in panel_of(page).inner_text()
    assert page.locator("section#figure1a button.unfold").get_attribute("aria-expanded") == "true"


def test_a_number_that_is_opened_is_in_the_address_and_a_later_address_opens_another(page: Page):
    page.locator("#table1-mlp_1x512-random-train").click()
    assert page.evaluate("location.hash") == "#table1-mlp_1x512-random-train"
    assert panel_of(page).locator("h2").inner_text() == "Table 1: train accuracy"
    page.evaluate("location.hash = '#figure1c-mlp_1x512-0-test'")
    expect(panel_of(page).locator("h2")).to_have_text("Figure 1c: test error")
    assert page.locator(".number.marked").get_attribute("id") == "figure1c-mlp_1x512-0-test"


def test_back_from_a_number_leads_to_where_the_reader_was(opened: Opened, beside_the_paper: Path):
    page = opened(beside_the_paper)
    page.locator("#table4").scroll_into_view_if_needed()
    page.locator("section#table4 button.number").first.click()
    panel_of(page).get_by_role("button", name="Close").click()
    before = page.evaluate("scrollY")
    page.locator("section#the-summary td a").first.evaluate("link => link.click()")
    expect(page.locator("section#table4 .number.marked")).to_have_count(0)
    panel_of(page)
    page.go_back()
    expect(page.locator("section#table4 .number.marked")).to_have_count(1)
    panel_of(page)
    page.go_back()
    expect(page.locator("dialog[open], .number.marked")).to_have_count(0)
    assert page.evaluate("location.hash") == ""
    assert abs(page.evaluate("scrollY") - before) < page.viewport_size["height"]


@pytest.mark.parametrize("key", ["ctrlKey", "metaKey", "shiftKey", "altKey"])
def test_a_click_with_a_key_is_the_browsers(opened: Opened, beside_the_paper: Path, key: str):
    page = opened(beside_the_paper)
    prevented = page.locator("section#the-summary td a").first.evaluate(
        """(link, key) => {
            let prevented;
            addEventListener("click", event => { prevented = event.defaultPrevented; event.preventDefault(); });
            link.dispatchEvent(new MouseEvent("click", {bubbles: true, cancelable: true, [key]: true}));
            return prevented;
        }""",
        key,
    )
    assert prevented is False
    assert page.locator("dialog[open]").count() == 0


def test_an_address_that_nothing_has_does_no_harm(opened: Opened, beside_the_paper: Path):
    for fragment in ("#no-such-number", "#%E4", "#", "#table1"):
        page = opened(beside_the_paper, fragment)
        assert page.locator("dialog[open]").count() == 0
        assert page.locator("figure canvas").count() > 0


def test_a_click_opens_the_configuration_and_the_data_behind_a_number(page: Page, reproduced: tuple[Path, str]):
    cells, _, _ = tables.read_csv(reproduced[0] / OUT / "table1.csv")
    run = archive.read(reproduced[0] / OUT)[cells[0].runs[0]]
    assert page.locator("dialog[open]").count() == 0
    page.locator("section#table1 table button").first.click()
    panel = panel_of(page)
    text = panel.inner_text()
    assert run.run in text
    assert run.facts["provenance"]["fingerprint"] in text
    assert "digits, 1,442 training images" in text
    assert "python train.py --model mlp_1x512 --dataset digits" in text
    panel.locator("summary").click()
    assert "randomization_seed" in panel.inner_text()
    panel.get_by_role("button", name="Close").click()
    assert page.locator("dialog[open]").count() == 0


def test_a_number_of_a_kernel_machine_opens_its_solution(opened: Opened, solved: tuple[Path, str]):
    page = opened(solved[0] / OUT / "report.html")
    names = ["the-summary", "table3", "table3_filters", "minimum_norm", "minimum_norm_errors", "minimum_norm_sgd"]
    assert [section.get_attribute("id") for section in page.query_selector_all("section")] == names
    assert page.evaluate("document.documentElement.scrollWidth") <= page.viewport_size["width"]
    page.locator("section#table3 table button").first.click()
    text = panel_of(page).inner_text()
    assert "fits every training label" in text
    assert "python reproduce.py table3 --scale demo --filters 25 400" in text


def test_it_works_by_keyboard(page: Page):
    number = page.locator("section#table1 table button").first
    number.focus()
    page.keyboard.press("Enter")
    panel = panel_of(page)
    assert page.evaluate("document.activeElement.closest('dialog') !== null")
    for _ in range(12):
        page.keyboard.press("Tab")
        outside = "!document.activeElement.closest('dialog') && document.activeElement !== document.body"
        assert not page.evaluate(outside), "the focus leaves the panel"
    page.keyboard.press("Escape")
    expect(panel).to_have_count(0)
    expect(number).to_be_focused()


def test_a_click_beside_the_panel_closes_it_and_gives_the_focus_back(page: Page):
    number = page.locator("section#table1 table button").last
    number.click()
    left = panel_of(page).bounding_box()["x"]
    width = page.viewport_size["width"]
    page.mouse.click(*((width / 2, 60) if width < 500 else (width - 40, 400) if left < 10 else (40, 400)))
    assert page.locator("dialog[open]").count() == 0
    expect(number).to_be_focused()


def test_every_number_has_its_runs(page: Page):
    data = json.loads(page.locator("#the-data").text_content())
    groups = page.eval_on_selector_all("table button.number", "all => all.map(each => Number(each.dataset.runs))")
    assert len(groups) > 200
    assert set(groups) == set(range(len(data["groups"])))
    assert {run for group in data["groups"] for run in group} == set(range(len(data["runs"])))


def test_a_command_is_copied_by_a_click(page: Page):
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.locator("section#table1 table button").first.click()
    command = panel_of(page).locator(".command").first
    command.get_by_role("button").click()
    expect(command.get_by_role("button")).to_have_text("Copied")
    expect(page.locator("dialog [role=status]")).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == command.locator("code").inner_text()
    panel_of(page).get_by_role("button", name="Copy link to this number").click()
    expect(panel_of(page).locator(".actions button")).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == page.url
    expect(command.get_by_role("button")).to_have_text("Copy")


def test_a_second_click_on_copy_keeps_its_label(page_beside_the_paper: Page):
    page = page_beside_the_paper
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.locator("section#table1 button.number").first.click()
    button = panel_of(page).locator(".command button").first
    for _ in range(2):
        button.click()
        expect(button).to_have_text("Copied")
    expect(button).to_have_text("Copy")


def test_a_status_is_emptied_before_it_is_filled_again(page_beside_the_paper: Page):
    page = page_beside_the_paper
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.locator("section#table1 button.number").first.click()
    panel_of(page)
    page.evaluate(
        """() => {
            window.told = [];
            const status = document.querySelector("dialog [role=status]");
            new MutationObserver(() => told.push(status.textContent)).observe(status, { childList: true });
        }"""
    )
    for times in (1, 2):
        panel_of(page).locator(".command button").first.click()
        page.wait_for_function("times => told.filter(text => text === 'Copied').length === times", arg=times)
    assert page.evaluate("told.slice(-3)") == ["Copied", "", "Copied"]


def test_the_name_of_a_button_tells_its_row_and_its_quantity(page_beside_the_paper: Page):
    number = page_beside_the_paper.locator("#table1-mlp_3x512-random-test")
    assert number.get_attribute("aria-label") == f"mlp_3x512, random, test accuracy: {number.inner_text()}"
    along = page_beside_the_paper.locator("#figure1a-small_inception-random_pixels-1-training_loss")
    assert along.get_attribute("aria-label").startswith("random_pixels, epoch 1, training loss: ")
    assert page_beside_the_paper.locator("tbody wbr").count() == 0, "which screen readers read as a space"
    assert page_beside_the_paper.get_by_text("Each number of ours, in blue, is a button.").is_visible()


def test_a_table_may_be_called_anything(tmp_path: Path, opened: Opened):
    folder, name = ROOT / "results/cifar10", "my 50%"
    (tmp_path / f"{name}.csv").write_text((folder / "figure1c.csv").read_text())
    page = opened(report_page.write(tmp_path, archive.read(folder), {name: EXPERIMENTS["figure1c"]}))
    assert page.locator("section#my_50 figure canvas").count() == 1
    assert page.locator("nav a").evaluate_all("links => links.map(link => link.hash)") == ["#the-summary", "#my_50"]
    assert page.evaluate("[...document.querySelectorAll('[id]')].filter(one => /\\s/.test(one.id)).length") == 0
    page.locator("button.number").first.click()
    address = page.evaluate("location.hash")
    assert address.startswith("#my_50-")
    panel_of(page).get_by_role("button", name="Close").click()
    page.locator("section#the-summary table th a").first.click()
    assert page.evaluate("location.hash") == "#my_50"


def test_a_command_is_selected_where_the_clipboard_is_refused(opened: Opened, reproduced: tuple[Path, str]):
    refused = "navigator.clipboard.writeText = () => Promise.reject(); document.execCommand = () => false"
    page = opened(reproduced[0] / OUT / "report.html", script=refused)
    page.locator("section#table1 table button").first.click()
    command = panel_of(page).locator(".command").first
    command.get_by_role("button").click()
    expect(command.get_by_role("button")).to_have_text("Selected")
    assert page.evaluate("getSelection().toString()").strip() == command.locator("code").inner_text()


# Figures

PLOTS = "[...document.querySelectorAll('figure .plot')].flatMap(box => box.plots)"


def test_no_point_on_an_axis_is_cut(opened: Opened, beside_the_paper: Path):
    page = opened(beside_the_paper)
    margins = page.evaluate(
        PLOTS
        + """.map(u => {
            const places = u.data.slice(1).flatMap((y, series) => [...y].flatMap((value, index) =>
                value == null || !u.series[series + 1].points.show() ? []
                    : [[u.valToPos(u.data[0][index], "x"), u.valToPos(value, "y")]]));
            const [x, y] = [0, 1].map(axis => places.map(place => place[axis]));
            return x.length ? Math.min(...x, ...y, u.over.clientWidth - Math.max(...x),
                u.over.clientHeight - Math.max(...y)) : 100;
        })"""
    )
    assert len(margins) > 6
    assert min(margins) >= 4.5, "the radius of a point"


def test_hover_and_tap_give_the_values_with_their_names_and_units(opened: Opened, beside_the_paper: Path):
    page = opened(beside_the_paper)
    cells, _, _ = tables.read_csv(ROOT / "results/cifar10/figure1c.csv")
    (cell,) = [one for one in cells if dict(one.labels)["model"] == "mlp_1x512" and one.x == 0.5]
    plot = page.locator("section#figure1c .u-over")
    plot.scroll_into_view_if_needed()
    values = page.locator("section#figure1c .values")
    assert not values.is_visible()
    left, top = plot.evaluate(
        "over => { const u = over.closest('.plot').plots[0], box = over.getBoundingClientRect();"
        " return [box.x + u.valToPos(0.5, 'x') + 3, box.y + 40] }"
    )
    if page.viewport_size["width"] < 500:
        page.touchscreen.tap(left, top)
    else:
        page.mouse.move(left, top)
    expect(values).to_be_visible()
    text = " ".join(values.inner_text().split())
    assert "label corruption 0.5" in text
    assert f"mlp 1x512 {cell.ours:.2%}" in text
    assert f"{cell.paper:.2%}" in text
    box = values.bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= page.viewport_size["width"]


def test_numbers_are_written_with_four_digits(page_beside_the_paper: Page):
    values = [0.00149, 0.0034, 0.25, 32000, 1234567, 3e-7, 0]
    written = [
        "0.00149",
        "0.0034",
        "0.25",
        "32,000",
        "1.23\N{MULTIPLICATION SIGN}10⁶",
        "3\N{MULTIPLICATION SIGN}10⁻⁷",
        "0",
    ]
    assert page_beside_the_paper.evaluate("values => values.map(short)", values) == written


def test_values_stand_under_the_plot_of_a_phone_name_seeds_and_count_what_they_leave_out(
    opened: Opened, tmp_path: Path
):
    folder = ROOT / "results/cifar10"
    (tmp_path / "table1.csv").write_bytes((folder / "table1.csv").read_bytes())
    front = report_page.Front("A test", (("A finding.", ""),), "")
    page = opened(report_page.write(tmp_path, archive.read(folder), front=front))
    over = page.locator(".u-over").first
    over.scroll_into_view_if_needed()
    plot, phone = over.bounding_box(), page.viewport_size["width"] < 500
    at = (plot["x"] + 6, plot["y"] + 40)
    page.touchscreen.tap(*at) if phone else page.mouse.move(*at)
    values = page.locator(".values").first
    expect(values).to_be_visible()
    text = values.inner_text()
    curves = data_of(page.content())["charts"]["table1"]["panels"][0]["curves"]
    assert len(curves) > 10
    assert f"and {len(curves) - 10} more" in text
    assert "seed 1" in text
    assert (values.bounding_box()["y"] >= plot["y"] + plot["height"]) == phone


def test_labels_and_legends_have_room_on_a_narrow_window(opened: Opened, beside_the_paper: Path):
    page = opened(beside_the_paper, viewport={"width": 320, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 320
    page.locator(".legend li").first.evaluate("one => one.append(' with a name of many words'.repeat(4))")
    assert page.evaluate("document.documentElement.scrollWidth") <= 320


def test_the_last_label_of_an_axis_ends_in_the_figure(opened: Opened, tmp_path: Path):
    record = """
        const draw = CanvasRenderingContext2D.prototype.fillText;
        window.ends = [];
        CanvasRenderingContext2D.prototype.fillText = function (text, x, ...rest) {
            const half = this.measureText(text).width / 2;
            if (this.textAlign === "center") ends.push([text, (x + half) / this.canvas.width]);
            return draw.call(this, text, x, ...rest);
        };"""
    folder = ROOT / "results/cifar10_jpeg"
    (tmp_path / "report.html").write_text(report_page.as_html(folder, archive.read(folder)))
    ends = opened(tmp_path / "report.html", script=record).evaluate("ends")
    assert "32,000" in {text for text, _ in ends}, "the most filters"
    assert max(end for _, end in ends) <= 1, max(ends, key=lambda one: one[1])


def test_figures_follow_the_colour_scheme_when_it_changes(opened: Opened, beside_the_paper: Path):
    page = opened(beside_the_paper)
    stroke = f"(() => {{ const u = ({PLOTS})[0]; return [u.series[1].stroke(u, 1), u.axes[0].stroke(u, 0)] }})()"
    wanted = (
        "['--curve-0', '--soft'].map(name => getComputedStyle(document.documentElement).getPropertyValue(name).trim())"
    )
    found = []
    for scheme in ("light", "dark", "light"):
        page.emulate_media(color_scheme=scheme)
        page.wait_for_function(
            f"() => matchMedia('(prefers-color-scheme: {scheme})').matches && `${{{stroke}}}` === `${{{wanted}}}`"
        )
        found.append(page.evaluate(stroke))
    assert found[0] == found[2]
    assert all(light != dark for light, dark in zip(*found[:2], strict=True))


def test_curves_and_text_have_enough_contrast_in_both_colour_schemes(opened: Opened, beside_the_paper: Path):
    page = opened(beside_the_paper)
    names = ["--back", "--text", "--soft", "--link", *(f"--curve-{number}" for number in range(charts.COLOURS))]
    colours = page.evaluate(
        "names => names.map(name => getComputedStyle(document.documentElement).getPropertyValue(name).trim())", names
    )

    def luminance(colour: str) -> float:
        digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
        parts = [int(digits[place : place + 2], 16) / 255 for place in (0, 2, 4)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))

    back, *others = map(luminance, colours)
    contrast = [(max(back, one) + 0.05) / (min(back, one) + 0.05) for one in others]
    assert min(contrast[:3]) >= 4.5
    assert min(contrast[3:]) >= 3


def test_the_legend_names_every_curve_and_the_figure_says_what_it_draws(opened: Opened, beside_the_paper: Path):
    page = opened(beside_the_paper)
    figure = page.locator("section#figure1b figure")
    assert figure.locator(".legend li").all_inner_texts() == ["small inception", "mlp 1x512", "the paper, CIFAR-10"]
    label = figure.locator("[role=img]").get_attribute("aria-label")
    assert "relative time to overfit" in label or "time to overfit" in label
    assert "mlp 1x512" in label
    assert "The numbers are in the table below." in label
    assert "Bands: one standard deviation around the mean." in figure.inner_text()
    assert page.evaluate(PLOTS + ".some(u => u.bands.length > 0)")


def test_the_page_of_ones_own_test_says_where_its_numbers_are(opened: Opened, tmp_path: Path):
    folder = ROOT / "results/cifar10"
    (tmp_path / "table1.csv").write_bytes((folder / "table1.csv").read_bytes())
    front = report_page.Front("A test", (("A finding.", ""),), "")
    page = opened(report_page.write(tmp_path, archive.read(folder), front=front))
    said = "The table below has the numbers of the last epoch; epochs.csv beside this page has every epoch."
    assert page.locator("figure [role=img]").get_attribute("aria-label").endswith(said)
    assert page.locator("p.unscripted").inner_text().endswith(said)
    assert "The numbers are in the table below." not in page.content()


def test_without_script_the_tables_stay_and_a_line_says_what_is_missing(opened: Opened, beside_the_paper: Path):
    page = opened(beside_the_paper, java_script_enabled=False)
    assert page.locator("section#figure1a tbody tr").locator("visible=true").count() == 350
    assert page.get_by_text("The figure needs JavaScript").first.is_visible()
    assert page.locator("figure").locator("visible=true").count() == 0
    assert page.locator("button.unfold, button.copy").locator("visible=true").count() == 0


# What it says about runs


def test_the_command_of_a_run_is_the_run_again(reproduced: tuple[Path, str]):
    """Parsed back, a popover's command line gives the configuration it stands beside."""
    data = sources.load("digits")
    for run in archive.read(reproduced[0] / OUT).values():
        if not run.is_of_network:
            continue
        words = commands.command(run).removeprefix("python train.py ").split()
        config, _ = cli.parse(words)
        assert resolve(config, data).identity() == run.configuration


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize(
    ("name", "channels"),
    [
        ("minimum_norm", 1),  # which is of grey images
        *((name, channels) for name in ("table3", "expressivity", "rademacher") for channels in (1, 3)),
    ],
)
def test_the_command_of_what_is_not_trained_is_one_that_has_it(monkeypatch: pytest.MonkeyPatch, name, scale, channels):
    """Whatever the scale: the configuration is among those of the command that stands beside it."""
    dataset = {1: "mnist", 3: "cifar10"}[channels]
    images = np.broadcast_to(np.uint8(0), (60_000, channels, 32, 32))
    train = sources.ImageSet(images, np.zeros(60_000, np.int64))
    data = sources.ImageData(dataset, tuple("0123456789"), "f", train, None)
    monkeypatch.setattr(sources, "load", lambda *_, **__: data)
    configs = Reproduction(experiment=name, dataset=dataset, scale=scale).configs()
    not_trained = [config for config in configs if not isinstance(config, ExperimentConfig)]
    assert not_trained
    for asked in not_trained:
        run = Evidence("run", "", True, asked.identity(), {"dataset": dataset}, (), asked.task)
        words = commands.command(run).removeprefix("python reproduce.py ").split()
        parsed = Reproduction(**parse(options_of(Reproduction), "reproduce.py", "", words))
        found = {json.dumps(config.identity(), sort_keys=True) for config in parsed.configs()}
        assert json.dumps(asked.identity(), sort_keys=True) in found, words


PROVENANCE = {"fingerprint": "f", "hardware": "a machine", "cpu_threads": 1, "versions": {"torch": "2"}}


def shown_on_the_page(folder: Path, name: str, run: Evidence, cell: Cell) -> dict[str, str]:
    """What the page says of the one run that is behind its one number."""
    tables.write_csv(folder / f"{name}.csv", [cell], "digits", "demo")
    html = report_page.write(folder, {run.run: run}).read_text()
    (shown,) = data_of(html)["runs"]
    assert shown["configuration"] == run.configuration
    return shown["facts"]


def data_of(html: str) -> dict[str, Any]:
    """What a page holds for its script."""
    (text,) = re.findall(r'<script type="application/json" id="the-data">(.*?)</script>', html, flags=re.DOTALL)
    return json.loads(text)


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
    assert data_of(html)["runs"][0]["facts"]["data"].startswith("<b>digits")


def test_a_name_that_ends_a_script_is_text(reproduced: tuple[Path, str], tmp_path: Path, opened: Opened):
    folder, name = reproduced[0] / OUT, "</script><script>alert(1)</script><!--"
    (tmp_path / "table1.csv").write_text((folder / "table1.csv").read_text().replace(",digits,", f",{name},"))
    runs = (run for run in archive.read(folder).values() if run.is_of_network)
    kept = {run.run: replace(run, facts={**run.facts, "dataset": name}) for run in runs}
    page = opened(report_page.write(tmp_path, kept))
    page.locator("button.number").first.click()
    assert f"{name}, 1,442 training images" in panel_of(page).inner_text()
    assert page.locator("script").count() == 3, "the class, the data and the behaviour; a table alone has no figure"


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
