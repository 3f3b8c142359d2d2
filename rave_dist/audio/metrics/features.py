"""What a listener follows in a sound, frame by frame: loudness, pitch, brightness, noisiness and attack."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rave_dist.audio.metrics.pitch import LOWEST_HZ, pitches
from rave_dist.audio.types import Audio

_WINDOW = 2048  # at least, in samples
_QUIET = 1e-3  # of full scale: a frame below -60 dBFS has neither brightness nor noisiness
_FLOOR = 1e-12


def features(sound: Audio, sample_rate: int, hop: int) -> dict[str, NDArray[np.float64]]:
    """Features of every frame of ``hop`` samples, from a window around its middle; NaN where a frame has none.

    Loudness is the power in dBFS, pitch and brightness (the centroid of the spectrum) are in octaves above 1 Hz, noisiness is
    the flatness of the spectrum in dB, and attack the mean rise of the spectrum since the frame before, in dB.

    Input: [channels, samples]. Output: [frames] each, of the whole frames in the sound.
    """
    mono = sound.mean(0).astype(np.float64)
    frames, window = len(mono) // hop, max(_WINDOW, 2 * hop)
    if not frames:
        return {name: np.zeros(0) for name in ("loudness", "pitch", "brightness", "noisiness", "attack")}
    before = (window - hop) // 2
    padded = np.pad(mono, (before, window))
    cut = np.lib.stride_tricks.sliding_window_view(padded, window)[::hop][:frames]
    power = np.square(cut).mean(1)
    spectrum = np.square(np.abs(np.fft.rfft(cut * np.hanning(window), axis=1)))[:, 1:] + _FLOOR
    levels = 10 * np.log10(spectrum)
    frequencies = np.fft.rfftfreq(window, 1 / sample_rate)[1:]
    audible = np.sqrt(power) > _QUIET
    centroid = (spectrum @ frequencies) / spectrum.sum(1)
    rise = np.maximum(np.diff(levels, axis=0, prepend=levels[:1]), 0).mean(1)
    return {
        "loudness": 10 * np.log10(power + _FLOOR),
        "pitch": _pitch(mono, sample_rate, hop, frames),
        "brightness": np.where(audible, np.log2(centroid), np.nan),
        "noisiness": np.where(audible, levels.mean(1) - 10 * np.log10(spectrum.mean(1)), np.nan),
        "attack": np.where(audible, rise, np.nan),
    }


def _pitch(mono: NDArray[np.float64], sample_rate: int, hop: int, frames: int) -> NDArray[np.float64]:
    """The pitch nearest to the middle of each frame, in octaves above 1 Hz."""
    found = pitches(mono.astype(np.float32), sample_rate)
    step, half = max(1, round(512 * sample_rate / 44100)), int(np.ceil(sample_rate / LOWEST_HZ))
    nearest = np.rint(((np.arange(frames) + 0.5) * hop - half) / step).astype(np.int64)
    inside = (nearest >= 0) & (nearest < len(found))
    pitch = np.full(frames, np.nan)
    pitch[inside] = np.log2(found[nearest[inside]])
    return pitch
