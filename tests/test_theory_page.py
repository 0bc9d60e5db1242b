"""docs/theory.md: its blocks hold, its equations can be drawn, and what it says of float64 is in the results."""

import importlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import latex2mathml.converter
import pytest
from markdown_it.token import Token

from rethinking.report.tables import read_csv
from tests.conftest import ROOT
from tools.sentences import page_parser

PAGE = (ROOT / "docs" / "theory.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.+?)```", PAGE, flags=re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS, ids=[f"block{number}" for number in range(1, len(BLOCKS) + 1)])
def test_a_block_verifies_its_equation(block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert "\nassert " in block or "\n    assert " in block
    monkeypatch.chdir(tmp_path)
    exec(block, {})


def equations(tokens: Sequence[Token]) -> Iterator[str]:
    for token in tokens:
        if token.type.startswith("math"):
            yield token.content.strip()
        yield from equations(token.children or [])


@pytest.mark.parametrize("page", ["theory.md", "testing.md", "differences.md"])
def test_equations_have_no_command_that_cannot_be_drawn(page: str):
    found = list(equations(page_parser().parse((ROOT / "docs" / page).read_text(encoding="utf-8"))))
    assert found
    for equation in found:
        assert "\\" not in latex2mathml.converter.convert(equation), equation


@pytest.mark.parametrize("name", re.findall(r"`(rethinking(?:\.\w+){2,})`", PAGE))
def test_every_name_of_the_package_is_there(name: str):
    module, _, attribute = name.rpartition(".")
    try:
        importlib.import_module(name)
    except ModuleNotFoundError:
        assert hasattr(importlib.import_module(module), attribute), name


def test_float64_ends_where_the_page_says():
    cells, _, _ = read_csv(ROOT / "results" / "cifar10" / "expressivity_gap.csv")
    errors: dict[tuple[str, str], list[float | None]] = {}
    for cell in cells:
        if cell.quantity == "train error":
            labels = dict(cell.labels)
            errors.setdefault((labels["depth"], labels["distance"]), []).append(cell.ours)
    assert all(error == 0 for error in errors["depth 2", "1e-09"] + errors["depth 64", "1e-10"])
    assert all(error is not None and error > 0 for error in errors["depth 2", "1e-10"])
    assert {*errors["depth 2", "1e-11"], *errors["depth 64", "1e-11"]} == {None}
