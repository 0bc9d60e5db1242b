"""What trained networks are like: measures that generalization has been said to follow. Beyond the paper.

A network is measured as it computes in evaluation mode, with batch normalization `folded` into the convolutions before
it, in float64. Weights are those of convolutions and linear layers; biases count only where it says so.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from rethinking.models.alexnet import LocalResponseNorm
from rethinking.seeding import generator

Weighted = nn.Conv2d | nn.Linear

ITERATIONS = 300  # of Lanczos' method at most
SETTLED = 1e-12  # relative change of the square of a spectral norm from which on it stays
ASCENTS = 20  # steps of gradient ascent to the sharpest point in reach


def folded(model: nn.Module) -> nn.Module:
    """A copy in evaluation mode and float64, each batch normalization folded into the convolution before it."""
    made = copy.deepcopy(model).eval().double().requires_grad_(False)
    for part in made.modules():
        children = list(part.named_children())
        for (name, layer), (after, norm) in itertools.pairwise(children):
            if isinstance(layer, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(part, name, fuse_conv_bn_eval(layer, norm))
                setattr(part, after, nn.Identity())
    return made


def weighted(model: nn.Module) -> Iterator[Weighted]:
    """The layers with weights, in their order."""
    return (layer for layer in model.modules() if isinstance(layer, nn.Conv2d | nn.Linear))


def margins(outputs: Tensor, labels: Tensor) -> Tensor:
    """f_y - max_{j != y} f_j of each example, (n,), of outputs (n, classes) and labels int64 (n,).

    Negative where the example is mistaken. Divided by the product of `spectral_norms` it is a normalized margin after
    Bartlett, Foster & Telgarsky 2017, "Spectrally-normalized margin bounds for neural networks", without the norm of
    the data and the correction by the norms of columns, which their bound has as factors. Theirs is of layers one after
    the other: where branches run side by side, as in an Inception, the product of all norms is no Lipschitz constant.
    """
    of_label = outputs.gather(1, labels[:, None])[:, 0]
    others = outputs.scatter(1, labels[:, None], -math.inf)
    return of_label - others.amax(dim=1)


def frobenius_norm(model: nn.Module) -> float:
    """sqrt(sum of all squared weights): Neyshabur, Tomioka & Srebro 2015, "Norm-based capacity control"."""
    return math.sqrt(sum(float(layer.weight.square().sum()) for layer in weighted(folded(model))))


def spectral_norms(model: nn.Module, image_shape: tuple[int, int, int]) -> list[float]:
    """The largest singular value of each layer with weights, as the linear map it is on inputs of its size.

    Of a convolution that of its whole map with padding and stride, not of its kernel as a matrix. In the bound of
    Bartlett, Foster & Telgarsky 2017. `image_shape` is (channels, height, width).
    """
    return [_spectral_norm(layer, shape) for layer, shape in inputs_of_layers(folded(model), image_shape)]


def _spectral_norm(layer: Weighted, shape: tuple[int, ...]) -> float:
    """By Lanczos' method on A'A, every vector orthogonalized: of A it needs no more than what it does to an input."""
    right = torch.randn(math.prod(shape), dtype=torch.float64, generator=generator(0, "lanczos"))
    basis = (right / right.norm())[None]
    diagonal: list[Tensor] = []
    beside: list[Tensor] = []
    largest = 0.0
    for _ in range(ITERATIONS):
        inputs = basis[-1].view(shape).requires_grad_()
        outputs = _without_bias(layer, inputs)
        (right,) = torch.autograd.grad(outputs, inputs, outputs.detach())
        right = right.flatten()
        diagonal.append(right @ basis[-1].detach())
        for _ in range(2):
            right = right - basis.T @ (basis @ right)
        across = torch.diag(torch.stack(diagonal))
        if beside:
            across = across + torch.diag(torch.stack(beside), 1) + torch.diag(torch.stack(beside), -1)
        before, largest = largest, float(torch.linalg.eigvalsh(across)[-1])
        length = right.norm()
        if length <= SETTLED * largest or largest - before < SETTLED * largest:
            break
        beside.append(length)
        basis = torch.cat([basis.detach(), (right / length)[None]])
    return math.sqrt(max(0.0, largest))


def inputs_of_layers(model: nn.Module, image_shape: tuple[int, int, int]) -> list[tuple[Weighted, tuple[int, ...]]]:
    """Each layer with weights, of a network in float64, and the shape of its input for one image."""
    found: list[tuple[Weighted, tuple[int, ...]]] = []
    hooks = [
        layer.register_forward_hook(lambda layer, inputs, _: found.append((layer, tuple(inputs[0].shape))))
        for layer in weighted(model)
    ]
    model(torch.zeros(1, *image_shape, dtype=torch.float64))
    for hook in hooks:
        hook.remove()
    return found


def _without_bias(layer: Weighted, inputs: Tensor) -> Tensor:
    if isinstance(layer, nn.Linear):
        return F.linear(inputs, layer.weight)
    return F.conv2d(inputs, layer.weight, None, layer.stride, layer.padding, layer.dilation, layer.groups)


def path_norm(model: nn.Module, image_shape: tuple[int, int, int]) -> float:
    """sqrt(sum over paths from inputs and biases to outputs of the product of squared weights on the path).

    By one pass of ones through the network with its weights and biases squared: Neyshabur, Salakhutdinov & Srebro 2015,
    "Path-SGD", whose networks have layers of weights and ReLUs alone. Of the rest: of what comes to a place of maximum
    pooling, the paths of the one with the largest sum count; averages are weights 1/k; local response normalization,
    which is no weight and lets at most all through, is left out. `image_shape` is (channels, height, width).
    """
    squared = folded(model)
    for layer in weighted(squared):
        layer.weight.square_()
        if layer.bias is not None:
            layer.bias.square_()
    for part in list(squared.modules()):
        for name, child in part.named_children():
            if isinstance(child, LocalResponseNorm):
                setattr(part, name, nn.Identity())
            elif isinstance(child, nn.AdaptiveAvgPool2d):
                setattr(part, name, _SquaredAverage())
    return math.sqrt(float(squared(torch.ones(1, *image_shape, dtype=torch.float64)).sum()))


class _SquaredAverage(nn.Module):
    """The sum over all places of each channel with the weights of an average squared."""

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs.mean(dim=(2, 3), keepdim=True) / inputs[0, 0].numel()


def distance_from_initialization(model: nn.Module, initial: nn.Module) -> float:
    """The norm of the difference of all trainable parameters: Nagarajan & Kolter 2019.

    "Generalization in deep networks: the role of distance from initialization". `initial` is the network untrained.
    Raises `ValueError` where the two have not as many parameters.
    """
    pairs = zip(model.parameters(), initial.parameters(), strict=True)
    trained = [(p.detach().double(), q.detach().double()) for p, q in pairs if p.requires_grad]
    return math.sqrt(sum(float((after - before).square().sum()) for after, before in trained))


def sharpness(model: nn.Module, images: Tensor, labels: Tensor, size: float) -> float:
    """How far the loss rises within the ball |d| <= size |w| around the weights w, biases among them, in nats.

    max L(w + d) - L(w), L the mean cross-entropy of `images`, float (n, channels, height, width), and `labels`, int64
    (n,), in evaluation mode; `size` is a number relative to the norm of the weights. It is
    found by gradient ascent from w, so a lower bound. After Keskar et al. 2017, "On large-batch training for deep
    learning", with the ball of Foret et al. 2021, "Sharpness-aware minimization".
    """
    moved = folded(model)
    weights = [parameter.requires_grad_() for parameter in moved.parameters()]
    start = [weight.detach().clone() for weight in weights]
    radius, exact = size * _norm(start), images.double()
    if radius == 0:
        return 0.0

    def loss() -> Tensor:
        return F.cross_entropy(moved(exact), labels)

    at_start = highest = float(loss().detach())
    for _ in range(ASCENTS):
        gradients = torch.autograd.grad(loss(), weights)
        length = _norm(gradients)
        if length == 0:
            break
        with torch.no_grad():
            for weight, gradient in zip(weights, gradients, strict=True):
                weight += gradient * (radius / length / 2)
            away = [weight - origin for weight, origin in zip(weights, start, strict=True)]
            back = min(1.0, radius / _norm(away))
            for weight, origin, step in zip(weights, start, away, strict=True):
                weight.copy_(origin + back * step)
        highest = max(highest, float(loss().detach()))
    return highest - at_start


def _norm(tensors: list[Tensor] | tuple[Tensor, ...]) -> float:
    return math.sqrt(sum(float(tensor.square().sum()) for tensor in tensors))
