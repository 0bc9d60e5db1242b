"""`reproduce`, for Python: what `rethinking reproduce` does, with a result to work with."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from rich.console import Console

from rethinking import notebook
from rethinking.config import ExperimentConfig
from rethinking.errors import InputError, RunError, nearest
from rethinking.experiments import archive
from rethinking.experiments.reproduction import Reproduction
from rethinking.options import given, options_of
from rethinking.run_list_console import RunListConsole
from rethinking.sitting import Reproduced, Sitting


def reproduce(experiment: str, *, progress: bool | None = None, **options: Any) -> Reproduced:
    """Trains the missing runs of a table or figure, writes the results, and returns the tables.

        rethinking.reproduce("table1", scale="demo", models=("mlp_1x512",))["table1"].frame()

    It does the same as `rethinking reproduce`. `options` are the options of that command, which are the fields of
    `experiments.reproduction.Reproduction`. `progress` shows progress; by default a notebook shows it and a script does
    not. A dry run prints its list and returns the tables so far.

    Raises `InputError` for wrong options and for options that do not fit the data. Raises `RunError` after writing the
    results if runs failed.
    """
    reproduction = Reproduction(**_given({"experiment": experiment, **options}))
    sitting = Sitting(reproduction)
    if reproduction.dry_run:
        RunListConsole(reproduction, Console()).dry_run()
        sitting.kept = archive.read(reproduction.folder())
        return sitting.reproduced
    with notebook.shown(progress) as display:
        reproduction.all_data(display.steps("data"))
        running = sitting.run(display.observers, lambda config: display.steps(sitting.named(config)))
        with contextlib.closing(running) as carried_out:
            for config, outcome in carried_out:
                if isinstance(outcome, RunError):
                    display.say(f"failed: {sitting.named(config)}: {outcome}")
                elif not isinstance(config, ExperimentConfig):
                    display.say(f"finished: {sitting.named(config)}")
    sitting.raise_failures()
    return sitting.reproduced


def _given(options: Mapping[str, Any]) -> dict[str, Any]:
    """Converts options to those of `Reproduction`. Raises `InputError` for an unknown name or a wrong type."""
    known = {option.name: option for option in options_of(Reproduction)}
    for name in options.keys() - known.keys():
        raise InputError(f"unknown option '{name}'{nearest(name, known) or '; the options are ' + ', '.join(known)}")
    return {name: given(known[name], value) for name, value in options.items()}
