"""Kernel machines as runs, on the digits and on small real data."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from rethinking.data import sources
from rethinking.data.draws import subset_rows
from rethinking.errors import ConflictError, InputError, RunError
from rethinking.identity import question
from rethinking.theory import blocks, convolutional, fitting, interpolation, memory
from rethinking.theory.convolutional import FilterOptions, standardized_features
from rethinking.theory.fitting import fit
from rethinking.theory.kernel_machine import KernelMachineConfig
from rethinking.theory.kernels import GaussianKernel
from rethinking.theory.run import run_dir
from tests.conftest import ROOT

GIB = 2**30
OPTIONS = "mirror=True, pool_size=9, pool_stride=7"  # nine pools of a digit's 23 places a side


def config(runs: Path, **options) -> KernelMachineConfig:
    return KernelMachineConfig(**{"dataset": "digits", "device": "cpu", "runs_dir": str(runs), **options})


def test_a_run_is_the_exact_solution_and_reports_its_residual(tmp_path: Path):
    """Compares with float64 on the whole matrix."""
    found = fit(config(tmp_path, bandwidth=3.0))
    result = found.result
    assert result["interpolates"]
    assert result["train_error"] == 0
    assert result["residual"] < interpolation.TOLERANCE
    data = sources.load("digits")
    points, test = (torch.from_numpy(split.images).flatten(1).double() / 255 for split in (data.train, data.test))
    targets = np.eye(10)[data.train.labels]
    kernel = GaussianKernel(3.0)
    gram = kernel(points, points).numpy()
    exact = np.linalg.solve(gram, targets)
    error = np.mean((kernel(test, points).numpy() @ exact).argmax(axis=1) != data.test.labels)
    assert result["test_error"] == pytest.approx(error, abs=0.003)
    assert result["norm"] == pytest.approx(np.sqrt(np.sum(exact * (gram @ exact))), rel=1e-3)
    assert result["coefficient_norms"] == pytest.approx(np.linalg.norm(exact, axis=0), rel=1e-3)
    kept = safetensors.torch.load_file(found.path / "solution.safetensors")["coefficients"]
    assert kept.dtype == torch.float64
    assert np.abs(kept.numpy() - exact).max() < 1e-3 * np.abs(exact).max()
    assert (result["train_images"], result["test_images"], result["features"]) == (1442, 355, 784)
    assert result["provenance"]["fingerprint"] == data.fingerprint


def test_the_bandwidth_is_chosen_by_the_true_labels_whatever_labels_are_fitted(tmp_path: Path):
    """So one kernel fits both; random labels would choose a bandwidth by chance."""
    true, random = (
        fit(config(tmp_path, train_subset=200, randomization=labels)).result for labels in ("none", "random_labels")
    )
    assert true["bandwidths_tried"] == random["bandwidths_tried"]
    assert true["bandwidth"] == random["bandwidth"]
    assert true["test_error"] < 0.2, "true labels are those of their images"
    assert random["test_error"] > 0.7


def test_random_labels_are_fitted_as_exactly(tmp_path: Path):
    result = fit(config(tmp_path, randomization="random_labels")).result
    assert result["interpolates"]
    assert result["test_error"] == pytest.approx(0.9, abs=0.06)
    true = fit(config(tmp_path)).result
    assert result["norm"] > 3 * true["norm"]
    assert result["bandwidth"] == true["bandwidth"], "the kernel is that of the true labels"


def test_the_same_question_finds_its_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    asked = config(tmp_path, bandwidth="median")
    assert fitting.find(asked) is None
    first = fit(asked)
    monkeypatch.setattr(fitting, "solve", None)
    again = fit(replace(asked, memory_limit=10.0))
    assert again.path == first.path
    assert again.result == first.result
    assert fitting.find(replace(asked, l2=0.1)) is None
    assert not (first.path / "factor").exists()


def test_the_bandwidth_is_searched_kept_and_reported(tmp_path: Path):
    result = fit(config(tmp_path, train_subset=400)).result
    assert result["bandwidths_tried"][f"{result['bandwidth']:.6g}"] == min(result["bandwidths_tried"].values())
    median = fit(config(tmp_path, train_subset=400, bandwidth="median")).result
    assert median["bandwidth"] == median["median_distance"] == result["median_distance"]


def test_a_given_bandwidth_needs_no_median(tmp_path: Path):
    assert fit(config(tmp_path, train_subset=1, bandwidth=3.0)).result["train_error"] == 0
    with pytest.raises(InputError, match="do not differ enough for the median"):
        fit(config(tmp_path, train_subset=1, bandwidth="median"))


def test_the_residual_that_float32_hides_is_reported(tmp_path: Path):
    narrow, wide = (fit(config(tmp_path, bandwidth=bandwidth)).result for bandwidth in (3.0, 28.0))
    assert narrow["residual"] >= narrow["residual_in_float64"]
    assert narrow["interpolates"] is True
    assert wide["residual"] == wide["residual_in_float64"] > 1e-3
    assert wide["interpolates"] is False


def test_the_rest_of_a_kill_after_a_finished_run_is_removed(tmp_path: Path):
    found = fit(config(tmp_path, train_subset=100, bandwidth=3.0))
    for left in ("factor", "sums"):
        (found.path / left).mkdir()
    assert fit(config(tmp_path, train_subset=100, bandwidth=3.0)).result == found.result
    assert not (found.path / "factor").exists()
    assert not (found.path / "sums").exists()


def test_an_l2_term_is_searched_for_random_convolutional_features(tmp_path: Path):
    result = fit(config(tmp_path, features="random_conv", filters=30, l2="search", train_subset=400)).result
    assert len(result["ridges_tried"]) == 7
    assert result["ridge"] > 0
    assert result["features"] == 241


def test_other_options_of_the_filters_have_sums_of_their_own(tmp_path: Path):
    """Solves in turn, each against float64 on the features of its own options."""
    data = sources.load("digits")
    rows = subset_rows(len(data.train), 300)
    train, test = torch.from_numpy(data.train.images[rows.numpy()]), torch.from_numpy(data.test.images.copy())
    for filters, text in ((8, None), (8, OPTIONS), (12, OPTIONS), (12, None)):
        options = {"features": "random_conv", "filters": filters, "filter_options": text}
        found = fit(config(tmp_path, train_subset=300, l2=0.1, **options)).result
        points, others = standardized_features(train, test, filters, 0, FilterOptions.parsed(text))
        gram = (points @ points.T).double().numpy()
        exact = np.linalg.solve(gram + 0.1 * np.eye(300), np.eye(10)[data.train.labels[rows.numpy()]])
        values = (others @ points.T).double().numpy() @ exact
        assert found["features"] == points.shape[1] == filters * (18 if text else 8) + 1
        assert found["test_error"] == pytest.approx(np.mean(values.argmax(axis=1) != data.test.labels), abs=0.004)
        assert found["norm"] == pytest.approx(np.sqrt(np.sum(exact * (gram @ exact))), rel=1e-3)


def test_other_solutions_use_the_options_of_the_filters_too(tmp_path: Path):
    options = {"features": "random_conv", "filters": 8, "filter_options": OPTIONS, "solution": "hessian"}
    found = fit(config(tmp_path, train_subset=20, **options)).result
    assert found["features"] == found["directions"] == 8 * 18 + 1


def test_filters_are_summed_once_for_all_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(memory, "KEEP_FROM", 0)
    monkeypatch.setattr(convolutional, "CHUNK", 20)
    monkeypatch.setattr(convolutional, "KEEP_EVERY", 0.0)
    options = {"features": "random_conv", "train_subset": 200, "l2": 0.01}
    alone = fit(config(tmp_path / "alone", filters=60, **options)).result
    fit(config(tmp_path / "shared", filters=40, **options))
    (sums,) = (tmp_path / "shared").glob("random_conv-sums-*")
    assert [path.name for path in (sums / "sums").iterdir()] == ["40"]
    added: list[int] = []
    add = convolutional.FeatureGram._add
    monkeypatch.setattr(
        convolutional.FeatureGram, "_add", lambda self, end, *rest: (added.append(end), add(self, end, *rest))
    )
    more = fit(config(tmp_path / "shared", filters=60, **options)).result
    assert added == [60]
    assert more["norm"] == alone["norm"]
    fit(config(tmp_path / "shared", filters=60, **{**options, "l2": 0.1}))
    assert added == [60]
    less = config(tmp_path / "shared", filters=20, **options)
    assert (
        fitting.estimate_cost(less)[1] == fitting.estimate_cost(replace(less, runs_dir=str(tmp_path / "fresh")))[1]
    ), "from none"
    assert fitting.estimate_cost(replace(less, filters=80))[1] < fitting.estimate_cost(less, 60)[1] + 1e9, "from 60"
    fewer = fit(less).result
    assert added == [60, 20], "what is added stays, so fewer are summed anew"
    assert fewer["norm"] != more["norm"]
    assert set(json.loads((sums / "seconds.json").read_text())) == {"20", "40", "60"}
    assert not list((tmp_path / "shared").glob("random_conv-20-*/sums")), "given back"


@pytest.mark.parametrize("features", ["pixels", "random_conv"])
def test_the_memory_limited_path_gives_the_same_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, features):
    monkeypatch.setattr(blocks, "BLOCK", 100)
    monkeypatch.setattr(memory, "LIBRARIES", 0)
    options = {"features": features, "filters": 200 if features == "random_conv" else None, "l2": 0.01}
    options |= {"bandwidth": 3.0}
    plain = fit(config(tmp_path / "plain", **options))
    least, _ = fitting.estimate_cost(config(tmp_path, **options))
    limit = (least - 2e6) / GIB
    limited = fit(config(tmp_path / "limited", memory_limit=limit, **options))
    assert "the rest on disk" in limited.result["memory"]
    assert "in memory" in plain.result["memory"]
    first, second = (
        safetensors.torch.load_file(each.path / "solution.safetensors")["coefficients"] for each in (plain, limited)
    )
    assert torch.allclose(first, second, rtol=1e-4, atol=1e-4 * float(first.abs().max()))
    assert limited.result["test_error"] == plain.result["test_error"]


def test_a_killed_run_continues_with_its_factor_to_the_same_numbers(tmp_path: Path):
    """kill -9 interrupts the factorization."""
    script = (
        "import sys, time\n"
        "from rethinking.theory import blocks, memory\n"
        "from rethinking.theory.fitting import fit\n"
        "from rethinking.theory.kernel_machine import KernelMachineConfig\n"
        "blocks.BLOCK, memory.KEEP_FROM = 100, 0\n"
        "def begin(step):\n"
        "    print(step, flush=True)\n"
        "    return lambda share: time.sleep(0.3 if step == 'factorizing' and '--slow' in sys.argv else 0)\n"
        "fit(KernelMachineConfig(dataset='digits', device='cpu', bandwidth=3.0, runs_dir=sys.argv[1]), begin)\n"
    )

    def command(runs: Path, *options: str) -> list[str]:
        return [sys.executable, "-c", script, str(runs), *options]

    process = subprocess.Popen(command(tmp_path / "killed", "--slow"), cwd=ROOT, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 1200
    while len(list((tmp_path / "killed").rglob("factor/*/*.npy"))) < 5:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "killed").rglob("factor/*/*.npy")}
    assert 5 <= len(kept) < 15
    for runs in ("killed", "whole"):
        subprocess.run(command(tmp_path / runs), cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    killed, whole = (next((tmp_path / runs).glob("pixels-*/solution.safetensors")) for runs in ("killed", "whole"))
    assert killed.read_bytes() == whole.read_bytes()


def test_equal_images_with_different_labels_are_named_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    data = sources.load("digits")
    images, labels = data.train.images.copy(), data.train.labels.copy()
    images[17], labels[17], labels[3] = images[3], 1, 2
    doubled = replace(data, fingerprint="doubled", train=sources.ImageSet(images, labels))
    monkeypatch.setattr(sources, "load", lambda *_, **__: doubled)
    for begin in (fitting.estimate_cost, fit):
        with pytest.raises(
            ConflictError, match="both training images 3 and 17: they are equal, but their true labels are '2'"
        ):
            begin(config(tmp_path))
    assert not list(tmp_path.iterdir())
    assert fit(config(tmp_path, l2=0.1, bandwidth=3.0)).result["ridge"] == 0.1


def test_equal_images_are_named_by_their_place_in_the_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    data = sources.load("digits")
    images, labels = data.train.images.copy(), data.train.labels.copy()
    images[700:] = images[3]
    labels[700:] = np.arange(742) % 10
    doubled = replace(data, fingerprint="doubled often", train=sources.ImageSet(images, labels))
    monkeypatch.setattr(sources, "load", lambda *_, **__: doubled)
    with pytest.raises(ConflictError, match=r"no function fits both training images (\d+) and (\d+):") as caught:
        fit(config(tmp_path, train_subset=1300))
    first, second = (int(place) for place in re.findall(r"\d+", str(caught.value))[:2])
    assert np.array_equal(images[first], images[second])
    assert labels[first] != labels[second]


@pytest.mark.parametrize(
    "options",
    [
        {"bandwidth": 3.0},
        {"features": "gabor", "bandwidth": 0.5},
        {"features": "random_conv", "filters": 60},
        {"solution": "sgd", "bandwidth": 3.0},
        {"solution": "hessian", "features": "random_conv", "filters": 20},
    ],
    ids=str,
)
def test_a_data_set_without_test_images_has_a_solution_and_no_test_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options
):
    alone = replace(sources.load("digits"), test=None)
    monkeypatch.setattr(sources, "load", lambda *_, **__: alone)
    result = fit(config(tmp_path, train_subset=50, **options)).result
    assert result["test_error"] is None
    assert result["train_error"] == 0
    assert result["test_images"] == 0


def test_sums_without_their_seconds_are_continued(tmp_path: Path):
    options = {"features": "random_conv", "filters": 20, "train_subset": 100, "l2": 0.1}
    first = fit(config(tmp_path, **options))
    (sums,) = tmp_path.glob("random_conv-sums-*")
    (sums / "seconds.json").unlink()
    shutil.rmtree(first.path)
    assert fit(config(tmp_path, **options)).result["norm"] == first.result["norm"]
    (sums / "seconds.json").write_text('{"10": 100.0}')  # as where it was killed before those of the last chunk
    shutil.rmtree(first.path)
    assert fit(config(tmp_path, **options)).result["steps"]["summing over 20 filters"] == 100.0


@pytest.mark.parametrize(
    "options",
    [
        {"features": "gabor", "bandwidth": 0.3},
        {"features": "random_conv", "filters": 200, "l2": "search"},
        {"solution": "random_centres", "bandwidth": 3.0},
    ],
    ids=str,
)
def test_a_run_takes_no_more_memory_than_it_was_planned_to(tmp_path: Path, options):
    """A process of its own measures this, with only its libraries loaded before."""
    script = (
        "import sys, json\n"
        "from rethinking.theory.memory import peak\n"
        "from rethinking.training.memory import LIBRARIES\n"
        "from rethinking.theory import fitting\n"
        "from rethinking.theory.kernel_machine import KernelMachineConfig\n"
        "asked = KernelMachineConfig(dataset='digits', device='cpu', runs_dir=sys.argv[1], **json.loads(sys.argv[2]))\n"
        "memory, _ = fitting.estimate_cost(asked)\n"
        "print(memory - LIBRARIES, -peak() + fitting.fit(asked).result['peak_gib'] * 2**30)\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path), json.dumps(options)]
    planned, taken = map(float, subprocess.check_output(command, cwd=ROOT, text=True).split())
    assert taken < 1.25 * planned + (100 << 20)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bandwidth": 0.0}, "bandwidth must be search, median or a positive number, not 0"),
        ({"bandwidth": "-1"}, "bandwidth must be search, median or a positive number, not -1"),
        ({"bandwidth": "medain"}, "bandwidth must be search, median or a number, not 'medain'; did you mean 'median'?"),
        ({"l2": -1.0}, "the l2 term must be search or a number from 0 on, not -1"),
        ({"features": "gabro"}, "did you mean 'gabor'?"),
        ({"filters": 10}, "features 'random_conv' need filters, and only they take them"),
        ({"features": "random_conv"}, "features 'random_conv' need filters, and only they take them"),
        ({"features": "random_conv", "filters": 0}, "filters must be whole numbers from 1 on"),
        ({"solution": "sgd", "l2": 0.5}, "sgd fits the labels exactly and has no l2 term; leave l2 out"),
        ({"memory_limit": 0.0}, "memory_limit must be a positive number of GiB"),
        ({"train_subset": 2000}, "train_subset must be from 1 to 1442"),
        ({"features": "random_conv", "filters": 600, "train_subset": 1}, "600 filters are more than the 529 patches"),
        ({"memory_limit": 0.01}, "of memory, and 0.0 GiB are allowed"),
    ],
)
def test_wrong_options_are_a_one_line_error_before_any_work(tmp_path: Path, options, message):
    with pytest.raises(InputError) as caught:
        fit(config(tmp_path, **options))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_damaged_result_is_reported_with_what_to_do(tmp_path: Path):
    found = fit(config(tmp_path, train_subset=100, bandwidth=3.0))
    (found.path / "result.json").write_text("{")
    with pytest.raises(RunError, match=r"result\.json is damaged: move that folder away"):
        fit(config(tmp_path, train_subset=100, bandwidth=3.0))


def test_a_folder_in_use_by_another_process_is_left_alone(tmp_path: Path):
    asked = config(tmp_path, train_subset=100, bandwidth=3.0)
    data = sources.load("digits")
    folder = run_dir(asked.resolved(data), data)
    with folder.lock(), pytest.raises(RunError, match="another process"):
        fit(asked)


def test_the_question_is_the_same_on_every_device_and_of_any_memory():
    base = KernelMachineConfig(dataset="digits", bandwidth=2.0)
    asked = question(base, "digits", "f")
    assert question(replace(base, device="cuda", memory_limit=3.0, runs_dir="elsewhere"), "digits", "f") == asked
    assert question(replace(base, bandwidth=3.0), "digits", "f") != asked
    assert question(base, "digits", "g") != asked


def test_colour_images_of_a_folder_are_fitted(real_root: Path, tmp_path: Path):
    asked = config(tmp_path, dataset="cifar10", data_root=str(real_root), bandwidth="median")
    result = fit(asked).result
    assert result["features"] == 3072
    assert result["train_error"] == 0
    assert 0.5 < result["test_error"] < 0.95
    assert os.path.basename(result["run"]).startswith("pixels-minimum_norm-cifar10-")
