"""The paper's networks with the initial weights of TensorFlow's CIFAR-10 tutorial of its time.

    python train.py --model trials/tensorflow_2016.py:small_alexnet --num_epochs 70

The paper does not state its initial weights. The tutorial has the layers of small AlexNet. Its weights are normal,
truncated at two standard deviations, and most biases begin at 0.1. `docs/differences.md` says what came of it.
"""

# Add --crop_size 28 for the paper's images. This is a comment, since a changed docstring would rename the runs.

import math

from torch import nn

from rethinking.models.alexnet import LocalResponseNorm


def small_alexnet(
    num_classes: int,
    input_shape: tuple[int, int, int],
    conv_std: float = 1e-4,
    norm_first: bool = False,
) -> nn.Module:
    """Returns small AlexNet for images (channels, side, side).

    conv_std: of the weights of both convolutions: 1e-4 in the tutorial until the middle of 2016, 0.05 after it
    norm_first: whether the second block normalizes before it pools, as the tutorial does, and the paper does not
    """
    channels, side, _ = input_shape
    for _ in range(2):
        side = (side + 1) // 2
    first, second = (nn.Conv2d(inputs, 64, kernel_size=5, padding=2) for inputs in (channels, 64))
    hidden = [nn.Linear(64 * side * side, 384), nn.Linear(384, 192)]
    last = nn.Linear(192, num_classes)
    for layer, std, bias in (
        (first, conv_std, 0.0),
        (second, conv_std, 0.1),
        (hidden[0], 0.04, 0.1),
        (hidden[1], 0.04, 0.1),
        (last, 1 / 192, 0.0),
    ):
        _draw(layer, std, bias)
    pools = [nn.MaxPool2d(kernel_size=3, stride=2, padding=1) for _ in range(2)]
    norms = [LocalResponseNorm(64) for _ in range(2)]
    ends = [norms[1], pools[1]] if norm_first else [pools[1], norms[1]]
    return nn.Sequential(
        first, nn.ReLU(), pools[0], norms[0],
        second, nn.ReLU(), *ends,
        nn.Flatten(), hidden[0], nn.ReLU(), hidden[1], nn.ReLU(), last,
    )  # fmt: skip


def mlp_1x512(num_classes: int, input_shape: tuple[int, int, int], std: float = 0.04, bias: float = 0.1) -> nn.Module:
    """Returns MLP 1x512. Both layers have weights of this standard deviation and biases of this value."""
    hidden, last = nn.Linear(math.prod(input_shape), 512), nn.Linear(512, num_classes)
    for layer in (hidden, last):
        _draw(layer, std, bias)
    return nn.Sequential(nn.Flatten(), hidden, nn.ReLU(), last)


def _draw(layer: nn.Linear | nn.Conv2d, std: float, bias: float) -> None:
    """Draws the weights from a normal distribution of this deviation, truncated at two of them."""
    nn.init.trunc_normal_(layer.weight, std=std, a=-2 * std, b=2 * std)
    assert layer.bias is not None
    nn.init.constant_(layer.bias, bias)
