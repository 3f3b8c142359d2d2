"""The chunk wamd of Wildlife Acoustics' recorders: fields of a number, a length and content, without padding."""

from __future__ import annotations

import struct
from collections.abc import Iterable

from rave_dist.audio.metadata.text import MOST_ENTRIES, MetadataError, clean

START_TIME, GPS_FIRST = 5, 6
_NOT_TRUE = {0x0D: "voice note", 0x10: "recorder settings", 0x11: "recorder state"}
FILLER = 0xFFFF
_HEADER = struct.Struct("<HI")


def read_wamd(data: bytes) -> tuple[tuple[tuple[int, bytes], ...], list[str]]:
    """The fields, and remarks about those that hold for the source only: they state its sample rate or are a recording.

    Raises:
        MetadataError: a field is longer than the chunk, or there are too many.
    """
    fields: list[tuple[int, bytes]] = []
    remarks: list[str] = []
    place = 0
    while place + _HEADER.size <= len(data):
        number, size = _HEADER.unpack_from(data, place)
        place += _HEADER.size
        if place + size > len(data) or len(fields) == MOST_ENTRIES:
            raise MetadataError("a field is longer than the chunk" if len(fields) < MOST_ENTRIES else "too many fields")
        if number in _NOT_TRUE:
            remarks.append(f"wamd {_NOT_TRUE[number]}: it holds for the recording only")
        elif number != FILLER:
            fields.append((number, data[place : place + size]))
        place += size
    return tuple(fields), remarks


def build_wamd(fields: Iterable[tuple[int, bytes]]) -> bytes:
    """The content of the chunk."""
    return b"".join(_HEADER.pack(number, len(content)) + content for number, content in fields)


def wamd_text(fields: Iterable[tuple[int, bytes]], number: int) -> str:
    """A field's text, or an empty one."""
    return next((clean(content.decode("utf-8", "replace")) for key, content in fields if key == number), "")


def wamd_position(text: str) -> tuple[float, float] | None:
    """Latitude and longitude in degrees of ``WGS84, 52.5, N, 13.4, E``; None for other texts."""
    parts = [part.strip() for part in text.split(",")]
    try:
        latitude, longitude = float(parts[1]), float(parts[3])
        return latitude * {"N": 1, "S": -1}[parts[2]], longitude * {"E": 1, "W": -1}[parts[4]]
    except (IndexError, KeyError, ValueError):
        return None
