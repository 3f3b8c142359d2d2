"""Onsets of strokes and whistles, and how many of two recordings match."""

from __future__ import annotations

import numpy as np
import pytest

from rave_dist.audio.metrics.onsets import matches, onsets
from rave_dist.audio.synthesis import membrane, pink_noise, trill

RATE = 22050


def strokes(times: list[float], seconds: float = 4.0) -> np.ndarray:
    """A drum struck at these times."""
    sound, rng = np.zeros(round(seconds * RATE), np.float32), np.random.default_rng(0)
    for time in times:
        first = round(time * RATE)
        stroke = membrane(180, 0.5, sample_rate=RATE, rng=rng)[: len(sound) - first]
        sound[first : first + len(stroke)] += 0.3 * stroke
    return sound


@pytest.mark.parametrize("gain", [1.0, 0.01])
def test_strokes_are_found_where_they_begin_however_loud(gain: float) -> None:
    times = [0.5, 1.0, 1.25, 2.2, 3.4]
    found = onsets(np.float32(gain) * strokes(times), RATE)
    assert len(found) == len(times)
    assert found == pytest.approx(times, abs=0.02)


def test_each_note_of_a_whistled_trill_in_noise_is_an_onset() -> None:
    call = np.pad(trill(sample_rate=RATE, notes=14, notes_per_second=7), RATE // 2)
    noise = np.float32(0.01) * pink_noise(len(call), np.random.default_rng(1))
    expected = 0.5 + np.arange(14) / 7
    found = onsets(call.astype(np.float32) + noise, RATE)
    assert matches(expected, found) == 14
    assert len(found) <= 15


def test_steady_noise_and_silence_have_next_to_none() -> None:
    noise = np.float32(0.1) * pink_noise(20 * RATE, np.random.default_rng(2))
    assert len(onsets(noise, RATE)) <= 6
    assert not len(onsets(np.zeros(RATE, np.float32), RATE))
    assert not len(onsets(np.zeros(10, np.float32), RATE))


def test_an_onset_matches_one_other_within_50_ms() -> None:
    assert matches([1.0, 2.0], [1.05, 1.94]) == 1
    assert matches([1.0, 1.04], [1.02]) == 1
    assert matches([1.0, 1.08], [0.96, 1.04]) == 2, "the nearest pair first would leave one of each"
    assert matches([], [1.0]) == 0
