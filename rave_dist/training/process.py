"""The process of one run on Ray: a task that holds the run's resources and whose process ends with the run.

Ray Train would add a controller, four more actors and their 1.4 GB to each run; it keeps nothing that a later attempt needs,
because the checkpoints of a run are objects in the store. Attempts, draining hosts and SIGTERM are handled here and in
`rave_dist.training.on_ray`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Literal

import ray
from ray.exceptions import NodeDiedError, OutOfMemoryError, RayError, RayTaskError, TaskCancelledError

from rave_dist.cluster import head
from rave_dist.cluster.hosts import only_on
from rave_dist.errors import InsufficientMemoryError, RaveDistError, StoreError, StoreUnavailableError, known_error
from rave_dist.records import ModelCard, Problem, RunActivity, RunRecord, TrainingSpec
from rave_dist.scheduling.admission import Share
from rave_dist.storage.store import Store
from rave_dist.temporary import remove_abandoned
from rave_dist.training.heartbeat import Heartbeat

if TYPE_CHECKING:
    from rave_dist.training.preflight.dry_run import Export  # which imports torch and RAVE

_TIDY_SECONDS = 30.0

Publish = Callable[[Store, TrainingSpec, Callable[[RunActivity], None]], ModelCard]

RESUME: Final = "run the same command again to resume"


@ray.remote(max_calls=1, max_retries=0)
def train_one(store: Store, spec: TrainingSpec, share: Share, export: Export | None, threads: int, alone: bool) -> RunRecord:
    """Trains or resumes a run in this process, which ends with it; SIGTERM makes it save its state and stop.

    Args:
        store: of the dataset and the run.
        spec: the run.
        share: its resources.
        export: as in `rave_dist.training.worker.work`.
        threads: CPU threads.
        alone: whether the run has all memory that it can have.

    Returns:
        The run's last record, as `rave_dist.training.worker.work`.

    Raises:
        StoreError: the store is not available; a further attempt may succeed.
        InsufficientMemoryError: a step does not fit the run's part of the memory; alone it may.
    """
    prepare_process()
    from rave_dist.training.worker import work  # imported here: it imports torch and RAVE

    return work(store, spec, threads=threads, gpu_share=share.gpus, alone=alone or share.gpus == 1, export=export)


def prepare_process() -> None:
    """Prepares the process of a run, before it imports torch."""
    # Waiting threads must sleep. Spinning threads of several runs compete for the cores of a shared machine, and a step takes
    # ten times as long. OpenMP reads this when torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    remove_abandoned()


@ray.remote(num_cpus=0, max_retries=2, scheduling_strategy="SPREAD")
def publish_one(store: Store, spec: TrainingSpec, record: RunRecord, publish: Publish) -> RunRecord | Problem:
    """Publishes the model of a finished run, with a heartbeat of its record."""
    remove_abandoned()
    fields = {"state": "running", "activity": "exporting", "steps_per_second": None}
    with Heartbeat(store, record.model_copy(update=fields)) as beat:
        try:
            card = publish(store, spec, lambda activity: beat.update(activity=activity))
            beat.update(model=card.reference, verdict=card.verdict)
        except (StoreError, InsufficientMemoryError):  # a further attempt may succeed, for example on another host
            raise
        except RaveDistError as error:
            return Problem.of(error)
    return beat.record


def tidy_hosts() -> None:
    """Removes the temporary folders of killed processes on all hosts; waits for a few seconds."""
    tidy = ray.remote(num_cpus=0, max_retries=0)(remove_abandoned)
    tasks = [tidy.options(scheduling_strategy=only_on(host)).remote() for host in head.nodes()]
    ray.wait(tasks, num_returns=len(tasks), timeout=_TIDY_SECONDS)


def wanted_memory(error: BaseException) -> Literal["", "device", "host"]:
    """The memory that was short: in a run's own error, or in Ray's, which ends a process before its host is full; or ""."""
    cause = error.cause if isinstance(error, RayTaskError) else error
    if isinstance(cause, InsufficientMemoryError):
        return "device"
    return "host" if isinstance(cause, OutOfMemoryError | MemoryError) else ""


def is_loss(error: BaseException) -> bool:
    """Whether a host died or the store is unavailable, which says nothing of the run."""
    cause = error.cause if isinstance(error, RayTaskError) else error
    return isinstance(cause, NodeDiedError | StoreUnavailableError)


def explain(error: BaseException) -> Problem:
    """The error of a run for users: the innermost cause that Ray reports."""
    if isinstance(error, RayTaskError) and isinstance(error.cause, Exception):
        return explain(error.cause)
    known = known_error(error)
    if known is not None:
        return Problem.of(known)
    if isinstance(error, TaskCancelledError):
        return Problem(what="the run was cancelled", fix=RESUME)
    first_line = str(error).strip().partition("\n")[0]
    if isinstance(error, OutOfMemoryError | MemoryError):
        return Problem(what=f"out of memory: {first_line}", fix="set a smaller batch, or use a machine with more memory")
    if isinstance(error, RayError):
        return Problem(
            what=f"the training process died again and again without a new step; the last time: {first_line}",
            fix=f"check the machine's memory and disk, then {RESUME}",
        )
    return Problem(what=f"{type(error).__name__}: {first_line}", fix=f"{RESUME} from its checkpoint")
