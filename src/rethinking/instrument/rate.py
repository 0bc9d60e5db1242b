"""A short range test that finds a learning rate: a few steps at each of several rates, from the same weights.

The chosen rate is one step below the rate with the lowest loss. The best rate over a few steps is close to rates that
do not train at all.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch

from rethinking import files
from rethinking.config import ExperimentConfig
from rethinking.data import sources
from rethinking.data.batches import Batches
from rethinking.errors import DivergedError, RunError
from rethinking.models.construction import to_device
from rethinking.seeding import global_streams
from rethinking.steps import Steps, unwatched
from rethinking.training.networks import outputs, untrained
from rethinking.training.optimizers import Optimizer
from rethinking.training.preparation import plain_training_set, resolve
from rethinking.training.step import Step

RATES = tuple(float(f"{digit}e{power}") for power in range(-5, 2) for digit in (1, 3))[1:-1]  # 3e-5 to 10
STEPS = 20  # at each rate
MORE_STEPS = 60  # at each rate, if after `STEPS` no loss is below `LEARNT` times the loss of guessing
LEARNT = 0.95
LAST = 5  # the last steps, whose mean loss counts
FIRST = {"sgd": 0.01}  # the rate that is tried first, by optimizer; the others begin with `FIRST_ADAPTIVE`
FIRST_ADAPTIVE = 0.001
WORSE = 2  # after so many rates in a row that are worse than the best, no rate beyond them is tried
FOLDER = ".rates"  # within the folder of runs
VERSION = 3  # raised when the range test would choose other rates
UNUSED = (  # options of a run that do not change a range test
    "learning_rate",
    "num_epochs",
    "lr_schedule",
    "lr_decay",
    "stop_when_fit",
    "warmup_epochs",
    "random_crop",
    "augment_flip_rotate",
    "eval_train_every",
    "eval_test_every",
)


class Rate(NamedTuple):
    """The result of a range test.

    rate: the chosen learning rate
    lowest_at: the rate with the lowest loss
    losses: the loss at each rate that was tried, in nats, None where it was not finite
    """

    rate: float
    lowest_at: float
    losses: dict[float, float | None]


def find_rate(config: ExperimentConfig, begin: Steps = unwatched) -> Rate:
    """Returns the result of a range test for `config` on true labels, and keeps it in the folder of runs.

    The result is the same for the same seed. Raises `InputError` where the network cannot be trained on the data,
    `DivergedError` where no loss is finite, and `RunError` where the file is damaged or cannot be written.
    """
    data = sources.load_for(config)
    resolved = resolve(replace(config, learning_rate=None), data)
    facts = {**resolved.identity(), "dataset": data.name, "fingerprint": data.fingerprint, "version": VERSION}
    for name in UNUSED:
        facts.pop(name, None)
    name = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]
    kept = Path(resolved.runs_dir) / FOLDER / f"{config.name}-{name}.json"
    mend = "delete that file; the next test finds the rate again"
    found = files.read_json(kept, mend)
    if found is None:
        losses = range_test(resolved, data, begin)
        with files.writing(kept.parent):
            kept.parent.mkdir(parents=True, exist_ok=True)
        files.write_json(kept, {"losses": {str(rate): loss for rate, loss in losses.items()}})
    else:
        of_rates = found.get("losses")
        losses = {rate: of_rates[str(rate)] for rate in RATES if str(rate) in of_rates} if of_rates else {}
        if not losses:
            raise RunError(f"{kept} is damaged: {mend}")
    return choose(losses)


def choose(losses: dict[float, float | None]) -> Rate:
    """Chooses the rate one step below the rate with the lowest loss; at the smallest rate, that rate itself.

    losses: in nats by rate in ascending order, None where not finite

    Raises `DivergedError` where no loss is finite.
    """
    finite = {rate: loss for rate, loss in losses.items() if loss is not None}
    if not finite:
        raise DivergedError("no learning rate keeps the loss of this network finite; choose one by --lr NUMBER")
    lowest_at = min(finite, key=finite.__getitem__)
    return Rate(RATES[max(0, RATES.index(lowest_at) - 1)], lowest_at, losses)


def range_test(config: ExperimentConfig, data: sources.ImageData, begin: Steps) -> dict[float, float | None]:
    """Returns the mean loss of the last steps at each rate, in nats and in ascending order of the rates.

    config: a resolved configuration

    If no loss is below the loss of guessing, each rate gets more steps. Transformers may begin on a plateau like this.
    """
    losses: dict[float, float | None] = {}
    for steps in (STEPS, MORE_STEPS):
        losses = losses_around(config, data, steps, begin)
        finite = [loss for loss in losses.values() if loss is not None]
        if not finite or min(finite) < LEARNT * math.log(outputs(config, data)):
            break
    return losses


def losses_around(
    config: ExperimentConfig, data: sources.ImageData, steps: int, begin: Steps
) -> dict[float, float | None]:
    """Returns the mean loss of the last of `steps` steps at each rate, in nats and in ascending order of the rates.

    The usual rate comes first, then larger and then smaller ones, each until they are worse than the best. This saves
    the slow steps of a large network.
    """
    images = config.train_subset or len(data.train)
    config = replace(
        config,
        train_subset=min(images, steps * config.batch_size),
        randomization="none",
        corruption_prob=None,
        randomization_options=None,
        randomization_digest=None,
    )
    batches = plain_training_set(config, data)
    advance = begin("range test of the learning rate" + ("" if steps == STEPS else f" with {steps} steps"))
    losses: dict[float, float | None] = {}
    first = RATES.index(FIRST.get(config.optimizer, FIRST_ADAPTIVE))
    for rates, upwards in ((RATES[first:], True), (RATES[:first][::-1], False)):
        for rate in rates:
            if is_beyond(losses, upwards):
                break
            losses[rate] = loss_after_steps(config, data, batches, rate, steps)
            advance(len(losses) / len(RATES))
    return dict(sorted(losses.items()))


def is_beyond(losses: dict[float, float | None], upwards: bool) -> bool:
    """Says whether the `WORSE` outermost rates that were tried are all worse than the best one.

    upwards: looks at the largest rates, and also ends where none of them has a finite loss; otherwise at the smallest
    """
    tried = [math.inf if loss is None else loss for _, loss in sorted(losses.items())]
    if len(tried) < WORSE:
        return False
    outermost = min(tried[-WORSE:] if upwards else tried[:WORSE])
    return outermost > min(tried) or (upwards and math.isinf(outermost))


def loss_after_steps(
    config: ExperimentConfig, data: sources.ImageData, batches: Batches, rate: float, steps: int
) -> float | None:
    """Returns the mean loss of the last of `steps` steps from the initial weights, in nats.

    None where a loss is not finite.
    """
    device = torch.device(config.device)
    model = to_device(untrained(config, data), device)
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bf16")
    step = Step([model], [Optimizer(model, config)], autocast)
    step.begin([rate])
    losses: list[float] = []
    with global_streams(config.seed, "rate"):
        for epoch in itertools.count(1):
            for _, images, labels in batches.training_epoch(config.seed, epoch, config.batch_size):
                loss, _ = step(images[None], labels[None])
                losses.append(loss.item())
                if not math.isfinite(losses[-1]):
                    return None
                if len(losses) == steps:
                    return sum(losses[-LAST:]) / LAST
    raise AssertionError("`itertools.count` does not end")
