"""Tries every operation of a store that a run needs, in a temporary folder of the store."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from rave_dist.errors import MissingKeyError, StoreError
from rave_dist.storage.exclusive import LOCK
from rave_dist.temporary import temporary_folder

if TYPE_CHECKING:
    from rave_dist.storage.store import Store

_CONSISTENCY = "use a store with read-after-write consistency"
_FOLDER = ".write-check-"


def probe(store: Store, *, needed_bytes: int = 0) -> None:
    """Writes, replaces, reads, lists, creates exclusively, uploads, downloads and deletes small objects, and leaves nothing.

    Args:
        store: the store, which need not exist yet if it is a folder.
        needed_bytes: free space that is needed.

    Raises:
        StoreError: the first operation that failed, with the fix.
    """
    free = store.free_bytes()
    if free is not None and free < needed_bytes:
        raise StoreError(
            f"about {in_words(needed_bytes)} are needed, but {in_words(free)} are free",
            where=store.uri,
            fix="free space on that disk, or choose a folder on another",
        )
    try:
        with _temporary_folder(store) as folder:
            _try_objects(store, folder)
            _try_claims(store, folder)
            _try_files(store, folder)
            _try_deleting(store, folder)
    except MissingKeyError as error:
        raise StoreError("an object that was just written cannot be read", where=store.uri, fix=_CONSISTENCY) from error
    except StoreError as error:  # where it stands is a temporary name
        raise StoreError(error.what, where=store.uri, fix=error.fix) from error


def is_check(name: str) -> bool:
    """Whether a name is one of the temporary folder of a probe."""
    return name.startswith(_FOLDER)


def in_words(size: int) -> str:
    """A number of bytes: ``1.5 GiB``."""
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"


def _try_objects(store: Store, folder: str) -> None:
    key = f"{folder}/written"
    for data in (b"one", b"another"):
        store.write_bytes(key, data)
        _expect(store.read_bytes(key) == data, store, "an object that was just replaced is still the old one", _CONSISTENCY)
    listed = {entry.key: entry.bytes for entry in store.list(folder)}
    _expect(listed == {key: 7}, store, "an object that was just written is not listed", _CONSISTENCY)


def _try_claims(store: Store, folder: str) -> None:
    key = f"{folder}/claimed"
    won = [store.claim(key, data) for data in (b"first", b"second")]
    _expect(
        won == [True, False] and store.read_bytes(key) == b"first",
        store,
        "an object can be created twice, so two commands could train the same run",
        "use a disk with hard links or file locks, or an S3 server with If-None-Match",
    )


def _try_files(store: Store, folder: str) -> None:
    """Whole files; Arrow's own connection, which datasets are read through, is tried where it is not that of a folder."""
    key = f"{folder}/uploaded"
    with temporary_folder("probe") as scratch:
        path = Path(scratch) / "file"
        path.write_bytes(b"file")
        store.upload(path, key)
        whole = store.download(key, path).read_bytes() == b"file"
    if not store.is_local:
        with store.open(key) as file:
            whole = whole and file.read() == b"file"
    _expect(whole, store, "a file that was just stored is read with other content", _CONSISTENCY)


def _try_deleting(store: Store, folder: str) -> None:
    store.delete_folder(folder)
    _expect(
        not store.exists(f"{folder}/written"),
        store,
        "an object that was deleted is still there",
        "give your user permission to delete, and use a store without object locks",
    )


def _expect(held: bool, store: Store, what: str, fix: str) -> None:
    if not held:
        raise StoreError(what, where=store.uri, fix=fix)


@contextmanager
def _temporary_folder(store: Store) -> Iterator[str]:
    """The key of a new folder; it is removed at the end, and so is every folder that did not exist before."""
    folder = f"{_FOLDER}{uuid.uuid4().hex[:8]}"
    place = Path(store.address(folder))
    made = [path for path in (place, *place.parents) if not os.path.exists(path)] if store.is_local else []
    try:
        yield folder
    finally:
        with suppress(StoreError):
            store.delete_folder(folder)
        with suppress(OSError):  # another command may be using the store by now
            if made:
                (place / LOCK).unlink(missing_ok=True)
            for path in made:
                path.rmdir()
