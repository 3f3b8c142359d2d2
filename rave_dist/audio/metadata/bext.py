"""The chunk bext of Broadcast Wave files (EBU Tech 3285)."""

from __future__ import annotations

import struct

from rave_dist.audio.metadata.record import Bext
from rave_dist.audio.metadata.text import MetadataError, ascii_only, decoded

_FIELDS = struct.Struct("<256s32s32s10s8sQH64s190s")
_VERSION = 1  # 2 has loudness values, which are those of the source
_MOST_REFERENCE = 2**64 - 1


def read_bext(data: bytes) -> tuple[Bext, list[str]]:
    """A chunk's fields, and remarks about those that hold for the source only.

    Raises:
        MetadataError: the chunk is too short, or its texts cannot be decoded.
    """
    if len(data) < 346:  # up to the time reference
        raise MetadataError(f"it has {len(data)} bytes, not at least {_FIELDS.size}")
    *texts, reference, version, umid, rest = _FIELDS.unpack(data[: _FIELDS.size].ljust(_FIELDS.size, b"\0"))
    description, originator, its_reference, date, time = map(decoded, texts)
    remarks = []
    if any(umid):
        remarks.append("bext UMID: it identifies the recording")
    if version >= 2 and any(rest[:10]):
        remarks.append("bext loudness: it is that of the recording")
    history = decoded(data[_FIELDS.size :])
    return Bext(description, originator, its_reference, date, time, reference, history), remarks


def build_bext(bext: Bext) -> bytes:
    """The content of the chunk."""
    texts = [ascii_only(text).encode() for text in (bext.description, bext.originator, bext.reference, bext.date, bext.time)]
    fields = _FIELDS.pack(*texts, min(bext.time_reference, _MOST_REFERENCE), _VERSION, b"", b"")
    return fields + "".join(f"{ascii_only(line)}\r\n" for line in bext.history.splitlines() if line).encode()
