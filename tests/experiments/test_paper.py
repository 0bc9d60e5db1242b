import pytest

from rethinking.config import MODEL_DEFAULTS, ExperimentConfig
from rethinking.experiments.demo import CONFIGS
from rethinking.experiments.paper import read_table, table1_row


def test_table_1_has_19_rows_of_the_five_models():
    rows = read_table("table1")
    assert len(rows) == 19
    assert {row["model"] for row in rows} == set(MODEL_DEFAULTS)


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
