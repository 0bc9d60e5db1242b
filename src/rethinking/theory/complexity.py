"""Measures of trained networks that others have proposed to explain generalization. They go beyond the paper.

Each measure uses the network in evaluation mode, in float64, with batch normalization `folded` into the convolution
before it. "Weights" are the weights of convolutions and linear layers. Biases count only where a docstring says so.
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

ITERATIONS = 300  # at most, of Lanczos' method
SETTLED = 1e-12  # relative change of a squared spectral norm below which it has converged
ASCENTS = 20  # steps of gradient ascent to the sharpest point within reach


def folded(model: nn.Module) -> nn.Module:
    """A copy in evaluation mode and float64, with each batch normalization folded into the convolution before it."""
    made = copy.deepcopy(model).eval().double().requires_grad_(False)
    for part in made.modules():
        children = list(part.named_children())
        for (name, layer), (after, norm) in itertools.pairwise(children):
            if isinstance(layer, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(part, name, fuse_conv_bn_eval(layer, norm))
                setattr(part, after, nn.Identity())
    return made


def weighted(model: nn.Module) -> Iterator[Weighted]:
    """The convolutions and linear layers, in order."""
    return (layer for layer in model.modules() if isinstance(layer, nn.Conv2d | nn.Linear))


def margins(outputs: Tensor, labels: Tensor) -> Tensor:
    r"""The margin of each example, $f_y - \max_{j \ne y} f_j$: (n,), for outputs (n, classes) and labels int64 (n,).

    A margin is negative where the example is misclassified. Divided by the product of `spectral_norms`, it is a
    normalized margin after Bartlett, Foster & Telgarsky 2017, "Spectrally-normalized margin bounds for neural
    networks". Their bound has two more factors, which are left out here: the norm of the data, and a correction by the
    norms of columns. Their bound holds for layers in sequence. With parallel branches, as in an Inception, the product
    of all norms is not a Lipschitz constant.
    """
    of_label = outputs.gather(1, labels[:, None])[:, 0]
    others = outputs.scatter(1, labels[:, None], -math.inf)
    return of_label - others.amax(dim=1)


def frobenius_norm(model: nn.Module) -> float:
    """The root of the sum of all squared weights.

    After Neyshabur, Tomioka & Srebro 2015, "Norm-based capacity control in neural networks".
    """
    return math.sqrt(sum(float(layer.weight.square().sum()) for layer in weighted(folded(model))))


def spectral_norms(model: nn.Module, image_shape: tuple[int, int, int]) -> list[float]:
    """The largest singular value of each layer with weights, as a linear map on inputs of the layer's size.

    A convolution counts as its whole linear map, with padding and stride, not as its kernel reshaped to a matrix. The
    norms stand in the bound of Bartlett, Foster & Telgarsky 2017. `image_shape` is (channels, height, width).
    """
    return [_spectral_norm(layer, shape) for layer, shape in inputs_of_layers(folded(model), image_shape)]


def _spectral_norm(layer: Weighted, shape: tuple[int, ...]) -> float:
    """Lanczos' method on A'A with full orthogonalization. It needs only products of A with vectors."""
    right = torch.randn(math.prod(shape), dtype=torch.float64, generator=generator(0, "lanczos"))
    basis = (right / right.norm())[None]
    diagonal: list[Tensor] = []
    off_diagonal: list[Tensor] = []
    largest = 0.0
    for _ in range(ITERATIONS):
        inputs = basis[-1].view(shape).requires_grad_()
        outputs = _without_bias(layer, inputs)
        (right,) = torch.autograd.grad(outputs, inputs, outputs.detach())
        right = right.flatten()
        diagonal.append(right @ basis[-1].detach())
        for _ in range(2):
            right = right - basis.T @ (basis @ right)
        tridiagonal = torch.diag(torch.stack(diagonal))
        if off_diagonal:
            tridiagonal = (
                tridiagonal + torch.diag(torch.stack(off_diagonal), 1) + torch.diag(torch.stack(off_diagonal), -1)
            )
        before, largest = largest, float(torch.linalg.eigvalsh(tridiagonal)[-1])
        length = right.norm()
        if length <= SETTLED * largest or largest - before < SETTLED * largest:
            break
        off_diagonal.append(length)
        basis = torch.cat([basis.detach(), (right / length)[None]])
    return math.sqrt(max(0.0, largest))


def inputs_of_layers(model: nn.Module, image_shape: tuple[int, int, int]) -> list[tuple[Weighted, tuple[int, ...]]]:
    """Each layer with weights of a float64 network, and the shape of its input for one image."""
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
    r"""The path norm $\sqrt{\sum_p \prod_{w \in p} w^2}$, over all paths p from inputs and biases to outputs.

    It is computed by one pass of ones through the network with squared weights and biases. The definition is from
    Neyshabur, Salakhutdinov & Srebro 2015, "Path-SGD", for networks of weights and ReLUs alone. For other layers: max
    pooling keeps the paths of the input with the largest sum; an average over k inputs has weights 1/k; local response
    normalization has no weights, never amplifies, and is left out. `image_shape` is (channels, height, width).
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
    """The sum over each channel's places, weighted with an average's squared weights."""

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs.mean(dim=(2, 3), keepdim=True) / inputs[0, 0].numel()


def distance_from_initialization(model: nn.Module, initial: nn.Module) -> float:
    """The Euclidean distance of all trainable parameters from their initial values.

    After Nagarajan & Kolter 2019, "Generalization in deep networks: the role of distance from initialization".
    `initial` is the untrained network. Raises `ValueError` where the numbers of parameters differ.
    """
    pairs = zip(model.parameters(), initial.parameters(), strict=True)
    trained = [(p.detach().double(), q.detach().double()) for p, q in pairs if p.requires_grad]
    return math.sqrt(sum(float((after - before).square().sum()) for after, before in trained))


def sharpness(model: nn.Module, images: Tensor, labels: Tensor, size: float) -> float:
    r"""The rise of the loss near the weights, $\max_{|d| \le \rho |w|} L(w + d) - L(w)$, in nats.

    L is the mean cross-entropy in evaluation mode on `images`, float (n, channels, height, width), and `labels`, int64
    (n,). Here w are weights and biases, and $\rho$ is `size`, relative to their norm. Gradient ascent from w finds a
    lower bound. After Keskar et al. 2017, "On large-batch training for deep learning", with the ball of Foret et al.
    2021, "Sharpness-aware minimization".
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
