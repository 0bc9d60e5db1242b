"""Threads beside other processes, on a simulated processor of two cores."""

from collections import namedtuple
from pathlib import Path

import psutil
import pytest
import torch

from rethinking import ExperimentConfig, train
from rethinking.training import cores
from rethinking.training.cores import CoresOfOthers, SharedCores, observers_of_cores

Times = namedtuple("Times", "user nice system idle")


class Processor:
    """speeds: images a second by the number of threads; others: number of cores that other processes use"""

    def __init__(self, speeds: dict[int, float], others: float) -> None:
        self.threads = len(speeds)
        self.speeds = speeds
        self.others = others
        self.now = 0.0
        self.images_by_threads = dict.fromkeys(speeds, 0)

    def set_num_threads(self, threads: int) -> None:
        self.threads = threads

    def take_steps(self, observer: SharedCores, seconds: float) -> None:
        """Begins an epoch, and takes steps of 128 images each."""
        observer.epoch({})
        end = self.now + seconds
        while self.now < end:
            self.now += 128 / self.speeds[self.threads]
            self.images_by_threads[self.threads] += 128
            observer.step(128)


@pytest.fixture
def processor(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Processor:
    made = Processor(*request.param)
    monkeypatch.setattr(torch, "get_num_threads", lambda: made.threads)
    monkeypatch.setattr(torch, "set_num_threads", made.set_num_threads)
    monkeypatch.setattr(cores.time, "perf_counter", lambda: made.now)
    monkeypatch.setattr(psutil.Process, "cpu_affinity", lambda _: [0, 1], raising=False)
    monkeypatch.setattr(CoresOfOthers, "since_last", lambda _: made.others)
    return made


SLOWER_WITH_ALL = ({1: 1000.0, 2: 600.0}, 1.0)
FASTER_WITH_ALL = ({1: 600.0, 2: 1000.0}, 1.0)
ALONE = ({1: 1000.0, 2: 1900.0}, 0.1)


@pytest.mark.parametrize("processor", [SLOWER_WITH_ALL], indirect=True)
def test_beside_a_process_fewer_threads_are_taken_where_they_are_faster(processor: Processor):
    observer = SharedCores()
    processor.take_steps(observer, 4)
    processor.images_by_threads = {1: 0, 2: 0}
    processor.take_steps(observer, 600)
    assert processor.images_by_threads[1] > 0.9 * 600 * 1000
    processor.others, processor.speeds = 0.0, {1: 1000.0, 2: 1900.0}  # it ended
    processor.take_steps(observer, 20)
    assert processor.threads == 2


@pytest.mark.parametrize("processor", [FASTER_WITH_ALL], indirect=True)
def test_beside_a_process_all_threads_are_kept_where_they_are_faster(processor: Processor):
    processor.take_steps(SharedCores(), 600)
    assert processor.images_by_threads[2] > 0.9 * 600 * 1000


@pytest.mark.parametrize("processor", [ALONE], indirect=True)
def test_without_other_processes_no_other_number_of_threads_is_tried(processor: Processor):
    processor.take_steps(SharedCores(), 600)
    assert processor.images_by_threads[1] == 0


@pytest.mark.parametrize("processor", [({1: 1000.0, 2: 1900.0}, 5.0)], indirect=True)
def test_with_enough_free_cores_no_other_number_of_threads_is_tried(
    processor: Processor, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(psutil.Process, "cpu_affinity", lambda _: list(range(8)), raising=False)
    processor.take_steps(SharedCores(), 600)
    assert processor.images_by_threads[1] == 0


@pytest.mark.parametrize("processor", [SLOWER_WITH_ALL], indirect=True)
def test_time_between_epochs_counts_for_no_number_of_threads(processor: Processor):
    """Evaluation takes ten times as long as an epoch here."""
    observer = SharedCores()
    for epoch in range(240):
        if epoch == 40:
            processor.images_by_threads = {1: 0, 2: 0}
        processor.take_steps(observer, 0.5)
        processor.now += 5.0
    assert processor.images_by_threads[1] > 10 * processor.images_by_threads[2]


@pytest.mark.parametrize("processor", [SLOWER_WITH_ALL], indirect=True)
def test_all_threads_are_restored_at_the_end(processor: Processor):
    observer = SharedCores()
    processor.take_steps(observer, 10)
    assert processor.threads == 1
    observer.ended(None)
    assert processor.threads == 2


def test_only_other_processes_on_the_same_cores_count(monkeypatch: pytest.MonkeyPatch):
    """In ten seconds, two of four cores may be used, and this process took 9 of their 17 busy seconds."""
    clock, own = [100.0], [5.0]
    busy = [Times(1.0, 2.0, 3.0, 50.0)] * 4
    monkeypatch.setattr(cores.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(cores.time, "process_time", lambda: own[0])
    monkeypatch.setattr(psutil.Process, "cpu_affinity", lambda _: [1, 3], raising=False)
    monkeypatch.setattr(psutil, "cpu_times", lambda percpu: busy)
    others = CoresOfOthers()
    clock[0], own[0] = 110.0, 14.0
    busy = [Times(11.0, 2.0, 3.0, 50.0), Times(8.0, 3.0, 5.0, 50.0), Times(11.0, 2.0, 3.0, 50.0), Times(8, 2, 3, 53)]
    assert others.since_last() == pytest.approx((17 - 9) / 10)


@pytest.mark.parametrize(
    ("device", "precision", "threads", "adapts"),
    [("cpu", "bf16", 2, True), ("cpu", "fp32", 2, False), ("cuda", "bf16", 2, False), ("cpu", "bf16", 1, False)],
)
def test_float32_keeps_its_threads(monkeypatch: pytest.MonkeyPatch, device, precision, threads, adapts):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    config = ExperimentConfig(device=device, precision=precision)
    assert bool(observers_of_cores(config)) is adapts


def test_a_system_without_information_counts_as_idle(monkeypatch: pytest.MonkeyPatch):
    def refuse(percpu: bool) -> None:
        raise PermissionError("/proc/stat")

    monkeypatch.setattr(psutil, "cpu_times", refuse)
    assert CoresOfOthers().since_last() == 0.0


@pytest.mark.parametrize("options", [{"compile": "on"}, {"keep_test_losses": True}])
def test_compiled_runs_and_those_compared_image_by_image_keep_their_threads(monkeypatch: pytest.MonkeyPatch, options):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    assert not observers_of_cores(ExperimentConfig(device="cpu", precision="bf16", **options))


def test_a_run_adapts_at_its_own_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    chosen: list[int] = []
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    monkeypatch.setattr(torch, "set_num_threads", chosen.append)
    monkeypatch.setattr(psutil.Process, "cpu_affinity", lambda _: [0, 1, 2, 3], raising=False)
    monkeypatch.setattr(CoresOfOthers, "since_last", lambda _: 3.0)
    for constant in ("LOOK", "TRIAL", "STAY"):
        monkeypatch.setattr(cores, constant, 0.0)
    config = ExperimentConfig(
        dataset="digits", model_name="mlp_1x512", device="cpu", precision="bf16", num_epochs=2, runs_dir=str(tmp_path)
    )
    train(config)
    assert set(chosen) == {1, 4}
    assert chosen[-1] == 4
