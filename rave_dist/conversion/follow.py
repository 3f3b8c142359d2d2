"""Follows a folder: converts the recordings that arrive in it, with the model loaded, until it is stopped.

A recording is converted once it is settled: its size and modification time have not changed for some seconds between two looks,
so that a file which is still copied or recorded is not read. Clocks are not compared, because those of file servers differ. An
object of a remote store is complete when it is listed. Should a copy pause for longer, what is there of it is converted or fails,
and the complete file is converted in its place, because it has changed. A failure is repeated only for a changed file.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from rave_dist.audio.io.write import check_writable_as
from rave_dist.conversion.convert import Converter
from rave_dist.conversion.corpus import Plan, Task, plan_conversion, split_done
from rave_dist.conversion.item import Outcome
from rave_dist.conversion.job import Job, attempt, finish
from rave_dist.errors import AudioError, ConversionError, StoreError
from rave_dist.records import ConversionParameters, ConversionRecord, ModelCard
from rave_dist.storage.schemes import is_remote, local_path

POLL_SECONDS = 3.0
SETTLE_SECONDS = 10.0
_LISTING_SHARE = 0.1  # of the time: an archive whose listing takes a minute is not listed without a pause

Look = Callable[[], Plan | None]
"""Lists the inputs; None if there is no recording."""


@dataclass(frozen=True)
class Arrivals:
    """What one look found: the plan of all recordings that are there, and the tasks that are settled and new or changed."""

    plan: Plan
    tasks: tuple[Task, ...]


@dataclass
class _Seen:
    """A recording as it was last listed: since when it is unchanged, and whether it was handed over so."""

    fingerprint: str
    since: float
    handed: bool = False


def look_at(card: ModelCard, folder: str, output: str, parameters: ConversionParameters) -> Look:
    """A function that lists a folder or prefix as `plan_conversion` does.

    Raises:
        ConversionError: there is no such folder. By the function itself: OUTPUT is inside of it or contains it.
        AudioError: the format does not support the parameters.
    """
    if not is_remote(folder) and not os.path.isdir(local_path(folder)):
        raise ConversionError("only a folder can be watched", where=folder, fix="give one folder or s3:// prefix that exists")
    rate, channels = parameters.sample_rate or 1, parameters.channels or 1
    check_writable_as(parameters.format, sample_rate=rate, channels=channels, where=output)

    def look() -> Plan | None:
        try:
            return plan_conversion(card, [folder], output, parameters)
        except AudioError:
            return None  # no recording matches: the other reason was checked above

    return look


def follow(
    look: Look,
    *,
    poll_seconds: float = POLL_SECONDS,
    settle_seconds: float = SETTLE_SECONDS,
    say: Callable[[str], object] = lambda text: None,
    clock: Callable[[], float] = time.monotonic,
    wait: Callable[[float], object] = time.sleep,
) -> Iterator[Arrivals]:
    """Looks at a folder again and again, without end.

    Args:
        look: lists it.
        poll_seconds: time between two looks; longer where a look takes long.
        settle_seconds: time for which a recording must be unchanged.
        say: called when the folder cannot be listed, once until it can be again.
        clock: seconds.
        wait: waits for a number of seconds.

    Yields:
        What arrived, and each time that recordings have gone, so that their failures no longer count.

    Raises:
        ConversionError: OUTPUT is inside the folder or contains it.
        StoreError: the folder cannot be listed at the first look.
    """
    seen: dict[str, _Seen] = {}
    last: Plan | None = None
    away = listed = False
    while True:
        began = clock()
        try:
            plan = look() or (last and replace(last, tasks=()))
            listed, away = True, False
        except StoreError as error:
            if not listed:
                raise
            if not away:
                say(f"{error.where}: {error.what}; trying again")
            plan, away = None, True
        pause = max(poll_seconds, (clock() - began) * (1 / _LISTING_SHARE - 1))
        if plan is not None:
            last = plan
            gone = seen.keys() - {task.output for task in plan.tasks}
            for output in gone:
                del seen[output]
            tasks = tuple(task for task in plan.tasks if _is_due(seen, task, began, settle_seconds))
            if tasks or gone:
                yield Arrivals(plan, tasks)
        wait(pause)


def _is_due(seen: dict[str, _Seen], task: Task, now: float, settle_seconds: float) -> bool:
    """Whether a task must be converted now; by output, because a name that changes is another result."""
    last = seen.get(task.output)
    if last is None or last.fingerprint != task.source.fingerprint:
        last = seen[task.output] = _Seen(task.source.fingerprint, now)
    settled = is_remote(task.source.uri) or now - last.since >= settle_seconds
    if last.handed or not settled:
        return False
    last.handed = True
    return True


def convert_arrivals(
    job: Job,
    arrivals: Iterable[Arrivals],
    converter: Converter,
    *,
    say: Callable[[str], object] = lambda text: None,
    stopping: Callable[[], object] = lambda: None,
) -> tuple[Plan, ConversionRecord]:
    """Converts what arrives until KeyboardInterrupt, SIGTERM included, or until the arrivals end.

    The recording that is being converted then has no result, and is the first of the next command.

    Args:
        job: of any plan of the folder; its tasks are not used.
        arrivals: from `follow`.
        converter: the model.
        say: called with a line about each round of conversions and each failure.
        stopping: called once it was stopped, before the record is written.

    Returns:
        The plan of all recordings that the record is about, and the record, also stored. Converted recordings that are no
        longer there remain in it; failed ones do not.

    Raises:
        StoreError: OUTPUT or the store cannot be used.
    """
    plan = job.plan
    tasks: dict[str, Task] = {}  # by source, as the outcomes
    outcomes: dict[str, Outcome] = {}
    try:
        for each in arrivals:
            plan = each.plan
            present = {task.source.name for task in plan.tasks}
            for name in [name for name, o in outcomes.items() if o.item.state == "failed" and name not in present]:
                del outcomes[name], tasks[name]
            for task, outcome in _converted(job, each, converter, known=outcomes):
                tasks[task.source.name], outcomes[task.source.name] = task, outcome
                if outcome.item.state == "failed":
                    say(f"{task.source.name}: {outcome.item.reason}")
            if each.tasks:
                failed = sum(o.item.state == "failed" for o in outcomes.values())
                say(f"{len(outcomes) - failed:,} converted, {failed:,} failed; waiting for recordings")
    except KeyboardInterrupt:
        stopping()
    plan = replace(plan, tasks=tuple(sorted(tasks.values(), key=lambda task: os.fsencode(task.source.place))))
    return plan, finish(replace(job, plan=plan, to_do=(), done=()), outcomes.values())


def _converted(
    job: Job, arrivals: Arrivals, converter: Converter, *, known: dict[str, Outcome]
) -> Iterator[tuple[Task, Outcome]]:
    """The outcomes of arrived tasks; a finished one only if its source had none, or a failed one, in this command."""
    to_do, done = split_done(job.store, replace(arrivals.plan, tasks=arrivals.tasks))
    finished = {entry.source: entry for entry in done}
    for task in arrivals.tasks:
        entry, last = finished.get(task.source.name), known.get(task.source.name)
        if entry is not None and (last is None or last.item.state == "failed"):
            yield task, Outcome(entry, skipped=True)
    for task in to_do:
        yield task, attempt(job, task, converter)
