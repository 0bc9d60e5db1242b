"""Measures of trained networks against dense matrices, enumeration and brute force."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rethinking.models import build_model, catalogue, initialize
from rethinking.seeding import generator
from rethinking.theory import complexity
from rethinking.theory.complexity import (
    distance_from_initialization,
    folded,
    frobenius_norm,
    margins,
    path_norm,
    sharpness,
    spectral_norms,
    weighted,
)


def images(count: int, channels: int = 3, side: int = 28, seed: int = 0) -> Tensor:
    return torch.randn(count, channels, side, side, generator=generator(seed, "images"))


def network(name: str, seed: int = 0) -> nn.Module:
    """Builds a network whose batch normalization statistics differ from their initial values."""
    model = build_model(name)
    initialize(model, "he" if name != "small_inception_no_bn" else "lecun", generator(seed, "init"))
    with torch.no_grad():
        model.train()
        model(images(32, seed=seed))
    return model.eval()


@pytest.mark.parametrize("name", catalogue.PAPER)
def test_a_folded_network_is_the_same_function_and_leaves_the_network_alone(name):
    model = network(name)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    made = folded(model)
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in made.modules())
    with torch.no_grad():
        torch.testing.assert_close(made(images(4).double()).float(), model(images(4)), rtol=1e-3, atol=1e-3)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_margins_are_the_distance_to_the_best_other_class():
    outputs = torch.tensor([[3.0, 1.0, 2.0], [0.0, 5.0, 1.0], [2.0, 2.0, 0.0]])
    assert margins(outputs, torch.tensor([0, 0, 1])).tolist() == [1.0, -5.0, 0.0]
    many, labels = torch.randn(100, 10, generator=generator(0, "outputs")), torch.arange(100) % 10
    right = many.argmax(dim=1) == labels
    assert torch.equal(margins(many, labels) > 0, right)
    assert torch.equal(margins(many + 7, labels) > 0, right)


@pytest.mark.parametrize("shift", [0.0, -100.0, 100.0])
def test_margins_are_right_for_shifted_outputs(shift):
    """Each margin is the label's output minus the largest other output, and may be negative."""
    outputs = torch.randn(50, 4, generator=generator(0, "outputs"), dtype=torch.float64) + shift
    labels = torch.arange(50) % 4
    expected = [
        row[label] - max(value for place, value in enumerate(row) if place != label)
        for row, label in zip(outputs.tolist(), labels.tolist(), strict=True)
    ]
    assert margins(outputs, labels).tolist() == pytest.approx(expected)


@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 3, "padding": 1},
        {"kernel_size": 5, "padding": 2},
        {"kernel_size": 3, "stride": 2, "padding": 1},
        {"kernel_size": 1},
        {"kernel_size": 3, "dilation": 2},
        {"kernel_size": 3, "groups": 2},
    ],
    ids=["3x3", "5x5", "stride 2", "1x1", "dilated", "in groups"],
)
def test_the_spectral_norm_of_a_convolution_is_that_of_its_dense_matrix(options):
    layer = nn.Conv2d(2, 4, **options).double()
    with torch.no_grad():
        basis = torch.eye(2 * 7 * 7, dtype=torch.float64).view(-1, 2, 7, 7)
        dense = (layer(basis) - layer(torch.zeros_like(basis))).flatten(1)
    (found,) = spectral_norms(layer, (2, 7, 7))
    assert found == pytest.approx(float(torch.linalg.svdvals(dense)[0]), rel=1e-6)


def test_spectral_norms_of_a_network_equal_those_of_its_layers_in_order():
    model = network("mlp_3x512")
    expected = [float(torch.linalg.matrix_norm(layer.weight.detach().double(), 2)) for layer in weighted(model)]
    assert spectral_norms(model, (3, 28, 28)) == pytest.approx(expected, rel=1e-5)
    assert spectral_norms(nn.Linear(3, 2).requires_grad_(False), (3, 1, 3))[0] > 0
    zero = nn.Linear(3, 2)
    nn.init.zeros_(zero.weight)
    assert spectral_norms(zero, (3, 1, 3)) == [0.0]


def test_the_frobenius_norm_is_of_all_weights():
    model = network("mlp_3x512")
    everything = torch.cat([layer.weight.flatten() for layer in weighted(model)])
    assert frobenius_norm(model) == pytest.approx(float(everything.detach().double().norm()), rel=1e-6)


def test_biases_do_not_count_in_the_frobenius_norm():
    """3, 4 and 12 are the weights, and sqrt(9 + 16 + 144) is 13, whatever the biases."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(2, 1), nn.ReLU(), nn.Linear(1, 1))
    with torch.no_grad():
        for tensor, value in zip(model.parameters(), ([[3.0, 4.0]], [100.0], [[12.0]], [-50.0]), strict=True):
            tensor.copy_(torch.tensor(value))
    assert frobenius_norm(model) == pytest.approx(13, rel=1e-12)


def test_the_path_norm_is_the_sum_over_paths():
    """Compares with a sum over all paths of a small network, including those from biases."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 2))
    layers = list(weighted(model))
    total = 0.0
    for start in range(3):  # the first layer's paths are from inputs, the others' from biases alone
        sizes = [layer.in_features for layer in layers[start:]] + [layers[-1].out_features]
        if start == 0:
            for path in itertools.product(*map(range, sizes)):
                total += math.prod(
                    float(layer.weight.detach()[b, a]) ** 2 for layer, a, b in zip(layers, path, path[1:], strict=False)
                )
        for path in itertools.product(*map(range, sizes[1:])):
            after = zip(layers[start + 1 :], path, path[1:], strict=False)
            rest = math.prod(float(layer.weight.detach()[b, a]) ** 2 for layer, a, b in after)
            total += float(layers[start].bias.detach()[path[0]]) ** 2 * rest
    assert path_norm(model, (1, 2, 2)) == pytest.approx(math.sqrt(total), rel=1e-6)


@pytest.mark.parametrize("name", catalogue.PAPER)
def test_the_path_norm_grows_with_the_weights_as_the_function_does(name):
    """Doubling the last layer and its bias doubles the norm."""
    model = network(name)
    norm = path_norm(model, (3, 28, 28))
    assert 0 < norm < math.inf
    *_, last = weighted(model)
    with torch.no_grad():
        last.weight.mul_(2)
        last.bias.mul_(2)
    assert path_norm(model, (3, 28, 28)) == pytest.approx(2 * norm, rel=1e-9)


def test_an_average_counts_every_path_once():
    """One channel, 3x3 places and weight 2 make nine paths of (2 / 9)^2."""
    model = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    nn.init.constant_(model[0].weight, 2.0)
    assert path_norm(model, (1, 3, 3)) == pytest.approx(math.sqrt(9 * (2 / 9) ** 2))


def test_maximum_pooling_counts_the_largest_of_its_path_sums():
    """With 3x3 places and a 3x3 kernel of ones, nine paths lead to the middle, and four or six to the others."""
    model = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1, bias=False), nn.MaxPool2d(3), nn.Flatten(), nn.Linear(1, 1))
    nn.init.ones_(model[0].weight)
    nn.init.constant_(model[3].weight, 2.0)
    nn.init.constant_(model[3].bias, 3.0)
    assert path_norm(model, (1, 3, 3)) == pytest.approx(math.sqrt(9 * 2**2 + 3**2))


def test_the_distance_from_initialization_is_of_what_is_trained():
    model, initial = network("small_inception", 0), network("small_inception", 0)
    assert distance_from_initialization(model, initial) == 0
    moved = [parameter for parameter in model.parameters() if parameter.requires_grad][3]
    with torch.no_grad():
        moved.add_(0.5)
    assert distance_from_initialization(model, initial) == pytest.approx(0.5 * math.sqrt(moved.numel()), rel=1e-6)


def test_running_statistics_do_not_count_as_distance():
    """They change in every forward pass, even at learning rate 0. The scale is not trained and does not count."""
    model, initial = build_model("small_inception"), build_model("small_inception")
    initial.load_state_dict(model.state_dict())
    with torch.no_grad():
        model.train()(images(8))
        for norm in (module for module in model.modules() if isinstance(module, nn.BatchNorm2d)):
            norm.weight.fill_(3.0)
    assert distance_from_initialization(model, initial) == 0


def test_sharpness_is_the_highest_loss_in_the_ball():
    """Compares with a search over the whole circle, for two weights."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(1, 2, bias=False))
    model[1].weight.data = torch.tensor([[0.7], [-0.4]])
    inputs, labels = torch.tensor([1.0, -2.0, 0.5, 3.0]).view(4, 1, 1, 1), torch.tensor([0, 1, 1, 0])
    found = sharpness(model, inputs, labels, 0.1)
    start = model[1].weight.data[:, 0].double()
    angles = torch.linspace(0, 2 * math.pi, 100_000, dtype=torch.float64)
    around = start + 0.1 * start.norm() * torch.stack([angles.cos(), angles.sin()], dim=1)
    logits = inputs.view(4, 1, 1).double() * around
    losses = F.cross_entropy(logits.flatten(0, 1), labels.repeat_interleave(len(angles)), reduction="none")
    at_start = F.cross_entropy(inputs.view(4, 1).double() * start, labels)
    highest = losses.view(4, -1).mean(dim=0).max()
    assert found == pytest.approx(float(highest - at_start), rel=1e-6)
    assert sharpness(model, inputs, labels, 0.0) == 0
    assert sharpness(model, inputs, labels, 0.2) > found


def test_sharpness_does_not_change_the_network_and_includes_batch_normalization(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(complexity, "ASCENTS", 2)
    model, some = network("small_inception"), images(8)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    assert sharpness(model, some, torch.arange(8), 0.01) > 0
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
