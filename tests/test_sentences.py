"""The counting of sentences in the documents, and the length of those that they have."""

import ast
import io
import json
import re
import statistics
import tokenize
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tools.sentences import documents, main, sentences, words

MEDIAN, LONGEST = 16, 30  # words, of the sentences of the documents
CODE = ("*.py", *(f"{folder}/**/*.py" for folder in ("src", "tests", "tools", "benchmarks", "trials", "examples")))
KINDS = (*CODE, "src/**/*.j2", "examples/*.ipynb", "results/**/*.md", "results/**/*.html")
UNCLEAR = (  # parts of sentences of version 0.1.0
    "but for the widest distances",
    "is not fitted within its 500 epochs, of three on",
    "; of a given one",
    "draws of signs and replaced examples are 5 and 5",
    "what is not trained, the evidence of every run",
    "in small AlexNet as much as the gap, but not at every step",
    "what is said of each holds for one alone",
    "spares it that and halves what is gathered",
    "so that it closes the gap says that",
    "For who does not want to know how far it is",
    "What every such run is of",
    "the step stays as it is, not compiled",
)


@pytest.mark.parametrize(
    ("markdown", "expected"),
    [
        ("It trains a network. Then it tests it.", [4, 4]),
        ("Two lines of one\nparagraph are one sentence.", [8]),
        ("The rate is 0.5 of 1.5. Run train.py, e.g. on digits, i.e. at once.", [6, 8]),
        ("Zhang et al. (2017) and B. Recht say so (see Fig. 2). It holds!", [12, 2]),
        ("Does it fit? Yes, it fits (as it should.) `train.py` says so.", [3, 6, 3]),
        ("It is in docs/extending.md. docs/structure.md has the rest. mkdocs.yml is read, e.g. by mkdocs.", [4, 4, 6]),
        ("1,000 images are few. 60,000 are more.", [4, 3]),
        ("Run `python train.py --model a. --b C` now.", [8]),
        ("It takes $K \\alpha = y$ and solves it. $K$ is a matrix.", [6, 4]),
        ("See [the second page](other.md) and <https://example.org/a.b>.", [6]),
        ("**Claim.** The copy gives less than the original.", [7]),
        ("The `rethinking` *package* is **fast**. So are runs.", [5, 3]),
        ("Three things:\n\n- a loop\n- a loop that a person reads\n- One. Two three four five.", [2, 6, 1, 4]),
        ("Lists\n: of definitions are read.", [5]),
        ("!!! note\n    This is prose in an admonition. It counts.", [6, 2]),
        ('!!! warning "The title of it"\n\n    This is prose.', [3]),
    ],
)
def test_sentences_have_their_words(markdown: str, expected: list[int]):
    assert [words(sentence) for sentence in sentences(markdown)] == expected


@pytest.mark.parametrize(
    "markdown",
    [
        "# A heading that is rather long.\n",
        "A heading under which is a line\n===\n",
        "```python\nprint('A text. Another one.')\n```\n",
        "1. Text.\n\n   ```bash\n   python train.py  # A comment. Two.\n   ```\n",
        "| a sentence in a table. | here |\n|---|---|\n| it is not counted. | no |\n",
        "<!-- needs: a GPU. Really. -->\n",
        "---\ntitle: A page. Of prose.\n---\n",
        "$$\nK \\alpha = y. And so on.\n$$\n",
        "![A picture of two curves. And more.](figure.png)\n",
        "::: rethinking.config.ExperimentConfig\n    options:\n      members: true\n",
    ],
)
def test_what_is_no_prose_is_not_counted(markdown: str):
    assert [sentence for sentence in sentences(f"{markdown}\nThis is prose.") if words(sentence)] == [
        *(["Text."] if markdown.startswith("1.") else []),
        "This is prose.",
    ]


def test_code_stays_readable():
    assert sentences("Run `python train.py` now.\nThen $a + b$ is it.") == [
        "Run `python train.py` now.",
        "Then $a+b$ is it.",
    ]


def test_the_command_says_whether_the_median_is_above_the_limit(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    page = tmp_path / "page.md"
    page.write_text("One two three. One two three four five. One two three four five six seven.")
    assert main([str(page), "--limit", "5"]) == 0
    assert main([str(page), "--limit", "4.5", "--longest", "1"]) == 1
    printed = capsys.readouterr().out
    assert re.search(r"page.md +3 +5 +7\n", printed)
    assert "page.md, 7 words: One two three four five six seven." in printed


def test_half_of_the_documents_sentences_have_16_words_or_fewer():
    lengths = [words(sentence) for path in documents() for sentence in sentences(path.read_text(encoding="utf-8"))]
    assert len(lengths) > 1000
    assert statistics.median(lengths) <= MEDIAN
    assert max(lengths) <= LONGEST


def prose(path: Path) -> str:
    """The text of a file in one line. In code it is comments and strings, and strings that stand together are one."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        cells = json.loads(text)["cells"]
        parts = ["".join(cell["source"]) for cell in cells]
        parts += ["".join(one.get("text", "")) for cell in cells for one in cell.get("outputs", ())]
        shown = (one.get("data", {}) for cell in cells for one in cell.get("outputs", ()))
        text = "\n".join([*parts, *("".join(lines) for data in shown for lines in data.values())])
    elif path.suffix == ".py":
        tokens = tokenize.generate_tokens(io.StringIO(text).readline)
        parts = [token.string.lstrip("# ") for token in tokens if token.type == tokenize.COMMENT]
        strings = (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.JoinedStr | ast.Constant))
        text = "\n".join([" ".join(parts), *map(literal, strings)])
    return " ".join(text.split())


def literal(node: ast.JoinedStr | ast.Constant) -> str:
    """What a string says, without what an f-string puts in."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    return "".join(str(part.value) for part in node.values if isinstance(part, ast.Constant))


LINES = """x = 1  # but for the
# widest distances
y = ("is not fitted within its 500 "
     f"epochs, of {x} three" " on")
"""


def test_phrases_are_found_over_line_ends(tmp_path: Path):
    (tmp_path / "code.py").write_text(LINES)
    source = {
        "cells": [{"source": ["but for the widest\n", "distances"], "outputs": [{"text": ["; of a\n", "given one"]}]}]
    }
    (tmp_path / "notebook.ipynb").write_text(json.dumps(source))
    code = prose(tmp_path / "code.py")
    assert "but for the widest distances" in code
    assert "is not fitted within its 500 epochs, of three on" in code
    assert "but for the widest distances ; of a given one" in prose(tmp_path / "notebook.ipynb")


def test_sentences_that_readers_did_not_understand_are_gone():
    kinds = (path for kind in KINDS for path in ROOT.glob(kind))
    texts = {*documents(), *kinds} - {Path(__file__)}
    assert {path.relative_to(ROOT).parts[0] for path in texts} >= {
        "src",
        "tests",
        "tools",
        "results",
        "examples",
        "docs",
    }
    found = [(unclear, path) for path in texts for text in [prose(path)] for unclear in UNCLEAR if unclear in text]
    assert not found
