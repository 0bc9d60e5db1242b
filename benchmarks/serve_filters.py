"""Our side of `random_filters.py`: sums two chunks of filters and says what the second took, in a line of JSON.

Run with TRAIN, TEST (numbers of images) and a folder for the sums, and with `src` of the checkout on PYTHONPATH.
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

CHUNKS = 3  # the second neither makes the sums nor is the last, which is written in any case


def main(train: str, test: str, folder: str) -> None:
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
