"""Scores judged after every epoch: against a network that ends there, by scikit-learn, and what cannot be judged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from rethinking import ExperimentConfig, InputError, load_run, train
from rethinking.measures.scores import SCORES
from rethinking.theory import tasks
from rethinking.theory.detecting import DetectionConfig
from rethinking.training.run_dir import RunDir


def network(runs: Path, **options) -> ExperimentConfig:
    fixed = {"model_name": "mlp_1x512", "dataset": "digits", "train_subset": 150, "num_epochs": 4, "device": "cpu"}
    fixed |= {"randomization": "pair_flip", "corruption_prob": 0.3, "precision": "fp32", "use_tensorboard": False}
    return ExperimentConfig(**{**fixed, "runs_dir": str(runs), **options})


def test_each_epoch_is_judged_as_if_training_ended_there(tmp_path: Path):
    asked = DetectionConfig.of(network(tmp_path))
    done = tasks.carry_out(asked)
    found = done.result
    run = train(network(tmp_path, record_examples=True))
    assert found["network"] == run.path.name, "the network keeps its examples, and is trained once"
    wrong = (RunDir(run.path).labels() != RunDir(run.path).true_labels()).numpy()
    assert found["wrong_labels"] == wrong.sum() == run.result["labels_changed"]
    assert found["auroc"].keys() == found["precision"].keys() == SCORES.keys()
    kept = run.examples()["online"]
    for name, score in SCORES.items():
        for epoch in (1, 2, 4):
            values = score.of(kept.until(epoch))
            suspicion = np.nan_to_num(values if score.suspicious == "high" else -values, posinf=1e9)
            assert found["auroc"][name][epoch - 1] == pytest.approx(roc_auc_score(wrong, suspicion), abs=1e-5)
        assert len(found["precision"][name]) == 4
        assert all(0 <= value <= 1 for value in found["precision"][name])
    first = train(network(tmp_path, record_examples=True, num_epochs=1)).examples()["online"]
    np.testing.assert_array_equal(first.margin, kept.until(1).margin)
    assert load_run(done.path).result == found
    assert tasks.carry_out(asked).path == done.path


@pytest.mark.parametrize("options", [{"randomization": "none"}, {"randomization": "shuffled_pixels"}])
def test_networks_without_wrong_labels_are_refused(tmp_path: Path, options):
    with pytest.raises(InputError, match="makes no label wrong"):
        DetectionConfig.of(network(tmp_path, corruption_prob=None, **options))


def test_labels_that_are_all_right_or_all_wrong_are_refused(tmp_path: Path):
    for probability in (0.0, 1.0):
        asked = DetectionConfig.of(network(tmp_path, corruption_prob=probability, num_epochs=1))
        with pytest.raises(InputError, match=r"wrong labels of 150; scores need both kinds"):
            tasks.carry_out(asked)


def test_only_the_online_pass_is_scored(tmp_path: Path):
    with pytest.raises(InputError, match="scored must be online, not 'train'"):
        DetectionConfig.of(network(tmp_path), scored="train")


def test_the_cost_grows_with_images_and_epochs(tmp_path: Path):
    memory, operations = tasks.estimate_cost(DetectionConfig.of(network(tmp_path)))
    more, _ = tasks.estimate_cost(DetectionConfig.of(network(tmp_path, num_epochs=40, train_subset=None)))
    assert more > memory > 0
    assert operations == 0
