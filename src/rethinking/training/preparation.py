"""From a configuration to a run at work: data, randomization, network, folder."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from rethinking.config import ExperimentConfig
from rethinking.data import randomization, sources
from rethinking.data.batches import Batches
from rethinking.data.preprocessing import Preprocessing
from rethinking.data.randomization import RandomizedSplit
from rethinking.errors import InputError
from rethinking.models import build_model, count_parameters, initialize, is_convolutional, to_device
from rethinking.seeding import generator
from rethinking.training.hardware import choose_products, provenance, resolve_device, resolve_precision
from rethinking.training.loggers import Observer, loggers_for
from rethinking.training.loop import Training
from rethinking.training.run_dir import RunDir, run_id

Observe = Callable[[], Sequence[Observer]]  # makes the observers of one run
Resident = dict[tuple[object, ...], tuple[Batches, Batches | None]]  # training and test images by what decides them


@dataclass(frozen=True, eq=False)
class Asked:
    """A configuration as it was given and resolved, and the folder that answers it."""

    given: ExperimentConfig
    config: ExperimentConfig
    folder: RunDir
    kind: tuple[object, ...]  # equal for runs that fit together

    @classmethod
    def of(cls, given: ExperimentConfig, force: bool = False) -> Asked:
        data = sources.load_for(given, accept=accepting(given))
        config = resolve(given, data)
        folder = RunDir.find(Path(config.runs_dir), run_id(config, data.name, data.fingerprint), force)
        shared = ("model_name", "train_subset", "crop_size", "batch_size", "device", "precision", "compile")
        network = (config.outputs(len(data.class_names)), *(getattr(config, name) for name in shared))
        kind = (folder.is_finished, data.fingerprint, *network)
        return cls(given, config, folder, kind)


def prepare(asked: Asked, images: Resident, observe: Observe, held: contextlib.ExitStack) -> Training:
    """Everything that the epochs of one run need, and its folder, `held` against other processes.

    `images` has those that runs of its group brought to the device, and gets its own.
    """
    config, folder = asked.config, asked.folder
    data = sources.load_for(config)
    device = torch.device(config.device)
    choose_products(config.precision)
    train_split, test_split = _randomized_splits(config, data)
    model = untrained(config, data)
    to_device(model, device)
    held.enter_context(folder.lock())
    tensors, details = _randomization_record(config, train_split, test_split)
    folder.begin(config, tensors, details)

    shown = _what_decides_the_images(config)
    if shown in images:
        train_batches, test_batches = images[shown]
        train_batches = train_batches.relabelled(train_split)
    else:
        layout, dtype = is_convolutional(model), torch.bfloat16 if config.precision == "bf16" else torch.float32
        prepared = Preprocessing(_crop_size(config), config.min_std, config.random_crop, config.augment_flip_rotate)
        train_batches = Batches(train_split, prepared, device, layout, dtype)
        plain = replace(prepared, random_crop=False, flip_rotate=False)
        test_batches = Batches(test_split, plain, device, layout, dtype) if test_split else None
        images[shown] = train_batches, test_batches
    facts = {
        "run": folder.path.name,
        "dataset": data.name,
        "parameters": count_parameters(model),
        "train_images": len(train_split),
        "labels_changed": _labels_changed(config, train_split),
        "data": {
            "origin": data.origin,
            "train_images": len(data.train),
            "test_images": len(data.test) if data.test else 0,
            "class_names": list(data.class_names),
            "image_shape": list(data.image_shape),
            "notes": [*data.notes, *cut(config, data)],
        },
        "provenance": provenance(device, config.precision)
        | {"fingerprint": data.fingerprint, "randomization": details},
    }
    return Training(
        config,
        model,
        train_batches,
        test_batches,
        folder,
        facts,
        observe=lambda: [*observe(), *loggers_for(config)],
    )


def _labels_changed(config: ExperimentConfig, train_split: RandomizedSplit) -> int:
    """How many labels the randomization really changed; a random draw may be the true class."""
    if config.randomization == "random_signs":  # which stand in place of classes
        return len(train_split)
    return int(train_split.changed.sum())


def untrained(config: ExperimentConfig, data: sources.ImageData) -> nn.Module:
    """The network of a resolved configuration with its initial weights."""
    model = build_model(config.model_name, config.outputs(len(data.class_names)), input_shape(config, data))
    assert config.init is not None, "a resolved configuration"
    initialize(model, config.init, generator(config.seed, "init"))
    return model


def plain_training_set(config: ExperimentConfig, data: sources.ImageData) -> Batches:
    """Images, float32, and labels as a run of a resolved configuration trains on them, but without augmentation."""
    split, _ = _randomized_splits(config, data)
    plain = Preprocessing(_crop_size(config), config.min_std, random_crop=False, flip_rotate=False)
    return Batches(split, plain, torch.device(config.device), channels_last=False)


def _what_decides_the_images(config: ExperimentConfig) -> tuple[object, ...]:
    """Of what runs that fit together may differ in."""
    draws = (config.pixel_noise, config.randomization, config.randomization_seed, config.replaced_example)
    drawn = draws if config.redraws_pixels else ()
    return (config.min_std, config.random_crop, config.augment_flip_rotate, *drawn)


def resolve(config: ExperimentConfig, data: sources.ImageData) -> ExperimentConfig:
    """`config` with everything written out that depends on the model, the data or the machine.

    Raises `InputError` where they do not fit together.
    """
    device = resolve_device(config.device)
    crop_size = crop_of(config, data.image_shape)
    if config.train_subset is not None and config.train_subset > len(data.train):
        raise InputError(
            f"train_subset must be at most {len(data.train)}, all of {data.name}'s training images, not"
            f" {config.train_subset}"
        )
    _check_test_set(config, data)
    return replace(
        config.resolved(),
        dataset=sources.absolute(config.dataset),
        data_root=None if config.data_root is None else str(Path(config.data_root).resolve()),
        crop_size=crop_size,
        device=device.type,
        precision=resolve_precision(config.precision, device),
    )


def accepting(config: ExperimentConfig) -> sources.Accept:
    """What refuses images that the networks do not take, before they are decoded."""

    def accept(shape: tuple[int, int, int]) -> None:
        crop_of(config, shape)

    return accept


def crop_of(config: ExperimentConfig, shape: tuple[int, int, int]) -> int:
    """The side of the crop of images (channels, height, width). Raises `InputError` where networks do not take them."""
    smallest, side = min(shape[1:]), max(shape[1:])
    size = f"{shape[2]}x{shape[1]} pixels"
    if smallest < 28:
        raise InputError(f"the images have {size}; the networks need at least 28 a side: --resize 28 enlarges them")
    crop_size = config.crop_size or (28 if side <= 32 else smallest)
    if crop_size > smallest:
        raise InputError(f"crop_size {crop_size} is larger than the images, which have {size}")
    if crop_size > 224:
        raise InputError(f"the images have {size}; choose a --crop_size up to 224, or --resize them")
    return crop_size


def cut(config: ExperimentConfig, data: sources.ImageData) -> list[str]:
    """What is cut off from the images, in a sentence; nothing where they are used whole."""
    _, height, width = data.image_shape
    side = crop_of(config, data.image_shape)
    if (height, width) == (side, side):
        return []
    where = "a random window in training, else the centre" if config.random_crop else "their centre"
    return [f"of images of {width}x{height} pixels {side}x{side} are used: {where}"]


def _check_test_set(config: ExperimentConfig, data: sources.ImageData) -> None:
    test_images = len(data.test) if data.test else 0
    asked = "keep_test_losses" if config.keep_test_losses else "replaced_example"
    if (config.keep_test_losses or config.replaced_example is not None) and not test_images:
        raise InputError(f"{asked} takes a test set, which {data.name} lacks")
    pairs = min(test_images, config.train_subset or len(data.train))
    if config.replaced_example is not None and config.replaced_example >= pairs:
        raise InputError(f"replaced_example must be below {pairs}, the smaller of {data.name}'s two sets as used")


def _crop_size(config: ExperimentConfig) -> int:
    assert config.crop_size is not None, "a resolved configuration"
    return config.crop_size


def input_shape(config: ExperimentConfig, data: sources.ImageData) -> tuple[int, int, int]:
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
    if config.replaced_example is not None and test_split is not None:
        train_split = randomization.replace_example(
            train_split,
            test_split,
            config.replaced_example,
            num_classes=len(data.class_names),
            probability={"none": 0.0, "random_labels": 1.0}.get(config.randomization, config.corruption_prob or 0.0),
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
