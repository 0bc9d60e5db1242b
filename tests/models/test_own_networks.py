"""Networks of users: from a file, a module or Python, distinguished by their content, and reproducible."""

import dataclasses
import functools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import rethinking
from rethinking import ExperimentConfig, InputError, RunError, load_run, train, train_many
from rethinking.data import sources
from rethinking.identity import run_id
from rethinking.models import catalogue
from rethinking.seeding import global_streams
from rethinking.training.networks import untrained
from rethinking.training.preparation import resolve
from tests.conftest import ROOT

FEW = {"dataset": "digits", "train_subset": 100, "num_epochs": 2, "precision": "fp32", "use_tensorboard": False}

NETWORK = """
import torch
from torch import nn
from {beside} import Block

class Net(nn.Module):
    def __init__(self, channels, classes, width, dropout):
        super().__init__()
        self.block = Block(channels, width)
        self.scale = nn.Parameter(torch.randn(width, 1, 1))
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width, classes)

    def forward(self, images):
        return self.head(self.dropout((self.block(images) * self.scale).mean((2, 3))))

def net(num_classes, input_shape, width=8, dropout=0.2):
    return Net(input_shape[0], num_classes, width, dropout)
"""
BLOCK = """
from torch import nn

class Block(nn.Module):
    def __init__(self, channels, width):
        super().__init__()
        self.convolution = nn.Conv2d(channels, width, 3, padding=1)
        self.normalization = nn.BatchNorm2d(width)

    def forward(self, images):
        return self.normalization(self.convolution(images)).relu()
"""


def written(folder: Path, network: str = NETWORK, block: str = BLOCK, beside: str = "parts") -> str:
    """Writes the network above into a file in `folder`, and returns its path as for `--model`."""
    folder.mkdir(exist_ok=True)
    (folder / f"{beside}.py").write_text(block)
    (folder / "net.py").write_text(network.format(beside=beside))
    return f"{folder / 'net.py'}:net"


def configured(tmp_path: Path, model: str, **options: object) -> ExperimentConfig:
    return ExperimentConfig(**{**FEW, "model_name": model, "runs_dir": str(tmp_path / "runs"), **options})


def small(num_classes: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 8), nn.ReLU(), nn.Linear(8, num_classes))


def test_a_file_and_two_options_are_enough(tmp_path: Path):
    model = written(tmp_path)
    command = [sys.executable, str(ROOT / "train.py"), "--model", "net.py:net", "--model_options", "width=4"]
    command += ["--dataset", "digits", "--train_subset", "100", "--num_epochs", "1", "--precision", "fp32"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert f"network: {model}" in ran.stdout
    assert "explicit regularization within the network: dropout 0.2" in ran.stdout
    (run,) = (tmp_path / "runs").iterdir()
    assert run.name.startswith("net-digits-none-seed0-")
    assert load_run(run).network().head.in_features == 4


@pytest.mark.parametrize(
    "model", ["tests.models.test_own_networks:small", f"{__file__}:small", "rethinking.models.mlp:mlp_1x512"]
)
def test_functions_of_modules_and_files_are_found(tmp_path: Path, model):
    assert train(configured(tmp_path, model)).finished


@pytest.mark.parametrize(
    ("build", "weights"),
    [
        (lambda num_classes, input_shape: nn.Sequential(nn.Flatten(), nn.Linear(784, num_classes)), 10),
        (lambda: nn.Sequential(nn.Flatten(), nn.Linear(784, 10)), 10),
        (lambda **options: nn.Sequential(nn.Flatten(), nn.Linear(784, options["num_classes"])), 10),
        (functools.partial(small), 8),
        (lambda num_classes: nn.Sequential(nn.Flatten(), nn.LazyLinear(num_classes)), 10),
    ],
)
def test_a_function_is_given_what_it_has_parameters_for(tmp_path: Path, build, weights):
    result = train(configured(tmp_path, "mlp_1x512"), model=build)
    assert next(result.network().parameters()).shape == (weights, 784)


def test_a_registered_network_has_its_own_defaults(tmp_path: Path):
    @catalogue.register("registered_here", learning_rate=0.03, weight_decay=0.25, init="xavier", sides=(20, 40))
    def registered(num_classes: int) -> nn.Module:
        return small(num_classes)

    config = train(configured(tmp_path, "registered_here", weight_decay="default")).config
    assert (config.learning_rate, config.weight_decay, config.init, config.crop_size) == (0.03, 0.25, "xavier", 28)
    with pytest.raises(InputError, match="crop_size must be between 20 and 40, not 41"):
        configured(tmp_path, "registered_here", crop_size=41)
    with pytest.raises(ValueError, match="'small_alexnet' is the package's own"):
        catalogue.register("small_alexnet")(small)


# What it is


def run_name(tmp_path: Path, model: str, **options: object) -> str:
    data = sources.load("digits")
    config = resolve(configured(tmp_path, model, **options), data)
    return run_id(config, data.name, data.fingerprint)


def test_another_width_forward_or_imported_file_is_another_run_and_another_folder_or_comment_is_not(tmp_path: Path):
    name = run_name(tmp_path, written(tmp_path / "first"))
    assert run_name(tmp_path, written(tmp_path / "other")) == name, "the same files in another folder"
    assert run_name(tmp_path, written(tmp_path / "first", NETWORK + "\n# a remark\n")) == name
    changed = {
        "option": run_name(tmp_path, written(tmp_path / "first"), model_options="width=9"),
        "forward": run_name(tmp_path, written(tmp_path / "a", NETWORK.replace("* self.scale", "+ self.scale"))),
        "default": run_name(tmp_path, written(tmp_path / "b", NETWORK.replace("width=8", "width=7"))),
        "neighbour": run_name(
            tmp_path, written(tmp_path / "c", block=BLOCK.replace(".relu()", ".sigmoid()"), beside="parts_c")
        ),
        "seed": run_name(tmp_path, written(tmp_path / "first"), seed=1),
    }
    assert len({name, *changed.values()}) == 1 + len(changed), changed


def test_options_are_the_same_in_any_order_and_from_a_mapping(tmp_path: Path):
    text = configured(tmp_path, "x.py:f", model_options="width=4,  dropout = 0.5")
    assert text == configured(tmp_path, "x.py:f", model_options={"dropout": 0.5, "width": 4})
    assert text.model_options == "dropout=0.5, width=4"


def test_a_network_that_differs_in_a_closure_is_another_run(tmp_path: Path):
    def of_width(width: int) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(784, width), nn.Linear(width, 10))

    paths = {train(configured(tmp_path, "mlp_1x512"), model=lambda w=w: of_width(w)).path for w in (3, 4)}
    assert len(paths) == 2


def test_the_papers_networks_keep_the_names_of_their_runs(tmp_path: Path):
    """These names are older than networks of users."""
    config = ExperimentConfig(
        model_name="mlp_1x512", dataset="digits", num_epochs=2, device="cpu", precision="bf16", runs_dir=str(tmp_path)
    )
    data = sources.load("digits")
    assert run_id(resolve(config, data), data.name, data.fingerprint) == ("mlp_1x512-digits-none-seed0-2b0f722969")


# Randomness


def records(result: rethinking.RunResult) -> list[dict[str, object]]:
    timings = ("seconds", "images_per_second")
    return [{name: value for name, value in record.items() if name not in timings} for record in result.metrics]


def test_the_same_command_gives_the_same_bits_whatever_was_drawn_before(tmp_path: Path):
    model = written(tmp_path)
    first = train(configured(tmp_path, model, runs_dir=str(tmp_path / "first")))
    torch.manual_seed(99)
    np.random.seed(99)
    torch.rand(7)
    before = torch.get_rng_state()
    second = train(configured(tmp_path, model, runs_dir=str(tmp_path / "second")))
    assert torch.equal(torch.get_rng_state(), before), "the caller's generators are left alone"
    assert records(first) == records(second)
    one, other = first.network().state_dict(), second.network().state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)


class StopAfter(rethinking.Observer):
    def __init__(self, epochs: int) -> None:
        self.epochs = epochs

    def epoch(self, record: dict[str, object]) -> None:
        if record["epoch"] == self.epochs:
            raise KeyboardInterrupt


def test_a_resumed_run_with_dropout_continues_bit_for_bit(tmp_path: Path):
    model = written(tmp_path)
    whole = train(configured(tmp_path, model, num_epochs=4, runs_dir=str(tmp_path / "whole")))
    config = configured(tmp_path, model, num_epochs=4, runs_dir=str(tmp_path / "stopped"))
    with pytest.raises(KeyboardInterrupt):
        train(config, observers=[StopAfter(2)])
    assert records(train(config)) == records(whole)


def test_initial_values_of_every_layer_depend_on_the_seed(tmp_path: Path):
    data = sources.load("digits")
    model = written(tmp_path)

    def initial(**options: object) -> dict[str, torch.Tensor]:
        return untrained(resolve(configured(tmp_path, model, **options), data), data).state_dict()

    own, again, he, other = initial(), initial(), initial(init="he"), initial(seed=1)
    assert all(torch.equal(own[name], again[name]) for name in own)
    assert torch.equal(he["scale"], own["scale"]), "no scheme names it"
    for name in ("head.weight", "block.convolution.weight"):
        assert not torch.equal(own[name], he[name])
        assert not torch.equal(own[name], other[name])
    assert not torch.equal(own["scale"], other["scale"])
    with global_streams(0, "construction"):
        built = catalogue.find(model).build(10, (1, 28, 28), {})
    assert all(torch.equal(own[name], tensor) for name, tensor in built.state_dict().items())


def test_a_network_that_differs_each_time_is_refused(tmp_path: Path):
    import secrets

    def restless(num_classes: int) -> nn.Module:
        model = small(num_classes)
        nn.init.constant_(model[1].bias, secrets.randbelow(2**20))
        return model

    with pytest.raises(InputError, match="builds a different network each time"):
        train(configured(tmp_path, "mlp_1x512"), model=restless)


def test_runs_of_an_own_network_go_one_by_one_and_equal_runs_alone(tmp_path: Path, caplog):
    configs = [configured(tmp_path, written(tmp_path), seed=seed) for seed in range(3)]
    with caplog.at_level("INFO"):
        together = [result for _, result in train_many(configs, at_once=3, stacked=False)]
    assert "one run after the other" in caplog.text
    alone = [train(dataclasses.replace(config, runs_dir=str(tmp_path / "alone"))) for config in configs]
    assert [records(result) for result in together] == [records(result) for result in alone]
    stacked = [dataclasses.replace(config, runs_dir=str(tmp_path / "stacked")) for config in configs]
    assert [records(result) for _, result in train_many(stacked, at_once=3, stacked=True)] == list(map(records, alone))


# What must not be silent


@pytest.mark.parametrize(
    ("layer", "told"),
    [
        (nn.Dropout(0.25), "dropout 0.25"),
        (nn.AlphaDropout(0.5), "AlphaDropout 0.5"),
        (nn.utils.parametrizations.weight_norm(nn.Linear(8, 8)), "weight norm"),
        (nn.utils.parametrizations.spectral_norm(nn.Linear(8, 8)), "spectral norm"),
        (nn.Dropout(0.0), None),
        (nn.BatchNorm1d(8), None),
    ],
)
def test_regularizers_within_a_network_are_explicit_regularization(tmp_path: Path, layer, told):
    import copy

    def build(num_classes: int) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(784, 8), copy.deepcopy(layer), nn.Linear(8, num_classes))

    result = train(configured(tmp_path, "mlp_1x512", train_subset=64), model=build)
    assert result.config.network_regularizers == told
    assert result.config.explicit_reg_off is (told is None)


class DropsInForward(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(784, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.linear(nn.functional.dropout(images.flatten(1), training=self.training))


def test_dropout_without_a_layer_is_seen_too(tmp_path: Path):
    result = train(configured(tmp_path, "mlp_1x512"), model=DropsInForward)
    assert not result.config.explicit_reg_off
    assert "random draws" in str(result.result["network"])


class Partly(nn.Module):
    """Has an unused layer, and two names for one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.unused = nn.Linear(784, 10), nn.Linear(3, 3)
        self.second, self.third = nn.Linear(10, 10), nn.Linear(10, 10)
        self.third.weight = self.second.weight

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.third(self.second(self.first(images.flatten(1)).relu()).relu())


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_unused_and_tied_parameters_are_trained_correctly(tmp_path: Path, optimizer):
    config = configured(tmp_path, "mlp_1x512", optimizer=optimizer, weight_decay=0.1)
    with pytest.raises(KeyboardInterrupt):
        train(config, model=Partly, observers=[StopAfter(1)])
    result = train(config, model=Partly)
    assert "parameters without a gradient are not trained: unused.weight, unused.bias" in result.result["network"]
    network, data = result.network(), sources.load("digits")
    assert torch.equal(network.unused.weight, untrained(result.config, data).unused.weight)
    assert network.third.weight is network.second.weight


class Auxiliary(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(784, 10)

    def forward(self, images: torch.Tensor) -> object:
        logits = self.linear(images.flatten(1))
        return (logits, logits) if self.training else logits


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (Auxiliary, "the network returns a tuple in training, not one tensor of logits; turn auxiliary outputs off"),
        (lambda: nn.Sequential(nn.Flatten(), nn.Linear(784, 1000)), r"logits of shape \(1, 1000\) for 1 image, not"),
        (lambda: nn.Sequential(nn.Flatten(), nn.Linear(3072, 10)), "fails in evaluation on 1 image of 1x28x28"),
        (
            lambda: nn.Sequential(nn.Flatten(), nn.Linear(784, 10), nn.BatchNorm1d(10)),
            "batch normalization takes no batch of one image; choose another batch_size or train_subset",
        ),
        (lambda: nn.Flatten(), "has no trainable parameter"),
        (lambda: "network", "must return a torch.nn.Module, not str"),
        (lambda depth: nn.Flatten(), "cannot be built: TypeError: .* missing 1 required positional argument: 'depth'"),
    ],
)
def test_an_untrainable_network_is_a_one_line_error_before_anything_is_written(tmp_path: Path, build, message):
    with pytest.raises(InputError, match=message) as error:
        train(configured(tmp_path, "mlp_1x512", train_subset=129), model=build)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        ("mlp_2x512", None, "or FILE.py:NAME or MODULE:NAME, not 'mlp_2x512'; did you mean 'mlp_[13]x512'?"),
        ("nowhere.py:net", None, "there is no file nowhere.py, which 'nowhere.py:net' names"),
        ("no.such.module:net", None, "cannot import 'no.such.module:net': ModuleNotFoundError"),
        ("{folder}/net.py:nte", None, "has no 'nte'; did you mean 'net'?"),
        ("{folder}/broken.py:net", None, "cannot import .*broken.py:net': SyntaxError"),
        ("{folder}/net.py:net", "depth=3", "unexpected keyword argument 'depth'"),
        ("{folder}/net.py:net", "8", "options must be literal values by name"),
        ("{folder}/net.py:net", "width=os.getpid()", "the option width must be a literal value"),
        ("mlp_1x512", "width=3", "model_options are for your own network; mlp_1x512 has no options"),
    ],
)
def test_a_wrong_path_or_option_is_one_helpful_line(tmp_path: Path, model, options, message):
    written(tmp_path)
    (tmp_path / "broken.py").write_text("def net(:\n")
    with pytest.raises(InputError, match=message) as error:
        train(configured(tmp_path, model.format(folder=tmp_path), model_options=options))
    assert "\n" not in str(error.value)


def convolutional(num_classes: int, input_shape: tuple[int, int, int]) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(input_shape[0], 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, num_classes)
    )


@pytest.mark.parametrize("augmented", [False, True])
@pytest.mark.parametrize(("height", "width"), [(12, 20), (9, 9), (40, 24)])
def test_images_of_any_shape_are_used_whole(tmp_path: Path, height, width, augmented):
    draws = np.random.default_rng(0)
    for split in ("train", "test"):
        for label in ("cat", "dog"):
            for number in range(6):
                folder = tmp_path / "images" / split / label
                folder.mkdir(parents=True, exist_ok=True)
                pixels = draws.integers(0, 256, (height, width, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    options = {"dataset": str(tmp_path / "images"), "train_subset": None}
    options |= {"random_crop": augmented, "augment_flip_rotate": augmented}
    result = train(configured(tmp_path, "mlp_1x512", **options), model=convolutional)
    assert result.config.crop_size is None
    shuffled = train(configured(tmp_path, "mlp_1x512", randomization="shuffled_pixels", **options), model=convolutional)
    assert shuffled.finished
    if min(height, width) >= 10:
        cropped = train(configured(tmp_path, f"{__file__}:convolutional", crop_size=10, **options))
        assert cropped.config.crop_size == 10


# Back


def test_the_trained_network_classifies_as_the_run_says(tmp_path: Path):
    from rethinking.training.preparation import plain_training_set

    for options in ({"model": None, "name": "small_alexnet"}, {"model": small, "name": "mlp_1x512"}):
        trained = train(configured(tmp_path, options["name"], num_epochs=3), model=options["model"])
        result = load_run(trained.path)
        network = result.network()
        assert not network.training
        batches = plain_training_set(result.config, sources.load("digits"))
        images, labels = next(batches.in_order(1000))
        with torch.no_grad():
            accuracy = (network(images).argmax(1) == labels).double().mean().item()
        assert accuracy == pytest.approx(result.final["exact_train_accuracy"])


def test_a_network_that_cannot_be_loaded_again_is_reported(tmp_path: Path):
    path = train(configured(tmp_path, written(tmp_path / "code"))).path
    written(tmp_path / "code", NETWORK.replace("* self.scale", "+ self.scale"))
    with pytest.raises(InputError, match=r"is no longer the network that this run trained"):
        load_run(path).network()
    (tmp_path / "code/net.py").unlink()
    assert load_run(path).final["epoch"] == 2, "its numbers are there all the same"
    with pytest.raises(InputError, match="there is no file"):
        load_run(path).network()
    written(tmp_path / "code")
    assert load_run(path).network() is not None
    (path / "checkpoint.safetensors").unlink()
    with pytest.raises(RunError, match=r"has lost its checkpoint.safetensors"):
        load_run(path).network()


# What a network holds besides its initial values: each would once have been answered by the run of another


class Held(nn.Module):
    def __init__(self, probability: float) -> None:
        super().__init__()
        self.linear, self.probability = nn.Linear(784, 10), probability

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.linear(nn.functional.dropout(images.flatten(1), self.probability, self.training))


class Builder:
    def __init__(self, slope: float) -> None:
        self.slope = slope

    def __call__(self, num_classes: int) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(784, 8), nn.LeakyReLU(self.slope), nn.Linear(8, num_classes))

    def method(self, num_classes: int) -> nn.Module:
        return self(num_classes)


SLOPE = 0.1


def of_global(num_classes: int) -> nn.Module:
    return Builder(SLOPE)(num_classes)


def scaled_by(scale: float) -> type[nn.Module]:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(784, 10)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.linear(images.flatten(1)) * scale

    return Scaled


@pytest.mark.parametrize(
    "build",
    [
        lambda value: lambda: Held(value),
        lambda value: functools.partial(Held, value),
        lambda value: functools.partial(Held, probability=value),
        Builder,
        lambda value: Builder(value).method,
        scaled_by,
    ],
    ids=["closure", "partial", "keyword", "object", "method", "class in a function"],
)
def test_whatever_a_function_holds_makes_another_run(tmp_path: Path, build):
    paths = [train(configured(tmp_path, "mlp_1x512"), model=build(value)).path for value in (0.1, 0.9, 0.1)]
    assert paths[0] == paths[2] != paths[1]


def test_a_global_value_makes_another_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    first = train(configured(tmp_path, "mlp_1x512"), model=of_global).path
    monkeypatch.setattr(sys.modules[__name__], "SLOPE", 0.9)
    assert train(configured(tmp_path, "mlp_1x512"), model=of_global).path != first


CONSTANT = """
from torch import nn
from {beside} import SLOPE, act

def net(num_classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 8), nn.LeakyReLU(SLOPE), act(), nn.Linear(8, num_classes))
"""


def test_constants_of_imported_files_count_and_files_of_one_name_are_not_confused(tmp_path: Path):
    block = "from torch import nn\nSLOPE = 0.01\nact = nn.ReLU\n"
    first = written(tmp_path / "first", CONSTANT, block, "shared_name")
    other = written(tmp_path / "other", CONSTANT, block.replace("ReLU", "Tanh"), "shared_name")
    assert isinstance(train(configured(tmp_path, first)).network()[3], nn.ReLU)
    assert isinstance(train(configured(tmp_path, other)).network()[3], nn.Tanh)
    name = run_name(tmp_path, first)
    assert run_name(tmp_path, other) != name
    changed = written(tmp_path / "first", CONSTANT, block.replace("0.01", "0.9"), "shared_name")
    assert run_name(tmp_path, changed) != name


def test_a_file_may_be_imported_within_a_function(tmp_path: Path):
    inside = "def net(num_classes):\n    from {beside} import small\n    return small(num_classes)\n"
    block = (
        "from torch import nn\ndef small(classes):\n    return nn.Sequential(nn.Flatten(), nn.Linear(784, classes))\n"
    )
    name = run_name(tmp_path, written(tmp_path, inside, block, "inner"))
    other = written(tmp_path, inside, block.replace("nn.Flatten()", "nn.Flatten(), nn.Tanh()"), "inner")
    assert run_name(tmp_path, other) != name


@pytest.mark.parametrize(("libraries", "counts"), [("site-packages", False), ("dist-packages", False), ("mine", True)])
def test_a_library_of_another_environment_counts_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, libraries: str, counts: bool
):
    """As of `pip install --user` and of `--system-site-packages`: its source is not followed."""
    package = f"library_in_{libraries[:4]}"
    (tmp_path / libraries).mkdir()
    library = tmp_path / libraries / f"{package}.py"
    library.write_text("def twice(x):\n    return 2 * x\n")
    monkeypatch.syspath_prepend(library.parent)
    net = (
        f"from torch import nn\nfrom {package} import twice\n\ndef net(num_classes):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(twice(392), num_classes))\n"
    )
    name = run_name(tmp_path, written(tmp_path / "net", net))
    library.write_text("def twice(x):\n    return x + x\n")
    assert (run_name(tmp_path, written(tmp_path / "net", net)) != name) == counts


IN_ANOTHER_PROCESS = """
import functools, sys
import torch
from torch import nn
from rethinking import ExperimentConfig, train

def helper(x):
    return {helper}(x)

class Net(nn.Module):
    def __init__(self, act):
        super().__init__()
        self.linear, self.act = nn.Linear(784, 10), act
    def forward(self, images):
        return (lambda x: helper(self.act(x)))(self.linear(images.flatten(1)))

config = ExperimentConfig(dataset="digits", train_subset=50, num_epochs=1, precision="fp32", runs_dir=sys.argv[1])
print(train(config, model=functools.partial(Net, torch.relu)).path)
"""


def test_code_without_a_file_is_found_again_in_another_process_and_changes_with_its_helpers(tmp_path: Path):
    def path(helper: str) -> str:
        code = IN_ANOTHER_PROCESS.format(helper=helper)
        ran = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True)
        return ran.stdout

    assert path("torch.relu") == path("torch.relu") != path("torch.tanh")


class NumpyNoise(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(784, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.linear(images.flatten(1)) * (1 + 0.1 * self.training * np.random.randn())


class Counting(nn.Module):
    """Counts its passes, as layers do that keep values for the next pass."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.passes, self.shape = nn.Linear(784, 10), 0, None

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.passes, self.shape = self.passes + 1, images.shape
        return self.linear(images.flatten(1))


def test_notes_that_layers_keep_do_not_make_another_network(tmp_path: Path):
    result = train(configured(tmp_path, "mlp_1x512"), model=Counting)
    assert train(configured(tmp_path, "mlp_1x512"), model=Counting).path == result.path
    assert result.network(Counting).passes == 0


def test_noise_of_numpy_depends_on_the_seed_and_is_reported(tmp_path: Path):
    results = [
        train(configured(tmp_path, "mlp_1x512", runs_dir=str(tmp_path / name)), model=NumpyNoise) for name in ("a", "b")
    ]
    assert records(results[0]) == records(results[1])
    assert not results[0].config.explicit_reg_off


def test_a_moved_network_comes_back_by_its_new_path_or_its_function(tmp_path: Path):
    result = train(configured(tmp_path, written(tmp_path / "old")))
    (tmp_path / "old").rename(tmp_path / "new")
    with pytest.raises(InputError, match="there is no file"):
        result.network()
    moved = f"{tmp_path / 'new/net.py'}:net"
    assert result.network(moved) is not None
    assert result.network(catalogue.find(moved).loaded) is not None
    with pytest.raises(InputError, match="is no longer the network that this run trained"):
        result.network(small)


@pytest.mark.parametrize(
    ("options", "said"),
    [("num_classes=3", "num_classes is the data's, not an option of"), ("width=3, width=4", "width is given twice")],
)
def test_conflicting_options_are_a_one_line_error(tmp_path: Path, options, said):
    with pytest.raises(InputError, match=said):
        train(configured(tmp_path, written(tmp_path), model_options=options))
