"""Runs in worker processes on the CPU, on the built-in digits: kills, failures, interruptions, and the same numbers."""

from __future__ import annotations

import importlib
import logging
import math
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import torch

from rethinking import ExperimentConfig, InputError, RunError, RunResult, train, train_many
from rethinking.data import sources
from rethinking.engines import workers
from rethinking.engines.tasks import Workload
from rethinking.engines.workers import environments_of
from rethinking.errors import BusyError
from rethinking.models.catalogue import NETWORKS
from rethinking.training.hardware import only_card
from rethinking.training.loggers import Observer
from rethinking.training.preparation import PlannedRun
from rethinking.training.run_dir import Record
from tests.engines.test_here import config, files, trained

LIMIT = 1200  # seconds; against hanging alone
TWO = ("cpu", "cpu")


@pytest.fixture(autouse=True)
def no_worker_is_left() -> Iterator[None]:
    yield
    assert not workers_of(os.getpid())


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Each of two workers has a thread then, as the run beside which it is laid."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def workers_of(process: int) -> list[psutil.Process]:
    """Returns the worker processes that a process has started."""
    found = []
    for child in psutil.Process(process).children():
        try:
            if any("rethinking.engines.workers" in word for word in child.cmdline()):
                found.append(child)
        except psutil.NoSuchProcess:
            continue
    return found


def wait_until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LIMIT
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def assert_same(result: RunResult | Exception, other: RunResult) -> None:
    """The runs have the same records, except for times, and the same tensors, bit for bit."""
    assert isinstance(result, RunResult), result
    assert result.path.name == other.path.name
    (records, tensors), (other_records, other_tensors) = files(result), files(other)
    assert records == other_records
    assert tensors.keys() == other_tensors.keys()
    assert all(torch.equal(tensor, other_tensors[name]) for name, tensor in tensors.items())


class Calls(Observer):
    """Notes the calls for each run; images of steps are added up."""

    def __init__(self, noted: dict[str, list[tuple[object, ...]]]) -> None:
        self._noted = noted

    def started(self, path: Path, config: ExperimentConfig, metrics: list[Record], images: int) -> None:
        self._calls = self._noted.setdefault(path.name, [])
        self._calls.append(("started", path.is_dir(), config, [record["epoch"] for record in metrics], images))
        self._images = 0

    def step(self, images: int) -> None:
        self._images += images

    def epoch(self, record: Record) -> None:
        self._calls.append(("epoch", record["epoch"], record["train_loss"], self._images))

    def ended(self, result: RunResult | None) -> None:
        self._calls.append(("ended", result and (result.finished, result.metrics[-1]["train_loss"])))


class KillAfterAnEpoch(Observer):
    """Kills all workers after the first epoch that ends, and makes the file `gate` then."""

    def __init__(self, gate: Path) -> None:
        self._gate = gate

    def epoch(self, record: Record) -> None:
        if not self._gate.exists():
            for worker in workers_of(os.getpid()):
                worker.kill()
            self._gate.touch()


@pytest.mark.usefixtures("one_thread")
def test_runs_in_workers_equal_runs_in_this_process_bit_for_bit(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    """So do the calls of their observers. A finished run is not trained, and a run that is given twice is trained once.

    Workers find images given in Python, and networks that a file has or a module registers.
    """
    monkeypatch.setattr(NETWORKS, "_registered", dict(NETWORKS.registered()))
    monkeypatch.syspath_prepend(tmp_path)
    network = "nn.Sequential(nn.Flatten(), nn.LazyLinear(num_classes))"
    (tmp_path / "own.py").write_text(f"from torch import nn\ndef own(num_classes):\n    return {network}\n")
    (tmp_path / "registering.py").write_text(
        "from torch import nn\nfrom rethinking.models.catalogue import register\n"
        f"@register('registered')\ndef own(num_classes):\n    return {network}\n"
    )
    importlib.import_module("registering")
    pixels = np.random.default_rng(0).integers(256, size=(60, 8, 8), dtype=np.uint8)
    given = sources.adopt((pixels, np.arange(60) % 3), name="made")
    options: list[dict[str, object]] = [
        {"seed": 1},
        {"seed": 2, "num_epochs": 2},
        {"seed": 2, "num_epochs": 2},
        {"randomization": "random_labels", "random_crop": True, "images_in_memory": "never"},
        {"model_name": f"{tmp_path / 'own.py'}:own", "train_subset": 300},
        {"model_name": "registered", "dataset": given, "batch_size": 20, "device": "auto"},
    ]
    asked = [config(tmp_path / "workers", **one) for one in options]
    twins = [config(tmp_path / "here", **one) for one in options]
    for finished in (asked[0], twins[0]):
        train(finished)
    seen: dict[str, list[tuple[object, ...]]] = {}
    expected: dict[str, list[tuple[object, ...]]] = {}
    here = trained(twins, observe=lambda: [Calls(expected)])
    with caplog.at_level(logging.INFO, "rethinking"):
        outcomes = list(train_many(asked, devices=TWO, observe=lambda: [Calls(seen)]))
    assert sorted(one.seed for one, _ in outcomes) == sorted(one.seed for one in asked)
    for one, outcome in outcomes:
        assert_same(outcome, here[twins[asked.index(one)]])
    assert len(seen) == 4, "the finished run is not started again"
    for name, calls in expected.items():
        began, *rest = calls
        assert seen[name][1:] == rest
        folder = {"runs_dir": str(tmp_path / "workers")}
        assert seen[name][0] == (*began[:2], replace(began[2], **folder), *began[3:])  # type: ignore[type-var]
    assert [line for line in caplog.messages if line.startswith("images stay on disk")], "a line of a worker's log"


GATED = """
    import os, time
    from torch import nn

    class Gated(nn.Linear):
        calls = 0

        def forward(self, images):
            self.calls += 1
            while self.calls > 30 and not os.path.exists(os.path.dirname(__file__) + "/gate"):
                time.sleep(0.01)
            return super().forward(images)

    def gated(num_classes):
        return nn.Sequential(nn.Flatten(), nn.Linear(784, 32), nn.Dropout(0.2), Gated(32, num_classes))
"""


@pytest.mark.usefixtures("one_thread")
def test_runs_whose_workers_are_killed_complete_bit_for_bit(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    """Neither can end before, since its network waits for a file at its second or third epoch."""
    (tmp_path / "net.py").write_text(textwrap.dedent(GATED))
    network = {"model_name": f"{tmp_path / 'net.py'}:gated", "crop_size": 28, "num_epochs": 5}
    asked = [config(tmp_path / "killed", seed=seed, **network) for seed in range(2)]
    seen: dict[str, list[tuple[object, ...]]] = {}
    outcomes = trained(asked, devices=TWO, observe=lambda: [Calls(seen), KillAfterAnEpoch(tmp_path / "gate")])
    assert "a worker died (SIGKILL" in caplog.text
    for one in asked:
        assert_same(outcomes[one], train(replace(one, runs_dir=str(tmp_path / "straight"))))
    calls = next(calls for calls in seen.values() if len([call for call in calls if call[0] == "started"]) == 2)
    ended = calls.index(("ended", None))
    _, _, _, before, _ = calls[ended + 1]
    assert 1 in before  # type: ignore[operator]
    after = [call[1] for call in calls[ended:] if call[0] == "epoch"]
    assert [*before, *after] == [1, 2, 3, 4, 5], "it goes on after its last finished epoch"  # type: ignore[misc]
    assert calls[-1][1] is not None, "its result"


DEADLY = """
    import os, signal
    from dataclasses import dataclass
    from rethinking.data.operators import Operator

    @dataclass(frozen=True)
    class Deadly(Operator):
        def change_labels(self, labels, num_classes, random):
            if random.seed == 3:
                os.kill(os.getpid(), signal.SIGSEGV)
            return labels
"""


def test_a_run_that_kills_its_worker_three_times_is_left_and_the_others_of_its_group_complete(tmp_path: Path):
    """They begin as one computation; the run is alone in its third worker."""
    (tmp_path / "deadly.py").write_text(textwrap.dedent(DEADLY))
    operator = f"{tmp_path / 'deadly.py'}:Deadly"
    asked = [config(tmp_path, randomization=operator, randomization_seed=seed, num_epochs=1) for seed in range(4)]
    outcomes = trained(asked, devices=["cpu"], at_once=4, stacked=True)
    error = outcomes[asked[3]]
    assert isinstance(error, RunError)
    assert str(error).endswith("`rethinking train` trains it alone and shows the reason")
    assert "was at work in 3 workers that died within one epoch, at last by SIGSEGV" in str(error)
    assert [outcomes[one].final["epoch"] for one in asked[:3]] == [1, 1, 1]  # type: ignore[union-attr]


def test_a_dead_group_is_divided_and_only_deaths_within_one_epoch_count(tmp_path: Path):
    planned = [PlannedRun.of(config(tmp_path, seed=seed)) for seed in range(5)]
    crew = workers._Crew(Workload((), None, True, False, math.inf, tuple), [], [], 1)

    def after_death(at_work: list[int], others: tuple[int, ...] = (), advanced: bool = False) -> list[object]:
        began = [planned[number] for number in at_work]
        runs = [*began, *(planned[number] for number in others)]
        dead = SimpleNamespace(
            runs=runs, at_work=began, advanced=began if advanced else [], why="SIGKILL", died=lambda: None
        )
        return list(crew._after_death(dead))  # type: ignore[arg-type]

    def waiting() -> list[list[int]]:
        numbers = [sorted(planned.index(run) for run in group) for group in crew._waiting]
        crew._waiting.clear()
        return sorted(numbers)

    assert after_death([0, 1, 2], others=(3, 4)) == []
    assert waiting() == [[0, 1], [2], [3, 4]]
    assert after_death([0, 1]) == []
    assert waiting() == [[0], [1]]
    for _ in range(5):
        assert after_death([0], advanced=True) == []
        assert waiting() == [[0]]
    assert after_death([0]) == []
    assert waiting() == [[0]]
    ((left, error),) = after_death([0])  # type: ignore[misc]
    assert left is planned[0]
    assert isinstance(error, RunError)
    assert waiting() == []


WRONG = """
    import os
    from torch import nn

    class Wrong(nn.Linear):
        calls = 0

        def forward(self, images):
            self.calls += 1
            if self.calls > 5:
                raise TypeError("no such layer on card " + os.environ["CUDA_VISIBLE_DEVICES"])
            return super().forward(images)

    def wrong(num_classes):
        return nn.Sequential(nn.Flatten(), Wrong(784, num_classes))
"""


def test_a_failure_ends_its_run_alone_as_in_one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The worker has the environment of its device."""
    monkeypatch.setattr(workers, "environments_of", lambda *_: ("cpu", [{"CUDA_VISIBLE_DEVICES": "7"}]))
    (tmp_path / "wrong.py").write_text(textwrap.dedent(WRONG))
    asked = [
        config(tmp_path, model_name=f"{tmp_path / 'wrong.py'}:wrong", crop_size=28),
        config(tmp_path, learning_rate=1e30),
        config(tmp_path, seed=1),
        config(tmp_path, seed=2),
    ]
    taken = PlannedRun.of(asked[2]).folder
    with taken.lock():
        outcomes = trained(asked, devices=["cpu"])
    assert str(outcomes[asked[0]]) == f"TypeError: no such layer on card 7 ({tmp_path / 'wrong.py'}, line 11)"
    assert "the loss is not finite" in str(outcomes[asked[1]])
    assert isinstance(outcomes[asked[2]], BusyError)
    assert isinstance(outcomes[asked[3]], RunResult)


def test_a_network_that_changes_meanwhile_ends_its_run_with_the_reason(tmp_path: Path):
    file = tmp_path / "own.py"
    file.write_text(
        "from torch import nn\ndef net(num_classes): return nn.Sequential(nn.Flatten(), nn.Linear(784, num_classes))"
    )
    asked = [config(tmp_path / "runs", model_name=f"{file}:net", seed=seed) for seed in range(2)]
    for _, result in train_many(asked[1:], seconds=0):
        assert isinstance(result, RunResult)
        assert not result.finished
    outcomes = train_many(asked, devices=["cpu"])
    assert isinstance(next(outcomes)[1], RunResult)
    file.write_text(file.read_text().replace("nn.Flatten()", "nn.Flatten(), nn.ReLU()"))
    assert "has changed since this command began; give the same command again" in str(next(outcomes)[1])
    assert all(result.finished for result in trained(asked, devices=["cpu"]).values())


def test_a_run_out_of_time_ends_unfinished(tmp_path: Path):
    noted: dict[str, list[tuple[object, ...]]] = {}
    one = config(tmp_path, num_epochs=50)
    outcome = trained([one], devices=["cpu"], seconds=1e-9, observe=lambda: [Calls(noted)])[one]
    assert isinstance(outcome, RunResult)
    assert (outcome.finished, len(outcome.metrics)) == (False, 1)
    assert noted[outcome.path.name][-1] == ("ended", (False, outcome.final["train_loss"]))


def test_workers_that_do_not_start_are_not_started_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    broken = workers.START.replace("from rethinking.engines.workers import work", "from sys import absent")
    monkeypatch.setattr(workers, "START", broken)
    asked = [config(tmp_path, seed=seed) for seed in range(3)]
    outcomes = trained(asked, devices=["cpu"])
    for one in asked:
        assert isinstance(outcomes[one], RunError)
        assert "since no worker process starts: ImportError: cannot import name 'absent'" in str(outcomes[one])
    assert not list(tmp_path.iterdir())


def test_mistakes_are_reported_before_any_worker_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(workers, "START", "this would be a syntax error")
    right = config(tmp_path)
    for wrong, message in (
        (config(tmp_path, train_subset=10**6), "train_subset must be at most"),
        (config(tmp_path, warmup_epochs=5), "warmup_epochs must be below"),
        (replace(right, device="cuda"), "a run has device cuda, but its workers have cpu; leave its device out"),
        (replace(right, model_name="no_such_file.py:net"), "there is no file"),
    ):
        with pytest.raises(InputError, match=message):
            trained([right, wrong], devices=["cpu"])
    with pytest.raises(InputError, match="at_once must be a whole number from 1 on, or None, not -1"):
        trained([right], devices=["cpu"], at_once=-1)
    assert not list(tmp_path.iterdir())


def test_a_worker_that_imports_the_callers_code_starts_no_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(workers, "_is_worker", True)
    with pytest.raises(InputError, match=r"put train_many.* below `if __name__ =="):
        trained([config(tmp_path)], devices=["cpu"])


def test_no_worker_is_left_once_the_caller_stops(tmp_path: Path):
    outcomes = train_many([config(tmp_path, num_epochs=1), config(tmp_path, num_epochs=100_000)], devices=TWO)
    next(outcomes)
    assert workers_of(os.getpid())
    outcomes.close()  # type: ignore[attr-defined]
    assert not workers_of(os.getpid())
    assert len(list(tmp_path.glob("*/result.json"))) == 1


# A script without `if __name__ == "__main__"`, which a worker must not import.
SCRIPT = """
    import sys
    from rethinking import ExperimentConfig, train_many
    from tests.engines.test_here import config

    print("imported", flush=True)
    try:
        for one, outcome in train_many([config(sys.argv[1], num_epochs=100_000, seed=seed) for seed in range(2)],
                                       devices=["cpu", "cpu"]):
            raise AssertionError(outcome)
    except KeyboardInterrupt:
        print("stopped")
"""


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process whose two workers have each finished an epoch of an endless run. It has a process group of its own."""
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(SCRIPT))
    root = Path(__file__).parents[2]
    process = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path / "runs")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(root), *filter(None, sys.path)])},
        process_group=0,
    )

    def two_epochs() -> bool:
        assert process.poll() is None, process.communicate()
        return len(list((tmp_path / "runs").glob("*/checkpoint.safetensors"))) == 2

    wait_until(two_epochs)
    yield process
    process.kill()
    process.wait()


def test_a_killed_driver_leaves_no_worker(driver: subprocess.Popen[str]):
    at_work = workers_of(driver.pid)
    assert len(at_work) == 2
    driver.kill()
    wait_until(lambda: not any(worker.is_running() for worker in at_work))


def test_an_interrupted_driver_ends_its_workers_without_a_word(driver: subprocess.Popen[str], tmp_path: Path):
    at_work = workers_of(driver.pid)
    os.killpg(driver.pid, signal.SIGINT)  # as a terminal does
    output, errors = driver.communicate(timeout=LIMIT)
    assert (output.split(), errors) == (["imported", "stopped"], "")
    assert not any(worker.is_running() for worker in at_work)
    for seed in range(2):
        one = config(tmp_path / "runs", num_epochs=100_000, seed=seed)
        ((_, outcome),) = train_many([one], seconds=1e-9)  # the same run can be resumed
        assert isinstance(outcome, RunResult)
        assert outcome.metrics


@pytest.mark.parametrize(
    ("visible", "cards", "expected"),
    [
        (None, (0, 3), ["0", "3"]),
        ("2,5", (0, 1), ["2", "5"]),
        (" 7 , 6,1", (2, 0), ["1", "7"]),
        ("GPU-8932f937,MIG-7c31", (1,), ["MIG-7c31"]),
    ],
)
def test_a_worker_sees_one_of_the_visible_cards(visible: str | None, cards: tuple[int, ...], expected: list[str]):
    assert [only_card(card, visible) for card in cards] == expected


def test_each_card_has_a_worker(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    kind, environments = environments_of(["cuda"], "4,5,6")
    assert (kind, environments) == ("cuda", [{"CUDA_VISIBLE_DEVICES": name} for name in "456"])
    assert environments_of(["cuda:2", "cuda:0"], None)[1] == [{"CUDA_VISIBLE_DEVICES": name} for name in "20"]
    assert environments_of(TWO, "0") == ("cpu", [{}, {}])


@pytest.mark.parametrize(
    ("devices", "message"),
    [
        (["gpu"], "devices are cpu, cuda for every card, or cards such as cuda:0; not 'gpu'"),
        (["cuda:-1"], "not 'cuda:-1'"),
        ([], "not none"),
        (["cpu", "cuda:0"], "devices are either cards or the CPU, not cpu cuda:0"),
        (["cuda:0", "cuda:3"], "device cuda:3 is not available here; the cards are cuda:0 to cuda:2"),
        (["cuda:1", "cuda:01"], "device cuda:1 is named twice in cuda:1 cuda:01"),
        (["cuda", "cuda:2"], "device cuda:2 is named twice in cuda cuda:2"),
    ],
)
def test_wrong_devices_are_refused(monkeypatch: pytest.MonkeyPatch, devices: list[str], message: str):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    with pytest.raises(InputError, match=message):
        environments_of(devices, None)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_cards_are_refused_where_there_are_none(tmp_path: Path):
    with pytest.raises(InputError, match="device cuda:1 is not available here, since no CUDA card is visible; use cpu"):
        trained([config(tmp_path, device="auto")], devices=["cuda:1"])
