"""Out-of-sample probabilities of real runs, against a slow version, and runs that do not go together."""

import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from rethinking import RunError, RunResult, score_examples, train
from rethinking.config import ExperimentConfig
from rethinking.data import sources
from rethinking.data.given_labels import write_labels
from rethinking.measures.held_out import held_out_probabilities
from rethinking.measures.scores import HELD_OUT, SCORES, consistency, mean_over_runs
from rethinking.training.preparation import kept_rows, plain_training_set
from rethinking.training.run_dir import RunDir
from tests.conftest import few_digits

IMAGES, PARTS = 100, 3


def config(folder: Path, **options) -> ExperimentConfig:
    fixed = {"model_name": "mlp_1x512", "dataset": few_digits(IMAGES), "num_epochs": 4, "batch_size": 16}
    fixed |= {"precision": "fp32", "device": "cpu", "use_tensorboard": False, "record_examples": True}
    fixed |= {"randomization": "partial_corrupt", "corruption_prob": 0.3}
    return ExperimentConfig(**{**fixed, "runs_dir": str(folder), **options})


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[RunResult]:
    folder = tmp_path_factory.mktemp("runs")
    return [train(config(folder, left_out=f"{part}/{PARTS}")) for part in range(1, PARTS + 1)]


def labels_of(runs: list[RunResult]) -> np.ndarray:
    labels = np.zeros(IMAGES, np.int64)
    for run in runs:
        labels[kept_rows(run.config, IMAGES).numpy()] = RunDir(run.path).labels().numpy()
    return labels


def test_each_image_is_judged_by_the_network_that_was_not_trained_on_it(runs: list[RunResult]):
    data = sources.load_for(runs[0].config)
    found = held_out_probabilities(runs, data, labels_of(runs))
    images = plain_training_set(replace(runs[0].config, left_out=None), data).images(torch.arange(IMAGES))
    for run in runs:
        inside = {*kept_rows(run.config, IMAGES).tolist()}
        network = run.network()
        for row in {*range(IMAGES)} - inside:
            with torch.no_grad():
                slow = network(images[row : row + 1]).softmax(dim=1)[0]
            np.testing.assert_allclose(found[row], slow.numpy(), atol=1e-5)
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-5)


def test_scores_of_all_parts_are_of_all_images(runs: list[RunResult]):
    scored = score_examples([run.path for run in runs])
    assert scored.index.tolist() == [*range(IMAGES)]
    whole = train(config(runs[0].path.parent, num_epochs=1))
    np.testing.assert_array_equal(scored.labels, RunDir(whole.path).labels().numpy())
    np.testing.assert_array_equal(scored.true_labels, scored.data.train.labels)
    for name, score in SCORES.items():
        for image in (0, 41, 99):
            of_image = [
                score.of(run.examples()["online"])[kept.index(image)]
                for run in runs
                if image in (kept := kept_rows(run.config, IMAGES).tolist())
            ]
            assert len(of_image) == PARTS - 1
            assert scored.scores[name][image] == pytest.approx(np.mean(of_image))
        assert -1 <= scored.consistency[name] <= 1
    confidence = scored.probabilities[np.arange(IMAGES), scored.labels]
    np.testing.assert_allclose(scored.scores[HELD_OUT.name], confidence)
    assert scored.columns()["predicted_label"] == [str(label) for label in scored.probabilities.argmax(axis=1)]
    assert scored.found()[HELD_OUT.name].auroc > 0.8


def test_several_runs_of_a_part_count_by_their_mean(runs: list[RunResult], tmp_path: Path):
    data = sources.load_for(runs[0].config)
    others = [train(config(tmp_path, left_out=run.config.left_out, seed=1)) for run in runs]
    labels = labels_of(runs)
    one, other, both = (held_out_probabilities(some, data, labels) for some in (runs, others, [*runs, *others]))
    np.testing.assert_allclose(both, (one + other) / 2, atol=1e-6)


def test_parts_that_are_missing_or_do_not_go_together_are_told(runs: list[RunResult], tmp_path: Path):
    folders = [run.path for run in runs]
    halves = [train(config(tmp_path, left_out=f"{part}/2")).path for part in (1, 2)]
    whole = train(config(tmp_path))
    for some, reason in (
        ([folders[0], folders[2]], r"no run left out part 2/3 \(--left_out\)"),
        (folders[:1], "no run left out part 2/3"),
        ([*folders, *halves], "the runs left out one of 2 and one of 3 parts"),
        ([*folders, whole.path], f"{whole.path.name} left no part out"),
    ):
        scored = score_examples(some)
        assert re.match(f"no held-out confidence: {reason}", scored.note)
        assert scored.probabilities is None
        assert {*scored.scores} == {*SCORES}
    alone = score_examples(folders[:1])
    assert alone.index.tolist() == kept_rows(runs[0].config, IMAGES).tolist()
    np.testing.assert_array_equal(alone.labels, RunDir(folders[0]).labels().numpy())
    assert score_examples([whole.path]).note == ""


def test_a_network_with_other_answers_than_its_run_is_an_error(runs: list[RunResult], tmp_path: Path):
    folders = [Path(shutil.copytree(run.path, tmp_path / run.path.name)) for run in runs]
    other = runs[1].path.parent / runs[1].path.name
    weights = next(folders[0].glob("checkpoint*"))
    weights.write_bytes(next(other.glob("checkpoint*")).read_bytes())
    with pytest.raises(RunError, match=r"damaged|other images or labels|does not belong"):
        score_examples(folders)


OPERATOR = """
from dataclasses import replace
import torch
from rethinking.data.operators import Operator

class Stamp(Operator):
    def change_pixels(self, train, test, positions, random):
        images = torch.zeros_like(train.images)
        for label in range(10):
            images[train.labels == label, ..., 2 * label : 2 * label + 2] = 255
        return replace(train, images=images, rows=None), test
"""


def test_an_operator_that_sees_the_labels_of_a_file_makes_the_images_that_were_trained_on(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("stamp.py").write_text(OPERATOR)
    data = sources.load(few_digits(IMAGES))
    write_labels(Path("noisy.csv"), np.roll(data.train.labels, 3), data.train.labels, data.class_names)
    asked = {"randomization": "stamp.py:Stamp", "corruption_prob": None, "labels": "noisy.csv", "num_epochs": 30}
    folders = [train(config(tmp_path, left_out=f"{part}/2", **asked)).path for part in (1, 2)]
    Path("noisy.csv").unlink()
    scored = score_examples(folders)
    np.testing.assert_array_equal(scored.labels, np.roll(data.train.labels, 3))
    assert (scored.predicted == scored.labels).mean() > 0.9, "the stamp tells the label, in left-out images too"


@pytest.mark.parametrize("seed", range(6))
def test_few_images_in_bfloat16_are_not_mistaken_for_others(tmp_path: Path, seed: int):
    """Networks are trained in bfloat16 and asked in float32, so single images change their class."""
    options = {"train_subset": 40, "num_epochs": 1, "precision": "bf16", "seed": seed, "dataset": "digits"}
    folders = [train(config(tmp_path, left_out=f"{part}/4", **options)).path for part in range(1, 5)]
    assert score_examples(folders).probabilities.shape == (40, 10)


def test_examples_that_a_run_left_out_do_not_count():
    one, other = np.array([1.0, np.nan, 3.0, 5.0]), np.array([3.0, 7.0, np.nan, 7.0])
    np.testing.assert_array_equal(mean_over_runs([one, other]), [2, 7, 3, 6])
    assert consistency([one, other]) == pytest.approx(1)
    infinite = np.array([np.inf, 1.0, 2.0, 3.0])
    np.testing.assert_array_equal(mean_over_runs([one, infinite]), [np.inf, 1, 2.5, 4])
    assert np.isnan(consistency([one, np.full(4, np.nan)]))
