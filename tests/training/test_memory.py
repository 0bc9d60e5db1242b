"""Compares the expected memory of a run with its actual memory."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rethinking.data import sources
from rethinking.training import memory
from rethinking.training.memory import LIBRARIES, footprint, free_memory
from rethinking.training.preparation import PlannedRun
from tests.conftest import ROOT
from tests.engines.test_here import config

PEAK = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def test_the_expected_peak_equals_the_peak_of_a_process(tmp_path: Path):
    """Small AlexNet has a small batch, and a batch of all images, which takes several times as much memory."""
    data = sources.load("digits")
    expected, measured = {}, {}
    for batch_size in (128, len(data.train)):
        options = {"model": "small_alexnet", "dataset": "digits", "batch_size": batch_size, "num_epochs": 1}
        options |= {"device": "cpu", "precision": "fp32"}
        command = [sys.executable, str(ROOT / "train.py"), *(f"--{name}={value}" for name, value in options.items())]
        # From a small process: what this one holds would count as its child's.
        ran = subprocess.run([sys.executable, "-c", PEAK, *command], cwd=tmp_path, capture_output=True, check=True)
        measured[batch_size] = int(ran.stdout) * 1024
        asked = PlannedRun.of(config(tmp_path, model_name="small_alexnet", batch_size=batch_size))
        expected[batch_size] = LIBRARIES + sum(footprint(asked.config, data))
    small, large = measured
    assert expected[small] == pytest.approx(measured[small], rel=0.5)
    # Which of the processor's convolution routines is chosen, and what it takes besides, is the machine's.
    assert 0.5 < (expected[large] - expected[small]) / (measured[large] - measured[small]) < 2


def test_memory_for_the_backward_pass_grows_with_the_batch_and_halves_in_bf16(tmp_path: Path):
    data = sources.load("digits")

    def run(**options) -> int:
        return footprint(PlannedRun.of(config(tmp_path, model_name="small_alexnet", **options)).config, data).run

    small, large = run(batch_size=1000), run(batch_size=4000)
    assert 3 < large / small < 4
    assert 0.5 < run(batch_size=4000, precision="bf16") / large < 0.8, "the normalization keeps float32"


def test_augmented_images_stay_bytes(tmp_path: Path):
    data = sources.load("digits")
    plain = footprint(PlannedRun.of(config(tmp_path)).config, data).images
    cropped = footprint(PlannedRun.of(config(tmp_path, random_crop=True)).config, data).images
    assert plain - cropped == len(data.train) * 28 * 28 * 3


def test_the_limit_of_a_container_counts_as_the_memory(tmp_path: Path, monkeypatch):
    """Its used memory is subtracted, except for file pages, which the system can take back."""
    (tmp_path / "memory.current").write_text("3000\n")
    (tmp_path / "memory.stat").write_text("anon 1800\nfile 1200\ninactive_file 700\nactive_file 400\n")
    unlimited = free_memory("cpu")
    monkeypatch.setattr(memory, "CONTROL_GROUPS", tmp_path)
    (tmp_path / "memory.max").write_text("max\n")
    assert free_memory("cpu") == pytest.approx(unlimited, rel=0.3)
    (tmp_path / "memory.max").write_text("10000\n")
    assert free_memory("cpu") == 10000 - 3000 + 700 + 400


def test_free_memory_is_less_than_all_memory():
    everything = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 0 < free_memory("cpu") < everything
