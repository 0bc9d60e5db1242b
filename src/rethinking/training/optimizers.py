"""Applies the update rules through `torch.optim`'s functional interface, with their state as named tensors.

The interface with classes imports PyTorch's compiler on first use, which would add over a second to every run.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.optim.adam import adam
from torch.optim.adamw import adamw
from torch.optim.sgd import sgd

from rethinking.config import ExperimentConfig

ADAPTIVE = {"adam": adam, "adamw": adamw}  # their state is a mean and a mean square of each gradient


class Optimizer:
    """SGD with momentum, Adam or AdamW over the trainable parameters of a resolved configuration.

    Weight decay is an l2 term of the gradient for SGD and Adam. For AdamW it is decoupled: it shrinks the weights by
    rate times coefficient (Loshchilov & Hutter 2019).

    state: one tensor per parameter and quantity, named `<quantity>.<parameter name>`; a checkpoint needs no more
    """

    def __init__(self, model: nn.Module, config: ExperimentConfig) -> None:
        self._config = config
        parameters = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
        # The fused kernels assume state in the memory format of the parameters. A momentum buffer of zeros makes
        # sgd's first step equal to a step without a buffer.
        adaptive = config.optimizer in ADAPTIVE
        moments = ("exp_avg", "exp_avg_sq") if adaptive else ("momentum_buffer",)
        self.state = {f"{kind}.{name}": torch.zeros_like(p) for kind in moments for name, p in parameters.items()}
        if adaptive:
            self.state |= {f"step.{name}": torch.zeros((), device=p.device) for name, p in parameters.items()}
        device = next(iter(parameters.values())).device
        self._fused = device.type in ("cpu", "cuda")  # one pass over the weights per step
        decayed = hidden_linear_weights(model) if config.weight_decay_on == "hidden_linear" else set(parameters)
        assert isinstance(config.weight_decay, float), "a resolved configuration"
        parts = ((config.weight_decay, decayed), (0.0, parameters.keys() - decayed))
        self._groups = [
            (decay, {name: parameter for name, parameter in parameters.items() if name in names})
            for decay, names in parts
            if names
        ]

    @torch.no_grad()
    def step(self, learning_rate: float) -> None:
        """Updates the parameters from their `.grad`, and sets `.grad` to None."""
        for weight_decay, parameters in self._groups:
            self._update(parameters, weight_decay, learning_rate)

    def _update(self, named: dict[str, nn.Parameter], weight_decay: float, learning_rate: float) -> None:
        named = {name: parameter for name, parameter in named.items() if parameter.grad is not None}

        def state(kind: str) -> list[Tensor]:
            return [self.state[f"{kind}.{name}"] for name in named]

        parameters: list[Tensor] = list(named.values())
        gradients = [gradient(parameter) for parameter in parameters]
        if update := ADAPTIVE.get(self._config.optimizer):
            update(
                parameters,
                gradients,
                state("exp_avg"),
                state("exp_avg_sq"),
                [],
                state("step"),
                foreach=False,
                fused=self._fused,
                amsgrad=False,
                beta1=0.9,
                beta2=0.999,
                lr=learning_rate,
                weight_decay=weight_decay,
                eps=1e-8,
                maximize=False,
            )
        else:
            sgd(
                parameters,
                gradients,
                [*state("momentum_buffer")],
                foreach=False,
                fused=self._fused,
                weight_decay=weight_decay,
                momentum=self._config.momentum,
                lr=learning_rate,
                dampening=0.0,
                nesterov=False,
                maximize=False,
            )
        for parameter in parameters:
            parameter.grad = None


def hidden_linear_weights(model: nn.Module) -> set[str]:
    """Returns the names of the weights of all linear layers except the last."""
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    return {f"{name}.weight" for name in linear[:-1]}


def gradient(parameter: Tensor) -> Tensor:
    """Returns the gradient of a parameter, which must have one."""
    assert parameter.grad is not None, "every parameter takes part in the loss"
    return parameter.grad
