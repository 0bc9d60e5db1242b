"""`ExperimentConfig`: every knob of a run, with its default, its help text and its check, and the presets.

A run is a pure function of this configuration. The command line, `config.yaml` and the run's folder name are all
derived from the fields below; nothing else lists the options again.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import math
import typing
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from rethinking import registry
from rethinking.config_files import read_yaml
from rethinking.data import operators
from rethinking.data.operators import Operator
from rethinking.errors import InputError, nearest
from rethinking.models import catalogue
from rethinking.models.catalogue import Network
from rethinking.options import Check, command_line, option

CONFIG_FORMAT = 1  # of config.yaml and the run folder around it; raised when an older reader would misread a newer run


LARGEST_INT = 2**31 - 1
EXPONENTIAL_DECAY = 0.95  # per epoch, Appendix A


def at_least(bound: float) -> Check:
    return lambda value: None if value >= bound and math.isfinite(value) else f"at least {bound}"


def positive(value: float) -> str | None:
    return None if 0 < value < math.inf else "a number above 0"


def within(low: float, high: float) -> Check:
    return lambda value: None if low <= value <= high else f"between {low} and {high}"


def share(value: float) -> str | None:
    return None if 0 <= value < 1 else "a share from 0 to below 1"


def number_or(word: str, check: Check) -> Check:
    def checked(value: float | str) -> str | None:
        expected = None if value == word else "a number" if isinstance(value, str) else check(value)
        return expected and f"{expected}, or '{word}'"

    return checked


@dataclass(frozen=True, kw_only=True)
class ExperimentConfig:
    """Everything that decides a run (Section 2 and Appendix A of the paper).

    Raises `InputError` when built with an unknown name, a wrong type, a value out of range or options that
    contradict each other.
    """

    model_name: str = option(
        "small_inception",
        "the network (Table 1; Appendix A), or your own by the function that builds it (docs/extending.md)",
        group="model",
        flag="model",
        metavar="|".join((*catalogue.PAPER, "FILE.py:FUNCTION", "MODULE:FUNCTION")),
    )
    model_options: str | None = option(
        None,
        "arguments for the function of your own network, as 'width=64, layers=[2, 2]'",
        group="model",
        metavar="NAME=VALUE,...",
        default_text="none",
        added_later=True,
    )
    init: str | None = option(
        None,
        "initial weights: 'he' and 'lecun' are normal with variance 2/fan_in and 1/fan_in, 'xavier' uniform with"
        " variance 2/(fan_in + fan_out), 'pytorch' the framework's own; biases 0 but for 'pytorch'; 'own' leaves the"
        " network's (not in the paper)",
        group="model",
        choices=("he", "lecun", "xavier", "pytorch", "own"),
        default_text="lecun for small_inception_no_bn, pytorch for small_alexnet, he for the paper's others, else own",
    )
    network_digest: str | None = option(
        None,
        "of your own network: SHA-256 of its source and its initial state",
        group="model",
        added_later=True,
        recorded=True,
    )
    network_regularizers: str | None = option(
        None,
        "explicit regularizers within your own network, such as dropout",
        group="model",
        changes_numbers=False,
        added_later=True,
        recorded=True,
    )

    dataset: str = option(
        "cifar10",
        "digits (built in), cifar10, cifar100, mnist, fashion_mnist, the path of a folder or .npz file, or owner/name"
        " of the Hub; docs/data.md has what is read (Section 2: CIFAR-10)",
        group="data",
        metavar="NAME|PATH|OWNER/NAME",
    )
    data_root: str | None = option(
        None,
        "a folder to look for the named data set in, before the Hub",
        group="data",
        metavar="FOLDER",
        changes_numbers=False,
    )
    resize: int | None = option(
        None,
        "scale every image's shorter side to N pixels, antialiased, and take the centre square",
        group="data",
        check=within(1, 1024),
        metavar="N",
        default_text="images must have one size",
        added_later=True,
    )
    colour: str | None = option(
        None,
        "convert every image to 'rgb' or 'grey'",
        group="data",
        choices=("rgb", "grey"),
        default_text="images must be 8-bit grey or RGB",
        added_later=True,
    )
    holdout: float = option(
        0.0,
        "share of each class's training images that becomes the test set, of data without one; the same for every seed",
        group="data",
        check=share,
        added_later=True,
    )
    skip_unlabelled: bool = option(False, "leave out images without a label", group="data", added_later=True)
    image_column: str | None = option(
        None,
        "the column of a table that has the images",
        group="data",
        metavar="NAME",
        default_text="the only one, or 'image'",
        added_later=True,
    )
    label_column: str | None = option(
        None,
        "the column of a table or metadata file that has the labels",
        group="data",
        metavar="NAME",
        default_text="the only one, or 'label'",
        added_later=True,
    )
    train_subset: int | None = option(
        None,
        "train on the first N images of a fixed shuffle",
        group="data",
        check=at_least(1),
        metavar="N",
        default_text="all of them",
    )
    crop_size: int | None = option(
        None,
        "side of the centre crop in pixels (Appendix A: 28 for CIFAR-10)",
        group="data",
        check=at_least(1),
        metavar="PIXELS",
        default_text="28 for images of 28 to 32 pixels, else the whole image; of your own network the whole image",
    )
    min_std: float | str = option(
        1e-8,
        "floor of the standard deviation in per-image whitening, on pixels scaled to 0-1; 'tensorflow' is"
        " 1/sqrt(number of values), the rule the paper's framework uses (Appendix A)",
        group="data",
        check=number_or("tensorflow", positive),
        metavar="FLOAT|tensorflow",
    )
    pixel_noise: float = option(
        0.0,
        "standard deviation of white noise on the 0-255 scale, drawn once for every image from --randomization_seed"
        " and added before whitening (not in the paper; docs/differences.md)",
        group="data",
        check=at_least(0),
        added_later=True,
    )
    replaced_example: int | None = option(
        None,
        "replace the N-th training image, counted from 0, by the N-th test image, its label drawn as the others' are"
        " (uniform stability, Section 2.2)",
        group="data",
        check=at_least(0),
        metavar="N",
        default_text="none",
        added_later=True,
    )

    randomization: str = option(
        "none",
        "what is randomized, once, before training (Section 2.1); random_signs are the two classes of Equation 1",
        group="randomization",
        metavar="|".join((*operators.OWN, "FILE.py:CLASS", "MODULE:CLASS")),
    )
    randomization_options: str | None = option(
        None,
        "options of your own operator, as 'strength=3'",
        group="randomization",
        metavar="NAME=VALUE,...",
        default_text="none",
        added_later=True,
    )
    randomization_digest: str | None = option(
        None, "of your own operator: SHA-256 of its source", group="randomization", added_later=True, recorded=True
    )
    corruption_prob: float | None = option(
        None,
        "probability that a label is replaced by a uniform draw over all classes; goes with"
        " --randomization partial_corrupt (Section 2.1)",
        group="randomization",
        check=within(0, 1),
        metavar="P",
    )
    randomization_seed: int = option(
        0, "seed of the random labels and pixels, apart from --seed", group="randomization", check=at_least(0)
    )

    weight_decay: float | str = option(
        0.0,
        "l2 coefficient on all trainable parameters; 'default' is the model's own: 0.0005 for the convolutional"
        " networks, 0.0001 for the MLPs (the paper gives no numbers; Table 1, Table 4)",
        group="regularization",
        check=number_or("default", at_least(0)),
        metavar="FLOAT|default",
    )
    weight_decay_on: str = option(
        "all",
        "what weight decay acts on: 'all' trainable parameters, or the weights of the 'hidden_linear' layers alone, as"
        " in TensorFlow's CIFAR-10 tutorial of the time, with 0.004 (not in the paper; docs/differences.md)",
        group="regularization",
        choices=("all", "hidden_linear"),
        added_later=True,
    )
    random_crop: bool = option(
        False,
        "28x28 out of 32x32 at random; images that are 28x28 already are zero-padded by 4 first"
        " (Section 3; Table 1, Table 4)",
        group="regularization",
    )
    augment_flip_rotate: bool = option(
        False,
        "left-right flip with probability 0.5 and rotation uniform in +-25 degrees (Section 3; Table 4)",
        group="regularization",
    )

    num_epochs: int = option(
        100,
        "epochs to train (not stated; Figure 1a runs 63, Figure 2b 50)",
        group="optimization",
        check=at_least(1),
    )
    batch_size: int = option(
        128,
        "images a step, the last partial batch kept (Figures 1a and 2b imply 128)",
        group="optimization",
        check=at_least(1),
    )
    optimizer: str = option(
        "sgd",
        "update rule (Appendix A: sgd); weight decay is an l2 term of 'sgd' and 'adam', and decoupled of 'adamw'",
        group="optimization",
        choices=("sgd", "adam", "adamw"),
    )
    learning_rate: float | None = option(
        None,
        "initial learning rate (Appendix A)",
        group="optimization",
        check=positive,
        flag="lr",
        metavar="FLOAT",
        default_text="0.1 for both Inceptions, 0.01 for the others",
    )
    momentum: float = option(
        0.9, "momentum of sgd (Appendix A); adam and adamw do not use it", group="optimization", check=within(0, 1)
    )
    lr_schedule: str = option(
        "exponential",
        "'exponential': times --lr_decay an epoch (Appendix A); 'step': times 0.1 after epochs 60 and 80;"
        " 'cosine': to 0 at the end; 'constant'",
        group="optimization",
        choices=("exponential", "step", "cosine", "constant"),
    )
    lr_decay: float | None = option(
        None,
        "factor an epoch of the exponential schedule (Appendix A: 0.95; Table 4: 0.999 with augmentation)",
        group="optimization",
        check=within(0, 1),
        metavar="FLOAT",
        default_text="0.95",
    )
    warmup_epochs: int = option(
        0,
        "epochs N in which the rate rises first: in epoch E of them it is E / (N + 1) of the schedule's (not in the"
        " paper)",
        group="optimization",
        check=at_least(0),
        metavar="N",
        added_later=True,
    )
    seed: int = option(0, "seed of initial weights, order and augmentation", group="optimization", check=at_least(0))
    eval_train_every: int | None = option(
        None,
        "also measure the exact training accuracy every K epochs, beside where it is always measured: the last epoch"
        " and those of online accuracy from 99% on",
        group="optimization",
        check=at_least(1),
        metavar="K",
        default_text="never",
    )
    eval_test_every: int = option(
        1,
        "measure test accuracy and loss after every K-th epoch and the last alone; measuring them is most of the time"
        " of a run on few images",
        group="optimization",
        check=at_least(1),
        metavar="K",
        added_later=True,
    )
    stop_when_fit: bool = option(
        False, "end at the first epoch with an exact training accuracy of 100%", group="optimization"
    )

    device: str = option("auto", "where to compute", group="hardware", choices=("auto", "cpu", "cuda", "mps"))
    precision: str = option(
        "auto",
        "'bf16' computes in bfloat16 under autocast; 'auto' takes it where the hardware has it natively, else fp32;"
        " 'tf32' is fp32 with CUDA's faster, coarser products",
        group="hardware",
        choices=("auto", "fp32", "tf32", "bf16"),
    )

    compile: str = option(
        "auto",
        "'on' puts the training step through PyTorch's compiler; 'auto' captures it as a CUDA graph where there is"
        " CUDA; 'off' runs it operation by operation. Rounding aside, the numbers are the same",
        group="hardware",
        choices=("auto", "on", "off"),
        changes_numbers=False,
    )

    images_in_memory: str = option(
        "auto",
        "'always' brings the images into the device's memory before training; 'never' leaves them on disk, and a thread"
        " reads batches ahead of the steps; 'auto' is 'always' where they fit. Rounding on CUDA aside, the numbers are"
        " the same",
        group="hardware",
        choices=("auto", "always", "never"),
        changes_numbers=False,
    )

    runs_dir: str = option(
        "runs", "where run folders are kept", group="output", metavar="FOLDER", changes_numbers=False
    )
    keep_test_losses: bool = option(
        False,
        "keep the loss of every test image after every epoch, in the checkpoint (uniform stability, Section 2.2)",
        group="output",
        added_later=True,
    )
    use_tensorboard: bool = option(
        True, "write TensorBoard event files into the run's folder", group="output", changes_numbers=False
    )
    use_wandb: bool = option(
        False,
        "log to Weights & Biases, offline where its server is out of reach",
        group="output",
        changes_numbers=False,
    )
    wandb_project: str = option("zhang-generalization", "W&B project", group="output", changes_numbers=False)
    wandb_entity: str | None = option(
        None, "W&B user or team", group="output", changes_numbers=False, default_text="your own"
    )

    def __post_init__(self) -> None:
        for spec in fields(self):
            value = getattr(self, spec.name)
            if spec.name in ("model_options", "randomization_options"):
                value = as_text(value if isinstance(value, Mapping) else arguments(value))
            value = _typed(spec.name, value)
            expected = None if value is None else spec.metadata["check"](value)
            if expected:
                suggestion = nearest(str(value), spec.metadata["metavar"].split("|"))
                raise InputError(f"{spec.name} must be {expected}, not {value!r}{suggestion}")
            object.__setattr__(self, spec.name, value)
        self._check_combinations()

    def _check_combinations(self) -> None:
        # Somebody's own network or operator is looked up when it is needed: a run is read where its code is not, too.
        if ":" not in self.model_name and self.network_digest is None:
            sides = catalogue.find(self.model_name).sides
            if sides and self.crop_size is not None and not sides[0] <= self.crop_size <= sides[1]:
                raise InputError(f"crop_size must be between {sides[0]} and {sides[1]}, not {self.crop_size}")
        if ":" not in self.randomization and self.randomization_digest is None:
            self.check_operator()
        if self.keep_test_losses and self.eval_test_every > 1:
            raise InputError("keep_test_losses keeps those of every epoch; leave eval_test_every out")
        if self.lr_schedule != "exponential" and self.lr_decay is not None:
            raise InputError(
                f"lr_decay goes with lr_schedule exponential, not {self.lr_schedule}; leave it out, or set it to None"
                " where a configuration file has it"
            )

    def check_operator(self) -> None:
        """Raises `InputError` for an unknown operator, and for options that do not go with it."""
        operator = self.operator
        if self.replaced_example is not None and not operator.independent:
            takes = ", ".join(name for name, other in operators.OPERATORS.registered() if other.independent)
            raise InputError(f"replaced_example goes with randomization {takes}, not {self.randomization}")
        if self.keep_test_losses and operator.own_classes is not None:
            raise InputError(f"keep_test_losses takes a test set, of which randomization {self.randomization} has none")

    @property
    def explicit_reg_off(self) -> bool:
        """True exactly when weight decay is 0, both augmentations are off (the paper's explicit regularizers), and
        the network has no regularizer within it, which of your own network a resolved configuration knows.
        """
        augmented = self.random_crop or self.augment_flip_rotate
        return self.weight_decay == 0 and not augmented and self.network_regularizers is None

    @property
    def name(self) -> str:
        """The network, in the name of the run's folder."""
        return registry.plain(self.model_name)

    @property
    def operator(self) -> Operator:
        """What is randomized. Raises `InputError` where it is not known, or refuses its options."""
        return operators.create(self.randomization, self.corruption_prob, arguments(self.randomization_options))

    @property
    def network(self) -> Network:
        """The network's entry in the catalogue. Raises `InputError` where there is none."""
        return catalogue.find(self.model_name)

    @property
    def redraws_images(self) -> bool:
        """Whether the images are not the data set's own, so that runs share them only with the same draws."""
        return self.operator.changes_pixels or self.pixel_noise > 0 or self.replaced_example is not None

    def resolved(self) -> ExperimentConfig:
        """The same run with every default that depends on the model or the schedule written out."""
        defaults = self.network
        exponential = self.lr_schedule == "exponential"
        return dataclasses.replace(
            self,
            init=defaults.init if self.init is None else self.init,
            learning_rate=defaults.learning_rate if self.learning_rate is None else self.learning_rate,
            weight_decay=defaults.weight_decay if self.weight_decay == "default" else self.weight_decay,
            lr_decay=EXPONENTIAL_DECAY if exponential and self.lr_decay is None else self.lr_decay,
        )

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    def identity(self) -> dict[str, Any]:
        """The fields that can change a run's numbers; `dataset` is left to the data's name and fingerprint."""
        identity = {
            spec.name: getattr(self, spec.name)
            for spec in fields(self)
            if spec.metadata["changes_numbers"]
            and spec.name != "dataset"
            and not (spec.metadata["added_later"] and getattr(self, spec.name) == spec.default)
        }
        named = {name: registry.without_folder(identity[name]) for name in ("model_name", "randomization")}
        return identity | named

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> ExperimentConfig:
        """A configuration from field names or command-line names. Raises `InputError` for names it does not know."""
        by_name = field_by_name()
        values = {str(name).replace("-", "_"): value for name, value in values.items()}
        unknown = [name for name in values if name not in by_name]
        if unknown:
            raise InputError(f"unknown option '{unknown[0]}'{nearest(unknown[0], by_name)}")
        named = {by_name[name]: value for name, value in values.items()}
        if len(named) < len(values):
            twice = next(by_name[name] for name in values if by_name[name] != name)
            raise InputError(f"the option {twice} is given twice, under both its names")
        return cls(**named)

    @classmethod
    def from_yaml(cls, path: str | Path) -> ExperimentConfig:
        """The configuration in a YAML file, such as a run's `config.yaml`. Raises `InputError`."""
        return cls.from_mapping(read_config_file(Path(path)))

    def command(self) -> str:
        """The command line that makes this run; words where there is none, of a function without a name."""
        if "<" in self.model_name:
            return f"train(config, model={self.model_name.rpartition(':')[2]}) in Python"
        return command_line("python train.py", self)

    def to_yaml(self) -> str:
        return yaml.safe_dump({"format": CONFIG_FORMAT, **self.to_dict()}, sort_keys=False)


def arguments(text: str | None) -> dict[str, Any]:
    """The values by name in "width=64, layers=[2, 2], activation='gelu'", as of a call in Python.

    Raises `InputError` for anything but literal values by name.
    """
    if text is None:
        return {}
    wrong = InputError(f"options must be literal values by name, as 'width=64, layers=[2, 2]', not '{text[:200]}'")
    try:
        call = ast.parse(f"f({text})", mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise wrong from None
    if not isinstance(call, ast.Call) or call.args or not isinstance(call.func, ast.Name):
        raise wrong
    values: dict[str, Any] = {}
    for keyword in call.keywords:
        if keyword.arg is None:
            raise wrong
        if keyword.arg in values:
            raise InputError(f"the option {keyword.arg} is given twice")
        try:
            values[keyword.arg] = ast.literal_eval(keyword.value)
        except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
            quoted = ast.unparse(keyword.value)[:100]
            raise InputError(
                f"the option {keyword.arg} must be a literal value; a text has quotes: '{quoted}'"
            ) from None
    return values


def as_text(values: Mapping[str, Any]) -> str | None:
    """`arguments` in one form, whatever order and spaces they were given with; None for none."""
    return ", ".join(f"{name}={values[name]!r}" for name in sorted(values)) or None


def field_by_name() -> dict[str, str]:
    """Field name by every name an option goes by: the field's own and the command line's."""
    specs = fields(ExperimentConfig)
    return {name: spec.name for spec in specs for name in (spec.metadata["flag"], spec.name) if name}


def read_config_file(path: Path) -> dict[str, Any]:
    """The options in a YAML file, unchecked but for its format. Raises `InputError` in one line."""
    try:
        values = read_yaml(path)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    except ValueError as error:
        raise InputError(f"{path} is not YAML of options: {error}") from None
    if not isinstance(values, dict):
        raise InputError(f"{path} must hold lines of 'option: value', like a run's config.yaml")
    written = values.pop("format", CONFIG_FORMAT)
    if written != CONFIG_FORMAT:
        raise InputError(
            f"{path} has format {written!r}; this version reads {CONFIG_FORMAT}: use the version that wrote it"
        )
    return values


def _typed(name: str, value: Any) -> Any:
    """`value` as the field's type, where nothing is lost by it (1 for 1.0, YAML's '1e-4' for 0.0001)."""
    accepted = _accepted_types()[name]
    if value is None and type(None) in accepted:
        return None
    if bool in accepted and isinstance(value, bool):
        return value
    if float in accepted and isinstance(value, int | float | str) and not isinstance(value, bool):
        try:
            return float(value)
        except (ValueError, OverflowError):
            pass
    if int in accepted and isinstance(value, int) and not isinstance(value, bool) and abs(value) <= LARGEST_INT:
        return value
    if str in accepted and isinstance(value, str | Path) and str(value):
        return str(value)
    words = {
        bool: "true or false",
        int: f"a whole number up to {LARGEST_INT}",
        float: "a number",
        str: "a text that is not empty",
        type(None): "null",
    }
    raise InputError(f"{name} must be {' or '.join(words[kind] for kind in accepted)}, not {value!r}")


@functools.cache
def _accepted_types() -> dict[str, tuple[type, ...]]:
    return {name: typing.get_args(hint) or (hint,) for name, hint in field_types().items()}


def field_types() -> dict[str, Any]:
    """The declared type of every field, such as `float | None`."""
    return typing.get_type_hints(ExperimentConfig)


def get_baseline_config(model_name: str = "small_inception", **options: Any) -> ExperimentConfig:
    """True labels, no explicit regularization: the paper's starting point (Table 1). `options` override."""
    return ExperimentConfig(**{"model_name": model_name, **options})


def get_random_labels_config(model_name: str = "small_inception", **options: Any) -> ExperimentConfig:
    """The same with every label drawn at random (Section 2.1), all hyperparameters unchanged."""
    return get_baseline_config(model_name, **{"randomization": "random_labels", **options})
