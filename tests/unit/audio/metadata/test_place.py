"""When and where a recording was made, from each of the formats that say so."""

from __future__ import annotations

import struct

import pytest

from rave_dist.audio.metadata.place import with_place_and_time
from rave_dist.audio.metadata.record import Bext, Metadata


def comment(clock: str) -> Metadata:
    return Metadata(tags=(("COMMENT", f"Recorded at {clock} by AudioMoth 24F3 at medium gain"),))


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (comment("21:17:30 03/05/2024 (UTC)"), "2024-05-03T21:17:30Z"),
        (comment("21:17:30.500 03/05/2024 (UTC-3:30)"), "2024-05-03T21:17:30-03:30"),
        (comment("21:17:30 03/05/2024 (UTC+10)"), "2024-05-03T21:17:30+10:00"),
        (comment("noon"), ""),
        (Metadata(bext=Bext(date="2024:05:03", time="21-17-30")), "2024-05-03T21:17:30"),
        (Metadata(bext=Bext(date="0000-00-00", time="00:00:00")), ""),
        (
            Metadata(guano=(("Timestamp", "2024-05-03 21:17:30Z"),), bext=Bext(date="2023-01-01", time="00:00:00")),
            "2024-05-03T21:17:30Z",
        ),
        (Metadata(wamd=((5, b"2024-05-03 21:17:30-05:00\0"),)), "2024-05-03T21:17:30-05:00"),
        (Metadata(tags=(("START_TIME", "1999"),), wamd=((5, b"2024-05-03 21:17:30"),)), "1999"),
    ],
)
def test_the_start_time(found: Metadata, expected: str) -> None:
    assert with_place_and_time(found).tag("START_TIME") == expected


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (Metadata(guano=(("Loc Position", "52.520008 -13.404954"),)), "52.520008, -13.404954"),
        (Metadata(wamd=((6, b"WGS84,42.5,S,71.25,W,100"),)), "-42.500000, -71.250000"),
        (Metadata(wamd=((6, b"WGS84,nonsense"),)), ""),
        (Metadata(wamd=((6, struct.pack("<d", 1.5)),)), ""),
        (Metadata(tags=(("LOCATION", "+52.5200-013.4050+034/"),)), "52.520000, -13.405000"),
        (Metadata(tags=(("LOCATION", "Berlin"),)), ""),
    ],
)
def test_the_coordinates(found: Metadata, expected: str) -> None:
    assert with_place_and_time(found).tag("COORDINATES") == expected
