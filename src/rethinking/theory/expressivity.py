"""Section 4 and Appendix C: networks that fit any targets on any points, written down instead of trained.

Theorem 1: two layers and 2n + d weights for n points in d dimensions. Corollary 1: depth k, width O(n / k), O(n + d)
weights. Both look at a point only along one direction, in which no two of the points meet, and are piecewise linear
there. All is float64, which gives out where two points with different targets are very close
(`reproduce.py expressivity` measures at what distance).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from numbers import Integral
from typing import TypeVar

import torch
from torch import Tensor, nn

from rethinking import seeding
from rethinking.errors import ConflictError, InputError

Network = TypeVar("Network", bound=nn.Module)

DIRECTIONS = 4  # that are drawn, of which the one is taken whose closest points lie farthest apart
THRESHOLD_AT = 0.25  # of the way from a point to the next: below 1/2, so that errors die out along the recurrence
CLOSEST = 16 * torch.finfo(torch.float64).eps  # of the largest projection: two that differ by less are one
VALUES = 2**20  # float64 at a time where points are looked at in chunks


class TooCloseError(InputError):
    """Two points are different, but not to float64."""


def ramp_matrix(points: Tensor, thresholds: Tensor) -> Tensor:
    """Lemma 1's matrix A with A_ij = max(x_i - b_j, 0), float64 (n, n), of x and b, float64 (n,).

    Where b_1 < x_1 < b_2 < ... < b_n < x_n it is lower triangular, so that its eigenvalues are x_i - b_i, the smallest
    positive, and A w = y has one solution.
    """
    return (points[:, None] - thresholds).clamp(min=0)


def ramp_weights(points: Tensor, thresholds: Tensor, targets: Tensor) -> Tensor:
    """The w, float64 (n,), with sum_j w_j max(x_i - b_j, 0) = y_i, for x and b as in Lemma 1 and y, float64 (n,).

    By a recurrence over the slopes s_i = w_1 + ... + w_i in O(n): from (x_{i-1}, y_{i-1}) the function goes on with
    slope s_{i-1} as far as b_i, and with s_i from there to (x_i, y_i). Raises `ZeroDivisionError` where b_i = x_i and
    `ValueError` where the three have not the same length.
    """
    weights = []
    before, value, slope = float(thresholds[0]), 0.0, 0.0
    for point, threshold, target in zip(points.tolist(), thresholds.tolist(), targets.tolist(), strict=True):
        steeper = (target - value - slope * (threshold - before)) / (point - threshold)
        weights.append(steeper - slope)
        before, value, slope = point, target, steeper
    return torch.tensor(weights, dtype=torch.float64)


def weight_bound(points: Tensor, thresholds: Tensor, targets: Tensor) -> float:
    """What no |w_i| of `ramp_weights` exceeds: 2 D / lambda (1 + r + ... + r^(n-1)).

    lambda is Lemma 1's smallest eigenvalue, min_i x_i - b_i, D the largest |y_i - y_{i-1}| (y_0 = 0), and r the largest
    (b_i - x_{i-1}) / (x_i - b_i): the recurrence has |s_i| <= D / lambda + r |s_{i-1}|. The eigenvalue alone bounds
    nothing, since A is not symmetric: thresholds past the middle, r > 1, can make the weights grow like r^n. All are
    float64 (n,), n from 1 on.
    """
    rises = torch.cat([targets[:1], targets.diff()]).abs().max()
    if rises == 0:
        return 0.0
    above = points - thresholds
    ratio = float(((thresholds[1:] - points[:-1]) / above[1:]).max()) if len(points) > 1 else 0.0
    return float(2 * rises / smallest_eigenvalue(points, thresholds)) * _geometric(ratio, len(points))


def smallest_eigenvalue(points: Tensor, thresholds: Tensor) -> float:
    """Lemma 1's, of `ramp_matrix`: min_i x_i - b_i, of x and b, float64 (n,), n from 1 on."""
    return float((points - thresholds).min())


def _geometric(ratio: float, terms: int) -> float:
    """1 + r + ... + r^(terms - 1), inf where float64 ends."""
    try:
        return terms if ratio == 1 else (1 - ratio**terms) / (1 - ratio)
    except OverflowError:
        return math.inf


class MemorizingNetwork(nn.Module):
    """Theorem 1's c(x) = sum_j w_j max(<a, x> - b_j, 0), with a (d,), b (n,) and w (n,): 2n + d weights, float64.

    weight_bound: what no |w_j| exceeds (the function of that name)
    smallest_eigenvalue: Lemma 1's, of the system that w solves
    """

    def __init__(
        self,
        direction: Tensor,
        thresholds: Tensor,
        weights: Tensor,
        weight_bound: float = math.inf,
        smallest_eigenvalue: float = math.nan,
    ) -> None:
        super().__init__()
        self.weight_bound = weight_bound
        self.smallest_eigenvalue = smallest_eigenvalue
        self.direction = nn.Parameter(direction, requires_grad=False)
        self.thresholds = nn.Parameter(thresholds, requires_grad=False)
        self.weights = nn.Parameter(weights, requires_grad=False)

    @property
    def width(self) -> int:
        return len(self.thresholds)

    def extra_repr(self) -> str:
        return f"{len(self.direction)} -> {self.width} -> 1"

    def forward(self, points: Tensor) -> Tensor:
        """Float64 (m,) at points of any dtype, (m, d) or (m, ...) of d values each; in chunks, O(m + n) memory."""
        along = project(points, self.direction)
        rows = max(1, VALUES // self.width)
        values = torch.empty_like(along)  # beforehand: small tensors kept between the large ones fragment the memory
        for start in range(0, len(along), rows):
            some = slice(start, start + rows)
            values[some] = (along[some, None] - self.thresholds).relu_() @ self.weights
        return values


def memorizing_network(points: Tensor, targets: Tensor, generator: torch.Generator | None = None) -> MemorizingNetwork:
    """Theorem 1: a two-layer ReLU network with 2n + d weights that takes the targets at the points.

    In O(n d + n log n) time and O(n) memory besides the points: the direction a is drawn, b lies between the
    projections in their order, and w solves Lemma 1's triangular system.

    points: (n, d), or (n, ...) of d values each, any real dtype; copies of a point count once
    targets: (n,), any real dtype
    generator: of the direction; None for that of seed 0

    Raises `InputError` for values so extreme that float64 overflows, as `ConflictError` where two equal points have
    different targets, and as `TooCloseError` where two points are so close that float64 does not tell their projections
    apart.
    """
    line = _Line(points, targets, generator)
    thresholds = _between(line.first_threshold, line.along)
    weights = ramp_weights(line.along, thresholds, line.targets)
    bound, smallest = weight_bound(line.along, thresholds, line.targets), smallest_eigenvalue(line.along, thresholds)
    return _finite(MemorizingNetwork(line.direction, thresholds, weights, bound, smallest))


class Projection(nn.Module):
    """x -> <a, x> with a (d,): the rows of Corollary 1's first layer are this one, as those of Theorem 1 are.

    Points of any dtype, (m, d) or (m, ...) of d values each, to float64 (m, 1).
    """

    def __init__(self, direction: Tensor) -> None:
        super().__init__()
        self.direction = nn.Parameter(direction, requires_grad=False)

    def extra_repr(self) -> str:
        return f"{len(self.direction)} -> 1"

    def forward(self, points: Tensor) -> Tensor:
        return project(points, self.direction)[:, None]


Unit = tuple[dict[int, float], float]  # the inputs of a unit with their weights, and its bias


class SparseLinear(nn.Module):
    """x -> W x + b, float64 (m, inputs) to (m, units), with a weight for each connection there is."""

    connections: Tensor

    def __init__(self, inputs: int, units: Sequence[Unit]) -> None:
        super().__init__()
        places = [(row, column) for row, (connected, _) in enumerate(units) for column in connected]
        weights = [weight for connected, _ in units for weight in connected.values()]
        self.size = (len(units), inputs)
        self.register_buffer("connections", torch.tensor(places, dtype=torch.int64).T)
        self.weights = nn.Parameter(torch.tensor(weights, dtype=torch.float64), requires_grad=False)
        self.bias = nn.Parameter(torch.tensor([bias for _, bias in units], dtype=torch.float64), requires_grad=False)

    def extra_repr(self) -> str:
        return f"{self.size[1]} -> {self.size[0]}, {len(self.weights)} connections"

    @property
    def matrix(self) -> Tensor:
        """W, sparse (outputs, inputs)."""
        return torch.sparse_coo_tensor(self.connections, self.weights, self.size, check_invariants=False)

    def forward(self, inputs: Tensor) -> Tensor:
        return (self.matrix @ inputs.T).T + self.bias


class DeepMemorizingNetwork(nn.Sequential):
    """A `Projection` and layers of `SparseLinear`, a ReLU between one and the next."""

    def __init__(self, direction: Tensor, linear: Sequence[SparseLinear]) -> None:
        between = [module for layer in linear for module in (layer, nn.ReLU())]
        super().__init__(Projection(direction), *between[:-1])

    @property
    def linear(self) -> list[SparseLinear]:
        return [layer for layer in self if isinstance(layer, SparseLinear)]

    @property
    def width(self) -> int:
        """Of the widest hidden layer."""
        return max(layer.size[0] for layer in self.linear[:-1])

    def forward(self, points: Tensor) -> Tensor:
        """Float64 (m,) at points as for `MemorizingNetwork`, in chunks."""
        rows = max(1, VALUES // self.width)
        return torch.cat([super(DeepMemorizingNetwork, self).forward(some)[:, 0] for some in points.split(rows)])  # type: ignore[no-untyped-call]


def deep_memorizing_network(
    points: Tensor, targets: Tensor, depth: int, generator: torch.Generator | None = None
) -> MemorizingNetwork | DeepMemorizingNetwork:
    """Corollary 1: a ReLU network of `depth` layers of weights that takes the targets at the points.

    The points' order along a direction is parted into depth - 2 intervals. What belongs to interval j is a sum of ramps
    as in Theorem 1, in layer j + 1, that is 0 at both of the interval's ends. Its input is clipped to the interval, so
    that it is 0 outside: a multiplexer, through which each point sees its own interval alone. Besides, a layer carries
    the place along the direction and the sum of the intervals before, as its positive and its negative part.

    Widest layer: ceil(n / (depth - 2)) + 6 units. Weights: d + 5 n + 21 depth at most. Depth 2 is Theorem 1's network.
    Otherwise as `memorizing_network`. Raises `InputError` for a depth below 2, besides.
    """
    if not isinstance(depth, Integral) or depth < 2:
        raise InputError(f"depth must be a whole number from 2 on, not {depth}")
    if depth == 2:
        return memorizing_network(points, targets, generator)
    line = _Line(points, targets, generator)
    start, intervals = line.first_threshold, depth - 2
    places = line.along - start  # as the first layer computes them
    parts = [part for part in places.tensor_split(intervals) if len(part)]
    ends = [float(left[-1] + (right[0] - left[-1]) / 2) for left, right in itertools.pairwise(parts)]
    edges = [0.0, *ends, 2 * float(places[-1])]
    values = iter(line.targets.split([len(part) for part in parts]))

    first = SparseLinear(1, [({0: 1.0}, -start), ({0: 1.0}, -start - edges[1])])
    layers = [first]
    carried, above, beyond = 0, 0, 1  # where a layer has the place, and by how much it exceeds the interval's ends
    total: dict[int, float] = {}  # and the units and weights that add up to the sum so far
    for index in range(intervals):
        units: list[Unit] = []
        if index + 1 < len(parts):
            units += [({carried: 1.0}, 0.0), *(({carried: 1.0}, -edge) for edge in edges[index + 1 : index + 3])]
        kept = len(units)
        if total:
            units += [(total, 0.0), ({unit: -weight for unit, weight in total.items()}, 0.0)]
            total = {kept: 1.0, kept + 1: -1.0}
        if index < len(parts):
            left, right = edges[index], edges[index + 1]
            knots = torch.cat([parts[index] - left, torch.tensor([right - left], dtype=torch.float64)])
            heights = torch.cat([next(values), torch.zeros(1, dtype=torch.float64)])
            thresholds = _between(0.0, knots)
            total |= dict(enumerate(ramp_weights(knots, thresholds, heights).tolist(), start=len(units)))
            units += [({above: 1.0, beyond: -1.0}, -threshold) for threshold in thresholds.tolist()]
        carried, above, beyond = 0, 1, 2
        layers.append(SparseLinear(layers[-1].size[0], units))
    layers.append(SparseLinear(layers[-1].size[0], [(total, 0.0)]))
    return _finite(DeepMemorizingNetwork(line.direction, layers))


def _finite(network: Network) -> Network:
    if not all(parameter.isfinite().all() for parameter in network.parameters()):
        raise InputError("the network's weights overflow float64: scale points and targets to numbers of usual size")
    return network


def project(points: Tensor, direction: Tensor) -> Tensor:
    """<a, x> of each point, float64 (n,), by a sum that is the same bit for bit however many points there are."""
    return _projections(points.flatten(1), direction[None])[0]


def _projections(points: Tensor, directions: Tensor) -> Tensor:
    """Of points (n, d) along directions (k, d): float64 (k, n)."""
    made = []
    for some in points.split(max(2, VALUES // directions.shape[1])):
        exact = some.double().contiguous()
        if len(exact) == 1:  # several threads would share the sum over a row alone
            exact = exact.expand(2, -1)
        made.append(torch.stack([(exact * direction).sum(dim=1)[: len(some)] for direction in directions]))
    return torch.cat(made, dim=1)


class _Line:
    """The different points in their order along a direction, and their targets: float64 (n,)."""

    def __init__(self, points: Tensor, targets: Tensor, generator: torch.Generator | None) -> None:
        for what, given, least in (("points", points, 2), ("targets", targets, 1)):
            if not isinstance(given, Tensor) or given.dim() < least:
                raise InputError(f"{what} must be a tensor of {'shape (n, d)' if least == 2 else 'n numbers'}")
        points, generator = points.flatten(1), generator or seeding.generator(0, "direction")
        if targets.dim() != 1:
            raise InputError(f"targets must be (n,), one number for each point, not {tuple(targets.shape)}")
        if len(points) == 0 or len(points) != len(targets):
            raise InputError(f"each point needs a target, and there must be one: not {len(targets)} for {len(points)}")
        if not targets.isfinite().all():
            raise InputError("targets must be finite numbers")
        directions = torch.randn(DIRECTIONS, points.shape[1], dtype=torch.float64, generator=generator)
        directions /= directions.norm(dim=1, keepdim=True)
        apart = -1.0
        kept: Tensor | None = None
        for direction, along in zip(directions, _projections(points, directions), strict=True):
            if not along.isfinite().all():
                raise InputError("points must be finite numbers, well below the largest float64")
            if kept is None:
                kept = _without_copies(points, targets, along)
            order = kept[along[kept].argsort()]
            closest = float(along[order].diff().min() / along.abs().max()) if len(order) > 1 else math.inf
            if closest > apart:
                apart, self.direction, self.along, where = closest, direction, along[order], order
        if apart < CLOSEST:
            nearest = int(self.along.diff().argmin())
            first, second = sorted(where[nearest : nearest + 2].tolist())
            raise TooCloseError(
                f"points {first} and {second} are too close for float64: in every direction tried their projections"
                f" differ by less than {CLOSEST:.0e} of the largest; leave one out"
            )
        self.targets = targets.double()[where]

    @property
    def first_threshold(self) -> float:
        """Before all points, as far as they are apart in the mean."""
        extent = float(self.along[-1] - self.along[0]) / len(self.along)
        return float(self.along[0]) - (extent or abs(float(self.along[0])) or 1.0)


def _between(first: float, points: Tensor) -> Tensor:
    """A threshold before each point and after the one before it, float64 (n,); before the first one after `first`."""
    before = torch.cat([torch.tensor([first], dtype=torch.float64), points[:-1]])
    return before + THRESHOLD_AT * (points - before)


def _without_copies(points: Tensor, targets: Tensor, along: Tensor) -> Tensor:
    """Where each different point stands first: int64. Copies have the same projection, bit for bit."""
    order = along.argsort(stable=True)
    alone = torch.ones(len(order), dtype=torch.bool)
    equal = along[order].diff() == 0
    alone[order[1:][equal]] = False
    alone[order[:-1][equal]] = False
    kept = alone.clone()
    first: dict[bytes, int] = {}
    for index in (~alone).nonzero()[:, 0].tolist():
        point = (points[index].double() + 0).cpu()  # -0.0 is 0.0
        other = first.setdefault(point.numpy().tobytes(), index)
        kept[index] = other == index
        if targets[other] != targets[index]:
            raise ConflictError(
                f"no function fits points {other} and {index} both: they are equal and their targets are not; leave one"
                " out"
            )
    return kept.nonzero()[:, 0]
