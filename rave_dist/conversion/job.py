"""What every conversion of a corpus does before and after its files, wherever these are converted."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch

from rave_dist.conversion.convert import Converter, chunk_samples
from rave_dist.conversion.corpus import Plan, Task, split_done
from rave_dist.conversion.item import Outcome, failed_item
from rave_dist.errors import ConversionError
from rave_dist.records import ConversionItem, ConversionRecord, now
from rave_dist.storage.store import Store

OUT_OF_MEMORY = "there is not enough memory: take fewer workers or shorter chunks"


@dataclass(frozen=True)
class Job:
    """A conversion that has begun: the tasks that are left, the largest first, and the entries of those done before."""

    store: Store
    plan: Plan
    chunk_seconds: float
    to_do: tuple[Task, ...]
    done: tuple[ConversionItem, ...]


def begin(store: Store, plan: Plan, *, chunk_seconds: float, workers: int | None = None) -> Job:
    """Checks that the conversion can be done, notes its request and finds what is left to do.

    Args:
        store: of the library: the model is read from it, journal and record are written to it.
        plan: `plan_conversion`'s.
        chunk_seconds: of sound in the model at once.
        workers: files at once; None for as many as there is room for.

    Raises:
        ConversionError: chunks too short; workers below 1.
        StoreError: OUTPUT or the store cannot be used.
    """
    chunk_samples(plan.card, chunk_seconds)
    if workers is not None and workers < 1:
        raise ConversionError("a conversion needs at least one worker", fix="give --workers 1 or more")
    plan.output.check_writable()
    request = {"model": plan.card.reference, "parameters": plan.parameters.to_json(), "output": plan.output.uri}
    store.write_json(f"{plan.key}/request.json", request)
    to_do, done = split_done(store, plan)
    return Job(store, plan, chunk_seconds, tuple(to_do), tuple(done))


def finish(job: Job, outcomes: Iterable[Outcome], progress: Callable[[int, int], None] | None = None) -> ConversionRecord:
    """Takes the outcomes as they come and writes the record.

    Args:
        job: `begin`'s.
        outcomes: of the tasks that were left, in any order.
        progress: called with how many sources are done, and of how many.

    Returns:
        The record, which also lies in the store as ``conversions/<id>/record.json``. Sources that failed are named in it.
    """
    taken = [Outcome(item, skipped=True) for item in job.done]
    report = progress or (lambda count, total: None)
    report(len(taken), len(job.plan.tasks))
    for outcome in outcomes:
        taken.append(outcome)
        report(len(taken), len(job.plan.tasks))
    record = _record(job.plan, taken)
    job.store.write_json(f"{job.plan.key}/record.json", record.to_json())
    return record


def load_converter(job: Job, *, device: str) -> Converter:
    """The model, loaded from the store into this process.

    Raises:
        StoreError: what is stored is not what was published.
        ConversionError: the file is not TorchScript, or cannot convert.
    """
    torch.set_num_threads(1)  # Ray has a worker for every CPU; and any number of threads gives the same samples
    return Converter.load(job.store, job.plan.card, device=device)


def give_up(job: Job, task: Task, reason: str) -> Outcome:
    """The outcome of a task that ended in a way that it does not explain itself; noted in the journal."""
    item = failed_item(job.plan, task, reason)
    job.store.write_json(job.plan.journal_key(task), item.to_json())
    return Outcome(item)


def unforeseen(error: BaseException) -> str:
    """The reason to give for an error of unknown kind."""
    return f"an error that nobody foresaw: {error!r}"


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
        seconds=sum(item.seconds for item in fresh),
        created_at=now(),
    )
