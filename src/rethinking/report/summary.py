"""The summary of the page: what ran, and how many numbers agree with the paper's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from rethinking.experiments.experiment import Evidence
from rethinking.report.runs import TASKS
from rethinking.report.sections import Section


def what_ran(runs: Sequence[Evidence]) -> dict[str, list[str]]:
    """What ran, on which data, when and with what, each as a list of lines. What no run kept is left out."""
    unfinished = sum(not run.finished for run in runs)
    ran = [
        _counted(count, *TASKS.get(task, (f"{task} run", f"{task} runs")))
        for task, count in _count(runs, _task).items()
    ]
    provenance = [run.facts["provenance"] for run in runs]
    dates = sorted({made["date"] for made in provenance if "date" in made})
    undated = sum("date" not in made for made in provenance)
    lines = {
        "Runs": ran
        + ([f"{unfinished} of these {'is' if unfinished == 1 else 'are'} not finished"] if unfinished else []),
        "Data": [_images(name, runs) for name in _count(runs, _data)],
        "Hardware": _with_counts(_count(runs, lambda run: run.facts["provenance"]["hardware"])),
        "Versions": _with_counts(_count(runs, _versions)),
        "Commit": _with_counts(_count(runs, lambda run: run.facts["provenance"].get("commit") or "")),
        "Date": [" to ".join(dict.fromkeys([dates[0], dates[-1]]))] if dates else ["not kept by these runs"],
    }
    if dates and undated:
        lines["Date"].append(f"{_counted(undated, 'run', 'runs')} without a date")
    return {name: found for name, found in lines.items() if found}


def _count(runs: Sequence[Evidence], of: Callable[[Evidence], str]) -> Counter[str]:
    """How many runs have each value, the most frequent first; without those that have none."""
    counted = Counter(value for run in runs if (value := of(run)))
    return Counter(dict(counted.most_common()))


def _with_counts(counted: Counter[str]) -> list[str]:
    return [
        value if len(counted) == 1 else f"{value} ({_counted(count, 'run', 'runs')})"
        for value, count in counted.items()
    ]


def _counted(count: int, one: str, several: str) -> str:
    return f"{count:,} {one if count == 1 else several}"


def _images(dataset: str, runs: Sequence[Evidence]) -> str:
    """A data set, with the least and the largest number of training images that runs had."""
    counts = [run.facts["train_images"] for run in runs if run.facts["dataset"] == dataset]
    span = " to ".join(dict.fromkeys([f"{min(counts):,}", f"{max(counts):,}"]))
    return f"{dataset}, {span} training images"


def _task(run: Evidence) -> str:
    return run.task


def _data(run: Evidence) -> str:
    return str(run.facts["dataset"])


def _versions(run: Evidence) -> str:
    versions = run.facts["provenance"]["versions"]
    names = ("rethinking-generalization", "torch", "python")
    return ", ".join(f"{name} {versions[name]}" for name in names if name in versions)


def totals(sections: Sequence[Section]) -> list[tuple[int, int, str]]:
    """How many numbers agree with the paper's, of how many: in tables, and in figures.

    A figure with a point for each epoch is left out, since the converged end of its curves agrees at every epoch.
    """
    found_in = []
    for is_curve, what in ((False, "numbers in tables"), (True, "points of figures")):
        asked = [section for section in sections if bool(section.chart) is is_curve and not section.by_epoch]
        found = [one for section in asked for one, *_ in section.agreements]
        if found:
            found_in.append((sum(one.agree for one in found), sum(one.compared for one in found), what))
    return found_in
