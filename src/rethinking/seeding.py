"""Makes all random generators: one independent stream for each purpose, derived by name.

No state is saved or restored. The stream for the order of epoch 17 depends only on the seed and the words
`"order", 17`. Any epoch can therefore be replayed alone, and no option shifts the draws of another.
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
    """Returns a CPU generator for one purpose of one seed, such as `generator(seed, "order", epoch)`.

    All devices see the same numbers, since streams are drawn on the CPU. The SHA-256 of seed and purpose gives the
    generator's 64-bit seed, so that streams of different purposes are unrelated.
    """
    return torch.Generator(device="cpu").manual_seed(_derived(seed, *purpose))


def _derived(seed: int, *purpose: str | int) -> int:
    name = "/".join(str(part) for part in (seed, *purpose))
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")


class Streams(NamedTuple):
    """The streams of one seed by purpose: `streams("labels", "which")` is a generator.

    purpose: words added to every purpose, so that two `Streams` of one seed differ
    """

    seed: int
    purpose: tuple[str, ...] = ()

    def __call__(self, *purpose: str | int) -> torch.Generator:
        """Returns the generator of a purpose."""
        return generator(self.seed, *purpose, *self.purpose)


_global_state = threading.RLock()


@contextlib.contextmanager
def global_streams(seed: int, *purpose: str | int) -> Iterator[None]:
    """Seeds PyTorch's, NumPy's and Python's global generators for one purpose, and restores them afterwards.

    It serves foreign code, such as the constructor or the dropout of a user's own network. One thread at a time may
    hold it; others wait.
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
