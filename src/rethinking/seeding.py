"""The only place random state is made: one independent stream for each purpose, derived by name.

Nothing here is saved or restored. The stream for the order of epoch 17 is a function of the seed and the words
`"order", 17`, so any epoch can be replayed alone and no knob shifts the draws of another.
"""

import hashlib

import torch


def generator(seed: int, *purpose: str | int) -> torch.Generator:
    """A CPU generator for one purpose of one seed, such as `generator(seed, "order", epoch)`.

    Streams are drawn on the CPU whatever device the run uses, so every device sees the same numbers. Distinct
    purposes give streams as unrelated as SHA-256 makes their 64-bit seeds.
    """
    name = "/".join(str(part) for part in (seed, *purpose))
    derived = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
    return torch.Generator(device="cpu").manual_seed(derived)
