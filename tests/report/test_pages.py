"""The committed pages follow from their folders, need no network, and are small enough to open on a phone."""

import functools
import hashlib
import re
from importlib import resources
from pathlib import Path

import pytest

from rethinking.experiments import archive
from rethinking.report import page
from tools import pages

UPLOT = {  # of version 1.6.32, as published
    "LICENSE": "8f989229699b4fe2f1a0432d0e9edc338a8a911e250e2d1b01ecd770a5f5b1bd",
    "uPlot.iife.min.js": "19c8d4c6ad88929a79f4ae49d6f7161566dfd0ba3d15cc495e974f787eb78f1f",
    "uPlot.min.css": "df630c6a8d6f8eeaff264b50f73ce5b114f646ffd9a0bb74f049b0a00135fa04",
}


@functools.cache
def html_of(folder: Path) -> str:
    return page.as_html(folder, archive.read(folder))


@pytest.mark.parametrize("folder", pages.folders(), ids=lambda folder: folder.name)
def test_a_committed_page_is_what_its_folder_gives(folder):
    html = html_of(folder)
    assert (folder / "report.html").read_text(encoding="utf-8") == html, "run `python -m tools.pages`"
    assert page.as_html(folder, archive.read(folder)) == html, "the same bytes each time"
    assert len(html.encode()) < 2_000_000


@pytest.mark.parametrize("folder", pages.folders(), ids=lambda folder: folder.name)
def test_a_page_loads_nothing_and_has_the_library_only_for_figures(folder):
    html = html_of(folder)
    body = html[html.index("<body>") : html.index('<script type="application/json"')]
    assert not re.findall(r"<(?:script|link|img|iframe)[^>]+(?:src|href)=\"(?!data:)", html)
    assert "default-src 'none'" in html
    assert ("uPlot (v" in html) is ("<figure data-chart" in body)


@pytest.mark.parametrize("folder", pages.folders(), ids=lambda folder: folder.name)
def test_every_number_of_every_page_has_an_address_of_its_own(folder):
    html = html_of(folder)
    body = html[: html.index('<script type="application/json"')]
    found = re.findall(r' id="([^"]+)"', body)
    assert len(found) == len(set(found))
    numbers = re.findall(r'<button type="button" class="number" id="([^"]+)"', body)
    assert len(numbers) == body.count('class="number"') > 5
    assert not [
        address for address in numbers if re.search(r"-\d+$", address) and address[: address.rindex("-")] in numbers
    ]
    assert all(re.fullmatch(r"[\w.+-]+", address) for address in numbers)
    for link in re.findall(r'href="#([^"]+)"', body):
        assert link in found


def test_every_folder_of_tables_in_results_has_its_page():
    assert {"cifar10", "cifar10_jpeg", "cifar10_jpeg-small", "digits-demo", "mnist"} <= {
        folder.name for folder in pages.folders()
    }


def test_the_library_of_the_figures_is_the_published_one():
    folder = resources.files("rethinking.report") / "uplot"
    assert {file.name for file in folder.iterdir()} == set(UPLOT)
    for name, digest in UPLOT.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest
    assert "(v1.6.32)" in (folder / "uPlot.iife.min.js").read_text(encoding="utf-8")[:100]
