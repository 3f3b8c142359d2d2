"""The interface of a store's backend, and the entry of an object."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import pyarrow.fs


@dataclass(frozen=True)
class Entry:
    """A stored object: its key, its size in bytes, and a tag that changes with its content."""

    key: str
    bytes: int
    tag: str


class Backend(Protocol):
    """The interface of a backend; keys are relative, with forward slashes.

    Every method raises `StoreError` if the backend cannot be used, and `MissingKeyError` if a required object does not exist.
    Objects appear complete or not at all.
    """

    def read(self, key: str) -> bytes:
        """All bytes of an object."""
        ...

    def read_range(self, key: str, start: int, stop: int) -> tuple[bytes, str]:
        """The bytes between two places, fewer where the object ends before, and its tag, as in its entry."""
        ...

    def write(self, key: str, data: bytes) -> None:
        """Creates or replaces an object."""
        ...

    def claim(self, key: str, data: bytes) -> bool:
        """Creates an object unless it exists; True for exactly one of several concurrent callers with different data."""
        ...

    def stat(self, key: str) -> Entry | None:
        """An object's entry; None if it does not exist."""
        ...

    def list(self, prefix: str) -> Iterator[Entry]:
        """All objects below a folder, which may be empty."""
        ...

    def delete(self, key: str) -> None:
        """Removes an object; succeeds if it does not exist."""
        ...

    def unfinished(self, seconds: float) -> Iterator[Entry]:
        """What killed writers left behind, unchanged for a number of seconds; `list` has none of it."""
        ...

    def discard(self, entry: Entry) -> None:
        """Removes an entry of `unfinished`."""
        ...

    def upload(self, path: Path, key: str) -> None:
        """Copies a local file to an object."""
        ...

    def download(self, key: str, path: Path) -> None:
        """Copies an object to a local path, whose folder exists."""
        ...

    def filesystem(self) -> tuple[pyarrow.fs.FileSystem, str]:
        """A pyarrow filesystem (picklable) and the path of the root in it."""
        ...
