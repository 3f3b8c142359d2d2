"""Resolves files, folders, globs and prefixes of a store to a list of sources."""

from __future__ import annotations

import glob
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from rave_dist.audio.io.decoders import decoder_for, is_builtin
from rave_dist.audio.io.snapshot import changed
from rave_dist.errors import AudioError, from_os_error
from rave_dist.storage.backend import Entry
from rave_dist.storage.schemes import is_remote, local_path, split
from rave_dist.storage.store import Store

_MAGIC = re.compile(r"[*?[]")


@dataclass(frozen=True)
class AudioSource:
    """One recording before it is opened.

    Attributes:
        uri: absolute path or address.
        bytes: its size.
        fingerprint: changes when the file does: size and modification time, or the store's tag.
        relative: its path below the folder, prefix or glob root that it was found by; the file name, if it was named directly.
    """

    uri: str
    bytes: int
    fingerprint: str
    relative: str

    @property
    def name(self) -> str:
        r"""The uri as valid UTF-8; other bytes become ``\xNN``."""
        return self.uri.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def list_sources(patterns: Sequence[str]) -> list[AudioSource]:
    """The recordings that patterns match, in order of uri, without duplicates.

    Folders, prefixes and globs skip hidden files and names that are not audio; a file that is named directly is always
    included.

    Args:
        patterns: files, folders (recursively), globs (``**`` for any depth), ``s3://bucket/prefix`` or another scheme's
            address, also with globs.

    Raises:
        AudioError: no recording matches a pattern.
        StoreError: a folder or bucket that cannot be read.
    """
    found: dict[str, AudioSource] = {}
    for pattern in patterns:
        matches = list(_in_store(pattern) if is_remote(pattern) else _on_disk(pattern))
        if not matches:
            raise AudioError("no recording matches", where=pattern, fix="correct the path, or put recordings there")
        for source in matches:
            found.setdefault(source.uri, source)
    return [found[uri] for uri in sorted(found, key=os.fsencode)]


def check_as_listed(source: AudioSource) -> None:
    """Checks that a source still has the fingerprint under which its result will be recorded.

    Raises:
        StoreError: it changed since it was listed, or cannot be read.
    """
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


def is_audio_name(path: str) -> bool:
    """Whether a relative path looks like a recording: an audio extension, and no part of it hidden."""
    if any(part.startswith(".") for part in path.split("/")):
        return False
    return is_builtin(PurePosixPath(path)) or decoder_for(PurePosixPath(path)) is not None


def _on_disk(pattern: str) -> Iterator[AudioSource]:
    path = local_path(pattern)
    try:
        if os.path.isdir(path):
            yield from (_local(file, root=path) for file in _walk(path))
        elif os.path.exists(path):
            yield _local(path, root=os.path.dirname(path))
        elif _MAGIC.search(pattern):
            root = _glob_root(path)
            for match in glob.iglob(path, recursive=True):
                if os.path.isfile(match) and is_audio_name(os.path.relpath(match, root)):
                    yield _local(match, root=root)
    except OSError as error:
        raise from_os_error(error, where=pattern) from error


def _walk(folder: str) -> Iterator[str]:
    """All recordings below a folder, linked folders included, without duplicates."""
    entered: set[tuple[int, int]] = set()
    for place, folders, files in os.walk(folder, followlinks=True, onerror=_refuse):
        status = os.stat(place)
        if (status.st_dev, status.st_ino) in entered:
            folders.clear()
            continue
        entered.add((status.st_dev, status.st_ino))
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        for file in files:
            full = os.path.join(place, file)
            if is_audio_name(file) and os.path.isfile(full):
                yield full


def _refuse(error: OSError) -> None:
    raise error


def _local(path: str, *, root: str) -> AudioSource:
    status = os.stat(path)
    return AudioSource(path, status.st_size, _fingerprint(status), os.path.relpath(path, root).replace(os.sep, "/"))


def _fingerprint(status: os.stat_result) -> str:
    return f"{status.st_size}-{status.st_mtime_ns}"


def _glob_root(path: str) -> str:
    """The part of a glob before its first wildcard."""
    parts = path.split("/")
    plain = next(index for index, part in enumerate(parts) if _MAGIC.search(part))
    return "/".join(parts[:plain]) or "/"


def _in_store(pattern: str) -> Iterator[AudioSource]:
    scheme, container, key = split(pattern)
    store = Store(f"{scheme}://{container}")
    key = key.strip("/")
    if key and store.exists(key):
        yield _remote(store, store.stat(key), root=key.rpartition("/")[0])
        return
    root, wanted = (_glob_root(f"/{key}").strip("/"), _as_regex(key)) if _MAGIC.search(key) else (key, None)
    for entry in store.list(root):
        below = entry.key[len(root) :].lstrip("/") if root else entry.key
        if is_audio_name(below) and (wanted is None or wanted.fullmatch(entry.key)):
            yield _remote(store, entry, root=root)


def _remote(store: Store, entry: Entry, *, root: str) -> AudioSource:
    below = entry.key[len(root) :].lstrip("/") if root else entry.key
    return AudioSource(f"{store.uri}/{entry.key}", entry.bytes, f"{entry.bytes}-{entry.tag}", below)


def _as_regex(pattern: str) -> re.Pattern[str]:
    """A glob over keys: ``**/`` matches any number of folders, ``*`` and ``?`` match within one folder."""
    words = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    pieces = re.split(r"(\*\*/|\*\*|\*|\?|\[!?[^\]]+\])", pattern)
    return re.compile("".join(words.get(p) or (p.replace("[!", "[^") if p[:1] == "[" else re.escape(p)) for p in pieces))


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
    with tempfile.TemporaryDirectory(prefix="rave-dist-") as folder:
        yield Store(f"{scheme}://{container}").download(key, Path(folder) / f"source{os.path.splitext(key)[1]}")
