"""Estimates the memory that a run takes at most, from its network, batch and data, before it begins."""

from __future__ import annotations

import functools
import math
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from rethinking.config import ExperimentConfig, arguments
from rethinking.data import operators, sources
from rethinking.data.batches import AHEAD
from rethinking.models.catalogue import Network
from rethinking.models.construction import count_parameters
from rethinking.models.inspection import materialize
from rethinking.seeding import global_streams
from rethinking.training.evaluation import BATCH_SIZE
from rethinking.training.networks import input_shape
from rethinking.training.optimizers import ADAPTIVE

EXAMPLE = 8  # images of the forward pass that is measured
LIBRARIES = 230 << 20  # bytes of a process that has loaded PyTorch, on a CPU
SPARE = 0.9  # share of the free memory to plan with
CONTROL_GROUPS = Path("/sys/fs/cgroup")  # control groups of Linux, version 2


class Footprint(NamedTuple):
    """The largest memory use of runs, in bytes.

    images: of the images, which runs with the same images share
    run: of everything else, for each run
    """

    images: int
    run: int


def footprint(config: ExperimentConfig, data: sources.ImageData) -> Footprint:
    """Returns the memory of a resolved configuration.

    Images that stay on disk take no memory, except for a few batches per run.
    """
    run = of_run(config, data)
    if why_on_disk(config, data) is not None:
        value = 8 if config.redraws_images else 1  # bytes per value: float32 and an index, at most
        batch = max(config.batch_size, BATCH_SIZE) * math.prod(data.image_shape) * value
        return Footprint(0, run + (AHEAD + 2) * batch)
    images = of_images(config, data)
    if config.device == "cpu":
        images += _count(config, data) * math.prod(data.image_shape)  # file pages of the cache that holds them
    return Footprint(images, run)


def why_on_disk(config: ExperimentConfig, data: sources.ImageData) -> str | None:
    """Returns a line for the log where the images of a resolved configuration stay on disk; else None."""
    if config.images_in_memory == "always":
        return None
    if config.images_in_memory == "never":
        return "images stay on disk, as asked; batches are read ahead"
    needed = {"cpu": _of_draws(config, data)}
    needed[config.device] = needed.get(config.device, 0) + of_images(config, data)
    for device, images in needed.items():
        free = free_memory(device) * SPARE
        if images > free / 4 and device == config.device:  # else the run's other memory does not matter
            free = max(0.0, free - of_run(config, data))
        if images > free:
            return (
                f"images stay on disk: {_gib(images)} of them do not fit into {_gib(free)} of free memory; batches are"
                " read ahead"
            )
    return None


def _of_draws(config: ExperimentConfig, data: sources.ImageData) -> int:
    """Returns the bytes that are drawn or copied on the host, at most, before the images go to the device.

    A redrawn value is float32. A user's own operator gets a copy of the images and may permute the pixels of each
    image.
    """
    raw = math.prod(data.image_shape)
    if config.redraws_images:  # also images that are left out then
        drawn = replace(config, subset_share=None, subset_seed=0, left_out=None)
        return (9 if operators.is_own(config.operator) else 4) * _count(drawn, data) * raw
    images = config.training_images(len(data.train))
    return images * raw if images < len(data.train) else 0


def _gib(size: float) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 0.1 * 2**30 else f"{size / 2**20:.1f} MiB"


def _count(config: ExperimentConfig, data: sources.ImageData) -> int:
    """Returns the number of training and test images of a run."""
    return config.training_images(len(data.train)) + (len(data.test) if data.test else 0)


def of_images(config: ExperimentConfig, data: sources.ImageData) -> int:
    """Returns the bytes that the images of a resolved configuration take in the device's memory."""
    value = 2 if config.precision == "bf16" else 4
    train_images = config.training_images(len(data.train))
    augmented = config.random_crop or config.augment_flip_rotate
    prepared = math.prod(input_shape(config, data)) * value
    raw = math.prod(data.image_shape)  # bytes of a uint8 image
    return (_count(config, data) - train_images) * prepared + train_images * (raw if augmented else prepared)


def of_run(config: ExperimentConfig, data: sources.ImageData) -> int:
    """Returns the bytes of weights, gradients, optimizer state and activations of a resolved configuration."""
    shape = input_shape(config, data)
    bf16 = config.precision == "bf16"
    outputs = config.operator.num_outputs(len(data.class_names))
    network = (config.network, config.model_options, config.network_digest)
    parameters, kept, largest = _of_network(*network, outputs, shape, bf16)
    moments = 2 if config.optimizer in ADAPTIVE else 1
    weights = parameters * (4 * (2 + moments) + (4 if bf16 else 0))  # with copies in bfloat16
    training = (3 * kept // 2 + 2 * largest) * config.batch_size  # activations, half of them twice, and two gradients
    evaluation = 3 * largest * BATCH_SIZE
    return weights + max(training, evaluation)


@functools.cache
def _of_network(
    network: Network, options: str | None, digest: str | None, outputs: int, shape: tuple[int, int, int], bf16: bool
) -> tuple[int, int, int]:
    """Returns the number of parameters and `activations`. All runs of one kind share the measurement."""
    with global_streams(0, "footprint"):
        model = network.build(outputs, shape, arguments(options))
        materialize(model, torch.zeros(2, *shape))
        return count_parameters(model), *activations(model, torch.zeros(EXAMPLE, *shape), bf16)


def activations(model: torch.nn.Module, images: Tensor, bf16: bool) -> tuple[int, int]:
    """Measures one training step's forward pass. Returns bytes per image.

    The first number counts the activations that are kept for the backward pass, the second the largest result of a
    layer.
    """
    own = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers(), images)}
    kept: dict[int, int] = {}
    largest = 0

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own and tensor.shape[:1] == images.shape[:1]:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    def note(module: torch.nn.Module, inputs: object, output: object) -> None:
        nonlocal largest
        largest = max(largest, *(tensor.nbytes for tensor in tree_leaves(output) if isinstance(tensor, Tensor)), 0)

    for module in model.modules():
        module.register_forward_hook(note)
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=bf16)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), autocast:
        _alive = model.train()(images)  # kept, so that no storage is freed and its address used again
    return sum(kept.values()) // len(images), largest // len(images)


def at_once_that_fit(config: ExperimentConfig) -> int:
    """Returns how many runs like the resolved `config` to train at once: as many as the device's free memory holds.

    On CUDA, where runs are stacked, an Inception trains alone. On a CPU, where runs go side by side, there are at most
    as many runs as computing threads. A convolutional network trains alone there: its operations keep all threads at
    work, and two runs would share the caches (`benchmarks/many_at_once.py`). On MPS every run trains alone.
    """
    if not config.network.stackable or config.device not in config.network.faster_together:
        return 1
    images, run = footprint(config, sources.load_for(config))
    free = free_memory(config.device) * SPARE
    if config.device == "cuda":
        own = images if config.has_own_images else 0
        return max(1, int((free - images) // (run + own)))
    return max(1, min(int(free // (images + run)), torch.get_num_threads()))


def free_memory(device: str) -> float:
    """Returns the bytes that the device or a container's limit leaves; 2**40 where the system does not say."""
    if device == "cuda":
        unused = torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
        return torch.cuda.mem_get_info()[0] + unused
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        free = 1024.0 * next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration, ValueError):
        free = 2.0**40
    return min(free, *map(_left_in, _control_groups()))


def _control_groups() -> list[Path]:
    """Returns the folders of this process's control groups, such as those of a container or a batch job."""
    try:
        own = next(
            line for line in Path("/proc/self/cgroup").read_text(encoding="ascii").splitlines() if line[:3] == "0::"
        )
    except (OSError, StopIteration, ValueError):
        own = "0::/"
    folder = CONTROL_GROUPS / own[3:].lstrip("/")
    return [folder, *(parent for parent in folder.parents if parent.is_relative_to(CONTROL_GROUPS))]


def _left_in(group: Path) -> float:
    """Returns the bytes that a control group may still take. Its cached file pages count as free."""
    try:
        limit, used = (float((group / name).read_text(encoding="ascii")) for name in ("memory.max", "memory.current"))
        held = dict(line.split() for line in (group / "memory.stat").read_text(encoding="ascii").splitlines())
        return max(0.0, limit - used + int(held["inactive_file"]) + int(held["active_file"]))
    except (OSError, ValueError, KeyError):  # the word "max" stands for no limit
        return math.inf
