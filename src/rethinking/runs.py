"""Reads runs of any kind from their folders."""

from __future__ import annotations

from pathlib import Path

from rethinking.config import ExperimentConfig, read_config_file
from rethinking.errors import RunError
from rethinking.theory import tasks
from rethinking.theory.run import TheoryResult
from rethinking.training.run_dir import RunDir, RunResult


def load_run(folder: str | Path) -> RunResult | TheoryResult:
    """Returns the run in `folder` as far as it has come. For a trained network, `RunResult.network` builds the network.

    Raises `InputError` where `folder` is not a run's folder. Raises `RunError` where it is damaged, or has no finished
    epoch.
    """
    path = Path(folder)
    if "model_name" not in read_config_file(path / "config.yaml"):
        return tasks.read(path)
    run, config = RunDir(path), ExperimentConfig.from_yaml(path / "config.yaml")
    result = run.result(config) if run.is_finished else run.so_far(config)
    if result is None:
        raise RunError(f"{path} has no finished epoch yet")
    return result
