"""Verifies a store: its records can be read, the files that they name exist with the right sizes, and on request their bytes.

The store may be in use: what changes during the verification is looked at again before it is called a problem.
"""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from rave_dist.audio.io.sources import local_copy
from rave_dist.errors import ConfigurationError, DamagedObjectError, MissingKeyError, StoreError
from rave_dist.identity import hash_file
from rave_dist.maintenance.references import Kind, Reference, kind_of
from rave_dist.progress import SILENT, Progress
from rave_dist.records import Problem
from rave_dist.storage.backend import Entry
from rave_dist.storage.store import Store

_THREADS = 16
_PART = re.compile(r"([1-9]\d*)/([1-9]\d*)")


@dataclass(frozen=True)
class Part:
    """The n-th of t parts of a store's files, divided by their keys; all parts together are all files."""

    number: int
    of: int

    @staticmethod
    def parse(text: str) -> Part:
        """A part from ``n/t``.

        Raises:
            ConfigurationError: it is not one.
        """
        match = _PART.fullmatch(text)
        if match is None or int(match[1]) > int(match[2]):
            raise ConfigurationError(
                f"{text!r} is not a part of the store's files", where="--read-data", fix="write n/t, for example 1/4 to 4/4"
            )
        return Part(int(match[1]), int(match[2]))

    def has(self, key: str) -> bool:
        """Whether a file belongs to this part."""
        return zlib.crc32(key.encode()) % self.of == self.number - 1


@dataclass(frozen=True)
class Verification:
    """What was verified, and the problems by key.

    Attributes:
        store: address of the store.
        records: number of records.
        files: number of files that they name.
        files_read: number of these that were read completely.
        bytes_read: their bytes.
        problems: by key of the record or file.
    """

    store: str
    records: int
    files: int
    files_read: int
    bytes_read: int
    problems: dict[str, Problem]

    @property
    def ok(self) -> bool:
        """Whether there is no problem."""
        return not self.problems

    def to_json(self) -> dict[str, Any]:
        """The document of ``rave-dist verify``."""
        counts = {name: getattr(self, name) for name in ("store", "records", "files", "files_read", "bytes_read")}
        problems = [{"key": key, **problem.to_json()} for key, problem in sorted(self.problems.items())]
        return {**counts, "ok": self.ok, "problems": problems}


def verify(store: Store, *, part: Part | None = None, progress: Progress = SILENT) -> Verification:
    """Verifies the structure of a store, and with ``part`` also the bytes of its files.

    Structure: every record can be read, the record that marks a set of files as complete has all of them, sizes are as
    recorded, and archives have their directory, which stands at their end. Bytes: sha256 of shards, checkpoints and published
    models, checksums of weights. Sets without a marker are not problems: they are ignored, and written again when they are
    needed.

    Args:
        store: the store; only read.
        part: the files to read; None reads only records.
        progress: receives the number of finished records and files.

    Raises:
        StoreError: the store cannot be read, or nothing in it is of rave-dist.
    """
    progress.stage("verifying records")
    entries = {entry.key: entry for entry in store.list()}
    kinds = [(key, kind) for key in entries if (kind := kind_of(key)) is not None]
    if not kinds:
        raise StoreError("nothing of rave-dist is stored here", where=store.uri, fix="check the address of the store")
    problems: dict[str, Problem] = {}
    references: dict[str, Reference] = {}
    read = _concurrently(lambda each: _read_record(store, *each), kinds)
    for (key, _), (found, problem) in zip(kinds, _counted(read, len(kinds), "records", progress), strict=True):
        if problem is not None:
            problems[key] = problem
        for reference in found:
            references.setdefault(reference.key, reference)
    for reference in references.values():
        problem = _examine(store, reference, entries.get(reference.key))
        if problem is not None:
            problems.setdefault(reference.key, problem)
    chosen = [r for r in references.values() if part is not None and part.has(r.key) and (r.sha256 or r.is_archive)]
    chosen = [r for r in chosen if r.key not in problems]
    archives = [r for r in references.values() if r.is_archive and r not in chosen and r.key not in problems]
    problems |= _problems(archives, _concurrently(lambda each: _read_directory(store, each), archives))
    if part is not None:
        progress.stage("verifying files")
        problems |= _problems(chosen, _counted((_read_file(store, r) for r in chosen), len(chosen), "files", progress))
    size = sum(entries[r.key].bytes for r in chosen if r.key in entries)
    return Verification(store.uri, len(kinds), len(references), len(chosen), size, problems)


def _read_record(store: Store, key: str, kind: Kind) -> tuple[Sequence[Reference], Problem | None]:
    try:
        if kind.type is None:
            store.read_json(key)
            return (), None
        return tuple(kind.references(key, kind.type.load(store, key))), None
    except MissingKeyError:
        return (), None  # removed since it was listed
    except DamagedObjectError as error:
        return (), Problem(what=error.what, fix=kind.fix)


def _examine(store: Store, reference: Reference, entry: Entry | None) -> Problem | None:
    """The problem of a file by its entry; it is looked up again if there seems to be one."""
    problem = _difference(reference, entry)
    if problem is None:
        return None
    problem = _difference(reference, _entry(store, reference.key))
    return problem if store.exists(reference.owner) else None


def _difference(reference: Reference, entry: Entry | None) -> Problem | None:
    if entry is None:
        fix = reference.fix.removeprefix("delete it and ")
        return Problem(what=f"it is missing, and {reference.owner} names it", fix=fix)
    if reference.bytes is not None and entry.bytes != reference.bytes:
        return Problem(what=f"it has {entry.bytes:,} bytes instead of {reference.bytes:,}", fix=reference.fix)
    if entry.bytes == 0:
        return Problem(what="it is empty", fix=reference.fix)
    return None


def _entry(store: Store, key: str) -> Entry | None:
    try:
        return store.stat(key)
    except MissingKeyError:
        return None


def _problems(references: Sequence[Reference], found: Iterable[Problem | None]) -> dict[str, Problem]:
    return {r.key: problem for r, problem in zip(references, found, strict=True) if problem is not None}


def _read_directory(store: Store, reference: Reference) -> Problem | None:
    try:
        with store.open(reference.key) as file, zipfile.ZipFile(file):
            return None
    except zipfile.BadZipFile as error:
        return Problem(what=f"its content is damaged: {error}", fix=reference.fix)
    except (MissingKeyError, FileNotFoundError):
        return _examine(store, reference, None)


def _read_file(store: Store, reference: Reference) -> Problem | None:
    try:
        with local_copy(store.address(reference.key)) as path:
            if reference.sha256 and not hash_file(path).startswith(reference.sha256):
                return Problem(what="its content has changed: its sha256 is not the recorded one", fix=reference.fix)
            if reference.is_archive:
                with zipfile.ZipFile(path) as archive:
                    damaged = archive.testzip()
                if damaged is not None:
                    return Problem(what=f"its content is damaged: {damaged} has another checksum", fix=reference.fix)
    except zipfile.BadZipFile as error:
        return Problem(what=f"its content is damaged: {error}", fix=reference.fix)
    except (MissingKeyError, FileNotFoundError):
        return _examine(store, reference, None)
    return None


def _concurrently(work: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[Any]:
    with ThreadPoolExecutor(_THREADS) as pool:
        yield from pool.map(work, items)


def _counted(results: Iterable[Any], total: int, unit: str, progress: Progress) -> Iterator[Any]:
    for done, result in enumerate(results):
        progress.advance(done, total, unit)
        yield result
    progress.advance(total, total, unit)
