"""How much memory a run takes at most, told from its network, batch and data before it begins."""

from __future__ import annotations

import functools
import math
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

EXAMPLE = 8  # images that a forward pass is watched with
LIBRARIES = 230 << 20  # bytes of a process that has loaded PyTorch, on a CPU
SPARE = 0.9  # of what is free, to plan with
CONTROL_GROUPS = Path("/sys/fs/cgroup")  # of Linux, version 2


class Footprint(NamedTuple):
    """Bytes at most: of the images, once for all runs that see the same, and of each run."""

    images: int
    run: int


def footprint(config: ExperimentConfig, data: sources.ImageData) -> Footprint:
    """Of a resolved configuration. Images that stay on disk take none; of each run a few batches are in memory."""
    run = of_run(config, data)
    if why_on_disk(config, data) is not None:
        value = 8 if config.redraws_images else 1  # bytes: of float32 and an index, at most
        batch = max(config.batch_size, BATCH_SIZE) * math.prod(data.image_shape) * value
        return Footprint(0, run + (AHEAD + 2) * batch)
    images = of_images(config, data)
    if config.device == "cpu":
        images += _count(config, data) * math.prod(data.image_shape)  # the pages of the cache they were read from
    return Footprint(images, run)


def why_on_disk(config: ExperimentConfig, data: sources.ImageData) -> str | None:
    """The line that says so where the images of a resolved configuration stay on disk; None where they do not."""
    if config.images_in_memory == "always":
        return None
    if config.images_in_memory == "never":
        return "images stay on disk, as asked; batches are read ahead"
    needed = {"cpu": _of_draws(config, data)}
    needed[config.device] = needed.get(config.device, 0) + of_images(config, data)
    for device, images in needed.items():
        free = free_memory(device) * SPARE
        if images > free / 4 and device == config.device:  # else what the run takes besides does not matter
            free = max(0.0, free - of_run(config, data))
        if images > free:
            return (
                f"images stay on disk: {_gib(images)} of them do not fit into {_gib(free)} of free memory; batches are"
                " read ahead"
            )
    return None


def _of_draws(config: ExperimentConfig, data: sources.ImageData) -> int:
    """Bytes that are drawn or copied on the host before the images go to the device, about as much as it can be.

    A redrawn value is float32; somebody's own operator gets a copy, and may permute the pixels of each image besides.
    """
    raw = math.prod(data.image_shape)
    if config.redraws_images:
        return (9 if operators.is_own(config.operator) else 4) * _count(config, data) * raw
    return (config.train_subset or 0) * raw


def _gib(size: float) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 0.1 * 2**30 else f"{size / 2**20:.1f} MiB"


def _count(config: ExperimentConfig, data: sources.ImageData) -> int:
    """Number of images that a run uses, training and test."""
    return (config.train_subset or len(data.train)) + (len(data.test) if data.test else 0)


def of_images(config: ExperimentConfig, data: sources.ImageData) -> int:
    """Bytes of the images of a resolved configuration that are in the device's memory, if they are."""
    value = 2 if config.precision == "bf16" else 4
    train_images = config.train_subset or len(data.train)
    augmented = config.random_crop or config.augment_flip_rotate
    prepared = math.prod(input_shape(config, data)) * value
    raw = math.prod(data.image_shape)  # bytes of a uint8 image
    return (_count(config, data) - train_images) * prepared + train_images * (raw if augmented else prepared)


def of_run(config: ExperimentConfig, data: sources.ImageData) -> int:
    """Bytes of weights, gradients, optimizer state and activations of a resolved configuration."""
    shape = input_shape(config, data)
    bf16 = config.precision == "bf16"
    outputs = config.operator.num_outputs(len(data.class_names))
    network = (config.network, config.model_options, config.network_digest)
    parameters, kept, largest = _of_network(*network, outputs, shape, bf16)
    moments = 2 if config.optimizer in ADAPTIVE else 1
    weights = parameters * (4 * (2 + moments) + (4 if bf16 else 0))  # and their copies in bfloat16
    training = (3 * kept // 2 + 2 * largest) * config.batch_size  # kept, a part twice, and gradients on the way
    evaluation = 3 * largest * BATCH_SIZE
    return weights + max(training, evaluation)


@functools.cache
def _of_network(
    network: Network, options: str | None, digest: str | None, outputs: int, shape: tuple[int, int, int], bf16: bool
) -> tuple[int, int, int]:
    """Parameters and `activations`, watched once for all runs of the kind."""
    with global_streams(0, "footprint"):
        model = network.build(outputs, shape, arguments(options))
        materialize(model, torch.zeros(2, *shape))
        return count_parameters(model), *activations(model, torch.zeros(EXAMPLE, *shape), bf16)


def activations(model: torch.nn.Module, images: Tensor, bf16: bool) -> tuple[int, int]:
    """Bytes an image that a training step keeps for its backward pass, and of the largest result of a layer."""
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
        _alive = model.train()(images)  # so that no storage is freed and its place taken by another
    return sum(kept.values()) // len(images), largest // len(images)


def at_once_that_fit(config: ExperimentConfig) -> int:
    """How many runs like `config`, resolved, to train at once: what the free memory of its device holds.

    On a CPU, where runs go side by side, no more than there are computing threads, and of a convolutional network
    one: its operations are long enough to keep all threads at work, and two would share the caches
    (`benchmarks/many_at_once.py`). On CUDA, where runs are stacked, one Inception. On MPS one.
    """
    if not config.network.stackable or config.device not in config.network.faster_together:
        return 1
    images, run = footprint(config, sources.load_for(config))
    free = free_memory(config.device) * SPARE
    if config.device == "cuda":
        own = images if config.redraws_images else 0
        return max(1, int((free - images) // (run + own)))
    return max(1, min(int(free // (images + run)), torch.get_num_threads()))


def free_memory(device: str) -> float:
    """Bytes that the device, or a container's limit, leaves; a great many where the system does not say."""
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
    """Folders of the control groups that this process is in, as of a container or a batch job."""
    try:
        own = next(
            line for line in Path("/proc/self/cgroup").read_text(encoding="ascii").splitlines() if line[:3] == "0::"
        )
    except (OSError, StopIteration, ValueError):
        own = "0::/"
    folder = CONTROL_GROUPS / own[3:].lstrip("/")
    return [folder, *(parent for parent in folder.parents if parent.is_relative_to(CONTROL_GROUPS))]


def _left_in(group: Path) -> float:
    """Bytes of memory that a control group may still take; the pages of files that it holds can go."""
    try:
        limit, used = (float((group / name).read_text(encoding="ascii")) for name in ("memory.max", "memory.current"))
        held = dict(line.split() for line in (group / "memory.stat").read_text(encoding="ascii").splitlines())
        return max(0.0, limit - used + int(held["inactive_file"]) + int(held["active_file"]))
    except (OSError, ValueError, KeyError):  # "max" is no number: there is no limit
        return math.inf
