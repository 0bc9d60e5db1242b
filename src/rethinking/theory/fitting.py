"""Carry out a `KernelMachineConfig`: features, bandwidth, solution, errors, and files on disk.

runs/<id>/config.yaml            the resolved configuration
          chosen.json            the bandwidth and l2 term, with the held-out errors that chose them
          factor/                block rows of Cholesky's factor, until the run is finished
          solution.safetensors   coefficients, float64 (training images, classes)
          result.json            written last: it marks the run as finished
runs/random_conv-sums-.../       the Gram matrix of random convolutional features so far, which runs share
"""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from rethinking import files
from rethinking.data import sources
from rethinking.errors import MemoryShortageError, RunError, too_little_memory
from rethinking.seeding import generator
from rethinking.steps import Steps, unwatched
from rethinking.theory import memory, minimum_norm
from rethinking.theory.blocks import spans
from rethinking.theory.cholesky import SymmetricMatrix
from rethinking.theory.convolutional import FeatureGram, standardized_features, summed
from rethinking.theory.gabor import GaborBank
from rethinking.theory.interpolation import (
    EXACT,
    TOLERANCE,
    Solution,
    residual_in_float64,
    solve,
)
from rethinking.theory.kernel_machine import KernelMachineConfig, sums_folder
from rethinking.theory.kernels import GaussianKernel, Kernel, KernelMatrix, LinearKernel, median_distance
from rethinking.theory.run import (
    Problem,
    TheoryResult,
    about,
    at_work,
    find,
    keep,
    refuse_conflicting_images,
    run_dir,
)
from rethinking.theory.search import Choice, choose_bandwidth, choose_ridge
from rethinking.training.hardware import choose_products
from rethinking.training.run_dir import RunDir

log = logging.getLogger(__name__)

LONG = 10.0  # seconds of factorizing; the speed of a shorter one is not measured


def estimate_cost(config: KernelMachineConfig, summed_by_then: int = 0) -> tuple[float, float]:
    """The bytes of memory and the floating-point operations that `fit` needs.

    Filters that are summed already do not count. `summed_by_then` is the number of filters that earlier runs will have
    summed. Raises `InputError` as `fit` does: for the data, the options, memory and disk.
    """
    data = sources.load_for(config)
    config = config.resolved(data)
    shape = (config.train_subset or len(data.train), *data.image_shape)
    test = len(data.test) if data.test else 0
    if not config.l2:
        refuse_conflicting_images(config, data)
    own = run_dir(config, data).path
    home = _home_of_sums(config, data, own)
    done = summed(home / "sums")
    if home != own and summed_by_then:
        done = max(done, summed_by_then) if summed_by_then <= (config.filters or 0) else 0
    plan = memory.plan(config, shape, test, own / "factor", home)
    return plan.memory, memory.operations(config, shape, test, done)


def fit(config: KernelMachineConfig, begin: Steps = unwatched) -> TheoryResult:
    """Solve the problem of `config`, resume an interrupted run, or return the finished one.

    Raises `InputError`, before any long work, where the data, the options, memory or disk do not allow it; where equal
    images have different labels it is a `ConflictError`. Raises `RunError` for damaged files, a full disk, or a matrix
    that cannot be factorized.
    """
    if found := find(config):
        _discard_matrices(found.path)  # they remain where the run was killed at its very end
        return found
    data = sources.load_for(config)
    config = config.resolved(data)
    problem = Problem.of(config, data)
    folder = run_dir(config, data)
    sums = _home_of_sums(config, data, folder.path)
    plan = memory.plan(config, tuple(problem.train.shape), len(problem.test), folder.path / "factor", sums)
    if not config.l2:
        refuse_conflicting_images(config, data)
    choose_products("fp32")
    with at_work(folder, config) as found, _memory_in_one_line():
        if found:
            return found
        log.info("%s: %s", folder.path, plan.said)
        memory.forget_peak(config.device)
        work = _Work(config, problem, plan, folder, begin)
        of_sums = config.features == "random_conv" and config.solution == "minimum_norm"
        facts = work.random_conv(sums_folder(config, data.fingerprint)) if of_sums else work.of_points()
        result = {
            **about(config, data, "fp32"),
            **facts,
            "seconds": sum(work.seconds.values()),
            "steps": work.seconds,
            "memory": plan.said,
            "peak_gib": memory.peak(config.device) / memory.GIB,
        }
        kept = keep(folder, config, data, result)
        _discard_matrices(folder.path)
    return kept


def _discard_matrices(run: Path) -> None:
    """Delete the matrices, which a finished run does not need."""
    for name in ("factor", "sums"):
        shutil.rmtree(run / name, ignore_errors=True)


class _Work:
    """The steps of one run. `seconds` holds the duration of each step in this process."""

    def __init__(
        self, config: KernelMachineConfig, problem: Problem, plan: memory.Plan, folder: RunDir, begin: Steps
    ) -> None:
        self.config, self.problem, self.plan, self.folder, self._begin = config, problem, plan, folder, begin
        self.seconds: dict[str, float] = {}
        self._step: tuple[str, float] | None = None
        self.device = torch.device(config.device)

    def begin(self, step: str) -> Callable[[float], None]:
        self.end()
        self._step = (step, time.perf_counter())
        return self._begin(step)

    def end(self) -> None:
        if self._step is not None:
            name, began = self._step
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - began
            self._step = None

    def of_points(self) -> dict[str, Any]:
        """Solve with a kernel of the points' features."""
        train, test = self._features()
        kernel, chosen = self._kernel(train)
        if self.config.solution != "minimum_norm":
            problem = self.problem
            once = minimum_norm.without_copies(train)
            task = minimum_norm.Task(
                kernel, train[once], problem.labels[once], test, problem.test_labels, problem.num_classes,
                self.config.seed, minimum_norm.unseen(problem.train, problem.test),
            )  # fmt: skip
            facts = minimum_norm.SOLUTIONS[self.config.solution](task, self.begin)
            self.end()
            return {"features": train.shape[1], **chosen, **facts}
        solution, facts = self._solve(KernelMatrix(kernel, train))
        errors = self._errors(solution, lambda start, end: kernel(test[start:end], train))
        targets, drawn = self.problem.targets.to(self.device), generator(self.config.seed, "checked points")
        exactly = residual_in_float64(kernel, train, solution, targets, drawn)
        errors["interpolates"] &= exactly < EXACT
        checked = {"residual_in_float64": exactly, "residual": max(exactly, solution.residual)}
        return {"features": train.shape[1], **chosen, **facts, **errors, **checked}

    def random_conv(self, shared: Path) -> dict[str, Any]:
        """Solve with random convolutional features. Their Gram matrix continues from the sums of earlier runs."""
        filters = self.config.filters
        assert filters is not None, "checked with the configuration"
        with RunDir(shared).lock():
            gram, home = self._gram(shared), RunDir(shared)
            if gram.filters > filters:  # sums never lose filters, so this run makes sums of its own
                gram, home = self._gram(self.folder.path), self.folder
            step = f"summing over {filters:,} filters"
            known = _numbers(home.path / "seconds.json", "delete that file; earlier time is then not counted")
            # The last chunk's seconds are missing where the process was killed just before they were written.
            before = max((known[count] for count in known if int(count) <= gram.filters), default=0.0)
            began = time.perf_counter()

            def kept(filters: int) -> None:
                known[str(filters)] = before + time.perf_counter() - began
                home.write("seconds.json", json.dumps(known).encode())

            gram.extend(filters, self.begin(step), kept)
            self.end()
            self.seconds[step] = known.get(str(filters), before)  # over all processes
            solution, facts = self._solve(gram)
            features = self.config.convolution.features(tuple(self.problem.train.shape[1:])) * filters + 1
            return {"features": features, **facts, **self._errors(solution, gram.test_rows)}

    def _gram(self, home: Path) -> FeatureGram:
        folder = home / "sums" if self.plan.keep_sums else None
        problem, held = self.problem, self.plan.held_sums
        options = self.config.convolution
        return FeatureGram(problem.train, problem.test, self.config.seed, folder, held, self.device, options)

    def _features(self) -> tuple[Tensor, Tensor]:
        """The features of training and test images, float32 (n, features), on the device."""
        both = self.problem.train.to(self.device), self.problem.test.to(self.device)
        if self.config.features == "pixels":
            train, test = (images.flatten(1).float() / 255 for images in both)
        elif self.config.features == "gabor":
            train, test = (GaborBank().features(images, self.begin("Gabor features")) for images in both)
        else:
            assert self.config.filters is not None, "checked with the configuration"
            filters, seed, options = self.config.filters, self.config.seed, self.config.convolution
            train, test = standardized_features(*both, filters, seed, options, self.begin("features"))
        return train, test

    def _kernel(self, points: Tensor) -> tuple[Kernel, dict[str, Any]]:
        if self.config.kernel == "linear":
            return LinearKernel(), {}
        kept = self._chosen()
        if "bandwidth" not in kept:
            kept["bandwidth"] = self.config.bandwidth
            if not isinstance(self.config.bandwidth, float):
                median = median_distance(points, generator(self.config.seed, "pairs"))
                kept |= {"bandwidth": median, "median_distance": median}
            if self.config.bandwidth == "search":
                # True labels choose it, so that random labels are fitted with the same kernel.
                choice = choose_bandwidth(
                    points, self.problem.true_labels, self.problem.num_classes, median, self.begin
                )
                kept |= {"bandwidth": choice.value, "bandwidths_tried": choice.held_out_errors}
            self._keep(kept)
        return GaussianKernel(kept["bandwidth"]), kept

    def _solve(self, matrix: SymmetricMatrix) -> tuple[Solution, dict[str, Any]]:
        chosen = self._chosen()
        ridge = self.config.l2
        if ridge == "search":
            if "ridge" not in chosen:
                choice: Choice = choose_ridge(matrix, self.problem.labels, self.problem.num_classes, self.begin)
                chosen |= {"ridge": choice.value, "ridges_tried": choice.held_out_errors}
                self._keep(chosen)
            ridge = chosen["ridge"]
        assert isinstance(ridge, float), "a number, or one was found"
        targets = self.problem.targets.to(self.device)
        place = self.folder.path / "factor" if self.plan.keep_factor else None
        begun_before = place is not None and place.exists()
        timed = _Timed(matrix)
        making: dict[str, float] = {}  # seconds spent on rows of K when each step began

        def begin(step: str) -> Callable[[float], None]:
            making.setdefault(step, timed.seconds)
            return self.begin(step)

        solution = solve(timed, targets, ridge, folder=place, held=self.plan.held_factor, begin=begin)
        self.end()
        content = safetensors.torch.save({"coefficients": solution.coefficients.cpu().contiguous()})
        self.folder.write("solution.safetensors", content)
        facts = {
            **{name: chosen[name] for name in ("ridges_tried",) if name in chosen},
            "ridge": ridge,
            "jitter": solution.jitter,
            "residual": solution.residual,
            "norm": solution.norm,
            "coefficient_norms": solution.coefficients.norm(dim=0).tolist(),  # of each output's coefficients
            "refinements": solution.refinements,
        }
        if begun_before:
            facts["resumed"] = True
        if not (solution.jitter or begun_before) and self.seconds["factorizing"] > LONG:
            seconds = self.seconds["factorizing"] - (making["solving"] - making["factorizing"])
            facts["cholesky_gflops"] = matrix.size**3 / 3 / seconds / 1e9
            facts["product_gflops"] = memory.product_rate(self.device) / 1e9
        return solution, facts

    def _errors(self, solution: Solution, test_rows: Callable[[int, int], Tensor]) -> dict[str, Any]:
        """The errors of a solution. `test_rows` computes a block of K between test and training images, float32."""
        problem = self.problem
        wrong = solution.values.argmax(dim=1).cpu() != problem.labels
        facts: dict[str, Any] = {"train_error": float(wrong.double().mean()), "test_error": None}
        facts["interpolates"] = not bool(wrong.any()) and solution.residual < TOLERANCE
        if len(problem.test):
            mistaken, advanced = 0, self.begin("test images")
            for start, end in spans(len(problem.test)):
                values = test_rows(start, end).double() @ solution.coefficients
                mistaken += int((values.argmax(dim=1).cpu() != problem.test_labels[start:end]).sum())
                advanced(end / len(problem.test))
            facts["test_error"] = mistaken / len(problem.test)
        self.end()
        return facts

    def _chosen(self) -> dict[str, Any]:
        path, what_to_do = self.folder.path / "chosen.json", "delete that file, and the same command chooses again"
        chosen = files.read_json(path, what_to_do) or {}
        if not all(isinstance(chosen.get(name, 0.0), float) for name in ("bandwidth", "median_distance", "ridge")):
            raise RunError(f"{path} is damaged: {what_to_do}")
        return chosen

    def _keep(self, chosen: dict[str, Any]) -> None:
        files.write_json(self.folder.path / "chosen.json", chosen)


def _numbers(path: Path, what_to_do: str) -> dict[str, float]:
    """The seconds in a file by number of filters; empty without the file. Raises `RunError` where it is damaged."""
    known = files.read_json(path, what_to_do) or {}
    if not all(count.isdecimal() and isinstance(seconds, float) for count, seconds in known.items()):
        raise RunError(f"{path} is damaged: {what_to_do}")
    return known


class _Timed:
    """A matrix that counts the seconds spent on its rows."""

    def __init__(self, matrix: SymmetricMatrix) -> None:
        self._matrix = matrix
        self.size = matrix.size
        self.seconds = 0.0

    def rows(self, index: int) -> Tensor:
        began = time.perf_counter()
        made = self._matrix.rows(index)
        self.seconds += time.perf_counter() - began
        return made


def _home_of_sums(config: KernelMachineConfig, data: sources.ImageData, own: Path) -> Path:
    """The folder of the sums over filters: the shared one, or the run's own where that has more filters already."""
    shared = sums_folder(config, data.fingerprint)
    return own if summed(shared / "sums") > (config.filters or 0) > 0 else shared


@contextlib.contextmanager
def _memory_in_one_line() -> Iterator[None]:
    try:
        yield
    except (RuntimeError, MemoryError, OSError) as error:
        if isinstance(error, RunError) or too_little_memory(error) is None:
            raise
        raise MemoryShortageError("there is not enough memory for this; give a smaller --memory_limit") from None
