"""Published numbers that are trained again, and the spread that several seeds or counting explain."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats

import rethinking
from rethinking import cli
from rethinking.errors import InputError, RunError
from rethinking.experiments import archive
from rethinking.experiments.experiment import Cell, Evidence
from rethinking.experiments.reproduction import Reproduction
from rethinking.experiments.scale import SCALES
from rethinking.report import tables
from rethinking.spread import counted, predicted, spread_of
from rethinking.theory import tasks
from rethinking.verification import Choice, Verification, incomplete, prepare, verify
from tests.conftest import ROOT

QUICK = replace(
    SCALES["demo"],
    epochs=12,
    longer=9,
    levels=(0, 5),
    options={"train_subset": 90, "batch_size": 20, "learning_rate": 0.02, "use_tensorboard": False},
)


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    """Makes runs at demo scale short, as if from a clean commit."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SCALES, "demo", QUICK)
        patch.setattr("rethinking.training.hardware._commit", lambda: "0123456789ab")
        yield


def publish(folder: Path, table: str, seeds: tuple[int, ...]) -> Path:
    """Returns a folder of results with a table of MLP 1x512 on the digits in fp32, and its run folders in `runs`."""
    options: dict[str, Any] = {"scale": "demo", "models": ("mlp_1x512",), "precision": "fp32", "device": "cpu"}
    rethinking.reproduce(table, seeds=seeds, runs_dir=str(folder / "runs"), out=str(folder / "results"), **options)
    return folder / "results"


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Table 4's row with weight decay, at three seeds."""
    return publish(tmp_path_factory.mktemp("table4"), "table4", (0, 1, 2))


def again(results: Path, runs: Path, **options: Any) -> Verification:
    return verify(results, "table4", "mlp_1x512", runs_dir=str(runs), device="cpu", **options)


def changed(results: Path, folder: Path, change: Any) -> Path:
    """Returns other results, whose runs are those of `results` after `change`, and whose table agrees with them."""
    kept = {run.run: run for run in map(change, archive.read(results).values())}
    archive.add(folder, kept.values())
    cells = Reproduction(experiment="table4", scale="demo", models=("mlp_1x512",)).cells("table4", kept)
    tables.write_csv(folder / "table4.csv", cells, "digits", "demo")
    return folder


def with_test_accuracy(run: Evidence, added: float) -> Evidence:
    def better(record: Any) -> Any:
        return {**record, "exact_train_accuracy": record["exact_train_accuracy"] + added}

    return replace(run, metrics=(*run.metrics[:-1], better(run.metrics[-1])))


def of_origin(run: Evidence, **provenance: object) -> Evidence:
    return replace(run, facts={**run.facts, "provenance": {**run.facts["provenance"], **provenance}})


# The verdict


def test_a_run_that_is_there_is_found_and_named_as_the_published_one(published: Path):
    done = again(published, published.parent / "runs")
    (run,) = done.runs
    assert run.was_there
    assert run.is_the_same_run
    assert run.is_identical
    assert done.is_within
    (verdict,) = done.verdicts
    assert (verdict.quantity, verdict.seed, verdict.seeds) == ("train accuracy", 0, 3)
    assert verdict.is_equal
    assert verdict.spread.source == "the 3 seeds of this row"


def test_a_run_that_is_trained_elsewhere_is_the_same_bit_for_bit(published: Path, tmp_path: Path):
    done = again(published, tmp_path / "runs", seeds=(1,))
    (run,) = done.runs
    assert not run.was_there
    assert run.path.parent == tmp_path / "runs"
    assert run.is_identical
    assert not run.changes
    assert done.is_within
    first = archive.read(published)[run.published.run]
    assert [record["train_loss"] for record in run.new.metrics] == [record["train_loss"] for record in first.metrics]


def test_a_published_number_that_no_run_gives_is_outside(published: Path, tmp_path: Path):
    wrong = changed(published, tmp_path / "wrong", lambda run: with_test_accuracy(run, 0.4))
    done = again(wrong, published.parent / "runs")
    (verdict,) = done.verdicts
    assert not verdict.is_within
    assert verdict.difference == pytest.approx(-0.4, abs=verdict.spread.width)
    assert not done.runs[0].is_identical


def test_the_command_exits_with_the_verdict(published: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    wrong = changed(published, tmp_path / "wrong", lambda run: with_test_accuracy(run, 0.4))
    for folder, status, words in ((published, 0, "verified: 1 number within"), (wrong, 1, "not verified: 1 of 1")):
        runs = ["--runs_dir", str(published.parent / "runs"), "--device", "cpu"]
        with pytest.raises(SystemExit) as ended:
            cli.main(["verify", str(folder), "--table", "table4", "--row", "mlp_1x512", *runs])
        assert ended.value.code == status
        printed = capsys.readouterr()
        assert words in printed.out, printed.out + printed.err


def test_a_dry_run_trains_nothing(published: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for runs, words in ((tmp_path / "runs", "to train, which took"), (published.parent / "runs", "found in")):
        with pytest.raises(SystemExit) as ended:
            cli.main(["verify", str(published), "--table", "table4", "--runs_dir", str(runs), "--dry_run"])
        assert ended.value.code == 0
        assert words in capsys.readouterr().out
    assert not (tmp_path / "runs").exists()


def test_a_derived_number_needs_the_runs_that_it_is_relative_to(tmp_path: Path):
    results = publish(tmp_path, "figure1b", (0, 1))
    options: dict[str, Any] = {"runs_dir": str(tmp_path / "runs"), "device": "cpu"}
    one = verify(results, "figure1b", ("mlp_1x512", "label_corruption=0.5"), quantity=("relative_time_to_overfit",))
    done = verify(results, "figure1b", "mlp_1x512", quantity=("relative time to overfit",), x=0.5, **options)
    assert len(done.runs) == len(one.runs) == 2
    assert done.is_within
    every = verify(results, "figure1b", **options)
    assert {verdict.x for verdict in every.verdicts} == {0.0, 0.5}
    reached = {verdict.published for verdict in every.verdicts if verdict.x == 0 and "relative" in verdict.quantity}
    assert reached == {1.0}, "the network fits the true labels in time"


def test_an_unfinished_run_is_compared_at_its_last_epoch(published: Path, tmp_path: Path):
    def cut(run: Evidence) -> Evidence:
        last = {**run.metrics[2], "exact_train_accuracy": None}
        return replace(run, finished=False, metrics=(*run.metrics[:2], last))

    done = again(changed(published, tmp_path / "cut", cut), published.parent / "runs")
    (verdict,) = done.verdicts
    assert len(done.runs[0].new.metrics) == 3
    assert verdict.new == pytest.approx(
        archive.read(published)[done.runs[0].published.run].metrics[2]["train_accuracy"]
    )
    assert done.is_within


def test_a_run_that_trains_nothing_is_verified_by_all_its_facts(tmp_path: Path):
    reproduction = Reproduction(experiment="expressivity", scale="demo", runs_dir=str(tmp_path / "runs"))
    first = reproduction.rows["expressivity"][0]
    kept = archive.add(tmp_path / "results", [archive.evidence(tasks.carry_out(first.config))])
    tables.write_csv(tmp_path / "results/expressivity.csv", reproduction.cells("expressivity", kept), "digits", "demo")
    done = verify(tmp_path / "results", "expressivity", runs_dir=str(tmp_path / "elsewhere"))
    (run,) = done.runs
    assert run.is_identical
    assert not run.was_there
    assert done.is_within
    assert {verdict.labels for verdict in done.verdicts} == {first.labels}


def test_another_precision_is_named_beside_the_verdict(published: Path, tmp_path: Path):
    done = again(published, tmp_path / "runs", precision="bf16")
    assert "precision bf16, published with fp32" in done.runs[0].changes


# What cannot be verified


@pytest.mark.parametrize(
    ("provenance", "words"),
    [
        ({"commit": "0123456789ab-dirty"}, "files that differ from its commit, 0123456789ab-dirty"),
        ({"commit": None}, "does not say its commit"),
        ({"hardware": ""}, "does not say its hardware"),
        (
            {"versions": {"torch": "2.12.0", "python": "3.12.1", "rethinking-generalization": "0.1.0"}},
            "version of numpy",
        ),
    ],
)
def test_a_run_without_a_full_origin_cannot_be_verified(published: Path, tmp_path: Path, provenance, words):
    lacking = changed(published, tmp_path / "lacking", lambda run: of_origin(run, **provenance))
    with pytest.raises(RunError, match=f"cannot be verified: .*{words}"):
        again(lacking, tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_a_table_that_its_evidence_does_not_give_cannot_be_verified(published: Path, tmp_path: Path):
    right = changed(published, tmp_path / "right", lambda run: run)
    cells, dataset, scale = tables.read_csv(right / "table4.csv")
    tables.write_csv(right / "table4.csv", [replace(cells[0], ours=0.5)], dataset, scale)
    with pytest.raises(RunError, match=r"is 0\.5 in the table, and .* from the evidence"):
        again(right, tmp_path / "runs")


def test_a_number_without_its_evidence_cannot_be_verified(published: Path, tmp_path: Path):
    first, *others = archive.read(published).values()
    archive.add(tmp_path / "fewer", others)
    (tmp_path / "fewer" / "table4.csv").write_bytes((published / "table4.csv").read_bytes())
    with pytest.raises(RunError, match=f"a number of {first.run}, but no evidence"):
        again(tmp_path / "fewer", tmp_path / "runs")


def test_other_images_are_refused_before_any_training(published: Path, tmp_path: Path):
    images = np.random.default_rng(0).integers(0, 256, (80, 8, 8), dtype=np.uint8)
    np.savez(
        tmp_path / "other.npz", x_train=images, y_train=np.arange(80) % 10, x_test=images, y_test=np.arange(80) % 10
    )
    with pytest.raises(InputError, match="is not the published digits: its fingerprint begins with"):
        again(published, tmp_path / "runs", dataset=str(tmp_path / "other.npz"))
    assert not (tmp_path / "runs").exists()


def test_a_network_of_ones_own_needs_its_file(published: Path, tmp_path: Path):
    def own(run: Evidence) -> Evidence:
        return replace(run, question="0123456789", configuration={**run.configuration, "model_name": "net.py:Net"})

    theirs = tmp_path / "theirs"
    archive.add(theirs, [own(run) for run in archive.read(published).values()])
    (theirs / "table4.csv").write_bytes((published / "table4.csv").read_bytes())
    with pytest.raises(InputError, match=r"your own net\.py:Net; run this command in the folder where that file is"):
        again(theirs, tmp_path / "runs")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"table": "tabel4"}, "not 'tabel4'; did you mean 'table4'?"),
        ({"table": ""}, "--table must be one of table4"),
        ({"row": ("mlp_1x51",)}, "not 'mlp_1x51'; did you mean 'mlp_1x512'?"),
        ({"quantity": ("train_acuracy",)}, "did you mean 'train accuracy'?"),
        ({"x": 0.5}, "--x goes with a figure"),
        ({"seeds": (7,)}, "has the seeds 0 1 2, not 7"),
        ({"results": "nowhere"}, "there is no folder of results nowhere"),
        ({"threads": 0}, "threads must be a whole number from 1 on"),
    ],
)
def test_mistakes_name_what_is_there(published: Path, options, words):
    with pytest.raises(InputError) as error:
        prepare(Choice(**{"results": str(published), "table": "table4", **options}))
    assert words in str(error.value)


def test_every_run_in_results_says_how_it_was_made():
    """In particular, no commit is marked `-dirty`."""
    folders = sorted(
        {path.parent for name in ("runs", "kernel_machines") for path in ROOT.glob(f"results/**/{name}.csv")}
    )
    assert len(folders) > 5
    lacking = {
        run.run: incomplete(run) for folder in folders for run in archive.read(folder).values() if incomplete(run)
    }
    assert not lacking


# The spread


def cell(ours: float, std: float | None, seeds: int, quantity: str = "test accuracy", name: str = "m") -> Cell:
    return Cell((("model", name),), quantity, None, ours, std, seeds, None, "", ("run",))


def test_the_interval_is_the_t_distributions_and_covers_95_of_100_new_runs():
    for seeds in (2, 3, 5, 20):
        expected = scipy.stats.t.ppf(0.975, seeds - 1) * 0.4 * np.sqrt(1 + 1 / seeds)
        assert predicted(0.4, seeds - 1, seeds) == pytest.approx(expected)
    drawn = np.random.default_rng(0).normal(0.8, 0.02, (20_000, 4))
    means, stds = drawn[:, :3].mean(1), drawn[:, :3].std(1, ddof=1)
    widths = [spread_of(cell(mean, std, 3), [], None).width for mean, std in zip(means, stds, strict=True)]
    assert np.mean(np.abs(drawn[:, 3] - means) <= widths) == pytest.approx(0.95, abs=0.007)


def test_the_pooled_interval_covers_95_of_100_new_runs_of_a_row_with_one_seed():
    random, covered = np.random.default_rng(1), []
    for _ in range(4000):
        rows = [random.normal(mean, 0.02, 3) for mean in (0.2, 0.5, 0.9)]
        one, new = random.normal(0.7, 0.02, 2)
        single = cell(one, None, 1, name="single")
        table = [cell(row.mean(), row.std(ddof=1), 3, name=str(n)) for n, row in enumerate(rows)] + [single]
        spread = spread_of(single, table, None)
        covered.append(abs(new - one) <= spread.width)
    assert spread.source == "the deviation pooled over 3 rows with several seeds, 6 degrees of freedom"
    assert np.mean(covered) == pytest.approx(0.95, abs=0.015)


def test_two_seeds_pool_their_deviation_with_that_of_other_rows():
    two, other = cell(0.5, 0.01, 2), cell(0.6, 0.03, 3, name="other")
    pooled = np.sqrt((1 * 0.01**2 + 2 * 0.03**2) / 3)
    expected = scipy.stats.t.ppf(0.975, 3) * pooled * np.sqrt(1.5)
    assert spread_of(two, [two, other], None).width == pytest.approx(expected)


def test_counting_covers_at_least_95_of_100_new_runs():
    random = np.random.default_rng(2)
    for share in (0.1, 0.5, 0.97):
        first, new = random.binomial(1000, share, (2, 20_000)) / 1000
        widths = np.array([counted(value, 1000, 1) for value in np.unique(first)])[
            np.unique(first, return_inverse=True)[1]
        ]
        assert np.mean(np.abs(new - first) <= widths) > 0.945


def test_a_row_at_exactly_100_percent_leaves_room_for_a_few_images():
    full = cell(1.0, 0.0, 3, "train accuracy")
    spread = spread_of(full, [full, cell(0.99, 0.01, 3, "train accuracy", "other")], 50_000)
    assert 1 <= spread.width * 50_000 <= 6
    assert spread.source == "counting on 50,000 images, since all 3 seeds are equal"


def test_without_several_seeds_and_without_counting_only_an_equal_number_counts():
    spread = spread_of(cell(3.2, None, 1, "norm"), [], None)
    assert spread.width == 0
    assert "only the same printed number counts" in spread.source


def test_threads_are_set_back_after_a_run(published: Path, tmp_path: Path):
    import torch

    before = torch.get_num_threads()
    done = again(published, tmp_path / "runs", threads=min(2, os.cpu_count() or 1))
    assert torch.get_num_threads() == before
    assert done.runs[0].new.facts["provenance"]["cpu_threads"] == min(2, os.cpu_count() or 1)
