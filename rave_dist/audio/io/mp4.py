"""Which parts of an MP4 or QuickTime audio track are used, to the sample.

FFmpeg returns packets whole where an edit list starts or ends inside them, and counts silence at the start as audio, so its
own treatment of edit lists is turned off and the track is cut here. Sources: ISO/IEC 14496-12 (`elst`, `mdhd`, `stts`);
Apple's gapless tag ``iTunSMPB``.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import BinaryIO

_MOST_BOXES = 100_000
_MOST_BYTES = 256 << 20  # of `moov`; a day of AAC has 16 MB
_NO_EDIT = -1

Span = tuple[Fraction, Fraction | None]


@dataclass(frozen=True)
class Timeline:
    """The used parts of a track.

    Attributes:
        spans: start and end in seconds of the track's own time, ascending and separate; None stands for the end.
        length: of the whole track in seconds, or None where only its packets give it (a fragmented file).
        reordered: whether the edit list plays parts twice or in another order.
    """

    spans: tuple[Span, ...] = ((Fraction(0), None),)
    length: Fraction | None = None
    reordered: bool = False

    @property
    def used(self) -> Fraction | None:
        """Seconds of all spans together, if known."""
        ends = [(start, self.length if end is None else end) for start, end in self.spans]
        return None if any(end is None for _, end in ends) else sum((end - start for start, end in ends if end), Fraction(0))


def read_timeline(file: BinaryIO, track: int, tags: Mapping[str, str]) -> Timeline:
    """Reads the edit list of a track, or else the gapless tag. Keeps the position of the file.

    Args:
        file: open for reading.
        track: its id.
        tags: of the file and the track.

    Raises:
        OSError: the file cannot be read.
    """
    position = file.tell()
    try:
        moov = _content(file)
        trak = next(box for name, box in _boxes(moov) if name == b"trak" and _track_id(box) == track)
        fragmented = any(name == b"mvex" for name, _ in _boxes(moov))
        scale = _scale(_find(trak, b"mdia", b"mdhd"))
        length = None if fragmented else _length(trak, scale)
        edits = _edits(trak)
        movie_scale = _scale(_find(moov, b"mvhd"))
    except (LookupError, StopIteration, struct.error, ZeroDivisionError):
        return Timeline()
    finally:
        file.seek(position)
    if not edits:
        span = _gapless(tags, scale)
        return Timeline((span,) if span else Timeline.spans, length)
    spans = [_span(edit, movie_scale, scale, length) for edit in edits]
    merged = _merged(spans)
    return Timeline(tuple(merged), length, reordered=merged != spans)


def _content(file: BinaryIO) -> bytes:
    """The content of the box `moov`."""
    place = 0
    for _ in range(_MOST_BOXES):
        file.seek(place)
        header = file.read(16)
        size, name = struct.unpack_from(">I4s", header)
        content = 8
        if size == 1:
            size, content = struct.unpack_from(">Q", header, 8)[0], 16
        if name == b"moov" and size <= _MOST_BYTES:
            file.seek(place + content)
            return file.read(size - content if size else -1)
        if size < 8:
            break
        place += size
    raise LookupError("moov")


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    place = 0
    while place + 8 <= len(data):
        size, name = struct.unpack_from(">I4s", data, place)
        if size < 8:
            return
        yield name, data[place + 8 : place + size]
        place += size


def _find(data: bytes, *path: bytes) -> bytes:
    for name in path:
        data = next((box for found, box in _boxes(data) if found == name), b"")
    if not data:
        raise LookupError(path)
    return data


def _track_id(trak: bytes) -> int:
    head = _find(trak, b"tkhd")
    number: int = struct.unpack_from(">I", head, 20 if head[0] == 1 else 12)[0]
    return number


def _scale(head: bytes) -> int:
    """Units per second, of `mvhd` or `mdhd`."""
    scale: int = struct.unpack_from(">I", head, 20 if head[0] == 1 else 12)[0]
    return scale


def _length(trak: bytes, scale: int) -> Fraction:
    table = _find(trak, b"mdia", b"minf", b"stbl", b"stts")
    runs = struct.unpack_from(f">{2 * struct.unpack_from('>I', table, 4)[0]}I", table, 8)
    return Fraction(sum(count * units for count, units in zip(runs[::2], runs[1::2], strict=True)), scale)


def _edits(trak: bytes) -> list[tuple[int, int]]:
    """Length in the movie's units and start in the track's, of the edits in which something plays."""
    try:
        table = _find(trak, b"edts", b"elst")
    except LookupError:
        return []
    entry = struct.Struct(">QqI" if table[0] == 1 else ">IiI")
    count = struct.unpack_from(">I", table, 4)[0]
    found = [entry.unpack_from(table, 8 + index * entry.size) for index in range(count)]
    return [(length, start) for length, start, _ in found if start != _NO_EDIT]


def _span(edit: tuple[int, int], movie_scale: int, scale: int, length: Fraction | None) -> Span:
    start = Fraction(edit[1], scale)
    end = start + Fraction(edit[0], movie_scale)
    # Writers round the length of an edit to the movie's units. A length of zero is that of a fragmented file: to the end.
    if edit[0] == 0 or (length is not None and end > length - Fraction(1, movie_scale)):
        return start, None
    return start, end


def _merged(spans: list[Span]) -> list[Span]:
    merged: list[Span] = []
    for start, end in sorted(spans, key=lambda span: span[0]):
        if merged and (merged[-1][1] is None or start <= merged[-1][1]):
            last = merged[-1][1]
            merged[-1] = (merged[-1][0], None if last is None or end is None else max(last, end))
        elif end is None or end > start:
            merged.append((start, end))
    return merged


def _gapless(tags: Mapping[str, str], scale: int) -> Span | None:
    """Encoder delay and length, as iTunes writes them: four hexadecimal numbers, the second and the fourth."""
    try:
        _, delay, _, samples = (int(field, 16) for field in tags.get("iTunSMPB", "").split()[:4])
    except ValueError:
        return None
    return (Fraction(delay, scale), Fraction(delay + samples, scale)) if samples else None
