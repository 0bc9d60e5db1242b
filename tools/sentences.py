"""The length of the sentences in the documents: `python -m tools.sentences`.

It prints the number of sentences and the words in the median and in the longest one: for README.md, CONTRIBUTING.md,
CHANGELOG.md, each page under docs/, and all of them together. The exit status is 1 if the median of all exceeds
`--limit`.

A sentence ends with its full stop, question mark or exclamation mark, or with its paragraph, list item or line of a
definition. Code, tables, headings, comments and addresses are not counted. A formula is one word.
"""

from __future__ import annotations

import argparse
import re
import statistics
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token
from mdit_py_plugins.dollarmath import dollarmath_plugin
from mdit_py_plugins.front_matter import front_matter_plugin

ROOT = Path(__file__).parents[1]
LIMIT = 16  # words in the median sentence
LABEL = 3  # words; a text of no more, without an end mark, is a label
ABBREVIATIONS = ("e.g.", "i.e.", "etc.", "al.", "cf.", "vs.", "Fig.", "Eq.", "Sec.", "Dr.")
OPENING = r"""["'(\[]*"""
END = re.compile(rf"""(?<=[.!?])["')\]]*\s+(?={OPENING}(?:[^\W_a-z]|[`$]|\w+[./_]\w))""")
SPACE_IN_CODE = "\x00"  # no end mark before it ends a sentence


def sentences(markdown: str) -> list[str]:
    """The sentences of a page, with their code in backticks and their formulas between dollar signs."""
    parts = (part for text in _paragraphs(_parser().parse(markdown)) for part in _split(text))
    return [part for part in parts if words(part) > LABEL or re.search(r"[.!?:]\W*$", part)]


def words(sentence: str) -> int:
    return sum(any(letter.isalnum() for letter in word) for word in sentence.split())


def documents(root: Path = ROOT) -> list[Path]:
    at_root = [root / f"{name}.md" for name in ("README", "CONTRIBUTING", "CHANGELOG")]
    return [*at_root, *sorted((root / "docs").rglob("*.md"))]


def _parser() -> MarkdownIt:
    """CommonMark with tables, formulas and front matter. Indented text is prose, as in an admonition of MkDocs."""
    parser = MarkdownIt("commonmark").enable("table").disable("code")
    return parser.use(dollarmath_plugin, double_inline=True).use(front_matter_plugin)


def _paragraphs(tokens: Iterable[Token]) -> Iterator[str]:
    """The text of each paragraph and list item, without headings and tables."""
    skipped = None
    for token in tokens:
        if token.type in ("heading_open", "table_open"):
            skipped = token.type.replace("open", "close")
        elif token.type == skipped:
            skipped = None
        elif token.type == "inline" and skipped is None and not token.content.startswith(":::"):
            yield _text(token.children or [])


def _text(tokens: list[Token]) -> str:
    """Without the heading in bold letters that a paragraph may begin with, and without an admonition's first line."""
    kinds = [token.type for token in tokens if token.content or token.nesting]
    if kinds[:3] == ["strong_open", "text", "strong_close"]:
        first = next(token for token in tokens if token.type == "text" and token.content)
        if first.content.endswith((".", "?", "!", ":")):
            tokens = tokens[tokens.index(first) + 1 :]
    parts = []
    for token in tokens:
        if token.type == "text":
            parts.append(token.content)
        elif token.type in ("softbreak", "hardbreak"):
            parts.append("\n")
        elif token.type == "code_inline":
            parts.append(f"`{token.content.replace(' ', SPACE_IN_CODE)}`")
        elif token.type == "math_inline":
            parts.append(f"${''.join(token.content.split())}$")
    return re.sub(r"^(!!!|\?\?\?\+?) .*\n?", "", "".join(parts))


def _split(text: str) -> list[str]:
    """Splits after end marks, but not after abbreviations. Sentences begin with capitals, numbers, code or files."""
    parts, start = [], 0
    for end in END.finditer(text):
        last = text[start : end.start()].split()[-1].lstrip("([\"'")
        if last not in ABBREVIATIONS and not re.fullmatch(r"[A-Z]\.", last):
            parts.append(text[start : end.end()])
            start = end.end()
    parts.append(text[start:])
    return [" ".join(part.split()).replace(SPACE_IN_CODE, " ") for part in parts if part.strip()]


def _row(name: str, lengths: list[int]) -> str:
    if not lengths:
        return f"{name:40} {0:9}"
    return f"{name:40} {len(lengths):9} {statistics.median(lengths):6g} {max(lengths):7}"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.sentences", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("paths", nargs="*", type=Path, help="pages to count; all documents unless given")
    parser.add_argument("--limit", type=float, default=LIMIT, help="words that the median may have (%(default)s)")
    parser.add_argument("--longest", type=int, default=0, metavar="N", help="print the N longest sentences too")
    asked = parser.parse_args(arguments)
    pages = {path: sentences(path.read_text(encoding="utf-8")) for path in asked.paths or documents()}
    print(f"{'':40} {'sentences':>9} {'median':>6} {'longest':>7}")
    for path, found in pages.items():
        name = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path
        print(_row(str(name), [words(sentence) for sentence in found]))
    lengths = [words(sentence) for found in pages.values() for sentence in found]
    print(_row("all", lengths))
    every = [(path, sentence) for path, found in pages.items() for sentence in found]
    for path, sentence in sorted(every, key=lambda pair: -words(pair[1]))[: asked.longest]:
        print(f"\n{path.name}, {words(sentence)} words: {sentence}")
    return int(bool(lengths) and statistics.median(lengths) > asked.limit)


if __name__ == "__main__":
    sys.exit(main())
