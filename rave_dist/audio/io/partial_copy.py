"""A stored recording as a file of this machine whose bytes are fetched when they are read, each once.

Most recordings are opened with two requests, for their beginning and their end, however long they are. A decoder that reads
further gets ever larger ranges: a recording that must be read whole costs some requests more than its download.
"""

from __future__ import annotations

import io
import os
from typing import BinaryIO

from rave_dist.audio.io.snapshot import changed
from rave_dist.errors import StoreError, from_os_error
from rave_dist.storage.backend import Entry
from rave_dist.storage.store import Store

_BLOCK_BYTES = 1 << 14
_HEAD_BLOCKS = 28  # headers, and the samples among which compressed streams are looked for
_TAIL_BLOCKS = 5  # tags, indexes, the last frame
_LEAST_BLOCKS, _MOST_BLOCKS = 4, 512
_NEAR_BLOCKS = 16  # a read this close behind the last range continues it: decoders skip what they do not need


class PartialCopy:
    """The opened copy; of use to one thread.

    Args:
        store: that has the recording.
        entry: the recording in it, as it was listed.
        file: a new, empty file, which must stay open.
        path: of this file.

    Attributes:
        bytes: size of the recording.
        suffix: of its name.
        address: of the recording.
    """

    def __init__(self, store: Store, entry: Entry, file: io.FileIO, path: str) -> None:
        self.bytes = entry.bytes
        self.suffix = os.path.splitext(entry.key)[1]
        self.address = store.address(entry.key)
        self._store, self._entry, self._file, self._path = store, entry, file, path
        self._present = bytearray(-(-entry.bytes // _BLOCK_BYTES))
        self._last = range(0)
        self._error: StoreError | None = None

    def open(self, mode: str = "rb", buffering: int = -1) -> BinaryIO:
        """As `pathlib.Path.open`, for reading."""
        reader = _Reader(self)
        return reader if buffering == 0 else io.BufferedReader(reader)  # type: ignore[return-value]

    def complete(self) -> str:
        """The path of the copy, once all of it was fetched.

        Raises:
            StoreError: as `read`.
        """
        step = _MOST_BLOCKS * _BLOCK_BYTES
        for start in range(0, self.bytes, step):
            self.read(start, start + step)
        return self._path

    def read(self, start: int, stop: int) -> bytes:
        """The bytes between two places, fewer at the end.

        Raises:
            StoreError: the recording cannot be read, or changed since it was listed; the same one at every later call.
        """
        self.check()
        try:
            self._fetch(start, min(stop, self.bytes))
            return os.pread(self._file.fileno(), max(0, min(stop, self.bytes) - start), start)
        except StoreError as error:
            self._error = error
            raise
        except OSError as error:
            self._error = from_os_error(error, where=self._path)
            raise self._error from error

    def check(self) -> None:
        """Raises the first error of `read` again, as decoders take errors of a file for its end."""
        if self._error is not None:
            raise self._error

    def _fetch(self, start: int, stop: int) -> None:
        block, end = start // _BLOCK_BYTES, -(-stop // _BLOCK_BYTES)
        while (block := self._present.find(0, block, max(block, end))) >= 0:
            present = self._present.find(1, block)
            most = len(self._present) if present < 0 else present
            last = min(most, max(end, block + self._ahead(block)))
            if last == len(self._present):
                block = min(block, max(self._present.rfind(1) + 1, last - _TAIL_BLOCKS))
            self._request(range(block, last))
            self._last = range(block, last)
            block = last

    def _ahead(self, block: int) -> int:
        """How many blocks to request: twice the last ones where reading continues behind them."""
        if block == 0:
            return _HEAD_BLOCKS + _TAIL_BLOCKS if len(self._present) <= _HEAD_BLOCKS + _TAIL_BLOCKS else _HEAD_BLOCKS
        continues = 0 <= block - self._last.stop <= _NEAR_BLOCKS
        return min(_MOST_BLOCKS, 2 * len(self._last)) if continues else _LEAST_BLOCKS

    def _request(self, blocks: range) -> None:
        start, stop = blocks.start * _BLOCK_BYTES, min(blocks.stop * _BLOCK_BYTES, self.bytes)
        data, tag = self._store.read_range(self._entry.key, start, stop)
        if tag != self._entry.tag or len(data) != stop - start:
            raise changed(self.address)
        self._file.seek(start)
        rest = memoryview(data)
        while rest:
            rest = rest[self._file.write(rest) :]
        self._present[blocks.start : blocks.stop] = b"\1" * len(blocks)


class _Reader(io.RawIOBase):
    """A place in a copy."""

    def __init__(self, copy: PartialCopy) -> None:
        self._copy = copy
        self._place = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        place = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._copy.bytes}[whence]
        if place < 0:
            raise OSError(22, "negative place in a file")  # as a file of the system does it
        self._place = place
        return place

    def readinto(self, buffer: bytearray | memoryview, /) -> int:  # type: ignore[override]
        wanted = memoryview(buffer).cast("B")
        data = self._copy.read(self._place, self._place + len(wanted))
        wanted[: len(data)] = data
        self._place += len(data)
        return len(data)
