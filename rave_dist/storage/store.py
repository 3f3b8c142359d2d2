"""The store over a local folder or S3: whole objects, written atomically, identified by key.

Objects are complete or do not exist: locally they are written to a temporary file and renamed; on S3 a put or a completed
multipart upload is atomic (settings: `rave_dist.storage.s3`). Of several objects that belong together, a marker comes last.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from rave_dist.errors import DamagedObjectError, MissingKeyError, StoreError, from_os_error
from rave_dist.identity import canonical_json
from rave_dist.storage.backend import Backend, Entry
from rave_dist.storage.local import LocalFolder
from rave_dist.storage.probe import probe
from rave_dist.storage.schemes import is_remote, normalise, open_backend

if TYPE_CHECKING:
    import pyarrow.fs


class Store:
    """A local folder or an S3 prefix; picklable, cheap to make, connects on first use.

    Args:
        uri: a path (``~`` allowed), ``file://…``, ``s3://bucket/prefix`` or an address of a registered scheme.

    Raises:
        StoreError: by every method, if the store cannot be used.
        MissingKeyError: by methods that read a key that does not exist.

    Example:
        >>> store = rd.Store("store")
        >>> store.write_json("notes/today.json", {"take": 1})
        >>> store.read_json("notes/today.json")
        {'take': 1}
    """

    def __init__(self, uri: str) -> None:
        self.uri = normalise(uri)

    def __reduce__(self) -> tuple[object, ...]:
        return (Store, (self.uri,))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Store) and other.uri == self.uri

    def __hash__(self) -> int:
        return hash(self.uri)

    def __repr__(self) -> str:
        return f"Store({self.uri!r})"

    @property
    def is_local(self) -> bool:
        """Whether the store is a folder of this machine.

        Example:
            >>> rd.Store("store").is_local, rd.Store("s3://bucket/prefix").is_local
            (True, False)
        """
        return not is_remote(self.uri)

    @cached_property
    def _backend(self) -> Backend:
        return LocalFolder(Path(self.uri)) if self.is_local else open_backend(self.uri)

    def address(self, key: str) -> str:
        """Returns the full path or address of a key.

        Args:
            key: relative to the store.

        Example:
            >>> rd.Store("s3://bucket/prefix").address("models")
            's3://bucket/prefix/models'
        """
        return f"{self.uri}/{key}" if key else self.uri

    def read_bytes(self, key: str) -> bytes:
        """Returns all bytes of an object.

        Args:
            key: relative to the store.

        Example:
            >>> rd.Store("store").read_bytes("nothing/here")
            Traceback (most recent call last):
            ...
            rave_dist.errors.MissingKeyError: ...nothing is stored there
        """
        return self._backend.read(key)

    def write_bytes(self, key: str, data: bytes) -> None:
        """Writes or replaces an object, atomically.

        Args:
            key: relative to the store.
            data: the whole object.

        Example:
            >>> rd.Store("store").write_bytes("notes/take-1.txt", b"too loud")
            >>> rd.Store("store").read_bytes("notes/take-1.txt")
            b'too loud'
        """
        self._backend.write(key, data)

    def read_range(self, key: str, start: int, stop: int) -> tuple[bytes, str]:
        """Returns the bytes from ``start`` to before ``stop``, fewer at the object's end, and its tag.

        Args:
            key: relative to the store.
            start: place of the first byte.
            stop: place behind the last byte.

        Example:
            >>> rd.Store("store").read_range(f"{rd.find_model('store', 'rebana').key}/card.json", 0, 1)[0]
            b'{'
        """
        return self._backend.read_range(key, start, stop)

    def read_json(self, key: str) -> Any:
        """Returns an object's JSON value.

        Args:
            key: relative to the store.

        Raises:
            DamagedObjectError: it is not JSON.

        Example:
            >>> card = rd.find_model("store", "rebana")
            >>> rd.Store("store").read_json(f"{card.key}/card.json")["sample_rate"]
            44100
        """
        try:
            return json.loads(self.read_bytes(key), parse_constant=_number, parse_float=_number)
        except (ValueError, RecursionError) as error:
            raise DamagedObjectError(
                f"not valid JSON ({error})", where=self.address(key), fix="delete it; the stage that writes it will run again"
            ) from error

    def write_json(self, key: str, value: Any) -> None:
        r"""Writes a JSON value, atomically, with sorted keys.

        Args:
            key: relative to the store.
            value: any value that `json` supports.

        Example:
            >>> rd.Store("store").write_json("notes/b.json", {"take": 2, "good": True})
            >>> rd.Store("store").read_bytes("notes/b.json")
            b'{"good":true,"take":2}\n'
        """
        self.write_bytes(key, canonical_json(value) + b"\n")

    def claim(self, key: str, data: bytes = b"") -> bool:
        """Creates an object only if it does not exist; True for the one caller that did.

        Args:
            key: relative to the store.
            data: the whole object.

        Example:
            >>> store = rd.Store("store")
            >>> store.claim("notes/first"), store.claim("notes/first")
            (True, False)
        """
        return self._backend.claim(key, data)

    def exists(self, key: str) -> bool:
        """Returns whether an object is stored under a key.

        Args:
            key: relative to the store.

        Example:
            >>> rd.Store("store").exists("nothing/here")
            False
        """
        return self._backend.stat(key) is not None

    def stat(self, key: str) -> Entry:
        """Returns an object's size in bytes and its tag, which changes with its content.

        Args:
            key: relative to the store.

        Example:
            >>> rd.Store("store").write_bytes("notes/c.txt", b"three")
            >>> rd.Store("store").stat("notes/c.txt").bytes
            5
        """
        entry = self._backend.stat(key)
        if entry is None:
            raise MissingKeyError("nothing is stored there", where=self.address(key))
        return entry

    def list(self, prefix: str = "") -> Iterator[Entry]:
        """Lists all objects below a folder: ``a/b`` lists ``a/b/…``, never ``a/bc``.

        In order of key in a folder and on AWS; not every S3 server keeps that order.

        Args:
            prefix: the folder, relative to the store; empty lists everything.

        Example:
            >>> sorted(entry.key.rpartition("/")[2] for entry in rd.Store("store").list("models/rebana"))
            ['00000001.json', 'card.json', 'rebana.ts', 'rebana_streaming.ts']
        """
        return self._backend.list(prefix.strip("/"))

    def delete(self, key: str) -> None:
        """Deletes an object; nothing happens if it does not exist.

        Args:
            key: relative to the store.

        Example:
            >>> rd.Store("store").delete("nothing/here")
        """
        self._backend.delete(key)

    def delete_folder(self, prefix: str) -> None:
        """Deletes all objects below a folder, in reverse order of key.

        Args:
            prefix: the folder, relative to the store.

        Example:
            >>> store = rd.Store("store")
            >>> store.write_bytes("notes/d.txt", b"four")
            >>> store.delete_folder("notes")
            >>> list(store.list("notes"))
            []
        """
        for entry in sorted(self.list(prefix), key=lambda e: e.key, reverse=True):
            self.delete(entry.key)

    def unfinished(self, seconds: float = 86_400) -> Iterator[Entry]:
        """Lists what killed writers left behind: temporary files of a folder, and uploads to S3 that never ended.

        Args:
            seconds: only what has not changed for so long; newer ones may belong to a writer at work.

        Example:
            >>> list(rd.Store("store").unfinished())
            []
        """
        return self._backend.unfinished(seconds)

    def discard(self, entry: Entry) -> None:
        """Removes an entry of `unfinished`.

        Args:
            entry: the entry.

        Example:
            >>> for entry in rd.Store("store").unfinished():
            ...     rd.Store("store").discard(entry)
        """
        self._backend.discard(entry)

    def upload(self, path: Path | str, key: str) -> None:
        """Copies a local file into the store, atomically; large files go to S3 in parts.

        Args:
            path: the file.
            key: relative to the store.

        Raises:
            StoreError: there is no such file.

        Example:
            >>> rd.Store("store").upload("field/kingfisher.wav", "field/kingfisher.wav")
            >>> rd.Store("store").exists("field/kingfisher.wav")
            True
        """
        if not Path(path).is_file():
            raise StoreError("there is no such file to store", where=str(path))
        self._backend.upload(Path(path), key)

    def download(self, key: str, path: Path | str) -> Path:
        """Copies an object to a local path, atomically; folders are made.

        Args:
            key: relative to the store.
            path: the new file.

        Returns:
            Its path.

        Example:
            >>> card = rd.find_model("store", "rebana")
            >>> rd.Store("store").download(card.files["streaming"].key, "for-max/rebana.ts").name
            'rebana.ts'
        """
        path = Path(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise from_os_error(error, where=str(path.parent)) from error
        self._backend.download(key, path)
        return path

    def filesystem(self, key: str = "") -> tuple[pyarrow.fs.FileSystem, str]:
        """Returns a pyarrow filesystem and the path of a key in it, for Arrow readers and Ray Data.

        Args:
            key: relative to the store.

        Example:
            >>> filesystem, path = rd.Store("store").filesystem("datasets")
            >>> filesystem.type_name, path == str(folder / "store" / "datasets")
            ('local', True)
        """
        filesystem, root = self._backend.filesystem()
        return filesystem, f"{root}/{key}".rstrip("/") if key else root

    @contextmanager
    def open(self, key: str) -> Iterator[BinaryIO]:
        """Opens an object for reading, with seeking, without loading it whole.

        Args:
            key: relative to the store.

        Example:
            >>> card = rd.find_model("store", "rebana")
            >>> with rd.Store("store").open(f"{card.key}/card.json") as file:
            ...     file.read(1)
            b'{'
        """
        self.stat(key)  # raises the store's errors if it is missing or refused
        filesystem, path = self.filesystem(key)
        try:
            file = filesystem.open_input_file(path)
        except OSError as error:
            raise from_os_error(error, where=self.address(key)) from error
        with file:
            yield file

    def check_exists(self) -> None:
        """Refuses a folder that does not exist, which is more often a misspelt address than an empty store.

        Raises:
            StoreError: there is no such folder, or it is a file; S3 has none, only keys.

        Example:
            >>> rd.Store("stroe").check_exists()
            Traceback (most recent call last):
            ...
            rave_dist.errors.StoreError: ...there is no such folder...
        """
        if self.is_local and not Path(self.uri).is_dir():
            what = "this is a file, not a folder" if os.path.exists(self.uri) else "there is no such folder"
            raise StoreError(what, where=self.uri, fix="check the address of the store")

    def check_writable(self, *, needed_bytes: int = 0) -> None:
        """Tries every operation that a run needs, to detect a wrong address or an unsuitable store before any work.

        Args:
            needed_bytes: free space that is needed.

        Raises:
            StoreError: with the operation that failed, and the fix.

        Example:
            >>> rd.Store("store").check_writable()
        """
        probe(self, needed_bytes=needed_bytes)

    def free_bytes(self) -> int | None:
        """Returns the free bytes of the disk of a folder, which need not exist yet; None on S3.

        Example:
            >>> rd.Store("store").free_bytes() > 0
            True
        """
        if not self.is_local:
            return None
        place = next(path for path in (Path(self.uri), *Path(self.uri).parents) if os.path.exists(path))
        try:
            return shutil.disk_usage(place).free
        except OSError as error:
            raise from_os_error(error, where=self.uri) from error


def _number(text: str) -> float:
    """A finite number: NaN and infinity are not JSON, though Python reads them."""
    if math.isfinite(value := float(text)):
        return value
    raise ValueError(f"{text} is not a number")
