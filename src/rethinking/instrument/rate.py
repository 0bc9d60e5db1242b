"""A learning rate for a network, by a short range test (Smith 2017, "Cyclical learning rates", Section 3.3).

The rate rises from step to step, a hundred steps in all. A tenth of the one at which the loss was lowest is chosen.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch

from rethinking import files
from rethinking.config import ExperimentConfig
from rethinking.data import sources
from rethinking.errors import InputError, RunError
from rethinking.models.construction import to_device
from rethinking.seeding import global_streams
from rethinking.steps import Steps, unwatched
from rethinking.training.networks import untrained
from rethinking.training.optimizers import Optimizer
from rethinking.training.preparation import plain_training_set, resolve
from rethinking.training.step import Step

STEPS = 100
LOWEST, HIGHEST = 1e-5, 10.0  # rates, geometrically between them
SMOOTHING = 0.9  # weight of the losses before, in the running mean
DIVERGED = 4.0  # times the first loss, where the test ends
BELOW = 10.0  # times smaller than the rate of the lowest loss
FOLDER = ".rates"  # in the folder of runs
VERSION = 1  # raised when other rates would be chosen


class Rate(NamedTuple):
    """rate: chosen; lowest_at: the rate at which the loss was lowest; curve: rate and loss of each step, in nats"""

    rate: float
    lowest_at: float
    curve: tuple[tuple[float, float], ...]


def find_rate(config: ExperimentConfig, begin: Steps = unwatched) -> Rate:
    """The rate for `config`, on true labels, the same for the same seed; kept in the folder of runs.

    Raises `InputError` where the network cannot be trained on the data, `RunError` where no rate lowers the loss.
    """
    data = sources.load_for(config)
    asked = resolve(replace(config, learning_rate=None), data)
    facts = {**asked.identity(), "dataset": data.name, "fingerprint": data.fingerprint, "version": VERSION}
    for name in ("learning_rate", "num_epochs", "lr_schedule", "lr_decay", "stop_when_fit", "warmup_epochs"):
        facts.pop(name, None)
    name = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]
    kept = Path(asked.runs_dir) / FOLDER / f"{config.name}-{name}.json"
    found = files.read_json(kept, "delete that file, and the rate is looked for again")
    if found is None:
        curve = range_test(asked, data, begin)
        with files.writing(kept.parent):
            kept.parent.mkdir(parents=True, exist_ok=True)
        files.write_json(kept, {"curve": curve})
    else:
        curve = found["curve"]
    return choose(curve)


def choose(curve: list[tuple[float, float]] | list[list[float]]) -> Rate:
    """A tenth of the rate at the lowest running mean of the loss, rounded to 1, 2 or 5 times a power of ten.

    Raises `RunError` where the loss never falls.
    """
    smoothed, mean = [], 0.0
    for step, (_, loss) in enumerate(curve, 1):
        mean = SMOOTHING * mean + (1 - SMOOTHING) * loss
        smoothed.append(mean / (1 - SMOOTHING**step))
    lowest = min(range(len(smoothed)), key=smoothed.__getitem__)
    if lowest == 0:
        raise RunError(
            f"no learning rate from {LOWEST:g} to {HIGHEST:g} lowers the loss of this network; --lr NUMBER gives one"
        )
    lowest_at = curve[lowest][0]
    return Rate(rounded(lowest_at / BELOW), lowest_at, tuple((rate, loss) for rate, loss in curve))


def rounded(rate: float) -> float:
    """The nearest of 1, 2 and 5 times a power of ten, by ratio."""
    power = math.floor(math.log10(rate))
    steps = [digit * 10.0**exponent for exponent in (power - 1, power, power + 1) for digit in (1, 2, 5)]
    return float(f"{min(steps, key=lambda step: abs(math.log(step / rate))):.1g}")


def range_test(config: ExperimentConfig, data: sources.ImageData, begin: Steps) -> list[tuple[float, float]]:
    """Rate and loss of each step, of a resolved configuration, until the loss is a multiple of the first."""
    images = config.train_subset or len(data.train)
    config = replace(config, train_subset=min(images, STEPS * config.batch_size), randomization="none",
                     corruption_prob=None, randomization_options=None)  # fmt: skip
    device = torch.device(config.device)
    batches = plain_training_set(config, data)
    model = to_device(untrained(config, data), device)
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bf16")
    step = Step([model], [Optimizer(model, config)], autocast)
    advanced = begin("range test of the learning rate")
    curve: list[tuple[float, float]] = []
    epoch = 0
    with global_streams(config.seed, "rate"):
        while True:
            epoch += 1
            for _, rows, labels in batches.training_epoch(config.seed, epoch, config.batch_size):
                rate = LOWEST * (HIGHEST / LOWEST) ** (len(curve) / (STEPS - 1))
                step.begin([rate])
                losses, _ = step(rows[None], labels[None])
                loss = losses.item()
                if not math.isfinite(loss) and not curve:
                    raise InputError("the network's outputs are not finite with its initial weights")
                if not math.isfinite(loss) or (curve and loss > DIVERGED * curve[0][1]):
                    return curve
                curve.append((rate, loss))
                advanced(len(curve) / STEPS)
                if len(curve) == STEPS:
                    return curve
