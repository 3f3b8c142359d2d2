"""The noise floor of a recording, from one pass over it in constant memory.

Background noise is the sound that is also there when nothing calls. So its power is measured in each frequency bin by a low
quantile over time, which a pitch that sounds in half of the recording raises by a few dB, whereas a mean over the whole
recording rises with every call. What never pauses, such as a cicada at one pitch, counts as noise.

For noise with Gaussian samples the power of a bin is distributed exponentially, so that with mean m

    P(power <= x) = 1 - exp(-x / m),    hence    m = x_q / -ln(1 - q)    for the quantile x_q.

The quantile is read from histograms in steps of 1 dB, one per channel and bin, whose size does not depend on the length.
Digital silence is not counted: a recording with gaps has the noise of its other parts.
"""

from __future__ import annotations

import math
from collections import deque

import numpy as np
from numpy.typing import NDArray
from scipy.fft import rfft

from rave_dist.audio.types import Audio

_WINDOW_SECONDS = 0.0213  # 1024 samples at 48 kHz
_LEAST_WINDOW = 64
_QUANTILE = 0.3
_LEAST_SECONDS = 1.0
_DB_RANGE = (-160, 100)  # of a bin's power; lower is digital silence
_FRAMES_AT_ONCE = 64
_ROUNDING_POWER = 2.0**-30 / 12  # of the rounding to 16 bits


def window_for(sample_rate: int) -> Audio:
    """The window of all spectra at a sample rate: periodic Hann, a power of two of 21 to 43 ms."""
    size = max(_LEAST_WINDOW, 1 << math.ceil(math.log2(_WINDOW_SECONDS * sample_rate)))
    return np.asarray(np.hanning(size + 1)[:-1], dtype=np.float32)


class NoiseProfile:
    """Accumulates the noise floor of a recording; the result does not depend on the blocks.

    Args:
        sample_rate: in Hz.
        channels: of every block.
    """

    def __init__(self, *, sample_rate: int, channels: int) -> None:
        self._window = window_for(sample_rate)
        size = len(self._window)
        self._hop = size // 2
        self._least = math.ceil(_LEAST_SECONDS * sample_rate / self._hop)
        self._levels = _DB_RANGE[1] - _DB_RANGE[0]
        self._counts = np.zeros((channels, size // 2 + 1, self._levels), np.uint32)
        self._held: deque[Audio] = deque()
        self._length = 0

    def add(self, block: Audio) -> None:
        """Adds the next block, float32 [channels, samples]."""
        # Frames are computed in batches at fixed positions, so that rounding is the same for any blocks.
        size, step = (_FRAMES_AT_ONCE - 1) * self._hop + len(self._window), _FRAMES_AT_ONCE * self._hop
        self._held.append(block)
        self._length += block.shape[1]
        if self._length < size:
            return
        joined = np.concatenate(self._held, axis=1)
        start = 0
        while joined.shape[1] - start >= size:
            self._count(joined[:, start : start + size], self._counts)
            start += step
        self._held = deque([joined[:, start:].copy()])
        self._length = joined.shape[1] - start

    @property
    def floor(self) -> Audio:
        """The mean power of the noise in every bin of a spectrum, at least that of rounding to 16 bits.

        Where less than a second can be measured, it is that of rounding. Output: [channels, bins].
        """
        counts = self._counts.copy()
        if self._length >= len(self._window):
            self._count(np.concatenate(self._held, axis=1), counts)
        total = counts.sum(axis=-1, dtype=np.int64)
        below = np.cumsum(counts, axis=-1, dtype=np.int64)
        wanted = _QUANTILE * total[..., None]
        level = np.argmax(below >= np.maximum(wanted, 1), axis=-1)[..., None]
        inside = np.take_along_axis(counts, level, axis=-1)
        before = np.take_along_axis(below, level, axis=-1) - inside
        db = _DB_RANGE[0] + level + (wanted - before) / np.maximum(inside, 1)
        power = 10 ** (db[..., 0] / 10) / -math.log(1 - _QUANTILE)
        least = _ROUNDING_POWER * float(np.vdot(self._window, self._window))
        return np.where(total >= self._least, np.maximum(power, least), least).astype(np.float32)

    def _count(self, samples: Audio, counts: NDArray[np.uint32]) -> None:
        bins = counts.shape[1]
        offsets = np.arange(bins) * self._levels
        for channel, sound in enumerate(samples):
            frames = np.lib.stride_tricks.sliding_window_view(sound, len(self._window))[:: self._hop]
            power = np.square(np.abs(rfft(frames * self._window, axis=-1))).astype(np.float64)
            db = 10 * np.log10(np.maximum(power, 1e-30))
            level = np.minimum(np.floor(db).astype(np.int64) - _DB_RANGE[0], self._levels - 1)
            found = (level + offsets)[level >= 0]
            counts[channel] += np.bincount(found, minlength=bins * self._levels).reshape(bins, -1).astype(np.uint32)
