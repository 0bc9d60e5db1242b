import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from rethinking.config import ExperimentConfig, get_baseline_config, get_random_labels_config
from rethinking.errors import InputError
from tests.conftest import ROOT


@pytest.mark.parametrize(
    ("options", "off"),
    [
        ({}, True),
        ({"randomization": "random_labels"}, True),
        ({"weight_decay": 0.0005}, False),
        ({"weight_decay": "default"}, False),
        ({"random_crop": True}, False),
        ({"augment_flip_rotate": True}, False),
    ],
)
def test_explicit_reg_off_means_no_weight_decay_and_no_augmentation(options, off):
    assert ExperimentConfig(**options).explicit_reg_off is off


def test_the_briefs_example_builds():
    config = ExperimentConfig(
        model_name="small_inception",
        dataset="cifar10",
        randomization="random_labels",
        weight_decay=0.0005,
        random_crop=True,
        augment_flip_rotate=False,
        batch_size=128,
        num_epochs=100,
    )
    assert config.explicit_reg_off is False


def test_the_briefs_import_path_works_from_the_repository_root():
    code = (
        "from src.config import ExperimentConfig, get_baseline_config, get_random_labels_config as r;"
        "print(r().randomization, get_baseline_config().explicit_reg_off)"
    )
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["random_labels", "True"]


def test_presets_differ_only_in_the_labels_and_take_overrides():
    baseline, random = get_baseline_config("mlp_1x512", seed=3), get_random_labels_config("mlp_1x512", seed=3)
    assert dataclasses.replace(baseline, randomization="random_labels") == random
    assert baseline.explicit_reg_off
    assert random.explicit_reg_off


@pytest.mark.parametrize(
    ("model", "rate", "decay", "init"),
    [
        ("small_inception", 0.1, 0.0005, "he"),
        ("small_inception_no_bn", 0.1, 0.0005, "lecun"),
        ("small_alexnet", 0.01, 0.0005, "pytorch"),
        ("mlp_1x512", 0.01, 0.0001, "he"),
        ("mlp_3x512", 0.01, 0.0001, "he"),
    ],
)
def test_resolved_writes_out_the_defaults_by_model(model, rate, decay, init):
    resolved = ExperimentConfig(model_name=model, weight_decay="default").resolved()
    assert resolved.init == init
    assert (resolved.learning_rate, resolved.weight_decay, resolved.lr_decay) == (rate, decay, 0.95)
    assert (resolved.momentum, resolved.batch_size) == (0.9, 128)


def test_randomization_changes_no_other_hyperparameter():
    plain, random = get_baseline_config().resolved(), get_random_labels_config().resolved()
    assert dataclasses.replace(plain, randomization="random_labels") == random


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model_name": "small_incepton"}, "did you mean 'small_inception'"),
        ({"randomization": "random_label"}, "did you mean 'random_labels'"),
        ({"optimizer": "sdg"}, "did you mean 'sgd'"),
        ({"batch_size": 0}, "batch_size must be at least 1, not 0"),
        ({"batch_size": "128"}, "batch_size must be a whole number"),
        ({"batch_size": 12.5}, "batch_size must be a whole number"),
        ({"num_epochs": True}, "num_epochs must be a whole number"),
        ({"random_crop": 1}, "random_crop must be true or false"),
        ({"learning_rate": 0.0}, "learning_rate must be a number above 0"),
        ({"learning_rate": float("nan")}, "learning_rate must be a number above 0"),
        ({"learning_rate": float("inf")}, "learning_rate must be a number above 0"),
        ({"weight_decay": -1.0}, "weight_decay must be at least 0, or 'default'"),
        ({"weight_decay": "defualt"}, "weight_decay must be a number, or 'default'"),
        ({"momentum": 1.5}, "momentum must be between 0 and 1"),
        ({"min_std": 0.0}, "min_std must be a number above 0, or 'tensorflow'"),
        ({"crop_size": 27}, "crop_size must be between 28 and 224"),
        ({"randomization": "partial_corrupt"}, "needs a corruption_prob"),
        ({"randomization": "partial_corrupt", "corruption_prob": 1.01}, "corruption_prob must be between 0 and 1"),
        ({"randomization": "partial_corrupt", "corruption_prob": -0.01}, "corruption_prob must be between 0 and 1"),
        ({"corruption_prob": 0.5}, "corruption_prob goes with randomization partial_corrupt"),
        ({"lr_schedule": "cosine", "lr_decay": 0.9}, "lr_decay goes with lr_schedule exponential"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"replaced_example": -1}, "replaced_example must be at least 0"),
        (
            {"replaced_example": 0, "randomization": "random_pixels"},
            "replaced_example goes with randomization none, random_labels, partial_corrupt, pair_flip, asymmetric,"
            " class_matrix, not random_pixels",
        ),
        ({"keep_test_losses": True, "randomization": "random_signs"}, "keep_test_losses needs a test set"),
        ({"keep_test_losses": True, "eval_test_every": 2}, "leave eval_test_every out"),
        ({"record_test_examples": True, "eval_test_every": 2}, "record_test_examples needs the test losses of every"),
        ({"record_test_examples": True, "randomization": "random_signs"}, "record_test_examples needs a test set"),
        ({"labels_column": "worst"}, "labels_column names a column of the file of --labels"),
        (
            {"labels": "a.csv", "randomization": "random_labels"},
            "labels gives labels, which randomization random_labels",
        ),
        ({"labels": "a.csv", "replaced_example": 1}, "labels gives labels, which replaced_example would change"),
        ({"subset_seed": 1}, "subset_seed chooses the images of --subset_share"),
        ({"subset_share": 1.0}, "subset_share must be a share above 0 and below 1, not 1.0"),
        ({"subset_share": 0.5, "left_out": "1/2"}, "subset_share and left_out do not go together"),
        ({"left_out": "0/5"}, "left_out must be K/N, a part from 1 to N of N parts from 2 on, not '0/5'"),
        ({"left_out": "1/1"}, "left_out must be K/N"),
        ({"left_out": "3/2"}, "left_out must be K/N"),
        ({"left_out": "1"}, "left_out must be K/N"),
        ({"left_out": "01/2"}, "left_out must be K/N"),
        ({"left_out": "1/5", "replaced_example": 0}, "left_out and replaced_example do not go together"),
        ({"subset_share": 0.5, "replaced_example": 0}, "subset_share and replaced_example do not go together"),
        (
            {"corrupt_test_labels": True},
            "corrupt_test_labels goes with an operator that changes labels and keeps the data's classes, not",
        ),
        ({"seed": 10**400}, "seed must be a whole number up to 2147483647"),
        ({"batch_size": 10**23}, "batch_size must be a whole number up to 2147483647"),
        ({"dataset": ""}, "dataset must be a text that is not empty"),
        ({"device": "cpu:0"}, "device must be one of auto, cpu, cuda, cuda:N, mps, not 'cpu:0'; did you mean 'cpu'?"),
    ],
)
def test_a_wrong_value_is_a_one_line_error(options, message):
    with pytest.raises(InputError) as error:
        ExperimentConfig(**options)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_yaml_round_trip_is_exact(tmp_path: Path):
    config = ExperimentConfig(randomization="partial_corrupt", corruption_prob=0.3, learning_rate=1e-4).resolved()
    (tmp_path / "run.yaml").write_text(config.to_yaml())
    assert ExperimentConfig.from_yaml(tmp_path / "run.yaml") == config


def test_yaml_takes_command_line_names_and_yaml_floats_without_a_point(tmp_path: Path):
    (tmp_path / "run.yaml").write_text("model: mlp_1x512\nlr: 1e-4\nmomentum: 0\n")
    config = ExperimentConfig.from_yaml(tmp_path / "run.yaml")
    assert (config.model_name, config.learning_rate, config.momentum) == ("mlp_1x512", 1e-4, 0.0)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("model: [", "is not a YAML file"),
        ("\xff\xfe", "is not a YAML file"),
        ("- model", "must hold lines of 'option: value'"),
        ("batchsize: 12", "unknown option 'batchsize'; did you mean 'batch_size'?"),
        ("format: 99\nmodel: mlp_1x512", "has format 99 and this version reads 1"),
        ("format: '1'", "has format '1' and this version reads 1"),
        ("wandb_project: 2024-02-30", "is not a YAML file"),
        ("[" * 3000, "is not a YAML file"),
        ("lr: 0.1\nlearning_rate: 0.2", "learning_rate is given twice"),
        ("batch_size: many", "batch_size must be a whole number"),
    ],
)
def test_a_damaged_yaml_is_reported_in_one_line(tmp_path: Path, content, message):
    (tmp_path / "run.yaml").write_bytes(content.encode("latin-1"))
    with pytest.raises(InputError) as error:
        ExperimentConfig.from_yaml(tmp_path / "run.yaml")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_every_field_has_a_help_text_and_a_group():
    for spec in dataclasses.fields(ExperimentConfig):
        assert spec.metadata["help"], spec.name
        assert spec.metadata["group"], spec.name


def test_paths_and_loggers_do_not_change_a_runs_identity():
    identity = ExperimentConfig().identity()
    other = ExperimentConfig(runs_dir="x", data_root="y", use_wandb=True, wandb_project="z", use_tensorboard=False)
    assert identity == other.identity()
    for name, value in (("seed", 1), ("batch_size", 2), ("momentum", 0.1), ("init", "xavier"), ("num_epochs", 7)):
        assert dataclasses.replace(ExperimentConfig(), **{name: value}).identity() != identity


def test_an_option_added_later_changes_the_identity_only_away_from_its_default():
    later = [spec for spec in dataclasses.fields(ExperimentConfig) if spec.metadata["added_later"]]
    assert {spec.name for spec in later} == {
        "pixel_noise",
        "weight_decay_on",
        "replaced_example",
        "keep_test_losses",
        "subset_share",
        "subset_seed",
        "left_out",
        "labels",
        "labels_column",
        "labels_digest",
        "corrupt_test_labels",
        "record_examples",
        "record_evaluated_examples",
        "record_test_examples",
        "eval_test_every",
        "resize",
        "colour",
        "holdout",
        "skip_unlabelled",
        "image_column",
        "label_column",
        "model_options",
        "network_digest",
        "network_regularizers",
        "randomization_options",
        "randomization_digest",
        "warmup_epochs",
    }
    assert not {spec.name for spec in later} & ExperimentConfig().identity().keys()
    assert ExperimentConfig(pixel_noise=5.0).identity()["pixel_noise"] == 5.0
    assert ExperimentConfig(weight_decay_on="hidden_linear").identity()["weight_decay_on"] == "hidden_linear"
