import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from rethinking.data import sources
from rethinking.errors import ImpossibleError, InputError
from rethinking.seeding import generator
from rethinking.theory import blocks, convolutional
from rethinking.theory.blocks import spans
from rethinking.theory.convolutional import (
    BIAS,
    CONTRAST,
    PATCH,
    THRESHOLD,
    FeatureGram,
    RandomFilters,
    check_filters,
    features,
    normalize,
    standardize,
    standardized_features,
)


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(blocks, "BLOCK", 32)
    monkeypatch.setattr(convolutional, "CHUNK", 20)
    monkeypatch.setattr(convolutional, "WHITENING_PATCHES", 2000)
    monkeypatch.setattr(convolutional, "KEEP_EVERY", 0.0)


def images(count: int, channels: int = 3, size: int = 9, seed: int = 0) -> Tensor:
    stream = generator(seed, "images")
    return torch.randint(256, (count, channels, size, size), generator=stream, dtype=torch.uint8)


def unwatched(images: int) -> None:
    pass


@pytest.mark.parametrize(("size", "channels"), [(9, 3), (10, 1)])
def test_features_equal_those_of_the_definition_place_by_place(size, channels):
    """Computes one response at a time in float64, for an odd and an even number of places."""
    some = images(3, channels, size)
    bank = RandomFilters.of(images(50, channels, size, seed=1), seed=0)
    filters = bank.filters(0, 4)
    found = features(some, bank, filters, unwatched)
    places, half = size - PATCH + 1, math.ceil((size - PATCH + 1) / 2)
    low, high = slice(0, half), slice(places - half, places)
    for image in range(3):
        for which in range(4):
            responses = torch.empty(places, places, dtype=torch.float64)
            for row in range(places):
                for column in range(places):
                    patch = some[image, :, row : row + PATCH, column : column + PATCH].double().flatten() / 255
                    patch = (patch - patch.mean()) / (patch.var() + CONTRAST).sqrt()
                    responses[row, column] = ((patch - bank.mean) @ bank.whitening.double()) @ filters[which].double()
            quadrants = [responses[a, b] for a in (low, high) for b in (low, high)]
            above = [(quadrant - THRESHOLD).clamp(min=0).sum() for quadrant in quadrants]
            below = [(-quadrant - THRESHOLD).clamp(min=0).sum() for quadrant in quadrants]
            expected = torch.stack(above + below)
            assert torch.allclose(found[image].view(8, 4)[:, which].double(), expected, atol=1e-3)


def test_whitened_patches_are_uncorrelated_but_for_the_regularizer():
    data = torch.from_numpy(sources.load("digits").train.images[:200].copy())
    bank = RandomFilters.of(data, seed=0)
    patches = normalize(convolutional._draw(data, 2000, generator(0, "whitening patches"))).double()
    covariance = torch.cov(patches.T, correction=0)
    whitened = bank.whitening.double() @ covariance @ bank.whitening.double()
    values, vectors = torch.linalg.eigh(covariance)
    expected = vectors @ torch.diag(values / (values + convolutional.WHITENING)) @ vectors.T
    assert torch.allclose(whitened, expected, atol=1e-4)


def test_filters_have_length_one_and_do_not_depend_on_how_many_are_asked_for():
    bank = RandomFilters.of(images(50), seed=0)
    many = bank.filters(0, 50)
    assert torch.allclose(many.norm(dim=1), torch.ones(50), atol=1e-5)
    assert torch.equal(many[13:37], bank.filters(13, 37))
    assert not torch.equal(many, RandomFilters.of(images(50), seed=1).filters(0, 50))


def test_standardized_features_have_mean_0_and_deviation_1_and_constant_ones_are_0():
    train, test = torch.rand(30, 4, generator=generator(0, "rows")), torch.rand(5, 4)
    train[:, 2] = 7.0
    before = train.clone()
    standardize(train, test)
    assert torch.allclose(train.mean(dim=0), torch.zeros(4), atol=1e-6)
    assert torch.allclose(train.std(dim=0, correction=0), torch.tensor([1.0, 1.0, 0.0, 1.0]), atol=1e-5)
    expected = (before[:, 0] - before[:, 0].mean()) / before[:, 0].std(correction=0)
    assert torch.allclose(train[:, 0], expected, atol=1e-5)


def test_test_features_are_standardized_by_the_training_sets_moments():
    train, test = torch.rand(30, 4, generator=generator(0, "rows")), 5 + 3 * torch.rand(6, 4)
    mean, deviation = train.mean(dim=0), train.std(dim=0, correction=0)
    expected = (test - mean) / deviation
    standardize(train, test)
    assert torch.allclose(test, expected, rtol=1e-4)


def test_a_test_images_features_do_not_depend_on_the_others():
    """They do not depend on the others' brightness either. An image in both sets has the same features in each."""
    train = images(40)
    alone, _ = standardized_features(train, train[:3], 10, seed=0)
    _, among_others = standardized_features(train, torch.cat([train[:3], images(20, seed=1) // 8]), 10, seed=0)
    assert torch.allclose(among_others[:3], alone[:3], atol=1e-5)


@pytest.mark.parametrize("held", [0.0, 5000.0, math.inf])
def test_the_sums_over_chunks_are_the_products_of_the_features(tmp_path: Path, held):
    train, test = images(70), images(40, seed=1)
    gram = FeatureGram(train, test, seed=0, folder=tmp_path / "sums", held=held)
    gram.extend(50)
    first, second = standardized_features(train, test, 50, seed=0)
    assert first.shape == (70, 8 * 50 + 1)
    assert float(first[0, -1]) == pytest.approx(math.sqrt(BIAS))
    for index, (start, end) in enumerate(spans(70)):
        assert torch.allclose(gram.rows(index), (first @ first.T)[start:end, :end], atol=1e-5)
    for start, end in spans(40):
        assert torch.allclose(gram.test_rows(start, end), (second @ first.T)[start:end], atol=1e-5)


def test_an_interrupted_sum_continues_after_its_last_chunk(tmp_path: Path):
    train, test = images(70), images(10, seed=1)

    def interrupt(share: float) -> None:
        if share > 0.9:
            raise KeyboardInterrupt

    uninterrupted = FeatureGram(train, test, seed=0)
    uninterrupted.extend(60)
    with pytest.raises(KeyboardInterrupt):
        FeatureGram(train, test, seed=0, folder=tmp_path).extend(60, interrupt)
    assert {path.name for path in tmp_path.iterdir()} >= {"40"}, "two chunks of 20 are kept"
    (tmp_path / "20").mkdir()  # as where it was killed before it could give that back
    again = FeatureGram(train, test, seed=0, folder=tmp_path)
    assert again.filters == 40
    again.extend(60)
    assert [path.name for path in tmp_path.iterdir()] == ["60"]
    for index in range(3):
        assert torch.equal(again.rows(index), uninterrupted.rows(index))


@pytest.mark.parametrize(("seconds", "kept"), [(70.0, [20, 40, 60, 80, 90]), (35.0, [20, 60, 90])])
def test_long_chunks_are_kept_each_and_short_ones_when_they_add_up_to_a_minute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds, kept
):
    monkeypatch.setattr(convolutional, "KEEP_EVERY", 60.0)
    clock = [0.0]
    monkeypatch.setattr(convolutional, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    add = FeatureGram._add

    def taking_so_long(*arguments) -> None:
        clock[0] += seconds
        add(*arguments)

    monkeypatch.setattr(FeatureGram, "_add", taking_so_long)
    told: list[int] = []
    shares: list[float] = []
    train, test = images(40), images(5)
    gram = FeatureGram(train, test, seed=0, folder=tmp_path)
    gram.extend(90, shares.append, told.append)
    assert told == kept
    assert torch.equal(FeatureGram(train, test, seed=0, folder=tmp_path).rows(1), gram.rows(1))
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1.0)


def test_more_filters_than_patches_and_images_too_small_are_refused():
    check_filters((3, 9, 9), images=2, filters=32)
    with pytest.raises(InputError, match="33 filters are more than the 32 patches of 2 images"):
        check_filters((3, 9, 9), images=2, filters=33)
    with pytest.raises(ImpossibleError, match="too small for patches of 6x6"):
        check_filters((1, 6, 6), images=100, filters=1)
