"""When and where a recording was made, from whichever of its metadata say so."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from rave_dist.audio.metadata.record import Metadata
from rave_dist.audio.metadata.wamd import GPS_FIRST, START_TIME, wamd_position, wamd_text

# AudioMoth's comment: the time of day, day/month/year, and the offset of its clock.
_AUDIOMOTH = re.compile(r"Recorded at (\d\d:\d\d:\d\d)(?:\.\d+)? (\d\d)/(\d\d)/(\d{4}) \(UTC(?:([+-])(\d{1,2})(?::(\d\d))?)?\)")
_DATE = re.compile(r"(\d{4})\D?(\d\d)\D?(\d\d)")
_TIME = re.compile(r"(\d\d)\D?(\d\d)\D?(\d\d)")
_ISO_6709 = re.compile(r"([+-]\d{1,2}(?:\.\d+)?)([+-]\d{1,3}(?:\.\d+)?)")


def with_place_and_time(found: Metadata) -> Metadata:
    """With the tags ``START_TIME`` (ISO 8601) and ``COORDINATES`` (latitude and longitude in degrees) where they are known."""
    known = {name for name, _ in found.tags}
    derived = (("START_TIME", next(_times(found), "")), ("COORDINATES", next(_positions(found), "")))
    return replace(found, tags=(*found.tags, *(tag for tag in derived if tag[1] and tag[0] not in known)))


def _times(found: Metadata) -> Iterator[str]:
    if stamp := dict(found.guano).get("Timestamp"):
        yield stamp.replace(" ", "T", 1)
    if found.bext is not None:
        date, time = _DATE.fullmatch(found.bext.date), _TIME.fullmatch(found.bext.time)
        if date and time and int(date[1]):
            yield f"{'-'.join(date.groups())}T{':'.join(time.groups())}"
    if stamp := wamd_text(found.wamd, START_TIME):
        yield stamp.replace(" ", "T", 1)
    if said := _AUDIOMOTH.search(found.tag("COMMENT")):
        clock, day, month, year, sign, hours, minutes = said.groups()
        offset = f"{sign}{int(hours):02}:{minutes or '00'}" if sign else "Z"
        yield f"{year}-{month}-{day}T{clock}{offset}"


def _positions(found: Metadata) -> Iterator[str]:
    if stated := dict(found.guano).get("Loc Position"):
        parts = stated.split()
        if len(parts) == 2:
            yield ", ".join(parts)
    if place := wamd_position(wamd_text(found.wamd, GPS_FIRST)):
        yield f"{place[0]:.6f}, {place[1]:.6f}"
    if point := _ISO_6709.match(found.tag("LOCATION")):
        yield f"{float(point[1]):.6f}, {float(point[2]):.6f}"
