"""Files are read back unchanged or reported in one line, after damage, contradictions, kills and refusals."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import random
import re
import shutil
import subprocess
import sys
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch
from torch import nn

from rethinking import files
from rethinking.config import ExperimentConfig, read_config_file
from rethinking.data import cache, sources
from rethinking.errors import BusyError, InputError, RunError
from rethinking.experiments import archive
from rethinking.models import build_model
from rethinking.report import page, tables
from rethinking.theory import tasks
from rethinking.theory.memorization import MemorizationConfig, memorize
from rethinking.theory.run import find as find_theory
from rethinking.training import find, run_dir, train
from rethinking.training.optimizers import Optimizer
from rethinking.training.run_dir import RunDir
from tests.conftest import ROOT

FOREIGN = (  # which parse, most of them, and are not ours
    *(
        b"",
        b"5",
        b"{}",
        b"[]",
        b"null",
        b"\x00" * 50,
        b"\xff\xfe",
        b"a,b\n1,2\n",
        b"run\n",
        b"run,epoch\nx,300000000\n",
    ),
    *(b"[" * 100_000, b'{"a":' * 100_000, b'{"epoch": 300000000}\n', b'{"final": {"epoch": 300000000}}', b"9" * 5000),
    b"\xff" * 7 + b"\x00{}",
)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> ExperimentConfig:
    return ExperimentConfig(
        model_name="mlp_1x512",
        dataset="digits",
        train_subset=64,
        num_epochs=3,
        randomization="random_labels",
        runs_dir=str(tmp_path_factory.mktemp("runs")),
        use_tensorboard=False,
        device="cpu",
        precision="fp32",
    )


@pytest.fixture
def run(config: ExperimentConfig, tmp_path: Path) -> ExperimentConfig:
    """A finished run in a folder of its own."""
    train(config)
    shutil.copytree(config.runs_dir, tmp_path / "runs")
    return dataclasses.replace(config, runs_dir=str(tmp_path / "runs"))


def folder_of(config: ExperimentConfig) -> Path:
    (path,) = Path(config.runs_dir).iterdir()
    return path


def damaged(content: bytes, draw: random.Random) -> bytes:
    """Returns the content with a changed bit, digit or piece, cut short, or replaced."""
    changed = bytearray(content)
    place = draw.randrange(len(content))
    way = draw.choice(("bit", "digit", "digit", "cut", "piece", "foreign", "line"))
    if way == "bit":
        changed[place] ^= 1 << draw.randrange(8)
    elif way == "digit":
        digits = [index for index, byte in enumerate(content[:100_000]) if chr(byte).isdecimal()] or [place]
        index = draw.choice(digits)
        changed[index] = ord(str((content[index] - 48 + draw.randrange(1, 10)) % 10))
    elif way == "cut":
        del changed[place:]
    elif way == "piece":
        changed[place : place + draw.randrange(1, 30)] = draw.randbytes(draw.randrange(30))
    elif way == "line":
        lines = content.splitlines(keepends=True)
        del lines[draw.randrange(len(lines))]
        return b"".join(lines)
    else:
        return draw.choice(FOREIGN)
    return bytes(changed)


def what_is_told(read: Callable[[], Any], whole: Any) -> str | None:
    """Returns the one-line error, or None where the data is read unchanged; anything else fails."""
    found, told = None, None
    try:
        found = read()
    except (InputError, RunError) as error:
        told = str(error)
    assert told is not None or found == whole, "a changed number was taken"
    assert told is None or (len(told.splitlines()) == 1 and len(told) < 1000)
    return told


def assert_damage_is_told(
    names: list[Path], read: Callable[[], Any], times: int, seed: int, before: Callable[[], None] = lambda: None
) -> None:
    """Damages one file after the other in `times` ways; the data is read unchanged, or the damage is reported."""
    draw, whole, told = random.Random(seed), read(), Counter[str]()
    for number in range(times):
        path = names[number % len(names)]
        content = path.read_bytes()
        path.write_bytes(damaged(content, draw))
        before()
        told[path.name] += what_is_told(read, whole) is not None
        path.write_bytes(content)
    before()
    assert read() == whole
    assert set(told) == {path.name for path in names}
    assert told.total() > times / 2


def test_damage_to_a_finished_run_is_reported_by_train_and_by_keep(run: ExperimentConfig):
    path = folder_of(run)

    def read() -> Any:
        by_train = train(run)
        kept = archive.of_run_folder(path)
        assert archive.evidence(by_train) == kept
        return by_train.metrics, by_train.result, kept

    names = [path / name for name in ("metrics.jsonl", "result.json", "config.yaml")]
    assert_damage_is_told(names, read, times=90, seed=1)


def test_damage_to_an_unfinished_run_is_reported_by_train_and_by_keep(run: ExperimentConfig):
    path = folder_of(run)
    (path / "result.json").unlink()

    def read() -> Any:
        kept = archive.of_run_folder(path)
        by_train = train(run)  # of which nothing but the result is missing
        (path / "result.json").unlink()
        return kept, by_train.metrics

    names = [path / name for name in ("metrics.jsonl", "facts.json", "config.yaml")]
    names += [path / f"{name}.safetensors" for name in ("checkpoint", "randomization")]
    assert_damage_is_told(names, read, times=80, seed=2)


def test_damage_to_a_run_of_theory_is_reported_by_reproduce_and_by_keep(tmp_path: Path):
    asked = MemorizationConfig(dataset="digits", train_subset=40, runs_dir=str(tmp_path), device="cpu")
    path = memorize(asked).path

    def read() -> Any:
        found = find_theory(asked)
        assert found is not None
        return found.result, found.question, archive.of_run_folder(path)

    assert_damage_is_told([path / "result.json", path / "config.yaml"], read, times=60, seed=3)
    renamed = path.rename(path.with_name(changed_digit(path.name)))
    with pytest.raises(RunError, match=r"its name, config\.yaml or result\.json was changed"):
        tasks.read(renamed)


def changed_digit(name: str) -> str:
    return re.sub(r"\d(?=\D*$)", lambda digit: str((int(digit[0]) + 1) % 10), name)


def test_a_renamed_folder_is_reported(run: ExperimentConfig):
    path = folder_of(run)
    assert archive.of_run_folder(path.rename(path.with_name(f"{path.name}-2"))).finished, "a repeated run"
    renamed = path.with_name(f"{path.name}-2").rename(path.with_name(changed_digit(path.name)))
    with pytest.raises(RunError, match=r"the folder's name, its config\.yaml or its data's name was changed"):
        archive.of_run_folder(renamed)
    (renamed / "result.json").unlink()
    with pytest.raises(RunError, match=r"the folder's name, its config\.yaml or its data's name was changed"):
        archive.of_run_folder(renamed)


@pytest.fixture
def results(run: ExperimentConfig, tmp_path: Path) -> Path:
    """Evidence of two networks and of theory."""
    of_network = archive.evidence(train(run))
    asked = MemorizationConfig(dataset="digits", train_subset=40, runs_dir=str(tmp_path / "theory"), device="cpu")
    begun = dataclasses.replace(of_network, run=f"{of_network.run}-2", finished=False, metrics=of_network.metrics[:2])
    archive.add(tmp_path / "results", [of_network, begun, archive.evidence(memorize(asked))])
    return tmp_path / "results"


def test_damage_to_evidence_is_reported(results: Path):
    names = [results / f"{name}.csv" for name in ("runs", "epochs", "memorization")]
    of_theory = {run.run for run in archive.read(results).values() if not run.is_of_network}

    def read() -> Any:
        kept = archive.read(results)
        if not of_theory <= kept.keys():  # a file without rows is one that has none yet
            raise RunError("rows are missing")
        return kept

    assert_damage_is_told(names, read, times=150, seed=4)


def test_evidence_without_checksums_must_agree_with_itself(results: Path):
    """Older versions wrote it. A changed digit is noticed where one column determines another."""
    for name in ("runs", "memorization"):
        lines = (results / f"{name}.csv").read_text().splitlines()
        assert lines[0].endswith(",checksum")
        (results / f"{name}.csv").write_text("".join(line.rpartition(",")[0] + "\n" for line in lines))
    kept = archive.read(results)
    for name, old, new in (
        ("runs", ",finished,", ",finishes,"),
        ("runs", "after 2 of 3", "after 1 of 3"),
        ("runs", '""num_epochs"": 3', '""num_epochs"": 4'),
        ("runs", ",mlp_1x512,", ",mlp_3x512,"),
        ("epochs", ",3,", ",4,"),
        ("epochs", "\n", "\n\n5"),
        ("memorization", '""depth"": 2', '""depth"": 3'),
        ("memorization", '""weights"": 8', '""weights"": 9'),
    ):
        content = (results / f"{name}.csv").read_text()
        assert old in content, (name, old)
        (results / f"{name}.csv").write_text(content.replace(old, new, 1))
        with pytest.raises(RunError, match=r"is damaged or of another version.*move that folder away"):
            archive.read(results)
        (results / f"{name}.csv").write_text(content)
    last = next(iter(kept.values())).metrics[-1]["train_loss"]
    content = (results / "epochs.csv").read_text()
    (results / "epochs.csv").write_text(content.replace(str(last), str(last + 1), 1))
    with pytest.raises(RunError, match=r"final_train_loss of .* does not agree"):
        archive.read(results)


def test_a_later_metric_is_absent_from_earlier_runs_and_evidence(
    run: ExperimentConfig, results: Path, monkeypatch: pytest.MonkeyPatch
):
    before = archive.read(results)
    for module in (run_dir, archive):
        monkeypatch.setattr(module, "METRICS", (*run_dir.METRICS, "margin"))
    monkeypatch.setattr(run_dir, "RECORD_FIELDS", (*run_dir.RECORD_FIELDS, "margin"))
    found = find(run)
    assert found is not None
    assert [record["margin"] for record in found.metrics] == [None] * 3
    for folder in (results, ROOT / "results/cifar10"):
        kept = archive.read(folder)
        assert all(record["margin"] is None for evidence in kept.values() for record in evidence.metrics)
    mine = {**found.metrics[0], "margin": 0.5}
    added = archive.evidence(dataclasses.replace(found, metrics=[mine]))
    archive.add(results, [dataclasses.replace(added, run="later", finished=False)])
    assert archive.read(results)["later"].metrics[0]["margin"] == 0.5
    monkeypatch.undo()
    assert before.items() <= archive.read(results).items(), "an earlier version reads what a later one wrote"


def test_a_record_needs_only_its_epoch(run: ExperimentConfig):
    path = as_older_versions_wrote_it(folder_of(run))
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    text = [json.dumps({"epoch": 1, "seconds": lines[0]["seconds"]}), *map(json.dumps, lines[1:])]
    (path / "metrics.jsonl").write_text("\n".join(text) + "\n")
    found = find(run)
    assert found is not None
    assert found.metrics[0]["train_loss"] is None
    assert found.metrics[1:] == lines[1:]


def as_older_versions_wrote_it(path: Path) -> Path:
    """Returns the files of a run without the additions of this version."""
    for name in ("result.json", "facts.json"):
        content = json.loads((path / name).read_text())
        (path / name).write_text(json.dumps({key: content[key] for key in content if "checksum" not in key}))
    with safetensors.safe_open(path / "checkpoint.safetensors", framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        epoch = file.metadata()["epoch"]
    checksum = 0
    for name in sorted(tensors):
        checksum = zlib.crc32(tensors[name].flatten().view(torch.uint8).numpy().data, checksum)
    metadata = {"epoch": epoch, "crc32": f"{checksum:08x}"}
    safetensors.torch.save_file(tensors, path / "checkpoint.safetensors", metadata)
    return path


def test_runs_of_older_versions_are_found_and_resumed(run: ExperimentConfig):
    whole = train(run)
    path = as_older_versions_wrote_it(folder_of(run))
    found = find(run)
    assert found == whole
    (path / "result.json").unlink()
    assert train(run).metrics == whole.metrics
    result = path / "result.json"
    as_older_versions_wrote_it(path)
    for name, old, new in (
        ("result.json", '"epochs_to_fit": {', '"epochs_to_fit": {"1.0": 7, '),
        ("result.json", '"seconds": ', '"seconds": 1'),
        ("metrics.jsonl", '"train_loss": ', '"train_loss": 1'),
        ("result.json", '"fingerprint": "', '"fingerprint": "0'),
    ):
        content = (path / name).read_text()
        before, _, after = content.rpartition(old)
        (path / name).write_text(before + new + after.replace('"1.0": null', '"0.0": 0'))
        with pytest.raises(RunError, match=r"contradict each other|was changed"):
            find(run)
        (path / name).write_text(content)
    assert result.exists()
    assert find(run) == whole


def test_a_checkpoint_is_whole_or_reported_as_damaged(run: ExperimentConfig):
    """This covers its epoch, names, shapes and types."""
    path = folder_of(run)
    (path / "result.json").unlink()
    file = path / "checkpoint.safetensors"
    content = file.read_bytes()
    with safetensors.safe_open(file, framework="pt") as opened:
        tensors, metadata = {name: opened.get_tensor(name) for name in opened.keys()}, opened.metadata()  # noqa: SIM118
    weight = next(name for name, tensor in tensors.items() if tensor.ndim == 2)
    bias = next(name for name, tensor in tensors.items() if tensor.ndim == 1)
    swapped = {**tensors, weight: tensors[weight].t().contiguous()}
    retyped = {**tensors, bias: tensors[bias].view(torch.int32)}
    renamed = {f"{name}x" if name == bias else name: tensor for name, tensor in tensors.items()}
    for changed, told in (
        (safetensors.torch.save(tensors, {**metadata, "epoch": "2"}), True),
        (safetensors.torch.save(tensors, {**metadata, "epoch": "300000000"}), True),
        (safetensors.torch.save(tensors, {**metadata, "metrics": "00000000"}), True),
        (safetensors.torch.save(swapped, metadata), True),
        (safetensors.torch.save(retyped, metadata), True),
        (safetensors.torch.save(renamed, metadata), True),
        (content, False),
    ):
        file.write_bytes(changed)
        if told:
            with pytest.raises(RunError, match=r"checkpoint\.safetensors is damaged or missing: move that folder away"):
                train(run)
        else:
            assert train(run).finished


@pytest.mark.parametrize("number", [errno.EACCES, errno.EMFILE, errno.ESTALE, errno.EIO])
def test_an_unreadable_file_is_not_called_damaged(
    run: ExperimentConfig, results: Path, monkeypatch: pytest.MonkeyPatch, number
):
    path, unfinished = folder_of(run), Path(run.runs_dir).parent / "unfinished"
    shutil.copytree(path, unfinished / path.name)
    (unfinished / path.name / "result.json").unlink()
    asked = dataclasses.replace(run, runs_dir=str(unfinished))
    table = ROOT / "results/cifar10/table1.csv"
    places: list[tuple[str, Callable[[], Any]]] = [
        *((name, lambda: train(run)) for name in ("config.yaml", "metrics.jsonl", "result.json")),
        *((name, lambda: train(asked)) for name in ("checkpoint.safetensors", "randomization.safetensors")),
        *((f"{name}.csv", lambda: archive.read(results)) for name in ("runs", "epochs", "memorization")),
        ("facts.json", lambda: archive.of_run_folder(unfinished / path.name)),
        ("info.json", lambda: cache.read(next(cache.folder().glob("digits-*")))),
        ("table1.csv", lambda: tables.read_csv(table)),
    ]
    real = Path.open
    for refused, read in places:

        def opened(self: Path, *arguments: Any, refused: str = refused, **options: Any) -> Any:
            if self.name == refused and not {*"wax+"} & {*(arguments[0] if arguments else "r")}:
                raise OSError(number, "refused", str(self))
            return real(self, *arguments, **options)

        monkeypatch.setattr(Path, "open", opened)
        told = what_is_told(read, None)
        monkeypatch.undo()
        assert told is not None, refused
        assert "cannot read" in told, refused
        assert not re.search(r"move|delete|is damaged", told), told


def test_damage_to_the_cache_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RETHINKING_CACHE", str(tmp_path))
    sources.load("digits")
    (entry,) = (tmp_path / name for name in cache.entries())

    def read() -> Any:
        found = cache.read(entry)
        arrays = [(np.array(split.images).tobytes(), split.labels.tolist()) for split in found.splits.values()]
        return found.info, arrays

    names = sorted(entry.iterdir())
    assert_damage_is_told(names, read, 70, seed=5, before=cache._fingerprint_on_disk.cache_clear)


def test_a_cut_or_foreign_table_is_named(tmp_path: Path):
    """The page reads another table's numbers, or no table at all."""
    table = tmp_path / "table1.csv"
    content = (ROOT / "results/cifar10/table1.csv").read_bytes()
    draw, told = random.Random(6), 0
    for _ in range(60):
        table.write_bytes(damaged(content, draw))
        line = what_is_told(lambda: len(tables.read_csv(table)), 3)
        assert line is None or line.startswith(f"{table} is damaged or no table of ours: move it away")
        told += line is not None
    assert told > 25
    kept = archive.read(ROOT / "results/cifar10")
    for foreign in FOREIGN:
        table.write_bytes(foreign)
        with pytest.raises(RunError, match=r"table1\.csv is damaged or no table of ours"):
            page.write(tmp_path, kept)


@pytest.mark.parametrize(
    "content",
    [
        b"a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n",
        b"model_name: " + b"x" * 10_000,
        b"#" * 100_000_000,
        b"model_name: mlp_1x512\x00",
        b"seed: 1\nseed: 2\n",
        b"seed: !!int ''\n",
        b"seed: !!timestamp x\n",
        b"seed: 0x" + b"f" * 2000,
        b"{" * 5000,
        b"? " * 8000,
        b"- " * 8000,
        b"!!python/object/apply:os.system ['true']",
        b"seed: " + b"1:" * 900 + b"1",
    ],
    ids=range(13),
)
def test_hostile_yaml_is_a_one_line_error(tmp_path: Path, content):
    (tmp_path / "config.yaml").write_bytes(content)
    with pytest.raises(InputError) as caught:
        ExperimentConfig.from_mapping(read_config_file(tmp_path / "config.yaml"))
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 5000
    with pytest.raises((InputError, RunError)):
        archive.of_run_folder(tmp_path)


def test_half_a_line_at_the_end_is_no_damage_and_is_overwritten(run: ExperimentConfig):
    """It disturbs neither a reader while another process appends, nor the next epoch after a kill."""
    whole, path = train(run), folder_of(run)
    (path / "result.json").unlink()
    for following in (b'{"epoch": 4, "train', b'{"epoch": 4}\n{"ep', b"\x00\x00"):
        (path / "metrics.jsonl").write_bytes((path / "metrics.jsonl").read_bytes() + following)
        found = find(run)
        assert found is not None
        assert found.metrics == whole.metrics
    network, folder = untrained(), RunDir(path)
    assert folder.restore(*network) == whole.metrics
    folder.save_epoch({"epoch": 4, "seconds": 1.0}, *network)
    assert [json.loads(line)["epoch"] for line in (path / "metrics.jsonl").read_text().splitlines()] == [1, 2, 3, 4]
    found = find(run)
    assert found is not None
    assert len(found.metrics) == 4


def untrained() -> tuple[nn.Module, Optimizer]:
    model = build_model("mlp_1x512", 10, (1, 28, 28))
    return model, Optimizer(model, ExperimentConfig(model_name="mlp_1x512").resolved())


def test_an_epoch_is_on_the_disk_before_the_next_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Content is synced before the checkpoint is renamed, and the name after it. A power cut leaves whole files."""
    fsync, replace, events = os.fsync, os.replace, []

    def recorded(descriptor: int) -> None:
        found = os.fstat(descriptor)
        events.append(next(p.name for p in (tmp_path, *tmp_path.iterdir()) if os.path.samestat(p.stat(), found)))
        fsync(descriptor)

    def renamed(source: Path, target: Path) -> None:
        events.append(f"renamed to {target.name}")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", recorded)
    monkeypatch.setattr(os, "replace", renamed)
    RunDir(tmp_path).save_epoch({"epoch": 1}, *untrained())
    metrics, checkpoint, *rest = events
    assert metrics == "metrics.jsonl"
    assert re.fullmatch(r"checkpoint\.safetensors\.\w+\.tmp", checkpoint)
    assert rest == ["renamed to checkpoint.safetensors", tmp_path.name]
    events.clear()
    RunDir(tmp_path).finish({"final": {}})
    assert events[1:] == ["renamed to result.json", tmp_path.name]


def test_a_lock_of_another_process_is_reported_and_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    held = filelock.FileLock(tmp_path / ".lock")
    held.acquire()
    with pytest.raises(BusyError), files.lock(tmp_path / ".lock", wait=False):
        pass
    monkeypatch.setattr(files, "PATIENCE", 0.01)
    said: list[str] = []

    def release(message: str, *arguments: Any) -> None:
        said.append(message % arguments)
        held.release()

    monkeypatch.setattr(files.log, "warning", release)
    with files.lock(tmp_path / ".lock"):
        assert not said[0].splitlines()[1:]
    assert "waiting for another process that holds" in said[0]
    assert "if it is suspended" in said[0]


# Kills at random moments, of children of one process that has imported everything

KILLED = """
import os, random, signal, sys, time
import torch
torch.set_num_threads(1)
{imports}
def killed(work, longest, draw, ready=lambda: None):
    child = os.fork()
    if not child:
        try:
            work()
        finally:
            os._exit(1)
    ready()
    time.sleep(draw.uniform(0, longest))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
"""


def in_a_process(code: str, imports: str, *arguments: str) -> None:
    script = KILLED.format(imports=imports) + code
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_run_survives_kills_at_sixty_moments_of_training(tmp_path: Path):
    """A kill costs at most the current epoch, and the numbers equal those of an uninterrupted run."""
    in_a_process(
        """
config = ExperimentConfig(model_name="mlp_1x512", dataset="digits", train_subset=64, num_epochs=100_000,
    lr_schedule="constant", eval_test_every=50, keep_test_losses=False, runs_dir=sys.argv[1], use_tensorboard=False,
    device="cpu", precision="fp32")
draw, before = random.Random(7), 0
sources.load("digits")
def saved():
    checkpoints = list(Path(sys.argv[1]).glob("*/checkpoint.safetensors"))
    return checkpoints[0].stat().st_ino if checkpoints else 0
def epoch_saved(last):
    while saved() == last:
        time.sleep(0.001)
for kill in range(60):
    last = saved()
    killed(lambda: train(config), 0.05, draw, (lambda: epoch_saved(last)) if kill % 2 else (lambda: None))
    found = find(config)
    epochs = len(found.metrics) if found else 0
    assert epochs >= before + kill % 2, (epochs, before)
    before = epochs
straight = replace(config, num_epochs=before + 2, runs_dir=sys.argv[2])
expected = train(straight).metrics[:before]
for record, other in zip(find(config).metrics, expected, strict=True):
    assert record["train_loss"] == other["train_loss"], record
print(before)
""",
        "from dataclasses import replace\nfrom pathlib import Path\nfrom rethinking.config import ExperimentConfig\n"
        "from rethinking.data import sources\nfrom rethinking.training import find, train",
        str(tmp_path / "killed"),
        str(tmp_path / "straight"),
    )
    (path,) = (tmp_path / "killed").iterdir()
    with RunDir(path).lock():  # as the next process does
        assert not list(path.glob("*.tmp"))


def test_results_survive_kills_at_forty_moments_of_writing(results: Path):
    """After each kill, the old or the new content is read completely."""
    in_a_process(
        """
folder = Path(sys.argv[1])
kept = archive.read(folder)
run = next(run for run in kept.values() if run.is_of_network and run.finished)
cells, data, scale = tables.read_csv(Path(sys.argv[2]))
draw = random.Random(8)
def work():
    for number in range(1000):
        archive.add(folder, [replace(run, run=f"{run.run}-{kill}-{number}")])
        with archive.locked(folder):
            tables.write_csv(folder / "table1.csv", cells, data, scale)
for kill in range(40):
    before = archive.read(folder)
    killed(work, 0.2, draw)
    after = archive.read(folder)
    assert before.items() <= after.items()
    assert {(one.facts == run.facts, one.metrics == run.metrics) for one in after.values() if one.finished
        and one.is_of_network} == {(True, True)}
    if (folder / "table1.csv").exists():
        assert tables.read_csv(folder / "table1.csv")[0] == cells
with archive.locked(folder):
    assert not list(folder.glob("*.tmp"))
""",
        "from dataclasses import replace\nfrom pathlib import Path\nfrom rethinking.experiments import archive\n"
        "from rethinking.report import tables",
        str(results),
        str(ROOT / "results/cifar10/table1.csv"),
    )
