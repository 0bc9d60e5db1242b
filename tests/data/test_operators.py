"""Operators of users: from a file, with their own options, never silently wrong."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch

from rethinking import ExperimentConfig, InputError, train, train_many
from rethinking.data import operators, randomization, sources
from rethinking.data.draws import RandomizedSplit
from rethinking.data.operators import Operator
from tests.conftest import ROOT

OPERATORS = """
import dataclasses
from dataclasses import dataclass

import torch

from rethinking import InputError, Operator


class Reversed(Operator):
    def change_labels(self, labels, num_classes, random):
        return num_classes - 1 - labels


@dataclass(frozen=True)
class Dimmed(Operator):
    strength: float = 0.5

    def __post_init__(self):
        if not 0 <= self.strength <= 1:
            raise InputError(f"strength must be between 0 and 1, not {self.strength}")

    def change_pixels(self, train, test, positions, random):
        def dimmed(split, name):
            kept = torch.rand(split.images.shape, generator=random("dimmed", name)) >= self.strength
            return dataclasses.replace(split, images=split.images * kept)

        return dimmed(train, "train"), dimmed(test, "test") if test else None


class InPlace(Operator):
    def change_pixels(self, train, test, positions, random):
        for split in (train, test):
            split.images[:] = 255 - split.images
        return train, test


class Thirds(Operator):
    own_classes = 3

    def change_labels(self, labels, num_classes, random):
        return torch.randint(3, (len(labels),), generator=random("thirds"))


class TooMany(Operator):
    def change_labels(self, labels, num_classes, random):
        return labels + 1


class NotLabels(Operator):
    def change_labels(self, labels, num_classes, random):
        return labels.float()


class OtherShape(Operator):
    def change_pixels(self, train, test, positions, random):
        return dataclasses.replace(train, images=train.images[:, :, 1:]), test


class OtherLabels(Operator):
    def change_pixels(self, train, test, positions, random):
        return dataclasses.replace(train, labels=train.labels.flip(0)), test
"""

FEW = {"model_name": "mlp_1x512", "dataset": "digits", "train_subset": 100, "num_epochs": 2, "precision": "fp32"}


@pytest.fixture
def path(tmp_path: Path) -> str:
    (tmp_path / "mine.py").write_text(OPERATORS)
    return str(tmp_path / "mine.py")


def configured(tmp_path: Path, randomization: str, **options: object) -> ExperimentConfig:
    shared = {**FEW, "use_tensorboard": False, "runs_dir": str(tmp_path / "runs")}
    return ExperimentConfig(**{**shared, "randomization": randomization, **options})


def test_an_operator_in_a_file_is_enough_on_the_command_line(tmp_path: Path, path):
    command = [sys.executable, str(ROOT / "train.py"), "--model", "mlp_1x512", "--dataset", "digits"]
    command += ["--randomization", "mine.py:Dimmed", "--randomization_options", "strength=0.25", "--num_epochs", "1"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "mlp_1x512-digits-Dimmed-seed0-" in ran.stdout


def test_a_label_operator_records_the_changed_labels_and_their_metrics(tmp_path: Path, path):
    result = train(configured(tmp_path, f"{path}:Reversed"))
    assert result.result["labels_changed"] == 100, "no class is its own reverse"
    assert {"train_accuracy_corrupted", "true_label_agreement"} <= result.final.keys()
    record = safetensors.torch.load_file(result.path / "randomization.safetensors")
    assert torch.equal(record["labels"], 9 - record["true_labels"])
    assert result.final["test_accuracy"] is not None


def test_an_operator_with_classes_of_its_own_has_as_many_outputs_and_no_test_set(tmp_path: Path, path):
    result = train(configured(tmp_path, f"{path}:Thirds"))
    assert result.network()[-1].out_features == 3
    assert result.final["test_accuracy"] is None
    assert "true_label_agreement" not in result.final
    assert result.result["labels_changed"] == 100
    with pytest.raises(InputError, match=r"keep_test_losses needs a test set; randomization .* has no test set"):
        train(configured(tmp_path, f"{path}:Thirds", keep_test_losses=True))


@pytest.mark.parametrize("name", ["Dimmed", "InPlace", "Reversed"])
def test_stacked_runs_equal_runs_alone(tmp_path: Path, path, name):
    seeds = [{"randomization_seed": seed} for seed in (0, 1)]
    seeds += [{"randomization_options": "strength=0.9"}] if name == "Dimmed" else []
    mixed = [configured(tmp_path, f"{path}:{name}", **options) for options in seeds]
    mixed += [configured(tmp_path, "none"), configured(tmp_path, "random_labels")]
    alone = [train(dataclasses.replace(config, runs_dir=str(tmp_path / "alone"))) for config in mixed]
    together = dict(train_many(mixed, at_once=len(mixed), stacked=True))
    for config, result in zip(mixed, alone, strict=True):
        for measured in ("train_loss", "test_loss"):
            assert together[config].final[measured] == pytest.approx(result.final[measured], rel=1e-3), config
    losses = [result.final["train_loss"] for result in alone]
    distinct = len(losses) if name == "Dimmed" else len(losses) - 1  # without draws the seed does not matter
    assert len({round(loss, 6) for loss in losses}) == distinct


def test_an_operator_that_writes_in_place_changes_its_own_run_alone(tmp_path: Path, path):
    before = train(configured(tmp_path, "none", train_subset=None))
    images = sources.load("digits").train.images.copy()
    inverted = train(configured(tmp_path, f"{path}:InPlace", train_subset=None))
    assert (sources.load("digits").train.images == images).all()
    again = train(configured(tmp_path, "none", train_subset=None, runs_dir=str(tmp_path / "again")))
    assert again.final["train_loss"] == before.final["train_loss"] != inverted.final["train_loss"]


def test_the_record_distinguishes_the_images_of_different_operators(tmp_path: Path, path):
    fingerprints = {
        train(configured(tmp_path, name)).result["provenance"]["randomization"]["test"]
        for name in ("none", f"{path}:InPlace", f"{path}:Dimmed")
    }
    assert len(fingerprints) == 3


def test_options_and_source_belong_to_the_run(tmp_path: Path, path):
    paths = [train(configured(tmp_path, f"{path}:Dimmed")).path]
    paths.append(train(configured(tmp_path, f"{path}:Dimmed", randomization_options="strength=0.6")).path)
    Path(path).write_text(OPERATORS.replace(">= self.strength", "> 0.1 + self.strength"))
    paths.append(train(configured(tmp_path, f"{path}:Dimmed")).path)
    assert len(set(paths)) == 3
    Path(path).write_text(OPERATORS + "# a remark")
    assert train(configured(tmp_path, f"{path}:Dimmed")).path == paths[0]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("Dimmed", "strength=2", "strength must be between 0 and 1, not 2"),
        ("Dimmed", "strenght=0.5", "has no option 'strenght'; it has strength"),
        ("Reversed", "strength=1", "has no option 'strength'; it has none"),
        ("TooMany", None, "TooMany must return labels from 0 to 9, not 1 to 10"),
        ("NotLabels", None, "NotLabels must return int64 labels of shape"),
        ("OtherShape", None, "OtherShape must return uint8 or float32 images of shape"),
        ("OtherLabels", None, "OtherLabels changes pixels, so it must leave the labels"),
        ("dataclass", None, "is no subclass of rethinking.data.operators.Operator"),
        ("Dimed", None, "has no 'Dimed'; did you mean 'Dimmed'?"),
    ],
)
def test_a_mistake_is_a_one_line_error(tmp_path: Path, path, name, options, message):
    with pytest.raises(InputError, match=message) as error:
        train(configured(tmp_path, f"{path}:{name}", randomization_options=options))
    assert "\n" not in str(error.value)


def test_corruption_prob_is_refused_for_operators_without_it(tmp_path: Path, path):
    with pytest.raises(
        InputError,
        match=r"corruption_prob goes with randomization partial_corrupt, pair_flip, asymmetric, not .*Reversed",
    ):
        train(configured(tmp_path, f"{path}:Reversed", corruption_prob=0.5))
    with pytest.raises(InputError, match="replaced_example goes with randomization none, random_labels, partial_corr"):
        train(configured(tmp_path, f"{path}:Reversed", replaced_example=0))


def test_a_registered_operator_has_a_name():
    @operators.register("registered_here")
    class Registered(Operator):
        """Changes nothing."""

    assert isinstance(ExperimentConfig(randomization="registered_here").operator, Registered)
    with pytest.raises(ValueError, match="'random_labels' is the package's own"):
        operators.register("random_labels")(Registered)


def test_only_the_operators_module_names_operators():
    """All other modules decide by an operator's properties, so that users' operators work everywhere."""
    names = [f'"{name}"' for name in operators.OWN if name != "none"]
    rooms = [ROOT / "src/rethinking" / room for room in ("data", "models", "training")]
    files = [file for room in rooms for file in room.rglob("*.py") if file.name != "operators.py"]
    naming = {file.name for file in files for name in names if name in file.read_text(encoding="utf-8")}
    assert naming == set()


def test_operators_make_the_split():
    labels = torch.arange(4)
    split = RandomizedSplit(torch.zeros(4, 1, 2, 2, dtype=torch.uint8), labels, labels)
    train_split, test_split = randomization.apply(
        operators.create("none", None, {}), split, split, num_classes=4, positions=4, seed=0
    )
    assert train_split is split
    assert test_split is split


FAILING = """
import torch
from rethinking import Operator

class InPlaceLabels(Operator):
    def change_labels(self, labels, num_classes, random):
        return labels.fill_(3)

class Raises(Operator):
    def change_labels(self, labels, num_classes, random):
        raise RuntimeError("oops")

class OneSplit(Operator):
    def change_pixels(self, train, test, positions, random):
        return train

class GlobalDraws(Operator):
    def change_labels(self, labels, num_classes, random):
        return torch.randint(num_classes, labels.shape)
"""


def test_labels_changed_in_place_keep_the_true_labels(tmp_path: Path):
    (tmp_path / "mine.py").write_text(FAILING)
    result = train(configured(tmp_path, f"{tmp_path / 'mine.py'}:InPlaceLabels"))
    record = safetensors.torch.load_file(result.path / "randomization.safetensors")
    assert (record["labels"] == 3).all()
    assert result.result["labels_changed"] == (record["true_labels"] != 3).sum() > 50


@pytest.mark.parametrize(
    ("name", "said"),
    [("Raises", r"Raises fails: RuntimeError: oops \(.*\.py, line \d+\)"), ("OneSplit", "OneSplit fails: TypeError")],
)
def test_an_operator_that_fails_is_a_one_line_error(tmp_path: Path, name, said):
    (tmp_path / "mine.py").write_text(FAILING)
    with pytest.raises(InputError, match=said) as error:
        train(configured(tmp_path, f"{tmp_path / 'mine.py'}:{name}"))
    assert "\n" not in str(error.value)


def test_draws_from_global_generators_depend_on_the_seed_too(tmp_path: Path):
    (tmp_path / "mine.py").write_text(FAILING)

    def labels(folder: str, **options: object) -> torch.Tensor:
        made = configured(tmp_path, f"{tmp_path / 'mine.py'}:GlobalDraws", runs_dir=str(tmp_path / folder), **options)
        return safetensors.torch.load_file(train(made).path / "randomization.safetensors")["labels"]

    assert torch.equal(labels("a"), labels("b"))
    assert not torch.equal(labels("a"), labels("a", randomization_seed=1))


@pytest.mark.parametrize("value", ["0.5", "5", "'x'"])
def test_corruption_prob_has_one_spelling(tmp_path: Path, value):
    with pytest.raises(InputError, match="corruption_prob is an option of its own"):
        configured(tmp_path, "partial_corrupt", randomization_options=f"corruption_prob={value}")
