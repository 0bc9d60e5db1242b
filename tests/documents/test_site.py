"""The documentation site builds strictly, loads nothing from a network, and can be read and searched offline."""

from __future__ import annotations

import html
import inspect
import os
import pkgutil
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import fields
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote
from xml.etree import ElementTree

import pytest
import yaml

import rethinking
from rethinking.experiments.reproduction import Reproduction
from rethinking.instrument.battery import RandomizationTest
from tests.conftest import ROOT, made_once, violations
from tools.reference import as_markdown
from tools.site import EQUATION, mathml

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CONFIG = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
REPOSITORY = CONFIG["repo_url"]
WIDE, NARROW = 1440, 390
ALIKE = {  # of the pages of a folder that are made alike, these
    "reference": ("reference/index", "reference/many_runs"),
    "reproduce": ("reproduce/index", "reproduce/table1", "reproduce/figure1b", "reproduce/complexity"),
}
LOOKED_AT = ("index", "testing", "theory", "reference/index", "examples/your_network_on_your_images")


def mkdocs(*arguments: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", *arguments]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1200, check=False)


def build(folder: Path) -> str:
    done = mkdocs("--site-dir", str(folder))
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, _ = made_once(tmp_path_factory, "site", build)
    return folder


class Links(HTMLParser):
    """What a page loads, where it leads, and the anchors that it has."""

    LOADED = (("script", "src"), ("img", "src"), ("iframe", "src"), ("source", "src"), ("link", "href"))

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.leads_to: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.anchors |= {name for name in (values.get("id"), values.get("name")) if name}
        if tag == "a" and values.get("href"):
            self.leads_to.append(str(values["href"]))
        if values.get("rel") not in ("canonical", "prev", "next"):  # which a browser does not load
            self.loaded += [str(values[name]) for loading, name in self.LOADED if tag == loading and values.get(name)]


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Links]:
    return {path: Links(path.read_text(encoding="utf-8")) for path in site.rglob("*.html")}


def in_nav(nav: Any) -> Iterator[str]:
    """The source of each page, such as `reproduce/table1.md`."""
    for entry in nav:
        value = entry if isinstance(entry, str) else next(iter(entry.values()))
        if isinstance(value, str):
            yield value
        else:
            yield from in_nav(value)


def test_every_page_of_the_navigation_is_there(pages: dict[Path, Links], site: Path):
    expected = {site / path.replace(".md", ".html") for path in in_nav(CONFIG["nav"])}
    assert pages.keys() == expected | {site / "404.html"}
    sources = {str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md")}
    notebooks = {f"examples/{path.stem}.md" for path in (ROOT / "examples").glob("*.ipynb")}
    assert set(in_nav(CONFIG["nav"])) == sources | notebooks


def test_no_page_loads_anything_from_a_network(pages: dict[Path, Links], site: Path):
    for path, page in pages.items():
        for address in page.loaded:
            assert not re.match(r"(\w+:)?//", address), f"{path.name} loads {address}"
            if path.name != "404.html" and not address.startswith("data:"):
                assert (path.parent / address.partition("?")[0]).is_file(), f"{path.name} loads {address}"
    for sheet in site.rglob("*.css"):
        for address in re.findall(r"url\(([^)]*)\)|@import ([^;]*)", sheet.read_text(encoding="utf-8")):
            assert not re.match(r"[\"']?(\w+:)?//", "".join(address)), f"{sheet.name} loads {address}"


def test_every_internal_link_and_anchor_exists(pages: dict[Path, Links]):
    for path, page in pages.items():
        if path.name == "404.html":  # its links begin at the site's address
            continue
        for link in page.leads_to:
            if re.match(r"\w+:", link):
                continue
            address, _, anchor = link.partition("#")
            target = (path.parent / unquote(address)).resolve() if address else path.resolve()
            assert target.exists(), f"{path.name} leads to {link}"
            if anchor:
                assert unquote(anchor) in pages[target].anchors, f"{path.name} leads to {link}"


def test_links_into_the_repository_lead_to_files(pages: dict[Path, Links]):
    links = {link for page in pages.values() for link in page.leads_to if link.startswith(f"{REPOSITORY}/")}
    kinds = set()
    for link in links:
        kind, branch, path, lines = re.fullmatch(
            r"(\w+)/([\w.-]+)/([^#]+)(?:#L(\d+-L\d+))?", link.removeprefix(f"{REPOSITORY}/")
        ).groups()
        kinds.add(kind)
        assert branch == "main", link
        assert (ROOT / path).is_dir() if kind == "tree" else (ROOT / path).is_file(), link
        if lines:
            first, last = map(int, lines.split("-L"))
            assert first <= last <= len((ROOT / path).read_text(encoding="utf-8").splitlines()), link
    assert kinds >= {"blob", "edit"}


def test_the_addresses_are_the_projects():
    urls = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"].values())
    assert {CONFIG["site_url"], REPOSITORY} <= urls


def test_the_reference_has_every_public_name(pages: dict[Path, Links], site: Path):
    anchors = pages[site / "reference/index.html"].anchors
    assert {f"rethinking.{name}" for name in rethinking.__all__ if name != "__version__"} <= anchors
    private = [name for page in pages.values() for name in page.anchors if re.match(r"rethinking\.(.*\.)?_[a-z]", name)]
    assert not private


def named_in_pages() -> set[str]:
    """Modules, classes and functions of the package that pages and notebooks name in full or import."""
    folders = (ROOT / "docs", ROOT / "examples")
    texts = [path.read_text(encoding="utf-8") for path in (ROOT / "README.md", *files_of(folders))]
    names = {name for text in texts for name in re.findall(r"`(rethinking(?:\.\w+)+)`", text)}
    for text in texts:
        for module, imported in re.findall(r"from (rethinking[\w.]*) import ([\w, ]+)", text):
            names |= {f"{module}.{name.strip()}" for name in imported.split(",")}
    return {name for name in names if is_documented(name)}


def files_of(folders: tuple[Path, ...]) -> Iterator[Path]:
    for folder in folders:
        yield from (path for path in folder.rglob("*") if path.suffix in (".md", ".ipynb"))


def is_documented(name: str) -> bool:
    """Whether it is a module, a class or a function. Packages and groups of entry points have no entry."""
    try:
        found = pkgutil.resolve_name(name)
    except (ImportError, AttributeError):
        return False
    return (
        inspect.isclass(found)
        or inspect.isfunction(found)
        or (inspect.ismodule(found) and not hasattr(found, "__path__"))
    )


def test_the_reference_has_what_pages_name(pages: dict[Path, Links], site: Path):
    anchors = set().union(*(pages[path].anchors for path in (site / "reference").glob("*.html")))
    named = named_in_pages()
    assert {"rethinking.theory.measured.MeasureConfig", "rethinking.models.signature"} <= named
    assert named <= anchors


def test_the_reference_shows_signatures_and_options(site: Path):
    text = re.sub(r"<[^>]+>", "", (site / "reference/experiments.html").read_text(encoding="utf-8"))
    assert re.search(r"Row\(\s*labels: Labels,\s*config: Config,\s*paper: Mapping\[str, float \| str\] = \{\},", text)
    text = re.sub(r"<[^>]+>", "", (site / "reference/index.html").read_text(encoding="utf-8"))
    assert re.search(r'ExperimentConfig\(\s*\*,\s*model_name: str = (?:"|&quot;)small_inception', text)
    kinds = {"index": rethinking.ExperimentConfig, "instrument": RandomizationTest, "experiments": Reproduction}
    for page, kind in kinds.items():
        text = re.sub(r"<[^>]+>", "", (site / f"reference/{page}.html").read_text(encoding="utf-8"))
        for field in fields(kind):
            assert re.search(
                rf"{field.name}\s+{re.escape(html.escape(field.metadata['help'], quote=False)[:20])}", text
            )


def test_what_a_module_is_for_is_no_definition(site: Path):
    for path in (site / "reference").glob("*.html"):
        for contents in re.findall(r'<div class="doc doc-contents first">\s*(<\w+)', path.read_text(encoding="utf-8")):
            assert contents == "<p", path.name


DOCSTRING = """name: not a name in the first paragraph, where a < b.

names, `others`: what they are,
    and more
last: of `x < y`

    code = 1

    more = 2

    $ no code

Text."""


def test_docstrings_become_markdown():
    assert as_markdown(DOCSTRING) == (
        "name: not a name in the first paragraph, where a &lt; b.\n\n"
        "`names`, `others`\n:   what they are,\n    and more\n\n`last`\n:   of `x < y`\n\n"
        "```text\ncode = 1\n\nmore = 2\n\n$ no code\n```\n\nText."
    )
    assert as_markdown("`load`: loads.\n\nText.") == "`load`: loads.\n\nText."
    assert as_markdown("Example:\n\n    x = 1") == "Example:\n\n```python\nx = 1\n```"


def test_equations_are_mathml(site: Path):
    text = (site / "examples/memorization_without_training.html").read_text(encoding="utf-8")
    equations = re.findall(r"<math.*?</math>", text, flags=re.DOTALL)
    assert len(equations) > 10
    for path in site.rglob("*.html"):
        text = re.sub(r"<(pre|code|script)\b.*?</\1>", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
        assert "arithmatex" not in text, path.name
        assert not re.search(r"\\[a-zA-Z(\[]", text), f"{path.name} shows TeX"


def test_limits_stand_below_and_signs_close_to_their_number():
    tex = r"\sup_{h \in H} \sum_{i=1}^n \log h_i \in [-1, 1]"
    made = mathml(EQUATION.fullmatch(rf'<div class="arithmatex">\[{tex}\]</div>'), None)
    root = ElementTree.fromstring(made)
    assert root.get("display") == "block"
    parts = {element.tag.partition("}")[2]: element[0].text for element in root.iter() if len(element) > 1}
    assert (parts["munder"], parts["munderover"], parts["msub"]) == ("sup", "\N{N-ARY SUMMATION}", "h")
    spaced = [element.text for element in root.iter() if element.get("lspace")]
    assert spaced == ["log"]
    signs = [element.text for element in root.iter() if element.get("form") == "prefix"]
    assert signs == ["\N{MINUS SIGN}"]


def test_equations_are_drawn_with_the_sites_font(browser: Browser, site: Path):
    page, _ = opened(browser, WIDE)
    page.goto((site / "theory.html").as_uri())
    page.evaluate("document.fonts.ready")
    assert page.evaluate("[...document.fonts].map(font => [font.family, font.status])") == [["Equations", "loaded"]]
    page.close()


BROKEN = """# Broken

[page](missing.md) [anchor](#missing) [file](../src/missing.py) ![picture](../results/missing.png)
"""


def small_site(folder: Path, text: str) -> subprocess.CompletedProcess[str]:
    """Builds a site with this page alone, with the project's settings."""
    (folder / "docs/assets").mkdir(parents=True)
    (folder / "docs/index.md").write_text(text, encoding="utf-8")
    settings = {
        "INHERIT": str(ROOT / "mkdocs.yml"),
        "docs_dir": str(folder / "docs"),
        "hooks": [str(ROOT / "tools/site.py")],
        "nav": ["index.md"],
        "plugins": ["search"],
        "watch": [],
        "theme": {"name": "mkdocs"},
    }
    (folder / "mkdocs.yml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    return mkdocs("--config-file", str(folder / "mkdocs.yml"), "--site-dir", str(folder / "site"))


def test_a_broken_link_fails_the_build(tmp_path: Path):
    done = small_site(tmp_path, BROKEN)
    assert done.returncode != 0
    for target in ("missing.md", "#missing", "../src/missing.py", "../results/missing.png"):
        assert f"'{target}'" in done.stderr
    assert "latex" not in done.stderr


def test_an_unknown_command_in_an_equation_fails_the_build(tmp_path: Path):
    done = small_site(tmp_path, r"An equation: $\unheard{x}$")
    assert done.returncode != 0
    assert r"index.md: latex2mathml does not know a command of \unheard{x}" in done.stderr


def opened(browser: Browser, width: int) -> tuple[Page, list[str]]:
    """An empty page, and a list of what goes wrong on it or is asked from a network."""
    page = browser.new_page(viewport={"width": width, "height": 900})
    wrong: list[str] = []
    page.on("console", lambda message: message.type in ("error", "warning") and wrong.append(message.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda request: request.url.startswith(("file:", "data:")) or wrong.append(request.url))
    return page, wrong


@pytest.mark.parametrize("width", [NARROW, WIDE])
def test_pages_open_without_errors_or_a_network(browser: Browser, site: Path, width: int):
    page, wrong = opened(browser, width)
    for name in LOOKED_AT:
        page.goto((site / f"{name}.html").as_uri())
        assert page.locator("article h1").first.is_visible()
        assert not wrong, name
    page.close()


def test_nothing_is_wider_than_a_phone(browser: Browser, site: Path, pages: dict[Path, Links]):
    page, wrong = opened(browser, NARROW)
    for path in pages.keys() - {site / "404.html"}:
        page.goto(path.as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") == NARROW, path.name
    assert not wrong
    page.close()


def test_the_search_works_offline(browser: Browser, site: Path):
    page, wrong = opened(browser, WIDE)
    page.goto((site / "index.html").as_uri())
    page.locator(".md-search__input").click()
    page.keyboard.type("randomization_test")
    result = page.locator('.md-search-result__link[href$="#rethinking.randomization_test"]').first
    result.click()
    page.wait_for_url(re.compile(r"reference/index\.html\?h=randomization_test"))
    assert page.locator("mark").first.is_visible()
    assert not wrong
    page.close()


PLACES = [path.removesuffix(".md") for path in in_nav(CONFIG["nav"])]


@pytest.mark.parametrize(
    ("scheme", "name"),
    [
        *(("light", name) for name in PLACES if name in ALIKE.get(name.partition("/")[0], (name,))),
        *(("dark", name) for name in (*LOOKED_AT, "reproduce/table1")),
    ],
)
def test_a_screen_reader_and_a_keyboard_can_use_the_pages(browser: Browser, site: Path, scheme: str, name: str):
    context = browser.new_context(color_scheme=scheme)
    page = context.new_page()
    page.goto((site / f"{name}.html").as_uri())
    assert not [found["id"] for found in violations(page) if found["impact"] in ("serious", "critical")]
    context.close()
