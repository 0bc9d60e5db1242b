import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from rethinking.data import sources
from rethinking.theory.gabor import GaborBank

BANK = GaborBank()


def grating(angle: float, wavelength: float, phase: float = 0.0, size: int = 64) -> Tensor:
    """Returns a plane wave along `angle`, uint8 (1, 1, size, size)."""
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    wave = torch.cos(2 * math.pi * (x * math.cos(angle) + y * math.sin(angle)) / wavelength + phase)
    return (127.5 + 120 * wave).round().to(torch.uint8)[None, None]


def test_a_wavelet_is_its_definition_without_mean_and_of_length_1():
    (both,) = GaborBank(wavelengths=(5.0,)).wavelets()
    radius = both.shape[-1] // 2
    even, odd = both[:8, 0].double(), both[8:, 0].double()
    assert torch.allclose(even.sum(dim=(1, 2)), torch.zeros(8, dtype=torch.float64), atol=1e-5)
    assert torch.allclose(odd.sum(dim=(1, 2)), torch.zeros(8, dtype=torch.float64), atol=1e-5)
    assert torch.allclose(both.flatten(1).norm(dim=1), torch.ones(16), atol=1e-5)
    sigma, angle = 0.56 * 5.0, 3 * math.pi / 8

    def sine(x: int, y: int) -> float:
        u, v = x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle) - x * math.sin(angle)
        return math.exp(-(u**2 + (0.5 * v) ** 2) / (2 * sigma**2)) * math.sin(2 * math.pi * u / 5.0)

    ratio = odd[3, radius + 2, radius + 1] / odd[3, radius, radius + 1]
    assert float(ratio) == pytest.approx(sine(1, 2) / sine(1, 0), rel=1e-4)


@pytest.mark.parametrize("orientation", range(8))
@pytest.mark.parametrize("scale", range(3))
def test_the_wave_that_a_wavelet_is_tuned_to_excites_it_most(orientation, scale):
    wave = grating(orientation * math.pi / 8, BANK.wavelengths[scale])
    responses = BANK.features(wave).view(3, 8, -1).mean(dim=2)
    assert int(responses.argmax()) == 8 * scale + orientation


def test_a_wave_that_moves_changes_the_modulus_little():
    still, moved = (BANK.features(grating(0.0, 8.0, phase)).view(3, 8, 22, 22)[2, 0, 6:16, 6:16] for phase in (0, 1.5))
    assert torch.allclose(still, moved, rtol=0.02)


def test_features_equal_those_of_one_image_at_a_time_by_the_definition():
    """They are moduli of two correlations, averaged over windows, in float64."""
    images = torch.from_numpy(sources.load("digits").train.images[:3].copy())
    found = BANK.features(images)
    assert found.shape == (3, 3 * 8 * 10 * 10)
    assert torch.allclose(found.norm(dim=1), torch.ones(3), atol=1e-5)
    image = images[1:2].double() / 255
    wavelet = BANK.wavelets()[1].double()
    even = F.conv2d(image, wavelet[5:6], padding=wavelet.shape[-1] // 2)[0, 0]
    odd = F.conv2d(image, wavelet[13:14], padding=wavelet.shape[-1] // 2)[0, 0]
    modulus = F.pad((even**2 + odd**2).sqrt(), (3, 3, 3, 3))
    windows = modulus.unfold(0, 6, 3).unfold(1, 6, 3).mean(dim=(2, 3))
    ours = found[1].view(3, 8, 10, 10)[1, 5].double()
    assert torch.allclose(ours / ours.norm(), windows / windows.norm(), atol=1e-5)


def test_each_channel_has_its_own_features():
    colour = torch.randint(256, (2, 3, 28, 28), dtype=torch.uint8)
    together = BANK.features(colour).view(2, 3, -1)
    for channel in range(3):
        alone = BANK.features(colour[:, channel : channel + 1])
        assert torch.allclose(F.normalize(together[:, channel]), alone, atol=1e-5)
