"""`train_many`, which trains a list of runs in this process, in one process for each device, or on a Ray cluster."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from rethinking.config import ExperimentConfig
from rethinking.engines.here import train_here
from rethinking.engines.tasks import Workload
from rethinking.engines.workers import train_on_devices
from rethinking.errors import InputError
from rethinking.notebook import shown
from rethinking.training.preparation import Observe
from rethinking.training.run_dir import RunResult


def train_many(
    configs: Sequence[ExperimentConfig],
    *,
    at_once: int | None = 1,
    stacked: bool | None = None,
    force: bool = False,
    seconds: float = math.inf,
    devices: str | Sequence[str] | None = None,
    ray: bool | str = False,
    runs_shared: str = "auto",
    observe: Observe = tuple,
    progress: bool | None = None,
) -> Iterator[tuple[ExperimentConfig, RunResult | Exception]]:
    """Trains every configuration, up to `at_once` at the same time, and yields each with its result or its error.

    Each run leaves the folder that it would leave alone, and can be resumed alone. Its result is yielded as soon as it
    is over. An error ends one run and not the others.

    Stacked runs are one computation. They share network, data set, batch size and hardware. Seed, labels, pixels,
    augmentation, weight decay, schedule and length are each run's own. A stacked run agrees with the same run alone
    except for rounding. Networks that are not registered as stackable train one after the other.

    Runs can also train side by side on a CPU. Each then has a thread of its own and an equal share of the processor's
    cores. Where one run is to be compiled, all runs train one after the other.

    at_once: the number of runs, or None for as many as the free memory holds. On a CPU, None allows at most one run per
        computing thread. Networks with convolutions then train one after the other with all threads.
    stacked: whether to stack runs; by default they are stacked on CUDA only
    force: whether to train finished runs again, as in `train`
    seconds: time limit for the training of each run, over all calls. A run that reaches it ends with the current epoch.
        Its result is not finished, and the same call with more seconds resumes the run.
    devices: trains in a process for each of these devices, such as ['cuda:0', 'cuda:3']; ['cuda'] is every visible
        card, and ['cpu', 'cpu'] two processes with half the threads each. `at_once` then counts the runs of one process
    ray: trains on a Ray cluster: its address, or True for the one at `RAY_ADDRESS`, else for a cluster on this machine.
        Ray gives out as many tasks as there is room for, and `at_once` then counts the stacked runs of one task
    runs_shared: whether the nodes of a Ray cluster see `runs_dir`: 'yes', 'no', or 'auto' to look. Where they do not,
        checkpoints and results travel to the folder here
    observe: makes the observers of a run
    progress: whether to show progress; by default a notebook does and a script does not

    Where the memory is too small, runs continue from their last finished epochs, half as many at once. Raises
    `InputError` before any training.
    """
    if at_once is not None and at_once < 1:
        raise InputError(f"at_once must be a whole number from 1 on, or None, not {at_once}")
    if ray and devices:
        raise InputError("ray gives runs to the devices of its nodes; leave devices out")
    devices = (devices,) if isinstance(devices, str) else devices
    if runs_shared not in ("auto", "yes", "no"):
        raise InputError(f"runs_shared must be one of auto, yes, no, not {runs_shared!r}")
    if not ray and not devices:
        yield from train_here(
            configs, at_once=at_once, stacked=stacked, force=force, seconds=seconds, observe=observe, progress=progress
        )
        return
    with shown(progress) as display:
        observers: Observe = lambda: [*observe(), *display.observers()]  # noqa: E731
        workload = Workload(tuple(configs), at_once, stacked, force, seconds, observers, runs_shared)
        if ray:
            from rethinking.engines.on_ray import train_on_ray  # Ray is an optional package

            yield from train_on_ray(workload, None if ray is True else ray)
        else:
            yield from train_on_devices(workload, tuple(devices or ()))
