"""Trains one run, or several runs in lockstep, from the last finished epoch to the end.

Each run behaves as if it ran alone. `step.py` has the training step, which an epoch repeats on the device.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from rethinking.config import ExperimentConfig
from rethinking.data.batches import Batch, Batches, lockstep
from rethinking.errors import DivergedError, RunError
from rethinking.seeding import global_streams
from rethinking.training.evaluation import Evaluation, evaluate, fits, fraction, label_metrics
from rethinking.training.examples import Examples
from rethinking.training.loggers import Observer, Observers
from rethinking.training.optimizers import Optimizer
from rethinking.training.run_dir import Record, RunDir, RunResult, epochs_to_fit, note_fit, summary
from rethinking.training.step import CapturedStep, Step, fastest_step

ONLINE_ACCURACY_NEAR_FIT = 0.99  # from here on the exact training accuracy is worth a pass over the training set


@dataclass
class Training:
    """One run at work.

    config: the resolved configuration
    facts: the content of `result.json` that is known before training
    observe: makes the observers of the run
    seconds: the time limit; once the epochs so far took as long, the run ends with the current epoch, unfinished
    metrics: one record per finished epoch
    test_losses: float32 (epochs, test images) where they are kept, else None
    outcome: the result, or the error that ended the run, once the run is over
    """

    config: ExperimentConfig
    model: nn.Module
    train_batches: Batches
    test_batches: Batches | None
    folder: RunDir
    facts: dict[str, Any]
    observe: Callable[[], Sequence[Observer]]
    seconds: float = math.inf
    optimizer: Optimizer = field(init=False)
    observers: Observers = field(init=False, default_factory=Observers)
    metrics: list[Record] = field(init=False)
    test_losses: Tensor | None = field(init=False, default=None)
    outcome: RunResult | RunError | None = field(init=False, default=None)
    ended: bool = field(init=False, default=False)
    _fit: dict[str, int | None] = field(init=False, default_factory=lambda: epochs_to_fit([]))
    _fit_known: int = field(init=False, default=0)  # number of epochs that `_fit` covers

    def __post_init__(self) -> None:
        self.optimizer = Optimizer(self.model, self.config)

    @property
    def epoch(self) -> int:
        """The next epoch to train, counted from 1."""
        return len(self.metrics) + 1

    @property
    def epochs_to_fit(self) -> dict[str, int | None]:
        """The first epoch that reached each of `FIT_THRESHOLDS`, or None, as in `run_dir.epochs_to_fit`."""
        for record in self.metrics[self._fit_known :]:
            note_fit(self._fit, record)
        self._fit_known = len(self.metrics)
        return self._fit

    @property
    def autocast(self) -> torch.autocast:
        """The autocast context of the run: bfloat16 for precision 'bf16', else off."""
        device = self.train_batches.labels.device.type
        return torch.autocast(device, torch.bfloat16, enabled=self.config.precision == "bf16")

    def own_draws(self, purpose: str) -> contextlib.AbstractContextManager[None]:
        """Seeds the draws of a user's own network, such as dropout, by the run's seed and the epoch."""
        own = self.config.network.is_own
        return global_streams(self.config.seed, purpose, self.epoch) if own else contextlib.nullcontext()

    def begin(self) -> None:
        """Restores the last finished epoch from the folder and starts the observers."""
        if self.folder.is_finished:  # another process finished it in the meantime
            self.outcome = self.folder.result(self.config)
            return
        self.metrics = self.folder.restore(self.model, self.optimizer)
        if self.config.keep_test_losses:
            self.test_losses = self.folder.test_losses(len(self.metrics))
        self.observers = Observers(self.observe())
        self.observers.started(self.folder.path, self.config, self.metrics, len(self.train_batches))
        self._finish_if_done(ends=bool(self.metrics) and self._spent >= self.seconds)

    def finish_epoch(self, online: Online, seconds: float) -> None:
        """Measures the network after an epoch and saves the epoch.

        online: what was measured in the epoch's batches
        seconds: time of the epoch's training

        Raises `DivergedError` for a loss that is not finite, and `RunError` where the epoch cannot be saved.
        """
        check_finite(online.loss, self.config, self.epoch)
        started = time.perf_counter()
        right = online.predictions == self.train_batches.labels
        online_accuracy = fraction(right)
        ends = self._spent + seconds >= self.seconds
        due = ends or exact_accuracy_is_due(self.config, self.epoch) or self._may_fit(online_accuracy, right)
        with self.own_draws("evaluation"):
            exact = self._evaluated(self.train_batches, self.config.record_evaluated_examples) if due else None
            due = ends or evaluation_is_due(self.config, self.epoch, exact.accuracy if exact else None)
            test = None
            if self.test_batches and due:
                test = self._evaluated(self.test_batches, self.config.record_test_examples)
        for evaluated in (exact, test):
            check_finite(evaluated.loss if evaluated else 0.0, self.config, self.epoch)
        accuracy = exact.accuracy if exact else online_accuracy

        record: Record = {
            "epoch": self.epoch,
            "learning_rate": learning_rate(self.config, self.epoch),
            "train_loss": online.loss,
            "train_accuracy": online_accuracy,
            "exact_train_accuracy": exact.accuracy if exact else None,
            "test_loss": test.loss if test else None,
            "test_accuracy": test.accuracy if test else None,
            "generalization_gap": accuracy - test.accuracy if test else None,
            "images_per_second": len(self.train_batches) / seconds,
        }
        if self.config.corrupts_labels:
            record |= label_metrics(online.predictions, self.train_batches.labels, self.train_batches.true_labels)
        record["seconds"] = seconds + time.perf_counter() - started
        self.metrics.append(record)
        if self.test_losses is not None and test is not None:
            self.test_losses = torch.cat([self.test_losses.view(-1, len(test.losses)), test.losses[None]])
        passes = {"online": online.examples, "train": exact and exact.examples, "test": test and test.examples}
        examples = {word: measured for word, measured in passes.items() if measured is not None}
        self.folder.save_epoch(record, self.model, self.optimizer, self.test_losses, examples)
        self.observers.epoch(record)
        self._finish_if_done(ends)

    def _evaluated(self, batches: Batches, with_examples: bool) -> Evaluation:
        return evaluate(self.model, batches, self.autocast, with_examples=with_examples)

    def _may_fit(self, online: float, right: Tensor) -> bool:
        """Returns whether the exact training accuracy may reach one of `FIT_THRESHOLDS` for the first time.

        `right` is boolean (n,): the online predictions that were correct. Where only 1.0 is left, the wrong ones are
        evaluated first. They are few, and one that is still wrong saves a pass over all images.
        """
        if online < ONLINE_ACCURACY_NEAR_FIT or self.epochs_to_fit["1.0"] is not None:
            return False
        if self.epochs_to_fit["0.999"] is None:
            return True
        return fits(self.model, self.train_batches, (~right).nonzero().flatten(), self.autocast)

    def _finish_if_done(self, ends: bool) -> None:
        """Sets the outcome of a run that is over: finished, or unfinished where `ends` says that its time is spent."""
        fitted = self.config.stop_when_fit and self.epochs_to_fit["1.0"] is not None
        if fitted or self.epoch > self.config.num_epochs:
            self.folder.finish(self.facts | summary(self.metrics))
            self.outcome = self.folder.result(self.config)
        elif ends:
            self.outcome = self.folder.so_far(self.config)

    @property
    def _spent(self) -> float:
        """The seconds of all epochs so far."""
        return sum(record["seconds"] or 0.0 for record in self.metrics)

    @contextlib.contextmanager
    def failing_alone(self) -> Iterator[None]:
        """Turns a `RunError` inside it into the outcome of this run. The other runs go on."""
        try:
            yield
        except RunError as error:
            self.outcome = error

    def end(self) -> None:
        """Calls the observers' `ended` and frees the memory. A second call does nothing."""
        if not self.ended:
            self.ended = True
            self.observers.ended(self.outcome if isinstance(self.outcome, RunResult) else None)
            del self.model, self.optimizer, self.train_batches, self.test_batches


def fit(runs: Sequence[Training]) -> Iterator[tuple[Training, RunResult | RunError]]:
    """Trains every run to its end and yields it with its outcome as soon as it is over. Every epoch is saved.

    The runs must agree in architecture, batch size, number of images, device and precision. Everything else may differ.
    """
    for run in runs:
        with run.failing_alone():
            run.begin()
    step = None
    while True:
        for run in runs:
            if run.outcome is not None:
                run.end()
                yield run, run.outcome
        unfinished = [run for run in runs if run.outcome is None]
        if not unfinished:
            break
        if step is None or len(unfinished) < len(runs):
            step = None  # frees its memory before the next step is built
            step = step_of(unfinished)
            for run in unfinished:
                with run.failing_alone():
                    run.folder.save_facts(run.facts)
        runs = unfinished
        if any(run.outcome is not None for run in runs):  # a folder could not be written
            continue

        started = time.perf_counter()
        with runs[0].own_draws("training"):  # a user's own network is trained alone
            epochs = train_epoch(step, runs)
        seconds = (time.perf_counter() - started) / len(runs)
        for run, online in zip(runs, epochs, strict=True):
            with run.failing_alone():
                run.finish_epoch(online, seconds)


def step_of(runs: Sequence[Training]) -> Step | CapturedStep:
    """Returns the training step of the runs, ready to use. The time that took is noted in the facts of each run."""
    eager = Step([run.model for run in runs], [run.optimizer for run in runs], runs[0].autocast)
    with contextlib.closing(batches_of(runs)) as batches:
        first = next(batches)
    last = len(runs[0].train_batches) % first.labels.shape[1]  # images in a smaller last batch, else 0
    examples = [first, Batch(*(part[:, :last] for part in first))] if last else [first]
    step, seconds = fastest_step(eager, runs[0].config.compile, examples)
    for run in runs:
        if len(runs) > 1:
            run.facts["stacked"] = max(len(runs), run.facts.get("stacked", 0))
        if seconds:
            run.facts["compile_seconds"] = run.facts.get("compile_seconds", 0.0) + seconds / len(runs)
    return step


def batches_of(runs: Sequence[Training]) -> Generator[Batch, None, None]:
    """Yields the batches of each run's next epoch."""
    splits, seeds, epochs = zip(*((run.train_batches, run.config.seed, run.epoch) for run in runs), strict=True)
    return lockstep(splits, seeds, epochs, runs[0].config.batch_size)


class Online(NamedTuple):
    """What an epoch's batches measured while the weights changed, as in Figure 1a.

    loss: mean over all images, in nats
    predictions: int64 (n,), the class of each training image
    examples: of each training image, where the run keeps them
    """

    loss: float
    predictions: Tensor
    examples: Examples | None


def train_epoch(step: Step | CapturedStep, runs: Sequence[Training]) -> list[Online]:
    """Trains each run for one epoch. Returns what its batches measured. Each batch counts by its size.

    Nothing is read from the device before the end.
    """
    step.begin([learning_rate(run.config, run.epoch) for run in runs])
    steps = []
    with contextlib.closing(batches_of(runs)) as batches:
        for rows, images, labels in batches:
            losses, logits = step(images, labels)
            steps.append((rows, losses, logits))  # evaluated after the epoch, which small networks notice
            for run in runs:
                run.observers.step(rows.shape[1])
    all_rows, all_losses, all_logits = zip(*steps, strict=True)
    sizes = torch.tensor([rows.shape[1] for rows in all_rows], device=all_rows[0].device)
    train_losses = (torch.stack(all_losses, dim=1) * sizes).sum(dim=1) / sizes.sum()
    rows, logits = torch.cat(all_rows, dim=1), torch.cat(all_logits, dim=1)
    predictions = torch.empty_like(rows).scatter_(1, rows, logits.argmax(dim=2))
    epochs = []
    for run, loss, *measured in zip(runs, train_losses.tolist(), predictions, logits, rows, strict=True):
        classes, own_logits, places = measured
        examples = None
        if run.config.record_examples:
            examples = Examples.of(own_logits, run.train_batches.labels[places], places)
        epochs.append(Online(loss, classes, examples))
    return epochs


def check_finite(loss: float, config: ExperimentConfig, epoch: int) -> None:
    """Raises `DivergedError` for a loss that is not finite."""
    if not math.isfinite(loss):
        raise DivergedError(
            f"the loss is not finite in epoch {epoch}, which is not saved; lower --lr {config.learning_rate:g} or use"
            " --precision fp32"
        )


def learning_rate(config: ExperimentConfig, epoch: int) -> float:
    """Returns the learning rate of `epoch`, counted from 1, for a resolved configuration.

    The schedule begins with `config.learning_rate` (Appendix A). A warm-up, which is not in the paper, scales the rates
    of the first epochs.
    """
    before = epoch - 1
    factors = {
        "exponential": (config.lr_decay or 0.0) ** before,
        "step": 0.1 ** ((before >= 60) + (before >= 80)),
        "cosine": 0.5 * (1 + math.cos(math.pi * before / config.num_epochs)),
        "constant": 1.0,
    }
    assert config.learning_rate is not None, "a resolved configuration"
    warm_up = min(1.0, epoch / (config.warmup_epochs + 1))
    return config.learning_rate * factors[config.lr_schedule] * warm_up


def exact_accuracy_is_due(config: ExperimentConfig, epoch: int) -> bool:
    """Returns whether the exact training accuracy is measured after `epoch` in any case.

    It is due after every K-th epoch (`eval_train_every`) and after the last. `record_evaluated_examples` needs every
    epoch.
    """
    requested = config.eval_train_every is not None and epoch % config.eval_train_every == 0
    return requested or config.record_evaluated_examples or epoch == config.num_epochs


def evaluation_is_due(config: ExperimentConfig, epoch: int, exact_accuracy: float | None) -> bool:
    """Returns whether the test set is evaluated after `epoch`: every K-th epoch, and the last.

    With `stop_when_fit` the last epoch is the first with an exact training accuracy of 1.
    """
    fitted = config.stop_when_fit and exact_accuracy == 1.0
    return fitted or epoch == config.num_epochs or epoch % config.eval_test_every == 0
