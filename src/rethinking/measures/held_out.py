"""Out-of-sample probabilities of training images, from runs that each leave one part out (cross-validation)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from rethinking.data.images import ImageData
from rethinking.errors import InputError
from rethinking.measures.asking import check_answers, logits, sets_of_all
from rethinking.steps import Steps, unwatched
from rethinking.training.preparation import kept_rows
from rethinking.training.run_dir import RunDir, RunResult

Probabilities = NDArray[np.float32]


def held_out_probabilities(
    runs: Sequence[RunResult], data: ImageData, images: int, begin: Steps = unwatched
) -> Probabilities:
    """Returns the probabilities of each image's classes by the networks that it was not trained on: (images, classes).

    runs: finished, and alike in all but the part that they leave out and their seeds. Of several runs that leave out
        one part, the mean is taken
    images: number of images for which the runs' labels are drawn

    Raises `InputError` where a run left no part out or is not finished, or a part was never left out. Raises `RunError`
    where a network does not give the answers of its run.
    """
    _check_parts(runs)
    every, _ = sets_of_all(runs[0], data)
    advanced, sums, counts = begin("asking the networks"), None, np.zeros((images, 1), np.float32)
    for number, run in enumerate(runs, 1):
        network, inside = run.network(), kept_rows(run.config, images)
        outside = torch.ones(images, dtype=torch.bool)
        outside[inside] = False
        rows = outside.nonzero()[:, 0]
        right = logits(network, every, inside).argmax(dim=1) == RunDir(run.path).labels()
        check_answers(run, right.double().mean().item())
        found = logits(network, every, rows).softmax(dim=1).numpy()
        sums = np.zeros((images, found.shape[1]), np.float32) if sums is None else sums
        sums[rows.numpy()] += found
        counts[rows.numpy()] += 1
        advanced(number / len(runs))
    assert sums is not None, "there are runs"
    return sums / counts


def _check_parts(runs: Sequence[RunResult]) -> None:
    there: dict[int, set[int]] = {}
    for run in runs:
        if run.config.left_out is None:
            raise InputError(f"{run.path} left no part out, as others did; train it with --left_out K/N")
        if not run.finished:
            raise InputError(f"{run.path} is not finished; the command that trains it goes on")
        part, parts = run.config.part_and_parts
        there.setdefault(parts, set()).add(part)
    if len(there) > 1:
        words = " and ".join(f"one of {parts}" for parts in sorted(there))
        raise InputError(f"the runs left out {words} parts; give runs with one number of parts")
    parts, found = next(iter(there.items()))
    if missing := {*range(1, parts + 1)} - found:
        lacking = f"{min(missing)}/{parts}"
        raise InputError(f"no run left out part {lacking}; train one with --left_out {lacking}")
