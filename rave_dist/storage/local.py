"""The store's backend in a local folder: written to a temporary file in the same folder, then renamed."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rave_dist.errors import MissingKeyError, StoreError, from_os_error
from rave_dist.storage.backend import Entry

if TYPE_CHECKING:
    import pyarrow.fs

PARTIAL = ".partial-"
_BLOCK_BYTES = 1 << 20


class LocalFolder:
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
    def _aside(self, key: str) -> Iterator[Path]:
        """A path beside the key's own; what was written there takes the key's place at the end, or goes."""
        place = self._root / key
        aside = place.with_name(f"{place.name}{PARTIAL}{uuid.uuid4().hex[:8]}")
        with self._errors(key):
            place.parent.mkdir(parents=True, exist_ok=True)
            try:
                yield aside
                os.replace(aside, place)
            finally:
                aside.unlink(missing_ok=True)

    def read(self, key: str) -> bytes:
        with self._errors(key):
            return (self._root / key).read_bytes()

    def write(self, key: str, data: bytes) -> None:
        with self._aside(key) as aside, open(aside, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())

    def claim(self, key: str, data: bytes) -> bool:
        place = self._root / key
        aside = place.with_name(f"{place.name}{PARTIAL}{uuid.uuid4().hex[:8]}")
        with self._errors(key):
            place.parent.mkdir(parents=True, exist_ok=True)
            try:
                aside.write_bytes(data)
                os.link(aside, place)  # fails if the name is taken, and never shows half the data
                return True
            except FileExistsError:
                return False
            finally:
                aside.unlink(missing_ok=True)

    def stat(self, key: str) -> Entry | None:
        path = self._root / key
        with self._errors(key):
            return self._entry(path, key) if path.is_file() else None

    def list(self, prefix: str) -> Iterator[Entry]:
        folder = self._root / prefix
        with self._errors(prefix):
            paths = sorted((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.relative_to(self._root).as_posix())
        for path in paths:
            if PARTIAL in path.name:
                continue
            try:
                yield self._entry(path, path.relative_to(self._root).as_posix())
            except FileNotFoundError:
                continue  # removed by another process while we walked

    def _entry(self, path: Path, key: str) -> Entry:
        status = path.stat()
        return Entry(key, status.st_size, f"{status.st_size}-{status.st_mtime_ns}")

    def delete(self, key: str) -> None:
        with self._errors(key):
            (self._root / key).unlink(missing_ok=True)

    def upload(self, path: Path, key: str) -> None:
        with self._aside(key) as aside:
            shutil.copyfile(path, aside)

    def download(self, key: str, path: Path) -> None:
        with self._errors(key):
            stored = (self._root / key).open("rb")
        aside = path.with_name(f"{path.name}{PARTIAL}{uuid.uuid4().hex[:8]}")
        with stored:
            try:
                with open(aside, "wb") as file:
                    shutil.copyfileobj(stored, file, _BLOCK_BYTES)
                os.replace(aside, path)
            except OSError as error:
                raise from_os_error(error, where=str(path)) from error
            finally:
                aside.unlink(missing_ok=True)

    def filesystem(self) -> tuple[pyarrow.fs.FileSystem, str]:
        import pyarrow.fs  # here, because whole objects need no Arrow

        return pyarrow.fs.LocalFileSystem(), str(self._root)
