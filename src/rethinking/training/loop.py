"""One run, from configuration to result, and its loop."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rethinking.config import ExperimentConfig
from rethinking.data import randomization, sources
from rethinking.data.batches import Batches
from rethinking.data.preprocessing import Preprocessing
from rethinking.data.randomization import RandomizedSplit
from rethinking.errors import InputError, RunError
from rethinking.models import build_model, count_parameters, initialize, is_convolutional
from rethinking.seeding import generator
from rethinking.training.evaluation import evaluate, label_metrics
from rethinking.training.hardware import provenance, resolve_device, resolve_precision
from rethinking.training.loggers import Observer, loggers_for
from rethinking.training.run_dir import Record, RunDir, RunResult, run_id

FIT_THRESHOLDS = (0.999, 1.0)  # exact training accuracies whose first epoch is the time to overfit
ONLINE_ACCURACY_NEAR_FIT = 0.99  # from here on the exact training accuracy is worth a pass over the training set


def train(config: ExperimentConfig, *, force: bool = False, observers: Sequence[Observer] = ()) -> RunResult:
    """Train as `config` says, or find the run that did: the same configuration always names the same folder.

    A finished run is returned at once and an interrupted one goes on after its last finished epoch; `force` trains a
    finished one again in a folder beside it. `observers` are told of every step and epoch.

    Raises `InputError` for data or options that do not fit together, `RunError` for damaged files, a full disk or a
    loss that is not finite.
    """
    device = resolve_device(config.device)
    precision = resolve_precision(config.precision, device)
    data = sources.load(config.dataset, config.data_root)
    config = _resolved(config, data, device, precision)
    run = RunDir.find(
        Path(config.runs_dir), run_id(config, data.name, data.fingerprint, device.type, precision), force
    )
    if run.is_finished:
        return run.result()

    train_split, test_split = _randomized_splits(config, data)
    model = build_model(config.model_name, len(data.class_names), _input_shape(config, data))
    initialize(model, config.init, generator(config.seed, "init"))
    channels_last = is_convolutional(model)
    model.to(device, memory_format=torch.channels_last if channels_last else torch.contiguous_format)

    with run.lock():
        run.begin(config, *_randomization_record(config, train_split, test_split))
        prepared = Preprocessing(_crop_size(config), config.min_std, config.random_crop, config.augment_flip_rotate)
        train_batches = Batches(train_split, prepared, device, channels_last)
        plain = replace(prepared, random_crop=False, flip_rotate=False)
        test_batches = Batches(test_split, plain, device, channels_last) if test_split else None
        true_labels = train_split.true_labels.to(device)
        facts = {
            "run": run.path.name,
            "dataset": data.name,
            "parameters": count_parameters(model),
            "train_images": len(train_split),
            "provenance": provenance(device, precision)
            | {"fingerprint": data.fingerprint, "randomization_fingerprint": train_split.fingerprint()},
        }
        del data, train_split, test_split  # from here on only what is resident on the device is needed
        return fit(model, train_batches, test_batches, true_labels, config, precision, run, facts, observers)


def fit(
    model: nn.Module,
    train_batches: Batches,
    test_batches: Batches | None,
    true_labels: Tensor,
    config: ExperimentConfig,
    precision: str,
    run: RunDir,
    facts: dict[str, Any],
    observers: Sequence[Observer] = (),
) -> RunResult:
    """The loop: from the last finished epoch of `run` to the end, saving after each. `config` must be resolved."""
    optimizer = build_optimizer(model, config)
    metrics = run.restore(model, optimizer)
    autocast = torch.autocast(train_batches.labels.device.type, torch.bfloat16, enabled=precision == "bf16")

    observers = [*observers, *loggers_for(config)]
    result = None
    for observer in observers:
        observer.started(run.path, config, metrics, len(train_batches))
    try:
        for epoch in range(len(metrics) + 1, config.num_epochs + 1):
            if config.stop_when_fit and epochs_to_fit(metrics)["1.0"]:
                break
            started = time.perf_counter()
            learning_rate = set_learning_rate(optimizer, config, epoch)
            train_loss, predictions = train_epoch(model, optimizer, train_batches, config, epoch, autocast, observers)
            training_seconds = time.perf_counter() - started

            online = (predictions == train_batches.labels).double().mean().item()
            exact = None
            if exact_accuracy_is_due(config, epoch, online):
                exact = evaluate(model, train_batches, autocast).accuracy
            test = evaluate(model, test_batches, autocast) if test_batches else None

            record: Record = {
                "epoch": epoch,
                "learning_rate": learning_rate,
                "train_loss": train_loss,
                "train_accuracy": online,
                "exact_train_accuracy": exact,
                "test_loss": test.loss if test else None,
                "test_accuracy": test.accuracy if test else None,
                "generalization_gap": (online if exact is None else exact) - test.accuracy if test else None,
                "images_per_second": len(train_batches) / training_seconds,
            }
            if config.randomizes_labels:
                record |= label_metrics(predictions, train_batches.labels, true_labels)
            record["seconds"] = time.perf_counter() - started
            metrics.append(record)
            run.save_epoch(metrics, model, optimizer)
            for observer in observers:
                observer.epoch(record)

        run.finish(
            facts
            | {
                "final": metrics[-1],
                "epochs_to_fit": epochs_to_fit(metrics),
                "seconds": sum(record["seconds"] for record in metrics),
            }
        )
        result = run.result()
    finally:
        for observer in observers:
            observer.ended(result)
    return result


def train_epoch(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
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
    predictions = torch.empty_like(batches.labels)
    total_loss = torch.zeros((), device=batches.labels.device)
    for rows, images, labels in batches.training_epoch(config.seed, epoch, config.batch_size):
        with autocast:
            logits = model(images)
            loss = F.cross_entropy(logits.float(), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

        total_loss += loss.detach() * len(rows)
        predictions[rows] = logits.detach().argmax(dim=1)
        for observer in observers:
            observer.step(len(rows))
    train_loss = total_loss.item() / len(batches)
    if not math.isfinite(train_loss):
        raise RunError(
            f"the training loss is not finite in epoch {epoch}; lower --lr {config.learning_rate:g} or use"
            " --precision fp32 (the last finished epoch is saved)"
        )
    return train_loss, predictions


def build_optimizer(model: nn.Module, config: ExperimentConfig) -> torch.optim.Optimizer:
    """SGD with momentum, or Adam, over the trainable parameters; weight decay is an l2 term on all of them."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    options: dict[str, Any] = {
        "lr": config.learning_rate,
        "weight_decay": config.weight_decay,
        "fused": parameters[0].device.type in ("cpu", "cuda"),  # one pass over the weights a step
    }
    if config.optimizer == "adam":
        return torch.optim.Adam(parameters, **options)
    return torch.optim.SGD(parameters, momentum=config.momentum, **options)


def set_learning_rate(optimizer: torch.optim.Optimizer, config: ExperimentConfig, epoch: int) -> float:
    """The rate of `epoch`, counted from 1; the first has the initial rate under every schedule."""
    before = epoch - 1
    factors = {
        "exponential": (config.lr_decay or 0.0) ** before,
        "step": 0.1 ** ((before >= 60) + (before >= 80)),
        "cosine": 0.5 * (1 + math.cos(math.pi * before / config.num_epochs)),
        "constant": 1.0,
    }
    assert config.learning_rate is not None
    rate = config.learning_rate * factors[config.lr_schedule]
    for group in optimizer.param_groups:
        group["lr"] = rate
    return rate


def exact_accuracy_is_due(config: ExperimentConfig, epoch: int, online_accuracy: float) -> bool:
    """Whether the training accuracy in evaluation mode can matter after `epoch`, so that it is worth a pass."""
    asked_for = config.eval_train_every is not None and epoch % config.eval_train_every == 0
    return asked_for or epoch == config.num_epochs or online_accuracy >= ONLINE_ACCURACY_NEAR_FIT


def epochs_to_fit(metrics: list[Record]) -> dict[str, int | None]:
    """The first epoch whose exact training accuracy reached each of `FIT_THRESHOLDS`, by threshold."""
    first: dict[str, int | None] = {}
    for threshold in FIT_THRESHOLDS:
        reached = (record["epoch"] for record in metrics if (record["exact_train_accuracy"] or 0.0) >= threshold)
        first[str(threshold)] = next(reached, None)
    return first


def _resolved(
    config: ExperimentConfig, data: sources.ImageData, device: torch.device, precision: str
) -> ExperimentConfig:
    """`config` with everything written out that depends on the model, the data or the machine."""
    smallest, side = min(data.image_shape[1:]), max(data.image_shape[1:])
    crop_size = config.crop_size or (28 if 28 <= smallest and side <= 32 else smallest)
    if crop_size > smallest:
        raise InputError(f"crop_size {crop_size} is larger than the images of {data.name}, {smallest} pixels")
    if config.train_subset is not None and config.train_subset > len(data.train):
        raise InputError(f"train_subset must be at most {len(data.train)}, all of {data.name}'s training images")
    local = config.dataset not in sources.NAMES
    return replace(
        config.resolved(),
        dataset=str(Path(config.dataset).resolve()) if local else config.dataset,
        data_root=None if config.data_root is None else str(Path(config.data_root).resolve()),
        crop_size=crop_size,
        device=device.type,
        precision=precision,
    )


def _crop_size(config: ExperimentConfig) -> int:
    assert config.crop_size is not None, "a resolved configuration"
    return config.crop_size


def _input_shape(config: ExperimentConfig, data: sources.ImageData) -> tuple[int, int, int]:
    return data.image_shape[0], _crop_size(config), _crop_size(config)


def _randomized_splits(
    config: ExperimentConfig, data: sources.ImageData
) -> tuple[RandomizedSplit, RandomizedSplit | None]:
    """Training subset and test set as tensors, after the randomization operator."""

    def tensors(split: sources.ImageSet) -> RandomizedSplit:
        labels = torch.from_numpy(split.labels)
        return RandomizedSplit(torch.from_numpy(split.images), labels, labels)

    train_split = tensors(data.train)
    if config.train_subset is not None:
        rows = torch.randperm(len(train_split), generator=generator(0, "train_subset"))[: config.train_subset]
        labels = train_split.labels[rows]
        train_split = RandomizedSplit(train_split.images[rows], labels, labels)
    return randomization.apply(
        config.randomization,
        train_split,
        tensors(data.test) if data.test else None,
        num_classes=len(data.class_names),
        crop_size=_crop_size(config),
        corruption_prob=config.corruption_prob,
        seed=config.randomization_seed,
    )


def _randomization_record(
    config: ExperimentConfig, train_split: RandomizedSplit, test_split: RandomizedSplit | None
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """What the run keeps of its randomization: tensors, and the fingerprints of what is too large to keep."""
    tensors = {"labels": train_split.labels.clone(), "true_labels": train_split.true_labels.clone()}
    if config.randomization == "shuffled_pixels" and train_split.permutation is not None:
        tensors["permutation"] = train_split.permutation
    details = {"operator": config.randomization, "train": train_split.fingerprint()}
    if test_split is not None:
        details["test"] = test_split.fingerprint()
    return tensors, details
