"""Tests that need a CUDA device: the captured step, the compiler, and epochs that never wait for the device."""

import warnings
from dataclasses import replace

import pytest
import torch

from rethinking import ExperimentConfig, train
from rethinking.data.batches import Batches, StreamedBatches
from rethinking.data.draws import RandomizedSplit
from rethinking.data.preprocessing import Preprocessing
from rethinking.seeding import generator
from rethinking.training.loop import Training, step_of, train_epoch
from rethinking.training.run_dir import RunDir
from rethinking.training.step import CapturedStep, Stack, Step, fastest_step
from tests.engines.test_here import config, trained
from tests.training.test_step import RUNS, batches, networks

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
CUDA = torch.device("cuda")
MODELS = ["mlp_1x512", "mlp_3x512", "small_alexnet", "small_inception", "small_inception_no_bn"]


def split(images: int) -> RandomizedSplit:
    pixels = torch.randint(256, (images, 3, 32, 32), generator=generator(0, "test"), dtype=torch.uint8)
    labels = torch.randint(10, (images,), generator=generator(1, "test"))
    return RandomizedSplit(pixels, labels, labels)


def autocast(precision: str) -> torch.autocast:
    return torch.autocast("cuda", torch.bfloat16, enabled=precision == "bf16")


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize("compile", ["auto", "on"])
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-3), ("bf16", 3e-2)])
def test_a_captured_or_compiled_step_trains_as_the_eager_one(name, optimizer, compile, precision, tolerance):
    if (precision, compile) == ("fp32", "on") and optimizer != "sgd":
        tolerance *= 5  # its first steps divide a small gradient by itself, rounding included
    models, optimizers = networks(name, optimizer, CUDA)
    twins, twin_optimizers = networks(name, optimizer, CUDA)
    data = batches(shared=False, steps=4, device=CUDA)
    step = Step(models, optimizers, autocast(precision))
    fast, seconds = fastest_step(step, compile, data[:1])
    assert fast is not step, "it stayed eager"
    assert isinstance(fast, CapturedStep) is (compile == "auto")
    assert seconds > 0
    eager = Step(twins, twin_optimizers, autocast(precision))
    for rates in ([0.001] * RUNS, [0.0005, 0.001, 0.0]):  # a graph reads the rates anew
        for other in (fast, eager):
            other.begin(rates)
        kept = [fast(batch.images, batch.labels) for batch in data]  # a later step leaves an earlier one's results
        for batch, (losses, logits) in zip(data, kept, strict=True):
            expected, expected_logits = eager(batch.images, batch.labels)
            torch.testing.assert_close(losses, expected, rtol=tolerance, atol=tolerance)
            torch.testing.assert_close(logits.float(), expected_logits.float(), rtol=0.1, atol=10 * tolerance)


def test_a_capture_that_fails_leaves_an_eager_step_that_trains(monkeypatch, caplog):
    models, optimizers = networks("small_inception", device=CUDA)
    twins, twin_optimizers = networks("small_inception", device=CUDA)
    hand_out = Stack.hand_out_gradients

    def waits(self):
        if torch.cuda.is_current_stream_capturing():
            torch.cuda.synchronize()
        hand_out(self)

    monkeypatch.setattr(Stack, "hand_out_gradients", waits)
    data = batches(shared=True, steps=3, device=CUDA)
    step = Step(models, optimizers, autocast("fp32"))
    ready, _ = fastest_step(step, "auto", data[:1])
    assert ready is step
    assert "the training step runs uncompiled" in caplog.text
    eager = Step(twins, twin_optimizers, autocast("fp32"))
    for other in (ready, eager):
        other.begin([0.001] * RUNS)
    for batch in data:
        torch.testing.assert_close(
            ready(batch.images, batch.labels)[0], eager(batch.images, batch.labels)[0], rtol=1e-3, atol=1e-3
        )


@pytest.mark.parametrize("augmented", [False, True])
@pytest.mark.parametrize("own_permutation", [False, True])
def test_batches_read_ahead_are_whole_however_far_the_device_is_behind(augmented, own_permutation):
    """A batch that is copied too early, or whose memory is reused too early, would have wrong images."""
    whole = split(5000)
    if own_permutation:
        draws = generator(2, "test")
        whole = whole.permuted(torch.stack([torch.randperm(784, generator=draws) for _ in range(5000)]).int())
    prepared = Preprocessing(28, random_crop=augmented, flip_rotate=augmented)
    resident = Batches(whole, prepared, CUDA, True)
    streamed = StreamedBatches(replace(whole, on_disk=True), prepared, CUDA, True)
    read = []
    for rows, images, labels in streamed.training_epoch(0, 1, 64):
        torch.cuda._sleep(20_000_000)  # clock ticks that the device is busy for; the host goes on
        read.append((rows, images.clone(), labels))
    for one, other in zip(resident.training_epoch(0, 1, 64), read, strict=True):
        assert torch.equal(one[0], other[0])
        assert torch.equal(one[2], other[2])
        torch.testing.assert_close(one[1], other[1], rtol=0 if augmented else 1e-5, atol=0 if augmented else 1e-5)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("runs", [1, 3])
@pytest.mark.parametrize("options", [{}, {"random_crop": True}, {"augment_flip_rotate": True}])
@pytest.mark.parametrize("compile", ["auto", "off"])
def test_nothing_in_an_epoch_waits_for_the_device(tmp_path, name, runs, options, compile):
    asked = ExperimentConfig(model_name=name, precision="bf16", compile=compile, **options).resolved()
    models, _ = networks(name, device=CUDA)
    prepared = Preprocessing(28, 1e-8, asked.random_crop, asked.augment_flip_rotate)
    data = Batches(split(3000), prepared, CUDA, not name.startswith("mlp"), torch.bfloat16)
    at_work = []
    for seed, model in enumerate(models[:runs]):
        run = Training(replace(asked, seed=seed), model, data, None, RunDir(tmp_path), {}, observe=tuple)
        run.metrics = []
        at_work.append(run)
    step = step_of(at_work)
    assert isinstance(step, CapturedStep) is (compile == "auto")
    train_epoch(step, at_work)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            train_epoch(step, at_work)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    waits = [warning for warning in caught if "synchroniz" in str(warning.message)]
    assert len(waits) <= 4 + 4 * runs, "a few an epoch, not one for each of its 24 batches"


@pytest.mark.parametrize("compile", ["auto", "on", "off"])
def test_a_run_on_cuda_agrees_with_the_cpu(tmp_path, compile):
    runs = [train(config(tmp_path / device, device=device, compile=compile)) for device in ("cpu", "cuda")]
    losses = [[record["train_loss"] for record in run.metrics] for run in runs]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    assert ("compile_seconds" in runs[1].result) is (compile != "off")


@pytest.mark.parametrize("model", ["mlp_1x512", "small_alexnet", "small_inception"])
def test_stacked_runs_of_different_lengths_agree_with_their_solo_twins(tmp_path, model):
    options = {"device": "cuda", "model_name": model, "learning_rate": 0.001}
    configs = [config(tmp_path / "together", seed=seed, num_epochs=2 + seed, **options) for seed in range(3)]
    for asked, together in trained(configs, at_once=None).items():
        alone = train(replace(asked, runs_dir=str(tmp_path / "alone")))
        assert together.result["stacked"] == 3
        assert together.metrics[0]["train_loss"] == pytest.approx(alone.metrics[0]["train_loss"], rel=1e-3)
        assert together.final["test_accuracy"] == pytest.approx(alone.final["test_accuracy"], abs=0.05)


@pytest.mark.parametrize("at_once", [1, 2])
def test_runs_in_a_worker_on_a_card_agree_with_runs_in_this_process(tmp_path, at_once):
    asked = [config(tmp_path / "worker", seed=seed, device="auto", precision="bf16") for seed in range(2)]
    outcomes = trained(asked, devices=["cuda"], at_once=at_once)
    for one in asked:
        here = train(replace(one, runs_dir=str(tmp_path / "here")))
        assert outcomes[one].path.name == here.path.name
        assert outcomes[one].result["provenance"]["hardware"] == here.result["provenance"]["hardware"]
        assert outcomes[one].metrics[0]["train_loss"] == pytest.approx(here.metrics[0]["train_loss"], rel=3e-2)
        assert outcomes[one].final["test_accuracy"] == pytest.approx(here.final["test_accuracy"], abs=0.05)
