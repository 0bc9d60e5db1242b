"""Names and questions of runs that train no network: everything that can change their numbers changes them."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest

from rethinking.config import ExperimentConfig
from rethinking.identity import question, run_id
from rethinking.theory.detecting import DetectionConfig
from rethinking.theory.kernel_machine import KernelMachineConfig
from rethinking.theory.measuring import ComplexityConfig
from rethinking.theory.memorization import MemorizationConfig
from rethinking.theory.memorized import MemorizedConfig
from rethinking.theory.rademacher import RademacherConfig
from rethinking.theory.run import TheoryConfig
from rethinking.theory.stability import StabilityConfig

NETWORK = ExperimentConfig(model_name="mlp_1x512", dataset="digits", device="cpu", precision="fp32").resolved()
BASES: dict[str, TheoryConfig] = {
    "kernel machine": KernelMachineConfig(dataset="digits", device="cpu"),
    "random filters": KernelMachineConfig(dataset="digits", device="cpu", features="random_conv", filters=100),
    "memorization": MemorizationConfig(dataset="digits", device="cpu"),
    "pairs": MemorizationConfig(dataset="digits", device="cpu", points="pairs", gap=1.0),
    "linear class": RademacherConfig(dataset="digits"),
    "measures": ComplexityConfig.of(NETWORK),
    "replacement": StabilityConfig.of(NETWORK, replaced=0),
    "detection": DetectionConfig.of(replace(NETWORK, randomization="random_labels")),
    "memorized": MemorizedConfig.of(NETWORK, subsets=10),
}
SHARED: dict[str, Any] = {  # by every kind
    "resize": 64,
    "colour": "grey",
    "holdout": 0.2,
    "skip_unlabelled": True,
    "image_column": "photo",
    "label_column": "kind",
    "train_subset": 100,
    "seed": 1,
    "randomization_seed": 1,
}
OWN: dict[str, dict[str, Any]] = {
    "kernel machine": {
        "randomization": "random_labels",
        "features": "gabor",
        "kernel": "linear",
        "bandwidth": 3.0,
        "l2": 0.5,
        "solution": "sgd",
    },
    "random filters": {
        "randomization": "random_labels",
        "filters": 200,
        "filter_options": "mirror=True",
        "l2": "search",
        "solution": "hessian",
    },
    "memorization": {"randomization": "random_labels", "points": "gaussian", "depth": 3},
    "pairs": {"randomization": "random_labels", "gap": 2.0, "depth": 3},
    "linear class": {},
    "measures": {"randomization": "random_labels", "radius": 0.02, "network": replace(NETWORK, num_epochs=3)},
    "replacement": {"randomization": "random_labels", "replaced": 1, "network": replace(NETWORK, num_epochs=3)},
    "detection": {"network": replace(NETWORK, num_epochs=3, randomization="random_labels")},
    "memorized": {"subsets": 20, "share": 0.5, "network": replace(NETWORK, num_epochs=3)},
}
UNCHANGED: dict[str, dict[str, Any]] = {kind: {"data_root": "elsewhere", "runs_dir": "elsewhere"} for kind in BASES}
UNCHANGED["kernel machine"]["memory_limit"] = UNCHANGED["random filters"]["memory_limit"] = 3.0
SEEN_ELSEWHERE = {  # options that are tested on another base, that stand for one or are the data's
    "dataset", "device", "run", "scored", "filters", "filter_options", "features", "kernel", "bandwidth", "points",
    "gap", "randomization",
}  # fmt: skip


def names(config: TheoryConfig) -> tuple[str, str]:
    return run_id(config, "photos", "fingerprint"), question(config, "photos", "fingerprint")


@pytest.mark.parametrize("kind", BASES)
def test_every_option_is_listed_as_changing_numbers_or_not(kind):
    said = SHARED.keys() | OWN[kind].keys() | UNCHANGED[kind].keys()
    assert {spec.name for spec in fields(BASES[kind])} - SEEN_ELSEWHERE <= said


@pytest.mark.parametrize("kind", BASES)
def test_each_option_that_changes_numbers_gives_another_name_and_question(kind):
    changed = [replace(BASES[kind], **{option: value}) for option, value in (SHARED | OWN[kind]).items()]
    for of_all in zip(*map(names, [BASES[kind], *changed]), strict=True):
        assert len({*of_all}) == 1 + len(changed), "no option stands for another"


@pytest.mark.parametrize("kind", BASES)
def test_folders_and_memory_change_neither(kind):
    for option, value in UNCHANGED[kind].items():
        assert names(replace(BASES[kind], **{option: value})) == names(BASES[kind]), option


@pytest.mark.parametrize("kind", BASES)
def test_other_data_is_another_question_whatever_its_name(kind):
    config = BASES[kind]
    for name_of in (run_id, question):
        asked = {name_of(config, name, content) for name in ("photos", "others") for content in ("one", "two")}
        assert len(asked) == 4


@pytest.mark.parametrize("kind", ["kernel machine", "memorization"])
def test_the_device_changes_the_run_and_not_the_question(kind):
    here, there = names(BASES[kind]), names(replace(BASES[kind], device="cuda"))
    assert here[0] != there[0]
    assert here[1] == there[1]


@pytest.mark.parametrize("option", ["batch_size", "momentum", "optimizer", "init", "min_std", "num_epochs"])
@pytest.mark.parametrize("kind", ["measures", "replacement"])
def test_the_training_options_are_part_of_a_measurement(kind, option):
    value = {"batch_size": 7, "momentum": 0.5, "optimizer": "adam", "init": "xavier", "min_std": 0.1, "num_epochs": 7}
    network = replace(NETWORK, **{option: value[option]})
    assert names(replace(BASES[kind], network=network))[1] != names(BASES[kind])[1]
