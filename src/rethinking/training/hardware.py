"""Chooses device and precision, and records the provenance of a run's numbers."""

from __future__ import annotations

import contextlib
import ctypes
import datetime
import platform
import subprocess
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from rethinking.errors import InputError

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's mallopt, see malloc.h


@dataclass(frozen=True)
class Machine:
    """The devices that a training of runs is planned for, such as those of a cluster's nodes.

    native_bf16: whether a device computes in bfloat16, by 'cuda', 'mps' and 'cpu'; a device that is not there is absent
    """

    native_bf16: Mapping[str, bool]

    @classmethod
    def here(cls) -> Machine:
        """Returns the devices of this machine."""
        there = [kind for kind, available in _available().items() if available]
        return cls({kind: has_native_bf16(torch.device(kind)) for kind in there})


_planned_for: ContextVar[Machine | None] = ContextVar("planned_for", default=None)


@contextlib.contextmanager
def planning_for(machine: Machine) -> Iterator[None]:
    """Makes `preparation.resolve` choose device and precision for another machine, in this thread."""
    before = _planned_for.set(machine)
    try:
        yield
    finally:
        _planned_for.reset(before)


def planned_machine() -> Machine | None:
    """Returns the machine of `planning_for`; None for this machine."""
    return _planned_for.get()


def _available() -> dict[str, bool]:
    return {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}


def resolve_device(name: str, machine: Machine | None = None) -> torch.device:
    """Returns the device of a name. 'auto' is CUDA, else Apple's MPS, else the CPU; 'cuda:1' is the second CUDA card.

    machine: has the device; by default this machine

    Raises `InputError` for a device that the machine lacks.
    """
    if machine is not None:
        return _device_of(machine, name)
    available = _available()
    if name == "auto":
        name = next(kind for kind, there in available.items() if there)
    kind, _, card = name.partition(":")
    if not available[kind]:
        raise InputError(f"device {name} is not available here; use one of auto, cpu")
    if card and int(card) >= (cards := torch.cuda.device_count()):
        raise InputError(f"device {name} is not available here; the cards are cuda:0 to cuda:{cards - 1}")
    return torch.device(name)


def _device_of(machine: Machine, name: str) -> torch.device:
    there = [kind for kind in ("cuda", "mps", "cpu") if kind in machine.native_bf16]
    kind, _, card = name.partition(":")
    if name != "auto" and kind not in there:
        raise InputError(f"device {name} is not available on the cluster; use one of auto, {', '.join(there)}")
    if card:
        raise InputError(f"device {name} names a card, which the cluster chooses itself; use cuda")
    return torch.device(there[0] if name == "auto" else kind)


def use_card(name: str) -> None:
    """Makes the card of 'cuda:1' and the like the one that 'cuda' means in this thread. Other names change nothing."""
    if name.startswith("cuda:"):
        torch.cuda.set_device(name)


def only_card(card: int, visible: str | None) -> str:
    """Returns the value of CUDA_VISIBLE_DEVICES with which a new process sees one CUDA card alone.

    card: the number of the card, as this process counts: 1 for 'cuda:1'
    visible: the value that this process has, such as '2,5' or UUIDs; None where the variable is not set
    """
    return str(card) if visible is None else visible.split(",")[card].strip()


def resolve_precision(name: str, device: torch.device, machine: Machine | None = None) -> str:
    """Returns 'fp32', 'tf32' or 'bf16'. 'auto' is bf16 where the hardware has it natively, else fp32.

    machine: has the device; by default this machine

    Raises `InputError` for tf32 without CUDA.
    """
    if name == "tf32" and device.type != "cuda":
        raise InputError(f"precision tf32 needs CUDA, not {device.type}; use one of auto, fp32, bf16")
    if name != "auto":
        return name
    native = has_native_bf16(device) if machine is None else machine.native_bf16[device.type]
    return "bf16" if native else "fp32"


def choose_products(precision: str) -> None:
    """Makes CUDA round the factors of fp32 products to TF32 for 'tf32' only.

    By default PyTorch rounds them in convolutions.
    """
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"


def has_native_bf16(device: torch.device) -> bool:
    """Returns whether the hardware computes in bfloat16: CUDA from Ampere on, and CPUs with AVX512-BF16 or AMX."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu":
        return False
    if hasattr(torch.cpu, "get_capabilities"):
        capabilities = torch.cpu.get_capabilities()
        return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
    private = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")  # PyTorch up to 2.11 has only these
    return any(getattr(torch.cpu, name, lambda: False)() for name in private)


def provenance(device: torch.device, precision: str) -> dict[str, Any]:
    """Returns what produced a number besides its configuration: versions, hardware, precision, threads and the day.

    The day is the one in UTC on which the sitting begins, such as '2026-11-28'. Runs of version 0.1.0 have none.
    """
    versions = {
        "python": platform.python_version(),
        "rethinking-generalization": version("rethinking-generalization"),
        "torch": str(torch.__version__),
        "numpy": version("numpy"),
    }
    return {
        "versions": versions,
        "commit": _commit(),
        "hardware": _device_name(device),
        "device": device.type,
        "precision": precision,
        "cpu_threads": torch.get_num_threads(),
        "platform": platform.platform(),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }


def _commit() -> str | None:
    """Returns the commit of this checkout, marked where files differ from it; None for an installed copy."""
    here = Path(__file__)

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(here.parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", here.name)  # fails for a copy installed inside another repository
        return git("describe", "--always", "--dirty", "--abbrev=12", "--exclude=*")
    except (OSError, subprocess.SubprocessError):
        return None


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    named = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return f"{next(named, platform.machine())}, {torch.backends.cpu.get_cpu_capability()}"


def keep_freed_memory() -> None:
    """Makes glibc keep the large blocks that this process frees.

    Otherwise glibc returns them to the system, which zeroes and maps them again at every step of a large network.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):  # other C libraries have no `mallopt`
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, 1 << 30)
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
