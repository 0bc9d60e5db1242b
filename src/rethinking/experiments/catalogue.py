"""Every table and figure there is a command for, by name. This is the door for further ones.

An experiment is a file with an `EXPERIMENT`. One in this folder is found by its file's name; one elsewhere is
`reproduce.py FILE.py`, or goes by a name of its own where an installed package has an entry point
`rethinking.experiments` for it.
"""

import importlib
import pkgutil
from pathlib import Path

from rethinking import experiments, registry
from rethinking.errors import InputError, nearest
from rethinking.experiments.experiment import Experiment

ORDER = (  # the paper's
    "table1",
    "table4",
    "figure1a",
    "figure1b",
    "figure1c",
    "figure2b",
    "rademacher",
    "stability",
    "complexity",
    "complexity_margins",
    "complexity_runs",
    "complexity_runs_margins",
    "expressivity",
    "expressivity_points",
    "expressivity_depth",
    "expressivity_gap",
    "table3",
    "table3_filters",
    "minimum_norm",
    "minimum_norm_errors",
    "minimum_norm_sgd",
)


def _in_this_folder() -> dict[str, Experiment]:
    """Those of the paper's order first, then all others there are, by name."""
    modules = sorted(module.name for module in pkgutil.iter_modules(experiments.__path__))
    others = [name for name in modules if name not in (*ORDER, Path(__file__).stem, "reproduction", "archive")]
    found = {name: importlib.import_module(f"{experiments.__name__}.{name}") for name in (*ORDER, *others)}
    return {name: module.EXPERIMENT for name, module in found.items() if hasattr(module, "EXPERIMENT")}


EXPERIMENTS: dict[str, Experiment] = _in_this_folder()


def find(name: str) -> str:
    """The name that an experiment goes by, given that or where it is: `FILE.py` or `FILE.py:NAME`.

    Raises `InputError` where there is none.
    """
    if name in EXPERIMENTS and not EXPERIMENTS[name].of_runs:
        return name
    if name.endswith(".py"):
        name = f"{name}:EXPERIMENT"
    try:
        found = registry.load_named(name, "rethinking.experiments")
    except KeyError:
        known = [*(other for other, experiment in EXPERIMENTS.items() if not experiment.of_runs), "all"]
        raise InputError(
            f"experiment must be one of {', '.join(known)}, or FILE.py, not '{name}'{nearest(name, known)}"
        ) from None
    if not isinstance(found, Experiment):
        raise InputError(f"{name} is no rethinking.experiments.experiment.Experiment")
    path, _, variable = name.rpartition(":")
    plain = Path(path).stem.rpartition(".")[2] if variable == "EXPERIMENT" else variable
    if EXPERIMENTS.setdefault(plain, found) is not found and plain in ORDER:
        raise InputError(f"{name} has the name of the package's own {plain}; rename it")
    EXPERIMENTS[plain] = found
    return plain
