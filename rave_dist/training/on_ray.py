"""Runs of a library on Ray: Ray Train supervises each; this module admits them and keeps their records.

A run's checkpoints are objects in the store and not those of Ray Train: they are verified by hash and need no snapshot, which
a kill could leave incomplete. Ray Train's storage has nothing that a later attempt needs, so every attempt gets a new folder.
"""

from __future__ import annotations

import contextlib
import os
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import ray
from ray.exceptions import GetTimeoutError, OutOfMemoryError, RayActorError, RayError, RayTaskError, TaskCancelledError
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.v2._internal.execution.callback import WorkerGroupCallback
from ray.train.v2._internal.execution.worker_group import WorkerGroup
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer  # TorchTrainer starts a process group, 7 s per run
from ray.train.v2.api.exceptions import ControllerError, TrainingFailedError, WorkerGroupError

from rave_dist import signals
from rave_dist.errors import ClusterError, ConfigurationError, RaveDistError, StoreError, known_error
from rave_dist.rave.step_config import StepConfig
from rave_dist.records import ModelCard, ModelFolder, Problem, RunActivity, RunRecord, TrainingSpec
from rave_dist.storage.store import Store
from rave_dist.training.admission import Node, Share, admit, capacity, gpu_share, share
from rave_dist.training.heartbeat import (
    Heartbeat,
    install_sigterm_flag,
    record_of,
    stop_key,
    termination_requested,
    write_record,
)
from rave_dist.training.state.outputs import read_result

if TYPE_CHECKING:
    from rave_dist.training.preflight.dry_run import Export  # which imports torch and RAVE

MAX_FAILURES = 3
STOP_SECONDS = 60.0
"""Time for runs to save their state when the command is interrupted."""

_CANCEL_SECONDS = 10.0
_POLL_SECONDS = 0.5
_TELL_SECONDS = 2.0

Publish = Callable[[Store, TrainingSpec, Callable[[RunActivity], None]], ModelCard]
Stage = Literal["waiting", "training", "trained", "publishing", "ended"]


@dataclass
class _Item:
    """One run: its record, and its pending tasks."""

    spec: TrainingSpec
    record: RunRecord
    stage: Stage
    task: ray.ObjectRef[Any] | None = None
    stored: bool = True

    @property
    def is_training(self) -> bool:
        """Whether it is training, according to its last record."""
        return self.stage == "training" and self.record.state == "running" and self.record.activity == "training"


def train_library(
    store: Store,
    specs: Sequence[TrainingSpec],
    *,
    publish: Publish,
    export: Export | None = None,
    progress: Callable[[Sequence[RunRecord]], None] = lambda records: None,
    stage: Callable[[str], None] = lambda name: None,
) -> list[RunRecord]:
    """Trains runs, as many at once as the cluster allows, and publishes each when it ends; needs a connected Ray.

    Finished runs are skipped; others resume from their last checkpoints. A failure is written to the run's record and does
    not stop the others.

    Args:
        store: of the datasets and runs.
        specs: at most one for each instrument.
        publish: publishes the model of a finished run and reports its activities; called in a process of the cluster.
        export: exports a run folder in the dry runs; None skips that part.
        progress: called with all records every two seconds, in the order of the specs.
        stage: called with the activity before the first run can start.

    Returns:
        The last records, in the order of the specs.

    Raises:
        ClusterError: no node has the resources for one run.
        StoreError: the store cannot be used.
        KeyboardInterrupt: raised again after the runs have saved their state.
    """
    items = [_begin(store, spec) for spec in specs]
    todo = [item for item in items if item.stage != "ended"]
    if todo:
        stage("measuring a step")
        wanted = _share([item.spec for item in todo])
        stage("training")
        fleet = _Fleet(store, items, publish, export, wanted)
        with signals.allow(fleet.seconds_to_stop):
            try:
                fleet.run(progress)
            except BaseException:
                fleet.stop()
                raise
    progress([item.record for item in items])
    return [item.record for item in items]


def _begin(store: Store, spec: TrainingSpec) -> _Item:
    """The remaining work of a run, from the store."""
    store.delete(stop_key(spec))
    store.delete_folder(spec.folder.ray)  # of a command that was killed, perhaps after the last step
    record = record_of(store, spec)
    result = read_result(store, spec)
    trained = result is not None and result.complete
    if trained and record.state == "done" and _is_published(store, record):
        return _Item(spec, record, "ended")
    fields = {"state": "waiting", "activity": "waiting for room", "error": None, "steps_per_second": None}
    record = record.model_copy(update=fields)
    return _Item(spec, write_record(store, record), "trained" if trained else "waiting")


def _is_published(store: Store, record: RunRecord) -> bool:
    name, _, version = (record.model or "").rpartition("@")
    return bool(name) and store.exists(ModelFolder.of(name, version).card)


class _Fleet:
    def __init__(self, store: Store, items: list[_Item], publish: Publish, export: Export | None, wanted: Share) -> None:
        self._store, self._items, self._wanted = store, items, wanted
        self._publish, self._export = publish, export
        self._told = 0.0

    def run(self, progress: Callable[[Sequence[RunRecord]], None]) -> None:
        """Runs until every run has ended."""
        while any(item.stage != "ended" for item in self._items):
            self._start()
            busy = [item.task for item in self._items if item.task is not None]
            done, _ = ray.wait(busy, timeout=_POLL_SECONDS) if busy else ([], [])
            for item in self._items:
                if item.task in done:
                    self._ended(item)
            if not busy:
                time.sleep(_POLL_SECONDS)
            if done or time.monotonic() - self._told > _TELL_SECONDS:
                self._refresh()
                progress([item.record for item in self._items])
                self._told = time.monotonic()
        for item in self._items:
            if not item.stored:
                self._write(item)

    def seconds_to_stop(self) -> float:
        """How long `stop` may take: before its first step a run has nothing to save."""
        return STOP_SECONDS + _CANCEL_SECONDS if any(item.is_training for item in self._items) else 0.0

    def stop(self) -> None:
        """Lets training runs save their state, ends everything, and updates the records."""
        try:
            training = [item for item in self._items if item.stage == "training" and item.task is not None]
            self._refresh()
            for item in training:
                if item.is_training:
                    self._store.write_bytes(stop_key(item.spec), b"")
                else:  # it has nothing to save yet
                    ray.cancel(item.task)
            if training:
                ray.wait([item.task for item in training], num_returns=len(training), timeout=STOP_SECONDS)
        finally:
            tasks = [item.task for item in self._items if item.task is not None]
            # Only running tasks: Ray 2.60 aborts the whole driver when a cancelled task has just ended.
            pending = ray.wait(tasks, num_returns=len(tasks), timeout=0)[1] if tasks else []
            for task in pending:
                ray.cancel(task)
            if pending:
                ray.wait(pending, num_returns=len(pending), timeout=_CANCEL_SECONDS)
            for item in self._items:
                if item.stage != "ended":
                    self._keep(item, state="waiting", activity=None)
                with contextlib.suppress(StoreError):
                    self._store.delete(stop_key(item.spec))

    def _start(self) -> None:
        """Starts to publish finished runs, and starts waiting runs as resources allow."""
        publishing = sum(item.stage == "publishing" for item in self._items)
        nodes = _nodes()
        most = max(1, capacity(nodes, self._wanted))
        for item in self._items:
            if item.stage == "trained" and publishing < most:
                item.task = _publish_one.remote(self._store, item.spec, item.record, self._publish)
                item.stage = "publishing"
                publishing += 1
        waiting = [item for item in self._items if item.stage == "waiting"]
        running = [item for item in self._items if item.stage == "training"]
        if not waiting:
            return
        available = ray.available_resources()  # type: ignore[no-untyped-call]
        starts = admit(
            waiting=len(waiting),
            running=len(running),
            starting=sum(item.record.state != "running" for item in running),
            capacity=most,
            free=Node(available.get("CPU", 0.0), available.get("GPU", 0.0)),
            wanted=self._wanted,
        )
        for item in waiting[:starts]:
            self._keep(item, activity="starting")  # before its process does, whose record is valid from then on
            item.task = _train_one.remote(self._store, item.spec, self._wanted, self._export)
            item.stage = "training"

    def _ended(self, item: _Item) -> None:
        """Handles the result of a task."""
        stage, task, item.task = item.stage, item.task, None
        assert task is not None
        try:
            outcome: RunRecord | Problem = ray.get(task)
        except (RayError, RaveDistError) as error:
            outcome = explain(error)
        if isinstance(outcome, Problem):
            self._keep(item, state="failed", activity=None, error=outcome)
            item.stage = "ended"
        elif outcome.state == "failed":
            item.record, item.stage = outcome, "ended"
        elif stage == "publishing":
            self._keep(item, state="done", activity=None, model=outcome.model, verdict=outcome.verdict, error=None)
            item.stage = "ended"
        else:
            item.record, item.stage = outcome, "trained"

    def _keep(self, item: _Item, **fields: Any) -> None:
        """Changes a run's record; if the store is not available now, it is written at the end."""
        self._refresh_one(item)
        item.record = item.record.model_copy(update={"steps_per_second": None, **fields})
        item.stored = False
        with contextlib.suppress(StoreError):
            self._write(item)

    def _write(self, item: _Item) -> None:
        item.record = write_record(self._store, item.record)
        item.stored = True

    def _refresh(self) -> None:
        for item in self._items:
            if item.stage in ("training", "publishing"):
                self._refresh_one(item)

    def _refresh_one(self, item: _Item) -> None:
        """Updates the record from the store; unchanged while the store is not available."""
        with contextlib.suppress(StoreError):
            item.record = record_of(self._store, item.spec)


@ray.remote(num_cpus=0, max_retries=2)
def _train_one(store: Store, spec: TrainingSpec, wanted: Share, export: Export | None) -> RunRecord | Problem:
    """One run under Ray Train's supervision, in a process that outlives the run's worker."""
    folder = spec.folder.ray
    filesystem, path = store.filesystem(folder)
    trainer = DataParallelTrainer(
        _work,
        train_loop_config={"store": store, "spec": spec, "share": wanted, "export": export},
        scaling_config=ScalingConfig(num_workers=1, use_gpu=wanted.gpus > 0, resources_per_worker=wanted.resources()),
        run_config=RunConfig(
            name=f"attempt-{uuid.uuid4().hex[:8]}",
            storage_path=path,
            storage_filesystem=filesystem,
            failure_config=FailureConfig(max_failures=MAX_FAILURES),
            callbacks=[_SigtermAsFlag()],  # type: ignore[list-item]  # it knows only those that users may write
        ),
    )
    try:
        trainer.fit()
    except (TrainingFailedError, RayError) as error:
        return explain(error)
    store.delete_folder(folder)
    record = record_of(store, spec)
    result = read_result(store, spec)
    if record.state == "failed" or (result is not None and result.complete):
        return record
    return Problem(
        what="the run was stopped before its training budget was used up", fix="run the same command again to resume"
    )


class _SigtermAsFlag(WorkerGroupCallback):
    """Lets a training process save its state when its machine shuts down.

    Ray's handler of SIGTERM exits at once, and the train function runs in another thread, where it cannot install a handler.
    """

    def after_worker_group_start(self, worker_group: WorkerGroup) -> None:
        """Called after the start of the processes; runs in the main thread of each."""
        worker_group.execute(install_sigterm_flag)


def _work(config: dict[str, Any]) -> None:
    """In the worker process."""
    # Waiting threads must sleep. Spinning threads of several runs compete for the cores of a shared machine, and a step takes
    # ten times as long. OpenMP reads this when torch is loaded, which is in the next line.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from rave_dist.training.worker import work  # imported here: it imports torch and RAVE

    wanted: Share = config["share"]
    record = work(config["store"], config["spec"], threads=wanted.cpus, gpu_share=wanted.gpus, export=config["export"])
    if termination_requested() and record.state == "waiting":  # Ray Train restarts a failed function, on another node
        raise ClusterError("the training process was terminated (SIGTERM)", fix="run the same command again to resume")


@ray.remote(num_cpus=0, max_retries=2, scheduling_strategy="SPREAD")
def _publish_one(store: Store, spec: TrainingSpec, record: RunRecord, publish: Publish) -> RunRecord | Problem:
    """Publishes the model of a finished run, with a heartbeat of its record."""
    fields = {"state": "running", "activity": "exporting", "steps_per_second": None}
    with Heartbeat(store, record.model_copy(update=fields)) as beat:
        try:
            card = publish(store, spec, lambda activity: beat.update(activity=activity))
            beat.update(model=card.reference, verdict=card.verdict)
        except RaveDistError as error:
            return Problem.of(error)
    return beat.record


def _nodes() -> list[Node]:
    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    return [Node(resources.get("CPU", 0.0), resources.get("GPU", 0.0)) for resources in alive]


def _share(specs: Sequence[TrainingSpec]) -> Share:
    nodes = _nodes()
    if not any(node.gpus for node in nodes):
        return share(nodes, len(specs))
    return share(nodes, len(specs), gpus_per_run=gpu_share(_largest_step(specs), _gpu_bytes()))


def _largest_step(specs: Sequence[TrainingSpec]) -> int:
    """Bytes of the largest training step; an invalid configuration counts 0, because its run will report the error."""
    from rave_dist.training.preflight.model_facts import measure_model

    sizes = [0]
    for spec in specs:
        with contextlib.suppress(ConfigurationError):
            sizes.append(measure_model(spec).step_bytes(StepConfig.of(spec).batch))
    return max(sizes)


@ray.remote(num_cpus=0, num_gpus=0.01)
def _gpu_memory() -> int:
    import torch

    return int(torch.cuda.get_device_properties(0).total_memory)


def _gpu_bytes() -> int:
    """Memory of a GPU of the cluster; 0, so that every run gets a whole one, if all are in use."""
    task = _gpu_memory.remote()
    try:
        size: int = ray.get(task, timeout=60)
    except GetTimeoutError:
        ray.cancel(task)
        return 0
    return size


def explain(error: BaseException) -> Problem:
    """The error of a run for users: the innermost cause that Ray reports."""
    if isinstance(error, WorkerGroupError) and error.worker_failures:
        return explain(next(iter(error.worker_failures.values())))
    if isinstance(error, ControllerError):
        return explain(error.controller_failure)
    if isinstance(error, RayTaskError) and isinstance(error.cause, Exception):
        return explain(error.cause)
    for inner in ("health_check_failure", "_base_exc"):  # Ray Train's wrappers of a worker's error
        if isinstance(getattr(error, inner, None), Exception):
            return explain(getattr(error, inner))
    known = known_error(error)
    if known is not None:
        return Problem.of(known)
    if isinstance(error, TaskCancelledError):
        return Problem(what="the run was cancelled", fix="run the same command again to resume")
    first_line = str(error).strip().partition("\n")[0]
    if isinstance(error, OutOfMemoryError | MemoryError):
        return Problem(what=f"out of memory: {first_line}", fix="set a smaller batch, or use a machine with more memory")
    if isinstance(error, RayActorError):
        return Problem(
            what=f"the training process died {MAX_FAILURES + 1} times; the last time: {first_line}",
            fix="check the machine's memory and disk, then run the same command again to resume",
        )
    return Problem(what=f"{type(error).__name__}: {first_line}", fix="run the same command again to resume from its checkpoint")
