"""What the documents show of the results and of the code: `python -m tools.documents` writes it.

A line `<!-- results: bench -->` begins a table from `results/`, `<!-- generated: train_options -->` one from the code.
`<!-- end -->` ends it; what stands between is replaced. The README's picture is drawn, too.
"""

from __future__ import annotations

import csv
import json
import re
import statistics
import textwrap
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from rethinking.cli import Training
from rethinking.config import ExperimentConfig
from rethinking.experiments.catalogue import EXPERIMENTS
from rethinking.experiments.experiment import Cell, Experiment
from rethinking.experiments.reproduction import Reproduction
from rethinking.options import Option, options_of, shown_default
from rethinking.progress import duration
from rethinking.report import tables
from rethinking.sweeps.options import GROUP, own_options
from tools import differences, picture, reproduced

ROOT = Path(__file__).parents[1]
DOCUMENTS = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
UNFINISHED = re.compile(r"after \d+ of \d+ epochs")  # the remark on a number of a run that is not finished
SOLVED = ("mnist", "cifar10_jpeg", "mnist-h200")  # of the results, those with kernel machines whose time is shown
ON_PAPER = 64  # GPUs
CIFAR10_IMAGES = 50_000  # of training
FSYNCS = 3  # an epoch: its line of metrics, its checkpoint, and the checkpoint's name
KILLED = {  # parts of benchmarks/cluster.py, in words
    "node": "a node; another joins",
    "driver": "the command; it is started again",
    "kills": "workers and nodes at random",
    "namespaces": "a node and the command, on four addresses",
}
Row = dict[str, str]


def bench(results: Path) -> str:
    """An epoch against its bare steps and against a stock pipeline."""
    columns = ["model", "augmentation", "bare step, images/s", "epoch, images/s", "epoch / step", "epoch / stock"]

    def line(row: Row) -> list[str]:
        return [
            f"`{row['model']}`",
            row["augmentation"],
            _whole(row["step_images_per_second"]),
            _whole(row["epoch_images_per_second"]),
            f"{float(row['epoch_over_step']):.2f}",
            f"{float(row['epoch_over_stock']):.2f}" if row["epoch_over_stock"] else "",
        ]

    return _machine_by_machine(_rows(results / "bench.csv"), columns, line)


def startup_and_memory(results: Path) -> str:
    columns = ["model", "command to first step", "peak memory of an epoch"]

    def line(row: Row) -> list[str]:
        return [f"`{row['model']}`", f"{float(row['startup_seconds']):.1f} s", f"{float(row['peak_gib']):.2f} GiB"]

    return _machine_by_machine(_rows(results / "startup_and_memory.csv"), columns, line)


def many_at_once(results: Path) -> str:
    """Runs at once against the same runs one after the other."""
    columns = ["model", "runs", "images", "epochs", "way", "images/s, all runs", "to one after the other"]

    def line(row: Row) -> list[str]:
        images = row["images"] if row["images"] == "all" else _whole(row["images"])
        speed = [_whole(row["images_per_second"]), _ratio(row)]
        return [f"`{row['model']}`", row["runs"], images, row["epochs"], row["setting"], *speed]

    return _machine_by_machine(_rows_of(results, "many_at_once"), columns, line)


def stacked_epochs(results: Path) -> str:
    """Training epochs of stacked runs against those of one alone."""
    columns = ["model", "runs", "images/s, all runs", "to one alone"]
    return _speeds(results, "stacked_epochs", columns, "runs")


def streamed(results: Path) -> str:
    """Training epochs with images on disk against those with images in memory."""
    columns = ["model", "images", "images/s", "to in memory", "half of the rounds"]
    rows = _rows_of(results, "streamed")
    quartiles = {(row["model"], row["hardware"], row["setting"]): _ratio(row) for row in rows}

    def line(row: Row) -> list[str]:
        ends = [
            quartiles[row["model"], row["hardware"], f"{row['setting']}: {end} quartile"] for end in ("lower", "upper")
        ]
        return [f"`{row['model']}`", row["setting"], _whole(row["images_per_second"]), _ratio(row), " to ".join(ends)]

    return _machine_by_machine([row for row in rows if not row["setting"].endswith(" quartile")], columns, line)


def whole_reproduction(results: Path) -> str:
    """`reproduce.py` from its start to its page."""
    columns = ["reproduction", "runs", "time", "to one after the other"]

    def line(row: Row) -> list[str]:
        return [row["setting"], row["runs"], f"{float(row['seconds']):.0f} s", _ratio(row) if row["ratio"] else ""]

    return _machine_by_machine(_rows_of(results, "whole_reproduction"), columns, line)


def forms_of_the_step(results: Path) -> str:
    """The step eager, captured and compiled."""
    columns = ["model", "form", "bare step, images/s", "to eager", "ready after"]

    def line(row: Row) -> list[str]:
        ready = f"{float(row['seconds']):.1f} s"
        return [f"`{row['model']}`", row["setting"], _whole(row["images_per_second"]), _ratio(row), ready]

    return _machine_by_machine(_rows_of(results, "forms_of_the_step"), columns, line)


def against_commit(results: Path) -> str:
    """Training, evaluation and whole runs against an earlier commit's."""
    columns = ["model", "what", "now", "times as fast as before"]

    def line(row: Row) -> list[str]:
        now = (
            f"{_whole(row['images_per_second'])} images/s"
            if row["images_per_second"]
            else duration(float(row["seconds"]))
        )
        return [f"`{row['model']}`", row["setting"], now, _ratio(row)]

    return _machine_by_machine(_rows_of(results, "against_commit"), columns, line)


def beside_others(results: Path) -> str:
    """Training beside busy processes, against an earlier commit's with all threads and with one."""
    columns = ["model", "busy processes and way", "images/s", "to the better before"]
    return _speeds(results, "beside_others", columns, "setting")


def against_jax(results: Path) -> str:
    """Training epochs against JAX's."""
    return _speeds(results, "against_jax", ["model", "epochs", "images/s", "to JAX's best"], "setting")


def _speeds(results: Path, benchmark: str, columns: list[str], way: str) -> str:
    """Images a second of each model, and their ratio; `way` is the row's key of the second column."""

    def line(row: Row) -> list[str]:
        return [f"`{row['model']}`", row[way], _whole(row["images_per_second"]), _ratio(row)]

    return _machine_by_machine(_rows_of(results, benchmark), columns, line)


def starts(results: Path) -> str:
    """What a person waits for before training, and the demo, against an earlier commit's."""
    return _seconds_against(results, "starts", "what")


def random_filters(results: Path) -> str:
    """A chunk of random filters against an earlier commit's."""
    return _seconds_against(results, "random_filters", "chunk")


def _seconds_against(results: Path, benchmark: str, what: str) -> str:
    columns = [what, "commit", "seconds", "times as fast"]

    def line(row: Row) -> list[str]:
        return [row["model"], row["setting"], f"{float(row['seconds']):.3g}", _ratio(row)]

    return _machine_by_machine(_rows_of(results, benchmark), columns, line)


def growth(results: Path) -> str:
    """The exponents with which the time of an epoch grows."""
    columns = ["model", "time grows with", "to the power of"]
    exponents = [row for row in _rows_of(results, "growth") if row["setting"].startswith("exponent of ")]

    def line(row: Row) -> list[str]:
        return [f"`{row['model']}`", f"the {row['setting'].removeprefix('exponent of ')}", _ratio(row)]

    return _machine_by_machine(exponents, columns, line)


def floor(results: Path) -> str:
    """How much of the least possible time's speed a training step reaches."""
    columns = ["model", "bare step, images/s", "least time", "of its speed reached"]

    def line(row: Row) -> list[str]:
        share = f"{float(row['ratio']):.0%}"
        return [f"`{row['model']}`", _whole(row["images_per_second"]), row["setting"], share]

    return _machine_by_machine(_rows_of(results, "floor"), columns, line)


def profile(results: Path) -> str:
    """The operations that take most of a step's time."""
    columns = ["model", "operation", "share of the step"]

    def line(row: Row) -> list[str]:
        return [f"`{row['model']}`", f"`{row['setting']}`", f"{float(row['ratio']):.0%}"]

    return _machine_by_machine(_rows_of(results, "profile"), columns, line)


def kernel_machines(results: Path) -> str:
    """Time, memory and speed of the solutions of least norm."""
    columns = ["data", "features", "l2", "solved in", "peak memory", "Cholesky / product, GFLOP/s"]

    def line(row: Row) -> list[str]:
        features = row["features"].replace("_", " ") + (f", {int(row['filters']):,} filters" if row["filters"] else "")
        speed = f"{_whole(row['cholesky_gflops'])} / {_whole(row['product_gflops'])}" if row["cholesky_gflops"] else ""
        seconds = duration(float(row["seconds"]))
        if json.loads(row["facts"]).get("resumed"):
            seconds = f"over {seconds}"  # what came before an interruption is not counted
        return [row["data"], features, row["ridge"], seconds, f"{float(row['peak_gib']):.1f} GiB", speed]

    found = [row for folder in SOLVED for row in _rows(results / folder / "kernel_machines.csv")]
    rows = [row for row in found if not row["train_subset"]]
    rows.sort(key=lambda row: (row["dataset"], row["features"], int(row["filters"] or 0)))
    other = {"cpu_threads": "threads", "dataset": "data"}  # so that a machine's data sets share one table
    named = [{other.get(name, name): value for name, value in row.items()} for row in rows]
    return _machine_by_machine(named, columns, line)


def killed_clusters(results: Path) -> str:
    """Lists of runs on Ray clusters while workers, nodes and drivers are killed."""
    columns = ["what is killed", "folder of runs", "runs", "kills", "equal to one process", "trained twice", "time"]

    def line(row: Row) -> list[str]:
        part, _, shared = row["setting"].partition(", shared folder: ")
        counts = [row["runs"], row["kills"], row["equal"], row["trained_twice"]]
        return [KILLED[part], {"yes": "shared", "no": "not shared"}[shared], *counts, duration(float(row["seconds"]))]

    rows = [row for row in _rows(results / "cluster.csv") if row["setting"].partition(",")[0] in KILLED]
    return _machine_by_machine(rows, columns, line)


def cost_of_clusters(results: Path) -> str:
    """What a list of runs on a Ray cluster costs besides the training."""
    columns = ["list", "measured", ""]
    rows = {row["setting"]: row for row in _rows(results / "cluster.csv")}
    lines = []
    for setting, row in rows.items():
        part, _, what = setting.partition(", ")
        if part == "many":
            lines += [
                [what, "seconds a run besides the training", row["cost_per_run"]],
                ["", "growth of the driver's memory from the 100th run on", f"{row['driver_growth_mib']} MiB"],
                ["", "temporary folder, at most", f"{row['temporary_mib']} MiB"],
                ["", "processes and shared-memory files left", f"{row['processes_left']} and {row['files_left']}"],
            ]
        elif part == "throughput":
            lines += [
                [what, "to one process of one thread", f"{row['ratio']} times"],
                ["", "two processes that know nothing of each other", f"{row['ratio_apart']} times"],
            ]
        elif part == "growth":
            lines.append(
                [
                    what,
                    "seconds, and milliseconds of the driver's core for each run",
                    f"{row['seconds']} and {row['driver_ms_per_run']}",
                ]
            )
        elif part == "lists":
            lines += [
                [what, "planning, before the first run", f"{row['planning_seconds']} s"],
                ["", "writing all evidence once", f"{row['evidence_seconds']} s for {row['evidence_mib']} MiB"],
            ]
    return tables.markdown_table(columns, lines)


def lists_on_paper(results: Path) -> str:
    """What 64 GPUs would ask of the file system and of the driver: measured speeds of one H200, multiplied."""
    speeds: dict[str, float] = {}
    for row in _rows_of(results, "stacked_epochs"):
        if "H200" in row["hardware"]:
            speeds[row["model"]] = max(speeds.get(row["model"], 0.0), float(row["images_per_second"]))
    growth = [row for row in _rows(results / "cluster.csv") if row["setting"].startswith("growth, ")]
    of_driver = [float(row["driver_ms_per_run"]) / int(row["setting"].split()[4]) for row in growth]
    sizes = {row["model_name"]: 8 * int(row["parameters"]) for row in _rows(results / "cifar10" / "runs.csv")}
    columns = ["network", "epochs a second", "checkpoint", "written a second", "fsyncs a second", "cores of the driver",
               "10,000 runs of 70 epochs"]  # fmt: skip
    lines = []
    for model, speed in speeds.items():
        epochs = ON_PAPER * speed / CIFAR10_IMAGES
        lines.append(
            [
                f"`{model}`",
                _whole(str(epochs)),
                f"{sizes[model] / 1e6:.1f} MB",
                f"{epochs * sizes[model] / 1e9:.2f} GB",
                _whole(str(epochs * FSYNCS)),
                f"{epochs * statistics.median(of_driver) / 1000:.1f}",
                duration(10_000 * 70 / epochs),
            ]
        )
    return tables.markdown_table(columns, lines)


def table1_without_regularization(results: Path) -> str:
    """The rows of Table 1 on CIFAR-10 that have no explicit regularizer, without the columns that say so."""
    cells, dataset, scale = tables.read_csv(results / reproduced.ORIGINAL / "table1.csv")
    regularizers = {"random_crop": "no", "weight_decay": "no"}
    kept = [
        replace(cell, labels=tuple(label for label in cell.labels if label[0] not in regularizers))
        for cell in cells
        if regularizers.items() <= dict(cell.labels).items()
    ]
    return captioned(EXPERIMENTS["table1"], kept, dataset, scale)


def label_errors(results: Path) -> str:
    """What a search finds in folders with wrong labels, beside cleanlab on the same probabilities."""
    columns = ["data", "network", "way", "wrong in the first 100", "precision", "recall", "AUROC", "time"]
    left_out = ("ours, forgetting events", "ours, first learned", "ours, variability")
    lines = []
    for row in _rows(results / "label_errors.csv"):
        if row["method"] not in left_out:
            shares = [f"{float(row[name]):.0%}" if row[name] else "" for name in ("first_100", "precision", "recall")]
            area = f"{float(row['auroc']):.3f}" if row["auroc"] else ""
            time = duration(float(row["seconds"])) if row["method"].startswith("ours") else ""
            lines.append([row["data"], f"`{row['network']}`", row["method"], *shares, area, time])
    return tables.markdown_table(columns, lines)


def captioned(experiment: Experiment, cells: list[Cell], dataset: str, scale: str) -> str:
    """A table of these cells below what they are of."""
    numbers = tables.markdown(tables.grid(experiment, cells))
    papers = "CIFAR-10" if experiment.models else "MNIST and CIFAR-10"
    beside = f"; the paper's on {papers}" if any(cell.paper is not None for cell in cells) else ""
    caption = f"Ours on {dataset}, {scale} scale, {tables.repeats(experiment, cells)}{beside}."
    caption = " ".join(filter(None, (caption, tables.meaning_of_spread(experiment, cells))))
    if UNFINISHED.search(numbers):
        caption += ' "After N of M epochs": the run is not finished.'
    return f"{textwrap.fill(caption, 120)}\n\n{numbers}"


TABLES: dict[str, Callable[[Path], str]] = {
    "table1_without_regularization": table1_without_regularization,
    "lists_on_paper": lists_on_paper,
    "killed_clusters": killed_clusters,
    "cost_of_clusters": cost_of_clusters,
    "bench": bench,
    "startup_and_memory": startup_and_memory,
    "many_at_once": many_at_once,
    "stacked_epochs": stacked_epochs,
    "streamed": streamed,
    "whole_reproduction": whole_reproduction,
    "forms_of_the_step": forms_of_the_step,
    "against_commit": against_commit,
    "beside_others": beside_others,
    "against_jax": against_jax,
    "starts": starts,
    "random_filters": random_filters,
    "growth": growth,
    "floor": floor,
    "profile": profile,
    "kernel_machines": kernel_machines,
    "differences": differences.single_runs,
    "compression": differences.compression,
    "levels": differences.levels,
    "mlp_trials": differences.mlp_trials,
    "order_of_batches": differences.order_of_batches,
    "alexnet_trials": differences.alexnet_trials,
    "corrupted_test_labels": differences.corrupted_test_labels,
    "bandwidths": differences.bandwidths,
    "norms": differences.norms,
    "overview": reproduced.overview,
    "loss_reached": reproduced.loss_reached,
    "last_changes": reproduced.last_changes,
    "long_tail": reproduced.long_tail,
    "best_epochs": reproduced.best_epochs,
    "label_errors": label_errors,
}


def train_options() -> str:
    """Every option of `train`, a table for each group, for a page of `docs/`."""
    return _options([*options_of(ExperimentConfig), *options_of(Training)], docs="")


def reproduce_options() -> str:
    """Every option of `reproduce`, for a page of `docs/reproduce/`."""
    return _options(options_of(Reproduction), docs="../")


def sweep_options() -> str:
    """The options of `sweep` that are not options of `train`, for a page of `docs/`."""
    return _options([one for one in own_options() if one.group == GROUP], docs="")


def running_options() -> str:
    """The options that `sweep` and `reproduce` share, for a page of `docs/`."""
    return _options([one for one in own_options() if one.group != GROUP], docs="")


def _options(options: list[Option], docs: str) -> str:
    """docs: the path from the page to the folder `docs/`"""
    groups: dict[str, list[list[str]]] = {}
    for option in options:
        name = f"`{option.metavar}`" if option.positional else f"`--{option.flag}`"
        takes = "" if option.positional or bool in option.kinds else _each_as_code(option.metavar)
        default, what = (_in_markdown(text, docs) for text in (shown_default(option), option.help))
        groups.setdefault(option.group, []).append([name, takes, default, what])
    headings = [["option", "takes", "default", "what"], ["---"] * 4]
    made = []
    for group, rows in groups.items():
        lines = ["| " + " | ".join(line) + " |" for line in headings + rows]
        made.append("\n".join([f"**{group.capitalize()}**", "", *lines] if len(groups) > 1 else lines))
    return "\n\n".join(made)


def _each_as_code(metavar: str) -> str:
    return ", ".join(f"`{word}`" for word in metavar.split("|"))


def _in_markdown(text: str, docs: str) -> str:
    """A help text with its options and quoted values as code, and links to its documents by their titles."""

    def link(match: re.Match[str]) -> str:
        first = (ROOT / match[0]).read_text(encoding="utf-8").partition("\n")[0]
        return f"[{first.removeprefix('# ')}]({docs}{match[1]}.md)"

    text = text.replace("<", "&lt;").replace("|", "\\|")
    text = re.sub(r"(?<!\w)'([^']+)'(?!\w)", r"`\1`", text)
    text = re.sub(r"(?<!\w)(--\w+)", r"`\1`", text)
    return re.sub(r"docs/([\w/]+)\.md", link, text)


GENERATED: dict[str, Callable[[], str]] = {
    "train_options": train_options,
    "sweep_options": sweep_options,
    "running_options": running_options,
    "reproduce_options": reproduce_options,
}


def table(name: str, results: Path) -> str:
    """The table of a marker: one of `TABLES`, a table or figure from what `reproduce.py` wrote, or that in short.

    Another scale or data set has a folder of its own, such as `cifar10_jpeg-small/rademacher`. `short/rademacher` is
    the sentence on its page.
    """
    if name in TABLES:
        return TABLES[name](results)
    if name.startswith("short/"):
        found = reproduced.PAGES[name.removeprefix("short/")].found(results)
        return textwrap.fill(found, 120, break_long_words=False, break_on_hyphens=False)
    return captioned(EXPERIMENTS[Path(name).name], *tables.read_csv(results / f"{name}.csv"))


def with_tables(text: str, results: Path) -> str:
    """`text` with all that is generated written anew, from the files in `results` and from the code."""

    def made_anew(match: re.Match[str]) -> str:
        kind, name = match[1], match[2]
        made = table(name, results) if kind == "results" else GENERATED[name]()
        return f"<!-- {kind}: {name} -->\n{made}\n<!-- end -->"

    return re.sub(r"<!-- (results|generated): ([\w/-]+) -->\n.*?<!-- end -->", made_anew, text, flags=re.DOTALL)


def _rows(path: Path) -> list[Row]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _rows_of(results: Path, benchmark: str) -> list[Row]:
    return [row for row in _rows(results / "performance.csv") if row["benchmark"] == benchmark]


def _whole(number: str) -> str:
    return f"{float(number):,.0f}"


def _ratio(row: Row) -> str:
    return f"{float(row['ratio']):.2f}"


def _machine_by_machine(rows: list[Row], columns: list[str], line: Callable[[Row], list[str]]) -> str:
    """A table for each machine that was measured on, under its name."""
    machines: dict[str, list[list[str]]] = {}
    for row in rows:
        name = f"{row['hardware']}, {row['threads']} threads, {row['precision']}, PyTorch {row['torch']}"
        on = f", on {row['dataset']}" if "dataset" in row else ""
        machines.setdefault(name + on, []).append(line(row))
    return "\n\n".join(f"{name}\n\n{tables.markdown_table(columns, body)}" for name, body in machines.items())


if __name__ == "__main__":
    picture.write(ROOT / "results", ROOT / "docs" / "images")
    for document in DOCUMENTS:
        document.write_text(with_tables(document.read_text(encoding="utf-8"), ROOT / "results"), encoding="utf-8")
