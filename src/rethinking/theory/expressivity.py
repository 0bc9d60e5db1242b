r"""Section 4 and Appendix C: networks that fit any targets on any points, by construction instead of training.

Theorem 1: two layers and $2n + d$ weights fit n points in d dimensions. Corollary 1: depth k needs width $O(n / k)$
and $O(n + d)$ weights. Both networks project a point onto one direction, along which all points differ. Along this
direction they are piecewise linear. All is float64, which fails where two points with different targets are very
close. `reproduce.py expressivity` measures this distance.
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

DIRECTIONS = 4  # are drawn; the one whose closest projections are farthest apart is used
THRESHOLD_AT = 0.25  # of the way from a point to the next; below 1/2, so that errors die out along the recurrence
CLOSEST = 16 * torch.finfo(torch.float64).eps  # relative to the largest projection: closer ones count as equal
VALUES = 2**20  # float64 values in memory at a time


class TooCloseError(InputError):
    """Two points differ by too little for float64."""


def ramp_matrix(points: Tensor, thresholds: Tensor) -> Tensor:
    r"""Lemma 1's matrix $A_{ij} = \max(x_i - b_j, 0)$, float64 (n, n), for points x and thresholds b, float64 (n,).

    For $b_1 \lt x_1 \lt b_2 \lt \dots \lt b_n \lt x_n$ the matrix is lower triangular. Its eigenvalues are then
    $x_i - b_i > 0$, and $A w = y$ has one solution.
    """
    return (points[:, None] - thresholds).clamp(min=0)


def ramp_weights(points: Tensor, thresholds: Tensor, targets: Tensor) -> Tensor:
    r"""Solve Lemma 1's system $\sum_j w_j \max(x_i - b_j, 0) = y_i$ for w. All are float64 (n,).

    A recurrence over the slopes $s_i = w_1 + \dots + w_i$ takes O(n) time. From $(x_{i-1}, y_{i-1})$ the function
    rises with slope $s_{i-1}$ up to $b_i$, and from there with slope $s_i$ up to $(x_i, y_i)$. Raises
    `ZeroDivisionError` where $b_i = x_i$, and `ValueError` where the lengths differ.
    """
    weights = []
    before, value, slope = float(thresholds[0]), 0.0, 0.0
    for point, threshold, target in zip(points.tolist(), thresholds.tolist(), targets.tolist(), strict=True):
        steeper = (target - value - slope * (threshold - before)) / (point - threshold)
        weights.append(steeper - slope)
        before, value, slope = point, target, steeper
    return torch.tensor(weights, dtype=torch.float64)


def weight_bound(points: Tensor, thresholds: Tensor, targets: Tensor) -> float:
    r"""An upper bound on every $|w_i|$ of `ramp_weights`: $2 D / \lambda \cdot (1 + r + \dots + r^{n-1})$.

    $\lambda = \min_i (x_i - b_i)$ is Lemma 1's smallest eigenvalue, D the largest $|y_i - y_{i-1}|$ with $y_0 = 0$,
    and r the largest $(b_i - x_{i-1}) / (x_i - b_i)$. The bound follows from the recurrence's
    $|s_i| \le D / \lambda + r |s_{i-1}|$. The eigenvalue alone gives no bound, because A is not symmetric: with
    thresholds past the middle, r > 1, the weights can grow like $r^n$. All are float64 (n,), n >= 1.
    """
    rises = torch.cat([targets[:1], targets.diff()]).abs().max()
    if rises == 0:
        return 0.0
    above = points - thresholds
    ratio = float(((thresholds[1:] - points[:-1]) / above[1:]).max()) if len(points) > 1 else 0.0
    return float(2 * rises / smallest_eigenvalue(points, thresholds)) * _geometric(ratio, len(points))


def smallest_eigenvalue(points: Tensor, thresholds: Tensor) -> float:
    r"""Lemma 1's smallest eigenvalue of `ramp_matrix`, $\min_i (x_i - b_i)$, for float64 (n,), n >= 1."""
    return float((points - thresholds).min())


def _geometric(ratio: float, terms: int) -> float:
    """1 + r + ... + r^(terms - 1), or inf where it overflows float64."""
    try:
        return terms if ratio == 1 else (1 - ratio**terms) / (1 - ratio)
    except OverflowError:
        return math.inf


class MemorizingNetwork(nn.Module):
    r"""Theorem 1's network $c(x) = \sum_j w_j \max(\langle a, x \rangle - b_j, 0)$ with $2n + d$ weights, float64.

    direction, thresholds, weights: a (d,), b (n,) and w (n,)
    weight_bound: no $|w_j|$ exceeds it (see the function `weight_bound`)
    smallest_eigenvalue: the smallest eigenvalue of the system that w solves (Lemma 1)
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
        """The number of hidden units, n."""
        return len(self.thresholds)

    def extra_repr(self) -> str:
        """The numbers of inputs, hidden units and outputs."""
        return f"{len(self.direction)} -> {self.width} -> 1"

    def forward(self, points: Tensor) -> Tensor:
        """The outputs, float64 (m,), at points of any dtype, (m, d) or (m, ...) with d values each.

        Points are processed in chunks, in O(m + n) memory.
        """
        along = project(points, self.direction)
        rows = max(1, VALUES // self.width)
        values = torch.empty_like(along)  # allocated first: small tensors between large ones fragment the memory
        for start in range(0, len(along), rows):
            some = slice(start, start + rows)
            values[some] = (along[some, None] - self.thresholds).relu_() @ self.weights
        return values


def memorizing_network(points: Tensor, targets: Tensor, generator: torch.Generator | None = None) -> MemorizingNetwork:
    """Theorem 1: construct a two-layer ReLU network with 2n + d weights that maps the points to the targets.

    The direction a is drawn at random, the thresholds b lie between the sorted projections, and w solves Lemma 1's
    triangular system. The construction takes O(n d + n log n) time, and O(n) memory in addition to the points.

    points: (n, d), or (n, ...) with d values each, any real dtype; copies of a point count once
    targets: (n,), any real dtype
    generator: draws the direction; None for a generator with seed 0

    Raises `InputError` for wrong shapes, and for values so extreme that float64 overflows. Raises `ConflictError` where
    equal points have different targets, and `TooCloseError` where float64 cannot tell two projections apart. Both are
    kinds of `InputError`.
    """
    line = _Line(points, targets, generator)
    thresholds = _between(line.first_threshold, line.along)
    weights = ramp_weights(line.along, thresholds, line.targets)
    bound, smallest = weight_bound(line.along, thresholds, line.targets), smallest_eigenvalue(line.along, thresholds)
    return _finite(MemorizingNetwork(line.direction, thresholds, weights, bound, smallest))


class Projection(nn.Module):
    r"""The projection $x \mapsto \langle a, x \rangle$ with a (d,).

    All units of Corollary 1's first layer share this row of weights, as in Theorem 1.
    """

    def __init__(self, direction: Tensor) -> None:
        super().__init__()
        self.direction = nn.Parameter(direction, requires_grad=False)

    def extra_repr(self) -> str:
        """The numbers of inputs and outputs."""
        return f"{len(self.direction)} -> 1"

    def forward(self, points: Tensor) -> Tensor:
        """The projections, float64 (m, 1), of points of any dtype, (m, d) or (m, ...) with d values each."""
        return project(points, self.direction)[:, None]


Unit = tuple[dict[int, float], float]  # a unit's weights by input, and its bias


class SparseLinear(nn.Module):
    r"""The layer $x \mapsto W x + b$, float64 (m, inputs) to (m, units), which stores only the existing connections."""

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
        """The numbers of inputs, units and connections."""
        return f"{self.size[1]} -> {self.size[0]}, {len(self.weights)} connections"

    @property
    def matrix(self) -> Tensor:
        """W, a sparse float64 tensor (units, inputs)."""
        return torch.sparse_coo_tensor(self.connections, self.weights, self.size, check_invariants=False)

    def forward(self, inputs: Tensor) -> Tensor:
        """The outputs, float64 (m, units), for inputs float64 (m, inputs)."""
        return (self.matrix @ inputs.T).T + self.bias


class DeepMemorizingNetwork(nn.Sequential):
    """Corollary 1's network: a `Projection`, then `SparseLinear` layers with a ReLU between each two."""

    def __init__(self, direction: Tensor, linear: Sequence[SparseLinear]) -> None:
        between = [module for layer in linear for module in (layer, nn.ReLU())]
        super().__init__(Projection(direction), *between[:-1])

    @property
    def linear(self) -> list[SparseLinear]:
        """The layers of weights after the projection."""
        return [layer for layer in self if isinstance(layer, SparseLinear)]

    @property
    def width(self) -> int:
        """The number of units in the widest hidden layer."""
        return max(layer.size[0] for layer in self.linear[:-1])

    def forward(self, points: Tensor) -> Tensor:
        """The outputs, float64 (m,), at points as for `MemorizingNetwork`. Points are processed in chunks."""
        rows = max(1, VALUES // self.width)
        return torch.cat([super(DeepMemorizingNetwork, self).forward(some)[:, 0] for some in points.split(rows)])  # type: ignore[no-untyped-call]


def deep_memorizing_network(
    points: Tensor, targets: Tensor, depth: int, generator: torch.Generator | None = None
) -> MemorizingNetwork | DeepMemorizingNetwork:
    """Corollary 1: construct a ReLU network with `depth` layers of weights that maps the points to the targets.

    The sorted projections are split into depth - 2 intervals. Layer j + 1 fits interval j by a sum of ramps, as in
    Theorem 1, which is 0 at both ends of the interval. The ramps' input is clipped to the interval, so the sum is 0
    outside: the network acts as a multiplexer, in which each point passes through its own interval alone. In addition,
    a layer carries the projection, and the sum over earlier intervals as its positive and negative part.

    The widest layer has at most ceil(n / (depth - 2)) + 6 units, and the network at most d + 5 n + 21 depth weights.
    Depth 2 is Theorem 1's network. Arguments and errors are the same as for `memorizing_network`; a depth below 2 also
    raises `InputError`.
    """
    if not isinstance(depth, Integral) or depth < 2:
        raise InputError(f"depth must be a whole number from 2 on, not {depth}")
    if depth == 2:
        return memorizing_network(points, targets, generator)
    line = _Line(points, targets, generator)
    start, intervals = line.first_threshold, depth - 2
    places = line.along - start  # the same arithmetic as the first layer's
    parts = [part for part in places.tensor_split(intervals) if len(part)]
    ends = [float(left[-1] + (right[0] - left[-1]) / 2) for left, right in itertools.pairwise(parts)]
    edges = [0.0, *ends, 2 * float(places[-1])]
    values = iter(line.targets.split([len(part) for part in parts]))

    first = SparseLinear(1, [({0: 1.0}, -start), ({0: 1.0}, -start - edges[1])])
    layers = [first]
    carried, above, beyond = 0, 0, 1  # units that hold the projection, and its excess over the interval's two ends
    total: dict[int, float] = {}  # weights, by unit, that add up to the sum so far
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
        raise InputError("the network's weights overflow float64: scale points and targets to moderate numbers")
    return network


def project(points: Tensor, direction: Tensor) -> Tensor:
    r"""$\langle a, x \rangle$ of each point, float64 (n,). Each result is bitwise independent of the other points."""
    return _projections(points.flatten(1), direction[None])[0]


def _projections(points: Tensor, directions: Tensor) -> Tensor:
    """The projections of points (n, d) onto directions (k, d): float64 (k, n)."""
    made = []
    for some in points.split(max(2, VALUES // directions.shape[1])):
        exact = some.double().contiguous()
        if len(exact) == 1:  # several threads would split the sum over a single row
            exact = exact.expand(2, -1)
        made.append(torch.stack([(exact * direction).sum(dim=1)[: len(some)] for direction in directions]))
    return torch.cat(made, dim=1)


class _Line:
    """The projections of the distinct points onto one direction, sorted, and their targets: float64 (n,)."""

    def __init__(self, points: Tensor, targets: Tensor, generator: torch.Generator | None) -> None:
        for what, given, least in (("points", points, 2), ("targets", targets, 1)):
            if not isinstance(given, Tensor) or given.dim() < least:
                raise InputError(f"{what} must be a tensor of {'shape (n, d)' if least == 2 else 'n numbers'}")
        points, generator = points.flatten(1), generator or seeding.generator(0, "direction")
        if targets.dim() != 1:
            raise InputError(f"targets must be (n,), one number for each point, not {tuple(targets.shape)}")
        if len(points) == 0 or len(points) != len(targets):
            raise InputError(
                f"each point needs one target, and one point is the least: not {len(targets)} for {len(points)}"
            )
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
        """A threshold before all points, at their mean distance."""
        extent = float(self.along[-1] - self.along[0]) / len(self.along)
        return float(self.along[0]) - (extent or abs(float(self.along[0])) or 1.0)


def _between(first: float, points: Tensor) -> Tensor:
    """A threshold between each point and the previous one, float64 (n,). The first point's previous one is `first`."""
    before = torch.cat([torch.tensor([first], dtype=torch.float64), points[:-1]])
    return before + THRESHOLD_AT * (points - before)


def _without_copies(points: Tensor, targets: Tensor, along: Tensor) -> Tensor:
    """The index of each distinct point's first copy, int64. Copies have the same projection, bit for bit."""
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
                f"no function fits both points {other} and {index}: they are equal, but their targets differ; leave one"
                " out"
            )
    return kept.nonzero()[:, 0]
