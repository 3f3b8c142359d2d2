"""Calls over background noise, at known places and levels."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from rave_dist.audio.synthesis import pink_noise, trill

RATE = 48000


def calls(seconds: float = 8.0, *, rate: int = RATE) -> tuple[np.ndarray, np.ndarray]:
    """Two trills: the sound [samples], and where they are."""
    sound, during = np.zeros(round(seconds * rate), np.float32), np.zeros(round(seconds * rate), np.bool_)
    for start, pace, peak in ((1.0, 6.5, 0.5), (5.0, 8.0, 0.3)):
        call = peak * trill(sample_rate=rate, notes_per_second=pace)
        first = round(start * rate)
        call = call[: max(0, len(sound) - first)]
        sound[first : first + len(call)] += call
        during[first : first + len(call)] = True
    return sound, during


def noise(kind: str, level: float, samples: int, *, rate: int = RATE, seed: int = 1) -> np.ndarray:
    """Pink noise, white noise or mains hum with its harmonics, with this RMS."""
    rng = np.random.default_rng(seed)
    time = np.arange(samples) / rate
    sound: np.ndarray = rng.standard_normal(samples)
    if kind == "pink":
        sound = pink_noise(samples, rng)
    elif kind == "hum":
        sound = 0.05 * sound + np.sum([np.sin(2 * np.pi * 50 * k * time + k) / k for k in range(1, 12)], axis=0)
    return np.asarray(sound * level / np.sqrt(np.mean(np.square(sound))), dtype=np.float32)


def level(sound: np.ndarray) -> float:
    """RMS in dB."""
    return float(20 * np.log10(np.sqrt(np.mean(np.square(sound.astype(np.float64)))) + 1e-30))


def split(sound: np.ndarray, size: int) -> Iterator[np.ndarray]:
    return (sound[:, start : start + size] for start in range(0, sound.shape[1], size))
