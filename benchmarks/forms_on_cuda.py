"""Compares ideas that might make a captured step faster on a GPU with today's step.

    python benchmarks/forms_on_cuda.py [--models small_inception small_alexnet] [--out results/performance.csv]
    python benchmarks/forms_on_cuda.py --device cpu --steps 1 --rounds 1        # tries the script without capture

Each idea is captured too. In images a second on one batch in memory; the ratio to today's step is the median over the
rounds:
  today                 the step of `train`
  compiled              forward and backward by `torch.compile` (max-autotune, no graphs of its own)
  parts compiled        only normalization with ReLU, or local response normalization
  cudnn.benchmark       convolutions chosen by trial
  8 channels            images and the first convolution padded from 3 channels
  bf16 weights          beside float32 weights, which the update changes
  4 steps a graph
  N runs in turn, N runs on streams, N runs stacked     images of all runs
  stock, stock bf16     the stock epoch of `epoch_against_step.py` in float32, and in bfloat16 by autocast
An idea that fails prints one line, and the others continue. `floor.py` profiles today's step.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
import tyro
from epoch_against_step import stock_epoch
from rich import print
from torch import Tensor, nn
from torch.nn import functional as F
from workload import Machine, keep, runs_at_work, seconds

from rethinking.config import ExperimentConfig
from rethinking.models import build_model, catalogue, is_convolutional
from rethinking.models.alexnet import LocalResponseNorm
from rethinking.models.inception import ConvModule
from rethinking.training.loop import Training, batches_of
from rethinking.training.optimizers import Optimizer
from rethinking.training.step import CapturedStep, Step

CHANNELS = 8  # a row of 16 bytes in bfloat16, which tensor cores load at once
STEPS_A_GRAPH = 4
RATE = 1e-12  # random images diverge at usual rates


@dataclass(frozen=True)
class Arguments:
    """The options of this benchmark."""

    models: tuple[str, ...] = catalogue.PAPER
    rounds: int = 5
    steps: int = 96
    runs: int = 11
    device: str = "auto"
    out: Path | None = None


Steps = Callable[[], object]  # runs all steps once


@dataclass(frozen=True)
class Workshop:
    """Prepares each idea for one network: a method returns what runs its steps once."""

    model: str
    machine: Machine
    steps: int

    def runs(self, number: int = 1, build: Callable[[], nn.Module] | None = None) -> list[Training]:
        """Returns `number` runs at work on random images."""
        return runs_at_work(ExperimentConfig(model_name=self.model), self.machine, number, 256, build)

    def today(self) -> Steps:
        """Uses the step of `train`."""
        return self._steps(self.runs())

    def compiled(self) -> Steps:
        """Compiles the forward and the backward pass."""
        runs = self.runs()
        step = step_of(runs)
        torch._dynamo.reset()
        forward = step._forward.losses_and_logits
        step._losses_and_logits = torch.compile(forward, mode="max-autotune-no-cudagraphs", dynamic=False)
        return self._steps(runs, step)

    def parts_compiled(self) -> Steps:
        """Compiles normalization with ReLU, or local response normalization."""
        torch._dynamo.reset()
        return self._steps(self.runs(build=lambda: with_parts_compiled(build_model(self.model))))

    def chosen_by_trial(self) -> Steps:
        """Lets cuDNN choose convolutions by trial."""
        with flag(torch.backends.cudnn, "benchmark", True):
            return self._steps(self.runs())

    def padded(self) -> Steps:
        """Pads the images and the first convolution to `CHANNELS` channels."""
        runs = self.runs(build=lambda: build_model(self.model, input_shape=(CHANNELS, 28, 28)))
        (_, images, labels) = next(batches_of(runs))
        padded = F.pad(images[0], (0, 0, 0, 0, 0, CHANNELS - images.shape[2]))
        return self._steps(runs, batch=(padded.contiguous(memory_format=torch.channels_last)[None], labels))

    def lowered(self) -> Steps:
        """Keeps weights in bfloat16 beside the float32 weights."""
        runs = self.runs()
        return self._steps(runs, step_of(runs, LoweredStep))

    def several_a_graph(self) -> Steps:
        """Captures `STEPS_A_GRAPH` steps in one graph."""
        runs = self.runs()
        return self._steps(runs, step_of(runs, SeveralSteps), STEPS_A_GRAPH)

    def in_turn(self, number: int) -> Steps:
        """Runs `number` runs one after the other."""
        each = [self._steps([run]) for run in self.runs(number)]
        return lambda: [steps() for steps in each]

    def on_streams(self, number: int) -> Steps:
        """Runs each run's graph in its own stream, with its own memory."""
        each = [self._once([run]) for run in self.runs(number)]
        if self.machine.device.type != "cuda":
            return lambda: [once() for _ in range(self.steps) for once in each]
        streams = [torch.cuda.Stream() for _ in each]

        def work() -> None:
            for stream, once in zip(streams, each, strict=True):
                with torch.cuda.stream(stream):
                    for _ in range(self.steps):
                        once()

        return work

    def stacked(self, number: int) -> Steps:
        """Runs `number` runs as one computation."""
        return self._steps(self.runs(number))

    def _steps(
        self,
        runs: list[Training],
        step: Step | None = None,
        at_once: int = 1,
        batch: tuple[Tensor, Tensor] | None = None,
    ) -> Steps:
        once = self._once(runs, step, batch)
        return lambda: [once() for _ in range(max(1, self.steps // at_once))]

    def _once(
        self, runs: list[Training], step: Step | None = None, batch: tuple[Tensor, Tensor] | None = None
    ) -> Steps:
        made = step or step_of(runs)
        images, labels = batch or next(batches_of(runs))[1:]
        ready: Step | CapturedStep = made
        if self.machine.device.type == "cuda":
            ready = CapturedStep(made)
        ready.begin([RATE] * len(runs))
        if isinstance(ready, CapturedStep):
            ready.capture(images, labels)
        return lambda: ready(images, labels)


def step_of(runs: list[Training], kind: type[Step] = Step) -> Step:
    """Returns the step of these runs, of class `kind`."""
    return kind([run.model for run in runs], [run.optimizer for run in runs], runs[0].autocast)


class SeveralSteps(Step):
    """Does `STEPS_A_GRAPH` steps as one, for one capture."""

    def __call__(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Does the steps, and returns loss and logits of the last."""
        for _ in range(STEPS_A_GRAPH - 1):
            super().__call__(images, labels)
        return super().__call__(images, labels)


class LoweredStep(Step):
    """Computes both passes with bfloat16 copies of the weights of convolutions and linear layers."""

    def __init__(self, models: Sequence[nn.Module], optimizers: Sequence[Optimizer], autocast: torch.autocast) -> None:
        super().__init__(models, optimizers, autocast)
        (model,) = models
        self._exact: list[Tensor] = list(model.parameters())
        lowered = copy.deepcopy(model)
        for module in lowered.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                module.to(torch.bfloat16)
        self._lowered: list[Tensor] = list(lowered.parameters())
        self._network = lowered

    def begin(self, learning_rates: Any) -> None:
        """Begins an epoch, and puts the bfloat16 network into training mode."""
        super().begin(learning_rates)
        self._network.train()

    def __call__(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Does one step, and returns its loss and logits."""
        with self._autocast:
            logits = self._network(images[0])
            loss = F.cross_entropy(logits.float(), labels[0])
        loss.backward()
        for exact, lowered in zip(self._exact, self._lowered, strict=True):
            if lowered.grad is not None:
                exact.grad = lowered.grad.to(exact.dtype)
                lowered.grad = None
        (optimizer,), (rate,) = self._optimizers, self._rates
        optimizer.step(rate)
        with torch.no_grad():
            torch._foreach_copy_(self._lowered, self._exact)
        return loss.detach().view(1), logits.detach()[None]


def with_parts_compiled(network: nn.Module) -> nn.Module:
    """Compiles the normalization layers of a network, and returns it."""
    for module in network.modules():
        if isinstance(module, LocalResponseNorm):
            module.compile(dynamic=False)
        elif isinstance(module, ConvModule) and len(module) == 3:
            rest = list(module)[1:]
            after = nn.Sequential(*rest)
            after.compile(dynamic=False)
            module[1] = after
            del module[2]
    return network


@contextlib.contextmanager
def flag(where: Any, name: str, value: object) -> Iterator[None]:
    """Sets an attribute for the time of the context."""
    before = getattr(where, name)
    setattr(where, name, value)
    try:
        yield
    finally:
        setattr(where, name, before)


def ideas(model: str, machine: Machine, arguments: Arguments) -> dict[str, tuple[int, Callable[[], Steps]]]:
    """Returns each idea by its name: its number of runs, and the function that prepares it."""
    shop, number = Workshop(model, machine, arguments.steps), arguments.runs
    network = build_model(model)
    found: dict[str, tuple[int, Callable[[], Steps]]] = {"today": (1, shop.today), "compiled": (1, shop.compiled)}
    if is_convolutional(network):
        found["parts compiled"] = (1, shop.parts_compiled)
        found["cudnn.benchmark"] = (1, shop.chosen_by_trial)
        found["8 channels"] = (1, shop.padded)
    if machine.precision == "bf16":
        found["bf16 weights"] = (1, shop.lowered)
    found[f"{STEPS_A_GRAPH} steps a graph"] = (1, shop.several_a_graph)
    found[f"{number} runs in turn"] = (number, lambda: shop.in_turn(number))
    found[f"{number} runs on streams"] = (number, lambda: shop.on_streams(number))
    found[f"{number} runs stacked"] = (number, lambda: shop.stacked(number))
    return found


def main(arguments: Arguments) -> None:
    """Times all models and ideas, prints the ratios, and writes the rows."""
    machine = Machine.here(arguments.device)
    for model in arguments.models:
        ready: dict[str, tuple[int, Steps]] = {}
        for name, (number, make) in ideas(model, machine, arguments).items():
            try:
                steps = make()
                seconds(steps, machine.device)
                ready[name] = (number, steps)
            except Exception as error:  # a driver or compiler may raise any error
                print(f"{model}, {name}: failed, {type(error).__name__}: {' '.join(str(error).split())[:200]}")
        rounds: list[dict[str, float]] = []
        for _ in range(arguments.rounds):
            took = {name: seconds(steps, machine.device) for name, (_, steps) in ready.items()}
            rounds.append({name: 128 * arguments.steps * ready[name][0] / one for name, one in took.items()})
        with contextlib.ExitStack() as ends:
            for name, lowers in (("stock", False), ("stock bf16", True)):
                epoch = ends.enter_context(stock_epoch(model, machine.device, lowers))
                for one in rounds:
                    one[name] = epoch()
        rows = [row | machine.columns() for row in as_rows(model, rounds, {name: n for name, (n, _) in ready.items()})]
        keep(rows, arguments.out)


def as_rows(model: str, rounds: list[dict[str, float]], runs: dict[str, int]) -> Iterator[dict[str, Any]]:
    """Prints the ratio of each idea, and yields its row."""
    for name in rounds[0]:
        ratio = median(one[name] / one["today"] for one in rounds)
        speed = median(one[name] for one in rounds)
        print(f"{model}, {name}: {speed:,.0f} images/s, {ratio:.2f}")
        row = {"benchmark": "forms_on_cuda", "model": model, "setting": name, "runs": runs.get(name, 1)}
        yield row | {"images_per_second": speed, "ratio": ratio}


if __name__ == "__main__":
    main(tyro.cli(Arguments))
