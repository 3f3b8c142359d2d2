"""Uploads local recordings to the library's store: each content once, and nothing that is there already.

A recording keeps its path and fingerprint in the instrument's `UploadedRecordings`, so that datasets, credit and pages name it
as they do on its own machine, and an ingest there does not read it again. The listing is written last; what an interrupted
upload has stored is skipped by the next one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from rave_dist.audio.io.sources import AudioSource, Listing, check_as_listed, find_sources
from rave_dist.audio.io.walk import Passed, Tally, printable
from rave_dist.errors import AudioError, StoreError, from_os_error
from rave_dist.identity import hash_file
from rave_dist.library.manifest import Library
from rave_dist.progress import SILENT, Progress
from rave_dist.records import UPLOADS, UploadedRecording, UploadedRecordings, uploads_key
from rave_dist.storage.schemes import is_remote
from rave_dist.storage.store import Store

_AT_ONCE = 4

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def upload_recordings(library: Library, names: Sequence[str], *, progress: Progress = SILENT) -> dict[str, tuple[str, ...]]:
    """Uploads the local recordings of instruments.

    A recording that cannot be read is noted in the listing. An instrument without recordings is reported and keeps its
    patterns, so that its job refuses it and trains the others.

    Args:
        library: with the store.
        names: of the instruments.
        progress: receives MiB.

    Returns:
        Sources for each instrument that a cluster can read.

    Raises:
        AudioError: no instrument has a recording.
        StoreError: the store cannot be used, or a recording changed while it was uploaded.
    """
    sources = {name: library.sources(name) for name in names}
    progress.stage("listing recordings")
    listings, problems = _list_all(sources, progress)
    if problems and len(problems) == len(names):
        raise problems[0]
    store = library.store
    progress.stage("reading recordings")
    total, done = sum(source.bytes for listing in listings.values() for source in listing.sources), 0
    hashed: dict[str, tuple[AudioSource, UploadedRecording]] = {}  # by key: contents that occur twice are uploaded once
    uploads: dict[str, UploadedRecordings] = {}
    for name, listing in listings.items():
        recordings: list[UploadedRecording] = []
        unreadable = Tally()
        for source, outcome in _each(_Hashing(store, library.name, name), listing.sources):
            if isinstance(outcome, UploadedRecording):
                recordings.append(outcome)
                hashed[outcome.key] = (source, outcome)
            else:
                unreadable.add(outcome)
            done += source.bytes
            progress.advance(_mib(done), _mib(total), "MiB")
        passed_over = (*listing.passed_over, *unreadable.entries())
        uploads[name] = UploadedRecordings(recordings=tuple(recordings), passed_over=passed_over, notes=listing.notes)
    _store_missing(store, hashed, progress)
    for name, listed in uploads.items():
        key = uploads_key(library.name, name)
        listed.save(store, key)
        remote = [source for source in sources[name] if is_remote(source)]
        sources[name] = (*remote, store.address(key))
    return sources


def _list_all(
    sources: dict[str, tuple[str, ...]], progress: Progress
) -> tuple[dict[str, Listing], list[AudioError | StoreError]]:
    """The local recordings of each instrument that has some, and what is wrong with the others."""
    listings: dict[str, Listing] = {}
    problems: list[AudioError | StoreError] = []
    for name, patterns in sources.items():
        local = [pattern for pattern in patterns if not is_remote(pattern)]
        try:
            if local:
                listings[name] = find_sources(local)
        except (AudioError, StoreError) as error:
            problems.append(error)
            progress.say(f"{name}: {error.what}: {error.where}")
    return listings, problems


class _Hashing:
    """Hashes the recordings of an instrument, except those that have not changed since the last upload."""

    def __init__(self, store: Store, library: str, instrument: str) -> None:
        before = UploadedRecordings.find(store, uploads_key(library, instrument))
        self._known = {(r.source, r.fingerprint): r.sha256 for r in (before.recordings if before else ())}

    def __call__(self, source: AudioSource) -> UploadedRecording | Passed:
        """A recording with its hash, or the reason why it cannot be read."""
        try:
            sha256 = self._known.get((source.name, source.fingerprint)) or hash_file(source.uri)
            check_as_listed(source)
        except OSError as error:
            reason = error if isinstance(error, StoreError) else from_os_error(error, where=source.name)
            return Passed(source.uri, f"a file that cannot be read: {reason.what}", missing=True)
        return UploadedRecording(
            source=source.name,
            fingerprint=source.fingerprint,
            bytes=source.bytes,
            relative=printable(source.relative),
            sha256=sha256,
        )


def _store_missing(store: Store, hashed: dict[str, tuple[AudioSource, UploadedRecording]], progress: Progress) -> None:
    """Uploads what is not in the store."""
    present = {entry.key: entry.bytes for entry in store.list(UPLOADS)}
    missing = [(source, r.key) for source, r in hashed.values() if present.get(r.key) != r.bytes]
    if not missing:
        return
    progress.stage("uploading recordings")
    total, done = sum(source.bytes for source, _ in missing), 0
    for (source, _), _ in _each(lambda item: _store(store, *item), missing):
        done += source.bytes
        progress.advance(_mib(done), _mib(total), "MiB")


def _store(store: Store, source: AudioSource, key: str) -> None:
    store.upload(Path(source.uri), key)
    try:
        check_as_listed(source)
    except StoreError:
        store.delete(key)  # its name is not the hash of its bytes
        raise


def _each(function: Callable[[_Item], _Result], items: Iterable[_Item]) -> Iterator[tuple[_Item, _Result]]:
    """Calls a function with each item in a few threads; yields items with results, in order."""
    items = tuple(items)
    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="upload") as pool:
        yield from zip(items, pool.map(function, items), strict=True)


def _mib(size: int) -> int:
    return -(-size // 2**20)
