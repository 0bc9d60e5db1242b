"""The documents' tables of measurements, written from `results/`: `python -m rethinking.report.documents`.

A line `<!-- results: bench -->` begins a table and `<!-- end -->` ends it; what stands between is replaced.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path

from rethinking.experiments.catalogue import EXPERIMENTS
from rethinking.report import tables

ROOT = Path(__file__).parents[3]
DOCUMENTS = (ROOT / "README.md", ROOT / "docs" / "differences.md")
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


def differences(rows: list[Row]) -> str:
    """The single runs behind docs/differences.md."""
    columns = ["data", "images", "model", "labels", "pixel noise", "weight decay", "epochs", "training", "test"]
    body = []
    for row in rows:
        config = json.loads(row["configuration"])
        decay = f"{config['weight_decay']:g}"
        if config.get("weight_decay_on", "all") != "all" and config["weight_decay"]:
            decay += ", hidden linear layers"
        body.append(
            [
                row["dataset"],
                f"{int(row['train_images']):,}",
                f"`{row['model_name']}`",
                {"none": "true", "random_labels": "random"}.get(row["randomization"], row["randomization"]),
                f"{config.get('pixel_noise', 0):g}",
                decay,
                row["num_epochs"],
                f"{float(row['final_exact_train_accuracy']):.2%}",
                f"{float(row['final_test_accuracy']):.2%}" if row["final_test_accuracy"] else "",
            ]
        )
    return _table(columns, sorted(body))


def reproduced(name: str, path: Path) -> str:
    """A table or figure of the paper as numbers, from the CSV that `reproduce.py` wrote."""
    cells, dataset, scale = tables.read_csv(path)
    return f"Ours on {dataset}, {scale} scale; the paper's on CIFAR-10.\n\n" + tables.markdown(
        tables.grid(EXPERIMENTS[name], cells)
    )


TABLES: dict[str, Callable[[list[Row]], str]] = {
    "bench": bench,
    "startup_and_memory": startup_and_memory,
    "differences/runs": differences,
}


def with_tables(text: str, results: Path) -> str:
    """`text` with every table written anew from the CSV files in `results`."""

    def replace(match: re.Match[str]) -> str:
        name = match[1]
        path = results / f"{name}.csv"
        if name in EXPERIMENTS:
            table = reproduced(name, path)
        else:
            with path.open(encoding="utf-8", newline="") as file:
                table = TABLES[name](list(csv.DictReader(file)))
        return f"<!-- results: {name} -->\n{table}\n<!-- end -->"

    return re.sub(r"<!-- results: ([\w/]+) -->\n.*?<!-- end -->", replace, text, flags=re.DOTALL)


def _measured_on(rows: list[Row]) -> str:
    row = rows[0]
    return f"{row['hardware']}, {row['threads']} threads, {row['precision']}, PyTorch {row['torch']}"


def _table(columns: list[str], body: list[list[str]]) -> str:
    alignment = ["---" if index == 0 else "---:" for index in range(len(columns))]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [columns, alignment, *body])


if __name__ == "__main__":
    for document in DOCUMENTS:
        document.write_text(with_tables(document.read_text(encoding="utf-8"), ROOT / "results"), encoding="utf-8")
