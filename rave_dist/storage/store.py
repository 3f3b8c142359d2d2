"""One store over a local folder or S3: whole objects, written atomically, found again by key.

An object exists or it does not: locally it is written to a temporary file and renamed, on S3 a put or a completed
multipart upload is atomic. Whoever writes several objects that belong together writes their marker last.

S3 settings come from the environment and the AWS configuration files, as boto3 users expect: `rave_dist.storage.s3`.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from rave_dist.errors import MissingKeyError, StoreError, from_os_error
from rave_dist.identity import canonical_json
from rave_dist.storage.backend import Backend, Entry
from rave_dist.storage.local import LocalFolder
from rave_dist.storage.schemes import is_remote, normalise, open_backend

if TYPE_CHECKING:
    import pyarrow.fs


class Store:
    """A local folder or an S3 prefix; picklable, cheap to make, connects on first use.

    Args:
        uri: a path (``~`` allowed), ``file://…``, ``s3://bucket/prefix`` or an address of a registered scheme.

    Every method raises `StoreError` when the place cannot be used; reading what is not there raises `MissingKeyError`.
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
        """Whether the store is a folder of this machine."""
        return not is_remote(self.uri)

    @cached_property
    def _backend(self) -> Backend:
        return LocalFolder(Path(self.uri)) if self.is_local else open_backend(self.uri)

    def address(self, key: str) -> str:
        """The full path or address of a key."""
        return f"{self.uri}/{key}" if key else self.uri

    def read_bytes(self, key: str) -> bytes:
        """All bytes of an object."""
        return self._backend.read(key)

    def write_bytes(self, key: str, data: bytes) -> None:
        """Writes or replaces an object, atomically."""
        self._backend.write(key, data)

    def read_json(self, key: str) -> Any:
        """An object's JSON value."""
        try:
            return json.loads(self.read_bytes(key))
        except ValueError as error:
            raise StoreError(
                f"not valid JSON ({error})", where=self.address(key), fix="delete it; the step that makes it will run again"
            ) from error

    def write_json(self, key: str, value: Any) -> None:
        """Writes a JSON value, atomically, in its canonical form."""
        self.write_bytes(key, canonical_json(value) + b"\n")

    def claim(self, key: str, data: bytes = b"") -> bool:
        """Creates an object only if it does not exist; True for the one caller that did."""
        return self._backend.claim(key, data)

    def exists(self, key: str) -> bool:
        """Whether an object is stored under this key."""
        return self._backend.stat(key) is not None

    def stat(self, key: str) -> Entry:
        """Size and tag of an object."""
        entry = self._backend.stat(key)
        if entry is None:
            raise MissingKeyError("nothing is stored there", where=self.address(key))
        return entry

    def list(self, prefix: str = "") -> Iterator[Entry]:
        """All objects below a folder (``a/b`` lists ``a/b/…``, never ``a/bc``), a page at a time.

        In order of key in a folder and on AWS; not every S3 server keeps that order.
        """
        return self._backend.list(prefix.strip("/"))

    def delete(self, key: str) -> None:
        """Removes an object; nothing happens if it is not there."""
        self._backend.delete(key)

    def delete_folder(self, prefix: str) -> None:
        """Removes all objects below a folder, in reverse order of key."""
        for entry in sorted(self.list(prefix), key=lambda e: e.key, reverse=True):
            self.delete(entry.key)

    def upload(self, path: Path | str, key: str) -> None:
        """Copies a local file into the store, atomically; large files go to S3 in parts."""
        if not Path(path).is_file():
            raise StoreError("there is no such file to store", where=str(path))
        self._backend.upload(Path(path), key)

    def download(self, key: str, path: Path | str) -> Path:
        """Copies an object to a local path, atomically; folders are made."""
        path = Path(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise from_os_error(error, where=str(path.parent)) from error
        self._backend.download(key, path)
        return path

    def filesystem(self, key: str = "") -> tuple[pyarrow.fs.FileSystem, str]:
        """A pyarrow filesystem and the path of a key in it, for Arrow readers and Ray Data."""
        filesystem, root = self._backend.filesystem()
        return filesystem, f"{root}/{key}".rstrip("/") if key else root

    @contextmanager
    def open(self, key: str) -> Iterator[BinaryIO]:
        """A seekable reader of an object, without loading it whole."""
        self.stat(key)  # says in the store's own words if it is missing or refused
        filesystem, path = self.filesystem(key)
        try:
            file = filesystem.open_input_file(path)
        except OSError as error:
            raise from_os_error(error, where=self.address(key)) from error
        with file:
            yield file

    def check_exists(self) -> None:
        """Refuses a folder that is not there, which is more often a misspelt address than an empty store.

        Raises:
            StoreError: there is no such folder; S3 has none, only keys.
        """
        if self.is_local and not Path(self.uri).is_dir():
            raise StoreError("there is no such folder", where=self.uri, fix="check the address of the store")

    def check_writable(self) -> None:
        """Writes and removes a small object, so that a wrong address is known before any work.

        Raises:
            StoreError: with what the place answered.
        """
        key = f".write-check-{uuid.uuid4().hex[:8]}"
        try:
            self.write_bytes(key, b"ok")
        except MissingKeyError as error:  # a folder that cannot be made
            raise StoreError(
                "nothing can be written there", where=self.uri, fix="choose another place for the store"
            ) from error
        self.delete(key)
