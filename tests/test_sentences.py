"""The counting of sentences in the documents, and the length of those that they have."""

import re
import statistics
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tools.sentences import documents, main, sentences, words

MEDIAN, LONGEST = 16, 40  # words, of the sentences of README.md and docs/
KINDS = ("src/**/*.py", "src/**/*.j2", "results/**/*.md", "results/**/*.html", "examples/*.ipynb", "benchmarks/*.py")
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


@pytest.mark.parametrize("unclear", UNCLEAR)
def test_sentences_that_readers_did_not_understand_are_gone(unclear: str):
    texts = [*documents(), *(path for kind in KINDS for path in ROOT.glob(kind))]
    assert len(texts) > 200
    for path in texts:
        text = re.sub(r"[\s#\"']+", " ", path.read_text(encoding="utf-8"))  # over line ends of comments and strings
        assert unclear not in text, path
