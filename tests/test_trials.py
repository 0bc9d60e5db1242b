"""The networks and orders of batches in `trials/`, which docs/differences.md compares with the package's."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from types import ModuleType

import pytest
import torch
from torch import nn

from rethinking.models import build_model, count_parameters
from rethinking.registry import load
from rethinking.seeding import generator
from tests.conftest import ROOT


def trial(file: str, name: str):
    return load(f"{ROOT / 'trials' / file}:{name}")


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("tensorflow_2016.py", "small_alexnet"),
        ("tensorflow_2016.py", "mlp_1x512"),
        ("truncated_normal.py", "small_alexnet"),
    ],
)
def test_a_network_is_the_papers_with_other_initial_weights(file, name):
    torch.manual_seed(0)
    network, papers = trial(file, name)(10, (3, 28, 28)), build_model(name)
    assert count_parameters(network) == count_parameters(papers)
    images = torch.rand(4, 3, 28, 28)
    own, weights = (
        [layer for layer in one.modules() if isinstance(layer, nn.Linear | nn.Conv2d)] for one in (network, papers)
    )
    with torch.no_grad():
        for layer, mine in zip(weights, own, strict=True):
            layer.weight.copy_(mine.weight)
            layer.bias.copy_(mine.bias)
        assert torch.allclose(network(images), papers(images), atol=1e-6)


def test_the_weights_of_the_tutorial_are_truncated_at_two_deviations():
    torch.manual_seed(0)
    layers = [
        layer
        for layer in trial("tensorflow_2016.py", "small_alexnet")(10, (3, 28, 28), conv_std=0.05).modules()
        if isinstance(layer, nn.Linear | nn.Conv2d)
    ]
    for layer, std in zip(layers, (0.05, 0.05, 0.04, 0.04, 1 / 192), strict=True):
        assert float(layer.weight.detach().abs().max()) <= 2 * std
        assert float(layer.weight.detach().std()) == pytest.approx(
            0.8796 * std, rel=0.1
        )  # of a normal cut at two deviations
    assert [float(layer.bias.detach()[0]) for layer in layers] == pytest.approx([0.0, 0.1, 0.1, 0.1, 0.0])


def test_the_tutorial_may_normalize_before_it_pools():
    build = trial("tensorflow_2016.py", "small_alexnet")
    first, second = (
        [type(layer).__name__ for layer in build(10, (3, 28, 28), norm_first=norm_first)]
        for norm_first in (False, True)
    )
    assert first[6:8] == ["MaxPool2d", "LocalResponseNorm"]
    assert second[6:8] == ["LocalResponseNorm", "MaxPool2d"]
    assert first[:6] + first[8:] == second[:6] + second[8:]


@pytest.fixture
def orders(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(ROOT / "trials"))
    import order_of_batches

    monkeypatch.setattr(order_of_batches, "BATCH", 10)
    monkeypatch.setattr(order_of_batches, "QUEUED", 20)
    yield order_of_batches
    del sys.modules["order_of_batches"]


def test_the_orders_are_a_permutation_whole_batches_and_a_queue(orders):
    permuted = [*itertools.islice(orders.permutation(45, 0), 10)]
    assert [len(rows) for rows in permuted] == [10, 10, 10, 10, 5] * 2
    for epoch, start in ((1, 0), (2, 5)):
        assert torch.equal(
            torch.cat(permuted[start : start + 5]), torch.randperm(45, generator=generator(0, "order", epoch))
        )
    whole = [*itertools.islice(orders.whole_batches(45, 0), 8)]
    assert all(torch.equal(*pair) for pair in zip(whole, permuted[:4] + permuted[5:9], strict=True))
    drawn = torch.cat([*itertools.islice(orders.queue(45, 0), 400)])
    assert int(drawn[:10].max()) < 29, "the queue holds the first 20 images, and one more after each draw"
    assert torch.bincount(drawn).float() == pytest.approx([4000 / 45] * 45, rel=0.1)


def test_its_loop_fits_random_labels(orders, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(orders, "EPOCHS", 5)
    monkeypatch.setattr(orders, "STEPS", 10)
    images = torch.randn(100, 3, 28, 28, generator=generator(0, "images"))
    labels = torch.randint(10, (100,), generator=generator(0, "labels"))
    found = orders.trained(images, labels, images[:50], labels[:50], orders.permutation, 0)
    assert found["train_accuracy"] == found["test_accuracy"] == 1.0
    assert found["epochs_to_overfit"] in (2, 3)
