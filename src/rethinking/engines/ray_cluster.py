"""Starts a Ray cluster on this machine or connects to one, and tells what its nodes have."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import logging
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from rethinking import files
from rethinking.errors import InputError, RunError, in_one_line
from rethinking.training.cores import usable_cores

NOT_INSTALLED = "Ray is not installed: pip install 'rethinking-generalization[ray]'"
PATIENCE = 30  # seconds in which a cluster must answer
OBJECT_STORE = 80 << 20  # bytes; Ray takes no less than 75 MiB, and keeps on disk what does not fit
ANSWERS = "import sys; from ray._raylet import GcsClient; GcsClient(address=sys.argv[1])"  # waits for an answer
SHORT = 24  # characters of a folder in which the paths of Ray's sockets stay below the system's limit of 107
NO_TOKEN = "AuthenticationError"  # Ray's error for a missing or wrong token
SILENT = logging.CRITICAL + 1


@dataclass(frozen=True)
class Node:
    """A node of the cluster that is alive.

    resources: Ray's names, such as 'CPU', 'GPU' and 'memory', the last in bytes
    """

    name: str
    address: str
    resources: Mapping[str, float]

    def holds(self, needed: Mapping[str, float]) -> int:
        """Returns how many tasks with these needs the node holds at once; 0 where it never holds one."""
        return min(int(self.resources.get(name, 0.0) // amount) for name, amount in needed.items() if amount)


@dataclass(frozen=True)
class Cluster:
    """A connection to Ray.

    ray: the package `ray`, initialized
    is_local: whether the cluster was started by `connected` and is this machine alone
    """

    ray: Any
    is_local: bool

    def nodes(self) -> list[Node]:
        """Returns the nodes that are alive."""
        return [
            Node(node["NodeID"], node["NodeManagerAddress"], node["Resources"])
            for node in self.ray.nodes()
            if node["Alive"]
        ]


@contextlib.contextmanager
def connected(address: str | None) -> Iterator[Cluster]:
    """Connects to the cluster at `address`, else at `RAY_ADDRESS`, else starts one on this machine until the end.

    Where this process is connected to Ray already, that connection is used and stays.

    Raises `InputError` where Ray is not installed, nobody answers, or versions of Ray or Python differ.
    """
    if importlib.util.find_spec("ray") is None:
        raise InputError(NOT_INSTALLED)
    given, address = address, address or os.environ.get("RAY_ADDRESS") or "local"
    if address != "local" and not _is_initialized():
        _check_answers(address)  # before the import, which reads the environment
    ray = importlib.import_module("ray")
    if ray.is_initialized():
        there = str(ray.get_runtime_context().gcs_address)
        if ":" in (given or "") and str(given).rpartition(":")[2] != there.rpartition(":")[2]:
            raise InputError(f"this process is connected to the Ray cluster at {there} already, and not to {given}")
        yield Cluster(ray, is_local=ray.get_runtime_context().gcs_address in _started_here)
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    with _quiet(ray), contextlib.ExitStack() as held:
        if address == "local":
            held.enter_context(_started(ray))
        else:
            _initialize(ray, address, {})
        held.callback(ray.shutdown)
        yield Cluster(ray, is_local=address == "local")


def _is_initialized() -> bool:
    """Returns whether this process is connected to Ray already."""
    return "ray" in sys.modules and bool(sys.modules["ray"].is_initialized())


_started_here: set[str] = set()  # addresses of clusters that `connected` started


@contextlib.contextmanager
def _started(ray: Any) -> Iterator[None]:
    """Starts a cluster on this machine. Its files are in a folder of its own, which is removed at the end."""
    mode, token = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN")
    if mode not in os.environ and "RAY_AUTH_TOKEN_PATH" not in os.environ:
        os.environ.setdefault(token, secrets.token_hex(32))  # else Ray writes one into the home folder
    usual = tempfile.gettempdir()
    with files.temporary_folder("rt-", usual if len(usual) <= SHORT else "/tmp") as folder:
        options = {
            "num_cpus": len(usable_cores()),
            "include_dashboard": False,
            "object_store_memory": OBJECT_STORE,
            "_temp_dir": str(folder),
        }
        try:
            _initialize(ray, "local", options)
            here = ray.get_runtime_context().gcs_address
            _started_here.add(here)
            yield
            _started_here.discard(here)
        finally:
            ray.shutdown()


def _initialize(ray: Any, address: str, options: dict[str, Any]) -> None:
    on_end = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address, log_to_driver=False, configure_logging=False, **options)
    except Exception as error:  # Ray raises many types
        ray.shutdown()
        where = "on this machine" if address == "local" else f"at {address}"
        hint = "" if address != "auto" else "; if the cluster asks for a token, set RAY_AUTH_MODE=token"
        raise InputError(f"cannot use Ray {where}: {in_one_line(error, 600)}{hint}") from None
    if on_end is not None and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, on_end)  # Ray's own would end the process without a word


def _check_answers(address: str) -> None:
    """Raises `InputError` unless a cluster answers within `PATIENCE`. Ray itself tries for minutes or ends the process.

    The address 'auto', for which Ray looks on this machine, is not checked.
    """
    if "://" in address:
        raise InputError(f"Ray's address must be HOST:PORT, such as 10.0.0.1:6379, or auto, not {address}")
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    if not (host and port.isdigit() and int(port) < 1 << 16):
        raise InputError(f"Ray's address must be HOST:PORT, such as 10.0.0.1:6379, or auto, not {address}")
    nobody = f"no Ray cluster answers at {address}; start one with `ray start --head`, or check the address"
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=PATIENCE / 3).close()
    except OSError as error:
        raise InputError(f"{nobody} ({error})") from None
    said = _said(address, os.environ)
    if NO_TOKEN in said and "RAY_AUTH_MODE" not in os.environ:  # `ray start` asks for tokens where the user has one
        said = _said(address, {**os.environ, "RAY_AUTH_MODE": "token"})
        if not said:
            os.environ["RAY_AUTH_MODE"] = "token"
    if NO_TOKEN in said:
        raise InputError(
            f"the Ray cluster at {address} asks for a token: copy its ~/.ray/auth_token here, or set RAY_AUTH_TOKEN"
        )
    if said:
        raise InputError(f"{nobody} ({said[:300]})")


def _said(address: str, environment: Mapping[str, str]) -> str:
    """Returns why a process with these environment variables cannot use the cluster at an address; '' where it can."""
    command = [sys.executable, "-c", ANSWERS, address]
    try:
        asked = subprocess.run(command, env=dict(environment), timeout=PATIENCE, capture_output=True, text=True)
    except subprocess.TimeoutExpired:
        return f"no answer in {PATIENCE} seconds"
    last = " ".join(asked.stderr.splitlines()[-1:])
    return (last or f"exit status {asked.returncode}") if asked.returncode else ""


@contextlib.contextmanager
def _quiet(ray: Any) -> Iterator[None]:
    """Keeps Ray's own messages off the console. Ours say the same in one line."""
    logger, worker = logging.getLogger("ray"), ray._private.worker
    level, shown = logger.level, getattr(worker, "_worker_logs_enabled", True)
    logger.setLevel(SILENT)
    worker._worker_logs_enabled = False  # has no public name; it hides what Ray says about workers that died
    try:
        yield
    finally:
        logger.setLevel(level)
        worker._worker_logs_enabled = shown


def token_in(runs_dir: Path) -> Path:
    """Writes an empty file with a new name into a folder, which shows whether nodes see the folder.

    The files of drivers that were killed on this machine are removed. Raises `RunError` where the folder cannot be
    written.
    """
    ours = f".ray-{socket.gethostname()}-"
    token = runs_dir / f"{ours}{os.getpid()}-{secrets.token_hex(4)}"
    try:
        runs_dir.mkdir(parents=True, exist_ok=True)
        for left in runs_dir.glob(f"{ours}*"):
            process = left.name.removeprefix(ours).partition("-")[0]
            if process.isdigit() and not psutil.pid_exists(int(process)):
                left.unlink(missing_ok=True)
        token.touch()
    except OSError as error:
        raise RunError(f"cannot write {runs_dir}: {error.strerror or error}") from None
    return token


# Functions that travel by value: a node without the package can load them, and say so.


def versions() -> dict[str, str]:
    """Returns the versions here, which nodes must have. Builds of PyTorch for other hardware count as equal."""
    found = _versions_function()()
    assert found is not None, "this package is there"
    return found


def _versions_function() -> Callable[[], dict[str, str] | None]:
    def versions() -> dict[str, str] | None:
        import importlib.metadata
        import importlib.util

        if importlib.util.find_spec("rethinking") is None or importlib.util.find_spec("torch") is None:
            return None
        names = ("rethinking-generalization", "torch")
        return {name: importlib.metadata.version(name).partition("+")[0] for name in names}

    return versions


def probe_function() -> Callable[[list[str]], dict[str, Any]]:
    """Returns the function that says what its node has: versions, devices, and the files that it sees."""
    versions = _versions_function()

    def probe(tokens: list[str]) -> dict[str, Any]:
        import os

        found = versions()
        if found is None:
            return {"versions": None}
        if os.environ.get("CUDA_VISIBLE_DEVICES") == "":
            del os.environ["CUDA_VISIBLE_DEVICES"]  # earlier versions of Ray hide the cards from a task without one
        from rethinking.training.hardware import Machine

        native = dict(Machine.here().native_bf16)
        return {"versions": found, "native_bf16": native, "seen": [token for token in tokens if os.path.exists(token)]}

    return probe


def work_function(expected: dict[str, str]) -> Callable[..., Iterator[Any]]:
    """Returns the generator that carries out a task on its node.

    It yields the node's name, address and versions, and then groups of events. With other versions than `expected` it
    does nothing more. Its arguments are a pickled `Errand` and the other arguments of `ray_worker.carried_out`.
    """
    versions = _versions_function()

    def work(errand: bytes, contents: dict[str, dict[str, bytes]], shipped: dict[int, Any]) -> Iterator[Any]:
        import importlib
        import pickle

        ray = importlib.import_module("ray")
        found = versions()
        yield ray.get_runtime_context().get_node_id(), ray.util.get_node_ip_address(), found
        if found == expected:
            from rethinking.engines.ray_worker import carried_out

            yield from carried_out(pickle.loads(errand), contents, shipped)

    return work


def differing(address: str, found: Mapping[str, str] | None, expected: Mapping[str, str]) -> str:
    """Returns the line about a node with other versions, or without the package or PyTorch."""
    if found is None:
        return f"the node {address} lacks rethinking-generalization or torch; install both there"
    name = next(name for name in expected if found[name] != expected[name])
    return f"the node {address} has {name} {found[name]}, not {expected[name]} as here; install the same version there"
