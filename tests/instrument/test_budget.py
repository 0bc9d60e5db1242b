"""Budgets of time: how they are read and shared. No test asserts elapsed time."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from rethinking import ExperimentConfig, InputError, RunResult
from rethinking.errors import DivergedError
from rethinking.instrument import budget
from rethinking.instrument.battery import in_time, seconds_of
from rethinking.instrument.budget import level, train_within


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("90s", 90), ("10m", 600), ("1h30m", 5400), ("2h", 7200), ("45", 45), ("1m30s", 90), (2.5, 2.5)],
)
def test_a_time_is_read_as_people_write_it(written, seconds):
    assert seconds_of(written) == seconds


@pytest.mark.parametrize("written", ["", "ten", "0", "0m", "-5m", "10x", "m", "1m1h", "nan"])
def test_a_text_that_is_no_time_is_refused_in_one_line(written):
    with pytest.raises(InputError, match="budget must be a time such as 90s, 10m or 1h30m, or none"):
        seconds_of(written)


def test_no_budget_means_endless_time():
    assert seconds_of(None) == seconds_of("none") == math.inf


@pytest.mark.parametrize("seconds", [0.01, 0.3, 1, 59.5, 60, 75, 119, 121, 600, 5401.5])
def test_a_written_time_is_read_back_as_at_least_itself_and_less_than_twice_itself(seconds):
    assert seconds <= seconds_of(in_time(seconds)) < max(1.1, 2 * seconds)
    assert seconds_of(in_time(math.inf)) == math.inf


def test_runs_with_the_least_time_so_far_get_the_most():
    assert level([0, 0], 10) == 5
    assert level([2, 0], 10) == 6
    assert level([100, 0], 10) == 10, "the first has had its share"
    assert level([5, 1, 3], 3) == pytest.approx(3.5), "1 and 3 come to 3.5"
    assert level([7], 0) == 7
    assert level([1, 2], math.inf) == math.inf


def config(folder: Path, **options) -> ExperimentConfig:
    fixed = {"model_name": "mlp_1x512", "dataset": "digits", "num_epochs": 500, "runs_dir": str(folder)}
    fixed |= {"use_tensorboard": False, "device": "cpu", "precision": "fp32", "stop_when_fit": True}
    fixed |= {"train_subset": 300}
    return ExperimentConfig(**fixed | options)


def epochs(outcomes: dict) -> list[int]:
    return [len(run.metrics) for run in outcomes.values()]


def test_a_spent_budget_stays_spent(tmp_path: Path):
    configs = [config(tmp_path, randomization=name) for name in ("none", "random_labels")]
    first = train_within(configs, 1e-6)
    assert epochs(first) == [1, 1], "each has an epoch at least"
    again = train_within(configs, 1e-6)
    assert epochs(again) == [1, 1]
    more = train_within(configs, math.inf)
    assert all(run.finished for run in more.values() if isinstance(run, RunResult))
    assert min(epochs(more)) > 1


def test_the_time_that_a_finished_run_leaves_goes_to_the_others(tmp_path: Path, monkeypatch):
    """On the test's own clock an epoch takes a second, and the run on true labels has fewer epochs."""
    limits: list[float] = []
    real = budget.train_many

    def watched(configs, **options):
        limits.append(options["seconds"])
        return real(configs, **options)

    monkeypatch.setattr(budget, "train_many", watched)
    monkeypatch.setattr(budget, "_seconds", lambda run: float(len(run.metrics)) if run else 0.0)
    configs = [config(tmp_path, randomization=name, num_epochs=length) for name, length in
               (("none", 2), ("random_labels", 4))]  # fmt: skip
    outcomes = train_within(configs, 1000.0)
    assert epochs(outcomes) == [2, 4]
    assert limits[0] == 500.0


def test_a_run_that_diverges_is_reported_and_the_others_continue(tmp_path: Path):
    wild = config(tmp_path, learning_rate=1e30, num_epochs=2)
    tame = config(tmp_path, num_epochs=2)
    outcomes = train_within([wild, tame], math.inf)
    assert isinstance(outcomes[wild], DivergedError)
    assert isinstance(outcomes[tame], RunResult)


def test_a_budget_that_one_run_has_spent_still_starts_the_others(tmp_path: Path, monkeypatch):
    """The first of two runs was killed, and the next command has a smaller budget."""
    first, second = config(tmp_path), config(tmp_path, randomization="random_labels")
    train_within([first], 1e-6)
    monkeypatch.setattr(budget, "_seconds", lambda run: 10.0 * len(run.metrics) if run else 0.0)
    assert epochs(train_within([first, second], 5.0)) == [1, 1]


def test_a_run_that_diverged_is_not_trained_again_until_its_note_is_deleted(tmp_path: Path):
    wild = config(tmp_path, learning_rate=1e30, num_epochs=2)
    (error,) = train_within([wild], math.inf).values()
    (note,) = tmp_path.glob("*/diverged.json")
    facts = note.with_name("facts.json").stat().st_mtime_ns
    (again,) = train_within([wild], math.inf).values()
    assert (type(again), str(again)) == (DivergedError, str(error))
    assert note.with_name("facts.json").stat().st_mtime_ns == facts
    note.unlink()
    (anew,) = train_within([wild], math.inf).values()
    assert str(anew) == str(error)
    assert note.with_name("facts.json").stat().st_mtime_ns > facts
    note.write_text("{")
    (told,) = train_within([wild], math.inf).values()
    assert str(told) == f"{note} is damaged: delete that file"
