"""A storage scheme whose operations fail, one at a time, as stores and machines do; an extension, so that every process has it.

``faulty://NAME/prefix`` is the folder ``$FAULTY_STORES/NAME/prefix``. Every operation is a line in ``$FAULTY_STORES/NAME.log``:
``write runs/a/record.json``. The fault in ``$FAULTY_STORES/NAME.fault`` strikes the n-th operation of that line since the log
was removed: ``{"line": "write runs/a/record.json", "number": 1, "kind": "torn"}``.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rave_dist.errors import MissingKeyError, StoreError
from rave_dist.storage.backend import Entry
from rave_dist.storage.local import LocalFolder
from rave_dist.storage.schemes import SCHEMES

if TYPE_CHECKING:
    import pyarrow.fs

VARIABLE = "FAULTY_STORES"

Kind = Literal["killed before", "killed after", "torn", "refused", "refused after", "missing", "stale"]

OF_WRITES: tuple[Kind, ...] = ("killed before", "killed after", "torn", "refused", "refused after")
"""Crash before or after; half of the object, then a crash; 503 before or after it was done."""

FAULTS: dict[str, tuple[Kind, ...]] = {
    "write": OF_WRITES,
    "claim": OF_WRITES,
    "upload": OF_WRITES,
    "delete": ("killed before", "killed after", "refused", "refused after"),
    "read": ("refused", "missing"),
    "stat": ("refused", "missing"),
    "download": ("refused", "missing"),
    "open": ("refused", "missing"),
    "list": ("refused", "stale"),
}
"""What can happen to each operation; a crash before a read is one after the operation before."""


def control(name: str, suffix: str) -> Path:
    """The log or the fault of a store."""
    return Path(os.environ[VARIABLE], f"{name}.{suffix}")


class FaultyFolder:
    """Keys below a folder of a faulty store; the methods are those of `rave_dist.storage.backend.Backend`."""

    def __init__(self, name: str, prefix: str) -> None:
        self._name, self._prefix = name, prefix
        self._folder = LocalFolder(Path(os.environ[VARIABLE], name, prefix))

    def read(self, key: str) -> bytes:
        with self._operation("read", key):
            return self._folder.read(key)

    def read_range(self, key: str, start: int, stop: int) -> tuple[bytes, str]:
        with self._operation("read", key):
            return self._folder.read_range(key, start, stop)

    def write(self, key: str, data: bytes) -> None:
        with self._operation("write", key, torn=data):
            self._folder.write(key, data)

    def claim(self, key: str, data: bytes) -> bool:
        exists = self._folder.stat(key) is not None
        with self._operation("claim", key, torn=b"" if exists else data):
            return self._folder.claim(key, data)

    def stat(self, key: str) -> Entry | None:
        try:
            with self._operation("stat", key):
                return self._folder.stat(key)
        except MissingKeyError:
            return None

    def list(self, prefix: str) -> Iterator[Entry]:
        kind = self._begin("list", prefix)
        if kind == "refused":
            raise self._unavailable(prefix)
        newest = self._newest() if kind == "stale" else None
        yield from (entry for entry in self._folder.list(prefix) if self._full(entry.key) != newest)

    def delete(self, key: str) -> None:
        with self._operation("delete", key):
            self._folder.delete(key)

    def unfinished(self, seconds: float) -> Iterator[Entry]:
        return self._folder.unfinished(seconds)

    def discard(self, entry: Entry) -> None:
        self._folder.discard(entry)

    def upload(self, path: Path, key: str) -> None:
        with self._operation("upload", key, torn=path):
            self._folder.upload(path, key)

    def download(self, key: str, path: Path) -> None:
        with self._operation("download", key):
            self._folder.download(key, path)

    def filesystem(self) -> tuple[pyarrow.fs.FileSystem, str]:
        with self._operation("open", ""):
            return self._folder.filesystem()

    def _full(self, key: str) -> str:
        return f"{self._prefix}/{key}".strip("/")

    @contextmanager
    def _operation(self, operation: str, key: str, *, torn: bytes | Path = b"") -> Iterator[None]:
        kind = self._begin(operation, key)
        if kind == "killed before":
            _die()
        if kind == "refused":
            raise self._unavailable(key)
        if kind == "missing":
            raise MissingKeyError("nothing is stored there", where=f"faulty://{self._name}/{self._full(key)}")
        if kind == "torn":
            data = torn.read_bytes() if isinstance(torn, Path) else torn
            if data:
                self._folder.write(key, data[: len(data) // 2])
            _die()
        yield
        if kind == "killed after":
            _die()
        if kind == "refused after":
            raise self._unavailable(key)

    def _begin(self, operation: str, key: str) -> Kind | None:
        """Logs an operation; the fault that strikes it."""
        line = f"{operation} {self._full(key)}"
        with open(control(self._name, "log"), "a+") as log:
            fcntl.flock(log, fcntl.LOCK_EX)
            log.seek(0)
            number = log.read().splitlines().count(line) + 1
            log.write(f"{line}\n")
        try:
            fault = json.loads(control(self._name, "fault").read_text())
        except FileNotFoundError:
            return None
        kind: Kind = fault["kind"]
        return kind if (fault["line"], fault["number"]) == (line, number) else None

    def _newest(self) -> str | None:
        """The key of the last object that was written."""
        lines = control(self._name, "log").read_text().splitlines()
        written = [line.partition(" ")[2] for line in lines if line.startswith(("write ", "claim ", "upload "))]
        return written[-1] if written else None

    def _unavailable(self, key: str) -> StoreError:
        return StoreError("the server answers 503 (SlowDown)", where=f"faulty://{self._name}/{self._full(key)}")


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


SCHEMES.register("faulty", FaultyFolder)
