"""`report.html`: every table and figure of a results folder on one page, in one file.

The page begins with what ran and how far it agrees with the paper. Each number has an address and opens the runs
behind it: configuration, data with its fingerprint, provenance, and the command that makes the run again. The page
needs no network. It depends on the folder alone, so the same folder gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import jinja2

from rethinking import files
from rethinking.experiments.catalogue import EXPERIMENTS
from rethinking.experiments.experiment import Evidence, Experiment
from rethinking.report import tables
from rethinking.report.addresses import Addresses
from rethinking.report.runs import Behind
from rethinking.report.sections import named_apart, section_of
from rethinking.report.summary import totals, what_ran

SITE = "https://rethinking-generalization.github.io/rethinking-generalization/"
TITLE = "Rethinking generalization, reproduced"
FIGURES = ("uplot/uPlot.min.css", "uplot/LICENSE", "uplot/uPlot.iife.min.js", "charts.js")  # what they are drawn with


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
    """Writes the page of all that `folder` holds, from its CSV and SVG files and the evidence; returns its path.

    others: what is known about tables that are not among `EXPERIMENTS`, by the name of their files

    Raises `RunError` where a table there shows runs without evidence.
    """
    files.write(folder / "report.html", as_html(folder, kept, others, front), durable=False)
    return folder / "report.html"


def as_html(
    folder: Path,
    kept: Mapping[str, Evidence],
    others: Mapping[str, Experiment] = MappingProxyType({}),
    front: Front | None = None,
) -> str:
    """The page as text; arguments and errors as of `write`."""
    experiments = {**others, **EXPERIMENTS}
    rest = (path.stem for path in sorted(folder.glob("*.csv")) if tables.is_table(path))
    names = dict.fromkeys([*(name for name in experiments if (folder / f"{name}.csv").exists()), *rest])
    behind, addresses = Behind(kept), Addresses()
    curves = front is not None
    sections = named_apart(section_of(folder, name, behind, addresses, experiments, curves) for name in names)
    own = front is None and sections and not any(section.name in EXPERIMENTS for section in sections)
    drawn = {section.name: section.chart for section in sections if section.chart is not None}
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("rethinking.report", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    runs = [kept[run] for run in behind.runs]
    return environment.get_template("page.html.j2").render(
        title=front.title if front else sections[0].title if own else TITLE,
        own=own,
        front=front,
        sections=sections,
        ids={section.name: addresses.of_section(section.name) for section in sections},
        summary=what_ran(runs),
        totals=totals(sections),
        beside_the_paper=any(run.has_the_papers_images for run in runs),
        site=SITE,
        data=behind.as_json(drawn),
        style=_part("page.css"),
        script=_part("page.js"),
        uplot=[_part(name) for name in FIGURES] if drawn else [],
    )


def _part(name: str) -> str:
    return (resources.files("rethinking.report") / name).read_text(encoding="utf-8")
