import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import affine_transform
from torch import Tensor

from rethinking.data.preprocessing import (
    AugmentationDraws,
    Preprocessing,
    centre_crop,
    crop,
    crop_flip_rotate,
    permute_pixels,
    scale,
    whiten,
)
from rethinking.seeding import generator

CPU = torch.device("cpu")


def random_images(images: int = 6, side: int = 32, channels: int = 3, seed: int = 0) -> Tensor:
    shape = (images, channels, side, side)
    return torch.randint(256, shape, generator=generator(seed, "test"), dtype=torch.uint8)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), channels=st.sampled_from([1, 3]), low=st.integers(0, 200), spread=st.integers(1, 55))
def test_whitening_equals_a_float64_numpy_version(seed, channels, low, spread):
    images = (random_images(5, 28, channels, seed) % (spread + 1) + low).to(torch.uint8)
    pixels = images.numpy().astype(np.float64) / 255
    expected = [(image - image.mean()) / max(image.std(), 1e-8) for image in pixels]
    np.testing.assert_allclose(whiten(scale(images), 1e-8).numpy(), expected, rtol=2e-3, atol=2e-4)


def test_the_tensorflow_rule_floors_the_deviation_at_one_over_root_n():
    images = torch.zeros(1, 3, 28, 28)
    images[0, 0, 0, 0] = 0.1
    values = images[0].double().numpy()
    floor = 1 / math.sqrt(3 * 28 * 28)
    assert values.std() < floor
    np.testing.assert_allclose(whiten(images, "tensorflow")[0], (values - values.mean()) / floor, rtol=1e-5, atol=2e-6)
    np.testing.assert_allclose(whiten(images, 1e-8)[0], (values - values.mean()) / values.std(), rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("side", [28, 224])
def test_a_flat_image_of_any_brightness_whitens_to_zeros(side):
    for brightness in torch.arange(256, dtype=torch.uint8).split(32):
        flat = scale(brightness[:, None, None, None].expand(-1, 3, side, side))
        assert not whiten(flat, 1e-8).any()


@pytest.mark.parametrize(("side", "size", "first"), [(32, 28, 2), (28, 28, 0), (33, 28, 2), (224, 28, 98)])
def test_the_centre_crop_leaves_equal_margins(side, size, first):
    images = random_images(2, side)
    assert torch.equal(centre_crop(images, size), images[:, :, first : first + size, first : first + size])


def whitened_window(image: Tensor, top: int, left: int) -> np.ndarray:
    """Cuts out 28x28 pixels by hand and whitens them in float64, by the mean and deviation of these pixels alone."""
    window = image.numpy().astype(np.float64)[:, top : top + 28, left : left + 28] / 255
    return (window - window.mean()) / window.std()


def framed_images(side: int, images: int = 4) -> Tensor:
    """Images with a dark middle and a bright frame, which show whether cropped pixels count."""
    made = random_images(images, side) // 4
    made[:, :, 3:-3, 3:-3] //= 4
    made[:, :, :2], made[:, :, -2:], made[..., :2], made[..., -2:] = 255, 250, 245, 240
    return made


@pytest.mark.parametrize(("side", "first"), [(28, 0), (29, 0), (32, 2), (33, 2), (40, 6)])
def test_the_centre_is_cut_out_before_it_is_whitened(side, first):
    images = framed_images(side)
    expected = [whitened_window(image, first, first) for image in images]
    np.testing.assert_allclose(Preprocessing(28).plain(images).numpy(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("side", "first"), [(28, 0), (29, 0), (32, 2), (33, 2), (40, 6)])
def test_without_random_crops_it_is_the_centre_that_is_flipped_and_turned(side, first):
    """At an angle of 0 the result is the centre or its mirror image, whatever corners are drawn."""
    images = framed_images(side)
    flip = torch.tensor([False, True, False, True])
    draws = AugmentationDraws(torch.rand(4, 2, generator=generator(0, "corners")), flip, torch.zeros(4))
    out = Preprocessing(28, flip_rotate=True).augmented(images, draws).numpy()
    for image, mirrored, made in zip(images, flip.tolist(), out, strict=True):
        expected = whitened_window(image, first, first)
        np.testing.assert_allclose(made, expected[..., ::-1] if mirrored else expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("flip_rotate", [False, True])
def test_a_random_crop_is_whitened_after_it_is_cut_out(flip_rotate):
    images = framed_images(32)
    corner = torch.tensor([[0.0, 0.999], [0.21, 0.41], [0.61, 0.0], [0.999, 0.999]])  # of five places each
    still = AugmentationDraws(corner, torch.zeros(4, dtype=torch.bool), torch.zeros(4))
    out = Preprocessing(28, random_crop=True, flip_rotate=flip_rotate).augmented(images, still).numpy()
    for image, place, made in zip(images, [(0, 4), (1, 2), (3, 0), (4, 4)], out, strict=True):
        np.testing.assert_allclose(made, whitened_window(image, *place), rtol=1e-3, atol=1e-3)


def test_a_random_crop_is_the_window_at_its_corner():
    images = random_images(9)
    corners = torch.tensor([[top, left] for top in (0, 2, 4) for left in (0, 1, 4)])
    for image, (top, left), window in zip(images, corners.tolist(), crop(images, corners, 28), strict=True):
        assert torch.equal(window, image[:, top : top + 28, left : left + 28])


def test_without_turning_the_look_up_is_the_crop_itself():
    images = random_images(4)
    corners = torch.tensor([[0, 0], [4, 4], [1, 3], [2, 2]])
    flip = torch.tensor([False, False, True, True])
    turned = crop_flip_rotate(images, corners, 28, flip, torch.zeros(4))
    expected = crop(images, corners, 28).float()
    expected[2:] = expected[2:].flip(-1)
    torch.testing.assert_close(turned, expected, rtol=0, atol=0.02)


def test_images_that_are_not_square_are_cropped_at_every_corner_they_have():
    images = torch.randint(256, (500, 1, 30, 40), generator=generator(0, "test"), dtype=torch.uint8)
    draws = AugmentationDraws.of_epoch(500, 0, 1, CPU)
    corners = (draws.corner * torch.tensor([3, 13])).long()
    assert corners.max(dim=0).values.tolist() == [2, 12]
    for flip_rotate in (False, True):
        still = AugmentationDraws(draws.corner, torch.zeros_like(draws.flip), torch.zeros_like(draws.angle))
        out = Preprocessing(28, random_crop=True, flip_rotate=flip_rotate).augmented(images, still)
        expected = whiten(scale(crop(images, corners, 28)), 1e-8)
        torch.testing.assert_close(out, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("angle", [-25.0, -3.3, 10.0, 25.0])
@pytest.mark.parametrize("flip", [False, True])
def test_turning_equals_scipys_affine_transform(angle, flip):
    """SciPy turns about the window's centre, bilinearly, with black beyond the image."""
    images = random_images(2)
    corners = torch.tensor([[1, 3], [4, 0]])
    turned = crop_flip_rotate(images, corners, 28, torch.full((2,), flip), torch.full((2,), angle))
    radians = math.radians(angle)
    rotation = np.array([[math.cos(radians), math.sin(radians)], [-math.sin(radians), math.cos(radians)]])
    mirror = np.diag([1.0, -1.0 if flip else 1.0])
    matrix = mirror @ rotation  # from output (row, column) about the centre to source (row, column)
    for index, corner in enumerate(corners.numpy()):
        offset = corner + 13.5 - matrix @ np.array([13.5, 13.5])
        for channel in range(3):
            source = np.pad(images[index, channel].numpy().astype(np.float64), 20)
            expected = affine_transform(source, matrix, offset + 20, output_shape=(28, 28), order=1)
            np.testing.assert_allclose(turned[index, channel].numpy(), expected, atol=0.05)


def test_a_positive_angle_turns_counter_clockwise():
    image = torch.zeros(1, 1, 28, 28)
    image[0, 0, 13:15, 24:28] = 255  # a mark at three o'clock
    turned = crop_flip_rotate(image, torch.zeros(1, 2), 28, torch.tensor([False]), torch.tensor([25.0]))
    rows = torch.arange(28.0)
    centre_of_mass = (turned[0, 0].sum(dim=1) * rows).sum() / turned.sum()
    assert centre_of_mass < 10  # it rose


def test_permutations_move_positions_and_keep_channels_together():
    images = random_images(3, 28).float()
    shared = torch.randperm(784, generator=generator(0, "test"))
    own = torch.stack([torch.randperm(784, generator=generator(index, "test")) for index in range(3)])
    for permutation in (shared.to(torch.int32), own.to(torch.int32)):
        permuted = permute_pixels(images, permutation)
        for index in range(3):
            order = (permutation if permutation.dim() == 1 else permutation[index]).tolist()
            for target in (0, 13, 400, 783):
                source = order[target]
                expected = images[index, :, source // 28, source % 28]
                assert torch.equal(permuted[index, :, target // 28, target % 28], expected)


@pytest.mark.parametrize("per_image", [False, True])
def test_permuting_commutes_with_whitening(per_image):
    images = scale(random_images(4, 28))
    permutation = torch.stack([torch.randperm(784, generator=generator(index, "test")) for index in range(4)])
    permutation = permutation if per_image else permutation[0]
    torch.testing.assert_close(
        permute_pixels(whiten(images, 1e-8), permutation), whiten(permute_pixels(images, permutation), 1e-8)
    )


def test_a_28_pixel_image_is_zero_padded_by_4_before_its_random_crop():
    images = random_images(200, 28)
    draws = AugmentationDraws.of_epoch(200, 0, 1, CPU)
    padded = torch.nn.functional.pad(images, [4] * 4)
    out = Preprocessing(28, random_crop=True).augmented(images, draws)
    seen = set()
    for index in range(200):
        windows = {
            (top, left): whiten(scale(padded[index : index + 1, :, top : top + 28, left : left + 28]), 1e-8)
            for top in range(9)
            for left in range(9)
        }
        matches = [corner for corner, window in windows.items() if torch.allclose(window[0], out[index], atol=1e-4)]
        assert len(matches) == 1
        seen.update(matches)
    assert {top for top, _ in seen} == {left for _, left in seen} == set(range(9))


def test_random_crops_of_32_pixels_reach_all_25_corners_evenly():
    draws = AugmentationDraws.of_epoch(25_000, 0, 1, CPU)
    corners = (draws.corner * 5).long()
    counts = torch.bincount(corners[:, 0] * 5 + corners[:, 1], minlength=25)
    assert len(counts) == 25
    assert (counts - 1_000).abs().max() < 6 * math.sqrt(1_000)


def test_flips_and_angles_have_their_stated_distribution():
    draws = AugmentationDraws.of_epoch(100_000, 0, 1, CPU)
    assert draws.flip.double().mean().item() == pytest.approx(0.5, abs=0.01)
    assert draws.angle.min() >= -25
    assert draws.angle.max() <= 25
    assert draws.angle.double().std().item() == pytest.approx(50 / math.sqrt(12), rel=0.02)
    assert abs(np.corrcoef(draws.flip, draws.angle)[0, 1]) < 0.02


def test_every_image_of_every_epoch_has_its_own_draws_which_can_be_replayed():
    first, again, second = (AugmentationDraws.of_epoch(50, 0, epoch, CPU) for epoch in (1, 1, 2))
    assert torch.equal(first.angle, again.angle)
    assert not torch.equal(first.angle, second.angle)
    assert len(first.angle.unique()) == 50
