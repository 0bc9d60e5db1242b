"""The command line that makes a run again."""

from __future__ import annotations

import re
import shlex

from rethinking.config import ExperimentConfig, field_by_name
from rethinking.data import sources
from rethinking.experiments.experiment import Evidence
from rethinking.experiments.scale import SCALES
from rethinking.theory.run import READ_OPTIONS


def command(run: Evidence) -> str:
    """The command line that made a run. Older versions kept none: then a command line that makes the run again."""
    if "command" in run.facts and run.task != "measures":
        return str(run.facts["command"])
    if run.task == "measures":
        return f"{_command_of_network(run)} && python reproduce.py complexity runs/{run.facts['network']}"
    return _command_of_network(run) if run.is_of_network else _command_of_theory(run)


def _command_of_network(run: Evidence) -> str:
    flags = {field: flag for flag, field in reversed(field_by_name().items())}
    words = ["python train.py", _data(run)]
    resolved = vars(ExperimentConfig(model_name=run.configuration["model_name"]).resolved())
    for name, value in run.configuration.items():
        if name not in flags:  # an option of the measurement, not of the network
            continue
        if name != "model_name" and (value == resolved[name] or name in ("crop_size", "device")):
            continue
        words.append(f"--{flags[name]}" if value is True else f"--{flags[name]} {shlex.quote(str(value))}")
    return " ".join(words)


def _data(run: Evidence) -> str:
    """The option that names a run's data, without the words that other options add to the name."""
    given = {name: value for name, value in run.configuration.items() if name in READ_OPTIONS}
    name = run.facts["dataset"].removesuffix(sources.ReadOptions(**given).suffix)
    if copy := re.fullmatch(rf"({'|'.join(sources.NAMES)})-[0-9a-f]{{8}}", name):  # in a folder of a known name
        return f"--dataset {copy[1]} --data_root PATH/TO"
    return f"--dataset {name if name in sources.NAMES else f'PATH/TO/{name}'}"


def _command_of_theory(run: Evidence) -> str:
    """The reproduction that a run belongs to. It finds finished runs again."""
    asked = run.configuration
    named = {
        "own_measures": "FILE.py",
        "memorization": "expressivity",
        "linear_classes": "rademacher",
        "replacements": "stability",
    }
    experiment = named.get(run.task, "")
    if run.task == "kernel_machines":
        of_table = asked["solution"] == "minimum_norm" and asked["randomization"] == "none"
        of_table &= asked["train_subset"] in {scale.machine_images for scale in SCALES.values()}
        experiment = "table3" if of_table else "minimum_norm"
    words = [
        f"python reproduce.py {experiment}",
        _data(run),
        *(
            f"--{name}" if asked[name] is True else f"--{name} {shlex.quote(str(asked[name]))}"
            for name in READ_OPTIONS
            if name in asked
        ),
        *(f"--scale {scale}" for scale in _scales(run)),
    ]
    if run.task == "replacements":
        words.append(f"--models {asked['model_name']}")
    if asked.get("filters"):
        words.append(f"--filters {asked['filters']}")
    if asked.get("filter_options"):
        words.append(f"--filter_options {shlex.quote(asked['filter_options'])}")
    if asked.get("bandwidth", "search") != "search":
        words.append(f"--bandwidth {asked['bandwidth']}")
    if asked["seed"]:
        words.append(f"--seeds {asked['seed']}")
    return " ".join(words)


def _scales(run: Evidence) -> list[str]:
    """The scale with this run on this number of images, in a list; empty for the full scale and for none."""
    if run.task == "replacements":
        of_run = [run.configuration[name] for name in ("train_subset", "lr_decay")]
        those = (name for name, scale in SCALES.items() if [scale.options.get("train_subset"), scale.decay] == of_run)
        return [name for name in those if name != "full"]
    if run.facts["dataset"] == "digits":
        return ["demo"]
    images = run.configuration["train_subset"]
    for name, scale in SCALES.items():
        sizes: tuple[int | None, ...] = (scale.machine_images, scale.interpolated, scale.linear)
        if run.task == "linear_classes":
            sizes = scale.examples
        elif run.task == "memorization":
            points, labels = run.configuration["points"], run.configuration["randomization"]
            sizes = (scale.machine_images,)
            if (points, labels) == ("images", "random_labels") or points == "pairs":
                sizes += scale.memorized
            if (points, labels, run.configuration["depth"]) == ("images", "random_labels", 2):
                sizes += scale.examples
        if images in sizes:
            return [] if name == "full" else [name]
    return []
