"""A learning rate for a network, by a short range test: a few steps at each of several rates, from the same weights.

One rate below that of the lowest loss is taken: the largest that trains well in a few steps is near the edge of those
that do not train at all.
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
MORE_STEPS = 60  # where none of these has a loss below `LEARNT` of a guess's
LEARNT = 0.95
LAST = 5  # of these, whose mean loss counts
FIRST = {"sgd": 0.01}  # rate that is tried by optimizer, then larger and smaller ones; else `FIRST_ADAPTIVE`
FIRST_ADAPTIVE = 0.001
WORSE = 2  # rates in a row that are worse than the best, after which none beyond them is tried
FOLDER = ".rates"  # in the folder of runs
VERSION = 3  # raised when other rates would be chosen
UNUSED = (  # options of a run that a range test does not depend on
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
    """rate: chosen; lowest_at: the one with the lowest loss; losses: in nats by rate, None where it was not finite"""

    rate: float
    lowest_at: float
    losses: dict[float, float | None]


def find_rate(config: ExperimentConfig, begin: Steps = unwatched) -> Rate:
    """The rate for `config`, on true labels, the same for the same seed; kept in the folder of runs.

    Raises `InputError` where the network cannot be trained on the data, `DivergedError` where no loss is finite, and
    `RunError` where what is kept is damaged or cannot be written.
    """
    data = sources.load_for(config)
    asked = resolve(replace(config, learning_rate=None), data)
    facts = {**asked.identity(), "dataset": data.name, "fingerprint": data.fingerprint, "version": VERSION}
    for name in UNUSED:
        facts.pop(name, None)
    name = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]
    kept = Path(asked.runs_dir) / FOLDER / f"{config.name}-{name}.json"
    mend = "delete that file, and the rate is looked for again"
    found = files.read_json(kept, mend)
    if found is None:
        losses = range_test(asked, data, begin)
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
    """The rate below that of the lowest loss, of rates in ascending order.

    Raises `DivergedError` where no loss is finite.
    """
    finite = {rate: loss for rate, loss in losses.items() if loss is not None}
    if not finite:
        raise DivergedError("no learning rate keeps the loss of this network finite; --lr NUMBER gives one")
    lowest_at = min(finite, key=finite.__getitem__)
    return Rate(RATES[max(0, RATES.index(lowest_at) - 1)], lowest_at, losses)


def range_test(config: ExperimentConfig, data: sources.ImageData, begin: Steps) -> dict[float, float | None]:
    """Mean loss of the last steps by rate, in ascending order, of a resolved configuration.

    Where no rate has left the loss of a guess by then, as of a transformer that begins on a plateau, more steps are
    taken at each.
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
    """Mean loss of the last of so many steps by rate, in ascending order.

    Larger rates than the usual one are tried until they are worse than the best, then smaller ones: a large network's
    steps are slow.
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
    advanced = begin("range test of the learning rate" + ("" if steps == STEPS else f" with {steps} steps"))
    losses: dict[float, float | None] = {}
    first = RATES.index(FIRST.get(config.optimizer, FIRST_ADAPTIVE))
    for rates, upwards in ((RATES[first:], True), (RATES[:first][::-1], False)):
        for rate in rates:
            if is_beyond(losses, upwards):
                break
            losses[rate] = loss_after_steps(config, data, batches, rate, steps)
            advanced(len(losses) / len(RATES))
    return dict(sorted(losses.items()))


def is_beyond(losses: dict[float, float | None], upwards: bool) -> bool:
    """Whether the largest rates that were tried, or the smallest, are worse than the best, or none of them finite."""
    tried = [math.inf if loss is None else loss for _, loss in sorted(losses.items())]
    if len(tried) < WORSE:
        return False
    outermost = min(tried[-WORSE:] if upwards else tried[:WORSE])
    return outermost > min(tried) or (upwards and math.isinf(outermost))


def loss_after_steps(
    config: ExperimentConfig, data: sources.ImageData, batches: Batches, rate: float, steps: int
) -> float | None:
    """Mean loss of the last of so many steps at one rate from the initial weights; None where one is not finite."""
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
    raise AssertionError("epochs are counted without end")
