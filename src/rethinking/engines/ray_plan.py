"""Plans runs for a Ray cluster: what its nodes are, what each run needs of them, and what travels with a task."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from rethinking import files
from rethinking.config import ExperimentConfig
from rethinking.data import sources
from rethinking.data.given_labels import Labels
from rethinking.data.images import ImageData
from rethinking.engines.ray_cluster import Cluster, Node, differing, probe_function, versions
from rethinking.engines.ray_worker import Contents, Shipped, of_an_epoch
from rethinking.errors import InputError
from rethinking.source import local_files
from rethinking.training.hardware import Machine
from rethinking.training.memory import LIBRARIES, footprint
from rethinking.training.preparation import PlannedRun, given_labels_of
from rethinking.training.run_dir import LOCK

THREADS = 4  # of a run that computes with several threads; more bring little
CUDA_LIBRARIES = 3 << 30  # bytes of a process that has loaded PyTorch's CUDA libraries
PART = 32 << 20  # bytes of images that travel at once
ANSWER = 60.0  # seconds in which a node must say what it has


@dataclass(frozen=True)
class Survey:
    """The state of a cluster's nodes.

    machine: the devices that every run is planned for
    refused: a line about each node that cannot train, by the node's name
    unseen: the folders of runs that a node does not see
    """

    machine: Machine
    refused: Mapping[str, str]
    unseen: frozenset[Path]


def survey(cluster: Cluster, tokens: Iterable[Path] = ()) -> Survey:
    """Asks every node for its versions, its devices and whether it sees the files `tokens`.

    The cluster computes on CUDA where a node has it, and in bfloat16 where all nodes with the device do so natively.
    Raises `InputError` where no node can train.
    """
    if cluster.is_local:
        return Survey(Machine.here(), {}, frozenset())
    nodes, paths = cluster.nodes(), [str(token) for token in tokens]
    found = _answers(cluster, nodes, paths)
    expected = versions()
    refused: dict[str, str] = {}
    native: dict[str, bool] = {}
    unseen: set[Path] = set()
    for node in nodes:
        if (answer := found.get(node.name)) is None:
            continue
        if answer["versions"] != expected:
            refused[node.name] = differing(node.address, answer["versions"], expected)
            continue
        for device, bf16 in answer["native_bf16"].items():
            if device == "cuda" and not node.resources.get("GPU"):
                continue  # Ray gives no task this node's cards
            native[device] = native.get(device, True) and bf16
        unseen |= {Path(token).parent for token in paths if token not in answer["seen"]}
    if not native:
        lines = list(refused.values()) or [f"none of the {len(nodes)} nodes answers within {ANSWER:.0f} seconds"]
        raise InputError(f"no node of the Ray cluster can train: {lines[0]}")
    return Survey(Machine(native), refused, frozenset(unseen))


def _answers(cluster: Cluster, nodes: Sequence[Node], tokens: list[str]) -> dict[str, dict[str, Any]]:
    """Returns the answer of each node by its name. A node that does not answer is left out."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    ray = cluster.ray
    probe = ray.remote(max_retries=0, max_calls=1)(probe_function())  # no task follows in a process that used card 0
    asked = {}
    for node in nodes:
        place = NodeAffinitySchedulingStrategy(node.name, soft=False)
        # Without a share of a card, it sees them all and need not wait for a free one.
        asked[probe.options(scheduling_strategy=place, num_cpus=0, num_gpus=0).remote(tokens)] = node.name
    ready, late = ray.wait(list(asked), num_returns=len(asked), timeout=ANSWER)
    for reference in late:
        ray.cancel(reference)
    answers = {}
    for reference in ready:
        try:
            answers[asked[reference]] = ray.get(reference)
        except ray.exceptions.RayError:  # the node died meanwhile
            continue
    return answers


# What a run needs


def threads_of(config: ExperimentConfig, nodes: Sequence[Node]) -> int:
    """Returns the number of computing threads of a resolved configuration on any of the nodes."""
    if config.device != "cpu" or "cpu" in config.network.faster_together:
        return 1
    cores = [int(node.resources["CPU"]) for node in nodes if node.resources.get("CPU", 0) >= 1]
    return min(THREADS, *cores) if cores else 1


def needs_of(runs: Sequence[PlannedRun], threads: int) -> dict[str, float]:
    """Returns the resources of runs that train together, by Ray's names; memory in bytes."""
    config = runs[0].config
    data = sources.load_for(config)
    if config.device == "cuda":
        count = len(data.train) + (len(data.test) if data.test else 0)
        decoded = count * int(np.prod(data.image_shape))
        return {"CPU": 1, "GPU": 1, "memory": CUDA_LIBRARIES + decoded}
    images, run = footprint(config, data)
    own = len(runs) if any(run.config.has_own_images for run in runs) else 1
    return {"CPU": threads, "memory": LIBRARIES + own * images + len(runs) * run}


def too_large(needs: Mapping[str, float], nodes: Sequence[Node], refused: Sequence[str]) -> str | None:
    """Returns a line where no node ever holds a task with these needs; else None.

    nodes: those that can train
    refused: the lines about the others
    """
    if any(node.holds(needs) for node in nodes):
        return None
    if not nodes:
        return f"no node of the Ray cluster can train: {refused[0] if refused else 'none is alive'}"
    largest = max(nodes, key=lambda node: node.resources.get("memory", 0.0))
    return (
        f"no node of the Ray cluster holds this run: it needs {_in_words(needs)}; the largest, {largest.address}, has"
        f" {_in_words(largest.resources)}"
    )


def _in_words(resources: Mapping[str, float]) -> str:
    cores = resources.get("CPU", 0)
    words = [f"{cores:g} core{'s' * (cores != 1)}"]
    if cards := resources.get("GPU", 0):
        words.append(f"{cards:g} GPU{'s' * (cards != 1)}")
    return f"{', '.join(words)} and {resources.get('memory', 0.0) / 2**30:.1f} GiB of memory"


# What travels with a task


def for_nodes(planned: PlannedRun) -> ExperimentConfig:
    """Returns the configuration as given, with paths that hold in every working directory."""
    resolved = planned.config
    return replace(
        planned.given,
        runs_dir=str(Path(resolved.runs_dir).absolute()),
        dataset=resolved.dataset,
        data_root=resolved.data_root,
        labels=resolved.labels,
        labels_digest=resolved.labels_digest,
        model_name=resolved.model_name,
        randomization=resolved.randomization,
    )


def code_of(configs: Iterable[ExperimentConfig]) -> dict[str, str]:
    """Returns the text of the user's own files that resolved configurations name, and of the files they import."""
    code: dict[str, str] = {}
    for name in {name for config in configs for name in (config.model_name, config.randomization)}:
        module = name.rpartition(":")[0]
        if module.endswith(".py"):
            for file in local_files(Path(module)):
                code[str(file)] = file.read_text(encoding="utf-8", errors="replace")
    return code


def labels_of(configs: Iterable[ExperimentConfig]) -> tuple[Labels, ...]:
    """Returns the labels that resolved configurations take from files, each once."""
    by_digest = {
        config.labels_digest: given_labels_of(config, sources.load_for(config))
        for config in configs
        if config.labels_digest is not None
    }
    return tuple(by_digest.values())


def contents_of(folder: Path) -> Contents:
    """Returns the files of an unfinished run's folder, without those of the loggers; none for a new run."""
    if not files.exists(folder):
        return {}
    paths = [path for path in of_an_epoch(folder) if path.is_file() and path.name != LOCK]
    names = [str(path.relative_to(folder)) for path in paths]
    return {name: content for name in names if (content := files.read(folder / name)) is not None}


def shipped(cluster: Cluster, data: ImageData) -> Shipped:
    """Puts decoded images and labels into the object store, in parts. Ray keeps on disk what has no room there."""
    arrays = []
    for split, images in (("train", data.train), ("test", data.test)):
        for name, array in () if images is None else (("images", images.images), ("labels", images.labels)):
            rows = max(1, PART // max(1, array[:1].nbytes))
            parts = [
                cluster.ray.put(np.ascontiguousarray(array[begin : begin + rows]))
                for begin in range(0, len(array), rows)
            ]
            kind = str(np.lib.format.dtype_to_descr(array.dtype))
            arrays.append((f"{split}_{name}.npy", kind, tuple(map(int, array.shape)), parts))
    return Shipped({"class_names": data.class_names, "origin": data.origin, "notes": data.notes}, arrays)
