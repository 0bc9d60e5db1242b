"""How far numbers agree with the paper's is counted honestly."""

import pytest

from rethinking.experiments import figure1b
from rethinking.experiments.experiment import Cell, Evidence
from rethinking.report.agreement import agreements, deviation, difference, tolerance


def cell(quantity: str, ours: float | None, paper: float | str | None, note: str = "", run: str = "done") -> Cell:
    return Cell((("model", f"{ours}"),), quantity, None, ours, None, 1, paper, note, (run,))


KEPT = {name: Evidence(name, "", name == "done", {"num_epochs": 70}, {}, ({},)) for name in ("done", "begun")}


def test_shares_agree_within_a_point_losses_within_a_tenth_and_the_rest_within_a_tenth_of_the_papers():
    assert [
        tolerance(name).words for name in ("test accuracy", "test error", "training loss", "norm", "unheard of")
    ] == [
        "1 point",
        "1 point",
        "0.1 nats",
        "10%",
        "10%",
    ]


@pytest.mark.parametrize(
    ("quantity", "ours", "paper", "agrees", "words"),
    [
        ("test accuracy", 0.91, 0.90, True, "+1.00 points"),
        ("test accuracy", 0.9101, 0.90, False, "+1.01 points"),
        ("test accuracy", 0.88, 0.90, False, "\N{MINUS SIGN}2.00 points"),
        ("training loss", 0.6, 0.5, True, "+0.100 nats"),
        ("training loss", 0.3, 0.5, False, "\N{MINUS SIGN}0.200 nats"),
        ("norm", 242.0, 220.0, True, "+10%"),
        ("norm", 110.0, 220.0, False, "\N{MINUS SIGN}50%"),
        ("epochs to overfit", 0.0, 0.0, True, "+0"),
        ("epochs to overfit", 1.0, 0.0, False, "+1"),
    ],
)
def test_a_number_agrees_or_not(quantity, ours, paper, agrees, words):
    one = cell(quantity, ours, paper)
    (found,) = agreements([one], KEPT)
    assert (found.agree, found.compared) == (int(agrees), 1)
    assert found.largest == one
    assert found.largest_in_words == difference(one) == words


def test_what_is_missing_unfinished_or_in_words_is_said():
    cells = [
        cell("test accuracy", 0.9, 0.9),
        cell("test accuracy", 0.5, 0.9, "after 3 of 70 epochs", "begun"),
        cell("test accuracy", 0.9, 0.9, "after 69 of 70 epochs", "begun"),
        cell("test accuracy", None, 0.8, "not reached"),
        cell("test accuracy", 0.7, "failed to converge"),
        cell("test accuracy", 0.7, None),
        cell("norm", 3.0, None),
    ]
    (found,) = agreements(cells, KEPT)
    assert (found.agree, found.compared) == (1, 4), "what is missing or unfinished does not agree"
    assert found.remarks == [
        "2 unfinished",
        "1 without ours",
        "1 more in words",
    ]
    assert found.largest == cells[1]
    assert found.largest_in_words == "\N{MINUS SIGN}40.00 points (after 3 of 70 epochs)"


def test_a_quantity_that_follows_from_another_is_not_counted():
    """Figure 1b's relative time at level 0 is 1 for everybody."""
    assert figure1b.EXPERIMENT.derived == (figure1b.RELATIVE,)
    cells = [cell(figure1b.RELATIVE, 1.0, 1.0), cell(figure1b.EPOCHS_TO_OVERFIT, 11.0, 10.0)]
    (found,) = agreements(cells, KEPT, figure1b.EXPERIMENT.derived)
    assert found.quantity == figure1b.EPOCHS_TO_OVERFIT


def test_a_largest_difference_is_that_of_the_largest_deviation():
    cells = [cell("norm", 300.0, 220.0), cell("norm", 5.0, 2.0)]
    assert [round(deviation(one), 3) for one in cells] == [0.364, 1.5]
    (found,) = agreements(cells, KEPT)
    assert found.largest == cells[1]
    assert found.largest_in_words == "+150%"
