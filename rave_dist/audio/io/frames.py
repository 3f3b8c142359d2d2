"""Files that are nothing but frames of AC-3, E-AC-3, DTS or AAC (ADTS), frame by frame.

FFmpeg drops bytes between frames without an error, and the last frame where anything follows it. Formats: ETSI TS 102 366
(AC-3, E-AC-3) and TS 102 114 (DTS), ISO/IEC 13818-7 (ADTS).
"""

from __future__ import annotations

from rave_dist.audio.io.byte_view import Source, Window
from rave_dist.audio.io.joined import is_padding
from rave_dist.audio.io.layout import SoundBytes
from rave_dist.audio.io.tags import id3v2_bytes, without_tags

_HEADER_BYTES = 10
_SYNC_BYTES = 2
_AC3, _DTS, _DTS_EXTENSION = b"\x0b\x77", b"\x7f\xfe\x80\x01", b"\x64\x58\x20\x25"
_AC3_KILOBITS = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512, 576, 640)


def frame_bytes(head: bytes) -> int:
    """The length of the frame that begins with these bytes; 0 where none does."""
    if len(head) < _HEADER_BYTES:
        return 0
    if head.startswith(_AC3):
        return _ac3_bytes(head)
    if head.startswith(_DTS):
        return ((head[5] & 3) << 12 | head[6] << 4 | head[7] >> 4) + 1
    if head.startswith(_DTS_EXTENSION):
        fields = int.from_bytes(head[5:10], "big")
        return (fields >> 5 & 0xFFFFF if fields >> 37 & 1 else fields >> 13 & 0xFFFF) + 1
    if head[0] == 0xFF and head[1] & 0xF6 == 0xF0:
        return (head[3] & 3) << 11 | head[4] << 3 | head[5] >> 5
    return 0


def _ac3_bytes(head: bytes) -> int:
    if head[5] >> 3 > 10:  # E-AC-3
        return 2 * (((head[2] & 7) << 8 | head[3]) + 1)
    code, rate = head[4] & 63, head[4] >> 6
    if rate == 3 or code >> 1 >= len(_AC3_KILOBITS):
        return 0
    kilobits = _AC3_KILOBITS[code >> 1]
    return 2 * (2 * kilobits, kilobits * 320 // 147 + (code & 1), 3 * kilobits)[rate]


def framed_sound(file: Source) -> SoundBytes | None:
    """Declared and present bytes of all frames of a file; None for other files, and for those with nothing but frames.

    Raises:
        OSError: the file cannot be read.
    """
    within = without_tags(file)
    window = Window(file)
    data, at = window.at(within.start, _SYNC_BYTES)
    sync = data[at : at + _SYNC_BYTES]
    if not _is_frame(window, within.start, within.stop):
        return None
    frames: list[range] = []
    place = last = within.start
    junk = 0
    while place < within.stop:
        data, at = window.at(place, _HEADER_BYTES)
        head = data[at : at + _HEADER_BYTES]
        if length := frame_bytes(head):
            if not frames or frames[-1].stop != place:
                frames.append(range(place, place))
            last, place = place, place + length
            frames[-1] = range(frames[-1].start, place)
        elif tag := id3v2_bytes(head):
            place += tag
        else:
            following = _next_frame(window, sync, place, within.stop)
            junk += following - place if following < within.stop else 0
            place = following
    stop = frames[-1].stop
    if len(frames) == 1 and stop == within.stop:
        return None
    declared = sum(map(len, frames))
    if stop > within.stop:
        frames[-1] = range(frames[-1].start, last)
    stray = 0 if stop >= within.stop or is_padding(file, stop, within.stop) else within.stop - stop
    damage = f"damaged: {junk} bytes in it are not audio" if junk else None
    return SoundBytes(declared, sum(map(len, frames)), tuple(frames), stray, damage=damage)


def _next_frame(window: Window, sync: bytes, place: int, stop: int) -> int:
    """The place of the next frame that another one or the end of the file follows."""
    while place < stop:
        data, at = window.at(place, _HEADER_BYTES)
        found = data.find(sync, at)
        if found < 0:
            place += max(1, len(data) - at - _SYNC_BYTES + 1)
            continue
        place += found - at
        if _is_frame(window, place, stop):
            return place
        place += 1
    return stop


def _is_frame(window: Window, place: int, stop: int) -> bool:
    """Whether a frame begins here that another one or the end of the file follows."""
    length = _frame_at(window, place)
    return bool(length) and (place + length >= stop or _frame_at(window, place + length) > 0)


def _frame_at(window: Window, place: int) -> int:
    data, at = window.at(place, _HEADER_BYTES)
    return frame_bytes(data[at : at + _HEADER_BYTES])
