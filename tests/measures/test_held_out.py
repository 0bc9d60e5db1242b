"""Out-of-sample probabilities of real runs, against a slow version, and runs that do not go together."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from rethinking import InputError, RunError, RunResult, score_examples, train
from rethinking.config import ExperimentConfig
from rethinking.data import sources
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


def test_each_image_is_judged_by_the_network_that_was_not_trained_on_it(runs: list[RunResult]):
    data = sources.load_for(runs[0].config)
    found = held_out_probabilities(runs, data, IMAGES)
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
    one, other, both = (held_out_probabilities(some, data, IMAGES) for some in (runs, others, [*runs, *others]))
    np.testing.assert_allclose(both, (one + other) / 2, atol=1e-6)


def test_parts_that_are_missing_or_do_not_go_together_are_told(runs: list[RunResult], tmp_path: Path):
    folders = [run.path for run in runs]
    with pytest.raises(InputError, match="no run left out part 2/3; train one with --left_out 2/3"):
        score_examples([folders[0], folders[2]])
    halves = [train(config(tmp_path, left_out=f"{part}/2")).path for part in (1, 2)]
    with pytest.raises(InputError, match="the runs left out one of 2 and one of 3 parts"):
        score_examples([*folders, *halves])
    whole = train(config(tmp_path))
    with pytest.raises(InputError, match="left no part out, as others did; train it with --left_out K/N"):
        score_examples([*folders, whole.path])
    assert score_examples([whole.path]).probabilities is None


def test_a_network_with_other_answers_than_its_run_is_an_error(runs: list[RunResult], tmp_path: Path):
    folders = [Path(shutil.copytree(run.path, tmp_path / run.path.name)) for run in runs]
    other = runs[1].path.parent / runs[1].path.name
    weights = next(folders[0].glob("checkpoint*"))
    weights.write_bytes(next(other.glob("checkpoint*")).read_bytes())
    with pytest.raises(RunError, match=r"damaged|other images or labels|does not belong"):
        score_examples(folders)


def test_examples_that_a_run_left_out_do_not_count():
    one, other = np.array([1.0, np.nan, 3.0, 5.0]), np.array([3.0, 7.0, np.nan, 7.0])
    np.testing.assert_array_equal(mean_over_runs([one, other]), [2, 7, 3, 6])
    assert consistency([one, other]) == pytest.approx(1)
    infinite = np.array([np.inf, 1.0, 2.0, 3.0])
    np.testing.assert_array_equal(mean_over_runs([one, infinite]), [np.inf, 1, 2.5, 4])
    assert np.isnan(consistency([one, np.full(4, np.nan)]))
