"""How long an epoch takes here, from a few steps."""

from __future__ import annotations

import statistics
import tempfile
from dataclasses import replace

from rethinking.config import ExperimentConfig
from rethinking.training.many import train_many

MEASURED_BATCHES = 4  # that are trained on, to tell how long the rest should take
FORWARD = 1 / 3  # of a training step's time: its backward pass takes about as long as two forward passes


def seconds_per_epoch(
    config: ExperimentConfig, images: int, at_once: int, measured: dict[str, tuple[float, float]]
) -> float:
    """How long an epoch on `images` should take here, from a few training steps and one pass over the test set.

    A pass over the training set, where `eval_train_every` asks for it, is reckoned from the steps.
    Of `at_once` such runs together, each has its share. `measured` keeps what was measured for a model, optimizer,
    augmentation and test set or none, for the next run of the kind.
    """
    tested = config.operator.own_classes is None
    augmented = f"{config.random_crop} {config.augment_flip_rotate}"
    network = f"{config.model_name} {config.model_options} {config.batch_size}"
    kind = f"{network} {config.optimizer} {augmented} {tested} {at_once}"
    if kind not in measured:
        few = min(images, MEASURED_BATCHES * config.batch_size)
        with tempfile.TemporaryDirectory() as folder:
            trial = replace(
                config,
                train_subset=few,
                num_epochs=2,
                eval_test_every=1,
                stop_when_fit=False,
                runs_dir=folder,
                use_tensorboard=False,
            )
            trials = [replace(trial, seed=seed) for seed in range(at_once)]
            results = []
            for _, outcome in train_many(trials, at_once=at_once, progress=False):
                if isinstance(outcome, Exception):
                    raise outcome
                results.append(outcome)
        side_by_side = at_once if results[0].config.device == "cpu" else 1  # where each has its own seconds
        training = statistics.mean(1 / result.final["images_per_second"] for result in results)
        rest = statistics.mean(result.final["seconds"] for result in results) - few * training
        measured[kind] = training / side_by_side, rest / side_by_side
    training, evaluation = measured[kind]
    exact = images * training * FORWARD / config.eval_train_every if config.eval_train_every else 0.0
    return images * training + exact + evaluation / config.eval_test_every
