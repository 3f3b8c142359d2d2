"""Declared audio lengths, read from a few header bytes, because decoders shorten truncated files without an error.

``sound_bytes`` looks at the chunks of WAV and its relatives, the boxes of MP4, and the last page of Ogg (RFC 3533).
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import BinaryIO

from rave_dist.audio.io.dialects import never_closed
from rave_dist.audio.io.fixed_headers import fixed_header_sound
from rave_dist.audio.io.flac import flac_samples
from rave_dist.audio.io.layout import SoundBytes, chunked_sound
from rave_dist.audio.io.mpeg import find_mpeg_parts
from rave_dist.audio.io.ogg import find_ogg_parts
from rave_dist.audio.io.parts import Parts
from rave_dist.audio.io.voc import voc_sound

_OGG_TAIL_BYTES = 128 * 1024  # a page is at most 65,307 bytes


def sound_bytes(path: Path) -> SoundBytes | None:
    """Declared and present bytes of a file's audio; None where the headers do not give them.

    That is so for some formats, and for files that their recorder never closed.

    Raises:
        AudioError: an endless list of empty chunks.
        OSError: the file cannot be read.
    """
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        head = file.read(12)
        if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
            declared = struct.unpack_from("<I", head, 4)[0]
            return SoundBytes(declared, min(declared, size - 8)) if declared and not never_closed(declared) else None
        if head[:4] == b"OggS":
            return _ogg(file, size)
        if head[4:8] == b"ftyp":
            return _mp4(file, size)
        return chunked_sound(file) or voc_sound(file) or flac_samples(file) or fixed_header_sound(file)


def find_parts(path: Path) -> Parts | None:
    """The recordings of an Ogg or MPEG audio file; None for other files and where decoders need no help.

    Raises:
        OSError: the file cannot be read.
    """
    with open(path, "rb") as file:
        return find_ogg_parts(file) or find_mpeg_parts(file)


def _ogg(file: BinaryIO, size: int) -> SoundBytes | None:
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


def _mp4(file: BinaryIO, size: int) -> SoundBytes | None:
    """Checks that every box ends within the file; sizes of 0 (to the end) and 1 (a 64-bit size follows) are special."""
    offset = 0
    while offset + 8 <= size:
        file.seek(offset)
        header = file.read(16)
        length = struct.unpack_from(">I", header)[0]
        if length == 1 and len(header) == 16:
            length = struct.unpack_from(">Q", header, 8)[0]
        if length < 8:
            return None
        if offset + length > size:
            return SoundBytes(offset + length, size)
        offset += length
    return None
