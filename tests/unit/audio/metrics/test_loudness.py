from __future__ import annotations

import numpy as np
import pytest

from rave_dist.audio.metrics.loudness import SILENCE_LUFS, loudness, loudness_deviation


def tone(rate: int, *, channels: int = 1, amplitude: float = 1.0, seconds: float = 3.0, hz: float = 997) -> np.ndarray:
    wave = amplitude * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate)
    return np.repeat(wave[None], channels, axis=0).astype(np.float32)


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000, 96000])
def test_the_standards_own_example(rate: int) -> None:
    """A tone of 997 Hz at full scale in one channel is -3.01 LUFS (BS.1770, annex 1)."""
    assert loudness(tone(rate), rate) == pytest.approx(-3.01, abs=0.05)
    assert loudness(tone(rate, channels=2), rate) == pytest.approx(0.0, abs=0.05)
    assert loudness(tone(rate, amplitude=0.1), rate) == pytest.approx(-23.01, abs=0.05)


def test_the_ear_hears_less_of_the_bass() -> None:
    assert loudness(tone(48000, hz=30), 48000) < loudness(tone(48000), 48000) - 4
    assert loudness(tone(48000, hz=5000), 48000) > loudness(tone(48000), 48000) + 3


def test_silence_between_notes_does_not_count() -> None:
    loud, quiet = tone(44100), np.zeros((1, 5 * 44100), np.float32)
    assert loudness(np.concatenate([loud, quiet, loud], axis=1), 44100) == pytest.approx(loudness(loud, 44100), abs=0.5)
    assert loudness(quiet, 44100) == loudness(loud[:, :1000], 44100) == SILENCE_LUFS


def test_deviation_is_the_gain_between_two_sounds() -> None:
    sound = tone(44100, amplitude=0.5)
    assert loudness_deviation(sound, sound, 44100) == 0
    assert loudness_deviation(sound, sound / 2, 44100) == pytest.approx(6.02, abs=0.01)
    assert loudness_deviation(sound, 2 * sound, 44100) == pytest.approx(6.02, abs=0.01)
    assert loudness_deviation(sound, 0 * sound, 44100) == pytest.approx(loudness(sound, 44100) - SILENCE_LUFS, abs=0.5)
    assert loudness_deviation(0 * sound, sound, 44100) == 0  # where nothing was, nothing can be missed
