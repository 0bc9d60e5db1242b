import itertools

import pytest
import torch

from rethinking.data import sources
from rethinking.errors import RunError
from rethinking.seeding import generator
from rethinking.steps import unwatched
from rethinking.theory.convolutional import standardized_features
from rethinking.theory.interpolation import TOLERANCE, interpolate, one_hot
from rethinking.theory.kernels import GaussianKernel, LinearKernel
from rethinking.theory.minimum_norm import (
    NEAR,
    Task,
    hessian,
    random_centres,
    sgd,
    unseen,
    without_copies,
    wrong_on_test,
)

DIGITS = sources.load("digits")
TRAIN, TEST = (torch.from_numpy(split.images.copy()) for split in (DIGITS.train, DIGITS.test))
ALL = torch.arange(len(TEST))
LABELS, TEST_LABELS = (torch.from_numpy(split.labels.copy()) for split in (DIGITS.train, DIGITS.test))


def gaussian(images: int = 300) -> Task:
    points, test = TRAIN[:images].flatten(1).float() / 255, TEST.flatten(1).float() / 255
    return Task(GaussianKernel(3.0), points, LABELS[:images], test, TEST_LABELS, 10, seed=0, unseen=ALL)


def linear(images: int = 40, test: torch.Tensor = TEST, test_labels: torch.Tensor = TEST_LABELS) -> Task:
    train = TRAIN[:images]
    points, features = standardized_features(train, test, 50, seed=0)
    return Task(LinearKernel(), points, LABELS[:images], features, test_labels, 10, seed=0, unseen=unseen(train, test))


def least_norm(task: Task) -> float:
    norm = interpolate(task.kernel, task.points, task.targets).solution.norm
    assert norm is not None
    return norm


@pytest.mark.parametrize("task", [gaussian(), linear()], ids=["gaussian", "linear"])
def test_gradient_descent_from_zero_comes_to_the_solution_of_least_norm(task):
    facts = sgd(task, unwatched)
    epochs, distances = zip(*facts["distances"], strict=True)
    assert (epochs[0], distances[0]) == (0, 1.0)
    assert distances[-1] < NEAR
    assert all(later < earlier for earlier, later in itertools.pairwise(distances))
    assert facts["norm"] == pytest.approx(least_norm(task), rel=1e-2)
    assert facts["norm_of_the_solution"] == pytest.approx(least_norm(task), rel=1e-3)
    assert facts["train_error"] == 0


def test_the_solution_of_k_a_y_is_the_pseudoinverses_where_the_model_is_linear():
    assert sgd(linear(), unwatched)["distance_to_pseudoinverse"] < 1e-8


def test_random_centres_fit_as_exactly_with_a_far_larger_norm_and_error():
    task = gaussian(1000)
    facts = random_centres(task, unwatched)
    fitted = interpolate(task.kernel, task.points, task.targets)
    error = float((fitted(task.test).argmax(dim=1) != TEST_LABELS).double().mean())
    assert facts["interpolates"]
    assert facts["residual"] < 1e-8
    assert facts["norm"] > 1000 * least_norm(task)
    assert facts["test_error"] > 2 * error


def test_wrong_labels_forced_on_test_images_leave_the_training_set_fitted():
    task = gaussian()
    facts = wrong_on_test(task, unwatched)
    assert facts["forced"] == 300, "no more than there are training images"
    assert (facts["train_error"], facts["test_error"]) == (0.0, 1.0)
    assert facts["residual"] < TOLERANCE
    assert facts["jitter"] == 0
    assert facts["norm"] > 2 * least_norm(task)


def test_copies_of_images_do_not_bend_the_distance():
    task = gaussian(100)
    points, labels = torch.cat([task.points, task.points[:5]]), torch.cat([task.labels, task.labels[:5]])
    once = without_copies(points)
    assert once.tolist() == list(range(100))
    assert without_copies(torch.tensor([[0.0], [1.0], [-0.0]])).tolist() == [0, 1]
    doubled = Task(task.kernel, points[once], labels[once], task.test, TEST_LABELS, 10, 0, ALL)
    assert sgd(doubled, unwatched)["distances"] == sgd(task, unwatched)["distances"]


def test_no_wrong_label_is_forced_on_a_test_image_that_is_a_training_image():
    images, labels = torch.cat([TRAIN[:3], TEST[:2], TEST]), torch.cat([LABELS[:3], TEST_LABELS[:2], TEST_LABELS])
    assert unseen(TRAIN[:100], images).tolist() == [3, 4, *range(7, len(images))]
    task = gaussian(100)
    test = images.flatten(1).float() / 255
    facts = wrong_on_test(
        Task(task.kernel, task.points, task.labels, test, labels, 10, 0, unseen(TRAIN[:100], images)), unwatched
    )
    assert (facts["forced"], facts["train_error"]) == (100, 0.0)
    for minimum in hessian(linear(40, images, labels), unwatched)["minima"]:
        assert minimum["gradient"] < 1e-9, "no label is wrong at an image whose label is to be fitted"
        assert minimum["interpolates"]


def test_the_hessian_is_the_same_at_every_global_minimum_and_is_the_features_covariance():
    task = linear()
    facts = hessian(task, unwatched)
    least, random, wrong = facts["minima"]
    for minimum in facts["minima"]:
        assert minimum["gradient"] < 1e-9, "a minimum"
        assert minimum["interpolates"]
        assert minimum["hessian_difference"] < 1e-12
    assert least["norm"] < min(wrong["norm"], random["norm"])
    assert random["norm"] == pytest.approx(least["norm"] * 101**0.5, rel=1e-6), (
        "an orthogonal direction ten times as long"
    )
    assert least["test_error"] < min(random["test_error"], wrong["test_error"])
    assert facts["covariance_difference"] < 1e-12
    assert (facts["directions"], facts["flat_directions"]) == (401, 401 - 40)


def test_a_data_set_without_test_images_has_no_wrong_test_labels():
    task = gaussian()
    empty = Task(task.kernel, task.points, task.labels, task.test[:0], task.test_labels[:0], 10, 0, ALL[:0])
    assert random_centres(empty, unwatched)["test_error"] is None
    assert sgd(empty, unwatched)["test_error"] is None
    with pytest.raises(RuntimeError, match="no test images"):
        wrong_on_test(empty, unwatched)


def test_points_that_the_kernel_cannot_tell_apart_are_reported_in_one_line():
    """All values of a kernel this wide round to 1."""
    task = Task(**{**vars(gaussian(50)), "kernel": GaussianKernel(1e9)})
    with pytest.raises(RunError, match="the kernel matrix is singular in float64"):
        sgd(task, unwatched)


def test_draws_depend_on_the_seed_alone():
    first, second = random_centres(gaussian(50), unwatched), random_centres(gaussian(50), unwatched)
    assert first == second
    other = Task(**{**vars(gaussian(50)), "seed": 1})
    assert random_centres(other, unwatched)["norm"] != first["norm"]
    assert one_hot(LABELS[:2], 10).sum() == 2
    assert generator(0, "centres").initial_seed() != generator(1, "centres").initial_seed()
