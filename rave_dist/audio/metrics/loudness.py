"""Loudness as broadcasters measure it (ITU-R BS.1770-4): K-weighted power in overlapping blocks of 400 ms.

A block's loudness, with z_c the K-weighted signal of channel c and <> the mean over the block, is

    l = -0.691 + 10 log10( sum_c <z_c²> )   LUFS

and a programme's is that of the mean power of its blocks above -70 LUFS which are also not more than 10 LU below the mean of
those. K-weighting is a high shelf and a high pass; their analogue prototypes, for any sample rate, are those of libebur128.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.signal import sosfilt

from rave_dist.audio.types import Audio

SILENCE_LUFS = -70.0
"""The absolute gate: nothing quieter counts as sound."""

LEAST_SAMPLE_RATE = 4000
"""In Hz; below it K-weighting, whose shelf is at 1682 Hz, is not defined."""

_BLOCK_SECONDS, _HOP_SECONDS = 0.4, 0.1
_HOPS_AT_ONCE = 10
_STEPS_PER_LU, _MOST_LUFS = 100, 60
_OFFSET, _RELATIVE_GATE = -0.691, -10.0
_SHELF_DB, _SHELF_HZ, _SHELF_Q, _SHELF_SLOPE = 3.999843853973347, 1681.974450955533, 0.7071752369554196, 0.4996667741545416
_PASS_HZ, _PASS_Q = 38.13547087602444, 0.5003270373238773


def loudness(sound: Audio, sample_rate: int) -> float:
    """Integrated loudness in LUFS; -70 for silence, and for sounds shorter than a block. Input: [channels, samples]."""
    power = _block_powers(sound, sample_rate)
    gate = SILENCE_LUFS
    for relative in (_RELATIVE_GATE, 0.0):
        power = power[lufs(power) > gate]
        if not len(power):
            return SILENCE_LUFS
        gate = float(lufs(power.mean(keepdims=True))[0]) + relative
    return gate


def loudness_deviation(a: Audio, b: Audio, sample_rate: int) -> float:
    """Mean absolute difference of momentary loudness in LU, over the blocks in which ``a`` is audible.

    Input: two [channels, samples] of the same length.
    """
    x, y = (np.maximum(lufs(_block_powers(sound, sample_rate)), SILENCE_LUFS) for sound in (a, b))
    audible = x > SILENCE_LUFS
    return float(np.abs(x - y)[audible].mean()) if audible.any() else 0.0


class KWeighting:
    """The K-weighted power of each sample of a stream; the result does not depend on the blocks.

    Args:
        sample_rate: in Hz, at least `LEAST_SAMPLE_RATE`.
        channels: of every block.
    """

    def __init__(self, *, sample_rate: int, channels: int) -> None:
        self._filter = _k_weighting(sample_rate)
        self._state = np.zeros((len(self._filter), channels, 2))

    def power(self, sound: Audio) -> NDArray[np.float64]:
        """All channels of the next block together. Input: [channels, samples]; output: [samples]."""
        weighted, self._state = sosfilt(self._filter, sound.astype(np.float64), axis=-1, zi=self._state)
        return np.asarray(np.square(weighted).sum(0))


class LoudnessMeter:
    """Integrated loudness of a stream in constant memory; the result does not depend on the blocks.

    The powers of its blocks are added up in steps of 0.01 LU, so it may differ by 0.01 LU from `loudness`.

    Args:
        sample_rate: in Hz, at least `LEAST_SAMPLE_RATE`.
        channels: of every block.
    """

    def __init__(self, *, sample_rate: int, channels: int) -> None:
        self._weighting = KWeighting(sample_rate=sample_rate, channels=channels)
        self._block, self._hop = round(_BLOCK_SECONDS * sample_rate), round(_HOP_SECONDS * sample_rate)
        self._weighted: list[NDArray[np.float64]] = []  # squared, all channels together
        self._length = 0
        steps = (_MOST_LUFS - round(SILENCE_LUFS)) * _STEPS_PER_LU
        self._counts, self._powers = np.zeros(steps, np.int64), np.zeros(steps)

    def add(self, sound: Audio) -> None:
        """Adds the next block, [channels, samples]."""
        if not sound.size:
            return
        self._weighted.append(self._weighting.power(sound))
        self._length += sound.shape[-1]
        if self._length < self._block + _HOPS_AT_ONCE * self._hop:
            return
        joined = np.concatenate(self._weighted)
        while len(joined) >= self._block + _HOPS_AT_ONCE * self._hop:
            self._count(joined[: self._block + (_HOPS_AT_ONCE - 1) * self._hop], self._counts, self._powers)
            joined = joined[_HOPS_AT_ONCE * self._hop :]
        self._weighted, self._length = [joined.copy()], len(joined)

    @property
    def integrated(self) -> float:
        """Integrated loudness in LUFS so far; -70 for silence, and for sounds shorter than a block."""
        counts, powers = self._counts.copy(), self._powers.copy()
        if self._length >= self._block:
            self._count(np.concatenate(self._weighted), counts, powers)
        first = 0
        for relative in (_RELATIVE_GATE, 0.0):
            if not counts[first:].any():
                return SILENCE_LUFS
            mean = float(lufs(powers[first:].sum(keepdims=True) / counts[first:].sum())[0])
            first = max(0, int((mean + relative - SILENCE_LUFS) * _STEPS_PER_LU))
        return mean

    def _count(self, weighted: NDArray[np.float64], counts: NDArray[np.int64], powers: NDArray[np.float64]) -> None:
        power = _mean_powers(weighted, self._block, self._hop)
        step = np.floor((lufs(power) - SILENCE_LUFS) * _STEPS_PER_LU).astype(np.int64)
        audible = step >= 0
        step = np.minimum(step[audible], len(counts) - 1)
        np.add.at(counts, step, 1)
        np.add.at(powers, step, power[audible])


def lufs(power: NDArray[np.float64]) -> NDArray[np.float64]:
    """The loudness of K-weighted power, of all channels together."""
    return np.asarray(_OFFSET + 10 * np.log10(np.maximum(power, 1e-30)), dtype=np.float64)


def _block_powers(sound: Audio, sample_rate: int) -> NDArray[np.float64]:
    """K-weighted power of every block, all channels together. Output: [blocks]."""
    weighted = sosfilt(_k_weighting(sample_rate), sound.astype(np.float64), axis=-1)
    return _mean_powers(np.square(weighted).sum(0), round(_BLOCK_SECONDS * sample_rate), round(_HOP_SECONDS * sample_rate))


def _mean_powers(weighted: NDArray[np.float64], block: int, hop: int) -> NDArray[np.float64]:
    """Means over overlapping blocks. Input: [samples]; output: [blocks]."""
    total = np.concatenate([[0.0], np.cumsum(weighted)])
    starts = np.arange(0, len(weighted) - block + 1, hop)
    return np.asarray((total[starts + block] - total[starts]) / block, dtype=np.float64)


def _k_weighting(sample_rate: int) -> NDArray[np.float64]:
    """Both filters as second-order sections."""
    k, gain = np.tan(np.pi * _SHELF_HZ / sample_rate), 10 ** (_SHELF_DB / 20)
    band = gain**_SHELF_SLOPE * k / _SHELF_Q
    shelf = [gain + band + k * k, 2 * (k * k - gain), gain - band + k * k, *_resonance(k, _SHELF_Q)]
    k = np.tan(np.pi * _PASS_HZ / sample_rate)
    a = np.asarray(_resonance(k, _PASS_Q))
    return np.asarray([np.asarray(shelf) / shelf[3], [1.0, -2.0, 1.0, *(a / a[0])]])


def _resonance(k: float, q: float) -> list[float]:
    return [1 + k / q + k * k, 2 * (k * k - 1), 1 - k / q + k * k]
