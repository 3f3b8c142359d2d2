"""Resolves files, folders, globs and prefixes of a store to a list of sources, and names whatever is not one."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rave_dist.audio.io.partial_copy import PartialCopy
from rave_dist.audio.io.patterns import Glob, has_wildcards
from rave_dist.audio.io.snapshot import changed
from rave_dist.audio.io.walk import Passed, Tally, judge_file, printable, recordings_below, why_not_audio
from rave_dist.errors import AudioError, MissingKeyError, from_os_error
from rave_dist.records.passed_over import PassedOver
from rave_dist.records.uploads import UploadedRecordings, split_uploads
from rave_dist.storage.backend import Entry
from rave_dist.storage.schemes import is_remote, local_path, split
from rave_dist.storage.store import Store
from rave_dist.suggest import nearest
from rave_dist.temporary import temporary_folder

MISSING_FIX = "fetch the missing files (git annex get, dvc pull, git lfs pull), or give your user access to them"

_NO_SUCH_PATH = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG)


@dataclass(frozen=True, slots=True)  # there may be a hundred thousand
class AudioSource:
    """One recording before it is opened.

    Attributes:
        uri: absolute path or address.
        bytes: its size.
        fingerprint: changes when the file does: size and modification time, or the store's tag.
        relative: its path below the folder, prefix or glob root that it was found by; the file name, if it was named directly.
        original: of an uploaded recording, its path on the machine that it comes from, which its fingerprint belongs to.
    """

    uri: str
    bytes: int
    fingerprint: str
    relative: str
    original: str = ""

    @property
    def place(self) -> str:
        """Where the recording is for its owner: its original path, or its uri."""
        return self.original or self.uri

    @property
    def name(self) -> str:
        r"""Its place as valid UTF-8; other bytes become ``\xNN``."""
        return printable(self.place)


@dataclass(frozen=True)
class Listing:
    """The recordings that patterns match, and what else is there.

    Attributes:
        sources: the recordings, in order of place, without duplicates.
        passed_over: files and folders that are not used, counted per reason and extension.
        notes: remarks about the patterns.
    """

    sources: tuple[AudioSource, ...]
    passed_over: tuple[PassedOver, ...] = ()
    notes: tuple[str, ...] = ()


def list_sources(patterns: Sequence[str]) -> list[AudioSource]:
    """The recordings of `find_sources` alone."""
    return list(find_sources(patterns).sources)


def find_sources(patterns: Sequence[str], listed: Callable[[int], object] = lambda count: None) -> Listing:
    """The recordings that patterns match.

    Folders, prefixes and globs pass over hidden files, files of the operating system and names that are not audio; a file
    that is named directly is always included.

    Args:
        patterns: files, folders (recursively), globs (``**`` for any depth), ``s3://bucket/prefix`` or another scheme's
            address, also with globs. A path that exists is not a glob. The address of `UploadedRecordings` means these.
        listed: called with the number of recordings that were found so far.

    Raises:
        AudioError: no recording matches a pattern.
        StoreError: a named folder or bucket that cannot be read; a folder below it is passed over with the reason.
    """
    found: dict[str, AudioSource] = {}
    passed_over = Tally()
    passed_over_elsewhere: list[PassedOver] = []
    seen: set[int] = set()
    notes: list[str] = []
    objects = {pattern: _object(pattern) for pattern in patterns if is_remote(pattern) and not split_uploads(pattern)}
    # Named files first, so that other patterns do not pass over them.
    for pattern in sorted(dict.fromkeys(patterns), key=lambda pattern: not (objects.get(pattern) or _is_file(pattern))):
        if (uploads := _uploads(pattern)) is not None:
            found |= {source.place: source for source in uploads.sources}
            passed_over_elsewhere += uploads.passed_over
            notes += uploads.notes
            continue
        matches = 0
        here = Tally()
        for each in _in_store(pattern, objects[pattern], notes) if is_remote(pattern) else _on_disk(pattern, notes):
            if isinstance(each, AudioSource):
                matches += 1
                found.setdefault(each.place, each)
                listed(len(found))
                continue
            here.add(each)
            if each.path not in found and (name := hash(each.path)) not in seen:
                seen.add(name)
                passed_over.add(each)
        if not matches:
            raise _nothing(pattern, here.entries(), notes)
    return Listing(
        sources=tuple(found[place] for place in sorted(found, key=os.fsencode)),
        passed_over=(*passed_over.entries(), *passed_over_elsewhere),
        notes=tuple(dict.fromkeys(notes)),
    )


def _is_file(pattern: str) -> bool:
    return not is_remote(pattern) and os.path.isfile(local_path(pattern))


def _object(address: str) -> Entry | None:
    """The object of this very name; None if there is none, so that the address is a prefix or a glob."""
    scheme, container, key = split(address)
    try:
        return Store(f"{scheme}://{container}").stat(key.strip("/")) if key.strip("/") else None
    except MissingKeyError:
        return None


def _uploads(pattern: str) -> Listing | None:
    """The listing that the address of `UploadedRecordings` means; None for any other pattern.

    Raises:
        AudioError: there is none, or it has no recording.
    """
    place = split_uploads(pattern)
    if place is None:
        return None
    store, key = Store(place[0]), place[1]
    try:
        uploads = UploadedRecordings.load(store, key)
    except MissingKeyError as error:
        raise AudioError("no recordings were uploaded", where=pattern, fix="run rave-dist submit again") from error
    if not uploads.recordings:
        raise _nothing(pattern, uploads.passed_over, uploads.notes)
    sources = (
        AudioSource(store.address(r.key), r.bytes, r.fingerprint, r.relative, original=r.source) for r in uploads.recordings
    )
    return Listing(tuple(sources), uploads.passed_over, uploads.notes)


def check_as_listed(source: AudioSource) -> None:
    """Checks that a source still has the fingerprint under which its result will be recorded.

    Raises:
        StoreError: it changed since it was listed, or cannot be read.
    """
    if source.original:  # stored by its content, so that it does not change
        return
    if is_remote(source.uri):
        scheme, container, key = split(source.uri)
        entry = Store(f"{scheme}://{container}").stat(key)
        now = f"{entry.bytes}-{entry.tag}"
    else:
        try:
            now = _fingerprint(os.stat(source.uri))
        except OSError as error:
            raise from_os_error(error, where=source.name) from error
    if now != source.fingerprint:
        raise changed(source.name)


def _nothing(pattern: str, passed_over: Sequence[PassedOver], notes: Sequence[str]) -> AudioError:
    what = "no recording matches"
    if passed_over:
        groups = (f"{entry.count} {entry.extension or 'without extension'}: {entry.reason}" for entry in passed_over)
        what += f"; passed over: {', '.join(groups)}"
    if any(entry.missing for entry in passed_over):
        fix = MISSING_FIX
    elif not passed_over and not is_remote(pattern) and not has_wildcards(pattern) and not os.path.lexists(local_path(pattern)):
        what, fix = f"{what}: there is no such file or folder", f"correct the path{_meant(local_path(pattern))}"
    elif about_sets := [note for note in notes if note.startswith(f"{printable(pattern)}: ")]:
        what, fix = f"{what}; {about_sets[0].partition(': ')[2]}", "write [[] for a [ that belongs to the name"
    elif "{" in pattern:
        fix = "braces are not wildcards: write one pattern for each name"
    else:
        fix = "correct the path, or put recordings there"
    return AudioError(what, where=printable(pattern), fix=fix)


def _meant(path: str) -> str:
    """What a path that does not exist may be meant to be: the nearest name in its last folder that exists."""
    if "\\" in path:
        return ": write / between folders"
    folder, name = os.path.split(path)
    while not os.path.isdir(folder):
        folder, name = os.path.split(folder)
    try:
        near = nearest(name, os.listdir(folder))
    except OSError:
        near = None
    return f": did you mean {printable(os.path.join(folder, near))}?" if near else ", or put recordings there"


def _note_sets(pattern: str, glob: Glob, notes: list[str]) -> None:
    """Points out brackets that were taken as wildcards."""
    if glob.sets:
        notes.append(
            f"{printable(pattern)}: {glob.sets[0]} stands for one of the characters in it, as no path has this very name"
        )


def _on_disk(pattern: str, notes: list[str]) -> Iterator[AudioSource | Passed]:
    path = local_path(pattern)
    try:
        if os.path.islink(path) or _exists(path):
            if os.path.isdir(path):
                yield from _below(path, None)
            else:
                yield _local(judge_file(path, None, None), root=os.path.dirname(path))  # whatever its name
        elif has_wildcards(path):
            glob = Glob.of(path, exists=os.path.lexists)
            _note_sets(pattern, glob, notes)
            if os.path.isdir(glob.root or "/"):
                yield from _below(glob.root or "/", glob)
    except OSError as error:
        raise from_os_error(error, where=printable(pattern)) from error


def _exists(path: str) -> bool:
    """Whether there is such a path.

    Raises:
        OSError: a folder of it cannot be read, so that this is not known.
    """
    try:
        os.stat(path)
    except ValueError:  # a NUL character
        return False
    except OSError as error:
        if error.errno in _NO_SUCH_PATH:
            return False
        raise
    return True


def _below(folder: str, glob: Glob | None) -> Iterator[AudioSource | Passed]:
    return (_local(found, root=folder) for found in recordings_below(folder, glob))


def _local(found: tuple[str, os.stat_result] | Passed, *, root: str) -> AudioSource | Passed:
    if isinstance(found, Passed):
        return found
    path, status = found
    return AudioSource(path, status.st_size, _fingerprint(status), os.path.relpath(path, root).replace(os.sep, "/"))


def _fingerprint(status: os.stat_result) -> str:
    return f"{status.st_size}-{status.st_mtime_ns}"


def _in_store(pattern: str, named: Entry | None, notes: list[str]) -> Iterator[AudioSource | Passed]:
    scheme, container, key = split(pattern)
    store = Store(f"{scheme}://{container}")
    key = key.strip("/")
    if named is not None:
        yield _remote(store, named, root=key.rpartition("/")[0])
        return
    root, glob = key, None
    if has_wildcards(key) and not _is_prefix(store, key):
        glob = Glob.of(key, exists=lambda prefix: _is_prefix(store, prefix))
        _note_sets(pattern, glob, notes)
        root = glob.root
    for entry in store.list(root):
        below = _relative(entry.key, root)
        if entry.key.endswith("/") or (glob is not None and not glob.matches(below)):
            continue
        reason = why_not_audio(below)
        yield _remote(store, entry, root=root) if reason is None else Passed(store.address(entry.key), reason)


def _is_prefix(store: Store, key: str) -> bool:
    return next(iter(store.list(key)), None) is not None


def _remote(store: Store, entry: Entry, *, root: str) -> AudioSource:
    return AudioSource(store.address(entry.key), entry.bytes, f"{entry.bytes}-{entry.tag}", _relative(entry.key, root))


def _relative(key: str, root: str) -> str:
    return key[len(root) :].lstrip("/") if root else key


@contextmanager
def local_copy(uri: str) -> Iterator[Path]:
    """A local path with a source's bytes: its own, or a temporary copy that exists while the context is open.

    Raises:
        StoreError: it does not exist or cannot be read.
    """
    if not is_remote(uri):
        yield Path(uri)
        return
    scheme, container, key = split(uri)
    with temporary_folder("recording") as folder:
        yield Store(f"{scheme}://{container}").download(key, Path(folder) / f"source{os.path.splitext(key)[1]}")


@contextmanager
def partial_copy(source: AudioSource) -> Iterator[Path | PartialCopy]:
    """As `local_copy`, but a copy has the bytes that are read from it, and no others; it exists while the context is open.

    Raises:
        StoreError: there is no room for it, or an uploaded recording is missing.
    """
    if not is_remote(source.uri):
        yield Path(source.uri)
        return
    scheme, container, key = split(source.uri)
    store = Store(f"{scheme}://{container}")
    # The fingerprint of an uploaded recording belongs to its original.
    entry = store.stat(key) if source.original else Entry(key, source.bytes, source.fingerprint.partition("-")[2])
    with temporary_folder("recording") as folder:
        path = os.path.join(folder, f"source{os.path.splitext(key)[1]}")
        with open(path, "w+b", buffering=0) as file:
            yield PartialCopy(store, entry, file, path)
