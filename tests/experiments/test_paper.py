import hashlib

import pytest

from rethinking.config import ExperimentConfig
from rethinking.experiments import figure1a, figure1b, figure1c, figure2b, table1, table4
from rethinking.experiments.paper import curve, read_table, table1_row
from rethinking.experiments.scale import SCALES, Study
from rethinking.experiments.time_to_overfit import Threshold, time_to_overfit
from rethinking.models import catalogue

# As the paper prints it: model, labels, random crop, weight decay, training and test accuracy in percent.
TABLE_1 = """
    small_inception       true    yes  yes  100.0   89.05
    small_inception       true    yes  no   100.0   89.31
    small_inception       true    no   yes  100.0   86.03
    small_inception       true    no   no   100.0   85.75
    small_inception       random  no   no   100.0   9.78
    small_inception_no_bn true    no   yes  100.0   83.00
    small_inception_no_bn true    no   no   100.0   82.00
    small_inception_no_bn random  no   no   100.0   10.12
    small_alexnet         true    yes  yes  99.90   81.22
    small_alexnet         true    yes  no   99.82   79.66
    small_alexnet         true    no   yes  100.0   77.36
    small_alexnet         true    no   no   100.0   76.07
    small_alexnet         random  no   no   99.82   9.86
    mlp_3x512             true    no   yes  100.0   53.35
    mlp_3x512             true    no   no   100.0   52.39
    mlp_3x512             random  no   no   100.0   10.48
    mlp_1x512             true    no   yes  99.80   50.39
    mlp_1x512             true    no   no   100.0   50.51
    mlp_1x512             random  no   no   99.34   10.61
"""
EPOCHS_TO_OVERFIT = {  # Figure 1b, at label corruption 0, 0.1, ..., 1
    "small_inception": [10, 16, 19, 22, 24, 25, 27, 29, 31, 36, 36],
    "small_alexnet": [31, 33, 34, 36, 38, 39, 41, 42, 44, 47, 48],
    "mlp_1x512": [28, 36, 40, 44, 47, 50, 54, 54, 55, 56, 55],
}
TEST_ERRORS = {  # Figure 1c, at the same levels
    "small_inception": [0.1285, 0.2778, 0.4065, 0.5238, 0.6288, 0.7097, 0.7848, 0.8406, 0.8786, 0.9018, 0.9018],
    "small_alexnet": [0.3011, 0.4118, 0.5218, 0.6191, 0.6916, 0.7634, 0.8204, 0.858, 0.8811, 0.8905, 0.9014],
    "mlp_1x512": [0.4951, 0.5848, 0.6572, 0.7186, 0.757, 0.7961, 0.8654, 0.8654, 0.8835, 0.8944, 0.8982],
}
READ_OFF = {  # of Figures 1a, 2a and 2b the beginning of SHA-256
    "figure1a": "2dd515f7be8290dd",
    "figure2a": "02b189833894791f",
    "figure2b": "fd81fd85fe7c7cbb",
}
STUDY = Study(SCALES["full"], SCALES["full"].models, {})


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


def test_table_1_is_the_papers_row_by_row():
    names = ("model", "labels", "random_crop", "weight_decay", "train_accuracy", "test_accuracy")
    written = [line.split() for line in TABLE_1.strip().splitlines()]
    assert [[row[name] for name in names] for row in read_table("table1")] == written


def test_table_1_shows_each_of_the_papers_numbers_beside_the_run_it_is_of():
    shown = [
        [
            row.config.model_name,
            {"none": "true", "random_labels": "random"}[row.config.randomization],
            "yes" if row.config.random_crop else "no",
            "no" if row.config.weight_decay == 0.0 else "yes",
            row.paper["train accuracy"],
            row.paper["test accuracy"],
        ]
        for row in table1.rows(STUDY)
    ]
    for row, line in zip(shown, TABLE_1.strip().splitlines(), strict=True):
        *words, train, test = line.split()
        assert row == [*words, pytest.approx(float(train) / 100), pytest.approx(float(test) / 100)]


def test_table_4_is_the_papers_row_by_row():
    assert [[*row.values()] for row in read_table("table4")] == [
        ["small_inception", "weight_decay", "100"],
        ["small_alexnet", "weight_decay", "failed to converge"],
        ["mlp_3x512", "weight_decay", "100"],
        ["mlp_1x512", "weight_decay", "99.21"],
        ["small_inception", "random_crop", "99.93"],
        ["small_inception", "flip_and_rotate", "99.28"],
    ]
    options = [
        (row.config.model_name, row.config.weight_decay, row.config.random_crop, row.config.augment_flip_rotate)
        for row in table4.rows(STUDY)
    ]
    assert options == [
        ("small_inception", "default", False, False),
        ("small_alexnet", "default", False, False),
        ("mlp_3x512", "default", False, False),
        ("mlp_1x512", "default", False, False),
        ("small_inception", 0.0, True, False),
        ("small_inception", 0.0, False, True),
    ]


def test_table_3_is_the_papers_row_by_row():
    assert [[*row.values()] for row in read_table("table3")] == [
        ["mnist", "none", "no", "1.2", "220"],
        ["mnist", "gabor_filters", "no", "0.6", "390"],
        ["cifar10", "none", "no", "46", ""],
        ["cifar10", "random_convnet", "no", "17", ""],
        ["cifar10", "random_convnet", "yes", "15", ""],
    ]


def test_figure_1b_has_the_papers_epochs_at_every_level():
    for model, epochs in EPOCHS_TO_OVERFIT.items():
        assert [*figure1b.CURVES[model, "epochs to overfit"].items()] == [
            (level / 10, epoch) for level, epoch in enumerate(epochs)
        ]
        ratios = [*figure1b.CURVES[model, "relative time to overfit"].values()]
        assert ratios == pytest.approx([epoch / epochs[0] for epoch in epochs], abs=2e-3)


@pytest.mark.parametrize(
    ("condition", "epochs"),
    [
        ("true_labels", (1, 8, 12)),
        ("shuffled_pixels", (4, 13, 16)),
        ("gaussian_pixels", (13, 20, 22)),
        ("random_pixels", (14, 21, 24)),
        ("random_labels", (26, 35, 37)),
    ],
)
def test_figure_1as_curves_reach_each_loss_when_the_papers_do(condition, epochs):
    losses = figure1a.CURVES[condition, "training loss"]
    assert [*losses] == [*range(1, 64)]
    metrics = [{"epoch": epoch, "train_loss": loss} for epoch, loss in losses.items()]
    assert epochs == tuple(time_to_overfit(metrics, Threshold("train_loss", loss)) for loss in (1.0, 0.1, 0.01))
    steps = curve("figure1a", "epoch", "step", condition=condition)
    assert all(step == 391 * epoch for epoch, step in steps.items()), "ceil(50,000 / 128) an epoch"


def test_figure_1c_has_the_papers_error_at_every_level_up_to_chance():
    for model, errors in TEST_ERRORS.items():
        assert [*figure1c.CURVES[model, "test error"].items()] == [
            (level / 10, error) for level, error in enumerate(errors)
        ]
        assert errors[10] == pytest.approx(0.9, abs=0.002)


@pytest.mark.parametrize("name", READ_OFF)
def test_curves_of_many_points_are_as_they_were_read_off_the_paper(name):
    """Sums of hundreds of numbers, which were checked once, detect any change."""
    text = "\n".join(",".join(row.values()) for row in read_table(name))
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == READ_OFF[name]


def test_figure_2bs_training_accuracies_are_the_papers():
    trained = figure2b.PAPER["small_inception", "train accuracy"]
    first = [round(trained[epoch], 3) for epoch in (1, 2, 3, 4, 10)]
    assert first == pytest.approx([0.705, 0.811, 0.845, 0.886, 0.986], abs=6e-4)
