"""Memorization and influence against a case where both are known: the nearest neighbour, over all subsets of a size."""

import itertools
from math import comb

import numpy as np
import pytest

from rethinking import InputError
from rethinking.measures.memorization import influence, memorization

N, TESTED, INSIDE, RUNS = 40, 12, 28, 3000


def points() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Training and test points of two clouds that overlap, and their labels, some of which are wrong."""
    draws = np.random.default_rng(0)
    labels, tested = draws.integers(0, 2, N), draws.integers(0, 2, TESTED)
    places = [draws.normal(size=(len(of), 2)) + 2.5 * of[:, None] for of in (labels, tested)]
    labels[:4] = 1 - labels[:4]
    return places[0], labels, places[1], tested


def nearest_first(of: np.ndarray, among: np.ndarray) -> np.ndarray:
    return np.argsort(((of[:, None] - among[None]) ** 2).sum(-1), axis=1, kind="stable")


def subsets(runs: int = RUNS, seed: int = 1) -> np.ndarray:
    draws = np.random.default_rng(seed)
    inside = np.zeros((runs, N), bool)
    for row in inside:
        row[draws.permutation(N)[:INSIDE]] = True
    return inside


def right_of(order: np.ndarray, inside: np.ndarray, labels: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Whether the nearest neighbour in each subset has the label of each point, bool (runs, points)."""
    found = np.empty((len(inside), len(order)), bool)
    for run, chosen in enumerate(inside):
        for point, neighbours in enumerate(order):
            first = next(neighbour for neighbour in neighbours if chosen[neighbour])
            found[run, point] = labels[first] == true[point]
    return found


def chance(neighbours: list[int], drawn: int, labels: np.ndarray, label: int) -> float:
    """P(the first neighbour in a uniform subset of `drawn` of them has `label`), in closed form."""
    ways = comb(len(neighbours), drawn)
    return sum(
        comb(len(neighbours) - rank, drawn - 1) / ways
        for rank, neighbour in enumerate(neighbours, 1)
        if labels[neighbour] == label
    )


def chance_with(member: int, neighbours: list[int], labels: np.ndarray, label: int) -> float:
    """The same, where `member` is in the subset, whose other elements are drawn."""
    others = [neighbour for neighbour in neighbours if neighbour != member]
    before = neighbours.index(member)
    ways = comb(len(others), INSIDE - 1)
    found = sum(
        comb(len(others) - rank, INSIDE - 2) / ways
        for rank, neighbour in enumerate(others[:before], 1)
        if labels[neighbour] == label
    )
    return found + (labels[member] == label) * comb(len(others) - before, INSIDE - 1) / ways


def test_chances_in_closed_form_equal_those_over_all_subsets():
    labels = np.array([0, 1, 1, 0, 1])
    every = list(itertools.combinations(range(5), 3))
    order = [3, 1, 4, 0, 2]
    right = [labels[next(one for one in order if one in chosen)] == 1 for chosen in every]
    assert chance(order, 3, labels, 1) == pytest.approx(np.mean(right))


def test_memorization_of_a_nearest_neighbour_is_estimated():
    places, labels, _, _ = points()
    order, inside = nearest_first(places, places), subsets()
    estimate = memorization(inside, right_of(order, inside, labels, labels))
    exact = np.array([1 - chance(list(order[i][1:]), INSIDE, labels, labels[i]) for i in range(N)])
    deviations = (estimate.value - exact) / estimate.standard_error
    assert np.abs(deviations).max() < 4.5
    assert 0.5 < np.sqrt((deviations**2).mean()) < 1.3, "the standard errors are neither too small nor too large"
    assert exact[:4].mean() > 0.5 > np.median(exact), "wrong labels are memorized"
    assert np.corrcoef(estimate.value, exact)[0, 1] > 0.99


def test_influence_on_a_nearest_neighbour_is_estimated():
    places, labels, test_places, tested = points()
    order, inside = nearest_first(test_places, places), subsets()
    estimate = influence(inside, right_of(order, inside, labels, tested))
    assert estimate.value.shape == (N, TESTED)
    exact = np.empty((N, TESTED))
    for i, j in itertools.product(range(N), range(TESTED)):
        neighbours = order[j].tolist()
        without = [one for one in neighbours if one != i]
        exact[i, j] = chance_with(i, neighbours, labels, tested[j]) - chance(without, INSIDE, labels, tested[j])
    deviations = (estimate.value - exact) / estimate.standard_error
    assert np.abs(deviations).max() < 5
    assert 0.5 < np.sqrt((deviations**2).mean()) < 1.3
    assert exact.max() > 0.2


def test_standard_errors_shrink_with_the_root_of_the_number_of_runs():
    places, labels, _, _ = points()
    order, inside = nearest_first(places, places), subsets(1600)
    right = right_of(order, inside, labels, labels)
    few, many = (memorization(inside[:m], right[:m]).standard_error.mean() for m in (400, 1600))
    assert few / many == pytest.approx(2, rel=0.15)


def test_a_hand_made_case():
    inside = np.array([[1, 0], [1, 0], [0, 1], [0, 1], [1, 1]], bool)
    right = np.array([[1, 0], [1, 1], [0, 1], [1, 1], [1, 1]], bool)
    estimate = memorization(inside, right)
    assert estimate.value.tolist() == [1 - 1 / 2, 1 - 1 / 2]
    expected = (4 / 5 * 1 / 5 / 3 + 2 / 4 * 2 / 4 / 2) ** 0.5
    assert estimate.standard_error.tolist() == pytest.approx([expected, expected])
    of_test = influence(inside, right[:, :1])
    assert of_test.value[:, 0].tolist() == pytest.approx([1 / 2, 2 / 3 - 1])


def test_an_example_that_no_run_lacks_has_no_estimate():
    inside = np.ones((6, 3), bool)
    inside[:3, 0] = False
    inside[0, 1] = False
    estimate = memorization(inside, np.ones((6, 3), bool))
    assert np.isnan(estimate.value).tolist() == [False, True, True]
    assert np.isnan(estimate.standard_error).tolist() == [False, True, True]


@pytest.mark.parametrize(
    ("inside", "right", "said"),
    [
        ((3, 5), (3, 5), "at least 4 runs on random subsets, not 3"),
        ((4, 5), (5, 5), "must have a row for each run"),
        ((4, 5), (4, 6), "must have one shape"),
    ],
)
def test_what_does_not_fit_is_told(inside, right, said):
    with pytest.raises(InputError, match=said):
        memorization(np.zeros(inside, bool), np.zeros(right, bool))
