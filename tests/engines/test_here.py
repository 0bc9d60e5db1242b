"""Many runs at once on the built-in digits: each leaves the same files as alone."""

import collections
import itertools
import json
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors
import safetensors.torch
import torch

from rethinking import ExperimentConfig, InputError, RunError, RunResult, train, train_many
from rethinking.engines import here as running
from rethinking.training.loggers import Observer
from rethinking.training.memory import at_once_that_fit
from rethinking.training.run_dir import Record, RunDir
from rethinking.training.step import Step
from tests.conftest import few_digits

TIMINGS = ("images_per_second", "seconds")


def config(folder: Path, **options) -> ExperimentConfig:
    return ExperimentConfig(
        **{
            "model_name": "mlp_1x512",
            "dataset": "digits",
            "num_epochs": 3,
            "precision": "fp32",
            "device": "cpu",
            "runs_dir": str(folder),
            "use_tensorboard": False,
            **options,
        }
    )


VARIED = (
    {},
    {"seed": 1, "weight_decay": 0.01},
    {"randomization": "random_labels", "randomization_seed": 3},
    {"randomization": "random_pixels", "num_epochs": 2},
    {"random_crop": True, "lr_schedule": "constant", "learning_rate": 0.02},
    {"optimizer": "adam", "learning_rate": 0.001, "num_epochs": 4},
)


def trained(configs: list[ExperimentConfig], **options) -> dict[ExperimentConfig, RunResult | Exception]:
    return dict(train_many(configs, **options))


def files(result: RunResult) -> tuple[list[Record], dict[str, torch.Tensor]]:
    """Returns the contents of a run folder: the records without times, and every tensor."""
    lines = (result.path / "metrics.jsonl").read_text().splitlines()
    records = [{name: value for name, value in json.loads(line).items() if name not in TIMINGS} for line in lines]
    return records, safetensors.torch.load_file(result.path / "checkpoint.safetensors")


def stored(path: Path) -> tuple[dict[str, str], dict[str, list[int]]]:
    with safetensors.safe_open(path, framework="pt") as file:
        return file.metadata(), {name: file.get_tensor(name).tolist() for name in file.keys()}  # noqa: SIM118


def test_a_stacked_run_leaves_the_same_files_as_alone(tmp_path: Path):
    together = trained([config(tmp_path / "together", **options) for options in VARIED], at_once=6, stacked=True)
    assert [outcome.config.num_epochs for outcome in together.values()] == [2, 3, 3, 3, 3, 4], "as soon as it is over"
    for options in VARIED:
        alone = train(config(tmp_path / "alone", **options))
        beside = together[config(tmp_path / "together", **options)]
        assert beside.path.name == alone.path.name
        assert {file.name for file in beside.path.iterdir()} == {file.name for file in alone.path.iterdir()}
        drawn = [stored(result.path / "randomization.safetensors") for result in (alone, beside)]
        assert drawn[0] == drawn[1]
        (records, tensors), (twins, twin_tensors) = files(beside), files(alone)
        assert [list(record) for record in records] == [list(record) for record in twins]
        assert records[0]["train_loss"] == pytest.approx(twins[0]["train_loss"], rel=1e-5)
        assert records[-1]["test_accuracy"] == pytest.approx(twins[-1]["test_accuracy"], abs=0.02)
        for name, tensor in tensors.items():
            torch.testing.assert_close(tensor, twin_tensors[name], rtol=0.05, atol=0.002, msg=name)


APART = (  # each differs in what it sees from every other
    {},
    {"min_std": 0.6},
    {"random_crop": True},
    {"augment_flip_rotate": True},
    {"random_crop": True, "augment_flip_rotate": True},
    {"pixel_noise": 60.0},
    {"pixel_noise": 90.0},
    {"pixel_noise": 60.0, "randomization_seed": 1},
    {"replaced_example": 2},
    {"replaced_example": 3},
    {"randomization": "shuffled_pixels"},
    {"randomization": "random_pixels"},
    {"randomization": "gaussian_pixels"},
    {"randomization": "gaussian_pixels", "randomization_seed": 1},
)


def test_runs_stacked_beside_each_other_see_their_own_images(tmp_path: Path):
    """Each run of a group has the training and test losses of its twin alone, and of no other run."""
    options = {"train_subset": 24, "batch_size": 24, "num_epochs": 1, "learning_rate": 0.001}
    configs = [config(tmp_path / "together", **options, **own) for own in APART]
    together = trained(configs, at_once=len(configs), stacked=True)
    losses = []
    for asked in configs:
        assert together[asked].result["stacked"] == len(configs)
        alone = train(replace(asked, runs_dir=str(tmp_path / "alone"))).final
        losses.append((alone["train_loss"], alone["test_loss"]))
        beside = together[asked].final
        assert (beside["train_loss"], beside["test_loss"]) == pytest.approx(losses[-1], rel=1e-4), asked
    in_training = sorted(loss for loss, _ in losses)
    assert min(b - a for a, b in itertools.pairwise(in_training)) > 5e-4 * in_training[0], "too much alike"


@pytest.mark.parametrize("model", ["mlp_3x512", "small_alexnet", "small_inception"])
def test_whole_runs_of_other_networks_stack_too(tmp_path: Path, model):
    options = {"model_name": model, "dataset": few_digits(32), "num_epochs": 1, "learning_rate": 0.001}
    configs = [config(tmp_path / "together", seed=seed, **options) for seed in (0, 1)]
    for asked, outcome in trained(configs, at_once=2, stacked=True).items():
        alone = train(replace(asked, runs_dir=str(tmp_path / "alone")))
        assert outcome.final["train_loss"] == pytest.approx(alone.final["train_loss"], rel=1e-4)
        assert outcome.final["test_loss"] == pytest.approx(alone.final["test_loss"], rel=1e-2)


def test_batch_normalization_continues_after_a_run_of_the_group_has_ended(tmp_path: Path):
    """The remaining networks are stacked again after their evaluation."""
    options = {"model_name": "small_inception", "dataset": few_digits(16), "learning_rate": 0.001, "batch_size": 8}
    configs = [config(tmp_path / "together", seed=seed, num_epochs=1 + seed, **options) for seed in range(3)]
    for asked, outcome in trained(configs, at_once=3, stacked=True).items():
        assert outcome.result["stacked"] == 3
        _, tensors = files(outcome)
        assert tensors["model.0.1.num_batches_tracked"] == 2 * asked.num_epochs
        _, twin = files(train(replace(asked, runs_dir=str(tmp_path / "alone"))))
        torch.testing.assert_close(
            tensors["model.0.1.running_mean"], twin["model.0.1.running_mean"], rtol=1e-3, atol=1e-3
        )


def test_an_interrupted_group_continues_alone_and_together(tmp_path: Path):
    configs = [config(tmp_path, seed=seed, num_epochs=4) for seed in range(3)]
    with pytest.raises(KeyboardInterrupt):
        trained(configs, at_once=3, stacked=True, observe=lambda: [InterruptAfter(2)])
    saved = [len(path.read_text().splitlines()) for path in tmp_path.glob("*/metrics.jsonl")]
    assert sorted(saved) == [1, 1, 2], "interrupted when the first of them had finished its second epoch"
    first = train(configs[0])
    assert [record["epoch"] for record in first.metrics] == [1, 2, 3, 4]
    seen: list[int] = []
    rest = trained(configs, at_once=3, stacked=True, observe=lambda: [Watch(seen.append)])
    assert [result.final["epoch"] for result in rest.values()] == [4, 4, 4]
    assert sorted(seen) == [2, 2, 3, 3, 4, 4], "epochs that were finished before are not trained again"


def test_runs_resumed_at_different_epochs_continue_with_their_own_order_rate_and_augmentation(tmp_path: Path):
    """One run has finished two epochs before. Each run has the losses of its twin alone to the end."""
    options = {"random_crop": True, "num_epochs": 4, "lr_decay": 0.5, "train_subset": 200, "batch_size": 64}
    configs = [config(tmp_path / "together", seed=seed, **options) for seed in (0, 1)]
    with pytest.raises(KeyboardInterrupt):
        train(configs[1], observers=[InterruptAfter(2)])
    for asked, outcome in trained(configs, at_once=2, stacked=True).items():
        alone = train(replace(asked, runs_dir=str(tmp_path / "alone")))
        for name in ("train_loss", "test_loss", "learning_rate"):
            beside = [record[name] for record in outcome.metrics]
            assert beside == pytest.approx([record[name] for record in alone.metrics], rel=1e-3), name


@pytest.mark.parametrize("stacked", [True, False])
def test_a_run_that_diverges_ends_alone(tmp_path: Path, stacked):
    configs = [config(tmp_path, learning_rate=rate) for rate in (0.01, 1e30, 0.02)]
    outcomes = trained(configs, at_once=3, stacked=stacked)
    assert isinstance(outcomes[configs[1]], RunError)
    assert "the loss is not finite" in str(outcomes[configs[1]])
    for fine in (configs[0], configs[2]):
        assert outcomes[fine].final["epoch"] == 3
        assert outcomes[fine].final["train_accuracy"] > 0.9


@pytest.mark.parametrize("stacked", [True, False])
def test_a_damaged_folder_ends_its_run_alone(tmp_path: Path, stacked):
    configs = [config(tmp_path, seed=seed) for seed in range(2)]
    for result in trained(configs, at_once=2, stacked=stacked).values():
        (result.path / "result.json").unlink()
    damaged = next(tmp_path.glob("*seed1*"))
    (damaged / "checkpoint.safetensors").write_bytes(b"nothing")
    outcomes = trained(configs, at_once=2, stacked=stacked)
    assert outcomes[configs[0]].final["epoch"] == 3
    assert "checkpoint.safetensors is damaged" in str(outcomes[configs[1]])


def test_only_runs_that_fit_together_are_stacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    sizes = []
    fit = running.fit
    monkeypatch.setattr(running, "fit", lambda runs: (sizes.append(len(runs)), fit(runs))[1])
    signs = {"randomization": "random_signs"}  # two outputs, not ten
    configs = [
        config(tmp_path, num_epochs=1, **options)
        for options in ({}, {"model_name": "mlp_3x512"}, {"seed": 1}, {"batch_size": 64}, {"seed": 2}, signs)
    ]
    assert len(trained(configs, at_once=2, stacked=True)) == 6
    assert sizes == [2, 1, 1, 1, 1]
    sizes.clear()
    assert len(trained([*configs, *configs], at_once=2, stacked=True)) == 6, "found again"
    assert sum(sizes) == 0


def test_a_configuration_that_is_given_twice_is_trained_once(tmp_path: Path):
    twice = [config(tmp_path), config(tmp_path, learning_rate=0.01)]  # the default written out
    for stacked in (True, False):
        folder = tmp_path / str(stacked)
        outcomes = trained([replace(one, runs_dir=str(folder)) for one in twice], at_once=2, stacked=stacked)
        assert [outcome.final["epoch"] for outcome in outcomes.values()] == [3, 3]
        assert len(list(folder.iterdir())) == 1


def test_a_group_too_large_for_the_memory_is_halved_and_loses_nothing(tmp_path: Path, monkeypatch, caplog):
    step, calls = Step.__call__, []

    def too_large_for_three(self, images, labels):
        calls.append(len(self))
        if len(self) > 2 and len(calls) > 15:  # in the second epoch of 12 steps
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
        return step(self, images, labels)

    monkeypatch.setattr(Step, "__call__", too_large_for_three)
    seen: list[int] = []
    configs = [config(tmp_path, seed=seed) for seed in range(5)]
    outcomes = trained(configs, at_once=5, stacked=True, observe=lambda: [Watch(seen.append)])
    assert [outcomes[asked].final["epoch"] for asked in configs] == [3] * 5
    assert sorted(seen) == [1] * 5 + [2] * 5 + [3] * 5, "no epoch is trained twice to its end"
    assert set(calls) == {5, 2, 1}
    assert "5 runs at once are too many for the memory: going on with 2" in caplog.text


@pytest.mark.usefixtures("two_threads")
def test_runs_side_by_side_that_exceed_the_memory_continue_fewer_at_once(tmp_path: Path, monkeypatch, caplog):
    step, calls = Step.__call__, collections.Counter()

    def too_large_beside_another(self, images, labels):
        calls[self] += 1
        if torch.get_num_threads() == 1 and calls[self] > 15:  # its share beside another; in the second epoch
            raise MemoryError
        return step(self, images, labels)

    monkeypatch.setattr(Step, "__call__", too_large_beside_another)
    seen: list[int] = []
    configs = [config(tmp_path, seed=seed) for seed in range(3)]
    outcomes = trained(configs, at_once=2, observe=lambda: [Watch(seen.append)])
    assert [outcomes[asked].final["epoch"] for asked in configs] == [3] * 3
    assert sorted(seen) == [1] * 3 + [2] * 3 + [3] * 3, "no epoch is trained twice to its end"
    assert "2 runs at once are too many for the memory: going on with 1" in caplog.text


@pytest.mark.usefixtures("two_threads")
def test_a_run_alone_has_all_threads(tmp_path: Path):
    outcome = trained([config(tmp_path)], at_once=2)[config(tmp_path)]
    assert outcome.result["provenance"]["cpu_threads"] == 2


@pytest.mark.parametrize("stacked", [True, False])
@pytest.mark.parametrize("at_once", [0, -1])
def test_fewer_than_one_at_once_is_refused(tmp_path: Path, at_once: int, stacked: bool):
    with pytest.raises(InputError, match="at_once must be a whole number from 1 on"):
        trained([config(tmp_path)], at_once=at_once, stacked=stacked)


def test_a_run_whose_folder_cannot_be_written_is_not_trained(tmp_path: Path, monkeypatch):
    save_facts, seen = RunDir.save_facts, []

    def full(self, facts):
        if "seed1" in self.path.name:
            raise RunError("the disk is full")
        save_facts(self, facts)

    monkeypatch.setattr(RunDir, "save_facts", full)
    configs = [config(tmp_path, seed=seed, num_epochs=1) for seed in range(2)]
    outcomes = trained(configs, at_once=2, stacked=True, observe=lambda: [Watch(seen.append)])
    assert str(outcomes[configs[1]]) == "the disk is full"
    assert outcomes[configs[0]].final["epoch"] == 1
    assert seen == [1]


def test_one_run_too_large_for_the_memory_is_an_error_that_says_what_to_do(tmp_path: Path, monkeypatch):
    def too_large(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")

    monkeypatch.setattr(Step, "__call__", too_large)
    with pytest.raises(RunError, match="not enough memory for this; lower --batch_size"):
        train(config(tmp_path))


def test_a_programming_error_is_not_hidden(tmp_path: Path, monkeypatch):
    def wrong(*_):
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(Step, "__call__", wrong)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        train(config(tmp_path))
    outcomes = trained([config(tmp_path, seed=seed) for seed in range(2)], at_once=2, stacked=True)
    assert [str(outcome) for outcome in outcomes.values()] == ["shapes do not match"] * 2


@pytest.fixture
def two_threads():
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("two_threads")
def test_runs_side_by_side_equal_runs_with_one_thread_bit_for_bit(tmp_path: Path):
    asked = [config(tmp_path / "beside", model_name="mlp_3x512", **options) for options in VARIED]
    together = trained(asked, at_once=2)
    assert torch.get_num_threads() == 2, "as before"
    torch.set_num_threads(1)
    for one in asked:
        alone, beside = train(replace(one, runs_dir=str(tmp_path / "alone"))), together[one]
        assert beside.result["provenance"]["cpu_threads"] == 1
        (records, tensors), (twins, twin_tensors) = files(beside), files(alone)
        assert records == twins
        assert all(torch.equal(tensor, twin_tensors[name]) for name, tensor in tensors.items())


@pytest.mark.usefixtures("two_threads")
def test_at_once_limits_the_runs_side_by_side_and_auto_means_one_a_thread(tmp_path: Path):
    for at_once, folder in ((3, "three"), (None, "auto")):
        at_work = AtWork()
        trained([config(tmp_path / folder, seed=seed) for seed in range(5)], at_once=at_once, observe=lambda: [at_work])  # noqa: B023
        assert at_work.most == (at_once or 2)


@pytest.mark.usefixtures("two_threads")
def test_auto_trains_convolutional_networks_on_a_cpu_last_and_alone(tmp_path: Path):
    at_work, seen = AtWork(), []
    models = ("small_alexnet", "mlp_1x512", "small_alexnet", "mlp_1x512")
    configs = [
        config(tmp_path, model_name=model, seed=seed, num_epochs=1, train_subset=64)
        for seed, model in enumerate(models)
    ]
    for asked, outcome in train_many(configs, at_once=None, observe=lambda: [at_work]):
        assert isinstance(outcome, RunResult)
        seen.append((asked.model_name, at_work.most))
        at_work.most = 0
        assert torch.get_num_threads() == 2
    assert [name for name, _ in seen] == ["mlp_1x512", "mlp_1x512", "small_alexnet", "small_alexnet"]
    assert [most for _, most in seen[2:]] == [1, 1]


def test_runs_side_by_side_stop_when_their_caller_stops(tmp_path: Path):
    outcomes = train_many([config(tmp_path, seed=0, num_epochs=1), *forever(tmp_path)], at_once=3)
    next(outcomes)
    outcomes.close()
    assert not [thread for thread in threading.enumerate() if "ThreadPool" in thread.name]
    assert len(list(tmp_path.glob("*/result.json"))) == 1


def forever(folder: Path) -> list[ExperimentConfig]:
    return [config(folder, seed=seed, num_epochs=100_000) for seed in (1, 2)]


def test_the_memory_decides_how_many_runs_fit(tmp_path: Path, monkeypatch):
    mlp, inception = (
        running.PlannedRun.of(config(tmp_path, model_name=name)).config for name in ("mlp_1x512", "small_inception")
    )
    monkeypatch.setattr("rethinking.training.memory.free_memory", lambda _: 1e12)
    assert at_once_that_fit(mlp) == torch.get_num_threads()
    assert at_once_that_fit(inception) == 1, "slower side by side on a CPU"
    monkeypatch.setattr("rethinking.training.memory.free_memory", lambda _: 0.0)
    assert at_once_that_fit(mlp) == 1
    alexnet = running.PlannedRun.of(config(tmp_path, model_name="small_alexnet")).config
    on_cuda = replace(alexnet, device="cuda")
    monkeypatch.setattr("rethinking.training.memory.free_memory", lambda _: 80e9)
    many = at_once_that_fit(on_cuda)
    assert 20 < many < 300
    assert at_once_that_fit(replace(inception, device="cuda")) == 1, "slower stacked"
    monkeypatch.setattr("rethinking.training.memory.free_memory", lambda _: 40e9)
    assert at_once_that_fit(on_cuda) == pytest.approx(many / 2, abs=1)


class Watch(Observer):
    """Records the finished epochs."""

    def __init__(self, finished: Callable[[int], None]) -> None:
        self._finished = finished

    def epoch(self, record: Record) -> None:
        self._finished(record["epoch"])


class InterruptAfter(Observer):
    """Presses Ctrl-C after an epoch."""

    def __init__(self, epoch: int) -> None:
        self._epoch = epoch

    def epoch(self, record: Record) -> None:
        if record["epoch"] == self._epoch:
            raise KeyboardInterrupt


class AtWork(Observer):
    """Counts the largest number of runs at work at the same time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._now = self.most = 0

    def started(self, path: Path, config: ExperimentConfig, metrics: list[Record], images: int) -> None:
        with self._lock:
            self._now += 1
            self.most = max(self.most, self._now)

    def ended(self, result: RunResult | None) -> None:
        with self._lock:
            self._now -= 1


def test_a_run_out_of_time_ends_unfinished_but_measured_and_can_be_resumed(tmp_path: Path):
    """Its first epoch uses up its time on any machine. The resumed run reaches the same weights."""
    asked = config(tmp_path / "limited", randomization="random_labels")
    ((_, ended),) = train_many([asked], seconds=1e-9)
    assert isinstance(ended, RunResult)
    assert (ended.finished, len(ended.metrics)) == (False, 1)
    assert ended.final["exact_train_accuracy"] is not None
    assert ended.final["test_accuracy"] is not None
    ((_, again),) = train_many([asked], seconds=1e-9)
    assert isinstance(again, RunResult)
    assert again.metrics == ended.metrics, "nothing more is trained"
    ((_, finished),) = train_many([asked])
    straight = train(replace(asked, runs_dir=str(tmp_path / "straight")))
    assert isinstance(finished, RunResult)
    assert finished.finished
    for name, tensor in files(straight)[1].items():
        assert torch.equal(tensor, files(finished)[1][name])


def test_runs_side_by_side_and_stacked_end_out_of_time_too(tmp_path: Path):
    configs = [config(tmp_path, seed=seed, num_epochs=50) for seed in range(3)]
    for stacked in (False, True):
        ended = trained([replace(one, runs_dir=str(tmp_path / str(stacked))) for one in configs],
                        at_once=3, stacked=stacked, seconds=1e-9)  # fmt: skip
        assert [(run.finished, len(run.metrics)) for run in ended.values() if isinstance(run, RunResult)] == 3 * [
            (False, 1)
        ]
