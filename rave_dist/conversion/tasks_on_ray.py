"""Tasks of a conversion on Ray: what they load and return, and what their ends mean."""

from __future__ import annotations

import pickle
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import ray
from ray.exceptions import OutOfMemoryError, RayError, RayTaskError, WorkerCrashedError

from rave_dist.allocator import hold_freed_memory
from rave_dist.conversion.convert import Converter
from rave_dist.conversion.item import Outcome
from rave_dist.conversion.job import OUT_OF_MEMORY, Job, Work, give_up, internal_error
from rave_dist.conversion.loading import load_converters
from rave_dist.conversion.several_files import attempt_all
from rave_dist.conversion.stream import StreamConverter
from rave_dist.errors import RaveDistError
from rave_dist.records import Problem

_SUBMITTED = 200  # tasks submitted to Ray at once
_AGAIN = "run the same command again: only what is missing is converted"
DIED_TWICE = Problem(
    what="its worker process died twice",
    fix="if memory was short, use fewer workers (--workers) or shorter chunks (--chunk-seconds); otherwise leave the file out",
)


def load_here(job: Job) -> dict[int, Converter]:
    """Loads the models of a job in a process of the cluster, on the GPU that Ray has given it."""
    hold_freed_memory()  # chunks need the same memory again
    return load_converters(job.store, job.cards, device=None if ray.get_gpu_ids() else "cpu", trust=job.trust)


def run(job: Job, works: Sequence[Work], converters: Mapping[int, StreamConverter]) -> bytes:
    """The pickled outcomes of sources, or an error that affects every source."""
    outcomes: list[Outcome] | RaveDistError
    try:
        outcomes = list(attempt_all(job, works, converters))
    except RaveDistError as error:
        outcomes = error
    return pickle.dumps(outcomes)


def unpack(packed: bytes) -> list[Outcome]:
    """The outcomes of `run`.

    Raises:
        RaveDistError: an error that affects every source.
    """
    outcomes = pickle.loads(packed)
    if isinstance(outcomes, RaveDistError):
        raise outcomes
    assert isinstance(outcomes, list)
    return outcomes


def in_tasks(job: Job, works: Sequence[Work], start: Callable[[Work], Any], *, at_once: int = _SUBMITTED) -> Iterator[Outcome]:
    """Outcomes of tasks that return `run`; work whose task fails is a failed item with the reason.

    Args:
        job: of the work.
        works: one for each task.
        start: starts a task.
        at_once: how many there are at the same time.
    """
    waiting = deque(works)
    pending: dict[Any, Work] = {}
    while waiting or pending:
        while waiting and len(pending) < at_once:
            work = waiting.popleft()
            pending[start(work)] = work
        for reference in ray.wait(list(pending))[0]:
            work = pending.pop(reference)
            try:
                yield from unpack(ray.get(reference))
            except RayTaskError as error:
                yield from give_up(job, work, internal_error(error.cause))
            except WorkerCrashedError:
                yield from give_up(job, work, DIED_TWICE)
            except OutOfMemoryError:
                yield from give_up(job, work, OUT_OF_MEMORY)
            except RayError as error:
                lost = Problem(what=f"the cluster lost the task ({type(error).__name__})", fix=_AGAIN)
                yield from give_up(job, work, lost)
