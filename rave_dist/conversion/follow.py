"""Follows a folder: converts the recordings that arrive in it, with the model loaded, until it is stopped.

A recording is converted once it is settled: its size and modification time have not changed for some seconds between two looks,
so that a file which is still copied or recorded is not read. Clocks are not compared, because those of file servers differ. An
object of a remote store is complete when it is listed. Should a copy pause for longer, its first part is converted or fails,
and the complete file is converted in its place, because it has changed. A failure is repeated only for a changed file.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from rave_dist.conversion.convert import Converter
from rave_dist.conversion.corpus import Plan, Task, check_format, plan_conversions
from rave_dist.conversion.item import Outcome
from rave_dist.conversion.job import Job, begin, finish
from rave_dist.conversion.several_files import attempt_all
from rave_dist.errors import AudioError, ConversionError, StoreError
from rave_dist.records import ConversionParameters, ConversionRecord, ModelCard
from rave_dist.storage.schemes import is_remote, local_path
from rave_dist.storage.store import Store

POLL_SECONDS = 3.0
SETTLE_SECONDS = 10.0
_LISTING_SHARE = 0.1  # of the time: an archive whose listing takes a minute is not listed without a pause

Plans = tuple[Plan, ...]
"""One per model, all with the same tasks."""

Look = Callable[[], Plans]
"""Lists the inputs; empty if there is no recording."""


@dataclass(frozen=True)
class Arrivals:
    """What one look found: the plans of all recordings that are there, and the tasks that are settled and new or changed."""

    plans: Plans
    tasks: tuple[Task, ...]


@dataclass
class _Seen:
    """A recording as it was last listed: since when it is unchanged, and whether it was handed over so."""

    fingerprint: str
    since: float
    handed: bool = False


def look_at(
    cards: Sequence[ModelCard], folder: str, output: str, parameters: ConversionParameters, *, apart: bool = False
) -> Look:
    """A function that lists a folder or prefix as `plan_conversions` does.

    Args:
        cards: the models.
        folder: the folder.
        output: OUTPUT.
        parameters: of the conversion.
        apart: one model has a folder below OUTPUT too.

    Raises:
        ConversionError: there is no such folder. By the function itself: OUTPUT is a file, inside of it or contains it.
        AudioError: the format does not support the parameters.
    """
    if not is_remote(folder) and not os.path.isdir(local_path(folder)):
        raise ConversionError("only a folder can be watched", where=folder, fix="give one folder or s3:// prefix that exists")
    check_format(parameters, where=output)

    def look() -> Plans:
        try:
            plans = tuple(plan_conversions(cards, [folder], output, parameters, apart=apart))
        except AudioError:
            return ()  # no recording matches: the other reason was checked above
        if plans[0].is_file:
            raise ConversionError("OUTPUT is one file, but a folder is watched", where=output, fix="give a folder as OUTPUT")
        return plans

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
    last: Plans = ()
    away = listed = False
    while True:
        began = clock()
        try:
            plans = look() or tuple(replace(plan, tasks=()) for plan in last)
            listed, away = True, False
        except StoreError as error:
            if not listed:
                raise
            if not away:
                say(f"{error.where}: {error.what}; trying again")
            plans, away = (), True
        pause = max(poll_seconds, (clock() - began) * (1 / _LISTING_SHARE - 1))
        if plans:
            last = plans
            gone = seen.keys() - {task.output for task in plans[0].tasks}
            for output in gone:
                del seen[output]
            tasks = tuple(task for task in plans[0].tasks if _is_due(seen, task, began, settle_seconds))
            if tasks or gone:
                yield Arrivals(plans, tasks)
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
    store: Store,
    arrivals: Iterable[Arrivals],
    converters: Mapping[int, Converter],
    *,
    chunk_seconds: float,
    say: Callable[[str], object] = lambda text: None,
    stopping: Callable[[], object] = lambda: None,
) -> tuple[Plans, tuple[ConversionRecord, ...]]:
    """Converts what arrives until KeyboardInterrupt, SIGTERM included, or until the arrivals end.

    A recording that is being converted then has no result, and is among the first of the next command.

    Args:
        store: the library's store.
        arrivals: from `follow`.
        converters: the models, by the positions of their plans.
        chunk_seconds: seconds of audio in a model at once.
        say: called with a line about each round of conversions and each failure.
        stopping: called once it was stopped, before the records are written.

    Returns:
        The plans of all recordings that the records are about, and the records, also stored. Converted recordings that are no
        longer there remain in them; failed ones do not.

    Raises:
        StoreError: OUTPUT or the store cannot be used.
        KeyboardInterrupt: nothing had arrived.
    """
    plans: Plans = ()
    tasks: dict[str, Task] = {}  # by source
    outcomes: dict[str, dict[str, Outcome]] = {}  # by source and conversion
    try:
        for each in arrivals:
            plans = each.plans
            present = {task.source.name for task in plans[0].tasks}
            for name in [name for name in outcomes if name not in present]:
                outcomes[name] = {key: o for key, o in outcomes[name].items() if o.item.state != "failed"}
            if not each.tasks:
                continue
            tasks |= {task.source.name: task for task in each.tasks}
            done: list[Outcome] = []
            now = [replace(plan, tasks=each.tasks) for plan in plans]
            job = begin(store, now, chunk_seconds=chunk_seconds, on_done=done.append)
            for outcome in _convert(job, converters, done, known=outcomes):
                outcomes.setdefault(outcome.item.source, {})[outcome.conversion] = outcome
                if outcome.item.state == "failed":
                    say(f"{outcome.item.source}: {outcome.item.reason}")
            say(_count([outcome for found in outcomes.values() for outcome in found.values()]))
    except KeyboardInterrupt:
        if not plans:
            raise
        stopping()
    kept = tuple(
        tasks[name] for name in sorted(tasks, key=lambda name: os.fsencode(tasks[name].source.place)) if outcomes.get(name)
    )
    plans = tuple(replace(plan, tasks=kept) for plan in plans)
    job = Job(store, plans, (), chunk_seconds, ())
    return plans, finish(job, (outcome for found in outcomes.values() for outcome in found.values()))


def _convert(
    job: Job, converters: Mapping[int, Converter], done: Sequence[Outcome], *, known: Mapping[str, Mapping[str, Outcome]]
) -> Iterator[Outcome]:
    """The outcomes of a job; one that was done before only where there was none, or a failed one, in this command."""
    for outcome in done:
        last = known.get(outcome.item.source, {}).get(outcome.conversion)
        if last is None or last.item.state == "failed":
            yield outcome
    yield from attempt_all(job, job.to_do, converters)


def _count(outcomes: Sequence[Outcome]) -> str:
    failed = sum(outcome.item.state == "failed" for outcome in outcomes)
    return f"{len(outcomes) - failed:,} converted, {failed:,} failed; waiting for recordings"
