"""The runs behind the numbers, and what the page says about each of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from rethinking.experiments import complexity
from rethinking.experiments.experiment import Evidence
from rethinking.experiments.quantities import percent
from rethinking.report.commands import command
from rethinking.theory.stability import Change

TASKS = {  # by `Evidence.task`: what ran, one and several
    "network": ("trained network", "trained networks"),
    "kernel_machines": ("kernel machine", "kernel machines"),
    "memorization": ("network that memorizes by construction", "networks that memorize by construction"),
    "linear_classes": ("linear class on random signs", "linear classes on random signs"),
    "replacements": ("replaced training example", "replaced training examples"),
    "measures": ("measured network", "measured networks"),
    "own_measures": ("network under an own measure", "networks under an own measure"),
    "scored_examples": ("network whose examples are scored", "networks whose examples are scored"),
    "memorized_examples": ("network on random subsets", "networks on random subsets"),
}


Facts = Mapping[str, Any]


class Behind:
    """The runs behind the numbers: each run once, and each set of runs that a number comes from once."""

    def __init__(self, kept: Mapping[str, Evidence]) -> None:
        self.kept = kept
        self.runs: dict[str, int] = {}
        self.groups: dict[tuple[str, ...], int] = {}

    def place(self, runs: tuple[str, ...]) -> int:
        """The place of a number's runs among all groups."""
        for run in runs:
            self.runs.setdefault(run, len(self.runs))
        return self.groups.setdefault(runs, len(self.groups))

    def as_json(self, charts: Mapping[str, Any]) -> str:
        """All of it, and the charts, for `page.js`. No text in it can end the element that it stands in."""
        content = {
            "runs": [described(self.kept[run]) for run in self.runs],
            "groups": [[self.runs[run] for run in group] for group in self.groups],
            "charts": charts,
        }
        text = json.dumps(content, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def described(run: Evidence) -> dict[str, Any]:
    """A run as the panel of a number shows it."""
    provenance = run.facts["provenance"]
    return {
        "name": run.run,
        "status": run.progress or "finished",
        "facts": {
            "data": f"{run.facts['dataset']}, {run.facts['train_images']:,} training images",
            "data's fingerprint": provenance["fingerprint"],
            **_found(run),
            "hardware": f"{provenance['hardware']}, {_threads(provenance['cpu_threads'])}",
            "versions": ", ".join(f"{name} {version}" for name, version in provenance["versions"].items()),
            "commit": provenance.get("commit") or "unknown",
            **({"date": provenance["date"]} if "date" in provenance else {}),
            "time": f"{run.facts['seconds']:,.1f} s",
        },
        "configuration": dict(run.configuration),
        "command": command(run),
    }


def _threads(count: int) -> str:
    return "1 thread" if count == 1 else f"{count} threads"


def _found(run: Evidence) -> dict[str, str]:
    return _of_network(run.metrics[-1]) if run.is_of_network else FOUND[run.task](run.facts)


def _of_replacement(facts: Facts) -> dict[str, str]:
    last = {name: facts[name][-1] for name in Change._fields}
    return {f"{name.replace('_', ' ')} change": f"{value:.3g}" for name, value in last.items()}


def _of_measures(facts: Facts) -> dict[str, str]:
    quantities = (complexity.TRAINED | complexity.QUANTITIES).items()
    return {name: f"{facts[key]:.6g}" for name, key in quantities if facts[key] is not None}


def _of_own_measures(facts: Facts) -> dict[str, str]:
    return {name: f"{value:.6g}" for name, value in facts["numbers"].items()}


def _of_linear_class(facts: Facts) -> dict[str, str]:
    return {name: f"{facts[name]:.6g}" for name in ("correlation", "supremum", "bound")}


def _of_detection(facts: Facts) -> dict[str, str]:
    areas = {f"AUROC of {name.replace('_', ' ')}": f"{values[-1]:.3f}" for name, values in facts["auroc"].items()}
    return {"wrong labels": f"{facts['wrong_labels']:,}"} | areas


def _of_memorized(facts: Facts) -> dict[str, str]:
    return {
        f"memorization of {labels} labels": f"{percent(found['mean'])} ± {percent(found['standard_error'])}"
        for labels, found in facts["labels"].items()
    }


def _of_memorizing(facts: Facts) -> dict[str, str]:
    """The facts about a network that was constructed, not trained."""
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


def _of_machine(facts: Facts) -> dict[str, str]:
    """The facts about a solution, each number to six digits."""
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
        return percent(exact)
    return "not measured" if online is None else f"{percent(online)} (online)"


FOUND = {  # by `Evidence.task`: what the panel of a number says that a run found
    "kernel_machines": _of_machine,
    "memorization": _of_memorizing,
    "linear_classes": _of_linear_class,
    "replacements": _of_replacement,
    "measures": _of_measures,
    "own_measures": _of_own_measures,
    "scored_examples": _of_detection,
    "memorized_examples": _of_memorized,
}
