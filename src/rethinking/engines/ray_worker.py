"""Carries out a task on a node of a Ray cluster, and sends what happens there to the driver."""

from __future__ import annotations

import contextlib
import itertools
import queue
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from rethinking import files, registry
from rethinking.config import ExperimentConfig
from rethinking.data import cache, given_labels, sources
from rethinking.data.given_labels import Labels
from rethinking.data.images import ImageData
from rethinking.engines.here import Stop
from rethinking.engines.tasks import Over, Report, Stopped, Task, carry_out, portable
from rethinking.errors import InputError, RunError
from rethinking.training.examples import FOLDER as EXAMPLES
from rethinking.training.hardware import Machine, planning_for
from rethinking.training.loggers import Observer
from rethinking.training.preparation import runs_in
from rethinking.training.run_dir import LOCK

TOGETHER = 0.25  # seconds of reports that are sent together
FIRST = ("config.yaml", "randomization.safetensors", "facts.json", "metrics.jsonl")  # before the checkpoint
RESULT = "result.json"

Contents = dict[str, bytes]  # files of a run's folder, by their paths in it


@dataclass(frozen=True)
class Needed:
    """A data set that runs of a task read, with the name and the fingerprint that the driver found."""

    config: ExperimentConfig
    name: str
    fingerprint: str


@dataclass(frozen=True)
class Errand:
    """A task with everything that a node needs besides the installed package.

    machine: the devices that the runs were planned for
    data: the data sets of the runs
    code: the text of the user's own files, by absolute path
    tokens: files in the folders of runs, which show that the node sees these folders
    labels: the labels that runs take from files (`--labels`)
    travelling: the names of the run folders where the node does not see them; the runs train in a temporary folder then
    """

    task: Task
    machine: Machine
    data: tuple[Needed, ...]
    code: Mapping[str, str]
    tokens: tuple[Path, ...] = ()
    travelling: tuple[str, ...] = ()
    labels: tuple[Labels, ...] = ()


class Shipped(NamedTuple):
    """A decoded data set on its way to a node. `arrays` holds file names, types, shapes and references to parts."""

    info: dict[str, Any]
    arrays: list[tuple[str, str, tuple[int, ...], list[Any]]]


class Files(NamedTuple):
    """New contents of a run's folder, in the order in which they are to be written."""

    run: str
    contents: Contents


class Unseen(NamedTuple):
    """The node does not see this folder of runs; nothing was trained."""

    folder: Path


class Lacking(NamedTuple):
    """The node cannot read this data set, by its place in the errand; nothing was trained."""

    place: int


Event = Report | Files | Unseen | Lacking


def carried_out(errand: Errand, contents: Mapping[str, Contents], shipped: Mapping[int, Any]) -> Iterator[list[Event]]:
    """Trains the runs of an errand, and yields events in groups. Runs stop at their next step when it is closed.

    contents: what the folders of travelling runs hold already, by their names
    shipped: data sets by their places in `errand.data`, each a `Shipped`
    """
    with contextlib.ExitStack() as held:
        try:
            unmet = _unmet(errand, shipped)
            if unmet is None:
                _place_code(errand.code, held)
                given_labels.provide(errand.labels)
                folder = held.enter_context(_temporary_folder(contents)) if errand.travelling else None
                sent = [_Sent(folder / name) for name in errand.travelling] if folder else []
        except (InputError, RunError, OSError) as error:
            failure = portable(error)
            yield [Over(place, failure) for place in range(len(errand.task.configs))]
            return
        if unmet is None:
            yield from _trained(errand, folder, sent)
        else:
            yield [unmet]


def _unmet(errand: Errand, shipped: Mapping[int, Any]) -> Unseen | Lacking | None:
    """Returns what this node lacks for an errand; None where it has everything."""
    for token in errand.tokens:
        if not token.exists():
            return Unseen(token.parent)
    for place, needed in enumerate(errand.data):
        if not _has(needed) and not (place in shipped and _received(needed, Shipped(*shipped[place]))):
            return Lacking(place)
    return None


# Data and code


def _has(needed: Needed) -> bool:
    """Returns whether this node reads the data set as the driver does."""
    try:
        found = sources.load_for(needed.config)
    except (InputError, RunError):
        return False
    return (found.name, found.fingerprint) == (needed.name, needed.fingerprint)


def _received(needed: Needed, shipped: Shipped) -> bool:
    """Puts a data set from the driver into this node's cache, once, and makes configurations find it there."""
    info, arrays = shipped
    path = cache.folder() / f"{needed.name}-{needed.fingerprint[:12]}-shipped"

    def write(folder: Path) -> dict[str, Any]:
        for name, kind, shape, parts in arrays:
            with (folder / name).open("wb") as file:
                _write_array(file, kind, shape, parts)
        return {"class_names": info["class_names"], "notes": [], "known": None}

    if not cache.exists(path):
        cache.build(path, write)
    entry = cache.read(path)
    if entry.info["fingerprint"] != needed.fingerprint:
        raise RunError(f"{path} is damaged: {cache.DELETE_IT}")
    data = ImageData(
        needed.name,
        tuple(info["class_names"]),
        needed.fingerprint,
        entry.splits["train"],
        entry.splits.get("test"),
        info["origin"],
        tuple(info["notes"]),
    )
    sources.provide(needed.config, data)
    return True


def _write_array(file: BinaryIO, kind: str, shape: tuple[int, ...], parts: Sequence[Any]) -> None:
    """Writes a `.npy` file part by part, so that no more than a part is in memory."""
    import ray

    np.lib.format.write_array_header_1_0(file, {"descr": kind, "fortran_order": False, "shape": shape})
    for part in parts:
        file.write(ray.get(part).data)


def _place_code(code: Mapping[str, str], held: contextlib.ExitStack) -> None:
    """Makes the user's files available under their paths, from a temporary folder where this node has others."""
    if all(_text_of(Path(path)) == text for path, text in code.items()):
        return
    root = held.enter_context(files.temporary_folder("rethinking-code-"))
    copies = {path: root / Path(path).relative_to(Path(path).anchor) for path in code}
    for path, copy in copies.items():
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(code[path], encoding="utf-8")
    held.enter_context(registry.using_copies(copies))


def _text_of(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None


# Folders of runs that travel


@contextlib.contextmanager
def _temporary_folder(contents: Mapping[str, Contents]) -> Iterator[Path]:
    """Makes a folder for run folders with these contents, and removes it at the end."""
    with files.temporary_folder("rethinking-runs-") as root:
        for name, content in contents.items():
            (root / "runs" / name).mkdir(parents=True)
            for file, data in content.items():
                path = root / "runs" / name / file
                path.parent.mkdir(exist_ok=True)
                files.write(path, data, durable=False)
        yield root / "runs"


def of_an_epoch(folder: Path) -> Iterator[Path]:
    """Returns the paths of the files that an epoch needs or writes, and of folders: all but the loggers' files."""
    return itertools.chain(folder.iterdir(), (folder / EXAMPLES).glob("*"))


class _Sent:
    """The files of a run's folder that the driver has."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._known = self._stamps(of_an_epoch(folder))

    def changed(self, is_over: bool) -> Files:
        """Returns the files that changed since the last call. The loggers' files and the result come at the end."""
        found = self._stamps(self.folder.rglob("*") if is_over else of_an_epoch(self.folder))
        new = [name for name, stamp in found.items() if self._known.get(name) != stamp]
        if not is_over:
            new = [name for name in new if name != RESULT]
        # The checkpoint is read before what it counts, the metrics and the examples, and is written after them.
        contents = {name: content for name in sorted(new) if (content := files.read(self.folder / name)) is not None}
        self._known |= {name: found[name] for name in contents}
        counted = [name for name in sorted(contents) if name.startswith(f"{EXAMPLES}/")]
        order = [*FIRST, *counted, *sorted(contents.keys() - {*FIRST, *counted, RESULT}), RESULT]
        return Files(self.folder.name, {name: contents[name] for name in order if name in contents})

    def _stamps(self, paths: Iterator[Path]) -> dict[str, tuple[int, ...]]:
        stamps: dict[str, tuple[int, ...]] = {}
        for path in paths:
            if path.name == LOCK or path.name.endswith(files.UNFINISHED):
                continue
            with contextlib.suppress(FileNotFoundError):
                status = path.lstat()
                if path.is_file():
                    stamps[str(path.relative_to(self.folder))] = (status.st_mtime_ns, status.st_size, status.st_ino)
        return stamps


# Training in a thread, while the task's own thread sends events


def _trained(errand: Errand, folder: Path | None, sent: Sequence[_Sent]) -> Iterator[list[Event]]:
    events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
    stop = Stop()
    thread = threading.Thread(target=_work, args=(errand, folder, events, stop), name="training")
    thread.start()
    try:
        ended = False
        while not ended:
            group = _next_group(events)
            ended = group[-1] is None
            reports = [event for event in group if event is not None]
            is_over = ended or any(isinstance(event, Over | Stopped) for event in reports)
            news = [run.changed(is_over) for run in sent]
            yield [*(new for new in news if new.contents), *reports]
    finally:
        stop.wanted = True
        thread.join()


def _work(errand: Errand, folder: Path | None, events: queue.SimpleQueue[Event | None], stop: Observer) -> None:
    over: set[int] = set()

    def send(report: Report) -> None:
        if isinstance(report, Over):
            over.add(report.place)
        events.put(report)

    try:
        with planning_for(errand.machine), runs_in(folder) if folder else contextlib.nullcontext():
            carry_out(errand.task, send, lambda: [stop])
    except KeyboardInterrupt:
        pass  # the driver wants no more
    except BaseException as error:  # a user's network or a library may raise any type
        failure = portable(error if isinstance(error, Exception) else RunError(repr(error)))
        for place in set(range(len(errand.task.configs))) - over:
            events.put(Over(place, failure))
    finally:
        events.put(None)


def _next_group(events: queue.SimpleQueue[Event | None]) -> list[Event | None]:
    """Waits for an event. Returns it with those that follow soon; None stands for the end.

    The end of a run is not parted from its outcome, which follows at once.
    """
    group: list[Event | None] = []
    until = time.monotonic() + TOGETHER
    while not group or group[-1] is not None:
        with contextlib.suppress(queue.Empty):
            group.append(events.get(timeout=0.05))  # short, since Ray interrupts between two calls
        if group and time.monotonic() > until and not isinstance(group[-1], Stopped):
            break
    return group
