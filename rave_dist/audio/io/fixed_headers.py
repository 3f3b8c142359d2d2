"""The sound of files with one header and no chunks: NIST SPHERE, AVR, Psion and MPC 2000. libsndfile reads all that follows it.

Formats: the NIST SPHERE manual; the headers of the others as libsndfile's own files have them.
"""

from __future__ import annotations

import os
import re
import struct
from typing import BinaryIO

from rave_dist.audio.io.chunks import is_padding
from rave_dist.audio.io.layout import SoundBytes
from rave_dist.audio.io.tags import without_tags

_HEAD_BYTES = 1024
_NIST_FIELDS = re.compile(rb"^(sample_count|channel_count|sample_n_bytes) -i (\d+)", re.MULTILINE)


def fixed_header_sound(file: BinaryIO) -> SoundBytes | None:
    """Declared and present bytes of a NIST SPHERE, AVR, Psion or MPC 2000 file; None for other files.

    Raises:
        OSError: the file cannot be read.
    """
    within = without_tags(file)
    file.seek(within.start)
    found = _declared(file.read(_HEAD_BYTES))
    if found is None:
        return None
    start, declared = within.start + found[0], found[1]
    present = within.stop - start
    if present <= 0:
        return None
    if declared < present and is_padding(file, start + declared, within.stop):
        present = declared
    size = os.fstat(file.fileno()).st_size
    as_it_lies = not within.start and start + present == size
    return SoundBytes(declared or None, present, None if as_it_lies else (range(within.start, start + present),))


def _declared(head: bytes) -> tuple[int, int] | None:
    """The length of a header, and the bytes of sound that it declares."""
    if head[:8] == b"NIST_1A\n" and head[8:15].strip().isdigit():
        fields = {name: int(value) for name, value in _NIST_FIELDS.findall(head)}
        if len(fields) == 3 and b"shorten" not in head:
            return int(head[8:15]), fields[b"sample_count"] * fields[b"channel_count"] * fields[b"sample_n_bytes"]
    if head[:4] == b"2BIT" and len(head) > 128:
        stereo, bits = struct.unpack_from(">HH", head, 12)
        return 128, struct.unpack_from(">I", head, 26)[0] * bits // 8 * (2 if stereo else 1)
    if head[:16] == b"ALawSoundFile**\0" and len(head) > 32:
        return 32, struct.unpack_from(">I", head, 18)[0]
    if head[:2] == b"\1\4" and len(head) > 42 and head[2:19].isascii() and head[21] in (0, 1):
        return 42, 2 * (1 + head[21]) * struct.unpack_from("<I", head, 30)[0]
    return None
