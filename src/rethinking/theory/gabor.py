r"""Section 5's Gabor wavelet features of images: the modulus of the filtered image, averaged over small windows.

A wavelet of wavelength $\lambda$ and aspect $\gamma$ is
$\exp(-(u^2 + (\gamma v)^2) / (2 \sigma^2)) \exp(2 \pi i u / \lambda)$,
with u along its direction and v across it. Cosine and sine are the two parts of one response. Its modulus hardly
changes when a stroke moves by less than a wavelength. The cosine's mean is removed, and both parts have length 1. The
feature vector of an image also has length 1.

The paper does not state its bank. Here sigma = 0.56 wavelengths (a bandwidth of one octave), aspect 0.5 and eight
directions are from Petkov & Kruizinga 1997, who fitted sigma and aspect to simple cells ("Computational models of
visual neurons specialised in the detection of periodic and aperiodic oriented visual stimuli", section 2). Wavelengths
start at 4 pixels, half an octave apart. Windows, wavelengths and the length of 1 were chosen on held-out training
images.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

IMAGES = 256  # are filtered at a time


@dataclass(frozen=True)
class GaborBank:
    """The parameters of the features. Lengths are in pixels."""

    orientations: int = 8
    wavelengths: tuple[float, ...] = (4.0, 5.7, 8.0)
    sigma: float = 0.56  # in wavelengths
    aspect: float = 0.5
    window: int = 6
    stride: int = 3

    def wavelets(self) -> list[Tensor]:
        """The cosines, then the sines, of each wavelength: float32 (2 * orientations, 1, side, side)."""
        return [self._of_wavelength(wavelength) for wavelength in self.wavelengths]

    def _of_wavelength(self, wavelength: float) -> Tensor:
        sigma = self.sigma * wavelength
        radius = math.ceil(2.5 * sigma)
        y, x = torch.meshgrid(*2 * [torch.arange(-radius, radius + 1.0, dtype=torch.float64)], indexing="ij")
        angles = torch.arange(self.orientations, dtype=torch.float64) * math.pi / self.orientations
        cosine, sine = angles.cos()[:, None, None], angles.sin()[:, None, None]
        along, across = x * cosine + y * sine, y * cosine - x * sine
        envelope = torch.exp(-(along**2 + (self.aspect * across) ** 2) / (2 * sigma**2))
        wave = 2 * math.pi * along / wavelength
        even = envelope * wave.cos()
        even -= envelope * (even.sum(dim=(1, 2)) / envelope.sum(dim=(1, 2)))[:, None, None]
        odd = envelope * wave.sin()
        both = torch.cat([even, odd])
        lengths: Tensor = both.flatten(1).norm(dim=1)
        return (both / lengths[:, None, None])[:, None].float()

    def features(self, images: Tensor, advanced: Callable[[float], None] = lambda share: None) -> Tensor:
        """The features of images, uint8 (n, channels, height, width).

        Returns float32 (n, channels * wavelengths * orientations * windows), each row of length 1. `advanced` receives
        the finished share of the images, 0-1.
        """
        if not len(images):
            return self.features(images.new_zeros(1, *images.shape[1:]))[:0]
        wavelets = [wavelet.to(images.device) for wavelet in self.wavelets()]
        made = []
        for some in images.split(IMAGES):
            single = some.flatten(0, 1)[:, None].float() / 255  # each channel alone
            scales = [self._pooled(F.conv2d(single, wavelet, padding=wavelet.shape[-1] // 2)) for wavelet in wavelets]
            made.append(F.normalize(torch.cat(scales, dim=1).reshape(len(some), -1)))
            advanced(min(1.0, len(made) * IMAGES / len(images)))
        return torch.cat(made)

    def _pooled(self, responses: Tensor) -> Tensor:
        even, odd = responses.chunk(2, dim=1)
        return F.avg_pool2d(torch.hypot(even, odd), self.window, self.stride, padding=self.window // 2)
