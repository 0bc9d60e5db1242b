"""Serves `random_filters.py`: sums chunks of filters, and prints the time of the second in a line of JSON.

The arguments are the numbers of training and test images, and a folder for the sums. PYTHONPATH names the `src` folder
of the checkout that is measured.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path

import torch

from rethinking.theory.convolutional import CHUNK, FeatureGram
from rethinking.training.hardware import keep_freed_memory

CHUNKS = 3  # the first creates the sums, and the last is always written; so the second is timed


def main(train: str, test: str, folder: str) -> None:
    """Prints the seconds and the peak memory in bytes of the second chunk."""
    keep_freed_memory()
    draws = torch.Generator().manual_seed(0)
    images = torch.randint(256, (int(train) + int(test), 3, 32, 32), generator=draws, dtype=torch.uint8)
    of_training, of_test = images.split([int(train), int(test)])
    gram = FeatureGram(of_training, of_test, 0, Path(folder))
    first = None

    def advanced(share: float) -> None:
        nonlocal first
        if share > 1 / CHUNKS + 1e-9 and first is None:
            first = time.perf_counter()
        if share > 2 / CHUNKS + 1e-9:
            assert first is not None
            memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
            print(json.dumps({"seconds": time.perf_counter() - first, "memory": memory}))
            raise SystemExit

    gram.extend(CHUNKS * CHUNK, advanced)


if __name__ == "__main__":
    main(*sys.argv[1:])
