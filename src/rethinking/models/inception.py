"""Small Inception (Appendix A, Figure 3), with and without batch normalization.

Table 1 counts 1,649,402 parameters for both. A convolution has its weights and one vector per channel: its bias without
batch normalization, and the shift of batch normalization with it. There is no learned scale.
"""

import torch
from torch import Tensor, nn


class ConvModule(nn.Sequential):
    """Convolution, optional batch normalization, ReLU ("conv module" of Figure 3)."""

    def __init__(self, channels: int, filters: int, kernel_size: int, stride: int, batch_norm: bool) -> None:
        layers: list[nn.Module] = [
            nn.Conv2d(channels, filters, kernel_size, stride, padding=kernel_size // 2, bias=not batch_norm)
        ]
        if batch_norm:
            norm = nn.BatchNorm2d(filters)
            norm.weight.requires_grad_(False)  # stays 1: only the shift is learned
            layers.append(norm)
        super().__init__(*layers, nn.ReLU(inplace=True))


class InceptionModule(nn.Module):
    """1x1 and 3x3 convolutions side by side, with concatenated channels ("inception module" of Figure 3)."""

    def __init__(self, channels: int, filters_1x1: int, filters_3x3: int, batch_norm: bool) -> None:
        super().__init__()
        self.conv_1x1 = ConvModule(channels, filters_1x1, 1, 1, batch_norm)
        self.conv_3x3 = ConvModule(channels, filters_3x3, 3, 1, batch_norm)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (batch, channels, h, w) to (batch, filters_1x1 + filters_3x3, h, w)."""
        return torch.cat([self.conv_1x1(x), self.conv_3x3(x)], dim=1)


class DownsampleModule(nn.Module):
    """3x3 convolution and 3x3 max-pool of stride 2, with concatenated channels ("downsample module" of Figure 3)."""

    def __init__(self, channels: int, filters: int, batch_norm: bool) -> None:
        super().__init__()
        self.conv = ConvModule(channels, filters, 3, 2, batch_norm)
        self.pool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (batch, channels, h, w) to (batch, channels + filters, h / 2, w / 2), rounded up."""
        return torch.cat([self.conv(x), self.pool(x)], dim=1)


def small_inception(num_classes: int = 10, input_shape: tuple[int, int, int] = (3, 28, 28)) -> nn.Module:
    """Returns Small Inception with batch normalization: 1,649,402 parameters at the defaults (Table 1)."""
    return _small_inception(num_classes, input_shape, batch_norm=True)


def small_inception_no_bn(num_classes: int = 10, input_shape: tuple[int, int, int] = (3, 28, 28)) -> nn.Module:
    """Returns Small Inception without batch normalization: 1,649,402 parameters at the defaults (Table 1)."""
    return _small_inception(num_classes, input_shape, batch_norm=False)


def _small_inception(num_classes: int, input_shape: tuple[int, int, int], batch_norm: bool) -> nn.Module:
    return nn.Sequential(
        ConvModule(input_shape[0], 96, 3, 1, batch_norm),
        InceptionModule(96, 32, 32, batch_norm),
        InceptionModule(64, 32, 48, batch_norm),
        DownsampleModule(80, 80, batch_norm),
        InceptionModule(160, 112, 48, batch_norm),
        InceptionModule(160, 96, 64, batch_norm),
        InceptionModule(160, 80, 80, batch_norm),
        InceptionModule(160, 48, 96, batch_norm),
        DownsampleModule(144, 96, batch_norm),
        InceptionModule(240, 176, 160, batch_norm),
        InceptionModule(336, 176, 160, batch_norm),
        nn.AdaptiveAvgPool2d(1),  # 7x7 at the paper's 28x28
        nn.Flatten(),
        nn.Linear(336, num_classes),
    )
