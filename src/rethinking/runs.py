"""Reads runs of any kind from their folders."""

from __future__ import annotations

from pathlib import Path

from rethinking.theory import tasks
from rethinking.theory.run import TheoryResult
from rethinking.training.run_dir import RunResult, is_of_network, network_run


def load_run(folder: str | Path) -> RunResult | TheoryResult:
    """Returns the run in `folder` as far as it has come. For a trained network, `RunResult.network` builds the network.

    Raises `InputError` where `folder` is not a run's folder. Raises `RunError` where it is damaged, or has no finished
    epoch.
    """
    path = Path(folder)
    return network_run(path) if is_of_network(path) else tasks.read(path)
