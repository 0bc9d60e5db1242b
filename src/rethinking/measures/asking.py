"""Asks the networks of finished runs about images, those that a run left out included."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from rethinking.config import ExperimentConfig
from rethinking.data.batches import Batches
from rethinking.data.images import ImageData
from rethinking.errors import RunError
from rethinking.training.evaluation import BATCH_SIZE
from rethinking.training.preparation import plain_sets
from rethinking.training.run_dir import RunResult

TOLERANCE = 0.02  # of an accuracy that is measured in another precision


def sets_of_all(run: RunResult, data: ImageData) -> tuple[Batches, Batches | None]:
    """Returns all images for which the run's labels and pixels were drawn, as the training and the test set.

    They are on the run's device where this machine has it, else on the CPU. Labels of a file (`--labels`) are not read
    again: the data's own labels are in their place.
    """
    device = run.config.device if run.config.device == "cuda" and torch.cuda.is_available() else "cpu"
    return plain_sets(replace(_of_all(run.config), device=device), data)


def _of_all(config: ExperimentConfig) -> ExperimentConfig:
    """Returns the configuration without a file of labels, and with the images that it leaves out."""
    own_labels = replace(config, labels=None, labels_column=None, labels_digest=None)
    return replace(own_labels, subset_share=None, subset_seed=0, left_out=None)


def check_answers(run: RunResult, accuracy: float) -> None:
    """Raises `RunError` where the accuracy on the run's own images is not the one that the run measured."""
    measured = run.final["exact_train_accuracy"]
    if measured is not None and abs(measured - accuracy) > TOLERANCE:
        raise RunError(
            f"the network of {run.path} gets {accuracy:.1%} of its training images right here, and {measured:.1%} in"
            " its run; it was trained on other images or labels"
        )


@torch.no_grad()
def logits(network: nn.Module, images: Batches, rows: Tensor) -> Tensor:
    """Returns the network's outputs in evaluation mode for the images at `rows`, int64 (n,): float32 (n, classes)."""
    device = images.labels.device
    network.to(device).eval()
    parts = [network(images.images(part.to(device))).float().cpu() for part in rows.split(BATCH_SIZE)]
    return torch.cat(parts)
