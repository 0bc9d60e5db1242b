"""Label noise by class, against its transition matrices."""

import numpy as np
import pytest
import torch

from rethinking import InputError, randomize
from rethinking.data import operators
from rethinking.data.draws import draw_by_class
from rethinking.seeding import Streams

MATRIX = [[0.5, 0.5, 0.0], [0.1, 0.7, 0.2], [0.0, 0.0, 1.0]]


def changed(name: str, probability: float | None, labels: torch.Tensor, classes: int = 10, seed: int = 0, **options):
    operator = operators.create(name, probability, options)
    return operator.change_labels(labels, classes, Streams(seed))


@pytest.mark.parametrize(
    ("name", "probability", "options", "classes"),
    [
        ("pair_flip", 0.45, {}, 10),
        ("pair_flip", 1.0, {}, 3),
        ("asymmetric", 0.4, {"flips": "cifar10"}, 10),
        ("asymmetric", 0.2, {"flips": "mnist"}, 10),
        ("asymmetric", 0.3, {"flips": [[0, 2], [1, 2]]}, 3),
        ("class_matrix", None, {"matrix": MATRIX}, 3),
    ],
)
def test_shares_of_new_classes_are_the_transition_matrix(name, probability, options, classes):
    labels = torch.arange(200_000) % classes
    new = changed(name, probability, labels, classes, **options)
    expected = operators.create(name, probability, options).transition(classes)
    assert torch.allclose(expected.sum(1), torch.ones(classes, dtype=torch.float64))
    counts = torch.zeros(classes, classes, dtype=torch.float64)
    counts.index_put_((labels, new), torch.ones(len(labels), dtype=torch.float64), accumulate=True)
    shares = counts / counts.sum(1, keepdim=True)
    deviation = (expected * (1 - expected) / counts.sum(1, keepdim=True)).sqrt()
    assert ((shares - expected).abs() <= 4.5 * deviation).all()


def test_the_matrices_are_those_of_the_literature():
    pair = operators.create("pair_flip", 0.25, {}).transition(4)
    np.testing.assert_allclose(pair, [[0.75, 0.25, 0, 0], [0, 0.75, 0.25, 0], [0, 0, 0.75, 0.25], [0.25, 0, 0, 0.75]])
    names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    moved = operators.create("asymmetric", 0.4, {"flips": "cifar10"}).transition(10)
    flips = {(names[true], names[new]) for true, new in (moved == 0.4).nonzero().tolist()}
    assert flips == {
        ("truck", "automobile"),
        ("bird", "airplane"),
        ("deer", "horse"),
        ("cat", "dog"),
        ("dog", "cat"),
    }
    kept = moved.diagonal().tolist()
    assert [name for name, share in zip(names, kept, strict=True) if share == 1] == [
        "airplane",
        "automobile",
        "frog",
        "horse",
        "ship",
    ]


def test_a_higher_probability_changes_the_same_labels_and_more():
    labels = torch.arange(1000) % 10
    few, many = (changed("pair_flip", probability, labels) != labels for probability in (0.2, 0.4))
    assert (few & ~many).sum() == 0
    assert 100 < few.sum() < many.sum()


def test_draws_follow_the_seed_and_the_purpose():
    labels, matrix = torch.arange(300) % 3, torch.tensor(MATRIX, dtype=torch.float64)
    assert torch.equal(draw_by_class(labels, matrix, 0), draw_by_class(labels, matrix, 0))
    for other in (draw_by_class(labels, matrix, 1), draw_by_class(labels, matrix, 0, "replacements")):
        assert not torch.equal(draw_by_class(labels, matrix, 0), other)


@pytest.mark.parametrize(
    ("name", "probability", "options", "said"),
    [
        ("pair_flip", None, {}, "pair_flip needs a corruption_prob between 0 and 1"),
        ("pair_flip", 1.2, {}, "corruption_prob must be between 0 and 1, not 1.2"),
        ("asymmetric", 0.2, {}, "asymmetric needs flips, which are one of cifar10, mnist, or pairs"),
        ("asymmetric", 0.2, {"flips": "cifar11"}, "not 'cifar11'"),
        ("asymmetric", 0.2, {"flips": [[1, 1]]}, "pairs of different classes"),
        ("asymmetric", 0.2, {"flips": [[1, 2, 3]]}, "pairs of different classes"),
        ("asymmetric", 0.2, {"flips": [[1, 2], [1, 3]]}, "each class to one other class only"),
        ("class_matrix", None, {}, "class_matrix needs a matrix"),
        ("class_matrix", None, {"matrix": [[1.0]] * 2}, "class_matrix needs a matrix"),
        ("class_matrix", None, {"matrix": [[0.5, 0.4], [0, 1]]}, "add up to 1; row 0 is not"),
        ("class_matrix", None, {"matrix": [[1, 0], [1.5, -0.5]]}, "add up to 1; row 1 is not"),
        ("class_matrix", 0.5, {"matrix": [[1, 0], [0, 1]]}, "corruption_prob goes with"),
    ],
)
def test_wrong_options_are_one_line(name, probability, options, said):
    with pytest.raises(InputError, match=said):
        operators.create(name, probability, options)


def test_options_that_do_not_fit_the_data_are_one_line():
    with pytest.raises(InputError, match="flips must be between classes from 0 to 3"):
        changed("asymmetric", 0.2, torch.zeros(5, dtype=torch.int64), 4, flips="mnist")
    with pytest.raises(InputError, match="matrix has 3 classes, and the data 10"):
        changed("class_matrix", None, torch.zeros(5, dtype=torch.int64), 10, matrix=MATRIX)


def test_randomize_takes_them_too():
    images, labels = np.zeros((60, 4, 4), np.uint8), np.arange(60) % 3
    made = randomize((images, labels), "class_matrix", matrix=MATRIX)
    assert set(made.data[1][labels == 2]) == {2}
    assert 0 < made.record.changed.sum() < 40
