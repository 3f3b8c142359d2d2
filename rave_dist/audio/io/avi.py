"""Where an AVI file ends, and whether its chunks are whole, because decoders skip over damage without an error.

Format: Microsoft's "AVI RIFF File Reference".
"""

from __future__ import annotations

import re
import struct

from rave_dist.audio.io.byte_view import Source, file_size
from rave_dist.audio.io.dialects import never_closed
from rave_dist.audio.io.joined import next_file
from rave_dist.audio.io.layout import SoundBytes

_CONTENT = re.compile(rb"[0-9A-Fa-f]{2}..|ix..|JUNK|LIST|idx1", re.DOTALL)


def avi_sound(file: Source) -> SoundBytes | None:
    """Declared and present bytes of an AVI file, and its damage; None for other files, and for those with no usable size.

    Raises:
        OSError: the file cannot be read.
    """
    size = file_size(file)
    file.seek(0)
    head = file.read(12)
    declared = int.from_bytes(head[4:8], "little")
    if head[:4] != b"RIFF" or head[8:] != b"AVI " or not declared or never_closed(declared):
        return None
    stop = 8 + declared + declared % 2
    file.seek(stop)
    if stop < size and file.read(12)[8:] == b"AVIX":  # above 1 GiB it has further parts
        return None
    following = next_file(file, 0, stop, size)
    if following is not None:
        return SoundBytes(declared, following - 8, next_file=following)
    return SoundBytes(declared, min(declared, size - 8), damage=_damage(file, min(stop, size)))


def _damage(file: Source, end: int) -> str | None:
    """Where bytes that are no chunk lie among the chunks of pictures and sound."""
    place = 12
    content = False
    while end - place >= 12:
        file.seek(place)
        name, length, kind = struct.unpack("<4sI4s", file.read(12))
        if content and not _CONTENT.match(name):
            return f"damaged: its chunks are broken at byte {place}; it ends"
        if name == b"LIST" and kind in (b"movi", b"rec "):
            content, end = True, min(end, place + 8 + length) if kind == b"movi" else end
            place += 12
        else:
            place += 8 + length + length % 2
    return None
