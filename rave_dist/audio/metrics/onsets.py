"""Onsets by spectral flux, and how many onsets of two recordings match.

With P[n, k] the power of frame n in band k of about a third of an octave, in dB and floored well below the loudest, the flux
is the mean of the few largest rises within two frames,

    f[n] = mean over the K largest of P[n, k] - P[n - 2, k]

so that a whistle in one band counts as a stroke in all. An onset is where it is the highest within 30 ms and well above its
mean over the last tenth of a second (S. Dixon, Onset detection revisited, DAFx 2006; S. Böck, F. Krebs and M. Schedl,
Evaluating the online capabilities of onset detection methods, ISMIR 2012).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rave_dist.audio.metrics.spectral import magnitudes
from rave_dist.audio.types import Audio

TOLERANCE_SECONDS = 0.05
"""Two onsets match within it: the tolerance of MIREX and of mir_eval (C. Raffel et al., ISMIR 2014)."""

_HOP_SECONDS, _WINDOW_SECONDS = 0.01, 0.023  # the window to the next power of two
_LOWEST_HZ, _BANDS, _LARGEST = 100.0, 24, 3
_RANGE_DB = 50.0  # below the loudest band: what is quieter has no onsets
_SILENCE_DB = -90.0  # of full scale, for recordings that are quieter altogether
_RISE_DB = 12.0  # above the mean of the flux; that of steady noise stays within it
_PEAK_FRAMES, _MEAN_FRAMES = 3, 10


def onsets(sound: Audio, sample_rate: int) -> NDArray[np.float64]:
    """The times in seconds at which something begins, to 10 ms, ascending. Input: [samples]. Output: [onsets]."""
    hop, size = round(_HOP_SECONDS * sample_rate), 2 ** round(np.log2(_WINDOW_SECONDS * sample_rate))
    if hop < 1 or len(sound) < size:
        return np.zeros(0)
    corners = np.geomspace(_LOWEST_HZ, sample_rate / 2, _BANDS + 1) * size / sample_rate
    bands = np.unique(corners[:-1].round().astype(int))
    power = np.add.reduceat(np.square(magnitudes(sound, size, hop)), bands, axis=1)
    loudest = 10 * np.log10(max(float(power.max()), 1e-30))
    level = 10 * np.log10(np.maximum(power, 10 ** (max(_SILENCE_DB, loudest - _RANGE_DB) / 10)))
    flux = np.sort(np.maximum(level[2:] - level[:-2], 0), axis=1)[:, -_LARGEST:].mean(axis=1)
    around = np.lib.stride_tricks.sliding_window_view(np.pad(flux, _PEAK_FRAMES), 2 * _PEAK_FRAMES + 1)
    before = np.lib.stride_tricks.sliding_window_view(np.pad(flux, (_MEAN_FRAMES, 0)), _MEAN_FRAMES + 1)
    found = np.flatnonzero((flux == around.max(axis=1)) & (flux >= before.mean(axis=1) + _RISE_DB))
    return (found + 1) * hop / sample_rate


def matches(a: Sequence[float] | NDArray[np.float64], b: Sequence[float] | NDArray[np.float64]) -> int:
    """The largest number of pairs within the tolerance, each onset in one pair at most. Input: ascending times."""
    count = i = j = 0
    while i < len(a) and j < len(b):
        if abs(a[i] - b[j]) <= TOLERANCE_SECONDS + 1e-9:
            count, i, j = count + 1, i + 1, j + 1
        elif a[i] < b[j]:
            i += 1
        else:
            j += 1
    return count
