"""Estimates the time of an epoch on this machine from a few steps."""

from __future__ import annotations

import statistics
import tempfile
from dataclasses import replace

from rethinking.config import ExperimentConfig
from rethinking.engines.here import train_here

MEASURED_BATCHES = 4  # batches per epoch of the trial
FORWARD = 1 / 3  # share of a training step's time; a backward pass takes about as long as two forward passes


def seconds_per_epoch(
    config: ExperimentConfig, images: int, at_once: int, measured: dict[str, tuple[float, float]]
) -> float:
    """Estimates the seconds of one epoch on `images` training images.

    It measures a few training steps and one test evaluation. The time of a pass over the training set, which
    `eval_train_every` asks for, follows from the training steps.

    at_once: the number of runs that train together; the result is one run's share
    measured: keeps measurements for later calls, by network, optimizer, augmentation, test set and `at_once`
    """
    tested = config.operator.own_classes is None
    augmented = f"{config.random_crop} {config.augment_flip_rotate}"
    network = f"{config.model_name} {config.model_options} {config.batch_size}"
    kind = f"{network} {config.optimizer} {augmented} {tested} {at_once}"
    if kind not in measured:
        trial_images = min(images, MEASURED_BATCHES * config.batch_size)
        with tempfile.TemporaryDirectory() as folder:
            trial = replace(
                config,
                train_subset=trial_images,
                num_epochs=2,
                warmup_epochs=min(config.warmup_epochs, 1),
                eval_test_every=1,
                stop_when_fit=False,
                runs_dir=folder,
                use_tensorboard=False,
            )
            trials = [replace(trial, seed=seed) for seed in range(at_once)]
            results = []
            for _, outcome in train_here(trials, at_once=at_once, progress=False):
                if isinstance(outcome, Exception):
                    raise outcome
                results.append(outcome)
        side_by_side = at_once if results[0].config.device == "cpu" else 1  # each of these measures its own seconds
        training = statistics.mean(1 / result.final["images_per_second"] for result in results)
        rest = statistics.mean(result.final["seconds"] for result in results) - trial_images * training
        measured[kind] = training / side_by_side, rest / side_by_side
    training, evaluation = measured[kind]
    exact = images * training * FORWARD / config.eval_train_every if config.eval_train_every else 0.0
    return images * training + exact + evaluation / config.eval_test_every
