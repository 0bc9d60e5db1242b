"""The address of a number says what the number is, stays the same, and belongs to it alone."""

import pytest

from rethinking.experiments.experiment import Cell
from rethinking.report.addresses import Addresses

OF_TABLE1 = (("model", "mlp_3x512"), ("labels", "random"), ("random_crop", "no"), ("weight_decay", "no"))


def cell(labels: tuple[tuple[str, str], ...], quantity: str, x: float | None = None) -> Cell:
    return Cell(labels, quantity, x, 0.5, None, 1, None, "", ("run",))


@pytest.mark.parametrize(
    ("table", "one", "tabled", "address"),
    [
        ("table1", cell(OF_TABLE1, "test accuracy"), False, "table1-mlp_3x512-random-test"),
        (
            "table1",
            cell((*OF_TABLE1[:3], ("weight_decay", "yes")), "train accuracy"),
            False,
            "table1-mlp_3x512-random-weight_decay-train",
        ),
        (
            "figure1a",
            cell((("model", "m"), ("condition", "true_labels")), "training loss", 7.0),
            True,
            "figure1a-m-true_labels-7-training_loss",
        ),
        ("figure1c", cell((("model", "m"), ("level", "0.5")), "test error", 0.5), False, "figure1c-m-0.5-test"),
        (
            "expressivity",
            cell((("points", "images, true labels"),), "error"),
            False,
            "expressivity-images_true_labels-error",
        ),
        ("test", cell((("trained on", 'a "b" <c> %d#e'),), "gap"), False, "test-a_b_c_d_e-gap"),
        ("test", cell((("trained on", "häuser 猫"),), "gap"), False, "test-häuser_猫-gap"),
    ],
)
def test_an_address_has_the_table_the_factors_the_place_and_the_quantity(table, one, tabled, address):
    assert Addresses().of(table, one, tabled) == address


def test_what_would_have_the_same_address_is_counted():
    addresses = Addresses()
    pair = [cell((("class", name),), "gap") for name in ("a b", "a_b")]
    assert [addresses.of("test", one, False) for one in pair] == ["test-a_b-gap", "test-a_b-gap-2"]
