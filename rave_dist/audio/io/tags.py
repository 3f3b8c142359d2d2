"""Tags before and behind the audio of any file: ID3v2, ID3v1, APEv2 and Lyrics3.

Formats: id3.org for ID3 and Lyrics3, the wiki of Hydrogenaudio for APEv2.
"""

from __future__ import annotations

import struct

from rave_dist.audio.io.byte_view import Source, file_size

_ID3V1_BYTES = 128
_ID3V1_EXTENDED_BYTES = 227
_FOOTER_BYTES = 32


def without_tags(file: Source) -> range:
    """The places of a file's bytes without the tags before and behind them.

    Raises:
        OSError: the file cannot be read.
    """
    size = file_size(file)
    start, stop = 0, size
    while length := id3v2_bytes(_read(file, start, 10)):
        start += length
    while start < stop and (length := _behind(file, stop)):
        stop -= length
    return range(start, stop) if start < stop else range(size)


def _read(file: Source, place: int, count: int) -> bytes:
    if place < 0:
        return b""
    file.seek(place)
    return file.read(count)


def id3v2_bytes(head: bytes) -> int:
    """The length of the ID3v2 tag that begins with these 10 bytes, or ends with them as its footer; 0 where there is none."""
    if len(head) < 10 or head[:3] not in (b"ID3", b"3DI") or max(head[6:10]) > 127:
        return 0
    footer = 10 if head[5] & 0x10 or head[:3] == b"3DI" else 0
    return 10 + (head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9]) + footer


def _behind(file: Source, stop: int) -> int:
    """The length of the tag that ends at ``stop``, or 0."""
    if _read(file, stop - _ID3V1_BYTES, 3) == b"TAG":
        extended = _read(file, stop - _ID3V1_BYTES - _ID3V1_EXTENDED_BYTES, 4) == b"TAG+"
        return _ID3V1_BYTES + _ID3V1_EXTENDED_BYTES * extended
    footer = _read(file, stop - _FOOTER_BYTES, _FOOTER_BYTES)
    if footer[:8] == b"APETAGEX":
        length, _, flags = struct.unpack_from("<III", footer, 12)
        return int(length) + _FOOTER_BYTES * bool(flags & 1 << 31)
    if footer[-9:] == b"LYRICS200" and footer[-15:-9].isdigit():
        return int(footer[-15:-9]) + 15
    return id3v2_bytes(footer[-10:]) if footer[-10:-7] == b"3DI" else 0


def tag_bytes(head: bytes) -> int:
    """The length of the tag that begins with these bytes, 32 where the file has them; 0 where there is none."""
    if head.startswith(b"APETAGEX") and len(head) >= 24:
        size, _, flags = struct.unpack_from("<III", head, 12)
        return int(size + _FOOTER_BYTES * (flags >> 29 & 1))
    return _ID3V1_BYTES if head.startswith(b"TAG") else id3v2_bytes(head[:10])
