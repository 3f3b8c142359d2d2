"""Streaming sample-rate conversion (soxr) whose output length is known beforehand.

n samples at rate r become ``round(n * R / r)`` samples at rate R, halves up: 3 s stay 3 s. soxr gives that length to within
a sample; the last block is cut, or lengthened with zeros, to be exact.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import soxr

from rave_dist.audio.types import Audio

_PIECE_BYTES = 4 << 20


def resampled_length(samples: int, rate: int, new_rate: int) -> int:
    """The number of samples at ``new_rate`` for ``samples`` at ``rate``."""
    return (2 * samples * new_rate + rate) // (2 * rate)


def resample(blocks: Iterator[Audio], *, rate: int, new_rate: int, channels: int) -> Iterator[Audio]:
    """Converts a stream of blocks, float32 [channels, n], in constant memory; the result does not depend on the blocks.

    Args:
        blocks: consecutive blocks at ``rate``.
        rate: in Hz.
        new_rate: in Hz; where it equals ``rate`` the blocks pass untouched.
        channels: how many channels every block has.
    """
    if rate == new_rate:
        yield from blocks
        return
    stream = soxr.ResampleStream(rate, new_rate, channels, dtype="float32", quality="HQ")
    # Pieces whose input and output are small: 192 kHz from 8 kHz are 24 times as many samples.
    piece = max(1, _PIECE_BYTES * rate // (4 * channels * max(rate, new_rate)))
    read = written = 0
    for block in blocks:
        for start in range(0, block.shape[1], piece):
            part = block[:, start : start + piece]
            read += part.shape[1]
            out = stream.resample_chunk(np.ascontiguousarray(part.T))
            written += len(out)
            if len(out):
                yield np.ascontiguousarray(out.T)
    if not read:
        return
    out = stream.resample_chunk(np.zeros((0, channels), dtype=np.float32), last=True)
    missing = resampled_length(read, rate, new_rate) - written
    tail = np.zeros((channels, max(missing, 0)), dtype=np.float32)
    kept = out[: tail.shape[1]].T
    tail[:, : kept.shape[1]] = kept
    if tail.shape[1]:
        yield tail
