"""Declared audio lengths, read from a few header bytes, because decoders shorten truncated files without an error.

``examine`` looks at the chunks of WAV and its relatives, the boxes of MP4, and the last page of Ogg (RFC 3533).
"""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path

from rave_dist.audio.io.avi import avi_sound
from rave_dist.audio.io.byte_view import ByteView, Source, file_size, shifted
from rave_dist.audio.io.fixed_headers import fixed_header_sound
from rave_dist.audio.io.flac import flac_samples
from rave_dist.audio.io.frames import framed_sound
from rave_dist.audio.io.joined import is_padding, next_file
from rave_dist.audio.io.layout import SoundBytes, chunked_sound
from rave_dist.audio.io.matroska import matroska_sound
from rave_dist.audio.io.mpeg import find_mpeg_parts, is_mpeg_audio
from rave_dist.audio.io.ogg import find_ogg_parts
from rave_dist.audio.io.partial_copy import PartialCopy
from rave_dist.audio.io.parts import TRUNCATED, Part, Parts
from rave_dist.audio.io.stream_ends import stream_sound
from rave_dist.audio.io.tags import without_tags
from rave_dist.audio.io.voc import voc_sound

# Of the top level; what follows them and is none of them does not belong to the container.
_BOXES = frozenset(b"ftyp moov mdat free skip wide pnot moof mfra sidx styp ssix emsg prft uuid udta meta pdin junk".split())
_OGG_TAIL_BYTES = 128 * 1024  # a page is at most 65,307 bytes


def examine(path: Path | PartialCopy) -> tuple[SoundBytes | None, Parts | None]:
    """Declared and present bytes of a file's audio, and its recordings where it has several; None where decoders need no help.

    Raises:
        AudioError: an endless list of empty chunks.
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        held = chunked_sound(file) or voc_sound(file) or flac_samples(file) or fixed_header_sound(file)
        if held is not None:
            return (held, None) if held.next_file is None else (None, _joined(file))
        mpeg = find_mpeg_parts(file)
        if mpeg is not None:
            return None, mpeg
        within = without_tags(file)
        if len(within) == file_size(file) or is_mpeg_audio(file):
            return _examine(file)
        held, parts = _examine(ByteView(file, [within]))
        if parts is not None:
            moved = tuple(replace(part, pieces=shifted(part.pieces, within.start)) for part in parts.parts)
            return held, replace(parts, parts=moved)
        held = held or SoundBytes(None, len(within))
        pieces = (within,) if held.pieces is None else shifted(held.pieces, within.start)
        return replace(held, pieces=pieces), None


def _examine(file: Source) -> tuple[SoundBytes | None, Parts | None]:
    """As `examine`, of files whose tags do not belong to their format."""
    parts = find_ogg_parts(file)
    held = _sound_bytes(file)
    if held is None or held.next_file is None:
        return held, parts
    return None, _joined(file)


def _sound_bytes(file: Source) -> SoundBytes | None:
    size = file_size(file)
    file.seek(0)
    head = file.read(12)
    if head[:4] == b"OggS":
        return _ogg(file, size)
    if head[4:8] == b"ftyp":
        return _mp4(file, size)
    return avi_sound(file) or matroska_sound(file) or stream_sound(file) or framed_sound(file)


def _joined(file: Source) -> Parts:
    """The recordings of a file in which others follow the first one."""
    parts: list[Part] = []
    start, size = 0, file_size(file)
    while start < size:
        rest = _one(ByteView(file, [range(start, size)]))
        stop = size if rest is None or rest.next_file is None else start + rest.next_file
        held = _one(ByteView(file, [range(start, stop)]))
        pieces = (range(start, stop),) if held is None or held.pieces is None else shifted(held.pieces, start)
        cut = TRUNCATED if held is not None and held.is_cut else None
        parts.append(Part(pieces, cut if held is None else held.damage or cut))
        start = stop
    return Parts(tuple(parts))


def _one(file: Source) -> SoundBytes | None:
    return chunked_sound(file) or voc_sound(file) or flac_samples(file) or fixed_header_sound(file) or _sound_bytes(file)


def _ogg(file: Source, size: int) -> SoundBytes | None:
    """Checks that the last page ends within the file; tags or padding may follow it."""
    start = max(0, size - _OGG_TAIL_BYTES)
    file.seek(start)
    tail = file.read()
    page = tail.rfind(b"OggS\0")
    if page < 0 or len(tail) < page + 27:
        return SoundBytes(size + 1, size) if page >= 0 else None
    segments = tail[page + 26]
    table = tail[page + 27 : page + 27 + segments]
    end = start + page + 27 + segments + sum(table)
    return SoundBytes(end, min(end, size))


def _mp4(file: Source, size: int) -> SoundBytes | None:
    """Checks that every box ends within the file; sizes of 0 (to the end) and 1 (a 64-bit size follows) are special."""
    offset = 0
    while offset + 8 <= size:
        file.seek(offset)
        header = file.read(16)
        length, name = struct.unpack_from(">I4s", header)
        if length == 1 and len(header) == 16:
            length = struct.unpack_from(">Q", header, 8)[0]
        stray = bool(offset) and name not in _BOXES
        if stray or name == b"ftyp" or offset + length > size:
            following = next_file(file, 0, offset, size) if offset else None
            if following is not None:
                return SoundBytes(None, following, next_file=following)
        if stray:
            padding = is_padding(file, offset, size)
            return None if padding else SoundBytes(None, offset, (range(offset),), size - offset)
        if offset + length > size:
            return SoundBytes(offset + length, size)
        if length < 8:
            return None
        offset += length
    return None
