"""The sound of containers of chunks, as far as the file holds it, whatever the sizes in its headers say.

A chunk is a name, a size and content. Recorders that lose power leave sizes of zero, of the last update of the header, or
placeholders; sizes of 32 bits wrap at 4 GiB; some programs write several chunks of sound. What follows the declared end of the
sound decides: further chunks, tags and padding are not sound, anything else is.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from rave_dist.audio.io.byte_view import Source
from rave_dist.audio.io.joined import begins_file, find_file, is_padding
from rave_dist.errors import AudioError

_MOST_CHUNKS = 10_000  # zeros after a header are an endless list of empty chunks, which libsndfile walks to its end
_TAIL_BYTES = 1 << 20  # where chunks behind a sound of unknown length are searched for
_STRAY_BYTES = 4096  # bytes behind a container that is complete by its own account are not sound; more of them are


@dataclass(frozen=True)
class Dialect:
    """How a family of containers writes chunks.

    Attributes:
        name_bytes: length of a name.
        size_format: of the size, for `struct`.
        counts_header: whether sizes include name and size.
        align: chunks start at multiples of this.
        sound: name of the chunk with the sound.
        others: names of chunks that are no sound; further names may occur.
        preamble: bytes between the header of the sound's chunk and the sound.
        placeholder: whether a size that the file does not have stands for "unknown".
    """

    name_bytes: int
    size_format: str
    counts_header: bool
    align: int
    sound: bytes
    others: frozenset[bytes]
    preamble: int
    placeholder: Callable[[int], bool]

    @property
    def header_bytes(self) -> int:
        """Length of a chunk's header."""
        return self.name_bytes + struct.calcsize(self.size_format)

    def is_known(self, name: bytes) -> bool:
        """Whether a chunk of this name belongs to the format."""
        return name == self.sound or name in self.others


class Chunk(NamedTuple):
    """A chunk: its name, the place of its header, and its content's place and declared length."""

    name: bytes
    place: int
    start: int
    size: int

    @property
    def stop(self) -> int:
        """Declared end of the content."""
        return self.start + self.size


class Sound(NamedTuple):
    """A chunk of sound: what the header declares, None for unknown, and where the sound is."""

    chunk: Chunk
    declared: int | None
    extent: range


@dataclass(frozen=True)
class Chunks:
    """The chunks of a file, and where another file follows that was joined to it."""

    sounds: tuple[Sound, ...]
    others: tuple[Chunk, ...]
    next_file: int | None = None

    @property
    def present(self) -> int:
        """Bytes of all sounds."""
        return sum(len(sound.extent) for sound in self.sounds)

    def first(self, name: bytes) -> Chunk | None:
        """The first chunk of a name that is not the sound's."""
        return next((chunk for chunk in self.others if chunk.name == name), None)


class Walk:
    """Walks the chunks of one file.

    Args:
        file: the file.
        dialect: of its chunks.
        within: the places of its bytes, without tags before and behind.
        size: of the file.
        closed_at: where the container ends by its own account, or None.

    Attributes:
        stray_bytes: bytes behind the end of the container that are neither sound nor tags nor padding.
        irregular: whether decoders may misread the file as it lies.
    """

    def __init__(self, file: Source, dialect: Dialect, *, within: range, size: int, closed_at: int | None) -> None:
        self._file = file
        self._dialect = dialect
        self._base = within.start
        self._end = within.stop
        self._size = size
        self._closed_at = closed_at
        self.stray_bytes = 0
        self.irregular = False

    def find(self, first: int, *, long_size: Callable[[Chunk], int | None] = lambda chunk: None) -> Chunks:
        """All chunks from the place of the first one on.

        Args:
            first: place of the first chunk.
            long_size: gives the size of a sound's chunk where it stands elsewhere.

        Raises:
            AudioError: an endless list of empty chunks.
            OSError: the file cannot be read.
        """
        sounds: list[Sound] = []
        others: list[Chunk] = []
        place: int | None = first
        for _ in range(_MOST_CHUNKS):
            joined = place is not None and place < self._end and begins_file(self._file, place)
            chunk = None if place is None or joined else self._chunk(place)
            if chunk is None:
                return Chunks(tuple(sounds), tuple(others), place if joined else None)
            if chunk.name != self._dialect.sound:
                others.append(chunk)
                place = self._next(chunk)
                continue
            size = long_size(chunk)
            sound = self._sound(chunk if size is None else chunk._replace(size=size))
            sounds.append(sound)
            place = self._behind(sound.extent.stop)
        raise AudioError("not a readable audio file")

    def _sound(self, chunk: Chunk) -> Sound:
        start = min(chunk.start + self._dialect.preamble, self._size)
        declared = chunk.size - self._dialect.preamble
        if declared <= 0:
            # An empty chunk, or the header of a recording that was never closed.
            stop = start if self._behind(start, complete=False) is not None else self._tail(start, start)
            return Sound(chunk, None if stop > start else 0, range(start, stop))
        stop = start + declared
        if stop > self._size:
            if self._dialect.placeholder(chunk.size):
                return Sound(chunk, None, range(start, self._tail(start, start)))
            return Sound(chunk, declared, range(start, self._tail(start, self._size)))
        ends = self._behind(stop) is not None
        if self.stray_bytes and find_file(self._file, self._base, range(start, stop)) is not None:
            ends, self.stray_bytes = False, 0
        return Sound(chunk, declared, range(start, stop if ends else self._tail(start, stop)))

    def _chunk(self, place: int) -> Chunk | None:
        """The chunk at a place; None where no header fits."""
        if self._end - place < self._dialect.header_bytes:
            return None
        self._file.seek(place)
        header = self._file.read(self._dialect.header_bytes)
        if len(header) < self._dialect.header_bytes:
            return None
        name, start = header[: self._dialect.name_bytes], place + len(header)
        size = struct.unpack_from(self._dialect.size_format, header, self._dialect.name_bytes)[0]
        return Chunk(name, place, start, size - len(header) * self._dialect.counts_header)

    def _next(self, chunk: Chunk) -> int | None:
        if chunk.size < 0:
            return None
        padded = self._padded(chunk.stop)
        if padded != chunk.stop:  # some programs leave out the padding
            close = self._chunk(chunk.stop)
            if close is not None and self._dialect.is_known(close.name):
                self.irregular = True
                return chunk.stop
        elif self.irregular and chunk.size % self._dialect.align and not self._is_known(padded) and self._is_known(padded + 1):
            return padded + 1  # behind a chunk without padding, others that have it start at odd places
        return padded

    def _is_known(self, place: int) -> bool:
        chunk = self._chunk(place)
        return chunk is not None and self._dialect.is_known(chunk.name)

    def _padded(self, place: int) -> int:
        return place + -(place - self._base) % self._dialect.align

    def _behind(self, stop: int, *, complete: bool = True) -> int | None:
        """Where chunks continue behind a sound that ends at ``stop``, or the end; None where the sound continues.

        Args:
            stop: end of the sound.
            complete: whether the container's own end counts.
        """
        for place in dict.fromkeys((self._padded(stop), stop)):
            if self._is_list(place):
                return place
            if self._end - place < self._dialect.header_bytes:
                self.stray_bytes = 0 if is_padding(self._file, place, self._end) else self._end - place
                return self._end
        closed = complete and self._closed_at is not None and abs(self._closed_at - stop) < 2 * self._dialect.align
        if is_padding(self._file, stop, self._end):
            self.irregular = True
            return self._end
        if closed and self._end - stop <= _STRAY_BYTES:
            self.stray_bytes = self._end - stop
            return self._end
        return None

    def _is_list(self, place: int) -> bool:
        """Whether the sound is over at a place: a known chunk, another file, or chunks that end where the file does."""
        first = self._chunk(place)
        if first is not None and (self._dialect.is_known(first.name) or begins_file(self._file, place)):
            return True
        return self._ends(place, self._end)

    def _ends(self, place: int, end: int) -> bool:
        """Whether chunks from a place on end where the file does."""
        for _ in range(_MOST_CHUNKS):
            left = end - place
            if left <= 0:
                return left > -self._dialect.align
            chunk = self._chunk(place)
            if chunk is None:
                return False
            if not (chunk.size >= 0 and chunk.stop <= end and _is_printable(chunk.name[:4])):
                return False
            following = self._next(chunk)
            assert following is not None
            place = following
        return False

    def _tail(self, start: int, least: int) -> int:
        """The end of a sound of unknown length, where another file begins or chunks of known names end with the file.

        Args:
            start: of the sound.
            least: where these chunks begin at the earliest.
        """
        end = find_file(self._file, self._base, range(start, self._end)) or self._end
        window = max(least, end - _TAIL_BYTES)
        self._file.seek(window)
        data = self._file.read(max(0, end - window))
        places = sorted(window + place for name in self._dialect.others for place in _places(data, name))
        return next((place for place in places if self._ends(place, end)), end)


def _is_printable(name: bytes) -> bool:
    return all(0x20 <= value < 0x7F for value in name)


def _places(data: bytes, name: bytes) -> Iterator[int]:
    place = data.find(name)
    while place >= 0:
        yield place
        place = data.find(name, place + 1)
