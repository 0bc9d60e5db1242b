"""The only place random state is made: one independent stream for each purpose, derived by name.

Nothing here is saved or restored. The stream for the order of epoch 17 is a function of the seed and the words
`"order", 17`, so any epoch can be replayed alone and no knob shifts the draws of another.
"""

from __future__ import annotations

import contextlib
import hashlib
import random
import threading
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch


def generator(seed: int, *purpose: str | int) -> torch.Generator:
    """A CPU generator for one purpose of one seed, such as `generator(seed, "order", epoch)`.

    Streams are drawn on the CPU whatever device the run uses, so every device sees the same numbers. Distinct
    purposes give streams as unrelated as SHA-256 makes their 64-bit seeds.
    """
    return torch.Generator(device="cpu").manual_seed(_derived(seed, *purpose))


def _derived(seed: int, *purpose: str | int) -> int:
    name = "/".join(str(part) for part in (seed, *purpose))
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")


class Streams(NamedTuple):
    """The streams of one seed, by purpose: `streams("labels", "which")` is a generator.

    purpose: words that are added to each, so that draws for something else are others
    """

    seed: int
    purpose: tuple[str, ...] = ()

    def __call__(self, *purpose: str | int) -> torch.Generator:
        return generator(self.seed, *purpose, *self.purpose)


_global_state = threading.RLock()


@contextlib.contextmanager
def global_streams(seed: int, *purpose: str | int) -> Iterator[None]:
    """Code in here draws from PyTorch's, NumPy's and Python's global generators as one purpose of one seed.

    It is for code that is not ours, such as a network's constructor or its dropout. The generators are put back
    afterwards. One thread at a time.
    """
    with _global_state:
        devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
        python, numpy = random.getstate(), np.random.get_state()
        derived = _derived(seed, *purpose)
        with torch.random.fork_rng(devices):
            torch.manual_seed(derived)
            random.seed(derived)
            np.random.seed(derived % 2**32)
            try:
                yield
            finally:
                random.setstate(python)
                np.random.set_state(numpy)
