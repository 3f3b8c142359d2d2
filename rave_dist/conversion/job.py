"""Start and end of a corpus conversion, common to all ways of converting its files."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch

from rave_dist.conversion.convert import Converter, chunk_samples
from rave_dist.conversion.corpus import Plan, Task, split_done
from rave_dist.conversion.item import Outcome, convert_item, failed_item
from rave_dist.errors import ConversionError, RaveDistError
from rave_dist.records import ConversionItem, ConversionRecord, ConversionRequest, Problem, now
from rave_dist.storage.store import Store

OUT_OF_MEMORY = Problem(what="not enough memory", fix="use fewer workers (--workers) or shorter chunks (--chunk-seconds)")

# Errors that libraries raise for a single file. libsndfile's are RuntimeErrors; FFmpeg's are caught where it decodes.
_UNFORESEEN = (
    *(ArithmeticError, AssertionError, AttributeError, BufferError, EOFError, ImportError, LookupError, OSError, RuntimeError),
    *(SystemError, TypeError, ValueError, struct.error, torch.jit.Error),
)


@dataclass(frozen=True)
class Job:
    """A conversion in progress: the remaining tasks, the largest first, and the entries of finished ones."""

    store: Store
    plan: Plan
    chunk_seconds: float
    to_do: tuple[Task, ...]
    done: tuple[ConversionItem, ...]
    trust: bool = False


def begin(store: Store, plan: Plan, *, chunk_seconds: float, workers: int | None = None, trust: bool = False) -> Job:
    """Checks a conversion, stores its request and lists the remaining tasks.

    Args:
        store: the library's store, for the model, the journal and the record.
        plan: from `plan_conversion`.
        chunk_seconds: seconds of audio in the model at once.
        workers: files converted at once; None for as many as the resources allow.
        trust: load a model file with operators that no export has.

    Raises:
        ConversionError: chunks too short; workers below 1.
        StoreError: OUTPUT or the store cannot be used.
    """
    chunk_samples(plan.card, chunk_seconds)
    if workers is not None and workers < 1:
        raise ConversionError("a conversion needs at least one worker", fix="give --workers 1 or more")
    plan.output.check_writable()
    request = ConversionRequest(model=plan.card.reference, parameters=plan.parameters, output=plan.output.uri)
    request.save(store, plan.folder.request)
    to_do, done = split_done(store, plan)
    return Job(store, plan, chunk_seconds, tuple(to_do), tuple(done), trust)


def finish(job: Job, outcomes: Iterable[Outcome], progress: Callable[[int, int], None] | None = None) -> ConversionRecord:
    """Collects the outcomes and writes the record.

    Args:
        job: from `begin`.
        outcomes: of the remaining tasks, in any order.
        progress: called with the number of finished sources and the total.

    Returns:
        The record, also stored as ``conversions/<id>/record.json``. It names the failed sources.
    """
    taken = [Outcome(item, skipped=True) for item in job.done]
    report = progress or (lambda count, total: None)
    report(len(taken), len(job.plan.tasks))
    for outcome in outcomes:
        taken.append(outcome)
        report(len(taken), len(job.plan.tasks))
    record = _record(job.plan, taken)
    record.save(job.store, job.plan.folder.record)
    return record


def load_converter(job: Job, *, device: str) -> Converter:
    """Loads the model from the store into this process.

    Raises:
        StoreError: the stored file is not the published one.
        UntrustedModelError: the file has operators that no export has.
        ConversionError: the file cannot convert.
    """
    torch.set_num_threads(1)  # Ray has a worker for every CPU; the samples do not depend on the number of threads
    return Converter.load(job.store, job.plan.card, device=device, trust=job.trust)


def attempt(job: Job, task: Task, converter: Converter) -> Outcome:
    """Converts a task; an unexpected error is its failed outcome, so that the model stays loaded for the other tasks.

    Raises:
        RaveDistError: an error that concerns every source.
        RuntimeError: the device no longer works in this process.
    """
    try:
        return convert_item(job.store, job.plan, task, converter, chunk_seconds=job.chunk_seconds)
    except RaveDistError:
        raise
    except MemoryError:
        return give_up(job, task, OUT_OF_MEMORY)
    except _UNFORESEEN as error:
        if converter.device.type == "cuda":
            torch.cuda.synchronize(converter.device)  # raises after errors that break a process's use of the GPU
        return give_up(job, task, internal_error(error))


def give_up(job: Job, task: Task, reason: Problem) -> Outcome:
    """The failed outcome of a task that could not write its own journal entry; writes it."""
    item = failed_item(job.plan, task, reason.what, reason.fix)
    item.save(job.store, job.plan.journal_key(task))
    return Outcome(item)


def internal_error(error: BaseException) -> Problem:
    """The reason reported for an unexpected error."""
    return Problem(
        what=f"internal error: {error!r}", fix="leave the file out, and report this message; CONTRIBUTING says where"
    )


def _record(plan: Plan, outcomes: list[Outcome]) -> ConversionRecord:
    outcomes = sorted(outcomes, key=lambda outcome: outcome.item.source)
    fresh = [o.item for o in outcomes if not o.skipped and o.item.state != "failed"]
    return ConversionRecord(
        id=plan.id,
        model=plan.card.reference,
        parameters=plan.parameters,
        converted=len(fresh),
        skipped=sum(o.skipped for o in outcomes),
        failed=tuple(o.item for o in outcomes if o.item.state == "failed"),
        salvaged=tuple(o.item for o in outcomes if o.item.state == "salvaged"),
        silent=tuple(o.item for o in outcomes if o.item.silent),
        clipped=tuple(o.item for o in outcomes if o.item.clipped),
        other_format=tuple(o.item for o in outcomes if o.item.other_format),
        seconds=sum(item.seconds for item in fresh),
        passed_over=plan.passed_over,
        notes=(*plan.notes, *(f"{o.item.source}: {note}" for o in outcomes for note in o.item.notes)),
        created_at=now(),
    )
