"""One training step, what runs on the device: forward, backward and update of one run, or of several stacked.

The epoch, what a person reads, is in `loop.py`.
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

WARM_UP = 3  # steps of each size before the first that counts: kernels are chosen, memory taken, graphs recorded

log = logging.getLogger(__name__)


class Step:
    """A step of every run on its own batch; the runs share nothing but the architecture.

    Several are computed as one: their weights are moved into stacked tensors, of which the weights of each of
    `models` become a slice, so that whatever else reads or writes a model does it as if the model were alone.
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
        return len(self._models)

    def begin(self, learning_rates: Sequence[float] | Tensor) -> None:
        """An epoch, with these rates of the runs."""
        self._rates = learning_rates
        for model in self._models:
            model.train()

    def __call__(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Loss of each run's batch before the update, (runs,), and its logits, (runs, batch, classes).

        `images` and `labels` are those of a `data.batches.Batch`.
        """
        with self._autocast:
            losses, logits = self._losses_and_logits(images, labels)
        (losses if losses.dim() == 0 else losses.sum()).backward()  # a gradient of ones given here would import sympy
        self._forward.hand_out_gradients()
        for optimizer, rate in zip(self._optimizers, self._rates, strict=True):
            optimizer.step(rate)
        losses, logits = losses.detach(), logits.detach()
        if self._results_are_reused:
            losses, logits = losses.clone(), logits.clone()
        return losses.view(len(self)), logits.view(len(self), -1, logits.shape[-1])

    def compiled(self) -> Step:
        """The same step with forward and backward through PyTorch's compiler, for each size of batch apart.

        What was compiled before in this process is forgotten: PyTorch holds a few of a function only.
        """
        torch._dynamo.reset()
        self._forward.stay_in_place()
        mode = "reduce-overhead" if self.device.type == "cuda" else "default"
        other = copy.copy(self)
        other._losses_and_logits = torch.compile(self._forward.losses_and_logits, mode=mode, dynamic=False)
        other._results_are_reused = mode == "reduce-overhead"  # the next step writes into the same memory
        return other

    @contextlib.contextmanager
    def without_effect(self) -> Iterator[None]:
        """Steps in here leave every run as it was."""
        state = [tensor for model in self._models for tensor in model.state_dict().values()]
        state += [tensor for optimizer in self._optimizers for tensor in optimizer.state.values()]
        before = [tensor.clone() for tensor in state]
        try:
            yield
        finally:
            with torch.no_grad():
                for tensor, value in zip(state, before, strict=True):
                    tensor.copy_(value)
            self._forward.forget_gradients()  # of a step that failed halfway


class CapturedStep:
    """`step` as a CUDA graph for each size of batch: the same kernels, launched together instead of one by one."""

    def __init__(self, step: Step) -> None:
        self._step = step
        self._rates = torch.zeros(len(step), device=step.device)  # the graphs read them anew at each replay
        self._graphs: dict[tuple[torch.Size, torch.Size], _Graph] = {}
        self._memory = torch.cuda.graph_pool_handle()  # one for all sizes: their results are copied out

    def __len__(self) -> int:
        return len(self._step)

    def begin(self, learning_rates: Sequence[float]) -> None:
        """As `Step`."""
        self._rates.copy_(torch.tensor(learning_rates))
        self._step.begin(self._rates)

    def __call__(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """As `Step`, for sizes of batches that `capture` was given."""
        graph = self._graphs[images.shape, labels.shape]
        graph.images.copy_(images)
        graph.labels.copy_(labels)
        graph.recorded.replay()
        return graph.losses.clone(), graph.logits.clone()

    def capture(self, images: Tensor, labels: Tensor) -> None:
        """Record the step on batches of this size; it trains while it does."""
        images, labels = images.clone(), labels.clone()
        apart, here = torch.cuda.Stream(self._step.device), torch.cuda.current_stream(self._step.device)
        apart.wait_stream(here)
        recorded = torch.cuda.CUDAGraph()
        with torch.cuda.stream(apart):  # which is left again when a capture fails
            for _ in range(WARM_UP):
                self._step(images, labels)
            with torch.cuda.graph(recorded, pool=self._memory, stream=apart):
                losses, logits = self._step(images, labels)
        here.wait_stream(apart)
        self._graphs[images.shape, labels.shape] = _Graph(recorded, images, labels, losses, logits)


class _Graph(NamedTuple):
    recorded: torch.cuda.CUDAGraph
    images: Tensor
    labels: Tensor
    losses: Tensor
    logits: Tensor


def fastest_step(step: Step, compile: str, examples: Sequence[Batch]) -> tuple[Step | CapturedStep, float]:
    """`step` in the form that `compile` asks for, made ready for batches like `examples`, and the seconds that took.

    'on' compiles it; 'auto' captures it where there is CUDA; else, and where that fails, it is `step` itself, eager.
    Raises what the device does where its memory runs out.
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
        except Exception as error:  # whatever a compiler or driver makes of a machine that does not suit it
            if too_little_memory(error):
                raise
            log.warning("the step stays as it is, not compiled: %s", in_one_line(error, 200))
    return ready, time.perf_counter() - started


class Solo:
    """One run's loss and logits."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model

    def losses_and_logits(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """() and (batch, classes): small networks notice every view that backward must undo."""
        logits = self._model(images[0])
        return F.cross_entropy(logits.float(), labels[0]), logits

    def hand_out_gradients(self) -> None:
        """They are where they belong."""

    def forget_gradients(self) -> None:
        self._model.zero_grad(set_to_none=True)

    def stay_in_place(self) -> None:
        """A network's own parameters do, and the compiler knows."""


class Stack:
    """Losses and logits of several networks of one architecture as one computation (`torch.vmap`).

    Batch normalization is each network's own: its statistics are stacked like the weights. `vmap` does without
    autocast, so the layers that autocast would compute in bfloat16 are given their weights and inputs in it.
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
        """(runs,) and (runs, batch, classes)."""
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
        """To each network its slice."""
        for name, whole in self._stacked.items():
            if whole.requires_grad:
                slices = gradient(whole).unbind()
                for parameters, piece in zip(self._parameters, slices, strict=True):
                    parameters[name].grad = piece
                whole.grad = None

    def forget_gradients(self) -> None:
        for tensor in (*self._stacked.values(), *(p for each in self._parameters for p in each.values())):
            tensor.grad = None

    def stay_in_place(self) -> None:
        """Tell the compiler that the stacked tensors do, so that a graph need not copy them in."""
        for whole in self._stacked.values():
            torch._dynamo.mark_static_address(whole)


class StackableBatchNorm(nn.BatchNorm2d):
    """As it is in training, in float32: with stacked statistics PyTorch's takes no bfloat16.

    Nor does it take CUDA's channels-last images: in its choice of a library it asks for their memory format, which
    `vmap` does not tell. PyTorch's own kernel is named here.
    """

    def forward(self, images: Tensor) -> Tensor:
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.num_batches_tracked.add_(1)
        statistics = (self.running_mean, self.running_var, True, self.momentum, self.eps)
        normalized, _, _ = torch.native_batch_norm(images.float(), self.weight, self.bias, *statistics)
        return normalized


def stack(tensors: Sequence[Tensor]) -> Tensor:
    """One tensor (len(tensors), ...) of their values and memory format, whose slices they become."""
    like = tensors[0]
    whole = torch.empty_strided(
        (len(tensors), *like.shape), (like.numel(), *like.stride()), dtype=like.dtype, device=like.device
    )
    for tensor, piece in zip(tensors, whole, strict=True):
        tensor.data = piece.copy_(tensor.detach())
    return whole.requires_grad_(like.requires_grad)
