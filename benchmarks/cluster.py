"""Trains runs on Ray clusters of this machine while nodes, workers and the driver are killed, and measures the cost.

    python benchmarks/cluster.py [--parts node driver kills namespaces many] [--out results/cluster.csv]

- node, driver, kills: 60 runs of MLP 1x512 on the digits, on three nodes of one core each. A node is killed in mid-run
  and another joins; the driver is killed and started again; 20 workers and nodes are killed at random. Each is done
  with a shared folder of runs and with one that the nodes do not see. Metrics and weights are compared, bit for bit,
  with those of the same runs in one process of one thread.
- namespaces: the first of these with each node in a network namespace of its own (needs root and `ip`).
- many: 500 short runs on a cluster that the command starts. It gives the cost of a run besides its training, the growth
  of the driver's memory, the size of the temporary folder, and what is left afterwards.
- throughput: two workers of one thread each against one process of one thread, in turn, all of them running already.
  Beside it, two processes that know nothing of each other show what the machine allows.
  An epoch of these runs writes 10 MB, so that a slow disk decides; see --folder.
- growth: the time of a list of runs on one and on two workers, and the driver's part in it.
- lists: what the driver does once for a list of 1,000 and of 10,000 runs.
"""

from __future__ import annotations

import collections
import contextlib
import json
import os
import random
import secrets
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil
import safetensors.torch
import torch
import tyro
from rich import print
from workload import Machine, write_csv

from rethinking import ExperimentConfig, RunResult, train_many
from rethinking.engines.on_ray import ray_cluster
from rethinking.experiments import archive
from rethinking.training.loggers import Observer
from rethinking.training.preparation import plan
from rethinking.training.run_dir import Record

TIMES = ("seconds", "images_per_second")
STORE = 80 << 20  # bytes of each node's object store
SUBNET = "10.77.0"  # of the network namespaces
COLUMNS = (
    "setting", "runs", "equal", "trained_twice", "kills", "epochs", "epochs_lost", "seconds", "seconds_here",
    "cost_per_run", "driver_ms_per_run", "planning_seconds", "evidence_seconds", "evidence_mib", "driver_growth_mib",
    "temporary_mib", "processes_left", "files_left", "ratio", "ratio_apart", "precision", "threads",
    "hardware", "torch",
)  # fmt: skip
DONE = "done\n"  # the word of a process apart
COMMAND = [sys.executable, "-m", "rethinking", "sweep"]


@dataclass(frozen=True)
class Arguments:
    """The options of this benchmark."""

    parts: tuple[str, ...] = ("node", "driver", "kills", "namespaces", "many", "throughput", "growth", "lists")
    runs: int = 60
    epochs: int = 20
    kills: int = 20
    short_runs: int = 500
    seed: int = 0  # of the kills
    folder: Path | None = None  # of the runs; one in memory, such as /dev/shm, measures training without the disk
    out: Path | None = None


def main(arguments: Arguments) -> None:
    """Carries out the parts, prints what came of each, and writes the rows."""
    os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_USAGE_STATS_ENABLED": "0"}
    torch.set_num_threads(1)
    machine = Machine.here("cpu")
    rows: list[dict[str, Any]] = []

    def note(setting: str, **measured: Any) -> None:
        described = machine.columns() | {"precision": "fp32"}
        rows.append(dict.fromkeys(COLUMNS, "") | {"setting": setting, **measured} | described)
        print(", ".join([setting, *(f"{name} {value}" for name, value in measured.items())]))
        if arguments.out is not None:
            write_csv(rows, arguments.out, same=("setting", "hardware"))

    with tempfile.TemporaryDirectory(prefix="rt-", dir=arguments.folder) as folder:
        campaign = Campaign(arguments, Path(folder))
        for part in arguments.parts:
            for setting, measured in getattr(campaign, part)():
                note(f"{part}, {setting}", **measured)


def config(folder: Path, seed: int, epochs: int) -> ExperimentConfig:
    """Returns one run of the campaign."""
    return ExperimentConfig(
        model_name="mlp_1x512", dataset="digits", seed=seed, num_epochs=epochs, precision="fp32", device="cpu",
        runs_dir=str(folder), use_tensorboard=False,
    )  # fmt: skip


# A cluster whose nodes can be killed


class Nodes:
    """A Ray cluster of a head without cores and of nodes with one core each, all on this machine.

    addresses: the address of the head and of each node, each with a network namespace of its own; without them all
        have the address of this machine
    """

    def __init__(self, folder: Path, addresses: Sequence[str] = ()) -> None:
        import ray  # reads the environment, which `main` sets

        addresses = addresses or [str(ray.util.get_node_ip_address())] * 4  # type: ignore[no-untyped-call]
        self._folder = Path(tempfile.mkdtemp(prefix="rt-", dir="/tmp"))  # sockets need short paths
        self._addresses = addresses
        self._log = self._folder / "nodes.log"
        self._nodes: dict[int, subprocess.Popen[bytes]] = {}
        self._changing = threading.RLock()  # the nodes
        self._ended = threading.Event()
        self.address = f"{addresses[0]}:{random.randrange(20_000, 30_000)}"
        self._start(
            0,
            "--head",
            "--port",
            self.address.rpartition(":")[2],
            "--num-cpus",
            "0",
            "--include-dashboard",
            "false",
            "--temp-dir",
            str(self._folder),
        )
        self._wait(1)
        for number in range(1, len(addresses)):  # one after the other, since they share a folder for sockets
            self.join(number)
            self._wait(number + 1)
        threading.Thread(target=self._join_again, daemon=True).start()

    def _wait(self, started: int) -> None:
        """Waits until so many nodes have started."""
        for _ in range(1200):
            if self._log.read_text(encoding="utf-8").count("Ray runtime started") >= started:
                return
            time.sleep(0.1)
        raise RuntimeError(self._log.read_text(encoding="utf-8")[-2000:])

    @property
    def prefix(self) -> list[str]:
        """The words before a command that runs where the head is."""
        return self._inside(0)

    def _inside(self, number: int) -> list[str]:
        apart = len({*self._addresses}) > 1
        return ["ip", "netns", "exec", f"rt{number}"] if apart else []

    def _start(self, number: int, *options: str) -> None:
        environment = {"RETHINKING_CACHE": str(self._folder / f"cache{number}"), "OMP_NUM_THREADS": "1"}
        words = [*self._inside(number), sys.executable, "-m", "ray.scripts.scripts", "start", *options, "--block"]
        words += ["--node-ip-address", self._addresses[number], "--object-store-memory", str(STORE)]
        words += ["--dashboard-agent-listen-port", "0", "--disable-usage-stats"]
        with self._log.open("ab") as log:
            self._nodes[number] = subprocess.Popen(
                words,
                env=os.environ | environment,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )

    def join(self, number: int) -> None:
        """Starts a node."""
        with self._changing:
            self._start(number, "--address", self.address, "--num-cpus", "1")

    def _join_again(self) -> None:
        """Starts nodes again that ended by themselves: on a busy machine Ray gives a start up."""
        while not self._ended.wait(2.0):
            with self._changing:
                for number in [number for number, node in self._nodes.items() if number and node.poll() is not None]:
                    self.kill(number)
                    self.join(number)

    def processes(self, number: int) -> list[psutil.Process]:
        """Returns the processes of a node."""
        with contextlib.suppress(psutil.NoSuchProcess):
            root = psutil.Process(self._nodes[number].pid)
            return [*root.children(recursive=True), root]
        return []

    def kill(self, number: int) -> None:
        """Kills a node with its workers, as a power cut would."""
        with self._changing:
            for process in self.processes(number):
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            self._nodes.pop(number).wait()

    def kill_worker(self, number: int) -> bool:
        """Kills a worker of a node that has one at work. Returns whether there was one."""
        for process in self.processes(number):
            with contextlib.suppress(psutil.Error):
                title = " ".join(process.cmdline())
                if "ray::" in title and "Agent" not in title and "IDLE" not in title:
                    process.kill()
                    return True
        return False

    def end(self) -> None:
        """Kills all nodes."""
        self._ended.set()
        with self._changing:
            for number in sorted(self._nodes, reverse=True):
                self.kill(number)
        shutil.rmtree(self._folder, ignore_errors=True)


@contextlib.contextmanager
def namespaces() -> Iterator[list[str]]:
    """Makes four network namespaces on one bridge, and yields their addresses."""

    def ip(*words: str) -> None:
        subprocess.run(["ip", *words], check=True, capture_output=True)

    names = [f"rt{number}" for number in range(4)]
    ip("link", "add", "rtbr", "type", "bridge")
    try:
        ip("link", "set", "rtbr", "up")
        for number, name in enumerate(names):
            ip("netns", "add", name)
            ip("link", "add", f"rtv{number}", "type", "veth", "peer", "name", f"rte{number}")
            ip("link", "set", f"rtv{number}", "master", "rtbr", "up")
            ip("link", "set", f"rte{number}", "netns", name)
            ip("-n", name, "addr", "add", f"{SUBNET}.{number + 1}/24", "dev", f"rte{number}")
            ip("-n", name, "link", "set", f"rte{number}", "up")
            ip("-n", name, "link", "set", "lo", "up")
        yield [f"{SUBNET}.{number + 1}" for number in range(4)]
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True)
        subprocess.run(["ip", "link", "del", "rtbr"], capture_output=True)


# What a run left, and what was seen of it


@dataclass
class Seen(Observer):
    """Counts what all runs report."""

    epochs: collections.Counter[tuple[str, int]] = field(default_factory=collections.Counter)
    over: set[str] = field(default_factory=set)
    again: int = 0  # starts of runs that were finished

    def observer(self) -> Observer:
        """Returns the observer of one run."""
        seen = self

        class OfRun(Observer):
            def started(self, path: Path, config: ExperimentConfig, metrics: list[Record], images: int) -> None:
                self._run = path.name
                seen.again += path.name in seen.over

            def epoch(self, record: Record) -> None:
                seen.epochs[self._run, record["epoch"]] += 1

            def ended(self, result: RunResult | None) -> None:
                seen.over |= {self._run} if result is not None else set()

        return OfRun()


def content_of(run: Path) -> tuple[list[dict[str, Any]], dict[str, torch.Tensor]]:
    """Returns the metrics of a run's folder without times, and its weights and optimizer state."""
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    records = [{name: value for name, value in json.loads(line).items() if name not in TIMES} for line in lines]
    return records, safetensors.torch.load_file(run / "checkpoint.safetensors")


def equal_runs(runs: Path, reference: Path) -> int:
    """Returns the number of finished runs that are equal, bit for bit, to those in another folder."""
    equal = 0
    for run in runs.iterdir():
        if (run / "result.json").exists():
            (records, tensors), (others, other_tensors) = content_of(run), content_of(reference / run.name)
            same = tensors.keys() == other_tensors.keys() and all(
                torch.equal(tensors[name], other_tensors[name]) for name in tensors
            )
            equal += records == others and same
    return equal


# The parts


class Campaign:
    """The parts of the benchmark. Each yields settings with what was measured."""

    def __init__(self, arguments: Arguments, folder: Path) -> None:
        self._arguments, self._folder = arguments, folder
        self._random = random.Random(arguments.seed)

    def _configs(self, runs: Path) -> list[ExperimentConfig]:
        return [config(runs, seed, self._arguments.epochs) for seed in range(self._arguments.runs)]

    def _reference(self) -> Path:
        """Returns the folder of the runs as one process of one thread trains them."""
        runs = self._folder / "reference"
        for _, outcome in train_many(self._configs(runs), at_once=1, progress=False):
            if isinstance(outcome, Exception):
                raise outcome
        return runs

    def _checked(self, runs: Path, seen: Seen, seconds: float) -> dict[str, Any]:
        return {
            "runs": self._arguments.runs,
            "equal": equal_runs(runs, self._reference()),
            "trained_twice": seen.again,
            "epochs": self._arguments.runs * self._arguments.epochs,
            "epochs_lost": sum(times - 1 for times in seen.epochs.values()),  # finished, and trained again
            "seconds": round(seconds, 1),
        }

    def _train(self, nodes: Nodes, name: str, shared: str, after: Callable[[int], None]) -> dict[str, Any]:
        """Trains all runs from this process, and calls `after` with the number of finished runs after each."""
        runs, seen, began = self._folder / name, Seen(), time.monotonic()
        outcomes = train_many(
            self._configs(runs),
            ray=nodes.address,
            runs_shared=shared,
            observe=lambda: [seen.observer()],
            progress=False,
        )
        for done, (_, outcome) in enumerate(outcomes, 1):
            if isinstance(outcome, Exception):
                raise outcome
            after(done)
        return self._checked(runs, seen, time.monotonic() - began)

    def node(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Kills a node when a third of the runs are finished; another one joins later."""
        for shared in ("yes", "no"):
            nodes = Nodes(self._folder)

            def after(done: int, nodes: Nodes = nodes) -> None:
                if done == self._arguments.runs // 3:
                    nodes.kill(3)
                if done == self._arguments.runs // 2:
                    nodes.join(3)

            try:
                yield f"shared folder: {shared}", self._train(nodes, f"node-{shared}", shared, after) | {"kills": 1}
            finally:
                nodes.end()

    def kills(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Kills workers and nodes at random."""
        for shared in ("yes", "no"):
            nodes, killed = Nodes(self._folder), collections.Counter[str]()

            def after(done: int, nodes: Nodes = nodes, killed: collections.Counter[str] = killed) -> None:
                if done * self._arguments.kills < (sum(killed.values()) + 1) * self._arguments.runs * 0.9:
                    return
                time.sleep(self._random.random())
                number = self._random.randrange(1, 4)
                if self._random.random() < 0.6 and nodes.kill_worker(number):
                    killed["worker"] += 1
                else:
                    nodes.kill(number)
                    killed["node"] += 1
                    nodes.join(number)

            try:
                measured = self._train(nodes, f"kills-{shared}", shared, after)
                print(dict(killed))
                yield f"shared folder: {shared}", measured | {"kills": sum(killed.values())}
            finally:
                nodes.end()

    def driver(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Kills the command that trains when a third of the runs are finished, and starts it again."""
        for shared in ("yes", "no"):
            nodes = Nodes(self._folder)
            try:
                yield f"shared folder: {shared}", self._by_command(nodes, f"driver-{shared}", shared, kills=1)
            finally:
                nodes.end()

    def namespaces(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Kills the command and a node on a cluster of four addresses."""
        with namespaces() as addresses:
            for shared in ("yes", "no"):
                nodes = Nodes(self._folder, addresses)
                try:
                    yield f"shared folder: {shared}", self._by_command(nodes, f"apart-{shared}", shared, 2, kill_node=3)
                finally:
                    nodes.end()

    def _by_command(
        self, nodes: Nodes, name: str, shared: str, kills: int, kill_node: int | None = None
    ) -> dict[str, Any]:
        """Trains all runs by `rethinking sweep`, which is killed once on the way."""
        arguments, runs = self._arguments, self._folder / name
        words = ["--model", "mlp_1x512", "--dataset", "digits", "--num_epochs", str(arguments.epochs), "--seed"]
        words += [*map(str, range(arguments.runs)), "--precision", "fp32", "--device", "cpu", "--no_use_tensorboard"]
        words += ["--runs_dir", str(runs), "--out", f"{runs}-results", "--ray", nodes.address, "--runs_shared", shared]
        began = time.monotonic()
        first = self._start(nodes, words)
        finished: dict[str, int] = {}
        while len(finished) < arguments.runs // 3:
            time.sleep(0.2)
            finished = stamps_of(runs)
        first.send_signal(signal.SIGKILL)
        first.wait()
        finished = stamps_of(runs)
        if kill_node is not None:
            nodes.kill(kill_node)
        second = self._start(nodes, words)
        if second.wait() != 0:
            raise RuntimeError((self._folder / "command.log").read_text(encoding="utf-8")[-2000:])
        seconds = time.monotonic() - began
        now = stamps_of(runs)
        measured = self._checked(runs, Seen(), seconds)
        measured["trained_twice"] = sum(now[run] != stamp for run, stamp in finished.items())
        return {name: value for name, value in measured.items() if name != "epochs_lost"} | {"kills": kills}

    def _start(self, nodes: Nodes, words: Sequence[str]) -> subprocess.Popen[bytes]:
        with (self._folder / "command.log").open("ab") as log:
            return subprocess.Popen([*nodes.prefix, *COMMAND, *words], stdout=log, stderr=log, stdin=subprocess.DEVNULL)

    def many(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Trains many short runs on a cluster that `train_many` starts."""
        count = self._arguments.short_runs
        began = time.monotonic()
        for _ in train_many([config(self._folder / "here", s, 2) for s in range(count)], at_once=1, progress=False):
            pass
        here = time.monotonic() - began
        before, shared_memory = {process.pid for process in psutil.process_iter()}, {*os.listdir("/dev/shm")}
        memory: list[float] = []
        largest = 0
        began = time.monotonic()
        configs = [config(self._folder / "there", seed, 2) for seed in range(count)]
        for done, (_, outcome) in enumerate(train_many(configs, ray=True, progress=False), 1):
            if isinstance(outcome, Exception):
                raise outcome
            if done % 50 == 0:
                memory.append(psutil.Process().memory_info().rss / 2**20)
                largest = max(largest, *(size_of(path) for path in Path("/tmp").glob("rt-*") if path != self._folder))
        there = time.monotonic() - began
        left = [process for process in psutil.process_iter() if process.pid not in before and is_of_ray(process)]
        cores = len(psutil.Process().cpu_affinity())
        yield (
            f"{count} runs of 2 epochs",
            {
                "runs": count,
                "seconds": round(there, 1),
                "seconds_here": round(here, 1),
                "cost_per_run": round((cores * there - here) / count, 3),
                "driver_growth_mib": round(memory[-1] - memory[1], 1),
                "temporary_mib": round(largest / 2**20, 1),
                "processes_left": len(left),
                "files_left": len({*os.listdir("/dev/shm")} - shared_memory),
            },
        )

    def throughput(self, runs: int = 4, epochs: int = 180, rounds: int = 7) -> Iterator[tuple[str, dict[str, Any]]]:
        """Compares two workers of one thread, and two processes apart, with one process of one thread, in turn."""
        by_ray, by_two = [], []
        with ray_cluster(None), contextlib.ExitStack() as held:
            apart = [held.enter_context(Apart()) for _ in range(2)]
            self._timed("warm", 4, 2, ray=True)
            self._apart(apart, "warm-apart", 1, 2)
            for number in range(rounds):
                one = self._apart(apart[number % 2 :][:1], f"one{number}", runs // 2, epochs) / (runs // 2)
                ray = self._timed(f"ray{number}", runs, epochs, ray=True, at_once=None) / runs
                two = self._apart(apart, f"two{number}", runs // 2, epochs) / runs
                by_ray.append(one / ray)
                by_two.append(one / two)
                print(f"{one:.2f}, on Ray {ray:.2f}, in two processes {two:.2f} seconds a run")
        ratios = {"ratio": statistics.median(by_ray), "ratio_apart": statistics.median(by_two)}
        yield (
            f"two workers, {runs} runs of {epochs} epochs",
            {"runs": runs} | {name: round(ratio, 2) for name, ratio in ratios.items()},
        )

    def _apart(self, processes: Sequence[Apart], name: str, runs: int, epochs: int) -> float:
        """Returns the seconds in which each of these processes trains as many runs."""
        began = time.monotonic()
        for number, process in enumerate(processes):
            process.begin(self._folder / f"{name}-{number}", runs, epochs)
        for process in processes:
            process.wait()
        return time.monotonic() - began

    def growth(self, epochs: int = 10) -> Iterator[tuple[str, dict[str, Any]]]:
        """Times lists of runs on one and on two workers that are running, and the driver's share of the processor."""
        import ray

        for workers in (1, 2):
            ray.init(num_cpus=workers, include_dashboard=False, log_to_driver=False, object_store_memory=STORE)
            self._timed(f"warm-growth-{workers}", 4, 2, ray=True)
            for runs in (25, 50, 100):
                began = time.process_time()
                seconds = self._timed(f"growth-{workers}-{runs}", runs, epochs, ray=True)
                driver = 1000 * (time.process_time() - began) / runs
                plural = "worker" if workers == 1 else "workers"
                yield (
                    f"{runs} runs of {epochs} epochs, {workers} {plural}",
                    {
                        "runs": runs,
                        "seconds": round(seconds, 2),
                        "driver_ms_per_run": round(driver, 1),
                    },
                )
            ray.shutdown()

    def lists(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Times what a driver does once for a list: planning, and the writing of evidence, here made up."""
        for count in (1000, 10_000):
            began = time.monotonic()
            plan([config(self._folder / "planned", seed, 30) for seed in range(count)])
            planning = time.monotonic() - began
            result = next(iter(dict(train_many([config(self._folder / "one", 0, 1)], progress=False)).values()))
            if isinstance(result, Exception):
                raise result
            one = archive.evidence(result)
            metrics = tuple({**one.metrics[0], "epoch": epoch} for epoch in range(1, 31))
            kept = [replace(one, run=f"{one.run}-{n}", question=f"{n}", metrics=metrics) for n in range(count)]
            folder = self._folder / f"evidence-{count}"
            began = time.monotonic()
            archive.add(folder, kept)
            writing = time.monotonic() - began
            yield (
                f"{count:,} runs of 30 epochs",
                {
                    "runs": count,
                    "planning_seconds": round(planning, 1),
                    "evidence_seconds": round(writing, 1),
                    "evidence_mib": round(size_of(folder) / 2**20, 1),
                },
            )

    def _timed(self, name: str, runs: int, epochs: int, **options: Any) -> float:
        configs = [config(self._folder / name, seed, epochs) for seed in range(runs)]
        began = time.monotonic()
        for _, outcome in train_many(configs, progress=False, **options):
            if isinstance(outcome, Exception):
                raise outcome
        return time.monotonic() - began


class Apart:
    """A process of one thread that trains lists of runs, one run after the other, and knows of no other process."""

    def __enter__(self) -> Apart:
        code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import cluster; cluster.train_lists()"
        self._process = subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def begin(self, folder: Path, runs: int, epochs: int) -> None:
        """Gives it a list, and does not wait."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([str(folder), runs, epochs]) + "\n")
        self._process.stdin.flush()

    def wait(self) -> None:
        """Waits until the list is trained."""
        assert self._process.stdout is not None
        if self._process.stdout.readline() != DONE:
            raise RuntimeError("a process apart has ended")


def train_lists() -> None:
    """Trains the lists that come on standard input."""
    torch.set_num_threads(1)
    for line in sys.stdin:
        folder, runs, epochs = json.loads(line)
        configs = [config(Path(folder), seed, epochs) for seed in range(runs)]
        for _, outcome in train_many(configs, progress=False):
            if isinstance(outcome, Exception):
                raise outcome
        sys.stdout.write(DONE)
        sys.stdout.flush()


def stamps_of(runs: Path) -> dict[str, int]:
    """Returns the time of each finished run's result, by the run's name."""
    return {path.parent.name: path.stat().st_mtime_ns for path in runs.glob("*/result.json")}


def size_of(folder: Path) -> int:
    """Returns the bytes of a folder's files."""
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):
            total += path.lstat().st_size if path.is_file() else 0
    return total


def is_of_ray(process: psutil.Process) -> bool:
    """Returns whether a process is one of Ray's."""
    with contextlib.suppress(psutil.Error):
        return any("ray" in Path(word).name for word in process.cmdline()[:2])
    return False


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))
