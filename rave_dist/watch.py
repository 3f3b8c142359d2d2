"""The runs of a library, read again and again until they have ended; needs no Ray, and changes nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from rave_dist.errors import StoreError
from rave_dist.leases import library_holder
from rave_dist.library.manifest import Library
from rave_dist.records import LeaseRecord, RunRecord
from rave_dist.time_left import TimeLeft, library_time_left, spent

SILENT_SECONDS = 10.0
"""Seconds without a heartbeat after which a run is dead, by the clock of this process."""

_REQUESTS_FOR_THE_HOLDER = 3


@dataclass(frozen=True)
class Snapshot:
    """The runs of a library at one moment; ``problem`` says why the store could not be read again since."""

    library: str
    base: RunRecord | None
    records: tuple[RunRecord, ...]
    in_use: LeaseRecord | None
    problem: str = ""
    price: float | None = None

    @property
    def runs(self) -> tuple[RunRecord, ...]:
        """All records, that of the joint base first."""
        return self.records if self.base is None else (self.base, *self.records)

    @property
    def has_ended(self) -> bool:
        """Whether every run has ended, and the command that trained them too."""
        return self.in_use is None and all(record.state in ("done", "failed") for record in self.records)

    @property
    def time_left(self) -> TimeLeft | None:
        """The training time of all runs."""
        return library_time_left(self.runs)

    def to_json(self) -> dict[str, Any]:
        """The document of ``rave-dist status --watch``: that of ``status``, and why it is not newer."""
        return {
            "library": self.library,
            "instruments": [record.summary() for record in self.records],
            "base": self.base and self.base.summary(),
            "in_use": self.in_use and self.in_use.to_json(),
            "time_left": self.time_left and self.time_left.to_json(datetime.now(UTC)),
            **spent(self.runs, self.price),
            "problem": self.problem,
        }


def watch(
    library: Library,
    names: Sequence[str],
    *,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Snapshot]:
    """The runs of instruments, every two seconds until all have ended, or less often: at most 20 requests per second.

    A run that gave no sign of life for ten seconds while it was watched is not running. A store that does not answer is asked
    again.

    Raises:
        StoreError: the store cannot be read at the beginning.
    """
    from rave_dist.training.heartbeat import seconds_between_reads

    base = library.base_spec(dataset="")
    living = _Living(library, [*([] if base is None else [base.instrument]), *names], clock)
    interval = seconds_between_reads(len(living.names) + _REQUESTS_FOR_THE_HOLDER)
    snapshot: Snapshot | None = None
    while True:
        try:
            in_use = library_holder(library.store, library.name)
            runs = living.read(at_work=in_use is not None)
            first, rest = (None, runs) if base is None else (runs[0], runs[1:])
            snapshot = Snapshot(library.name, first, tuple(rest), in_use, price=library.manifest.price)
        except StoreError as error:
            if snapshot is None:
                raise
            snapshot = replace(snapshot, problem=f"the store does not answer: {error.what}")
        yield snapshot
        if snapshot.has_ended:
            return
        sleep(interval)


class _Living:
    """The records of runs, in which no dead one is running: the clocks of other machines are not asked."""

    def __init__(self, library: Library, names: Sequence[str], clock: Callable[[], float]) -> None:
        self.names = names
        self._clock = clock
        self._library = library
        self._heard: dict[str, tuple[str, float]] = {}  # the last heartbeat of each run, and when it was seen first

    def read(self, *, at_work: bool) -> list[RunRecord]:
        from rave_dist.training.heartbeat import at_rest, read_records, without_activity

        records = read_records(self._library.store, self._library.name, self.names)
        moment = self._clock()
        for record in records:
            if self._heard.get(record.instrument, ("", 0.0))[0] != record.updated_at:
                self._heard[record.instrument] = (record.updated_at, moment)
        if not at_work:
            return at_rest(records)
        silent = {name for name, (_, since) in self._heard.items() if moment - since > SILENT_SECONDS}
        return [without_activity(r) if r.state == "running" and r.instrument in silent else r for r in records]
