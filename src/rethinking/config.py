"""`ExperimentConfig`, which holds every option of a run with its default, help text and check, and two presets.

A run is a pure function of its configuration. The command line, `config.yaml` and the name of the run's folder are
derived from the fields below. No other place lists the options.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import itertools
import math
import re
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
from rethinking.source import PARSING

CONFIG_FORMAT = 1  # of config.yaml and its run folder; raised when an older version would misread a newer run


LARGEST_INT = 2**31 - 1
EXPONENTIAL_DECAY = 0.95  # per epoch, Appendix A
DEVICES = "auto|cpu|cuda|cuda:N|mps"


def at_least(bound: float) -> Check:
    """Returns a check for finite numbers from `bound` on."""
    return lambda value: None if value >= bound and math.isfinite(value) else f"at least {bound}"


def positive(value: float) -> str | None:
    """Checks for a finite number above 0."""
    return None if 0 < value < math.inf else "a number above 0"


def within(low: float, high: float) -> Check:
    """Returns a check for numbers from `low` to `high`, both included."""
    return lambda value: None if low <= value <= high else f"between {low} and {high}"


def share(value: float) -> str | None:
    """Checks for a number from 0 to below 1."""
    return None if 0 <= value < 1 else "a share from 0 to below 1"


def part_of_all(value: float) -> str | None:
    """Checks for a number above 0 and below 1."""
    return None if 0 < value < 1 else "a share above 0 and below 1"


def number_or(word: str, check: Check) -> Check:
    """Returns a check for `word` or a number that passes `check`."""

    def checked(value: float | str) -> str | None:
        expected = None if value == word else "a number" if isinstance(value, str) else check(value)
        return expected and f"{expected}, or '{word}'"

    return checked


def part_of_parts(text: str) -> str | None:
    """Checks for a part and the number of parts, such as '1/5'."""
    found = re.fullmatch(r"([1-9]\d{0,3})/([1-9]\d{0,3})", text)
    return None if found and int(found[1]) <= int(found[2]) > 1 else "K/N, a part from 1 to N of N parts from 2 on"


def device(name: str) -> str | None:
    """Checks for the name of a device, such as 'cpu' or 'cuda:1'."""
    return None if re.fullmatch(r"auto|cpu|cuda(:\d{1,3})?|mps", name) else "one of auto, cpu, cuda, cuda:N, mps"


@dataclass(frozen=True, kw_only=True)
class ExperimentConfig:
    """All options of a run (Section 2 and Appendix A of the paper). The instances are immutable.

    Raises `InputError` for an unknown name, a wrong type, a value out of range, or options that contradict each other.
    """

    model_name: str = option(
        "small_inception",
        "the network (Table 1; Appendix A), or the function that builds your own network (docs/extending.md)",
        group="model",
        flag="model",
        metavar="|".join((*catalogue.PAPER, "FILE.py:FUNCTION", "MODULE:FUNCTION")),
    )
    model_options: str | None = option(
        None,
        "arguments of the function that builds your own network, such as 'width=64, layers=[2, 2]'",
        group="model",
        metavar="NAME=VALUE,...",
        default_text="none",
        added_later=True,
    )
    init: str | None = option(
        None,
        "initial weights. 'he' is normal with variance 2/fan_in, 'lecun' is normal with variance 1/fan_in, and 'xavier'"
        " is uniform with variance 2/(fan_in + fan_out), all with biases of 0. 'pytorch' is PyTorch's default. 'own'"
        " keeps what the network's constructor sets (not in the paper)",
        group="model",
        choices=("he", "lecun", "xavier", "pytorch", "own"),
        default_text="lecun for small_inception_no_bn, pytorch for small_alexnet, he for the paper's other networks,"
        " own for your network",
    )
    network_digest: str | None = option(
        None,
        "SHA-256 of the source and the initial state of your own network",
        group="model",
        added_later=True,
        recorded=True,
    )
    network_regularizers: str | None = option(
        None,
        "explicit regularizers inside your own network, such as dropout",
        group="model",
        changes_numbers=False,
        added_later=True,
        recorded=True,
    )

    dataset: str = option(
        "cifar10",
        "the images: digits (built in), cifar10, cifar100, mnist, fashion_mnist, the path of a folder or .npz file, or"
        " owner/name on the Hugging Face Hub. docs/data.md lists all forms (Section 2: CIFAR-10)",
        group="data",
        metavar="NAME|PATH|OWNER/NAME",
    )
    data_root: str | None = option(
        None,
        "a folder to search for the named data set before the Hub",
        group="data",
        metavar="FOLDER",
        changes_numbers=False,
    )
    resize: int | None = option(
        None,
        "scale the shorter side of every image to N pixels, antialiased, and take the centre square",
        group="data",
        check=within(1, 1024),
        metavar="N",
        default_text="off; all images must have the same size",
        added_later=True,
    )
    colour: str | None = option(
        None,
        "convert every image to 'rgb' or 'grey'",
        group="data",
        choices=("rgb", "grey"),
        default_text="off; all images must be 8-bit grey or RGB",
        added_later=True,
    )
    holdout: float = option(
        0.0,
        "share of each class's training images that becomes the test set, for data without a test set. The split is the"
        " same for every seed",
        group="data",
        check=share,
        added_later=True,
    )
    skip_unlabelled: bool = option(False, "leave out images without a label", group="data", added_later=True)
    image_column: str | None = option(
        None,
        "the column of a table that holds the images",
        group="data",
        metavar="NAME",
        default_text="the only column of images, or 'image'",
        added_later=True,
    )
    label_column: str | None = option(
        None,
        "the column of a table or metadata file that holds the labels",
        group="data",
        metavar="NAME",
        default_text="the only column of labels, or 'label'",
        added_later=True,
    )
    labels: str | None = option(
        None,
        "train on the labels in this .csv, .parquet or .npy file, one for each training image. The data's own labels"
        " count as the true ones (docs/scoring.md)",
        group="data",
        metavar="FILE",
        default_text="the data's own",
        added_later=True,
    )
    labels_column: str | None = option(
        None,
        "the column of that file",
        group="data",
        metavar="NAME",
        default_text="'label', or the only one besides 'index'",
        added_later=True,
    )
    labels_digest: str | None = option(
        None, "SHA-256 of the labels in that file", group="data", added_later=True, recorded=True
    )
    train_subset: int | None = option(
        None,
        "train on the first N images of a fixed shuffle",
        group="data",
        check=at_least(1),
        metavar="N",
        default_text="all images",
    )
    subset_share: float | None = option(
        None,
        "train on a random share of these images. Labels and pixels are drawn before, so they are the same in every"
        " share (memorization, docs/scoring.md)",
        group="data",
        check=part_of_all,
        metavar="SHARE",
        default_text="all of them",
        added_later=True,
    )
    subset_seed: int = option(0, "seed of the images in that share", group="data", check=at_least(0), added_later=True)
    left_out: str | None = option(
        None,
        "train without part K of N equal parts of these images. Labels and pixels are drawn before (cross-validation,"
        " docs/scoring.md)",
        group="data",
        check=part_of_parts,
        metavar="K/N",
        default_text="none",
        added_later=True,
    )
    crop_size: int | None = option(
        None,
        "side of the centre crop in pixels (Appendix A: 28 for CIFAR-10)",
        group="data",
        check=at_least(1),
        metavar="PIXELS",
        default_text="28 for images of 28 to 32 pixels; the whole image for other sizes and for your own network",
    )
    min_std: float | str = option(
        1e-8,
        "lower bound of the standard deviation in per-image whitening, for pixels scaled to 0-1. 'tensorflow' is"
        " 1/sqrt(number of values), the rule of the paper's framework (Appendix A)",
        group="data",
        check=number_or("tensorflow", positive),
        metavar="FLOAT|tensorflow",
    )
    pixel_noise: float = option(
        0.0,
        "standard deviation of white noise on the 0-255 scale. The noise is drawn once for every image from"
        " --randomization_seed and added before whitening (not in the paper; docs/differences.md)",
        group="data",
        check=at_least(0),
        added_later=True,
    )
    replaced_example: int | None = option(
        None,
        "replace the N-th training image, counted from 0, by the N-th test image. Its label is drawn in the same way as"
        " the other labels (uniform stability, Section 2.2)",
        group="data",
        check=at_least(0),
        metavar="N",
        default_text="none",
        added_later=True,
    )

    randomization: str = option(
        "none",
        "the randomization, drawn once before training (Section 2.1). random_signs draws one of two classes for every"
        " image (Equation 1). pair_flip, asymmetric and class_matrix are the label noise of other papers"
        " (docs/scoring.md)",
        group="randomization",
        metavar="|".join((*operators.OWN, "FILE.py:CLASS", "MODULE:CLASS")),
    )
    randomization_options: str | None = option(
        None,
        "options of your own operator, such as 'strength=3'",
        group="randomization",
        metavar="NAME=VALUE,...",
        default_text="none",
        added_later=True,
    )
    randomization_digest: str | None = option(
        None, "SHA-256 of the source of your own operator", group="randomization", added_later=True, recorded=True
    )
    corruption_prob: float | None = option(
        None,
        "probability that a label is replaced: by a uniform draw over all classes with --randomization partial_corrupt"
        " (Section 2.1), by another class with pair_flip and asymmetric",
        group="randomization",
        check=within(0, 1),
        metavar="P",
    )
    randomization_seed: int = option(
        0, "seed of the random labels and pixels, independent of --seed", group="randomization", check=at_least(0)
    )

    corrupt_test_labels: bool = option(
        False,
        "change the test labels by the same operator, with draws of their own, and measure on these (docs/scoring.md;"
        " not in the paper's text)",
        group="randomization",
        added_later=True,
    )

    weight_decay: float | str = option(
        0.0,
        "l2 coefficient on all trainable parameters. 'default' is 0.0001 for the MLPs and 0.0005 for other networks"
        " (Table 1, Table 4; the paper gives no numbers)",
        group="regularization",
        check=number_or("default", at_least(0)),
        metavar="FLOAT|default",
    )
    weight_decay_on: str = option(
        "all",
        "parameters with weight decay: 'all' trainable parameters, or only the weights of hidden linear layers."
        " TensorFlow's CIFAR-10 tutorial of the time used 'hidden_linear' with 0.004 (not in the paper;"
        " docs/differences.md)",
        group="regularization",
        choices=("all", "hidden_linear"),
        added_later=True,
    )
    random_crop: bool = option(
        False,
        "crop a random window of --crop_size pixels, which is 28x28 out of 32x32 for CIFAR-10. Images that are no"
        " larger than the crop get 4 pixels of zeros on each side first (Section 3; Table 1, Table 4)",
        group="regularization",
    )
    augment_flip_rotate: bool = option(
        False,
        "flip images left-right with probability 0.5 and rotate them by a uniform angle within +-25 degrees"
        " (Section 3; Table 4)",
        group="regularization",
    )

    num_epochs: int = option(
        100,
        "epochs to train (not stated in the paper; Figure 1a shows 63, Figure 2b shows 50)",
        group="optimization",
        check=at_least(1),
    )
    batch_size: int = option(
        128,
        "images per step; the last batch of an epoch may be smaller (Figures 1a and 2b imply 128)",
        group="optimization",
        check=at_least(1),
    )
    optimizer: str = option(
        "sgd",
        "update rule (Appendix A: sgd). Weight decay is an l2 term with 'sgd' and 'adam', and decoupled with 'adamw'",
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
        default_text="0.1 for both Inceptions, 0.01 for other networks",
    )
    momentum: float = option(
        0.9, "momentum of sgd (Appendix A); adam and adamw ignore it", group="optimization", check=within(0, 1)
    )
    lr_schedule: str = option(
        "exponential",
        "'exponential' multiplies the rate by --lr_decay after every epoch (Appendix A); 'step' multiplies it by 0.1"
        " after epochs 60 and 80; 'cosine' lowers it to 0 at the end; 'constant' keeps it",
        group="optimization",
        choices=("exponential", "step", "cosine", "constant"),
    )
    lr_decay: float | None = option(
        None,
        "factor per epoch of the exponential schedule (Appendix A: 0.95; Table 4: 0.999 with augmentation)",
        group="optimization",
        check=within(0, 1),
        metavar="FLOAT",
        default_text="0.95",
    )
    warmup_epochs: int = option(
        0,
        "raise the rate over the first N epochs: epoch E has E / (N + 1) of the schedule's rate. N must be below"
        " --num_epochs (not in the paper)",
        group="optimization",
        check=at_least(0),
        metavar="N",
        added_later=True,
    )
    seed: int = option(
        0, "seed of initial weights, image order and augmentation", group="optimization", check=at_least(0)
    )
    eval_train_every: int | None = option(
        None,
        "also measure the exact training accuracy every K epochs. It is always measured after the last epoch, and where"
        " it may reach 99.9% or 100% for the first time",
        group="optimization",
        check=at_least(1),
        metavar="K",
        default_text="never",
    )
    eval_test_every: int = option(
        1,
        "measure test accuracy and loss only after every K-th epoch and the last. These measurements take most of the"
        " time of a run on few images",
        group="optimization",
        check=at_least(1),
        metavar="K",
        added_later=True,
    )
    stop_when_fit: bool = option(
        False, "stop after the first epoch with an exact training accuracy of 100%", group="optimization"
    )

    device: str = option(
        "auto",
        "where to compute; 'auto' takes CUDA, else MPS, else the CPU. 'cuda:1' is the second CUDA card",
        group="hardware",
        check=device,
        metavar=DEVICES,
    )
    precision: str = option(
        "auto",
        "'bf16' computes in bfloat16 under autocast; 'tf32' is fp32 with CUDA's faster, less precise products; 'auto'"
        " takes bf16 where the hardware has it natively, else fp32",
        group="hardware",
        choices=("auto", "fp32", "tf32", "bf16"),
    )

    compile: str = option(
        "auto",
        "'on' compiles the training step with PyTorch's compiler; 'off' runs it operation by operation; 'auto' captures"
        " it as a CUDA graph on CUDA. The numbers are the same except for rounding",
        group="hardware",
        choices=("auto", "on", "off"),
        changes_numbers=False,
    )

    images_in_memory: str = option(
        "auto",
        "'always' loads the images into the device's memory before training; 'never' leaves them on disk, and a thread"
        " reads batches ahead; 'auto' is 'always' where the images fit. The numbers are the same except for rounding on"
        " CUDA",
        group="hardware",
        choices=("auto", "always", "never"),
        changes_numbers=False,
    )

    runs_dir: str = option(
        "runs", "folder that holds the run folders", group="output", metavar="FOLDER", changes_numbers=False
    )
    keep_test_losses: bool = option(
        False,
        "keep the loss of every test image after every epoch in the checkpoint (uniform stability, Section 2.2)",
        group="output",
        added_later=True,
    )
    record_examples: bool = option(
        False,
        "keep loss, margin and correctness of every training image in every epoch, each measured in its batch before"
        " the update (docs/scoring.md; not in the paper)",
        group="output",
        added_later=True,
    )
    record_evaluated_examples: bool = option(
        False,
        "keep the same of every training image in evaluation mode, by a pass over the training set after every epoch",
        group="output",
        added_later=True,
    )
    record_test_examples: bool = option(
        False,
        "keep the same of every test image after every epoch",
        group="output",
        added_later=True,
    )
    use_tensorboard: bool = option(
        True, "write TensorBoard event files into the run's folder", group="output", changes_numbers=False
    )
    use_wandb: bool = option(
        False,
        "log to Weights & Biases, offline where its server cannot be reached",
        group="output",
        changes_numbers=False,
    )
    wandb_project: str = option("zhang-generalization", "W&B project", group="output", changes_numbers=False)
    wandb_entity: str | None = option(
        None, "W&B user or team", group="output", changes_numbers=False, default_text="your own"
    )

    def __post_init__(self) -> None:
        for spec in fields(self):
            object.__setattr__(self, spec.name, checked(spec, getattr(self, spec.name)))
        self._check_combinations()

    def _check_combinations(self) -> None:
        # A user's own network or operator is looked up later: a run can be read on a machine without that code.
        if ":" not in self.model_name and self.network_digest is None:
            sides = catalogue.find(self.model_name).sides
            if sides and self.crop_size is not None and not sides[0] <= self.crop_size <= sides[1]:
                raise InputError(f"crop_size must be between {sides[0]} and {sides[1]}, not {self.crop_size}")
        if ":" not in self.randomization and self.randomization_digest is None:
            self.check_operator()
        for name in self.keeps_of_test_images:
            if self.eval_test_every > 1:
                raise InputError(f"{name} needs the test losses of every epoch; leave eval_test_every out")
        if self.lr_schedule != "exponential" and self.lr_decay is not None:
            raise InputError(
                f"lr_decay goes with lr_schedule exponential, not {self.lr_schedule}; leave it out, or set it to None"
                " in the configuration file"
            )

    def check_operator(self) -> None:
        """Raises `InputError` for an unknown operator and for options that contradict it."""
        operator = self.operator
        if self.labels_column is not None and self.labels is None:
            raise InputError("labels_column names a column of the file of --labels; give both or none")
        for clashes, option_name in (
            (operator.changes_labels, f"randomization {self.randomization}"),
            (self.replaced_example is not None, "replaced_example"),
        ):
            if self.labels is not None and clashes:
                raise InputError(f"labels gives labels, which {option_name} would change; leave one of them out")
        if self.subset_seed and self.subset_share is None:
            raise InputError("subset_seed chooses the images of --subset_share; give both or none")
        alone = [name for name in ("subset_share", "left_out", "replaced_example") if getattr(self, name) is not None]
        for first, second in itertools.combinations(alone, 2):
            raise InputError(f"{first} and {second} do not go together; leave one of them out")
        if self.corrupt_test_labels and not operator.corrupts_labels:
            raise InputError(
                "corrupt_test_labels goes with an operator that changes labels and keeps the data's classes, not"
                f" randomization {self.randomization}"
            )
        if self.replaced_example is not None and not operator.independent:
            takes = ", ".join(name for name, other in operators.OPERATORS.registered() if other.independent)
            raise InputError(f"replaced_example goes with randomization {takes}, not {self.randomization}")
        for name in self.keeps_of_test_images:
            if operator.own_classes is not None:
                raise InputError(f"{name} needs a test set; randomization {self.randomization} has no test set")

    @property
    def keeps_of_test_images(self) -> list[str]:
        """The names of the options that are on and keep something of every test image."""
        return [name for name in ("keep_test_losses", "record_test_examples") if getattr(self, name)]

    @property
    def explicit_reg_off(self) -> bool:
        """Whether all explicit regularizers are off: weight decay, both augmentations, and regularizers in the network.

        Regularizers inside your own network are known only to a resolved configuration.
        """
        augmented = self.random_crop or self.augment_flip_rotate
        return self.weight_decay == 0 and not augmented and self.network_regularizers is None

    @property
    def name(self) -> str:
        """The name of the network in the name of the run's folder."""
        return registry.plain(self.model_name)

    @property
    def operator(self) -> Operator:
        """The randomization operator. Raises `InputError` for an unknown operator or wrong options of it."""
        return operators.create(self.randomization, self.corruption_prob, arguments(self.randomization_options))

    @property
    def corrupts_labels(self) -> bool:
        """Whether the labels differ from known true ones, so that metrics can tell changed from true labels."""
        return self.labels is not None or self.operator.corrupts_labels

    @property
    def network(self) -> Network:
        """The network's entry in the catalogue. Raises `InputError` for an unknown network."""
        return catalogue.find(self.model_name)

    @property
    def redraws_images(self) -> bool:
        """Whether the training images differ from the data set's images. Runs share them only with equal draws."""
        return self.operator.changes_pixels or self.pixel_noise > 0 or self.replaced_example is not None

    @property
    def has_own_images(self) -> bool:
        """Whether runs that train together may need images of their own in memory."""
        return self.redraws_images or self.leaves_images_out

    @property
    def leaves_images_out(self) -> bool:
        """Whether the run trains without some of the images for which labels and pixels are drawn."""
        return self.subset_share is not None or self.left_out is not None

    @property
    def part_and_parts(self) -> tuple[int, int]:
        """The part that is left out, from 1 on, and the number of parts."""
        assert self.left_out is not None, "a part is left out"
        part, parts = self.left_out.split("/")
        return int(part), int(parts)

    def training_images(self, images: int) -> int:
        """Returns the number of images that the run trains on, of `images` training images in the data set."""
        count = self.train_subset or images
        if self.subset_share is not None:
            return round(self.subset_share * count)
        if self.left_out is not None:
            part, parts = self.part_and_parts
            return count - len(range(part - 1, count, parts))
        return count

    def resolved(self) -> ExperimentConfig:
        """Returns the same run with explicit values for all defaults that depend on the network or the schedule."""
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
        """Returns the value of every field by its name."""
        return dataclasses.asdict(self)

    def identity(self) -> dict[str, Any]:
        """Returns the fields that can change a run's numbers, but not the places of data and labels.

        The data's name and fingerprint stand for `dataset` (see `rethinking.identity`), and `labels_digest` for the
        file of labels.
        """
        identity = {
            spec.name: getattr(self, spec.name)
            for spec in fields(self)
            if spec.metadata["changes_numbers"]
            and spec.name not in ("dataset", "labels", "labels_column")
            and not (spec.metadata["added_later"] and getattr(self, spec.name) == spec.default)
        }
        named = {name: registry.without_folder(identity[name]) for name in ("model_name", "randomization")}
        return identity | named

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> ExperimentConfig:
        """Makes a configuration from values by field name or option name. Raises `InputError` for unknown names."""
        by_name = field_by_name()
        values = {str(name).replace("-", "_"): value for name, value in values.items()}
        unknown = [name for name in values if name not in by_name]
        if unknown:
            raise InputError(f"unknown option '{unknown[0]}'{nearest(unknown[0], by_name)}")
        named = {by_name[name]: value for name, value in values.items()}
        if len(named) < len(values):
            twice = next(by_name[name] for name in values if by_name[name] != name)
            raise InputError(f"the option {twice} is given twice, once under each of its names")
        return cls(**named)

    @classmethod
    def from_yaml(cls, path: str | Path) -> ExperimentConfig:
        """Reads a configuration from a YAML file, such as a run's `config.yaml`. Raises `InputError`."""
        return cls.from_mapping(read_config_file(Path(path)))

    def command(self) -> str:
        """Returns the command line of this run, or a call in Python where the network's function has no name."""
        if "<" in self.model_name:
            return f"train(config, model={self.model_name.rpartition(':')[2]}) in Python"
        return command_line("python train.py", self)

    def to_yaml(self) -> str:
        """Returns the text of a `config.yaml`, which `from_yaml` reads."""
        return yaml.safe_dump({"format": CONFIG_FORMAT, **self.to_dict()}, sort_keys=False)


def checked(spec: dataclasses.Field[Any], value: Any) -> Any:
    """Returns the value of one field, converted to its type. Raises `InputError` for one that is not allowed."""
    if spec.name in ("model_options", "randomization_options"):
        value = as_text(value if isinstance(value, Mapping) else arguments(value))
    value = _typed(spec.name, value)
    expected = None if value is None else spec.metadata["check"](value)
    if expected:
        suggestion = nearest(str(value), spec.metadata["metavar"].split("|"))
        raise InputError(f"{spec.name} must be {expected}, not {value!r}{suggestion}")
    return value


def arguments(text: str | None) -> dict[str, Any]:
    """Returns the values by name in a text such as "width=64, layers=[2, 2], activation='gelu'".

    The text has the form of arguments in a Python call. Raises `InputError` for anything but literal values by name.
    """
    if text is None:
        return {}
    wrong = InputError(f"options must be literal values by name, such as 'width=64, layers=[2, 2]', not '{text[:200]}'")
    try:
        with PARSING:
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
                f"the option {keyword.arg} must be a literal value, and a text needs quotes; not '{quoted}'"
            ) from None
    return values


def as_text(values: Mapping[str, Any]) -> str | None:
    """Returns the text that `arguments` reads, in one order and spacing, or None for no values."""
    return ", ".join(f"{name}={values[name]!r}" for name in sorted(values)) or None


def field_by_name() -> dict[str, str]:
    """Returns field names by every name of an option: the field's name and the command line's."""
    specs = fields(ExperimentConfig)
    return {name: spec.name for spec in specs for name in (spec.metadata["flag"], spec.name) if name}


def read_config_file(path: Path) -> dict[str, Any]:
    """Reads options from a YAML file and checks the file's format only.

    Raises `InputError` for a file that cannot be read, is not YAML, or has another format.
    """
    try:
        values = read_yaml(path)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    except ValueError as error:
        raise InputError(f"{path} is not a YAML file of options: {error}") from None
    if not isinstance(values, dict):
        raise InputError(f"{path} must hold lines of 'option: value', like a run's config.yaml")
    written = values.pop("format", CONFIG_FORMAT)
    if written != CONFIG_FORMAT:
        raise InputError(
            f"{path} has format {written!r} and this version reads {CONFIG_FORMAT}; use the version that wrote the file"
        )
    return values


def _typed(name: str, value: Any) -> Any:
    """Converts `value` to the field's type where nothing is lost: 1 becomes 1.0, YAML's '1e-4' becomes 0.0001."""
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
    """Returns the declared type of every field by name, such as `float | None`."""
    return typing.get_type_hints(ExperimentConfig)


def get_baseline_config(model_name: str = "small_inception", **options: Any) -> ExperimentConfig:
    """Returns the paper's baseline: true labels and no explicit regularization (Table 1).

    `options` override fields, as in `ExperimentConfig(**options)`.
    """
    return ExperimentConfig(**{"model_name": model_name, **options})


def get_random_labels_config(model_name: str = "small_inception", **options: Any) -> ExperimentConfig:
    """Returns the baseline with every label drawn at random (Section 2.1). No hyperparameter changes."""
    return get_baseline_config(model_name, **{"randomization": "random_labels", **options})
