import pytest

from rethinking.config import ExperimentConfig
from rethinking.experiments.demo import CONFIGS
from rethinking.experiments.paper import read_table, table1_row
from rethinking.models import catalogue


def test_table_1_has_19_rows_of_the_five_models():
    rows = read_table("table1")
    assert len(rows) == 19
    assert {row["model"] for row in rows} == set(catalogue.PAPER)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"model_name": "small_inception"}, (1.0, 0.8575)),
        ({"model_name": "small_inception", "weight_decay": "default", "random_crop": True}, (1.0, 0.8905)),
        ({"model_name": "mlp_1x512", "randomization": "random_labels"}, (0.9934, 0.1061)),
        ({"model_name": "mlp_1x512", "randomization": "partial_corrupt", "corruption_prob": 1.0}, (0.9934, 0.1061)),
        ({"model_name": "mlp_1x512", "random_crop": True}, None),
        ({"model_name": "mlp_1x512", "weight_decay": 0.0001}, (0.998, 0.5039)),
        ({"model_name": "mlp_1x512", "weight_decay": 0.1}, None),
        ({"model_name": "small_inception", "augment_flip_rotate": True}, None),
        ({"model_name": "small_inception", "randomization": "shuffled_pixels"}, None),
        ({"model_name": "small_inception", "randomization": "partial_corrupt", "corruption_prob": 0.5}, None),
        ({"model_name": "small_inception", "randomization": "random_labels", "weight_decay": 0.1}, None),
    ],
)
def test_a_configuration_finds_its_row(options, expected):
    row = table1_row(ExperimentConfig(**options))
    assert (row and tuple(row)) == (expected and pytest.approx(expected))


def test_every_row_of_table_1_is_found_by_its_configuration():
    for row in read_table("table1"):
        config = ExperimentConfig(
            model_name=row["model"],
            randomization={"true": "none", "random": "random_labels"}[row["labels"]],
            random_crop=row["random_crop"] == "yes",
            weight_decay="default" if row["weight_decay"] == "yes" else 0.0,
        )
        found = table1_row(config)
        assert found is not None
        assert found.test_accuracy == pytest.approx(float(row["test_accuracy"]) / 100)


def test_the_demos_runs_differ_in_their_labels_alone():
    true, random = CONFIGS["true labels"], CONFIGS["random labels"]
    assert {name for name, value in true.to_dict().items() if random.to_dict()[name] != value} == {"randomization"}


def test_each_models_parameters_are_the_same_in_every_row():
    counts = {(row["model"], row["parameters"]) for row in read_table("table1")}
    assert len(counts) == len(catalogue.PAPER)


def test_accuracies_are_percentages_and_errors_fractions():
    for row in read_table("table1"):
        assert 99 <= float(row["train_accuracy"]) <= 100
        assert 9 <= float(row["test_accuracy"]) <= 90
    assert all(0 < float(row["test_error"]) < 1 for row in read_table("figure1c"))
    assert all(0 <= float(row["accuracy"]) <= 1 for row in read_table("figure2b"))


@pytest.mark.parametrize("figure", ["figure1b", "figure1c"])
def test_both_corruption_figures_have_the_same_eleven_levels_of_three_models(figure):
    rows = read_table(figure)
    for model in ("small_inception", "small_alexnet", "mlp_1x512"):
        levels = [float(row["label_corruption"]) for row in rows if row["model"] == model]
        assert levels == pytest.approx([level / 10 for level in range(11)])
    assert len(rows) == 33


def test_test_error_never_falls_as_more_labels_are_random():
    errors: dict[str, list[float]] = {}
    for row in read_table("figure1c"):
        errors.setdefault(row["model"], []).append(float(row["test_error"]))
    assert all(values == sorted(values) for values in errors.values())


def test_relative_times_are_whole_epochs_over_the_whole_baseline():
    rows = read_table("figure1b")
    baselines = {row["model"]: int(row["epochs_to_overfit"]) for row in rows if float(row["label_corruption"]) == 0}
    assert baselines == {"small_inception": 10, "small_alexnet": 31, "mlp_1x512": 28}
    for row in rows:
        ratio = int(row["epochs_to_overfit"]) / baselines[row["model"]]
        assert float(row["relative_time_to_overfit"]) == pytest.approx(ratio, abs=2e-3)


def test_figure_1a_has_an_epoch_a_point_in_all_five_conditions():
    curves: dict[str, list[tuple[int, int]]] = {}
    for row in read_table("figure1a"):
        curves.setdefault(row["condition"], []).append((int(row["epoch"]), int(row["step"])))
    assert len(curves) == 5
    assert all(points == [(epoch, 391 * epoch) for epoch in range(1, 64)] for points in curves.values())
