"""docs/theory.md: its blocks verify something, and what it names and says of float64 is there."""

import ast
import importlib
import re

import pytest

from rethinking.report.tables import read_csv
from tests.conftest import ROOT
from tests.documents.blocks import blocks

PATH = ROOT / "docs" / "theory.md"
PAGE = PATH.read_text(encoding="utf-8")


def test_every_block_of_python_asserts_something():
    """Or it would verify nothing; `tests/documents/test_blocks.py` runs the blocks."""
    found = [block for block in blocks(PATH) if block.language == "python"]
    assert len(found) >= 9
    for block in found:
        assert any(isinstance(node, ast.Assert) for node in ast.walk(ast.parse(block.text))), block.place


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
