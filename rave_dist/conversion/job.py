"""Start and end of the conversions of a corpus, common to all ways of converting its files."""

from __future__ import annotations

import struct
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from rave_dist.conversion.convert import Converter
from rave_dist.conversion.corpus import Plan, Task, finished
from rave_dist.conversion.item import Outcome, convert_source, failed_item
from rave_dist.conversion.leftovers import find_leftovers, remove_leftovers
from rave_dist.conversion.loading import memory_for
from rave_dist.conversion.stream import StreamConverter, chunk_samples
from rave_dist.conversion.summary import Summary
from rave_dist.errors import ConversionError, RaveDistError
from rave_dist.records import ConversionRecord, ConversionRequest, ModelCard, Problem
from rave_dist.storage.store import Store

OUT_OF_MEMORY = Problem(what="not enough memory", fix="use fewer workers (--workers) or shorter chunks (--chunk-seconds)")

# Errors that libraries raise for a single file. libsndfile's are RuntimeErrors; FFmpeg's are caught where it decodes.
_UNFORESEEN = (
    *(ArithmeticError, AssertionError, AttributeError, BufferError, EOFError, ImportError, LookupError, OSError, RuntimeError),
    *(SystemError, TypeError, ValueError, struct.error, torch.jit.Error),
)


@dataclass(frozen=True, slots=True)
class Work:
    """A source, and the conversions that lack it: positions in `Job.plans`."""

    task: Task
    plans: tuple[int, ...]


@dataclass(frozen=True)
class Job:
    """Conversions of the same sources in progress: the remaining work, the largest source first.

    ``models`` are the positions of the plans with remaining work, whose models each process loads; ``done`` sums up what was
    finished before, by the ids of the plans; ``leftovers`` are temporary files of killed commands.
    """

    store: Store
    plans: tuple[Plan, ...]
    models: tuple[int, ...]
    chunk_seconds: float
    to_do: tuple[Work, ...]
    done: Mapping[str, Summary] = field(default_factory=dict)
    trust: bool = False
    leftovers: tuple[Path, ...] = ()

    @property
    def cards(self) -> dict[int, ModelCard]:
        """The models to load, by the positions of their plans."""
        return {number: self.plans[number].card for number in self.models}


def begin(
    store: Store,
    plans: Sequence[Plan],
    *,
    chunk_seconds: float,
    workers: int | None = None,
    trust: bool = False,
    on_done: Callable[[Outcome], object] = lambda outcome: None,
    progress: Callable[[int, int], object] = lambda count, total: None,
) -> Job:
    """Checks conversions, stores their requests and lists the remaining work.

    Args:
        store: the library's store, for the models, the journals and the records.
        plans: from `plan_conversion` or `plan_conversions`: of the same tasks.
        chunk_seconds: seconds of audio in a model at once.
        workers: processes that convert; None for as many as the resources allow.
        trust: load a model file with operators that no export has.
        on_done: called with each outcome that was finished before.
        progress: called with the number of outputs that were looked up in the journal, and the total.

    Raises:
        ConversionError: chunks too short; workers below 1.
        StoreError: an OUTPUT or the store cannot be used.
    """
    if workers is not None and workers < 1:
        raise ConversionError("a conversion needs at least one worker", fix="give --workers 1 or more")
    for plan in plans:
        chunk_samples(plan.card, chunk_seconds)
    leftovers = find_leftovers(store, plans)
    tasks = plans[0].tasks
    wanted: list[tuple[int, ...]] = [()] * len(tasks)  # of each task: the plans that lack it
    several: dict[tuple[int, ...], tuple[int, ...]] = {}  # one object for all equal ones
    done: dict[str, Summary] = {}
    for number, plan in enumerate(plans):
        plan.output.check_writable()
        request = ConversionRequest(model=plan.card.reference, parameters=plan.parameters, output=plan.output.uri)
        request.save(store, plan.folder.request)
        done[plan.id] = Summary()
        for index, entry in enumerate(finished(store, plan)):
            if entry is None:
                wider = (*wanted[index], number)
                wanted[index] = several.setdefault(wider, wider)
            else:
                outcome = Outcome(entry, plan.id, skipped=True)
                done[plan.id].add(outcome)
                on_done(outcome)
            progress(number * len(tasks) + index + 1, len(plans) * len(tasks))
    works = [Work(task, numbers) for task, numbers in zip(tasks, wanted, strict=True) if numbers]
    works.sort(key=lambda work: -work.task.source.bytes)
    models = tuple(sorted({number for work in works for number in work.plans}))
    return Job(store, tuple(plans), models, chunk_seconds, tuple(works), done, trust, leftovers)


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
        kept = {plans: tuple(number for number in plans if number in group) for plans in {work.plans for work in job.to_do}}
        works = (Work(work.task, kept[work.plans]) for work in job.to_do)
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
    found = {plan.id: job.done.get(plan.id, Summary()).copy() for plan in job.plans}
    count, total = sum(summary.count for summary in found.values()), sum(len(plan.tasks) for plan in job.plans)
    report = progress or (lambda count, total: None)
    report(count, total)
    try:
        for outcome in outcomes:
            found[outcome.conversion].add(outcome)
            count += 1
            report(count, total)
    finally:
        if isinstance(outcomes, Generator):  # its threads and actors end now, not when Python collects it
            outcomes.close()
    from rave_dist.conversion.table import write_table  # imported here: it imports pyarrow, which the workers do not need

    records = []
    for plan in job.plans:
        record = found[plan.id].record(plan)
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
