"""Whole runs on the built-in digits."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from torch.nn import functional as F

from rethinking import ExperimentConfig, InputError, RunError, train
from rethinking.data import sources
from rethinking.data.draws import corrupt_labels
from rethinking.engines.many import train_many
from rethinking.models import build_model
from rethinking.training import find, preparation
from rethinking.training.networks import untrained
from rethinking.training.optimizers import Optimizer
from rethinking.training.preparation import plain_training_set, resolve, training_rows
from rethinking.training.run_dir import RunDir, RunResult
from tests.conftest import few_digits

RECORD_KEYS = [
    "epoch",
    "learning_rate",
    "train_loss",
    "train_accuracy",
    "exact_train_accuracy",
    "test_loss",
    "test_accuracy",
    "generalization_gap",
    "images_per_second",
]


def config(tmp_path: Path, **options) -> ExperimentConfig:
    return ExperimentConfig(
        **{
            "model_name": "mlp_1x512",
            "dataset": "digits",
            "num_epochs": 2,
            "precision": "fp32",
            "device": "cpu",
            "runs_dir": str(tmp_path / "runs"),
            "use_tensorboard": False,
            **options,
        }
    )


def test_random_labels_are_fitted_and_do_not_generalize(tmp_path: Path):
    """This is the paper's claim at small size: 100% training accuracy on random labels, and chance on test images."""
    options = {"lr_schedule": "constant", "num_epochs": 200, "stop_when_fit": True, "model_name": "mlp_3x512"}
    random = train(config(tmp_path, randomization="random_labels", **options))
    true = train(config(tmp_path, **options))
    for result in (random, true):
        assert result.final["exact_train_accuracy"] == 1.0
        assert result.result["epochs_to_fit"]["1.0"] == result.final["epoch"] < 200
    assert random.final["test_accuracy"] < 0.2
    assert true.final["test_accuracy"] > 0.95
    assert true.final["epoch"] < random.final["epoch"]


def test_the_exact_accuracy_is_measured_until_it_is_1_and_at_the_end(tmp_path: Path):
    """Fewer passes save time, and nothing else changes."""
    options = {"model_name": "mlp_3x512", "learning_rate": 0.02, "lr_schedule": "constant", "num_epochs": 80}
    options |= {"randomization": "random_labels", "train_subset": 1050}
    saving = train(config(tmp_path, **options))
    measuring = train(config(tmp_path / "measuring", eval_train_every=1, **options))
    watched = [record for record in measuring.metrics if record["train_accuracy"] >= 0.99]
    first = {
        name: next(record["epoch"] for record in watched if record["exact_train_accuracy"] >= float(name))
        for name in ("0.999", "1.0")
    }
    assert saving.result["epochs_to_fit"] == first
    assert 1 < first["0.999"] <= first["1.0"] < 75
    for one, other in zip(saving.metrics, measuring.metrics, strict=True):
        assert [one[name] for name in ("train_loss", "train_accuracy", "test_loss", "test_accuracy")] == [
            other[name] for name in ("train_loss", "train_accuracy", "test_loss", "test_accuracy")
        ]
        assert one["exact_train_accuracy"] in (None, other["exact_train_accuracy"])
        if one["train_accuracy"] < 0.99:
            assert one["exact_train_accuracy"] is None
    exact = {record["epoch"]: record["exact_train_accuracy"] for record in saving.metrics}
    assert {exact[epoch] for epoch in range(first["1.0"] + 1, 80)} == {None}
    assert exact[80] == 1.0


def test_the_folder_holds_what_the_design_promises(tmp_path: Path):
    result = train(config(tmp_path, randomization="partial_corrupt", corruption_prob=0.5))
    assert {file.name for file in result.path.iterdir()} - {".lock"} == {
        "config.yaml",
        "facts.json",
        "randomization.safetensors",
        "metrics.jsonl",
        "checkpoint.safetensors",
        "result.json",
    }
    lines = [json.loads(line) for line in (result.path / "metrics.jsonl").read_text().splitlines()]
    assert lines == result.metrics
    for record in lines:
        assert list(record)[: len(RECORD_KEYS)] == RECORD_KEYS
        assert {"train_accuracy_corrupted", "train_accuracy_untouched", "true_label_agreement"} <= set(record)
    assert [record["epoch"] for record in lines] == [1, 2]
    assert [record["learning_rate"] for record in lines] == pytest.approx([0.01, 0.0095])
    assert lines[0]["exact_train_accuracy"] is None, "an extra pass where it cannot matter"
    last = lines[1]
    assert last["generalization_gap"] == pytest.approx(last["exact_train_accuracy"] - last["test_accuracy"])

    written = json.loads((result.path / "result.json").read_text())
    assert written["final"] == last
    assert set(written["epochs_to_fit"]) == {"0.999", "1.0"}
    provenance = written["provenance"]
    assert provenance["versions"]["torch"] == torch.__version__
    assert provenance["precision"] == "fp32"
    assert provenance["fingerprint"] == sources.load("digits").fingerprint
    assert written["seconds"] > 0
    assert written["parameters"] == 784 * 512 + 512 + 5130


def test_the_run_keeps_which_labels_were_changed(tmp_path: Path):
    result = train(config(tmp_path, randomization="partial_corrupt", corruption_prob=0.5, randomization_seed=9))
    stored = safetensors.torch.load_file(result.path / "randomization.safetensors")
    true = torch.from_numpy(sources.load("digits").train.labels)
    assert torch.equal(stored["true_labels"], true)
    assert torch.equal(stored["labels"], corrupt_labels(true, 10, 0.5, 9))


def test_the_shuffled_permutation_is_kept(tmp_path: Path):
    result = train(config(tmp_path, randomization="shuffled_pixels"))
    stored = safetensors.torch.load_file(result.path / "randomization.safetensors")
    assert torch.equal(stored["permutation"].long().sort().values, torch.arange(784))


def test_a_finished_run_answers_at_once_and_force_trains_beside_it(tmp_path: Path):
    first = train(config(tmp_path))
    stamp = (first.path / "metrics.jsonl").stat().st_mtime_ns
    again = train(config(tmp_path))
    assert again.path == first.path
    assert again.metrics == first.metrics
    assert (first.path / "metrics.jsonl").stat().st_mtime_ns == stamp

    forced = train(config(tmp_path), force=True)
    assert forced.path.name == f"{first.path.name}-2"
    assert (first.path / "metrics.jsonl").stat().st_mtime_ns == stamp
    for ours, theirs in zip(forced.metrics, first.metrics, strict=True):
        assert ours["train_loss"] == theirs["train_loss"], "the same configuration, another result"
    assert train(config(tmp_path)).path == forced.path


def test_a_run_finished_by_another_process_in_the_meantime_is_left_alone(tmp_path: Path, monkeypatch):
    from rethinking.training.run_dir import RunDir

    first = train(config(tmp_path))
    stamp = (first.path / "result.json").stat().st_mtime_ns
    monkeypatch.setattr(RunDir, "find", lambda *_, **__: late)
    answers = iter([False, True])
    late = type("Late", (RunDir,), {"is_finished": property(lambda self: next(answers))})(first.path)
    assert train(config(tmp_path)).metrics == first.metrics
    assert (first.path / "result.json").stat().st_mtime_ns == stamp


def test_options_that_change_no_number_do_not_change_the_folder(tmp_path: Path):
    first = train(config(tmp_path))
    by_path = config(tmp_path, wandb_project="other", runs_dir=f"{tmp_path}/x/../runs")
    assert train(by_path).path.name == first.path.name
    assert train(config(tmp_path, learning_rate=0.01, lr_decay=0.95)).path.name == first.path.name
    assert train(config(tmp_path, seed=1)).path.name != first.path.name


def test_a_runs_config_yaml_names_the_same_run(tmp_path: Path):
    first = train(config(tmp_path, randomization="random_labels", weight_decay="default"))
    reloaded = ExperimentConfig.from_yaml(first.path / "config.yaml")
    assert (reloaded.weight_decay, reloaded.crop_size, reloaded.device) == (0.0001, 28, "cpu")
    assert train(reloaded).path == first.path


def test_a_subset_is_the_first_n_of_a_fixed_shuffle(tmp_path: Path):
    small, large = (
        safetensors.torch.load_file(train(config(tmp_path, train_subset=n)).path / "randomization.safetensors")[
            "labels"
        ]
        for n in (100, 300)
    )
    assert len(small) == 100
    assert torch.equal(small, large[:100])
    true = torch.from_numpy(sources.load("digits").train.labels)
    assert not torch.equal(small, true[:100])


def stored_labels(result: RunResult) -> torch.Tensor:
    return safetensors.torch.load_file(result.path / "randomization.safetensors")["labels"]


DRAWN = {"randomization": "random_labels", "num_epochs": 1}


@pytest.mark.parametrize("subset", [{}, {"train_subset": 200}], ids=str)
def test_random_shares_have_the_labels_that_are_drawn_for_all_images(tmp_path: Path, subset: dict):
    whole = config(tmp_path, **subset, **DRAWN)
    labels = dict(zip(training_rows(whole, 1442).tolist(), stored_labels(train(whole)).tolist(), strict=True))
    chosen = []
    for seed in (0, 1):
        asked = replace(whole, subset_share=0.7, subset_seed=seed)
        rows, result = training_rows(asked, 1442).tolist(), train(asked)
        assert len({*rows}) == round(0.7 * len(labels)) == result.result["train_images"]
        assert stored_labels(result).tolist() == [labels[row] for row in rows]
        chosen.append({*rows})
    assert chosen[0] != chosen[1]


@pytest.mark.parametrize("subset", [{}, {"train_subset": 100}], ids=str)
def test_parts_leave_every_image_out_once_and_keep_its_label(tmp_path: Path, subset: dict):
    whole = config(tmp_path, **subset, **DRAWN)
    images = training_rows(whole, 1442)
    labels = dict(zip(images.tolist(), stored_labels(train(whole)).tolist(), strict=True))
    left_out = []
    for part in (1, 2, 3):
        asked = replace(whole, left_out=f"{part}/3")
        rows, result = training_rows(asked, 1442).tolist(), train(asked)
        assert len(rows) == asked.training_images(1442) == result.result["train_images"]
        assert stored_labels(result).tolist() == [labels[row] for row in rows]
        left_out += {*labels} - {*rows}
    assert sorted(left_out) == sorted(labels)


@pytest.mark.parametrize("alike", [{"left_out": "1/5"}, {"subset_share": 0.705}], ids=str)
def test_runs_on_as_many_images_of_other_subsets_do_not_share_them(tmp_path: Path, alike: dict):
    """Without the first of five parts, 100 and 101 images both leave 80; 70.5% of 99 and of 100 images are 70."""
    sizes = (100, 101) if "left_out" in alike else (99, 100)
    asked = [config(tmp_path / "together", train_subset=size, num_epochs=2, **alike) for size in sizes]
    assert len({one.training_images(1442) for one in asked}) == 1
    together = dict(train_many(asked, at_once=2, stacked=True))
    for one in asked:
        alone = train(replace(one, runs_dir=str(tmp_path / "alone")))
        assert together[one].final["train_loss"] == pytest.approx(alone.final["train_loss"], rel=1e-3)


def test_parts_of_other_sizes_train_at_once(tmp_path: Path):
    """100 images have parts of 34, 33 and 33."""
    asked = [config(tmp_path / "together", train_subset=100, left_out=f"{part}/3", **DRAWN) for part in (1, 2, 3)]
    together = dict(train_many(asked, at_once=3, stacked=True))
    for one in asked:
        alone = train(replace(one, runs_dir=str(tmp_path / "alone")))
        assert together[one].final["train_loss"] == pytest.approx(alone.final["train_loss"], rel=1e-3)


@pytest.mark.parametrize("options", [{}, {"seed": 3}, {"randomization_seed": 3}], ids=str)
def test_every_run_of_a_size_has_the_same_images(tmp_path: Path, options):
    """They are the first 60 of a shuffle seeded by SHA-256 of its name, for any seeds of the run."""
    digest = hashlib.sha256(b"0/train_subset").digest()
    stream = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little"))
    rows = torch.randperm(1442, generator=stream)[:60]
    asked = config(tmp_path, train_subset=60, num_epochs=1, **options)
    stored = safetensors.torch.load_file(train(asked).path / "randomization.safetensors")
    data = sources.load("digits")
    assert torch.equal(stored["labels"], torch.from_numpy(data.train.labels)[rows])
    images = plain_training_set(resolve(asked, data), data).images(torch.arange(60))
    kept = torch.from_numpy(data.train.images)[rows].flatten(1).float()
    whitened = (kept - kept.mean(1, keepdim=True)) / kept.std(1, correction=0, keepdim=True)
    torch.testing.assert_close(images.flatten(1), whitened, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train_subset": 5000}, "train_subset must be at most 1442"),
        ({"left_out": "1/1443"}, "left_out must have at most 1442 parts, one for each training image, not 1443"),
        ({"subset_share": 0.0001}, "subset_share 0.0001 of 1442 images leaves none or all of them"),
        ({"subset_share": 0.9999}, "subset_share 0.9999 of 1442 images leaves none or all of them"),
        ({"crop_size": 32}, "crop_size 32 is larger than the images, which have 28x28 pixels"),
        ({"device": "cuda"}, "device cuda is not available"),
    ],
)
def test_options_that_do_not_fit_the_data_or_the_machine_leave_no_folder(tmp_path: Path, options, message):
    if options.get("device") == "cuda" and torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    with pytest.raises(InputError, match=message):
        train(config(tmp_path, **options))
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("side", "message"),
    [(20, "have 20x20 pixels; the networks need at least 28 a side"), (230, "choose a --crop_size up to 224")],
)
def test_images_no_network_takes_are_refused(tmp_path: Path, side, message):
    for name in ("a", "b"):
        save_image(tmp_path / f"data/{name}/0.png", side)
    with pytest.raises(InputError, match=message):
        train(config(tmp_path, dataset=str(tmp_path / "data")))


def save_image(path: Path, side: int, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)).save(path)


def test_a_run_that_diverges_ends_without_a_result(tmp_path: Path):
    with pytest.raises(RunError, match="not finite in epoch 1, which is not saved; lower --lr"):
        train(config(tmp_path, learning_rate=1e30))
    (run,) = (tmp_path / "runs").iterdir()
    assert not {"result.json", "checkpoint.safetensors"} & {file.name for file in run.iterdir()}


def test_the_summary_stands_beside_table_1_only_where_it_is_comparable(tmp_path: Path):
    from rich.console import Console

    from rethinking.console import summary

    digits = train(config(tmp_path))

    def printed(**facts) -> str:
        console = Console(width=100)
        with console.capture() as capture:
            console.print(summary(replace(digits, result=digits.result | facts)))
        return capture.get()

    full = {"dataset": "cifar10-0123abcd", "train_images": 50_000}
    assert "50.51%" in printed(**full)
    assert "cifar10-0123abcd" in printed(**full)
    assert "50.51%" in printed(**full | {"dataset": "cifar10_jpeg"}), "a copy"
    for other in ({"train_images": 4_000}, {"dataset": "cifar10-resize64"}, {"dataset": "cifar100"}):
        assert "50.51%" not in printed(**full | other)


def test_data_without_a_test_split_trains_without_test_metrics(tmp_path: Path):
    for name in ("a", "b"):
        for index in range(4):
            save_image(tmp_path / f"data/{name}/{index}.png", 28, index)
    result = train(config(tmp_path, dataset=str(tmp_path / "data")))
    assert result.final["test_accuracy"] is None
    assert result.final["generalization_gap"] is None
    assert result.final["exact_train_accuracy"] is not None


def test_fewer_tests_change_nothing_else(tmp_path: Path):
    """With tests in the third and the last epoch alone, weights and all other values stay the same."""
    often, rarely = (train(config(tmp_path, num_epochs=5, eval_test_every=every)) for every in (1, 3))
    for record, other in zip(often.metrics, rarely.metrics, strict=True):
        differing = {name for name in record if record[name] != other[name]} - {"seconds", "images_per_second"}
        spared = set() if record["epoch"] in (3, 5) else {"test_loss", "test_accuracy", "generalization_gap"}
        assert differing == spared
    weights = [safetensors.torch.load_file(result.path / "checkpoint.safetensors") for result in (often, rarely)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_a_run_that_ends_because_it_fits_is_tested_there(tmp_path: Path):
    result = train(config(tmp_path, train_subset=50, num_epochs=300, eval_test_every=299, stop_when_fit=True))
    assert result.final["epoch"] < 299
    tested = [record["epoch"] for record in result.metrics if record["test_accuracy"] is not None]
    assert tested == [len(result.metrics)]


@pytest.mark.parametrize("model_name", ["mlp_1x512", "small_alexnet", "small_inception"])
@pytest.mark.parametrize("options", [{}, {"random_crop": True, "augment_flip_rotate": True}])
def test_the_same_configuration_gives_the_same_bits(tmp_path: Path, model_name, options):
    options = {"model_name": model_name, "dataset": few_digits(40), "batch_size": 16, "num_epochs": 1, **options}
    results = [train(config(tmp_path / str(index), **options)) for index in range(2)]
    weights = [safetensors.torch.load_file(result.path / "checkpoint.safetensors") for result in results]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_batch_normalization_trains_by_batches_in_every_epoch_and_is_tested_by_its_averages(tmp_path: Path):
    """Compares losses and state with a plain loop of two epochs and an evaluation between them."""
    draws = np.random.default_rng(0)
    images, labels = draws.integers(0, 256, (22, 28, 28), dtype=np.uint8), np.arange(22) % 3
    file = tmp_path / "few.npz"
    np.savez(file, x_train=images[:16], y_train=labels[:16], x_test=images[16:], y_test=labels[16:])
    asked = config(tmp_path, model_name="small_inception", dataset=str(file), batch_size=8, learning_rate=0.001)
    result = train(asked)
    data = sources.load_for(asked)
    resolved = resolve(asked, data)
    split, model = plain_training_set(resolved, data), untrained(resolved, data)
    tested = plain_training_set(resolved, replace(data, train=data.test))
    optimizer = torch.optim.SGD((p for p in model.parameters() if p.requires_grad), lr=0.001, momentum=0.9)
    for epoch, record in enumerate(result.metrics, 1):
        optimizer.param_groups[0]["lr"] = 0.001 * 0.95 ** (epoch - 1)
        model.train()
        losses = []
        for _, images, labels in split.training_epoch(0, epoch, 8):
            losses.append(F.cross_entropy(model(images), labels))
            optimizer.zero_grad()
            losses[-1].backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            test_loss = F.cross_entropy(model(tested.images(torch.arange(6))), tested.labels)
        assert record["train_loss"] == pytest.approx(float(sum(losses).detach()) / 2, rel=1e-4)
        assert record["test_loss"] == pytest.approx(float(test_loss), rel=1e-3)
    kept = safetensors.torch.load_file(result.path / "checkpoint.safetensors")
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(kept[f"model.{name}"], tensor, rtol=1e-3, atol=1e-4, msg=name)


def test_an_unfinished_run_is_found_with_its_finished_epochs(tmp_path: Path):
    asked = config(tmp_path, num_epochs=3)
    assert find(asked) is None
    whole = train(asked)
    found = find(asked)
    assert found is not None
    assert found.finished
    assert found.metrics == whole.metrics

    (whole.path / "result.json").unlink()
    (whole.path / "checkpoint.safetensors").unlink()  # which counts three epochs
    lines = (whole.path / "metrics.jsonl").read_text().splitlines(keepends=True)
    (whole.path / "metrics.jsonl").write_text("".join(lines[:2]))
    found = find(asked)
    assert found is not None
    assert not found.finished
    assert found.metrics == whole.metrics[:2]
    assert found.result["final"]["epoch"] == 2
    assert found.result["provenance"]["fingerprint"] == whole.result["provenance"]["fingerprint"]


def test_pixel_noise_is_drawn_once_for_images_of_both_splits(tmp_path: Path):
    plain, noisy = (train(config(tmp_path, pixel_noise=std)) for std in (0.0, 40.0))
    assert plain.path != noisy.path
    fingerprints = [run.result["provenance"]["randomization"] for run in (plain, noisy)]
    assert fingerprints[0]["train"] != fingerprints[1]["train"]
    assert fingerprints[0]["test"] != fingerprints[1]["test"]
    other = train(config(tmp_path, pixel_noise=40.0, seed=1)).result["provenance"]["randomization"]
    assert other == fingerprints[1], "the noise depends on the seed of the order"


def test_kept_losses_cover_every_test_image_after_every_epoch(tmp_path: Path):
    """Their means are the test losses, and the last ones equal the network's own losses."""
    asked = config(tmp_path, num_epochs=3, keep_test_losses=True)
    result = train(asked)
    kept = RunDir(result.path).test_losses(3)
    assert kept.shape == (3, 355)
    assert kept.double().mean(dim=1).tolist() == pytest.approx([record["test_loss"] for record in result.metrics])
    model, data = build_model("mlp_1x512", 10, (1, 28, 28)), sources.load("digits")
    RunDir(result.path).restore(model, Optimizer(model, result.config))
    images = torch.from_numpy(data.test.images.copy()).double()
    flat = images.flatten(1)
    whitened = ((flat - flat.mean(1, keepdim=True)) / flat.std(1, correction=0, keepdim=True)).float()
    with torch.no_grad():
        logits = model.eval()(whitened.view_as(images))
    labels = torch.from_numpy(data.test.labels.copy())
    expected = logits.logsumexp(dim=1) - logits.gather(1, labels[:, None])[:, 0]
    torch.testing.assert_close(kept[-1], expected, rtol=1e-3, atol=1e-5)

    plain = train(config(tmp_path, num_epochs=3))
    assert plain.path != result.path
    assert "test_losses" not in safetensors.torch.load_file(plain.path / "checkpoint.safetensors")
    assert [record["test_loss"] for record in plain.metrics] == [record["test_loss"] for record in result.metrics]


def test_a_run_with_a_replaced_example_differs_in_that_example_alone(tmp_path: Path):
    asked = [config(tmp_path, randomization="random_labels", train_subset=100, replaced_example=n) for n in (None, 7)]
    kept = [safetensors.torch.load_file(train(each).path / "randomization.safetensors") for each in asked]
    data = sources.load("digits")
    differs = (kept[0]["true_labels"] != kept[1]["true_labels"]) | (kept[0]["labels"] != kept[1]["labels"])
    assert differs.nonzero().flatten().tolist() in ([7], [])
    assert kept[1]["true_labels"][7] == data.test.labels[7]
    before, after = (plain_training_set(resolve(each, data), data) for each in asked)
    rows = torch.arange(100)
    changed = (before.images(rows) != after.images(rows)).flatten(1).any(dim=1)
    assert changed.nonzero().flatten().tolist() == [7]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"replaced_example": 355}, "replaced_example must be below 355"),
        ({"replaced_example": 100, "train_subset": 100}, "replaced_example must be below 100"),
    ],
)
def test_a_replaced_example_needs_a_test_image(tmp_path: Path, options, said):
    with pytest.raises(InputError, match=said):
        train(config(tmp_path, **options))


@pytest.mark.parametrize("warmup_epochs", [2, 5])
def test_a_warm_up_must_be_shorter_than_the_training(tmp_path: Path, warmup_epochs):
    message = f"warmup_epochs must be below num_epochs, 2, not {warmup_epochs}: the rate would never reach"
    with pytest.raises(InputError, match=message):
        train(config(tmp_path, warmup_epochs=warmup_epochs))
    rates = [record["learning_rate"] for record in train(config(tmp_path, warmup_epochs=1)).metrics]
    assert rates == pytest.approx([0.01 / 2, 0.01 * 0.95])


def test_a_finished_run_of_an_earlier_version_with_a_longer_warm_up_is_found(tmp_path: Path, monkeypatch):
    with monkeypatch.context() as earlier:
        earlier.setattr(preparation, "_check_warm_up", lambda config, folder: None)
        finished = train(config(tmp_path, warmup_epochs=2))
    assert train(config(tmp_path, warmup_epochs=2)).path == finished.path
    with pytest.raises(InputError, match="warmup_epochs must be below"):
        train(config(tmp_path, warmup_epochs=2), force=True)


@pytest.mark.parametrize(
    "options", [{"replaced_example": 0}, {"keep_test_losses": True}, {"record_test_examples": True}]
)
def test_without_a_test_set_there_is_nothing_to_replace_with_or_to_keep(tmp_path: Path, monkeypatch, options):
    alone = replace(sources.load("digits"), test=None)
    monkeypatch.setattr("rethinking.data.sources.load", lambda *_, **__: alone)
    (name,) = options
    with pytest.raises(InputError, match=f"{name} needs a test set, which digits lacks"):
        train(config(tmp_path, **options))
