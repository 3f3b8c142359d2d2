"""The chunks cue, adtl and smpl of WAV files, and MARK and INST of AIFF: positions in samples."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import replace

from rave_dist.audio.metadata.record import Cue, Loop, Sampler
from rave_dist.audio.metadata.text import MOST_ENTRIES, MetadataError, decoded

_CUE = struct.Struct("<II4sIII")
_REGION = struct.Struct("<II4sHHHH")
_SMPL = struct.Struct("<9I")
_LOOP = struct.Struct("<6I")
_INST = struct.Struct(">bbbbbbhHHHHHH")
_MOST = 2**32 - 1


def read_cue(data: bytes) -> dict[int, Cue]:
    """The cue points by their numbers.

    Raises:
        MetadataError: there are more, or fewer, than the chunk says.
    """
    count = struct.unpack_from("<I", data.ljust(4, b"\0"))[0]
    if count > MOST_ENTRIES or 4 + count * _CUE.size > len(data):
        raise MetadataError(f"it declares {count} cue points in {len(data)} bytes")
    cues: dict[int, Cue] = {}
    for index in range(count):
        number, played_at, _, _, _, offset = _CUE.unpack_from(data, 4 + index * _CUE.size)
        cues[number] = Cue(number, offset or played_at)
    return cues


def read_adtl(parts: Iterable[tuple[bytes, bytes]], cues: dict[int, Cue]) -> dict[int, Cue]:
    """Cue points with the labels, notes and lengths that a list ``adtl`` has for them.

    Raises:
        MetadataError: a part is too short, or its text cannot be decoded.
    """
    labelled = dict(cues)
    for name, data in parts:
        if len(data) < 4 or (name == b"ltxt" and len(data) < _REGION.size):
            raise MetadataError(f"{name.decode('ascii', 'replace')} has {len(data)} bytes")
        number = struct.unpack_from("<I", data)[0]
        cue = labelled.get(number)
        if cue is None:
            continue
        if name == b"labl":
            labelled[number] = replace(cue, label=decoded(data[4:]))
        elif name == b"note":
            labelled[number] = replace(cue, note=decoded(data[4:]))
        elif name == b"ltxt":
            _, length, purpose, *_ = _REGION.unpack_from(data)
            text = decoded(data[_REGION.size :])
            labelled[number] = replace(cue, length=length, purpose=purpose.decode("ascii", "replace"), text=text)
    return labelled


def build_cue(cues: Iterable[Cue]) -> bytes:
    """The content of ``cue ``."""
    points = [_CUE.pack(cue.number, cue.position, b"data", 0, 0, cue.position) for cue in cues]
    return struct.pack("<I", len(points)) + b"".join(points)


def adtl_parts(cues: Iterable[Cue]) -> list[tuple[bytes, bytes]]:
    """The parts of the list ``adtl``."""
    parts = []
    for cue in cues:
        number = struct.pack("<I", cue.number)
        parts += [(name, number + text.encode() + b"\0") for name, text in ((b"labl", cue.label), (b"note", cue.note)) if text]
        if cue.length:
            purpose = cue.purpose.encode("ascii", "replace")[:4].ljust(4)
            text = cue.text.encode() + b"\0" if cue.text else b""
            parts.append((b"ltxt", _REGION.pack(cue.number, cue.length, purpose, 0, 0, 0, 0) + text))
    return parts


def read_smpl(data: bytes) -> tuple[Sampler, list[str]]:
    """The fields of ``smpl``, and remarks about what is not carried.

    Raises:
        MetadataError: the chunk is shorter than it says.
    """
    if len(data) < _SMPL.size:
        raise MetadataError(f"it has {len(data)} bytes, not at least {_SMPL.size}")
    maker, product, _, note, fraction, smpte, offset, count, further = _SMPL.unpack_from(data)
    if count > MOST_ENTRIES or _SMPL.size + count * _LOOP.size > len(data):
        raise MetadataError(f"it declares {count} loops in {len(data)} bytes")
    loops = tuple(Loop(*_LOOP.unpack_from(data, _SMPL.size + index * _LOOP.size)) for index in range(count))
    if any(loop.first > loop.last for loop in loops):
        raise MetadataError("a loop ends before it begins")
    remarks = ["smpl: the data of the sampler's maker are not known here"] if further else []
    return Sampler(note, fraction, maker, product, smpte, offset, loops), remarks


def build_smpl(sampler: Sampler, sample_rate: int) -> bytes:
    """The content of ``smpl``."""
    head = (sampler.manufacturer, sampler.product, round(1e9 / sample_rate), sampler.note, sampler.fraction)
    loops = [_LOOP.pack(x.number, x.kind, x.first, x.last, x.fraction, x.plays) for x in sampler.loops]
    return _SMPL.pack(*head, sampler.smpte_format, sampler.smpte_offset, len(loops), 0) + b"".join(loops)


def read_mark(data: bytes) -> dict[int, Cue]:
    """The markers of AIFF by their numbers.

    Raises:
        MetadataError: a marker is longer than the chunk.
    """
    cues: dict[int, Cue] = {}
    count, place = struct.unpack_from(">H", data.ljust(2, b"\0"))[0], 2
    for _ in range(min(count, MOST_ENTRIES + 1)):
        if place + 7 > len(data) or place + 7 + data[place + 6] > len(data) or len(cues) == MOST_ENTRIES:
            raise MetadataError(f"it declares {count} markers in {len(data)} bytes")
        number, position = struct.unpack_from(">HI", data, place)
        name = data[place + 7 : place + 7 + data[place + 6]]
        cues[number] = Cue(number, position, label=decoded(name))
        place += 7 + len(name) + (len(name) + 1) % 2
    return cues


def read_inst(data: bytes, cues: dict[int, Cue]) -> Sampler:
    """The instrument of AIFF, whose loops lie between markers.

    Raises:
        MetadataError: it is too short, or a loop ends before it begins.
    """
    if len(data) < _INST.size:
        raise MetadataError(f"it has {len(data)} bytes, not {_INST.size}")
    note, _, _, _, _, _, _, *loops = _INST.unpack_from(data)
    found = []
    for mode, begin, end in (loops[:3], loops[3:]):
        if mode and begin in cues and end in cues:
            first, last = cues[begin].position, cues[end].position - 1
            if first > last:
                raise MetadataError("a loop ends before it begins")
            found.append(Loop(begin, mode - 1, first, last))
    return Sampler(note=max(0, note), loops=tuple(found))


def fits(position: int) -> bool:
    """Whether a position can be written in 32 bits."""
    return position <= _MOST
