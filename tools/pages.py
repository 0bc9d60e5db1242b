"""The committed pages, each written from its folder: `python -m tools.pages` writes `results/**/report.html` anew."""

from __future__ import annotations

from pathlib import Path

from rethinking.experiments import archive
from rethinking.report import page

RESULTS = Path(__file__).parents[1] / "results"


def folders(results: Path = RESULTS) -> list[Path]:
    """The folders that have a page."""
    return sorted(path.parent for path in results.rglob("report.html"))


def write(results: Path = RESULTS) -> None:
    """Writes all pages from the tables and the evidence in their folders."""
    for folder in folders(results):
        page.write(folder, archive.read(folder))


if __name__ == "__main__":
    write()
