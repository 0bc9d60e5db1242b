import math

import pytest
import torch
from torch import nn

from rethinking.errors import InputError
from rethinking.experiments.paper import read_table
from rethinking.models import build_model, catalogue, count_parameters, initialize, is_convolutional
from rethinking.models.alexnet import LocalResponseNorm
from rethinking.models.inception import ConvModule
from rethinking.seeding import generator


def test_the_catalogue_has_the_papers_five_networks():
    assert {row["model"] for row in read_table("table1")} == set(catalogue.PAPER)


@pytest.mark.parametrize("name", catalogue.PAPER)
def test_trainable_parameters_equal_table_1_to_the_unit(name):
    counts = {int(row["parameters"]) for row in read_table("table1") if row["model"] == name}
    assert counts == {count_parameters(build_model(name))}


def shapes_along(model: nn.Module, kinds: tuple[type, ...], side: int, channels: int = 3) -> list[tuple[int, ...]]:
    """Returns (channels, height, width) after each layer of these kinds at the top of `model`, in order."""
    shapes = []
    hooks = [
        layer.register_forward_hook(lambda _, __, output: shapes.append(tuple(output.shape[1:])))
        for layer in model.children()
        if isinstance(layer, kinds)
    ]
    with torch.no_grad():
        model.eval()(torch.zeros(1, channels, side, side))
    for hook in hooks:
        hook.remove()
    return shapes


@pytest.mark.parametrize("name", ["small_inception", "small_inception_no_bn"])
@pytest.mark.parametrize(("side", "half", "quarter"), [(28, 14, 7), (32, 16, 8), (224, 112, 56)])
def test_inception_has_figure_3s_channels_and_halves_twice(name, side, half, quarter):
    model = build_model(name, input_shape=(3, side, side))
    shapes = shapes_along(model, (ConvModule, *{type(layer) for layer in list(model)[1:4]}), side)
    channels = [96, 64, 80, 160, 160, 160, 160, 144, 240, 336, 336]
    sides = [side] * 3 + [half] * 5 + [quarter] * 3
    assert shapes == [(c, s, s) for c, s in zip(channels, sides, strict=True)]


@pytest.mark.parametrize(("side", "half", "quarter"), [(28, 14, 7), (32, 16, 8), (29, 15, 8), (224, 112, 56)])
def test_alexnet_pools_halve_and_feed_384_192_10(side, half, quarter):
    model = build_model("small_alexnet", input_shape=(3, side, side))
    assert shapes_along(model, (nn.MaxPool2d,), side) == [(64, half, half), (64, quarter, quarter)]
    linear = [(layer.in_features, layer.out_features) for layer in model if isinstance(layer, nn.Linear)]
    assert linear == [(64 * quarter * quarter, 384), (384, 192), (192, 10)]


@pytest.mark.parametrize("name", catalogue.PAPER)
@pytest.mark.parametrize("shape", [(3, 28, 28), (1, 28, 28), (3, 32, 32), (1, 45, 45), (3, 224, 224)])
def test_every_model_takes_every_allowed_input(name, shape):
    model = build_model(name, num_classes=7, input_shape=shape)
    with torch.no_grad():
        assert model(torch.randn(2, *shape)).shape == (2, 7)


@pytest.mark.parametrize("shape", [(2, 28, 28), (3, 28, 32), (3, 27, 27), (3, 225, 225)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(InputError, match="28 to 224"):
        build_model("mlp_1x512", input_shape=shape)


def test_an_unknown_model_is_refused():
    with pytest.raises(InputError, match="small_alexnet"):
        build_model("alexnet")


def test_batch_normalization_learns_a_shift_and_no_scale():
    model = build_model("small_inception")
    trainable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    norms = [name for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(norms) == 19  # 1 + 8 inception modules of 2 + 2 downsample modules
    assert all(f"{name}.bias" in trainable and f"{name}.weight" not in trainable for name in norms)
    assert not any(isinstance(m, nn.Conv2d) and m.bias is not None for m in model.modules())


def test_the_variant_without_batch_normalization_has_none():
    model = build_model("small_inception_no_bn")
    assert not any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    assert all(module.bias is not None for module in model.modules() if isinstance(module, nn.Conv2d))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_local_response_normalization_equals_the_frameworks_own(layout):
    x = (torch.randn(2, 64, 6, 6, generator=generator(0, "test")) * 50).contiguous(memory_format=layout)
    expected = nn.LocalResponseNorm(9, alpha=0.001, beta=0.75, k=1.0)(x)
    torch.testing.assert_close(LocalResponseNorm(64)(x), expected, rtol=1e-5, atol=1e-5)


def test_local_response_normalization_is_exact_under_autocast():
    x = torch.randn(2, 64, 3, 3, generator=generator(0, "test")) * 50
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(LocalResponseNorm(64)(x), nn.LocalResponseNorm(9, 0.001, 0.75, 1.0)(x))


def test_local_response_normalization_rounds_once_in_bfloat16():
    x = (torch.randn(2, 64, 3, 3, generator=generator(0, "test")) * 50).bfloat16()
    assert torch.equal(LocalResponseNorm(64)(x), LocalResponseNorm(64)(x.float()).bfloat16())


def test_gradients_of_local_response_normalization_equal_those_of_finite_differences():
    x = torch.randn(2, 12, 2, 3, generator=generator(0, "test"), dtype=torch.float64) * 30
    norm = LocalResponseNorm(12, alpha=0.01).double()
    assert torch.autograd.gradcheck(norm, x.requires_grad_(), check_undefined_grad=False)


def test_gradients_of_local_response_normalization_are_exact_under_autocast():
    x = torch.randn(2, 64, 3, 3, generator=generator(0, "test")) * 50
    gradients = []
    for lowered in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=lowered):
            gradients += torch.autograd.grad(LocalResponseNorm(64)(x.requires_grad_()).square().sum(), x)
    assert torch.equal(*gradients)


def test_gradients_of_stacked_local_response_normalization_are_each_runs_own():
    x = torch.randn(3, 2, 12, 2, 3, generator=generator(0, "test")) * 30
    norm = LocalResponseNorm(12)

    def gradient(x: torch.Tensor) -> torch.Tensor:
        return torch.func.grad(lambda x: norm(x).pow(3).sum())(x)

    torch.testing.assert_close(torch.vmap(gradient)(x), torch.stack([gradient(one) for one in x]))


def test_a_second_derivative_of_local_response_normalization_is_refused():
    x = torch.ones(1, 12, 1, 1, requires_grad=True)
    (first,) = torch.autograd.grad(LocalResponseNorm(12)(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


def test_small_alexnet_pools_before_relu_with_the_same_bits():
    """A ReLU of the maximum is the maximum of the ReLUs, and so are its gradients."""
    ours = build_model("small_alexnet")
    textbook = nn.Sequential(*ours)
    for pool in (1, 5):
        textbook[pool], textbook[pool + 1] = nn.ReLU(), nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
    images = torch.randn(4, 3, 28, 28, generator=generator(0, "test"))
    outputs, gradients = [], []
    for model in (ours, textbook):
        outputs.append(model(images))
        outputs[-1].square().sum().backward()
        gradients.append([parameter.grad.clone() for parameter in ours.parameters()])
        ours.zero_grad()
    assert torch.equal(*outputs)
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))


@pytest.mark.parametrize("name", catalogue.PAPER)
@pytest.mark.parametrize("scheme", ["he", "lecun", "xavier", "pytorch"])
def test_initial_weights_have_the_schemes_variance(name, scheme):
    model = build_model(name)
    initialize(model, scheme, generator(0, "init"))
    layers = [module for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    for layer in layers:
        fan_in = math.prod(layer.weight.shape[1:])
        fan_out = layer.weight.numel() // layer.weight.shape[1]
        variance = {
            "he": (1 if layer is layers[-1] else 2) / fan_in,
            "lecun": 1 / fan_in,
            "xavier": 2 / (fan_in + fan_out),
            "pytorch": 1 / (3 * fan_in),
        }[scheme]
        tolerance = 6 * math.sqrt(2 / layer.weight.numel())  # six standard errors of a normal sample's variance
        assert layer.weight.var().item() == pytest.approx(variance, rel=tolerance)
        if layer.bias is not None and scheme != "pytorch":
            assert not layer.bias.any()


def test_initial_weights_are_a_function_of_the_seed_alone():
    def weights(seed: int) -> torch.Tensor:
        model = build_model("small_alexnet")
        initialize(model, "pytorch", generator(seed, "init"))
        return nn.utils.parameters_to_vector(model.parameters())

    assert torch.equal(weights(0), weights(0))
    assert not torch.equal(weights(0), weights(1))


def test_the_pytorch_scheme_draws_from_the_frameworks_distribution():
    """Compares bounds and moments with `reset_parameters`, which draws from the global stream."""
    framework = nn.Linear(400, 300)
    ours = nn.Sequential(nn.Linear(400, 300))
    initialize(ours, "pytorch", generator(0, "init"))
    for theirs, mine in ((framework.weight, ours[0].weight), (framework.bias, ours[0].bias)):
        assert mine.abs().max() <= 1 / 20
        assert mine.std().item() == pytest.approx(theirs.std().item(), rel=0.15)


def test_convolutional_models_are_distinguished_from_mlps():
    assert [name for name in catalogue.PAPER if is_convolutional(build_model(name))] == [
        "small_inception",
        "small_inception_no_bn",
        "small_alexnet",
    ]
