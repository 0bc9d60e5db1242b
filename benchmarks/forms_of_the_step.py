"""Compares the bare training step: eager, captured as a CUDA graph, and compiled by PyTorch.

For each model, in images a second on one batch in memory. A round times each form once, and the ratio to the eager
step is the median over the rounds. `seconds` is the time before the first step; the compiler's cache is empty for
`compiled`, and filled for `compiled again`.

    python benchmarks/forms_of_the_step.py [--models mlp_1x512 small_alexnet] [--out results/performance.csv]
"""

from __future__ import annotations

import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import tyro
from rich import print
from workload import Machine, bare_steps, keep, runs_at_work, seconds

from rethinking.config import ExperimentConfig
from rethinking.models import catalogue
from rethinking.training.loop import step_of
from rethinking.training.step import CapturedStep


@dataclass(frozen=True)
class Arguments:
    """The options of this benchmark."""

    models: tuple[str, ...] = catalogue.PAPER
    rounds: int = 3
    device: str = "auto"
    out: Path | None = None


def main(arguments: Arguments) -> None:
    """Times all models and forms, prints the ratios, and writes the rows."""
    machine = Machine.here(arguments.device)
    rows: list[dict[str, Any]] = []
    for model in arguments.models:
        forms, ready = {}, {}
        with tempfile.TemporaryDirectory() as cache:
            os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache
            for form in ("eager", "captured", "compiled", "compiled again"):
                if form == "captured" and machine.device.type != "cuda":
                    continue
                compile = {"eager": "off", "captured": "auto"}.get(form, "on")
                runs = runs_at_work(ExperimentConfig(model_name=model, compile=compile), machine)
                started = time.perf_counter()
                step = step_of(runs)
                ready[form] = time.perf_counter() - started
                assert isinstance(step, CapturedStep) is (form == "captured")
                forms[form] = bare_steps(step, runs)
        speeds: dict[str, list[float]] = {form: [] for form in forms}
        for _ in range(arguments.rounds):
            for form, steps in forms.items():
                speeds[form].append(len(runs[0].train_batches) / seconds(steps, machine.device))
        for form, measured in speeds.items():
            ratio = median(speed / base for speed, base in zip(measured, speeds["eager"], strict=True))
            row = {"benchmark": "forms_of_the_step", "model": model, "setting": form, "runs": 1}
            row |= {"images_per_second": median(measured), "ratio": ratio, "seconds": ready[form]}
            rows.append(row | machine.columns())
            print(f"{model} {form}: {median(measured):,.0f} images/s, {ratio:.2f}, ready after {ready[form]:.1f} s")
        keep(rows, arguments.out)


if __name__ == "__main__":
    main(tyro.cli(Arguments))
