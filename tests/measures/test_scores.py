"""Scores of examples against hand-made cases and slow versions of their definitions."""

import itertools
import math
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from rethinking.errors import InputError
from rethinking.measures import scores
from rethinking.measures.scores import SCORES
from rethinking.training.examples import Recorded

# Four epochs of four examples: learnt at once, learnt and forgotten twice, never learnt, learnt last.
CORRECT = np.array([[1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 0, 0], [1, 0, 0, 1]], bool)
PROBABILITIES = np.array(
    [[0.5, 0.75, 0.125, 0.25], [1, 0.25, 0.125, 0.25], [1, 0.75, 0.125, 0.25], [1, 0.25, 0.125, 1]]
)
MARGINS = np.array([[1, 2, -4, -1], [3, -2, -4, -1], [3, 2, -4, -1], [5, -2, -4, 3]], np.float16)
HAND_MADE = Recorded(
    loss=(-np.log(PROBABILITIES)).astype(np.float16),
    margin=MARGINS,
    error_norm=np.arange(16, dtype=np.float16).reshape(4, 4),
    correct=CORRECT,
)
EXPECTED = {
    "area_under_margin": [3, 0, -4, 0],
    "forgetting_events": [0, 2, math.inf, 0],
    "first_learned": [1, 1, math.inf, 4],
    "confidence": [0.875, 0.5, 0.125, 0.4375],
    "variability": [math.sqrt(3) / 8, 0.25, 0, math.sqrt(27) / 16],
    "el2n": [12, 13, 14, 15],
    "last_loss": [0, math.log(4), math.log(8), 0],
}


def some(epochs: int = 7, images: int = 40) -> Recorded:
    draws = np.random.default_rng(0)
    loss = draws.exponential(1, (epochs, images)).astype(np.float16)
    margin = draws.normal(0, 3, (epochs, images)).astype(np.float16)
    return Recorded(loss, margin, draws.random((epochs, images)).astype(np.float16), margin > 0)


def slowly(name: str, kept: Recorded, image: int) -> float:
    """The definitions, image by image and epoch by epoch."""
    right = [bool(row[image]) for row in kept.correct]
    probabilities = [math.exp(-float(row[image])) for row in kept.loss]
    if name == "area_under_margin":
        return statistics.fmean(float(row[image]) for row in kept.margin)
    if name == "forgetting_events":
        return sum(a and not b for a, b in itertools.pairwise(right)) if any(right) else math.inf
    if name == "first_learned":
        return right.index(True) + 1 if any(right) else math.inf
    if name == "confidence":
        return statistics.fmean(probabilities)
    if name == "variability":
        return statistics.pstdev(probabilities)
    return float({"el2n": kept.error_norm, "last_loss": kept.loss}[name][-1][image])


def test_every_score_has_a_hand_made_case():
    assert EXPECTED.keys() == SCORES.keys()


@pytest.mark.parametrize("name", SCORES)
def test_a_score_is_what_the_hand_made_case_says(name: str):
    found = SCORES[name].of(HAND_MADE)
    assert found.dtype == np.float64
    assert found.tolist() == pytest.approx(EXPECTED[name], rel=1e-3)


@pytest.mark.parametrize("name", SCORES)
def test_a_score_equals_its_definition_example_by_example(name: str):
    kept = some()
    assert SCORES[name].of(kept).tolist() == pytest.approx([slowly(name, kept, image) for image in range(40)])


def test_el2n_is_taken_early():
    kept = some(epochs=20)
    np.testing.assert_array_equal(SCORES["el2n"].of(kept), kept.error_norm[9])
    np.testing.assert_array_equal(scores.el2n(kept, epoch=3), kept.error_norm[2])


def test_ranks_begin_at_the_suspicious_end_and_ties_share_theirs():
    low, high = SCORES["area_under_margin"], SCORES["forgetting_events"]
    assert low.ranks(np.array([3.0, 0.0, -4.0, 0.0])).tolist() == [4, 2.5, 1, 2.5]
    assert high.ranks(np.array([0.0, 2.0, np.inf, 0.0])).tolist() == [3.5, 2, 1, 3.5]


def test_consistency_is_the_mean_rank_correlation():
    one, turned = np.array([1.0, 2.0, 3.0, np.inf]), np.array([4.0, 3.0, 2.0, 1.0])
    assert scores.consistency([one, one * 2]) == pytest.approx(1)
    assert scores.consistency([one, one, turned]) == pytest.approx(-1 / 3)
    assert math.isnan(scores.consistency([one]))
    assert scores.mean_over_runs([one, turned]).tolist() == [2.5, 2.5, 2.5, math.inf]


def test_an_unknown_score_is_named_with_the_nearest():
    with pytest.raises(InputError, match=r"score must be one of area_under_margin, .*; did you mean 'variability'\?"):
        scores.find("variabilty")


OWN = """
from rethinking.measures.scores import score

@score("own", "high", "here")
def own(kept):
    return {returned}

def plain(kept):
    return kept.loss[0]
"""


@pytest.fixture
def own_file(tmp_path: Path) -> Iterator[Callable[[str], str]]:
    """Writes a file whose score returns an expression. Takes the score away at the end."""

    def write(returned: str) -> str:
        (tmp_path / "mine.py").write_text(OWN.format(returned=returned))
        return str(tmp_path / "mine.py")

    yield write
    SCORES.pop("own", None)


def test_a_score_of_a_users_file_is_added(own_file):
    scores.load(f"{own_file('kept.margin.max(axis=0)')}:own")
    np.testing.assert_array_equal(SCORES["own"].measured(HAND_MADE), MARGINS.max(axis=0))


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ("kept.loss[0][:2]", r"the score own must have the shape \(4,\), not \(2,\)"),
        ("kept.loss[0] * float('nan')", "the score own is nan for 4 of 4 examples"),
        ("kept.losses", "the score own fails: .*'losses'.*mine.py"),
        ("['a'] * 4", "the score own fails: .*could not convert string to float"),
    ],
)
def test_a_score_that_fails_is_told_in_a_line(own_file, returned: str, message: str):
    scores.load(f"{own_file(returned)}:own")
    with pytest.raises(InputError, match=message):
        SCORES["own"].measured(HAND_MADE)


def test_a_score_has_an_end_and_a_name_of_its_own():
    with pytest.raises(InputError, match="the score own must be suspicious at its low or high end, not 'up'"):
        scores.score("own", "up", "here")
    with pytest.raises(InputError, match="there is a score last_loss already; choose another name"):
        scores.score("last_loss", "low", "here")(lambda kept: kept.loss[0])


def test_a_function_without_the_decorator_is_no_score(own_file):
    with pytest.raises(InputError, match=r"mine.py:plain is no score of examples; put @score\(...\) before"):
        scores.load(f"{own_file('0')}:plain")
