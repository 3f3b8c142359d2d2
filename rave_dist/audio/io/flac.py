"""FLAC files whose header gives no length or a wrong one, or that other bytes follow.

libFLAC refuses the last frame where anything follows it, and reads no more samples than the header declares. The last frame
tells both: its number gives the length, its CRC its end. Format: RFC 9639.
"""

from __future__ import annotations

import hashlib
import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import soundfile

from rave_dist.audio.io.byte_view import ByteView, Piece, Source, file_size
from rave_dist.audio.io.joined import find_file
from rave_dist.audio.io.layout import SoundBytes
from rave_dist.audio.io.tags import without_tags

_TAIL_BYTES = 1 << 16
_PROBES = (1 / 4, 1 / 2, 2 / 3, 9 / 10)
_INFO_BYTES = 42  # the marker, and the first metadata block with its header
_RATES = (0, 88200, 176400, 192000, 8000, 16000, 22050, 24000, 32000, 44100, 48000, 96000)
_BITS = (0, 8, 12, None, 16, 20, 24, 32)


def _table(polynomial: int, bits: int) -> list[int]:
    """Remainders of all bytes, for a CRC without reflection."""
    table = []
    for value in range(256):
        crc = value << (bits - 8)
        for _ in range(8):
            crc = (crc << 1 ^ polynomial * (crc >> (bits - 1))) & ((1 << bits) - 1)
        table.append(crc)
    return table


_CRC8 = _table(0x07, 8)
_CRC16 = _table(0x8005, 16)


class _Info(NamedTuple):
    """What the first metadata block declares."""

    block_size: int
    sample_rate: int
    channels: int
    bits: int
    samples: int
    md5: bytes


@dataclass(frozen=True)
class _Frame:
    """The last frame of a stream.

    Attributes:
        start: its place.
        stop: its end, or None if it is incomplete.
        samples: of the stream up to the end of this frame.
        samples_before: of the stream up to its start.
    """

    start: int
    stop: int | None
    samples: int
    samples_before: int


def flac_samples(file: Source) -> SoundBytes | None:
    """Declared and present samples, in place of bytes, of a FLAC file; None for other files and streams without frames.

    Raises:
        OSError: the file cannot be read.
    """
    within = without_tags(file)
    file.seek(within.start)
    head = file.read(_INFO_BYTES)
    if len(head) < _INFO_BYTES or head[:4] != b"fLaC" or head[4] & 0x7F:
        return None
    info = _read_info(head)
    frame = _last_frame(file, within, info, head)
    if frame is None:
        return None
    declared = info.samples or None
    present = frame.samples if frame.stop is not None else frame.samples_before
    stop = within.stop if frame.stop is None else frame.stop
    if stop < within.stop or frame.samples != info.samples or not _ascends(file, within, info):
        next_file = find_file(file, within.start, range(within.start + _INFO_BYTES, within.stop))
        if next_file is not None:
            return SoundBytes(declared, present, next_file=next_file)
    pieces = _pieces(within.start, head, frame.samples, stop)
    if frame.stop is not None and present < info.samples and _md5(file, pieces, info) == info.md5:
        declared = present
    if frame.stop is None and (declared is None or declared <= present):
        declared = frame.samples  # the last frame is incomplete
    as_it_lies = frame.samples == info.samples and stop == file_size(file)
    return SoundBytes(declared, present, None if as_it_lies else pieces, within.stop - stop)


def _read_info(head: bytes) -> _Info:
    _, largest = struct.unpack_from(">HH", head, 8)
    packed = int.from_bytes(head[18:26], "big")
    return _Info(largest, packed >> 44, (packed >> 41 & 7) + 1, (packed >> 36 & 31) + 1, packed & 2**36 - 1, head[26:42])


def _pieces(start: int, head: bytes, samples: int, stop: int) -> tuple[Piece, ...]:
    length = bytes([head[21] & 0xF0 | samples >> 32]) + struct.pack(">I", samples & 0xFFFFFFFF)
    return range(start, start + 21), length, range(start + 26, stop)


def _last_frame(file: Source, within: range, info: _Info, head: bytes) -> _Frame | None:
    length = _TAIL_BYTES
    while True:
        window = max(within.start, within.stop - length)
        file.seek(window)
        data = file.read(within.stop - window)
        for place in _syncs(data):
            header = _read_header(data[place : place + 16], info)
            if header is not None:
                before, count = header
                stop = _frame_stop(data[place:], info, head, count)
                return _Frame(
                    window + place, None if stop is None else window + place + stop, before + count, samples_before=before
                )
        if window == within.start:
            return None
        length *= 4


def _ascends(file: Source, within: range, info: _Info) -> bool:
    """Whether the frames at some places of a file are in order; in joined files the numbers restart."""
    numbers = []
    for part in _PROBES:
        place = within.start + round(part * len(within))
        file.seek(place)
        data = file.read(min(_TAIL_BYTES, within.stop - place))
        headers = (_read_header(data[at : at + 16], info) for at in sorted(_syncs(data)))
        numbers.append(next((header[0] for header in headers if header is not None), None))
    known = [number for number in numbers if number is not None]
    return known == sorted(known)


def _syncs(data: bytes) -> Iterator[int]:
    """Places where a frame may start, the last first."""
    place = len(data)
    while (place := data.rfind(b"\xff", 0, place)) >= 0:
        if data[place + 1 : place + 2] in (b"\xf8", b"\xf9"):
            yield place


def _read_header(data: bytes, info: _Info) -> tuple[int, int] | None:
    """The samples before a frame and in it; None if this is no frame header of the stream."""
    if len(data) < 6 or data[3] & 1:
        return None
    size_code, rate_code, channel_code, bits_code = data[2] >> 4, data[2] & 15, data[3] >> 4, data[3] >> 1 & 7
    extra = max(0, 8 - (data[4] ^ 0xFF).bit_length() - 1)
    place = 5 + extra
    if not size_code or rate_code == 15 or channel_code > 10 or extra > 6 or len(data) < place + 5:
        return None
    number = data[4] & (0x7F >> extra if extra else 0x7F)
    for value in data[5:place]:
        number = number << 6 | value & 0x3F
    size_bytes = {6: 1, 7: 2}.get(size_code, 0)
    count = int.from_bytes(data[place : place + size_bytes], "big") + 1
    if not size_bytes:
        count = 192 if size_code == 1 else 576 << (size_code - 2) if size_code < 6 else 256 << (size_code - 8)
    place += size_bytes
    rate_bytes = {12: 1, 13: 2, 14: 2}.get(rate_code, 0)
    rate = int.from_bytes(data[place : place + rate_bytes], "big") * {12: 1000, 14: 10}.get(rate_code, 1)
    place += rate_bytes
    if not rate_bytes:
        rate = _RATES[rate_code] or info.sample_rate
    channels = channel_code + 1 if channel_code < 8 else 2
    if (rate, channels, _BITS[bits_code] or info.bits) != (info.sample_rate, info.channels, info.bits):
        return None
    if count > info.block_size or _crc8(data[:place]) != data[place]:
        return None
    return (number if data[1] & 1 else number * info.block_size), count


def _crc8(data: bytes) -> int:
    crc = 0
    for value in data:
        crc = _CRC8[crc ^ value]
    return crc


def _frame_stop(data: bytes, info: _Info, head: bytes, count: int) -> int | None:
    """The length of the frame that ``data`` starts with: its CRC is right there, and it can be decoded."""
    crc, stops = 0, []
    for place, value in enumerate(data, 1):
        crc = (crc << 8 & 0xFFFF) ^ _CRC16[crc >> 8 ^ value]
        if not crc:
            stops.append(place)
    if stops == [len(data)]:
        return len(data)
    return next((stop for stop in stops if _is_frame(data[:stop], head, count)), None)


def _is_frame(frame: bytes, head: bytes, count: int) -> bool:
    alone = head[:4] + b"\x80" + head[5:21] + bytes([head[21] & 0xF0]) + struct.pack(">I", count) + head[26:] + frame
    try:
        with soundfile.SoundFile(io.BytesIO(alone)) as file:
            return len(file.read(count)) == count
    except soundfile.SoundFileError:
        return False


def _md5(file: Source, pieces: tuple[Piece, ...], info: _Info) -> bytes | None:
    """The MD5 of all samples, as the header declares it; None if they cannot be decoded."""
    digest = hashlib.md5(usedforsecurity=False)
    width = -(-info.bits // 8)
    try:
        with soundfile.SoundFile(ByteView(file, pieces)) as sound:
            while len(samples := sound.read(1 << 16, dtype="int32")):
                steps = np.ascontiguousarray(samples >> (32 - info.bits)).astype("<i4").reshape(-1, 1)
                digest.update(steps.view(np.uint8).reshape(-1, 4)[:, :width].tobytes())
    except soundfile.SoundFileError:
        return None
    return digest.digest()
