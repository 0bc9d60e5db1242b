"""Small AlexNet whose layers all begin with weights of one deviation, and biases of one value.

    python train.py --model trials/truncated_normal.py:small_alexnet --model_options "std=0.1" --num_epochs 70

TensorFlow's tutorials for MNIST drew all weights from a normal distribution of deviation 0.1, truncated at two of them,
and set all biases to 0.1. `docs/differences.md` says what came of it.
"""

# Add --crop_size 28 for the paper's images. This is a comment, since a changed docstring would rename the runs.

from torch import nn

from rethinking import models


def small_alexnet(
    num_classes: int, input_shape: tuple[int, int, int], std: float = 0.1, bias: float = 0.1
) -> nn.Module:
    """Returns the package's small AlexNet with these initial weights and biases."""
    network = models.build_model("small_alexnet", num_classes, input_shape)
    for layer in network.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            nn.init.trunc_normal_(layer.weight, std=std, a=-2 * std, b=2 * std)
            assert layer.bias is not None
            nn.init.constant_(layer.bias, bias)
    return network
