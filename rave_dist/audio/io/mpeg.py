"""The recordings of an MPEG audio file (MP3, MP2), frame by frame, because decoders believe the first frame's count.

A first frame may declare the number of frames (``Xing``, ``Info`` or ``VBRI``): joined files have several of these, and
programs that cut files leave wrong ones. Formats: ISO/IEC 11172-3 and 13818-3; the Xing, LAME and VBRI headers as published
by their authors.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from rave_dist.audio.io.byte_view import Piece, Source, Window
from rave_dist.audio.io.joined import is_padding
from rave_dist.audio.io.parts import Part, Parts
from rave_dist.audio.io.tags import tag_bytes, without_tags

_MOST_FRAME_BYTES = 8192
_KILOBITS = {
    (1, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (1, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (1, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (2, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (2, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (2, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}  # MPEG 1, 2 and 2.5
_FRAMES, _BYTES = 1, 2  # flags of a Xing header


class _Header(NamedTuple):
    """What the four bytes of a frame's header say; ``kind`` stays the same within a recording."""

    bytes: int
    samples: int
    kind: tuple[int, int, int, bool]
    side: int


@cache
def _header(second: int, third: int, mono: bool) -> _Header | None:
    version, layer = second >> 3 & 3, 4 - (second >> 1 & 3)
    kilobits, rate = third >> 4, third >> 2 & 3
    if second & 0xE0 != 0xE0 or version == 1 or layer == 4 or kilobits in (0, 15) or rate == 3:
        return None
    hertz = _RATES[version][rate]
    bits = 1000 * _KILOBITS[1 if version == 3 else 2, layer][kilobits - 1]
    samples = {1: 384, 2: 1152, 3: 1152 if version == 3 else 576}[layer]
    padding = third >> 1 & 1
    length = 4 * (12 * bits // hertz + padding) if layer == 1 else samples // 8 * bits // hertz + padding
    side = (17 if mono else 32) if version == 3 else (9 if mono else 17)
    return _Header(length, samples, (version, layer, hertz, mono), side)


class _Frame(NamedTuple):
    start: int
    stop: int
    header: _Header
    declared: _Count | None
    cut: bool
    junk: int


@dataclass(frozen=True)
class _Count:
    """A declared number of frames, and where it is written; the number of bytes likewise."""

    frames: int
    place: int
    bytes: int | None
    bytes_place: int


class _Window(Window):
    """A file's bytes around a place, with frames and tags among them."""

    def header(self, place: int) -> _Header | None:
        data, at = self.at(place, 4)
        if len(data) < at + 4 or data[at] != 0xFF:
            return None
        return _header(data[at + 1], data[at + 2], data[at + 3] >> 6 == 3)

    def first_frame(self) -> int | None:
        """Where the first frame begins, if frames follow the tags at the start of the file."""
        start = 0
        while length := self.tag(start):
            start += length
        return start if self.is_frame(start) else None

    def is_frame(self, place: int, followers: int = 2) -> bool:
        """Whether a frame and others like it begin here; the last of a file needs none behind it."""
        first = header = self.header(place)
        for _ in range(followers):
            if header is None or first is None or header.kind[:3] != first.kind[:3]:
                return False
            place += header.bytes
            if place >= self.size or self.tag(place):
                return True
            header = self.header(place)
        return header is not None

    def tag(self, place: int) -> int:
        """The length of a tag that begins here, or 0."""
        data, at = self.at(place, 32)
        return tag_bytes(data[at : at + 32])


def is_mpeg_audio(file: Source) -> bool:
    """Whether frames of MPEG audio or of ADTS follow the tags at the start of a file, whose decoders know these tags.

    Raises:
        OSError: the file cannot be read.
    """
    file.seek(without_tags(file).start)
    head = file.read(2)
    return len(head) == 2 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0


def declares_length(file: Source) -> bool:
    """Whether a file's first frame gives the number of frames; without it libsndfile estimates the length and reads no further.

    Raises:
        OSError: the file cannot be read.
    """
    window = _Window(file)
    start = window.first_frame()
    header = None if start is None else window.header(start)
    return start is not None and header is not None and _count(window, start, header) is not None


def find_mpeg_parts(file: Source) -> Parts | None:
    """The recordings of an MPEG audio file; None for other files and for intact ones of a single recording.

    Raises:
        OSError: the file cannot be read.
    """
    window = _Window(file)
    start = window.first_frame()
    if start is None:
        return None
    notes: list[str] = []
    recordings = list(_recordings(_frames(window, start)))
    found = [_part(recording, notes) for recording in recordings]
    end = recordings[-1].ranges[-1].stop
    while length := window.tag(end):
        end += length
    if end < window.size and not is_padding(file, end, window.size):
        notes.append(f"{window.size - end} bytes behind the end of the sound are not used")
    if len(found) == 1 and not notes and found[0].damage is None and end >= window.size:
        return None
    return Parts(tuple(found), tuple(notes))


def _frames(window: _Window, place: int) -> Iterator[_Frame]:
    junk = 0
    header: _Header | None = None
    while place < window.size:
        before, header = header, window.header(place)
        if header is None:
            behind = place + window.tag(place)
            place = _next_frame(window, behind, like=before)
            junk += place - behind
            header = before
            continue
        stop = place + header.bytes
        cut = stop > window.size
        resume = min(stop, window.size)
        if not cut and window.header(stop) is None and not window.tag(stop) and stop < window.size:
            inner = _next_frame(window, place + 4, stop)  # a file that was cut inside a frame, and another one behind it
            if inner < stop:
                cut, resume = True, inner
        yield _Frame(place, resume, header, _count(window, place, header), cut, junk)
        place, junk = resume, 0


def _next_frame(window: _Window, place: int, stop: int | None = None, like: _Header | None = None) -> int:
    """The place of the next frame; one at the end of the file, which none follows, must be like the ones before."""
    stop = window.size if stop is None else stop
    while place < stop:
        data, at = window.at(place, _MOST_FRAME_BYTES)
        found = data.find(b"\xff", at)
        if found < 0:
            place += len(data) - at
            if not data[at:]:
                return stop
            continue
        place += found - at
        header = window.header(place)
        if header is not None and window.is_frame(place):
            alone = place + header.bytes >= window.size
            if not alone or like is None or header.kind[:3] == like.kind[:3]:
                return place
        place += 1
    return stop


def _count(window: _Window, place: int, header: _Header) -> _Count | None:
    data, at = window.at(place, 128)
    for name, offset in ((b"Xing", 4 + header.side), (b"Info", 4 + header.side), (b"VBRI", 36)):
        if data.startswith(name, at + offset) and len(data) >= at + offset + 18:
            if name == b"VBRI":
                length, frames = struct.unpack_from(">II", data, at + offset + 10)
                return _Count(frames, place + offset + 14, length, place + offset + 10)
            flags, frames, length = struct.unpack_from(">III", data, at + offset + 4)
            if flags & _FRAMES:
                return _Count(frames, place + offset + 8, length if flags & _BYTES else None, place + offset + 12)
    return None


@dataclass
class _Recording:
    """Consecutive frames of one recording; ``junk`` counts bytes between them that are neither frames nor tags."""

    ranges: list[range]
    header: _Header
    count: _Count | None
    frames: int
    cut: bool
    junk: int = 0

    def add(self, frame: _Frame) -> None:
        last = self.ranges[-1]
        if last.stop == frame.start:
            self.ranges[-1] = range(last.start, frame.stop)
        else:
            self.ranges.append(range(frame.start, frame.stop))
        self.cut, self.frames, self.junk = frame.cut, self.frames + 1, self.junk + frame.junk

    @property
    def bytes(self) -> int:
        return sum(map(len, self.ranges))

    @property
    def complete(self) -> bool:
        """Whether this is as long as its first frame declares."""
        return self.count is not None and self.count.frames == self.frames - 1 and self.count.bytes == self.bytes


def _recordings(frames: Iterator[_Frame]) -> Iterator[_Recording]:
    """Splits frames where another recording begins: a new count, another format, or the end that the count declares."""
    part: _Recording | None = None
    for frame in frames:
        if part is not None:
            if frame.declared is None and frame.header.kind == part.header.kind and not part.complete:
                part.add(frame)
                continue
            yield part
        part = _Recording([range(frame.start, frame.stop)], frame.header, frame.declared, 1, frame.cut)
    if part is not None:
        yield part


def _part(recording: _Recording, notes: list[str]) -> Part:
    """A recording without what is not audio, and with the number of its frames in its header."""
    count, header = recording.count, recording.header
    damage = f"damaged: {recording.junk} bytes in it are not audio" if recording.junk else None
    frames, length = recording.frames - 1 - recording.cut, recording.bytes
    if count is None or count.frames == frames:
        incomplete = "truncated: its last frame is incomplete" if recording.cut else None
        return Part(tuple(recording.ranges), damage or incomplete)
    if damage is None:
        declared, actual = (number * header.samples / header.kind[2] for number in (count.frames, frames))
        if count.frames > frames and (count.bytes is None or count.bytes > length or recording.cut):
            return Part(tuple(recording.ranges), f"truncated: {actual:.3f} s of {declared:.3f} s")
        notes.append(f"an MP3 header declares {declared:.3f} s; all {actual:.3f} s are used")
    new = {count.place: struct.pack(">I", frames)}
    if count.bytes is not None:
        new[count.bytes_place] = struct.pack(">I", length)
    first = recording.ranges[0]
    pieces: list[Piece] = []
    start = first.start
    for place in sorted(new):
        pieces += [range(start, place), new[place]]
        start = place + 4
    return Part((*pieces, range(start, first.stop), *recording.ranges[1:]), damage)
