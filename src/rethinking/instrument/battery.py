"""The options of a randomization test, and the runs that it needs.

This module does not import PyTorch, so that `rethinking test --help` answers at once.
"""

from __future__ import annotations

import functools
import math
import re
import shlex
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, replace
from types import NoneType
from typing import Any

from rethinking.config import ExperimentConfig, field_by_name
from rethinking.errors import InputError, nearest
from rethinking.instrument.conditions import Condition, conditions
from rethinking.models import catalogue
from rethinking.options import Option, check_seeds, given, option, options_of, words_of

HELD_OUT = 0.2  # share of each class that becomes the test set, of data without one
MOST_EPOCHS = 1000  # of a run without --epochs, which otherwise ends when it fits all labels

BASE = ExperimentConfig(
    lr_schedule="constant",  # nobody knows beforehand how many epochs random labels take
    eval_train_every=1,  # otherwise the first epoch that fits could be missed
)
FOLDERS = ("data_root", "runs_dir")  # change no number, but are needed to find the same data and runs
DECIDED = (  # fields of `ExperimentConfig` that the test sets itself
    "model_name",
    "randomization",
    "randomization_options",
    "corruption_prob",
    "randomization_seed",
    "seed",
    "num_epochs",
    "learning_rate",
    "eval_test_every",
    "stop_when_fit",
    "holdout",
    "replaced_example",
    "keep_test_losses",
    "record_test_examples",
    "labels",
    "labels_column",
    "corrupt_test_labels",
    "subset_share",
    "subset_seed",
    "left_out",
)

INSTEAD = {  # options of a run, and the options of a test that replace them
    "learning_rate": "lr",
    "num_epochs": "epochs",
    "seed": "seeds",
    "randomization": "labels and pixels",
    "corruption_prob": "labels",
}


@dataclass(frozen=True, kw_only=True)
class RandomizationTest:
    """A randomization test of one network on one data set (Section 2.1).

    config: all other options of a run, as in `rethinking train`
    in_python: arguments of a call that gives images in Python, as `images, test_images, name='cells'`; otherwise ''

    Raises `InputError` for an unknown name, and for a value that is not allowed.
    """

    network: str = option(
        MISSING,
        "the network: one of " + ", ".join(catalogue.PAPER) + ", or your own by the function that builds it,"
        " FILE.py:FUNCTION or MODULE:FUNCTION",
        positional=True,
        metavar="NETWORK",
    )
    labels: tuple[str, ...] = option(
        ("true", "random"),
        "labels to train on: true, random, a probability such as 0.5 that a label is random, or your own operator,"
        " FILE.py:CLASS (Section 2.1)",
        group="test",
        metavar="LABELS ...",
    )
    pixels: tuple[str, ...] = option(
        (),
        "pixels to train on with true labels: shuffled, random, gaussian, or your own operator (Section 2.1)",
        group="test",
        metavar="PIXELS ...",
        default_text="none",
    )
    seeds: tuple[int, ...] = option(
        (0,), "one run for each seed, with random labels of its own", group="test", metavar="SEED ..."
    )
    epochs: int | None = option(
        None,
        "epochs of each run",
        group="test",
        metavar="N",
        default_text=f"until a run fits all training images, at most {MOST_EPOCHS:,}",
    )
    budget: str = option(
        "10m",
        "time for the training of all runs: 90s, 10m, 1h30m or none. When the time is over, runs end unfinished; a"
        " larger budget continues them",
        group="test",
        metavar="TIME",
    )
    lr: str = option(
        "auto",
        "learning rate. 'auto' is the paper's rate for its networks with sgd; otherwise a short range test finds it",
        group="test",
        metavar="auto|NUMBER",
    )
    holdout: float | None = option(
        None,
        "share of each class's training images that becomes the test set",
        group="test",
        metavar="SHARE",
        default_text=f"{HELD_OUT} of data without a test set",
    )
    eval_test_every: int | None = option(
        None,
        "measure test accuracy and loss after every K-th epoch and the last",
        group="test",
        metavar="K",
        default_text="1; with more test images than training images, their ratio rounded up",
    )
    out: str | None = option(
        None,
        "folder of the report",
        group="test",
        metavar="FOLDER",
        default_text="tested/<network>-<data>",
        changes_numbers=False,
    )
    config: ExperimentConfig = option(BASE, "", recorded=True)  # noqa: RUF009  # frozen
    in_python: str = option("", "arguments of the call, where images are given in Python", recorded=True)

    def __post_init__(self) -> None:
        check_seeds(self.seeds)
        if self.epochs is not None and self.epochs < 1:
            raise InputError(f"epochs must be a whole number from 1 on, not {self.epochs}")
        if self.epochs is None and self.config.lr_schedule == "cosine":
            raise InputError("lr_schedule cosine needs the number of epochs: give --epochs")
        _ = self.conditions, self.rate
        unit = "s" if self.budget.strip().isdigit() else ""
        object.__setattr__(self, "budget", "none" if math.isinf(self.seconds) else f"{self.budget.strip()}{unit}")
        config = replace(
            self.config,
            model_name=self.network,
            learning_rate=self.rate,
            num_epochs=self.epochs or MOST_EPOCHS,
            stop_when_fit=self.epochs is None,
            holdout=self.holdout or 0.0,
            eval_test_every=BASE.eval_test_every if self.eval_test_every is None else self.eval_test_every,
        )
        object.__setattr__(self, "config", config)

    @functools.cached_property
    def conditions(self) -> tuple[Condition, ...]:
        """The conditions to train on, labels first."""
        return conditions(self.labels, self.pixels)

    @functools.cached_property
    def seconds(self) -> float:
        """The budget in seconds, infinite for 'none'."""
        return seconds_of(self.budget)

    @functools.cached_property
    def rate(self) -> float | None:
        """The learning rate, None for 'auto'."""
        if self.lr == "auto":
            return None
        try:
            return float(self.lr)
        except ValueError:
            raise InputError(f"lr must be auto or a number, not '{self.lr}'") from None

    @property
    def command(self) -> str:
        """The command line of this test, or a call in Python where no command line reaches its network or images.

        The call says `network`, `images` and `test_images` for objects without a name.
        """
        folders = {name: value for name in FOLDERS if (value := getattr(self.config, name)) != getattr(BASE, name)}
        module, _, network = self.network.rpartition(":")
        # An `nn.Module`, a lambda, a function within another function, or one with bound arguments has no name.
        unnamed = "<" in network or catalogue.has_bound_arguments(self.network)
        if unnamed or module == "__main__" or self.in_python or self.config.dataset.startswith("python:"):
            images = self.in_python or repr(self.config.dataset)
            named = [f"{name}={value!r}" for name, value in (self._changed() | folders).items()]
            return f"rethinking.randomization_test({', '.join(['network' if unnamed else network, images, *named])})"
        words = [*words_of(self), *words_of(self.config, BASE, leave_out=DECIDED)]
        for name, value in {**folders, "out": self.out}.items():
            words += [f"--{name}", value] if value else []
        return f"rethinking test {shlex.join(words)}"

    @property
    def question(self) -> str:
        """The options that differ from their defaults, as text, without network, data, budget and folders."""
        changed = self._changed()
        changed.pop("budget", None)
        return ", ".join(f"{name}={value!r}" for name, value in changed.items())

    @property
    def command_anywhere(self) -> str:
        """The command without the folders of this machine (see `command`)."""
        return self.with_options(**{name: getattr(BASE, name) for name in FOLDERS}, out=None).command

    def _changed(self) -> dict[str, Any]:
        """Returns the options that differ from their defaults by name, without network, data and folders."""
        own = {
            spec.name: getattr(self, spec.name)
            for spec in fields(self)
            if spec.name not in ("network", "config", "in_python", "out") and getattr(self, spec.name) != spec.default
        }
        rest = {
            spec.name: getattr(self.config, spec.name)
            for spec in fields(self.config)
            if spec.name not in (*DECIDED, "dataset") and spec.metadata["changes_numbers"]
            and getattr(self.config, spec.name) != getattr(BASE, spec.name)
        }  # fmt: skip
        return own | rest

    def with_options(self, **options: Any) -> RandomizationTest:
        """Returns this test with other values for some options, its own or those of a run."""
        own = {spec.name for spec in fields(self)}
        rest = {name: value for name, value in options.items() if name not in own}
        config = replace(self.config, **rest, learning_rate=None)
        return replace(self, config=config, **{name: value for name, value in options.items() if name in own})

    def longer(self, epochs: int) -> RandomizationTest:
        """Returns this test with more of the limit that ended a run after `epochs` epochs.

        A larger budget continues the run. More epochs make another run, which starts from the first epoch.
        """
        if epochs >= (self.epochs or MOST_EPOCHS):
            return self.with_options(epochs=2 * epochs)
        return self.with_options(budget=in_time(3 * self.seconds))

    def configs(self, config: ExperimentConfig) -> dict[tuple[str, int], ExperimentConfig]:
        """Returns the configuration of each run by the key of its condition and its seed.

        config: the options that all runs share
        """
        return {
            (condition.key, seed): replace(
                config,
                seed=seed,
                randomization_seed=seed if condition.options["randomization"] != "none" else 0,
                **condition.options,
            )
            for seed in self.seeds
            for condition in self.conditions
        }


def all_options() -> list[Option]:
    """Returns the options of `rethinking test`: those of a test, then those of a run that a test does not set."""
    own = options_of(RandomizationTest)
    return [*own, *(one for one in options_of(ExperimentConfig, BASE) if one.name not in DECIDED)]


def asked_for(network: str, options: Mapping[str, Any]) -> RandomizationTest:
    """Returns the test with these options, its own and those of a run, by field name or command-line name.

    Raises `InputError` for an unknown option, and for a value that is not allowed.
    """
    own = {one.name: one for one in options_of(RandomizationTest) if one.name != "network"}
    of_run = {name: field for name, field in field_by_name().items() if field not in DECIDED}
    values: dict[str, Any] = {}
    rest: dict[str, Any] = {}
    for name, value in options.items():
        if name in own:
            may_be_none = value is None and NoneType in own[name].kinds
            values[name] = None if may_be_none else given(own[name], value)
        elif name in of_run:
            rest[of_run[name]] = value
        else:
            instead = f"; use {INSTEAD[name]}" if name in INSTEAD else nearest(name, (*own, *of_run))
            raise InputError(f"unknown option '{name}'{instead}")
    return RandomizationTest(network=network, config=replace(BASE, model_name=network, **rest), **values)


def seconds_of(budget: str | float | None) -> float:
    """Returns the seconds of a time such as '10m', '1h30m' or '90'; infinite for None or 'none'.

    Raises `InputError` for any other text.
    """
    text = str(budget).strip().lower()
    if text == "none":
        return math.inf
    parts = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s?)?", text)
    seconds = (
        sum(float(part or 0) * unit for part, unit in zip(parts.groups(), (3600, 60, 1), strict=True)) if parts else 0
    )
    if not seconds:
        raise InputError(f"budget must be a time such as 90s, 10m or 1h30m, or none, not '{budget}'")
    return seconds


def in_time(seconds: float) -> str:
    """Writes a time so that `seconds_of` reads it, rounded up to a second, or from 120 s on to a minute."""
    if math.isinf(seconds):
        return "none"
    return f"{math.ceil(seconds)}s" if seconds < 120 else f"{math.ceil(seconds / 60)}m"
