"""The length of a WAV of compressed blocks, whose last block is filled up: its chunk ``fact`` counts the samples.

Format: Microsoft's Multimedia Data Standards Update (1994).
"""

from __future__ import annotations

import struct

from rave_dist.audio.io.byte_view import Source

_GSM, _GSM_SAMPLES = 0x31, 320
_TAGS = {0x02, 0x11, _GSM}  # Microsoft and IMA ADPCM, GSM 6.10
_MOST_CHUNKS = 1000


def fact_samples(file: Source, samples: int) -> int:
    """The samples that a WAV declares in its chunk ``fact``; ``samples``, those of all its blocks, where it has no valid one.

    Raises:
        OSError: the file cannot be read.
    """
    chunks = {}
    file.seek(0)
    if file.read(12)[:4] not in (b"RIFF", b"RF64"):
        return samples
    for _ in range(_MOST_CHUNKS):
        header = file.read(8)
        if len(header) < 8 or header[:4] == b"data":
            break
        name, size = struct.unpack("<4sI", header)
        if name in (b"fmt ", b"fact"):
            chunks[name] = file.read(min(size, 64))
        file.seek(max(0, size - 64) + size % 2 if name in chunks else size + size % 2, 1)
    form, fact = chunks.get(b"fmt ", b""), chunks.get(b"fact", b"")
    if len(form) < 20 or len(fact) < 4:
        return samples
    tag, count = struct.unpack_from("<H", form)[0], struct.unpack_from("<I", fact)[0]
    block = _GSM_SAMPLES if tag == _GSM else struct.unpack_from("<H", form, 18)[0]
    # Decoders count a byte of padding behind the last block as another block.
    return count if tag in _TAGS and 0 < samples - count < 2 * block else samples
