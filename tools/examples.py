"""Runs the notebooks of `examples/` and writes their outputs into them: `python -m tools.examples [NOTEBOOK ...]`.

Each notebook runs in a temporary folder with its own cache, with this Python and the package of this checkout. So a
notebook leaves no run behind, and finds no earlier run.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import nbformat
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
KERNEL = {
    "display_name": "Python 3",
    "language": "python",
    "name": "python3",
}  # the usual name, which Jupyter looks for
HANGING = 1200  # seconds, after which a cell counts as hanging


class ThisPython(AsyncKernelManager):
    """Manages a kernel that is this interpreter, whichever kernels are installed."""

    @property
    def kernel_spec(self) -> KernelSpec:
        """The command that starts this interpreter as a kernel."""
        return KernelSpec(argv=[sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"], **KERNEL)


def paths() -> list[Path]:
    """Returns the paths of all notebooks."""
    return sorted(EXAMPLES.glob("*.ipynb"))


def read(path: Path) -> Any:
    """Reads a notebook as an `nbformat` node."""
    return nbformat.read(path, as_version=4)


def digest(notebook: Any) -> str:
    """Returns the SHA-256 of a notebook's code in hexadecimal; the outputs belong to the code with this digest."""
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    return hashlib.sha256(json.dumps(code).encode()).hexdigest()


def execute(path: Path, folder: Path) -> Any:
    """Runs a notebook in `folder`, and returns it with its outputs and the digest of its code.

    Raises `nbclient.exceptions.CellExecutionError` where a cell raises.
    """
    notebook = read(path)
    client = NotebookClient(
        notebook,
        kernel_manager_class=ThisPython,
        timeout=HANGING,
        coalesce_streams=True,
        record_timing=False,
        resources={"metadata": {"path": str(folder)}},
    )
    own = {"RETHINKING_CACHE": str(folder / "cache"), "PYTHONPATH": str(ROOT / "src"), "IPYTHONDIR": str(folder)}
    client.execute(env={**os.environ, **own})
    notebook.metadata = {"kernelspec": KERNEL, "language_info": {"name": "python"}, "code": digest(notebook)}
    return notebook


def main() -> None:
    """Runs the notebooks that the arguments name, or all, and writes them."""
    for path in [Path(name) for name in sys.argv[1:]] or paths():
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            notebook = execute(path, Path(folder))
        nbformat.write(notebook, path)
        print(f"{path.name}: {time.monotonic() - began:.0f} s, {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
