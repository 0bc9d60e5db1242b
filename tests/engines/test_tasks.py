"""Tasks of workers: what a worker can import, which runs train together, and what is reported."""

from __future__ import annotations

import contextlib
import functools
import logging
import pickle
import textwrap
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn

from rethinking import ExperimentConfig, InputError, RunError, train
from rethinking.data import operators
from rethinking.data.operators import OPERATORS, Operator
from rethinking.engines.ray_worker import _place_code
from rethinking.engines.tasks import (
    EpochEnded,
    Followed,
    Logged,
    Over,
    Report,
    Started,
    Stepped,
    Stopped,
    Task,
    carry_out,
    groups_for,
    modules_for,
    portable,
)
from rethinking.errors import BusyError, MemoryShortageError, RefusedImagesError
from rethinking.models.catalogue import NETWORKS, adopt
from rethinking.registry import load
from rethinking.training import preparation
from rethinking.training.preparation import PlannedRun
from tests.engines.test_here import config


def flat(num_classes: int = 10) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(784, num_classes))


def of_network(network: object) -> ExperimentConfig:
    return ExperimentConfig(model_name=adopt(network), dataset="digits")  # type: ignore[arg-type]


def test_networks_and_operators_that_have_a_name_need_no_module(tmp_path: Path):
    file = tmp_path / "own.py"
    file.write_text(
        textwrap.dedent("""
            import functools
            from torch import nn
            from rethinking.data.operators import Operator

            def net(num_classes, width=1):
                return nn.Linear(width, num_classes)

            wide = functools.partial(net, width=64)

            class Same(Operator):
                pass
        """)
    )
    named = [{}, {"model_name": f"{file}:net"}, {"model_name": f"{file}:wide"}, {"randomization": f"{file}:Same"}]
    for options in named:
        assert modules_for(ExperimentConfig(dataset="digits", **options)) == ()  # type: ignore[arg-type]
    assert modules_for(of_network(flat)) == (), "a function of an imported module"


@pytest.fixture
def registries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Registries that are as before after the test."""
    for registry in (NETWORKS, OPERATORS):
        monkeypatch.setattr(registry, "_registered", dict(registry.registered()))


@dataclass(frozen=True)
class Same(Operator):
    pass


@pytest.mark.usefixtures("registries")
def test_registered_names_need_the_modules_that_register_them():
    NETWORKS.register("flat")(replace(NETWORKS.find("mlp_1x512"), name="flat", function=flat))
    operators.register("same")(Same)
    assert modules_for(ExperimentConfig(model_name="flat")) == (__name__,)
    assert modules_for(ExperimentConfig(model_name="flat", randomization="same")) == (__name__,)


@pytest.mark.usefixtures("registries")
def test_what_another_process_cannot_import_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    class InFunction(Operator):
        pass

    script = ModuleType("__main__")  # as a script or a notebook
    script.__file__ = str(tmp_path / "script.py")
    monkeypatch.setitem(__import__("sys").modules, "__main__", script)
    Path(script.__file__).write_text("raise AssertionError('the script runs once more')")
    exec("def in_script(num_classes): ...", script.__dict__)
    operators.register("in_function")(InFunction)
    unnamed = [lambda: flat(), functools.partial(flat, num_classes=10), flat(), script.in_script]
    unnamed.append(functools.partial(script.in_script, num_classes=10))
    for network in unnamed:
        with pytest.raises(InputError, match=r"cannot import the network .*: put it into a file of its own"):
            modules_for(of_network(network))
    with pytest.raises(InputError, match="cannot import the operator in_function"):
        modules_for(ExperimentConfig(randomization="in_function"))


def test_runs_are_grouped_evenly_where_they_stack(tmp_path: Path):
    asked = [
        config(tmp_path, seed=seed, model_name=name)
        for seed, name in enumerate(["mlp_1x512"] * 5 + ["mlp_3x512"] * 2 + ["small_inception"])
    ]
    planned = [PlannedRun.of(one) for one in asked]

    def sizes(**options: object) -> list[int]:
        groups = groups_for(planned, **options)  # type: ignore[arg-type]
        assert [run for group in groups for run in group] == planned
        assert all(len({run.group for run in group}) == 1 for group in groups)
        return [len(group) for group in groups]

    assert sizes(workers=2, at_once=8, stacked=None) == [1] * 8, "side by side on a CPU"
    assert sizes(workers=2, at_once=8, stacked=True) == [3, 2, 1, 1, 1]
    assert sizes(workers=2, at_once=2, stacked=True) == [2, 2, 1, 1, 1, 1]
    assert sizes(workers=1, at_once=None, stacked=True) == [5, 2, 1]
    assert sizes(workers=1, at_once=1, stacked=True) == [1] * 8


def test_runs_for_different_cards_are_not_stacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(preparation, "resolve_device", lambda name, machine: torch.device(name.partition(":")[0]))
    cards = ("cuda:0", "cuda:1", "cuda:0", "cuda:1")
    planned = [PlannedRun.of(config(tmp_path, seed=seed, device=card)) for seed, card in enumerate(cards)]
    groups = groups_for(planned, workers=1, at_once=4, stacked=True)
    assert [[run.given.device for run in group] for group in groups] == [["cuda:0"] * 2, ["cuda:1"] * 2]


def test_a_task_reports_its_runs_in_messages_that_pickle(tmp_path: Path):
    asked = config(tmp_path, num_epochs=2, images_in_memory="never")
    reports: list[Report] = []
    threads = torch.get_num_threads()
    logger = logging.getLogger("rethinking")
    before = (logger.handlers[:], logger.level, logger.propagate)
    carry_out(Task((asked, replace(asked, learning_rate=1e30)), threads=1, at_once=1), reports.append)
    torch.set_num_threads(threads)
    assert (logger.handlers, logger.level, logger.propagate) == before
    same = pickle.loads(pickle.dumps(reports))
    assert [type(report) for report in same] == [type(report) for report in reports]
    name = PlannedRun.of(asked).folder.path.name
    of_run = [report for report in reports if getattr(report, "run", None) == name]
    kinds = [type(report) for report in of_run if not isinstance(report, Stepped)]
    assert kinds == [Started, EpochEnded, EpochEnded, Stopped]
    steps = [report.images for report in of_run if isinstance(report, Stepped)]
    assert sum(steps) == 2 * of_run[0].images  # type: ignore[union-attr]
    assert 0 not in steps
    ended = {report.place: report.error for report in reports if isinstance(report, Over)}
    assert ended[0] is None
    assert "the loss is not finite" in str(ended[1])
    assert [report.complete for report in reports if isinstance(report, Stopped)] == [True, False]
    lines = [report for report in reports if isinstance(report, Logged)]
    assert {line.level for line in lines} == {logging.INFO}
    assert "images stay on disk, as asked; batches are read ahead" in [line.message for line in lines]


def test_every_configuration_of_a_task_that_fails_as_a_whole_is_over(tmp_path: Path):
    reports: list[Report] = []
    asked = tuple(config(tmp_path, seed=seed, train_subset=10**6) for seed in range(2))
    carry_out(Task(asked), reports.append)
    assert [type(report) for report in reports] == [Over, Over]
    assert [report.place for report in reports if isinstance(report, Over)] == [0, 1]
    for report in reports:
        assert isinstance(report, Over)
        assert isinstance(report.error, InputError)
        assert str(report.error).startswith("train_subset must be at most")


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (BusyError("wait"), BusyError, "wait"),
        (RefusedImagesError("too small", ["resize"]), InputError, "too small"),
        (MemoryError(), MemoryShortageError, "there is not enough memory for this"),
        (torch.OutOfMemoryError("CUDA out of memory"), MemoryShortageError, "there is not enough memory for this"),
        (KeyError("layer\nname"), RunError, "KeyError: 'layer"),
    ],
)
def test_errors_of_every_kind_can_be_sent(error: Exception, kind: type, text: str):
    sent = pickle.loads(pickle.dumps(portable(error)))
    assert type(sent) is kind
    assert str(sent).startswith(text)
    assert "\n" not in str(sent)


def test_reports_are_passed_on_to_observers_and_loggers(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    finished = train(config(tmp_path, num_epochs=1))
    calls: list[tuple[object, ...]] = []

    class Noting:
        def __getattr__(self, name: str) -> object:
            return lambda *arguments: calls.append((name, *arguments))

    def follow(run: str, complete: bool) -> None:
        followed.take(Started(run, finished.config, [], 1437))
        followed.take(Stepped(run, 128))
        followed.take(EpochEnded(run, {"epoch": 1}))
        followed.take(Stopped(run, complete))

    run = PlannedRun.of(config(tmp_path, num_epochs=1))
    followed = Followed([run], lambda: [Noting()])  # type: ignore[list-item]
    follow(finished.path.name, True)
    expected = [("step", 128), ("epoch", {"epoch": 1})]
    assert calls == [("started", finished.path, finished.config, [], 1437), *expected, ("ended", followed.outcome(run))]
    assert followed.outcome(run).metrics == finished.metrics  # type: ignore[union-attr]
    calls.clear()
    follow("another-2", False)
    assert calls == [("started", tmp_path / "another-2", finished.config, [], 1437), *expected, ("ended", None)]
    followed.take(Started(finished.path.name, finished.config, [], 1437))
    calls.clear()
    followed.end()
    followed.end()
    assert calls == [("ended", None)], "once"
    with caplog.at_level(logging.INFO, "rethinking"):
        followed.take(Logged("rethinking.training", logging.INFO, "half of it: 50%"))
    assert caplog.record_tuples == [("rethinking.training", logging.INFO, "half of it: 50%")]


def test_a_task_uses_its_own_text_of_a_file_and_leaves_none_to_the_next_one(tmp_path: Path):
    file, sent = tmp_path / "own.py", "def net(): return 'sent'"
    file.write_text("def net(): return 'there'")
    for text in (sent, file.read_text(), sent):
        with contextlib.ExitStack() as held:
            _place_code({str(file): text}, held)
            assert load(f"{file}:net")() == ("sent" if text == sent else "there")
    file.unlink()
    with pytest.raises(InputError, match="there is no file"):
        load(f"{file}:net")
