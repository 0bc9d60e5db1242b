"""Asks the networks of finished runs about images, those that a run left out included."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rethinking.data import given_labels
from rethinking.data.batches import Batches
from rethinking.data.draws import subset_rows
from rethinking.data.images import ImageData
from rethinking.errors import RunError
from rethinking.training.evaluation import BATCH_SIZE
from rethinking.training.preparation import plain_sets
from rethinking.training.run_dir import RunResult

TOLERANCE = 0.02  # of an accuracy that is measured in another precision; of few images, `BORDERLINE` of them
BORDERLINE = 5


def sets_of_all(run: RunResult, data: ImageData, labels: NDArray[np.int64]) -> tuple[Batches, Batches | None]:
    """Returns all images for which the run's labels and pixels were drawn, as the training and the test set.

    labels: of these images, int64 (n,), as the runs kept them. So a file of labels (`--labels`) is not read again

    The images are on the run's device where this machine has it, else on the CPU.
    """
    device = run.config.device if run.config.device == "cuda" and torch.cuda.is_available() else "cpu"
    config = replace(run.config, subset_share=None, subset_seed=0, left_out=None, device=device)
    if config.labels is not None:
        of_all = data.train.labels.copy()
        of_all[subset_rows(len(of_all), config.train_subset).numpy()] = labels
        given_labels.provide([of_all])
        config = replace(config, labels_digest=given_labels.digest(of_all))
    train, test = plain_sets(config, data)
    train.labels = torch.from_numpy(labels).to(train.labels.device)
    return train, test


def check_answers(run: RunResult, accuracy: float) -> None:
    """Raises `RunError` where the accuracy on the run's own images is not the one that the run measured."""
    measured = run.final["exact_train_accuracy"]
    if measured is not None and abs(measured - accuracy) > max(TOLERANCE, BORDERLINE / run.result["train_images"]):
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
