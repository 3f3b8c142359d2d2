"""Start and end of the conversions of a corpus, common to all ways of converting its files."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import torch

from rave_dist.conversion.convert import Converter, memory_for
from rave_dist.conversion.corpus import Plan, Task, split_done
from rave_dist.conversion.item import Outcome, convert_source, failed_item
from rave_dist.conversion.leftovers import find_leftovers, remove_leftovers
from rave_dist.conversion.preserved import medians
from rave_dist.conversion.stream import StreamConverter, chunk_samples
from rave_dist.errors import ConversionError, RaveDistError
from rave_dist.records import ConversionRecord, ConversionRequest, ModelCard, Problem, now
from rave_dist.storage.store import Store

OUT_OF_MEMORY = Problem(what="not enough memory", fix="use fewer workers (--workers) or shorter chunks (--chunk-seconds)")

# Errors that libraries raise for a single file. libsndfile's are RuntimeErrors; FFmpeg's are caught where it decodes.
_UNFORESEEN = (
    *(ArithmeticError, AssertionError, AttributeError, BufferError, EOFError, ImportError, LookupError, OSError, RuntimeError),
    *(SystemError, TypeError, ValueError, struct.error, torch.jit.Error),
)


@dataclass(frozen=True)
class Work:
    """A source, and the conversions that lack it: positions in `Job.plans`."""

    task: Task
    plans: tuple[int, ...]


@dataclass(frozen=True)
class Job:
    """Conversions of the same sources in progress: the remaining work, the largest source first, and what was finished before.

    ``models`` are the positions of the plans with remaining work, whose models each process loads; ``leftovers`` are temporary
    files of killed commands.
    """

    store: Store
    plans: tuple[Plan, ...]
    models: tuple[int, ...]
    chunk_seconds: float
    to_do: tuple[Work, ...]
    done: tuple[Outcome, ...]
    trust: bool = False
    leftovers: tuple[Path, ...] = ()

    @property
    def cards(self) -> dict[int, ModelCard]:
        """The models to load, by the positions of their plans."""
        return {number: self.plans[number].card for number in self.models}


def begin(store: Store, plans: Sequence[Plan], *, chunk_seconds: float, workers: int | None = None, trust: bool = False) -> Job:
    """Checks conversions, stores their requests and lists the remaining work.

    Args:
        store: the library's store, for the models, the journals and the records.
        plans: from `plan_conversion` or `plan_conversions`: of the same sources.
        chunk_seconds: seconds of audio in a model at once.
        workers: files converted at once; None for as many as the resources allow.
        trust: load a model file with operators that no export has.

    Raises:
        ConversionError: chunks too short; workers below 1.
        StoreError: an OUTPUT or the store cannot be used.
    """
    if workers is not None and workers < 1:
        raise ConversionError("a conversion needs at least one worker", fix="give --workers 1 or more")
    for plan in plans:
        chunk_samples(plan.card, chunk_seconds)
    leftovers = find_leftovers(store, plans)
    wanted: dict[Task, list[int]] = {}
    done: list[Outcome] = []
    for number, plan in enumerate(plans):
        plan.output.check_writable()
        request = ConversionRequest(model=plan.card.reference, parameters=plan.parameters, output=plan.output.uri)
        request.save(store, plan.folder.request)
        tasks, entries = split_done(store, plan)
        done += [Outcome(entry, plan.id, skipped=True) for entry in entries]
        for task in tasks:
            wanted.setdefault(task, []).append(number)
    to_do = sorted(wanted, key=lambda task: -task.source.bytes)
    works = tuple(Work(task, tuple(wanted[task])) for task in to_do)
    models = tuple(sorted(set(chain.from_iterable(wanted.values()))))
    return Job(store, tuple(plans), models, chunk_seconds, works, tuple(done), trust, leftovers)


def in_groups(job: Job, memory: float) -> Iterator[Job]:
    """Divides a job by models into jobs whose models fit in memory together; sources are read once for each.

    All sources are converted through one group before the next, so a process loads each model once.

    Args:
        job: from `begin`.
        memory: of each process, for models, in bytes.
    """
    groups: list[list[int]] = []
    left = 0.0
    for number in job.models:
        needed = memory_for(job.plans[number].card)
        if needed > left or not groups:
            groups.append([])
            left = memory
        groups[-1].append(number)
        left -= needed
    for group in groups:
        works = (Work(work.task, tuple(number for number in work.plans if number in group)) for work in job.to_do)
        yield replace(job, models=tuple(group), to_do=tuple(work for work in works if work.plans))


def finish(
    job: Job, outcomes: Iterable[Outcome], progress: Callable[[int, int], None] | None = None
) -> tuple[ConversionRecord, ...]:
    """Collects the outcomes and writes the records and the tables of the journals.

    Args:
        job: from `begin`.
        outcomes: of the remaining work, in any order.
        progress: called with the number of finished outputs and the total.

    Returns:
        The record of each plan, also stored as ``conversions/<id>/record.json``. It names the failed sources.
    """
    taken = list(job.done)
    total = sum(len(plan.tasks) for plan in job.plans)
    report = progress or (lambda count, total: None)
    report(len(taken), total)
    for outcome in outcomes:
        taken.append(outcome)
        report(len(taken), total)
    from rave_dist.conversion.table import write_table  # imported here: it imports pyarrow, which the workers do not need

    records = []
    for plan in job.plans:
        record = _record(plan, [outcome for outcome in taken if outcome.conversion == plan.id])
        record.save(job.store, plan.folder.record)
        write_table(job.store, plan)
        records.append(record)
    remove_leftovers(job.leftovers)
    return tuple(records)


def attempt(job: Job, work: Work, converters: Mapping[int, StreamConverter]) -> list[Outcome]:
    """Converts a source; an unexpected error is a failed outcome, so that the models stay loaded for the other sources.

    After an unexpected error with several models each is tried alone, so that only the one which has it fails.

    Raises:
        RaveDistError: an error that concerns every source.
        RuntimeError: the device no longer works in this process.
    """
    conversions = [(job.plans[number], converters[number]) for number in work.plans]
    try:
        return convert_source(job.store, work.task, conversions, chunk_seconds=job.chunk_seconds)
    except RaveDistError:
        raise
    except MemoryError:
        reason = OUT_OF_MEMORY
    except _UNFORESEEN as error:
        converter = conversions[0][1]
        if isinstance(converter, Converter) and converter.device.type == "cuda":
            torch.cuda.synchronize(converter.device)  # raises after errors that break a process's use of the GPU
        reason = internal_error(error)
    if len(work.plans) == 1:
        return give_up(job, work, reason)
    return [outcome for number in work.plans for outcome in attempt(job, Work(work.task, (number,)), converters)]


def give_up(job: Job, work: Work, reason: Problem) -> list[Outcome]:
    """The failed outcomes of work that could not write its own journal entries; writes them."""
    outcomes = []
    for plan in (job.plans[number] for number in work.plans):
        item = failed_item(plan, work.task, reason.what, reason.fix)
        item.save(job.store, plan.journal_key(work.task))
        outcomes.append(Outcome(item, plan.id))
    return outcomes


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
        preserved=medians(o.item for o in outcomes),
        created_at=now(),
    )
