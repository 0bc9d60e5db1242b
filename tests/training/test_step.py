"""A step of several stacked runs equals the step of each run alone."""

import pytest
import torch
from torch import Tensor, nn

from rethinking.config import ExperimentConfig
from rethinking.data.batches import Batch
from rethinking.errors import too_little_memory
from rethinking.models import build_model, catalogue, initialize, to_device
from rethinking.seeding import generator
from rethinking.training.optimizers import Optimizer
from rethinking.training.step import Stack, Step, fastest_step, stack

CPU = torch.device("cpu")
RUNS = 3


def autocast(precision: str = "fp32") -> torch.autocast:
    return torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16")


def networks(name: str, optimizer: str = "sgd", device: torch.device = CPU) -> tuple[list[nn.Module], list[Optimizer]]:
    """Builds networks with different weights and weight decay."""
    models, optimizers = [], []
    for seed in range(RUNS):
        config = ExperimentConfig(model_name=name, weight_decay=0.01 * seed, optimizer=optimizer).resolved()
        model = build_model(name)
        initialize(model, str(config.init), generator(seed, "init"))
        models.append(to_device(model, device))
        optimizers.append(Optimizer(model, config))
    return models, optimizers


def batches(shared: bool, steps: int = 3, device: torch.device = CPU) -> list[Batch]:
    draws = generator(0, "batches")
    made = []
    for _ in range(steps):
        images = torch.randn(1 if shared else RUNS, 8, 3, 28, 28, generator=draws)
        labels = torch.randint(10, (RUNS, 8), generator=draws)
        made.append(Batch(torch.arange(8).expand(RUNS, -1), images.to(device), labels.to(device)))
    return made


def state_of(models: list[nn.Module], optimizers: list[Optimizer]) -> list[Tensor]:
    """Returns weights, buffers and the states of the optimizers."""
    of_models = [tensor for model in models for tensor in model.state_dict().values()]
    return of_models + [tensor for optimizer in optimizers for tensor in optimizer.state.values()]


def alone(models: list[nn.Module], optimizers: list[Optimizer], precision: str) -> list[Step]:
    return [
        Step([model], [optimizer], autocast(precision)) for model, optimizer in zip(models, optimizers, strict=True)
    ]


def own(batch: Batch, run: int) -> tuple[Tensor, Tensor]:
    return batch.images[0 if len(batch.images) == 1 else run][None], batch.labels[run : run + 1]


@pytest.mark.parametrize("name", catalogue.PAPER)
@pytest.mark.parametrize("shared", [True, False], ids=["the same images", "each its own"])
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 2e-5), ("bf16", 5e-3)])
def test_stacked_networks_train_as_each_would_alone(name, shared, precision, tolerance):
    models, optimizers = networks(name)
    twins, twin_optimizers = networks(name)
    together, each = Step(models, optimizers, autocast(precision)), alone(twins, twin_optimizers, precision)
    rates = [0.001, 0.002, 0.0]
    together.begin(rates)
    for batch in batches(shared):
        losses, logits = together(batch.images, batch.labels)
        assert losses.shape == (RUNS,)
        assert logits.shape == (RUNS, 8, 10)
        for run, step in enumerate(each):
            step.begin(rates[run : run + 1])
            loss, own_logits = step(*own(batch, run))
            torch.testing.assert_close(losses[run], loss[0], rtol=tolerance, atol=tolerance)
            torch.testing.assert_close(
                logits[run].float(), own_logits[0].float(), rtol=10 * tolerance, atol=10 * tolerance
            )
    for model, twin in zip(models, twins, strict=True):
        for (name, ours), theirs in zip(model.state_dict().items(), twin.state_dict().values(), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance, msg=name)


def test_statistics_of_batch_normalization_are_each_runs_own():
    models, optimizers = networks("small_inception")
    step = Step(models, optimizers, autocast())
    step.begin([0.0] * RUNS)
    batch = batches(shared=False, steps=1)[0]
    batch.images[1] += 3.0
    step(batch.images, batch.labels)
    means = [model.state_dict()["0.1.running_mean"] for model in models]
    assert not torch.allclose(means[0], means[1], atol=1e-2)
    assert all(model.state_dict()["0.1.num_batches_tracked"] == 1 for model in models)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_one_network_s_divergence_leaves_the_others_alone(optimizer):
    models, optimizers = networks("mlp_1x512", optimizer)
    step = Step(models, optimizers, autocast())
    step.begin([0.001, 1e30, 0.001])
    for batch in batches(shared=True, steps=4):
        losses, _ = step(batch.images, batch.labels)
    assert losses.isfinite().tolist() == [True, False, True]


def test_stacking_keeps_values_and_memory_format():
    tensors = [torch.randn(4, 3, 5, 5).to(memory_format=torch.channels_last) for _ in range(2)]
    before = [tensor.clone() for tensor in tensors]
    whole = stack(tensors)
    for tensor, value in zip(tensors, before, strict=True):
        assert torch.equal(tensor, value)
        assert tensor.is_contiguous(memory_format=torch.channels_last)
    whole[1] += 1
    assert torch.equal(tensors[1], before[1] + 1)
    assert torch.equal(tensors[0], before[0])


@pytest.mark.parametrize("compile", ["auto", "off"])
def test_without_cuda_the_step_stays_eager_unless_asked(compile):
    models, optimizers = networks("mlp_1x512")
    step = Step(models, optimizers, autocast())
    assert fastest_step(step, compile, batches(shared=True)) == (step, 0.0)


def test_a_step_that_fails_halfway_leaves_nothing_behind(monkeypatch, caplog):
    """It fails between the backward pass and the update, when stacked tensors hold the gradients."""
    models, optimizers = networks("small_inception")
    twins, twin_optimizers = networks("small_inception")
    step, twin = Step(models, optimizers, autocast()), Step(twins, twin_optimizers, autocast())

    def fails(_):
        raise RuntimeError("an operation that cannot be captured")

    monkeypatch.setattr(torch, "compile", lambda forward, **_: forward)
    with monkeypatch.context() as patched:
        patched.setattr(Stack, "hand_out_gradients", fails)
        ready, _ = fastest_step(step, "on", batches(shared=True, steps=1))
    assert ready is step
    assert "RuntimeError: an operation that cannot be captured" in caplog.text
    for other in (step, twin):
        other.begin([0.01] * RUNS)
    for batch in batches(shared=True):
        assert torch.equal(step(batch.images, batch.labels)[0], twin(batch.images, batch.labels)[0])


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_preparing_a_step_does_not_change_a_resumed_run(monkeypatch, optimizer):
    """Weights, and the optimizer's moments and step count, stay unchanged."""
    monkeypatch.setattr(torch, "compile", lambda forward, **_: forward)
    models, optimizers = networks("mlp_1x512", optimizer)
    step = Step(models, optimizers, autocast())
    step.begin([0.001] * RUNS)
    first, second = batches(shared=True, steps=2)
    step(first.images, first.labels)
    before = [tensor.clone() for tensor in state_of(models, optimizers)]
    assert any(tensor.any() for each in optimizers for tensor in each.state.values()), "moments of a step"
    ready, _ = fastest_step(step, "on", [second])
    assert ready is not step
    after = state_of(models, optimizers)
    assert all(torch.equal(tensor, value) for tensor, value in zip(after, before, strict=True))


def test_out_of_memory_while_preparing_a_step_is_an_error(monkeypatch):
    models, optimizers = networks("mlp_1x512")
    step = Step(models, optimizers, autocast())

    def too_large(*_):
        try:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        finally:
            raise RuntimeError("the capture was invalidated")

    monkeypatch.setattr(torch, "compile", lambda *_, **__: too_large)
    with pytest.raises(RuntimeError) as raised:
        fastest_step(step, "on", batches(shared=True, steps=1))
    assert too_little_memory(raised.value) is not None


def test_a_step_that_cannot_be_compiled_continues_eager_from_the_same_weights(monkeypatch, caplog):
    def fails_after_training(forward, **_):
        def compiled(images, labels):
            forward(images, labels)
            raise RuntimeError("no compiler\nhere")

        return compiled

    monkeypatch.setattr(torch, "compile", fails_after_training)
    models, optimizers = networks("small_inception")
    step = Step(models, optimizers, autocast())
    before = [{name: tensor.clone() for name, tensor in model.state_dict().items()} for model in models]
    ready, seconds = fastest_step(step, "on", batches(shared=True, steps=1))
    assert ready is step
    assert seconds > 0
    assert "RuntimeError: no compiler here" in caplog.text
    for model, state in zip(models, before, strict=True):
        assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
        assert all(parameter.grad is None for parameter in model.parameters())
