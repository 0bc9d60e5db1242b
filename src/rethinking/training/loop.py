"""The loop: epochs from the last finished one to the end, and the one training epoch."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rethinking.config import ExperimentConfig
from rethinking.data.batches import Batches
from rethinking.errors import RunError
from rethinking.training.evaluation import evaluate, fraction, label_metrics
from rethinking.training.loggers import Observer
from rethinking.training.optimizers import Optimizer
from rethinking.training.run_dir import Record, RunDir, RunResult, epochs_to_fit, summary

ONLINE_ACCURACY_NEAR_FIT = 0.99  # from here on the exact training accuracy is worth a pass over the training set


def fit(
    model: nn.Module,
    train_batches: Batches,
    test_batches: Batches | None,
    config: ExperimentConfig,
    run: RunDir,
    facts: dict[str, Any],
    observers: Sequence[Observer] = (),
) -> RunResult:
    """From the last finished epoch of `run` to the end, saving after each; `config` must be resolved.

    `facts` go into `result.json` beside what is measured here.
    """
    optimizer = Optimizer(model, config)
    metrics = run.restore(model, optimizer)
    run.save_facts(facts)
    autocast = torch.autocast(train_batches.labels.device.type, torch.bfloat16, enabled=config.precision == "bf16")

    result = None
    try:
        for observer in observers:
            observer.started(run.path, config, metrics, len(train_batches))
        for epoch in range(len(metrics) + 1, config.num_epochs + 1):
            if config.stop_when_fit and epochs_to_fit(metrics)["1.0"]:
                break
            started = time.perf_counter()
            train_loss, predictions = train_epoch(model, optimizer, train_batches, config, epoch, autocast, observers)
            training_seconds = time.perf_counter() - started

            online = fraction(predictions == train_batches.labels)
            due = exact_accuracy_is_due(config, epoch, online)
            exact = evaluate(model, train_batches, autocast) if due else None
            test = evaluate(model, test_batches, autocast) if test_batches else None
            for evaluated in (exact, test):
                check_finite(evaluated.loss if evaluated else 0.0, config, epoch)
            accuracy = exact.accuracy if exact else online

            record: Record = {
                "epoch": epoch,
                "learning_rate": learning_rate(config, epoch),
                "train_loss": train_loss,
                "train_accuracy": online,
                "exact_train_accuracy": exact.accuracy if exact else None,
                "test_loss": test.loss if test else None,
                "test_accuracy": test.accuracy if test else None,
                "generalization_gap": accuracy - test.accuracy if test else None,
                "images_per_second": len(train_batches) / training_seconds,
            }
            if config.randomizes_labels:
                record |= label_metrics(predictions, train_batches.labels, train_batches.true_labels)
            record["seconds"] = time.perf_counter() - started
            metrics.append(record)
            run.save_epoch(metrics, model, optimizer)
            for observer in observers:
                observer.epoch(record)

        run.finish(facts | summary(metrics))
        result = run.result(config)
    finally:
        for observer in observers:
            observer.ended(result)
    return result


def train_epoch(
    model: nn.Module,
    optimizer: Optimizer,
    batches: Batches,
    config: ExperimentConfig,
    epoch: int,
    autocast: torch.autocast,
    observers: Sequence[Observer] = (),
) -> tuple[float, Tensor]:
    """One pass over the training set: mean loss, and the class each image was given when its batch came by.

    Both are online, over the epoch's batches as the weights move, as Figure 1a shows them; batches count by their
    size. Nothing is read back from the device before the end. Raises `RunError` where the loss is not finite.
    """
    model.train()
    rate = learning_rate(config, epoch)
    steps = []
    for rows, images, labels in batches.training_epoch(config.seed, epoch, config.batch_size):
        with autocast:
            logits = model(images)
            loss = F.cross_entropy(logits.float(), labels)
        loss.backward()
        optimizer.step(rate)

        steps.append((rows, loss.detach(), logits.detach()))  # what is read off them can wait: small networks notice
        for observer in observers:
            observer.step(len(rows))
    all_rows, losses, outputs = zip(*steps, strict=True)
    sizes = torch.tensor([len(rows) for rows in all_rows], device=batches.labels.device)
    train_loss = (torch.stack(losses) * sizes).sum().item() / len(batches)
    check_finite(train_loss, config, epoch)
    predictions = torch.empty_like(batches.labels)
    predictions[torch.cat(all_rows)] = torch.cat(outputs).argmax(dim=1)
    return train_loss, predictions


def check_finite(loss: float, config: ExperimentConfig, epoch: int) -> None:
    if not math.isfinite(loss):
        raise RunError(
            f"the loss is not finite in epoch {epoch}, which is not saved; lower --lr {config.learning_rate:g} or use"
            " --precision fp32"
        )


def learning_rate(config: ExperimentConfig, epoch: int) -> float:
    """The rate of `epoch`, counted from 1; the first has the initial rate under every schedule."""
    before = epoch - 1
    factors = {
        "exponential": (config.lr_decay or 0.0) ** before,
        "step": 0.1 ** ((before >= 60) + (before >= 80)),
        "cosine": 0.5 * (1 + math.cos(math.pi * before / config.num_epochs)),
        "constant": 1.0,
    }
    assert config.learning_rate is not None, "a resolved configuration"
    return config.learning_rate * factors[config.lr_schedule]


def exact_accuracy_is_due(config: ExperimentConfig, epoch: int, online_accuracy: float) -> bool:
    """Whether the training accuracy in evaluation mode can matter after `epoch`, so that it is worth a pass."""
    asked_for = config.eval_train_every is not None and epoch % config.eval_train_every == 0
    return asked_for or epoch == config.num_epochs or online_accuracy >= ONLINE_ACCURACY_NEAR_FIT
