"""ROC curves and precision against slow versions, and against scikit-learn."""

import itertools
import math

import numpy as np
import pytest
from sklearn import metrics

from rethinking.measures.detection import auroc, precision_at, roc


@pytest.fixture(params=["distinct", "ties", "infinite"])
def cases(request: pytest.FixtureRequest) -> tuple[np.ndarray, np.ndarray]:
    draws = np.random.default_rng(1)
    wrong = draws.random(60) < 0.3
    suspicion = draws.normal(size=60) + wrong
    if request.param != "distinct":
        suspicion = np.round(suspicion)
    if request.param == "infinite":
        suspicion[:9] = np.inf
    return suspicion, wrong


def test_auroc_counts_pairs(cases):
    suspicion, wrong = cases
    pairs = list(itertools.product(suspicion[wrong], suspicion[~wrong]))
    expected = sum((a > b) + 0.5 * (a == b) for a, b in pairs) / len(pairs)
    assert auroc(suspicion, wrong) == pytest.approx(expected)
    finite = np.where(np.isinf(suspicion), 1e9, suspicion)
    assert auroc(suspicion, wrong) == pytest.approx(metrics.roc_auc_score(wrong, finite))


def test_the_curve_is_scikit_learns_and_its_area_is_the_auroc(cases):
    suspicion, wrong = cases
    false, true = roc(suspicion, wrong)
    finite = np.where(np.isinf(suspicion), 1e9, suspicion)
    theirs = metrics.roc_curve(wrong, finite, drop_intermediate=False)
    np.testing.assert_allclose(false, theirs[0])
    np.testing.assert_allclose(true, theirs[1])
    assert np.trapezoid(true, false) == pytest.approx(auroc(suspicion, wrong))


@pytest.mark.parametrize("count", [1, 7, 30, 60])
def test_precision_is_its_mean_over_the_orders_of_ties(cases, count: int):
    suspicion, wrong = cases
    draws, found = np.random.default_rng(2), []
    for _ in range(4000):
        order = np.lexsort((draws.random(60), -suspicion))
        found.append(wrong[order[:count]].mean())
    assert precision_at(suspicion, wrong, count) == pytest.approx(np.mean(found), abs=0.03)


def test_hand_made_cases():
    wrong = np.array([True, True, False, False])
    assert auroc(np.array([4.0, 3, 2, 1]), wrong) == 1
    assert auroc(np.array([1.0, 2, 3, 4]), wrong) == 0
    assert auroc(np.zeros(4), wrong) == 0.5
    assert math.isnan(auroc(np.zeros(4), np.zeros(4, bool)))
    assert precision_at(np.array([4.0, 1, 2, 3]), wrong, 2) == 0.5
    assert precision_at(np.array([4.0, 1, 1, 1]), wrong, 2) == pytest.approx((1 + 1 / 3) / 2)
