"""What only a CUDA device shows: the captured step, the compiler, and that an epoch never waits for the device."""

import warnings

import pytest
import torch

from rethinking import ExperimentConfig, train
from rethinking.data.batches import Batches
from rethinking.data.preprocessing import Preprocessing
from rethinking.data.randomization import RandomizedSplit
from rethinking.seeding import generator
from rethinking.training.loop import Training, batches_of, train_epoch
from rethinking.training.run_dir import RunDir
from rethinking.training.step import CapturedStep, Step, fastest_step
from tests.training.test_many import config, trained
from tests.training.test_step import RUNS, batches, networks

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
CUDA = torch.device("cuda")
MODELS = ["mlp_1x512", "mlp_3x512", "small_alexnet", "small_inception", "small_inception_no_bn"]


def split(images: int) -> RandomizedSplit:
    pixels = torch.randint(256, (images, 3, 32, 32), generator=generator(0, "test"), dtype=torch.uint8)
    labels = torch.randint(10, (images,), generator=generator(1, "test"))
    return RandomizedSplit(pixels, labels, labels)


def fp32() -> torch.autocast:
    return torch.autocast("cuda", enabled=False)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("compile", ["auto", "on"])
def test_a_captured_or_compiled_step_trains_as_the_eager_one(name, optimizer, compile):
    models, optimizers = networks(name, optimizer, CUDA)
    twins, twin_optimizers = networks(name, optimizer, CUDA)
    data = batches(shared=False, steps=4, device=CUDA)
    fast, seconds = fastest_step(Step(models, optimizers, fp32()), compile, data)
    assert isinstance(fast, CapturedStep) is (compile == "auto")
    assert seconds > 0
    eager = Step(twins, twin_optimizers, fp32())
    for rates in ([0.001] * RUNS, [0.0005, 0.001, 0.0]):  # a graph reads the rates anew
        for step in (fast, eager):
            step.begin(rates)
        for batch in data:
            losses, logits = fast(batch.images, batch.labels)
            expected, expected_logits = eager(batch.images, batch.labels)
            torch.testing.assert_close(losses, expected, rtol=1e-3, atol=1e-3)
            torch.testing.assert_close(logits, expected_logits, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("options", [{}, {"random_crop": True}, {"augment_flip_rotate": True}])
@pytest.mark.parametrize("compile", ["auto", "off"])
def test_nothing_in_an_epoch_waits_for_the_device(tmp_path, name, options, compile):
    asked = ExperimentConfig(model_name=name, precision="bf16", **options).resolved()
    (model, *_), _ = networks(name, device=CUDA)
    prepared = Preprocessing(28, 1e-8, asked.random_crop, asked.augment_flip_rotate)
    data = Batches(split(3000), prepared, CUDA, not name.startswith("mlp"), torch.bfloat16)
    run = Training(asked, model, data, None, RunDir(tmp_path), {}, observe=tuple)
    run.metrics = []
    step, _ = fastest_step(Step([model], [run.optimizer], run.autocast), compile, batches_of([run]))
    train_epoch(step, [run])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            train_epoch(step, [run])
        finally:
            torch.cuda.set_sync_debug_mode("default")
    waits = [warning for warning in caught if "synchroniz" in str(warning.message)]
    assert len(waits) <= 8, "a few an epoch, not one for each of its 24 batches"


def test_a_run_on_cuda_agrees_with_the_cpu(tmp_path):
    runs = [train(config(tmp_path, device=device, num_epochs=2)) for device in ("cpu", "cuda")]
    losses = [[record["train_loss"] for record in run.metrics] for run in runs]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    assert "compile_seconds" in runs[1].result


def test_stacked_runs_on_cuda_agree_with_their_solo_twins(tmp_path):
    configs = [config(tmp_path / "together", device="cuda", seed=seed) for seed in range(3)]
    for asked, together in trained(configs, at_once=None).items():
        alone = train(config(tmp_path / "alone", device="cuda", seed=asked.seed))
        assert together.metrics[0]["train_loss"] == pytest.approx(alone.metrics[0]["train_loss"], rel=1e-4)
