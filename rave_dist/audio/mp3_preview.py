"""Small sounds for a page: MP3, which every browser plays and seeks in."""

from __future__ import annotations

import io

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

_MP3_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
_MP3_CHANNELS = 2


def mp3(sound: NDArray[np.float32], sample_rate: int) -> bytes:
    """An MP3 of a sound, about 10 kB a second. Rates that MP3 does not have become the next higher one, at most 48 kHz.

    Input: [channels, samples], full scale 1; louder samples are clipped; more than two channels are averaged.
    """
    if sound.shape[0] > _MP3_CHANNELS:
        sound = sound.mean(axis=0, keepdims=True)
    rate = next((r for r in _MP3_RATES if r >= sample_rate), _MP3_RATES[-1])
    frames = np.clip(sound, -1, 1).T
    if rate != sample_rate:
        frames = soxr.resample(frames, sample_rate, rate)
    file = io.BytesIO()
    soundfile.write(file, frames, rate, format="MP3")
    return file.getvalue()
