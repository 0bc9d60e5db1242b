"""What MkDocs does not do for the documentation site: links to the repository, notebooks as pages, equations as MathML.

`mkdocs.yml` names this file as a hook. MkDocs calls the functions `on_...` while it builds.
"""

from __future__ import annotations

import base64
import html
import itertools
import json
import posixpath
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import latex2mathml.converter
from markdown import Markdown
from markdown.extensions import Extension
from markdown.treeprocessors import Treeprocessor
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
BRANCH = "main"
DATAFRAME = re.compile(r'<style scoped>.*?</style>| border="1" class="dataframe"', re.DOTALL)  # what pandas adds
TABLE = re.compile(r"<table>.*?</table>", re.DOTALL)
EQUATION = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)
MATHML = "{http://www.w3.org/1998/Math/MathML}"
LIMITS = {f"{MATHML}msub": f"{MATHML}munder", f"{MATHML}msubsup": f"{MATHML}munderover"}
TAKE_LIMITS = ("sup", "inf", "max", "min", "lim", "\N{N-ARY SUMMATION}", "\N{N-ARY PRODUCT}")

ElementTree.register_namespace("", MATHML.strip("{}"))


class RepositoryLinks(Extension):  # type: ignore[misc]  # Markdown has no types
    """Points links that leave `docs/` to the page, the picture or the repository's file that they name."""

    config: MkDocsConfig
    page: Page  # that is converted
    files: Files

    def extendMarkdown(self, md: Markdown) -> None:  # noqa: N802
        outer = self

        class Links(Treeprocessor):  # type: ignore[misc]
            def run(self, root: ElementTree.Element) -> None:
                for element in root.iter():
                    for attribute in ("href", "src"):
                        if attribute in element.attrib:
                            element.set(attribute, outer.target(element.attrib[attribute]))

        md.treeprocessors.register(Links(md), "repository", 1)  # before MkDocs' own, which has priority 0

    def target(self, link: str) -> str:
        """The link itself where it stays in `docs/` or leads nowhere; the strict build then reports it."""
        path, hash_sign, anchor = link.partition("#")
        here = posixpath.dirname(self.page.file.src_uri)
        place = posixpath.normpath(posixpath.join("docs", here, path))
        if "://" in link or not path or place.startswith(("docs/", "../")) or not (ROOT / place).exists():
            return link
        if place.endswith(".ipynb"):
            place = place.removesuffix(".ipynb") + ".md"
        elif place.endswith((".svg", ".png")):
            if self.files.get_file_from_path(place) is None:
                self.files.append(File.generated(self.config, place, abs_src_path=str(ROOT / place)))
        else:
            kind = "tree" if (ROOT / place).is_dir() else "blob"
            return f"{self.config.repo_url}/{kind}/{BRANCH}/{place}{hash_sign}{anchor}"
        return posixpath.relpath(place, here or ".") + hash_sign + anchor


links = RepositoryLinks()


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    links.config = config
    config.markdown_extensions.append(links)
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the notebooks of `examples/` as pages, with the outputs that they hold."""
    for path in sorted((ROOT / "examples").glob("*.ipynb")):
        text, pictures = notebook_page(json.loads(path.read_text(encoding="utf-8")), path.stem)
        page = File.generated(config, f"examples/{path.stem}.md", content=text)
        page.edit_uri = f"../examples/{path.name}"
        files.append(page)
        for name, content in pictures.items():
            files.append(File.generated(config, f"examples/{name}", content=content))
    return files


def notebook_page(notebook: dict[str, Any], name: str) -> tuple[str, dict[str, bytes]]:
    """A notebook as Markdown, and its pictures by the names that the page gives them."""
    parts: list[str] = []
    pictures: dict[str, bytes] = {}
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source.replace("<details>", '<details markdown="1">'))
            continue
        parts.append(f"```python\n{source}\n```")
        for output in cell["outputs"]:
            data = {kind: "".join(lines) for kind, lines in output.get("data", {}).items()}
            if "image/png" in data:
                picture = f"{name}-{len(pictures) + 1}.png"
                pictures[picture] = base64.b64decode(data["image/png"])
                parts.append(f"![The figure that this cell draws]({picture})")
            elif output["output_type"] == "execute_result" and "text/html" in data:
                table = DATAFRAME.sub("", data["text/html"])
                parts.append(f'<div class="output">{table}</div>')
            else:
                text = data["text/plain"] if data else "".join(output["text"])
                parts.append(f"``` {{ .text .no-copy .output }}\n{text.rstrip()}\n```")
    return "\n\n".join(parts), pictures


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Remembers the page for its links. One that stands alone in the navigation has no list of its section."""
    links.page, links.files = page, files
    if page.parent is None:
        page.meta["hide"] = ["navigation"]
    return markdown


def on_page_content(content: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Draws equations, and lets the keyboard scroll a wide table."""
    content = TABLE.sub(r'<div class="wide" tabindex="0">\g<0></div>', content)
    return EQUATION.sub(lambda found: mathml(found, page), content)


def mathml(found: re.Match[str], page: Page) -> str:
    """An equation in TeX as MathML, which browsers draw without script; an unknown command fails the build."""
    tex = html.unescape(found[2]).strip()
    made = latex2mathml.converter.convert(tex, display="block" if found[1] == "div" else "inline")
    if "\\" in made:
        raise PluginError(f"{page.file.src_uri}: latex2mathml does not know a command of {tex}")
    root = ElementTree.fromstring(made)
    for element in root.iter():
        operator = element[0] if len(element) else element
        if element.tag in LIMITS and operator.text in TAKE_LIMITS:
            element.tag = LIMITS[element.tag]
            operator.set("movablelimits", "true")  # beside the operator within a line
        elif element.tag == f"{MATHML}mi" and len(element.text or "") > 1:  # such as log
            element.tag = f"{MATHML}mo"
            element.attrib |= {"lspace": "0.17em", "rspace": "0.17em"}
        for before, operator in itertools.pairwise(element):
            if operator.text == "\N{MINUS SIGN}" and before.text in ("(", "[", ",", "="):
                operator.set("form", "prefix")  # a sign
    return ElementTree.tostring(root, encoding="unicode")


def on_post_page(output: str, page: Page | None, config: MkDocsConfig) -> str:
    """Leaves out the script that asks GitHub for stars, and names the search for screen readers."""
    output = output.replace(' data-md-component="source"', "")
    return output.replace(' role="dialog"', ' role="dialog" aria-label="Search"')


def on_post_template(output_content: str, template_name: str, config: MkDocsConfig) -> str:
    """The page for addresses that do not exist is no page to MkDocs."""
    return on_post_page(output_content, None, config) if template_name == "404.html" else output_content
