"""The sound of files with one header and no chunks: NIST SPHERE, AVR, Psion, MPC 2000, Fasttracker, PVF, IRCAM, PAF and MAT.

libsndfile reads all that follows the header, and does not miss what is missing. Formats: the NIST SPHERE manual and MathWorks'
"MAT-File Format"; the headers of the others as libsndfile's own files have them.
"""

from __future__ import annotations

import re
import struct
from typing import NamedTuple

from rave_dist.audio.io.byte_view import Source, file_size
from rave_dist.audio.io.joined import is_padding, next_file
from rave_dist.audio.io.layout import SoundBytes
from rave_dist.audio.io.tags import without_tags

_HEAD_BYTES = 1024
_MOST_CHANNELS = 256
_PVF = re.compile(rb"PVF1\n(\d{1,3}) (\d{1,7}) (\d{1,2})\n")
_MATLAB_4_WIDTHS = {0: 8, 1: 4, 2: 4, 3: 2, 4: 2, 5: 1}
_NIST_FIELDS = re.compile(rb"^(sample_count|channel_count|sample_n_bytes) -(?:i|s\d+) (\d+)", re.MULTILINE)  # sox writes -s1


def fixed_header_sound(file: Source) -> SoundBytes | None:
    """Declared and present bytes of a file with one header; None for other files.

    Where nothing declares the length, whole samples are expected.

    Raises:
        OSError: the file cannot be read.
    """
    within = without_tags(file)
    file.seek(within.start)
    found = _declared(file.read(_HEAD_BYTES))
    if found is None:
        return None
    start, declared, width = within.start + found.start, found.declared, found.width
    present = within.stop - start
    if present <= 0:
        return None
    following = next_file(file, within.start, start + declared if declared else None, within.stop)
    if following is not None:
        return SoundBytes(declared, following - start, next_file=following)
    if declared is None:
        declared = -(-present // width) * width
    stop = start + declared
    stray = 0
    if declared < present and (found.exact or is_padding(file, stop, within.stop)):
        stray = 0 if is_padding(file, stop, within.stop) else present - declared
        present = declared
    as_it_lies = not within.start and start + present == file_size(file)
    pieces = None if as_it_lies else (range(within.start, start + present),)
    return SoundBytes(declared or None, present, pieces, stray)


class _Found(NamedTuple):
    """Where a header ends, the bytes of sound that it declares, and those of a sample of all channels.

    ``exact``: the length is part of the data's own description, so what follows it is no sound.
    """

    start: int
    declared: int | None
    width: int = 1
    exact: bool = False


def _declared(head: bytes) -> _Found | None:
    if head[:8] == b"NIST_1A\n" and head[8:15].strip().isdigit():
        fields = {name: int(value) for name, value in _NIST_FIELDS.findall(head)}
        if len(fields) == 3 and b"shorten" not in head:
            return _Found(int(head[8:15]), fields[b"sample_count"] * fields[b"channel_count"] * fields[b"sample_n_bytes"])
    if head[:4] == b"2BIT" and len(head) > 128:
        stereo, bits = struct.unpack_from(">HH", head, 12)
        return _Found(128, struct.unpack_from(">I", head, 26)[0] * bits // 8 * (2 if stereo else 1))
    if head[:16] == b"ALawSoundFile**\0" and len(head) > 32:
        return _Found(32, struct.unpack_from(">I", head, 18)[0])
    if head[:2] == b"\1\4" and len(head) > 42 and head[2:19].isascii() and head[21] in (0, 1):
        return _Found(42, 2 * (1 + head[21]) * struct.unpack_from("<I", head, 30)[0])
    return _without_length(head) or _matlab_4(head) or _matlab_5(head)


def _without_length(head: bytes) -> _Found | None:
    """PVF, IRCAM, PAF and Fasttracker instruments: the sound extends to the end of the file."""
    if head[:21] == b"Extended Instrument: ":
        return _Found(338, None, 2)
    pvf = _PVF.match(head)
    if pvf is not None:
        return _Found(pvf.end(), None, max(1, int(pvf[1]) * int(pvf[3]) // 8))
    if len(head) >= 16 and (head[:2] + head[3:4] == b"\x64\xa3\0" or head[:1] + head[2:4] == b"\0\xa3\x64"):
        for order in ("<", ">"):
            channels, encoding = struct.unpack_from(f"{order}II", head, 8)
            if 0 < channels <= _MOST_CHANNELS:
                return _Found(1024, None, max(1, channels * (encoding & 0xFF)))
    if head[:4] in (b" paf", b"fap ") and len(head) > 32:
        kind, channels = struct.unpack_from(">II" if head[:1] == b" " else "<II", head, 16)
        width = {0: 2, 1: 32, 2: 1}.get(kind)  # ten samples of 24 bits in 32 bytes
        return None if width is None or not 0 < channels <= _MOST_CHANNELS else _Found(2048, None, width * channels)
    return None


def _matlab_4(head: bytes) -> _Found | None:
    """MAT of version 4: two matrices, ``samplerate`` and ``wavedata``."""
    place = 0
    order = ">" if head.startswith(b"\0\0\3\xe8") else "<"
    for name in (b"samplerate\0", b"wavedata\0"):
        kind, rows, columns, _, _ = struct.unpack(f"{order}5I", head[place : place + 20].ljust(20, b"\0"))
        if head[place + 20 : place + 20 + len(name)] != name:
            return None
        place += 20 + len(name)
        size = rows * columns * _MATLAB_4_WIDTHS.get(kind // 10 % 10, 1)
        if name == b"samplerate\0":
            place += size
    return _Found(place, size, exact=True)


def _matlab_5(head: bytes) -> _Found | None:
    """MAT of version 5: the same, made of elements; each matrix has flags, dimensions, a name and its data."""
    order = {b"IM": "<", b"MI": ">"}.get(head[126:128])
    if order is None or not head.startswith(b"MATLAB 5"):
        return None
    length = struct.unpack_from(f"{order}I", head, 132)[0]
    place = 136 + length + 8
    for _ in range(4):
        if place + 8 > len(head):
            return None
        tag, size = struct.unpack_from(f"{order}II", head, place)
        small = tag >> 16  # a short element has its length and content in the tag
        start, size = (place + 4, small) if small else (place + 8, size)
        place = place + 8 if small else start + size + -size % 8
    return _Found(start, size, exact=True)
