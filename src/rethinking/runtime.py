"""What PyTorch and its OpenMP read from the environment, once, when they are loaded."""

import os

HUGE_PAGES = {"THP_MEM_ALLOC_ENABLE": "1"}  # for large tensors
SPINNING = {  # of a thread that waits for others, before it gives its core back
    "GOMP_SPINCOUNT": "10000",  # rounds, some tens of microseconds; else milliseconds: GNU's OpenMP
    "KMP_BLOCKTIME": "1",  # milliseconds, else 200: Intel's and LLVM's
}


def set_defaults() -> None:
    """Set what makes runs faster, alone and beside other processes, where the environment does not say otherwise.

    The processes that this one starts inherit it. Where PyTorch was imported before, it comes too late.
    """
    settings = HUGE_PAGES if "OMP_WAIT_POLICY" in os.environ else HUGE_PAGES | SPINNING
    for name, value in settings.items():
        os.environ.setdefault(name, value)
