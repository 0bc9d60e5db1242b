"""Compares training epochs here with JAX's, jitted as whole epochs and as steps.

    python3 -m venv ../jax && ../jax/bin/pip install jax
    python benchmarks/against_jax.py ../jax/bin/python [--models mlp_1x512] [--out results/performance.csv]

Each form is a process of its own, and a round times each once. In float32 the ratio is to JAX's faster form in
float32. In bfloat16 it is to JAX's fastest form of both precisions.
"""

from __future__ import annotations

import contextlib
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import torch
import tyro
from rich import print
from sides import Side
from workload import keep, steps_of_an_epoch

HERE = Path(__file__).parent
PRECISIONS = ("fp32", "bf16")
FORMS = ("epoch", "step")
CONVOLUTIONAL_STEPS = 2  # steps of JAX's epoch; inside `lax.scan` each of XLA's convolutions takes seconds
LEAST = 4.0  # seconds of epochs at a time, so that the data of the other processes leaves the caches


@dataclass(frozen=True)
class Arguments:
    """The options of this benchmark."""

    python: Annotated[str, tyro.conf.Positional]
    models: tuple[str, ...] = ("mlp_1x512", "mlp_3x512", "small_alexnet")
    rounds: int = 7
    out: Path | None = None


def main(arguments: Arguments) -> None:
    """Times all models, prints the ratios, and writes the rows."""
    rows: list[dict[str, Any]] = []
    for model in arguments.models:
        steps = steps_of_an_epoch(model, torch.device("cpu")) if model.startswith("mlp") else CONVOLUTIONAL_STEPS
        with contextlib.ExitStack() as ends:
            sides: dict[str, Side] = {}
            for precision in PRECISIONS:
                commands = {f"here, {precision}": [sys.executable, str(HERE / "serve_epochs.py"), model, precision]}
                for form in FORMS:
                    jax = [arguments.python, str(HERE / "serve_jax.py"), model, precision, form, str(128 * steps)]
                    commands[f"JAX, {precision}, each {form} jitted"] = jax
                for name, command in commands.items():
                    sides[name] = Side(command)
                    ends.callback(sides[name].end)
            rounds = [
                {name: side.images_per_second("epoch", LEAST) for name, side in sides.items()}
                for _ in range(arguments.rounds)
            ]
        speeds = {name: median(one[name] for one in rounds) for name in sides}
        for name, speed in speeds.items():
            peers = [other for other in sides if other.startswith("JAX, fp32" if "fp32" in name else "JAX")]
            best = max(peers, key=speeds.__getitem__)
            ratio = median(one[name] / one[best] for one in rounds)
            row = {"benchmark": "against_jax", "model": model, "setting": name, "ratio": ratio}
            row |= sides["here, fp32"].machine
            rows.append(row | {"images_per_second": speed, "precision": "fp32" if "fp32" in name else "bf16"})
            print(f"{model}, {name}: {speed:,.0f} images/s, {ratio:.2f}")
        keep(rows, arguments.out)


if __name__ == "__main__":
    main(tyro.cli(Arguments))
