"""Out-of-sample probabilities of training images, from runs that each leave one part out (cross-validation)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from rethinking.data.images import ImageData
from rethinking.measures.asking import check_answers, logits, sets_of_all
from rethinking.steps import Steps, unwatched
from rethinking.training.preparation import kept_rows
from rethinking.training.run_dir import RunResult

Probabilities = NDArray[np.float32]


def held_out_probabilities(
    runs: Sequence[RunResult], data: ImageData, labels: NDArray[np.int64], begin: Steps = unwatched
) -> Probabilities:
    """Returns the probabilities of each image's classes by the networks that it was not trained on: (n, classes).

    runs: of which `lacking_parts` says that nothing is lacking, alike in all but the part that they leave out and their
        seeds. Of several runs that leave out one part, the mean is taken
    labels: of all images, those that a run left out included, int64 (n,)

    Raises `RunError` where a network does not give the answers of its run.
    """
    images = len(labels)
    every, _ = sets_of_all(runs[0], data, labels)
    advanced, sums, counts = begin("asking the networks"), None, np.zeros((images, 1), np.float32)
    for number, run in enumerate(runs, 1):
        network, inside = run.network(), kept_rows(run.config, images)
        outside = torch.ones(images, dtype=torch.bool)
        outside[inside] = False
        rows = outside.nonzero()[:, 0]
        right = logits(network, every, inside).argmax(dim=1).numpy() == labels[inside.numpy()]
        check_answers(run, float(right.mean()))
        found = logits(network, every, rows).softmax(dim=1).numpy()
        sums = np.zeros((images, found.shape[1]), np.float32) if sums is None else sums
        sums[rows.numpy()] += found
        counts[rows.numpy()] += 1
        advanced(number / len(runs))
    assert sums is not None, "there are runs"
    return sums / counts


def lacking_parts(runs: Sequence[RunResult]) -> str:
    """Says in a line why images lack held-out probabilities; empty where a finished run left out each of them."""
    there: dict[int, set[int]] = {}
    for run in runs:
        if run.config.left_out is None:
            return f"{run.path.name} left no part out"
        if not run.finished:
            return f"{run.path.name} is not finished"
        part, parts = run.config.part_and_parts
        there.setdefault(parts, set()).add(part)
    if len(there) > 1:
        return f"the runs left out {' and '.join(f'one of {parts}' for parts in sorted(there))} parts"
    parts, found = next(iter(there.items()))
    missing = {*range(1, parts + 1)} - found
    return f"no run left out part {min(missing)}/{parts} (--left_out)" if missing else ""
