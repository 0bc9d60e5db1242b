"""The notebooks of `examples/` run, and their committed outputs belong to their code."""

from __future__ import annotations

import base64
import re
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient.exceptions import CellExecutionError

from tests.conftest import ROOT
from tools import examples

PATHS = [pytest.param(path, id=path.stem) for path in examples.paths()]


def code(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def kinds(notebook: Any) -> list[list[Any]]:
    """Returns what each cell shows: the stream of printed text, or the MIME types of a display."""
    return [[output.get("name") or sorted(output.data) for output in cell.outputs] for cell in code(notebook)]


def written(folder: Path, *sources: str) -> Path:
    """Writes a notebook with these cells, and returns its path."""
    path = folder / "some.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources]), path)
    return path


def test_there_are_three_notebooks():
    assert [path.stem for path in examples.paths()] == [
        "memorization_without_training",
        "what_random_labels_do",
        "your_network_on_your_images",
    ]


@pytest.mark.parametrize("path", PATHS)
def test_a_notebook_runs_and_shows_the_kinds_of_output_that_are_committed(path: Path, tmp_path: Path):
    """The notebook's own assertions check the numbers in its text."""
    beside = {*path.parent.iterdir()}
    made = examples.execute(path, tmp_path)
    assert sum("assert " in cell.source for cell in code(made)) >= 5
    assert kinds(made) == kinds(examples.read(path))
    assert {*path.parent.iterdir()} == beside, "it left something"


@pytest.mark.parametrize("path", PATHS)
def test_committed_outputs_belong_to_the_committed_code(path: Path):
    notebook = examples.read(path)
    assert notebook.metadata.code == examples.digest(notebook), "run `make examples`"
    assert [cell.execution_count for cell in code(notebook)] == [*range(1, len(code(notebook)) + 1)]
    assert not [name for cell in kinds(notebook) for name in cell if name == "stderr"]


@pytest.mark.parametrize("path", PATHS)
def test_a_notebook_is_small_and_names_no_folder_of_a_machine(path: Path):
    assert path.stat().st_size < 400_000
    for cell in code(examples.read(path)):
        for output in cell.outputs:
            data = output.get("data", {"text/plain": output.get("text", "")})
            assert len(base64.b64decode(data.pop("image/png", ""))) < 100_000
            assert not re.search(r"(?<![\w.<])/(home|root|tmp|work|Users|private|var)/|[A-Z]:\\", str(data))


def test_a_notebook_is_run_by_this_python_with_this_package(tmp_path: Path):
    path = written(tmp_path, "import sys, rethinking\nprint(sys.executable, rethinking.__file__)")
    (cell,) = examples.execute(path, tmp_path).cells
    assert cell.outputs[0].text.split() == [sys.executable, str(ROOT / "src" / "rethinking" / "__init__.py")]


def test_an_assertion_that_fails_is_an_error(tmp_path: Path):
    with pytest.raises(CellExecutionError, match="two is not three"):
        examples.execute(written(tmp_path, "assert 2 == 3, 'two is not three'"), tmp_path)


def test_other_code_has_another_digest(tmp_path: Path):
    digests = [examples.digest(examples.read(written(tmp_path, *cells))) for cells in (("a", "b"), ("a\nb",), ("a",))]
    assert len({*digests}) == 3


def test_a_test_in_a_notebook_is_found_again_by_another_kernel(tmp_path: Path):
    path = written(
        tmp_path,
        "from torch import nn\ndef linear():\n    return nn.Sequential(nn.Flatten(), nn.Linear(784, 10))",
        "import rethinking\nreport = rethinking.randomization_test(linear, 'digits', epochs=1, progress=False)\n"
        "print(*[report[key].path for key in report], [report[key].result['seconds'] for key in report])",
    )
    first, second = (examples.execute(path, tmp_path).cells[1].outputs[0].text for _ in range(2))
    assert first == second
