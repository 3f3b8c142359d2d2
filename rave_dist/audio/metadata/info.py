"""Lists of chunks inside chunks: LIST/INFO and LIST/adtl; and the ID3v2.4 tag that repeats INFO with a declared encoding."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Iterator

from rave_dist.audio.metadata.names import ID3_FRAMES, INFO_IDS
from rave_dist.audio.metadata.text import MOST_ENTRIES, MetadataError

_RAW_ID = re.compile("I[A-Z0-9]{3}")


def read_list(data: bytes, order: str = "<") -> list[tuple[bytes, bytes]]:
    """The parts of a list, without its type; a missing byte of padding is noticed by the name that follows.

    Raises:
        MetadataError: a part is longer than the list, or there are too many.
    """
    parts = []
    place = 0
    while place + 8 <= len(data):
        name, size = data[place : place + 4], struct.unpack_from(f"{order}I", data, place + 4)[0]
        place += 8
        if place + size > len(data):
            raise MetadataError(f"its part {name.decode('ascii', 'replace')} is longer than the list")
        parts.append((name, data[place : place + size]))
        if len(parts) > MOST_ENTRIES:
            raise MetadataError("too many parts")
        place += size
        place += place % 2 and not data[place : place + 4].isalnum()
    return parts


def chunk(name: bytes, content: bytes) -> bytes:
    """A chunk with its padding."""
    return name + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)


def build_list(kind: bytes, parts: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The content of a LIST."""
    return kind + b"".join(chunk(name, content) for name, content in parts)


def info_parts(tags: Iterable[tuple[str, str]]) -> Iterator[tuple[bytes, bytes]]:
    """The parts of INFO for those tags that it has a name for, each name once."""
    seen = set()
    for name, text in tags:
        key = INFO_IDS.get(name) or (name if _RAW_ID.fullmatch(name) else None)
        if key is not None and key not in seen:
            seen.add(key)
            yield key.encode(), text.encode() + b"\0"


def build_id3(tags: Iterable[tuple[str, str]]) -> bytes:
    """An ID3v2.4 tag of an even length."""
    frames = b"".join(_frame(name, text) for name, text in tags)
    frames += b"\0" * (len(frames) % 2)
    return b"ID3\x04\0\0" + _seven_bits(len(frames)) + frames


def _frame(name: str, text: str) -> bytes:
    if name == "COMMENT":
        content = b"\x03XXX\0" + text.encode()
        return b"COMM" + _seven_bits(len(content)) + b"\0\0" + content
    key = ID3_FRAMES.get(name)
    content = b"\x03" + (text if key else f"{name}\0{text}").encode()
    return (key or "TXXX").encode() + _seven_bits(len(content)) + b"\0\0" + content


def _seven_bits(size: int) -> bytes:
    return bytes(size >> shift & 0x7F for shift in (21, 14, 7, 0))
