"""Corpus jobs, run in turn on Ray Data, outside the replicas of the service.

A job's state is its record in the store. The runner writes it before it responds. When it starts, it resumes the unfinished
jobs of an earlier runner from the conversions' journals.
"""

from __future__ import annotations

import math
import queue
import threading
import time
from typing import Any

import ray
from ray.exceptions import RayError

from rave_dist.conversion.corpus import plan_conversion
from rave_dist.conversion.on_ray import convert_corpus
from rave_dist.errors import MissingKeyError, RaveDistError
from rave_dist.identity import content_id
from rave_dist.records import Problem, now
from rave_dist.registry import store as registry
from rave_dist.serving.schema import Job, job_key
from rave_dist.storage.store import Store

NAMESPACE = "rave-dist"
_REPORT_SECONDS = 2.0


def read_job(store: Store, job_id: str) -> Job:
    """A job's record.

    Raises:
        MissingKeyError: there is no such job.
    """
    if not job_id.isalnum():  # an id is a key in the store, never a path
        raise MissingKeyError("there is no such job", where=job_id, fix="POST /v1/jobs returns the id of a job")
    try:
        return Job.load(store, job_key(job_id))
    except MissingKeyError as error:
        raise MissingKeyError("there is no such job", where=job_id, fix="POST /v1/jobs returns the id of a job") from error


def job_runner(store_uri: str) -> Any:
    """The handle of a store's only runner in this cluster; started if necessary."""
    return JobRunner.options(  # type: ignore[attr-defined]
        name=f"jobs-{content_id(store_uri)}", namespace=NAMESPACE, lifetime="detached", get_if_exists=True
    ).remote(store_uri)


def stop_jobs(store_uri: str) -> None:
    """Ends the runner of a store and its job; the next service on this store resumes the jobs."""
    try:
        ray.kill(ray.get_actor(f"jobs-{content_id(store_uri)}", namespace=NAMESPACE))
    except ValueError:
        return  # none is running


def num_gpus() -> int:
    """GPUs of the cluster."""
    return int(ray.cluster_resources().get("GPU", 0))  # type: ignore[no-untyped-call]


@ray.remote(num_cpus=0, max_restarts=3, max_task_retries=3)
class JobRunner:
    """Runs the jobs of one store in order of arrival; detached, so that it outlives the replicas."""

    def __init__(self, store_uri: str) -> None:
        self._store = Store(store_uri)
        self._queue: queue.SimpleQueue[str] = queue.SimpleQueue()
        records = [Job.load(self._store, entry.key) for entry in self._store.list("jobs")]
        for job in sorted((job for job in records if not job.is_over), key=lambda job: job.submitted_at):
            self._queue.put(job.id)
        threading.Thread(target=self._work, daemon=True).start()

    def submit(self, job: Job) -> Job:
        """Queues a job, unless the same one is queued or running."""
        try:
            known = read_job(self._store, job.id)
        except MissingKeyError:
            known = None
        if known is not None and not known.is_over:
            return known
        job.save(self._store, job.key)
        self._queue.put(job.id)
        return job

    def _work(self) -> None:
        while True:
            job = read_job(self._store, self._queue.get())
            try:
                # A separate task: a crash does not affect the runner, and its exceptions are Ray's.
                ray.get(_run_job.remote(self._store, job))
            except RayError as error:
                reason = Problem(what=f"the job failed: {str(error).strip().splitlines()[-1]}", fix="send it again to resume")
                failed = job.model_copy(update={"state": "failed", "error": reason, "ended_at": now()})
                failed.save(self._store, job.key)


@ray.remote(num_cpus=0, max_retries=1)
def _run_job(store: Store, job: Job) -> None:
    def write(**changes: Any) -> None:
        nonlocal job
        job = job.model_copy(update=changes)
        job.save(store, job.key)

    reported = -math.inf  # the first report says how many there are

    def progress(done: int, total: int) -> None:
        nonlocal reported
        if time.monotonic() - reported > _REPORT_SECONDS:
            reported = time.monotonic()
            write(done=done, total=total)

    write(state="running")
    try:
        plan = plan_conversion(registry.find(store, job.model), job.inputs, job.output, job.parameters)
        result = convert_corpus(
            store,
            plan,
            # Half a GPU each: the service reserves the other half of one.
            workers=2 * num_gpus() or None,
            progress=progress,
        )
    except RaveDistError as error:
        what = f"{error.where}: {error.what}" if error.where else error.what
        write(state="failed", error=Problem(what=what, fix=error.fix), ended_at=now())
        return
    total = result.converted + result.skipped + len(result.failed)
    state = "partial" if result.failed else "done"
    write(state=state, result=result, done=total, total=total, ended_at=now())
