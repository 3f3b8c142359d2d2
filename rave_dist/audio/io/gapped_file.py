"""The file that libsndfile writes to, with a gap for metadata that libsndfile does not know."""

from __future__ import annotations

import os
from io import FileIO
from pathlib import Path

from rave_dist.errors import from_os_error


class GappedFile:
    """A file in which a range of places does not exist for its writer: what follows it is written behind it.

    libsndfile cannot pass on errors of the system, so the first one is kept for `check`; further bytes, which would end in
    a file that is discarded, are ignored.

    Args:
        file: open for reading and writing, and empty.
        gap: places in the file; may be empty.
    """

    def __init__(self, file: FileIO, gap: range) -> None:
        self._file = file
        self._gap = gap
        self._place = 0
        self._error: OSError | None = None

    def write(self, data: bytes) -> int:
        """Writes all bytes."""
        rest = memoryview(data)
        while rest and self._error is None:
            before = self._gap.start - self._place
            try:
                written = self._file.write(rest[:before] if before > 0 else rest)
                self._place += written
                rest = rest[written:]
                if written == before:
                    self._file.seek(self._gap.stop)
            except OSError as error:
                self._error = error
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """As of files."""
        if whence == os.SEEK_END:
            end = self._file.seek(0, os.SEEK_END)
            offset += end if end <= self._gap.start else max(self._gap.start, end - len(self._gap))
        elif whence == os.SEEK_CUR:
            offset += self._place
        self._place = offset
        self._file.seek(offset if offset < self._gap.start else offset + len(self._gap))
        return offset

    def tell(self) -> int:
        """The place, without the gap."""
        return self._place

    def readinto(self, buffer: bytearray) -> int:
        """Reads at most up to the gap."""
        before = self._gap.start - self._place
        view = memoryview(buffer)
        count = self._file.readinto(view[:before] if before > 0 else view)
        self.seek(self._place + count)
        return count

    def read_at(self, place: int, count: int) -> bytes:
        """Bytes from a place on, which do not extend over the gap; fewer after an error."""
        self.seek(place)
        try:
            return self._file.read(count)
        except OSError as error:
            self._error = self._error or error
            return b""

    def write_at(self, place: int, data: bytes) -> None:
        """Replaces bytes."""
        self.seek(place)
        self.write(data)

    def fill(self, data: bytes) -> None:
        """Writes the content of the gap.

        Args:
            data: as long as the gap.
        """
        if len(data) != len(self._gap):
            raise ValueError(f"{len(data)} bytes for a gap of {len(self._gap)}")
        try:
            self._file.seek(self._gap.start)
            rest = memoryview(data)
            while rest and self._error is None:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            self._error = self._error or error

    def sync(self) -> None:
        """Waits until the disk has all bytes: a full one may be reported only here."""
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            self._error = self._error or error

    def check(self, path: Path) -> None:
        """Raises the first error.

        Raises:
            StoreError: the disk refused something.
        """
        if self._error is not None:
            raise from_os_error(self._error, where=str(path)) from self._error
