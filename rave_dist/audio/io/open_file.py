"""The interface between a decoding library and `rave_dist.audio.io.open`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from rave_dist.audio.types import Audio

# About two of the longest usual codec frames: encoders and decoders of lossy formats disagree about their first and last.
LOSSY_TOLERANCE_SAMPLES = 4096


@dataclass(frozen=True)
class OpenFile:
    """An open file.

    Attributes:
        sample_rate: in Hz.
        channels: as recorded.
        samples: the length that the headers give, or None.
        format: of the container.
        subtype: of the encoding.
        tolerance: how many samples may be missing in an intact file.
        read: returns the blocks of a file, float32 [channels, n], n as requested except in the last one; raises `AudioError` at
            damage, after the block before it.
        notes: what a listener should know about an intact file: a wrong header, further tracks.
        bitstream: encoding of the compressed stream that the file has in place of samples, or None.
    """

    sample_rate: int
    channels: int
    samples: int | None
    format: str
    subtype: str
    tolerance: int
    read: Callable[[int], Iterator[Audio]]
    notes: tuple[str, ...] = ()
    bitstream: str | None = None
