"""Grids: options with several values and the configurations that they make, and the options of `rethinking sweep`."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rethinking.config import ExperimentConfig
from rethinking.errors import InputError
from rethinking.experiments import figure1b
from rethinking.experiments.scale import SCALES, Study
from rethinking.sweeps.grid import Grid
from rethinking.sweeps.options import SweepOptions, asked, parse

POSSIBLE = {
    "learning_rate": st.floats(1e-4, 1.0),
    "batch_size": st.integers(1, 512),
    "random_crop": st.booleans(),
    "optimizer": st.sampled_from(["sgd", "adam", "adamw"]),
    "train_subset": st.one_of(st.none(), st.integers(1, 50)),
}


@given(st.data())
def test_a_grid_is_the_product_of_its_values_in_the_order_given(data: st.DataObject):
    names = data.draw(st.lists(st.sampled_from(sorted(POSSIBLE)), unique=True, max_size=4))
    values = {name: data.draw(st.lists(POSSIBLE[name], min_size=1, max_size=3, unique=True)) for name in names}
    made = [one.config for one in Grid.of(values).combinations(model_name="mlp_1x512")]
    assert made == [
        ExperimentConfig(model_name="mlp_1x512", **dict(zip(names, point, strict=True)))
        for point in itertools.product(*values.values())
    ]


def test_zipped_options_go_together_and_stand_where_the_first_stands():
    grid = Grid.of({"lr": [0.1, 0.2], "seed": [0, 1], "batch_size": [10, 20]}, [("lr", "batch_size")])
    assert [(c.learning_rate, c.batch_size, c.seed) for _, c in grid.combinations()] == [
        (0.1, 10, 0),
        (0.1, 10, 1),
        (0.2, 20, 0),
        (0.2, 20, 1),
    ]


def test_a_value_may_return_beside_another_one_where_options_are_zipped():
    grid = Grid.of({"model": ["mlp_1x512", "mlp_1x512"], "lr": [0.1, 0.2]}, [("model", "lr")])
    assert [c.learning_rate for _, c in grid.combinations()] == [0.1, 0.2]
    with pytest.raises(InputError, match=r"^model mlp_1x512 with lr 0.1 is given twice; leave one out$"):
        Grid.of({"model": ["mlp_1x512", "mlp_1x512"], "lr": [0.1, 0.1]}, [("model", "lr")])


def test_corruption_prob_alone_gives_the_runs_of_figure_1b():
    """The figure's own rows, at the levels 0, 5 and 10 of its demo."""
    study = Study(SCALES["demo"], ("mlp_1x512",), {})
    options = {"model": "mlp_1x512", "dataset": "digits", "num_epochs": 150, "lr_decay": 1.0, "stop_when_fit": True}
    swept = Grid.of({**options, "corruption_prob": [0, 0.5, 1]}).combinations()
    assert [one.config for one in swept] == [row.config for row in figure1b.rows(study)]
    (literal,) = Grid.of({"randomization": "partial_corrupt", "corruption_prob": 1}).combinations()
    assert (literal.config.randomization, literal.config.corruption_prob) == ("partial_corrupt", 1.0)


def test_where_nothing_is_drawn_the_seed_of_the_draws_changes_no_run():
    made = Grid.of({"corruption_prob": [0, 1], "randomization_seed": [0, 1]}).combinations()
    assert [one.config.randomization_seed for one in made] == [0, 0, 0, 1]
    noisy = Grid.of({"pixel_noise": 3, "randomization_seed": [0, 1]}).combinations()
    assert [one.config.randomization_seed for one in noisy] == [0, 1]


WORDS = "--model mlp_1x512 mlp_3x512 --lr 0.1 0.01 --random_crop true false --no_augment_flip_rotate --seed 0 1"
AS_YAML = """
model: [mlp_1x512, mlp_3x512]
learning-rate: [0.1, 1e-2]
random_crop: [true, false]
augment_flip_rotate: false
seed: [0, 1]
zip: [model, lr]
rows: seed
device: cpu
"""


def test_command_line_file_and_python_say_the_same(tmp_path: Path):
    (tmp_path / "grid.yaml").write_text(AS_YAML)
    rest = {"random_crop": (True, False), "augment_flip_rotate": False, "zip": ["model", "lr"], "rows": ["seed"]}
    in_python = asked({"model": ["mlp_1x512", "mlp_3x512"], "lr": np.array([0.1, 0.01]), **rest, "seed": range(2),
                       "device": "cpu"})  # fmt: skip
    on_line = parse([*WORDS.split(), "--zip", "model", "lr", "--rows", "seed", "--device", "cpu"])
    in_file = parse(["--config", str(tmp_path / "grid.yaml")])
    assert len(in_python.combinations) == 8
    assert in_python.combinations == on_line.combinations == in_file.combinations
    assert in_python.table_rows == on_line.table_rows == in_file.table_rows == ("seed", "model_name", "learning_rate",
                                                                                "random_crop")  # fmt: skip


def test_the_command_line_overrides_the_file(tmp_path: Path):
    file = tmp_path / "grid.yaml"
    file.write_text("lr_schedule: exponential\nlr_decay: [0.9, 0.8]\nbatch_size: [1, 2]\nat_once: 2\ndevice: cpu\n")
    made = parse([f"--config={file}", "--lr-schedule", "cosine", "--batch_size=3", "--at_once", "auto"])
    assert (made.at_once, made.device) == ("auto", ("cpu",))
    ((_, config),) = made.combinations
    assert (config.lr_schedule, config.lr_decay, config.batch_size) == ("cosine", None, 3)
    config.resolved()  # the file's decay belongs to the schedule that is overridden
    saved = ExperimentConfig(model_name="mlp_1x512", learning_rate=0.01, init="he")
    (tmp_path / "config.yaml").write_text(saved.to_yaml())
    ((_, same),) = parse(["--config", str(tmp_path / "config.yaml")]).combinations
    assert same == saved
    ((_, other),) = parse(["--config", str(tmp_path / "config.yaml"), "--model", "small_inception"]).combinations
    assert (other.learning_rate, other.init) == (None, None)


MISTAKES = [
    ("--lr 0.1 0.10", "lr 0.1 is given twice; leave one out"),
    ("--sedes 0 1", "unknown option '--sedes'; did you mean '--seed'?"),
    ("--model mlp_1x51", "did you mean 'mlp_1x512'?"),
    ("--optimizer sgd adm", "optimizer must be one of sgd, adam, adamw, not 'adm'; did you mean 'adam'?"),
    ("--randomization none random_label", "did you mean 'random_labels'?"),
    ("--lr 0.1 fast", "--lr takes"),
    ("--lr", "--lr needs a value"),
    ("--random_crop true maybe", "--random_crop takes true|false"),
    ("--no_random_crop false", "--no_random_crop takes no value, not 'false'; give --random_crop"),
    ("--corruption_prob 0 2", "corruption_prob must be between 0 and 1, not 2.0"),
    ("--precision fp8", "precision must be one of auto, fp32, tf32, bf16, not 'fp8'"),
    ("--device cpu gpu", "device must be one of"),
    ("--zip lr batch_size --lr 0.1 0.2 --batch_size 1", "need the same number of values, not 2 of lr, 1 of batch_size"),
    ("--zip lr batch_size --lr 0.1 0.2", "zip has batch_size, which has no values; give --batch_size"),
    ("--zip lr bach_size --lr 1 2", "there is no option 'bach_size' of a run; did you mean 'batch_size'?"),
    ("--zip lr --lr 1 2", "zip takes two or more options"),
    ("--zip lr device --lr 1 2", "device belongs to the whole sweep"),
    ("--seed 0 --model mlp_1x512 --seed 1", "--seed is given twice; give it once, with all its values"),
    ("--random_crop --no_random_crop", "--random_crop is given twice"),
    ("--zip lr seed --zip lr batch_size --lr 1 2 --seed 1 2 --batch_size 1 2", "zip has lr twice"),
    ("--rows lr --columns lr --lr 1 2", "rows and columns have lr twice"),
    ("--x lr --curves lr --lr 1 2", "x and curves have lr twice"),
    ("--x model --model mlp_1x512 mlp_3x512", "x needs an option whose values are numbers"),
    ("--x random_crop --random_crop true false", "x needs an option whose values are numbers"),
    ("--x lr", "x is lr, which has no values; give --lr"),
    ("--y test_acuracy", "did you mean 'test_accuracy'?"),
    ("--config none.yaml", "cannot read none.yaml"),
]  # fmt: skip


@pytest.mark.parametrize(("words", "said"), MISTAKES, ids=[words for words, _ in MISTAKES])
def test_each_mistake_is_one_helpful_line(words: str, said: str):
    with pytest.raises(InputError) as error:
        parse(words.split())
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("lrr: [1, 2]", "unknown option 'lrr'; did you mean 'lr'?"),
        ("lr: []", "lr has no value"),
        ("lr: [0.1]\nlearning_rate: [0.2]", "the option learning_rate is given twice, once under each of its names"),
        ("zip:\nlr: [1, 2]", "zip takes OPTION ..., not None"),
        ("zip: 5", "zip takes OPTION ..., not 5"),
        ("zip: [[lr, seed], [lr, batch_size]]\nlr: [1, 2]\nseed: [1, 2]\nbatch_size: [1, 2]", "zip has lr twice"),
        ("- 1\n- 2", "must hold lines of 'option: value'"),
        ("random_crop: [yes please]", "random_crop must be true or false, not 'yes please'"),
    ],
)
def test_each_mistake_in_a_file_is_one_helpful_line(tmp_path: Path, content: str, said: str):
    (tmp_path / "grid.yaml").write_text(content)
    with pytest.raises(InputError) as error:
        parse(["--config", str(tmp_path / "grid.yaml")])
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (
            {"lr_schedule": ["exponential", "cosine", "step"], "lr_decay": [None, 0.9], "seed": [0, 1]},
            r"4 of 12 combinations do not fit together: lr_schedule cosine with lr_decay 0.9; lr_schedule step with"
            r" lr_decay 0.9: lr_decay goes with",
        ),
        (
            {"lr_schedule": ["exponential", "cosine"], "lr_decay": 0.9},
            r"1 of 2 combinations does not fit together: lr_schedule cosine: lr_decay goes with",
        ),
        ({"lr_schedule": ["step", "cosine"], "lr_decay": 0.9}, r"^lr_decay"),
        ({"lr_schedule": "cosine", "lr_decay": 0.9}, r"lr_decay goes with lr_schedule exponential, not cosine"),
        (
            {"randomization": ["partial_corrupt", "none"], "corruption_prob": [0.2, 0.5]},
            r"2 of 4 combinations do not fit together: randomization none: corruption_prob goes with",
        ),
    ],
)
def test_options_that_do_not_fit_together_are_named_in_one_line(values: dict[str, Any], said: str):
    with pytest.raises(InputError, match=f"^{said}"):
        asked(values)


GRID = {"model": ["mlp_1x512", "mlp_3x512"], "lr": [0.1, 0.2], "batch_size": [1, 2], "seed": [0, 1]}


@pytest.mark.parametrize(
    ("options", "rows", "columns", "x", "curves", "means"),
    [
        ({}, "model lr batch_size", "", "lr", "model batch_size", "seed"),
        ({"columns": "batch_size"}, "model lr", "batch_size", "lr", "model batch_size", "seed"),
        ({"rows": ["seed", "lr"]}, "seed lr model batch_size", "", "lr", "seed model batch_size", ""),
        ({"x": "seed"}, "model lr batch_size seed", "", "seed", "model lr batch_size", ""),
        ({"curves": "lr"}, "model lr batch_size", "", "batch_size", "lr model", "seed"),
        ({"zip": ["lr", "batch_size"]}, "model lr batch_size", "", "lr", "model", "seed"),
        ({"zip": ["lr", "batch_size"], "columns": "lr"}, "model", "lr batch_size", "lr", "model", "seed"),
        ({"zip": ["lr", "seed"]}, "model lr batch_size", "", "lr", "model batch_size", "seed"),
        ({"columns": ["model", "lr", "batch_size"]}, "dataset", "model lr batch_size", "lr", "model batch_size dataset",
         "seed"),
        ({"rows": "num_epochs"}, "num_epochs model lr batch_size", "", "lr", "num_epochs model batch_size", "seed"),
    ],
)  # fmt: skip
def test_what_varies_is_named_in_table_and_figure_and_only_seeds_are_averaged(
    options: dict[str, Any], rows: str, columns: str, x: str, curves: str, means: str
):
    made = asked({**GRID, **options})
    field = {"model": "model_name", "lr": "learning_rate"}

    def fields(words: str) -> tuple[str, ...]:
        return tuple(field.get(word, word) for word in words.split())

    assert made.table_columns == fields(columns)
    assert set(made.table_rows) == set(fields(rows))
    assert made.table_rows[: len(made.in_rows)] == made.in_rows
    assert made.figure_x == field.get(x, x)
    assert set(made.figure_curves) == set(fields(curves))
    assert made.means_over == fields(means)


def test_a_grid_without_numbers_has_no_figure():
    assert asked({"model": ["mlp_1x512", "mlp_3x512"], "lr": [None, 0.1]}).figure_x is None
    assert asked({"seed": [0, 1]}).figure_x is None


def test_every_option_of_train_takes_several_values_but_those_of_the_list():
    taken = {one.name for one in SweepOptions.__dataclass_fields__.values()}
    assert {"device", "precision", "runs_dir", "ray", "at_once", "out", "dry_run"} <= taken
    for name in ("device", "precision", "runs_dir"):
        with pytest.raises(InputError, match="belongs to the whole sweep"):
            Grid.of({name: ["a", "b"]})


def test_true_in_python_is_an_option_without_its_value():
    assert [asked({"ray": value}).ray for value in (True, False, None, "auto")] == ["", None, None, "auto"]
    assert parse(["--ray"]).ray == ""
    with pytest.raises(InputError, match="dry_run takes True or False, not 1"):
        asked({"dry_run": 1})


def test_options_are_checked_and_help_is_printed_without_pytorch(tmp_path: Path):
    program = (
        "import sys; from rethinking.cli import main\ntry: main(sys.argv[1:])\nfinally: print('torch' in sys.modules)"
    )
    for words, status in ((["--help"], 0), (["--lr", "0.1", "0.1"], 2)):
        ran = subprocess.run(
            [sys.executable, "-c", program, "sweep", *words], cwd=tmp_path, capture_output=True, text=True
        )
        assert ran.returncode == status, ran.stderr
        assert ran.stdout.splitlines()[-1] == "False"
    assert ran.stderr == "error: lr 0.1 is given twice; leave one out\n"
