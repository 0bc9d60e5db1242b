"""Section 5's minimum norm: other functions that also fit every training label exactly.

Each function here takes a `Task` and returns facts for `result.json`: training and test error, the norm in the kernel's
space over all outputs, the largest residual, and more. `interpolation.solve` finds the solution of least norm itself.

All use dense float64 matrices, for a few thousand images.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rethinking.errors import RunError
from rethinking.seeding import generator
from rethinking.steps import Steps
from rethinking.theory.interpolation import TOLERANCE, one_hot, solve
from rethinking.theory.kernels import GaussianKernel, Kernel, KernelMatrix, LinearKernel, kernel_sum

EPOCHS = 10_000  # at most, of stochastic gradient descent
NEAR = 1e-3  # relative distance to the solution at which descent stops
DISPLACEMENT = 8.0  # distance of random centres from training images, in bandwidths


@dataclass(frozen=True)
class Task:
    """A training and a test set for one kernel.

    points, test: float32 (n, features)
    labels, test_labels: int64 (n,)
    unseen: int64 indices of the distinct test images that are not training images
    """

    kernel: Kernel
    points: Tensor
    labels: Tensor
    test: Tensor
    test_labels: Tensor
    num_classes: int
    seed: int
    unseen: Tensor

    @property
    def targets(self) -> Tensor:
        """Section 5's one-hot targets, float64 (n, num_classes), on the device."""
        return one_hot(self.labels, self.num_classes).to(self.points.device)

    @property
    def gram(self) -> Tensor:
        """The Gram matrix K, float64 (n, n), exactly symmetric."""
        points = self.points.double()
        lower = self.kernel(points, points).tril()
        return lower + lower.tril(-1).T

    def error(self, values: Tensor, labels: Tensor) -> float:
        """The share of wrong labels, 0-1, for values float (m, num_classes) and labels int64 (m,)."""
        return float((values.argmax(dim=1).cpu() != labels).double().mean())

    def facts(self, values: Tensor, test_values: Tensor, norm: float) -> dict[str, Any]:
        """Errors, norm and residual of a function, from its values at the training and the test images."""
        residual = float((values - self.targets).abs().max())
        train_error = self.error(values, self.labels)
        return {
            "train_error": train_error,
            "test_error": self.error(test_values, self.test_labels) if len(self.test) else None,
            "norm": norm,
            "residual": residual,
            "interpolates": train_error == 0 and residual < TOLERANCE,
        }


def without_copies(points: Tensor) -> Tensor:
    """The index of each distinct point's first copy, int64, for points (n, features).

    Copies make K singular. They can be left out: where any function fits, copies have the same label.
    """
    first: dict[bytes, int] = {}
    for index, point in enumerate(points.cpu().numpy()):
        first.setdefault((point + 0).tobytes(), index)
    return torch.tensor(list(first.values()), dtype=torch.int64)


def unseen(train: Tensor, test: Tensor) -> Tensor:
    """The indices, int64, of the distinct images of `test` that are not in `train`. Images are uint8."""
    places = without_copies(torch.cat([train, test]).flatten(1))
    return places[places >= len(train)] - len(train)


def sgd(task: Task, begin: Steps) -> dict[str, Any]:
    r"""Stochastic gradient descent on squared error from zero, one image per step. Its limit has the least norm.

    A linear kernel descends on the weights. Another kernel descends on the function, whose gradient at an image $x_i$
    is a multiple of $k(\cdot, x_i)$. The distance to the solution of $K a = y$ is measured in the kernel's space,
    relative to the solution's norm. The learning rate is $1 / \max_i k(x_i, x_i)$. Raises `RunError` for a singular K.
    """
    if isinstance(task.kernel, LinearKernel):
        return _sgd_on_weights(task, begin)
    gram, targets = task.gram, task.targets
    exact = _solve(gram, targets)
    rate = 1 / float(gram.diagonal().max())
    coefficients = torch.zeros_like(targets)
    scale = _norm(gram, exact)

    def step(index: int) -> None:
        coefficients[index] -= rate * (gram[index] @ coefficients - targets[index])

    distances = _descend(task, step, lambda: _norm(gram, coefficients - exact) / scale, begin)
    test_values = kernel_sum(task.kernel, task.points, coefficients, task.test) if len(task.test) else targets[:0]
    facts = task.facts(gram @ coefficients, test_values, _norm(gram, coefficients))
    return facts | {"distances": distances, "steps_an_epoch": len(gram), "norm_of_the_solution": scale}


def _sgd_on_weights(task: Task, begin: Steps) -> dict[str, Any]:
    """The same on weights. The solution X'a with K a = y is also checked against the pseudoinverse's."""
    points, targets = task.points.double(), task.targets
    gram = points @ points.T
    exact = points.T @ _solve(gram, targets)
    pseudoinverse = torch.linalg.pinv(points) @ targets
    rate = 1 / float(gram.diagonal().max())
    weights = torch.zeros_like(exact)

    def step(index: int) -> None:
        weights.addr_(points[index], points[index] @ weights - targets[index], alpha=-rate)

    distances = _descend(task, step, lambda: float((weights - exact).norm() / exact.norm()), begin)
    facts = task.facts(points @ weights, task.test.double() @ weights, float(weights.norm()))
    return facts | {
        "distances": distances,
        "steps_an_epoch": len(points),
        "norm_of_the_solution": float(exact.norm()),
        "distance_to_pseudoinverse": float((exact - pseudoinverse).norm() / exact.norm()),
    }


def _descend(
    task: Task, step: Callable[[int], None], distance: Callable[[], float], begin: Steps
) -> list[tuple[int, float]]:
    """Run epochs in random order until the distance is below `NEAR`.

    Returns epochs with their distances: of the first twenty epochs, then of fewer and fewer.
    """
    advanced = begin("stochastic gradient descent")
    distances, following = [(0, 1.0)], 1
    for epoch in range(1, EPOCHS + 1):
        for index in torch.randperm(len(task.points), generator=generator(task.seed, "order", epoch)).tolist():
            step(index)
        if epoch in (following, EPOCHS):
            distances.append((epoch, distance()))
            advanced(min(1.0, math.log(distances[-1][1]) / math.log(NEAR)))  # the distance falls geometrically
            following = max(epoch + 1, int(epoch * 1.1))
            if distances[-1][1] < NEAR:
                break
    return distances


def random_centres(task: Task, begin: Steps) -> dict[str, Any]:
    r"""Fit $f(x) = \sum_j b_j k(x, c_j)$ exactly, with random centres $c_j$: training images displaced by noise.

    There are as many centres as images, so $K(X, C) b = y$ has one solution. It is exact, but not of least norm. Raises
    `RunError` for a singular K(X, C).
    """
    assert isinstance(task.kernel, GaussianKernel), "the experiment's kernel is Gaussian"
    advanced = begin("solving with random centres")
    stream = generator(task.seed, "centres")
    count, features = task.points.shape
    order = torch.randperm(count, generator=stream).to(task.points.device)
    noise = torch.randn(count, features, generator=stream, dtype=torch.float64).to(task.points.device)
    at, test = task.points.double(), task.test.double()  # float32 is too coarse for the kernel's small values
    centres = at[order] + noise * (DISPLACEMENT * task.kernel.bandwidth / math.sqrt(features))
    across = task.kernel(at, centres)
    advanced(0.2)
    coefficients = _solve(across, task.targets)
    advanced(0.6)
    test_values = kernel_sum(task.kernel, centres, coefficients, test) if len(test) else task.targets[:0]
    norm = _norm(task.kernel(centres, centres), coefficients)
    return task.facts(across @ coefficients, test_values, norm)


def wrong_on_test(task: Task, begin: Steps) -> dict[str, Any]:
    """The least norm of all functions that fit the training labels and also a wrong label at each test image.

    Test images that are also training images are left out, and at most as many test images as training images are used.
    The test error counts these alone. Raises `RunError` where no test image is left, or K cannot be factorized.
    """
    places = task.unseen[: len(task.points)]
    forced = len(places)
    if not forced:
        raise RunError("there are no test images that are not also training images, so no label can be made wrong")
    true_labels = task.test_labels[places]
    points = torch.cat([task.points, task.test[places]])
    targets = torch.cat([task.targets, _wrong_targets(task, true_labels)])
    solution = solve(KernelMatrix(task.kernel, points), targets, begin=begin)
    train_values, test_values = solution.values.split([len(task.points), forced])
    train_error = task.error(train_values, task.labels)
    return {
        "train_error": train_error,
        "test_error": task.error(test_values, true_labels),
        "norm": solution.norm,
        "residual": solution.residual,
        "interpolates": train_error == 0 and solution.residual < TOLERANCE,
        "jitter": solution.jitter,
        "refinements": solution.refinements,
        "forced": forced,
    }


def hessian(task: Task, begin: Steps) -> dict[str, Any]:
    r"""The Hessian of a linear model's loss at three global minima, by automatic differentiation.

    The loss is half the mean squared error of one output. The minima are: the one of least norm; the same plus a random
    direction orthogonal to all training images, ten times as long; and the one of least norm that also has wrong labels
    at test images which are not training images. At every minimum the Hessian is $X^T X / n$, whatever the weights.
    """
    points, targets = task.points.double(), task.targets
    inverse = torch.linalg.pinv(points)
    least = inverse @ targets
    noise = torch.randn(least.shape, generator=generator(task.seed, "direction"), dtype=torch.float64).to(least.device)
    unseen = noise - inverse @ (points @ noise)
    places = task.unseen[: max(0, points.shape[1] // 2 - len(points))]
    wrong = _wrong_targets(task, task.test_labels[places])
    both = torch.linalg.pinv(torch.cat([points, task.test[places].double()])) @ torch.cat([targets, wrong])
    minima = {
        "least norm": least,
        "a random direction added": least + unseen * (10 * least.norm() / unseen.norm()),
        f"wrong on {len(places)} test images": both,
    }
    advanced = begin("Hessians")
    hessians, facts = [], []
    for name, weights in minima.items():

        def loss(column: Tensor) -> Tensor:
            return (points @ column - targets[:, 0]).square().mean() / 2

        hessians.append(torch.autograd.functional.hessian(loss, weights[:, 0].clone(), vectorize=True))
        found = task.facts(points @ weights, task.test.double() @ weights, float(weights.norm()))
        gradient = float((points.T @ (points @ weights - targets)).abs().max() / len(points))
        facts.append({"minimum": name, **found, "gradient": gradient})
        advanced(len(hessians) / len(minima))
    first, covariance = hessians[0], points.T @ points / len(points)
    differences = [float((other - first).abs().max() / first.abs().max()) for other in hessians]
    eigenvalues = torch.linalg.eigvalsh(first)
    flat = int((eigenvalues < 1e-10 * eigenvalues[-1]).sum())
    return {
        **{name: facts[0][name] for name in ("train_error", "test_error", "norm", "residual", "interpolates")},
        "minima": [{**fact, "hessian_difference": value} for fact, value in zip(facts, differences, strict=True)],
        "covariance_difference": float((first - covariance).abs().max() / covariance.abs().max()),
        "flat_directions": flat,
        "directions": len(eigenvalues),
    }


def _wrong_targets(task: Task, true_labels: Tensor) -> Tensor:
    """One-hot targets of a random wrong class for each of `true_labels`: float64 (labels, classes)."""
    shift = torch.randint(1, task.num_classes, true_labels.shape, generator=generator(task.seed, "wrong labels"))
    return one_hot((true_labels + shift) % task.num_classes, task.num_classes).to(task.points.device)


def _solve(matrix: Tensor, targets: Tensor) -> Tensor:
    """The solution of a square float64 system. Raises `RunError` where the matrix is singular."""
    try:
        solution: Tensor = torch.linalg.solve(matrix, targets)
        return solution
    except torch.linalg.LinAlgError:  # type: ignore[attr-defined]
        raise RunError(
            "the kernel matrix is singular in float64: some points are too close to each other for this kernel"
        ) from None


def _norm(gram: Tensor, coefficients: Tensor) -> float:
    """The norm sqrt(trace(a' K a))."""
    return math.sqrt(max(0.0, float((coefficients * (gram @ coefficients)).sum())))


SOLUTIONS: dict[str, Callable[[Task, Steps], dict[str, Any]]] = {
    "sgd": sgd,
    "random_centres": random_centres,
    "wrong_on_test": wrong_on_test,
    "hessian": hessian,
}
