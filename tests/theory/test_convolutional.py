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
    FeatureGram,
    FilterOptions,
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


@pytest.mark.parametrize(
    ("size", "channels", "text"),
    [
        (9, 3, None),
        (10, 1, None),
        (10, 3, "patch_size=4, pool_size=3, pool_stride=2, contrast=50.0, whitening=0.01, threshold=0.5, mirror=True"),
    ],
)
def test_features_equal_those_of_the_definition_place_by_place(size, channels, text):
    """Computes one response at a time in float64, for an odd and an even number of places."""
    options = FilterOptions.parsed(text)
    some = images(3, channels, size)
    bank = RandomFilters.of(images(50, channels, size, seed=1), 0, options)
    filters = bank.filters(0, 4)
    found = features(some, bank, filters, unwatched)
    patch, places = options.patch_size, size - options.patch_size + 1
    half = math.ceil(places / 2)
    sides = [slice(0, half), slice(places - half, places)]
    if text:
        sides = [slice(0, 3), slice(2, 5), slice(4, 7)]
    pools = [(a, b) for a in sides for b in sides]
    assert options.features((channels, size, size)) == 2 * len(pools)

    def of_one(image: Tensor, which: int) -> Tensor:
        responses = torch.empty(places, places, dtype=torch.float64)
        for row in range(places):
            for column in range(places):
                pixels = image[:, row : row + patch, column : column + patch].double().flatten()
                pixels = (pixels - pixels.mean()) / (pixels.var() + options.contrast).sqrt()
                responses[row, column] = ((pixels - bank.mean) @ bank.whitening.double()) @ filters[which].double()
        above = [(responses[a, b] - options.threshold).clamp(min=0).sum() for a, b in pools]
        below = [(-responses[a, b] - options.threshold).clamp(min=0).sum() for a, b in pools]
        return torch.stack(above + below)

    for image in range(3):
        for which in range(4):
            expected = of_one(some[image], which)
            if options.mirror:
                expected = (expected + of_one(some[image].flip(2), which)) / 2
            values = found[image].view(2 * len(pools), 4)[:, which].double()
            assert torch.allclose(values, expected, atol=1e-3)


@pytest.mark.parametrize("pools", [{}, {"pool_size": 3, "pool_stride": 1}])
def test_mirrored_features_are_training_on_both_images(pools):
    """With a bank that holds the mirror image of each filter, the solutions are the same function."""
    some, test = images(20), images(5, seed=1)
    whitening = torch.eye(3 * 36)
    plain = RandomFilters(torch.zeros(3 * 36), whitening, some, 0, FilterOptions(**pools))
    mean = RandomFilters(torch.zeros(3 * 36), whitening, some, 0, FilterOptions(**pools, mirror=True))
    filters = plain.filters(0, 6)
    filters = torch.cat([filters, filters.view(-1, 3, 6, 6).flip(3).flatten(1)])
    targets = torch.randn(20, 2, generator=generator(0, "targets"), dtype=torch.float64)

    def outputs(bank: RandomFilters, train: Tensor, targets: Tensor, ridge: float) -> Tensor:
        points, others = (features(part, bank, filters, unwatched).double() for part in (train, test))
        gram = points @ points.T + ridge * torch.eye(len(points), dtype=torch.float64)
        return others @ points.T @ torch.linalg.solve(gram, targets)

    both = outputs(plain, torch.cat([some, some.flip(3)]), torch.cat([targets, targets]), 2.0)
    invariant = outputs(mean, some, targets, 1.0)
    assert torch.allclose(invariant, both, atol=1e-3)
    assert not torch.allclose(invariant, outputs(plain, some, targets, 1.0), atol=0.1)
    assert torch.allclose(invariant, outputs(mean, some.flip(3), targets, 1.0), atol=1e-3)


@pytest.mark.parametrize(
    ("text", "places", "pools"),
    [
        (None, 27, [(0, 14), (13, 27)]),
        (None, 4, [(0, 2), (2, 4)]),
        ("pool_size=14, pool_stride=13", 27, [(0, 14), (13, 27)]),
        ("pool_size=15, pool_stride=6", 27, [(0, 15), (6, 21), (12, 27)]),
        ("pool_size=9, pool_stride=9", 27, [(0, 9), (9, 18), (18, 27)]),
        ("pool_size=10, pool_stride=10", 27, [(0, 10), (10, 20), (20, 27)]),
        ("pool_size=27, pool_stride=1", 27, [(0, 27)]),
    ],
)
def test_pools_cover_a_side(text, places, pools):
    assert FilterOptions.parsed(text).pools(places) == pools


def test_no_pool_is_empty_and_no_place_is_left_out():
    for places in range(1, 12):
        for size in range(1, places + 1):
            for stride in range(1, size + 1):
                pools = FilterOptions(pool_size=size, pool_stride=stride).pools(places)
                assert all(start < end for start, end in pools)
                assert {place for pool in pools for place in range(*pool)} == {*range(places)}


def test_options_have_one_text():
    assert FilterOptions.parsed("threshold=1, mirror=True").text == "mirror=True, threshold=1.0"
    assert FilterOptions.parsed("patch_size=6, contrast=10, mirror=False").text is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("patch=5", r"filter_options has no 'patch'; did you mean 'patch_size'\?; it has patch_size, pool_size"),
        ("patch_size=5.5", "the filter option patch_size must be a whole number from 1 on, not 5.5"),
        ("patch_size=True", "the filter option patch_size must be a whole number from 1 on, not True"),
        ("mirror=1", "the filter option mirror must be True or False, not 1"),
        ("whitening=-0.1", r"the filter option whitening must be a number from 1e-06 to 1e\+06, not -0\.1"),
        ("whitening=0", r"the filter option whitening must be a number from 1e-06 to 1e\+06, not 0"),
        ("contrast='high'", r"the filter option contrast must be a number from 1e-06 to 1e\+06, not 'high'"),
        ("threshold=1e300", r"the filter option threshold must be a number from 0 to 1e\+06, not 1e\+300"),
        (f"contrast=1{'0' * 400}", "the filter option contrast must be a number from"),
        ("pool_size=None, pool_stride=2", "pool_size and pool_stride go together"),
        ("pool_size=0, pool_stride=0", "the filter option pool_size must be a whole number from 1 on, not 0"),
        ("pool_size=3, pool_stride=10", "pools of 3 places would leave some out with a pool_stride of 10"),
        ("pool_size=9", "pool_size and pool_stride go together"),
        ("mirror", "options must be literal values by name"),
    ],
)
def test_wrong_options_are_named(text, message):
    with pytest.raises(InputError, match=message):
        FilterOptions.parsed(text)


def test_wrong_values_are_refused_in_python_too():
    with pytest.raises(InputError, match="the filter option mirror must be True or False, not 'no'"):
        FilterOptions(mirror="no")
    assert FilterOptions(threshold=1) == FilterOptions(threshold=1.0)


def test_whitened_patches_are_uncorrelated_but_for_the_regularizer():
    data = torch.from_numpy(sources.load("digits").train.images[:200].copy())
    bank = RandomFilters.of(data, seed=0)
    stream = generator(0, "whitening patches")
    patches = normalize(convolutional._draw(data, 2000, 6, stream), bank.options.contrast).double()
    covariance = torch.cov(patches.T, correction=0)
    whitened = bank.whitening.double() @ covariance @ bank.whitening.double()
    values, vectors = torch.linalg.eigh(covariance)
    expected = vectors @ torch.diag(values / (values + bank.options.whitening)) @ vectors.T
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
    check_filters((3, 9, 9), 2, 32, FilterOptions())
    with pytest.raises(InputError, match="33 filters are more than the 32 patches of 2 images"):
        check_filters((3, 9, 9), 2, 33, FilterOptions())
    with pytest.raises(ImpossibleError, match="too small for patches of 6x6"):
        check_filters((1, 6, 6), 100, 1, FilterOptions())
    with pytest.raises(InputError, match=r"pools of 5 places a side are too large: .* has 4 places of 6x6 patches"):
        check_filters((3, 9, 12), 100, 1, FilterOptions(pool_size=5, pool_stride=2))
    with pytest.raises(InputError, match="patch_size must be at most 8 for images of 9x12, not 40"):
        check_filters((3, 9, 12), 100, 1, FilterOptions(patch_size=40))
    with pytest.raises(InputError, match="a patch of one grey pixel has no contrast"):
        check_filters((1, 9, 9), 100, 1, FilterOptions(patch_size=1))
    check_filters((3, 9, 9), 100, 1, FilterOptions(patch_size=9, pool_size=1, pool_stride=1))
    check_filters((3, 9, 9), 100, 1, FilterOptions(patch_size=1))
