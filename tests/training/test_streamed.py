"""Runs with images on disk: the numbers are those of images in memory, without their memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from rethinking import ExperimentConfig, RunResult, train, train_many
from rethinking.data import sources
from rethinking.data.batches import Batches, StreamedBatches
from rethinking.errors import MemoryShortageError
from rethinking.training import memory
from rethinking.training.loggers import Observer
from rethinking.training.memory import at_once_that_fit, footprint, why_on_disk
from rethinking.training.preparation import PlannedRun, plain_training_set, resolve
from tests.engines.test_here import config

TIMINGS = ("images_per_second", "seconds")
OPERATOR = """
import dataclasses
from rethinking.data.operators import Operator

class InPlace(Operator):
    def change_pixels(self, train, test, positions, random):
        for split in (train, test):
            split.images[:] = 255 - split.images
        return train, test
"""


def numbers(result: RunResult) -> list[dict[str, object]]:
    return [{name: value for name, value in record.items() if name not in TIMINGS} for record in result.metrics]


def readers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("read-ahead")]


def same_run(one: RunResult, other: RunResult) -> bool:
    """Says whether name, metrics, weights and the record of the draws are equal bit for bit."""
    weights, others = one.network().state_dict(), other.network().state_dict()
    drawn = [run.result["provenance"]["randomization"] for run in (one, other)]
    equal = all(torch.equal(weights[name], others[name]) for name in weights)
    return one.path.name == other.path.name and numbers(one) == numbers(other) and equal and drawn[0] == drawn[1]


RUNS = {
    "plain": {"train_subset": None},
    "subset": {"stop_when_fit": True, "eval_train_every": 1},
    "labels": {"randomization": "partial_corrupt", "corruption_prob": 0.5, "replaced_example": 3},
    "cropped": {"random_crop": True, "augment_flip_rotate": True, "randomization": "shuffled_pixels"},
    "permuted": {"randomization": "random_pixels", "random_crop": True},
    "noise": {"randomization": "gaussian_pixels", "pixel_noise": 3.0},
    "subset of a seed": {"randomization": "random_pixels", "pixel_noise": 3.0, "subset_share": 0.9},
    "part left out": {"randomization": "gaussian_pixels", "left_out": "2/3"},
    "own": {"randomization": "mine.py:InPlace"},
    "bf16": {"precision": "bf16"},
    "inception": {"model_name": "small_inception", "num_epochs": 1, "train_subset": 65, "batch_size": 32},
    "alexnet": {"model_name": "small_alexnet", "num_epochs": 1, "train_subset": 65, "precision": "bf16"},
}


@pytest.mark.parametrize("options", RUNS.values(), ids=RUNS)
def test_a_run_equals_the_run_with_its_images_in_memory_bit_for_bit(tmp_path: Path, monkeypatch, options):
    """The last batch has one image."""
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(OPERATOR)
    asked = config(tmp_path / "memory", **{"num_epochs": 2, "train_subset": 129, "batch_size": 64} | options)
    resident = train(replace(asked, images_in_memory="always"))
    streamed = train(replace(asked, images_in_memory="never", runs_dir=str(tmp_path / "disk")))
    assert same_run(resident, streamed)
    assert streamed.result["data"]["notes"][-1] == "images stay on disk, as asked; batches are read ahead"
    assert not [note for note in resident.result["data"]["notes"] if "disk" in note]
    assert not readers()


@pytest.mark.parametrize("stacked", [True, False])
def test_several_runs_at_once_equal_those_with_images_in_memory(tmp_path: Path, stacked: bool):
    """Two runs see the same images in the same order, one run in another order, and one run has its own pixels."""
    several = [{}, {"randomization": "random_labels"}, {"seed": 1}, {"randomization": "random_pixels"}]

    def together(where: str) -> list[RunResult]:
        options = {"num_epochs": 2, "train_subset": 100, "batch_size": 64, "images_in_memory": where}
        configs = [config(tmp_path / where, **options, **more) for more in several]
        trained = dict(train_many(configs, at_once=2 if not stacked else 4, stacked=stacked))
        return [trained[one] for one in configs]

    for resident, streamed in zip(together("always"), together("never"), strict=True):
        assert same_run(resident, streamed)


class Interrupted(Observer):
    """Interrupts a run at a step."""

    def __init__(self, step: int, error: type[BaseException]) -> None:
        self.left, self.error = step, error

    def step(self, images: int) -> None:
        self.left -= 1
        if not self.left:
            assert readers(), "which goes on reading while the run is at work"
            raise self.error("now")


def test_an_interrupted_run_leaves_no_thread_and_continues_from_either_place(tmp_path: Path):
    asked = config(tmp_path / "whole", train_subset=300, batch_size=20, images_in_memory="always")
    whole = train(asked)
    parts = replace(asked, runs_dir=str(tmp_path / "parts"), images_in_memory="never")
    with pytest.raises(KeyboardInterrupt):
        train(parts, observers=[Interrupted(20, KeyboardInterrupt)])
    assert not readers()
    with pytest.raises(KeyboardInterrupt):
        train(parts, observers=[Interrupted(20, KeyboardInterrupt)])
    gone_on = train(replace(parts, images_in_memory="always"))
    assert same_run(whole, gone_on)


def failing_after(batches: int, error: BaseException) -> Callable[..., torch.Tensor]:
    gathered = StreamedBatches._gathered
    left = [batches]

    def fail(self: StreamedBatches, *arguments: torch.Tensor) -> torch.Tensor:
        left[0] -= 1
        if left[0] < 0:
            raise error
        return gathered(self, *arguments)

    return fail


def test_an_error_in_the_reading_thread_ends_the_run_unchanged(tmp_path: Path, monkeypatch):
    wrong = ZeroDivisionError("of the thread's own")
    monkeypatch.setattr(StreamedBatches, "_gathered", failing_after(9, wrong))
    with pytest.raises(ZeroDivisionError) as raised:
        train(config(tmp_path, batch_size=64, images_in_memory="never"))
    assert raised.value is wrong
    assert not readers()


def test_out_of_memory_in_the_reading_thread_is_reported_as_that(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(StreamedBatches, "_gathered", failing_after(9, MemoryError()))
    with pytest.raises(MemoryShortageError, match="not enough memory"):
        train(config(tmp_path, batch_size=64, images_in_memory="never"))
    assert not readers()


def test_images_stay_on_disk_where_they_do_not_fit_and_one_line_says_so(tmp_path: Path, monkeypatch, caplog):
    data = sources.load("digits")
    values = (len(data.train) + len(data.test)) * 28 * 28 * 4
    asked = resolve(config(tmp_path, num_epochs=1), data)
    run = memory.of_run(asked, data)
    caplog.set_level("INFO", "rethinking")
    for spare, is_on_disk in ((1.01, False), (0.5, True)):
        monkeypatch.setattr(memory, "free_memory", lambda device, free=run + spare * values: free / memory.SPARE)
        caplog.clear()
        trained = train(replace(asked, runs_dir=str(tmp_path / f"{spare}")))
        sizes = f"{values / 2**20:.1f} MiB of them do not fit into {values / 2**21:.1f} MiB"
        line = f"images stay on disk: {sizes} of free memory; batches are read ahead"
        told = [record.message for record in caplog.records if "disk" in record.message]
        assert told == ([line] if is_on_disk else [])
        assert [note for note in trained.result["data"]["notes"] if "disk" in note] == told
        kind = StreamedBatches if is_on_disk else Batches
        assert type(plain_training_set(asked, data)) is kind
        assert (footprint(asked, data).images == 0) is is_on_disk
    assert why_on_disk(replace(asked, images_in_memory="always"), data) is None


@pytest.mark.parametrize(
    "options", [{"randomization": "gaussian_pixels"}, {"randomization": "random_pixels"}, {"pixel_noise": 2.0}]
)
def test_the_draws_for_the_images_must_fit_into_memory_too(tmp_path: Path, monkeypatch, options):
    """The GPU has room for all images, but the host does not."""
    data = sources.load("digits")
    asked = replace(resolve(config(tmp_path, **options), data), device="cuda")
    for host, is_on_disk in ((1e6, True), (1e9, False)):
        monkeypatch.setattr(memory, "free_memory", lambda device, host=host: 1e12 if device == "cuda" else host)
        assert (why_on_disk(asked, data) is not None) is is_on_disk
        assert why_on_disk(replace(asked, randomization="none", pixel_noise=0.0), data) is None


def test_images_on_disk_leave_memory_for_more_runs_at_once(tmp_path: Path, monkeypatch):
    planned = PlannedRun.of(config(tmp_path)).config
    never = replace(planned, device="cuda", images_in_memory="never")
    many = replace(planned, device="cuda", images_in_memory="always", randomization="random_pixels")
    data = sources.load("digits")
    free = 4 * sum(footprint(many, data)) / memory.SPARE
    monkeypatch.setattr(memory, "free_memory", lambda device: free)
    assert at_once_that_fit(never) > at_once_that_fit(many) >= 1


GROWTH = """
import json, sys
from pathlib import Path
from rethinking import ExperimentConfig, train
from rethinking.training.loggers import Observer

def anonymous():
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))

class Peak(Observer):
    bytes = 0
    def step(self, images):
        self.bytes = max(self.bytes, anonymous())

options = json.loads(sys.argv[1])
few = {"train_subset": 640, "images_in_memory": "never"}
train(ExperimentConfig(**options | few))  # what any run of this network takes
before, peak = anonymous(), Peak()
train(ExperimentConfig(**options), observers=[peak])
print(max(peak.bytes, anonymous()) - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells what of a process's memory is")
def test_images_on_disk_take_no_memory_of_the_process(tmp_path: Path):
    """In memory, images take the size of the network's inputs, minus the memory that the process had free before."""
    count = 20_000
    images = np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
    labels = np.arange(count) % 10
    np.savez(tmp_path / "large.npz", x_train=images, y_train=labels, x_test=images[:3000], y_test=labels[:3000])

    def growth(where: str, randomization: str) -> int:
        options = {"model_name": "mlp_1x512", "dataset": str(tmp_path / "large.npz"), "num_epochs": 1}
        options |= {"device": "cpu", "precision": "fp32", "use_tensorboard": False, "images_in_memory": where}
        options |= {"randomization": randomization, "runs_dir": str(tmp_path / where), "learning_rate": 1e-4}
        command = [sys.executable, "-c", GROWTH, json.dumps(options)]
        environment = os.environ | {"RETHINKING_CACHE": str(tmp_path / "cache")}
        ran = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        return int(ran.stdout)

    seen = count * 28 * 28 * 3 * 4
    assert growth("always", "none") > 0.8 * seen
    for randomization in ("none", "gaussian_pixels"):
        assert growth("never", randomization) < 0.4 * seen, "buffers of a few batches"


def test_the_choice_is_an_option_that_names_what_is_allowed():
    with pytest.raises(ValueError, match="images_in_memory must be one of auto, always, never, not 'sometimes'"):
        ExperimentConfig(images_in_memory="sometimes")
