"""One run, from configuration to result: data, randomization, model and folder, then the loop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from rethinking.config import ExperimentConfig
from rethinking.data import randomization, sources
from rethinking.data.batches import Batches
from rethinking.data.preprocessing import Preprocessing
from rethinking.data.randomization import RandomizedSplit
from rethinking.errors import InputError
from rethinking.models import build_model, count_parameters, initialize, is_convolutional, to_device
from rethinking.seeding import generator
from rethinking.training.hardware import keep_freed_memory, provenance, resolve_device, resolve_precision
from rethinking.training.loggers import Observer, loggers_for
from rethinking.training.loop import fit
from rethinking.training.run_dir import RunDir, RunResult, run_id


def train(config: ExperimentConfig, *, force: bool = False, observers: Sequence[Observer] = ()) -> RunResult:
    """Train as `config` says, or find the run that did: the same configuration always names the same folder.

    A finished run is returned at once and an interrupted one goes on after its last finished epoch; `force` trains a
    finished one again in a folder beside it. `observers` are told of every step and epoch.

    Raises `InputError` for data or options that do not fit together, `RunError` for damaged files, a full disk or a
    loss that is not finite.
    """
    keep_freed_memory()
    data = sources.load(config.dataset, config.data_root)
    config = resolve(config, data)
    run = RunDir.find(Path(config.runs_dir), run_id(config, data.name, data.fingerprint), force)
    if run.is_finished:
        return run.result(config)

    device = torch.device(config.device)
    train_split, test_split = _randomized_splits(config, data)
    model = build_model(config.model_name, len(data.class_names), _input_shape(config, data))
    assert config.init is not None, "a resolved configuration"
    initialize(model, config.init, generator(config.seed, "init"))
    to_device(model, device)

    channels_last = is_convolutional(model)
    with run.lock():
        if run.is_finished:  # by another process, since we looked
            return run.result(config)
        tensors, details = _randomization_record(config, train_split, test_split)
        run.begin(config, tensors, details)
        prepared = Preprocessing(_crop_size(config), config.min_std, config.random_crop, config.augment_flip_rotate)
        dtype = torch.bfloat16 if config.precision == "bf16" else torch.float32
        train_batches = Batches(train_split, prepared, device, channels_last, dtype)
        plain = replace(prepared, random_crop=False, flip_rotate=False)
        test_batches = Batches(test_split, plain, device, channels_last, dtype) if test_split else None
        facts = {
            "run": run.path.name,
            "dataset": data.name,
            "parameters": count_parameters(model),
            "train_images": len(train_split),
            "provenance": provenance(device, config.precision)
            | {"fingerprint": data.fingerprint, "randomization": details},
        }
        del data, train_split, test_split  # from here on only what is resident on the device is needed
        return fit(model, train_batches, test_batches, config, run, facts, [*observers, *loggers_for(config)])


def find(config: ExperimentConfig) -> RunResult | None:
    """The run of `config` as far as it has come, without training; None where no epoch is finished.

    Raises what `train` raises.
    """
    data = sources.load(config.dataset, config.data_root)
    config = resolve(config, data)
    run = RunDir.find(Path(config.runs_dir), run_id(config, data.name, data.fingerprint), force=False)
    return run.result(config) if run.is_finished else run.so_far(config)


def resolve(config: ExperimentConfig, data: sources.ImageData) -> ExperimentConfig:
    """`config` with everything written out that depends on the model, the data or the machine.

    Raises `InputError` where they do not fit together.
    """
    device = resolve_device(config.device)
    smallest, side = min(data.image_shape[1:]), max(data.image_shape[1:])
    if smallest < 28:
        raise InputError(f"the images of {data.name} have {smallest} pixels a side; the networks need at least 28")
    crop_size = config.crop_size or (28 if side <= 32 else smallest)
    if crop_size > smallest:
        raise InputError(f"crop_size {crop_size} is larger than the images of {data.name}, {smallest} pixels")
    if crop_size > 224:
        raise InputError(f"the images of {data.name} have {smallest} pixels a side; choose a crop_size up to 224")
    if config.train_subset is not None and config.train_subset > len(data.train):
        raise InputError(f"train_subset must be at most {len(data.train)}, all of {data.name}'s training images")
    local = config.dataset not in sources.NAMES
    return replace(
        config.resolved(),
        dataset=str(Path(config.dataset).resolve()) if local else config.dataset,
        data_root=None if config.data_root is None else str(Path(config.data_root).resolve()),
        crop_size=crop_size,
        device=device.type,
        precision=resolve_precision(config.precision, device),
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
    test_split = tensors(data.test) if data.test else None
    if config.train_subset is not None:
        rows = torch.randperm(len(train_split), generator=generator(0, "train_subset"))[: config.train_subset]
        labels = train_split.labels[rows]
        train_split = RandomizedSplit(train_split.images[rows], labels, labels)
    train_split, test_split = randomization.apply(
        config.randomization,
        train_split,
        test_split,
        num_classes=len(data.class_names),
        crop_size=_crop_size(config),
        corruption_prob=config.corruption_prob,
        seed=config.randomization_seed,
    )
    if config.pixel_noise:
        std, seed = config.pixel_noise, config.randomization_seed
        train_split = randomization.add_noise(train_split, std, seed, "train")
        test_split = randomization.add_noise(test_split, std, seed, "test") if test_split else None
    return train_split, test_split


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
