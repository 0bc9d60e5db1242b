"""Networks of other libraries, by their traits: their parameters, their outputs, and their errors."""

from __future__ import annotations

import math
import re
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

import rethinking
from rethinking import ExperimentConfig, InputError, train
from rethinking.data import sources
from rethinking.instrument import rate as instrument_rate
from rethinking.instrument.battery import asked_for
from rethinking.instrument.causes import Unfit, lagging, without_dropout
from rethinking.models import catalogue
from rethinking.models.inspection import regularizers
from rethinking.models.outputs import which_are_logits
from rethinking.steps import unwatched
from rethinking.training.networks import network_notes, untrained
from rethinking.training.preparation import resolve
from tests import forked
from tests.conftest import ROOT

FEW = {"dataset": "digits", "train_subset": 96, "batch_size": 32, "precision": "fp32", "num_epochs": 2}


def configured(tmp_path: Path, **options: object) -> ExperimentConfig:
    return ExperimentConfig(**{**FEW, "runs_dir": str(tmp_path / "runs"), "use_tensorboard": False, **options})


def notes(tmp_path: Path, build: object, **options: object) -> str:
    """Returns the notes on a network for 28x28 grey digits."""
    data = sources.load("digits")
    return "\n".join(
        network_notes(resolve(configured(tmp_path, model_name=catalogue.adopt(build), **options), data), data)
    )


# What its function is given


class Patches(nn.Module):
    """A network with the parameters of timm: ImageNet by default, and no other size or colour of images."""

    def __init__(self, img_size: int = 224, in_chans: int = 3, num_classes: int = 1000, patch_size: int = 14) -> None:
        super().__init__()
        self.img_size = img_size
        self.patches = nn.Conv2d(in_chans, 8, patch_size, patch_size)
        self.head = nn.Linear(8 * (img_size // patch_size) ** 2, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        assert images.shape[-1] == self.img_size, f"images must have {self.img_size} pixels"
        return self.head(self.patches(images).flatten(1))


def handed_on(pretrained: bool = False, **options: object) -> nn.Module:
    """Passes its options to a class, as most functions of torchvision and timm do."""
    return Patches(**options)


class Derived(Patches):
    """Passes all arguments to its base class, as timm's distilled transformers do."""

    def __init__(self, *args: object, **options: object) -> None:
        super().__init__(*args, **options)


def of_derived(pretrained: bool = False, **options: object) -> nn.Module:
    return Derived(**options)


def with_fixed_size(**options: object) -> nn.Module:
    """Takes any keyword, but sets one parameter of its class itself."""
    return Patches(28, **options)


def named_otherwise(n_classes: int, in_channels: int, image_size: tuple[int, int] = (32, 32)) -> nn.Module:
    assert isinstance(image_size, tuple)
    return Patches(image_size[0], in_channels, n_classes)


def wide(num_classes: int, channels: int = 16) -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, channels, 28), nn.Flatten(), nn.Linear(channels, num_classes))


@pytest.mark.parametrize(
    ("build", "told"),
    [
        (Patches, "arguments taken from the images: img_size=28, in_chans=1"),
        (handed_on, "arguments taken from the images: img_size=28, in_chans=1"),
        (Derived, "arguments taken from the images: img_size=28, in_chans=1"),
        (of_derived, "arguments taken from the images: img_size=28, in_chans=1"),
        (named_otherwise, "arguments taken from the images: image_size=(28, 28), in_channels=1, n_classes=10"),
    ],
)
def test_channels_side_and_classes_are_given_by_other_names_and_noted(tmp_path: Path, build, told):
    assert told in notes(tmp_path, build)
    assert train(configured(tmp_path), model=build).finished


def test_the_network_equals_one_with_the_same_options_by_hand(tmp_path: Path):
    """Inspecting a network before the run uses none of the run's random draws."""
    data = sources.load("digits")

    def initial(**options: object) -> dict[str, Tensor]:
        config = configured(tmp_path, model_name=catalogue.adopt(handed_on), **options)
        return untrained(resolve(config, data), data).state_dict()

    found, by_hand = initial(), initial(model_options="img_size=28, in_chans=1")
    assert found.keys() == by_hand.keys()
    assert all(torch.equal(found[name], by_hand[name]) for name in found)


def test_given_options_and_parameters_that_mean_a_width_stay_as_they_are(tmp_path: Path):
    assert "img_size" not in notes(tmp_path, handed_on, model_options="img_size=28")
    assert "given as" not in notes(tmp_path, wide)
    with pytest.raises(InputError, match="to have 3 channels"):
        notes(tmp_path, with_fixed_size)  # img_size is given to its class already, and so nothing is


# What it returns


class Outputs(NamedTuple):
    logits: Tensor
    aux_logits: Tensor


class Auxiliary(nn.Module):
    """Has a second classifier in training, as GoogLeNet does."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head, self.aux = nn.Linear(784, 16), nn.Linear(16, 10), nn.Linear(16, 10)

    def forward(self, images: Tensor) -> object:
        features = self.first(images.flatten(1)).relu()
        logits = self.head(features)
        return Outputs(logits, self.aux(features)) if self.training else logits


class Main(Auxiliary):
    """The same network without the second output."""

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.first(images.flatten(1)).relu())


class WithFeatures(Auxiliary):
    def forward(self, images: Tensor) -> object:
        features = self.first(images.flatten(1)).relu()
        return {"features": features, "out": self.head(features), "loss": None}


class TwoHeads(Auxiliary):
    def forward(self, images: Tensor) -> object:
        features = self.first(images.flatten(1)).relu()
        return self.head(features), self.aux(features)


@pytest.mark.parametrize(
    ("build", "told"),
    [
        (
            Auxiliary,
            "the network returns Outputs in training; its logits are 'logits', and aux_logits takes no part in",
        ),
        (WithFeatures, "the network returns dict; its logits are 'out', and features takes no part in the loss"),
    ],
)
def test_the_logits_among_several_outputs_are_trained_and_the_others_are_noted(tmp_path: Path, build, told):
    result = train(configured(tmp_path), model=build)
    assert told in "\n".join(result.result["network"])
    alone = train(configured(tmp_path, runs_dir=str(tmp_path / "alone")), model=Main)
    losses = [[record["train_loss"] for record in run.metrics] for run in (result, alone)]
    assert losses[0] == losses[1]
    with torch.no_grad():
        assert result.network(build)(torch.zeros(2, 1, 28, 28)).shape == (2, 10)


def test_two_outputs_that_could_be_the_logits_are_refused(tmp_path: Path):
    with pytest.raises(InputError, match="returns a tuple in evaluation, not one tensor of logits"):
        notes(tmp_path, TwoHeads)


def test_logits_are_found_by_name_before_shape():
    rows, other = torch.zeros(4, 10), torch.zeros(4, 3)
    assert which_are_logits({"logits": rows, "aux": rows}, 10) == "logits"
    assert which_are_logits((other, rows), 10) == "output 2"
    assert which_are_logits([rows, None], 10) == "output 1"
    assert which_are_logits((rows, rows), 10) is None
    assert which_are_logits("text", 10) is None


# What is told of regularizers, and of accuracies that differ


class StochasticDepth(nn.Module):
    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p


def test_many_probabilities_of_one_layer_are_a_range():
    layers = [StochasticDepth(p) for p in (0.0, 0.1, 0.0125, 0.2)]
    assert regularizers(nn.Sequential(*layers, nn.Dropout(0.5))) == "StochasticDepth 0.0125 to 0.2, dropout 0.5"


class Dropping(nn.Module):
    def __init__(self, num_classes: int, width: int = 8, dropout: float = 0.5, drop_path: float = 0.0) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(), nn.Linear(784, width), nn.Dropout(dropout), nn.Linear(width, num_classes)
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)


def dropping(**options: object) -> nn.Module:
    return Dropping(**options)


def unfit(run: rethinking.RunResult) -> Unfit:
    test = asked_for(run.config.model_name, {"dataset": "digits"})
    return Unfit("random labels", run, sources.load("digits"), test, "net", None)


def test_the_command_without_dropout_keeps_the_other_options(tmp_path: Path):
    run = train(configured(tmp_path, model_options="width=4"), model=dropping)
    assert without_dropout(unfit(run)) == "dropout=0.0, width=4"


class SlowAverages(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(), nn.Linear(784, 64), nn.BatchNorm1d(64, momentum=1e-4), nn.ReLU(), nn.Linear(64, 10)
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images * 30)


def test_running_averages_that_lag_behind_are_a_cause(tmp_path: Path):
    run = train(configured(tmp_path, num_epochs=15, eval_train_every=1), model=SlowAverages)
    last = run.metrics[-1]
    assert last["train_accuracy"] - last["exact_train_accuracy"] > 0.05, "else this is no such network"
    (finding,) = lagging(unfit(run))
    assert "running averages over about 10,000 batches, and an epoch has 3" in finding.sentence
    assert "--lr" in finding.command
    plain = train(configured(tmp_path, eval_train_every=1), model=Main)
    assert not list(lagging(unfit(plain)))


# What is refused, in one line, with nothing left behind

BROKEN = """
import torch
from torch import nn

def fails(num_classes):
    depth = [1, 2]
    return nn.Linear(784, depth[2])

class Fails(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(784, 10)
    def forward(self, images):
        return self.linear(images)

class Net(nn.Module):
    def __init__(self, backbone, width):
        super().__init__()

class NaN(Fails):
    def forward(self, images):
        return self.linear(images.flatten(1)) * float("nan")

class Rows(Fails):
    def forward(self, images):
        return self.linear(images.flatten(1))[:, :7]

class Large(Fails):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 40), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10))
    def forward(self, images):
        return self.layers(images)

def small():
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 10))

def strided():
    return nn.Sequential(nn.Conv2d(1, 4, 3, 2), nn.Flatten(), nn.Linear(4 * 7 * 7, 10))

instance = nn.Linear(784, 10)
number = 3
"""
RAISES = "import torch\n\nraise RuntimeError('no\\nluck')\n"


@pytest.mark.parametrize(
    ("network", "said"),
    [
        ("resnet18", "model_name must be one of .*, or FILE.py:NAME or MODULE:NAME, not 'resnet18'"),
        ("net.py", "model_name must be one of"),
        ("net.py:", "with something on both sides of ':', not 'net.py:'"),
        ("net.py:failss", "net.py has no 'failss'; did you mean 'fails'"),
        ("torch.nn.nothing:net", "cannot import 'torch.nn.nothing:net': ModuleNotFoundError"),
        ("raises.py:net", r"cannot import 'raises.py:net': RuntimeError: no luck \(raises.py, line 3\)"),
        ("net.py:number", "must be a function that returns a network, not int"),
        ("net.py:instance", "is a network, not a function that builds one"),
        ("net.py:fails", r"cannot be built: IndexError: list index out of range \(net.py, line 7\)"),
        ("net.py:Net", "missing 2 required positional arguments: 'backbone' and 'width'"),
        ("net.py:Fails", r"RuntimeError: mat1 and mat2 .* \(net.py, line 14\)"),
        ("net.py:Rows", r"logits of shape \(1, 7\) for 1 image, not \(1, 10\)"),
        ("net.py:NaN", "outputs are not finite"),
        ("net.py:small", r"the network takes 3x8x8: --resize 8 --colour rgb"),
        ("net.py:strided", r"the network takes 1x16x16: --resize 16$"),
        ("net.py:Large", r"\(net.py, line 33\); the network takes 3x48x48: --resize 48 --colour rgb"),
    ],
)
def test_a_network_that_does_not_fit_the_images_is_a_one_line_error_and_leaves_no_file(tmp_path: Path, network, said):
    (tmp_path / "net.py").write_text(BROKEN)
    (tmp_path / "raises.py").write_text(RAISES)
    before = sorted(tmp_path.iterdir())
    command = ("test", network, "--dataset", "digits", "--budget", "5s")
    ran = forked.run(ROOT / "src/rethinking/__main__.py", *command, cwd=tmp_path)
    assert ran.returncode == 2, ran.stderr
    (line,) = [line for line in ran.stderr.splitlines() if line.startswith("error: ")]
    assert ran.stderr.strip() == line
    assert re.search(said, line), line
    left = [path for path in sorted(tmp_path.iterdir()) if path.name != "__pycache__"]
    assert left == before


def test_a_hint_works_when_it_is_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "net.py").write_text(BROKEN)
    monkeypatch.chdir(tmp_path)
    config = configured(tmp_path, model_name="net.py:Large", resize=64, colour="rgb", num_epochs=1)
    assert train(config).finished
    assert "net" not in sys.modules


# The rate


@pytest.mark.parametrize("best", [3e-5, 3e-4, 0.003, 0.01, 0.1, 3.0])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_few_rates_are_tried_and_the_best_of_all_is_found(tmp_path: Path, monkeypatch, best, optimizer):
    """The losses have one minimum, and are not finite far above it."""

    def loss(config: ExperimentConfig, data: object, batches: object, rate: float, steps: int) -> float | None:
        return None if rate > 10 * best else abs(math.log(rate / best))

    monkeypatch.setattr(instrument_rate, "loss_after_steps", loss)
    data = sources.load("digits")
    config = resolve(configured(tmp_path, model_name=catalogue.adopt(Main), optimizer=optimizer), data)
    losses = instrument_rate.range_test(config, data, unwatched)
    assert list(losses) == sorted(losses)
    assert instrument_rate.choose(losses).lowest_at == best
    if 0.003 <= best <= 0.01:
        assert len(losses) <= 7
