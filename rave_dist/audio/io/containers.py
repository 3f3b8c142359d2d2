"""Declared audio lengths, read from a few header bytes, because decoders shorten truncated files without an error.

``sound_bytes`` walks the chunks of RIFF/WAVE, RF64/BW64, AVI, AIFF, W64, CAF, AU and MP4, and the last page of Ogg. Formats:
EBU Tech 3306 (RF64), Apple's AIFF-C and CAF specifications, RFC 3533 (Ogg).
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import BinaryIO, NamedTuple

from rave_dist.errors import AudioError

_OGG_TAIL_BYTES = 128 * 1024  # a page is at most 65,307 bytes
_MOST_CHUNKS = 10_000  # zeros after a header are an endless list of empty chunks, which libsndfile walks to its end
_NOTHING = "not a readable audio file"
_MP3_HEAD_BYTES = 8192
_MP3_TAGS_BYTES = 1 << 20  # what may follow the audio: APE and ID3 tags, with pictures


class SoundBytes(NamedTuple):
    """Bytes of audio that a header declares, and bytes that the file has."""

    declared: int
    present: int

    @property
    def is_cut(self) -> bool:
        """Whether the file ends before its declared audio does."""
        return self.present < self.declared


def sound_bytes(path: Path) -> SoundBytes | None:
    """Declared and present bytes of a file's audio; None where the headers do not give them.

    That is so for some formats, and for files that their recorder never closed.

    Raises:
        AudioError: an endless list of empty chunks.
        OSError: the file cannot be read.
    """
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        head = file.read(40)
        if head[:4] in (b"RIFF", b"RIFX", b"RF64", b"BW64"):
            if head[8:12] == b"AVI ":
                return _present(struct.unpack_from("<I", head, 4)[0], 8, size)
            return _riff(file, size, big_endian=head[:4] == b"RIFX") if head[8:12] == b"WAVE" else None
        if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
            return _chunks(file, size, start=12, name=b"SSND", size_format=">I", align=2)
        if head[:4] == b"riff" and head[24:28] == b"wave":
            return _chunks(file, size, start=40, name=b"data", size_format="<Q", align=8, guid=True)
        if head[:4] == b"caff":
            return _chunks(file, size, start=8, name=b"data", size_format=">Q", align=1)
        if head[:4] == b".snd" and len(head) >= 12:
            offset, declared = struct.unpack_from(">II", head, 4)
            return _present(declared, offset, size)
        if head[:4] == b"OggS":
            return _ogg(file, size)
        if head[4:8] == b"ftyp":
            return _mp4(file, size)
    return None


def _present(declared: int, offset: int, size: int) -> SoundBytes | None:
    # Written to a pipe, or never closed: ffmpeg writes all ones, sox and arecord about 2 GiB, others zero.
    if declared == 0 or declared >= 2**63 - 1 or 2**32 - 2**16 <= declared < 2**32 or abs(declared - 2**31) <= 4096:
        return None
    return SoundBytes(declared, max(0, min(declared, size - offset)))


def _riff(file: BinaryIO, size: int, *, big_endian: bool) -> SoundBytes | None:
    offset, data_size_64 = 12, None
    for _ in range(_MOST_CHUNKS):
        if offset >= size:
            return None
        file.seek(offset)
        header = file.read(24)
        if len(header) < 8:
            return None
        name, length = header[:4], struct.unpack_from(">I" if big_endian else "<I", header, 4)[0]
        if name == b"ds64" and len(header) == 24:
            data_size_64 = struct.unpack_from("<Q", header, 16)[0]
        if name == b"data":
            declared = data_size_64 if length == 2**32 - 1 and data_size_64 is not None else length
            return _present(declared, offset + 8, size)
        offset += 8 + length + length % 2
    raise AudioError(_NOTHING)


def _chunks(
    file: BinaryIO, size: int, *, start: int, name: bytes, size_format: str, align: int, guid: bool = False
) -> SoundBytes | None:
    """Finds a chunk by name: name (4 bytes, or a GUID of 16 whose size counts its own header), size, content."""
    header_bytes = (16 if guid else 4) + struct.calcsize(size_format)
    offset = start
    for _ in range(_MOST_CHUNKS):
        if offset >= size:
            return None
        file.seek(offset)
        header = file.read(header_bytes)
        if len(header) < header_bytes:
            return None
        length = struct.unpack_from(size_format, header, 16 if guid else 4)[0] - (header_bytes if guid else 0)
        if length < 0:
            return None
        if header[:4] == name:
            return _present(length, offset + header_bytes, size)
        offset += header_bytes + -(-length // align) * align
    raise AudioError(_NOTHING)


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


def mp3_length_is_known(path: Path) -> bool:
    """Whether an MP3's first frame gives the length of the whole file (Xing, Info or VBRI header).

    Otherwise, and where several MP3s were concatenated, libsndfile estimates the length from the first frame's bit rate
    and reads no further.

    Raises:
        OSError: the file cannot be read.
    """
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        head = file.read(10)
        start = 0
        if head[:3] == b"ID3" and len(head) == 10:
            start = 10 + (head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9])
        file.seek(start)
        frame = file.read(_MP3_HEAD_BYTES)
    if b"VBRI" in frame[:64]:
        return True
    place = max(frame[:64].find(b"Xing"), frame[:64].find(b"Info"))
    if place < 0 or len(frame) < place + 16:
        return False
    flags, _, file_bytes = struct.unpack_from(">III", frame, place + 4)
    if not flags & 1:
        return False
    declared = file_bytes if flags & 2 else 0
    return declared == 0 or start + declared + _MP3_TAGS_BYTES >= size
