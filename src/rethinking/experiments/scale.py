"""How much of the paper's set-up runs: all of it, a few thousand images, or the built-in digits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from rethinking.config import ExperimentConfig
from rethinking.models import catalogue
from rethinking.theory.kernel_machine import KernelMachineConfig
from rethinking.theory.memorization import MemorizationConfig
from rethinking.theory.rademacher import RademacherConfig
from rethinking.theory.run import READ_OPTIONS

MLPS_AND_ALEXNET = ("small_alexnet", "mlp_3x512", "mlp_1x512")


@dataclass(frozen=True)
class Scale:
    """The sizes in which an experiment's runs differ from the paper's.

    about: the scale in words
    dataset, models: the data set and the models that are trained where the user names none
    epochs: of a run. The paper does not state them; its Figure 1a ends after 63, and its slowest run takes 56 to
        overfit (Figure 1b)
    longer: epochs of Table 4's augmented runs, for which the paper trains longer with a slower decay
    decay, longer_decay: factors of the learning rate per epoch; at full scale the paper's
    levels: of label corruption in Figures 1b and 1c, in tenths
    machine_images: training images of kernel machines and of networks that memorize; None for all
    filters: numbers of random convolutional filters (Table 3)
    interpolated, linear: images for the other solutions of Section 5, and for its linear model
    memorized: numbers of images that networks of every depth memorize (Corollary 1)
    examples, draws: numbers of images with random signs, and draws of the signs (Equation 1)
    subsets: runs on random subsets, from which memorization is estimated
    subset_levels: levels of label corruption of these runs, in tenths
    replaced: training examples that are replaced, one at a time (uniform stability)
    options: of all networks that are trained
    """

    about: str
    dataset: str
    models: tuple[str, ...]
    epochs: int
    longer: int
    decay: float
    longer_decay: float
    levels: tuple[int, ...] = tuple(range(11))
    machine_images: int | None = None
    filters: tuple[int, ...] = (500, 1000, 2000, 4000, 8000, 16_000, 32_000)
    interpolated: int = 4000
    linear: int = 100
    memorized: tuple[int, ...] = (1000, 10_000)
    examples: tuple[int, ...] = (100, 300, 1000, 3000, 10_000)
    draws: int = 5
    subsets: int = 100
    subset_levels: tuple[int, ...] = (0, 2, 4, 6, 8, 10)
    replaced: int = 5
    options: Mapping[str, Any] = field(default_factory=dict)


SCALES = {
    "full": Scale("the paper's", "cifar10", catalogue.PAPER, 70, 300, 0.95, 0.999),
    # A tenth of the images gives a tenth of the steps per epoch, so the rate falls more slowly per epoch.
    "small": Scale(
        "5,000 training images, 10,000 where nothing is trained",
        "cifar10",
        MLPS_AND_ALEXNET,
        70,
        150,
        0.98,
        0.999,
        machine_images=10_000,
        filters=(250, 500, 1000, 2000, 4000),
        interpolated=2000,
        memorized=(1000, 5000),
        examples=(100, 300, 1000),
        subsets=50,
        replaced=3,
        options={"train_subset": 5000},
    ),
    "demo": Scale(
        "the built-in digits, each run ending at 100% training accuracy",
        "digits",
        MLPS_AND_ALEXNET,
        150,
        150,
        1.0,
        1.0,
        (0, 5, 10),
        filters=(25, 50, 100, 200, 400, 800),
        interpolated=1000,
        linear=50,
        memorized=(100, 1000),
        examples=(30, 100, 300),
        draws=3,
        subsets=4,
        subset_levels=(0, 5, 10),
        replaced=2,
        options={"stop_when_fit": True},
    ),
}


class ImageSource(NamedTuple):
    """A data set for runs that train nothing.

    dataset: its name or path, as for `--dataset`
    name: its name in results
    stands_for: the paper's data sets whose rows it appears in
    """

    dataset: str
    name: str
    stands_for: tuple[str, ...]


@dataclass(frozen=True)
class Study:
    """Everything that determines the runs of one reproduction.

    scale: their size
    models: the models to train
    options: shared by all runs
    images: data sets for runs that train nothing
    filters: numbers of random convolutional filters
    filter_options: options of these filters, as `KernelMachineConfig` takes them; each makes rows of its own
    machine_options: shared by all kernel machines
    runs: folders of finished runs to measure instead of the scale's networks
    """

    scale: Scale
    models: tuple[str, ...]
    options: Mapping[str, Any]
    images: tuple[ImageSource, ...] = ()
    filters: tuple[int, ...] = ()
    filter_options: tuple[str | None, ...] = (None,)
    machine_options: Mapping[str, Any] = field(default_factory=dict)
    runs: tuple[str, ...] = ()

    def config(self, model: str, *, longer: bool = False, **options: Any) -> ExperimentConfig:
        """A run of `model` at this scale. `longer` gives it Table 4's slower decay and more epochs."""
        scale = self.scale
        schedule = {
            "num_epochs": scale.longer if longer else scale.epochs,
            "lr_decay": scale.longer_decay if longer else scale.decay,
        }
        shared = {"dataset": scale.dataset, **schedule, **scale.options, **self.options}
        return ExperimentConfig(model_name=model, **{**shared, **options})

    def machine(self, source: ImageSource, images: int | None = None, **options: Any) -> KernelMachineConfig:
        """A kernel machine on `images` training images of `source`, or on those of the scale."""
        images = self.scale.machine_images if images is None else images
        shared = {"train_subset": images, **self.options, **self.machine_options}
        return KernelMachineConfig(dataset=source.dataset, **{**shared, **options})

    def linear_class(self, examples: int, draw_seed: int) -> RademacherConfig:
        """A linear class on random signs, on the data that networks are trained on."""
        names = ("dataset", "data_root", "runs_dir", "device", *READ_OPTIONS)
        shared = {"dataset": self.scale.dataset, **{name: self.options[name] for name in names if name in self.options}}
        return RademacherConfig(**shared, train_subset=examples, randomization_seed=draw_seed)

    def memorizing(self, source: ImageSource, images: int | None = None, **options: Any) -> MemorizationConfig:
        """A network that memorizes `images` training images of `source`, or those of the scale."""
        images = self.scale.machine_images if images is None else images
        return MemorizationConfig(dataset=source.dataset, **{"train_subset": images, **self.options, **options})
