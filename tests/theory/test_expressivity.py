"""Compares Theorem 1, Lemma 1 and Corollary 1 with dense solutions, plain layers and their stated counts."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor, nn

from rethinking.data import sources
from rethinking.errors import ConflictError, InputError
from rethinking.seeding import generator
from rethinking.theory import expressivity
from rethinking.theory.expressivity import (
    DeepMemorizingNetwork,
    TooCloseError,
    deep_memorizing_network,
    memorizing_network,
    ramp_matrix,
    ramp_weights,
    smallest_eigenvalue,
    weight_bound,
)
from tests.conftest import ROOT

SIZES = st.integers(1, 60)
DIMENSIONS = st.integers(1, 6)
POWERS = st.integers(-100, 100)


def problem(n: int, d: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Draws Gaussian points and targets, float64."""
    stream = generator(seed, "problem")
    points = torch.randn(n, d, dtype=torch.float64, generator=stream)
    return points, torch.randn(n, dtype=torch.float64, generator=stream)


def interleaved(gaps: list[float], shares: list[float]) -> tuple[Tensor, Tensor]:
    """Returns points at equal gaps, and a threshold before each at this share of the gap."""
    points = torch.tensor(gaps, dtype=torch.float64).cumsum(0)
    before = torch.cat([torch.zeros(1, dtype=torch.float64), points[:-1]])
    return points, before + torch.tensor(shares, dtype=torch.float64) * (points - before)


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def random(seed: int = 0) -> torch.Generator:
    return generator(seed, "direction")


SEQUENCES = st.lists(st.tuples(st.floats(0.01, 10), st.floats(0.05, 0.95)), min_size=1, max_size=30)


@given(SEQUENCES)
def test_lemma_1_the_matrix_of_interleaving_sequences_is_triangular_with_its_diagonal_for_eigenvalues(sequence):
    points, thresholds = interleaved([gap for gap, _ in sequence], [share for _, share in sequence])
    matrix = ramp_matrix(points, thresholds)
    assert not matrix.triu(1).any()
    assert (matrix.diagonal() > 0).all()
    n = len(points)
    if n <= 8:  # rounding hides the eigenvalues and the rank of larger ones
        smallest = smallest_eigenvalue(points, thresholds)
        assert float(torch.linalg.eigvals(matrix).abs().min()) == pytest.approx(smallest, rel=1e-4)
        assert torch.linalg.matrix_rank(matrix) == n


@given(SEQUENCES, st.integers(0, 1000))
def test_no_weight_exceeds_the_bound(sequence, seed):
    points, thresholds = interleaved([gap for gap, _ in sequence], [share for _, share in sequence])
    targets = torch.randn(len(points), dtype=torch.float64, generator=generator(seed, "targets"))
    weights = ramp_weights(points, thresholds, targets)
    assert weights.abs().max() <= weight_bound(points, thresholds, targets) * (1 + 1e-9)


def test_the_eigenvalue_alone_bounds_no_weight():
    """With thresholds beyond the middle of the gaps, the weights grow ninefold a point, at the same eigenvalues."""
    late = interleaved([1.0] * 12, [0.9] * 12)
    early = interleaved([0.1 / 0.9] * 12, [0.1] * 12)
    targets = torch.tensor([1.0, -1.0] * 6, dtype=torch.float64)
    assert (late[0] - late[1]).min() == pytest.approx(float((early[0] - early[1]).min()))
    largest, bounded = (float(ramp_weights(*sequence, targets).abs().max()) for sequence in (late, early))
    assert largest > 1e9 * bounded
    assert weight_bound(*late, targets) > 1e9 * weight_bound(*early, targets)


def test_the_weights_equal_those_of_a_dense_triangular_solve():
    points, targets = problem(200, 1)
    along = points[:, 0].sort().values
    thresholds = torch.cat([along[:1] - 1, along[:-1] + 0.25 * along.diff()])
    dense = torch.linalg.solve_triangular(ramp_matrix(along, thresholds), targets[:, None], upper=False)[:, 0]
    torch.testing.assert_close(ramp_weights(along, thresholds, targets), dense, rtol=1e-8, atol=1e-6)


@given(SIZES, DIMENSIONS, POWERS, POWERS, st.integers(0, 1000))
def test_theorem_1_fits_any_targets_with_2n_plus_d_weights_at_any_scale(n, d, scale, height, seed):
    points, targets = problem(n, d, seed)
    points, targets = points * 10.0**scale, targets * 10.0**height
    network = memorizing_network(points, targets, random(seed))
    assert count(network) == 2 * n + d
    apart = (network.thresholds.diff() / network.thresholds.abs().max()).min() if n > 1 else 1.0
    assume(apart > 1e-9)
    assert (network(points) - targets).abs().max() < 1e-5 * 10.0**height


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64])
def test_images_and_whole_labels_are_fitted_right_after_rounding(real_root, dtype):
    data = sources.load("cifar10", str(real_root))
    images = torch.from_numpy(data.train.images.copy()).to(dtype)
    labels = torch.randint(10, (len(images),), generator=generator(0, "labels"))
    for depth in (2, 5):
        network = deep_memorizing_network(images, labels, depth, random())
        assert torch.equal(network(images).round().long(), labels)
    assert count(memorizing_network(images, labels, random())) == 2 * len(images) + 3 * 32 * 32


def test_as_many_images_as_cifar_10_has_are_memorized():
    """50,000 images of 3,072 values with random labels are all fitted."""
    stream = generator(0, "images")
    images = torch.randint(256, (50_000, 3 * 32 * 32), generator=stream, dtype=torch.uint8)
    labels = torch.randint(10, (50_000,), generator=stream)
    network = memorizing_network(images, labels, random())
    assert count(network) == 2 * 50_000 + 3072
    assert torch.equal(network(images).round().long(), labels)


def test_many_points_take_little_memory_and_every_label_is_right():
    """A matrix of 30,000 x 30,000 would take 7 GB; the process takes less than a fiftieth."""
    script = (
        "import torch\n"
        "from rethinking.theory.expressivity import memorizing_network\n"
        "from rethinking.theory.memory import peak\n"
        "points, labels = torch.randn(30_000, 20, dtype=torch.float64), torch.randint(10, (30_000,))\n"
        "before = peak()\n"
        "network = memorizing_network(points, labels)\n"
        "right = bool((network(points[::10]).round() == labels[::10]).all())\n"
        "print(peak() - before, right)\n"
    )
    taken, right = subprocess.check_output([sys.executable, "-c", script], cwd=ROOT, text=True).split()
    assert right == "True"
    assert float(taken) < 150 << 20


def test_a_point_is_projected_bit_for_bit_whatever_stands_beside_it(monkeypatch: pytest.MonkeyPatch):
    """Between close points the function is so steep that other rounding would change its value."""
    points, targets = problem(300, 1003)
    network = memorizing_network(points, targets, random())
    along, values = expressivity.project(points, network.direction), network(points)
    one_by_one = torch.cat([expressivity.project(point[None], network.direction) for point in points])
    assert torch.equal(one_by_one, along)
    monkeypatch.setattr(expressivity, "VALUES", 5000)
    assert torch.equal(expressivity.project(points, network.direction), along)
    torch.testing.assert_close(network(points), values, rtol=1e-9, atol=1e-9)


def test_a_point_is_projected_bit_for_bit_with_any_strides_and_threads():
    wide, targets = problem(6, 40_000)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        direction = wide[0] / wide[0].norm()
        one_by_one = torch.cat([expressivity.project(point[None], direction) for point in wide])
        assert torch.equal(one_by_one, expressivity.project(wide, direction))
    finally:
        torch.set_num_threads(threads)
    points, targets = problem(50, 200)
    copied, labels = torch.cat([points, points[:3]]), torch.cat([targets, targets[:3]])
    transposed = copied.T.contiguous().T
    assert not transposed.is_contiguous()
    assert memorizing_network(transposed, labels, random()).width == 50


@given(st.integers(2, 8), st.integers(0, 1000))
def test_points_that_share_projections_and_coordinates_are_fitted(side, seed):
    """In some directions most points of a grid have equal projections."""
    axis = torch.arange(side, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    targets = torch.randn(side**2, dtype=torch.float64, generator=generator(seed, "grid"))
    assert (memorizing_network(grid, targets, random(seed))(grid) - targets).abs().max() < 1e-6


INTEGERS = st.integers(-3, 3)


@given(st.lists(st.tuples(INTEGERS, INTEGERS), min_size=1, max_size=12), st.integers(0, 1000))
def test_copies_and_points_that_meet_in_some_directions_are_fitted_or_refused_if_they_meet_in_all(drawn, seed):
    """Grid points have equal projections along four directions: two along its sides and two diagonals."""
    among = ((1.0, 0.0), (0.0, 1.0), (1.0, 1.0), (1.0, -2.0))
    values = dict(zip(set(drawn), torch.randn(len(drawn), generator=generator(seed, "targets")).tolist(), strict=False))
    points = torch.tensor(drawn, dtype=torch.float64)
    targets = torch.tensor([values[point] for point in drawn], dtype=torch.float64)
    apart = [a for a in among if len({a[0] * x + a[1] * y for x, y in values}) == len(values)]
    with pytest.MonkeyPatch.context() as patch:
        directions(patch, *map(list, among))
        if not apart:
            with pytest.raises(TooCloseError, match="are too close for float64"):
                memorizing_network(points, targets, random())
            return
        network = memorizing_network(points, targets, random())
    assert count(network) == 2 * len(values) + 2
    assert any(torch.allclose(network.direction * math.hypot(*a), torch.tensor(a).double()) for a in apart)
    assert (network(points) - targets).abs().max() < 1e-6


@pytest.mark.parametrize("depth", [2, 5])
@pytest.mark.parametrize(("points_at", "targets_at"), [(1e-310, 1.0), (1.0, 1e307), (1e-200, 1e200)])
def test_points_that_overflow_are_refused_and_give_no_nan(points_at, targets_at, depth):
    points, targets = problem(30, 3)
    with pytest.raises(InputError, match="overflow float64"):
        deep_memorizing_network(points * points_at, targets * targets_at, depth, random())
    points, thresholds = interleaved([1.0] * 500, [0.9] * 500)
    assert weight_bound(points, thresholds, torch.ones(500, dtype=torch.float64)) == math.inf
    assert weight_bound(points, thresholds, torch.zeros(500, dtype=torch.float64)) == 0


def test_other_types_are_taken_and_a_generator_is_optional():
    points, targets = problem(20, 300)
    rounded = torch.cat([points, points[:2]]).bfloat16()
    network = memorizing_network(rounded, torch.cat([targets, targets[:2]]))
    assert network.width == 20
    assert torch.equal(network.direction, memorizing_network(rounded[:20], targets, random()).direction)


def test_copies_count_once_and_with_different_targets_are_named():
    points, targets = problem(50, 3)
    twice, with_copies = torch.cat([points, points[:7]]), torch.cat([targets, targets[:7]])
    network = memorizing_network(twice, with_copies, random())
    assert count(network) == 2 * 50 + 3
    assert (network(twice) - with_copies).abs().max() < 1e-6
    with_copies[53] += 1
    for depth in (2, 6):
        with pytest.raises(ConflictError, match="both points 3 and 53: they are equal, but their targets differ"):
            deep_memorizing_network(twice, with_copies, depth, random())


def test_zeros_of_either_sign_are_equal():
    points = torch.tensor([[0.0, 1.0], [-0.0, 1.0]])
    with pytest.raises(InputError, match="both points 0 and 1:"):
        memorizing_network(points, torch.tensor([1.0, 2.0]), random())


def directions(monkeypatch: pytest.MonkeyPatch, *drawn: list[float]) -> None:
    made = torch.tensor(drawn, dtype=torch.float64)
    monkeypatch.setattr(expressivity.torch, "randn", lambda *size, **options: made.clone())


def test_a_direction_in_which_points_meet_is_not_taken(monkeypatch: pytest.MonkeyPatch):
    points = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 5.0]])
    targets = torch.tensor([1.0, -2.0, 3.0])
    directions(monkeypatch, [1.0, 0.0], [0.0, 1.0], [1.0, 0.0])
    network = memorizing_network(points, targets, random())
    assert network.direction.tolist() == [0.0, 1.0]
    assert network(points).tolist() == pytest.approx(targets.tolist())
    directions(monkeypatch, [1.0, 0.0])
    with pytest.raises(InputError, match="points 0 and 1 are too close for float64"):
        memorizing_network(points, targets, random())


@pytest.mark.parametrize("depth", [2, 10])
def test_close_points_are_fitted_down_to_what_float64_resolves(depth):
    """Other points are at distances of about 1."""
    points, targets = problem(40, 5)
    for gap, fits in ((1e-6, True), (1e-11, True), (1e-17, False)):
        beside = torch.cat([points, points[:1] + gap * torch.ones(1, 5, dtype=torch.float64)])
        if gap == 1e-17:
            beside[-1, 0] = torch.nextafter(beside[0, 0], torch.tensor(torch.inf, dtype=torch.float64))
        wanted = torch.cat([targets, targets[:1] + 1])
        if not fits:
            with pytest.raises(InputError, match="points 0 and 40 are too close for float64"):
                deep_memorizing_network(beside, wanted, depth, random())
            continue
        error = (deep_memorizing_network(beside, wanted, depth, random())(beside) - wanted).abs().max()
        assert error < 0.01


@pytest.mark.parametrize("n", [1, 2, 5, 97, 1000, 10_000])
@pytest.mark.parametrize("depth", [2, 3, 4, 9, 64])
def test_corollary_1_fits_with_its_width_and_weights(n, depth):
    points, targets = problem(n, 7)
    network = deep_memorizing_network(points, targets, depth, random())
    assert (network(points) - targets).abs().max() < (1e-6 if n <= 1000 else 1e-5)
    if depth == 2:
        assert count(network) == 2 * n + 7
        return
    assert len(network.linear) == depth
    assert network.width <= math.ceil(n / (depth - 2)) + 6
    assert count(network) <= 7 + 5 * n + 21 * depth
    intervals = min(depth - 2, n)
    without = depth - 2 - intervals  # layers without an interval, which hand on the sum
    ramps = n + intervals  # one more an interval, that goes back to 0
    last = math.floor(n / intervals) + 1
    from_ramps = 2 * ramps - (0 if without else last)  # to both parts of the sum, in the end to the output alone
    parts = 2 * (intervals - 1 + without)  # positive and negative, read by the next two, in the end by the output alone
    reads = 2 * parts - 2 * (parts > 0)
    carried = 3 * (intervals - 1)
    hidden_biases = 2 + ramps + parts + carried
    assert count(network) == 7 + 2 + 2 * ramps + from_ramps + reads + carried + hidden_biases + 1


def test_corollary_1_is_an_ordinary_network_of_so_many_layers():
    """It is the same function as dense `nn.Linear` layers with ReLUs between them."""
    points, targets = problem(120, 7)
    network = deep_memorizing_network(points, targets, 6, random())
    assert isinstance(network, DeepMemorizingNetwork)
    dense: list[nn.Module] = []
    for index, layer in enumerate(network.linear):
        weight = layer.matrix.to_dense()
        if index == 0:
            weight = weight * network[0].direction
        plain = nn.Linear(weight.shape[1], weight.shape[0], dtype=torch.float64)
        plain.weight.data, plain.bias.data = weight, layer.bias.data
        dense += [plain, nn.ReLU()]
    elsewhere = torch.cat([points, 3 * torch.randn(200, 7, dtype=torch.float64, generator=generator(1, "elsewhere"))])
    with torch.no_grad():
        torch.testing.assert_close(nn.Sequential(*dense[:-1])(elsewhere)[:, 0], network(elsewhere), rtol=0, atol=1e-7)
    assert (network(points) - targets).abs().max() < 1e-8


def test_each_interval_sees_its_own_points_alone():
    """Tests the multiplexer: other targets in one interval change the outputs of other intervals only by rounding."""
    points, targets = problem(90, 3)
    first = deep_memorizing_network(points, targets, 5, random())
    along = first[0](points)[:, 0]
    inner = along.argsort()[30:60]
    changed = targets.clone()
    changed[inner] *= -5
    second = deep_memorizing_network(points, changed, 5, random())
    moved = (first(points) - second(points)).abs()
    assert (moved[inner] > 1e-3).sum() == 30
    moved[inner] = 0
    assert moved.max() < 1e-10


def test_before_and_after_all_points_the_deep_network_is_0():
    points, targets = problem(50, 2)
    network = deep_memorizing_network(points, targets, 4, random())
    far = 100 * network[0].direction[None]
    assert network(-far).item() == 0
    assert abs(network(far).item()) < 1e-6


def test_invalid_points_and_targets_are_refused():
    points, targets = problem(5, 2)
    for depth in ("4", None, 2.5):
        with pytest.raises(InputError, match="depth must be a whole number from 2 on"):
            deep_memorizing_network(torch.randn(5, 2), torch.randn(5), depth)
    for wrong in (torch.arange(5.0), [[0.0], [1.0]], torch.randn(5, 2).numpy()):
        with pytest.raises(InputError, match="points must be a tensor of shape"):
            memorizing_network(wrong, torch.arange(5.0))
    with pytest.raises(InputError, match="targets must be a tensor of n numbers"):
        memorizing_network(torch.randn(5, 2), [1.0] * 5)
    with pytest.raises(InputError, match=r"targets must be \(n,\), one number for each point, not \(5, 3\)"):
        memorizing_network(torch.randn(5, 2), torch.randn(5, 3))
    with pytest.raises(InputError, match="not 4 for 5"):
        memorizing_network(points, targets[:4], random())
    with pytest.raises(InputError, match="not 0 for 0"):
        memorizing_network(points[:0], targets[:0], random())
    with pytest.raises(InputError, match="depth must be a whole number from 2 on, not 1"):
        deep_memorizing_network(points, targets, 1, random())
    with pytest.raises(InputError, match="targets must be finite"):
        memorizing_network(points, targets / 0, random())
    points[2, 1] = torch.inf
    with pytest.raises(InputError, match="points must be finite"):
        memorizing_network(points, targets, random())


def test_a_networks_text_gives_its_width():
    points, targets = torch.randn(8, 3, generator=random()), torch.arange(8.0)
    assert repr(memorizing_network(points, targets)) == "MemorizingNetwork(3 -> 8 -> 1)"
    deep = deep_memorizing_network(points, targets, 4)
    assert "Projection(3 -> 1)" in repr(deep)
    assert all(f"-> {layer.size[0]}, {len(layer.weights)} connections" in repr(deep) for layer in deep.linear)
