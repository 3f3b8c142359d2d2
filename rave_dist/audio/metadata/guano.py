"""The chunk guan of bat recordings: GUANO, lines of ``namespace|key: value`` in UTF-8."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from rave_dist.audio.dsp.resample import resampled_length
from rave_dist.audio.metadata.text import MOST_ENTRIES, MetadataError, decoded

Fields = tuple[tuple[str, str], ...]

VERSION = "GUANO|Version"
# Fields of makers that repeat the sample rate, the channels or a hash of the samples.
_STATES_FACTS = re.compile(
    r"sample ?rate|channels?$|bit ?depth|bits per sample|audio settings|md5|sha ?\d+|crc|checksum|fingerprint|hash$",
    re.IGNORECASE,
)
_FILLING = " \t\r\0\x0b\x0c"


def read_guano(data: bytes | str) -> Fields:
    """The fields, in their order.

    Raises:
        MetadataError: a line is no field, or the text cannot be decoded.
    """
    text = data if isinstance(data, str) else decoded(data)
    fields: list[tuple[str, str]] = []
    for line in text.split("\n"):
        if not (line := line.strip(_FILLING)):
            continue
        key, colon, value = line.partition(":")
        if not colon or not key.strip() or len(fields) == MOST_ENTRIES:
            raise MetadataError(f"line {len(fields) + 1} is not a field" if len(fields) < MOST_ENTRIES else "too many fields")
        if value := value.strip():
            fields.append(("|".join(part.strip() for part in key.split("|", 1)), value))
    return tuple(fields)


def build_guano(fields: Iterable[tuple[str, str]]) -> str:
    """The lines."""
    return "".join(f"{key}: {_line(value)}\n" for key, value in fields)


def _line(value: str) -> str:
    return value.replace("\r\n", "\n").replace("\r", "\n").replace("\n", "\\n")


def adapt_guano(
    fields: Fields, *, rate: int, new_rate: int, samples: int | None, name: str, derivation: str, remarks: list[str]
) -> Fields:
    """The fields of a file at another sample rate, which says that it is derived from ``name``."""
    return tuple(_adapted(fields, rate, new_rate, samples, name, derivation, remarks)) if fields else ()


def _adapted(
    fields: Fields, rate: int, new_rate: int, samples: int | None, name: str, derivation: str, remarks: list[str]
) -> Iterator[tuple[str, str]]:
    yield VERSION, dict(fields).get(VERSION, "1.0")
    if "Original Filename" not in dict(fields):
        yield "Original Filename", name
    yield "Note", derivation
    stated = dict(fields).get("Samplerate", "")
    # With time expansion it is not that of the header.
    true_rate = resampled_length(int(stated), rate, new_rate) if stated.isdecimal() and len(stated) < 10 else new_rate
    for key, value in fields:
        if key == "Samplerate":
            yield key, str(true_rate)
        elif key == "Length":
            if samples is not None and true_rate:
                yield key, f"{samples / true_rate:.6f}"
        elif key == "Note":
            yield "rave-dist|Source Note", value
        elif _STATES_FACTS.search(key):
            remarks.append(f"GUANO {key}: it holds for the recording only")
        elif key != VERSION:
            yield key, value
