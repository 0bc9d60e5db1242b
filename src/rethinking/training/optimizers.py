"""The update rules, through `torch.optim`'s functional interface, with their state as plain named tensors.

The interface with classes imports PyTorch's compiler when first used, over a second that every run would wait for.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.optim.adam import adam
from torch.optim.sgd import sgd

from rethinking.config import ExperimentConfig


class Optimizer:
    """SGD with momentum, or Adam, over the trainable parameters; weight decay is an l2 term on all of them.

    state: one tensor a parameter and quantity, by `<quantity>.<parameter name>`; all that a checkpoint needs
    """

    def __init__(self, model: nn.Module, config: ExperimentConfig) -> None:
        self._config = config
        parameters = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
        self._parameters: list[Tensor] = list(parameters.values())
        # Zeros of the parameters' own memory format, which the fused kernels assume; sgd's first step from a buffer
        # of zeros is the step without one.
        moments = ("exp_avg", "exp_avg_sq") if config.optimizer == "adam" else ("momentum_buffer",)
        self.state = {f"{kind}.{name}": torch.zeros_like(p) for kind in moments for name, p in parameters.items()}
        if config.optimizer == "adam":
            self.state |= {f"step.{name}": torch.zeros((), device=p.device) for name, p in parameters.items()}
        self._fused = self._parameters[0].device.type in ("cpu", "cuda")  # one pass over the weights a step

    @torch.no_grad()
    def step(self, learning_rate: float) -> None:
        """Update the parameters from their `.grad`, and forget it."""
        gradients = [gradient(parameter) for parameter in self._parameters]
        weight_decay = self._config.weight_decay
        assert isinstance(weight_decay, float), "a resolved configuration"
        if self._config.optimizer == "adam":
            adam(
                self._parameters,
                gradients,
                self._all("exp_avg"),
                self._all("exp_avg_sq"),
                [],
                self._all("step"),
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
                self._parameters,
                gradients,
                [*self._all("momentum_buffer")],
                foreach=False,
                fused=self._fused,
                weight_decay=weight_decay,
                momentum=self._config.momentum,
                lr=learning_rate,
                dampening=0.0,
                nesterov=False,
                maximize=False,
            )
        for parameter in self._parameters:
            parameter.grad = None

    def _all(self, kind: str) -> list[Tensor]:
        return [tensor for name, tensor in self.state.items() if name.startswith(f"{kind}.")]


def gradient(parameter: Tensor) -> Tensor:
    assert parameter.grad is not None, "every parameter takes part in the loss"
    return parameter.grad
