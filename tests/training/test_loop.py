import copy
import itertools
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from rethinking.config import ExperimentConfig
from rethinking.data.batches import Batches
from rethinking.data.draws import RandomizedSplit
from rethinking.data.preprocessing import Preprocessing
from rethinking.errors import RunError
from rethinking.models import build_model, initialize
from rethinking.seeding import generator
from rethinking.training.evaluation import evaluate, fits, label_metrics
from rethinking.training.loop import (
    Online,
    Training,
    evaluation_is_due,
    exact_accuracy_is_due,
    learning_rate,
    train_epoch,
)
from rethinking.training.optimizers import Optimizer
from rethinking.training.run_dir import RunDir, epochs_to_fit
from rethinking.training.step import Step

CPU = torch.device("cpu")
FP32 = torch.autocast("cpu", enabled=False)


def batches(images: int = 300) -> Batches:
    pixels = torch.randint(256, (images, 3, 28, 28), generator=generator(0, "test"), dtype=torch.uint8)
    labels = torch.randint(10, (images,), generator=generator(1, "test"))
    return Batches(RandomizedSplit(pixels, labels, labels), Preprocessing(28), CPU, channels_last=False)


def initialized(name: str) -> torch.nn.Module:
    model = build_model(name)
    initialize(model, "he", generator(0, "init"))
    return model


def at_work(model: torch.nn.Module, config: ExperimentConfig, data: Batches, epoch: int = 1) -> Training:
    run = Training(config, model, data, None, RunDir(Path()), {}, observe=tuple)
    run.metrics = [{}] * (epoch - 1)
    return run


def one_epoch(run: Training) -> Online:
    (online,) = train_epoch(Step([run.model], [run.optimizer], run.autocast), [run])
    return online


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, {1: 0.1, 2: 0.095, 11: 0.1 * 0.95**10}),
        ({"lr_decay": 0.999}, {1: 0.1, 101: 0.1 * 0.999**100}),
        ({"lr_schedule": "step"}, {1: 0.1, 60: 0.1, 61: 0.01, 80: 0.01, 81: 0.001, 100: 0.001}),
        ({"lr_schedule": "cosine"}, {1: 0.1, 51: 0.05, 100: 0.1 * (1 + math.cos(0.99 * math.pi)) / 2}),
        ({"lr_schedule": "constant"}, {1: 0.1, 100: 0.1}),
        ({"learning_rate": 0.02}, {1: 0.02, 2: 0.019}),
        ({"warmup_epochs": 3, "lr_schedule": "constant"}, {1: 0.025, 2: 0.05, 3: 0.075, 4: 0.1, 50: 0.1}),
        ({"warmup_epochs": 1}, {1: 0.05, 2: 0.095, 3: 0.1 * 0.95**2}),
    ],
)
def test_learning_rates_follow_their_schedule(options, expected):
    config = ExperimentConfig(**options).resolved()
    assert {epoch: learning_rate(config, epoch) for epoch in expected} == pytest.approx(expected)


@pytest.mark.parametrize(
    ("name", "optimizer", "weight_decay"),
    [
        *itertools.product(["mlp_1x512", "small_alexnet"], ["sgd", "adam", "adamw"], [0.0, 0.01]),
        ("small_inception", "sgd", 0.01),  # 2 seconds
    ],
)
def test_two_epochs_equal_the_obvious_loop_with_the_frameworks_optimizer(name, optimizer, weight_decay):
    config = ExperimentConfig(
        model_name=name, optimizer=optimizer, weight_decay=weight_decay, learning_rate=0.003, batch_size=16
    ).resolved()
    data = batches(40)
    ours, theirs = initialized(name), initialized(name)
    run = at_work(ours, config, data)
    parameters = [parameter for parameter in theirs.parameters() if parameter.requires_grad]
    kind = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[optimizer]
    extra = {"momentum": 0.9} if optimizer == "sgd" else {}
    their_optimizer = kind(parameters, lr=0.003, weight_decay=weight_decay, fused=True, **extra)

    theirs.train()
    for epoch in (1, 2):
        loss, predictions, _ = one_epoch(run)
        run.metrics.append({})
        for group in their_optimizer.param_groups:
            group["lr"] = 0.003 * 0.95 ** (epoch - 1)
        losses, correct = 0.0, 0
        for _, images, labels in data.training_epoch(config.seed, epoch, 16):
            logits = theirs(images)
            batch_loss = F.cross_entropy(logits, labels)
            their_optimizer.zero_grad()
            batch_loss.backward()
            their_optimizer.step()
            losses += batch_loss.item() * len(labels)
            correct += (logits.argmax(1) == labels).sum().item()
        assert loss == pytest.approx(losses / 40, rel=1e-5)
        assert (predictions == data.labels).sum().item() == pytest.approx(correct, abs=1)
    for mine, other in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_weight_decay_can_act_on_the_hidden_linear_weights_alone(optimizer):
    options = {"optimizer": optimizer, "weight_decay": 0.5, "weight_decay_on": "hidden_linear"}
    config = ExperimentConfig(model_name="small_alexnet", **options).resolved()
    ours, theirs = initialized("small_alexnet"), initialized("small_alexnet")
    hidden = {name: p for name, p in theirs.named_parameters() if p.dim() == 2 and p.shape[0] != 10}
    assert sorted(p.shape[0] for p in hidden.values()) == [192, 384]
    rest = [p for name, p in theirs.named_parameters() if name not in hidden]
    groups = [{"params": list(hidden.values()), "weight_decay": 0.5}, {"params": rest, "weight_decay": 0.0}]
    kind = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[optimizer]
    their_optimizer = kind(groups, lr=0.01, **({"momentum": 0.9} if optimizer == "sgd" else {}))
    our_optimizer = Optimizer(ours, config)
    images, labels = torch.randn(16, 3, 28, 28, generator=generator(0, "images")), torch.arange(16) % 10
    for _ in range(3):
        F.cross_entropy(ours(images), labels).backward()
        our_optimizer.step(0.01)
        their_optimizer.zero_grad()
        F.cross_entropy(theirs(images), labels).backward()
        their_optimizer.step()
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-5)


def test_evaluation_equals_one_pass_over_everything_and_leaves_the_model_alone():
    model, data = initialized("small_inception"), batches(37)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    result = evaluate(model, data, FP32)
    (images, labels) = next(data.in_order(37))
    with torch.no_grad():
        logits = model.eval()(images)
    assert result.loss == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-5)
    assert result.accuracy == pytest.approx((logits.argmax(1) == labels).double().mean().item())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_evaluation_counts_the_last_partial_batch(monkeypatch):
    from rethinking.training import evaluation

    model, data = initialized("mlp_1x512"), batches(37)
    whole = evaluate(model, data, FP32)
    monkeypatch.setattr(evaluation, "BATCH_SIZE", 10)
    parts = evaluate(model, data, FP32)
    assert (parts.loss, parts.accuracy) == pytest.approx((whole.loss, whole.accuracy), rel=1e-5)
    torch.testing.assert_close(parts.losses, whole.losses)


def test_bf16_trains_with_fp32_weights():
    config = ExperimentConfig(model_name="mlp_1x512").resolved()
    model, data = initialized("mlp_1x512"), batches(64)
    loss = one_epoch(at_work(model, replace(config, precision="bf16"), data)).loss
    reference = one_epoch(at_work(initialized("mlp_1x512"), config, data)).loss
    assert loss == pytest.approx(reference, rel=0.02)
    assert loss != reference
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())


def test_a_loss_that_is_not_finite_is_an_error_that_says_what_to_do():
    config = ExperimentConfig(model_name="mlp_1x512", learning_rate=1e30).resolved()
    run = at_work(initialized("mlp_1x512"), config, batches(), epoch=4)
    online = one_epoch(run)
    with pytest.raises(RunError, match=r"not finite in epoch 4, which is not saved; lower --lr 1e\+30"):
        run.finish_epoch(online, 1.0)


def test_label_metrics_equal_those_computed_by_hand():
    true = torch.tensor([0, 1, 2, 3, 4])
    labels = torch.tensor([0, 1, 5, 6, 7])  # the last three are corrupted
    predictions = torch.tensor([0, 2, 5, 3, 4])
    assert label_metrics(predictions, labels, true) == {
        "train_accuracy_corrupted": pytest.approx(1 / 3),
        "train_accuracy_untouched": 0.5,
        "true_label_agreement": 0.6,
    }
    assert label_metrics(predictions, true, true)["train_accuracy_corrupted"] is None


def test_each_label_metric_is_over_its_own_images():
    """The first four of ten images are corrupted: three predictions follow the labels, and one the true class."""
    true = torch.zeros(10, dtype=torch.int64)
    labels = torch.tensor([1, 1, 1, 1, 0, 0, 0, 0, 0, 0])
    predictions = torch.tensor([1, 1, 1, 0, 0, 0, 0, 2, 2, 2])
    assert label_metrics(predictions, labels, true) == pytest.approx(
        {"train_accuracy_corrupted": 3 / 4, "train_accuracy_untouched": 3 / 6, "true_label_agreement": 4 / 10}
    )


@pytest.mark.parametrize(
    ("options", "epoch", "due"),
    [
        ({}, 5, False),
        ({}, 10, True),
        ({"eval_train_every": 3}, 6, True),
        ({"eval_train_every": 3}, 7, False),
    ],
)
def test_exact_training_accuracy_is_measured_when_asked_for_and_at_the_end(options, epoch, due):
    assert exact_accuracy_is_due(ExperimentConfig(num_epochs=10, **options), epoch) is due


@pytest.mark.parametrize(
    ("exact_before", "wrong_online", "may_fit"),
    [
        ([None, 0.98], [0, 1, 2, 3], False),  # 98.67% online
        ([None, 0.98], [0, 1, 2], True),
        ([None, 0.98], [7], True),
        ([0.999, None], [], True),
        ([0.999, None], [0, 1], True),
        ([0.999, None], [0, 7], False),  # the network still gets image 7 wrong
        ([0.999, 1.0], [], False),
    ],
)
def test_exact_training_accuracy_is_measured_where_an_epoch_may_be_the_first_to_fit(
    exact_before, wrong_online, may_fit
):
    """After the epoch, the network classifies image 7 of 300 wrongly."""
    model, data = initialized("mlp_1x512"), batches(300)
    data.labels = model(data.images(torch.arange(300))).argmax(dim=1)
    data.labels[7] = (data.labels[7] + 1) % 10
    run = at_work(model, ExperimentConfig(model_name="mlp_1x512").resolved(), data)
    run.metrics = [{"epoch": epoch, "exact_train_accuracy": exact} for epoch, exact in enumerate(exact_before, 1)]
    right = torch.ones(300, dtype=torch.bool)
    right[wrong_online] = False
    assert run._may_fit(1 - len(wrong_online) / 300, right) is may_fit


def test_a_fit_is_tested_in_evaluation_mode_without_changing_statistics():
    """The network was just trained, and its batch statistics would give other classes."""
    model, data = initialized("small_inception"), batches(40)
    one_epoch(at_work(model, ExperimentConfig(learning_rate=0.001, batch_size=20).resolved(), data))
    rows = torch.arange(40)
    with torch.no_grad():
        data.labels = copy.deepcopy(model).eval()(data.images(rows)).argmax(dim=1)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert fits(model.train(), data, rows, FP32)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    data.labels[39] = (data.labels[39] + 1) % 10
    assert fits(model.train(), data, rows[:39], FP32)
    assert not fits(model.train(), data, rows, FP32)


@pytest.mark.parametrize(
    ("options", "epoch", "exact", "due"),
    [
        ({}, 1, None, True),
        ({"eval_test_every": 3}, 6, None, True),
        ({"eval_test_every": 3}, 7, 1.0, False),
        ({"eval_test_every": 3}, 10, None, True),
        ({"eval_test_every": 3, "stop_when_fit": True}, 7, 0.99, False),
        ({"eval_test_every": 3, "stop_when_fit": True}, 7, 1.0, True),
    ],
)
def test_the_test_set_is_measured_every_k_epochs_and_after_the_last(options, epoch, exact, due):
    assert evaluation_is_due(ExperimentConfig(num_epochs=10, **options), epoch, exact) is due


def test_time_to_overfit_is_the_first_epoch_at_each_threshold():
    exact = [None, 0.5, 0.9989, 0.999, 0.9999, 1.0, 0.9, 1.0]
    metrics = [{"epoch": index + 1, "exact_train_accuracy": value} for index, value in enumerate(exact)]
    assert epochs_to_fit(metrics) == {"0.999": 4, "1.0": 6}
    assert epochs_to_fit(metrics[:2]) == {"0.999": None, "1.0": None}
