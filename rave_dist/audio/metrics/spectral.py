"""Spectral distances and levels in familiar units."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rave_dist.audio.types import Audio

SILENCE_DBFS = -120.0
_SCALES = (2048, 1024, 512, 256, 128)
_FLOOR_DB = -90.0
_MEL_WINDOW, _MEL_BANDS = 2048, 80


def level_dbfs(sound: Audio) -> float:
    """RMS level in dB, where a square wave at full scale is 0; silence is -120. Input: [..., samples]."""
    power = float(np.mean(np.square(sound, dtype=np.float64))) if sound.size else 0.0
    return max(SILENCE_DBFS, 10 * float(np.log10(max(power, 1e-30))))


def peak_dbfs(sound: Audio) -> float:
    """The largest sample in dB below full scale; silence is -120. Input: [..., samples]."""
    peak = float(np.abs(sound).max(initial=0.0))
    return max(SILENCE_DBFS, 20 * float(np.log10(max(peak, 1e-15))))


def magnitudes(sound: Audio, n_fft: int, hop: int) -> NDArray[np.float32]:
    """Short-time spectrum with a Hann window: 1 for a sinusoid at full scale.

    Input: [samples]. Output: [frames, n_fft // 2 + 1]; frame i is centred on sample i · hop; the ends are padded with
    silence.
    """
    padded = np.pad(sound, (n_fft // 2, n_fft // 2 + max(0, n_fft - len(sound))))
    frames = np.lib.stride_tricks.sliding_window_view(padded, n_fft)[::hop]
    window = np.hanning(n_fft + 1)[:-1].astype(np.float32)
    spectrum = np.abs(np.fft.rfft(frames * window, axis=-1)) * (2 / window.sum())
    return np.asarray(spectrum, dtype=np.float32)


def decibels(magnitude: NDArray[np.float32], floor: float = _FLOOR_DB) -> NDArray[np.float32]:
    """Magnitudes in dB below full scale; values below ``floor`` are clipped to it, since they are inaudible."""
    return np.asarray(20 * np.log10(np.maximum(magnitude, 10 ** (floor / 20))), dtype=np.float32)


def spectral_distance_db(a: Audio, b: Audio) -> float:
    """Mean absolute difference of two spectra in dB, over windows of 2048, 1024, 512, 256 and 128 samples.

    Bins below -90 dBFS in both are excluded as inaudible. The distance is zero for equal recordings, and g for a recording and
    itself g dB quieter (less near the floor). Input: two [samples]; the longer one is cut. Multi-scale as in J. Engel et al.,
    DDSP (2020), here in dB rather than in nepers.
    """
    num_samples = min(len(a), len(b))
    if num_samples == 0:
        return 0.0
    distances: list[float] = []
    for n_fft in _SCALES:
        x, y = (decibels(magnitudes(sound[:num_samples], n_fft, n_fft // 4)) for sound in (a, b))
        audible = np.maximum(x, y) > _FLOOR_DB
        if audible.any():
            distances.append(float(np.abs(x - y)[audible].mean()))
    return float(np.mean(distances)) if distances else 0.0


def mel_distance_db(a: Audio, b: Audio, sample_rate: int) -> float:
    """Mean absolute difference of two mel spectra in dB, with 80 bands and windows of 2048 samples.

    Like `spectral_distance_db` at the resolution of the ear; bands below -90 dBFS in both are excluded. Input: two [samples];
    the longer one is cut.
    """
    num_samples = min(len(a), len(b))
    bands = mel_bands(sample_rate)
    spectra = [np.square(magnitudes(sound[:num_samples], _MEL_WINDOW, _MEL_WINDOW // 4)) @ bands.T for sound in (a, b)]
    x, y = (decibels(np.sqrt(power)) for power in spectra)
    audible = np.maximum(x, y) > _FLOOR_DB
    return float(np.abs(x - y)[audible].mean()) if audible.any() else 0.0


def mel_bands(sample_rate: int, bands: int = _MEL_BANDS) -> NDArray[np.float32]:
    """Triangles that are equally wide and spaced in mel, m = 2595 log10(1 + f / 700): [bands, n_fft // 2 + 1].

    Each has a height of 1 and its feet in the middles of its neighbours, the outermost at 0 and half the sample rate.
    """
    top = 2595 * np.log10(1 + sample_rate / 2 / 700)
    corners = 700 * (10 ** (np.linspace(0, top, bands + 2) / 2595) - 1)
    frequencies = np.fft.rfftfreq(_MEL_WINDOW, 1 / sample_rate)
    low, middle, high = (corners[offset : offset + bands, None] for offset in range(3))
    triangles = np.minimum((frequencies - low) / (middle - low), (high - frequencies) / (high - middle))
    return np.asarray(np.maximum(triangles, 0), dtype=np.float32)


def brightness_hz(sound: Audio, sample_rate: int) -> float:
    """The centre of gravity of the power spectrum in Hz; 0 for silence. Input: [samples]."""
    power = np.square(magnitudes(sound, 2048, 512), dtype=np.float64).sum(axis=0)
    total = float(power.sum())
    frequencies = np.fft.rfftfreq(2048, 1 / sample_rate)
    return float((power * frequencies).sum() / total) if total > 1e-12 else 0.0
