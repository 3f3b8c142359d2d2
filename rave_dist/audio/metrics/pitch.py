"""Pitch by autocorrelation, and the pitch deviation of two recordings.

With x a frame of W samples, the normalised square difference function (P. McLeod and G. Wyvill, A smarter way to find pitch,
ICMC 2005)

    n(t) = 2 sum x[i] x[i + t] / sum (x[i]² + x[i + t]²)

is 1 where the frame repeats after t samples. The pitch is at the first peak that is nearly as high as the highest; a frame
whose highest peak is low has none.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rave_dist.audio.types import Audio

LOWEST_HZ, HIGHEST_HZ = 50.0, 2000.0
_CLEAR = 0.9  # of a frame that repeats: higher means a clearer pitch
_NEARLY = 0.93  # of the highest peak: the first such peak is the period, later ones are its multiples
_QUIET = 1e-3  # of full scale: a frame below -60 dBFS has no pitch
_FRAMES_AT_ONCE = 256


def pitches(
    sound: Audio, sample_rate: int, *, lowest_hz: float = LOWEST_HZ, highest_hz: float = HIGHEST_HZ, every: int = 1
) -> NDArray[np.float64]:
    """The pitch in Hz every 512 samples (at 44100 Hz; in proportion at other rates), NaN where there is none.

    Input: [samples]. Output: [frames], of windows of two of the longest periods; of them only every ``every``-th.
    """
    longest, shortest = int(np.ceil(sample_rate / lowest_hz)), int(sample_rate / highest_hz)
    window, hop = 2 * longest, max(1, round(512 * sample_rate / 44100))
    if len(sound) < window:
        return np.zeros(0)
    frames = np.lib.stride_tricks.sliding_window_view(sound, window)[:: hop * every]
    parts = [frames[i : i + _FRAMES_AT_ONCE] for i in range(0, len(frames), _FRAMES_AT_ONCE)]
    return np.concatenate([_pitch_of(part.astype(np.float64), sample_rate, longest, shortest) for part in parts])


def _pitch_of(frames: NDArray[np.float64], sample_rate: int, longest: int, shortest: int) -> NDArray[np.float64]:
    """[frames, window] to [frames]."""
    count, window = frames.shape
    spectrum = np.fft.rfft(frames, 2 * window)
    correlation = np.fft.irfft(np.square(np.abs(spectrum)))[:, : longest + 2]
    energy = np.concatenate([np.zeros((count, 1)), np.cumsum(np.square(frames), axis=1)], axis=1)
    lags = np.arange(correlation.shape[1])
    both = energy[:, window - lags] + energy[:, -1:] - energy[:, lags]
    similarity = 2 * correlation / np.maximum(both, 1e-12)
    middle = similarity[:, 1:-1]
    peak = (middle > similarity[:, :-2]) & (middle >= similarity[:, 2:])
    peak[:, : shortest - 1] = False
    heights = np.where(peak, middle, 0.0)
    highest = heights.max(axis=1)
    first = np.argmax(heights >= _NEARLY * highest[:, None], axis=1) + 1
    rows = np.arange(count)
    left, here, right = (similarity[rows, first + offset] for offset in (-1, 0, 1))
    curvature = left - 2 * here + right
    lag = first + np.where(curvature < 0, 0.5 * (left - right) / np.where(curvature < 0, curvature, -1.0), 0.0)
    loud = np.sqrt(energy[:, -1] / window) > _QUIET
    return np.where(loud & (highest >= _CLEAR), sample_rate / lag, np.nan)


def pitch_deviation(a: Audio, b: Audio, sample_rate: int) -> tuple[float | None, float | None]:
    """The pitch deviation of ``b`` from ``a`` in cents, and the share of voiced frames that is kept.

    Input: two [samples] of one length.

    Returns:
        The median absolute difference where both have a pitch, and the share of the frames with a pitch in ``a`` that have one
        in ``b`` too; None where there are no such frames.
    """
    return deviation(pitches(a, sample_rate), pitches(b, sample_rate))


def deviation(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[float | None, float | None]:
    """`pitch_deviation` of two recordings of which the pitches are known. Input: two [frames] of one length."""
    asked = np.isfinite(x)
    if not asked.any():
        return None, None
    both = asked & np.isfinite(y)
    cents = 1200 * np.abs(np.log2(y[both] / x[both]))
    return (float(np.median(cents)) if len(cents) else None), float(both.sum() / asked.sum())
