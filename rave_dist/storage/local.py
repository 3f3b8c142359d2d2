"""The store's backend in a local folder: objects are written to a temporary file in their folder and renamed."""

from __future__ import annotations

import errno
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from rave_dist.errors import MissingKeyError, StoreError, from_os_error, impossible_name
from rave_dist.storage.atomic import is_temporary, replacing, temporary_path
from rave_dist.storage.backend import Entry
from rave_dist.storage.exclusive import LOCK, rename_exclusively

if TYPE_CHECKING:
    import pyarrow.fs

_BLOCK_BYTES = 1 << 20
# Locks; what macOS leaves in folders; removed files that NFS keeps while a process has them open.
_OF_THE_SYSTEM = re.compile(rf"{re.escape(LOCK)}|\._.*|\.DS_Store|\.nfs[0-9a-f]+", re.DOTALL)


class LocalFolder:
    """Keys are paths below a folder; the methods are those of `rave_dist.storage.backend.Backend`."""

    def __init__(self, root: Path) -> None:
        self._root = root

    @contextmanager
    def _errors(self, key: str) -> Iterator[None]:
        where = str(self._root / key)
        try:
            yield
        except FileNotFoundError as error:
            raise MissingKeyError("nothing is stored there", where=where) from error
        except OSError as error:
            if isinstance(error, StoreError):
                raise
            raise from_os_error(error, where=where) from error

    @contextmanager
    def _creating(self, key: str) -> Iterator[Path]:
        """The path of a key, whose folder is made."""
        place = self._root / key
        with self._errors(key):
            try:
                place.parent.mkdir(parents=True, exist_ok=True)
                yield place
            except OSError as error:
                if error.errno in (errno.ENOENT, errno.EINVAL):  # what exFAT and SMB answer to a name that they refuse
                    raise impossible_name(str(place)) from error
                raise

    @contextmanager
    def _replacing(self, key: str) -> Iterator[Path]:
        with self._creating(key) as place, replacing(place) as temporary:
            yield temporary

    def read(self, key: str) -> bytes:
        """All bytes of a file."""
        with self._errors(key):
            return (self._root / key).read_bytes()

    def read_range(self, key: str, start: int, stop: int) -> tuple[bytes, str]:
        """The tag is that of the file which was read."""
        with self._errors(key), open(self._root / key, "rb") as file:
            file.seek(start)
            return file.read(stop - start), _tag(os.fstat(file.fileno()))

    def write(self, key: str, data: bytes) -> None:
        """Written to disk (fsync) before the rename."""
        with self._replacing(key) as temporary:
            _write(temporary, data)

    def claim(self, key: str, data: bytes) -> bool:
        """A temporary file that gets the name only if nothing has it."""
        with self._creating(key) as place:
            temporary = temporary_path(place)
            try:
                _write(temporary, data)
                return rename_exclusively(temporary, place)
            finally:
                temporary.unlink(missing_ok=True)

    def stat(self, key: str) -> Entry | None:
        """Its tag is size and modification time."""
        path = self._root / key
        with self._errors(key):
            return self._entry(path, key) if path.is_file() else None

    def list(self, prefix: str) -> Iterator[Entry]:
        """In order of key; temporary files, locks and those of the system are left out."""
        return self._entries(prefix, lambda path: not is_temporary(path.name) and not _OF_THE_SYSTEM.fullmatch(path.name))

    def unfinished(self, seconds: float) -> Iterator[Entry]:
        """Temporary files."""
        return self._entries("", lambda path: is_temporary(path.name) and time.time() - path.stat().st_mtime > seconds)

    def _entries(self, prefix: str, wanted: Callable[[Path], bool]) -> Iterator[Entry]:
        folder = self._root / prefix
        with self._errors(prefix):
            paths = sorted(_files(folder), key=lambda path: path.relative_to(self._root).as_posix())
        for path in paths:
            try:
                if wanted(path):
                    yield self._entry(path, path.relative_to(self._root).as_posix())
            except FileNotFoundError:
                continue  # removed by another process since

    def _entry(self, path: Path, key: str) -> Entry:
        status = path.stat()
        return Entry(key, status.st_size, _tag(status))

    def delete(self, key: str) -> None:
        """Removes the file, not its folder."""
        with self._errors(key):
            (self._root / key).unlink(missing_ok=True)

    def discard(self, entry: Entry) -> None:
        """Removes the file."""
        self.delete(entry.key)

    def upload(self, path: Path, key: str) -> None:
        """A copy, on disk (fsync) before the rename."""
        with self._replacing(key) as temporary, open(path, "rb") as source, open(temporary, "wb") as file:
            shutil.copyfileobj(source, file, _BLOCK_BYTES)
            _flush(file)

    def download(self, key: str, path: Path) -> None:
        """A copy; an error names the side that failed."""
        with self._errors(key):
            stored = (self._root / key).open("rb")
        with stored:
            try:
                with replacing(path) as temporary, open(temporary, "wb") as file:
                    shutil.copyfileobj(stored, file, _BLOCK_BYTES)
            except OSError as error:
                raise from_os_error(error, where=str(path)) from error

    def filesystem(self) -> tuple[pyarrow.fs.FileSystem, str]:
        """Arrow's local file system."""
        import pyarrow.fs  # imported here: whole objects do not need Arrow

        return pyarrow.fs.LocalFileSystem(), str(self._root)


def _files(folder: Path) -> Iterator[Path]:
    """The files below a folder, which need not exist; one that cannot be read is an error, as its files would be missed."""

    def refuse(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError | NotADirectoryError):
            raise from_os_error(error, where=str(error.filename))

    for place, _, names in os.walk(folder, onerror=refuse):
        yield from (path for path in (Path(place, name) for name in names) if path.is_file())


def _tag(status: os.stat_result) -> str:
    return f"{status.st_size}-{status.st_mtime_ns}"


def _write(path: Path, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)
        _flush(file)


def _flush(file: BinaryIO) -> None:
    """To disk: after a power failure, a file that was only renamed may be empty."""
    file.flush()
    os.fsync(file.fileno())
