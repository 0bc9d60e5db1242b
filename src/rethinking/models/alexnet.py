"""Small AlexNet (Appendix A): two (conv 5x5, ReLU, max-pool 3x3, local response normalization), three linear layers.

The paper gives neither the channels nor the normalization's constants. Its parameter count, 1,387,786, pins 64
channels in both convolutions, "same" padding and pools that halve (28 -> 14 -> 7). The constants are those of the
TensorFlow tutorial of the time that has the same layers.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class LocalResponseNorm(nn.Module):
    """x / (1 + 0.001/9 * sum of x^2 over the 9 nearest channels)^0.75 (Krizhevsky et al. 2012, Section 3.3).

    Equals `nn.LocalResponseNorm(9, alpha=0.001, beta=0.75, k=1.0)`, as a 1x1 convolution with a fixed band matrix,
    which takes far less time. Computed in float32 at least, since powers lose too much in bfloat16.

    Shape: (batch, channels, height, width) to the same.
    """

    band: Tensor

    def __init__(self, channels: int, size: int = 9, alpha: float = 0.001) -> None:
        super().__init__()
        position = torch.arange(channels)
        near = (position[:, None] - position[None, :]).abs() <= size // 2
        self.register_buffer("band", (near.float() * alpha / size)[:, :, None, None], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            x = x.to(torch.promote_types(x.dtype, torch.float32))
            root = (1.0 + F.conv2d(x.square(), self.band)).rsqrt()
            return x * (root * root.sqrt())  # rsqrt(d) * sqrt(rsqrt(d)) = d^-0.75, without a slow pow


def small_alexnet(num_classes: int = 10, input_shape: tuple[int, int, int] = (3, 28, 28)) -> nn.Module:
    """1,387,786 parameters at the defaults (Table 1)."""
    channels, side, _ = input_shape
    for _ in range(2):
        side = (side + 1) // 2  # a 3x3 pool of stride 2, padded by 1, rounds up
    return nn.Sequential(
        *_block(channels),
        *_block(64),
        nn.Flatten(),
        nn.Linear(64 * side * side, 384),
        nn.ReLU(inplace=True),
        nn.Linear(384, 192),
        nn.ReLU(inplace=True),
        nn.Linear(192, num_classes),
    )


def _block(channels: int) -> list[nn.Module]:
    return [
        nn.Conv2d(channels, 64, kernel_size=5, padding=2),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(kernel_size=3, stride=2, padding=1),
        LocalResponseNorm(64),
    ]
