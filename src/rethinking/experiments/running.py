"""The options for carrying out a list of runs. This module does not import PyTorch."""

from __future__ import annotations

from dataclasses import dataclass

from rethinking.config import DEVICES
from rethinking.config import device as device_check
from rethinking.errors import InputError
from rethinking.options import option


@dataclass(frozen=True, kw_only=True)
class Running:
    """The options that `reproduce` and `sweep` share: where runs are carried out, and where their results go."""

    device: tuple[str, ...] = option(
        ("auto",),
        "where to compute. Several devices, such as cuda:0 cuda:3, have a process each; auto and cuda take all visible"
        " CUDA cards, each with a process of its own",
        group="running",
        metavar=f"{DEVICES} ...",
    )
    precision: str = option(
        "auto",
        "the precision of training; kernel machines use fp32 with sums in float64, all others float64",
        group="running",
        metavar="auto|fp32|tf32|bf16",
    )
    at_once: str = option(
        "auto",
        "train this many runs at the same time; auto: as many as fit into memory, on a CPU one MLP for each thread",
        group="running",
        metavar="auto|N",
        changes_numbers=False,
    )
    ray: str | None = option(
        None,
        "train on the Ray cluster at this address; without an address at RAY_ADDRESS, or on this machine",
        group="running",
        metavar="ADDRESS",
        alone="",
        changes_numbers=False,
    )
    runs_shared: str = option(
        "auto",
        "whether the nodes of a Ray cluster see --runs_dir; auto looks. Where they do not, checkpoints travel",
        group="running",
        choices=("auto", "yes", "no"),
        changes_numbers=False,
    )
    dry_run: bool = option(
        False,
        "train nothing: list the runs, which of them are done, and how long the others should take on this machine",
        group="running",
        changes_numbers=False,
    )
    show_only: bool = option(
        False, "train nothing: show and write the results so far", group="running", changes_numbers=False
    )
    no_wait: bool = option(
        False,
        "do not wait for runs that another process is at work on: skip them and list them",
        group="running",
        changes_numbers=False,
    )
    out: str | None = option(
        None,
        "write the results here",
        group="running",
        metavar="FOLDER",
        default_text="a folder for this data and these runs",
        changes_numbers=False,
    )
    runs_dir: str = option(
        "runs",
        "keep run folders here, and find earlier runs here, including those of train.py",
        group="running",
        metavar="FOLDER",
        changes_numbers=False,
    )

    def _check_running(self) -> None:
        """Raises `InputError` for wrong values of the options above."""
        if self.at_once != "auto" and not (self.at_once.isdecimal() and int(self.at_once) > 0):
            raise InputError(f"at_once must be auto or a whole number from 1 on, not '{self.at_once}'")
        for name in self.device:
            if expected := device_check(name):
                raise InputError(f"device must be {expected}, not '{name}'")
        kinds = {name.partition(":")[0] for name in self.device}
        if len(self.device) > 1 and kinds not in ({"cuda"}, {"cpu"}):
            raise InputError(f"several devices are either cards or the CPU, not {' '.join(self.device)}")
        if self.runs_shared not in ("auto", "yes", "no"):
            raise InputError(f"runs_shared must be one of auto, yes, no, not '{self.runs_shared}'")
        if self.runs_shared != "auto" and self.ray is None:
            raise InputError("runs_shared goes with ray; leave it out")
        if self.ray is not None and (len(self.device) > 1 or ":" in self.device[0]):
            raise InputError("ray gives runs to the devices of its nodes; leave device out, or give auto, cpu or cuda")

    @property
    def one_device(self) -> str:
        """The option `device` of each run. Runs on several CUDA cards have the device 'cuda'."""
        return self.device[0] if len(self.device) == 1 else self.device[0].partition(":")[0]
