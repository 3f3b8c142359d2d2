"""Conversion of a corpus on Ray Data: a pool of actors, each with the models in memory; a task per file, or for GPUs per group.

Files that are long are converted before, one after another, each by all workers (`rave_dist.conversion.parts_on_ray`).
"""

from __future__ import annotations

import gc
import logging
import math
import pickle
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from typing import Any, cast

import ray
import ray.data
from ray.exceptions import RayError
from ray.util.annotations import RayDeprecationWarning

from rave_dist.conversion.convert import Converter
from rave_dist.conversion.corpus import Plan
from rave_dist.conversion.item import Outcome
from rave_dist.conversion.job import Job, Work, begin, finish, in_groups
from rave_dist.conversion.loading import MODELS_SHARE
from rave_dist.conversion.parts import is_long
from rave_dist.conversion.parts_on_ray import convert_in_parts
from rave_dist.conversion.tasks_on_ray import in_tasks, load_here, run, unpack
from rave_dist.errors import RaveDistError
from rave_dist.options import DEFAULT_CHUNK_SECONDS
from rave_dist.records import ConversionRecord
from rave_dist.storage.store import Store

_MAX_BLOCKS = 2000  # of Ray Data; a block costs some milliseconds
_FILES_FOR_A_GPU = 64  # of a task, which shares its batches between them


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
        workers: processes that convert; by default one per GPU, or without GPUs one per CPU except one.
        trust: load a model file with operators that no export has.
        progress: called with the number of finished sources and the total.

    Returns:
        The record, also stored as ``conversions/<id>/record.json``. It names the failed sources.

    Raises:
        ConversionError: chunks too short; workers below 1; the device is out of memory.
        StoreError: OUTPUT or the store cannot be used.
    """
    job = begin(store, [plan], chunk_seconds=chunk_seconds, workers=workers, trust=trust)
    (record,) = finish(job, convert_all(job, workers=workers), progress)
    return record


def convert_all(job: Job, *, workers: int | None = None) -> Iterator[Outcome]:
    """Outcomes of a job's work in the order of completion; arguments and errors as in `convert_corpus`."""
    if not job.to_do:
        return
    pool, resources = _resources(workers)
    memory = ray.cluster_resources().get("memory", math.inf)  # type: ignore[no-untyped-call]
    for group in in_groups(job, MODELS_SHARE * memory / pool):
        # As every worker gets it.
        bare = replace(group, plans=tuple(replace(plan, tasks=()) for plan in group.plans), to_do=(), done={})
        # A GPU plays faster than a file can be read and kept, so there a long file is converted like any other.
        long: list[Work] = []
        short: list[Work] = []
        for work in group.to_do:
            (long if is_long(work.task.source) and "num_gpus" not in resources else short).append(work)
        yield from convert_in_parts(bare, long, pool, resources)
        yield from _convert_files(bare, short, pool, resources)


def _convert_files(job: Job, works: list[Work], pool: int, resources: dict[str, Any]) -> Iterator[Outcome]:
    # Files for a GPU in groups of large and small ones, several for each GPU.
    size = max(1, min(_FILES_FOR_A_GPU, len(works) // (4 * pool))) if "num_gpus" in resources else 1
    groups = -(-len(works) // size)
    left = {number: works[number::groups] for number in range(groups)}
    pool = min(pool, len(left))
    failures = 0  # of pools in succession that converted nothing
    while left:
        count = len(left)
        with suppress(RayError):
            for index, outcomes in _by_pool(job, left, pool, resources):
                del left[index]
                yield from outcomes
        # If a worker died, the pool does not report its files. They are among the first that are left: these run separately,
        # the others in a new pool. Ray Data ends the actors of a failed run, and frees their CPUs, only when Python
        # collects them.
        gc.collect()
        failures = 0 if len(left) < count else failures + 1
        suspects = [left.pop(index) for index in list(islice(left, count if failures > 1 else pool * -(-count // _MAX_BLOCKS)))]
        yield from _one_by_one(job, [work for group in suspects if len(group) == 1 for work in group], resources)
        divided = [[work] for group in suspects if len(group) > 1 for work in group]
        left = dict(enumerate([*divided, *left.values()]))


def _by_pool(
    job: Job, groups: dict[int, list[Work]], pool: int, resources: dict[str, Any]
) -> Iterator[tuple[int, list[Outcome]]]:
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    rows = [{"index": index, "works": pickle.dumps(works)} for index, works in groups.items()]
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
        yield row["index"], unpack(row["outcomes"])


def _one_by_one(job: Job, works: list[Work], resources: dict[str, Any]) -> Iterator[Outcome]:
    """Converts each output in its own process; one that kills its process twice is a failed item with the reason."""
    remote = ray.remote(max_retries=1, **resources)(_convert_alone)
    alone = [Work(work.task, (number,)) for work in works for number in work.plans]
    yield from in_tasks(job, alone, lambda work: remote.remote(job, work))


def _resources(workers: int | None) -> tuple[int, dict[str, Any]]:
    """Number of actors in the pool and the resources of each; part of a CPU stays free, which Ray Data needs."""
    total = ray.cluster_resources()  # type: ignore[no-untyped-call]
    cpus, gpus = total.get("CPU", 1.0), total.get("GPU", 0.0)
    count = workers or int(gpus) or max(1, int(cpus) - 1)
    spare = min(1.0, cpus / 2)
    resources: dict[str, Any] = {"num_cpus": max(0.01, int(100 * min(1.0, (cpus - spare) / count)) / 100)}
    if gpus >= 1:
        resources["num_gpus"] = min(1.0, int(100 * gpus / count) / 100)
    return count, resources


class _Worker:
    """An actor of the pool: loads the models once, then converts sources in turn."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._converters: dict[int, Converter] | RaveDistError
        try:
            self._converters = load_here(job)
        except RaveDistError as error:
            self._converters = error  # an actor that fails to start would be restarted repeatedly

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        if isinstance(self._converters, RaveDistError):
            return {"index": row["index"], "outcomes": pickle.dumps(self._converters)}
        return {"index": row["index"], "outcomes": run(self._job, pickle.loads(row["works"]), self._converters)}


def _convert_alone(job: Job, work: Work) -> bytes:
    try:
        return run(job, [work], load_here(replace(job, models=work.plans)))
    except RaveDistError as error:
        return pickle.dumps(error)
