from __future__ import annotations

import numpy as np
import pytest

from rave_dist.audio.metrics.pitch import pitch_deviation, pitches

RATE = 44100


def tone(hz: float, *, rate: int = RATE, seconds: float = 1.0) -> np.ndarray:
    """A tone with overtones, as instruments have them."""
    time = np.arange(round(seconds * rate)) / rate
    return sum(0.3 / k * np.sin(2 * np.pi * k * hz * time) for k in (1, 2, 3)).astype(np.float32)


def noise(seconds: float = 1.0) -> np.ndarray:
    return 0.1 * np.random.default_rng(0).standard_normal(round(seconds * RATE)).astype(np.float32)


@pytest.mark.parametrize("rate", [16000, 44100, 48000])
@pytest.mark.parametrize("hz", [60.0, 110.0, 440.0, 987.77, 1800.0])
def test_a_tone_has_its_pitch(hz: float, rate: int) -> None:
    found = pitches(tone(hz, rate=rate), rate)
    assert len(found) > 50
    assert np.isfinite(found).all()
    assert 1200 * np.log2(found / hz) == pytest.approx(0, abs=5)


def test_a_missing_fundamental_is_heard() -> None:
    time = np.arange(RATE) / RATE
    overtones = sum(np.sin(2 * np.pi * 220 * k * time) for k in (2, 3, 4)).astype(np.float32)
    assert np.median(pitches(overtones, RATE)) == pytest.approx(220, rel=0.002)


def test_noise_and_silence_have_none() -> None:
    assert not np.isfinite(pitches(noise(), RATE)).any()
    assert not np.isfinite(pitches(np.zeros(RATE, np.float32), RATE)).any()
    assert len(pitches(tone(440)[:100], RATE)) == 0


def test_deviation_is_in_cents_and_says_how_much_pitch_is_left() -> None:
    sound = tone(440)
    assert pitch_deviation(sound, sound, RATE) == (0.0, 1.0)
    cents, kept = pitch_deviation(sound, tone(440 * 2 ** (1 / 12)), RATE)
    assert cents == pytest.approx(100, abs=1)
    assert kept == 1.0
    half = np.concatenate([sound[: RATE // 2], noise(0.5)])
    cents, kept = pitch_deviation(sound, half, RATE)
    assert cents == pytest.approx(0, abs=1)
    assert kept == pytest.approx(0.5, abs=0.05)
    assert pitch_deviation(sound, 0 * sound, RATE) == (None, 0.0)
    assert pitch_deviation(noise(), sound, RATE) == (None, None)
