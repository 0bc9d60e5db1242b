"""Runs on a small Ray cluster of this machine, on the built-in digits: equal to runs here, whatever dies."""

import collections
import contextlib
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import ray
import safetensors.torch
import torch
from filelock import FileLock

from rethinking import ExperimentConfig, InputError, RunError, RunResult, train_many
from rethinking.data import sources
from rethinking.data.given_labels import write_labels
from rethinking.engines import on_ray, ray_cluster, ray_plan
from rethinking.errors import BusyError, DivergedError
from rethinking.training.loggers import Observer
from rethinking.training.preparation import PlannedRun
from rethinking.training.run_dir import Record, RunDir

TIMINGS = ("images_per_second", "seconds")
EPOCHS = 12
VARIED = (
    {},
    {"seed": 1, "weight_decay": 0.01},
    {"seed": 2, "random_crop": True},
    {"randomization": "random_labels", "randomization_seed": 3},
    {"randomization": "random_pixels"},
    {"optimizer": "adam", "learning_rate": 0.001},
)


def config(folder: Path, **options) -> ExperimentConfig:
    return ExperimentConfig(
        **{
            "model_name": "mlp_1x512",
            "dataset": "digits",
            "num_epochs": EPOCHS,
            "precision": "fp32",
            "device": "cpu",
            "runs_dir": str(folder),
            "use_tensorboard": False,
            **options,
        }
    )


class TwoNodes:
    """A Ray cluster of two nodes with one core each. The second can be killed, and joins again."""

    def __init__(self, folder: Path) -> None:
        from ray.cluster_utils import Cluster

        (folder / "ray").mkdir()
        self._small = {"num_cpus": 1, "object_store_memory": 80 << 20, "include_dashboard": False}
        self._environment = {
            "RAY_TMPDIR": str(folder),
            "TMPDIR": str(folder),
            "RETHINKING_CACHE": str(folder / "cache"),
            "RAY_health_check_initial_delay_ms": "0",  # a dead node refuses connections, and a slow one does not
            "RAY_health_check_period_ms": "500",
        }
        with self._as_on_the_nodes():
            self._cluster = Cluster(initialize_head=True, head_node_args=self._small)
        self.address = self._cluster.address
        self._second: Any = None
        self.ensure_second()

    @contextlib.contextmanager
    def _as_on_the_nodes(self) -> Iterator[None]:
        """Sets the environment of the nodes, which share no cache with the driver."""
        with pytest.MonkeyPatch.context() as patched:
            for name, value in self._environment.items():
                patched.setenv(name, value)
            yield

    def ensure_second(self) -> None:
        if self._second is None:
            with self._as_on_the_nodes():
                self._second = self._cluster.add_node(**self._small)

    def kill_second(self) -> None:
        """Kills the node's raylet and workers, as a power cut would."""
        raylet = psutil.Process(self._second.all_processes["raylet"][0].process.pid)
        for process in [raylet, *raylet.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._cluster.remove_node(self._second, allow_graceful=False)
        self._second = None

    def end(self) -> None:
        self._cluster.shutdown()


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoNodes]:
    base = tmp_path_factory.getbasetemp()
    common = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    with FileLock(common / "ray.lock"):  # one cluster at a time, however many test processes there are
        folder = Path(tempfile.mkdtemp(prefix="rt-", dir="/tmp"))  # sockets need short paths
        cluster = TwoNodes(folder)
        with on_ray.ray_cluster(cluster.address):  # one connection, so that the workers stay
            yield cluster
        cluster.end()
        shutil.rmtree(folder)
        assert not _processes(folder.name)


def _processes(folder: str) -> list[str]:
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            found += [" ".join(process.cmdline())] if folder in " ".join(process.cmdline()) else []
    return found


@pytest.fixture
def cluster(started: TwoNodes) -> TwoNodes:
    started.ensure_second()
    return started


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Gives runs here as many threads as runs on a node have."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> dict[str, RunResult]:
    """The runs of `VARIED`, trained in this process with one thread."""
    folder = tmp_path_factory.mktemp("here")
    outcomes = dict(train_many([config(folder, **options) for options in VARIED], at_once=1))
    return {result.path.name: result for result in outcomes.values()}


def check_equal(outcomes: dict[ExperimentConfig, RunResult | Exception], here: dict[str, RunResult]) -> None:
    """Checks that runs have the same files, metrics and tensors as those of this process, bit for bit."""
    assert len(outcomes) == len(here)
    for result in outcomes.values():
        assert isinstance(result, RunResult), result
        twin = here[result.path.name]
        assert {file.name for file in result.path.iterdir()} == {file.name for file in twin.path.iterdir()}
        assert _untimed(result.metrics) == _untimed(twin.metrics)
        tensors, twins = (safetensors.torch.load_file(run.path / "checkpoint.safetensors") for run in (result, twin))
        assert tensors.keys() == twins.keys()
        assert all(torch.equal(tensors[name], twins[name]) for name in tensors)


def _untimed(records: list[Record]) -> list[Record]:
    return [{name: value for name, value in record.items() if name not in TIMINGS} for record in records]


class Seen(Observer):
    """Counts the epochs of every run, and acts once when two runs have finished some epochs."""

    def __init__(self, act: Callable[[], None] = lambda: None) -> None:
        self.epochs: collections.Counter[tuple[str, int]] = collections.Counter()
        self._act: Callable[[], None] | None = act

    def observer(self) -> Observer:
        whole = self

        class OfOneRun(Observer):
            def started(self, path: Path, config: ExperimentConfig, metrics: list[Record], images: int) -> None:
                self.run = path.name

            def epoch(self, record: Record) -> None:
                whole.epochs[self.run, record["epoch"]] += 1
                at_work = collections.Counter(run for run, _ in whole.epochs)
                if whole._act and len(at_work) >= 2 and min(at_work.values()) >= 2:
                    act, whole._act = whole._act, None
                    act()

        return OfOneRun()

    @property
    def acted(self) -> bool:
        return self._act is None


@pytest.mark.parametrize("shared", ["auto", "no"])
def test_runs_survive_the_death_of_a_node_bit_for_bit(
    cluster: TwoNodes, here: dict[str, RunResult], tmp_path: Path, shared: str
):
    seen = Seen(cluster.kill_second)
    configs = [config(tmp_path / "runs", **options) for options in VARIED]
    outcomes = dict(
        train_many(configs, ray=cluster.address, at_once=None, runs_shared=shared, observe=lambda: [seen.observer()])
    )
    assert seen.acted
    check_equal(outcomes, here)
    assert set(seen.epochs.values()) == {1}, "no epoch was trained twice"
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == sorted(here), "no other file is left"


def outcome_of(asked: ExperimentConfig, **options) -> RunResult | Exception:
    ((_, outcome),) = train_many([asked], **options)
    return outcome


def test_an_interrupted_sweep_leaves_no_task_and_goes_on(cluster: TwoNodes, here: dict[str, RunResult], tmp_path: Path):
    configs = [config(tmp_path, **options) for options in VARIED]
    seen = Seen(interrupt)
    with pytest.raises(KeyboardInterrupt):
        list(train_many(configs, ray=cluster.address, at_once=None, observe=lambda: [seen.observer()]))
    begun = [path for path in tmp_path.iterdir() if (path / "metrics.jsonl").exists()]
    assert len(begun) >= 2
    assert not any(RunDir(path).is_busy for path in begun), "no task is left"
    outcomes = dict(train_many(configs, at_once=1))
    check_equal(outcomes, here)


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


NETWORK = """
import os, threading
from torch import nn
from layers import Deadly

def net(num_classes, input_shape):
    return nn.Sequential(nn.Flatten(), Deadly(), nn.LazyLinear(num_classes))

def plain(num_classes, input_shape):
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(num_classes))
"""
LAYERS = """
import os, signal, threading
from torch import nn

class Deadly(nn.Module):
    def __init__(self):
        super().__init__()
        self.steps = 0

    def forward(self, images):
        if self.training and threading.current_thread().name == "training":
            self.steps += 1
            if self.steps > 2:  # within the first epoch: a finished epoch would start the count of deaths anew
                os.kill(os.getpid(), signal.SIGKILL)
        return images
"""


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A file with the functions `net`, whose network kills its worker, and `plain`."""
    (tmp_path / "layers.py").write_text(LAYERS)
    (tmp_path / "own.py").write_text(NETWORK)
    return tmp_path / "own.py"


def test_a_run_that_kills_its_worker_three_times_is_left(cluster: TwoNodes, own: Path, tmp_path: Path):
    good = config(tmp_path / "runs", num_epochs=5)
    bad = config(tmp_path / "runs", model_name=f"{own}:net", num_epochs=5)
    outcomes = dict(train_many([bad, good], ray=cluster.address, at_once=None))
    assert isinstance(outcomes[good], RunResult)
    assert isinstance(outcomes[bad], RunError)
    assert "the run's worker died 3 times, the last time unexpectedly (on the node" in str(outcomes[bad])


def test_code_travels_to_nodes_that_lack_it(
    cluster: TwoNodes, own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    asked = config(tmp_path / "runs", model_name=f"{own}:plain", num_epochs=2)
    read = ray_plan.code_of

    def read_and_take_away(configs) -> dict[str, str]:
        code = read(configs)
        (own.parent / "own.py").rename(own.parent / "own.py.away")
        (own.parent / "layers.py").rename(own.parent / "layers.py.away")
        return code

    monkeypatch.setattr(ray_plan, "code_of", read_and_take_away)
    result = outcome_of(asked, ray=cluster.address)
    for name in ("own.py", "layers.py"):
        (own.parent / f"{name}.away").rename(own.parent / name)
    twin = outcome_of(replace(asked, runs_dir=str(tmp_path / "here")))
    check_equal({asked: result}, {twin.path.name: twin})
    assert result.config.model_name == f"{own}:plain"


def test_labels_of_a_file_and_examples_travel(cluster: TwoNodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The nodes see neither the file nor the folder of runs."""
    file = tmp_path / "noisy.csv"
    data = sources.load("digits")
    write_labels(file, np.roll(data.train.labels, 1), data.train.labels, data.class_names)
    asked = config(tmp_path / "runs", num_epochs=2, labels=str(file), left_out="1/3", record_examples=True)
    twin = outcome_of(replace(asked, runs_dir=str(tmp_path / "here")))
    read = ray_plan.labels_of

    def read_and_take_away(configs) -> tuple[np.ndarray, ...]:
        labels = read(configs)
        file.rename(tmp_path / "away.csv")
        return labels

    monkeypatch.setattr(ray_plan, "labels_of", read_and_take_away)
    result = outcome_of(asked, ray=cluster.address, runs_shared="no")
    check_equal({asked: result}, {twin.path.name: twin})
    for kept, of_twin in zip(result.examples()["online"], twin.examples()["online"], strict=True):
        np.testing.assert_array_equal(kept, of_twin)


def test_images_of_the_driver_travel_once(cluster: TwoNodes, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO)
    generator = np.random.default_rng(5)
    images, labels = generator.integers(0, 256, (300, 28, 28, 3), dtype=np.uint8), generator.integers(0, 4, 300)
    name = sources.adopt((images, labels), (images[:50], labels[:50]))
    options = [{"dataset": name, "num_epochs": 2, "seed": seed} for seed in range(4)]
    outcomes = dict(
        train_many([config(tmp_path / "runs", **one) for one in options], ray=cluster.address, at_once=None)
    )
    twins = [outcome_of(config(tmp_path / "here", **one)) for one in options]
    check_equal(outcomes, {twin.path.name: twin for twin in twins})
    assert [r.getMessage() for r in caplog.records if "sending" in r.getMessage()] == [
        "sending the images of images to nodes that cannot read them"
    ]


def test_a_folder_that_nodes_do_not_see(cluster: TwoNodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def unseen(folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        return folder / ".only-on-the-driver"

    monkeypatch.setattr(on_ray, "token_in", unseen)
    asked = config(tmp_path / "runs", num_epochs=2)
    outcome = outcome_of(asked, ray=cluster.address, runs_shared="yes")
    assert isinstance(outcome, RunError)
    assert str(outcome).startswith("the node ")
    assert f" does not see {tmp_path / 'runs'}, although it should be shared" in str(outcome)
    assert isinstance(outcome_of(asked, ray=cluster.address), RunResult), "its files travel"


def test_a_busy_run_of_a_travelling_group_does_not_keep_the_others(cluster: TwoNodes, tmp_path: Path):
    asked = [config(tmp_path / "runs", seed=seed, num_epochs=1) for seed in range(3)]
    options: dict[str, Any] = {"at_once": 3, "stacked": True, "runs_shared": "no"}
    with PlannedRun.of(asked[1]).folder.lock():
        outcomes = dict(train_many(asked, ray=cluster.address, **options))
    assert isinstance(outcomes[asked[1]], BusyError)
    assert all(isinstance(outcomes[one], RunResult) for one in (asked[0], asked[2]))


def test_failures_name_the_node_and_leave_the_others(
    cluster: TwoNodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    needs = ray_plan.needs_of
    monkeypatch.setattr(
        ray_plan,
        "needs_of",
        lambda runs, threads: needs(runs, threads) | ({"memory": 2.0**50} if runs[0].config.seed == 7 else {}),
    )
    good, diverging, large = (
        config(tmp_path, num_epochs=1, **options) for options in ({}, {"learning_rate": 1e30, "seed": 1}, {"seed": 7})
    )
    outcomes = dict(train_many([large, diverging, good], ray=cluster.address, at_once=2))
    assert isinstance(outcomes[good], RunResult)
    assert isinstance(outcomes[diverging], DivergedError)
    assert str(outcomes[diverging]).endswith(f"(on the node {cluster.address.partition(':')[0]})")
    assert "it needs 1 core and 1048576.0 GiB of memory; the largest, " in str(outcomes[large])


@pytest.mark.parametrize("known_at", ["start", "the first task"])
def test_nodes_with_another_version_train_nothing(
    cluster: TwoNodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, known_at: str
):
    def other() -> dict[str, str]:
        return ray_plan_versions() | {"torch": "1.0"}

    ray_plan_versions = ray_cluster.versions
    monkeypatch.setattr(on_ray, "COME_BACK", float("inf"))  # such nodes are not waited for
    if known_at == "start":
        monkeypatch.setattr(ray_plan, "versions", other)
    monkeypatch.setattr(on_ray, "versions", other)
    line = f"has torch {ray_plan_versions()['torch']}, not 1.0 as here; install the same version there"
    try:
        outcome = outcome_of(config(tmp_path), ray=cluster.address)
    except InputError as error:
        outcome = error
    assert line in str(outcome)
    assert not list(tmp_path.glob("*/metrics.jsonl"))


SWEEP = """
import sys
from rethinking import ExperimentConfig, train_many

if __name__ == "__main__":
    options = {"model_name": "mlp_1x512", "dataset": "digits", "num_epochs": 2, "device": "cpu", "precision": "fp32"}
    configs = [ExperimentConfig(**options, seed=seed, runs_dir=sys.argv[1]) for seed in range(3)]
    for config, outcome in train_many(configs, ray=True, at_once=None):
        print(config.seed, outcome.path.name)
"""


def test_a_cluster_on_this_machine_leaves_nothing_behind(tmp_path: Path):
    script, home, runs = tmp_path / "sweep.py", tmp_path / "home", tmp_path / "runs"
    script.write_text(SWEEP)
    home.mkdir()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    with tempfile.TemporaryDirectory(prefix="rt-", dir="/tmp") as folder:
        done = subprocess.run(
            [sys.executable, script, runs],
            env={**environment, "HOME": str(home), "TMPDIR": folder},
            capture_output=True,
            text=True,
            timeout=1200,
        )
        assert not os.listdir(folder)
        assert not _processes(folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 3, "nothing but the three lines of the script"
    assert len(list(runs.glob("*/result.json"))) == 3
    assert not (home / ".ray").exists()


# Bad input, without a cluster


def test_ray_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"^Ray is not installed: pip install 'rethinking-generalization\[ray\]'$"):
        outcome_of(config(tmp_path), ray=True)


def test_nobody_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ray, "is_initialized", lambda: False)  # other tests may have a connection
    monkeypatch.setattr(ray_cluster, "PATIENCE", 5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(
            InputError, match=rf"^no Ray cluster answers at 127\.0\.0\.1:{port}; .*no answer in 5 seconds"
        ):
            outcome_of(config(tmp_path), ray=f"127.0.0.1:{port}")
    with pytest.raises(InputError, match=rf"^no Ray cluster answers at 127\.0\.0\.1:{port}; .*refused"):
        outcome_of(config(tmp_path), ray=f"127.0.0.1:{port}")
    for wrong in ("ray://10.0.0.1:10001", "10.0.0.1", "somewhere:port"):
        with pytest.raises(InputError, match="must be HOST:PORT, such as"):
            outcome_of(config(tmp_path), ray=wrong)
