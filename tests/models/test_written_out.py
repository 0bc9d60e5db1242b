"""Compares each network of Table 1 with its layers written out, constants by value and weights by position."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rethinking.models import build_model, catalogue
from rethinking.seeding import generator


def images(count: int = 6) -> Tensor:
    """Images bright enough that local response normalization is not close to the identity."""
    return 30 * torch.randn(count, 3, 28, 28, generator=generator(0, "images"))


def network(name: str) -> nn.Module:
    """Builds a network with random weights, shifts, running statistics and scales of batch normalization."""
    model, draws = build_model(name), generator(0, "weights")
    for key, tensor in model.state_dict().items():
        if not tensor.is_floating_point():
            continue
        if tensor.dim() > 1:
            tensor.normal_(0, (2 / tensor[0].numel()) ** 0.5, generator=draws)
        elif "bias" in key or "mean" in key:
            tensor.normal_(0, 0.5, generator=draws)
        else:
            tensor.uniform_(0.5, 2, generator=draws)
    return model


def mlp_1x512(x: Tensor, w: Iterator[Tensor], _: bool) -> Tensor:
    x = F.relu(F.linear(x.reshape(-1, 2352), next(w), next(w)))
    return F.linear(x, next(w), next(w))


def mlp_3x512(x: Tensor, w: Iterator[Tensor], _: bool) -> Tensor:
    x = F.relu(F.linear(x.reshape(-1, 2352), next(w), next(w)))
    x = F.relu(F.linear(x, next(w), next(w)))
    x = F.relu(F.linear(x, next(w), next(w)))
    return F.linear(x, next(w), next(w))


def small_alexnet(x: Tensor, w: Iterator[Tensor], _: bool) -> Tensor:
    """Appendix A: convolution, ReLU, maximum pooling, local response normalization, twice."""
    for _ in range(2):
        x = F.relu(F.conv2d(x, next(w), next(w), padding=2))
        x = F.max_pool2d(x, 3, stride=2, padding=1)
        x = F.local_response_norm(x, 9, alpha=0.001, beta=0.75, k=1.0)
    x = x.reshape(-1, 3136)
    x = F.relu(F.linear(x, next(w), next(w)))
    x = F.relu(F.linear(x, next(w), next(w)))
    return F.linear(x, next(w), next(w))


def small_inception(x: Tensor, w: Iterator[Tensor], training: bool) -> Tensor:
    """Figure 3: convolution, batch normalization, ReLU. In training, running statistics change too."""

    def module(x: Tensor, size: int, stride: int = 1) -> Tensor:
        x = F.conv2d(x, next(w), stride=stride, padding=size // 2)
        scale, shift, running_mean, running_variance, count = (next(w) for _ in range(5))
        mean, variance = running_mean.clone(), running_variance.clone()
        if training:
            values = x.transpose(0, 1).flatten(1)
            mean, variance = values.mean(1), values.var(1, correction=0)
            running_mean.mul_(0.9).add_(0.1 * mean)
            running_variance.mul_(0.9).add_(0.1 * values.var(1, correction=1))
            count.add_(1)
        x = (x - mean[:, None, None]) / (variance[:, None, None] + 1e-5).sqrt()
        return F.relu(scale[:, None, None] * x + shift[:, None, None])

    return figure_3(x, module, w)


def small_inception_no_bn(x: Tensor, w: Iterator[Tensor], _: bool) -> Tensor:
    def module(x: Tensor, size: int, stride: int = 1) -> Tensor:
        return F.relu(F.conv2d(x, next(w), next(w), stride=stride, padding=size // 2))

    return figure_3(x, module, w)


def figure_3(x, module, w: Iterator[Tensor]) -> Tensor:
    def inception(x: Tensor) -> Tensor:
        return torch.cat([module(x, 1), module(x, 3)], dim=1)

    def downsample(x: Tensor) -> Tensor:
        return torch.cat([module(x, 3, stride=2), F.max_pool2d(x, 3, stride=2, padding=1)], dim=1)

    x = module(x, 3)
    x = downsample(inception(inception(x)))
    x = downsample(inception(inception(inception(inception(x)))))
    x = inception(inception(x))
    return F.linear(x.mean(dim=(2, 3)), next(w), next(w))


WRITTEN_OUT = {
    "small_inception": small_inception,
    "small_inception_no_bn": small_inception_no_bn,
    "small_alexnet": small_alexnet,
    "mlp_1x512": mlp_1x512,
    "mlp_3x512": mlp_3x512,
}


@pytest.mark.parametrize("training", [False, True], ids=["evaluating", "training"])
@pytest.mark.parametrize("name", WRITTEN_OUT)
def test_a_network_is_the_function_that_is_written_out(name, training):
    """In training, the running statistics after one step agree too."""
    model = network(name).train(training)
    copied = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    tensors = iter(copied.values())
    expected = WRITTEN_OUT[name](images(), tensors, training)
    assert not [*tensors], "weights that are not used"
    with torch.no_grad():
        outputs = model(images())
    torch.testing.assert_close(outputs, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
    for key, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, copied[key], rtol=1e-4, atol=1e-4, msg=key)


def test_every_network_of_table_1_is_written_out():
    assert WRITTEN_OUT.keys() <= {*catalogue.PAPER}
    assert len(WRITTEN_OUT) == 5


@pytest.mark.parametrize("name", WRITTEN_OUT)
def test_gradients_equal_those_of_the_function_that_is_written_out(name):
    model = network(name)
    labels = torch.arange(6)
    copied = [tensor.clone() for tensor in model.state_dict().values()]
    trained = [
        tensor.requires_grad_()
        for tensor, parameter in zip(copied, model.state_dict(keep_vars=True).values(), strict=True)
        if parameter.requires_grad
    ]
    F.cross_entropy(WRITTEN_OUT[name](images() / 30, iter(copied), True), labels).backward()
    F.cross_entropy(model.train()(images() / 30), labels).backward()
    of_model = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for mine, written in zip(of_model, trained, strict=True):
        torch.testing.assert_close(mine.grad, written.grad, rtol=1e-2, atol=1e-3 * float(written.grad.abs().max()))
