"""Small AlexNet (Appendix A): twice (conv 5x5, ReLU, max-pool 3x3, local response normalization), three linear layers.

The paper gives neither the channels nor the normalization's constants. Its parameter count, 1,387,786, requires 64
channels in both convolutions, "same" padding and pools that halve (28 -> 14 -> 7). The constants are those of the
TensorFlow tutorial of that time with the same layers.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from rethinking.linear import Linear


class LocalResponseNorm(nn.Module):
    """Computes x / (1 + 0.001/9 * sum of x^2 over the 9 nearest channels)^0.75 (Krizhevsky et al. 2012, Section 3.3).

    Equals `nn.LocalResponseNorm(9, alpha=0.001, beta=0.75, k=1.0)`. It computes in float32 or wider, since powers lose
    too much precision in bfloat16.

    The shape (batch, channels, height, width) and the dtype stay the same.
    """

    band: Tensor
    ones: Tensor

    def __init__(self, channels: int, size: int = 9, alpha: float = 0.001) -> None:
        super().__init__()
        position = torch.arange(channels)
        near = (position[:, None] - position[None, :]).abs() <= size // 2
        self.register_buffer("band", (near.float() * alpha / size)[:, :, None, None], persistent=False)
        self.register_buffer("ones", torch.ones(channels), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Normalizes `x`, (batch, channels, height, width)."""
        with torch.autocast(x.device.type, enabled=False):
            normalized: Tensor
            normalized, _, _ = _LocalResponse.apply(x, self.band, self.ones)  # type: ignore[no-untyped-call]
        return normalized


class _LocalResponse(torch.autograd.Function):
    """Computes y = x d^-0.75 with d = 1 + band * x^2, a 1x1 convolution with a fixed symmetric band matrix.

    With dL/dy = g the gradient is dL/dx = g d^-0.75 - 1.5 x band * (g x d^-1.75). This gradient takes half as many
    passes over memory as autograd's, and the passes take most of the time.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, band: Tensor, ones: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns y, d^-0.5 and d^-0.75. The powers are computed by roots, which are fast."""
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        root = F.conv2d(wide.square(), band, ones).rsqrt()
        scale = root.sqrt() * root
        return (wide * scale).to(x.dtype), root, scale

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
        x, band, _ = inputs
        _, root, scale = output
        ctx.save_for_backward(x, band, root, scale)
        ctx.mark_non_differentiable(root, scale)
        ctx.set_materialize_grads(False)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, *_: None) -> tuple[Tensor, None, None]:
        x, band, root, scale = ctx.saved_tensors
        wide = x.to(root.dtype)
        direct = gradient.to(root.dtype) * scale
        with torch.autocast(x.device.type, enabled=False):
            through = F.conv2d((direct * wide).mul_(root).mul_(root), band)
        return direct.sub_(through.mul_(wide), alpha=1.5).to(x.dtype), None, None


def small_alexnet(num_classes: int = 10, input_shape: tuple[int, int, int] = (3, 28, 28)) -> nn.Module:
    """Returns Small AlexNet: 1,387,786 parameters at the defaults (Table 1).

    It maps (batch, channels, side, side) to logits (batch, num_classes); `input_shape` is (channels, side, side).
    """
    channels, side, _ = input_shape
    for _ in range(2):
        side = (side + 1) // 2  # a 3x3 pool of stride 2, padded by 1, rounds up
    return nn.Sequential(
        *_block(channels),
        *_block(64),
        nn.Flatten(),
        Linear(64 * side * side, 384),
        nn.ReLU(inplace=True),
        Linear(384, 192),
        nn.ReLU(inplace=True),
        Linear(192, num_classes),
    )


def _block(channels: int) -> list[nn.Module]:
    return [
        nn.Conv2d(channels, 64, kernel_size=5, padding=2),
        nn.MaxPool2d(kernel_size=3, stride=2, padding=1),
        nn.ReLU(inplace=True),  # after the pool, where it gives the same result on a quarter of the values
        LocalResponseNorm(64),
    ]
