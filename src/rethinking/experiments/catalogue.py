"""Every table and figure that has a command, by name: the place to add experiments.

An experiment is a Python file with a variable `EXPERIMENT`. A file in this folder goes by its own name. Run any other
file by `reproduce.py FILE.py`. An installed package gives its experiment a name by an entry point
`rethinking.experiments`.
"""

import importlib
import pkgutil
from pathlib import Path

from rethinking import experiments, registry
from rethinking.errors import InputError, nearest
from rethinking.experiments.experiment import Experiment

ORDER = (  # as in the paper
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
    "memorized",
    "memorized_errors",
    "detection",
    "detection_epochs",
    "expressivity",
    "expressivity_points",
    "expressivity_depth",
    "expressivity_gap",
    "table3",
    "table3_filters",
    "table3_filter_options",
    "minimum_norm",
    "minimum_norm_errors",
    "minimum_norm_sgd",
)
NO_EXPERIMENTS = (Path(__file__).stem, "run_list", "reproduction")  # they import this module


def _in_this_folder() -> dict[str, Experiment]:
    """The experiments of this folder: the paper's in its order, then all others by name."""
    modules = sorted(module.name for module in pkgutil.iter_modules(experiments.__path__))
    others = [name for name in modules if name not in (*ORDER, *NO_EXPERIMENTS)]
    found = {name: importlib.import_module(f"{experiments.__name__}.{name}") for name in (*ORDER, *others)}
    return {name: module.EXPERIMENT for name, module in found.items() if hasattr(module, "EXPERIMENT")}


EXPERIMENTS: dict[str, Experiment] = _in_this_folder()


def find(name: str) -> str:
    """The name of an experiment, from its name or its place: `FILE.py` or `FILE.py:NAME`. A file is loaded.

    Raises `InputError` where there is no such experiment, or its name belongs to the package's own.
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
        raise InputError(f"{name} has the same name as the package's own {plain}; rename it")
    EXPERIMENTS[plain] = found
    return plain
