"""Compressed sound that is stored as if it were samples: DTS CDs, and AC-3, DTS or Dolby E as sent over digital cables.

Played as samples it is noise at full scale. Frames start with a marker at equal distances. Formats: IEC 61937 and SMPTE 337M
(bursts), ETSI TS 102 114 (DTS).
"""

from __future__ import annotations

import numpy as np
import soundfile
from numpy.typing import NDArray

_BITS = {"PCM_16": 16, "PCM_24": 24}
_PIECE_FRAMES = 1 << 16
_LEAD_PIECES = 10  # of silence before the first frame, about 15 s
_LEAST_DISTANCE = 128

# Bits of a word, the two words of a marker, and a mask and value of the word behind it.
_DTS = (
    (16, 0x7FFE, 0x8001, 0xFC00, 0xFC00),
    (16, 0xFE7F, 0x0180, 0x00FC, 0x00FC),
    (16, 0x1FFF, 0xE800, 0xFFF0, 0x07F0),
    (16, 0xFF1F, 0x00E8, 0xF0FF, 0xF007),
)
_BURSTS = (
    (16, 0xF872, 0x4E1F, 0, 0),
    (24, 0x96F872, 0xA54E1F, 0, 0),
    (24, 0xF87200, 0x4E1F00, 0, 0),
    (24, 0x6F8720, 0x54E1F0, 0, 0),
)
_BURST_NAMES = {1: "AC-3", 7: "AAC", 11: "DTS", 12: "DTS", 13: "DTS", 17: "DTS-HD", 21: "E-AC-3", 22: "TrueHD", 28: "Dolby E"}


def may_hold_bitstream(file: soundfile.SoundFile) -> bool:
    """Whether samples are such that a compressed stream could lie in their place."""
    return file.subtype in _BITS and file.channels == 2 and bool(file.seekable())


def bitstream_in(file: soundfile.SoundFile) -> str | None:
    """The encoding of a file that has a compressed stream in place of samples, or None; reads its beginning.

    Raises:
        soundfile.SoundFileError: it is damaged.
    """
    bits = _BITS[file.subtype]
    for _ in range(_LEAD_PIECES):
        samples = file.read(_PIECE_FRAMES, dtype="int32")
        if samples.any() or not len(samples):
            return find_bitstream(samples.reshape(-1) >> (32 - bits), bits)
    return None


def find_bitstream(words: NDArray[np.int32], bits: int) -> str | None:
    """The encoding of a compressed stream in interleaved samples, or None.

    Args:
        words: of the channels in turn.
        bits: of a word.
    """
    unsigned = words & ((1 << bits) - 1)
    for marker in (*_DTS, *_BURSTS):
        width, first, second, mask, value = marker
        if width != bits:
            continue
        places = np.flatnonzero((unsigned[:-2] == first) & (unsigned[1:-1] == second) & (unsigned[2:] & mask == value))
        distances = np.diff(places)
        if len(distances) < 2 or np.bincount(distances).max() * 2 < len(distances) or np.median(distances) < _LEAST_DISTANCE:
            continue
        if marker in _DTS:
            return "DTS"
        kind = int(unsigned[places[0] + 2]) >> (bits - 16 if second != 0x54E1F0 else 4)
        return _BURST_NAMES.get(kind & 31, "IEC 61937")
    return None
