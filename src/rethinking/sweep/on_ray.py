"""Trains runs on a Ray cluster."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from rethinking.config import ExperimentConfig
from rethinking.sweep.tasks import Workload
from rethinking.training.run_dir import RunResult


def train_on_ray(workload: Workload, address: str | None) -> Iterator[tuple[ExperimentConfig, RunResult | Exception]]:
    """Trains the runs of `workload` on a Ray cluster, and yields each with its result or its error."""
    raise NotImplementedError


@contextlib.contextmanager
def connected(address: str | None) -> Iterator[None]:
    """Connects to a Ray cluster and plans runs for its machines until the end."""
    raise NotImplementedError
    yield
