"""Computes one training step on the device: forward pass, backward pass and update of one run or of stacked runs.

The epoch is in `loop.py`.
"""

from __future__ import annotations

import contextlib
import copy
import logging
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from rethinking.data.batches import Batch
from rethinking.errors import in_one_line, too_little_memory
from rethinking.training.optimizers import Optimizer, gradient

WARM_UP = 3  # steps per batch size before training: PyTorch chooses kernels, takes memory and records graphs

log = logging.getLogger(__name__)


class Step:
    """A training step of every run on its own batch. The runs share only the architecture.

    Several runs are one computation: their weights are moved into stacked tensors, and the weights of each of `models`
    become slices of these. Other code can read and write each model as if it were alone.
    """

    def __init__(self, models: Sequence[nn.Module], optimizers: Sequence[Optimizer], autocast: torch.autocast) -> None:
        self._models = models
        self._optimizers = optimizers
        self._autocast = autocast
        self._forward: Solo | Stack = Solo(models[0]) if len(models) == 1 else Stack(models)
        self._losses_and_logits = self._forward.losses_and_logits
        self._results_are_reused = False
        self.device = next(models[0].parameters()).device

    def __len__(self) -> int:
        """Returns the number of runs."""
        return len(self._models)

    def begin(self, learning_rates: Sequence[float] | Tensor) -> None:
        """Begins an epoch with the learning rate of each run."""
        self._rates = learning_rates
        for model in self._models:
            model.train()

    def __call__(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Trains on one batch. Returns the losses before the update, (runs,), and the logits, (runs, batch, classes).

        `images` and `labels` are those of a `data.batches.Batch`. A loss is the mean cross-entropy of a run's batch in
        nats.
        """
        with self._autocast:
            losses, logits = self._losses_and_logits(images, labels)
        (losses if losses.dim() == 0 else losses.sum()).backward()  # `backward(torch.ones(...))` would import sympy
        self._forward.hand_out_gradients()
        for optimizer, rate in zip(self._optimizers, self._rates, strict=True):
            optimizer.step(rate)
        losses, logits = losses.detach(), logits.detach()
        if self._results_are_reused:
            losses, logits = losses.clone(), logits.clone()
        return losses.view(len(self)), logits.view(len(self), -1, logits.shape[-1])

    def compiled(self) -> Step:
        """Returns the same step with forward and backward pass compiled by PyTorch, separately for each batch size.

        Earlier compilations in this process are forgotten, since PyTorch holds only a few per function.
        """
        torch._dynamo.reset()
        self._forward.stay_in_place()
        mode = "reduce-overhead" if self.device.type == "cuda" else "default"
        other = copy.copy(self)
        other._losses_and_logits = torch.compile(self._forward.losses_and_logits, mode=mode, dynamic=False)
        other._results_are_reused = mode == "reduce-overhead"  # the next step overwrites the results
        return other

    @contextlib.contextmanager
    def without_effect(self) -> Iterator[None]:
        """Restores every run at the end, so that steps inside it have no effect."""
        state = [tensor for model in self._models for tensor in model.state_dict().values()]
        state += [tensor for optimizer in self._optimizers for tensor in optimizer.state.values()]
        before = [tensor.clone() for tensor in state]
        try:
            yield
        finally:
            with torch.no_grad():
                for tensor, value in zip(state, before, strict=True):
                    tensor.copy_(value)
            self._forward.forget_gradients()  # a step may have failed halfway


class CapturedStep:
    """A `Step` as a CUDA graph for each batch size: the same kernels, launched together instead of one by one."""

    def __init__(self, step: Step) -> None:
        self._step = step
        self._rates = torch.zeros(len(step), device=step.device)  # the graphs read the rates at each replay
        self._graphs: dict[tuple[torch.Size, torch.Size], _Graph] = {}
        self._memory = torch.cuda.graph_pool_handle()  # one pool for all sizes, since results are copied out

    def __len__(self) -> int:
        """Returns the number of runs."""
        return len(self._step)

    def begin(self, learning_rates: Sequence[float]) -> None:
        """Begins an epoch, as `Step.begin`."""
        self._rates.copy_(torch.tensor(learning_rates))
        self._step.begin(self._rates)

    def __call__(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Trains on one batch, as `Step` does. The batch must have a size that was captured."""
        graph = self._graphs[images.shape, labels.shape]
        graph.images.copy_(images)
        graph.labels.copy_(labels)
        graph.recorded.replay()
        return graph.losses.clone(), graph.logits.clone()

    def capture(self, images: Tensor, labels: Tensor) -> None:
        """Records the step for batches of this size. The recording itself trains some steps."""
        images, labels = images.clone(), labels.clone()
        side, current = torch.cuda.Stream(self._step.device), torch.cuda.current_stream(self._step.device)
        side.wait_stream(current)
        recorded = torch.cuda.CUDAGraph()
        with torch.cuda.stream(side):  # left also where the capture fails
            for _ in range(WARM_UP):
                self._step(images, labels)
            with torch.cuda.graph(recorded, pool=self._memory, stream=side):
                losses, logits = self._step(images, labels)
        current.wait_stream(side)
        self._graphs[images.shape, labels.shape] = _Graph(recorded, images, labels, losses, logits)


class _Graph(NamedTuple):
    recorded: torch.cuda.CUDAGraph
    images: Tensor
    labels: Tensor
    losses: Tensor
    logits: Tensor


def fastest_step(step: Step, compile: str, examples: Sequence[Batch]) -> tuple[Step | CapturedStep, float]:
    """Returns `step` in the form that `compile` asks for, ready for batches like `examples`, and the seconds that took.

    'on' compiles it, and 'auto' captures it on CUDA. Otherwise, and where that fails, it is `step` itself. Raises the
    device's error where its memory runs out.
    """
    captures = compile == "auto" and step.device.type == "cuda"
    if compile == "off" or (compile == "auto" and not captures):
        return step, 0.0
    started = time.perf_counter()
    ready: Step | CapturedStep = step
    with step.without_effect():
        try:
            faster = CapturedStep(step) if captures else step.compiled()
            faster.begin([0.0] * len(step))
            for _, images, labels in examples:
                if isinstance(faster, CapturedStep):
                    faster.capture(images, labels)
                else:
                    for _ in range(WARM_UP):
                        faster(images, labels)
            ready = faster
        except Exception as error:  # a compiler or driver can raise anything
            if too_little_memory(error):
                raise
            log.warning("the training step runs uncompiled: %s", in_one_line(error, 200))
    return ready, time.perf_counter() - started


class Solo:
    """The loss and logits of one run."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model

    def losses_and_logits(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the loss, (), and the logits, (batch, classes).

        The shapes have no axis for runs: small networks notice the time of every view in the backward pass.
        """
        logits = self._model(images[0])
        return F.cross_entropy(logits.float(), labels[0]), logits

    def hand_out_gradients(self) -> None:
        """Does nothing: the gradients are in place."""

    def forget_gradients(self) -> None:
        """Sets the gradients to None."""
        self._model.zero_grad(set_to_none=True)

    def stay_in_place(self) -> None:
        """Does nothing: the compiler knows that a network's own parameters keep their addresses."""


class Stack:
    """The losses and logits of several networks of one architecture as one computation (`torch.vmap`).

    Batch normalization stays separate for each network: its statistics are stacked like the weights. `vmap` runs
    without autocast here. Layers that autocast would compute in bfloat16 get their weights and inputs in bfloat16
    instead.
    """

    def __init__(self, models: Sequence[nn.Module]) -> None:
        self._parameters = [dict(model.named_parameters()) for model in models]
        self._skeleton = copy.deepcopy(models[0]).train()
        self._lowered = set()
        for name, module in [*self._skeleton.named_modules()]:
            if isinstance(module, nn.Conv2d | nn.Linear):
                self._lowered |= {f"{name}.weight", f"{name}.bias"}
                module.register_forward_pre_hook(lambda module, inputs: (inputs[0].to(module.weight.dtype),))
            elif isinstance(module, nn.BatchNorm2d):
                self._skeleton.set_submodule(name, StackableBatchNorm(module.num_features, module.eps, module.momentum))
        states = [model.state_dict(keep_vars=True) for model in models]
        self._stacked = {name: stack([state[name] for state in states]) for name in states[0]}

    def losses_and_logits(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Returns losses, (runs,), and logits, (runs, batch, classes)."""
        device = images.device.type
        state = self._stacked
        if torch.is_autocast_enabled(device):
            dtype = torch.get_autocast_dtype(device)
            state = {name: whole.to(dtype) if name in self._lowered else whole for name, whole in state.items()}
        one_for_all = len(images) == 1 < len(labels)
        forward = torch.vmap(self._one, in_dims=(0, None if one_for_all else 0, 0))
        with torch.autocast(device, enabled=False):
            losses, logits = forward(state, images[0] if one_for_all else images, labels)
        return losses, logits

    def _one(self, state: dict[str, Tensor], images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        logits = functional_call(self._skeleton, state, (images,))
        return F.cross_entropy(logits.float(), labels), logits

    def hand_out_gradients(self) -> None:
        """Gives each network its slice of the gradients."""
        for name, whole in self._stacked.items():
            if whole.requires_grad:
                slices = gradient(whole).unbind()
                for parameters, piece in zip(self._parameters, slices, strict=True):
                    parameters[name].grad = piece
                whole.grad = None

    def forget_gradients(self) -> None:
        """Sets all gradients to None."""
        for tensor in (*self._stacked.values(), *(p for each in self._parameters for p in each.values())):
            tensor.grad = None

    def stay_in_place(self) -> None:
        """Tells the compiler that the stacked tensors keep their addresses, so that a graph need not copy them."""
        for whole in self._stacked.values():
            torch._dynamo.mark_static_address(whole)


class StackableBatchNorm(nn.BatchNorm2d):
    """Batch normalization in training mode and float32. PyTorch's own does not take bfloat16 with stacked statistics.

    PyTorch's own does not take channels-last images on CUDA under `vmap` either: it asks for their memory format, which
    `vmap` does not tell. This class calls PyTorch's kernel directly.
    """

    def forward(self, images: Tensor) -> Tensor:
        """Normalizes images (n, channels, height, width) and updates the running statistics."""
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.num_batches_tracked.add_(1)
        statistics = (self.running_mean, self.running_var, True, self.momentum, self.eps)
        normalized, _, _ = torch.native_batch_norm(images.float(), self.weight, self.bias, *statistics)
        return normalized


def stack(tensors: Sequence[Tensor]) -> Tensor:
    """Returns one tensor (len(tensors), ...) with the values and memory format of `tensors`.

    The tensors become slices of it.
    """
    like = tensors[0]
    whole = torch.empty_strided(
        (len(tensors), *like.shape), (like.numel(), *like.stride()), dtype=like.dtype, device=like.device
    )
    for tensor, piece in zip(tensors, whole, strict=True):
        tensor.data = piece.copy_(tensor.detach())
    return whole.requires_grad_(like.requires_grad)
