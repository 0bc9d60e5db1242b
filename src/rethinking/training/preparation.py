"""Prepares a run from its configuration: data, randomization, network and folder."""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from rethinking import registry
from rethinking.config import ExperimentConfig
from rethinking.data import draws, given_labels, operators, randomization, sources
from rethinking.data.batches import Batches, StreamedBatches
from rethinking.data.draws import RandomizedSplit
from rethinking.data.preprocessing import Preprocessing
from rethinking.errors import InputError
from rethinking.identity import run_id
from rethinking.models import inspection
from rethinking.models.construction import count_parameters, is_convolutional, to_device
from rethinking.training.hardware import (
    choose_products,
    planned_machine,
    provenance,
    resolve_device,
    resolve_precision,
    use_card,
)
from rethinking.training.loggers import Observer, loggers_for
from rethinking.training.loop import Training
from rethinking.training.memory import why_on_disk
from rethinking.training.networks import (
    crop_of,
    cut,
    inspected,
    network_notes,
    outputs,
    untrained,
)
from rethinking.training.run_dir import RunDir, listed_once

log = logging.getLogger(__name__)

Observe = Callable[[], Sequence[Observer]]  # makes the observers of one run
# Training images, test images, and the line about images on disk, by the options that decide them.
Shared = dict[tuple[object, ...], tuple[Batches, Batches | None, str | None]]


_runs_in: ContextVar[Path | None] = ContextVar("runs_in", default=None)


@contextlib.contextmanager
def runs_in(folder: Path) -> Iterator[None]:
    """Keeps run folders in `folder` in place of the configurations' `runs_dir`, for runs planned in this thread."""
    before = _runs_in.set(folder)
    try:
        yield
    finally:
        _runs_in.reset(before)


@dataclass(frozen=True, eq=False)
class PlannedRun:
    """A configuration and its run's folder, before anything is loaded for training.

    given: the configuration as the caller gave it
    config: the same configuration, resolved
    group: equal for runs that can be trained as one computation
    seconds: the time limit, as in `Training`
    """

    given: ExperimentConfig
    config: ExperimentConfig
    folder: RunDir
    group: tuple[object, ...]
    seconds: float = math.inf

    @property
    def goes_side_by_side(self) -> bool:
        """Whether the run can train in a thread beside others.

        A user's own network cannot: it draws from the global generators of the process.
        """
        return self.config.device == "cpu" and self.config.network.stackable

    @classmethod
    def of(cls, given: ExperimentConfig, force: bool = False, seconds: float = math.inf) -> PlannedRun:
        """Resolves a configuration and finds its run's folder.

        Raises `InputError` for options that do not fit together, and `RunError` where the folder of runs cannot be
        read.
        """
        data = sources.load_for(given, accept=accepting(given))
        config = resolve(given, data)
        runs_dir = _runs_in.get() or Path(config.runs_dir)
        folder = RunDir.find(runs_dir, run_id(config, data.name, data.fingerprint), force)
        _check_warm_up(config, folder)
        shared = (
            "model_name",
            "network_digest",
            "crop_size",
            "batch_size",
            "device",
            "precision",
            "compile",
        )
        images = config.training_images(len(data.train))
        network = (outputs(config, data), images, *(getattr(config, name) for name in shared))
        card = given.device.partition(":")[2]  # the resolved device is cuda for every card
        group = (folder.is_finished, data.fingerprint, card, *network)
        return cls(given, config, folder, group, seconds)


@contextlib.contextmanager
def planning_many() -> Iterator[None]:
    """Reads folders of runs and data sets once for all runs that are planned inside."""
    with listed_once(), sources.read_once():
        yield


def plan(configs: Sequence[ExperimentConfig], force: bool = False, seconds: float = math.inf) -> list[PlannedRun]:
    """Plans many runs. Arguments and errors are those of `PlannedRun.of`."""
    with planning_many():
        return [PlannedRun.of(config, force, seconds) for config in configs]


def prepare(planned: PlannedRun, images: Shared, observe: Observe, held: contextlib.ExitStack) -> Training:
    """Makes everything that the epochs of one run need, and locks its folder.

    images: prepared images of other runs of the group; this run's images are added
    observe: makes the observers of the run
    held: keeps the folder locked until it is closed

    Raises `InputError` for a network that differs at each construction. Raises `RunError` where the folder cannot be
    used.
    """
    config, folder = planned.config, planned.folder
    use_card(planned.given.device)
    data = sources.load_for(config)
    device = torch.device(config.device)
    choose_products(config.precision)
    on_disk = why_on_disk(config, data)
    train_split, test_split = _randomized_splits(config, data, on_disk is not None)
    model = untrained(config, data)
    known = config.network_digest
    if known is not None and known != inspection.digest(config.network.loaded, model):
        raise InputError(
            f"{config.model_name} builds a different network each time from the same seed; its draws must come from"
            " PyTorch's, NumPy's or Python's global generators"
        )
    to_device(model, device)
    held.enter_context(folder.lock())
    tensors, details = _randomization_record(config, train_split, test_split)
    folder.begin(config, tensors, details)

    decisive = _image_options(config)
    if decisive in images:
        train_batches, test_batches, on_disk = images[decisive]
        train_batches = train_batches.relabelled(train_split)
        test_batches = test_batches.relabelled(test_split) if test_batches and test_split else None
    else:
        layout, dtype = is_convolutional(model), torch.bfloat16 if config.precision == "bf16" else torch.float32
        prepared = Preprocessing(
            crop_of(config, data.image_shape), config.min_std, config.random_crop, config.augment_flip_rotate
        )
        kind = StreamedBatches if on_disk else Batches
        train_batches = kind(train_split, prepared, device, layout, dtype)
        plain = replace(prepared, random_crop=False, flip_rotate=False)
        test_batches = kind(test_split, plain, device, layout, dtype) if test_split else None
        images[decisive] = train_batches, test_batches, on_disk
        if on_disk:
            log.info(on_disk)
    facts = {
        "run": folder.path.name,
        "dataset": data.name,
        "parameters": count_parameters(model),
        "network": network_notes(config, data),
        "command": planned.given.command(),
        "train_images": len(train_split),
        "labels_changed": _labels_changed(config, train_split),
        "data": {
            "origin": data.origin,
            "train_images": len(data.train),
            "test_images": len(data.test) if data.test else 0,
            "class_names": list(data.class_names),
            "image_shape": list(data.image_shape),
            "notes": [*data.notes, *cut(config, data), *([on_disk] if on_disk else [])],
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
        seconds=planned.seconds,
    )


def _labels_changed(config: ExperimentConfig, train_split: RandomizedSplit) -> int:
    """Returns the number of labels that the randomization changed. A random draw may be the true class."""
    if config.operator.own_classes is not None:  # they replace the data's classes
        return len(train_split)
    return int(train_split.changed.sum())


def labels_of(config: ExperimentConfig) -> tuple[given_labels.Labels, given_labels.Labels, tuple[str, ...]]:
    """Returns the labels that a run of `config` trains on, the true ones, both int64 (n,), and the class names.

    Raises `InputError` where the data cannot be read or the operator does not fit it.
    """
    data = sources.load_for(config)
    true_labels = torch.from_numpy(data.train.labels)
    train_split, _ = randomization.apply(
        config.operator,
        RandomizedSplit(torch.from_numpy(data.train.images), true_labels, true_labels),
        None,
        num_classes=len(data.class_names),
        positions=math.prod(data.image_shape[1:]),
        seed=config.randomization_seed,
    )
    return train_split.labels.numpy(), train_split.true_labels.numpy(), data.class_names


def plain_training_set(config: ExperimentConfig, data: sources.ImageData) -> Batches:
    """Returns the training images, float32, and labels of a resolved configuration, without augmentation."""
    train, _ = plain_sets(config, data)
    return train


def plain_sets(config: ExperimentConfig, data: sources.ImageData) -> tuple[Batches, Batches | None]:
    """Returns the training and the test set of a resolved configuration, float32, without augmentation."""
    on_disk = why_on_disk(config, data)
    train_split, test_split = _randomized_splits(config, data, on_disk is not None)
    plain = Preprocessing(crop_of(config, data.image_shape), config.min_std, random_crop=False, flip_rotate=False)
    if on_disk:
        log.info(on_disk)
    kind, device = StreamedBatches if on_disk else Batches, torch.device(config.device)
    train = kind(train_split, plain, device, channels_last=False)
    return train, kind(test_split, plain, device, channels_last=False) if test_split else None


def _image_options(config: ExperimentConfig) -> tuple[object, ...]:
    """Returns the options that decide the images, of those in which runs of one group may differ."""
    operator = (config.randomization, config.randomization_digest, config.randomization_options)
    draws = (*operator, config.corruption_prob, config.randomization_seed, config.pixel_noise, config.replaced_example)
    drawn = draws if config.redraws_images else ()
    augments = (config.random_crop, config.augment_flip_rotate)
    chosen = (config.train_subset, config.subset_share, config.subset_seed, config.left_out)
    return (config.images_in_memory, config.min_std, *augments, *chosen, *drawn)


def _check_warm_up(config: ExperimentConfig, folder: RunDir) -> None:
    """Raises `InputError` for a warm-up that does not end. Finished runs of earlier versions may have one."""
    if config.warmup_epochs >= config.num_epochs and not folder.is_finished:
        raise InputError(
            f"warmup_epochs must be below num_epochs, {config.num_epochs}, not {config.warmup_epochs}: the rate would"
            " never reach the schedule's"
        )


def resolve(config: ExperimentConfig, data: sources.ImageData) -> ExperimentConfig:
    """Returns `config` with explicit values for everything that depends on the network, the data or the machine.

    Raises `InputError` where options, data and machine do not fit together.
    """
    config.check_operator()
    machine = planned_machine()
    device = resolve_device(config.device, machine)
    crop = crop_of(config, data.image_shape)
    if config.train_subset is not None and config.train_subset > len(data.train):
        raise InputError(
            f"train_subset must be at most {len(data.train)}, all of {data.name}'s training images, not"
            f" {config.train_subset}"
        )
    images = config.train_subset or len(data.train)
    if config.left_out is not None and config.part_and_parts[1] > images:
        raise InputError(
            f"left_out must have at most {images} parts, one for each training image, not {config.part_and_parts[1]}"
        )
    if config.leaves_images_out and not 0 < config.training_images(len(data.train)) < images:
        raise InputError(f"subset_share {config.subset_share:g} of {images} images leaves none or all of them")
    _check_test_set(config, data)
    resolved = replace(
        config.resolved(),
        model_name=registry.absolute(config.model_name),
        dataset=sources.absolute(config.dataset),
        data_root=None if config.data_root is None else str(Path(config.data_root).resolve()),
        crop_size=crop[0] if config.network.sides else config.crop_size,
        labels=None if config.labels is None else str(Path(config.labels).resolve()),
        labels_digest=None if config.labels is None else given_labels.digest(given_labels_of(config, data)),
        randomization=registry.absolute(config.randomization),
        randomization_digest=operators.digest(config.operator),
        device=device.type,
        precision=resolve_precision(config.precision, device, machine),
    )
    own = inspected(resolved, data)
    if own is None:
        return replace(resolved, network_digest=None, network_regularizers=None)
    return replace(resolved, network_digest=own.digest, network_regularizers=own.regularizers)


def accepting(config: ExperimentConfig) -> sources.Accept:
    """Returns a function that refuses images before they are decoded, where the network does not take them."""

    def accept(shape: tuple[int, int, int]) -> None:
        crop_of(config, shape)

    return accept


def given_labels_of(config: ExperimentConfig, data: sources.ImageData) -> given_labels.Labels:
    """Returns the labels of the file that a configuration names, int64 (training images,).

    Raises `InputError` where they do not fit the data, or are others than those of a resolved configuration.
    """
    assert config.labels is not None, "a file of labels"
    if (provided := given_labels.provided(config.labels_digest)) is not None:
        return provided
    labels = given_labels.read_labels(Path(config.labels), config.labels_column, data.class_names, len(data.train))
    if config.labels_digest not in (None, given_labels.digest(labels)):
        raise InputError(f"the labels in {config.labels} were changed since the run began; give the file another name")
    return labels


def _check_test_set(config: ExperimentConfig, data: sources.ImageData) -> None:
    test_images = len(data.test) if data.test else 0
    needing = [*config.keeps_of_test_images, *(["replaced_example"] if config.replaced_example is not None else [])]
    if needing and not test_images:
        raise InputError(f"{needing[0]} needs a test set, which {data.name} lacks")
    pairs = min(test_images, config.train_subset or len(data.train))
    if config.replaced_example is not None and config.replaced_example >= pairs:
        raise InputError(f"replaced_example must be below {pairs}, the smaller of {data.name}'s two sets as used")


def _randomized_splits(
    config: ExperimentConfig, data: sources.ImageData, on_disk: bool = False
) -> tuple[RandomizedSplit, RandomizedSplit | None]:
    """Returns training subset and test set as tensors, after the randomization.

    on_disk: keeps nothing as large as the images in memory
    """

    def tensors(split: sources.ImageSet) -> RandomizedSplit:
        labels = torch.from_numpy(split.labels)
        return RandomizedSplit(torch.from_numpy(split.images), labels, labels, on_disk=on_disk)

    train_split = tensors(data.train)
    test_split = tensors(data.test) if data.test else None
    if config.labels is not None:
        train_split = replace(train_split, labels=torch.tensor(given_labels_of(config, data)))
    if config.train_subset is not None:
        train_split = train_split.taken(draws.subset_rows(len(train_split), config.train_subset))
    operator, num_classes = config.operator, len(data.class_names)
    train_split, test_split = randomization.apply(
        operator,
        train_split,
        test_split,
        num_classes=num_classes,
        positions=math.prod(crop_of(config, data.image_shape)),
        seed=config.randomization_seed,
    )
    if config.corrupt_test_labels and test_split is not None:
        test_split = randomization.with_changed_labels(
            test_split, operator, num_classes=num_classes, seed=config.randomization_seed, of="test"
        )
    if config.replaced_example is not None and test_split is not None:
        train_split = randomization.replace_example(
            train_split,
            test_split,
            config.replaced_example,
            operator,
            num_classes=num_classes,
            seed=config.randomization_seed,
        )
    if config.pixel_noise:
        std, seed = config.pixel_noise, config.randomization_seed
        train_split = randomization.add_noise(train_split, std, seed, "train")
        test_split = randomization.add_noise(test_split, std, seed, "test") if test_split else None
    if config.leaves_images_out:
        train_split = train_split.taken(kept_rows(config, len(train_split)))
    return train_split, test_split


def kept_rows(config: ExperimentConfig, images: int) -> Tensor:
    """Returns the rows that a run trains on, of `images` images for which labels and pixels are drawn, int64."""
    if config.subset_share is not None:
        return draws.random_rows(images, config.training_images(images), config.subset_seed)
    if config.left_out is not None:
        return draws.rows_without_part(images, *config.part_and_parts)
    return torch.arange(images)


def training_rows(config: ExperimentConfig, images: int) -> Tensor:
    """Returns the places of a run's training images among all `images` training images of the data, int64."""
    rows = draws.subset_rows(images, config.train_subset)
    return rows[kept_rows(config, len(rows))]


def _randomization_record(
    config: ExperimentConfig, train_split: RandomizedSplit, test_split: RandomizedSplit | None
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Returns what a run keeps of its randomization: tensors, and fingerprints of what is too large to keep."""
    tensors = {"labels": train_split.labels.clone(), "true_labels": train_split.true_labels.clone()}
    if train_split.permutation is not None and train_split.permutation.dim() == 1:  # one for all images
        tensors["permutation"] = train_split.permutation
    if config.corrupt_test_labels and test_split is not None:
        tensors["test_labels"] = test_split.labels.clone()
    details = {"operator": registry.without_folder(config.randomization), "train": train_split.fingerprint()}
    if test_split is not None:
        details["test"] = test_split.fingerprint()
    return tensors, details
