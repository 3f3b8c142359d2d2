"""The logical streams of an Ogg file: chained ones, one recording after another, and multiplexed ones, several at once.

Decoders read the first stream, and do not report pages that are missing. Format: RFC 3533.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from rave_dist.audio.io.byte_view import Piece, Source, file_size
from rave_dist.audio.io.parts import TRUNCATED, Part, Parts

_MARK = b"OggS\0"
_MOST_PAGE_BYTES = 27 + 255 + 255 * 255
_BUFFER_BYTES = 1 << 20
_FIRST, _LAST = 2, 4
_REVERSED = bytes(int(f"{value:08b}"[::-1], 2) for value in range(256))
# What the first packet of a stream of audio begins with, and where it has the sample rate.
_CODECS = {b"\x01vorbis": ("Vorbis", 12), b"OpusHead": ("Opus", None), b"\x7fFLAC": ("FLAC", 27), b"Speex   ": ("Speex", 36)}


@dataclass
class _Page:
    start: int
    stop: int
    flags: int
    granule: int
    stream: int
    number: int
    payload: bytes
    intact: bool
    cut: bool = False
    rest: bytes | None = None


@dataclass
class _Stream:
    """One logical stream: the places of its pages, and what is wrong with them."""

    head: bytes
    serial: int
    pieces: list[Piece] = field(default_factory=list)
    number: int = -1
    granule: int = 0
    cut: bool = False
    ended: bool = False
    missing: list[int] = field(default_factory=list)

    def add(self, page: _Page) -> None:
        gap = page.number > self.number + 1 and self.granule > 0  # before the first audio: recorded from a broadcast
        if gap or not (page.intact or page.cut):
            self.missing.append(self.granule)
        self.ended = bool(page.flags & _LAST)
        self.number = page.number
        if page.granule > 0:
            self.granule = page.granule
        self.cut = self.cut or page.cut
        last = self.pieces[-1] if self.pieces else b""
        if page.rest is not None:
            self.pieces.append(page.rest)
        elif isinstance(last, range) and last.stop == page.start:
            self.pieces[-1] = range(last.start, page.stop)
        else:
            self.pieces.append(range(page.start, page.stop))

    @property
    def codec(self) -> str | None:
        return next((name for magic, (name, _) in _CODECS.items() if self.head.startswith(magic)), None)

    @property
    def rate(self) -> int:
        at = next((at for magic, (_, at) in _CODECS.items() if self.head.startswith(magic)), None)
        if at is None or len(self.head) < at + 4:
            return 48000
        if self.codec == "FLAC":
            return max(1, int.from_bytes(self.head[at : at + 3], "big") >> 4)
        return max(1, int(struct.unpack_from("<I", self.head, at)[0]))

    @property
    def damage(self) -> str | None:
        if self.missing:
            places = ", ".join(f"{place / self.rate:.3f} s" for place in self.missing[:3])
            return f"damaged: pages are missing or damaged at {places}{', …' if len(self.missing) > 3 else ''}"
        return TRUNCATED if self.cut else None


def find_ogg_parts(file: Source) -> Parts | None:
    """The recordings of an Ogg file; None for other files and for intact ones of a single stream.

    Raises:
        OSError: the file cannot be read.
    """
    file.seek(0)
    if file.read(len(_MARK)) != _MARK:
        return None
    links = _links(file)
    chosen: list[_Stream] = []
    notes: list[str] = []
    for link in links:
        audio = [stream for stream in link if stream.codec is not None]
        chosen += audio[:1]
        if len(audio) > 1:
            others = " and ".join(f"{number} ({stream.codec})" for number, stream in enumerate(audio[1:], start=2))
            notes.append(f"only audio track 1 of {len(audio)} is used, not {others}")
    if any(not stream.ended for stream in chosen if not stream.cut):
        notes.append("a stream has no end: its recording or copying may have been interrupted")
    if not chosen or (len(links) == 1 and len(links[0]) == 1 and not chosen[0].damage and not notes):
        return None  # decoders need no help
    return Parts(tuple(Part(tuple(stream.pieces), stream.damage) for stream in chosen), tuple(dict.fromkeys(notes)))


def _links(file: Source) -> list[list[_Stream]]:
    """Groups of streams that begin together."""
    links: list[list[_Stream]] = []
    beginning = False
    for page in _pages(file):
        if page.flags & _FIRST:
            if not beginning:
                links.append([])
            beginning = True
            links[-1].append(_Stream(page.payload, page.stream))
        else:
            beginning = False
        stream = next((stream for stream in (links[-1] if links else []) if stream.serial == page.stream), None)
        if stream is not None:
            stream.add(page)
    return links


def _checksum(page: bytes) -> int:
    """The CRC of a page: that of zlib with all bits in reverse, and without its inversions."""
    crc = zlib.crc32(page.translate(_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{crc:032b}"[::-1], 2)


def _whole_packets(page: bytes) -> bytes:
    """A page that the file does not hold to its end, with the packets that it does; decoders leave out all of such a page."""
    body = 27 + page[26]
    present = 0
    whole = (0, 0)
    for number, length in enumerate(page[27:body], start=1):
        present += length
        if body + present > len(page):
            break
        if length < 255:
            whole = number, present
    segments, size = whole
    if not segments:
        return b""
    head, rest = page[:22], bytes([segments]) + page[27 : 27 + segments] + page[body : body + size]
    return head + struct.pack("<I", _checksum(head + bytes(4) + rest)) + rest


def _pages(file: Source) -> Iterator[_Page]:
    size = file_size(file)
    place = base = 0
    buffer = b""
    while place + 27 <= size:
        if place + _MOST_PAGE_BYTES + len(_MARK) > base + len(buffer) < size:
            file.seek(place)
            buffer, base = file.read(_BUFFER_BYTES), place
        at = place - base
        if not buffer.startswith(_MARK, at):
            found = buffer.find(_MARK, at)
            place = base + found if found >= 0 else max(place + 1, base + len(buffer) - len(_MARK) + 1)
            continue
        if len(buffer) < at + 27:
            return
        flags, granule, stream, number, checksum, segments = struct.unpack_from("<BqIIIB", buffer, at + 5)
        body = at + 27 + segments
        end = body + sum(buffer[at + 27 : body])
        intact = _checksum(buffer[at : at + 22] + bytes(4) + buffer[at + 26 : end]) == checksum
        page = _Page(place, base + end, flags, granule, stream, number, buffer[body : min(end, body + 64)], intact)
        if page.stop > size or not buffer.startswith(_MARK, end):
            inner = buffer.find(_MARK, at + 27, end)
            if inner >= 0 or page.stop > size:
                page.cut, page.stop = True, base + inner if inner >= 0 else size
            if page.stop == size and page.cut:
                page.rest = _whole_packets(buffer[at:])
        yield page
        place = page.stop
