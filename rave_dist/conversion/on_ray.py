"""A corpus through a model on Ray Data: a pool of actors, each with the model in memory; one file is one piece of work."""

from __future__ import annotations

import gc
import logging
import pickle
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, cast

import ray
import ray.data
import torch
from ray.exceptions import OutOfMemoryError, RayError, RayTaskError, WorkerCrashedError
from ray.util.annotations import RayDeprecationWarning

from rave_dist.conversion.convert import Converter
from rave_dist.conversion.corpus import Plan, Task
from rave_dist.conversion.item import Outcome, convert_item
from rave_dist.conversion.job import OUT_OF_MEMORY, Job, begin, finish, give_up, load_converter, unforeseen
from rave_dist.errors import RaveDistError
from rave_dist.options import DEFAULT_CHUNK_SECONDS
from rave_dist.records import ConversionRecord
from rave_dist.storage.store import Store

_MAX_BLOCKS = 2000  # of Ray Data; what a block costs is some milliseconds
_SUBMITTED = 200  # tasks that Ray knows of at once, where each stands alone


def convert_corpus(
    store: Store,
    plan: Plan,
    *,
    chunk_seconds: float = DEFAULT_CHUNK_SECONDS,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> ConversionRecord:
    """Converts what a plan names, all that is not done already; needs a connected Ray.

    Args:
        store: of the library: the model is read from it, journal and record are written to it.
        plan: `plan_conversion`'s.
        chunk_seconds: of sound in the model at once.
        workers: files at once; one per GPU, or where there are none one per CPU but one, unless given.
        progress: called with how many sources are done, and of how many.

    Returns:
        the record, which also lies in the store as ``conversions/<id>/record.json``. Sources that failed are named in it.

    Raises:
        ConversionError: chunks too short; workers below 1; the device is out of memory.
        StoreError: OUTPUT or the store cannot be used.
    """
    job = begin(store, plan, chunk_seconds=chunk_seconds, workers=workers)
    return finish(job, convert_all(job, workers=workers), progress)


def convert_all(job: Job, *, workers: int | None = None) -> Iterator[Outcome]:
    """Outcomes of a job's tasks in the order in which they end; arguments and errors of `convert_corpus`."""
    tasks = job.to_do
    if not tasks:
        return
    pool, resources = _resources(len(tasks), workers)
    job = replace(job, plan=replace(job.plan, tasks=()), to_do=(), done=())  # as every worker gets it
    left = dict(enumerate(tasks))
    with suppress(RayError):
        for index, outcome in _by_pool(job, tasks, pool, resources):
            del left[index]
            yield outcome
    if left:
        # A worker died, or met what nobody foresaw. The pool cannot say on which file, so the others go on without it. It holds
        # its CPUs until Python has found that nobody needs it: Ray Data ends the actors of a failed run no sooner.
        gc.collect()
        yield from _one_by_one(job, list(left.values()), resources)


def _by_pool(job: Job, tasks: Sequence[Task], pool: int, resources: dict[str, Any]) -> Iterator[tuple[int, Outcome]]:
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    rows = [{"index": index, "task": pickle.dumps(task)} for index, task in enumerate(tasks)]
    with warnings.catch_warnings():
        # Ray 2.64 will have names of their own for the two limits; by default an actor is restarted for ever.
        warnings.simplefilter("ignore", RayDeprecationWarning)
        dataset = ray.data.from_items(rows, override_num_blocks=min(len(rows), _MAX_BLOCKS)).map(
            cast(Any, _Worker),
            fn_constructor_args=(job,),
            # One at a time: none shall wait behind a long file while another actor is idle.
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=pool, initial_size=pool, max_tasks_in_flight_per_actor=1),
            max_restarts=0,
            max_task_retries=0,
            **resources,
        )
    for row in dataset.iter_rows():
        yield row["index"], _unpack(row["outcome"])


def _one_by_one(job: Job, tasks: list[Task], resources: dict[str, Any]) -> Iterator[Outcome]:
    """Tasks that share nothing: whichever kills its worker, twice, is a failed item with a reason."""
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
                yield give_up(job, task, unforeseen(error.cause))
            except WorkerCrashedError:
                yield give_up(job, task, "the process that converted it died, and died again on a second try")
            except OutOfMemoryError:
                yield give_up(job, task, OUT_OF_MEMORY)
            except RayError as error:
                yield give_up(job, task, f"the cluster lost it ({type(error).__name__})")


def _unpack(packed: bytes) -> Outcome:
    outcome = pickle.loads(packed)
    if isinstance(outcome, RaveDistError):
        raise outcome
    assert isinstance(outcome, Outcome)
    return outcome


def _resources(num_tasks: int, workers: int | None) -> tuple[int, dict[str, Any]]:
    """Actors of the pool, and what each of them takes. Something of a CPU always stays free: Ray Data needs it to go on."""
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
    """An outcome, or an error that concerns every source, packed so that either crosses to the driver whole."""
    outcome: Outcome | RaveDistError
    try:
        outcome = convert_item(job.store, job.plan, task, converter, chunk_seconds=job.chunk_seconds)
    except RaveDistError as error:
        outcome = error
    return pickle.dumps(outcome)


class _Worker:
    """An actor of the pool: loads the model once, then converts one source after another."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._converter: Converter | RaveDistError
        try:
            self._converter = _converter(job)
        except RaveDistError as error:
            self._converter = error  # an actor that fails to start would be started again and again

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        if isinstance(self._converter, RaveDistError):
            return {"index": row["index"], "outcome": pickle.dumps(self._converter)}
        return {"index": row["index"], "outcome": _run(self._job, pickle.loads(row["task"]), self._converter)}


def _convert_alone(job: Job, task: Task) -> bytes:
    try:
        return _run(job, task, _converter(job))
    except RaveDistError as error:
        return pickle.dumps(error)
