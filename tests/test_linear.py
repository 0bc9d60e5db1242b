"""Compares `rethinking.linear` with PyTorch's linear maps: values, derivatives, and cases that it leaves alone."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from rethinking import linear as room
from rethinking.linear import Linear, linear

SHAPES = [(128, 2352, 512), (80, 512, 512), (7, 512, 10), (1, 3, 5), (33, 1, 1)]
onednn_alone = pytest.mark.skipif(not room.HAS_ONEDNN, reason="needs oneDNN and AVX512")


def draws(rows: int, inputs: int, outputs: int, dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    stream = torch.Generator().manual_seed(0)
    shapes = ((rows, inputs), (outputs, inputs), (outputs,))
    return [torch.randn(shape, generator=stream, dtype=dtype).requires_grad_() for shape in shapes]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("with_bias", [True, False])
def test_values_and_gradients_equal_those_of_float64(shape: tuple[int, int, int], with_bias: bool) -> None:
    tensors = draws(*shape)[: 3 if with_bias else 2]
    exact = [tensor.detach().double().requires_grad_() for tensor in tensors]
    ours, theirs = linear(*tensors), F.linear(*exact)
    torch.testing.assert_close(ours.double(), theirs, rtol=1e-4, atol=1e-3)
    weights = torch.linspace(-1, 1, ours.numel()).view_as(ours)
    gradients = torch.autograd.grad((ours * weights).sum(), tensors)
    expected = torch.autograd.grad((theirs * weights).sum(), exact)
    for gradient, value in zip(gradients, expected, strict=True):
        assert gradient.dtype == torch.float32
        torch.testing.assert_close(gradient.double(), value, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("dimensions", [1, 3])
def test_it_takes_inputs_of_any_number_of_dimensions(dimensions: int) -> None:
    inputs = torch.randn((2, 4, 6)[3 - dimensions :]).requires_grad_()
    weight, bias = torch.randn(5, 6).requires_grad_(), torch.randn(5).requires_grad_()
    torch.testing.assert_close(linear(inputs, weight, bias), F.linear(inputs, weight, bias))
    ours = torch.autograd.grad(linear(inputs, weight, bias).square().sum(), (inputs, weight, bias))
    theirs = torch.autograd.grad(F.linear(inputs, weight, bias).square().sum(), (inputs, weight, bias))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_it_has_second_derivatives() -> None:
    inputs, weight, bias = draws(4, 6, 5)

    def curvature(of: object) -> tuple[torch.Tensor, ...]:
        loss = of(inputs, weight, bias).tanh().square().sum()  # type: ignore[operator]
        first = torch.autograd.grad(loss, (inputs, weight, bias), create_graph=True)
        return torch.autograd.grad(sum(one.square().sum() for one in first), (inputs, weight, bias))

    torch.testing.assert_close(curvature(linear), curvature(F.linear), rtol=1e-4, atol=1e-4)


@onednn_alone
def test_only_float32_goes_through_onednn(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    product = room._product
    monkeypatch.setattr(room, "_product", lambda *tensors: calls.append(1) or product(*tensors))
    layer = Linear(6, 5)
    layer(torch.randn(4, 6)).sum().backward()
    assert len(calls) == 2  # the inputs need no gradient
    calls.clear()
    assert copy.deepcopy(layer).double()(torch.randn(4, 6, dtype=torch.float64)).dtype == torch.float64
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(torch.randn(4, 6)).dtype == torch.bfloat16
    assert layer(torch.randn(0, 6)).shape == (0, 5)
    mapped = torch.vmap(lambda one: F.linear(one, layer.weight, layer.bias))(torch.randn(3, 4, 6))
    torch.testing.assert_close(torch.vmap(layer)(torch.ones(3, 4, 6)), layer(torch.ones(3, 4, 6)))
    assert mapped.shape == (3, 4, 5)
    assert len(calls) == 1  # the one call above that is no other's


def test_each_network_of_a_stack_has_its_own_gradient() -> None:
    layer = Linear(6, 5)
    weights, inputs = torch.randn(3, 5, 6), torch.randn(3, 4, 6)

    def loss(weight: torch.Tensor, some: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(layer, {"weight": weight, "bias": layer.bias}, (some,)).square().sum()

    stacked = torch.vmap(torch.func.grad(loss))(weights, inputs)
    for weight, some, gradient in zip(weights, inputs, stacked, strict=True):
        torch.testing.assert_close(gradient, 2 * (F.linear(some, weight, layer.bias).T @ some), rtol=1e-4, atol=1e-4)


def test_it_counts_as_a_linear_layer() -> None:
    layer = Linear(6, 5)
    assert isinstance(layer, nn.Linear)
    assert layer.state_dict().keys() == nn.Linear(6, 5).state_dict().keys()


@pytest.mark.parametrize("layout", ["part of the columns", "transposed", "transposed part", "every second", "one row"])
def test_every_memory_layout_gives_the_same_values(layout: str) -> None:
    whole = torch.randn(40, 40)
    views = {
        "part of the columns": whole[:, 3:20],
        "transposed": whole.T,
        "transposed part": whole[2:30, :20].T,
        "every second": whole[::2, ::2],
        "one row": whole[:1].expand(9, -1),
    }
    view = views[layout]
    torch.testing.assert_close(linear(view, view), (view.double() @ view.double().T).float(), rtol=1e-4, atol=1e-4)


@onednn_alone
def test_a_part_of_a_matrix_reaches_onednn_as_a_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    """oneDNN would take a part too, but a thousand times slower."""
    given = []

    def product(inputs: torch.Tensor, weight: torch.Tensor, *_: object) -> torch.Tensor:
        given.append(weight)
        return F.linear(inputs, weight)

    monkeypatch.setattr(torch.ops.mkldnn, "_linear_pointwise", product)
    whole = torch.randn(40, 40)
    for weight in (whole[:, 3:20], whole[:17, :30].T[:, :17], whole[::2, ::2]):
        linear(torch.randn(4, weight.shape[1]), weight)
    assert all(weight.is_contiguous() or weight.T.is_contiguous() for weight in given)
    assert len(given) == 3
