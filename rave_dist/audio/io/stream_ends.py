"""Where TTA, WavPack, WMA, FLV and MPEG streams end by their own account.

FFmpeg takes what follows for damage, or does not read it. Formats: the documents of Alexander Djourik (TTA) and David Bryant
(WavPack), Microsoft's ASF and Adobe's FLV specifications, ISO/IEC 13818-1.
"""

from __future__ import annotations

import struct

from rave_dist.audio.io.byte_view import Source, file_size
from rave_dist.audio.io.joined import is_padding, next_file
from rave_dist.audio.io.layout import SoundBytes
from rave_dist.audio.io.tags import tag_bytes

_STRAY_BYTES = 4096  # more bytes than these behind a stream may be its continuation behind damage
_ASF_DATA = bytes.fromhex("3626b2758e66cf11a6d900aa0062ce6c")
_WITHOUT_END = (b"nut/multimedia", b".RMF", b"STRM", b"\xb7\xd8\0 7I\xda\x11", b"\xf0\x7e")  # NUT, RealMedia, AST, WTV, SDS
_FLV_TAGS = (8, 9, 18)
_PACK = b"\0\0\1\xba"
_TAIL_BYTES = 1 << 18
_SYNC = 0x47
_MOST_PACKETS = 100_000  # behind the last one
_PACKETS = ((188, 0), (192, 4), (204, 0))  # sizes, and where their first byte of synchronisation is


def stream_sound(file: Source) -> SoundBytes | None:
    """Declared and present bytes of a stream; None for other files and for those whose structure is damaged.

    Raises:
        OSError: the file cannot be read.
    """
    size = file_size(file)
    file.seek(0)
    head = file.read(1024)
    stop = _stop(file, head, size)
    if stop == size or (stop is None and not head.startswith(_WITHOUT_END)):
        return None
    if stop is not None and stop < size:
        stop = min(size, stop + _tags(file, stop))
    following = next_file(file, 0, stop, size)
    if following is not None:
        return SoundBytes(stop, following, next_file=following)
    if stop is None:
        return None
    if stop > size:
        return SoundBytes(stop, size)
    stray = 0 if is_padding(file, stop, size) else size - stop
    return SoundBytes(stop, stop, (range(stop),), stray) if stray <= _STRAY_BYTES else None


def _tags(file: Source, place: int) -> int:
    """The length of the tags at a place."""
    start = place
    while True:
        file.seek(place)
        length = tag_bytes(file.read(32))
        if not length:
            return place - start
        place += length


def _stop(file: Source, head: bytes, size: int) -> int | None:
    """The end of a stream, behind that of the file where it is cut."""
    if head[:4] == b"TTA1" and len(head) >= 22:
        return _tta(file, head, size)
    if head[:4] == b"wvpk":
        return _wavpack(file, size)
    if head[:4] == b"0&\xb2u":
        return _asf(file, size)
    if head[:4] == b"FLV\1":
        return _flv(file, size)
    if head[:4] == _PACK:
        return _program_stream(file, size)
    for length, first in _PACKETS:
        if len(head) > 4 * length and all(head[first + number * length] == _SYNC for number in range(4)):
            return _transport_stream(file, size, length, first)
    return None


def _tta(file: Source, head: bytes, size: int) -> int:
    """A list of the lengths of all frames, each of 256/245 s, lies between the header and the frames."""
    rate, samples = struct.unpack_from("<II", head, 10)
    frames = -(-samples // max(1, rate * 256 // 245))
    file.seek(22)
    table = file.read(min(4 * frames, size))  # a damaged head may claim billions
    lengths = struct.unpack(f"<{len(table) // 4}I", table[: len(table) // 4 * 4])
    stop: int = 22 + 4 * frames + 4 + sum(lengths)
    return stop


def _wavpack(file: Source, size: int) -> int:
    """Blocks have their lengths; the first one of a recording begins at sample 0 and its first channel."""
    place = 0
    while place < size:
        file.seek(place)
        block = file.read(32)
        if len(block) < 32 or block[:4] != b"wvpk":
            break
        length, index, samples, flags = struct.unpack("<4xI8xIII4x", block)
        if place and samples and not index and flags & 0x800:
            break
        place += 8 + length
    return place


def _asf(file: Source, size: int) -> int | None:
    """Objects have an identifier and their lengths; indexes may follow the data."""
    place = 0
    has_data = False
    while size - place >= 24:
        file.seek(place)
        name, length = struct.unpack("<16sQ", file.read(24))
        is_data = name == _ASF_DATA
        if length < 24 or (place + length > size and not is_data) or (place and name[:4] == b"0&\xb2u"):
            break
        has_data = has_data or is_data
        place += length
    return place if has_data else None


def _flv(file: Source, size: int) -> int:
    """Tags have a kind, their lengths, and 4 bytes behind them with the length of all."""
    place = 13
    while place < size:
        file.seek(place)
        head = file.read(4)
        if len(head) < 4 or head[0] & 0x1F not in _FLV_TAGS:
            break
        length = 11 + int.from_bytes(head[1:], "big")
        file.seek(place + length)
        behind = file.read(4)
        if len(behind) == 4 and int.from_bytes(behind, "big") != length:
            break
        place += length + 4
    return size if size < place <= size + 4 else place


def _transport_stream(file: Source, size: int, length: int, first: int) -> int | None:
    """Packets have one length and begin with a byte of synchronisation."""
    last = (size - 1) // length
    for number in range(last, max(0, last - _MOST_PACKETS), -1):
        file.seek(number * length + first)
        if file.read(1) == bytes([_SYNC]):
            return (number + 1) * length
    return None


def _program_stream(file: Source, size: int) -> int | None:
    """Packs have a head, and packets with their lengths, down to those behind the last head of a pack."""
    window = max(0, size - _TAIL_BYTES)
    file.seek(window)
    tail = file.read(_TAIL_BYTES)
    place = tail.rfind(_PACK)
    while 0 <= place <= len(tail) - 14 and tail.startswith(b"\0\0\1", place):
        code = tail[place + 3]
        if code == 0xB9:
            place += 4
        elif code == 0xBA:
            place += 14 + (tail[place + 13] & 7) if tail[place + 4] >> 6 == 1 else 12
        else:
            place += 6 + int.from_bytes(tail[place + 4 : place + 6], "big")
    ends = place >= 0 and tail[place : place + 4] == b"\0\0\1\xb9"
    return None if place < 0 else window + place + 4 * ends
