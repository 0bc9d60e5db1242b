"""Computes the least time that a training step could take here, and how much of that speed it reaches.

A step needs at least the floating-point operations of its convolutions and matrix products. It moves at least its
weights, their gradients and the optimizer's state once each, and the tensors kept for the backward pass twice. The
device's rates are measured: the best of several matrix products and convolutions, and the copy of a large tensor. The
floor is the longer of the two times, as if they overlapped completely. A profile shows where the time goes.

    python benchmarks/floor.py [--models mlp_1x512 small_alexnet] [--out results/performance.csv]
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from rich import print
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode
from workload import Machine, bare_steps, keep, runs_at_work, seconds, steps_of_an_epoch

from rethinking.config import ExperimentConfig
from rethinking.linear import linear
from rethinking.models import build_model, catalogue, count_parameters
from rethinking.training.loop import step_of
from rethinking.training.memory import activations

PRODUCTS = ((2048, 2048, 2048), (4096, 512, 4096), (128, 2352, 512), (8192, 1024, 64))  # (n, k) by (m, k) transposed
CONVOLUTIONS = ((64, 64, 5, 14), (96, 96, 3, 28), (160, 96, 3, 14))  # channels in and out, kernel, side; of 128 images
COPIED = 1 << 28  # bytes
OPERATIONS = 6  # operations of a profile that are printed


@dataclass(frozen=True)
class Arguments:
    """The options of this benchmark."""

    models: tuple[str, ...] = catalogue.PAPER
    rounds: int = 5
    device: str = "auto"
    out: Path | None = None


def main(arguments: Arguments) -> None:
    """Measures all models, prints their floors and profiles, and writes the rows."""
    machine = Machine.here(arguments.device)
    rows: list[dict[str, Any]] = []
    profiles: list[dict[str, Any]] = []
    for model in arguments.models:
        rate, bandwidth = best_rate(machine), copy_rate(machine)
        config = ExperimentConfig(model_name=model)
        runs = runs_at_work(config, machine)
        steps = bare_steps(step_of(runs), runs)
        took = fastest(steps, machine, arguments.rounds) / steps_of_an_epoch(model, machine.device)
        computing = operations(model, config.batch_size) / rate
        moving = moved(model, config.batch_size, machine.precision) / bandwidth
        floor = max(computing, moving)
        bound = "operations" if computing > moving else "memory"
        row = {"benchmark": "floor", "model": model, "setting": f"bound by {bound}", "runs": 1}
        rows.append(row | {"images_per_second": config.batch_size / took, "ratio": floor / took} | machine.columns())
        print(
            f"{model}: {1e3 * took:.2f} ms a step; at {rate / 1e9:,.0f} GFLOP/s {1e3 * computing:.2f} ms to compute,"
            f" at {bandwidth / 1e9:.1f} GB/s {1e3 * moving:.2f} ms to move: {floor / took:.0%} of the floor's speed"
        )
        for operation, share in profile(steps, machine.device.type):
            row = {"benchmark": "profile", "model": model, "setting": operation, "runs": 1, "ratio": share}
            profiles.append(row | machine.columns())
            print(f"    {share:.0%} {operation}")
        keep(rows, arguments.out)
        keep(profiles, arguments.out)


def fastest(work: Callable[[], object], machine: Machine, rounds: int) -> float:
    """Returns the least seconds of `work` over the rounds, after one that is not counted."""
    work()
    return min(seconds(work, machine.device) for _ in range(rounds))


def best_rate(machine: Machine) -> float:
    """Measures the floating-point operations a second of the fastest product or convolution, in the runs' precision."""
    made: dict[str, Any] = {
        "device": machine.device,
        "dtype": torch.bfloat16 if machine.precision == "bf16" else torch.float32,
    }
    rates = []
    for n, k, m in PRODUCTS:
        left, right = torch.randn(n, k, **made), torch.randn(m, k, **made)
        rates.append(2 * n * k * m / fastest(functools.partial(linear, left, right), machine, 20))
    for channels, outputs, kernel, side in CONVOLUTIONS:
        images = torch.randn(128, channels, side, side, **made).contiguous(memory_format=torch.channels_last)
        weight = torch.randn(outputs, channels, kernel, kernel, **made).contiguous(memory_format=torch.channels_last)
        operations = 2 * 128 * side**2 * channels * outputs * kernel**2  # with padding, whose products are counted too
        convolution = functools.partial(F.conv2d, images, weight, padding="same")
        rates.append(operations / fastest(convolution, machine, 20))
    return max(rates)


def copy_rate(machine: Machine) -> float:
    """Measures the bytes a second of a copy, read and written."""
    source = torch.zeros(COPIED // 4, device=machine.device)
    target = torch.empty_like(source)
    return 2 * COPIED / fastest(lambda: target.copy_(source), machine, 5)


def operations(model: str, batch: int) -> int:
    """Counts the floating-point operations of the forward and the backward pass of one batch."""
    network = build_model(model).double()  # the counter knows all products of float64
    with FlopCounterMode(display=False) as counter:
        network(torch.zeros(batch, 3, 28, 28, dtype=torch.float64)).sum().backward()
    return int(counter.get_total_flops())


def moved(model: str, batch: int, precision: str) -> int:
    """Counts the bytes that one step must move at least."""
    network = build_model(model)
    kept, _ = activations(network, torch.zeros(8, 3, 28, 28), precision == "bf16")
    weights = 4 * count_parameters(network)
    return 5 * weights + 2 * kept * batch  # weights and momentum read and written, gradients read


def profile(work: Callable[[], object], device: str) -> list[tuple[str, float]]:
    """Returns the `OPERATIONS` operations that take the most time, and their shares of the time."""
    with torch.profiler.profile() as profiler:
        work()
    own = "self_cpu_time_total" if device == "cpu" else "self_device_time_total"
    times: Counter[str] = Counter()
    for event in profiler.key_averages():
        name = event.key if device == "cpu" else event.key.split("<")[0].split("::")[-1]  # without a kernel's types
        times[name] += getattr(event, own)
    return [(name, time / times.total()) for name, time in times.most_common(OPERATIONS)]


if __name__ == "__main__":
    main(tyro.cli(Arguments))
