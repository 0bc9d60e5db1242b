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
from rethinking.data import sources
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


class Footprint(NamedTuple):
    """Bytes at most: of the images, once for all runs that see the same, and of each run."""

    images: int
    run: int


def footprint(config: ExperimentConfig, data: sources.ImageData) -> Footprint:
    """Of a resolved configuration: resident images; weights, gradients, optimizer state and activations."""
    shape = input_shape(config, data)
    bf16 = config.precision == "bf16"
    value = 2 if bf16 else 4
    train_images = config.train_subset or len(data.train)
    test_images = len(data.test) if data.test else 0
    augmented = config.random_crop or config.augment_flip_rotate
    raw = math.prod(data.image_shape)  # bytes of a uint8 image
    images = test_images * math.prod(shape) * value + train_images * (raw if augmented else math.prod(shape) * value)
    if config.device == "cpu":
        images += (train_images + test_images) * raw  # the pages of the cache they were read from

    outputs = config.operator.num_outputs(len(data.class_names))
    network = (config.network, config.model_options, config.network_digest)
    parameters, kept, largest = _of_network(*network, outputs, shape, bf16)
    moments = 2 if config.optimizer in ADAPTIVE else 1
    weights = parameters * (4 * (2 + moments) + (4 if bf16 else 0))  # and their copies in bfloat16
    training = (3 * kept // 2 + 2 * largest) * config.batch_size  # kept, a part twice, and gradients on the way
    evaluation = 3 * largest * BATCH_SIZE
    return Footprint(images, weights + max(training, evaluation))


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
    """Bytes; a great many where the system does not say."""
    if device == "cuda":
        unused = torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
        return torch.cuda.mem_get_info()[0] + unused
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return 1024.0 * next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration, ValueError):
        return 2.0**40
