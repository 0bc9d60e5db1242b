"""Measures of users: their arguments, and the errors where they return something else than numbers."""

from pathlib import Path

import pytest
import torch

from rethinking import ExperimentConfig, InputError
from rethinking.data import sources
from rethinking.theory import tasks
from rethinking.theory.measured import MeasureConfig
from rethinking.training import train
from rethinking.training.preparation import plain_training_set

MEASURES = """
import torch

calls = []

def accuracy(network, images, labels):
    calls.append(network.training)
    return {"accuracy": (network(images).argmax(1) == labels).double().mean(), "images": len(images)}

def nothing(network, images, labels):
    return 3

def infinite(network, images, labels):
    return {"it": float("inf")}

def several(network, images, labels):
    return {"each": torch.zeros(3)}

def fails(network, images, labels):
    return network.no_such_layer

def draws(network, images, labels):
    return {"drawn": torch.rand(())}
"""


@pytest.fixture
def path(tmp_path: Path) -> str:
    (tmp_path / "mine.py").write_text(MEASURES)
    return str(tmp_path / "mine.py")


def network(tmp_path: Path, **options: object) -> ExperimentConfig:
    shared = {"model_name": "mlp_1x512", "dataset": "digits", "train_subset": 100, "num_epochs": 2}
    return ExperimentConfig(
        **{**shared, "precision": "fp32", "use_tensorboard": False, "runs_dir": str(tmp_path / "runs"), **options}
    )


def test_a_measure_sees_the_network_and_the_labels_it_was_trained_on(tmp_path: Path, path):
    asked = network(tmp_path, randomization="random_labels", num_epochs=20)
    found = tasks.carry_out(MeasureConfig.of(asked, measure=f"{path}:accuracy"))
    run = train(asked)
    assert found.result["numbers"] == {"accuracy": pytest.approx(run.final["exact_train_accuracy"]), "images": 100}
    images, labels = next(plain_training_set(run.config, sources.load("digits")).in_order(100))
    with torch.no_grad():
        expected = (run.network()(images).argmax(1) == labels).double().mean().item()
    assert found.result["numbers"]["accuracy"] == pytest.approx(expected)
    assert tasks.carry_out(MeasureConfig.of(asked, measure=f"{path}:accuracy")).path == found.path
    assert tasks.read(found.path).config == found.config


def test_draws_depend_on_the_seed_and_another_source_is_another_run(tmp_path: Path, path):
    asked = MeasureConfig.of(network(tmp_path), measure=f"{path}:draws")
    torch.manual_seed(1)
    first = tasks.carry_out(asked)
    torch.manual_seed(2)
    moved = MeasureConfig.of(network(tmp_path, runs_dir=str(tmp_path / "again")), measure=f"{path}:draws")
    second = tasks.carry_out(moved)
    assert first.result["numbers"] == second.result["numbers"]
    assert first.path.name == second.path.name
    Path(path).write_text(MEASURES.replace("torch.rand(())", "torch.rand(()) + 1"))
    assert tasks.carry_out(asked).path != first.path


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nothing", "must return numbers by name, not int"),
        ("infinite", "must return finite numbers by name; 'it' is inf"),
        ("several", r"must return finite numbers by name; 'each' is tensor\(\[0., 0., 0.\]\)"),
        ("fails", "mine.py:fails fails: AttributeError: 'Sequential' object has no attribute 'no_such_layer'"),
        ("fals", "has no 'fals'; did you mean 'fails'?"),
    ],
)
def test_a_mistake_is_a_one_line_error(tmp_path: Path, path, name, said):
    with pytest.raises(InputError, match=said) as error:
        tasks.carry_out(MeasureConfig.of(network(tmp_path), measure=f"{path}:{name}"))
    assert "\n" not in str(error.value)
