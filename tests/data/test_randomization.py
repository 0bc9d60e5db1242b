import math
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rethinking.data import draws, operators, randomization
from rethinking.data.draws import RandomizedSplit, corrupt_labels

seeds = st.integers(0, 10**6)


def split(images: int = 200, side: int = 32, channels: int = 3) -> RandomizedSplit:
    pixels = torch.arange(images * channels * side * side).reshape(images, channels, side, side) * 7919 % 256
    labels = torch.arange(images) % 10
    return RandomizedSplit(pixels.to(torch.uint8), labels, labels)


def apply(operator: str, train: RandomizedSplit, test: RandomizedSplit | None = None, seed: int = 0, **options):
    made = operators.create(operator, options.get("corruption_prob"), {})
    return randomization.apply(made, train, test, num_classes=10, positions=28 * 28, seed=seed)


@settings(max_examples=30, deadline=None)
@given(probability=st.floats(0, 1), classes=st.integers(2, 100), seed=seeds)
def test_a_fraction_p_times_one_minus_one_over_classes_really_changes(probability, classes, seed):
    labels = torch.arange(20_000) % classes
    changed = (corrupt_labels(labels, classes, probability, seed) != labels).double().mean().item()
    expected = probability * (1 - 1 / classes)
    assert changed == pytest.approx(expected, abs=6 * math.sqrt(expected * (1 - expected) / 20_000) + 1e-9)


@settings(max_examples=20, deadline=None)
@given(seed=seeds)
def test_random_labels_are_uniform_whatever_the_true_label(seed):
    labels = torch.zeros(30_000, dtype=torch.int64)
    counts = torch.bincount(corrupt_labels(labels, 10, 1.0, seed), minlength=10).double()
    chi_square = ((counts - 3_000).square() / 3_000).sum().item()
    assert chi_square < 45  # 9 degrees of freedom: exceeded once in a million


@settings(max_examples=20, deadline=None)
@given(seed=seeds, low=st.floats(0, 1), high=st.floats(0, 1))
def test_more_corruption_keeps_what_is_corrupted_already(seed, low, high):
    low, high = sorted((low, high))
    labels = torch.arange(500) % 10
    less, more = (corrupt_labels(labels, 10, probability, seed) for probability in (low, high))
    assert torch.equal(more[less != labels], less[less != labels])


def test_probability_0_changes_nothing_and_random_labels_is_probability_1():
    train = split()
    untouched, _ = apply("partial_corrupt", train, corruption_prob=0.0)
    assert not untouched.changed.any()
    partial, _ = apply("partial_corrupt", train, corruption_prob=1.0)
    full, _ = apply("random_labels", train)
    assert torch.equal(partial.labels, full.labels)


def test_label_operators_touch_neither_images_nor_the_test_set():
    train, test = split(), split(50)
    randomized, tested = apply("random_labels", train, test)
    assert randomized.images is train.images
    assert torch.equal(randomized.true_labels, train.labels)
    assert tested is test


@settings(max_examples=20, deadline=None)
@given(seed=seeds, positions=st.sampled_from([1, 49, 784, 1024]))
def test_shuffled_and_random_pixels_are_permutations(seed, positions):
    every = torch.arange(positions, dtype=torch.int32)
    assert torch.equal(draws.shuffled_pixels(positions, seed).sort().values, every)
    random = draws.random_pixels(40, positions, seed, "train")
    assert torch.equal(random.sort(dim=1).values, every.expand(40, -1))


def test_a_224_pixel_permutation_fits_its_type():
    positions = 224 * 224
    shuffled = draws.shuffled_pixels(positions, 0)
    assert torch.equal(shuffled.long().sort().values, torch.arange(positions))


def test_every_image_has_its_own_random_permutation_and_all_positions_are_alike():
    random = draws.random_pixels(2_000, 20, 0, "train").long()
    assert len(torch.unique(random, dim=0)) == 2_000
    counts = torch.stack([torch.bincount(column, minlength=20) for column in random.T]).double()
    assert (counts - 100).abs().max() < 6 * math.sqrt(100)


def test_shuffled_pixels_are_shared_by_training_and_test_set():
    train, test = apply("shuffled_pixels", split(), split(50))
    assert test is not None
    assert train.permutation is test.permutation


def test_random_pixels_of_training_and_test_set_differ():
    train, test = apply("random_pixels", split(), split(50))
    assert test is not None
    assert train.permutation is not None
    assert test.permutation is not None
    assert not torch.equal(train.permutation[:50], test.permutation)


@settings(max_examples=10, deadline=None)
@given(seed=seeds)
def test_gaussian_pixels_have_the_moments_of_the_training_images(seed):
    train, test = apply("gaussian_pixels", split(), split(50, side=28), seed=seed)
    assert test is not None
    values = split().images.double()
    for noise in (train.images.double(), test.images.double()):
        standard_error = values.std().item() / math.sqrt(noise.numel())
        assert noise.mean().item() == pytest.approx(values.mean().item(), abs=6 * standard_error)
        assert noise.std().item() == pytest.approx(values.std(correction=0).item(), abs=6 * standard_error)
        standardized = (noise - noise.mean()) / noise.std()
        assert standardized.pow(4).mean().item() == pytest.approx(3.0, abs=0.1)  # a normal's kurtosis


def test_gaussian_pixels_are_drawn_over_all_values_of_the_training_images_alone():
    """Channels differ in brightness and contrast; one mean and deviation over all training values applies to all."""
    ranges = ((0, 20), (100, 108), (150, 256))
    draws = torch.Generator().manual_seed(0)
    channels = [torch.randint(low, high, (300, 1, 32, 32), generator=draws) for low, high in ranges]
    pixels, labels = torch.cat(channels, dim=1).to(torch.uint8), torch.arange(300) % 10
    bright = torch.full((100, 3, 32, 32), 250, dtype=torch.uint8)
    noise = apply(
        "gaussian_pixels", RandomizedSplit(pixels, labels, labels), RandomizedSplit(bright, labels[:100], labels[:100])
    )
    values = pixels.double().numpy()
    for split in noise:
        for channel in range(3):
            drawn = split.images[:, channel].double()
            standard_error = values.std() / math.sqrt(drawn.numel())
            assert drawn.mean().item() == pytest.approx(values.mean(), abs=6 * standard_error)
            assert drawn.std().item() == pytest.approx(values.std(), abs=6 * standard_error)
        across = torch.corrcoef(split.images.transpose(0, 1).flatten(1))
        assert (across - torch.eye(3)).abs().max() < 0.02, "channels have the same noise"


def test_pixel_moments_equal_the_slow_ones():
    images = split().images
    mean, std = draws.pixel_moments(images)
    assert mean == pytest.approx(images.double().mean().item(), rel=1e-12)
    assert std == pytest.approx(images.double().std(correction=0).item(), rel=1e-12)


def test_pixel_operators_leave_every_label():
    for operator in ("shuffled_pixels", "random_pixels", "gaussian_pixels"):
        train, test = apply(operator, split(), split(50))
        assert test is not None
        assert not train.changed.any()
        assert not test.changed.any()


@pytest.mark.parametrize("operator", ["random_labels", "shuffled_pixels", "random_pixels", "gaussian_pixels"])
def test_draws_are_the_same_in_another_process_with_another_number_of_threads(operator):
    train, _ = apply(operator, split(), seed=3)
    other, _ = apply(operator, split(), seed=4)
    assert train.fingerprint() != other.fingerprint()
    code = f"""
import torch
torch.set_num_threads(1)
from tests.data.test_randomization import apply, split
print(apply({operator!r}, split(), seed=3)[0].fingerprint())
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == train.fingerprint()


def test_the_first_images_draws_do_not_depend_on_how_many_follow():
    few: Tensor = draws.random_pixels(10, 49, 0, "train")
    many = draws.random_pixels(3_000, 49, 0, "train")
    assert torch.equal(few, many[:10])


def test_pixel_noise_is_white_unclipped_and_fixed():
    images = torch.full((600, 3, 32, 32), 128, dtype=torch.uint8)
    labels = torch.arange(600) % 10
    noisy = randomization.add_noise(RandomizedSplit(images, labels, labels), 5.0, seed=3, name="train")
    again = randomization.add_noise(RandomizedSplit(images, labels, labels), 5.0, seed=3, name="train")
    other = randomization.add_noise(RandomizedSplit(images, labels, labels), 5.0, seed=3, name="test")
    assert torch.equal(noisy.images, again.images)
    assert not torch.equal(noisy.images, other.images)
    noise = noisy.images - 128
    assert noise.mean().item() == pytest.approx(0, abs=0.02)
    assert noise.std().item() == pytest.approx(5, rel=0.005)
    neighbours = torch.corrcoef(torch.stack([noise[..., :-1].flatten(), noise[..., 1:].flatten()]))[0, 1]
    assert neighbours.item() == pytest.approx(0, abs=0.005)
    assert torch.equal(images, torch.full_like(images, 128)), "the source's images were changed"
    dark = RandomizedSplit(torch.zeros_like(images), labels, labels)
    assert (randomization.add_noise(dark, 5.0, seed=3, name="train").images < 0).any()


@pytest.mark.parametrize("probability", [0.0, 0.5, 1.0])
def test_a_replaced_example_is_the_test_image_with_a_label_of_its_own(probability):
    train, _ = apply("partial_corrupt", split(50), corruption_prob=probability)
    test = RandomizedSplit(255 - split(60).images, (split(60).labels + 3) % 10, (split(60).labels + 3) % 10)
    drawn = []
    for index in range(50):
        operator = operators.create("partial_corrupt", probability, {})
        made = randomization.replace_example(train, test, index, operator, num_classes=10, seed=0)
        others = torch.arange(50) != index
        assert torch.equal(made.images[index], test.images[index])
        assert made.true_labels[index] == test.true_labels[index]
        assert torch.equal(made.images[others], train.images[others])
        assert torch.equal(made.labels[others], train.labels[others])
        drawn.append(int(made.labels[index]))
    right = (torch.tensor(drawn) == test.true_labels[:50]).double().mean()
    assert right == pytest.approx(1 - 0.9 * probability, abs=0.25)
    if probability == 1:
        assert drawn != train.labels.tolist(), "the draws of those that are replaced"
    assert torch.equal(train.images, split(50).images), "the original is left alone"
