"""Trains runs on a Ray cluster: one task a run or a stacked group. The run folders alone say how far a run is.

Ray starts tasks where there is room, and says when a worker died. Everything else is decided here: a run whose worker
died is given to another one and goes on from its last epoch.
"""

from __future__ import annotations

import contextlib
import logging
import pickle
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rethinking import files
from rethinking.config import ExperimentConfig
from rethinking.data import sources
from rethinking.engines import ray_plan
from rethinking.engines.ray_cluster import Cluster, Node, connected, differing, token_in, versions, work_function
from rethinking.engines.ray_worker import Errand, Event, Files, Lacking, Needed, Shipped, Unseen
from rethinking.engines.tasks import Followed, Logged, Over, Task, Workload, groups_for, modules_for, outcome_of
from rethinking.errors import BusyError, RunError, in_one_line
from rethinking.training.hardware import Machine, planning_for
from rethinking.training.preparation import PlannedRun, plan
from rethinking.training.run_dir import RunResult

DEATHS = 3  # of workers, after which a run is left
DEATHS_OF_NODES = 20  # after which a run is left, since something is wrong with the cluster
LOOK = 2.0  # seconds between two looks at the cluster's nodes
RELEASE = 60.0  # seconds in which a worker that Ray gave up may still hold its run's folder
SETTLE = 5.0  # seconds in which interrupted runs can stop by themselves
UNREAD = 8  # groups of events that a node keeps for a driver that is busy
COME_BACK = 120.0  # seconds in which another node may join, after the last one that holds a run was lost
VISIBLE = 15.0  # seconds in which a file of another machine must appear on a shared file system

Outcome = tuple[ExperimentConfig, RunResult | Exception]

log = logging.getLogger(__name__)


@contextlib.contextmanager
def ray_cluster(address: str | None) -> Iterator[Machine]:
    """Connects to a Ray cluster for several calls of `train_on_ray`, or starts one on this machine until the end.

    It yields the devices that runs are planned for. `planning_for` finds the folders of these runs.
    """
    with connected(address) as cluster:
        yield ray_plan.survey(cluster).machine


def train_on_ray(workload: Workload, address: str | None) -> Iterator[Outcome]:
    """Trains the runs of `workload` on a Ray cluster, and yields each with its result or its error.

    address: the cluster's address; by default `RAY_ADDRESS`, else a cluster on this machine until the end

    Raises `InputError` for options that do not fit together, and where the cluster cannot be used. Raises `RunError`
    where the cluster is lost.
    """
    with connected(address) as cluster, contextlib.ExitStack() as held:
        tokens = {}
        for folder in {Path(config.runs_dir).absolute() for config in workload.configs}:
            tokens[folder] = token_in(folder)
            held.callback(tokens[folder].unlink, missing_ok=True)
        found = ray_plan.survey(cluster, tokens.values())
        with planning_for(found.machine):
            planned = plan(workload.configs, workload.force, workload.seconds)
        one_of_each = {_names_of(run): run.config for run in planned}
        modules = {names: modules_for(config) for names, config in one_of_each.items()}
        driver = _Driver(cluster, workload, found, tokens, modules)
        held.callback(driver.end)
        try:
            yield from driver.train(planned)
        except Exception as error:
            if not type(error).__module__.startswith("ray"):
                raise
            raise RunError(f"the Ray cluster is lost ({in_one_line(error)}); the same command goes on") from None


@dataclass(eq=False)
class _Job:
    """Runs that train together, until all of them are done.

    deaths: the nodes on which workers of the job died; None for an unknown node
    """

    runs: list[PlannedRun]
    threads: int
    needs: dict[str, float]
    deaths: list[str | None] = field(default_factory=list)
    lost: float = float("-inf")  # when the last worker was lost
    not_before: float = float("-inf")
    without_node_since: float = float("inf")  # when no node that holds it was left


@dataclass(eq=False)
class _AtWork:
    """A job that was given to Ray.

    left: the runs that are not over, by their places in the task
    held: what the driver holds meanwhile, such as the locks of folders that nodes do not see
    """

    job: _Job
    generator: Any
    errand: Errand
    followed: Followed
    left: dict[int, PlannedRun]
    held: contextlib.ExitStack
    node: str | None = None
    address: str = ""
    cancelled: bool = False


class _Driver:
    """Gives jobs to Ray, a few more than there is room for, and takes what the nodes send."""

    def __init__(
        self,
        cluster: Cluster,
        workload: Workload,
        found: ray_plan.Survey,
        tokens: dict[Path, Path],
        modules: Mapping[tuple[str, str], tuple[str, ...]],
    ) -> None:
        self._cluster, self._ray, self._workload = cluster, cluster.ray, workload
        self._machine, self._tokens, self._modules = found.machine, tokens, modules
        self._refused = dict(found.refused)
        for line in found.refused.values():
            log.warning("%s; it gets no runs", line)
        self._unseen = set(found.unseen)
        remote = self._ray.remote(max_retries=0, num_returns="streaming", _generator_backpressure_num_objects=UNREAD)
        self._work = remote(work_function(versions()))
        self._waiting: deque[_Job] = deque()
        self._at_work: dict[Any, _AtWork] = {}
        self._nodes = cluster.nodes()
        self._looked = time.monotonic()
        self._seen = {node.name: node for node in self._usable()}
        self._shipped: dict[str, Shipped] = {}  # by fingerprint
        self._logged: set[str] = set()
        self._same: dict[Path, list[PlannedRun]] = {}
        self._code: dict[tuple[str, str], dict[str, str]] = {}  # as the runs were planned with

    def train(self, planned: Sequence[PlannedRun]) -> Iterator[Outcome]:
        """Trains the runs and yields the outcome of each."""
        for run in planned:
            self._same.setdefault(run.folder.path, []).append(run)
        unique = [same[0] for same in self._same.values()]
        for run in unique:
            if run.folder.is_finished:
                yield from self._outcomes(run, outcome_of(run, VISIBLE))
        unfinished = [run for run in unique if not run.folder.is_finished]
        cards = sum(int(node.resources.get("GPU", 0)) for node in self._usable())
        groups = groups_for(unfinished, max(1, cards), self._workload.at_once, self._workload.stacked)
        self._waiting = deque(self._job(group) for group in groups)
        one_of_each = {_names_of(run): run.config for run in unfinished}
        self._code = {names: ray_plan.code_of([config]) for names, config in one_of_each.items()}
        while self._waiting or self._at_work:
            yield from self._submit()
            for generator in self._ready():
                yield from self._take_from(self._at_work[generator])

    def end(self) -> None:
        """Stops all runs at their next step. They go on from their last epochs at the next call."""
        with contextlib.suppress(Exception):  # the connection may be gone
            for work in self._at_work.values():
                self._cancel(work)
            completed = [generator.completed() for generator in self._at_work]
            self._ray.wait(completed, num_returns=len(completed), timeout=SETTLE)
        for work in self._at_work.values():
            work.followed.end()
            work.held.close()
        self._at_work.clear()

    def _cancel(self, work: _AtWork) -> None:
        """Cancels a task, once and gently: Ray 2.60 may abort the driver where `force` follows another cancellation."""
        if not work.cancelled:
            work.cancelled = True
            self._ray.cancel(work.generator)

    def _usable(self) -> list[Node]:
        return [node for node in self._nodes if node.name not in self._refused]

    def _job(self, runs: Sequence[PlannedRun]) -> _Job:
        threads = ray_plan.threads_of(runs[0].config, self._usable())
        return _Job(list(runs), threads, ray_plan.needs_of(runs, threads))

    def _outcomes(self, run: PlannedRun, outcome: RunResult | Exception) -> Iterator[Outcome]:
        for same in self._same[run.folder.path]:
            yield same.given, outcome

    # Giving jobs to Ray

    def _submit(self) -> Iterator[Outcome]:
        self._look()
        kept: list[_Job] = []
        while self._waiting and self._has_room(self._waiting[0]):
            job = self._waiting.popleft()
            if job.not_before > time.monotonic():
                kept.append(job)
                continue
            try:
                line = ray_plan.too_large(job.needs, self._usable(), list(self._refused.values()))
                if line and self._may_come_back(job):
                    kept.append(job)
                    continue
                if line:
                    raise RunError(line)
                self._give(job)
                job.without_node_since = float("inf")
            except RunError as error:
                if isinstance(error, BusyError) and len(job.runs) > 1:  # the others are not busy
                    self._waiting.extendleft(self._job([run]) for run in reversed(job.runs))
                    continue
                for run in job.runs:
                    yield from self._outcomes(run, error)
        self._waiting.extendleft(reversed(kept))

    def _may_come_back(self, job: _Job) -> bool:
        """Returns whether to wait for a node that holds the job, because there was one. The job then waits a while."""
        lost = [node for name, node in self._seen.items() if name not in self._refused]
        if not any(node.holds(job.needs) for node in lost):
            return False
        now = time.monotonic()
        job.without_node_since = min(job.without_node_since, now)
        job.not_before = now + LOOK
        return now - job.without_node_since < COME_BACK

    def _look(self) -> None:
        if time.monotonic() - self._looked > LOOK:
            self._nodes, self._looked = self._cluster.nodes(), time.monotonic()
            self._seen |= {node.name: node for node in self._usable()}

    def _has_room(self, job: _Job) -> bool:
        slots = sum(node.holds(job.needs) for node in self._usable())
        return len(self._at_work) < max(2, 2 * slots)

    def _give(self, job: _Job) -> None:
        folders = {Path(run.config.runs_dir).absolute() for run in job.runs}
        shared = self._workload.runs_shared
        travels = shared == "no" or (shared == "auto" and bool(folders & self._unseen))
        held = contextlib.ExitStack()
        try:
            contents = {}
            for run in job.runs if travels else ():
                held.enter_context(run.folder.lock())
                contents[run.folder.path.name] = ray_plan.contents_of(run.folder.path)
            errand = self._errand(job, travels, [self._tokens[folder] for folder in folders])
        except BaseException:
            held.close()
            raise
        known = {place: self._shipped.get(needed.fingerprint) for place, needed in enumerate(errand.data)}
        data = {place: tuple(shipped) for place, shipped in known.items() if shipped is not None}
        generator = self._work.options(**self._options(job)).remote(pickle.dumps(errand), contents, data)
        followed = Followed(job.runs, self._workload.observe)
        left = dict(enumerate(job.runs))
        self._at_work[generator] = _AtWork(job, generator, errand, followed, left, held)

    def _errand(self, job: _Job, travels: bool, tokens: Sequence[Path]) -> Errand:
        configs = tuple(ray_plan.for_nodes(run) for run in job.runs)
        data = {}
        for run, config in zip(job.runs, configs, strict=True):
            if sources.reading(config) not in data:
                read = sources.load_for(run.config)
                data[sources.reading(config)] = Needed(config, read.name, read.fingerprint)
        modules = tuple(dict.fromkeys(module for run in job.runs for module in self._modules[_names_of(run)]))
        force = self._workload.force and not travels  # the name of a travelling run's folder is known
        return Errand(
            Task(configs, job.threads, force, self._workload.seconds, len(configs), modules),
            self._machine,
            tuple(data.values()),
            {file: text for run in job.runs for file, text in self._code[_names_of(run)].items()},
            () if travels else tuple(tokens),
            tuple(run.folder.path.name for run in job.runs) if travels else (),
            ray_plan.labels_of(run.config for run in job.runs),
        )

    def _options(self, job: _Job) -> dict[str, Any]:
        options: dict[str, Any] = {"num_cpus": job.needs["CPU"], "memory": int(job.needs["memory"])}
        if job.needs.get("GPU"):
            options["num_gpus"] = job.needs["GPU"]
        if self._refused:
            options["label_selector"] = {"ray.io/node-id": f"!in({','.join(sorted(self._refused))})"}
        return options

    # Taking what the nodes send

    def _ready(self) -> list[Any]:
        """Returns the generators that have something, after waiting for the first."""
        if not self._at_work:
            time.sleep(0.1)  # a job waits for its time
            return []
        generators = list(self._at_work)
        ready, _ = self._ray.wait(generators, num_returns=1, timeout=1.0)
        if ready:
            ready, _ = self._ray.wait(generators, num_returns=len(generators), timeout=0)
        return list(ready)

    def _take_from(self, work: _AtWork) -> Iterator[Outcome]:
        errors = self._ray.exceptions
        try:
            sent = self._ray.get(next(work.generator))
        except StopIteration:
            self._close(work)
            if work.left:
                self._again(work, None)
        except errors.RayTaskError as error:  # our own code failed there
            self._close(work)
            for run in list(work.left.values()):
                yield from self._outcomes(run, RunError(in_one_line(error.cause or error) + self._where(work)))
        except errors.RayError as error:
            self._close(work)
            yield from self._lost(work, error)
        else:
            if isinstance(sent, tuple):
                self._begun(work, *sent)
                return
            for event in sent:
                yield from self._take(work, event)

    def _close(self, work: _AtWork) -> None:
        work.followed.end()
        work.held.close()
        del self._at_work[work.generator]

    def _begun(self, work: _AtWork, node: str, address: str, found: dict[str, str] | None) -> None:
        work.node, work.address = node, address
        if found != (expected := versions()) and node not in self._refused:
            self._refused[node] = differing(address, found, expected)
            log.warning("%s; it gets no runs", self._refused[node])

    def _take(self, work: _AtWork, event: Event) -> Iterator[Outcome]:
        if isinstance(event, Logged):
            if event.message not in self._logged and len(self._logged) < 10_000:
                self._logged.add(event.message)
                work.followed.take(event)
        elif isinstance(event, Files):
            yield from self._write(work, event)
        elif isinstance(event, Unseen):
            yield from self._unseen_by(work, event.folder)
        elif isinstance(event, Lacking):
            self._ship(work.errand.data[event.place])
        elif isinstance(event, Over):
            if event.place in work.left:
                yield from self._over(work, event)
        else:
            work.followed.take(event)

    def _write(self, work: _AtWork, news: Files) -> Iterator[Outcome]:
        place = work.errand.travelling.index(news.run)
        if place not in work.left:
            return
        run = work.left[place]
        try:
            for name, content in news.contents.items():
                path = run.folder.path / name
                with files.writing(path):
                    path.parent.mkdir(parents=True, exist_ok=True)
                files.write(path, content)
        except RunError as error:
            self._cancel(work)
            del work.left[place]
            yield from self._outcomes(run, error)

    def _unseen_by(self, work: _AtWork, folder: Path) -> Iterator[Outcome]:
        self._unseen.add(folder)
        if self._workload.runs_shared == "yes":
            error = RunError(
                f"the node {work.address} does not see {folder}, although it should be shared; mount it there"
            )
            for place in list(work.left):
                yield from self._outcomes(work.left.pop(place), error)

    def _ship(self, needed: Needed) -> None:
        if needed.fingerprint not in self._shipped:
            log.info("sending the images of %s to nodes that cannot read them", needed.name)
            self._shipped[needed.fingerprint] = ray_plan.shipped(self._cluster, sources.load_for(needed.config))

    def _over(self, work: _AtWork, over: Over) -> Iterator[Outcome]:
        run = work.left.pop(over.place)
        if over.error is None:
            yield from self._outcomes(run, work.followed.outcome(run, VISIBLE))
        elif isinstance(over.error, BusyError) and time.monotonic() - work.job.lost < RELEASE:
            work.left[over.place] = run  # its former worker, which Ray gave up, still holds the folder
        else:
            where = "" if isinstance(over.error, BusyError) else self._where(work)
            yield from self._outcomes(run, type(over.error)(f"{over.error}{where}"))

    def _where(self, work: _AtWork) -> str:
        return "" if self._cluster.is_local or not work.address else f" (on the node {work.address})"

    # Runs whose worker was lost

    def _lost(self, work: _AtWork, error: Exception) -> Iterator[Outcome]:
        job = work.job
        for place, run in list(work.left.items()):
            if run.folder.is_finished:
                yield from self._outcomes(work.left.pop(place), outcome_of(run, VISIBLE))
        if not work.left:
            return
        job.lost = time.monotonic()
        if work.followed.advanced & {run.folder.path.name for run in work.left.values()}:
            job.deaths.clear()  # only deaths without a finished epoch between them count
        job.deaths.append(work.node)
        if (line := self._why_left(job, work, error)) is not None:
            for run in work.left.values():
                yield from self._outcomes(run, RunError(f"{run.folder.path.name}: {line}"))
            return
        log.warning("a worker died%s; its run goes on elsewhere from the last epoch", self._where(work))
        self._again(work, job.lost)

    def _why_left(self, job: _Job, work: _AtWork, error: Exception) -> str | None:
        """Returns a line where the job is not tried again. The death of a node is not the job's fault."""
        if len(work.left) > 1:
            return None
        self._looked = float("-inf")
        self._look()
        alive = {node.name for node in self._nodes}
        own = [node for node in job.deaths if node is None or node in alive]
        if len(own) < DEATHS and len(job.deaths) < DEATHS_OF_NODES:
            return None
        reason = "of too little memory" if isinstance(error, self._ray.exceptions.OutOfMemoryError) else "unexpectedly"
        return (
            f"the run's worker died {len(job.deaths)} times, the last time {reason}{self._where(work)}, so it is left;"
            " the same command goes on from the last epoch"
        )

    def _again(self, work: _AtWork, lost: float | None) -> None:
        """Puts the runs that are not over in front of all others, a group in halves where its worker died."""
        runs = list(work.left.values())
        half = (len(runs) + 1) // 2 if lost is not None else len(runs)
        for begin in reversed(range(0, len(runs), half)):
            part = runs[begin : begin + half]
            job = _Job(
                part, work.job.threads, ray_plan.needs_of(part, work.job.threads), work.job.deaths, work.job.lost
            )
            if len(part) < len(runs):
                job.deaths = []
            job.not_before = time.monotonic() + 0.5
            self._waiting.appendleft(job)


def _names_of(run: PlannedRun) -> tuple[str, str]:
    """Returns the names of what a node imports for a run: its network and its operator."""
    return run.config.model_name, run.config.randomization
