"""Computes linear maps in float32 on the CPU with oneDNN, and all others with PyTorch's own `linear`.

PyTorch multiplies float32 matrices with MKL. On AMD processors with AVX512 oneDNN is faster (docs/performance.md).
The two agree except for rounding.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

HAS_ONEDNN = torch.backends.mkldnn.is_available() and torch.backends.cpu.get_cpu_capability() == "AVX512"


def linear(inputs: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Returns `inputs @ weight.T + bias` of shape (..., out), like `torch.nn.functional.linear`.

    inputs: (..., in); weight: (out, in); bias: (out,) or None; all of one dtype
    """
    if not _is_for_onednn(inputs, weight):
        return F.linear(inputs, weight, bias)
    if torch.is_grad_enabled() and (inputs.requires_grad or weight.requires_grad):
        product: Tensor = _Linear.apply(inputs, weight, bias)  # type: ignore[no-untyped-call]
        return product
    return _product(inputs, weight, bias)


class Linear(nn.Linear):
    """A `torch.nn.Linear` that computes with `linear`."""

    def forward(self, inputs: Tensor) -> Tensor:
        """Returns the outputs (..., out) of inputs (..., in)."""
        return linear(inputs, self.weight, self.bias)


class _Linear(torch.autograd.Function):
    """A linear map with derivatives. They are linear maps too, so that they have derivatives of their own."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(inputs, weight)
        return _product(inputs, weight, bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        inputs, weight = ctx.saved_tensors
        of_inputs, of_weight, of_bias = ctx.needs_input_grad
        rows, points = gradient.reshape(-1, len(weight)), inputs.reshape(-1, weight.shape[1])
        return (
            linear(gradient, weight.T) if of_inputs else None,
            linear(rows.T, points.T) if of_weight else None,
            rows.sum(dim=0) if of_bias else None,
        )


def _product(inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    if not (weight.is_contiguous() or weight.T.is_contiguous()):
        weight = weight.contiguous()  # for a part of a matrix oneDNN would take a thousand times as long
    product: Tensor = torch.ops.mkldnn._linear_pointwise(inputs, weight, bias, "none", [], "")  # no activation
    return product


def _is_for_onednn(inputs: Tensor, weight: Tensor) -> bool:
    return (
        HAS_ONEDNN
        and inputs.dtype == weight.dtype == torch.float32
        and inputs.device.type == weight.device.type == "cpu"
        and inputs.numel() > 0
        and not torch.is_autocast_enabled("cpu")
        and not torch._C._are_functorch_transforms_active()
        and not torch.compiler.is_compiling()
    )
