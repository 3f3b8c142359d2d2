"""FLAC's metadata blocks: comments, cue sheets and foreign chunks read, comments and cue sheets written (RFC 9639, 8)."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from rave_dist.audio.io.byte_view import Source
from rave_dist.audio.metadata.names import vorbis_name
from rave_dist.audio.metadata.record import Cue
from rave_dist.audio.metadata.text import MOST_ENTRIES, MetadataError, clean

PADDING, APPLICATION, SEEKTABLE, VORBIS_COMMENT, CUESHEET, PICTURE = 1, 2, 3, 4, 5, 6
STREAMINFO_END = 42  # the mark fLaC and the first block
_LAST = 0x80
_MOST_BLOCKS = 1000
_MOST_BLOCK_BYTES = 2**24 - 1
_SHEET = struct.Struct(">128sQB258sB")
_TRACK = struct.Struct(">QB12sB13sB")
_INDEX = struct.Struct(">QB3s")
_LEAD_OUT = 255
_MOST_TRACKS = 99


class Block(NamedTuple):
    """A metadata block: its kind, and where its content is."""

    kind: int
    start: int
    size: int


def flac_blocks(file: Source, start: int) -> Iterator[Block]:
    """The metadata blocks of a FLAC file that begins at ``start``, as far as their headers can be read."""
    place = start + 4
    for _ in range(_MOST_BLOCKS):
        file.seek(place)
        header = file.read(4)
        if len(header) < 4:
            return
        block = Block(header[0] & 0x7F, place + 4, int.from_bytes(header[1:], "big"))
        yield block
        if header[0] & _LAST:
            return
        place = block.start + block.size


def read_comments(data: bytes) -> list[tuple[str, str]]:
    """The comments of a block, with their names in capitals; those that are not UTF-8 have replacement characters.

    Raises:
        MetadataError: a comment is longer than the block.
    """
    comments: list[tuple[str, str]] = []
    place = 4 + _size(data, 0)
    count, place = _size(data, place), place + 4
    for _ in range(count):
        size, place = _size(data, place), place + 4
        if place + size > len(data) or len(comments) == MOST_ENTRIES:
            raise MetadataError(f"it declares {count} comments in {len(data)} bytes")
        name, equals, text = data[place : place + size].decode("utf-8", "replace").partition("=")
        if equals:
            comments.append((vorbis_name(name), clean(text)))
        place += size
    return comments


def _size(data: bytes, place: int) -> int:
    if place + 4 > len(data):
        raise MetadataError("its comments are longer than the block")
    return int(struct.unpack_from("<I", data, place)[0])


def read_cuesheet(data: bytes) -> tuple[Cue, ...]:
    """The index points of a cue sheet's tracks.

    Raises:
        MetadataError: the block is shorter than it says.
    """
    cues: list[Cue] = []
    try:
        *_, tracks = _SHEET.unpack_from(data)
        place = _SHEET.size
        for _ in range(tracks):
            offset, number, *_, indices = _TRACK.unpack_from(data, place)
            place += _TRACK.size
            for _ in range(indices):
                cues.append(Cue(len(cues) + 1, offset + _INDEX.unpack_from(data, place)[0], label=f"Track {number}"))
                place += _INDEX.size
    except struct.error as error:
        raise MetadataError("it is shorter than it says") from error
    if len(cues) > MOST_ENTRIES:
        raise MetadataError("too many index points")
    return tuple(cues)


def build_comments(vendor: bytes, comments: Iterable[tuple[str, str]]) -> bytes:
    """The content of a block of comments."""
    entries = [f"{name}={text}".encode() for name, text in comments]
    counted = b"".join(struct.pack("<I", len(entry)) + entry for entry in entries)
    return struct.pack("<I", len(vendor)) + vendor + struct.pack("<I", len(entries)) + counted


def build_cuesheet(cues: Iterable[Cue], samples: int) -> bytes | None:
    """The content of a cue sheet with a track for each cue point; None where there are none, or more than it holds."""
    places = sorted({cue.position for cue in cues if cue.position < samples})
    if not 0 < len(places) <= _MOST_TRACKS:
        return None
    tracks = [_TRACK.pack(place, number, b"", 0, b"", 1) + _INDEX.pack(0, 1, b"") for number, place in enumerate(places, 1)]
    lead_out = _TRACK.pack(samples, _LEAD_OUT, b"", 0, b"", 0)
    return _SHEET.pack(b"", 0, 0, b"", len(tracks) + 1) + b"".join(tracks) + lead_out


def build_block(kind: int, content: bytes) -> bytes:
    """A block that is not the last one.

    Raises:
        MetadataError: it is longer than a block can be.
    """
    if len(content) > _MOST_BLOCK_BYTES:
        raise MetadataError(f"a block of {len(content)} bytes, more than FLAC holds")
    return bytes([kind]) + len(content).to_bytes(3, "big") + content
