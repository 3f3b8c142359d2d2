"""What a store needs of a place, and what it says of an object."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import pyarrow.fs


@dataclass(frozen=True)
class Entry:
    """One stored object: its key, size in bytes and a tag that changes when its bytes do."""

    key: str
    bytes: int
    tag: str


class Backend(Protocol):
    """What a store needs of a place; keys are relative, with forward slashes."""

    def read(self, key: str) -> bytes: ...
    def write(self, key: str, data: bytes) -> None: ...
    def claim(self, key: str, data: bytes) -> bool: ...
    def stat(self, key: str) -> Entry | None: ...
    def list(self, prefix: str) -> Iterator[Entry]: ...
    def delete(self, key: str) -> None: ...
    def upload(self, path: Path, key: str) -> None: ...
    def download(self, key: str, path: Path) -> None: ...
    def filesystem(self) -> tuple[pyarrow.fs.FileSystem, str]: ...
