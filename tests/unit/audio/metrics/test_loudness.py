from __future__ import annotations

import numpy as np
import pytest

from rave_dist.audio.metrics.loudness import SILENCE_LUFS, LoudnessMeter, loudness, loudness_deviation


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


@pytest.mark.parametrize("rate", [8000, 11025, 48000])
@pytest.mark.parametrize("channels", [1, 2])
def test_a_stream_is_as_loud_as_the_whole(rate: int, channels: int) -> None:
    rng = np.random.default_rng(0)
    levels = np.repeat([0.001, 0.2, 0.0, 0.02, 0.3], 2 * rate)
    sound = (rng.standard_normal((channels, len(levels))) * levels).astype(np.float32)
    found = set()
    for size in (17, 4096, len(levels)):
        meter = LoudnessMeter(sample_rate=rate, channels=channels)
        for start in range(0, len(levels), size):
            meter.add(sound[:, start : start + size])
        found.add(meter.integrated)
    assert len(found) == 1, "whatever the blocks"
    assert found.pop() == pytest.approx(loudness(sound, rate), abs=0.02)


@pytest.mark.parametrize("seconds", [0.001, 0.39, 0.4, 0.5, 1.39, 1.4, 1.41])
def test_a_short_stream_too(seconds: float) -> None:
    sound = tone(48000, amplitude=0.1)[:, : round(48000 * seconds)]
    meter = LoudnessMeter(sample_rate=48000, channels=1)
    meter.add(sound)
    assert meter.integrated == pytest.approx(loudness(sound, 48000), abs=0.02)


def test_a_stream_can_be_measured_on_the_way() -> None:
    meter, undisturbed = (LoudnessMeter(sample_rate=8000, channels=1) for _ in range(2))
    for start in range(0, 24000, 1000):
        meter.add(tone(8000)[:, start : start + 1000])
        undisturbed.add(tone(8000)[:, start : start + 1000])
        _ = meter.integrated
    assert meter.integrated == undisturbed.integrated == pytest.approx(-3.01, abs=0.05)
