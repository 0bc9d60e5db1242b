"""`report.html`: every table and figure of a results folder on one page, self-contained.

A number is a button that opens the runs behind it: configuration, data with its fingerprint, provenance, and the
command that runs it again. The browser's own popovers do this, without a script.
"""

from __future__ import annotations

import base64
import hashlib
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import jinja2

from rethinking import files
from rethinking.config import ExperimentConfig, field_by_name
from rethinking.data import sources
from rethinking.errors import RunError
from rethinking.experiments import complexity
from rethinking.experiments.catalogue import EXPERIMENTS
from rethinking.experiments.experiment import Cell, Evidence, Experiment, Plot
from rethinking.experiments.scale import SCALES
from rethinking.report import tables
from rethinking.theory.run import READ_OPTIONS
from rethinking.theory.stability import Change


class Front(NamedTuple):
    """What stands before the tables. findings: sentences, each with the command to try next, or an empty one"""

    title: str
    findings: tuple[tuple[str, str], ...]
    about: str


def write(
    folder: Path,
    kept: Mapping[str, Evidence],
    others: Mapping[str, Experiment] = MappingProxyType({}),
    front: Front | None = None,
) -> Path:
    """The page of all that `folder` holds, from its CSV and SVG files and the evidence.

    others: what is known of tables that are not among `EXPERIMENTS`, by their files' name

    Raises `RunError` where a table there is of runs without evidence.
    """
    experiments = {**others, **EXPERIMENTS}
    rest = (path.stem for path in sorted(folder.glob("*.csv")) if tables.is_table(path))
    names = dict.fromkeys([*(name for name in experiments if (folder / f"{name}.csv").exists()), *rest])
    sections = [_section(folder, name, kept, experiments) for name in names]
    behind = dict.fromkeys(runs for section in sections for runs in section["behind"])
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("rethinking.report", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    popovers = [{"id": popover_id(runs), "runs": [_described(kept[run]) for run in runs]} for runs in behind]
    beside_the_paper = any(kept[run].has_the_papers_images for runs in behind for run in runs)
    template = environment.get_template("page.html.j2")
    html = template.render(sections=sections, popovers=popovers, beside_the_paper=beside_the_paper, front=front)
    files.write(folder / "report.html", html, durable=False)
    return folder / "report.html"


def popover_id(runs: tuple[str, ...]) -> str:
    return f"runs-{hashlib.sha256(' '.join(runs).encode()).hexdigest()[:12]}"


def _section(
    folder: Path, name: str, kept: Mapping[str, Evidence], experiments: Mapping[str, Experiment]
) -> dict[str, Any]:
    table, svg = folder / f"{name}.csv", files.read(folder / f"{name}.svg")
    cells, dataset, scale = tables.read_csv(table)
    if unknown := {run for cell in cells for run in cell.runs} - kept.keys():
        raise RunError(
            f"{table} shows {min(unknown)}, of which {folder / 'runs.csv'} has no row; move {name}.* away,"
            f" and `reproduce.py {name}` writes them anew"
        )
    experiment = (experiments.get(name) or _elsewhere(folder, name, cells)).shown_for(cells, kept)
    beside_the_paper = any(cell.paper is not None for cell in cells)
    return {
        "name": name,
        "title": experiment.title,
        "about": _sentences(experiment.about),
        "dataset": dataset,
        "images": sorted({kept[run].facts["train_images"] for cell in cells for run in cell.runs}),
        "papers": tables.papers([kept[run] for cell in cells for run in cell.runs]) if beside_the_paper else "",
        "scale": scale,
        "figure": base64.b64encode(svg).decode()
        if svg is not None and (experiment.plot or name not in EXPERIMENTS)
        else None,
        "grid": _clickable(tables.grid(experiment, cells)),
        "all_epochs": _clickable(tables.grid(experiment, cells, every_epoch=True)) if _long(name) else None,
        "behind": list(dict.fromkeys(cell.runs for cell in cells)),
    }


def _elsewhere(folder: Path, name: str, cells: list[Cell]) -> Experiment:
    """What is known of an experiment whose file this process was not given, from the tables that it left."""
    markdown = folder / f"{name}.md"
    title = markdown.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ") if markdown.exists() else name
    ours_only = {cell.quantity for cell in cells} - {cell.quantity for cell in cells if cell.paper is not None}
    along = Plot(quantities=(), series="", x_label="place", tabled=True)
    return Experiment(
        title=title,
        about="",
        models=(),
        rows=lambda study: [],
        numbers=lambda answers: [],
        ours_only=tuple(ours_only),
        plot=along if any(cell.x is not None for cell in cells) else None,
    )


def _sentences(docstring: str) -> str:
    """An experiment's first lines without the name it begins with, which the heading has."""
    text = " ".join((docstring or "").split())
    text = text.partition(": ")[2] or text
    return text[:1].upper() + text[1:]


def _long(name: str) -> bool:
    plot = EXPERIMENTS[name].plot if name in EXPERIMENTS else None
    return plot is not None and plot.x_per_epoch is not None


def _clickable(grid: tables.Grid) -> dict[str, Any]:
    def place(entry: tables.Entry) -> dict[str, str | None]:
        return {"text": entry.text, "popover": _popover(entry.cell)}

    headed = tables.with_row_headings(grid)
    return {"headings": headed.headings, "rows": [[place(entry) for entry in row] for row in headed.rows]}


def _popover(cell: Cell | None) -> str | None:
    return None if cell is None else popover_id(cell.runs)


def _described(run: Evidence) -> dict[str, Any]:
    """A run as its popover shows it."""
    provenance = run.facts["provenance"]
    return {
        "name": run.run,
        "status": run.progress or "finished",
        "facts": {
            "data": f"{run.facts['dataset']}, {run.facts['train_images']:,} training images",
            "data's fingerprint": provenance["fingerprint"],
            **_found(run),
            "hardware": f"{provenance['hardware']}, {provenance['cpu_threads']} threads",
            "versions": ", ".join(f"{name} {version}" for name, version in provenance["versions"].items()),
            "commit": provenance.get("commit") or "unknown",
            "time": f"{run.facts['seconds']:,.1f} s",
        },
        "configuration": dict(run.configuration),
        "command": command(run),
    }


def _found(run: Evidence) -> dict[str, str]:
    if run.is_of_network:
        return _of_network(run.metrics[-1])
    if run.task == "replacements":
        last = {name: run.facts[name][-1] for name in Change._fields}
        return {f"{name.replace('_', ' ')} change": f"{value:.3g}" for name, value in last.items()}
    if run.task == "measures":
        return {
            name: f"{run.facts[key]:.6g}"
            for name, key in (complexity.TRAINED | complexity.QUANTITIES).items()
            if run.facts[key] is not None
        }
    if run.task == "own_measures":
        return {name: f"{value:.6g}" for name, value in run.facts["numbers"].items()}
    if run.task == "linear_classes":
        return {name: f"{run.facts[name]:.6g}" for name in ("correlation", "supremum", "bound")}
    return _of_machine(run.facts) if run.task == "kernel_machines" else _of_memorizing(run.facts)


def _of_memorizing(facts: Mapping[str, Any]) -> dict[str, str]:
    """What is known of a network that was written down."""
    if "too_close" in facts:
        return {"not to be had": facts["too_close"]}
    shown = {"training error": _percent(facts["train_error"]), "test error": _percent(facts["test_error"])}
    for name in ("points", "dimensions", "depth", "width", "weights"):
        shown[name] = f"{facts[name]:,}"
    for name in ("largest_difference", "largest_weight", "weight_bound", "construction_seconds"):
        if name in facts:
            shown[name.replace("_", " ")] = f"{facts[name]:.3g}"
    return shown


def _of_network(last: Mapping[str, Any]) -> dict[str, str]:
    return {
        "training accuracy": _percent(last["exact_train_accuracy"], last["train_accuracy"]),
        "test accuracy": _percent(last["test_accuracy"]),
        "training loss": f"{last['train_loss']:.4g}",
    }


def _of_machine(facts: Mapping[str, Any]) -> dict[str, str]:
    """What is known of a solution, the numbers to six digits."""
    shown = {
        "training error": _percent(facts["train_error"]),
        "test error": _percent(facts["test_error"]),
        "fits every training label": "yes" if facts["interpolates"] else "no",
    }
    for name in ("norm", "residual", "bandwidth", "ridge", "jitter", "refinements", "peak_gib"):
        if facts.get(name) is not None:
            shown[name.replace("_gib", " memory, GiB")] = f"{facts[name]:.6g}"
    for name in ("cholesky_gflops", "product_gflops"):
        if name in facts:
            shown[name.replace("_gflops", ", GFLOP/s")] = f"{facts[name]:.0f}"
    return shown | {"memory": facts["memory"]}


def _percent(exact: float | None, online: float | None = None) -> str:
    if exact is not None:
        return f"{exact:.2%}"
    return "not measured" if online is None else f"{online:.2%} (online)"


def command(run: Evidence) -> str:
    """The command line that made it; of runs that older versions kept without theirs, one that makes it again."""
    if "command" in run.facts and run.task != "measures":
        return str(run.facts["command"])
    if run.task == "measures":
        return f"{_command_of_network(run)} && python reproduce.py complexity runs/{run.facts['network']}"
    return _command_of_network(run) if run.is_of_network else _command_of_theory(run)


def _command_of_network(run: Evidence) -> str:
    flags = {field: flag for flag, field in reversed(field_by_name().items())}
    words = ["python train.py", _data(run)]
    resolved = vars(ExperimentConfig(model_name=run.configuration["model_name"]).resolved())
    for name, value in run.configuration.items():
        if name not in flags:  # of what was measured of it
            continue
        if name != "model_name" and (value == resolved[name] or name in ("crop_size", "device")):
            continue
        words.append(f"--{flags[name]}" if value is True else f"--{flags[name]} {shlex.quote(str(value))}")
    return " ".join(words)


def _data(run: Evidence) -> str:
    """The option that names its data, without the words that other options add to the name in results."""
    given = {name: value for name, value in run.configuration.items() if name in READ_OPTIONS}
    name = run.facts["dataset"].removesuffix(sources.ReadOptions(**given).suffix)
    if copy := re.fullmatch(rf"({'|'.join(sources.NAMES)})-[0-9a-f]{{8}}", name):  # in a folder of a known name
        return f"--dataset {copy[1]} --data_root PATH/TO"
    return f"--dataset {name if name in sources.NAMES else f'PATH/TO/{name}'}"


def _command_of_theory(run: Evidence) -> str:
    """The reproduction it belongs to, which finds what is done."""
    asked = run.configuration
    named = {
        "own_measures": "FILE.py",
        "memorization": "expressivity",
        "linear_classes": "rademacher",
        "replacements": "stability",
    }
    experiment = named.get(run.task, "")
    if run.task == "kernel_machines":
        of_table = asked["solution"] == "minimum_norm" and asked["randomization"] == "none"
        of_table &= asked["train_subset"] in {scale.machine_images for scale in SCALES.values()}
        experiment = "table3" if of_table else "minimum_norm"
    words = [
        f"python reproduce.py {experiment}",
        _data(run),
        *(
            f"--{name}" if asked[name] is True else f"--{name} {shlex.quote(str(asked[name]))}"
            for name in READ_OPTIONS
            if name in asked
        ),
        *(f"--scale {scale}" for scale in _scales(run)),
    ]
    if run.task == "replacements":
        words.append(f"--models {asked['model_name']}")
    if asked.get("filters"):
        words.append(f"--filters {asked['filters']}")
    if asked.get("bandwidth", "search") != "search":
        words.append(f"--bandwidth {asked['bandwidth']}")
    if asked["seed"]:
        words.append(f"--seeds {asked['seed']}")
    return " ".join(words)


def _scales(run: Evidence) -> list[str]:
    """The scale other than the full one that has such a run on so many images, if there is one."""
    if run.task == "replacements":
        of_run = [run.configuration[name] for name in ("train_subset", "lr_decay")]
        those = (name for name, scale in SCALES.items() if [scale.options.get("train_subset"), scale.decay] == of_run)
        return [name for name in those if name != "full"]
    if run.facts["dataset"] == "digits":
        return ["demo"]
    images = run.configuration["train_subset"]
    for name, scale in SCALES.items():
        sizes: tuple[int | None, ...] = (scale.machine_images, scale.interpolated, scale.linear)
        if run.task == "linear_classes":
            sizes = scale.examples
        elif run.task == "memorization":
            points, labels = run.configuration["points"], run.configuration["randomization"]
            sizes = (scale.machine_images,)
            if (points, labels) == ("images", "random_labels") or points == "pairs":
                sizes += scale.memorized
            if (points, labels, run.configuration["depth"]) == ("images", "random_labels", 2):
                sizes += scale.examples
        if images in sizes:
            return [] if name == "full" else [name]
    return []
