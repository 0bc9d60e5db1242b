"""The README's tables of measurements, written from `results/`: `python -m rethinking.report.documents`.

A line `<!-- results: bench -->` begins a table and `<!-- end -->` ends it; what stands between is replaced.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[3]
Row = dict[str, str]


def bench(rows: list[Row]) -> str:
    """An epoch against its bare steps and against a stock pipeline."""
    columns = ["model", "augmentation", "bare step, images/s", "epoch, images/s", "epoch / step", "epoch / stock"]
    body = [
        [
            f"`{row['model']}`",
            row["augmentation"],
            f"{float(row['step_images_per_second']):,.0f}",
            f"{float(row['epoch_images_per_second']):,.0f}",
            f"{float(row['epoch_over_step']):.2f}",
            f"{float(row['epoch_over_stock']):.2f}" if row["epoch_over_stock"] else "",
        ]
        for row in rows
    ]
    return f"{_measured_on(rows)}\n\n{_table(columns, body)}"


def startup_and_memory(rows: list[Row]) -> str:
    columns = ["model", "command to first step", "peak memory of an epoch"]
    body = [
        [f"`{row['model']}`", f"{float(row['startup_seconds']):.1f} s", f"{float(row['peak_gib']):.2f} GiB"]
        for row in rows
    ]
    return f"{_measured_on(rows)}, on {rows[0]['dataset']}\n\n{_table(columns, body)}"


TABLES: dict[str, Callable[[list[Row]], str]] = {"bench": bench, "startup_and_memory": startup_and_memory}


def with_tables(text: str, results: Path) -> str:
    """`text` with every table written anew from the CSV files in `results`."""

    def replace(match: re.Match[str]) -> str:
        name = match[1]
        with (results / f"{name}.csv").open(encoding="utf-8", newline="") as file:
            table = TABLES[name](list(csv.DictReader(file)))
        return f"<!-- results: {name} -->\n{table}\n<!-- end -->"

    return re.sub(r"<!-- results: (\w+) -->\n.*?<!-- end -->", replace, text, flags=re.DOTALL)


def _measured_on(rows: list[Row]) -> str:
    row = rows[0]
    return f"{row['hardware']}, {row['threads']} threads, {row['precision']}, PyTorch {row['torch']}"


def _table(columns: list[str], body: list[list[str]]) -> str:
    alignment = ["---" if index == 0 else "---:" for index in range(len(columns))]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [columns, alignment, *body])


if __name__ == "__main__":
    readme = ROOT / "README.md"
    readme.write_text(with_tables(readme.read_text(encoding="utf-8"), ROOT / "results"), encoding="utf-8")
