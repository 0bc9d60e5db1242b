"""Trains runs in worker processes, one for each device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rethinking.config import ExperimentConfig
from rethinking.sweep.tasks import Workload
from rethinking.training.run_dir import RunResult


def train_on_devices(
    workload: Workload, devices: Sequence[str]
) -> Iterator[tuple[ExperimentConfig, RunResult | Exception]]:
    """Trains the runs of `workload` in a process for each device, and yields each with its result or its error."""
    raise NotImplementedError
