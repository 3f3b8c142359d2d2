"""Corpus jobs, run in turn on Ray Data, outside the replicas of the service.

A job's state is its record in the store. The runner writes it before it responds. When it starts, it resumes the unfinished
jobs of an earlier runner from the conversions' journals. A job lists its recordings itself: a request never waits for that.
"""

from __future__ import annotations

import math
import queue
import re
import threading
import time
from typing import Any

import ray
from ray.exceptions import RayError

from rave_dist.conversion.corpus import plan_conversion
from rave_dist.conversion.on_ray import convert_corpus
from rave_dist.errors import DamagedObjectError, MissingKeyError, RaveDistError
from rave_dist.identity import ID_LENGTH, content_id
from rave_dist.records import Problem, now
from rave_dist.registry import store as registry
from rave_dist.serving.access import Access
from rave_dist.serving.schema import Job, job_key
from rave_dist.storage.store import Store

NAMESPACE = "rave-dist"
_REPORT_SECONDS = 2.0
_RETRY_SECONDS = 5.0


def read_job(store: Store, job_id: str) -> Job:
    """A job's record.

    Raises:
        MissingKeyError: there is no such job.
        StoreError: the store is gone.
    """
    missing = MissingKeyError("there is no such job", where=job_id[:64], fix="GET /v1/jobs lists the jobs")
    if not re.fullmatch(f"[0-9a-f]{{{ID_LENGTH}}}", job_id):  # an id is a key in the store, never a path
        raise missing
    try:
        return Job.load(store, job_key(job_id))
    except MissingKeyError as error:
        store.check_exists()
        raise missing from error


def list_jobs(store: Store) -> list[Job]:
    """All jobs, the newest first; records that are not valid are left out.

    Raises:
        StoreError: the store is gone.
    """
    store.check_exists()
    found: list[Job] = []
    for entry in store.list("jobs"):
        try:
            found.append(Job.load(store, entry.key))
        except (MissingKeyError, DamagedObjectError):
            continue
    return sorted(found, key=lambda job: (job.submitted_at, job.id), reverse=True)


def job_runner(store_uri: str, access: Access | None = None, *, trust: bool = False) -> Any:
    """The handle of a store's only runner in this cluster; started if necessary."""
    return JobRunner.options(  # type: ignore[attr-defined]
        name=f"jobs-{content_id(store_uri)}", namespace=NAMESPACE, lifetime="detached", get_if_exists=True
    ).remote(access or Access(store_uri), trust)


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

    def __init__(self, access: Access, trust: bool) -> None:
        self._store = Store(access.store_uri)
        self._access = access
        self._trust = trust
        self._queue: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._lock = threading.Lock()  # a record is changed by one of: submit, cancel, the start and the end of a job
        self._running: tuple[str, Any] | None = None
        for job in reversed(list_jobs(self._store)):
            if not job.is_over:
                self._queue.put(job.id)
        threading.Thread(target=self._work, daemon=True).start()

    def submit(self, job: Job) -> Job:
        """Queues a job, unless the same one is queued or running."""
        with self._lock:
            try:
                known = read_job(self._store, job.id)
            except (MissingKeyError, DamagedObjectError):
                known = None
            if known is not None and not known.is_over:
                return known
            job.save(self._store, job.key)
            self._queue.put(job.id)
            return job

    def cancel(self, job_id: str) -> Job:
        """Cancels a queued or running job; its finished files and its journal stay."""
        with self._lock:
            job = read_job(self._store, job_id)
            if job.is_over:
                return job
            if self._running is not None and self._running[0] == job_id:
                ray.cancel(self._running[1], force=True)
                ray.wait([self._running[1]], timeout=30)  # its process writes to the record
            return _end(self._store, read_job(self._store, job_id), "cancelled")

    def _work(self) -> None:
        while True:
            job_id = self._queue.get()
            try:
                self._run(job_id)
            except MissingKeyError:
                continue
            except RaveDistError:  # the store is away: the journal keeps what is done
                time.sleep(_RETRY_SECONDS)
                self._queue.put(job_id)

    def _run(self, job_id: str) -> None:
        with self._lock:
            job = read_job(self._store, job_id)
            if job.is_over:
                return  # cancelled while it was queued
            # A separate task: a crash does not affect the runner, and its exceptions are Ray's.
            task = _run_job.remote(self._store, job, self._access, self._trust)
            self._running = (job_id, task)
        failure: RayError | None = None
        try:
            ray.get(task)
        except RayError as error:
            failure = error
        with self._lock:
            self._running = None
            job = read_job(self._store, job_id)
            if failure is not None and not job.is_over:
                what = f"the job failed: {str(failure).strip().splitlines()[-1]}"
                _end(self._store, job, "failed", error=Problem(what=what, fix="send it again to resume"))


def _end(store: Store, job: Job, state: str, **changes: Any) -> Job:
    if job.is_over:
        return job
    ended = job.model_copy(update={"state": state, "ended_at": now(), **changes})
    ended.save(store, ended.key)
    return ended


@ray.remote(num_cpus=0, max_retries=1)
def _run_job(store: Store, job: Job, access: Access, trust: bool) -> None:
    def write(**changes: Any) -> None:
        nonlocal job
        job = job.model_copy(update=changes)
        job.save(store, job.key)

    reported = -math.inf  # the first report says how many there are

    def progress(done: int, total: int) -> None:
        nonlocal reported
        if time.monotonic() - reported > _REPORT_SECONDS:
            reported = time.monotonic()
            write(done=done, total=total + len(refused))

    write(state="running")
    try:
        access.check(job.inputs, job.output)  # links may have changed since the request
        plan = plan_conversion(registry.find(store, job.model), job.inputs, job.output, job.parameters)
        plan, refused = access.split(store, plan, overwrite=job.overwrite)
        result = convert_corpus(
            store,
            plan,
            # Half a GPU each: the service reserves the other half of one.
            workers=2 * num_gpus() or None,
            trust=trust,
            progress=progress,
        )
    except RaveDistError as error:
        write(state="failed", error=Problem.of(error), ended_at=now())
        return
    result = result.model_copy(update={"failed": (*result.failed, *refused)})
    total = result.converted + result.skipped + len(result.failed)
    state = "done" if result.is_complete else "partial"
    write(state=state, result=result, done=total, total=total, ended_at=now())
