"""What a run keeps of every example: the numbers, the files, and what happens to them when a run is interrupted."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from rethinking.config import ExperimentConfig
from rethinking.data import sources
from rethinking.engines.many import train_many
from rethinking.errors import RunError
from rethinking.training import RunResult, examples, train
from rethinking.training.examples import Examples
from rethinking.training.loggers import Observer
from rethinking.training.preparation import plain_training_set
from tests.engines.test_here import InterruptAfter

QUANTITIES = ("loss", "margin", "error_norm", "correct")
ALL = {"record_examples": True, "record_evaluated_examples": True, "record_test_examples": True}


def config(folder: Path, **options) -> ExperimentConfig:
    chosen = {
        "model_name": "mlp_1x512",
        "dataset": "digits",
        "train_subset": 300,
        "num_epochs": 3,
        "precision": "fp32",
        "device": "cpu",
        "use_tensorboard": False,
        "runs_dir": str(folder),
        **ALL,
    }
    return ExperimentConfig(**{**chosen, **options})


def slowly(logits: list[float], label: int) -> tuple[float, float, float, bool]:
    """The definitions, for one image."""
    total = sum(math.exp(logit) for logit in logits)
    probabilities = [math.exp(logit) / total for logit in logits]
    others = [logit for place, logit in enumerate(logits) if place != label]
    squares = [(p - (place == label)) ** 2 for place, p in enumerate(probabilities)]
    return (
        -math.log(probabilities[label]),
        logits[label] - max(others),
        math.sqrt(sum(squares)),
        logits[label] > max(others),
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_each_quantity_is_what_its_definition_says(dtype):
    logits = (4 * torch.randn(50, 7, generator=torch.Generator().manual_seed(0))).to(dtype)
    labels, rows = torch.arange(50) % 7, torch.randperm(50)
    measured = Examples.of(logits, labels, rows)
    assert [part.dtype for part in measured] == [torch.float16, torch.float16, torch.float16, torch.bool]
    for image, row in enumerate(rows.tolist()):
        *expected, correct = slowly(logits[image].tolist(), int(labels[image]))
        assert [float(part[row]) for part in measured[:3]] == pytest.approx(expected, rel=1e-3, abs=1e-3)
        assert bool(measured.correct[row]) == correct


def test_a_hand_made_case():
    measured = Examples.of(torch.tensor([[0.0, 0.0], [0.0, 1e6], [1e6, 0.0]]), torch.tensor([1, 1, 1]))
    assert measured.loss.tolist() == [np.float16(math.log(2)), 0.0, 65504.0]
    assert measured.margin.tolist() == [0.0, 65504.0, -65504.0]
    assert measured.error_norm.tolist() == [np.float16(math.sqrt(0.5)), 0.0, np.float16(math.sqrt(2))]
    assert measured.correct[1:].tolist() == [True, False]


def test_their_means_are_the_metrics_of_the_epoch(tmp_path: Path):
    result = train(config(tmp_path, randomization="partial_corrupt", corruption_prob=0.5))
    kept = result.examples()
    assert {word: part.loss.shape for word, part in kept.items()} == {
        "online": (3, 300),
        "train": (3, 300),
        "test": (3, 355),
    }
    names = {"online": ("train_loss", "train_accuracy"), "test": ("test_loss", "test_accuracy")}
    for word, (loss, accuracy) in names.items():
        assert kept[word].correct.mean(axis=1).tolist() == [record[accuracy] for record in result.metrics]
        expected = [record[loss] for record in result.metrics]
        assert kept[word].loss.astype(float).mean(axis=1).tolist() == pytest.approx(expected, rel=1e-3)
    exact = [record["exact_train_accuracy"] for record in result.metrics]
    assert kept["train"].correct.mean(axis=1).tolist() == exact


def test_the_last_row_is_what_the_network_says(tmp_path: Path):
    result = train(config(tmp_path))
    data = sources.load("digits")
    batches = plain_training_set(result.config, data)
    with torch.no_grad():
        logits = result.network()(batches.images(torch.arange(300)))
    expected = Examples.of(logits, batches.labels)
    kept = result.examples()["train"]
    for quantity in QUANTITIES:
        ours, theirs = getattr(kept, quantity)[-1], getattr(expected, quantity).numpy()
        np.testing.assert_allclose(ours.astype(float), theirs.astype(float), rtol=2e-3, atol=2e-3)


def test_without_the_options_nothing_is_kept_and_no_number_differs(tmp_path: Path):
    recorded = train(config(tmp_path))
    plain = train(config(tmp_path, **dict.fromkeys(ALL, False), eval_train_every=1))
    assert plain.examples() == {}
    assert not (plain.path / "examples").exists()
    names = ("train_loss", "train_accuracy", "exact_train_accuracy", "test_loss")
    assert [[record[name] for name in names] for record in plain.metrics] == [
        [record[name] for name in names] for record in recorded.metrics
    ]


def test_numpy_maps_the_files(tmp_path: Path):
    result = train(config(tmp_path))
    for path in (result.path / "examples").iterdir():
        rows = np.load(path, mmap_mode="r")
        assert rows.dtype == (np.bool_ if path.stem.endswith("correct") else np.float16)
        assert rows.shape == (3, 355 if path.stem.startswith("test") else 300)
        assert not rows.flags.writeable


def test_an_observer_sees_the_rows_of_the_epoch(tmp_path: Path):
    seen = []

    class Watch(Observer):
        def started(self, path, config, metrics, images):
            self.file = path / "examples" / "online_margin.npy"

        def epoch(self, record):
            seen.append((record["epoch"], np.load(self.file).shape))

    train(config(tmp_path), observers=[Watch()])
    assert seen == [(1, (1, 300)), (2, (2, 300)), (3, (3, 300))]


def test_an_interrupted_run_goes_on_to_the_same_files(tmp_path: Path):
    straight = train(config(tmp_path / "straight"))
    with pytest.raises(KeyboardInterrupt):
        train(config(tmp_path / "interrupted"), observers=[InterruptAfter(2)])
    resumed = train(config(tmp_path / "interrupted"))
    assert contents(resumed) == contents(straight)


def contents(result: RunResult) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (result.path / "examples").iterdir()}


def test_a_row_that_no_checkpoint_counts_is_written_again(tmp_path: Path):
    """As after a kill between the row and the checkpoint."""
    straight = train(config(tmp_path / "straight"))
    shorter = train(config(tmp_path / "other", num_epochs=2, lr_schedule="constant"))
    with pytest.raises(KeyboardInterrupt):
        train(config(tmp_path / "killed"), observers=[InterruptAfter(2)])
    (killed,) = (tmp_path / "killed").iterdir()
    for path in (killed / "examples").iterdir():
        begun = path.read_bytes()
        path.write_bytes(begun + (shorter.path / "examples" / path.name).read_bytes()[-100:])
    assert contents(train(config(tmp_path / "killed"))) == contents(straight)


@pytest.mark.parametrize("damage", ["cut", "digit", "empty", "missing", "folder"])
def test_damaged_files_are_told_by_name(tmp_path: Path, damage: str):
    asked = config(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        train(asked, observers=[InterruptAfter(2)])
    (run,) = tmp_path.iterdir()
    path = run / "examples" / "online_margin.npy"
    content = path.read_bytes()
    if damage == "folder":
        path.parent.rename(run / "elsewhere")
    elif damage == "missing":
        path.unlink()
    else:
        flipped = content[:-1] + bytes([content[-1] ^ 1])
        path.write_bytes({"cut": content[:-1], "digit": flipped, "empty": b""}[damage])
    with pytest.raises(RunError, match=r"examples.* is damaged or missing: move the run's folder away") as error:
        train(asked)
    assert str(run) in str(error.value)


def test_stacked_runs_keep_what_each_keeps_alone(tmp_path: Path):
    asked = [config(tmp_path / "together", seed=seed) for seed in (0, 1)]
    for one, outcome in train_many(asked, at_once=2, stacked=True):
        assert isinstance(outcome, RunResult)
        alone = train(replace(one, runs_dir=str(tmp_path / "alone"))).examples()
        for word, kept in outcome.examples().items():
            for quantity in QUANTITIES[:3]:
                ours, theirs = getattr(kept, quantity), getattr(alone[word], quantity)
                np.testing.assert_allclose(ours.astype(float), theirs.astype(float), rtol=2e-2, atol=2e-2)
            assert (kept.correct == alone[word].correct).mean() > 0.99


def test_a_row_that_is_written_again_leaves_no_moment_without_the_rows_before_it(tmp_path: Path, monkeypatch):
    """As after two kills: one between a row and its checkpoint, one while the row is written again."""
    path, seen = tmp_path / "online_loss.npy", []
    rows = np.arange(12, dtype=np.float16).reshape(4, 3)
    for epoch in (1, 2, 3):
        examples._write_row(path, rows[epoch - 1], epoch)
    header = examples.npy.write_array_header_1_0

    def look(*arguments: object) -> None:
        seen.append(np.load(path).tolist())
        header(*arguments)

    monkeypatch.setattr(examples.npy, "write_array_header_1_0", look)
    monkeypatch.setattr(examples.os, "fsync", lambda _: seen.append(np.load(path).tolist()))
    examples._write_row(path, rows[3], 2)
    assert seen == [rows[:3].tolist(), [rows[0].tolist(), rows[3].tolist()]]
    assert path.stat().st_size == 128 + 2 * 6
    cut = path.read_bytes() + rows[2].tobytes()  # killed before the file was cut to its rows
    path.write_bytes(cut)
    assert np.load(path, mmap_mode="r").tolist() == [rows[0].tolist(), rows[3].tolist()]
