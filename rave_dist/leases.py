"""Leases: one command at a time changes a library.

::

    leases/libraries/<library>/<number>.json    `rave_dist.records.LeaseRecord`
    leases/store/<number>.json                  of a command that changes the whole store

The file with the highest number is the lease; only one process can create it. It is free if its holder released it or is dead:
on the same machine if its process no longer exists, on another if it was silent for `SILENT_SECONDS` and did not renew it
while it was watched, because the clocks of two machines may differ. A lease that was cut when its holder died is watched too.
A holder that was suspended for so long notices that its lease was taken over, and stops.
"""

from __future__ import annotations

import getpass
import logging
import os
import re
import signal
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType

from rave_dist.errors import DamagedObjectError, InUseError, MissingKeyError, StoreError
from rave_dist.identity import canonical_json
from rave_dist.records import STORE_LEASE, LeaseRecord, library_lease, now
from rave_dist.storage.store import Store

BEAT_SECONDS = 10.0
SILENT_SECONDS = 120.0
"""Age in seconds of the last sign of life at which a holder on another machine may be dead."""

_WATCHED_BEATS = 3
_NUMBER = re.compile(r"/(\d+)\.json$")

_LONG_AGO = "1970-01-01T00:00:00+00:00"
_CUT = LeaseRecord(command="", user="", host="", machine="", process=0, started="", since=_LONG_AGO, beat=_LONG_AGO)
"""Stands for a lease that cannot be read: its holder died while it wrote it, or will write it again."""

_held: set[str] = set()  # the tokens of the leases that this process holds

logger = logging.getLogger(__name__)


def library_holder(store: Store, library: str) -> LeaseRecord | None:
    """The command that is at work on a library; None if there is none, or none that gave a sign of life.

    Raises:
        StoreError: the store cannot be read.
    """
    return _holder(store, library_lease(library))


@contextmanager
def hold_library(store: Store, library: str, command: str, *, say: Callable[[str], None] = lambda text: None) -> Iterator[None]:
    """Holds a library's lease in a context.

    Args:
        store: of the library.
        library: its name.
        command: the name of the command, for other commands.
        say: called with a line when a dead holder's lease is examined and taken over.

    Raises:
        InUseError: another command is at work on the library or the whole store, or took the lease over.
        StoreError: the store cannot be used.
    """
    with _Lease(store, library_lease(library), command, f"the library {library}", say):
        # After the own lease is taken: of two commands at least one sees the other.
        _, holder = _examine(store, STORE_LEASE, say)
        if holder is not None:
            raise _in_use(store, "this store", holder)
        yield


@contextmanager
def hold_store(store: Store, command: str, *, say: Callable[[str], None] = lambda text: None) -> Iterator[None]:
    """Holds the lease of a whole store in a context, while no command is at work on any of its libraries.

    Raises:
        InUseError: a command is at work.
        StoreError: the store cannot be used.
    """
    with _Lease(store, STORE_LEASE, command, "this store", say):
        leases = library_lease("").rstrip("/")
        for library in sorted({entry.key.removeprefix(f"{leases}/").partition("/")[0] for entry in store.list(leases)}):
            _, holder = _examine(store, library_lease(library), say)
            if holder is not None:
                raise _in_use(store, f"the library {library}", holder)
        yield


def _in_use(store: Store, what: str, holder: LeaseRecord) -> InUseError:
    stop = f"kill {holder.process}" if holder.machine == _machine() else f"kill {holder.process} on {holder.host}"
    return InUseError(
        f"{what} is in use by {holder}",
        where=store.uri,
        fix=f"wait until it ends (rave-dist status shows its progress), or stop it: {stop}",
    )


def _holder(store: Store, folder: str) -> LeaseRecord | None:
    _, record = _last(store, folder)
    if record is None or _is_over(record) or (not _is_here(record) and _silent(record)):
        return None
    return record


def _examine(store: Store, folder: str, say: Callable[[str], None]) -> tuple[int, LeaseRecord | None]:
    """The highest number of a lease so far, and its holder; None if it is free. A silent holder is watched."""
    number, record = _last(store, folder)
    if record is None or _is_over(record):
        return number, None
    if _is_here(record) or not _silent(record) or _renews(store, folder, number, record, say):
        return number, record
    say("it gave no sign of life: its lease is taken over")
    return number, None


def _renews(store: Store, folder: str, number: int, record: LeaseRecord, say: Callable[[str], None]) -> bool:
    """Whether a silent holder gives a sign of life while it is watched."""
    who = f"{record}, the last one was at {record.beat}" if record.command else "a command whose lease is damaged"
    say(f"waiting for a sign of life of {who}")
    until = time.monotonic() + _WATCHED_BEATS * BEAT_SECONDS
    while time.monotonic() < until:
        time.sleep(BEAT_SECONDS / 10)
        last = _last(store, folder)
        if last != (number, record):
            return last[1] is not None and not _is_over(last[1])
    return False


def _last(store: Store, folder: str) -> tuple[int, LeaseRecord | None]:
    """The highest number of a lease so far, and its record; 0 and None if there is none."""
    while True:
        found = (_NUMBER.search(entry.key) for entry in store.list(folder))
        number = max((int(match[1]) for match in found if match), default=0)
        while store.exists(_key(folder, number + 1)):  # a listing may be late
            number += 1
        if not number:
            return 0, None
        try:
            return number, LeaseRecord.load(store, _key(folder, number))
        except MissingKeyError:
            continue  # removed by the next holder since
        except DamagedObjectError:
            return number, _CUT


def _key(folder: str, number: int) -> str:
    return f"{folder}/{number:08d}.json"


def _is_here(record: LeaseRecord) -> bool:
    """Whether the holder runs on this system, so that its process can be seen."""
    return bool(record.machine) and record.machine == _machine()


def _is_over(record: LeaseRecord) -> bool:
    """Whether a lease was released, or its process on this machine no longer exists."""
    return record.released or (_is_here(record) and _has_ended(record))


def _silent(record: LeaseRecord) -> bool:
    """Whether the last sign of life is old, or in the future, by this machine's clock."""
    age = (datetime.now(UTC) - datetime.fromisoformat(record.beat)).total_seconds()
    return abs(age) > SILENT_SECONDS


def _machine() -> str:
    """An identity of the running system, within which process numbers are unique; empty where it is unknown."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _started(process: int) -> str:
    """When a process of this machine started, in ticks since the start of the system; empty if it has ended.

    Raises:
        OSError: there is no such process, or the system hides it.
    """
    state, *fields = Path(f"/proc/{process}/stat").read_bytes().rpartition(b")")[2].split()
    return "" if state in (b"Z", b"X") else fields[18].decode()


def _has_ended(record: LeaseRecord) -> bool:
    """Whether the process of a holder on this machine no longer exists; its number may belong to another one since."""
    if record.process == os.getpid() and record.token not in _held:
        return True  # this process could not release it, because the store was away
    try:
        return _started(record.process) != record.started
    except OSError:
        try:
            os.kill(record.process, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            return False  # a process of another user, on a system that hides them
        return False


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):  # no entry in the system's list of users
        return ""


class _Lease:
    """A lease while it is held; a context manager."""

    def __init__(self, store: Store, folder: str, command: str, what: str, say: Callable[[str], None]) -> None:
        self._store, self._folder, self._what, self._say = store, folder, what, say
        machine, process = _machine(), os.getpid()
        started = _started(process) if machine else ""
        self._record = LeaseRecord(
            command=command,
            user=_user(),
            host=socket.gethostname(),
            machine=machine,
            process=process,
            started=started,
            token=uuid.uuid4().hex,
        )
        self._number = 0
        self._ended, self._lost = threading.Event(), threading.Event()
        self._in_main_thread = threading.current_thread() is threading.main_thread()
        self._thread = threading.Thread(target=self._beat, name="lease", daemon=True)

    def __enter__(self) -> _Lease:
        _held.add(self._record.token)
        try:
            while not self._number:
                self._take()
            for entry in list(self._store.list(self._folder)):
                match = _NUMBER.search(entry.key)
                if match and int(match[1]) < self._number:
                    self._store.delete(entry.key)
            self._thread.start()
        except BaseException:
            self._release()
            raise
        return self

    def _take(self) -> None:
        """Takes the lease if it is free; it may have to be repeated."""
        number, holder = _examine(self._store, self._folder, self._say)
        if holder is not None:
            raise _in_use(self._store, self._what, holder)
        number += 1
        data = canonical_json(self._record.model_copy(update={"since": now(), "beat": now()}).to_json()) + b"\n"
        if not self._store.claim(_key(self._folder, number), data):
            return
        if _last(self._store, self._folder)[0] == number:  # otherwise another was faster, and has ended since
            self._number = number
        else:
            self._store.delete(_key(self._folder, number))

    def _beat(self) -> None:
        while not self._ended.wait(BEAT_SECONDS):
            with suppress(StoreError):  # a store that is away for a moment stops nothing
                if self._store.exists(_key(self._folder, self._number + 1)):
                    self._lost.set()
                    logger.error("the lease of %s was taken over by another command", self._what)
                    if self._in_main_thread:
                        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
                    return
                self._write()

    def _write(self, *, released: bool = False) -> None:
        self._record = self._record.model_copy(update={"beat": now(), "released": released})
        self._record.save(self._store, _key(self._folder, self._number))

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._ended.set()
        self._thread.join()
        if self._lost.is_set():
            _held.discard(self._record.token)
            raise InUseError(
                f"another command took over {self._what}, because this one gave no sign of life for {SILENT_SECONDS:.0f} s",
                where=self._store.uri,
                fix="rave-dist status shows who is at work; run the same command again when it has ended",
            ) from error
        self._release()

    def _release(self) -> None:
        _held.discard(self._record.token)
        if self._number:
            with suppress(StoreError):  # without its process it is free anyway
                self._write(released=True)
