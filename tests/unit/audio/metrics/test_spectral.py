import numpy as np
import pytest

from rave_dist.audio.metrics.spectral import (
    brightness_hz,
    decibels,
    level_dbfs,
    magnitudes,
    mel_bands,
    mel_distance_db,
    peak_dbfs,
    spectral_distance_db,
)

RATE = 44100


def tone(hz: float, seconds: float = 1.0, amplitude: float = 1.0) -> np.ndarray:
    return (amplitude * np.sin(2 * np.pi * hz * np.arange(round(seconds * RATE)) / RATE)).astype(np.float32)


def test_levels_of_known_sounds() -> None:
    assert level_dbfs(tone(1000)) == pytest.approx(-3.01, abs=0.01)
    assert level_dbfs(tone(1000, amplitude=0.1)) == pytest.approx(-23.01, abs=0.01)
    assert level_dbfs(np.ones((2, 100), np.float32)) == 0
    assert peak_dbfs(tone(1000, amplitude=0.5)) == pytest.approx(-6.02, abs=0.01)
    for silence in (np.zeros(1000, np.float32), np.zeros(0, np.float32), np.zeros((2, 0), np.float32)):
        assert level_dbfs(silence) == peak_dbfs(silence) == -120


def test_a_full_scale_tone_is_zero_decibels_in_its_own_bin() -> None:
    bin_hz = RATE / 2048
    middle = decibels(magnitudes(tone(100 * bin_hz), 2048, 512))[40]
    assert middle[100] == pytest.approx(0, abs=0.01)
    assert middle[:90].max() < -60
    assert middle[110:].max() < -60


def test_distance_is_zero_for_the_same_and_grows_with_the_difference() -> None:
    noise = 0.1 * np.random.default_rng(0).standard_normal(RATE).astype(np.float32)
    assert spectral_distance_db(noise, noise) == 0
    assert spectral_distance_db(noise, noise / 2) == pytest.approx(6.02, abs=0.05)
    assert spectral_distance_db(noise / 2, noise) == pytest.approx(6.02, abs=0.05)
    assert spectral_distance_db(noise, tone(500)) > spectral_distance_db(noise, noise / 2)
    assert spectral_distance_db(noise, np.zeros(0, np.float32)) == 0


def test_silence_is_far_from_a_dark_sound_too() -> None:
    """Most of a dark sound's spectrum is inaudible, and must not hide that the rest is missing."""
    dark = tone(150, amplitude=0.5)
    silence = np.zeros_like(dark)
    assert spectral_distance_db(dark, silence) > 15
    assert spectral_distance_db(silence, dark) == spectral_distance_db(dark, silence)
    assert spectral_distance_db(silence, silence) == 0


@pytest.mark.parametrize("num_samples", [0, 1, 100, 2047, 2049])
def test_short_sounds_have_a_spectrum(num_samples: int) -> None:
    sound = tone(1000)[:num_samples]
    assert np.isfinite(magnitudes(sound, 2048, 512)).all()
    assert spectral_distance_db(sound, sound) == 0


def test_brightness_is_the_pitch_of_a_tone() -> None:
    assert brightness_hz(tone(3000), RATE) == pytest.approx(3000, rel=0.02)
    assert brightness_hz(np.zeros(5000, np.float32), RATE) == 0


@pytest.mark.parametrize("rate", [8000, 44100, 96000])
def test_mel_bands_cover_every_frequency_once(rate: int) -> None:
    bands = mel_bands(rate)
    assert bands.shape == (80, 1025)
    frequencies = np.fft.rfftfreq(2048, 1 / rate)
    middle = (frequencies > 60) & (frequencies < 0.46 * rate)  # below and above, the outermost bands fall off
    assert bands.sum(0)[middle] == pytest.approx(1, abs=1e-6)
    centres = frequencies[bands.argmax(1)]
    assert (np.diff(centres) >= 0).all()
    assert centres[-1] - centres[-2] > 3 * (centres[1] - centres[0])  # wider the higher they are


def test_mel_distance_is_that_of_the_ear() -> None:
    noise = 0.1 * np.random.default_rng(0).standard_normal(RATE).astype(np.float32)
    assert mel_distance_db(noise, noise, RATE) == 0
    assert mel_distance_db(noise, noise / 2, RATE) == pytest.approx(6.02, abs=0.01)
    # Another noise of the same colour: far in every bin of a transform, near in bands that hold many of them.
    other = 0.1 * np.random.default_rng(1).standard_normal(RATE).astype(np.float32)
    assert mel_distance_db(noise, other, RATE) < 0.8 * spectral_distance_db(noise, other)
    assert mel_distance_db(np.zeros(5000, np.float32), np.zeros(5000, np.float32), RATE) == 0
