"""The heartbeat of runs: a record that is rewritten every few seconds; independent of Ray."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from types import TracebackType
from typing import Any

from rave_dist.errors import MissingKeyError, StoreError
from rave_dist.records import RunRecord, RunResult, TrainingSpec, now, run_record_key
from rave_dist.signals import keeping_sigterm
from rave_dist.storage.parallel import at_once
from rave_dist.storage.store import Store

HEARTBEAT_SECONDS = 3.0
READS_PER_SECOND = 20
"""Maximum reads of records from a store by a process that follows runs, however many runs there are."""

SILENT_SECONDS = 120.0
"""Age in seconds at which a running record belongs to a run that has ended."""

_PROGRESS = ("phase", "step", "steps", "phase_1_steps", "validation", "train_distance", "rollbacks", "seconds")
"""Fields of a record that the result of its run has too."""

logger = logging.getLogger(__name__)


def read_record(store: Store, library: str, instrument: str) -> RunRecord | None:
    """An instrument's current record; a running one that is no longer rewritten is returned as waiting."""
    record = RunRecord.find(store, run_record_key(library, instrument))
    if record is None:
        return None
    if record.state == "running" and seconds_since(record.updated_at) > SILENT_SECONDS:
        return without_activity(record)
    return record


def without_activity(record: RunRecord) -> RunRecord:
    """The record of a run that no process works on any more."""
    return record.model_copy(update={"state": "waiting", "activity": None, "steps_per_second": None, "waits_for": ""})


def at_rest(records: Iterable[RunRecord]) -> list[RunRecord]:
    """The records of a library that no command is at work on: no run is at work or waits for anything, whatever they say."""

    def is_at_work(record: RunRecord) -> bool:
        waits = record.state == "waiting" and record.waits_for != ""
        return waits or record.activity is not None or record.state == "running"

    return [without_activity(record) if is_at_work(record) else record for record in records]


def seconds_between_reads(count: int) -> float:
    """The interval at which ``count`` records may be read repeatedly."""
    return max(2.0, count / READS_PER_SECOND)


def read_records(store: Store, library: str, instruments: Sequence[str]) -> list[RunRecord]:
    """A record for each instrument, in the given order; an instrument without a run is waiting.

    Raises:
        StoreError: the store cannot be read.
    """
    found = at_once(lambda name: read_record(store, library, name), instruments)
    return [
        record or RunRecord(library=library, instrument=name, run_id="", dataset="")
        for name, record in zip(instruments, found, strict=True)
    ]


def read_live_records(
    store: Store, library: str, instruments: Sequence[str], *, quiet_seconds: float = 8.0, watch_seconds: float = 6.0
) -> list[RunRecord]:
    """The records, in which no run is running that has died: a silent one is watched for two heartbeats.

    Watched rather than judged by the age of its record, because the clocks of two machines may differ.

    Args:
        store: of the records.
        library: its name.
        instruments: their names.
        quiet_seconds: age of a record in seconds from which on a run is watched.
        watch_seconds: how long to wait for a sign of life.

    Raises:
        StoreError: the store cannot be read.
    """
    records = read_records(store, library, instruments)
    suspects = {
        record.instrument: record.updated_at
        for record in records
        if record.state == "running" and abs(seconds_since(record.updated_at)) > quiet_seconds
    }
    until = time.monotonic() + watch_seconds
    while suspects and time.monotonic() < until:
        time.sleep(max(min(1.0, watch_seconds / 10), len(suspects) / READS_PER_SECOND))
        newer = {record.instrument: record for record in read_records(store, library, list(suspects))}
        records = [newer.get(record.instrument, record) for record in records]
        suspects = {name: at for name, at in suspects.items() if newer[name].updated_at == at}
    return [without_activity(record) if record.instrument in suspects else record for record in records]


def write_record(store: Store, record: RunRecord) -> RunRecord:
    """Stores an instrument's record with the current time."""
    record = record.model_copy(update={"updated_at": now()})
    record.save(store, record.key)
    return record


def record_of(store: Store, spec: TrainingSpec) -> RunRecord:
    """A run's record: that in the store if it belongs to this run, otherwise that of its result or of a new run."""
    record = read_record(store, spec.library, spec.instrument)
    if record is not None and record.run_id == spec.run_id:
        return record.model_copy(update={"budget": spec.budget})
    record = RunRecord(
        library=spec.library,
        instrument=spec.instrument,
        run_id=spec.run_id,
        dataset=spec.dataset,
        step=spec.continues.step if spec.continues else 0,
        steps=spec.budget.steps or 0,
        budget=spec.budget,
    )
    result = RunResult.find(store, spec.folder.result)
    if result is None:
        return record
    return record.model_copy(update={name: getattr(result, name) for name in _PROGRESS})


def seconds_since(moment: str) -> float:
    """Seconds since an ISO 8601 time; negative if it is in the future."""
    return (datetime.now(UTC) - datetime.fromisoformat(moment)).total_seconds()


def stop_key(spec: TrainingSpec) -> str:
    """Key of the object that asks a run to save its state and stop."""
    return spec.folder.stop


def disown(store: Store, spec: TrainingSpec, record: RunRecord) -> None:
    """Asks only the last process of a run to stop: it may live on where its command and its cluster cannot see it.

    Raises:
        StoreError: the store cannot be written.
    """
    store.write_bytes(stop_key(spec), (record.attempt or "none").encode())


def stop_through_store(store: Store, specs: Sequence[TrainingSpec], *, seconds: float = 15.0) -> None:
    """Asks runs on a cluster that is out of reach to save their state and stop, and waits until they have.

    The requests stay: a process that is late stops too. The next command on the library removes them.

    Args:
        store: of the runs.
        specs: the runs.
        seconds: the longest time to wait.
    """
    until, waiting = time.monotonic() + seconds, list(specs)
    with suppress(StoreError):
        at_once(lambda spec: store.write_bytes(stop_key(spec), b""), waiting)
    while waiting and (left := until - time.monotonic()) > 0:
        time.sleep(min(left, seconds_between_reads(len(waiting))))
        with suppress(StoreError):
            records = at_once(partial(record_of, store), waiting)
            waiting = [spec for spec, record in zip(waiting, records, strict=True) if record.state == "running"]


_termination = threading.Event()


def termination_requested() -> bool:
    """Whether SIGTERM was received, so that this process must save its state and end."""
    return _termination.is_set()


@contextmanager
def sigterm_as_flag() -> Iterator[None]:
    """Makes SIGTERM set the flag of `termination_requested` within the context; no effect outside the main thread."""
    with keeping_sigterm() as handled_here:
        if handled_here:
            _termination.clear()
            signal.signal(signal.SIGTERM, lambda number, frame: _termination.set())
        yield


class Heartbeat:
    """Rewrites a run's record every few seconds from a thread, and checks whether the run is to stop.

    Temporary errors of the store do not stop a run.

    Args:
        store: of the record.
        record: the present record.
        stop: key of the object that asks the run to stop, or None; its content is the attempt that is asked, or nothing.
        every: seconds between two writes.
        measure: measures fields of the record for each write.
    """

    def __init__(
        self,
        store: Store,
        record: RunRecord,
        *,
        stop: str | None = None,
        every: float = HEARTBEAT_SECONDS,
        measure: Callable[[], Mapping[str, Any]] = dict,
    ) -> None:
        self._store = store
        self._record = record
        self._stop_key = stop
        self._every = every
        self._measure = measure
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    @property
    def record(self) -> RunRecord:
        """The present record."""
        with self._lock:
            return self._record

    @property
    def stop_requested(self) -> bool:
        """Whether the run must save its state and stop."""
        return self._stop.is_set()

    def update(self, **fields: Any) -> None:
        """Changes fields of the record, which is stored with the next beat."""
        with self._lock:
            self._record = self._record.model_copy(update=fields)

    def __enter__(self) -> Heartbeat:
        self._write()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._ended.set()
        self._thread.join(timeout=60)
        self._write()

    def _beat(self) -> None:
        while not self._ended.wait(self._every):
            self._write()

    def _is_asked_to_stop(self, key: str) -> bool:
        try:
            return self._store.read_bytes(key).decode() in ("", self.record.attempt)
        except MissingKeyError:
            return False

    def _write(self) -> None:
        try:
            written = write_record(self._store, self.record.model_copy(update=dict(self._measure())))
            with self._lock:
                self._record = self._record.model_copy(update={"updated_at": written.updated_at})
            if self._stop_key is not None and self._is_asked_to_stop(self._stop_key):
                self._stop.set()
        except StoreError as error:
            logger.warning("the run's record could not be written: %s", error.what)


class Speed:
    """Steps per second over the last seconds.

    Args:
        span: seconds to average over.
        clock: returns the time in seconds.
    """

    def __init__(self, span: float = 20.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._span = span
        self._clock = clock
        self._marks: list[tuple[float, int]] = []

    def update(self, step: int) -> float | None:
        """Records the number of finished steps; returns steps per second, or None while unknown."""
        moment = self._clock()
        self._marks.append((moment, step))
        while len(self._marks) > 2 and moment - self._marks[1][0] > self._span:
            self._marks.pop(0)
        (start, first), (end, last) = self._marks[0], self._marks[-1]
        return (last - first) / (end - start) if end > start else None
