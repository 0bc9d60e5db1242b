"""Carry out a `ComplexityConfig`: apply the measures of `complexity` to a trained network.

runs/<id>/config.yaml   the resolved configuration, with the network's inside
          result.json   written last: it marks the run as finished
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from rethinking.config import ExperimentConfig, read_config_file
from rethinking.data import sources
from rethinking.data.batches import Batches
from rethinking.errors import InputError
from rethinking.steps import Steps, unwatched
from rethinking.theory import complexity
from rethinking.theory.run import Columns, TheoryResult, about, at_work, find, keep, run_dir
from rethinking.theory.trained import MeasurementConfig, trained_for
from rethinking.training.evaluation import BATCH_SIZE
from rethinking.training.memory import LIBRARIES, footprint
from rethinking.training.networks import input_shape, untrained
from rethinking.training.preparation import plain_training_set
from rethinking.training.run_dir import RunDir

RADIUS = 0.01  # of the ball in which `sharpness` searches, relative to the norm of all weights
SHARPNESS_IMAGES = 500  # `sharpness` uses the first training images
PERCENTILE = 10  # of the margins, which stands for all of them


@dataclass(frozen=True, kw_only=True)
class ComplexityConfig(MeasurementConfig):
    """The measures of one trained network. Raises `InputError` for a radius that is not positive.

    radius: of the ball in which `sharpness` searches, relative to the norm of all weights
    run: the folder of a finished run to measure; its name then belongs to the identity. Without it, the network of the
        configuration is measured, and trained first where necessary
    """

    task: ClassVar[str] = "measures"
    columns: ClassVar[Columns] = Columns(
        ("model_name", "randomization", "corruption_prob", "num_epochs", "seed"),
        (
            "exact_train_accuracy",
            "test_accuracy",
            "generalization_gap",
            "train_loss",
            "margin",
            "normalized_margin",
            "frobenius_norm",
            "spectral_product",
            "path_norm",
            "distance",
            "sharpness",
            "seconds",
            "train_images",
        ),
    )

    radius: float = RADIUS
    run: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.radius < math.inf:
            raise InputError(f"radius must be a positive number, not {self.radius:g}")

    @property
    def name(self) -> str:
        """The network's name behind "complexity", as the folder's name has them."""
        return f"complexity-{self.network.model_name}"

    @property
    def words(self) -> list[str]:
        """The word "measures", which sets the run apart from the network's."""
        return ["measures"]

    def identity(self) -> dict[str, Any]:
        """The network's identity and the radius, and the folder's name where a run is given by its folder."""
        run = {} if self.run is None else {"run": Path(self.run).name}
        return super().identity() | run

    def resolved(self, data: sources.ImageData) -> ComplexityConfig:
        """The configuration with the resolved network. A finished run's is resolved already, perhaps on another device.

        Raises `InputError` where the network does not fit the data.
        """
        return super().resolved(data) if self.run is None else self

    @classmethod
    def of_run_folder(cls, path: Path, dataset: str | None = None, data_root: str | None = None) -> ComplexityConfig:
        """The measures of the network in a finished run's folder.

        dataset, data_root: where its data lies now, if it has moved

        Raises `InputError` where `path` is not the folder of a trained network, or its run is not finished.
        """
        if not path.is_dir():
            raise InputError(f"there is no run folder {path}")
        if "model_name" not in read_config_file(path / "config.yaml"):
            raise InputError(f"{path} is not the folder of a trained network")
        config = ExperimentConfig.from_yaml(path / "config.yaml")
        if not RunDir(path).is_finished:
            raise InputError(f"{path} is not finished; train.py --config {path / 'config.yaml'} resumes it")
        if dataset is not None or data_root is not None:
            config = replace(config, dataset=dataset or config.dataset, data_root=data_root or config.data_root)
        return cls.of(replace(config, runs_dir=str(path.parent)), run=str(path))


def measures(
    model: nn.Module, initial: nn.Module, images: Batches, radius: float, advanced: Callable[[float], None]
) -> dict[str, Any]:
    """All measures of `complexity` for a network on its own training set, by name.

    initial: the untrained network
    radius: of the ball in which `sharpness` searches
    advanced: receives the finished share of the work, 0-1

    "margins" holds the percentiles 0 to 100, "margin" the 10th, and "normalized_margin" the 10th divided by the product
    of spectral norms. Margins and the training loss come from float32 outputs, everything else from float64. Losses and
    sharpness are in nats.
    """
    sample, labels = next(images.in_order(SHARPNESS_IMAGES))
    image_shape = (sample.shape[1], sample.shape[2], sample.shape[3])
    outputs = _outputs(model, images, lambda share: advanced(0.3 * share))
    percentiles = torch.quantile(
        complexity.margins(outputs, images.labels).double(), torch.linspace(0, 1, 101).double()
    )
    spectral = complexity.spectral_norms(model, image_shape)
    advanced(0.5)
    product = math.prod(spectral)
    facts = {
        "train_loss": float(F.cross_entropy(outputs.double(), images.labels)),
        "margin": float(percentiles[PERCENTILE]),
        "normalized_margin": float(percentiles[PERCENTILE]) / product,
        "frobenius_norm": complexity.frobenius_norm(model),
        "spectral_product": product,
        "path_norm": complexity.path_norm(model, image_shape),
        "distance": complexity.distance_from_initialization(model, initial),
        "sharpness": complexity.sharpness(model, sample, labels, radius),
        "margins": percentiles.tolist(),
        "spectral_norms": spectral,
    }
    advanced(1.0)
    return facts


@torch.no_grad()
def _outputs(model: nn.Module, images: Batches, advanced: Callable[[float], None]) -> Tensor:
    """The outputs in evaluation mode, float32 (n, classes)."""
    found: list[Tensor] = []
    for batch, _ in images.in_order(BATCH_SIZE):
        found.append(model.eval()(batch))
        advanced(min(1.0, len(found) * BATCH_SIZE / len(images)))
    return torch.cat(found)


def estimate_cost(config: ComplexityConfig) -> tuple[float, float]:
    """The bytes of memory and the operations that `measure` needs. Raises `InputError` as `measure` does."""
    data = sources.load_for(config)
    network = config.resolved(data).network
    images, run = footprint(network, data)
    model, shape = untrained(network, data), input_shape(network, data)
    layers = complexity.inputs_of_layers(complexity.folded(model), shape)
    basis = 2 * 8 * complexity.ITERATIONS * max(math.prod(inputs) for _, inputs in layers)  # Lanczos'
    memory = LIBRARIES + 2 * images + max(basis, 2 * run * max(1.0, SHARPNESS_IMAGES / network.batch_size))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.double()(torch.zeros(1, *shape, dtype=torch.float64))  # the counter knows all float64 products
    forward = float(counter.get_total_flops())
    passes = (network.train_subset or len(data.train)) + 2 * 4 * complexity.ASCENTS * SHARPNESS_IMAGES  # in float64
    return memory, forward * passes


def measure(config: ComplexityConfig, begin: Steps = unwatched) -> TheoryResult:
    """Measure the network, or return the finished measurement. An untrained network is trained first.

    Raises `InputError` where the network was trained on other data, and the errors of `train`.
    """
    if found := find(config):
        return found
    data = sources.load_for(config)
    config = config.resolved(data)
    network = config.network
    (run,) = [RunDir(Path(config.run)).result(network)] if config.run else trained_for(config, begin)
    if run.result["provenance"]["fingerprint"] != data.fingerprint:
        raise InputError(f"{run.path} was trained on other data than {data.name}; give its own with --dataset")
    folder = run_dir(config, data)
    with at_work(folder, config) as found:
        if found:
            return found
        advanced, began = begin("margins, norms and sharpness"), time.perf_counter()
        model = run.network()
        images = plain_training_set(replace(network, device=config.device), data)
        facts = measures(model, untrained(network, data), images, config.radius, advanced)
        reached = ("exact_train_accuracy", "test_accuracy", "generalization_gap")
        result = {
            **about(config, data, "fp64"),
            "network": run.path.name,
            "epochs": run.final["epoch"],
            **{name: run.final[name] for name in reached},
            **facts,
        }
        return keep(folder, config, data, result | {"seconds": time.perf_counter() - began})
