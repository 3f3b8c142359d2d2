from __future__ import annotations

import numpy as np
import pytest

from rave_dist.audio.metrics.spectral import spectral_distance_db
from rave_dist.audio.mp3_reference import through_mp3


def sound(rate: int, channels: int) -> np.ndarray:
    time = np.arange(2 * rate) / rate
    tone = 0.3 * np.sin(2 * np.pi * 440 * time) * np.exp(-3 * (time * 2 % 1))
    return (tone + 0.03 * np.random.default_rng(0).standard_normal((channels, len(time)))).astype(np.float32)


@pytest.mark.parametrize("rate", [8000, 22050, 32768, 44100, 48000, 96000])
@pytest.mark.parametrize("channels", [1, 2])
def test_what_comes_out_lies_on_what_went_in(rate: int, channels: int) -> None:
    original = sound(rate, channels)
    heard = through_mp3(original, rate)
    assert heard.shape == original.shape
    spectra = [np.fft.rfft(x, 2 * len(x)) for x in (original[0], heard[0])]
    assert np.argmax(np.fft.irfft(spectra[0].conj() * spectra[1])) == 0  # not a sample early or late
    residue = np.square(heard - original).mean() / np.square(original).mean()
    assert 1e-6 < residue < 0.2


def test_fewer_bits_are_further_away() -> None:
    original = sound(44100, 1)
    near, far = (spectral_distance_db(original[0], through_mp3(original, 44100, kilobits=k)[0]) for k in (128, 32))
    assert 0 < near < far
