"""Conversion of a corpus on Ray Data: a pool of actors, each with the model in memory; one task per file."""

from __future__ import annotations

import gc
import logging
import pickle
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from typing import Any, cast

import ray
import ray.data
import torch
from ray.exceptions import OutOfMemoryError, RayError, RayTaskError, WorkerCrashedError
from ray.util.annotations import RayDeprecationWarning

from rave_dist.conversion.convert import Converter
from rave_dist.conversion.corpus import Plan, Task
from rave_dist.conversion.item import Outcome
from rave_dist.conversion.job import OUT_OF_MEMORY, Job, attempt, begin, finish, give_up, internal_error, load_converter
from rave_dist.errors import RaveDistError
from rave_dist.options import DEFAULT_CHUNK_SECONDS
from rave_dist.records import ConversionRecord, Problem
from rave_dist.storage.store import Store

_MAX_BLOCKS = 2000  # of Ray Data; a block costs some milliseconds
_SUBMITTED = 200  # tasks submitted to Ray at once, outside the pool
_AGAIN = "run the same command again: only what is missing is converted"
_DIED_TWICE = Problem(
    what="its worker process died twice",
    fix="if memory was short, use fewer workers (--workers) or shorter chunks (--chunk-seconds); otherwise leave the file out",
)


def convert_corpus(
    store: Store,
    plan: Plan,
    *,
    chunk_seconds: float = DEFAULT_CHUNK_SECONDS,
    workers: int | None = None,
    trust: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> ConversionRecord:
    """Converts all unfinished tasks of a plan; needs a connected Ray.

    Args:
        store: the library's store, for the model, the journal and the record.
        plan: from `plan_conversion`.
        chunk_seconds: seconds of audio in the model at once.
        workers: files converted at once; by default one per GPU, or without GPUs one per CPU except one.
        trust: load a model file with operators that no export has.
        progress: called with the number of finished sources and the total.

    Returns:
        The record, also stored as ``conversions/<id>/record.json``. It names the failed sources.

    Raises:
        ConversionError: chunks too short; workers below 1; the device is out of memory.
        StoreError: OUTPUT or the store cannot be used.
    """
    job = begin(store, plan, chunk_seconds=chunk_seconds, workers=workers, trust=trust)
    return finish(job, convert_all(job, workers=workers), progress)


def convert_all(job: Job, *, workers: int | None = None) -> Iterator[Outcome]:
    """Outcomes of a job's tasks in the order of completion; arguments and errors as in `convert_corpus`."""
    tasks = job.to_do
    if not tasks:
        return
    pool, resources = _resources(len(tasks), workers)
    job = replace(job, plan=replace(job.plan, tasks=()), to_do=(), done=())  # as every worker gets it
    left = dict(enumerate(tasks))
    failures = 0  # of pools in succession that converted nothing
    while left:
        count = len(left)
        with suppress(RayError):
            for index, outcome in _by_pool(job, left, pool, resources):
                del left[index]
                yield outcome
        # If a worker died, the pool does not report the file. It is among the first that are left: these run separately, the
        # others in a new pool. Ray Data ends the actors of a failed run, and frees their CPUs, only when Python collects them.
        gc.collect()
        failures = 0 if len(left) < count else failures + 1
        suspects = list(islice(left, count if failures > 1 else pool * -(-count // _MAX_BLOCKS)))
        yield from _one_by_one(job, [left.pop(index) for index in suspects], resources)


def _by_pool(job: Job, tasks: dict[int, Task], pool: int, resources: dict[str, Any]) -> Iterator[tuple[int, Outcome]]:
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    rows = [{"index": index, "task": pickle.dumps(task)} for index, task in tasks.items()]
    with warnings.catch_warnings():
        # Ray 2.64 renames the two limits; by default an actor is restarted without end.
        warnings.simplefilter("ignore", RayDeprecationWarning)
        dataset = ray.data.from_items(rows, override_num_blocks=min(len(rows), _MAX_BLOCKS)).map(
            cast(Any, _Worker),
            fn_constructor_args=(job,),
            # One at a time: no task waits behind a long file while another actor is idle.
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=pool, initial_size=pool, max_tasks_in_flight_per_actor=1),
            max_restarts=0,
            max_task_retries=0,
            **resources,
        )
    for row in dataset.iter_rows():
        yield row["index"], _unpack(row["outcome"])


def _one_by_one(job: Job, tasks: list[Task], resources: dict[str, Any]) -> Iterator[Outcome]:
    """Runs each task in its own process; a task that kills its worker twice is a failed item with the reason."""
    remote = ray.remote(max_retries=1, **resources)(_convert_alone)
    waiting = deque(tasks)
    pending: dict[Any, Task] = {}
    while waiting or pending:
        while waiting and len(pending) < _SUBMITTED:
            task = waiting.popleft()
            pending[remote.remote(job, task)] = task
        for reference in ray.wait(list(pending))[0]:
            task = pending.pop(reference)
            try:
                yield _unpack(ray.get(reference))
            except RayTaskError as error:
                yield give_up(job, task, internal_error(error.cause))
            except WorkerCrashedError:
                yield give_up(job, task, _DIED_TWICE)
            except OutOfMemoryError:
                yield give_up(job, task, OUT_OF_MEMORY)
            except RayError as error:
                yield give_up(job, task, Problem(what=f"the cluster lost the task ({type(error).__name__})", fix=_AGAIN))


def _unpack(packed: bytes) -> Outcome:
    outcome = pickle.loads(packed)
    if isinstance(outcome, RaveDistError):
        raise outcome
    assert isinstance(outcome, Outcome)
    return outcome


def _resources(num_tasks: int, workers: int | None) -> tuple[int, dict[str, Any]]:
    """Number of actors in the pool and the resources of each; part of a CPU stays free, which Ray Data needs."""
    total = ray.cluster_resources()  # type: ignore[no-untyped-call]
    cpus, gpus = total.get("CPU", 1.0), total.get("GPU", 0.0)
    count = min(num_tasks, workers or int(gpus) or max(1, int(cpus) - 1))
    spare = min(1.0, cpus / 2)
    resources: dict[str, Any] = {"num_cpus": max(0.01, int(100 * min(1.0, (cpus - spare) / count)) / 100)}
    if gpus >= 1:
        resources["num_gpus"] = min(1.0, int(100 * gpus / count) / 100)
    return count, resources


def _converter(job: Job) -> Converter:
    return load_converter(job, device="cuda" if ray.get_gpu_ids() and torch.cuda.is_available() else "cpu")


def _run(job: Job, task: Task, converter: Converter) -> bytes:
    """The pickled outcome, or an error that affects every source."""
    outcome: Outcome | RaveDistError
    try:
        outcome = attempt(job, task, converter)
    except RaveDistError as error:
        outcome = error
    return pickle.dumps(outcome)


class _Worker:
    """An actor of the pool: loads the model once, then converts sources in turn."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._converter: Converter | RaveDistError
        try:
            self._converter = _converter(job)
        except RaveDistError as error:
            self._converter = error  # an actor that fails to start would be restarted repeatedly

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        if isinstance(self._converter, RaveDistError):
            return {"index": row["index"], "outcome": pickle.dumps(self._converter)}
        return {"index": row["index"], "outcome": _run(self._job, pickle.loads(row["task"]), self._converter)}


def _convert_alone(job: Job, task: Task) -> bytes:
    try:
        return _run(job, task, _converter(job))
    except RaveDistError as error:
        return pickle.dumps(error)
