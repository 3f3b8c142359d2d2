"""A file as a decoder should see it: ranges of its bytes, joined, with other bytes between them."""

from __future__ import annotations

import io
import os
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import BinaryIO

_WINDOW_BYTES = range(1 << 16, (1 << 20) + 1)

Piece = bytes | range
"""Bytes as they are, or a range of places in the file."""


def file_size(file: Source) -> int:
    """The bytes of an open file."""
    return file.seek(0, os.SEEK_END)


def shifted(pieces: Sequence[Piece], places: int) -> tuple[Piece, ...]:
    """Pieces of a file that begins inside another one, as pieces of that one."""
    return tuple(piece if isinstance(piece, bytes) else range(piece.start + places, piece.stop + places) for piece in pieces)


class ByteView(io.RawIOBase):
    """A readable, seekable file made of pieces of another; closing it does not close the other.

    Args:
        file: the other, which must stay open.
        pieces: in order; ranges have a step of 1.

    Attributes:
        error: the first error of the disk; reading then ends, because callers in C cannot receive it.
    """

    def __init__(self, file: Source, pieces: Sequence[Piece]) -> None:
        self._file = file
        self._pieces = [piece for piece in pieces if len(piece)]
        self._starts = [0, *accumulate(len(piece) for piece in self._pieces)]
        self._place = 0
        self.error: OSError | None = None

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def read(self, size: int = -1, /) -> bytes:
        """As `io.RawIOBase.read`."""
        return super().read(size) or b""

    def tell(self) -> int:
        """The place of the next byte."""
        return self._place

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Moves to a place, as `io.IOBase.seek`."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._starts[-1]}[whence]
        self._place = max(0, base + offset)
        return self._place

    def readinto(self, buffer: bytearray | memoryview, /) -> int:  # type: ignore[override]
        """Fills a buffer, except at the end."""
        wanted = memoryview(buffer).cast("B")
        filled = 0
        while filled < len(wanted) and self._place < self._starts[-1]:
            index = bisect_right(self._starts, self._place) - 1
            piece, offset = self._pieces[index], self._place - self._starts[index]
            count = min(len(wanted) - filled, len(piece) - offset)
            if isinstance(piece, bytes):
                wanted[filled : filled + count] = piece[offset : offset + count]
            else:
                try:
                    self._file.seek(piece.start + offset)
                    data = self._file.read(count)
                except OSError as error:
                    self.error = self.error or error
                    break
                count = len(data)
                if not count:
                    break
                wanted[filled : filled + count] = data
            filled += count
            self._place += count
        return filled


Source = BinaryIO | ByteView
"""An open file, or a part of one."""


class Window:
    """An open file's bytes around a place, read in pieces that grow, as most files are recognised by few bytes.

    Args:
        file: the file.

    Attributes:
        size: of the file.
    """

    def __init__(self, file: Source) -> None:
        self._file = file
        self.size = file_size(file)
        self._base = 0
        self._data = b""
        self._bytes = _WINDOW_BYTES.start

    def at(self, place: int, count: int) -> tuple[bytes, int]:
        """A buffer, and the offset in it from which ``count`` bytes follow, unless the file ends before."""
        if place < self._base or place + count > self._base + len(self._data):
            self._file.seek(place)
            self._data, self._base = self._file.read(max(count, self._bytes)), place
            self._bytes = min(2 * self._bytes, _WINDOW_BYTES[-1])
        return self._data, place - self._base
