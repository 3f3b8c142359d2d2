"""Whether a Matroska or WebM file is complete: decoders end without an error where the file does. Format: RFC 8794 and 9559."""

from __future__ import annotations

from rave_dist.audio.io.byte_view import Source, file_size
from rave_dist.audio.io.joined import next_file
from rave_dist.audio.io.layout import SoundBytes

_EBML, _SEGMENT, _CLUSTER = 0x1A45DFA3, 0x18538067, 0x1F43B675
# Of the top level, without sound.
_OTHERS = {0x114D9B74, 0x1549A966, 0x1654AE6B, 0x1C53BB6B, 0x1941A469, 0x1043A770, 0x1254C367, 0xEC, 0xBF}
_MOST_ELEMENTS = 1_000_000
_INFO, _DURATION = 0x1549A966, 0x4489
_MOST_FIELDS = 100


def declares_duration(file: Source) -> bool:
    """Whether a Matroska file has a duration; live ones have none, and FFmpeg estimates it. Keeps the position of the file.

    Raises:
        OSError: the file cannot be read.
    """
    position = file.tell()
    try:
        head = _element(file, 0)
        segment = None if head is None or head[2] is None else _element(file, head[2])
        info = None if segment is None else _find(file, segment[1], _INFO)
        return info is not None and _find(file, info[1], _DURATION) is not None
    finally:
        file.seek(position)


def _find(file: Source, place: int, name: int) -> tuple[int, int, int | None] | None:
    """The first of some elements in a row that has a name; those behind clusters do not count."""
    for _ in range(_MOST_FIELDS):
        element = _element(file, place)
        if element is None or element[0] in (name, _CLUSTER) or element[2] is None:
            return element if element is not None and element[0] == name else None
        place = element[2]
    return None


def matroska_sound(file: Source) -> SoundBytes | None:
    """Declared and present bytes of a Matroska file that ends inside its clusters; None for other files.

    Raises:
        OSError: the file cannot be read.
    """
    size = file_size(file)
    head = _element(file, 0)
    segment = None if head is None or head[0] != _EBML or head[2] is None else _element(file, head[2])
    if segment is None or segment[0] != _SEGMENT or segment[2] is None:
        return None  # of unknown length, as it is recorded live
    following = next_file(file, 0, segment[2], size)
    if following is not None:
        return SoundBytes(segment[2], following, next_file=following)
    if segment[2] <= size:
        return None
    place = segment[1]
    for _ in range(_MOST_ELEMENTS):
        element = _element(file, place)
        if element is None:  # it ends between two elements, or in the head of one
            return SoundBytes(segment[2], size)
        name, _, stop = element
        if stop is None or stop > size:
            return None if name in _OTHERS else SoundBytes(segment[2], size)
        place = stop
    return None


def _element(file: Source, place: int) -> tuple[int, int, int | None] | None:
    """The id of an element, and the start and stop of its content; a stop of None stands for an unknown length."""
    file.seek(place)
    head = file.read(12)
    if not head or not head[0]:
        return None
    id_bytes = 9 - head[0].bit_length()
    if id_bytes > 4 or len(head) <= id_bytes or not head[id_bytes]:
        return None
    size_bytes = 9 - head[id_bytes].bit_length()
    start = id_bytes + size_bytes
    if len(head) < start:
        return None
    most = (1 << 7 * size_bytes) - 1
    length = int.from_bytes(head[id_bytes:start], "big") & most
    return int.from_bytes(head[:id_bytes], "big"), place + start, None if length == most else place + start + length
