"""Follows a job: what it prints until it trains, then the records of its runs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from rave_dist.errors import ClusterError, RaveDistError
from rave_dist.library.manifest import Library
from rave_dist.progress import Progress
from rave_dist.records import RunRecord
from rave_dist.training.heartbeat import READS_PER_SECOND, read_records

if TYPE_CHECKING:
    from rave_dist.cluster.jobs import Job

POLL_SECONDS = 2.0
PATIENCE_SECONDS = 120.0
"""How long the cluster or the store may be away before the job is no longer followed."""

_LAST_LINES = 40


class Jobs(Protocol):
    """The part of `rave_dist.cluster.jobs.Jobs` that following needs."""

    def job(self, identity: str) -> Job | None:
        """The state of a job; None if the cluster does not know it."""
        ...

    def log(self, identity: str) -> str:
        """What a job has printed."""
        ...


def follow(
    jobs: Jobs,
    identity: str,
    library: Library,
    only: list[str] | None,
    progress: Progress,
    *,
    poll_seconds: float = POLL_SECONDS,
    patience_seconds: float = PATIENCE_SECONDS,
) -> Job:
    """Reports the progress of a job until it ends; what it printed last is reported if it failed.

    Args:
        jobs: of the cluster.
        identity: of the job.
        library: that it runs.
        only: names of its instruments; None or an empty list means all.
        progress: receives lines and records.
        poll_seconds: interval; longer with many instruments.
        patience_seconds: time without an answer after which this ends.

    Raises:
        ClusterError: the connection to the cluster or the store is lost, and the job is not affected; or the job is lost.
    """
    base = library.base_spec(dataset="")
    names = [*([base.instrument] if base else []), *library.select(only)]
    progress.stage(f"the cluster runs the job {identity}")
    shown = 0
    trains = False
    answered = time.monotonic()
    while True:
        records: Sequence[RunRecord] = ()
        try:
            job = jobs.job(identity)
            if job is None:
                break
            records = read_records(library.store, library.name, names)
            trains = trains or any(record.state == "running" for record in records)
            if not trains or (job.ended and job.state != "succeeded"):
                lines = jobs.log(identity).split("\n")
                complete = len(lines) - (not job.ended)
                for line in lines[max(shown, complete - _LAST_LINES) if trains else shown : complete]:
                    if line.strip():
                        progress.say(line)
                shown = complete
            if job.ended:
                return job
            if trains:
                progress.runs(records)
            answered = time.monotonic()
        except RaveDistError as error:
            if time.monotonic() - answered >= patience_seconds:
                raise ClusterError(
                    f"no answer for {patience_seconds:.0f} s ({error.what}); the job {identity} continues without this command",
                    where=error.where,
                    fix="run the same command again to follow it",
                ) from error
        time.sleep(max(poll_seconds, len(records) / READS_PER_SECOND))
    raise ClusterError(
        f"the cluster no longer knows the job {identity}: its head was restarted",
        fix="run the same command again: a new job resumes from the results in the store",
    )
