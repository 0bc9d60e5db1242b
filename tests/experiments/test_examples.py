"""`reproduce.py detection` and `memorized` on the digits at demo scale."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rethinking.experiments import detection, detection_epochs, memorized
from rethinking.experiments.reproduction import Reproduction
from rethinking.measures.scores import SCORES
from rethinking.report import tables
from tests.conftest import DEMO, OUT, made_once, reproduce


@pytest.fixture(scope="module")
def examined(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder in which both ran at demo scale, and what they printed."""

    def run(folder: Path) -> str:
        return "".join(reproduce(folder, name, *DEMO) for name in ("detection", "memorized"))

    return made_once(tmp_path_factory, "examples", run)


def result_of(folder: Path, run: str) -> dict:
    return json.loads((folder / "runs" / run / "result.json").read_text())


def test_every_score_is_judged_for_each_noise_and_rate(examined: tuple[Path, str]):
    folder, printed = examined
    cells, _, _ = tables.read_csv(folder / OUT / "detection.csv")
    assert len(cells) == 2 * 3 * len(SCORES) * 2
    for cell in cells:
        labels = dict(cell.labels)
        found = result_of(folder, cell.runs[0])
        name = "auroc" if cell.quantity == detection.AUROC else "precision"
        assert cell.ours == pytest.approx(found[name][labels["score"].replace(" ", "_")][-1], rel=1e-5)
        config = (folder / "runs" / found["network"] / "config.yaml").read_text()
        assert f"randomization: {detection.NOISE[labels['noise']]}" in config
        assert f"corruption_prob: {labels['noise rate']}\n" in config
    easy = [cell for cell in cells if dict(cell.labels)["score"] == "area under margin"]
    assert max(cell.ours for cell in easy if cell.quantity == detection.AUROC) > 0.95
    assert "AUROC, noise rate 0.4" in (folder / OUT / "detection.md").read_text()
    assert "Which score finds wrong labels" in printed


def test_the_figure_has_every_epoch(examined: tuple[Path, str]):
    cells, _, _ = tables.read_csv(examined[0] / OUT / "detection_epochs.csv")
    assert {cell.x for cell in cells} == {*map(float, range(1, detection.EPOCHS["num_epochs"] + 1))}
    assert {cell.quantity for cell in cells} == {
        detection_epochs.auroc_of("mlp_1x512", noise) for noise in detection.NOISE
    }
    last, _, _ = tables.read_csv(examined[0] / OUT / "detection.csv")
    for cell in cells:
        if cell.x == detection.EPOCHS["num_epochs"]:
            score, noise = dict(cell.labels)["score"], cell.quantity.rpartition(", ")[2]
            wanted = {"score": score, "noise": noise, "noise rate": detection_epochs.RATE}
            (same,) = (
                one for one in last if wanted.items() <= dict(one.labels).items() and one.quantity == detection.AUROC
            )
            assert same.ours == cell.ours


def test_random_labels_are_memorized_at_every_level(examined: tuple[Path, str]):
    folder, _ = examined
    cells, _, _ = tables.read_csv(folder / OUT / "memorized.csv")
    mean = {(dict(cell.labels)["labels"], cell.x): cell.ours for cell in cells if cell.quantity == memorized.MEAN}
    assert {place for _, place in mean} == {0.0, 0.5, 1.0}
    assert ("random, wrong", 0.0) not in mean
    assert mean["true", 0.0] < mean["true", 0.5] < mean["true", 1.0]
    assert mean["random, wrong", 0.5] > mean["true", 0.5]
    errors, _, _ = tables.read_csv(folder / OUT / "memorized_errors.csv")
    for level in ("0", "0.5", "1"):
        by_runs = {cell.x: cell.ours for cell in errors if dict(cell.labels)["label_corruption"] == level}
        assert [*by_runs] == [4.0]
        assert 0 < by_runs[4.0] < 1


def test_they_are_found_again_without_run_folders(examined: tuple[Path, str], tmp_path: Path):
    out = examined[0] / OUT
    for name in ("detection", "memorized"):
        before = (out / f"{name}.csv").read_text()
        printed = reproduce(tmp_path, name, *DEMO, "--out", str(out))
        assert "finished:" not in printed
        assert "left out" not in printed
        assert (out / f"{name}.csv").read_text() == before


def test_all_leaves_them_out():
    names = {"detection", "detection_epochs", "memorized", "memorized_errors"}
    assert not names & {*Reproduction(experiment="all", scale="demo").rows}


def test_other_models_are_taken_on_request():
    asked = Reproduction(experiment="memorized", scale="demo", models=("mlp_3x512",))
    assert {config.network.model_name for config in asked.configs()} == {"mlp_3x512"}
    assert asked.left_out == []
    default = Reproduction(experiment="memorized", scale="demo")
    assert {config.network.model_name for config in default.configs()} == {"mlp_1x512"}
