"""Creative Voice files (VOC): sound in blocks, with silences and repeats between them, read as one WAV file.

Format: Creative Labs' "Creative Voice File Format" of the Sound Blaster developer kit.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import NamedTuple

from rave_dist.audio.io.byte_view import Piece, Source
from rave_dist.audio.io.joined import begins_file, find_file, is_padding
from rave_dist.audio.io.layout import SoundBytes
from rave_dist.audio.io.tags import without_tags
from rave_dist.errors import AudioError

_MAGIC = b"Creative Voice File\x1a"
_MOST_BYTES = 2**31  # repeats of a few blocks may stand for hours
_ENDLESS = 0xFFFF
_UNKNOWN_SIZE = 0xFFFFFF
_TERMINATOR, _SOUND, _MORE, _SILENCE, _MARKER, _TEXT, _REPEAT, _REPEAT_END, _EXTENDED, _NEW = range(10)
_HEADS = {_SOUND: 2, _NEW: 12}
_SOX_SHORT = 8  # sox does not count these bytes of a new block's head
# Codec: tag of WAV, bits per sample, and a byte of silence. Others, ADPCM of 2 to 4 bits, are left to FFmpeg.
_CODECS = {0: (1, 8, b"\x80"), 4: (1, 16, b"\0"), 6: (6, 8, b"\xd5"), 7: (7, 8, b"\xff")}


class _Format(NamedTuple):
    sample_rate: int
    channels: int
    codec: int

    @property
    def width(self) -> int:
        return self.channels * _CODECS[self.codec][1] // 8


@dataclass
class _Stream:
    """The blocks so far: sound and silence, what the blocks declare, and why reading ended early."""

    format: _Format | None = None
    pieces: list[Piece] = field(default_factory=list)
    declared: int = 0
    present: int = 0
    lead_seconds: float = 0.0
    damage: str | None = None
    next_file: int | None = None
    stray_bytes: int = 0

    def add(self, piece: Piece, declared: int) -> None:
        self.pieces.append(piece)
        self.declared += declared
        self.present += len(piece)
        if self.present > _MOST_BYTES:
            raise AudioError("repeats make this recording longer than 2 GiB")

    def add_silence(self, seconds: float) -> None:
        if self.format is None:
            self.lead_seconds += seconds
            return
        silence = _CODECS[self.format.codec][2] * (round(seconds * self.format.sample_rate) * self.format.width)
        self.add(silence, len(silence))


def voc_sound(file: Source) -> SoundBytes | None:
    """The sound of all blocks of a VOC file, as a WAV file; None for other files and for compressed blocks.

    Raises:
        AudioError: repeats that exceed 2 GiB.
        OSError: the file cannot be read.
    """
    within = without_tags(file)
    file.seek(within.start)
    head = file.read(26)
    if head[:20] != _MAGIC or len(head) < 26:
        return None
    stream = _read_blocks(file, within, within.start + struct.unpack_from("<H", head, 20)[0])
    if stream is None or stream.format is None:
        return None
    tag, bits, _ = _CODECS[stream.format.codec]
    rate, channels, width = stream.format.sample_rate, stream.format.channels, stream.format.width
    fmt = struct.pack("<4sIHHIIHH", b"fmt ", 16, tag, channels, rate, rate * width, width, bits)
    start = b"RIFF" + struct.pack("<I", 36 + stream.present) + b"WAVE" + fmt + b"data" + struct.pack("<I", stream.present)
    return SoundBytes(
        stream.declared,
        stream.present,
        (start, *stream.pieces),
        stream.stray_bytes,
        format="VOC",
        damage=stream.damage,
        next_file=stream.next_file,
    )


def _read_blocks(file: Source, within: range, place: int) -> _Stream | None:
    stream = _Stream()
    end = within.stop
    extended: _Format | None = None
    repeat: tuple[int, int] | None = None
    while (block := _block(file, place, end)) is not None:
        kind, start, size, head = block
        place = start + size
        if kind == _TERMINATOR:
            stream.next_file = place if begins_file(file, place) else None
            stream.stray_bytes = 0 if is_padding(file, place, end) else end - place
            break
        if kind in (_SOUND, _NEW):
            described = _format(kind, head, extended)
            extended = None
            if described is None or described.codec not in _CODECS or not described.channels:
                return None
            if stream.format is None:
                stream.format = described
                stream.add_silence(stream.lead_seconds)
            elif described != stream.format:
                stream.damage = f"the format changes to {described.sample_rate} Hz and {described.channels} channels"
                break
        if kind in (_SOUND, _NEW, _MORE):
            if stream.format is None:
                return None
            counted = place + _SOX_SHORT
            if kind == _NEW and counted < end and not _is_list(file, place, end) and _is_list(file, counted, end):
                place = counted
            sound = range(start + _HEADS.get(kind, 0), min(place, end))
            if place > end or not _is_list(file, place, end):
                # Of 24 bits, so sizes above 16 MiB wrap; zero or all ones where the program never came back to write it.
                stream.next_file = find_file(file, within.start, range(sound.start, end))
                stop = stream.next_file or end
                wrapped = place <= stop or size == _UNKNOWN_SIZE
                place, sound = stop, range(sound.start, stop - _ends_with_terminator(file, stop) if wrapped else stop)
                stream.add(sound, len(sound) if wrapped else start + size - sound.start)
            else:
                stream.add(sound, len(sound))
        elif kind == _SILENCE and len(head) >= 3:
            stream.add_silence((struct.unpack_from("<H", head)[0] + 1) * (256 - head[2]) / 1_000_000)
        elif kind == _EXTENDED and len(head) >= 4:
            channels = head[3] + 1
            extended = _Format(256_000_000 // (channels * (65536 - struct.unpack_from("<H", head)[0])), channels, head[2])
        elif kind == _REPEAT and len(head) >= 2:
            repeat = (len(stream.pieces), struct.unpack_from("<H", head)[0])
        elif kind == _REPEAT_END and repeat is not None:
            first, times = repeat
            body = stream.pieces[first:]
            for _ in range(0 if times == _ENDLESS else times):
                for piece in body:
                    stream.add(piece, len(piece))
            repeat = None
    return stream


def _block(file: Source, place: int, end: int) -> tuple[int, int, int, bytes] | None:
    """A block's kind, the place and size of its content, and the first bytes of that; None at the end."""
    if place >= end:
        return None
    file.seek(place)
    header = file.read(16)
    if header[0] == _TERMINATOR:
        return _TERMINATOR, place + 1, 0, b""
    if len(header) < 4 or header[0] > _NEW:
        return None
    return header[0], place + 4, int.from_bytes(header[1:4], "little"), header[4:]


def _is_list(file: Source, place: int, end: int) -> bool:
    """Whether blocks follow, up to a terminator or the end; the last one may be cut."""
    while place < end:
        block = _block(file, place, end)
        if block is None:
            return False
        kind, start, size, _ = block
        if kind == _TERMINATOR:
            return True
        if size < _HEADS.get(kind, 0):
            return False
        place = start + size
    return True


def _ends_with_terminator(file: Source, end: int) -> int:
    file.seek(end - 1)
    return int(file.read(1) == b"\0")


def _format(kind: int, head: bytes, extended: _Format | None) -> _Format | None:
    if kind == _NEW and len(head) >= 12:
        rate, bits, channels, codec = struct.unpack_from("<IBBH", head)
        return _Format(rate, channels, 4 if codec == 0 and bits == 16 else codec)
    if kind == _SOUND and len(head) >= 2:
        return extended or _Format(1_000_000 // (256 - head[0]), 1, head[1])
    return None
