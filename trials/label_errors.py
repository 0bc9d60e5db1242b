"""Searches a folder of images for wrong labels, beside cleanlab's confident learning on the same probabilities.

    python trials/label_errors.py --data_root ../shared/data [--out results/label_errors.csv]

The folder holds 10,000 images of MNIST or CIFAR-10. A tenth of them lie in the folder of another class, drawn
uniformly. `rethinking.find_label_errors` trains five networks, each without a fifth of the images. cleanlab gets their
out-of-sample probabilities. On two cores it takes five minutes.
"""

from __future__ import annotations

import csv
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from cleanlab.filter import find_label_issues
from cleanlab.rank import get_label_quality_scores
from PIL import Image

import rethinking
from rethinking.data import sources
from rethinking.measures.detection import auroc, precision_at

IMAGES, SHARE = 10_000, 0.1
NETWORKS = {"mnist": ("mlp_1x512",), "cifar10": ("mlp_1x512", "small_alexnet")}


@dataclass(frozen=True)
class Folder:
    """A folder of images in class folders, and which of its files lie in the wrong one."""

    path: Path
    wrong: frozenset[str]


def with_wrong_labels(data: sources.ImageData, count: int, share: float, folder: Path, seed: int = 0) -> Folder:
    """Writes `count` training images as PNG files, `share` of them into the folder of another class."""
    draws = np.random.default_rng(seed)
    rows, classes = draws.permutation(len(data.train))[:count], len(data.class_names)
    changed = draws.permutation(count)[: round(share * count)]
    labels = data.train.labels[rows]
    labels[changed] = (labels[changed] + draws.integers(1, classes, len(changed))) % classes
    names = [f"{data.class_names[label]}/{place:05d}.png" for place, label in enumerate(labels)]
    for row, name in zip(rows, names, strict=True):
        pixels = data.train.images[row]
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels[0] if len(pixels) == 1 else np.moveaxis(pixels, 0, -1).copy()).save(file)
    return Folder(folder, frozenset(names[place] for place in changed))


def compared(folder: Folder, network: str, runs_dir: Path) -> Iterator[dict[str, Any]]:
    """Yields a row for each way to find the wrong labels."""
    began = time.perf_counter()
    found = rethinking.find_label_errors(str(folder.path), model=network, runs_dir=str(runs_dir), use_tensorboard=False)
    seconds = time.perf_counter() - began
    assert found.probabilities is not None
    assert found.files is not None
    wrong = np.array([file in folder.wrong for file in found.files])
    suspicion = {f"ours, {name}": found.kinds[name].suspicion(values) for name, values in found.scores.items()}
    for method in ("self_confidence", "normalized_margin"):
        suspicion[f"cleanlab, {method}"] = -get_label_quality_scores(found.labels, found.probabilities, method=method)
    issues = find_label_issues(found.labels, found.probabilities)
    for name, values in suspicion.items():
        yield {
            "network": network,
            "images": len(wrong),
            "wrong": int(wrong.sum()),
            "method": name.replace("_", " "),
            "auroc": f"{auroc(values, wrong):.4f}",
            "precision": f"{precision_at(values, wrong, int(wrong.sum())):.4f}",
            "first_100": f"{precision_at(values, wrong, 100):.4f}",
            "seconds": f"{seconds:.1f}",
        }
    yield {
        "network": network,
        "images": len(wrong),
        "wrong": int(wrong.sum()),
        "method": f"cleanlab, {issues.sum():,} issues of confident learning",
        "precision": f"{wrong[issues].mean():.4f}",
        "recall": f"{issues[wrong].mean():.4f}",
    }


COLUMNS = ("data", "network", "images", "wrong", "method", "auroc", "precision", "first_100", "recall", "seconds")


def main(data_root: Path, out: Path = Path("results/label_errors.csv"), runs_dir: Path = Path("runs")) -> None:
    """Writes the table of all data sets and networks."""
    rows = []
    for name, networks in NETWORKS.items():
        with tempfile.TemporaryDirectory() as temporary:
            folder = with_wrong_labels(sources.load(name, data_root), IMAGES, SHARE, Path(temporary) / f"{name}-photos")
            for network in networks:
                rows += [{"data": name, **row} for row in compared(folder, network, runs_dir)]
                print(*(f"{row['method']}: {row.get('first_100', '')}" for row in rows[-10:]), sep="\n")
    with out.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    tyro.cli(main)
