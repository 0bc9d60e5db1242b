import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rethinking import cli
from rethinking.config import ExperimentConfig
from rethinking.errors import InputError
from rethinking.options import options_of
from rethinking.options import parse as words_to_values
from rethinking.sweeps.options import parse as parse_runs
from tests.conftest import ROOT


def parse(*arguments: str) -> ExperimentConfig:
    return cli.parse(list(arguments))[0]


def test_no_option_is_the_papers_baseline():
    assert parse() == ExperimentConfig()


def test_options_read_with_underscores_and_with_hyphens():
    written = ["--num_epochs", "7", "--lr_schedule", "cosine", "--random_crop", "--weight_decay", "default"]
    hyphens = [part.replace("_", "-") if part.startswith("--") else part for part in written]
    assert parse(*written) == parse(*hyphens)
    assert parse(*written).num_epochs == 7
    assert parse("--num-epochs=7") == parse("--num_epochs", "7")
    assert parse("--random_crop", "--no_random_crop") == parse("--random-crop", "--no-random-crop") == parse()


def test_a_switch_that_begins_with_no_is_turned_off_by_its_name_without_it():
    assert parse_runs(["--no_wait"]).no_wait
    assert not parse_runs(["--no_wait", "--wait"]).no_wait
    with pytest.raises(InputError, match="--wait turns it off"):
        parse_runs(["--no_wait=false"])


def test_the_last_of_a_repeated_option_counts():
    assert parse("--num_epochs", "7", "--num_epochs", "9").num_epochs == 9


def test_force_belongs_to_the_command_and_not_to_the_configuration():
    config, force = cli.parse(["--force"])
    assert force
    assert config == ExperimentConfig()


@pytest.mark.parametrize("form", [["--config", "{}"], ["--config={}"]])
def test_options_override_the_configuration_file_wherever_they_stand(tmp_path: Path, form):
    file = tmp_path / "run.yaml"
    file.write_text(ExperimentConfig(model_name="mlp_1x512", num_epochs=3, random_crop=True).to_yaml())
    loaded = [part.format(file) for part in form]
    assert parse(*loaded) == ExperimentConfig(model_name="mlp_1x512", num_epochs=3, random_crop=True)
    expected = ExperimentConfig(model_name="mlp_1x512", num_epochs=5, random_crop=False)
    assert parse(*loaded, "--num_epochs", "5", "--no_random_crop") == expected
    assert parse("--num_epochs", "5", "--no_random_crop", *loaded) == expected


def test_an_overridden_option_drops_the_dependent_values_of_the_file(tmp_path: Path):
    """A run's config.yaml is resolved: it has a decay and a corruption probability."""
    file = tmp_path / "run.yaml"
    resolved = ExperimentConfig(randomization="partial_corrupt", corruption_prob=0.5).resolved()
    file.write_text(resolved.to_yaml())
    loaded = ("--config", str(file))
    assert parse(*loaded) == resolved
    assert parse(*loaded, "--lr_schedule", "cosine").lr_decay is None
    assert parse(*loaded, "--randomization", "random_labels").corruption_prob is None
    assert parse(*loaded, "--lr_decay", "0.9", "--corruption_prob", "0.7").lr_decay == 0.9
    with pytest.raises(InputError, match="lr_decay goes with lr_schedule exponential, not cosine; leave it out"):
        parse(*loaded, "--lr_schedule", "cosine", "--lr_decay", "0.9")


def test_a_configuration_file_reads_with_hyphens_too(tmp_path: Path):
    (tmp_path / "run.yaml").write_text("random-crop: true\nlr-schedule: cosine\n")
    assert parse("--config", str(tmp_path / "run.yaml")) == ExperimentConfig(random_crop=True, lr_schedule="cosine")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--modle", "mlp_1x512"], "unknown option '--modle'; did you mean '--model'?"),
        (["--num-epoch", "3"], "unknown option '--num-epoch'; did you mean '--num_epochs'?"),
        (["--randomcrop"], "unknown option '--randomcrop'; did you mean '--random_crop'?"),
        (["--xyzzy"], "unknown option '--xyzzy'; --help lists all"),
        (["mlp_1x512"], "unknown option 'mlp_1x512'"),
        (["--model", "small_inceptoin"], "did you mean 'small_inception'?"),
        (["--randomization", "shufled_pixels"], "did you mean 'shuffled_pixels'?"),
        (["--lr_schedule", "cosin"], "did you mean 'cosine'?"),
        (["--precision", "fp16"], "precision must be one of auto, fp32, tf32, bf16"),
        (["--device", "gpu"], "device must be one of auto, cpu, cuda, cuda:N, mps"),
        (["--num_epochs", "many"], "--num_epochs takes INT, not 'many': epochs to train"),
        (["--num_epochs", "1.5"], "--num_epochs takes INT, not '1.5'"),
        (["--num_epochs"], "--num_epochs needs a value"),
        (["--train_subset", "x"], "--train_subset takes N, not 'x': train on the first N images of a fixed shuffle"),
        (["--help2"], "did you mean '--help'?"),
        (["--weight_decay", "defualt"], "did you mean 'default'?"),
        (["--num_epochs", "0"], "num_epochs must be at least 1, not 0"),
        (["--batch_size", "-4"], "batch_size must be at least 1, not -4"),
        (["--lr", "fast"], "--lr takes FLOAT, not 'fast': initial learning rate (Appendix A)"),
        (["--lr", "0"], "learning_rate must be a number above 0"),
        (["--weight_decay", "some"], "weight_decay must be a number, or 'default'"),
        (["--randomization", "partial_corrupt", "--corruption_prob", "1.5"], "corruption_prob must be between 0 and 1"),
        (["--randomization", "partial_corrupt"], "needs a corruption_prob"),
        (["--corruption_prob", "0.5"], "corruption_prob goes with randomization partial_corrupt"),
        (["--config"], "--config needs the path of a YAML file"),
        (["--config", "missing.yaml"], "cannot read missing.yaml: No such file or directory"),
        (["--random_crop", "yes"], "'yes'"),
        (["--config", "{run}", "--config", "{run}"], "--config was given twice"),
    ],
)
def test_every_mistake_is_one_helpful_line(tmp_path: Path, arguments, message):
    (tmp_path / "run.yaml").write_text(ExperimentConfig().to_yaml())
    arguments = [argument.format(run=tmp_path / "run.yaml") for argument in arguments]
    with pytest.raises(InputError) as error:
        parse(*arguments)
    text = str(error.value)
    assert message in text
    assert "\n" not in text
    assert not set("│╭╰─") & set(text)


def test_mistakes_end_with_status_2_one_line_and_no_folder(tmp_path: Path, train_command):
    for arguments in (["--modle", "x"], ["--dataset", "nowhere"], ["--model", "x"], ["--num_epochs", "x"]):
        ran = train_command(*arguments)
        assert ran.returncode == 2
        assert ran.stdout == ""
        assert len(ran.stderr.splitlines()) == 1
        assert ran.stderr.startswith("error: ")
    assert list(tmp_path.iterdir()) == []


def test_help_groups_the_options_and_gives_defaults_and_sources(train_command):
    ran = train_command("--help")
    assert ran.returncode == 0
    for expected in (
        "model options",
        "data options",
        "randomization options",
        "regularization options",
        "optimization options",
        "hardware options",
        "output options",
        "(default: 128)",
        "Figures 1a and 2b",
        "Appendix A",
        "Table 4",
        "--config",
        "--force",
    ):
        assert expected in " ".join(ran.stdout.split())
    for spec in ExperimentConfig.__dataclass_fields__.values():
        assert (f"--{spec.metadata['flag'] or spec.name}" in ran.stdout) is not spec.metadata["recorded"]


def test_help_does_not_wait_for_pytorch():
    code = "import sys; from rethinking.cli import parse; parse([]); print('torch' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "False"


def test_the_installed_command_trains(tmp_path: Path):
    command = Path(sys.executable).parent / "rethinking"
    arguments = ["--model", "mlp_1x512", "--dataset", "digits", "--num_epochs", "1"]
    ran = subprocess.run([command, "train", *arguments], cwd=tmp_path, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert len(list((tmp_path / "runs").iterdir())) == 1


@pytest.mark.parametrize(("arguments", "status"), [([], 0), (["--help"], 0), (["trian"], 2), (["demo", "--fast"], 2)])
def test_the_installed_command_knows_its_commands(arguments, status, capsys):
    with pytest.raises(SystemExit) as exit_:
        cli.main(arguments)
    assert exit_.value.code == status
    if arguments == ["trian"]:
        assert capsys.readouterr().err == "error: unknown command 'trian'; did you mean 'train'?\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_waits_for_the_imports(number, capsys):
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    imported = False
    with pytest.raises(SystemExit) as exit_, cli._one_line_errors(), cli._whole_imports():  # noqa: PT012
        os.kill(os.getpid(), number)
        imported = True
    assert imported
    assert exit_.value.code == 128 + number
    assert capsys.readouterr().err.strip() == "stopped; run the same command again to continue"
    signal.signal(signal.SIGINT, handlers[0])
    signal.signal(signal.SIGTERM, handlers[1])


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (MemoryError(), "not enough memory"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), "not enough memory"),
        (OSError(28, "No space left on device", "figure.png"), "figure.png: No space left on device"),
    ],
)
def test_failures_of_the_machine_are_one_line_errors_with_status_1(error, message, capsys):
    with pytest.raises(SystemExit) as exit_, cli._one_line_errors():
        raise error
    assert exit_.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_help_into_a_closed_pipe_is_silent(tmp_path: Path):
    command = f"{sys.executable} {ROOT / 'train.py'} --help | head -1"
    ran = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True)
    assert ran.stderr == ""


@pytest.mark.parametrize(
    "command",
    [
        "test",
        "train",
        "examples",
        "memorization",
        "randomize-labels",
        "sweep",
        "reproduce",
        "verify",
        "keep",
        "cache",
        "demo",
    ],
)
def test_every_command_has_help_and_the_version_is_printed(command, capsys):
    for arguments in ([command, "--help"], ["--version"]):
        with pytest.raises(SystemExit) as exit_:
            cli.main(arguments)
        assert not exit_.value.code
        said = capsys.readouterr().out
        assert said.startswith(f"usage: rethinking {command}" if "--help" in arguments else "rethinking 0.")


OPTIONS = {
    "train": """--model --model_options --init --dataset --data_root --resize --colour --holdout --skip_unlabelled
        --image_column --label_column --labels --labels_column --train_subset --subset_share --subset_seed --left_out
        --crop_size --min_std
        --pixel_noise --replaced_example --randomization --randomization_options --corruption_prob
        --randomization_seed --corrupt_test_labels --weight_decay --weight_decay_on --random_crop
        --augment_flip_rotate --num_epochs --batch_size --optimizer --lr --momentum --lr_schedule --lr_decay
        --warmup_epochs --seed --eval_train_every --eval_test_every --stop_when_fit --device --precision --compile
        --images_in_memory --runs_dir --keep_test_losses --record_examples --record_evaluated_examples
        --record_test_examples --use_tensorboard --use_wandb --wandb_project --wandb_entity --config --force""",
    "test": """NETWORK --labels --pixels --seeds --epochs --budget --lr --holdout --eval_test_every --out
        --model_options --init --dataset --data_root --resize --colour --skip_unlabelled --image_column
        --label_column --train_subset --crop_size --min_std --pixel_noise --weight_decay
        --weight_decay_on --random_crop --augment_flip_rotate --batch_size --optimizer --momentum --lr_schedule
        --lr_decay --warmup_epochs --eval_train_every --device --precision --compile --images_in_memory --runs_dir
        --record_examples --record_evaluated_examples --use_tensorboard --use_wandb --wandb_project --wandb_entity""",
    "reproduce": """NAME RUN --dataset --data_root --resize --colour --holdout --skip_unlabelled --image_column
        --label_column --models --scale --seeds --filters --filter_options --bandwidth --memory_limit --device
        --precision --at_once --ray --runs_shared --dry_run --show_only --no_wait --out --runs_dir""",
    "sweep": """--config --out --zip --rows --columns --x --y --curves --device --precision --at_once --ray
        --runs_shared --dry_run --show_only --no_wait --runs_dir""",
    "verify": """RESULTS --table --row --quantity --x --seeds --dataset --data_root --runs_dir --device --precision
        --threads --dry_run""",
    "keep": "RESULTS RUN",
    "examples": "RUN --of --score --out",
    "memorization": "RUN --out",
    "randomize-labels": """FILE --dataset --data_root --resize --colour --holdout --skip_unlabelled --image_column
        --label_column --randomization --randomization_options --corruption_prob --randomization_seed""",
    "cache": "--remove --remove_all",
    "demo": "",
}


def test_the_options_of_every_command_are_these():
    """A new option must be added here and in CHANGELOG.md; no option is ever removed."""
    from rethinking.experiments.reproduction import Reproduction
    from rethinking.instrument.battery import all_options
    from rethinking.sweeps import options as of_sweep

    kinds = {
        "train": (ExperimentConfig, cli.Training),
        "reproduce": (Reproduction,),
        "verify": (cli.Verifying,),
        "keep": (cli.Keeping,),
        "examples": (cli.Scoring,),
        "memorization": (cli.Remembering,),
        "cache": (cli.Caching,),
        "demo": (cli.NoOptions,),
    }
    options = {name: [option for kind in of for option in options_of(kind)] for name, of in kinds.items()}
    of_labels = [option for option in options["train"] if option.name in cli.OF_LABELS]
    options["randomize-labels"] = [*options_of(cli.WritingLabels), *of_labels]
    options["test"] = all_options()
    options["sweep"] = of_sweep.own_options()
    there = {
        name: [option.metavar if option.positional else f"--{option.flag}" for option in of]
        for name, of in options.items()
    }
    assert there == {name: words.split() for name, words in OPTIONS.items()}
    of_runs = {option.flag for option in of_sweep.all_options()} - {option.flag for option in options["sweep"]}
    of_train = {option.flag for option in options["train"]} - {option.flag for option in options["sweep"]}
    assert of_runs == of_train - {"force"}, "every option of a run takes several values"


@pytest.mark.parametrize(
    ("written", "value"),
    [("-1e-5", -1e-5), ("-inf", float("-inf")), ("-.5", -0.5), ("1_000", 1000.0)],
)
def test_numbers_that_look_like_options_are_numbers(written, value):
    (lr,) = [option for option in options_of(ExperimentConfig) if option.flag == "lr"]
    assert words_to_values([lr], "train.py", "", ["--lr", written]) == {"learning_rate": value}
    assert words_to_values([lr], "train.py", "", [f"--lr={written}"]) == {"learning_rate": value}


def test_none_resets_an_option_of_the_configuration_file(tmp_path: Path):
    (tmp_path / "run.yaml").write_text("train_subset: 100\n")
    assert parse("--config", str(tmp_path / "run.yaml"), "--train_subset", "None").train_subset is None


def test_resolved_defaults_of_a_network_are_dropped_for_another_network(tmp_path: Path):
    file = tmp_path / "run.yaml"
    file.write_text(ExperimentConfig(model_name="small_inception").resolved().to_yaml())
    changed = parse("--config", str(file), "--model", "mlp_1x512")
    assert (changed.init, changed.learning_rate) == (None, None)
    file.write_text(ExperimentConfig(model_name="small_inception", init="xavier", learning_rate=0.02).to_yaml())
    kept = parse("--config", str(file), "--model", "mlp_1x512")
    assert (kept.init, kept.learning_rate) == ("xavier", 0.02)


def test_an_option_that_takes_several_values_takes_at_least_one():
    from rethinking.experiments.reproduction import Reproduction

    for option in ("--models", "--seeds", "--filters"):
        with pytest.raises(InputError, match=f"{option} needs a value"):
            words_to_values(options_of(Reproduction), "reproduce.py", "", ["table1", option])
