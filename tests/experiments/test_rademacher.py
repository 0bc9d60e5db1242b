"""`reproduce.py rademacher` on the command line, on the digits at demo scale."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rethinking.config import ExperimentConfig
from rethinking.experiments import archive, rademacher
from rethinking.experiments.reproduction import Reproduction
from rethinking.experiments.scale import SCALES, Study
from rethinking.report import tables
from rethinking.report.commands import command
from rethinking.theory.rademacher import RademacherConfig, gap_bound
from tests.conftest import DEMO, OUT, reproduce


def cells(folder: Path) -> dict[tuple[str, float, str], tables.Cell]:
    found = tables.read_csv(folder / OUT / "rademacher.csv")[0]
    return {(dict(cell.labels)["model"], cell.x, cell.quantity): cell for cell in found}


def test_a_network_fits_random_signs_and_a_linear_class_less_the_more_there_are(reproduced: tuple[Path, str]):
    found = cells(reproduced[0])
    for examples in (30.0, 100.0, 300.0):
        network, linear = found["mlp_1x512", examples, "correlation"], found["linear class", examples, "correlation"]
        assert (network.ours, network.seeds, linear.seeds) == (1.0, 3, 3), "a draw each"
        assert linear.ours == pytest.approx(found["linear class", examples, "closed form"].ours, rel=1e-6)
        bound = found["mlp_1x512", examples, rademacher.BOUND]
        assert bound.ours == pytest.approx(gap_bound(1.0, int(examples)), rel=1e-5)
        assert found["mlp_1x512", examples, "gap measured"].ours < 0.5 < 1 < bound.ours
    assert found["linear class", 300.0, "correlation"].ours < found["linear class", 30.0, "correlation"].ours < 0.5


def test_every_correlation_is_the_mean_over_its_runs(reproduced: tuple[Path, str]):
    folder, _ = reproduced
    for (model, _, quantity), cell in cells(folder).items():
        if quantity != "correlation":
            continue
        results = [json.loads((folder / "runs" / run / "result.json").read_text()) for run in cell.runs]
        assert len(results) == 3
        reached = [
            result["correlation"] if model == "linear class" else 2 * result["final"]["exact_train_accuracy"] - 1
            for result in results
        ]
        assert cell.ours == pytest.approx(sum(reached) / 3, rel=1e-5)


def test_it_leaves_figure_and_evidence_which_answer_again(reproduced: tuple[Path, str]):
    folder, printed = reproduced
    names = {path.name for path in (folder / OUT).iterdir()}
    assert {"rademacher.csv", "rademacher.md", "rademacher.png", "rademacher.svg", "runs.csv", "epochs.csv"} <= names
    assert "Rademacher complexity: correlation with random signs" in printed
    kept = archive.read(folder / OUT)
    again = reproduce(folder, "rademacher", *DEMO)
    assert "finished:" not in again
    commands = {command(run) for run in kept.values() if run.task == "linear_classes"}
    assert commands == {"python reproduce.py all --models mlp_1x512 --scale demo"}, "the one that made them"


def test_networks_train_with_the_best_fitting_options_and_rare_tests():
    study = Study(SCALES["small"], ("small_inception_no_bn", "mlp_1x512"), {})
    networks = [row.config for row in rademacher.rows(study) if isinstance(row.config, ExperimentConfig)]
    assert {(config.model_name, config.optimizer) for config in networks} == {
        ("small_inception_no_bn", "adam"),
        ("mlp_1x512", "sgd"),
    }
    looks = {(config.randomization, config.eval_test_every) for config in networks}
    assert looks == {("random_signs", 1), ("none", rademacher.RARELY)}, "signs have no test set"


def test_other_seeds_draw_other_signs():
    asked = Reproduction(experiment="rademacher", scale="demo", models=("mlp_1x512",), seeds=(0, 1))
    drawn = [config.randomization_seed for config in asked.configs() if isinstance(config, RademacherConfig)]
    assert sorted(set(drawn)) == [0, 1, 1000, 1001, 2000, 2001]
